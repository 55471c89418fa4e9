/* What is known at the cursor */

function nowCard(run, episode) {
  const bare = episode.pictures.length ? "" : " bare";
  const card = make("div", { class: `card now${bare}` }, make("h2", {}, data.runs.length > 1 ? run.name : "at the cursor"));
  card.append(make("p", { class: "about" }, data.runs.length > 1 ? `${run.about}; ${episode.title}` : episode.title));
  if (episode.pictures.length) {
    const picture = make("img", { class: "picture", alt: "the environment at the cursor" });
    watchers.push((step) => { picture.src = episode.pictures[episode.frames[Math.min(step, episode.length - 1)]]; });
    card.append(picture);
  }
  const facts = make("table", { class: "facts" });
  const fact = (name, value, minor = false) => {
    const cell = make("td");
    facts.append(make("tr", { class: minor ? "minor" : "" }, make("td", {}, name), cell));
    watchers.push((step) => cell.replaceChildren(...[value(step)].flat()));
  };
  const actions = Object.entries(episode.actions);
  if (actions.length <= 3) actions.forEach(([name, values]) => fact(`action ${name}`, (step) => text(values[step])));
  else fact("action", (step) => actions.map(([, values]) => text(values[step] && +values[step].toPrecision(2))).join(", "));
  fact("reward", (step) => text(episode.numbers.reward[step]));
  fact("return so far", (step) => text(episode.numbers.return[step]), data.runs.length > 1);
  fact("value", (step) => text(episode.numbers.value[step]), true);
  const saliency = episode.saliency && unpack(episode.saliency);
  if (saliency) fact("looks back at", (step) => lookBack(saliency, step));
  card.append(make("div", {}, facts));
  return card;
}

function lookBack(saliency, step) {
  const index = indexOf(saliency, step);
  if (index < 0 || step >= saliency.size || !step) return "–";
  const row = Array.from(saliency.row(index).subarray(0, step));
  const most = row.map((level, past) => [level, past]).filter(([level]) => level > 12)
    .sort((one, other) => other[0] - one[0]).slice(0, 3);
  if (!most.length) return "nothing";
  return most.map(([, past]) => make("button", { class: "goto", onclick: () => setCursor(past) }, `step ${past}`));
}

/* Erasing */

function curve(curves, run, width, isLog) {
  const erasing = run.erasing, height = 220;
  const every = data.runs.filter((one) => one.erasing).map((one) => one.erasing);
  const values = every.flatMap((one) => [one.intact, one.without, ...one.once.flatMap(
    (each) => [...each.mean, ...each.interval.flat()])]);
  const [low, high] = range(values, false);  // the same of all runs
  const y = scale(low, high, false, height - BOTTOM, TOP);
  const steps = curves[0].steps, last = steps[steps.length - 1];
  const x = isLog ? scale(1, Math.max(last, 2), true, LEFT + 6, width - RIGHT - 6)
    : scale(0, Math.max(last, 1), false, LEFT + 6, width - RIGHT - 6);
  const marks = isLog ? steps.filter((_, k) => steps.length < 8 || k % 2 === 0) : ticks(0, Math.max(last, 1), false, 4).filter(Number.isInteger);
  const svg = chart(width, height, { x, y, low, high, log: false, ticks: marks });
  [[erasing.intact, "level", "intact"], [erasing.without, "level low", "no memory"]].forEach(([value, kind, name], index) => {
    if (index && erasing.intact === erasing.without) return;
    svg.append(make("line", { class: kind, x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value) }),
      make("text", { x: width - RIGHT, y: y(value) + (index ? -5 : 13), "text-anchor": "end" }, name));
  });
  [...curves].reverse().forEach((one, reversed) => {
    const index = curves.length - 1 - reversed, ink = color(index);
    const [below, above] = one.interval;
    const back = path([...one.steps].reverse(), [...above].reverse(), x, y).replace("M", "L");
    if (!index) svg.append(make("path", { d: `${path(one.steps, below, x, y)}${back}Z`, fill: ink, opacity: 0.12 }));
    svg.append(make("path", { d: path(one.steps, one.mean, x, y), fill: "none", stroke: ink, "stroke-width": index ? 1.6 : 2.8, "stroke-dasharray": dash(index) }));
    one.steps.forEach((step, k) => svg.append(make("circle", { cx: x(step), cy: y(one.mean[k]), r: index ? 1.8 : 2.6, fill: ink })));
  });
  if (!isLog) {
    addCursor(svg, (step) => x(Math.min(step, last)), height);
    follow(svg, (share) => Math.round((share * width - LEFT - 6) / (width - LEFT - RIGHT - 12) * last));
  }
  return svg;
}

