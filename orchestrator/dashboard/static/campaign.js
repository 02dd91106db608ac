// The first page: fetches the parts that changed, and draws the curve of the thermal gate.
"use strict";
(() => {
  const parts = document.getElementById("parts");
  let isFetching = false, isWanted = false;

  async function refresh() {
    if (isFetching) { isWanted = true; return; }
    isFetching = true;
    try {
      const text = await JB.getText("/api/campaign/parts");
      swap(new DOMParser().parseFromString(text, "text/html"));
      parts.removeAttribute("data-stale");
    } catch (error) {
      if (!(error instanceof JB.Refusal)) throw error;
      if (!parts.dataset.stale) JB.tell(error.message, true);
      parts.dataset.stale = "yes";
    } finally {
      isFetching = false;
      if (isWanted) { isWanted = false; refresh(); }
    }
  }
  function swap(fresh) {
    for (const part of fresh.querySelectorAll("[data-part]")) {
      const shown = parts.querySelector(`[data-part="${part.dataset.part}"]`);
      if (!shown || shown.outerHTML === part.outerHTML) continue;
      const held = shown.contains(document.activeElement) ? document.activeElement : null;
      const scrolled = shown.querySelector(".events")?.scrollTop;
      shown.replaceWith(part);
      if (scrolled) part.querySelector(".events").scrollTop = scrolled;
      if (held) refocus(part, held);
    }
    JB.noteServerTime(document.getElementById("as-of").dateTime);
    JB.tick();
    drawGates();
  }
  function refocus(part, held) {
    const { control, run } = held.dataset;
    const same = control && part.querySelector(`[data-control="${control}"]${run ? `[data-run="${CSS.escape(run)}"]` : ""}`);
    const target = same || (held.href && [...part.querySelectorAll("a")].find((each) => each.href === held.href)) || part.querySelector("button, a, [tabindex]");
    if (target) target.focus({ preventScroll: true });
  }
  function drawGates() {
    for (const canvas of parts.querySelectorAll("canvas.gate")) {
      const points = JSON.parse(canvas.dataset.curve || "[]");
      const lines = [["limit", "--suspect"], ["idle", "--soft"]]
        .filter(([name]) => canvas.dataset[name] !== "")
        .map(([name, color]) => ({ value: Number(canvas.dataset[name]), color, word: name === "limit" ? "opens here" : "idle", below: name === "idle" }));
      StripChart.draw(canvas, { series: [{ color: "--c1", times: points.map((p) => p[0]), values: points.map((p) => p[1]) }], unit: "°C", lines, least: 2 });
    }
  }
  JB.noteServerTime(document.getElementById("as-of").dateTime);
  JB.tick();
  drawGates();
  document.addEventListener("jb-theme", drawGates);
  addEventListener("resize", drawGates);
  document.addEventListener("jb-changed", refresh);
  JB.listen("campaign", refresh);
  // A cooldown's curve grows, and estimates move, without an event.
  setInterval(() => { if (!document.hidden && parts.querySelector(".cooldown")) refresh(); }, 3000);
  setInterval(() => { if (!document.hidden) refresh(); }, 20000);
})();
