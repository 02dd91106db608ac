// The comparison: parts of the page come from the server, ready to be shown; the figures in them are data.
"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const start = JSON.parse($("start").textContent);
  let version = -1, treatments = [], aborting = null, pairAborting = null;
  const query = new URLSearchParams(location.search);

  // --- What holds for all ------------------------------------------------------------------------------------------
  function readFacts() {
    const node = $("facts");
    $("results").hidden = !node;
    if (!node) return false;
    const facts = JSON.parse(node.textContent);
    treatments = facts.treatments;
    $("treatments").replaceChildren(...treatments.slice(0, 2000).map((label) => new Option(label, label)));
    if (!$("levels").children.length) {
      for (const { name, levels } of facts.factors) {
        if (levels.length < 2 || levels.length > 60) continue;
        const label = document.createElement("label"), select = document.createElement("select");
        select.name = `factor.${name}`;
        select.append(new Option("all", ""), ...levels.map((level) => new Option(level, level)));
        label.append(name, select);
        $("levels").append(label);
      }
      for (const field of $("choice").elements) if (query.has(field.name)) field.value = query.get(field.name);
    }
    return true;
  }

  function tellState(state) {
    const parts = [];
    if (state.version > 0 && state.at) {
      const at = new Date(state.at), clock = at.toISOString().slice(11, 16);
      parts.push(`As of ${state.n_counted} of ${state.n_planned} runs, ${clock} UTC`);
    }
    if (state.is_making) parts.push(state.version ? "a newer one is on its way" : "reading the results");
    else if (state.has_news) parts.push(`there are newer results: read again in ${JB.span(state.wait_s)} (it took ${JB.span(Math.max(1, state.cost_s))}, and takes at most ${Math.round(start.share * 100)} % of the time)`);
    const node = $("asof");
    const text = `${parts.join("; ")}${parts.length ? "." : ""}`;
    if (node.textContent !== text) {
      node.textContent = text;
      if (state.is_making) { const spin = document.createElement("span"); spin.className = "spin"; spin.setAttribute("aria-hidden", "true"); node.prepend(spin); }
    }
  }

  // --- Some treatments ---------------------------------------------------------------------------------------------
  function choiceQuery() {
    const found = new URLSearchParams();
    for (const field of $("choice").elements) if (field.name && field.value && !(field.name === "sort" && field.value === "design") && !(field.name === "limit" && field.selectedIndex === 0)) found.set(field.name, field.value);
    return found;
  }
  function remember() {
    const all = choiceQuery();
    for (const side of ["first", "second"]) { const i = treatments.indexOf($(`pair-${side}`).value); if (i >= 0) all.set(side, i); }
    history.replaceState(null, "", `${location.pathname}${[...all].length ? `?${all}` : ""}`);
  }
  async function showView() {
    if (aborting) aborting.abort();
    const { signal } = (aborting = new AbortController());
    const node = $("view"), plots = $("plots");
    const done = JB.busy(node), drawn = JB.busy(plots);
    try {
      const text = await JB.getText(`/comparison/tables?${choiceQuery()}`, { signal });
      if (signal.aborted) return;
      node.innerHTML = text;
      $("matching-line").textContent = $("matching").textContent;
      $("matching").remove();
      done();
      await drawAll(signal);
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof JB.Refusal)) throw error;
      JB.tell(error.message, true);
    } finally { done(); drawn(); }
  }
  // One after the other, so that a table that is asked for meanwhile waits for one at most. Figures that stay are drawn
  // anew in their place: quicker, and nothing jumps.
  async function drawAll(signal) {
    const plots = $("plots"), not = [], asked = choiceQuery();
    for (const name of start.figures) {
      const each = await JB.getJson(`/api/comparison/figures/${name}?${asked}`, { signal });
      if (signal.aborted) return;
      let box = plots.querySelector(`[data-name="${name}"]`);
      if (!each.figure) {
        if (box) { JBFigure.forget(box.querySelector(".plot")); box.remove(); }
        if (each.missing) not.push(Object.assign(document.createElement("p"), { className: "soft", textContent: `Not drawn: ${each.missing}` }));
        continue;
      }
      if (!box) { box = Object.assign(document.createElement("section"), { className: "card" }); box.dataset.name = name; }
      plots.append(box);
      await JBFigure.into(box, { ...each, isLazy: true });
      await new Promise((resolve) => setTimeout(resolve)); // let the page breathe between two figures
      if (signal.aborted) return;
    }
    $("not-drawn").replaceChildren(...not);
  }
  let typing = 0;
  $("choice").addEventListener("input", (event) => { clearTimeout(typing); typing = setTimeout(() => { remember(); showView(); }, event.target.type === "search" ? 80 : 0); });
  $("choice").addEventListener("submit", (event) => event.preventDefault());

  // --- Two treatments ----------------------------------------------------------------------------------------------
  function find(text) {
    const exact = treatments.indexOf(text);
    if (exact >= 0) return exact;
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    const near = words.length ? treatments.map((label, i) => [label.toLowerCase(), i]).filter(([label]) => words.every((word) => label.includes(word))) : [];
    return near.length === 1 ? near[0][1] : -1;
  }
  async function showPair() {
    const sides = ["first", "second"].map((side) => $(`pair-${side}`)), [first, second] = sides.map((side) => find(side.value));
    const node = $("pair");
    sides.forEach((side, i) => side.setAttribute("aria-invalid", String(Boolean(side.value) && [first, second][i] < 0)));
    if (first < 0 || second < 0) { JBFigure.forget(node.querySelector(".plot")); node.replaceChildren(); return; }
    [first, second].forEach((i, at) => { sides[at].value = treatments[i]; });
    remember();
    if (pairAborting) pairAborting.abort();
    const { signal } = (pairAborting = new AbortController());
    const done = JB.busy(node);
    try { node.innerHTML = await JB.getText(`/comparison/pair?first=${first}&second=${second}`, { signal }); }
    catch (error) { if (signal.aborted || error.name === "AbortError") return; if (!(error instanceof JB.Refusal)) throw error; JB.tell(error.message, true); return; }
    finally { done(); }
    let drawn;
    try { drawn = await JB.getJson(`/api/comparison/pair/figure?first=${first}&second=${second}`, { signal }); }
    catch (error) { if (signal.aborted || error.name === "AbortError") return; if (!(error instanceof JB.Refusal)) throw error; JB.tell(error.message, true); return; }
    if (drawn.figure && !signal.aborted) await JBFigure.into($("pair-plot"), { figure: drawn.figure, text: "Points are runs, diamonds means with 95 % intervals; the table above has the numbers.", level: "h3" });
  }
  $("pair-form").addEventListener("change", showPair);
  $("pair-form").addEventListener("submit", (event) => { event.preventDefault(); showPair(); });
  $("view").addEventListener("click", (event) => {
    const button = event.target.closest("button[data-pair]");
    if (!button) return;
    const label = treatments[Number(button.dataset.pair)];
    const side = !$("pair-first").value || ($("pair-first").value && $("pair-second").value) ? "first" : "second";
    if (side === "first") $("pair-second").value = "";
    $(`pair-${side}`).value = label;
    if (side === "first") JB.tell(`First: ${label}. Press “compare” in a second row.`);
    else $("pair-title").scrollIntoView();
    showPair();
  });

  // --- News --------------------------------------------------------------------------------------------------------
  let timer = 0;
  async function look() {
    clearTimeout(timer);
    let state = null;
    if (!document.hidden) try { state = await JB.getJson("/api/comparison"); } catch (error) { if (!(error instanceof JB.Refusal)) throw error; $("asof").textContent = error.message; }
    if (state) {
      tellState(state);
      if (state.version !== version && (state.version > 0 || version < 0)) await renew(state.version, true);
    }
    timer = setTimeout(look, state?.is_making ? 1500 : 5000);
  }
  async function renew(now, isFetched) {
    version = now;
    if (isFetched) $("overview").innerHTML = await JB.getText("/comparison/overview");
    const before = treatments.length;
    if (!readFacts()) return;
    if (!before) for (const side of ["first", "second"]) if (query.has(side) && treatments[Number(query.get(side))]) $(`pair-${side}`).value = treatments[Number(query.get(side))];
    await showView();
    if ($("pair-first").value) await showPair();
  }
  tellState(start.status);
  if ($("facts")) renew(start.status.version, false).then(() => { timer = setTimeout(look, 5000); });
  else { version = start.status.version; readFacts(); timer = setTimeout(look, 1000); }
  document.addEventListener("jb-changed", look);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) look(); });
})();
