// Curves: the panels of a run, and one panel a metric where several runs lie over each other.

const COLORS = ["--blue", "--orange", "--green", "--red", "--violet", "--teal", "--grey"];
const MIX_COLORS = ["--green", "--grey", "--red"];
// Title, metrics (a * stands for anything), and how: "mix" stacks shares.
const PANELS = [
  ["Loss", ["train/loss", "held_out/loss"]],
  ["Next-token accuracy", ["train/token_accuracy"]],
  ["Accuracy", ["reward/accuracy", "eval/reasoning*", "eval/non_reasoning*"]],
  ["Accuracy on the other sets", ["eval/*/reasoning*", "eval/*/non_reasoning*"]],
  ["Reward", ["reward/mean", "eval/reward", "reward/errors"]],
  ["Groups sampled", ["group/all_correct", "group/mixed", "group/all_wrong"], "mix"],
  ["KL to the reference, nats a response", ["kl/sequence"]],
  ["Entropy, nats a token", ["policy/entropy", "train/entropy"]],
  ["Response length, tokens", ["rollout/length"]],
  ["Share cut at the limit", ["rollout/truncated"]],
  ["Engine against learner, nats a token", ["mismatch/mean", "mismatch/kl"]],
  ["Gradient norm", ["policy/grad_norm", "train/grad_norm"]],
  ["Throughput, tokens a second", ["rollout/tokens_per_s", "train/tokens_per_s"]],
  ["Staleness, steps", ["staleness/mean", "staleness/max"]],
  ["Idle share of the actors", ["rollout/idle"]],
  ["Seconds of a step", ["time/*"]],
  ["Policy loss", ["policy/loss"]],
  ["Reasoning tokens to non-reasoning", ["data/token_ratio"]],
  ["Shares of the domains", ["data/domain/*"]],
  ["Pairs told apart", ["pairs/accuracy"]],
  ["Margin of the rewards", ["pairs/margin"]],
  ["Log-probability of the pairs, nats a token", ["pairs/chosen_logprob", "pairs/rejected_logprob"]],
  ["Learning rate", ["policy/learning_rate", "train/learning_rate"]],
];

const WIDE = 380, HIGH = 190, LEFT = 46, RIGHT = 8, TOP = 8, BOTTOM = 22;

function ticks(low, high, count = 4) {
  const raw = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((unit) => unit * power).find((size) => size >= raw * 0.999);
  const found = [];
  for (let at = Math.ceil(low / step - 1e-9) * step; at <= high + step * 1e-6; at += step) found.push(+at.toPrecision(10));
  return found;
}

/** One line of a legend a series: its name and its last value, in full in data-value. */
function legend(series) {
  return make("div", { className: "legend" }, ...series.map((one) => {
    const last = one.values[one.values.length - 1];
    const swatch = make("i");
    swatch.style.background = color(one.color);
    const value = make("b", { "data-metric": one.metric, "data-value": String(last) }, shown(last));
    return make("span", {}, swatch, `${one.label} `, value);
  }));
}

function chart(title, series, mix = false) {
  const steps = [...new Set(series.flatMap((one) => one.steps))].sort((a, b) => a - b);
  const all = series.flatMap((one) => one.values);
  let low = mix ? 0 : Math.min(...bounds(all)), high = mix ? 1 : Math.max(...bounds(all));
  if (!mix && low >= 0 && high <= 1 && high > 0.5) [low, high] = [0, 1];
  if (low > 0 && low < high * 0.6) low = 0;
  if (high - low < 1e-12) [low, high] = [low - (Math.abs(low) || 1) * 0.1, high + (Math.abs(high) || 1) * 0.1];
  const [first, last] = [steps[0], Math.max(steps[steps.length - 1], steps[0] + 1)];
  const x = (step) => LEFT + ((step - first) / (last - first)) * (WIDE - LEFT - RIGHT);
  const y = (value) => TOP + (1 - (value - low) / (high - low)) * (HIGH - TOP - BOTTOM);
  const svg = draw("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, role: "img", "aria-label": title });
  for (const at of ticks(low, high)) {
    svg.append(draw("line", { x1: LEFT, x2: WIDE - RIGHT, y1: y(at), y2: y(at), stroke: color("--line") }));
    svg.append(draw("text", { x: LEFT - 6, y: y(at) + 4, "text-anchor": "end" }, shown(at)));
  }
  for (const at of ticks(first, last, 5).filter(Number.isInteger)) {
    svg.append(draw("text", { x: x(at), y: HIGH - 6, "text-anchor": "middle" }, at));
  }
  if (mix) stack(svg, series, x, y);
  else series.forEach((one) => line(svg, one, x, y));
  const mark = draw("line", { y1: TOP, y2: HIGH - BOTTOM, stroke: color("--muted"), visibility: "hidden" });
  svg.append(mark);
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const at = first + (((event.clientX - box.left) / box.width) * WIDE - LEFT) / (WIDE - LEFT - RIGHT) * (last - first);
    const step = steps.reduce((best, one) => (Math.abs(one - at) < Math.abs(best - at) ? one : best));
    mark.setAttribute("x1", x(step));
    mark.setAttribute("x2", x(step));
    mark.setAttribute("visibility", "visible");
    const lines = series.filter((one) => one.steps.includes(step))
      .map((one) => `${one.label}: ${one.values[one.steps.indexOf(step)]}`);
    tip(event, [`step ${step}`, ...lines].join("\n"));
  });
  svg.addEventListener("pointerleave", (event) => { mark.setAttribute("visibility", "hidden"); tip(event, ""); });
  return make("div", { className: "card" }, make("h3", {}, title), svg, legend(series));
}

