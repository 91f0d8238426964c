// The page of an answer: video, lanes and table show the same time. Text from footage is only ever set as text.
"use strict";

const element = id => document.getElementById(id);
const answer = JSON.parse(element("answer").textContent);
const UNSURE = answer.classes.length - 1;
const BLOCKS = 20; // pixels of the labelled blocks below the curves
const video = document.querySelector("video");
const view = { first: answer.first, last: answer.last };
const state = { time: answer.first, chosen: 0, only: null, stop: null };
const rows = new Map([...document.querySelectorAll("#segments tbody tr")].map(row => [`${row.dataset.lane} ${row.dataset.segment}`, row]));

function clock(seconds) {
  const tenths = Math.round(10 * seconds), minutes = Math.floor(tenths / 600), hours = Math.floor(minutes / 60);
  const rest = (tenths % 600 / 10).toFixed(1).padStart(4, "0");
  return hours ? `${hours}:${String(minutes % 60).padStart(2, "0")}:${rest}` : `${minutes}:${rest}`;
}

function made(name, className, text = "") {
  const node = Object.assign(document.createElement(name), { className });
  node.textContent = text;
  return node;
}

const unpacked = text => Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
const described = ([start, end, label, share, guess]) => `${answer.classes[label].name} ${share.toFixed(2)}`
  + (label === UNSURE && guess >= 0 ? `, perhaps ${answer.classes[guess].name}` : "") + `, ${clock(start)} to ${clock(end)}`;

const lanes = answer.lanes.map((lane, number) => {
  const node = made("div", lane.columns || lane.segments.length ? "lane" : "lane idle"), header = made("header", ""), track = made("div", "track"), canvas = made("canvas", ""), now = made("span", "now");
  header.append(made("b", "", lane.name), now);
  track.append(canvas);
  node.append(header, track);
  node.tabIndex = 0;
  for (const [name, value] of Object.entries({ role: "slider", "aria-label": `${lane.name}, time in seconds`, "aria-valuemin": answer.first, "aria-valuemax": answer.last })) node.setAttribute(name, value);
  element("lanes").append(node);
  return { ...lane, number, node, track, canvas, now, shown: null, likeliest: lane.columns ? new Uint16Array(unpacked(lane.likeliest).buffer) : null, heights: lane.columns ? unpacked(lane.heights) : null };
});
element("lanes").classList.toggle("few", lanes.length < 4);

// Return the place of the segment at a time, or of the last one before it with `before`; -1 if there is none.
function segmentAt(lane, time, before = false) {
  let low = 0, high = lane.segments.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (lane.segments[middle][0] <= time + 1e-6) low = middle + 1; else high = middle;
  }
  return before || (low && lane.segments[low - 1][1] > time + 1e-6) ? low - 1 : -1;
}

const colour = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function opened(canvas) {
  const ratio = window.devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
  canvas.width = Math.max(1, Math.round(width * ratio));
  canvas.height = Math.max(1, Math.round(height * ratio));
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.font = `12px ${getComputedStyle(document.body).fontFamily}`;
  context.textBaseline = "middle";
  return { context, width, height };
}

const place = (time, width) => (time - view.first) / (view.last - view.first) * width;

// Return [class, height 0..1] of the highest curves over the columns from `from` to `to`, the highest first. Columns without a window do not count.
function highest(lane, from, to) {
  const sums = new Map();
  let count = 0;
  for (let column = from; column < to; column++) {
    count += lane.heights[column * lane.depth] > 0;
    for (let rank = 0; rank < lane.depth; rank++) {
      const at = column * lane.depth + rank, share = lane.heights[at] / 255;
      if (share) sums.set(lane.likeliest[at], (sums.get(lane.likeliest[at]) || 0) + share);
    }
  }
  return [...sums].map(([label, sum]) => [label, sum / count]).sort((one, other) => other[1] - one[1]);
}

function columnsAt(lane, time, until) {
  const scale = lane.columns / (answer.last - answer.first), most = lane.columns - 1;
  const from = Math.min(most, Math.max(0, Math.floor((time - answer.first) * scale)));
  return [from, Math.min(lane.columns, Math.max(from + 1, Math.floor((until - answer.first) * scale)))];
}

