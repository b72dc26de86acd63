// The search of a Lattice Deduction Transformer: chains that kill improbable candidates, decide a cell at random where
// nothing follows, and start again from the puzzle after a contradiction. (evaluators/search.py does the same.)

import {Sudoku} from "./sudoku.js";

const sigmoid = (x) => 1 / (1 + Math.exp(-x));

function shuffled(count) {
  const items = [...Array(count).keys()];
  for (let i = count - 1; i > 0; i--) {
    const j = Math.floor(Math.random() * (i + 1));
    [items[i], items[j]] = [items[j], items[i]];
  }
  return items;
}

export class Search {
  constructor(model, tokens) {
    this.rules = new Sudoku(model);
    this.settings = model.search;
    [this.cells, this.candidates, this.chains] = [model.cells, model.candidates, model.search.chains];
    this.question = this.rules.board(tokens);
    // which candidates of each cell are left, 0 or 1, [cells * candidates]
    this.puzzle = new Uint8Array(this.cells * this.candidates);
    this.question.forEach((value, cell) => {
      for (let k = 0; k < this.candidates; k++) this.puzzle[cell * this.candidates + k] = !value || value === k + 1;
    });
    this.alive = Array.from({length: this.chains}, () => this.puzzle.slice());
    this.restarts = 0;
  }

  // What the network sees: the lattice of each chain under a random symmetry, fp32 [chains * cells * candidates].
  lattices() {
    const size = this.cells * this.candidates, seen = new Float32Array(this.chains * size);
    this.sources = this.alive.map((alive, chain) => {
      const {permutations} = this.settings;
      const cells = permutations[Math.floor(Math.random() * permutations.length)];
      const names = this.settings.symmetries ? shuffled(this.candidates) : [...Array(this.candidates).keys()];
      const source = new Int32Array(size); // place in the network's input -> place in the lattice
      for (let cell = 0; cell < this.cells; cell++) {
        for (let k = 0; k < this.candidates; k++) {
          const place = cell * this.candidates + k;
          source[place] = cells[cell] * this.candidates + names[k];
          seen[chain * size + place] = alive[source[place]];
        }
      }
      return source;
    });
    return seen;
  }

  // One round of all chains, from the logits of the heads: the board to show, in tokens, and whether it is a solution.
  advance(keep, digit, conflict) {
    const size = this.cells * this.candidates;
    let shown = null;
    for (let chain = 0; chain < this.chains; chain++) {
      const alive = this.alive[chain], source = this.sources[chain], own = new Float32Array(size);
      for (let place = 0; place < size; place++) {
        own[source[place]] = digit[chain * size + place];
        const given = this.question[Math.floor(source[place] / this.candidates)] > 0;
        const improbable = sigmoid(keep[chain * size + place]) < this.settings.kill_threshold;
        if (improbable && !given) alive[source[place]] = 0;
      }
      const left = this.left(alive);
      const contradiction =
        left.some((number) => number === 0) || sigmoid(conflict[chain]) > this.settings.conflict_threshold;
      const full = left.every((number) => number === 1);
      if (!contradiction && full) {
        const answer = this.tokens(alive);
        if (this.rules.verdict(this.question, this.rules.board(answer)).state === "solved") {
          return {answer, solved: true};
        }
      }
      shown ??= this.tokens(alive);
      if (contradiction || full) {
        this.alive[chain] = this.puzzle.slice();
        this.restarts++;
      } else {
        this.decide(alive, left, own);
      }
    }
    return {answer: shown, solved: false};
  }

  // How many candidates each cell has left.
  left(alive) {
    return Array.from({length: this.cells}, (_, cell) => {
      let number = 0;
      for (let k = 0; k < this.candidates; k++) number += alive[cell * this.candidates + k];
      return number;
    });
  }

  // Decide a random open cell, by the probabilities of the digit head.
  decide(alive, left, digit) {
    const open = left.flatMap((number, cell) => (number > 1 ? [cell] : []));
    const cell = open[Math.floor(Math.random() * open.length)];
    let best = -1, highest = -Infinity;
    for (let k = 0; k < this.candidates; k++) {
      const place = cell * this.candidates + k;
      if (!alive[place]) continue;
      const score = digit[place] / this.settings.temperature - Math.log(-Math.log(Math.random() || 1e-12));
      if (score > highest) [best, highest] = [k, score];
    }
    for (let k = 0; k < this.candidates; k++) alive[cell * this.candidates + k] = k === best ? 1 : 0;
  }

  // The decided cells in tokens; a cell with several candidates, or none, is a blank.
  tokens(alive) {
    return this.left(alive).map((number, cell) => {
      if (number !== 1) return 1;
      return alive.subarray(cell * this.candidates, (cell + 1) * this.candidates).indexOf(1) + 2;
    });
  }
}
