// The page: sections from the data in its <script type="application/gzip"> blocks.

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
