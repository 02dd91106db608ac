// Live power of the running trial: what the testbed's own sampling took, as it arrives. Bounded in every direction.
"use strict";
(() => {
  const WINDOW_S = 600, MAX_POINTS = 4000, MAX_SERIES = 24;
  const QUANTITIES = [
    ["power_w", "Power", "W", 1], ["temp_c", "Temperature", "°C", 2], ["clock_mhz", "Clock", "MHz", 100], ["utilisation", "Utilisation", "%", 10],
  ];
  const BANDS = { CLAIMED: "cooling", SUBMITTED: "cooling", LOADING: "load", BASELINE: "baseline", WARMUP: "warmup", MEASURING: "measure", COLLECTING: "cooling" };
  const FINAL = new Set(["SUCCEEDED", "SUSPECT", "FAILED", "CANCELLED", "TIMED_OUT", "LOST"]);
  const box = document.getElementById("live-charts"), note = document.getElementById("live-note"), bands = document.getElementById("live-bands");
  const beds = new Map(); // testbed -> {attempt, run, state, marks, series: Map, colors: Map, nowS, away, done, n, isPast: the curve is of an earlier trial}
  let drawing = 0, points = 0;

  function bedOf(name) {
    if (!beds.has(name)) beds.set(name, { attempt: null, run: null, state: null, marks: [], series: new Map(), colors: new Map(), nowS: 0, away: "", done: 0, n: 0, isPast: false });
    return beds.get(name);
  }
  function take({ testbed, sample, why, refused }) {
    if (refused) { note.textContent = refused; return; }
    const bed = bedOf(testbed);
    if (!sample) { bed.away = why || "the testbed does not answer"; schedule(); return; }
    bed.away = "";
    if (sample.attempt_id !== bed.attempt) {
      // The last trial's curve stays in view until the next one draws something.
      bed.isPast = true;
      bed.attempt = sample.attempt_id; bed.run = sample.run_id;
    } else if (sample.is_restart && !bed.isPast) bed.series.clear();
    if (bed.isPast && sample.attempt_id && sample.series.length) { bed.isPast = false; bed.series.clear(); bed.marks = []; }
    bed.state = sample.state; bed.nowS = sample.at_s;
    if (sample.marks.length && !bed.isPast) bed.marks = sample.marks;
    bed.done = sample.n_requests_done; bed.n = sample.n_requests;
    for (const each of sample.series) add(bed, each.domain, each.quantity, each.time_s, each.values, each.source);
    if (!bed.isPast && !sample.series.some((each) => each.quantity === "temp_c")) {
      for (const each of sample.temperatures) add(bed, each.sensor, "temp_c", [sample.at_s], [each.temp_c]);
    }
    schedule();
  }
  function add(bed, domain, quantity, times, values, source) {
    if (!times.length) return;
    const key = `${quantity} ${domain}`;
    let found = bed.series.get(key);
    if (!found) {
      if (bed.series.size >= MAX_SERIES) return;
      if (!bed.colors.has(domain)) bed.colors.set(domain, bed.colors.size % 8); // a device has one colour in all charts
      // A model's figure is never shown without the word.
      const label = source === "estimate" && quantity === "power_w" ? `${domain} (estimate)` : domain;
      found = { domain, label, quantity, color: bed.colors.get(domain), times: [], values: [] };
      bed.series.set(key, found);
    }
    const scale = quantity === "utilisation" ? 100 : 1;
    for (let i = 0; i < times.length; i++) {
      if (found.times.length && times[i] <= found.times[found.times.length - 1]) continue;
      found.times.push(times[i]); found.values.push(values[i] * scale);
      points += 1;
    }
    const oldest = found.times[found.times.length - 1] - WINDOW_S;
    let drop = Math.max(0, found.times.length - MAX_POINTS);
    while (drop < found.times.length && found.times[drop] < oldest) drop += 1;
    if (drop) { found.times.splice(0, drop); found.values.splice(0, drop); }
  }
  function schedule() {
    if (!drawing && !document.hidden) drawing = requestAnimationFrame(() => { drawing = 0; show(); });
  }
  function show() {
    const wanted = new Set();
    for (const [name, bed] of beds) {
      for (const [quantity, title, unit, least] of QUANTITIES) {
        const series = [...bed.series.values()].filter((each) => each.quantity === quantity);
        if (!series.length) continue;
        const id = `${name} ${quantity}`;
        wanted.add(id);
        chart(id, beds.size > 1 ? `${title}, ${name}` : title, quantity, bed, series, unit, least);
      }
    }
    for (const each of [...box.children]) if (!wanted.has(each.dataset.chart)) each.remove();
    bands.hidden = !wanted.size;
    document.getElementById("live").dataset.points = points; // how many have arrived: for tests, and for whoever wonders
    tellNote();
  }
  const wattsOf = (bed) => [...bed.series.values()].filter((each) => each.quantity === "power_w");
  function tellNote() {
    const told = [];
    for (const [name, bed] of beds) {
      const head = beds.size > 1 ? `${name}: ` : "";
      if (bed.away) told.push(`${head}the testbed is away, trying again. ${bed.away}`);
      else if (!bed.attempt) told.push(`${head}no trial is running${wattsOf(bed).length ? "; the last one is shown" : ""}`);
      else {
        const requests = bed.n && !FINAL.has(bed.state) ? `, ${bed.done} of ${bed.n} requests` : "";
        const why = bed.isPast && wattsOf(bed).length ? "; the last trial is shown" : bed.state === "MEASURING" && !wattsOf(bed).length ? "; its meter tells no power meanwhile" : "";
        told.push(`${head}${bed.run || bed.attempt}, ${(bed.state || "").toLowerCase()}${requests}${why}`);
      }
    }
    const text = told.join(" · ") || "Waiting for the testbed.";
    if (note.textContent !== text) note.textContent = text;
    note.classList.toggle("wrong-text", [...beds.values()].some((bed) => bed.away));
  }
  function chart(id, title, quantity, bed, series, unit, least) {
    let place = [...box.children].find((each) => each.dataset.chart === id);
    if (!place) {
      place = document.createElement("div");
      place.className = quantity === "power_w" ? "chart" : "chart low";
      place.dataset.chart = id;
      const head = document.createElement("p"), canvas = document.createElement("canvas");
      head.className = "chart-title"; canvas.setAttribute("role", "img");
      place.append(head, canvas);
      box.append(place);
    }
    series.sort((a, b) => (a.domain < b.domain ? -1 : 1));
    const last = Math.max(...series.map((each) => each.times[each.times.length - 1]));
    // Between events the axis stands still: it moves with what arrived.
    const to = Math.max(last, bed.attempt && !bed.isPast && !FINAL.has(bed.state) ? bed.nowS : last), zero = bed.marks.length ? bed.marks[0].at_s : series[0].times[0];
    const from = Math.max(to - WINDOW_S, Math.min(zero, ...series.map((each) => each.times[0])));
    const marks = bed.marks.map((mark, i) => ({ from: mark.at_s - zero, to: (bed.marks[i + 1] ? bed.marks[i + 1].at_s : to) - zero, color: `--band-${BANDS[mark.state] || "cooling"}` }));
    const lines = series.map((each) => ({ color: `--c${each.color}`, times: each.times.map((t) => t - zero), values: each.values }));
    legend(place.firstChild, title, series, unit);
    const canvas = place.lastChild;
    canvas.setAttribute("aria-label", `${title}: ${series.map((each) => `${each.label} ${told(each)} ${unit}`).join(", ")}`);
    StripChart.draw(canvas, { series: lines, bands: marks, from: from - zero, to: Math.max(to, from + 2) - zero, unit, least, floor: quantity === "power_w" || quantity === "utilisation" ? 0 : null });
  }
  function told(each) {
    const value = each.values[each.values.length - 1];
    return Math.abs(value) >= 100 ? value.toFixed(0) : value.toPrecision(3);
  }
  function legend(head, title, series, unit) {
    const names = series.map((each) => each.label).join("|");
    if (head.dataset.names !== names) {
      head.dataset.names = names;
      head.replaceChildren();
      const name = document.createElement("b");
      name.textContent = title;
      head.append(name);
      series.forEach((each) => {
        const key = document.createElement("span"), swatch = document.createElement("i"), text = document.createElement("span");
        key.className = "key"; swatch.className = `swatch-${each.color}`;
        key.append(swatch, text);
        head.append(key);
      });
    }
    series.forEach((each, i) => { head.children[i + 1].lastChild.textContent = `${each.label} ${told(each)} ${unit}`; });
  }
  JB.listen("telemetry", take);
  document.addEventListener("jb-theme", schedule);
  document.addEventListener("visibilitychange", schedule);
  addEventListener("resize", schedule);
  document.addEventListener("jb-connection", (event) => { if (event.detail === "lost") note.textContent = "The connection to the dashboard broke off; it is opened again."; });
})();