function drawCurves(lane, context, width, height) {
  for (let x = 0; x < width; x++) {
    const time = view.first + x / width * (view.last - view.first), until = view.first + (x + 1) / width * (view.last - view.first);
    const segment = lane.segments[segmentAt(lane, time)];
    highest(lane, ...columnsAt(lane, time, until)).forEach(([label, share], rank) => {
      const dimmed = state.only !== null && state.only !== label;
      context.globalAlpha = dimmed ? 0.08 : segment && segment[2] === UNSURE ? 0.3 : rank ? 0.9 : 0.62;
      context.fillStyle = answer.classes[label].colour;
      context.fillRect(x, height - share * height, 1, share * height);
    });
  }
  context.globalAlpha = 1;
}

function hatched(context) {
  const tile = Object.assign(document.createElement("canvas"), { width: 6, height: 6 }), pen = tile.getContext("2d");
  pen.strokeStyle = answer.classes[UNSURE].colour;
  pen.lineWidth = 1.4;
  pen.beginPath();
  for (const shift of [-6, 0, 6]) { pen.moveTo(shift, 6); pen.lineTo(shift + 6, 0); }
  pen.stroke();
  return context.createPattern(tile, "repeat");
}

function drawBlocks(lane, context, width, height) {
  const top = height - BLOCKS, hatch = hatched(context), ink = colour("--ink"), ground = colour("--ground");
  let last = -1;
  for (const [start, end, label] of lane.segments) {
    const left = Math.max(0, place(start, width)), right = Math.min(width, place(end, width));
    if (right <= 0 || left >= width || (right - left < 0.5 && Math.floor(left) === last)) continue;
    last = Math.floor(left);
    const look = answer.classes[label], long = Math.max(1, right - left - 1), room = long - 12;
    context.globalAlpha = state.only === null || state.only === label ? 1 : 0.15;
    context.fillStyle = label === UNSURE ? hatch : look.colour;
    context.fillRect(left, top, long, BLOCKS);
    let name = look.name, wide = context.measureText(name).width;
    if (room > 40 && wide > room && label !== UNSURE) {
      while (name.length > 2 && context.measureText(`${name}…`).width > room) name = name.slice(0, -1);
      name += "…";
      wide = context.measureText(name).width;
    }
    if (wide > room) continue;
    if (label === UNSURE) {
      context.fillStyle = ground;
      context.fillRect(left + 3, top + 3, wide + 6, BLOCKS - 6);
    }
    context.fillStyle = label === UNSURE ? ink : look.ink;
    context.fillText(name, left + 6, top + BLOCKS / 2 + 0.5);
  }
  context.globalAlpha = 1;
}

function drawLane(lane) {
  const { context, width, height } = opened(lane.canvas);
  const curves = height - BLOCKS - 3;
  context.fillStyle = colour("--line");
  for (const [start, end] of lane.seen) { // behind the blocks: when the athlete is in sight
    const left = place(start, width);
    context.fillRect(left, height - BLOCKS / 2 - 1, Math.max(1, place(end, width) - left), 3);
  }
  if (lane.columns) drawCurves(lane, context, width, curves);
  if (answer.threshold > 0 && lane.columns) {
    context.strokeStyle = colour("--faint");
    context.setLineDash([3, 4]);
    context.beginPath();
    context.moveTo(0, Math.round(curves * (1 - answer.threshold)) + 0.5);
    context.lineTo(width, Math.round(curves * (1 - answer.threshold)) + 0.5);
    context.stroke();
    context.setLineDash([]);
  }
  drawBlocks(lane, context, width, height);
}

function drawAxis() {
  const { context, width, height } = opened(element("axis"));
  const span = view.last - view.first, steps = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400];
  const step = steps.find(one => one / span * width >= 70) || 36000;
  context.fillStyle = colour("--soft");
  context.strokeStyle = colour("--line");
  for (let tick = Math.ceil(view.first / step - 1e-9); tick * step <= view.last + 1e-9; tick++) {
    const x = place(tick * step, width), text = step < 1 ? clock(tick * step) : clock(tick * step).slice(0, -2);
    const wide = context.measureText(text).width, left = Math.min(width - wide, Math.max(0, x - wide / 2));
    context.fillText(text, left, 8);
    context.beginPath();
    context.moveTo(x, height - 4);
    context.lineTo(x, height);
    context.stroke();
  }
}

