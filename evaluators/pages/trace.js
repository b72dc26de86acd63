"use strict";
// The trace viewer: one puzzle at one step of one run, and beside it another.

(async function () {
  const $ = (id) => document.getElementById(id);
  const data = pageData(), board = data.board, NOTHING = 255;
  const buffer = await pageBytes();
  const runs = data.runs.map((run) => {
    const arrays = Object.fromEntries(Object.entries(run.arrays).map(([name, at]) => [name, arrayAt(buffer, at)]));
    return { ...run, ...arrays, inner: run.updates.length };
  });
  const FILTERS = [
    ["All", () => true],
    ["Failed", (run, row) => !(run.flags[row] & 1)],
    ["Solved", (run, row) => run.flags[row] & 1],
    ["Halted too early", (run, row) => run.flags[row] & 2],
    ["Lost after being right", (run, row) => run.flags[row] & 4],
    ["Never halts", (run, row) => run.halted[row] === 0],
  ];
  const now = { run: 0, row: 0, step: 1, inner: 1, shade: "probability", beside: "", lock: true, other: 1, filter: 0 };
  let timer = null;

  // -- what a run shows of a puzzle at a step ---------------------------------------------------------------------

  const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
  const at = (run, row, step) => (row * run.steps + step - 1) * run.cells;
  const atInner = (run, row, step, inner) => ((row * run.steps + step - 1) * run.inner + inner - 1) * run.cells;
  const part = (array, start, length) => array.subarray(start, start + length);

  function cellsOf(run, row, step, inner) {
    if (run.inner && inner < run.inner) {
      const start = atInner(run, row, step, inner);
      const tokens = part(run.innerAnswers, start, run.cells), unsure = unsureOf(run, start, true);
      return { tokens, unsure, before: innerBefore(run, row, step, inner) };
    }
    const start = at(run, row, step);
    const before = step > 1 ? part(run.answers, at(run, row, step - 1), run.cells) : null;
    return { tokens: part(run.answers, start, run.cells), unsure: unsureOf(run, start, false), before };
  }

  // The last update of the same latent.
  function innerBefore(run, row, step, inner) {
    for (let place = (step - 1) * run.inner + inner - 2; place >= 0; place -= 1) {
      if (run.updates[place % run.inner] === run.updates[inner - 1]) {
        const start = atInner(run, row, Math.floor(place / run.inner) + 1, (place % run.inner) + 1);
        return part(run.innerAnswers, start, run.cells);
      }
    }
    return null;
  }

  function unsureOf(run, start, inner) {
    if (now.shade === "none") return () => 0;
    if (inner) return (cell) => 1 - run.innerProbability[start + cell] / 255;
    if (now.shade === "entropy") return (cell) => Math.min(1, run.entropy[start + cell] / run.entropyUnit / 3);
    return (cell) => 1 - run.probability[start + cell] / 255;
  }

  const finalStep = (run, row) => (run.earlyHalting && run.halted[row] ? run.halted[row] : run.steps);
  const isWrong = (run, row, tokens, cell) => {
    const expected = run.expected[row * run.cells + cell];
    return expected !== NOTHING && expected !== tokens[cell];
  };
  const windowOf = (run, row, question) => Array.from(part(run.windows, row * 8 + (question ? 4 : 0), 4));
  const nameOf = (run, row) => (run.index[row] >= 0 ? `#${run.index[row]}` : `puzzle ${row + 1}`);

  function verdict(run, row) {
    if (run.flags[row] & 1) return ["solved", "good"];
    if (run.flags[row] & 2) return ["halted too early", "bad"];
    return [run.flags[row] & 4 ? "lost again" : "failed", "bad"];
  }

  // -- boards -----------------------------------------------------------------------------------------------------

  function makePane(letter) {
    const title = element("h2"), state = element("p", { class: "state", "aria-live": letter === "A" ? "polite" : "off" });
    const grid = element("div", { class: "board" + (board.coloured ? " coloured" : ""), role: "img" });
    const pane = element("div", { class: "pane", "data-pane": letter }, element("header", {}, title, state), grid);
    pane.style.containerType = "inline-size";
    return { pane, title, state, grid, shape: "", cells: [] };
  }

  function shapeGrid(pane, [top, bottom, left, right]) {
    const shape = [top, bottom, left, right].join();
    if (pane.shape === shape) return;
    const rows = bottom - top, cols = right - left, width = `min(430px, ${Math.round((430 * cols) / rows)}px)`;
    pane.shape = shape;
    pane.cells = [];
    pane.grid.replaceChildren();
    pane.grid.style.gridTemplateColumns = `repeat(${cols}, minmax(0, 1fr))`;
    pane.grid.style.maxWidth = width;
    pane.grid.style.setProperty("--size", `calc(min(100cqw, ${width}) / ${cols} * 0.54)`);
    for (let y = top; y < bottom; y += 1) {
      for (let x = left; x < right; x += 1) {
        const edges = [];
        if (x === right - 1) edges.push("last-right");
        else if (board.box && (x + 1) % board.box[1] === 0) edges.push("edge-right");
        if (y === bottom - 1) edges.push("last-bottom");
        else if (board.box && (y + 1) % board.box[0] === 0) edges.push("edge-bottom");
        const text = element("span"), dot = element("i");
        const cell = element("div", { class: "cell" }, dot, text);
        pane.cells.push({ cell, text, place: y * board.width + x, edges: edges.join(" ") });
        pane.grid.append(cell);
      }
    }
  }

  // shown: {tokens, unsure, before, wrong(cell), given(cell)}
  function paint(pane, shown) {
    let wrong = 0, changed = 0;
    for (const { cell, text, place, edges } of pane.cells) {
      const token = shown.tokens[place], look = board.tokens[token] || { text: "?", name: "?" };
      const bad = shown.wrong(place), given = shown.given(place);
      const moved = shown.before !== null && shown.before[place] !== token;
      wrong += bad;
      changed += moved;
      cell.className = `cell ${edges}${given ? " given" : ""}${bad ? " wrong" : ""}${moved ? " changed" : ""}`;
      cell.dataset.token = token;
      const unsure = given && !bad ? 0 : shown.unsure(place);
      cell.style.setProperty("--u", unsure.toFixed(2));
      cell.title = `${look.name === " " ? "blank" : look.name}${shown.asked ? `, ${Math.round(100 * (1 - unsure))} % sure` : ""}`;
      text.textContent = look.text;
      if (board.coloured) {
        cell.style.setProperty("--fill", look.fill);
        cell.style.setProperty("--ink-here", look.ink);
      }
    }
    return { wrong, changed };
  }

  function answerPane(pane, run, row, step, inner, title) {
    shapeGrid(pane, windowOf(run, row, false));
    const shown = cellsOf(run, row, step, inner);
    const start = row * run.cells;
    const counted = paint(pane, {
      ...shown,
      asked: now.shade !== "none",
      wrong: (cell) => isWrong(run, row, shown.tokens, cell),
      given: (cell) => run.given[start + cell] === 1,
    });
    pane.title.textContent = title;
    const place = row * run.steps + step - 1;
    const state = pane.state;
    state.replaceChildren();
    const good = run.right[place] === 1 && !(run.inner && inner < run.inner);
    const known = part(run.expected, start, run.cells).some((token) => token !== NOTHING);
    const words = good ? ["right", "good"] : known ? [`${counted.wrong} wrong`, "bad"] : ["not known", ""];
    state.append(element("span", { class: words[1], text: words[0] }));
    const moved = shown.before === null ? "" : `, ${counted.changed} changed`;
    const halt = run.inner && inner < run.inner ? run.innerHalt[place * run.inner + inner - 1] : run.halt[place];
    const read = run.inner && inner < run.inner ? `, read from ${run.updates[inner - 1]}` : "";
    state.append(`${moved}; halting head ${(100 * halt).toFixed(0)} % sure${read}`);
    if (run.halted[row] && step >= run.halted[row]) {
      const when = step === run.halted[row] ? "stops here" : `has stopped at step ${run.halted[row]}`;
      state.append(`; the rule ${when}`);
    }
    pane.grid.setAttribute("aria-label", `${title}: ${state.textContent}`);
  }

  function stillPane(pane, run, row, kind) {
    const question = kind === "question", start = row * run.cells;
    shapeGrid(pane, windowOf(run, row, question));
    const inputs = part(run.inputs, start, run.cells), expected = part(run.expected, start, run.cells);
    const tokens = question ? inputs : expected.map((token, cell) => (token === NOTHING ? inputs[cell] : token));
    const given = (cell) => run.given[start + cell] === 1;
    paint(pane, { tokens, unsure: () => 0, before: null, wrong: () => false, given, asked: false });
    pane.title.textContent = question ? "Question" : "Solution";
    pane.state.textContent = "";
    pane.grid.setAttribute("aria-label", pane.title.textContent);
  }

  // -- thumbnails -------------------------------------------------------------------------------------------------

  function colour(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  }

  // Draw tokens on a canvas; wrong cells get a stroke, so that they show without colours too.
  function miniature(canvas, rows, cols, tokenAt, wrongAt, givenAt, palette) {
    const side = Math.max(2, Math.floor(144 / Math.max(rows, cols)));
    canvas.width = cols * side;
    canvas.height = rows * side;
    const pen = canvas.getContext("2d");
    for (let y = 0; y < rows; y += 1) {
      for (let x = 0; x < cols; x += 1) {
        const look = board.tokens[tokenAt(y, x)], bad = wrongAt(y, x);
        pen.fillStyle = board.coloured && look ? look.fill : bad ? palette.wrong : givenAt(y, x) ? palette.soft : palette.line;
        pen.fillRect(x * side, y * side, side - (side > 4 ? 1 : 0), side - (side > 4 ? 1 : 0));
        if (!bad) continue;
        pen.strokeStyle = board.coloured ? palette.wrong : palette.card;
        pen.lineWidth = Math.max(1.5, side / 7);
        pen.beginPath();
        pen.moveTo(x * side + side * 0.15, y * side + side * 0.85);
        pen.lineTo(x * side + side * 0.85, y * side + side * 0.15);
        pen.stroke();
      }
    }
  }

  function thumbnail(run, row, palette) {
    const canvas = element("canvas", { "aria-hidden": "true" });
    const [top, bottom, left, right] = windowOf(run, row, false);
    const tokens = part(run.answers, at(run, row, finalStep(run, row)), run.cells);
    const cell = (y, x) => (top + y) * board.width + left + x;
    miniature(
      canvas, bottom - top, right - left, (y, x) => tokens[cell(y, x)],
      (y, x) => isWrong(run, row, tokens, cell(y, x)), (y, x) => run.given[row * run.cells + cell(y, x)] === 1, palette,
    );
    const [words, kind] = verdict(run, row);
    const stops = run.halted[row] ? `stops at ${run.halted[row]}` : "never stops";
    return element(
      "button",
      {
        type: "button", class: "thumb", role: "option", "data-row": row,
        "aria-selected": row === now.row, onclick: () => choose(row),
      },
      canvas, element("b", { text: nameOf(run, row) }), element("span", { class: kind, text: words }),
      element("span", { class: "soft", text: stops }),
    );
  }

  function rowsShown() {
    const run = runs[now.run];
    const wanted = FILTERS[now.filter][1];
    return Array.from({ length: run.count }, (_, row) => row).filter((row) => wanted(run, row));
  }

  function drawGallery() {
    const run = runs[now.run];
    const palette = Object.fromEntries(["wrong", "soft", "line", "card"].map((name) => [name, colour(name)]));
    const rows = rowsShown();
    $("gallery").replaceChildren(...rows.map((row) => thumbnail(run, row, palette)));
    if (!rows.length) $("gallery").append(element("p", { class: "soft empty", text: "No puzzle of this kind." }));
    FILTERS.forEach(([name, wanted], number) => {
      const button = $("filters").children[number];
      const count = Array.from({ length: run.count }, (_, row) => row).filter((row) => wanted(run, row)).length;
      button.textContent = `${name} ${count}`;
      button.setAttribute("aria-pressed", number === now.filter);
    });
  }

  // -- curves -----------------------------------------------------------------------------------------------------

  function curve(run, row, values, stride, offset) {
    return Array.from({ length: run.steps }, (_, step) => values[(row * run.steps + step) * stride + offset]);
  }

  function innerCurve(run, row, values, latent) {
    const x = [], y = [];
    for (let step = 0; step < run.steps; step += 1) {
      run.updates.forEach((name, inner) => {
        if (name !== latent) return;
        x.push(step + (inner + 1) / run.inner);
        y.push(values[(row * run.steps + step) * run.inner + inner]);
      });
    }
    return { x, y };
  }

  function drawCurves() {
    const sides = [[runs[now.run], now.row, "A"]];
    const other = otherRun();
    if (other !== null && other.run !== runs[now.run]) sides.push([other.run, other.row, "B"]);
    const halting = [], right = [], moving = [], marks = [];
    const COLOURS = ["a", "c", "d", "b"];
    for (const [run, row, side] of sides) {
      const x = Array.from({ length: run.steps }, (_, step) => step + 1), second = side === "B";
      const named = (name) => (sides.length > 1 ? `${name} ${side}` : name);
      const base = { x, dash: second ? "5 4" : "none" };
      if (run.inner && !second) {
        halting.push({ ...innerCurve(run, row, run.innerHalt, run.latents[0]), colour: "soft", width: 1 });
      }
      halting.push({ ...base, y: curve(run, row, run.halt, 1, 0), colour: second ? "b" : "a", name: named("sure"), dots: !second });
      right.push({ ...base, y: curve(run, row, run.accuracy, 1, 0), colour: second ? "b" : "a", name: named("cells right"), dots: !second });
      run.latents.forEach((latent, number) => {
        if (run.inner && !second) {
          moving.push({ ...innerCurve(run, row, run.innerChange, latent), colour: COLOURS[number % 4], width: 1, dash: "1 3" });
        }
        const y = curve(run, row, run.change, run.latents.length, number);
        moving.push({ ...base, y, colour: COLOURS[(number + (second ? 2 : 0)) % 4], name: named(latent) });
      });
      if (run.halted[row]) marks.push({ x: run.halted[row], text: sides.length > 1 ? `stops ${side}` : "stops" });
    }
    const longest = Math.max(...sides.map(([run]) => run.steps));
    const first = runs[now.run];
    const inner = first.inner && now.inner < first.inner;
    const common = {
      x: [Math.min(1, longest - 1), Math.max(2, longest)], whole: true, cursor: inner ? now.step - 1 + now.inner / first.inner : now.step,
      seek: (x) => go(Math.max(1, Math.round(x))), marks, width: 360, height: 165,
    };
    if (first.inner) common.x[0] = 0;
    const motions = first.latents.map((latent, n) => `${latent} ${first.motions[first.motion[now.row * first.latents.length + n]]}`);
    const rows = [
      ["Halting head", "how sure that the answer is right", halting, { y: [0, 1], lines: [{ y: first.threshold, text: "threshold" }] }],
      ["Answer", "share of the cells", right, { y: [Math.min(0.5, ...right.flatMap((line) => line.y)), 1] }],
      ["State change", motions.join(", "), moving, { logY: true }],
    ];
    $("curves").replaceChildren(
      ...rows.map(([title, note, series, options]) =>
        element(
          "div", { class: "card" }, element("h2", {}, title, element("span", { text: note })),
          chart(series, { ...common, ...options, label: `${title} by step` }), legend(series),
        ),
      ),
    );
  }

  // -- votes of ARC -----------------------------------------------------------------------------------------------

  function drawVotes() {
    const run = runs[now.run], index = run.index[now.row];
    const vote = run.votes.find((item) => item.examples.includes(index));
    $("votes").hidden = !vote;
    if (!vote) return;
    const place = vote.candidates.findIndex((item) => item.right);
    const total = vote.copies, best = vote.candidates[0];
    let words = `The right answer won with ${best.votes} of ${total} votes.`;
    if (!vote.known) words = "The solution is not known.";
    else if (place < 0) words = "The right answer was never there.";
    else if (place > 0) {
      words = `The right answer was there and lost the vote: place ${place + 1}, ${vote.candidates[place].votes} votes to ${best.votes}.`;
    }
    const list = element("div", { class: "candidates" });
    const palette = Object.fromEntries(["wrong", "soft", "line", "card"].map((name) => [name, colour(name)]));
    vote.candidates.forEach((item, number) => {
      const canvas = element("canvas", { role: "img", "aria-label": `candidate ${number + 1}` });
      if (item.height) {
        miniature(canvas, item.height, item.width, (y, x) => item.tokens[y * item.width + x], () => false, () => false, palette);
      }
      const bar = element("div", { class: "bar" }, element("span", { style: `width: ${(100 * item.votes) / Math.max(1, best.votes)}%` }));
      const carriers = element("div", { class: "carriers" }, element("span", { class: "soft", text: "carried by" }));
      item.examples.forEach((example) => {
        const row = run.index.indexOf(example);
        if (row >= 0) carriers.append(element("button", { type: "button", text: `#${example}`, onclick: () => choose(row) }));
      });
      const hidden = item.votes - (carriers.children.length - 1);
      if (hidden > 0) carriers.append(element("span", { class: "soft", text: `${carriers.children.length > 1 ? "and " : ""}${hidden} not traced` }));
      const name = `${item.place}. ${item.right ? "right" : vote.known ? "wrong" : ""}`;
      const text = ` ${item.votes} votes, halting head ${(100 * item.confidence).toFixed(0)} % sure on average`;
      list.append(
        element(
          "div", { class: `candidate${item.right ? " right" : ""}` }, canvas,
          element("div", {}, element("div", {}, element("b", { text: name }), text), bar, carriers),
        ),
      );
    });
    $("votes").replaceChildren(element("h2", { text: `Votes for ${vote.title}` }), element("p", { text: words }), list);
  }

  // -- choosing ---------------------------------------------------------------------------------------------------

  const paneA = makePane("A"), paneB = makePane("B");
  $("panes").append(paneA.pane, paneB.pane);

  // What stands beside: {run, row}, or null.
  function otherRun() {
    if (!now.beside.startsWith("run")) return null;
    const run = runs[Number(now.beside.slice(3))], puzzle = runs[now.run].puzzle[now.row];
    const row = run === runs[now.run] ? now.row : run.puzzle.indexOf(puzzle);
    return row < 0 ? null : { run, row };
  }

  function besideOptions() {
    const choices = [["", "nothing"], ["question", "the question"], ["solution", "the solution"]];
    runs.forEach((run, number) => choices.push([`run${number}`, number === now.run ? "this run, at another step" : run.name]));
    $("beside").replaceChildren(...choices.map(([value, text]) => element("option", { value, text })));
    $("beside").value = now.beside;
  }

  function draw() {
    const run = runs[now.run];
    now.step = clamp(now.step, 1, run.steps);
    now.inner = run.inner ? clamp(now.inner, 1, run.inner) : 1;
    $("step").max = run.steps;
    $("step").value = now.step;
    $("step-text").textContent = `${now.step} of ${run.steps}`;
    $("inner-row").hidden = !run.inner;
    if (run.inner) {
      $("inner").max = run.inner;
      $("inner").value = now.inner;
      $("inner-text").textContent = `${now.inner} of ${run.inner}, ${run.updates[now.inner - 1]}`;
    }
    const suffix = run.inner && now.inner < run.inner ? `, update ${now.inner}` : "";
    const many = runs.length > 1 ? `${run.name}: ` : "";
    answerPane(paneA, run, now.row, now.step, now.inner, `${many}${nameOf(run, now.row)}, step ${now.step}${suffix}`);
    const other = otherRun(), same = other !== null && other.run === run;
    paneB.pane.hidden = now.beside === "";
    $("lock-row").hidden = other === null || same;
    $("other-row").hidden = other === null || (now.lock && !same);
    if (other !== null) {
      if (now.lock && !same) now.other = now.step;
      now.other = clamp(now.other, 1, other.run.steps);
      $("other").max = other.run.steps;
      $("other").value = now.other;
      $("other-text").textContent = `${now.other} of ${other.run.steps}`;
      const inner = now.lock && !same && other.run.inner === run.inner ? now.inner : other.run.inner || 1;
      answerPane(paneB, other.run, other.row, now.other, inner, `${many && !same ? `${other.run.name}: ` : ""}${nameOf(other.run, other.row)}, step ${now.other}`);
    } else if (now.beside.startsWith("run")) {
      stillPane(paneB, run, now.row, "question");
      paneB.title.textContent = "Not in that run";
      paneB.state.textContent = "it has not traced this puzzle";
    } else if (now.beside) stillPane(paneB, run, now.row, now.beside);
    drawCurves();
  }

  function choose(row) {
    now.row = row;
    for (const thumb of $("gallery").children) {
      const chosen = thumb.dataset.row === String(row);
      thumb.setAttribute("aria-selected", chosen);
      if (chosen) thumb.scrollIntoView({ block: "nearest", inline: "nearest" });
    }
    drawVotes();
    draw();
  }

  function go(step, inner) {
    now.step = step;
    now.inner = inner === undefined ? runs[now.run].inner || 1 : inner;
    draw();
  }

  function moveInner(by) {
    const run = runs[now.run];
    if (!run.inner) return go(clamp(now.step + by, 1, run.steps));
    const place = clamp((now.step - 1) * run.inner + now.inner - 1 + by, 0, run.steps * run.inner - 1);
    return go(Math.floor(place / run.inner) + 1, (place % run.inner) + 1);
  }

  function movePuzzle(by) {
    const rows = rowsShown(), place = rows.indexOf(now.row);
    if (rows.length) choose(rows[clamp(place + by, 0, rows.length - 1)]);
  }

  function atEnd() {
    const run = runs[now.run];
    return now.step >= run.steps && (!run.inner || now.inner >= run.inner);
  }

  function play(on) {
    clearInterval(timer);
    timer = null;
    if (on) {
      if (atEnd()) go(1, 1);
      timer = setInterval(() => (atEnd() ? play(false) : moveInner(1)), runs[now.run].inner ? 140 : 450);
    }
    $("play").textContent = timer === null ? "Play" : "Pause";
    $("play").setAttribute("aria-label", timer === null ? "Play" : "Pause");
  }

  function chooseRun(number) {
    const puzzle = runs[now.run].puzzle[now.row];
    now.run = number;
    const row = runs[number].puzzle.indexOf(puzzle);
    now.row = row < 0 ? 0 : row;
    if (now.beside === `run${number}`) now.beside = "";
    describe();
    besideOptions();
    drawGallery();
    choose(now.row);
  }

  function describe() {
    const run = runs[now.run], rule = `threshold ${run.threshold}${run.unchanged ? ", answer unchanged" : ""}`;
    const counts = run.earlyHalting ? "the answer at which it stops counts" : "the last answer counts";
    const known = Object.entries(run.about).map(([key, value]) => `${key}: ${value}`).join("; ");
    $("title").textContent = run.name;
    $("about").textContent = `${run.count} puzzles, ${run.steps} steps; halting rule: ${rule}; ${counts}${known ? `. ${known}` : ""}`;
  }

  runs.forEach((run, number) => $("run").append(element("option", { value: number, text: run.name })));
  $("run-row").hidden = runs.length < 2;
  $("run").addEventListener("change", (event) => chooseRun(Number(event.target.value)));
  FILTERS.forEach((_, number) => {
    const button = element("button", { type: "button", "aria-pressed": "false" });
    button.addEventListener("click", () => filter(number));
    $("filters").append(button);
  });

  function filter(number) {
    now.filter = number;
    drawGallery();
    const rows = rowsShown();
    if (rows.length && !rows.includes(now.row)) choose(rows[0]);
  }

  $("step").addEventListener("input", (event) => go(Number(event.target.value)));
  $("inner").addEventListener("input", (event) => go(now.step, Number(event.target.value)));
  $("other").addEventListener("input", (event) => {
    now.other = Number(event.target.value);
    draw();
  });
  $("first").addEventListener("click", () => go(1, 1));
  $("last").addEventListener("click", () => go(runs[now.run].steps));
  $("back").addEventListener("click", () => go(Math.max(1, now.step - 1)));
  $("forward").addEventListener("click", () => go(now.step + 1));
  $("play").addEventListener("click", () => play(timer === null));
  $("lock").addEventListener("change", (event) => {
    now.lock = event.target.checked;
    draw();
  });
  $("shade").addEventListener("change", (event) => {
    now.shade = event.target.value;
    draw();
  });
  $("beside").addEventListener("change", (event) => {
    now.beside = event.target.value;
    draw();
  });

  function compare() {
    const another = runs.findIndex((_, number) => number !== now.run);
    now.beside = now.beside ? "" : another < 0 ? "solution" : `run${another}`;
    $("beside").value = now.beside;
    draw();
  }

  const KEYS = {
    ArrowRight: (event) => (event.shiftKey ? moveInner(1) : go(now.step + 1)),
    ArrowLeft: (event) => (event.shiftKey ? moveInner(-1) : go(Math.max(1, now.step - 1))),
    ArrowDown: () => movePuzzle(1),
    ArrowUp: () => movePuzzle(-1),
    Home: () => go(1, 1),
    End: () => go(runs[now.run].steps),
    " ": () => play(timer === null),
    c: compare,
    s: () => {
      const shades = ["probability", "entropy", "none"];
      now.shade = shades[(shades.indexOf(now.shade) + 1) % 3];
      $("shade").value = now.shade;
      draw();
    },
  };
  document.addEventListener("keydown", (event) => {
    // what has the focus keeps its own keys: lists, the slider of the board beside, and space for buttons
    const own = event.target.tagName === "SELECT" || event.target.id === "other";
    if (event.ctrlKey || event.metaKey || event.altKey || own) return;
    if (event.key === " " && (event.target.tagName === "BUTTON" || event.target.type === "checkbox")) return;
    const number = Number(event.key);
    const action = event.key.trim() && number >= 1 && number <= FILTERS.length ? () => filter(number - 1) : KEYS[event.key];
    if (!action) return;
    event.preventDefault();
    action(event);
  });

  if (window.innerWidth > 760) now.beside = runs.length > 1 ? "run1" : "question";
  describe();
  besideOptions();
  go(runs[0].steps);
  themeButton($("theme"), () => {
    drawGallery();
    drawVotes();
  });
  const failed = FILTERS[1][1], bad = rowsShown().find((row) => failed(runs[0], row));
  $("main").hidden = false;
  choose(bad === undefined ? 0 : bad);
  document.documentElement.dataset.ready = "true";
})().catch((error) => {
  document.body.append(element("p", { class: "message", text: `This page cannot be shown: ${error}. A newer browser may help.` }));
});
