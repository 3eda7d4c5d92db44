/** What the test asks the page to do; each gives plain values. */

import { prepareFrames, readFrames } from "/dist/index.js";
import { asRgb } from "/dist/frames.js";
import { Tokenizer } from "/dist/tokenizer.js";
import { compareCase, compareTaste, compareTokens, eventsOf, framesOf, goldenOf, putGolden, resultOf } from "/test/golden.mjs";
import { measured } from "/test/measure.mjs";
import { load, picture, read } from "./setup.mjs";

const golden = await goldenOf(read);
const ids = golden.videos.map((v) => v.id);

async function videoOf({ id, frames, frame_count: count, title }) {
  return { id, title: title || null, frames: framesOf(await picture(frames), count) };
}

let kept = null;

window.tests = {
  isolated: () => crossOriginIsolated,

  async fromTokens() {
    const wrong = {};
    const rec = await load();
    for (const testCase of golden.cases) {
      await rec.store.remove(rec.store);
      putGolden(rec, golden, testCase.store);
      const events = eventsOf(golden, testCase);
      const ranking = await rec.rank(events, testCase.candidates);
      const said = compareCase(golden, testCase, ranking) || compareTaste(testCase, rec.taste(events));
      if (said) wrong[testCase.name] = said;
    }
    await rec.close();
    return { cases: golden.cases.length, wrong };
  },

  async fromFrames() {
    const rec = await load();
    const videos = await Promise.all(golden.videos.map(videoOf));
    const { failed } = await rec.encode(videos);
    const wrong = golden.videos.map((v) => compareTokens(golden, v, rec.store.read(v.id))).filter(Boolean);
    let most = 0;
    for (const testCase of golden.cases) {
      await rec.store.remove(ids.filter((id) => !testCase.store.includes(id)));
      for (const r of await rec.rank(eventsOf(golden, testCase), testCase.candidates)) {
        most = Math.max(most, Math.abs(r.score - testCase.scores[r.id]));
      }
    }
    await rec.close();
    return { failed, wrong, most, limit: golden.tolerance.score_from_frames };
  },

  async prepared() {
    const most = [];
    for (const video of golden.videos.filter((v) => v.prepared)) {
      const made = prepareFrames(asRgb(framesOf(await picture(video.frames), video.frame_count)), 7, 144);
      const expected = asRgb(framesOf(await picture(video.prepared), 7)).data;
      most.push(made.reduce((top, x, i) => Math.max(top, Math.abs(x - expected[i])), 0));
    }
    return { most, limit: golden.tolerance.pixel };
  },

  async titles() {
    const bytes = await (await fetch("/bundle/tokenizer.json")).arrayBuffer();
    const tokenizer = Tokenizer.fromJson(new Uint8Array(bytes), 4096);
    const rows = [...golden.titles, ...golden.surrogates.map(({ json, ids: expected }) => ({ text: JSON.parse(json), ids: expected }))];
    return { count: rows.length, wrong: rows.filter(({ text, ids: e }) => tokenizer.encode(text).join() !== e.join()) };
  },

  async errors() {
    const rec = await load();
    putGolden(rec, golden, ids);
    const wrong = [];
    for (const error of golden.errors) {
      const result = await resultOf(error, rec, (bundle) => load({ bundle: `/${bundle}/` }));
      if (JSON.stringify(result) !== JSON.stringify(error.raises ?? [error.failed])) wrong.push([error.what, result]);
    }
    await rec.close();
    return { count: golden.errors.length, wrong };
  },

  async files() {
    const rec = await load();
    const [pack, history] = [await read(golden.files.pack), await read(golden.files.history)];
    await rec.store.importPack(pack);
    const exported = rec.store.exportPack();
    const added = await rec.history.load(history);
    const other = await load();
    await other.history.load(history);
    const same = (a, b) => a.length === b.length && a.every((x, i) => x === b[i]);
    return { added, pack: same(exported, pack), history: same(other.history.save(), history) };
  },

  /** Open the database, and say what is in it. */
  async open(dataDir) {
    kept = await load({ dataDir });
    return window.tests.inside();
  },

  inside() {
    return { videos: [...kept.store], events: kept.history.export().map((e) => [e.id, e.watched, e.liked]) };
  },

  async putAll() {
    putGolden(kept, golden, ids);
    await kept.store.flush();
  },

  async watch(id, fields) {
    await kept.history.add(id, fields);
    return window.tests.inside();
  },

  async watchNew(id) {
    const video = await videoOf(golden.videos[7]);
    await kept.history.add({ ...video, id });
    return window.tests.inside();
  },

  async forget(id) {
    await kept.forget(id);
    return window.tests.inside();
  },

  async forgetEvent(id) {
    await kept.history.forget(id);
    return window.tests.inside();
  },

  async clear() {
    await kept.history.clear();
    return window.tests.inside();
  },

  async remove(id) {
    await kept.store.remove(id);
    return window.tests.inside();
  },

  async order() {
    return (await kept.rank(["video0"], ids)).ids;
  },

  close: () => kept.close(),

  failure: (dataDir) => load({ dataDir }).then(() => "none", (e) => e.name),

  /** Everything that lies in a database, as text. */
  async dump(name) {
    const database = await new Promise((resolve) => (indexedDB.open(name).onsuccess = (e) => resolve(e.target.result)));
    const reading = database.transaction(["videos", "events"]);
    const all = await Promise.all(["videos", "events"].map((store) => new Promise((resolve) => {
      reading.objectStore(store).getAll().onsuccess = (e) => resolve(e.target.result);
    })));
    database.close();
    return JSON.stringify(all.flat().map(({ payload: _, ...rest }) => rest));
  },

  async inWorker() {
    const worker = new Worker("worker.mjs", { type: "module" });
    const video = await videoOf(golden.videos[7]);
    const answer = new Promise((resolve, reject) => {
      worker.onmessage = ({ data }) => resolve(data);
      worker.onerror = (e) => reject(new Error(e.message));
    });
    worker.postMessage(video);
    const { ranked, failed } = await answer;
    worker.terminate();
    const rec = await load();
    const expected = (await rec.rank([video], [{ ...video, id: "copy" }])).map((r) => r.toJSON());
    await rec.close();
    return { same: JSON.stringify(ranked) === JSON.stringify(expected), count: ranked.length, failed };
  },

  /** The mean of each frame of a clip, read as a file, from its address, and from a `<video>` that the page shows. */
  async clip(url) {
    const file = new File([await (await fetch(url)).blob()], "clip.webm", { lastModified: 1 });
    const element = document.createElement("video");
    Object.assign(element, { src: url, muted: true });
    document.body.append(element);
    const means = [];
    for (const source of [file, url, element]) {
      const { data, shape } = asRgb(await readFrames(source, 8));
      const size = data.length / shape[0];
      const sums = Array.from({ length: shape[0] }, (_, n) => data.subarray(n * size, (n + 1) * size).reduce((a, b) => a + b, 0));
      means.push({ shape, means: sums.map((s) => s / size) });
    }
    const rec = await load();
    const encoded = await rec.encode([{ file }]);
    const again = await rec.encode([{ file }]);
    await rec.encode([{ id: "whole", frames: await readFrames(file) }]);
    const same = rec.store.read("whole").tokens.join() === rec.store.read("clip.webm").tokens.join();
    await rec.close();
    return { means, encoded, unchanged: again.unchanged, same };
  },

  /** A recording without a length, as MediaRecorder makes. */
  async recording() {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [64, 48];
    const context = canvas.getContext("2d");
    const recorder = new MediaRecorder(canvas.captureStream(25), { mimeType: "video/webm;codecs=vp8" });
    const parts = [];
    recorder.ondataavailable = ({ data }) => parts.push(data);
    const stopped = new Promise((resolve) => (recorder.onstop = resolve));
    recorder.start();
    for (let n = 0; n < 30; n++) {
      context.fillStyle = `rgb(${n * 8} ${n * 8} ${n * 8})`;
      context.fillRect(0, 0, 64, 48);
      await new Promise((resolve) => setTimeout(resolve, 30));
    }
    recorder.stop();
    await stopped;
    const { data, shape } = await readFrames(new Blob(parts), 8);
    const size = data.length / shape[0];
    return { shape, first: Array.from({ length: shape[0] }, (_, n) => data[n * size]) };
  },

  broken: () => readFrames(new Blob(["no film"]), 8).then(() => "none", (e) => [e.name, e.message]),

  async startMeasuring(pack, frames, watched) {
    const fetched = async (name) => new Uint8Array(await (await fetch(`/bench/${name}`)).arrayBuffer());
    window.tests.measure = await measured(await load(), await fetched(pack), await fetched(frames), watched);
  },
};