// Math.min(...values) has a limit of arguments.
function bounds(values) {
  return [values.reduce((a, b) => Math.min(a, b)), values.reduce((a, b) => Math.max(a, b))];
}

function line(svg, one, x, y) {
  const path = (values) => values.map((value, n) => `${n ? "L" : "M"}${x(one.steps[n]).toFixed(1)},${y(value).toFixed(1)}`).join("");
  const window = one.metric.endsWith("learning_rate") ? 1 : Math.max(1, Math.floor(one.values.length / 40));
  const style = { fill: "none", stroke: color(one.color), "stroke-width": 1.8, "stroke-linejoin": "round" };
  if (window > 1) svg.append(draw("path", { ...style, d: path(one.values), "stroke-width": 1, opacity: 0.28 }));
  svg.append(draw("path", { ...style, d: path(window > 1 ? average(one.values, window) : one.values) }));
  if (one.values.length < 15) {
    one.values.forEach((value, n) => svg.append(draw("circle", { cx: x(one.steps[n]), cy: y(value), r: 2.4, fill: color(one.color) })));
  }
}

/** The mean of each value and those around it, as many on either side: what falls steeply is not drawn late. */
function average(values, window) {
  const sums = [0];
  for (const value of values) sums.push(sums[sums.length - 1] + value);
  return values.map((_, n) => {
    const side = Math.min(Math.floor(window / 2), n, values.length - 1 - n);
    return (sums[n + side + 1] - sums[n - side]) / (2 * side + 1);
  });
}

function stack(svg, series, x, y) {
  const steps = series[0].steps;
  const base = steps.map(() => 0);
  for (const one of series) {
    const top = base.map((value, n) => value + (one.values[n] ?? 0));
    const over = steps.map((step, n) => `${x(step).toFixed(1)},${y(top[n]).toFixed(1)}`);
    const under = steps.map((step, n) => `${x(step).toFixed(1)},${y(base[n]).toFixed(1)}`).reverse();
    svg.append(draw("polygon", { points: [...over, ...under].join(" "), fill: color(one.color), opacity: 0.85 }));
    top.forEach((value, n) => { base[n] = value; });
  }
}

function metricsOf(curves, patterns) {
  const regular = (pattern) => new RegExp(`^${pattern.replaceAll("*", ".*")}$`);
  return patterns.flatMap((pattern) => Object.keys(curves).filter((name) => regular(pattern).test(name)));
}

const seriesOf = (curves, metric, color, label) => ({ metric, label, color, steps: curves[metric][0], values: curves[metric][1] });

function curvesOf(run) {
  const drawn = new Set(), cards = [];
  for (const [title, patterns, how] of PANELS) {
    const found = metricsOf(run.curves, patterns).filter((name) => run.curves[name][0].length);
    if (!found.length) continue;
    found.forEach((name) => drawn.add(name));
    const colors = how === "mix" ? MIX_COLORS : COLORS;
    cards.push(chart(title, found.map((name, n) => seriesOf(run.curves, name, colors[n % colors.length], name)), how === "mix"));
  }
  const others = Object.keys(run.curves).filter((name) => !drawn.has(name)).sort();
  const rest = others.map((name) => () => chart(name, [seriesOf(run.curves, name, "--blue", "last")]));
  return [make("div", { className: "grid" }, ...cards), later(`${others.length} more metrics`, rest)];
}

function overlays(runs) {
  const names = [...new Set(runs.flatMap((run) => Object.keys(run.curves)))];
  const of = (name) => () => chart(name, runs.flatMap((run, n) =>
    run.curves[name] ? [seriesOf(run.curves, name, COLORS[n % COLORS.length], run.name)] : []));
  const first = metricsOf(Object.fromEntries(names.map((name) => [name, 1])), PANELS.flatMap((panel) => panel[1]));
  const rest = names.filter((name) => !first.includes(name)).sort();
  return [make("div", { className: "grid" }, ...[...new Set(first)].map((name) => of(name)())),
    later(`${rest.length} more metrics`, rest.map(of))];
}

/** What is drawn only when it is looked at. */
function later(title, charts) {
  if (!charts.length) return null;
  const grid = make("div", { className: "grid" });
  const box = make("details", {}, make("summary", { className: "muted" }, title), grid);
  box.style.marginTop = "12px";
  box.addEventListener("toggle", () => { if (box.open && !grid.childElementCount) grid.append(...charts.map((one) => one())); });
  return box;
}
