"use strict";
// The report of runs: curves over a chosen axis, and what each evaluation found.

(function () {
  const $ = (id) => document.getElementById(id);
  const data = pageData(), runs = data.runs;
  const COLOURS = ["a", "b", "c", "d"], DASHES = ["none", "6 4", "2 3", "8 3 2 3"];
  const look = (number) => ({ colour: COLOURS[number % 4], dash: DASHES[Math.floor(number / 4) % 4] });
  const groups = data.groups.filter((group) => group.runs.length > 1);
  const alone = runs.map((_, number) => number).filter((number) => !groups.some((group) => group.runs.includes(number)));
  const percent = (value) => `${(100 * value).toFixed(1)} %`;

  // -- the x-axis -------------------------------------------------------------------------------------------------

  const AXES = {
    steps: { label: "optimizer steps", of: () => (step) => step },
    examples: { label: "examples processed (steps x batch size)", of: (run) => run.examples && ((step) => step * run.examples) },
    flops: { label: "floating-point operations of the training steps", of: (run) => run.flops && ((step) => step * run.flops) },
    time: { label: "", of: (run) => run.time && run.time.steps.length && ((step) => timeAt(run.time, step) / timeUnit()[1]) },
  };

  function timeUnit() {
    const longest = Math.max(0, ...runs.map((run) => (run.time && run.time.values.length ? run.time.values.at(-1) : 0)));
    if (longest > 7200) return ["hours", 3600];
    return longest > 120 ? ["minutes", 60] : ["seconds", 1];
  }

  function timeAt(time, step) {
    const { steps, values } = time;
    let low = 0, high = steps.length - 1;
    if (step <= steps[0]) return (values[0] * step) / steps[0];
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (steps[middle] <= step) low = middle;
      else high = middle;
    }
    const f = high === low ? 0 : (step - steps[low]) / (steps[high] - steps[low]);
    return values[low] + Math.min(1, f) * (values[high] - values[low]);
  }

  function axis() {
    const name = $("axis").value, chosen = AXES[name];
    const label = name === "time" ? `${timeUnit()[0]} of the steps alone` : chosen.label;
    return { label, of: chosen.of };
  }

  for (const option of $("axis").options) option.disabled = !runs.some((run) => AXES[option.value].of(run));

  // -- curves -----------------------------------------------------------------------------------------------------

  function lines(key, place, suffix) {
    const x = axis(), found = [];
    groups.forEach((group, number) => {
      const curve = group.series[key], map = x.of(runs[group.runs[0]]);
      if (!curve || !map) return;
      const at = curve.steps.map(map);
      found.push({ x: at, y: curve.values, low: curve.low, high: curve.high, ...look(number), name: `${group.name}${suffix}`, width: 2.5 });
    });
    runs.forEach((run, number) => {
      const curve = run.series[key], map = x.of(run);
      if (!curve || !map || !curve.steps.length || !alone.includes(number)) return;
      const own = place === null ? look(alone.indexOf(number) + groups.length) : { colour: COLOURS[place], dash: DASHES[0] };
      found.push({
        x: curve.steps.map(map), y: curve.values, ...own, dots: curve.steps.length < 30,
        name: `${runs.length > 1 ? run.name : ""}${suffix}`.trim(),
      });
    });
    return found;
  }

  function curveCard(title, note, series, options) {
    const logX = $("log").checked && series.some((line) => line.x.some((value) => value > 0));
    const drawnSeries = logX ? series.map((line) => ({ ...line, x: line.x.map((v) => Math.max(v, 1e-12)) })) : series;
    const card = element("div", { class: "card" }, element("h2", {}, title, element("span", { text: note })));
    card.append(chart(drawnSeries, { width: 420, height: 220, xLabel: axis().label, logX, label: title, ...options }));
    if (series.length > 1 || groups.length) card.append(legend(series));
    return card;
  }

  const base = (name) => name.slice(name.indexOf("/") + 1);
  const SHARES = /accuracy|pass@|solved|valid|halted$|exact/;

  // Metrics of the same kind, of training and of evaluations, share a chart.
  function kinds() {
    const found = new Map();
    for (const name of data.names) {
      const key = name.startsWith("perf/") || name.startsWith("optim/") ? name : base(name);
      found.set(key, [...(found.get(key) || []), name]);
    }
    return found;
  }

  const FIRST = ["lm_loss", "exact_accuracy", "accuracy", "perplexity", "solved", "pass@2", "q_halt_loss", "q_halt_accuracy", "steps", "lr", "perf/examples_per_second", "perf/tokens_per_second"];
  const TITLES = {
    lm_loss: "Token loss", exact_accuracy: "Solved examples", accuracy: "Right cells", q_halt_loss: "Loss of the halting head",
    q_halt_accuracy: "Halting head right", steps: "Steps taken", lr: "Learning rate", perplexity: "Perplexity",
    "perf/examples_per_second": "Examples a second", "perf/tokens_per_second": "Tokens a second", solved: "Solved by the rules",
  };

  function kindCard(key, names) {
    const averaged = runs.some((run) => run.averaged);
    const words = (name) => {
      if (names.length === 1 && runs.length > 1) return "";
      const kind = name.slice(0, name.indexOf("/"));
      if (kind === "train") return averaged ? " training (raw weights)" : " training";
      if (kind === "perf" || kind === "optim") return "";
      return ` ${kind}${averaged ? " (averaged weights, EMA)" : " (held-out)"}`;
    };
    const several = runs.length > 1 || groups.length;
    const series = names.flatMap((name, place) => {
      const own = lines(name, several ? null : place % 4, words(name));
      const thin = name.startsWith("train/") && names.length > 1; // evaluations stand out before the noise of training
      return thin ? own.map((line) => ({ ...line, width: 1.1, opacity: 0.65, low: undefined })) : own;
    });
    if (!series.length) return null;
    const share = SHARES.test(key) && !key.includes("loss");
    const values = series.flatMap((line) => line.y);
    const logY = /loss|lr$|perplexity/.test(key) && values.every((value) => value === null || value > 0);
    return curveCard(TITLES[key] || key, names.join(", "), series, share ? { y: [0, 1] } : { logY });
  }

  function drawCurves() {
    const all = kinds();
    const cards = (keys) => keys.filter((key) => all.has(key)).map((key) => kindCard(key, all.get(key))).filter((card) => card !== null);
    const first = cards(FIRST), rest = cards(Array.from(all.keys()).filter((key) => !FIRST.includes(key)));
    $("curves").replaceChildren(...first);
    $("rest").replaceChildren(...rest);
    $("more").hidden = !rest.length;
    if (!first.length) $("curves").append(element("p", { class: "card", text: "No step was logged, so there are no curves." }));
  }

  // -- evaluations ------------------------------------------------------------------------------------------------

  const evaluated = runs.filter((run) => run.evaluations.length);
  const steps = Array.from(new Set(runs.flatMap((run) => run.evaluations.map((one) => one.step)))).sort((a, b) => a - b);
  const sets = Array.from(new Set(runs.flatMap((run) => run.evaluations.flatMap((one) => Object.keys(one.sets)))));

  // The last evaluation of a run until a step.
  function resultOf(run, until, set) {
    const found = run.evaluations.filter((one) => one.step <= until && one.sets[set]);
    return found.length ? { step: found.at(-1).step, ...found.at(-1).sets[set] } : null;
  }

  function drawEvaluation() {
    $("evaluation").hidden = !evaluated.length || !sets.length;
    if ($("evaluation").hidden) return;
    const until = steps[Number($("when").value)], set = $("set").value || sets[0];
    $("when-text").textContent = until;
    const shown = evaluated.map((run) => ({ run, number: runs.indexOf(run), result: resultOf(run, until, set) })).filter((item) => item.result);
    const named = (run) => (runs.length > 1 ? run.name : "");
    const cards = [byStep(shown, named), ...shown.flatMap((item) => [outcome(item), histogram(item)]), calibration(shown)];
    $("details").replaceChildren(...cards.filter((card) => card !== null));
  }

  function card(title, note, ...content) {
    return element("div", { class: "card" }, element("h2", {}, title, element("span", { text: note })), ...content);
  }

  function byStep(shown, named) {
    const series = shown.flatMap(({ run, number, result }) => {
      const exact = result.exact_accuracy_after_step || [], cells = result.accuracy_after_step || [];
      const x = exact.map((_, step) => step + 1), name = named(run);
      if (!exact.length) return [];
      return [
        { x, y: exact, ...look(number), name: `${name} solved`.trim(), dots: exact.length < 40 },
        { x, y: cells, colour: runs.length > 1 ? look(number).colour : "b", dash: "2 3", name: `${name} right cells`.trim() },
      ];
    });
    if (!series.length) return null;
    const marks = runs.length === 1 && runs[0].config["arch.halt_max_steps"] ? [{ x: Number(runs[0].config["arch.halt_max_steps"]), text: "trained with" }] : [];
    const longest = Math.max(...series.map((line) => line.x.length));
    const options = { width: 420, height: 220, y: [0, 1], xLabel: "steps", whole: true, marks: marks.filter((mark) => mark.x < longest), label: "Accuracy after each step" };
    return card("Accuracy after each step", "does thinking longer help?", chart(series, options), legend(series));
  }

  function outcome({ run, result }) {
    const count = result.count || 0, exact = (result.exact_accuracy_after_step || []).at(-1);
    if (!count || exact === undefined) return null;
    const solved = Math.round(exact * count), lost = result.lost || 0, failed = Math.max(0, count - solved - lost);
    const bar = element("div", { class: "outcome", role: "img", "aria-label": `${solved} solved, ${lost} lost, ${failed} failed` });
    for (const [kind, number] of [["good", solved], ["lost", lost], ["bad", failed]]) {
      bar.append(element("span", { class: kind, style: `flex: ${number}` }));
    }
    const rows = [["solved", solved], ["lost again after being right", lost], ["never right", failed]];
    const table = element("table", {}, element("tbody", {}, ...rows.map(([name, number]) =>
      element("tr", {}, element("td", { text: name }), element("td", { class: "number", text: number }), element("td", { class: "number", text: percent(number / count) })))));
    const metrics = { ...result.metrics, ...result.task_metrics };
    for (const [name, value] of Object.entries(metrics)) {
      table.append(element("tr", {}, element("td", { text: name, colspan: 2 }), element("td", { class: "number", text: value === null ? "" : short(value) })));
    }
    return card(`Outcome ${runs.length > 1 ? run.name : ""}`, `${count} examples with labels, after step ${result.step}`, bar, table);
  }

  function histogram({ run, result }) {
    const stops = result.head_stops, right = result.head_stops_right, taken = result.steps_taken;
    if (!stops || !stops.length) return null;
    const never = stops[0];
    let last = stops.length - 1;
    while (last > 8 && !stops[last] && !taken[last]) last -= 1;
    const x = Array.from({ length: last }, (_, step) => step + 1), cut = (values) => x.map((step) => values[step]);
    const bars = Math.max(1.5, Math.min(24, 300 / last / 2.4));
    const series = [
      { x, y: cut(stops), colour: "b", bars, shift: -0.52, faint: true, name: "head would stop: all" },
      { x, y: cut(right), colour: "b", bars, shift: -0.52, name: "of these right" },
      { x, y: cut(taken), colour: "a", bars, shift: 0.52, name: "steps taken" },
    ];
    const most = Math.max(1, ...series.flatMap((line) => line.y));
    const options = { width: 420, height: 220, x: [0.4, last + 0.6], y: [0, most], whole: true, xLabel: "steps", label: "Steps to halt" };
    const share = stops.slice(1).reduce((a, b) => a + b, 0), good = right.slice(1).reduce((a, b) => a + b, 0);
    const note = `the head would stop ${share} examples, ${share - good} of them at a wrong answer; ${never} never`;
    return card(`Steps to halt ${runs.length > 1 ? run.name : ""}`, note, chart(series, options), legend(series));
  }

  function calibration(shown) {
    const series = shown.flatMap(({ run, number, result }) => {
      const count = result.calibration_count;
      if (!count || !count.length) return [];
      const filled = count.map((_, bin) => bin).filter((bin) => count[bin] > 0);
      const mean = (sums) => filled.map((bin) => sums[bin] / count[bin]);
      const x = mean(result.calibration_probability), y = mean(result.calibration_right);
      const off = result.calibration_error === null ? "" : `off by ${result.calibration_error.toFixed(3)}`;
      return [{ x, y, ...look(number), dots: true, name: `${runs.length > 1 ? run.name : "halting head"} ${off}` }];
    });
    if (!series.length) return null;
    const options = { width: 420, height: 260, x: [0, 1], y: [0, 1], diagonal: true, xLabel: "halting probability", label: "Calibration" };
    return card("Calibration of the halting head", "share of right answers by its probability, over all steps; the dotted line is perfect", chart(series, options), legend(series));
  }

  // -- tables -----------------------------------------------------------------------------------------------------

  function table(heads, rows, numeric) {
    const head = element("tr", {}, ...heads.map((text, place) => element("th", { text, class: numeric && place ? "number" : null })));
    const body = rows.map((row) => element("tr", {}, ...row.map((text, place) => element("td", { text, class: numeric && place ? "number" : null }))));
    return element("div", { class: "scroll" }, element("table", {}, element("thead", {}, head), element("tbody", {}, ...body)));
  }

  function drawOverview() {
    const keys = data.names.filter((name) => !/^(train|perf|optim)\//.test(name)).slice(0, 6);
    const perf = ["perf/examples_per_second", "perf/tokens_per_second"].filter((name) => runs.some((run) => run.throughput[name]));
    const value = (number) => (number === undefined || number === null ? "" : short(number));
    const heads = ["run", "seed", "steps", ...keys, ...perf.map((name) => name.slice(5).replaceAll("_", " "))];
    const rows = runs.map((run) => [
      run.name, run.seed === null || run.seed === undefined ? "" : String(run.seed), String(run.lastStep),
      ...keys.map((key) => value(run.last[key])), ...perf.map((name) => value(run.throughput[name])),
    ]);
    for (const group of groups) {
      const last = group.last || {};
      const cell = (key) => (last[key] ? `${short(last[key].mean)} \u00b1 ${short(last[key].std)}` : "");
      rows.push([`${group.runs.length} seeds, mean \u00b1 standard deviation`, "", "", ...keys.map(cell), ...perf.map(cell)]);
    }
    $("overview").replaceChildren(element("h2", { text: "Last values" }), table(heads, rows, true));
    const notes = runs.flatMap((run) => run.notes.map((note) => (runs.length > 1 ? `${run.name}: ${note}` : note)));
    for (const note of notes) $("overview").append(element("p", { class: "soft", text: `Note: ${note}.` }));
  }

  function drawFindings() {
    const found = runs.flatMap((run) => run.findings.map((text) => (runs.length > 1 ? `${run.name}: ${text}` : text)));
    $("findings").hidden = !found.length;
    $("findings").replaceChildren(element("h2", { text: "What stands out" }), element("ul", {}, ...found.map((text) => element("li", { text }))));
  }

  function drawDifferences() {
    $("differences").hidden = runs.length < 2;
    const heads = ["setting", ...runs.map((run) => run.name)], rows = data.differences.map((row) => [row.key, ...row.values]);
    const content = rows.length ? table(heads, rows) : element("p", { class: "soft", text: "The configurations agree." });
    $("differences").replaceChildren(element("h2", { text: "Configurations: only what differs" }), content);
    const keys = Array.from(new Set(runs.flatMap((run) => Object.keys(run.config)))).sort();
    $("config").replaceChildren(table(["setting", ...runs.map((run) => run.name)], keys.map((key) => [key, ...runs.map((run) => run.config[key] ?? "-")])));
  }

  $("title").textContent = runs.length === 1 ? runs[0].name : `${runs.length} runs`;
  $("about").textContent = runs.length === 1 ? `${runs[0].folder}; ${runs[0].lastStep} steps` : runs.map((run) => run.name).join(", ");
  $("when").max = Math.max(0, steps.length - 1);
  $("when").value = steps.length - 1;
  sets.forEach((name) => $("set").append(element("option", { value: name, text: name })));
  for (const id of ["axis", "log"]) $(id).addEventListener("change", drawCurves);
  for (const id of ["when", "set"]) $(id).addEventListener("input", drawEvaluation);
  drawOverview();
  drawFindings();
  drawDifferences();
  drawCurves();
  drawEvaluation();
  themeButton($("theme"), () => {});
  document.documentElement.dataset.ready = "true";
})();
