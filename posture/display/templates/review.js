// The page of `posture review`: one clip at a time, played as images, and an answer to each. Text from footage is only ever set as text.
"use strict";

const element = id => document.getElementById(id);
const canvas = document.querySelector("#stage canvas");
const player = { images: [], rate: 12.5, position: 0, playing: true, last: 0 };
const held = new Map(); // question -> promise of its images
let review = null;
let current = 0;
let sending = false;

async function ask(path, answer) {
  const options = answer === undefined ? {} : { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(answer) };
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("posture review has ended: start it again in the terminal");
  }
  const value = await response.json();
  if (!response.ok) throw new Error(value.error);
  return value;
}

function made(name, text, properties = {}) {
  const node = Object.assign(document.createElement(name), properties);
  node.textContent = text;
  return node;
}

function imagesOf(number) {
  if (!held.has(number)) {
    held.set(number, ask(`images/${number}`).then(async clip => {
      const images = clip.frames.map(source => Object.assign(new Image(), { src: source }));
      await Promise.all(images.map(image => image.decode()));
      return { images, rate: clip.rate };
    }));
    for (const old of [...held.keys()].filter(key => Math.abs(key - number) > 3)) held.delete(old);
  }
  return held.get(number);
}

async function play(number) {
  Object.assign(player, { images: [], position: 0, playing: true });
  element("note").textContent = "Reading the clip …";
  try {
    const clip = await imagesOf(number);
    if (number !== current) return;
    Object.assign(player, clip, { position: 0, last: performance.now() });
    canvas.width = clip.images[0].naturalWidth;
    canvas.height = clip.images[0].naturalHeight;
    element("stage").style.aspectRatio = `${canvas.width} / ${canvas.height}`;
    element("seek").max = clip.images.length - 1;
    element("note").textContent = "";
    draw();
    if (number + 1 < review.questions.length) imagesOf(number + 1).catch(() => {});
  } catch (error) {
    held.delete(number);
    if (number === current) element("note").textContent = `${error.message}. Mark it as not usable, or skip it.`;
  }
}

function draw() {
  const place = Math.min(player.images.length - 1, Math.floor(player.position));
  if (place < 0) return;
  canvas.getContext("2d").drawImage(player.images[place], 0, 0);
  element("seek").value = place;
  const question = review.questions[current];
  const second = question.start + place / player.rate;
  document.querySelector("#time output").textContent = `${second.toFixed(1)} of ${question.end.toFixed(1)} s`;
}

function tick(now) {
  if (player.playing && player.images.length) {
    player.position = (player.position + (now - player.last) / 1000 * player.rate) % player.images.length;
    draw();
  }
  player.last = now;
  requestAnimationFrame(tick);
}

function step(frames) {
  if (!player.images.length) return;
  player.playing = false;
  player.position = (Math.floor(player.position) + frames + player.images.length) % player.images.length;
  draw();
}

function choices() {
  const question = review.questions[current];
  const suggested = question.suggested.map(([name]) => name);
  const added = review.classes.filter(name => !suggested.includes(name)).reverse();
  const fewer = review.classes.length <= 9 ? added.reverse() : added.filter(name => name === question.label);
  return [...question.suggested, ...fewer.map(name => [name, null])].slice(0, 9);
}

