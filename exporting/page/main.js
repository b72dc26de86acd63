// The page: which model, the puzzle, the answer of each step, and what the rules say of it.

import {element, MazeBoard, SudokuBoard} from "./board.js";
import {Maze} from "./maze.js";
import {Sudoku} from "./sudoku.js";

const TASKS = {sudoku: {rules: Sudoku, board: SudokuBoard}, maze: {rules: Maze, board: MazeBoard}};
const part = (id) => document.getElementById(id);
const worker = new Worker("worker.js", {type: "module"});
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const LED = -1; // in place of a timer: the person chooses the steps
const PACE = 260; // ms for which a step is shown at least, so that it can be watched

let model, rules, board; // what is shown
let run = 0; // number of the last request to the worker
let steps = []; // of the run, {answer (board), halt, restarts}
let ending = null; // how the run ended, once it has
let shown = 0; // the step that is shown, from 1; 0: the question
let playing = null; // the timer that shows the next step

// -- choosing a model and a puzzle

async function begin() {
  const {models} = await (await fetch("models.json")).json();
  for (const own of models) {
    const label = element("label"), input = element("input", {type: "radio", name: "model", value: own.name});
    input.onchange = () => choose(own);
    label.append(input, element("span", {}, own.title));
    part("models").append(label);
  }
  part("models").querySelector("input").checked = true;
  choose(models[0]);
  example();
  think();
}

function choose(chosen) {
  model = chosen;
  rules = new TASKS[model.task].rules(model);
  board = new TASKS[model.task].board(part("board"), model, rules, changed);
  const buttons = board.pad();
  part("pad").replaceChildren(...buttons);
  part("pad").style.setProperty("--buttons", buttons.length);
  part("pad").classList.toggle("many", buttons.length > 8);
  part("unit").textContent = unit() === "step" ? "Step" : "Round";
  part("keys").innerHTML = board.keys;
  part("about").textContent = `${model.name}: a network of ${model.parameters.toLocaleString("en")} parameters. `
    + (model.kind === "search"
      ? "It kills improbable candidates, guesses where nothing follows, and starts again after a contradiction. "
      : `It makes at most ${model.max_steps} steps, and stops when it is sure and its answer stays the same. `)
    + "Everything is computed here; nothing is sent anywhere.";
  changed();
  state("loading", "The model is being loaded.");
  worker.postMessage({type: "load", run, model});
}

let next = 0; // of the examples
function example() {
  board.set(rules.read(model.examples[next++ % model.examples.length]));
}

// The question was changed: what was thought about the one before is over.
function changed() {
  run++;
  worker.postMessage({type: "stop", run});
  clearTimeout(playing);
  [steps, ending, shown, playing] = [[], null, 0, null];
  part("timeline").hidden = true;
  const wrong = rules.mistakes(board.question);
  const cells = new Map([...wrong].filter(([cell]) => cell !== "board"));
  board.show(null, new Set(), cells);
  part("hint").textContent = [...cells.values()][0] ?? "";
  if (wrong.size) state("ready", "Not a puzzle yet", [...wrong.values()][0]);
  else ready();
}

function ready() {
  state("ready", "Ready", "Enter a puzzle, take an example, or let it think.");
}

function state(name, title, text = "") {
  const verdict = part("verdict");
  verdict.dataset.state = name;
  verdict.replaceChildren(element("b", {}, title), text);
}

// -- thinking

function think() {
  const wrong = rules.mistakes(board.question);
  if (wrong.size) {
    const [cell, sentence] = [...wrong][0];
    if (cell !== "board") board.activate(cell);
    part("hint").textContent = sentence;
    return state("undecided", "Not a puzzle yet", sentence);
  }
  changed();
  const none = model.kind === "search" ? rules.unsolvable(board.question) : null; // a search would not end
  if (none !== null) return state("undecided", "No solution", none);
  state("thinking", "Thinking \u2026", "The model is being loaded, or makes its first step.");
  worker.postMessage({type: "solve", run, model, tokens: rules.tokens(board.question)});
}

