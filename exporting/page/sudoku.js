// The rules of Sudoku. A board is an array of values, row by row, with 0 for a blank.

const GUESSES = 20000; // of the exact solver; the hardest known puzzles with one solution take a few hundred

export class Sudoku {
  // shape: {height, width, box: [rows, columns]}
  constructor(shape) {
    this.side = shape.width;
    [this.boxRows, this.boxColumns] = shape.box;
    this.cells = this.side ** 2;
    this.units = this.makeUnits();
    this.peers = Array.from({length: this.cells}, (_, cell) => {
      const all = this.units.filter((unit) => unit.cells.includes(cell)).flatMap((unit) => unit.cells);
      return [...new Set(all)].filter((other) => other !== cell);
    });
  }

  makeUnits() {
    const units = [];
    for (let i = 0; i < this.side; i++) {
      const range = [...Array(this.side).keys()];
      units.push({name: `row ${i + 1}`, cells: range.map((j) => i * this.side + j)});
      units.push({name: `column ${i + 1}`, cells: range.map((j) => j * this.side + i)});
    }
    for (let top = 0; top < this.side; top += this.boxRows) {
      for (let left = 0; left < this.side; left += this.boxColumns) {
        const cells = [];
        for (let r = 0; r < this.boxRows; r++) {
          for (let c = 0; c < this.boxColumns; c++) cells.push((top + r) * this.side + left + c);
        }
        units.push({name: `box ${units.length - 2 * this.side + 1}`, cells});
      }
    }
    return units;
  }

  // The cells whose value is in one of their units twice: cell -> a sentence that says where.
  repeated(board) {
    const found = new Map();
    for (const unit of this.units) {
      for (const cell of unit.cells) {
        const twice = board[cell] && unit.cells.some((other) => other !== cell && board[other] === board[cell]);
        if (twice && !found.has(cell)) found.set(cell, `The digit ${board[cell]} is in ${unit.name} more than once.`);
      }
    }
    return found;
  }

  // What is wrong with a question, cell -> sentence; empty if no two clues contradict each other.
  mistakes(question) {
    return this.repeated(question);
  }

  // Why the question has no solution, as a sentence; null if it has one, or nobody knows.
  unsolvable(question) {
    const twice = this.repeated(question);
    if (twice.size) return `It has no solution: ${[...twice.values()][0].replace(/^The/, "the")}`;
    if (this.hasSolutionCached(question) !== false) return null;
    return "It has no solution, although no two clues contradict each other.";
  }

  // `hasSolution`, which is asked after each step, computed once for each question.
  hasSolutionCached(question) {
    const key = this.write(question);
    if (this.asked?.key !== key) this.asked = {key, found: this.hasSolution(question)};
    return this.asked.found;
  }

  // Whether there is a solution; null if the search takes too long.
  hasSolution(question) {
    const board = [...question];
    const allowed = (cell) => {
      let free = (1 << (this.side + 1)) - 2;
      for (const peer of this.peers[cell]) free &= ~(1 << board[peer]);
      return free & ~1;
    };
    const count = (bits) => {
      let n = 0;
      for (; bits; bits &= bits - 1) n++;
      return n;
    };
    let guesses = 0;
    const place = () => {
      let best = -1, options = 0, fewest = Infinity;
      for (let cell = 0; cell < this.cells; cell++) {
        if (board[cell]) continue;
        const free = allowed(cell), number = count(free);
        if (number < fewest) [best, options, fewest] = [cell, free, number];
        if (fewest < 2) break;
      }
      if (best < 0) return true;
      for (let value = 1; value <= this.side; value++) {
        if (!(options & (1 << value))) continue;
        if (fewest > 1 && ++guesses > GUESSES) return null;
        board[best] = value;
        const found = place();
        if (found !== false) return found;
        board[best] = 0;
      }
      return false;
    };
    return place();
  }

  // What the rules say of an answer: {state, text, cells that break a rule}.
  verdict(question, answer) {
    const none = this.unsolvable(question);
    if (none !== null) return {state: "undecided", text: none, cells: new Set(this.repeated(question).keys())};
    const lost = question.flatMap((value, cell) => (value && value !== answer[cell] ? [cell] : []));
    if (lost.length) return {state: "wrong", text: "It does not keep all clues.", cells: new Set(lost)};
    const twice = this.repeated(answer);
    const open = answer.filter((value) => value < 1 || value > this.side).length;
    if (!twice.size && open) {
      return {state: "wrong", text: `${open} ${open === 1 ? "cell is" : "cells are"} left open.`, cells: new Set()};
    }
    if (twice.size) return {state: "wrong", text: [...twice.values()][0], cells: new Set(twice.keys())};
    return {state: "solved", text: "Every row, column and box has each digit once, and all clues are kept.",
      cells: new Set()};
  }

  // -- tokens of the network, and what a person writes

  tokens(board) {
    return board.map((value) => value + 1);
  }

  // The board that an answer in tokens stands for.
  board(tokens) {
    return tokens.map((token) => (token > 1 && token <= this.side + 1 ? token - 1 : 0));
  }

  // A board from a text such as "53..7...."; null if it is none.
  read(text) {
    const cells = [...text.replace(/[\s|+\-!,;]/g, "")];
    if (cells.length !== this.cells) return null;
    const board = cells.map((character) => ("._*?".includes(character) ? 0 : Number(character)));
    return board.every((value) => value >= 0 && value <= this.side) ? board : null;
  }

  write(board) {
    return board.map((value) => (value ? String(value) : ".")).join("");
  }
}
