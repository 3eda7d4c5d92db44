import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { copyFile, mkdir, readFile, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

import { StorageFullError } from "../dist/index.js";
import { openFolder } from "../dist/folder.js";
import { putGolden } from "./golden.mjs";
import { folder, golden, ids, load, videoOf } from "./setup.mjs";

const LOG = "linkedout.log";

test("what was encoded and watched is there again", async (t) => {
  const dataDir = folder(t);
  const first = await load({ dataDir });
  await first.encode([await videoOf(golden.videos[0]), await videoOf(golden.videos[7])]);
  await first.history.add("video0", { watched: 0.75, liked: true, at: new Date(1767225600250) });
  const before = await first.rank();
  const taste = first.taste();
  await first.close();

  const second = await load({ dataDir });
  assert.deepEqual([...second.store], ["video0", "video7"]);
  assert.deepEqual(second.history.export(), [
    { id: "video0", title: null, watched: 0.75, liked: true, at: "2026-01-01T00:00:00.250Z" },
  ]);
  const after = await second.rank();
  assert.deepEqual(after.ids, ["video7"]);
  assert.deepEqual(after.scores, before.scores);
  assert.deepEqual(second.taste(), taste);
  const again = await second.encode([await videoOf(golden.videos[0])]);
  assert.deepEqual(again, { encoded: [], unchanged: ["video0"], failed: [] });
  await second.close();
});

test("what was forgotten is in no file any more, and what was derived from it is gone", async (t) => {
  const dataDir = folder(t);
  const rec = await load({ dataDir });
  putGolden(rec, golden, ids);
  const secret = { id: "secret-id", title: "a secret title", frames: (await videoOf(golden.videos[1])).frames };
  const cold = await rec.rank([], ids);
  await rec.history.add(secret);
  await rec.history.add("video2");
  const contains = async (text) => {
    const files = await readdir(dataDir);
    const all = await Promise.all(files.map((name) => readFile(join(dataDir, name))));
    return all.some((bytes) => bytes.includes(text));
  };
  assert.ok(await contains("secret-id"));
  assert.ok(rec.store.has("secret-id"));
  assert.match(rec.taste().sentence, /a secret title/);

  assert.equal(await rec.history.forget("secret-id"), 1);
  assert.ok(!(await contains("secret")));
  assert.ok(!rec.store.has("secret-id"), "its tokens came with the event");
  assert.doesNotMatch(rec.taste().sentence, /secret/);
  assert.ok(rec.store.has("video2"), "these tokens did not");

  assert.equal(await rec.history.clear(), 1);
  assert.equal(rec.history.length, 0);
  assert.equal(rec.taste().events, 0);
  assert.deepEqual((await rec.rank(null, ids)).ids, cold.ids);
  assert.ok(await contains("video3"));
  assert.equal(await rec.store.remove(["video3", "nobody"]), 1);
  assert.ok(!(await contains("video3")));
  await rec.history.add("video4");
  assert.ok(await rec.forget("video4"));
  assert.ok(!(await rec.forget("video4")));
  assert.ok(!rec.store.has("video4") && rec.history.length === 0);
  await rec.close();
});

test("forget since a moment; events of unknown age count by when they were added", async () => {
  const rec = await load();
  putGolden(rec, golden, ids);
  const hour = 3_600_000;
  await rec.history.add("video0", { at: new Date(Date.now() - 5 * hour) });
  await rec.history.add("video1", { at: new Date(Date.now() - hour / 2) });
  await rec.history.add("video2", { at: null });
  assert.equal(await rec.history.forget({ since: hour }), 2);
  assert.deepEqual(rec.history.export().map((e) => e.id), ["video0"]);
  assert.equal(await rec.history.forget({ since: new Date(Date.now() - 6 * hour) }), 1);
  for (const wrong of [undefined, {}, { since: "1 h" }, 7]) {
    await assert.rejects(rec.history.forget(wrong), { name: "ArgumentTypeError" });
  }
  await rec.close();
});

test("the history is bounded, and tokens that came with an event leave with it", async () => {
  const rec = await load();
  putGolden(rec, golden, ids);
  const { frames } = await videoOf(golden.videos[7]);
  await rec.history.add({ id: "first", frames });
  for (let n = 0; n < 256; n++) await rec.history.add("video1");
  assert.equal(rec.history.length, 256);
  assert.ok(!rec.store.has("first"));
  assert.ok(rec.store.has("video1"));
  await rec.close();
});

test("an event that is more than a year old does not count", async () => {
  const rec = await load();
  putGolden(rec, golden, ids);
  await rec.history.add("video0", { at: new Date(Date.now() - 366 * 24 * 3_600_000) });
  assert.equal(rec.history.length, 0);
  assert.equal((await rec.rank())[0].source, "cold_start");
  await rec.close();
});

test("whatever moment the process is killed at, what was acknowledged is there", { timeout: 120_000 }, async (t) => {
  const dataDir = folder(t);
  const script = fileURLToPath(new URL("killed.mjs", import.meta.url));
  let acknowledged = 0;
  for (const wait of [1, 4, 9]) {
    const child = spawn(process.execPath, [script, dataDir], { stdio: ["ignore", "pipe", "inherit"] });
    let lines = 0;
    child.stdout.on("data", (data) => {
      lines += String(data).split("\n").length - 1;
      if (lines >= wait) setTimeout(() => child.kill("SIGKILL"), wait);
    });
    await once(child, "exit");
    assert.equal(child.signalCode, "SIGKILL");
    acknowledged += lines;
    const rec = await load({ dataDir });
    assert.ok(rec.history.length >= acknowledged, `${rec.history.length} of ${acknowledged} events`);
    acknowledged = rec.history.length;
    for (const e of rec.history) assert.ok(rec.store.has(e.id));
    await rec.close();
  }
});

const video = (n) => ({
  id: `video ${n}`, space: "s", title: null, content: "", size: null, modified: null, payload: new Uint8Array(40).fill(n),
});

async function writeLog(path, count) {
  const storage = await openFolder(path);
  const ends = [];
  for (let n = 0; n < count; n++) {
    await storage.write({ put: [video(n)] }, false);
    ends.push((await readFile(join(path, LOG))).length);
  }
  await storage.close();
  return ends;
}

async function idsIn(path) {
  const storage = await openFolder(path);
  const { videos } = await storage.load("s");
  await storage.write({ put: [video(99)] }, false); // it can still be written to
  assert.ok((await storage.load("s")).videos.some((v) => v.id === "video 99"));
  await storage.close();
  return videos.map((v) => v.id);
}

test("a log that was cut off anywhere holds every whole record before", async (t) => {
  const path = folder(t);
  const ends = await writeLog(path, 3);
  const bytes = await readFile(join(path, LOG));
  for (let length = 0; length <= bytes.length; length += 7) {
    await writeFile(join(path, LOG), bytes.subarray(0, length));
    const expected = ends.filter((end) => end <= length).map((_, n) => `video ${n}`);
    assert.deepEqual(await idsIn(path), expected, `cut at ${length}`);
  }
  assert.ok(!existsSync(join(path, `${LOG}.damaged`)));
});

test("a damaged log is set aside, and every whole record is kept", async (t) => {
  const path = folder(t);
  const ends = await writeLog(path, 4);
  const bytes = await readFile(join(path, LOG));
  const { warn } = console;
  const warnings = [];
  console.warn = (text) => warnings.push(text);
  t.after(() => (console.warn = warn));
  for (let at = ends[0]; at < ends[1]; at += 11) {
    const flipped = Buffer.from(bytes);
    flipped[at] ^= 1 << (at % 8);
    await writeFile(join(path, LOG), flipped);
    assert.deepEqual(await idsIn(path), ["video 0", "video 2", "video 3"], `flipped at ${at}`);
    assert.deepEqual(await readFile(join(path, `${LOG}.damaged`)), flipped);
  }
  assert.match(warnings[0], /damaged/);
});

test("a log that has grown is rewritten", async (t) => {
  const path = folder(t);
  const storage = await openFolder(path);
  const large = { ...video(1), payload: new Uint8Array(400_000) };
  for (let n = 0; n < 6; n++) await storage.write({ put: [large] }, false);
  assert.ok((await readFile(join(path, LOG))).length < 1_700_000);
  await storage.close();
});

test("one folder is open once at a time; a lock whose process is gone does not count", async (t) => {
  const dataDir = folder(t);
  const storage = await openFolder(dataDir);
  await assert.rejects(openFolder(dataDir), { name: "StorageBusyError" });
  await storage.close();
  const gone = spawn(process.execPath, ["-e", ""]);
  await once(gone, "exit");
  await writeFile(join(dataDir, "linkedout.lock"), JSON.stringify({ pid: gone.pid, started: 0 }));
  await (await openFolder(dataDir)).close();
  await writeFile(join(dataDir, "linkedout.lock"), JSON.stringify({ pid: process.pid, started: 0 })); // reused number
  await (await openFolder(dataDir)).close();
  assert.deepEqual((await readdir(dataDir)).sort(), [LOG]);
});

test("a file of somebody else is left alone", async (t) => {
  const dataDir = folder(t);
  await writeFile(join(dataDir, LOG), "something else, long enough to be a log of ours");
  await assert.rejects(load({ dataDir }), { name: "StorageVersionError" });
  assert.equal(await readFile(join(dataDir, LOG), "utf-8"), "something else, long enough to be a log of ours");
  const file = join(dataDir, "a-file");
  await copyFile(join(dataDir, LOG), file);
  await assert.rejects(load({ dataDir: file }), { name: "StorageError" });
  await mkdir(join(dataDir, "sub"));
  await (await load({ dataDir: join(dataDir, "sub") })).close();
});

test("a full disk: encode and add say so, the history is unchanged, rankings go on", async () => {
  let full = false;
  const written = [];
  const storage = {
    load: async () => ({ videos: [], events: [] }),
    write: async (changes) => {
      if (full) throw new StorageFullError("full");
      written.push(changes);
    },
    close: async () => undefined,
  };
  const rec = await load({ storage });
  putGolden(rec, golden, ids.slice(1));
  await rec.store.flush();
  full = true;
  const fresh = await videoOf(golden.videos[0]);
  await assert.rejects(rec.encode([fresh]), { name: "StorageFullError" });
  await assert.rejects(rec.history.add("video1"), { name: "StorageFullError" });
  await assert.rejects(rec.store.remove("video1"), { name: "StorageFullError" });
  assert.equal(rec.history.length, 0);
  assert.ok(rec.store.has("video1"));
  const other = { ...(await videoOf(golden.videos[7])), id: "other" };
  const ranking = await rec.rank(["video1"], ["video0", other]);
  assert.deepEqual([...ranking.ids].sort(), ["other", "video0"]);
  assert.equal(rec.store.stats().unsaved, 2);
  full = false;
  await rec.history.add("video1");
  assert.equal(rec.store.stats().unsaved, 0);
  assert.deepEqual(written.at(-1).put.map((v) => v.id).sort(), ["other", "video0"]);
  await rec.close();
});

test("the least recently used leaves; what the history holds stays", async () => {
  const rec = await load({ maxVideos: 5 });
  putGolden(rec, golden, ids.slice(0, 5));
  await rec.history.add("video0");
  await rec.rank(["video0"], ["video0", "video1", "video2", "video4"]);
  putGolden(rec, golden, ["video7"]);
  assert.deepEqual([...rec.store], ["video0", "video1", "video2", "video4", "video7"]);
  assert.equal(rec.store.stats().evicted, 1);
  await rec.close();
});
