// Draws plotly's figures in the page's own look, in both themes and at any width. Nothing is fetched here.
"use strict";
window.JBFigure = (() => {
  const drawn = new Map();
  const { nonce, dataset } = document.currentScript;

  // Plotly is large: it is loaded after the first paint, not before it.
  const ready = new Promise((resolve, reject) => {
    const load = () => {
      // While it loads it makes a style element (for its maps), which needs the nonce.
      document.createElement = (...given) => {
        const made = Document.prototype.createElement.apply(document, given);
        if (made instanceof HTMLStyleElement) made.nonce = nonce;
        return made;
      };
      const script = document.createElement("script");
      Object.assign(script, { nonce, src: dataset.plotly });
      script.onload = () => { delete document.createElement; resolve(); };
      script.onerror = () => { delete document.createElement; reject(new JB.Refusal("The figures' script cannot be loaded. Reload this page.")); };
      document.head.append(script);
    };
    if (document.hidden) setTimeout(load);
    else requestAnimationFrame(() => setTimeout(load));
  });
  ready.catch((error) => JB.tell(error.message, true));
  const narrow = () => innerWidth < 720;
  const OPTIONS = { displaylogo: false, responsive: true, modeBarButtonsToRemove: ["lasso2d", "select2d", "sendDataToCloud"] };

  // Colours that vanish on one of the two grounds are replaced by the ink.
  const LIGHTER = { "#0072B2": "#5aaeea", "#D55E00": "#f59152", "#009E73": "#3fcfa2", "#CC79A7": "#e6a3ca" };
  const isDark = () => getComputedStyle(document.documentElement).colorScheme.includes("dark");
  const inked = (value) => (value === "black" || value === "#000000" || value === "#00224e" ? JB.color("--ink") : (isDark() && LIGHTER[value]) || value);
  function shown(figure) {
    const ink = JB.color("--ink"), soft = JB.color("--soft"), line = JB.color("--line");
    const data = figure.data.map((trace) => {
      const copy = { ...trace };
      if (trace.marker) {
        copy.marker = { ...trace.marker };
        copy.marker.color = Array.isArray(trace.marker.color) ? trace.marker.color.map(inked) : inked(trace.marker.color);
        if (trace.marker.line) copy.marker.line = { ...trace.marker.line, color: ink };
      }
      if (trace.line) copy.line = { ...trace.line, color: inked(trace.line.color) };
      if (trace.name === "Pareto front") copy.line = { ...copy.line, color: soft };
      for (const error of ["error_x", "error_y"]) if (trace[error]) copy[error] = { color: soft, thickness: 1, ...trace[error] };
      return copy;
    });
    const axis = (given, isY) => ({
      ...given, color: soft, gridcolor: line, linecolor: soft, zerolinecolor: line, zeroline: false, showline: true, ticks: "outside", tickcolor: line,
      title: { ...(given?.title || {}), text: narrow() && !isY ? (given?.title?.text || "").replace("), ", "),<br>") : given?.title?.text, font: { color: soft, size: narrow() ? 11 : 12 } },
      ...(isY && given?.ticktext && narrow() ? { ticktext: given.ticktext.map(shortened), tickfont: { size: 10 } } : {}),
      ...(isY ? { automargin: true } : {}),
      ...(!isY && narrow() && given?.type === "log" ? { dtick: 1 } : {}),
    });
    const given = figure.layout;
    const layout = {
      ...given, paper_bgcolor: "transparent", plot_bgcolor: "transparent", autosize: true, dragmode: narrow() ? false : "zoom",
      font: { ...(given.font || {}), color: ink, size: narrow() ? 11 : 12 },
      margin: { ...given.margin, l: narrow() ? 42 : given.margin?.l, r: 12, t: 30 },
      hoverlabel: { bgcolor: JB.color("--raised"), bordercolor: soft, font: { color: ink }, align: "left", namelength: -1 },
      modebar: { bgcolor: "transparent", color: soft, activecolor: ink },
      xaxis: axis(given.xaxis, false), yaxis: axis(given.yaxis, true),
      legend: { ...(given.legend || {}), font: { color: ink, size: 11 } },
    };
    if (given.annotations) layout.annotations = given.annotations.map((each) => ({ ...each, font: { ...(each.font || {}), color: soft } }));
    return { data, layout };
  }
  const shortened = (text) => (text.length > 20 ? `${text.slice(0, 9)}…${text.slice(-10)}` : text);

  // node: where; figure: plotly's JSON; label: what it shows, for those who do not see it.
  async function draw(node, figure, label) {
    drawn.set(node, { figure, label });
    node.setAttribute("role", "group"); // not img: plotly puts buttons into it
    node.setAttribute("aria-label", label);
    node.style.minHeight = `${figure.layout.height || 320}px`;
    await ready;
    if (drawn.get(node)?.figure !== figure) return; // another one was asked for meanwhile
    const { data, layout } = shown(figure);
    await Plotly.react(node, data, layout, OPTIONS);
    // Its buttons are icons without words; the keyboard has nothing to do in there.
    for (const each of node.querySelectorAll(".modebar-btn")) { each.setAttribute("tabindex", "-1"); each.setAttribute("aria-hidden", "true"); }
    node.style.minHeight = "";
  }
  function forget(node) {
    if (node && drawn.delete(node) && window.Plotly) Plotly.purge(node);
  }
  // A figure with its heading, what was left out, and its text; drawn anew where the box has one already.
  async function into(box, { figure, text, level = "h3", isLazy = false }) {
    const meta = figure.layout.meta || {};
    if (!box.querySelector(".plot")) {
      const inner = document.createElement("figure");
      inner.className = "figure";
      inner.append(document.createElement(level), Object.assign(document.createElement("div"), { className: "plot" }),
        Object.assign(document.createElement("p"), { className: "soft thinned" }), Object.assign(document.createElement("p"), { className: "soft said" }));
      box.append(inner);
    }
    box.querySelector(level).textContent = meta.title || "";
    box.querySelector(".thinned").textContent = meta.thinned || "";
    box.querySelector(".thinned").hidden = !meta.thinned;
    box.querySelector(".said").textContent = text || "";
    const plot = box.querySelector(".plot"), label = `${meta.title || "Figure"}. ${text || ""}`.trim();
    if (!isLazy) { await draw(plot, figure, label); return plot; }
    // Drawing takes the page's own time: what nobody sees waits until somebody does.
    pending.set(plot, { figure, label });
    plot.style.minHeight = `${figure.layout.height || 320}px`;
    near.unobserve(plot);
    near.observe(plot);
    return plot;
  }
  const pending = new WeakMap();
  const near = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      const waiting = pending.get(target);
      if (!isIntersecting || !waiting || !target.isConnected) continue;
      pending.delete(target);
      draw(target, waiting.figure, waiting.label);
    }
  }, { rootMargin: "150px" });
  async function block(parent, what) {
    const box = document.createElement("div");
    parent.append(box);
    return into(box, what);
  }
  let width = narrow();
  addEventListener("resize", () => { if (width !== narrow()) { width = narrow(); redraw(); } });
  function redraw() {
    for (const [node, { figure, label }] of drawn) {
      if (!node.isConnected) { drawn.delete(node); continue; }
      draw(node, figure, label);
    }
  }
  document.addEventListener("jb-theme", redraw);
  return { draw, into, block, forget };
})();
