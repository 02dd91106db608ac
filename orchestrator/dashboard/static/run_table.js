// The run table: asks for other rows without another page, keeps the address in step, and is walked with the keys.
"use strict";
(() => {
  const place = document.getElementById("rows"), form = document.getElementById("filters");
  let controller = null, typing = 0;
  const addressOf = (href) => { const url = new URL(href, location.href); return url.pathname + url.search; };

  async function show(address, { keeps = false, push = true } = {}) {
    if (controller) controller.abort();
    const mine = controller = new AbortController();
    if (!keeps) place.setAttribute("aria-busy", "true");
    try {
      const text = await JB.getText(address.replace(/^\/runs/, "/api/runs/rows"), { signal: mine.signal });
      if (mine.signal.aborted) return;
      swap(text);
      if (push) history.pushState({}, "", address);
    } catch (error) {
      if (mine.signal.aborted) return;
      if (!(error instanceof JB.Refusal)) throw error;
      if (!keeps) JB.tell(error.message, true);
    } finally {
      if (controller === mine) { controller = null; place.removeAttribute("aria-busy"); }
    }
  }
  function swap(text) {
    const active = document.activeElement, isInside = place.contains(active);
    const run = isInside && active.closest("tr[data-run]")?.dataset.run, sort = isInside && active.matches(".sort") && active.textContent;
    const rel = isInside && active.rel, scrolled = place.querySelector(".scroll")?.scrollLeft || 0;
    place.innerHTML = text;
    const box = place.querySelector(".scroll");
    if (box) box.scrollLeft = scrolled;
    if (!isInside) return;
    const again = (run && place.querySelector(`tr[data-run="${CSS.escape(run)}"] .run-link`)) || (sort && [...place.querySelectorAll(".sort")].find((each) => each.textContent === sort))
      || (rel && place.querySelector(`a[rel="${rel}"]`)) || place.querySelector(".run-link, a");
    if (again) again.focus({ preventScroll: true });
  }
  function asked() {
    const values = new URLSearchParams();
    for (const [name, value] of new FormData(form)) if (value && !(name === "sort" && value === "position")) values.append(name, value);
    const text = values.toString();
    return text ? `/runs?${text}` : "/runs";
  }
  form.addEventListener("submit", (event) => { event.preventDefault(); show(asked()); });
  form.addEventListener("change", (event) => { if (event.target.matches("select")) show(asked()); });
  form.elements.search.addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(() => show(asked(), { push: false }), 120); });
  document.getElementById("clear").addEventListener("click", (event) => {
    event.preventDefault();
    for (const each of form.elements) if (each.name && each.name !== "sort") each.value = "";
    show(asked());
  });
  place.addEventListener("click", (event) => {
    const link = event.target.closest("a.sort, .pager a, .empty a");
    if (link && !event.ctrlKey && !event.metaKey && !event.shiftKey) {
      event.preventDefault();
      const address = addressOf(link.href);
      form.elements.sort.value = new URL(link.href).searchParams.get("sort") || "position";
      if (link.closest(".empty")) { form.reset(); for (const each of form.elements) if (each.name && each.name !== "sort") each.value = ""; }
      show(address);
      return;
    }
    const row = event.target.closest("tr[data-run]");
    if (row && !event.target.closest("a, button") && !String(getSelection())) row.querySelector(".run-link").click();
  });
  addEventListener("popstate", () => {
    const values = new URLSearchParams(location.search);
    for (const each of form.elements) if (each.name) each.value = values.get(each.name) || (each.name === "sort" ? "position" : "");
    show(addressOf(location.href), { push: false });
  });

  // Arrow keys walk the rows; a link has the focus, so Enter opens it and a screen reader tells it.
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    if (event.target.closest("input, select, textarea")) return;
    const links = [...place.querySelectorAll(".run-link")], at = links.indexOf(document.activeElement.closest("tr")?.querySelector(".run-link"));
    const move = { ArrowDown: at + 1, ArrowUp: at < 0 ? links.length - 1 : at - 1, Home: 0, End: links.length - 1 }[event.key];
    if (move !== undefined && links.length && (at >= 0 || event.key.startsWith("Arrow"))) {
      event.preventDefault();
      links[Math.max(0, Math.min(links.length - 1, move))].focus();
    } else if (event.key === "PageDown" || event.key === "PageUp") {
      const link = place.querySelector(event.key === "PageDown" ? 'a[rel="next"]' : 'a[rel="prev"]');
      if (link) { event.preventDefault(); link.click(); }
    }
  });
  document.addEventListener("jb-changed", () => show(addressOf(location.href), { keeps: true, push: false }));
  JB.listen("campaign", () => { if (!controller) show(addressOf(location.href), { keeps: true, push: false }); });
  if (location.hash === "#search") form.elements.search.focus();
})();
