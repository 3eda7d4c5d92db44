import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { Worker } from "node:worker_threads";

import { Event, Recommender, Video } from "../dist/index.js";
import { putGolden } from "./golden.mjs";
import { BUNDLE, golden, ids, load, ort, videoOf } from "./setup.mjs";

let rec;
before(async () => {
  rec = await load();
  putGolden(rec, golden, ids);
});
after(() => rec.close());

describe("calls that make no sense say what would", () => {
  const calls = {
    "no options": [() => Recommender.load(), /one object/],
    "no ort": [() => load({ ort: {} }), /onnxruntime-web/],
    "an option with an underscore": [() => load({ data_dir: "x" }), /unknown option 'data_dir': expected one of .*dataDir/],
    "an empty dataDir": [() => load({ dataDir: "" }), /dataDir/],
    "dataDir and storage": [() => load({ dataDir: "x", storage: {} }), /contradict/],
    "no threads": [() => load({ threads: 0 }), /threads/],
    "a bundle that is a number": [() => load({ bundle: 7 }), /folder's path or URL/],
    "an unknown option": [() => rec.rank([], ids, { top_k: 3 }), /unknown option 'top_k'/],
    "top 2.5": [() => rec.rank([], ids, { topK: 2.5 }), /topK/],
    "percent": [() => rec.rank([], ids, { diversity: 50 }), /divide percent/],
    "a flag that is a number": [() => rec.rank([], ids, { foldDuplicates: 1 }), /foldDuplicates must be true/],
    "an infinite prior": [() => rec.rank([], ids, { prior: { video0: Infinity } }), /finite/],
    "a prior of text": [() => rec.rank([], ids, { prior: { video0: "7" } }), /numbers/],
    "a prior of another length": [() => rec.rank([], ids, { prior: [1, 2] }), /2 values for 10/],
    "a list as prior of nothing": [() => rec.rank([], null, { prior: [1, 2] }), /nothing to align/],
    "a weight that is text": [() => rec.rank([], ids, { prior: { values: {}, weight: "7" } }), /weight/],
    "a number in a list": [() => rec.rank([7], ids), /history\[0\] must be an id/],
    "bare bytes in a list": [() => rec.rank([], [new Uint8Array(3)]), /wrap frames/],
    "a bare Blob": [() => rec.encode([new Blob([])]), /wrap it/],
    "an event for a candidate": [() => rec.rank([], [{ video: "video0" }]), /belongs into the history/],
    "a map for a list": [() => rec.rank(new Map(), ids), /must be a list/],
    "liked 1": [() => rec.history.add("video0", { liked: 1 }), /liked/],
    "a time that is text": [() => rec.history.add("video0", { at: "now" }), /at must be a Date/],
    "no time at all": [() => rec.history.add("video0", { at: new Date(NaN) }), /invalid Date/],
    "an unknown field": [() => rec.history.add("video0", { wached: 1 }), /wached/],
    "fields beside an event": [() => rec.history.add({ video: "video0" }, { watched: 1 }), /complete/],
    "an empty id": [() => rec.history.add({ id: "" }), /empty/],
    "file and frames": [() => new Video({ id: "x", file: new Blob([]), frames: [] }), /not both/],
    "nothing at all": [() => new Video({}), /needs a file/],
    "a Blob without a name": [() => new Video({ file: new Blob([]) }), /give the video an id/],
    "an id that is a number": [() => rec.forget(7), /id must be a string/],
    "ids that are numbers": [() => rec.store.remove([7]), /ids must be strings/],
  };
  for (const [what, [call, message]] of Object.entries(calls)) {
    test(what, async () => {
      await assert.rejects(async () => call(), (e) => {
        assert.match(e.name, /^Argument(Type)?Error$/);
        assert.match(e.message, message);
        return true;
      });
    });
  }
});

describe("one video that cannot be used spoils nothing", () => {
  const cases = [
    ["a shape of another size", { data: new Uint8Array(10), shape: [1, 2, 2, 3] }, "invalid_frames"],
    ["no pixels", { data: new Uint8Array(0), shape: [0, 2, 2, 3] }, "invalid_frames"],
    ["two channels", { data: new Uint8Array(8), shape: [1, 2, 2, 2] }, "invalid_frames"],
    ["a negative side", { data: new Uint8Array(0), shape: [1, -2, 2, 3] }, "invalid_frames"],
    ["no shape", { data: new Uint8Array(12) }, "invalid_frames"],
    ["a picture of many pixels", { data: new Uint8Array(0), shape: [1, 10000, 10000, 3] }, "invalid_frames"],
  ];
  for (const [what, frames, code] of cases) {
    test(what, async () => {
      const ranking = await rec.rank(["video0"], [{ id: "wrong", frames }, "video1"]);
      assert.deepEqual(ranking.ids, ["video1"]);
      assert.deepEqual(ranking.failed.map(({ id, role, code: c }) => [id, role, c]), [["wrong", "candidate", code]]);
      assert.ok(ranking.failed[0].reason.length > 20);
    });
  }

  test("files without a decoder, in Node", async () => {
    const { failed } = await rec.encode([{ file: new File([new Uint8Array(10)], "a.mp4") }]);
    assert.deepEqual(failed.map((f) => [f.id, f.code]), [["a.mp4", "unreadable"]]);
    assert.match(failed[0].reason, /decoder of your own/);
  });

  test("ids that nobody knows, in the history and in a selection", async () => {
    const ranking = await rec.rank(["nobody", "video0"], rec.store.select(["video1", "no one"]));
    assert.deepEqual(ranking.ids, ["video1"]);
    assert.deepEqual(ranking.failed.map((f) => [f.id, f.role, f.code]), [
      ["nobody", "history", "not_found"], ["no one", "candidate", "not_found"],
    ]);
    await assert.rejects(rec.history.add("nobody"), { name: "VideoNotFoundError", code: "not_found" });
    assert.equal(rec.history.length, 0);
  });

  test("a stored id with another content: a conflict with what was named, else encoded again", async () => {
    const [a, b] = [await videoOf(golden.videos[7]), await videoOf(golden.videos[6])];
    await rec.encode([{ ...a, id: "stored" }]);
    const before = rec.store.read("stored").tokens;
    const { failed } = await rec.rank(["stored"], [{ frames: b.frames, id: "stored" }, { frames: a.frames, id: "stored" }]);
    assert.deepEqual(failed.map((f) => [f.role, f.code]), [["candidate", "conflict"]]);
    assert.deepEqual(rec.store.read("stored").tokens, before);
    assert.deepEqual((await rec.encode([{ frames: b.frames, id: "stored" }])).encoded, ["stored"]);
    assert.notDeepEqual(rec.store.read("stored").tokens, before);
    await rec.store.remove("stored");
  });

  test("one id for two contents, or for two titles", async () => {
    const [a, b] = [await videoOf(golden.videos[7]), await videoOf(golden.videos[6])];
    const ranking = await rec.rank([], [{ ...a, id: "same" }, { ...b, id: "same", title: null }, { ...a, id: "same", title: "t" }, { ...a, id: "same", title: "u" }]);
    assert.deepEqual(ranking.failed.map((f) => f.code), ["conflict"]);
    assert.deepEqual(ranking.ids, ["same"]);
    await rec.store.remove("same");
  });
});

test("frames come as RGB, as RGBA, and as ImageData; the same video makes the same tokens", async () => {
  const { frames } = await videoOf(golden.videos[8]);
  const [count, height, width] = frames.shape;
  const rgb = { data: new Uint8Array(count * height * width * 3), shape: [count, height, width, 3] };
  frames.data.forEach((x, i) => i % 4 < 3 && (rgb.data[Math.floor(i / 4) * 3 + (i % 4)] = x));
  const size = height * width * 4;
  const pictures = Array.from({ length: count }, (_, n) => ({
    width, height, data: new Uint8ClampedArray(frames.data.subarray(n * size, (n + 1) * size)),
  }));
  const other = await load();
  await other.encode([{ id: "rgba", frames }, { id: "rgb", frames: rgb }, { id: "pictures", frames: pictures }]);
  assert.deepEqual(other.store.read("rgb"), other.store.read("rgba"));
  assert.deepEqual(other.store.read("pictures"), other.store.read("rgba"));
  assert.equal(new Video({ frames }).id, new Video({ frames: rgb }).id);
  await other.close();
});

test("encode: progress, what is unchanged, another title, a decoder of the app's own, stopping", async () => {
  const video = await videoOf(golden.videos[7]);
  const other = await load({ decoder: async (file, count, size) => {
    assert.deepEqual([count, size], [7, 144]);
    if ((await file.text()) === "broken") throw new Error("no such codec");
    return video.frames;
  } });
  const seen = [];
  const file = new File(["a film"], "film.mp4", { lastModified: 5 });
  const bad = new File(["broken"], "bad.mp4");
  const result = await other.encode([video, { file }, { file: bad }, "video9"], { progress: (...x) => seen.push(x) });
  assert.deepEqual(result.encoded, ["video7", "film.mp4"]);
  assert.deepEqual(result.failed.map((f) => [f.id, f.code]), [["video9", "not_found"], ["bad.mp4", "unreadable"]]);
  assert.deepEqual(seen.at(-1), [4, 4]);
  assert.deepEqual(other.store.read("film.mp4"), other.store.read("video7"));
  const touched = new File(["a film"], "film.mp4", { lastModified: 6 });
  assert.deepEqual((await other.encode([{ file: touched }])).unchanged, ["film.mp4"]);
  const changed = new File(["another"], "film.mp4", { lastModified: 7 });
  assert.deepEqual((await other.encode([{ file: changed }])).encoded, ["film.mp4"]);
  assert.deepEqual((await other.encode([{ ...video, title: "a red ball" }])).encoded, ["video7"]);
  const stop = new AbortController();
  const many = [0, 1, 2].map((n) => ({ ...video, id: `copy ${n}` }));
  const stopped = await other.encode(many, { signal: stop.signal, progress: (done) => done && stop.abort() });
  assert.deepEqual([stopped.encoded, stopped.unchanged], [["copy 0"], []]);
  await assert.rejects(other.encode(many, { progress: (done) => { if (done === 2) throw new Error("enough"); } }), /enough/);
  assert.ok(other.store.has("copy 1"), "what was encoded before stays");
  await other.close();
});

test("rank: what was not watched, all in the store, a selection, a limit; JSON and structured clones", async () => {
  const history = [new Event({ video: "video0" }), { video: "video1", watched: 0.1 }];
  const all = await rec.rank(history);
  assert.deepEqual([...all.ids].sort(), ids.slice(2));
  assert.deepEqual((await rec.rank(history, rec.store.select())).ids.length, 10);
  const some = await rec.rank(history, new Set(["video2", "video0", "video2"]), { excludeWatched: true });
  assert.deepEqual(some.ids, ["video2"]);
  const three = await rec.rank(history, ids, { topK: 3 });
  assert.deepEqual(three.map((r) => r.rank), [1, 2, 3]);
  assert.deepEqual(Object.keys(JSON.parse(JSON.stringify(three[0]))), ["rank", "id", "score", "layers", "source"]);
  assert.equal(structuredClone([...three])[0].id, three[0].id);
  assert.ok(three.timing.total > 0);
  const sum = three[0].layers.reduce((a, b) => a + b, 0);
  assert.ok(Math.abs(sum - three[0].score) < 1e-5);
});

test("an explanation of what has left the store", async () => {
  const other = await load();
  putGolden(other, golden, ids);
  const ranking = await other.rank(["video0"], ids);
  const before = ranking[3].explain();
  await other.store.remove(ranking[3].id);
  assert.deepEqual(ranking[3].explain(), before, "the best places keep what they were scored with");
  await other.close();
});

test("info says what runs", () => {
  const info = rec.info();
  assert.equal(info.tokenSpace, golden.bundle.token_space);
  assert.deepEqual([info.bundle, info.precision, info.frames, info.frameSize], ["base", "int8", 7, 144]);
  assert.equal(info.layerNames.length, 6);
});

test("int4 reads the tokens of int8, and warms up", async () => {
  const other = await load({ precision: "int4" });
  assert.ok((await other.warmup()) > 0);
  assert.equal((await other.store.importPack(rec.store.exportPack())).length, 10);
  assert.deepEqual((await other.rank(["video0"], ids)).ids, (await rec.rank(["video0"], ids)).ids);
  await other.close();
});

test("after close everything says so, and a close in the middle of encoding stops it", async () => {
  const other = await load();
  putGolden(other, golden, ids);
  const { history, store } = other;
  const video = await videoOf(golden.videos[7]);
  const encoding = other.encode([0, 1, 2].map((n) => ({ ...video, id: `copy ${n}` })));
  encoding.catch(() => undefined);
  const ranking = await other.rank(["video0"], ids);
  await other.close();
  await other.close();
  await encoding.catch((e) => assert.equal(e.name, "ClosedError"));
  const calls = [
    () => other.rank(), () => other.encode([]), () => other.taste(), () => other.forget("x"), () => other.warmup(), () => other.info(),
    () => history.add("video0"), () => history.forget("video0"), () => history.clear(), () => history.export(), () => history.save(),
    () => history.load(new Uint8Array()), () => store.select(), () => store.remove("x"), () => store.exportPack(),
    () => store.importPack(new Uint8Array()), () => store.stats(),
  ];
  for (const call of calls) await assert.rejects(async () => call(), { name: "ClosedError" }, String(call));
  assert.equal(ranking[0].explain().id, ranking[0].id);
});

test("calls side by side do not mix", async () => {
  const other = await load();
  const videos = await Promise.all(golden.videos.map(videoOf));
  const all = await Promise.all([
    other.encode(videos.slice(0, 4)), other.encode(videos.slice(2, 6)), other.rank([videos[0]], videos), other.history.add(videos[6]),
    other.history.add(videos[7]), other.store.remove("nobody"), other.rank([videos[9]], videos.slice(0, 3)),
  ]);
  assert.deepEqual([...all[2].ids].sort(), ids);
  assert.deepEqual(other.history.export().map((e) => e.id), ["video6", "video7"]);
  assert.deepEqual([...other.store].sort(), ids);
  await other.close();
});

test("it works in a worker", async () => {
  const worker = new Worker(new URL("worker.mjs", import.meta.url), { workerData: { bundle: BUNDLE } });
  const ranked = await new Promise((resolve, reject) => worker.once("message", resolve).once("error", reject));
  await worker.terminate();
  const video = await videoOf(golden.videos[7]);
  const other = await load();
  assert.deepEqual(ranked, (await other.rank([video], [{ ...video, id: "copy" }])).map((r) => r.toJSON()));
  await other.close();
});

test("importing the package keeps ONNX Runtime from sending anything", async () => {
  const index = fileURLToPath(new URL("../dist/index.js", import.meta.url));
  const script = `delete process.env.ORT_DISABLE_TELEMETRY; await import(${JSON.stringify(index)}); console.log(process.env.ORT_DISABLE_TELEMETRY)`;
  assert.equal(execFileSync(process.execPath, ["--input-type=module", "-e", script], { encoding: "utf-8" }), "1\n");
  assert.equal(typeof (await ort()).InferenceSession.create, "function");
});

test("types say what fits, in an app that knows nothing of Node", () => {
  const folder = fileURLToPath(new URL("..", import.meta.url));
  execFileSync(join(folder, "node_modules/.bin/tsc"), ["-p", "test/tsconfig.json"], { cwd: folder, stdio: "inherit" });
});

test("the package is small, and holds what it needs", () => {
  const folder = fileURLToPath(new URL("..", import.meta.url));
  const [pack] = Object.values(JSON.parse(execFileSync("npm", ["pack", "--dry-run", "--json"], { cwd: folder, encoding: "utf-8" })));
  assert.ok(pack.size <= 60_000, `${pack.size} bytes packed`);
  const names = pack.files.map((f) => f.path);
  for (const name of ["dist/index.js", "dist/index.d.ts", "dist/folder.js", "package.json", "LICENSE", "README.md"]) {
    assert.ok(names.includes(name), name);
  }
  assert.ok(!names.some((n) => n.startsWith("test") || n.startsWith("src")));
});
