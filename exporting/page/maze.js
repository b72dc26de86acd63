// The rules of mazes. A board is an array of tokens, row by row: 1 wall, 2 free, 3 start, 4 goal, 5 path.

export const WALL = 1, SPACE = 2, START = 3, GOAL = 4, PATH = 5;
const CHARACTERS = " # SGo";

export class Maze {
  // shape: {height, width}
  constructor(shape) {
    this.height = shape.height;
    this.width = shape.width;
    this.cells = this.height * this.width;
  }

  neighbours(cell) {
    const row = Math.floor(cell / this.width), column = cell % this.width, found = [];
    if (row + 1 < this.height) found.push(cell + this.width);
    if (column > 0) found.push(cell - 1);
    if (column + 1 < this.width) found.push(cell + 1);
    if (row > 0) found.push(cell - this.width);
    return found;
  }

  // Moves on a shortest way from S to G over cells for which `passable` holds; -1 if there is none.
  moves(board, passable) {
    const start = board.indexOf(START), goal = board.indexOf(GOAL);
    if (start < 0 || goal < 0) return -1;
    const distance = new Map([[start, 0]]), queue = [start];
    for (const cell of queue) {
      if (cell === goal) return distance.get(cell);
      for (const next of this.neighbours(cell)) {
        if (!distance.has(next) && passable(next)) {
          distance.set(next, distance.get(cell) + 1);
          queue.push(next);
        }
      }
    }
    return -1;
  }

  shortest(board) {
    return this.moves(board, (cell) => board[cell] !== WALL);
  }

  // What is wrong with a question: cell (or "board") -> sentence.
  mistakes(question) {
    const found = new Map();
    for (const [token, name, role] of [[START, "S", "starts"], [GOAL, "G", "ends"]]) {
      const cells = question.flatMap((value, cell) => (value === token ? [cell] : []));
      if (!cells.length && !found.has("board")) found.set("board", `There is no ${name}: set the cell where the path ${role}.`);
      if (cells.length > 1) for (const cell of cells) found.set(cell, `There are ${cells.length} cells ${name}.`);
    }
    return found;
  }

  unsolvable(question) {
    return this.shortest(question) < 0 ? "It has no solution: no path leads from S to G." : null;
  }

  // What the rules say of an answer: {state, text, cells that break a rule}.
  verdict(question, answer) {
    const none = this.unsolvable(question);
    if (none !== null) return {state: "undecided", text: none, cells: new Set()};
    const ends = (cell) => question[cell] === START || question[cell] === GOAL;
    const marked = answer.flatMap((token, cell) => (token === PATH && !ends(cell) ? [cell] : []));
    const walls = marked.filter((cell) => question[cell] !== SPACE);
    if (walls.length) {
      const text = `${walls.length} of the marked cells ${walls.length === 1 ? "is a wall" : "are walls"}.`;
      return {state: "wrong", text, cells: new Set(walls)};
    }
    // The shortest way over marked cells alone visits all of them exactly if they form a path.
    const own = new Set(marked), shortest = this.shortest(question);
    const moves = this.moves(question, (cell) => own.has(cell) || ends(cell));
    if (moves !== marked.length + 1) {
      const text = "The marked cells are no path from S to G without gaps and branches.";
      return {state: "wrong", text, cells: own};
    }
    if (moves > shortest) {
      return {state: "wrong", text: `A path of ${moves} moves, and there is one of ${shortest}.`, cells: new Set()};
    }
    return {state: "solved", text: `A shortest path from S to G, of ${moves} moves.`, cells: new Set()};
  }

  tokens(board) {
    return [...board];
  }

  // The board that an answer in tokens stands for: what was marked.
  board(tokens) {
    return tokens;
  }

  // A board from lines of text; null if it is none.
  read(text) {
    let cells = [...text.replace(/\r/g, "")];
    if (text.includes("\n")) {
      const lines = text.replace(/\r/g, "").replace(/\n+$/, "").split("\n");
      if (lines.length !== this.height || lines.some((line) => line.length > this.width)) return null;
      cells = lines.flatMap((line) => [...line.padEnd(this.width)]);
    }
    if (cells.length !== this.cells) return null;
    const names = {"#": WALL, " ": SPACE, ".": SPACE, S: START, G: GOAL};
    const board = cells.map((character) => names[character] ?? 0);
    return board.includes(0) ? null : board;
  }

  write(board) {
    return board.map((token) => (token === SPACE ? "." : CHARACTERS[token])).join("");
  }
}
