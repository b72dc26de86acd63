// The board: a grid of cells that is drawn, filled by keys and by clicks, and shows answers.

import {GOAL, PATH, SPACE, START, WALL} from "./maze.js";

const element = (tag, attributes = {}, text = "") => {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.textContent = text;
  return made;
};

export {element};

// What the boards of the two tasks share: cells, one of which takes the keys, and moves between them.
class Board {
  // onChange is called after each entry.
  constructor(root, model, rules, onChange) {
    Object.assign(this, {root, model, rules, onChange});
    this.question = Array(model.cells).fill(this.blank);
    this.active = 0;
    root.className = model.task;
    root.style.setProperty("--rows", model.height);
    root.style.setProperty("--columns", model.width);
    root.setAttribute("aria-label", `${model.title}, ${model.height} rows and ${model.width} columns`);
    root.replaceChildren();
    this.cells = [];
    for (let row = 0; row < model.height; row++) {
      const line = element("div", {role: "row", class: "row"});
      for (let column = 0; column < model.width; column++) {
        const cell = element("div", {role: "gridcell", class: "cell", tabindex: "-1", "data-cell": this.cells.length});
        this.decorate(cell, row, column);
        this.cells.push(cell);
        line.append(cell);
      }
      root.append(line);
    }
    root.onpointerdown = root.onpointermove = null; // those of the board before
    root.onkeydown = (event) => this.key(event);
    root.onfocusin = (event) => this.activate(Number(event.target.dataset.cell), false);
    this.activate(0, false);
    this.show(null);
  }

  decorate(cell, row, column) {
    cell.classList.toggle("last-column", column === this.model.width - 1);
    cell.classList.toggle("last-row", row === this.model.height - 1);
  }

  activate(cell, focus = true) {
    if (Number.isNaN(cell)) return;
    this.cells[this.active].tabIndex = -1;
    this.active = cell;
    this.cells[cell].tabIndex = 0;
    if (focus) this.cells[cell].focus();
  }

  move(event) {
    const {width, height} = this.model, row = Math.floor(this.active / width), column = this.active % width;
    const steps = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]};
    let to = null;
    if (event.key in steps) {
      const [down, right] = steps[event.key];
      to = ((row + down + height) % height) * width + ((column + right + width) % width);
    }
    if (event.key === "Home") to = event.ctrlKey ? 0 : row * width;
    if (event.key === "End") to = event.ctrlKey ? width * height - 1 : row * width + width - 1;
    if (to !== null) this.activate(to);
    return to !== null;
  }

  key(event) {
    if (event.altKey || event.metaKey || (event.ctrlKey && !["Home", "End"].includes(event.key))) return;
    const value = this.valueOf(event.key);
    if (value !== null) this.enter(this.active, value);
    else if (!this.move(event)) return;
    event.preventDefault();
  }

  enter(cell, value) {
    this.question[cell] = value;
    this.onChange();
  }

  set(question) {
    this.question = [...question];
    this.onChange();
  }

  clear() {
    this.set(Array(this.model.cells).fill(this.blank));
  }

  // Show an answer, or with null the question alone.
  //   changed: cells that the last step has changed; wrong: cell -> sentence, of entries or answers that break a rule.
  show(answer, changed = new Set(), wrong = new Map()) {
    this.cells.forEach((cell, index) => {
      const sentence = wrong.get(index);
      cell.classList.toggle("fresh", changed.has(index));
      cell.classList.toggle("wrong", sentence !== undefined);
      cell.toggleAttribute("aria-invalid", sentence !== undefined);
      if (sentence) cell.title = sentence;
      else cell.removeAttribute("title");
      const name = this.draw(cell, index, answer);
      const place = `row ${Math.floor(index / this.model.width) + 1}, column ${(index % this.model.width) + 1}`;
      cell.setAttribute("aria-label", `${place}: ${name}${sentence ? `. ${sentence}` : ""}`);
    });
  }
}

export class SudokuBoard extends Board {
  get blank() {
    return 0;
  }

