/** The page: plays, notes what was watched, and shows the list, the reasons and the taste. */

import { readFrames } from "./linkedout-edge/index.js";
import { CLIPS } from "./clips.mjs";
import { followNetwork, startServiceWorker } from "./network.mjs";

const at = (id) => document.getElementById(id);
const video = at("video");
const videos = new Map(CLIPS.map((clip) => [clip.id, clip])); // id → { id, title, credit, url, file, picture, isReady }
let playing = null;
let order = [];
let seen = new Set();
let rankings = 0;
let info;

// The worker.

const waiting = new Map();
let worker;
let calls = 0;

function ask(name, ...values) {
  const call = ++calls;
  worker.postMessage({ call, name, values });
  return new Promise((resolve, reject) => waiting.set(call, { resolve, reject }));
}

function startWorker() {
  worker = new Worker(new URL("model.mjs", import.meta.url), { type: "module" });
  worker.onmessage = ({ data: { call, value, error } }) => {
    const { resolve, reject } = waiting.get(call);
    waiting.delete(call);
    if (error) reject(Object.assign(new Error(error.message), { name: error.name }));
    else resolve(value);
  };
  worker.onerror = (e) => say(`The model could not be started: ${e.message || "see the browser's console"}`);
}

function say(text) {
  at("status").textContent = text;
}

// Playing.

function play(id) {
  const next = videos.get(id);
  if (!next) return;
  playing = { id, watched: 0, liked: null, isNoted: false };
  next.url ??= URL.createObjectURL(next.file);
  video.src = next.url;
  at("title").textContent = next.title;
  at("credit").textContent = next.credit ?? "";
  for (const name of ["like", "dislike"]) at(name).setAttribute("aria-pressed", "false");
  if (!matchMedia("(prefers-reduced-motion: reduce)").matches) video.play().catch(() => undefined); // not before a touch
}

/** Note what was watched of the video that plays, once. */
async function note() {
  const { id, watched, liked, isNoted } = playing;
  if (isNoted || !videos.get(id)?.isReady) return;
  playing.isNoted = true;
  await ask("add", id, { watched, liked });
  seen.add(id);
  await rank();
}

async function next() {
  const before = playing.id;
  await note();
  play(order.find((id) => id !== before) ?? before);
  await rank();
}

async function judge(liked) {
  playing.liked = liked;
  at("like").setAttribute("aria-pressed", String(liked));
  at("dislike").setAttribute("aria-pressed", String(!liked));
  await next();
}

video.addEventListener("timeupdate", () => {
  if (playing && video.duration) playing.watched = Math.max(playing.watched, Math.min(1, video.currentTime / video.duration));
});

// Ranking.

/** Everything that can be watched now: what was not seen first, else all again. */
async function rank() {
  const ready = [...videos.values()].filter((v) => v.isReady).map((v) => v.id);
  const fresh = ready.filter((id) => !seen.has(id) && id !== playing.id);
  const ids = fresh.length ? fresh : ready.filter((id) => id !== playing.id);
  const { ranked, taste, history, took } = await ask("rank", ids);
  order = ranked.map((r) => r.id);
  showList(ranked, !history.length);
  showTaste(taste, history);
  at("facts").textContent = `Ranked ${ids.length} videos in ${took.toFixed(1)} ms.`;
  document.documentElement.dataset.rankings = String(++rankings);
}

function showList(ranked, isNew) {
  at("cold").textContent = (isNew && ranked[0]?.reason) || "";
  at("list").replaceChildren(...ranked.map(({ id, reason }) => {
    const { title, picture } = videos.get(id);
    const button = make("button", { type: "button", onclick: () => guarded(async () => {
      await note();
      play(id);
      await rank();
    }) });
    button.append(make("img", { src: picture, alt: "" }), make("span", {}, [
      make("span", { textContent: title }),
      ...(seen.has(id) ? [make("span", { className: "seen", textContent: " · seen" })] : []),
      ...(isNew ? [] : [make("span", { className: "reason", textContent: reason })]),
    ]));
    return make("li", {}, [button]);
  }));
}

function showTaste(taste, history) {
  at("taste").textContent = taste.sentence;
  at("forget").disabled = !history.length;
  at("history").replaceChildren(...history.slice(-12).reverse().map(({ id, liked, watched }) => {
    const name = videos.get(id)?.title ?? id;
    const how = liked === null ? (watched < 0.3 ? "skipped" : "watched") : liked ? "liked" : "not for me";
    const forget = make("button", { type: "button", textContent: "×", ariaLabel: `Forget ${name}`, title: "Forget this" });
    forget.onclick = () => guarded(async () => {
      await ask("forget", id);
      seen.delete(id);
      await rank();
    });
    return make("li", {}, [`${name} · ${how}`, forget]);
  }));
  const top = Math.max(...taste.layers);
  at("layers").replaceChildren(...taste.layers.map((trust, n) => {
    const bar = make("div", {}, [make("span", { textContent: taste.layerNames[n] })]);
    bar.style.height = `${(100 * trust) / top}%`;
    return bar;
  }));
}

