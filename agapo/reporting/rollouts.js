// Step → group → its responses side by side; a step is unpacked when it is looked at.

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
