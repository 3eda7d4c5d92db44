import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";

import { prepareFrames } from "../dist/index.js";
import { asRgb, spread } from "../dist/frames.js";
import { Tokenizer } from "../dist/tokenizer.js";
import { compareCase, compareTaste, compareTokens, eventsOf, framesOf, putGolden, resultOf } from "./golden.mjs";
import { BUNDLE, golden, ids, load, picture, videoOf } from "./setup.mjs";

test("the bundle is the one that the vectors belong to", async () => {
  for (const [path, expected] of Object.entries(golden.bundle.sha256)) {
    assert.equal(createHash("sha256").update(await readFile(join(BUNDLE, path))).digest("hex"), expected, path);
  }
});

describe("from tokens", () => {
  for (const testCase of golden.cases) {
    test(testCase.name, async () => {
      const rec = await load();
      putGolden(rec, golden, testCase.store);
      const ranking = await rec.rank(eventsOf(golden, testCase), testCase.candidates);
      assert.equal(compareCase(golden, testCase, ranking), "");
      assert.equal(compareTaste(testCase, rec.taste(eventsOf(golden, testCase))), "");
      if (testCase.name.startsWith("cold start")) {
        assert.deepEqual(ranking.ids, testCase.order);
        assert.ok(ranking.every((r) => r.source === "cold_start"));
      }
      if (!testCase.events.length) assert.deepEqual((await rec.rank(null, testCase.candidates)).ids, testCase.order);
      await rec.close();
    });
  }
});

describe("from frames", () => {
  let rec;
  before(async () => {
    rec = await load();
    const videos = [];
    for (const v of golden.videos) videos.push(await videoOf(v));
    assert.deepEqual((await rec.encode(videos)).failed, []);
  });
  after(() => rec.close());

  for (const video of golden.videos) {
    test(`tokens of ${video.id}`, () => assert.equal(compareTokens(golden, video, rec.store.read(video.id)), ""));
  }

  for (const testCase of golden.cases) {
    test(testCase.name, async () => {
      await rec.store.remove(ids.filter((id) => !testCase.store.includes(id)));
      const ranking = await rec.rank(eventsOf(golden, testCase), testCase.candidates);
      for (const r of ranking) {
        assert.ok(Math.abs(r.score - testCase.scores[r.id]) <= golden.tolerance.score_from_frames, `${r.id}: ${r.score}`);
      }
      assert.equal(ranking.length, testCase.order.length);
    });
  }
});

describe("frames", () => {
  for (const video of golden.videos.filter((v) => v.prepared)) {
    test(`prepared ${video.id}`, async () => {
      const given = asRgb(framesOf(await picture(video.frames), video.frame_count));
      assert.deepEqual(spread(video.frame_count, 7), video.chosen);
      const expected = asRgb(framesOf(await picture(video.prepared), 7)).data;
      const made = prepareFrames(given, 7, 144);
      assert.equal(made.length, expected.length);
      const most = made.reduce((top, x, i) => Math.max(top, Math.abs(x - expected[i])), 0);
      assert.ok(most <= golden.tolerance.pixel, `differs by ${most}`);
    });
  }
});

describe("titles", async () => {
  const tokenizer = Tokenizer.fromJson(await readFile(join(BUNDLE, "tokenizer.json")), 4096);
  const most = golden.bundle.title_tokens;
  for (const { text, ids: expected } of golden.titles) {
    test(JSON.stringify(text).slice(0, 30), () => {
      assert.deepEqual(tokenizer.encode(text), expected);
      assert.deepEqual(tokenizer.encode(text, most), expected.slice(0, most));
    });
  }
  for (const { json, ids: expected, read_as: same } of golden.surrogates) {
    test(json, () => {
      assert.deepEqual(tokenizer.encode(JSON.parse(json)), expected);
      assert.deepEqual(tokenizer.encode(same), expected);
    });
  }
  for (const { id, title, title_ids: expected } of golden.videos) {
    test(`title of ${id}`, () => assert.deepEqual(tokenizer.encode(title, most), expected));
  }
});

describe("errors", () => {
  let rec;
  before(async () => {
    rec = await load();
    putGolden(rec, golden, ids);
  });
  after(() => rec.close());
  for (const error of golden.errors) {
    test(error.what, async () => {
      const result = await resultOf(error, rec, (bundle) => load({ bundle, precision: undefined }));
      assert.deepEqual(result, error.raises ?? [error.failed]);
    });
  }
});
