"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const element = (id) => document.getElementById(id);
const LEFT = 46, RIGHT = 10, TOP = 8, BOTTOM = 18;
let number = 0, at = 0, episodes = [], length = 1, timer = null;
let watchers = [];  // called with the cursor's step whenever it moves

function make(tag, attributes = {}, ...children) {
  const svg = ["svg", "path", "line", "rect", "text", "circle", "g", "image"].includes(tag);
  const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag)
    : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

function text(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size >= 1e5 || size < 1e-3)) return value.toExponential(1);
  return String(+value.toPrecision(4));
}

const color = (index) => {
  const own = data.colors[index % data.colors.length];
  return own === "#000000" ? "currentColor" : own;
};

const dash = (index) => ["none", "7 3", "2 3"][Math.floor(index / data.colors.length) % 3];

/* Axes */

function scale(low, high, isLog, start, end) {
  const of = isLog ? Math.log10 : (value) => value;
  const first = of(low), span = of(high) - first || 1;
  return (value) => start + (end - start) * (of(value) - first) / span;
}

/* Round numbers between two, `least` or more of them. */
function ticks(low, high, isLog, least = 3) {
  if (isLog) {
    const found = [], first = Math.floor(Math.log10(low)), last = Math.ceil(Math.log10(high));
    const step = Math.max(1, Math.ceil((last - first) / 4));
    const digits = last - first < 3 ? [1, 2, 5] : [1];
    for (let power = first; power <= last; power += step) found.push(...digits.map((one) => one * 10 ** power));
    return found.filter((value) => value >= low && value <= high);
  }
  const size = 10 ** Math.floor(Math.log10(high - low));
  const step = [5, 2, 1, 0.5, 0.2, 0.1, 0.05].map((one) => one * size)
    .find((one) => Math.floor(high / one + 1e-9) - Math.ceil(low / one - 1e-9) + 1 >= least);
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; k++) found.push(k * step);
  return found;
}

function range(values, isLog) {
  const known = values.filter((value) => value !== null && (!isLog || value > 0));
  let low = known.length ? Math.min(...known) : 0, high = known.length ? Math.max(...known) : 1;
  if (isLog) return [low / 1.1, high * 1.1];
  if (high - low < 1e-9 * Math.max(1, Math.abs(high))) { low -= 0.5; high += 0.5; }
  const margin = 0.05 * (high - low);
  return [low - margin, high + margin];
}

function path(xs, ys, x, y) {
  let drawn = "", pen = "M";
  ys.forEach((value, index) => {
    if (value === null || Number.isNaN(y(value))) { pen = "M"; return; }
    drawn += `${pen}${x(xs[index]).toFixed(1)} ${y(value).toFixed(1)}`;
    pen = "L";
  });
  return drawn;
}

/* A frame with axes; `axis` has x, y, low, high, log, and the ticks of x. */
function chart(width, height, axis) {
  const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, height });
  for (const value of ticks(axis.low, axis.high, axis.log)) {
    const y = axis.y(value);
    svg.append(make("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y, y2: y }),
      make("text", { x: LEFT - 6, y: y + 4, "text-anchor": "end" }, text(value)));
  }
  for (const value of axis.ticks) {
    svg.append(make("text", { x: axis.x(value), y: height - 4, "text-anchor": "middle" }, text(value)));
  }
  return svg;
}

function addCursor(svg, x, height) {
  const line = make("line", { class: "cursor", y1: TOP - 4, y2: height - BOTTOM + 2 });
  svg.append(line);
  watchers.push((step) => { line.setAttribute("x1", x(step)); line.setAttribute("x2", x(step)); });
}