function make(name, properties, children = []) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
}

// Looking at videos.

/** A small picture of the middle frame, for the list. */
function pictureOf({ data, shape: [count, height, width] }) {
  const first = Math.floor(count / 2) * height * width;
  const pixels = new ImageData(width, height);
  for (let n = 0; n < height * width; n++) pixels.data.set([...data.subarray((first + n) * 3, (first + n) * 3 + 3), 255], n * 4);
  const [large, small] = [document.createElement("canvas"), document.createElement("canvas")];
  Object.assign(large, { width, height }).getContext("2d").putImageData(pixels, 0, 0);
  Object.assign(small, { width: 192, height: 120 }).getContext("2d").drawImage(large, 0, 0, 192, 120);
  return small.toDataURL("image/jpeg", 0.7);
}

async function look(list) {
  const problems = [];
  for (const [n, entry] of list.entries()) {
    say(`Looking at video ${n + 1} of ${list.length}…`);
    try {
      const frames = await readFrames(entry.file ?? new URL(entry.url, location.href).href, info.frames, info.frameSize);
      entry.picture = pictureOf(frames);
      const { failed } = await ask("encode", { id: entry.id, title: entry.title, frames });
      if (failed.length) throw new Error(failed[0].reason);
      entry.isReady = true;
      if ((n + 1) % 4 === 0) await rank();
    } catch (e) {
      videos.delete(entry.id);
      problems.push(`${entry.title}: ${e.message}`);
    }
  }
  await rank();
  say(problems.length ? `${problems.length} could not be used. ${problems[0]}` : "");
}

async function take(files) {
  const chosen = files.filter((f) => f.type.startsWith("video/") || /\.(mp4|webm|mov|m4v|mkv|ogv)$/i.test(f.name));
  if (!chosen.length) return say("There is no video among these files.");
  const list = chosen.map((file) => ({
    id: `${file.webkitRelativePath || file.name} (${file.size} bytes)`, title: file.name.replace(/\.[^.]*$/, ""), file,
  }));
  for (const entry of list) videos.set(entry.id, entry);
  await look(list);
}

/** Files of what was dropped, folders included. */
async function dropped(items) {
  const files = [];
  const walk = async (entry) => {
    if (entry.isFile) files.push(await new Promise((resolve, reject) => entry.file(resolve, reject)));
    else {
      const reader = entry.createReader();
      for (;;) {
        const part = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
        if (!part.length) break;
        for (const inside of part) await walk(inside);
      }
    }
  };
  for (const entry of [...items].map((item) => item.webkitGetAsEntry()).filter(Boolean)) await walk(entry);
  return files;
}

// Buttons and keys; one thing after the other.

let last = Promise.resolve();
function guarded(work) {
  last = last.then(work).catch((e) => say(e.message));
  return last;
}

at("like").onclick = () => guarded(() => judge(true));
at("dislike").onclick = () => guarded(() => judge(false));
at("next").onclick = () => guarded(next);
at("forget").onclick = () => guarded(async () => {
  await ask("clear");
  seen = new Set();
  await rank();
  say("Forgotten.");
});
for (const id of ["files", "folder"]) {
  at(id).onchange = ({ target }) => {
    const files = [...target.files];
    target.value = "";
    guarded(() => take(files));
  };
}
addEventListener("keydown", (e) => {
  if (e.ctrlKey || e.metaKey || e.altKey || e.target.closest("input, textarea")) return;
  const button = { l: "like", d: "dislike", n: "next" }[e.key.toLowerCase()];
  if (button) at(button).click();
});
const drop = at("drop");
for (const name of ["dragenter", "dragover"]) {
  addEventListener(name, (e) => (e.preventDefault(), drop.classList.add("over")));
}
addEventListener("dragleave", (e) => !e.relatedTarget && drop.classList.remove("over"));
addEventListener("drop", (e) => {
  e.preventDefault();
  drop.classList.remove("over");
  const found = dropped(e.dataTransfer.items); // the list is emptied when this handler ends
  guarded(async () => take(await found));
});

// It opens on something to watch; the model comes behind.

play(CLIPS[Math.floor(Math.random() * CLIPS.length)].id);
followNetwork(at("log"), at("left"));
guarded(async () => {
  await startServiceWorker();
  startWorker();
  let isKept;
  ({ isKept, info } = await ask("load"));
  await look([...videos.values()]);
  if (!isKept) say("This page is open in another tab, or the browser keeps nothing here: what you watch now is not kept.");
  document.documentElement.dataset.ready = "yes";
});