function erasingCards(run, width) {
  const erasing = run.erasing, wide = width > 720;
  const of = data.runs.length > 1 ? `${run.name}: ` : "";
  const entries = erasing.once.map((one, index) => ({
    label: one.label, ink: color(index), value: (step) => one.mean[one.steps.filter((s) => s <= step).length - 1],
  }));
  const once = make("div", { class: "card" },
    make("div", { class: "head" }, make("h2", {}, `${of}erased once`), legend(entries)),
    make("p", { class: "about" }, `mean return of ${erasing.episodes} episodes whose state was erased before a step`),
    curve(erasing.once, run, wide ? Math.round((width - 12) * 0.6) - 26 : width - 26, false));
  const every = erasing.every
    ? make("div", { class: "card" }, make("div", { class: "head" }, make("h2", {}, `${of}erased again and again`)),
      make("p", { class: "about" }, "mean return by the steps between two erasures of the whole memory"),
      curve([erasing.every], run, wide ? Math.round((width - 12) * 0.4) - 26 : width - 26, true))
    : make("div", { class: "card empty" }, `${of}no state to erase`);
  return make("div", { class: "curves" }, once, every);
}

/* The page */

function missing(run, key) {
  const owner = key.split("/")[0];
  if (!/memory$/.test(owner)) return `${run.name} has no such row`;
  return run.notes.find((note) => note.startsWith("No gates")) || `${run.name} has no such row`;
}

function build() {
  watchers = [];
  episodes = data.runs.map((run) => run.episodes[number]);
  length = Math.max(...episodes.map((one) => one.length));
  const many = data.runs.length > 1;
  element("now").replaceChildren(...episodes.map((one, index) => nowCard(data.runs[index], one)));
  const rows = element("rows");
  rows.replaceChildren(make("div", { class: "pair" }, ...episodes.map(() => make("div", { class: "card" }))));
  const width = Math.floor(rows.firstChild.firstChild.clientWidth) - 24;
  const pair = (cards) => rows.append(make("div", { class: "pair" }, ...cards));
  rows.replaceChildren();
  const packed = episodes.map((one) => one.saliency && unpack(one.saliency));
  const about = "weight of each step in the action at the cursor, relative to the largest before it; grey: its own step";
  if (packed.some(Boolean)) {
    pair(packed.map((one, index) => one ? saliencyCard(data.runs[index].name, "saliency", about, weights(one, width)) : make("div", { class: "card empty" }, "no saliency")));
  }
  const keys = new Set(episodes.flatMap((one) => one.rows.map((row) => row.key)));
  for (const key of keys) {
    pair(episodes.map((one, index) => {
      const row = one.rows.find((candidate) => candidate.key === key);
      return row ? rowCard(data.runs[index].name, row, width) : make("div", { class: "card empty" }, missing(data.runs[index], key));
    }));
  }
  if (packed.some(Boolean)) {
    const all = "which past step (across) weighs how much in which action (down)";
    pair(packed.map((one, index) => one ? saliencyCard(data.runs[index].name, "saliency of all actions", all, map(one, width)) : make("div", { class: "card empty" }, "no saliency")));
  }
  const erasing = element("erasing");
  erasing.replaceChildren();
  const room = erasing.clientWidth - 2 * parseFloat(getComputedStyle(erasing).paddingLeft);
  data.runs.filter((run) => run.erasing).forEach((run) => erasing.append(erasingCards(run, room)));
  element("time").max = length - 1;
  document.body.className = many ? "many" : "one";
  setCursor(at);
}

function setCursor(step) {
  at = Math.max(0, Math.min(length - 1, step));
  watchers.forEach((watcher) => watcher(at));
  element("time").value = at;
  element("step").textContent = `${at} / ${length - 1}`;
}

function toggle() {
  if (timer) clearInterval(timer);
  timer = timer ? null : setInterval(() => (at + 1 < length ? setCursor(at + 1) : toggle()), 160);
  if (timer && at + 1 >= length) setCursor(0);
  element("play").textContent = timer ? "\u275A\u275A" : "\u25B6\uFE0E";
}

document.body.className = data.runs.length > 1 ? "many" : "one";
document.body.style.setProperty("--runs", data.runs.length);
element("about").textContent = data.runs.length > 1 ? "" : data.runs[0].about;
data.runs.forEach((run) => run.notes.forEach((note) => element("notes")
  .append(make("p", {}, data.runs.length > 1 ? `${run.name}: ${note}` : note))));
data.runs[0].episodes.forEach((one, index) => element("episode")
  .append(make("option", { value: index }, data.runs.length > 1 ? `episode ${index}` : one.title)));
if (data.runs[0].episodes.length < 2) element("episode").className = "hidden";
element("episode").addEventListener("change", (event) => { number = +event.target.value; build(); });
element("time").addEventListener("input", (event) => setCursor(+event.target.value));
element("back").addEventListener("click", () => setCursor(at - 1));
element("on").addEventListener("click", () => setCursor(at + 1));
element("play").addEventListener("click", toggle);
document.addEventListener("keydown", (event) => {
  if (["INPUT", "SELECT", "BUTTON"].includes(event.target.tagName)) return;
  const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: length - 1 }[event.key];
  if (to !== undefined) { setCursor(to); event.preventDefault(); }
  if (event.key === " ") { toggle(); event.preventDefault(); }
});
const given = new URLSearchParams(location.hash.slice(1));
number = Math.min(+given.get("episode") || 0, data.runs[0].episodes.length - 1);
at = given.has("step") ? +given.get("step") || 0 : Infinity;
let shown = window.innerWidth;
window.addEventListener("resize", () => { if (window.innerWidth !== shown) { shown = window.innerWidth; build(); } });
build();
