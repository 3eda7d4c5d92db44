/** The same in headless Chromium, with onnxruntime-web, IndexedDB, a worker and the browser's own decoder. */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";

import { chromium } from "playwright-core";

import { serve } from "./browser/server.mjs";
import { golden, ids } from "./setup.mjs";

const executablePath = process.env.LINKEDOUT_CHROMIUM || ["/usr/bin/chromium", "/usr/bin/google-chrome"].find(existsSync);
const python = process.env.LINKEDOUT_PYTHON;

describe("in Chromium", { skip: !executablePath && "LINKEDOUT_CHROMIUM names no browser, and /usr/bin/chromium is not there" }, () => {
  const profile = mkdtempSync(join(tmpdir(), "linkedout-chromium-"));
  const clips = mkdtempSync(join(tmpdir(), "linkedout-clips-"));
  const asked = new Set();
  let server;
  let context;
  let page;

  const open = async () => {
    const options = { executablePath, headless: true, args: ["--no-sandbox"] };
    context = await chromium.launchPersistentContext(profile, options);
    context.on("request", (request) => asked.add(new URL(request.url()).origin));
    page = await another();
  };
  const another = async () => {
    const made = await context.newPage();
    made.on("pageerror", (e) => console.error(e));
    await made.goto(`${server.url}/test/browser/page.html`);
    await made.waitForFunction(() => window.tests);
    return made;
  };
  const call = (name, ...values) => page.evaluate(([n, v]) => window.tests[n](...v), [name, values]);

  before(async () => {
    server = await serve({ clips });
    await open();
  });
  after(async () => {
    await context.close();
    server.close();
    for (const path of [profile, clips]) rmSync(path, { recursive: true, force: true, maxRetries: 5 });
  });

  test("all golden cases from tokens", async () => {
    assert.equal(await call("isolated"), true);
    assert.deepEqual(await call("fromTokens"), { cases: golden.cases.length, wrong: {} });
  });

  test("tokens and scores from frames", async (t) => {
    const { failed, wrong, most, limit } = await call("fromFrames");
    assert.deepEqual([failed, wrong], [[], []]);
    assert.ok(most <= limit, `a score differs by ${most}`);
    t.diagnostic(`largest difference of a score: ${most}`);
  });

  test("prepared frames", async () => {
    const { most, limit } = await call("prepared");
    assert.equal(most.length, 2);
    assert.ok(most.every((m) => m <= limit), `differs by ${most}`);
  });

  test("titles", async () => {
    assert.deepEqual(await call("titles"), { count: golden.titles.length + golden.surrogates.length, wrong: [] });
  });

  test("errors", async () => {
    assert.deepEqual(await call("errors"), { count: golden.errors.length, wrong: [] });
  });

  test("packs and saved histories", async () => {
    assert.deepEqual(await call("files"), { added: golden.files.events.length, pack: true, history: true });
  });

  test("IndexedDB keeps store and history; what is forgotten is gone", async () => {
    assert.deepEqual(await call("open", "app"), { videos: [], events: [] });
    await call("putAll");
    await call("watch", "video3", { watched: 0.25 });
    await call("watch", "video4", { liked: true });
    await call("watchNew", "secret-id");
    const order = await call("order");
    await call("close");
    await page.reload();
    await page.waitForFunction(() => window.tests);
    const events = [["video3", 0.25, null], ["video4", 1, true], ["secret-id", 1, null]];
    assert.deepEqual(await call("open", "app"), { videos: [...ids, "secret-id"], events });
    assert.deepEqual(await call("order"), order);
    assert.match(await call("dump", "app"), /secret-id/);
    assert.deepEqual(await call("forgetEvent", "secret-id"), { videos: ids, events: events.slice(0, 2) });
    assert.doesNotMatch(await call("dump", "app"), /secret/);
    assert.deepEqual(await call("forget", "video4"), { videos: ids.filter((i) => i !== "video4"), events: events.slice(0, 1) });
    assert.doesNotMatch(await call("dump", "app"), /video4/);
    assert.deepEqual((await call("clear")).events, []);
    assert.deepEqual((await call("remove", "video5")).videos.includes("video5"), false);
    await call("close");
    assert.deepEqual(await call("open", "app"), { videos: ids.filter((i) => !["video4", "video5"].includes(i)), events: [] });
    await call("close");
  });

  test("one tab at a time has a database", async () => {
    await call("open", "shared");
    const second = await another();
    assert.equal(await second.evaluate(() => window.tests.failure("shared")), "StorageBusyError");
    await call("close");
    assert.equal(await second.evaluate(() => window.tests.failure("shared")), "none");
    await second.close();
  });

  test("what was acknowledged is there after the browser was killed", async () => {
    await call("open", "killed");
    await call("putAll");
    await call("watch", "video1", { watched: 0.5 });
    const pids = execFileSync("pgrep", ["-f", "--", `--user-data-dir=${profile}`], { encoding: "utf-8" }).trim().split("\n").map(Number);
    for (const pid of pids) {
      try {
        process.kill(pid, "SIGKILL");
      } catch {
        // it went with its parent
      }
    }
    await context.close().catch(() => undefined);
    for (const name of ["SingletonLock", "SingletonSocket", "SingletonCookie"]) rmSync(join(profile, name), { force: true });
    await open();
    assert.deepEqual(await call("open", "killed"), { videos: ids, events: [["video1", 0.5, null]] });
    await call("close");
  });

  test("in a worker", async () => {
    const { same, count, failed } = await call("inWorker");
    assert.deepEqual([same, count], [true, 1]);
    assert.deepEqual(failed.map((f) => f.code), ["unreadable"]);
    assert.match(failed[0].reason, /call readFrames on the page/);
  });

  test("a recording without a length", async () => {
    const { shape, first } = await call("recording");
    assert.deepEqual(shape.slice(1), [48, 64, 4]);
    assert.ok(shape[0] >= 4 && shape[0] <= 8, `${shape[0]} frames`);
    assert.ok(first.every((x, n) => n === 0 || x > first[n - 1]), `${first}`);
  });

  test("a file that is no video", async () => {
    const [name, message] = await call("broken");
    assert.equal(name, "VideoUnreadableError");
    assert.match(message, /cannot decode/);
  });

  test("a clip: the frames that Python chooses", { skip: !python && "LINKEDOUT_PYTHON names no Python with linkedout-edge" }, async () => {
    execFileSync(python, [fileURLToPath(new URL("reference.py", import.meta.url)), clips, "clip"], { stdio: "inherit" });
    const { means: expected, content } = JSON.parse(await readFile(join(clips, "clip.json"), "utf-8"));
    const { means, encoded, unchanged, same } = await call("clip", "/clips/clip.webm");
    assert.ok(same, "frames that were squashed as they were read, and whole ones");
    for (const { shape, means: got } of means) {
      assert.deepEqual(shape, [expected.length, 48, 64, 3]);
      got.forEach((m, n) => assert.ok(Math.abs(m - expected[n]) < 2, `frame ${n}: ${m}, not ${expected[n]}`));
    }
    assert.deepEqual(encoded, { encoded: ["clip.webm"], unchanged: [], failed: [] });
    assert.deepEqual(unchanged, ["clip.webm"]);
    assert.equal(content.length, 32);
  });

  test("nothing was asked of anybody else", () => {
    assert.deepEqual([...asked].filter((origin) => origin !== "null"), [server.url]);
  });
});
