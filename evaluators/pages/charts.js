"use strict";
// What the pages share: data, elements, and charts as SVG.

const SVG = "http://www.w3.org/2000/svg";

function element(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name === "text") made.textContent = value;
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) made.setAttribute(name, value);
  }
  for (const child of children) if (child !== null) made.append(child);
  return made;
}

function drawn(tag, attributes, text) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

function pageData() {
  return JSON.parse(document.getElementById("data").textContent);
}

// The bytes of all arrays; `arrayAt` then finds one of them.
async function pageBytes() {
  const text = document.getElementById("arrays").textContent;
  const packed = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).arrayBuffer();
}

function arrayAt(buffer, place) {
  const kinds = { u8: Uint8Array, i16: Int16Array, i32: Int32Array, f32: Float32Array };
  return new kinds[place.kind](buffer, place.at, place.length);
}

// Dark or light, as the system has it until somebody chooses.
function themeButton(button, changed) {
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  let chosen = null;
  const apply = () => {
    const dark = chosen === null ? system.matches : chosen;
    document.documentElement.dataset.theme = dark ? "dark" : "light";
    button.textContent = dark ? "Light" : "Dark";
    button.setAttribute("aria-label", dark ? "Use light colours" : "Use dark colours");
    changed();
  };
  button.addEventListener("click", () => {
    chosen = document.documentElement.dataset.theme !== "dark";
    apply();
  });
  system.addEventListener("change", apply);
  apply();
}

// A short number, such as 0.031, 12.5, 3.2k or 1.5e12.
function short(value) {
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size >= 1e9 || size < 1e-3) return value.toExponential(1).replace("e+", "e").replace(".0e", "e");
  if (size >= 1e6) return trimmed(value / 1e6) + "M";
  if (size >= 1e4) return trimmed(value / 1e3) + "k";
  return trimmed(value);
}

function trimmed(value) {
  return String(Number(value.toPrecision(3)));
}

function ticks(low, high, count) {
  const rough = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
  const found = [];
  for (let tick = Math.ceil(low / step - 1e-9) * step; tick <= high + step * 1e-6; tick += step) found.push(tick);
  return found;
}

function logTicks(low, high) {
  if (high / low < 100) {
    const powers = Array.from({ length: 4 }, (_, i) => 10 ** (Math.floor(Math.log10(low)) + i));
    const all = powers.flatMap((power) => [power, 2 * power, 5 * power]);
    return all.filter((tick) => tick >= low * 0.999 && tick <= high * 1.001);
  }
  const first = Math.ceil(Math.log10(low) - 1e-9), last = Math.floor(Math.log10(high) + 1e-9);
  const every = Math.max(1, Math.ceil((last - first + 1) / 5));
  const found = [];
  for (let power = first; power <= last; power += every) found.push(10 ** power);
  return found;
}

// A chart of lines, bands, dots and bars.
//   series: [{x, y, colour, dash, name, low, high, dots, bars, width}], y may hold null; low and high make a band
//   options: width, height, label, x: [low, high], y: [low, high], logY, logX, xLabel, yLabel, whole, marks: [{x, text}],
//            cursor, seek(x), lines: [{y, text}], diagonal, xTicks
function chart(series, options) {
  const width = options.width || 360, height = options.height || 170;
  const left = 46, right = options.right || 14, top = 12, bottom = options.xLabel ? 36 : 22;
  const finite = (values) => values.filter((value) => value !== null && Number.isFinite(value));
  const xs = finite(series.flatMap((line) => Array.from(line.x)));
  let ys = finite(series.flatMap((line) => [line.y, line.low || [], line.high || []].flatMap((v) => Array.from(v))));
  if (options.logY) ys = ys.filter((value) => value > 0);
  const [x0, x1] = widened(options.x || [Math.min(...xs), Math.max(...xs)], options.logX);
  const [y0, y1] = widened(options.y || rounded(Math.min(...ys), Math.max(...ys), options.logY), options.logY);
  const scale = (low, high, log, from, to) => (value) => {
    const f = log ? Math.log(Math.max(value, low) / low) / Math.log(high / low) : (value - low) / (high - low);
    return from + f * (to - from);
  };
  const px = scale(x0, x1, options.logX, left, width - right), py = scale(y0, y1, options.logY, height - bottom, top);
  const svg = drawn("svg", { viewBox: `0 0 ${width} ${height}`, class: "chart", role: "img" });
  svg.setAttribute("aria-label", options.label || "chart");
  if (!xs.length || !ys.length) {
    svg.append(drawn("text", { x: width / 2, y: height / 2, "text-anchor": "middle" }, "nothing recorded"));
    return svg;
  }
  for (const tick of options.logY ? logTicks(y0, y1) : ticks(y0, y1, Math.max(2, Math.round((height - 40) / 34)))) {
    const y = py(tick);
    svg.append(drawn("line", { class: "grid", x1: left, x2: width - right, y1: y, y2: y }));
    svg.append(drawn("text", { x: left - 6, y: y + 4, "text-anchor": "end" }, short(tick)));
  }
  let xTicks = options.xTicks || (options.logX ? logTicks(x0, x1) : ticks(x0, x1, Math.max(2, Math.round(width / 80))));
  if (options.whole) xTicks = xTicks.filter((tick) => Number.isInteger(Number(tick.toFixed(6))));
  for (const tick of xTicks) {
    const x = px(tick);
    svg.append(drawn("line", { class: "frame", x1: x, x2: x, y1: height - bottom, y2: height - bottom + 4 }));
    svg.append(drawn("text", { x, y: height - bottom + 16, "text-anchor": "middle" }, short(tick)));
  }
  svg.append(drawn("path", { class: "frame", d: `M${left} ${top}V${height - bottom}H${width - right}` }));
  if (options.xLabel) {
    svg.append(drawn("text", { x: (left + width - right) / 2, y: height - 4, "text-anchor": "middle" }, options.xLabel));
  }
  if (options.diagonal) {
    svg.append(drawn("line", { class: "mark", x1: px(x0), y1: py(y0), x2: px(x1), y2: py(y1) }));
  }
  for (const line of options.lines || []) {
    svg.append(drawn("line", { class: "mark", x1: left, x2: width - right, y1: py(line.y), y2: py(line.y) }));
    svg.append(drawn("text", { x: width - right, y: py(line.y) - 4, "text-anchor": "end" }, line.text));
  }
  for (const [number, mark] of (options.marks || []).entries()) {
    const x = px(mark.x), late = x > (left + width) / 2;
    svg.append(drawn("line", { class: "mark", x1: x, x2: x, y1: top, y2: height - bottom }));
    svg.append(drawn("text", { x: x + (late ? -5 : 5), y: top + 9 + 12 * number, "text-anchor": late ? "end" : "start" }, mark.text));
  }
  for (const line of series) drawSeries(svg, line, px, py, options, height - bottom);
  if (options.cursor !== undefined && options.cursor !== null) {
    const x = px(options.cursor);
    svg.append(drawn("line", { class: "cursor", x1: x, x2: x, y1: top, y2: height - bottom }));
  }
  if (options.seek) {
    svg.style.cursor = "pointer";
    svg.addEventListener("click", (event) => {
      const box = svg.getBoundingClientRect();
      const f = (((event.clientX - box.left) / box.width) * width - left) / (width - right - left);
      options.seek(x0 + Math.min(1, Math.max(0, f)) * (x1 - x0));
    });
  }
  return svg;
}

