// The page of a run: figures and answers come after the first paint; the story is fetched again while the run goes on.
"use strict";
(() => {
  const root = document.getElementById("run");
  const base = `/runs/${encodeURIComponent(root.dataset.run)}`;

  function problem(node, error) {
    if (!(error instanceof JB.Refusal)) throw error;
    const line = document.createElement("p");
    line.className = "waiting wrong-text";
    line.textContent = error.message;
    node.replaceChildren(line);
  }

  async function drawFigures() {
    const node = document.getElementById("figures");
    let found;
    try { found = await JB.getJson(`/api${base}/figures`); } catch (error) { problem(node, error); return; }
    node.replaceChildren();
    const plots = [];
    for (const each of found.figures) plots.push(await JBFigure.block(node, each));
    for (const said of found.missing) { const line = document.createElement("p"); line.className = found.figures.length ? "soft" : "waiting"; line.textContent = said; node.append(line); }
    link(plots);
  }
  // A part of the time that is looked at in one is looked at in all.
  function link(plots) {
    let isFollowing = false;
    for (const plot of plots) {
      plot.on("plotly_relayout", async (change) => {
        if (isFollowing) return;
        const range = change["xaxis.autorange"] ? { "xaxis.autorange": true }
          : change["xaxis.range[0]"] !== undefined ? { "xaxis.range": [change["xaxis.range[0]"], change["xaxis.range[1]"]] } : null;
        if (!range) return;
        isFollowing = true;
        await Promise.all(plots.filter((other) => other !== plot).map((other) => Plotly.relayout(other, range)));
        isFollowing = false;
      });
    }
  }

  async function showAnswers(only = "all", offset = 0, isAsked = false) {
    const node = document.getElementById("answers");
    node.setAttribute("aria-busy", "true");
    try { node.innerHTML = await JB.getText(`${base}/answers?only=${only}&offset=${offset}`); } catch (error) { problem(node, error); }
    node.removeAttribute("aria-busy");
    node.dataset.only = only;
    if (isAsked) node.querySelector(`[data-only="${only}"]`)?.focus();
  }
  document.getElementById("answers").addEventListener("click", (event) => {
    const button = event.target.closest("button[data-only], button[data-offset]");
    if (!button) return;
    if (button.dataset.only) showAnswers(button.dataset.only, 0, true);
    else { showAnswers(event.currentTarget.dataset.only, Number(button.dataset.offset)); document.getElementById("answers-title").scrollIntoView(); }
  });

  async function refresh() {
    let now;
    try { now = await JB.getJson(`/api${base}`); } catch (error) { if (!(error instanceof JB.Refusal)) throw error; return; }
    if (now.version === root.dataset.version && !isStale) return;
    isStale = false;
    let text;
    try { text = await JB.getText(`${base}/story`); } catch (error) { if (!(error instanceof JB.Refusal)) throw error; return; }
    const parts = document.createElement("template");
    parts.innerHTML = text;
    for (const part of parts.content.querySelectorAll("[data-part]")) root.querySelector(`[data-part="${part.dataset.part}"]`).innerHTML = part.innerHTML;
    root.dataset.version = now.version;
    root.dataset.open = ["TODO", "RUNNING"].includes(now.state) ? "yes" : "no";
    if (now.attempts.some((each) => each.result)) { drawFigures(); showAnswers(); }
  }
  let isStale = false;
  // An open run changes every few seconds; an ended one when somebody retries or excludes it.
  let ticks = 0;
  setInterval(() => { ticks += 1; if (!document.hidden && (root.dataset.open === "yes" ? ticks % 2 === 0 : ticks % 10 === 0)) refresh(); }, 2000);
  document.addEventListener("jb-changed", () => { isStale = true; refresh(); });

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea") || document.querySelector("dialog[open]")) return;
    if (event.key === "k") document.getElementById("before")?.click();
    if (event.key === "j") document.getElementById("after")?.click();
  });
  if (root.dataset.hasResult === "yes") { drawFigures(); showAnswers(); }
})();
