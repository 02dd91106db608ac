// The run table: asks for other rows without another page, keeps the address in step, and is walked with the keys.
"use strict";
(() => {
  const place = document.getElementById("rows"), form = document.getElementById("filters");
  let controller = null, typing = 0, shownText = "", isOld = false;
  const addressOf = (href) => { const url = new URL(href, location.href); return url.pathname + url.search; };
  let here = addressOf(location.href);
  // The bar follows after the rows are painted: with a new address the browser draws the page's icon again first.
  function tellAddress(how) {
    const address = here;
    requestAnimationFrame(() => setTimeout(() => { if (here === address) history[`${how}State`]({}, "", address); }));
  }

  // how: "push" or "replace" what the browser's bar says.
  async function show(address, how = "push") {
    if (controller) controller.abort();
    const mine = controller = new AbortController(), done = how ? JB.busy(place) : () => {};
    try {
      const text = await JB.getText(address.replace(/^\/runs/, "/api/runs/rows"), { signal: mine.signal });
      if (mine.signal.aborted) return;
      // Most changes of a campaign are to other rows than these.
      if (text !== shownText) swap(shownText = text);
      here = address;
      if (how) tellAddress(how);
    } catch (error) {
      if (mine.signal.aborted) return;
      if (!(error instanceof JB.Refusal)) throw error;
      if (how) JB.tell(error.message, true);
    } finally {
      done();
      if (controller === mine) {
        controller = null;
        if (isOld) refresh();
      }
    }
  }
  function refresh() {
    isOld = Boolean(controller); // what is on its way may be of before the change
    if (!isOld) show(here, "");
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
  form.elements.search.addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(() => show(asked(), "replace"), 80); });
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
    show(here = addressOf(location.href), "");
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
  document.addEventListener("jb-changed", refresh);
  JB.listen("campaign", refresh);
  if (location.hash === "#search") form.elements.search.focus();
})();