function drawSeries(svg, line, px, py, options, foot) {
  const colour = `var(--${line.colour})`;
  const points = [];
  Array.from(line.x).forEach((x, i) => {
    const y = line.y[i];
    if (y !== null && Number.isFinite(y) && !(options.logY && y <= 0)) points.push([px(x), py(y), i]);
  });
  if (line.low) {
    const edge = (values) => points.map(([x, , i]) => `${x.toFixed(1)} ${py(values[i]).toFixed(1)}`);
    const d = `M${edge(line.high).join("L")}L${edge(line.low).reverse().join("L")}Z`;
    if (points.length) svg.append(drawn("path", { d, style: `fill: ${colour}; opacity: 0.18` }));
  }
  if (line.bars) {
    for (const [x, y] of points) {
      const half = line.bars / 2, at = x - half + (line.shift || 0) * line.bars;
      const shape = { x: at, y, width: line.bars, height: Math.max(0, foot - y), style: `fill: ${colour}` };
      svg.append(drawn("rect", line.faint ? { ...shape, opacity: 0.45 } : shape));
    }
    return;
  }
  const d = points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
  const style = `stroke: ${colour};` + (line.width ? `stroke-width: ${line.width};` : "") + (line.opacity ? `opacity: ${line.opacity};` : "");
  if (points.length) svg.append(drawn("path", { class: "series", d, style, "stroke-dasharray": line.dash || "none" }));
  if (line.dots || points.length === 1) {
    for (const [x, y] of points) svg.append(drawn("circle", { cx: x, cy: y, r: 3, style: `fill: ${colour}` }));
  }
}

// The range of an axis; a logarithmic one ends at 1, 2 or 5 times a power of ten.
function rounded(low, high, log) {
  if (!log || !(low > 0)) return [low, high];
  const steps = (value) => {
    const power = 10 ** Math.floor(Math.log10(value));
    return [power, 2 * power, 5 * power, 10 * power];
  };
  return [Math.max(...steps(low).filter((v) => v <= low * 1.0001)), Math.min(...steps(high).filter((v) => v >= high * 0.9999))];
}

function widened([low, high], log) {
  if (low < high) return [low, high];
  if (log) return [low / 2, high * 2];
  return [low - (Math.abs(low) * 0.1 || 0.5), high + (Math.abs(high) * 0.1 || 0.5)];
}

// The names of the lines of a chart, each with a piece of its line.
function legend(series) {
  const list = element("div", { class: "legend" });
  for (const line of series.filter((item) => item.name)) {
    const svg = drawn("svg", { width: 26, height: 10, "aria-hidden": "true" });
    const style = `stroke: var(--${line.colour}); stroke-width: ${line.bars ? 8 : 2.5}; opacity: ${line.faint ? 0.45 : 1}`;
    svg.append(drawn("line", { x1: 1, x2: 25, y1: 5, y2: 5, style, "stroke-dasharray": line.dash || "none" }));
    list.append(element("span", {}, svg, " " + line.name));
  }
  return list;
}