  decorate(cell, row, column) {
    super.decorate(cell, row, column);
    const [rows, columns] = this.model.box;
    cell.classList.toggle("box-right", (column + 1) % columns === 0 && column + 1 < this.model.width);
    cell.classList.toggle("box-bottom", (row + 1) % rows === 0 && row + 1 < this.model.height);
    cell.onpointerdown = () => this.activate(Number(cell.dataset.cell));
  }

  valueOf(key) {
    if (["Backspace", "Delete", "0", ".", " "].includes(key)) return 0;
    return /^[1-9]$/.test(key) && Number(key) <= this.model.width ? Number(key) : null;
  }

  draw(cell, index, answer) {
    const clue = this.question[index], value = clue || (answer ? answer[index] : 0);
    cell.textContent = value || "";
    cell.classList.toggle("given", clue > 0);
    cell.classList.toggle("answer", !clue && value > 0);
    return value ? `${value}${clue ? ", given" : ""}` : "blank";
  }

  // The buttons under the board.
  pad() {
    const values = [...Array(this.model.width).keys()].map((index) => index + 1);
    return [...values, 0].map((value) => {
      const button = element("button", {type: "button", "data-value": value}, value ? String(value) : "\u232b");
      if (!value) button.setAttribute("aria-label", "Blank");
      button.onclick = () => this.enter(this.active, value);
      return button;
    });
  }

  get keys() {
    return `Arrow keys move, <kbd>1</kbd> to <kbd>${this.model.width}</kbd> enter, <kbd>Backspace</kbd> clears, `
      + "<kbd>Enter</kbd> thinks. A puzzle can be pasted.";
  }
}

const TOOLS = {[WALL]: "Wall", [SPACE]: "Free", [START]: "Start", [GOAL]: "Goal"};
const NAMES = {[WALL]: "wall", [SPACE]: "free", [START]: "start", [GOAL]: "goal"};
const CLASSES = {wall: WALL, start: START, goal: GOAL};

export class MazeBoard extends Board {
  constructor(...given) {
    super(...given);
    this.tool = WALL;
    this.root.onpointerdown = (event) => this.draws(event);
    this.root.onpointermove = (event) => event.buttons && this.draws(event);
  }

  get blank() {
    return SPACE;
  }

  // Draw with the chosen tool, also while the pointer moves.
  draws(event) {
    const target = document.elementFromPoint(event.clientX, event.clientY)?.closest("[data-cell]");
    if (!target || !this.root.contains(target)) return;
    event.preventDefault();
    const cell = Number(target.dataset.cell);
    if (event.type === "pointerdown" || cell !== this.active) {
      this.activate(cell);
      if (this.question[cell] !== this.tool) this.enter(cell, this.tool);
    }
  }

  // There is one start and one goal: setting it moves it.
  enter(cell, value) {
    if (value === START || value === GOAL) {
      this.question = this.question.map((own) => (own === value ? SPACE : own));
    }
    super.enter(cell, value);
  }

  valueOf(key) {
    if (key === " ") return this.question[this.active] === WALL ? SPACE : WALL;
    const values = {"#": WALL, w: WALL, ".": SPACE, Backspace: SPACE, Delete: SPACE, s: START, g: GOAL};
    return values[key.length === 1 ? key.toLowerCase() : key] ?? null;
  }

  draw(cell, index, answer) {
    const own = this.question[index], ends = own === START || own === GOAL;
    const path = answer !== null && answer[index] === PATH && !ends;
    for (const [name, token] of Object.entries(CLASSES)) cell.classList.toggle(name, own === token);
    cell.classList.toggle("path", path);
    cell.textContent = own === START ? "S" : own === GOAL ? "G" : "";
    return path ? `${NAMES[own]}, path` : NAMES[own];
  }

  pad() {
    return Object.entries(TOOLS).map(([token, name]) => {
      const label = element("label", {class: "tool"});
      const input = element("input", {type: "radio", name: "tool", value: token});
      input.checked = Number(token) === this.tool;
      input.onchange = () => (this.tool = Number(token));
      label.append(input, element("span", {}, name));
      return label;
    });
  }

  get keys() {
    return "Arrow keys move, <kbd>Space</kbd> sets or removes a wall, <kbd>S</kbd> and <kbd>G</kbd> set start and "
      + "goal, <kbd>Enter</kbd> thinks. With a pointer, draw with the chosen tool.";
  }
}