function show(number) {
  current = number;
  const finished = number >= review.questions.length;
  const count = state => review.questions.filter(question => question.state === state).length;
  element("work").hidden = finished;
  element("done").hidden = !finished;
  element("error").textContent = "";
  const total = element("count");
  total.textContent = finished ? "" : `${number + 1} of ${review.questions.length}`;
  total.append(made("small", `${count("labelled")} labelled`));
  element("strip").replaceChildren(...review.questions.map((question, place) => {
    const button = made("button", "", { className: question.state, title: `${question.video}: ${question.label || question.state.replace("_", " ")}` });
    button.setAttribute("aria-label", `Clip ${place + 1}, ${question.label || question.state.replace("_", " ")}`);
    if (place === number) button.setAttribute("aria-current", "step");
    button.addEventListener("click", () => show(place));
    const item = made("li", "");
    item.append(button);
    return item;
  }));
  if (finished) {
    const [sentence, where] = element("done").querySelectorAll("p");
    sentence.textContent = `${count("labelled")} labelled, ${count("not_usable")} not usable, ${count("skipped")} skipped. The next posture retrain takes them in.`;
    where.textContent = review.path;
    player.images = [];
    return;
  }
  const question = review.questions[number];
  element("suggests").textContent = `${review.champion} suggests`;
  element("where").replaceChildren(question.video, made("span", question.whole ? "  · the whole video" : `  · from ${question.start.toFixed(1)} to ${question.end.toFixed(1)} s`));
  element("choices").replaceChildren(...choices().map(([name, share], place) => {
    const button = made("button", "", { type: "button", className: question.state === "labelled" && question.label === name ? "chosen" : "" });
    button.append(made("kbd", place + 1), made("span", name, { className: "name" }), made("span", share === null ? "" : `${(100 * share).toFixed(1)} %`, { className: "share" }));
    const bar = made("i", "");
    bar.style.setProperty("--share", share || 0);
    button.append(bar);
    button.addEventListener("click", () => answer("labelled", name));
    const item = made("li", "");
    item.append(button);
    return item;
  }));
  element("classes").replaceChildren(...review.classes.map(name => Object.assign(document.createElement("option"), { value: name })));
  element("other").value = "";
  element("back").disabled = number === 0;
  play(number);
}

async function answer(state, label) {
  if (sending || current >= review.questions.length) return;
  const asked = current;
  sending = true;
  try {
    review = await ask("answer", { question: asked, state, label });
    document.activeElement.blur(); // so that the next Enter is an answer, not this button once more
    if (asked === current) show(asked + 1);
  } catch (error) {
    element("error").textContent = error.message;
  } finally {
    sending = false;
  }
}

element("another").addEventListener("submit", event => {
  event.preventDefault();
  element("other").blur();
  answer("labelled", element("other").value);
});
element("skip").addEventListener("click", () => answer("skipped"));
element("unusable").addEventListener("click", () => answer("not_usable"));
element("back").addEventListener("click", () => show(Math.max(0, current - 1)));
element("again").addEventListener("click", () => show(0));
element("seek").addEventListener("input", event => {
  player.playing = false;
  player.position = Number(event.target.value);
  draw();
});
document.addEventListener("keydown", event => {
  if (event.key === "Escape") return document.activeElement.blur();
  if (!review || event.ctrlKey || event.metaKey || event.altKey || event.repeat && event.key.length === 1 || event.target === element("other")) return undefined;
  if (event.target.tagName === "BUTTON" && (event.key === "Enter" || event.key === " ")) return undefined;
  const keys = {
    "Enter": () => answer("labelled", review.questions[current].suggested[0][0]), " ": () => { player.playing = !player.playing; },
    "ArrowLeft": () => step(-1), "ArrowRight": () => step(1), "s": () => answer("skipped"), "x": () => answer("not_usable"),
    "b": () => show(Math.max(0, current - 1)), "n": () => element("other").focus(), "/": () => element("other").focus(),
  };
  const action = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  const finished = current >= review.questions.length;
  if (action && !(finished && event.key.toLowerCase() !== "b")) {
    event.preventDefault();
    action();
  } else if (/^[1-9]$/.test(event.key) && !finished) {
    const chosen = choices()[Number(event.key) - 1];
    if (chosen) answer("labelled", chosen[0]);
  }
  return undefined;
});

ask("questions").then(found => {
  review = found;
  const open = review.questions.findIndex(question => question.state === "open");
  requestAnimationFrame(tick);
  show(open < 0 ? review.questions.length : open);
}).catch(error => { element("note").textContent = error.message; });