worker.onmessage = ({data}) => {
  if (data.run !== run) return; // of a puzzle that has been changed since
  if (data.type === "ready") ready();
  if (data.type === "step") {
    steps.push({answer: rules.board(data.answer), halt: data.halt, restarts: data.restarts ?? 0});
    if (steps.length === 1) document.documentElement.dataset.firstAnswer = String(performance.now());
    part("timeline").hidden = false;
    part("step").max = steps.length;
    if (playing === null) play();
  }
  if (data.type === "end") {
    ending = data;
    if (playing === null) play();
    else if (playing === LED) shownNow();
  }
  if (data.type === "error") state("failed", "The model cannot run here", data.text);
};

worker.onerror = (event) => state("failed", "The model cannot run here", event.message ?? "");

// Show one step after the other, at a pace at which they can be watched.
function play() {
  if (shown < steps.length) {
    show(shown + 1);
    playing = setTimeout(play, calm.matches ? 0 : PACE);
  } else {
    playing = null;
    if (ending) finish();
  }
}

function finish() {
  show(steps.length);
  const {answer} = steps.at(-1), after = `after ${steps.length} ${steps.length === 1 ? unit() : `${unit()}s`}`;
  const found = rules.verdict(board.question, answer);
  const titles = {solved: `Solved ${after}`, wrong: `Not solved ${after}`, undecided: "No solution"};
  state(found.state, titles[found.state], found.text);
}

const unit = () => (model.kind === "search" ? "round" : "step");

// -- showing a step

function show(number) {
  shown = number;
  const {answer, halt, restarts} = steps[number - 1], before = number > 1 ? steps[number - 2].answer : board.question;
  const fresh = new Set(answer.flatMap((value, cell) => (value !== before[cell] ? [cell] : [])));
  const found = rules.verdict(board.question, answer);
  const isLast = ending !== null && number === steps.length;
  const wrong = isLast || model.task === "sudoku" ? found.cells : new Set();
  board.show(answer, isLast ? new Set() : fresh, new Map([...wrong].map((cell) => [cell, found.text])));
  part("step").value = number;
  part("step").max = steps.length;
  part("step-number").textContent = `${number} of ${steps.length}`;
  part("thought").textContent = halt === null
    ? `${answer.filter((value) => value > 0).length} of ${model.cells} cells are decided; ${restarts} new starts.`
    : `It is ${(100 * halt).toFixed(halt > 0.995 || halt < 0.005 ? 1 : 0)} % sure that this answer is right. `
      + `${fresh.size || "No"} ${fresh.size < 2 ? "cell has" : "cells have"} changed.`;
  part("thought").dataset.halt = halt ?? "";
  part("step").setAttribute("aria-valuetext", part("thought").textContent);
  bars();
  if (!ending) state("thinking", "Thinking \u2026", `${part("unit").textContent} ${number}.`);
}

// One bar a step: the halting probability, or in a search the share of decided cells.
function bars() {
  const most = 40, first = Math.max(0, Math.min(steps.length - most, shown - most / 2));
  part("bars").replaceChildren(...steps.slice(first, first + most).map(({answer, halt}, index) => {
    const share = halt ?? answer.filter((value) => value > 0).length / model.cells;
    const bar = element("div", {class: first + index + 1 === shown ? "bar shown" : "bar"});
    bar.style.height = `${Math.max(3, 100 * share)}%`;
    return bar;
  }));
  part("bars-caption").textContent = model.kind === "search"
    ? "The share of decided cells after each round."
    : "How sure it is after each step that its answer is right.";
}

// -- controls

part("step").oninput = (event) => {
  clearTimeout(playing);
  playing = LED;
  show(Number(event.target.value));
  if (ending) shownNow();
};

// After the end of a run: what the rules say of the step that is shown.
function shownNow() {
  if (shown === steps.length) return finish();
  const {state: name, text} = rules.verdict(board.question, steps[shown - 1].answer), solved = name === "solved";
  state(solved ? name : "step", `${part("unit").textContent} ${shown}`, solved ? text : `Not yet: ${text}`);
}

part("solve").onclick = think;
part("example").onclick = () => {
  example();
  think();
};
part("clear").onclick = () => {
  board.clear();
  board.activate(0);
};
part("board").addEventListener("keydown", (event) => {
  if (event.key === "Enter") think();
});
document.addEventListener("paste", (event) => {
  const question = rules.read(event.clipboardData.getData("text"));
  event.preventDefault();
  if (question) board.set(question);
  else part("hint").textContent = `What was pasted is no ${model.title}: it needs ${model.cells} cells.`;
});

begin().catch((error) => state("failed", "The page is incomplete", String(error.message ?? error)));
