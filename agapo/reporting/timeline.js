// What each process did when: some steps at a time.

const PHASE_COLORS = {
  generate: "--blue", sample: "--blue", score: "--violet", judge: "--violet", learn: "--green", update: "--teal",
  reference: "--orange", "forward and backward": "--green", optimizer: "--teal", sync: "--orange", evaluate: "--grey",
  checkpoint: "--red",
};

async function timelineOf(into) {
  const { rows, spans } = await unpack("timeline");
  if (!spans.length) return false;
  const steps = [...new Set(spans.map((span) => span[4]))].sort((a, b) => a - b);
  const from = make("input", { type: "range", id: "from-step", min: 0, max: steps.length - 1, value: Math.min(1, steps.length - 1) });
  const many = make("select", { id: "how-many" }, ...[1, 3, 10, 30].map((n) => make("option", { value: n, selected: n === 3 }, `${n} steps`)));
  const label = make("span", { className: "muted" });
  const card = make("div", { className: "card scroll" });
  const update = () => {
    const some = steps.slice(+from.value, +from.value + +many.value);
    label.textContent = `step ${some[0]} to ${some[some.length - 1]} of ${steps[steps.length - 1]}`;
    card.replaceChildren(bars(rows, spans.filter((span) => span[4] >= some[0] && span[4] <= some[some.length - 1])), phaseLegend(spans));
  };
  from.oninput = many.onchange = update;
  update();
  into.append(make("div", { className: "controls" }, make("label", {}, "from ", from), many, label), card);
  return true;
}

function bars(rows, spans) {
  const [high, side, wide] = [22, 120, Math.max(480, Math.min(1220, innerWidth - 60))];
  const start = spans.reduce((least, span) => Math.min(least, span[2]), Infinity);
  const end = spans.reduce((most, span) => Math.max(most, span[2] + span[3]), 0);
  const x = (at) => side + ((at - start) / (end - start || 1)) * (wide - side - 10);
  const svg = draw("svg", { viewBox: `0 0 ${wide} ${rows.length * high + 24}`, style: `min-width:${Math.min(wide, 480)}px` });
  rows.forEach((name, n) => svg.append(draw("text", { x: side - 8, y: n * high + 15, "text-anchor": "end" }, name)));
  for (const at of ticks(0, (end - start) / 1e6, 8)) {
    const place = x(start + at * 1e6);
    svg.append(draw("line", { x1: place, x2: place, y1: 0, y2: rows.length * high + 4, stroke: color("--line") }));
    svg.append(draw("text", { x: place, y: rows.length * high + 18, "text-anchor": "middle" }, `${at} s`));
  }
  // The longer ones first, so that the phases within them lie on top.
  for (const [row, name, ts, duration, step] of [...spans].sort((a, b) => b[3] - a[3])) {
    const inner = name === "reference" || name === "update";
    const bar = draw("rect", { x: x(ts), y: row * high + (inner ? 10 : 3), width: Math.max(0.6, x(ts + duration) - x(ts)),
      height: inner ? 9 : 16, rx: 2, fill: color(PHASE_COLORS[name] ?? "--grey") });
    bar.addEventListener("pointermove", (event) => tip(event, `${name}, step ${step}\n${(duration / 1e6).toFixed(3)} s`));
    bar.addEventListener("pointerleave", (event) => tip(event, ""));
    svg.append(bar);
  }
  return svg;
}

function phaseLegend(spans) {
  const names = [...new Set(spans.map((span) => span[1]))];
  return make("div", { className: "legend" }, ...names.map((name) => {
    const swatch = make("i");
    swatch.style.background = color(PHASE_COLORS[name] ?? "--grey");
    return make("span", {}, swatch, name);
  }));
}
