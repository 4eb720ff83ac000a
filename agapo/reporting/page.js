"use strict";
// Draws the page from the data in its <script type="application/gzip"> blocks. Texts are set as text, never as HTML.

const COLORS = ["--blue", "--orange", "--green", "--red", "--violet", "--teal", "--grey"];
const MIX_COLORS = ["--green", "--grey", "--red"];
const PHASE_COLORS = {
  generate: "--blue", sample: "--blue", score: "--violet", judge: "--violet", learn: "--green", update: "--teal",
  reference: "--orange", "forward and backward": "--green", optimizer: "--teal", sync: "--orange", evaluate: "--grey",
  checkpoint: "--red",
};
// Title, metrics (a * stands for any ending), and how: "mix" stacks shares.
const PANELS = [
  ["Accuracy", ["reward/accuracy", "eval/*"]],
  ["Reward", ["reward/mean", "reward/errors"]],
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
  ["Loss", ["train/loss", "policy/loss"]],
  ["Next-token accuracy", ["train/token_accuracy"]],
  ["Reasoning tokens to non-reasoning", ["data/token_ratio"]],
  ["Shares of the domains", ["data/domain/*"]],
  ["Pairs told apart", ["pairs/accuracy"]],
  ["Margin of the rewards", ["pairs/margin"]],
  ["Log-probability of the pairs, nats a token", ["pairs/chosen_logprob", "pairs/rejected_logprob"]],
  ["Learning rate", ["policy/learning_rate", "train/learning_rate"]],
];

const byId = (id) => document.getElementById(id);
const color = (name) => `var(${name})`;

function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

function draw(tag, attributes, text) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