function drawAll() {
  drawAxis();
  lanes.forEach(drawLane);
  showHead();
}

function showHead() {
  const share = place(state.time, 1);
  element("lanes").style.setProperty("--head", share >= -0.001 && share <= 1.001 ? share : -1);
}

// Show the time everywhere: playhead, clock, what each athlete does now, rows of the table.
function show(time) {
  state.time = Math.min(answer.last, Math.max(answer.first, time));
  const span = view.last - view.first;
  if (video && !video.paused && (state.time < view.first || state.time > view.last)) look(state.time - span * 0.1, span);
  showHead();
  document.querySelector("#bar output").textContent = clock(state.time);
  for (const lane of lanes) {
    lane.node.setAttribute("aria-valuenow", state.time.toFixed(2));
    const at = segmentAt(lane, state.time);
    if (at === lane.shown) continue;
    rows.get(`${lane.number} ${lane.shown}`)?.classList.remove("now");
    rows.get(`${lane.number} ${at}`)?.classList.add("now");
    lane.shown = at;
    const segment = lane.segments[at];
    lane.now.replaceChildren();
    lane.node.setAttribute("aria-valuetext", segment ? described(segment) : "no action");
    if (!segment) continue;
    const swatch = made("span", segment[2] === UNSURE ? "swatch unsure" : "swatch");
    if (segment[2] !== UNSURE) swatch.style.background = answer.classes[segment[2]].colour;
    lane.now.append(swatch, `${answer.classes[segment[2]].name} ${segment[3].toFixed(2)}`);
  }
}

function seek(time) {
  state.stop = null;
  const bounded = Math.min(answer.last, Math.max(answer.first, time));
  if (video) video.currentTime = bounded - answer.first;
  show(bounded);
  if (bounded < view.first || bounded > view.last) look(bounded - (view.last - view.first) / 2, view.last - view.first);
}

function choose(number) {
  state.chosen = number;
  lanes.forEach(lane => lane.node.classList.toggle("chosen", lane.number === number));
}

function toSegment(lane, at) {
  const segment = lane?.segments[at];
  if (segment) seek(segment[0]);
  return segment;
}

function playAction() {
  const lane = lanes[state.chosen];
  if (!lane) return;
  const here = segmentAt(lane, state.time), segment = toSegment(lane, here >= 0 ? here : segmentAt(lane, state.time, true) + 1);
  if (!segment || !video) return;
  state.stop = segment[1];
  video.play().catch(() => {});
}

function step(direction) {
  const lane = lanes[state.chosen];
  if (!lane) return;
  const last = segmentAt(lane, state.time, true);
  toSegment(lane, direction > 0 ? last + 1 : last >= 0 && state.time - lane.segments[last][0] > 0.5 ? last : last - 1);
}

// Show `span` seconds from `first` on, within the video.
function look(first, span) {
  const whole = answer.last - answer.first, least = Math.min(whole, 2), wanted = Math.min(whole, Math.max(least, span));
  view.first = Math.min(answer.last - wanted, Math.max(answer.first, first));
  view.last = view.first + wanted;
  drawAll();
}

function zoom(factor, around = state.time) {
  const span = (view.last - view.first) * factor, middle = Math.min(view.last, Math.max(view.first, around));
  look(middle - (middle - view.first) * factor, span);
}

const timeAt = (lane, x) => {
  const box = lane.track.getBoundingClientRect();
  return view.first + Math.min(1, Math.max(0, (x - box.left) / box.width)) * (view.last - view.first);
};

