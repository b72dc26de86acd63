// Computes beside the page, so that the page stays responsive: loads models, and sends the answer after each step.

import {Search} from "./search.js";
import * as ort from "./ort/ort.wasm.bundle.min.js";

ort.env.wasm.numThreads = 1; // more threads would need headers that not every server sends
ort.env.wasm.wasmPaths = {wasm: new URL("./ort/ort-wasm-simd-threaded.wasm", import.meta.url).href};

const sessions = new Map(); // name of a model -> promise of its session
let current = 0; // the run whose results the page is waiting for

function session(model) {
  if (!sessions.has(model.name)) {
    const url = new URL(model.file, import.meta.url).href;
    const loading = ort.InferenceSession.create(url, {executionProviders: ["wasm"]});
    loading.catch(() => sessions.delete(model.name));
    sessions.set(model.name, loading);
  }
  return sessions.get(model.name);
}

const pause = () => new Promise((resolve) => setTimeout(resolve)); // lets messages of the page in

function zeros(state) {
  const size = state.shape.reduce((a, b) => a * b, 1);
  const data = state.type === "bool" ? new Uint8Array(size) : new Float32Array(size);
  return new ort.Tensor(state.type, data, [1, ...state.shape]);
}

// One step of the recursion after the other, until the model halts or has made all its steps.
async function recur(model, tokens, run) {
  const network = await session(model);
  const inputs = new ort.Tensor("int64", BigInt64Array.from(tokens, BigInt), [1, tokens.length]);
  let states = Object.fromEntries(Object.entries(model.states).map(([name, state]) => [name, zeros(state)]));
  let before = null;
  for (let step = 1; step <= model.max_steps && run === current; step++) {
    const feeds = {begin: new ort.Tensor("bool", [step === 1], []), inputs};
    for (const name of Object.keys(states)) feeds[`given_${name}`] = states[name];
    const results = await network.run(feeds);
    const answer = Array.from(results.answers.data), halt = results.halt_probability.data[0];
    states = Object.fromEntries(Object.keys(states).map((name) => [name, results[`next_${name}`]]));
    const unchanged = before !== null && answer.every((token, cell) => token === before[cell]);
    const halts = halt > model.halt_threshold && unchanged;
    postMessage({type: "step", run, step, answer, halt});
    if (halts || step === model.max_steps) return postMessage({type: "end", run, halted: halts, restarts: 0});
    before = answer;
    await pause();
  }
}

// Chains of deductions and guesses, until the board of one of them obeys the rules.
async function search(model, tokens, run) {
  const network = await session(model);
  const search = new Search(model, tokens);
  for (let round = 1; round <= model.search.rounds && run === current; round++) {
    const lattice = new ort.Tensor("float32", search.lattices(), [search.chains, model.cells, model.candidates]);
    const found = await network.run({lattice});
    const {answer, solved} = search.advance(found.keep.data, found.digit.data, found.conflict.data);
    postMessage({type: "step", run, step: round, answer, halt: null, restarts: search.restarts});
    if (solved || round === model.search.rounds) {
      return postMessage({type: "end", run, halted: solved, restarts: search.restarts});
    }
    await pause();
  }
}

let queue = Promise.resolve(); // a session computes one thing at a time

onmessage = ({data}) => {
  current = data.run; // ends the run before
  if (data.type !== "stop") queue = queue.then(() => answer(data));
};

async function answer(data) {
  try {
    await session(data.model);
    if (data.type === "load") return postMessage({type: "ready", run: data.run, name: data.model.name});
    await (data.model.kind === "search" ? search : recur)(data.model, data.tokens, data.run);
  } catch (error) {
    postMessage({type: "error", run: data.run, text: String(error.message ?? error)});
  }
}
