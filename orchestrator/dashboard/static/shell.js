// What every page has: theme, shortcuts, messages, questions, controls, and the one connection that tells what changed.
"use strict";
window.JB = (() => {
  const $ = (id) => document.getElementById(id);
  const isWritable = document.body.dataset.writable === "yes";

  // --- Theme -------------------------------------------------------------------------------------------------------
  const themes = ["auto", "dark", "light"];
  const themeNow = () => document.documentElement.dataset.theme || "auto";
  function setTheme(theme) {
    if (theme === "auto") { delete document.documentElement.dataset.theme; localStorage.removeItem("joulebed-theme"); }
    else { document.documentElement.dataset.theme = theme; localStorage.setItem("joulebed-theme", theme); }
    tellTheme();
    document.dispatchEvent(new CustomEvent("jb-theme"));
  }
  function tellTheme() {
    const word = { auto: "automatic", dark: "dark", light: "light" }[themeNow()];
    $("theme").setAttribute("aria-label", `Theme: ${word}`);
    $("theme-word").textContent = themeNow();
  }
  const nextTheme = () => setTheme(themes[(themes.indexOf(themeNow()) + 1) % themes.length]);
  $("theme").addEventListener("click", nextTheme);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => document.dispatchEvent(new CustomEvent("jb-theme")));
  tellTheme();
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  // --- Messages ----------------------------------------------------------------------------------------------------
  function tell(text, isWrong = false) {
    const line = document.createElement("p");
    line.textContent = text;
    if (isWrong) line.className = "wrong";
    $("told").append(line);
    while ($("told").children.length > 3) $("told").firstChild.remove();
    setTimeout(() => line.remove(), isWrong ? 12000 : 6000);
  }

  // --- Requests ----------------------------------------------------------------------------------------------------
  class Refusal extends Error {}
  async function ask(address, options = {}) {
    let response;
    try { response = await fetch(address, { credentials: "same-origin", ...options }); }
    catch { throw new Refusal("The dashboard does not answer. It may have been stopped; look at its terminal."); }
    if (response.status === 401) throw new Refusal("The dashboard asks for its token again: reload this page.");
    if (!response.ok) {
      const body = await response.json().catch(() => ({}));
      throw new Refusal(body.message || `The dashboard answered ${response.status}.`);
    }
    return response;
  }
  const getJson = async (address, options) => (await ask(address, options)).json();
  const getText = async (address, options) => (await ask(address, options)).text();
  const post = async (address, body) =>
    (await ask(address, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) })).json();

  // Parts that wait are dimmed, if they wait for long: it costs as much as painting them. Ends with the function it gives.
  function busy(...nodes) {
    const timer = setTimeout(() => nodes.forEach((node) => node.setAttribute("aria-busy", "true")), 150);
    return () => { clearTimeout(timer); nodes.forEach((node) => node.removeAttribute("aria-busy")); };
  }

  // --- Questions before something is changed -----------------------------------------------------------------------
  // Resolves with {name, reason}, or with null.
  function question({ title, text, yes = "Yes", wantsReason = false, needsReason = false, isDanger = false }) {
    const dialog = $("ask");
    if (!dialog) return Promise.resolve(null);
    $("ask-title").textContent = title;
    $("ask-text").textContent = text;
    $("ask-reason-label").hidden = !wantsReason;
    $("ask-reason").value = "";
    $("ask-reason").required = needsReason;
    $("ask-name").value = localStorage.getItem("joulebed-name") || "";
    $("ask-yes").textContent = yes;
    $("ask-yes").classList.toggle("danger", isDanger);
    $("ask-error").hidden = true;
    dialog.returnValue = "";
    dialog.showModal();
    (wantsReason ? $("ask-reason") : $("ask-yes")).focus();
    return new Promise((resolve) => {
      dialog.addEventListener("close", () => {
        if (dialog.returnValue !== "yes") { resolve(null); return; }
        const name = $("ask-name").value.trim();
        localStorage.setItem("joulebed-name", name);
        resolve({ name, reason: $("ask-reason").value.trim() });
      }, { once: true });
    });
  }
  if ($("ask")) $("ask-cancel").addEventListener("click", () => $("ask").close("cancel"));

  const QUESTIONS = {
    pause: () => ({ title: "Pause the campaign?", text: "The trial that runs now is finished first; no other begins until somebody resumes it.", yes: "Pause", wantsReason: true }),
    resume: () => ({ title: "Resume the campaign?", text: "The next trial begins, after its cooldown.", yes: "Resume" }),
    retry: (run) => ({ title: `Measure ${run} again?`, text: "It gets new attempts. What it has so far stays as evidence.", yes: "Retry" }),
    exclude: (run) => ({ title: `Exclude ${run}?`, text: "It is left out of every statistic, and named there with this reason. Its files stay.", yes: "Exclude", wantsReason: true, needsReason: true }),
    include: (run) => ({ title: `Include ${run} again?`, text: "It counts in the statistics again.", yes: "Include" }),
  };
  async function control(button) {
    const { control: what, run } = button.dataset;
    const answer = await question(QUESTIONS[what](run));
    if (!answer) { button.focus(); return; }
    const address = run ? `/api/runs/${encodeURIComponent(run)}/${what}` : `/api/${what}`;
    button.disabled = true;
    try {
      tell((await post(address, answer)).message);
      document.dispatchEvent(new CustomEvent("jb-changed"));
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      tell(error.message, true);
    } finally { button.disabled = false; }
  }
  // Any button with data-control, and data-run where it is about a run, on any page.
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-control]");
    if (button && isWritable) control(button);
  });

  // --- Times that go on by themselves ------------------------------------------------------------------------------
  function span(seconds) {
    if (seconds < 60) return `${Math.max(0, Math.round(seconds))} s`;
    const pair = (large, unit, small, smallUnit) => (small ? `${large} ${unit} ${small} ${smallUnit}` : `${large} ${unit}`);
    const s = Math.round(seconds);
    if (s < 3600) return pair(Math.floor(s / 60), "min", s % 60, "s");
    if (s < 86400) return pair(Math.floor(s / 3600), "h", Math.floor((s % 3600) / 60), "min");
    return pair(Math.floor(s / 86400), "d", Math.floor((s % 86400) / 3600), "h");
  }
  let skewMs = 0; // the server's clock less this one's: a laptop's clock may be wrong
  const noteServerTime = (iso) => { const at = Date.parse(iso); if (at) skewMs = at - Date.now(); };
  function tick() {
    const now = Date.now() + skewMs;
    for (const each of document.querySelectorAll("[data-since]")) each.textContent = span((now - Date.parse(each.dataset.since)) / 1000);
    for (const each of document.querySelectorAll("[data-until]")) each.textContent = span((Date.parse(each.dataset.until) - now) / 1000);
  }
  setInterval(() => { if (!document.hidden) tick(); }, 1000);

  // --- Keyboard ----------------------------------------------------------------------------------------------------
  const pages = { c: "/", r: "/runs", v: "/comparison", p: "/report" };
  let wasG = 0;
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    if (event.target.closest("input, select, textarea, [contenteditable]")) return;
    if (Date.now() - wasG < 1500 && pages[event.key]) { location.href = pages[event.key]; return; }
    wasG = event.key === "g" ? Date.now() : 0;
    if (event.key === "?") $("help").showModal();
    else if (event.key === "t") nextTheme();
    else if (event.key === "/" && $("search")) { event.preventDefault(); $("search").focus(); }
    else if (event.key === "/") location.href = "/runs#search";
  });
  $("help-open").addEventListener("click", () => $("help").showModal());

  // --- The one connection ------------------------------------------------------------------------------------------
  // Opens /api/stream, hands events to listeners, and opens it again whenever it breaks or falls silent. A page that
  // nobody sees lets go of it: it would cost the testbed's telemetry for nothing, and browsers allow few connections.
  const SILENT_MS = 20000, HIDDEN_MS = 30000;
  let source = null, listeners = {}, heardAt = 0, tries = 0, timer = 0, hiding = 0;
  // What this page was made from: the first thing that the stream tells is most often just that.
  let shownVersion = document.body.dataset.version;
  function connection(state, word) {
    const mark = $("connection");
    mark.hidden = false; mark.dataset.state = state; mark.textContent = word;
    document.dispatchEvent(new CustomEvent("jb-connection", { detail: state }));
  }
  function open() {
    clearTimeout(timer);
    if (source) source.close();
    source = new EventSource("/api/stream");
    heardAt = Date.now();
    source.onopen = () => { heardAt = Date.now(); tries = 0; connection("live", "live"); };
    source.onerror = () => lost();
    for (const name of ["beat", ...Object.keys(listeners)]) attach(name);
  }
  function attach(name) {
    source.addEventListener(name, (event) => {
      heardAt = Date.now();
      const data = JSON.parse(event.data);
      if (name === "campaign") {
        const isShown = String(data.version) === shownVersion;
        shownVersion = "";
        if (isShown) return;
      }
      for (const listener of listeners[name] || []) listener(data);
    });
  }
  function lost() {
    if (source) source.close();
    source = null;
    shownVersion = "";
    tries += 1;
    connection("lost", "reconnecting");
    clearTimeout(timer);
    timer = setTimeout(open, Math.min(30000, 500 * 2 ** Math.min(tries, 6)));
  }
  function listen(name, listener) {
    if (document.body.dataset.frozen === "yes") return; // nothing will change
    if (source && !listeners[name] && name !== "beat") attach(name);
    (listeners[name] ||= []).push(listener);
    if (Object.keys(listeners).length === 1 && listeners[name].length === 1) {
      connection("off", "connecting");
      // After all scripts of the page have said what they want: what is told once at the start would be lost.
      if (document.readyState === "complete") open();
      else document.addEventListener("DOMContentLoaded", open, { once: true });
      setInterval(() => { if (source && Date.now() - heardAt > SILENT_MS) lost(); }, 5000);
      document.addEventListener("visibilitychange", () => {
        clearTimeout(hiding);
        if (document.hidden) hiding = setTimeout(() => { if (source) source.close(); source = null; clearTimeout(timer); connection("off", "resting"); }, HIDDEN_MS);
        else if (!source) open();
      });
      addEventListener("pagehide", () => { if (source) source.close(); source = null; });
      addEventListener("pageshow", (event) => { if (event.persisted) open(); });
    }
  }
  return { ask, getJson, getText, post, busy, tell, question, listen, color, span, tick, noteServerTime, Refusal, isWritable };
})();