function hover(lane, event) {
  const tip = element("tip"), time = timeAt(lane, event.clientX), segment = lane.segments[segmentAt(lane, time)];
  const shares = lane.columns ? highest(lane, ...columnsAt(lane, time, time)).filter(([, share]) => share >= 0.05) : [];
  tip.replaceChildren(
    made("b", "", segment ? `${answer.classes[segment[2]].name} ${segment[3].toFixed(2)}` : "No action"),
    made("div", "", segment ? `${clock(segment[0])} to ${clock(segment[1])}, ${(segment[1] - segment[0]).toFixed(1)} s` : lane.name),
    made("div", "", `At ${clock(time)}: ${shares.map(([label, share]) => `${answer.classes[label].name} ${share.toFixed(2)}`).join(", ") || "nothing predicted"}`),
  );
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  tip.style.left = `${Math.min(document.documentElement.clientWidth - width - 6, Math.max(6, event.clientX - width / 2))}px`;
  tip.style.top = `${event.clientY > height + 24 ? event.clientY - height - 16 : event.clientY + 22}px`;
}

for (const lane of lanes) {
  lane.node.addEventListener("focus", () => choose(lane.number));
  lane.track.addEventListener("pointerdown", event => {
    if (event.button) return;
    lane.track.setPointerCapture(event.pointerId);
    choose(lane.number);
    seek(timeAt(lane, event.clientX));
  });
  lane.track.addEventListener("pointermove", event => {
    if (lane.track.hasPointerCapture(event.pointerId)) seek(timeAt(lane, event.clientX));
    hover(lane, event);
  });
  lane.track.addEventListener("pointerleave", () => { element("tip").hidden = true; });
  lane.track.addEventListener("wheel", event => {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    zoom(event.deltaY > 0 ? 1.25 : 0.8, timeAt(lane, event.clientX));
  }, { passive: false });
}

document.querySelector("#segments tbody")?.addEventListener("click", event => {
  const row = event.target.closest("tr");
  if (!row) return;
  choose(Number(row.dataset.lane));
  toSegment(lanes[state.chosen], Number(row.dataset.segment));
});

element("legend").addEventListener("click", event => {
  const button = event.target.closest("button");
  if (!button) return;
  const number = Number(button.dataset.class);
  state.only = state.only === number ? null : number;
  for (const other of element("legend").querySelectorAll("button")) other.setAttribute("aria-pressed", Number(other.dataset.class) === state.only);
  for (const [key, row] of rows) {
    const [lane, segment] = key.split(" ");
    row.hidden = state.only !== null && lanes[lane].segments[segment][2] !== state.only;
  }
  drawAll();
});

element("in").addEventListener("click", () => zoom(0.5));
element("out").addEventListener("click", () => zoom(2));
element("all").addEventListener("click", () => look(answer.first, answer.last - answer.first));

document.addEventListener("keydown", event => {
  const target = event.target, inLane = target.classList?.contains("lane");
  if (event.ctrlKey || event.metaKey || event.altKey || target === video || target.tagName === "A") return;
  if (target.tagName === "BUTTON" && (event.key === "Enter" || event.key === " ")) return;
  const pace = event.shiftKey ? 1 / (answer.fps || 25) : 1;
  const keys = {
    " ": () => { if (!video) return; state.stop = null; if (video.paused) video.play().catch(() => {}); else video.pause(); },
    ArrowLeft: () => seek(state.time - pace), ArrowRight: () => seek(state.time + pace), Enter: playAction,
    Home: () => seek(answer.first), End: () => seek(answer.last),
    "+": () => zoom(0.5), "=": () => zoom(0.5), "-": () => zoom(2), 0: () => look(answer.first, answer.last - answer.first),
    ...(inLane ? { ArrowUp: () => step(-1), ArrowDown: () => step(1) } : {}),
  };
  if (!inLane && (event.key === "Home" || event.key === "End")) return;
  if (!keys[event.key]) return;
  event.preventDefault();
  keys[event.key]();
});

if (video) {
  const follow = () => {
    const time = video.currentTime + answer.first;
    if (state.stop !== null && time >= state.stop) {
      state.stop = null;
      video.pause();
    }
    show(time);
    if (!video.paused) requestAnimationFrame(follow);
  };
  for (const name of ["play", "seeked", "timeupdate", "pause"]) video.addEventListener(name, follow);
  video.addEventListener("error", () => { video.hidden = true; element("broken").hidden = false; });
}
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
new ResizeObserver(drawAll).observe(element("lanes"));
choose(0);
show(answer.first);
