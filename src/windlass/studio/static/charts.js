// Curves of one run or of several, drawn by uPlot; while the run goes on they are asked for again every few seconds.
"use strict";

(() => {
  const root = document.getElementById("charts");
  const plots = new Map();
  const EVERY = 4000;

  // Canvas cannot read CSS variables: an element of that class tells their colour under the theme of the moment.
  function ink(name) {
    const probe = document.createElement("i");
    probe.className = `ink-${name}`;
    root.append(probe);
    const colour = getComputedStyle(probe).color;
    probe.remove();
    return colour;
  }

  const short = (value) => value == null ? "–" : Math.abs(value) >= 1e4 || (value && Math.abs(value) < 1e-3)
    ? value.toExponential(1) : String(+value.toPrecision(4));
  const steps = (value) => value >= 1e6 ? `${+(value / 1e6).toFixed(1)}M` : value >= 1e4 ? `${+(value / 1e3).toFixed(1)}k` : String(value);

  const columns = (curve) => [{ name: curve.label, values: curve.values }, ...curve.others];

  // The first steps of a run are far off the scale of what matters: show from a tenth of the way on, and the baselines.
  function range(curve) {
    const lines = Object.values(curve.lines);
    const all = [...lines];
    let low = Math.min(...lines);
    for (const { values } of columns(curve)) {
      const known = values.filter((v) => v != null);
      const late = known.slice(Math.floor(known.length / 10));
      const falls = known.length > 20 && known[0] === Math.max(...known);
      all.push(...(falls ? late : known));
      low = Math.min(low, ...known);
    }
    const high = Math.max(...all);
    const room = (high - low) * 0.08 || Math.abs(high) * 0.1 || 1;
    return [low - room, high + room];
  }

  function labels(plot, curve) {
    const { ctx, bbox } = plot;
    const ratio = devicePixelRatio;
    ctx.save();
    ctx.font = `${12 * ratio}px ${getComputedStyle(document.body).fontFamily}`;
    ctx.textAlign = "right";
    ctx.textBaseline = "bottom";
    // A label stands above its line, or below it, where no other label or line is; the legend names all in any case.
    const height = 13 * ratio, labels = [];
    const lines = Object.entries(curve.lines).map(([name, value]) => [name, plot.valToPos(value, "y", true)]);
    const free = (bottom, own) => labels.every((other) => Math.abs(other - bottom) >= height)
      && lines.every(([, y]) => y === own || y <= bottom - height || y >= bottom);
    for (const [name, y] of lines) {
      ctx.strokeStyle = ctx.fillStyle = ink("2");
      ctx.setLineDash([5 * ratio, 4 * ratio]);
      ctx.beginPath();
      ctx.moveTo(bbox.left, y);
      ctx.lineTo(bbox.left + bbox.width, y);
      ctx.stroke();
      const at = [y - 2 * ratio, y + height + 2 * ratio].find((bottom) => free(bottom, y));
      if (at !== undefined) {
        ctx.fillText(name, bbox.left + bbox.width - 4 * ratio, at);
        labels.push(at);
      }
    }
    ctx.restore();
  }

  function draw(figure, curve) {
    const place = figure.querySelector(".plot");
    const output = figure.querySelector("output");
    const rest = root.dataset.source.includes("?") ? "" : `${short(curve.last)} at step ${curve.step.toLocaleString("en")}`;
    output.textContent = rest;
    const old = plots.get(curve.name);
    if (old) old.plot.destroy();
    const axis = { stroke: ink("text"), grid: { stroke: ink("grid"), width: 1 }, ticks: { stroke: ink("grid"), width: 1 }, font: `12px ${getComputedStyle(document.body).fontFamily}` };
    const series = columns(curve).map(({ values }, i) => {
      const few = values.filter((v) => v != null).length < 60, colour = ink(i + 1);
      return { stroke: colour, width: 1.8, points: { show: few, size: 4, fill: colour }, spanGaps: curve.others.length > 0 };
    });
    const plot = new uPlot({
      width: place.clientWidth - 12, height: place.clientHeight - 14,
      legend: { show: false },
      cursor: { y: false, points: { size: 7 } },
      scales: { x: { time: false }, y: { range: () => range(curve) } },
      axes: [{ ...axis, size: 36, values: (_, ticks) => ticks.map(steps) }, { ...axis, size: 58, values: (_, ticks) => ticks.map(short) }],
      series: [{}, ...series],
      hooks: {
        draw: [(u) => labels(u, curve)],
        setCursor: [(u) => {
          const i = u.cursor.idx;
          const found = i == null ? [] : columns(curve).filter(({ values }) => values[i] != null);
          const said = found.map(({ name, values }) => found.length > 1 ? `${name} ${short(values[i])}` : short(values[i]));
          output.textContent = said.length ? `${said.join(" · ")} at step ${curve.steps[i].toLocaleString("en")}` : rest;
        }],
      },
    }, [curve.steps, ...columns(curve).map(({ values }) => values)], place);
    plots.set(curve.name, { plot, curve, figure });
  }

  async function load() {
    const response = await fetch(root.dataset.source);
    if (!response.ok) return;
    const { status, curves } = await response.json();
    for (const curve of curves.filter((c) => c.points > 1)) {
      const figure = root.querySelector(`[data-metric="${CSS.escape(curve.name)}"]`);
      if (!figure) return location.reload(); // a metric that the page did not know yet
      draw(figure, curve);
    }
    root.dataset.drawn = "true";
    if (status === "running") setTimeout(load, EVERY);
    else if (root.dataset.running === "true") location.reload();
  }

  const again = () => { for (const { figure, curve } of plots.values()) draw(figure, curve); };
  document.addEventListener("themechange", again);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  let width = innerWidth;
  addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; again(); } });
  load();
})();
