/** The same answers as the Python package's. LINKEDOUT_PYTHON names a Python that has it. */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";

import { Video, prepareFrames } from "../dist/index.js";
import { score } from "../dist/scorer.js";
import { Tokenizer } from "../dist/tokenizer.js";
import { BUNDLE, golden, load } from "./setup.mjs";

const python = process.env.LINKEDOUT_PYTHON;
const bytesOf = (hex) => new Uint8Array(Buffer.from(hex, "hex"));
const floats = (hex) => new Float32Array(bytesOf(hex).buffer);

describe("the same as Python", { skip: !python && "LINKEDOUT_PYTHON names no Python with linkedout-edge" }, () => {
  const folder = mkdtempSync(join(tmpdir(), "linkedout-reference-"));
  let reference;
  let rec;
  let pack;
  before(async () => {
    execFileSync(python, [fileURLToPath(new URL("reference.py", import.meta.url)), folder], { stdio: "inherit" });
    reference = JSON.parse(await readFile(join(folder, "reference.json"), "utf-8"));
    pack = new Uint8Array(await readFile(join(folder, "from-python-pack.safetensors")));
    rec = await load();
    await rec.store.importPack(pack);
  });
  after(async () => {
    await rec?.close();
    rmSync(folder, { recursive: true });
  });

  test("1,000 titles", async () => {
    const tokenizer = Tokenizer.fromJson(await readFile(join(BUNDLE, "tokenizer.json")), 4096);
    assert.equal(reference.titles.length, 1000);
    for (const { text, ids } of reference.titles) assert.deepEqual(tokenizer.encode(text), ids, JSON.stringify(text));
  });

  test("resized frames, and hashes of frames", () => {
    for (const { shape, data, prepared, content } of reference.resized) {
      const frames = { data: bytesOf(data), shape };
      const expected = bytesOf(prepared);
      const made = prepareFrames(frames, 8, 128);
      assert.equal(made.length, expected.length);
      const most = made.reduce((top, x, i) => Math.max(top, Math.abs(x - expected[i])), 0);
      assert.ok(most <= golden.tolerance.pixel, `differs by ${most}, made of ${shape}`);
      assert.equal(new Video({ frames }).id, content);
    }
  });

  test("hashes of files", async () => {
    for (const { name, content } of reference.files) {
      const file = new Blob([await readFile(join(folder, name))]);
      assert.equal(await new Video({ id: name, file }).content(), content, name);
    }
  });

  test("the scoring kernel, to the last bit", () => {
    const k = reference.kernel;
    const query = { digits: new Int16Array(bytesOf(k.digits).buffer), units: floats(k.units), offsets: floats(k.offsets) };
    const made = score(query, new Int8Array(bytesOf(k.tokens).buffer), floats(k.scales), k.rows);
    assert.deepEqual(made.scores, floats(k.scores));
    assert.deepEqual(made.layers, floats(k.layers));
  });

  test("rankings, explanations and tastes, with all options", async (t) => {
    const ids = [...rec.store];
    const close = (a, b) => Math.abs(a - b) <= 1e-3;
    t.mock.method(Date, "now", () => 1000 * reference.rankings[0].now); // ages are taken from the hour
    for (const [n, expected] of reference.rankings.entries()) {
      const events = expected.events.map((e) => ({ ...e, at: e.at === null ? null : new Date(e.at) }));
      const ranking = await rec.rank(events, ids, expected.options);
      const what = `ranking ${n}, ${events.length} events, ${JSON.stringify(expected.options).slice(0, 60)}`;
      assert.deepEqual([...new Set(ranking.map((r) => r.source))].sort(), expected.sources, what);
      assert.deepEqual([...ranking.ids].sort(), [...expected.ids].sort(), what);
      const scoreOf = new Map(expected.ids.map((id, i) => [id, expected.scores[i]]));
      for (const r of ranking) assert.ok(close(r.score, scoreOf.get(r.id)), `${what}: ${r.id}`);
      assert.deepEqual(ranking.ids, expected.ids, what);
      for (const [i, e] of expected.explanations.entries()) {
        const mine = ranking[i].explain();
        assert.deepEqual([mine.id, mine.sentence, mine.history], [e.id, e.sentence, e.history], what);
        assert.ok(close(mine.prior, e.prior) && close(mine.explored, e.explored), what);
        assert.ok(mine.matrix.every((row, a) => row.every((x, b) => close(x, e.matrix[a][b]))), what);
      }
      const { layers, sentence, ...taste } = rec.taste(events);
      const { layer_names: layerNames, layers: trusts, sentence: words, ...others } = expected.taste;
      assert.equal(sentence, words, what);
      assert.deepEqual(taste, { ...others, layerNames }, what);
      assert.ok(layers.every((x, l) => close(x, trusts[l])), what);
    }
  });

  test("packs and saved histories go both ways, byte by byte", async () => {
    assert.deepEqual(rec.store.exportPack(), pack);
    const saved = new Uint8Array(await readFile(join(folder, "from-python-history.safetensors")));
    const other = await load();
    assert.equal(await other.history.load(saved), 3);
    assert.equal(await other.history.load(saved), 0);
    assert.deepEqual(other.history.save(), saved);
    assert.deepEqual(other.history.export().map((e) => e.liked), [null, true, false]);
    await other.close();
  });
});