async function unpack(id) {
  const block = byId(id);
  if (!block) return null;
  const bytes = Uint8Array.from(atob(block.textContent), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

function shown(value) {
  if (value === null || value === undefined) return "–";
  if (typeof value !== "number") return String(value);
  if (Number.isInteger(value)) return value.toLocaleString("en");
  const size = Math.abs(value);
  return size >= 1000 ? value.toFixed(0) : size >= 0.001 ? String(+value.toPrecision(4)) : value.toExponential(2).replace(/\.?0+e/, "e");
}

function tip(event, text) {
  const box = byId("tip");
  box.hidden = !text;
  if (!text) return;
  box.textContent = text;
  box.style.left = `${Math.max(4, Math.min(event.clientX + 14, innerWidth - box.offsetWidth - 8))}px`;
  box.style.top = `${Math.max(4, Math.min(event.clientY + 14, innerHeight - box.offsetHeight - 8))}px`;
}

// --- charts ---

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
  const window = Math.max(1, Math.floor(one.values.length / 20));
  const style = { fill: "none", stroke: color(one.color), "stroke-width": 1.8, "stroke-linejoin": "round" };
  if (window > 1) svg.append(draw("path", { ...style, d: path(one.values), "stroke-width": 1, opacity: 0.28 }));
  svg.append(draw("path", { ...style, d: path(window > 1 ? average(one.values, window) : one.values) }));
  if (one.values.length < 15) {
    one.values.forEach((value, n) => svg.append(draw("circle", { cx: x(one.steps[n]), cy: y(value), r: 2.4, fill: color(one.color) })));
  }
}

function average(values, window) {
  let sum = 0;
  return values.map((value, n) => {
    sum += value - (n >= window ? values[n - window] : 0);
    return sum / Math.min(n + 1, window);
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
  const fits = (name, pattern) => (pattern.endsWith("*") ? name.startsWith(pattern.slice(0, -1)) : name === pattern);
  return patterns.flatMap((pattern) => Object.keys(curves).filter((name) => fits(name, pattern)));
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

// --- timeline ---

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

// --- rollouts ---

const FILTERS = ["step", "verdict", "mode", "domain", "reward", "length", "text"];

function rolloutsOf(run, into) {
  const wanted = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
  const steps = run.rolloutSteps;
  const pick = (id, options) => make("select", { id }, ...options.map(([value, text]) => make("option", { value }, text)));
  const fields = {
    step: pick("step", steps.map((step) => [step, step])),
    verdict: pick("verdict", [["", "any"], ["right", "correct"], ["wrong", "not correct"]]),
    mode: pick("mode", [["", "any"]]),
    domain: pick("domain", [["", "any"]]),
    reward: make("input", { id: "reward", type: "number", step: "any", placeholder: "least" }),
    length: make("input", { id: "length", type: "number", placeholder: "least" }),
    text: make("input", { id: "text", type: "search", placeholder: "in prompt or response" }),
  };
  fields.step.value = wanted.step ?? steps[steps.length - 1];
  const list = make("div"), count = make("p", { className: "muted", id: "count" });
  let rows = [];
  const choices = (name) => {
    const values = [...new Set(rows.map((row) => row[name]).filter(Boolean))];
    const before = fields[name].value || wanted[name] || "";
    fields[name].replaceChildren(...[["", "any"], ...values.map((value) => [value, value])].map(([value, text]) => make("option", { value }, text)));
    fields[name].value = values.includes(before) ? before : "";
    fields[name].parentElement.hidden = values.length < 2;
  };
  const filter = () => show(list, count, rows, fields);
  const load = async () => {
    rows = (await unpack(`step-${fields.step.value}`)) ?? [];
    choices("mode");
    choices("domain");
    filter();
  };
  fields.step.onchange = load;
  for (const name of FILTERS.slice(1)) {
    if (wanted[name]) fields[name].value = wanted[name];
    fields[name].oninput = filter;
  }
  const said = steps.length < run.rolloutStepsOf
    ? `${steps.length} of ${run.rolloutStepsOf} steps, at even distances, are in this page; all are in rollouts.jsonl.` : "";
  const controls = make("div", { className: "controls" }, ...FILTERS.map((name) => make("label", {}, `${name} `, fields[name])));
  into.append(controls, make("p", { className: "muted" }, said), count, list);
  return load();
}

function show(list, count, rows, fields) {
  const text = fields.text.value.toLowerCase();
  const fits = (row) =>
    (!fields.verdict.value || (row.correct === true) === (fields.verdict.value === "right")) &&
    (!fields.mode.value || row.mode === fields.mode.value) &&
    (!fields.domain.value || row.domain === fields.domain.value) &&
    (fields.reward.value === "" || (row.reward ?? -Infinity) >= +fields.reward.value) &&
    (fields.length.value === "" || row.tokens >= +fields.length.value) &&
    (!text || `${row.prompt}\n${row.text}`.toLowerCase().includes(text));
  const groups = new Map();
  for (const row of rows) {
    const key = `${row.prompt_id} ${row.mode} ${row.visit ?? ""}`;
    if (!groups.has(key)) groups.set(key, { all: [], fitting: [] });
    groups.get(key).all.push(row);
    if (fits(row)) groups.get(key).fitting.push(row);
  }
  const found = [...groups.values()].filter((group) => group.fitting.length);
  const responses = found.reduce((sum, group) => sum + group.fitting.length, 0);
  count.textContent = `${responses} responses in ${found.length} groups`;
  list.replaceChildren(...found.map((group, n) => groupOf(group, n === 0)));
}

const verdict = (row) => (row.correct === true ? "right" : row.correct === false ? "wrong" : "");

function groupOf({ all, fitting }, open) {
  const dots = all.map((row) => make("span", { className: `dot ${verdict(row)}` }));
  const head = make("summary", {}, ...dots, ` ${all[0].prompt ?? ""} `, make("span", { className: "muted" }, all[0].mode ?? ""));
  const box = make("details", { className: "group card" }, head);
  const fill = () => { if (box.open && box.childElementCount === 1) box.append(make("div", { className: "responses" }, ...fitting.map(responseOf))); };
  box.addEventListener("toggle", fill);
  box.open = open;
  fill();
  return box;
}

function responseOf(row) {
  const facts = [["reward", row.reward], ["advantage", row.advantage], ["tokens", row.tokens]];
  const line = make("div", { className: "facts" }, ...facts.filter(([, value]) => value !== undefined)
    .flatMap(([name, value]) => [`${name} `, make("b", {}, shown(value)), "  "]), row.finish === "length" ? "cut" : "");
  const parts = Object.entries(row.reward_parts ?? {}).map(([name, value]) => `${name} ${shown(value)}`).join(", ");
  return make("div", { className: `response ${verdict(row)}` }, line, make("div", { className: "facts" }, parts),
    row.reward_error ? make("div", { className: "facts" }, `error: ${row.reward_error}`) : null, make("pre", {}, row.text));
}

// --- the rest ---

function header(run) {
  const last = Math.max(0, ...Object.values(run.curves).map(([steps]) => steps[steps.length - 1] ?? 0));
  const state = run.finished ? ["good", "finished"] : ["bad", `not finished: step ${last}${run.steps ? ` of ${run.steps}` : ""}`];
  const accuracy = (values) => Object.entries(values ?? {}).map(([mode, value]) => [mode, `${(100 * value).toFixed(1)} %`]);
  const after = accuracy(run.summary.after).map(([mode, value]) => [`test, ${mode.replace("_", "-")}`,
    `${(100 * (run.summary.before?.[mode] ?? NaN)).toFixed(1).replace("NaN", "–")} → ${value}`]);
  const tiles = [["steps", last], ...after, ["seconds", run.summary.wall_s], ["started", run.environment.started?.slice(0, 10)]];
  return [make("h1", {}, `${run.stage} ${run.name}`, make("span", { className: `badge ${state[0]}` }, state[1])),
    make("div", { className: "tiles" }, ...tiles.filter(([, value]) => value !== undefined && value !== null)
      .map(([name, value]) => make("div", { className: "tile" }, make("b", {}, shown(value)), make("span", { className: "muted" }, name))))];
}

function table(rows) {
  return make("div", { className: "card scroll" }, make("table", {}, make("tbody", {},
    ...rows.map((row) => make("tr", {}, ...row.map((cell) => make("td", {}, typeof cell === "object" && cell !== null ? JSON.stringify(cell) : shown(cell))))))));
}

function recipeOf(run) {
  return [make("div", { className: "card" }, make("h3", {}, "What differs from the defaults"), make("pre", {}, run.changed)),
    make("details", {}, make("summary", { className: "muted" }, "The whole recipe"), make("div", { className: "card" }, make("pre", {}, run.recipe)))];
}

function section(id, title) {
  const box = make("section", { id }, make("h2", {}, title));
  byId("main").append(box);
  byId("nav").append(make("a", { href: `#${id}`, onclick: (event) => { event.preventDefault(); box.scrollIntoView({ behavior: "smooth" }); } }, title));
  return box;
}

async function one(run) {
  byId("header").append(...header(run));
  if (Object.keys(run.curves).length) section("curves", "Curves").append(...curvesOf(run).filter(Boolean));
  const timeline = section("timeline-section", "Timeline");
  if (!(await timelineOf(timeline))) { timeline.remove(); byId("nav").lastChild.remove(); }
  if (run.rolloutSteps.length) await rolloutsOf(run, section("rollouts", "Rollouts"));
  section("recipe", "Recipe").append(...recipeOf(run));
  section("lineage", "Lineage").append(table(run.lineage.map((entry) => [entry.stage ?? "model", entry.run ?? "", entry.model ?? ""])));
  section("environment", "Environment").append(table(Object.entries(run.environment)));
  const problems = [...run.warnings.map((text) => ["warning", text]), ...run.errors.map((row) => [`step ${row.step}`, row.reward_error, row.text])];
  if (problems.length) section("problems", "Errors and warnings").append(table(problems));
}

function several(runs) {
  byId("header").append(make("h1", {}, runs.map((run) => run.name).join(" · ")));
  section("curves", "Curves").append(...overlays(runs).filter(Boolean));
  const all = runs.map((run) => run.changed.split("\n"));
  const own = (lines, n) => lines.filter((text) => !all.every((other, m) => m === n || other.includes(text)));
  const box = section("recipes", "Where the recipes differ");
  box.append(make("div", { className: "grid" }, ...runs.map((run, n) =>
    make("div", { className: "card" }, make("h3", {}, run.name), make("pre", {}, own(all[n], n).join("\n") || "–")))));
}

async function main() {
  const { runs } = await unpack("data");
  byId("main").replaceChildren();
  if (runs.length === 1) await one(runs[0]);
  else several(runs);
}

function complain(reason) {
  byId("header").append(make("p", { id: "errors-of-page" }, `This page met an error: ${reason}`));
}

addEventListener("error", (event) => complain(event.message));
main().catch((error) => complain(error.stack)).finally(() => { document.body.dataset.ready = "yes"; });
