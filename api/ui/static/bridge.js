"use strict";
// Parts of pages that live are fetched anew, and plots drawn: only while somebody looks.
(() => {
  const live = document.getElementById("live");
  const button = document.getElementById("live-switch");
  const KEPT = "live";
  const kept = () => { try { return sessionStorage.getItem(KEPT); } catch { return null; } };
  let on = kept() !== "off";
  let due = 0;

  const every = () => 1000 * Number(live?.dataset.every || 0);
  // What somebody works in is not replaced under their hands.
  const inUse = () => live.contains(document.activeElement) || live.querySelector("details[open]") !== null
    || (String(getSelection()) !== "" && live.contains(getSelection().anchorNode));
  const tell = () => {
    button.setAttribute("aria-pressed", String(on));
    button.textContent = on ? "Live" : "Live is off";
  };
  if (live && every() && button) {
    button.hidden = false;
    tell();
    button.addEventListener("click", () => {
      on = !on;
      try { sessionStorage.setItem(KEPT, on ? "on" : "off"); } catch { /* it is only remembered */ }
      tell();
    });
  }
  const look = () => {
    if (document.hidden || !on || Date.now() < due) return;
    if (live && every() && window.htmx && !inUse()) {
      due = Date.now() + every();
      htmx.trigger(live, "refresh");
    }
    if (plots && Date.now() >= plotsDue) draw();
  };

  // Plots.
  const plots = document.getElementById("plots");
  let span = "1h", plotsDue = 0, drawn = [];
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const LINES = {
    depth: [["waiting", "pending", "pending"], ["processing", "processing", "processing"]],
    ended: [["completed", "completed", "completed"], ["failed", "failed", "failed"], ["timeout", "timeout", "timeout"], ["cancelled", "cancelled", "cancelled"]],
    oldest: [["oldest", "oldest_seconds", "pending"]],
    took: [["median", "median_seconds", "completed"], ["p95", "p95_seconds", "timeout"]],
  };
  const DASHES = [undefined, [6, 4], [2, 3], [8, 3, 2, 3]]; // lines differ by more than their color
  const clock = (at, step) => {
    const told = new Date(at * 1000).toISOString();
    return step >= 86400 ? told.slice(5, 10) : step >= 3600 || span !== "1h" ? told.slice(5, 16).replace("T", " ") : told.slice(11, step === 0 || step < 60 ? 19 : 16);
  };
  async function draw() {
    plotsDue = Date.now() + 15000;
    let told;
    try {
      const answer = await fetch(`${plots.dataset.source}?span=${span}`, { headers: { "HX-Request": "true" } });
      if (answer.status === 401) { location.reload(); return; }
      if (!answer.ok) return;
      told = await answer.json();
    } catch { return; } // the next look tries again
    drawn.forEach((plot) => plot.destroy());
    drawn = [...plots.querySelectorAll("[data-plot]")].map((place) => {
      const lines = LINES[place.dataset.plot];
      const perMinute = place.dataset.plot === "ended" ? 60 / told.step : 1;
      const axis = { stroke: color("soft"), grid: { stroke: color("line"), width: 1 }, ticks: { stroke: color("line"), width: 1 }, font: "12px system-ui, sans-serif" };
      const values = lines.map(([, from]) => told[from].map((one) => (one === null ? null : one * perMinute)));
      return new uPlot({
        width: place.clientWidth, height: 190, padding: [null, 28, null, null], cursor: { y: false },
        tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
        scales: { x: { time: true }, y: { range: (_, low, high) => [0, high > 0 ? high * 1.1 : 1] } },
        axes: [{ ...axis, values: (_, splits, n, space, step) => splits.map((at) => clock(at, step)) }, { ...axis, size: 56 }],
        series: [{ label: "UTC", value: (_, at) => (at === null ? "–" : clock(at, 0)) }, ...lines.map(([label, , tint], n) => ({
          label, stroke: color(tint), width: 2, dash: DASHES[n], spanGaps: false, points: { size: 4, fill: color(tint) },
          value: (_, one) => (one === null || one === undefined ? "–" : Number(one.toPrecision(3)).toLocaleString("en")),
        }))],
      }, [told.at, ...values], place);
    });
  }
  if (plots) {
    plots.querySelectorAll("[data-span]").forEach((one) => one.addEventListener("click", () => {
      span = one.dataset.span;
      plots.querySelectorAll("[data-span]").forEach((other) => other.setAttribute("aria-pressed", String(other === one)));
      draw();
    }));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
    let wait;
    addEventListener("resize", () => { clearTimeout(wait); wait = setTimeout(draw, 200); });
    draw();
  }
  due = Date.now() + every();
  setInterval(look, 1000);
  document.addEventListener("visibilitychange", look);
})();
