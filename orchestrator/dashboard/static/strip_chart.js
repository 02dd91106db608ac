// Lines over time on a canvas: cheap enough to draw anew once a second for two days, and it keeps nothing by itself.
"use strict";
window.StripChart = (() => {
  const PAD = { left: 52, right: 12, top: 10, bottom: 24 };

  function niceStep(span, n) {
    const raw = span / n, power = 10 ** Math.floor(Math.log10(raw)), part = raw / power;
    return power * (part <= 1 ? 1 : part <= 2 ? 2 : part <= 5 ? 5 : 10);
  }
  const timeSteps = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400];
  function clock(s) {
    const sign = s < 0 ? "−" : "", a = Math.round(Math.abs(s));
    if (a < 60) return `${sign}${a} s`;
    return `${sign}${Math.floor(a / 60)}:${String(a % 60).padStart(2, "0")}`;
  }

  // series: [{color, times, values}]; bands: [{from, to, color}]; lines: [{value, color, word}]; from, to: seconds;
  // least: the smallest height of the scale; floor: where it begins at the latest.
  function draw(canvas, { series, bands = [], lines = [], from, to, unit = "", least = 1, floor = null }) {
    const ratio = devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
    if (!width || !height) return;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio); canvas.height = Math.round(height * ratio);
    }
    const g = canvas.getContext("2d");
    g.setTransform(ratio, 0, 0, ratio, 0, 0);
    g.clearRect(0, 0, width, height);
    let low = Infinity, high = -Infinity, first = Infinity, last = -Infinity;
    for (const { times, values } of series) {
      for (let i = 0; i < times.length; i++) {
        if (from !== undefined && times[i] < from) continue;
        if (values[i] < low) low = values[i];
        if (values[i] > high) high = values[i];
        if (times[i] < first) first = times[i];
        if (times[i] > last) last = times[i];
      }
    }
    for (const line of lines) { low = Math.min(low, line.value); high = Math.max(high, line.value); }
    const ink = JB.color("--soft"), grid = JB.color("--line");
    g.font = "12px system-ui, sans-serif";
    if (low > high) {
      g.fillStyle = ink; g.textAlign = "center";
      g.fillText("no reading yet", width / 2, height / 2);
      return;
    }
    if (floor !== null) low = Math.min(low, floor);
    if (high - low < least) { const middle = (high + low) / 2; high = middle + least / 2; low = floor !== null ? Math.min(floor, middle - least / 2) : middle - least / 2; }
    const extra = (high - low) * 0.08;
    high += extra; if (lines.some((line) => line.below)) low -= extra; if (floor === null || low < floor) low -= extra;
    const t0 = from ?? (first <= last ? first : 0), t1 = to ?? Math.max(last, t0 + 10);
    const x = (t) => PAD.left + ((t - t0) / (t1 - t0)) * (width - PAD.left - PAD.right);
    const y = (v) => height - PAD.bottom - ((v - low) / (high - low)) * (height - PAD.top - PAD.bottom);

    for (const band of bands) {
      const a = Math.max(x(band.from), PAD.left), b = Math.min(x(band.to), width - PAD.right);
      if (b > a) { g.fillStyle = JB.color(band.color); g.fillRect(a, PAD.top, b - a, height - PAD.top - PAD.bottom); }
    }
    g.lineWidth = 1; g.textBaseline = "middle"; g.textAlign = "right";
    const step = niceStep(high - low, height > 150 ? 5 : 4), digits = Math.max(0, -Math.floor(Math.log10(step)));
    for (let v = Math.ceil(low / step) * step; v <= high; v += step) {
      g.strokeStyle = grid; g.beginPath(); g.moveTo(PAD.left, Math.round(y(v)) + 0.5); g.lineTo(width - PAD.right, Math.round(y(v)) + 0.5); g.stroke();
      g.fillStyle = ink; g.fillText(`${v.toFixed(digits)}`, PAD.left - 7, y(v));
    }
    if (unit) { g.textAlign = "left"; g.textBaseline = "top"; g.fillStyle = ink; g.fillText(unit, 2, 0); }
    g.textAlign = "center"; g.textBaseline = "top";
    const wanted = (t1 - t0) / Math.max(2, Math.floor(width / 80));
    const timeStep = timeSteps.find((each) => each >= wanted) || 21600;
    for (let t = Math.ceil(t0 / timeStep) * timeStep; t <= t1; t += timeStep) {
      if (x(t) > width - 26 || x(t) < PAD.left) continue;
      g.fillStyle = ink; g.fillText(clock(t), x(t), height - PAD.bottom + 7);
    }
    for (const line of lines) {
      g.strokeStyle = JB.color(line.color); g.setLineDash([5, 4]); g.lineWidth = 1.5;
      g.beginPath(); g.moveTo(PAD.left, y(line.value)); g.lineTo(width - PAD.right, y(line.value)); g.stroke(); g.setLineDash([]);
      g.fillStyle = JB.color(line.color); g.textAlign = "left"; g.textBaseline = line.below ? "top" : "bottom"; g.fillText(line.word, PAD.left + 4, y(line.value) + (line.below ? 3 : -2));
    }
    g.save(); g.beginPath(); g.rect(PAD.left, 0, width - PAD.left - PAD.right, height); g.clip();
    for (const { color, times, values } of series) {
      g.strokeStyle = JB.color(color); g.lineWidth = 1.8; g.lineJoin = "round"; g.beginPath();
      let started = false;
      for (let i = 0; i < times.length; i++) {
        if (times[i] < t0 && i + 1 < times.length && times[i + 1] < t0) continue;
        if (started) g.lineTo(x(times[i]), y(values[i])); else { g.moveTo(x(times[i]), y(values[i])); started = true; }
      }
      g.stroke();
      const n = times.length;
      if (n) { g.fillStyle = JB.color(color); g.beginPath(); g.arc(x(times[n - 1]), y(values[n - 1]), 2.6, 0, 7); g.fill(); }
    }
    g.restore();
  }
  return { draw };
})();