function follow(node, step) {
  const move = (event) => {
    if (event.type === "pointermove" && !event.buttons) return;
    const box = node.getBoundingClientRect();
    setCursor(step((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height));
  };
  node.addEventListener("pointerdown", move);
  node.addEventListener("pointermove", move);
}

function timeAxis(width) {
  const room = width - LEFT - RIGHT;
  const x = (step) => LEFT + room * (step + 0.5) / length;
  const step = (share) => Math.floor((share * width - LEFT) / room * length);
  const marks = ticks(0, Math.max(length - 1, 1), false, width > 600 ? 6 : 4).filter(Number.isInteger);
  return { x, step, ticks: marks };
}

/* Rows over time */

function lines(row, width, height) {
  const values = row.lines.flatMap((line) => [...line.values, ...line.band.flat(), ...line.dots]);
  const [low, high] = row.limits ? [row.limits[0] - 0.03, row.limits[1] + 0.03]
    : range(row.bars ? [0, ...values] : values, row.log);
  const time = timeAxis(width), y = scale(low, high, row.log, height - BOTTOM, TOP);
  const svg = chart(width, height, { ...time, y, low, high, log: row.log });
  row.lines.forEach((line, index) => {
    const ink = color(index + row.offset), steps = line.values.map((_, step) => step);
    if (row.bars) {
      const wide = Math.max(1, 0.8 * (width - LEFT - RIGHT) / length);
      line.values.forEach((value, step) => {
        if (!value) return;
        const top = Math.min(y(value), y(0)), tall = Math.max(1, Math.abs(y(value) - y(0)));
        svg.append(make("rect", { x: time.x(step) - wide / 2, y: top, width: wide, height: tall, fill: ink }));
      });
      return;
    }
    if (line.band.length) {
      const [below, above] = line.band;
      const back = path([...steps].reverse(), [...above].reverse(), time.x, y).replace("M", "L");
      svg.append(make("path", { d: `${path(steps, below, time.x, y)}${back}Z`, fill: ink, opacity: 0.15 }));
    }
    svg.append(make("path", { d: path(steps, line.values, time.x, y), fill: "none", stroke: ink, "stroke-width": 1.8, "stroke-linejoin": "round", "stroke-dasharray": dash(index + row.offset) }));
    line.dots.forEach((value, step) => value === null
      || svg.append(make("circle", { cx: time.x(step), cy: y(value), r: 1.6, fill: ink })));
  });
  addCursor(svg, time.x, height);
  follow(svg, time.step);
  return svg;
}

function legend(entries) {
  const node = make("div", { class: "legend" });
  entries.forEach(({ label, ink, value }) => {
    const shown = make("b");
    node.append(make("span", { style: `--c:${ink}` }, label ? `${label} ` : "", shown));
    watchers.push((step) => { shown.textContent = text(value(step)); });
  });
  return node;
}

/* The line above a card; which run it is of shows where cards stand under each other. */
function head(who, title, ...rest) {
  return make("div", { class: "head" }, make("h2", {}, title), make("span", { class: "who" }, who), ...rest);
}

function rowCard(who, row, width) {
  const entries = row.lines.map((line, index) => ({
    label: row.lines.length > 1 ? line.label : "", ink: color(index + row.offset), value: (step) => line.values[step],
  }));
  return make("div", { class: "card" }, head(who, row.title, legend(entries)), make("p", { class: "about" }, row.about), lines(row, width, 104));
}

/* Saliency */

function unpack(saliency) {
  const bytes = Uint8Array.from(atob(saliency.levels), (letter) => letter.charCodeAt(0));
  const size = bytes.length / saliency.steps.length;
  return { ...saliency, row: (index) => bytes.subarray(index * size, (index + 1) * size), size };
}

function indexOf(saliency, step) {
  let found = -1;
  while (found + 1 < saliency.steps.length && saliency.steps[found + 1] <= step) found++;
  return found;
}

function weights(saliency, width) {
  const height = 104, time = timeAxis(width), y = scale(0, 1.05, false, height - BOTTOM, TOP);
  const svg = chart(width, height, { ...time, y, low: 0, high: 1.05, log: false });
  const bars = make("g");
  svg.append(bars);
  const wide = Math.max(1, 0.8 * (width - LEFT - RIGHT) / length);
  watchers.push((step) => {
    const index = indexOf(saliency, step);
    const row = index < 0 ? [] : saliency.row(index);
    bars.replaceChildren(...Array.from(row, (level, past) => level
      ? make("rect", { x: time.x(past) - wide / 2, y: y(level / 255), width: wide, height: y(0) - y(level / 255), style: `fill:var(--${past < saliency.steps[index] ? "accent" : "soft"})` })
      : "").filter(Boolean));
  });
  addCursor(svg, time.x, height);
  follow(svg, time.step);
  return svg;
}

/* A cell for each past step (across) of each action (down). */
function cells(saliency) {
  const canvas = make("canvas", { width: length, height: length });
  const pen = canvas.getContext("2d"), picture = pen.createImageData(length, length);
  const mark = getComputedStyle(document.body).getPropertyValue("--mark").split(",").map(Number);
  let row = 0;
  saliency.steps.forEach((step, index) => {
    const levels = saliency.row(index);
    for (; row <= step; row++) {  // an action stands for those before it that were left out
      for (let past = 0; past <= step; past++) {
        picture.data.set([...mark, levels[past]], 4 * (row * length + past));
      }
    }
  });
  pen.putImageData(picture, 0, 0);
  return canvas.toDataURL();
}

function map(saliency, width) {
  const tall = Math.min(260, Math.max(120, Math.round(width * 0.4)));
  const time = timeAxis(width), height = tall + TOP + BOTTOM;
  const y = (step) => TOP + tall * (step + 0.5) / length;
  const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, height });
  svg.append(make("image", {
    x: LEFT, y: TOP, width: width - LEFT - RIGHT, height: tall, href: cells(saliency),
    preserveAspectRatio: "none", style: "image-rendering:pixelated",
  }));
  for (const value of time.ticks) {
    svg.append(make("text", { x: time.x(value), y: height - 4, "text-anchor": "middle" }, text(value)),
      make("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, text(value)));
  }
  const across = make("line", { class: "cursor", x1: LEFT, x2: width - RIGHT });
  svg.append(across);
  watchers.push((step) => { across.setAttribute("y1", y(step)); across.setAttribute("y2", y(step)); });
  follow(svg, (_, share) => Math.floor((share * height - TOP) / tall * length));
  return svg;
}

function saliencyCard(who, title, about, drawn) {
  return make("div", { class: "card" }, head(who, title), make("p", { class: "about" }, about), drawn);
}
