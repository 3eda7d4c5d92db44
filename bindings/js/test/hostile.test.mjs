/** Files of others: whatever is wrong with them is an error of ours, and nothing changes. */

import assert from "node:assert/strict";
import { cp, readFile, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";

import { LinkedOutError, PackError } from "../dist/index.js";
import { parseManifest } from "../dist/manifest.js";
import { Tokenizer } from "../dist/tokenizer.js";
import { BUNDLE, folder, golden, load, readGolden } from "./setup.mjs";

/** A safetensors file, taken apart. */
function parts(bytes) {
  const length = Number(bytes.readBigUInt64LE(0));
  return { header: JSON.parse(bytes.subarray(8, 8 + length)), data: bytes.subarray(8 + length) };
}

function joined({ header, data }) {
  const json = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  return Buffer.concat([length, json, data]);
}

/** Mulberry32: the same numbers in each run. */
function random(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** The bytes with some of them flipped, cut out, doubled or overwritten by numbers that are often wrong. */
function mutated(bytes, next) {
  const at = Math.floor(next() ** 2 * bytes.length); // more often in the header
  const copy = Buffer.from(bytes);
  switch (Math.floor(next() * 4)) {
    case 0: copy[at] ^= 1 << Math.floor(next() * 8); return copy;
    case 1: return copy.subarray(0, at);
    case 2: return Buffer.concat([copy.subarray(0, at), copy.subarray(Math.floor(next() * bytes.length))]);
    default: copy[at] = [0, 0xff, 0x7f, 0x30, 0x39, 0x22, 0x5b, 0x7b][Math.floor(next() * 8)]; return copy;
  }
}

describe("packs and saved histories", () => {
  let rec;
  let pack;
  let history;
  before(async () => {
    rec = await load();
    pack = await readGolden(golden.files.pack);
    history = await readGolden(golden.files.history);
  });
  after(() => rec.close());

  test("golden files are read, and written again byte by byte", async () => {
    const other = await load();
    assert.deepEqual(await other.store.importPack(pack), golden.videos.map((v) => v.id));
    assert.deepEqual(Buffer.from(other.store.exportPack()), pack);
    for (const video of golden.videos) {
      assert.deepEqual([...other.store.read(video.id).tokens], video.tokens.flat(2));
    }
    assert.equal(await other.history.load(history), golden.files.events.length);
    assert.deepEqual(
      [...other.history].map((e) => ({ id: e.id, watched: e.watched, liked: e.liked, at: e.time })),
      golden.files.events,
    );
    const third = await load();
    await third.history.load(history);
    assert.deepEqual(Buffer.from(third.history.save()), history);
    await third.history.clear();
    assert.equal(third.store.length, 0, "tokens that came with the history leave with it");
    await other.close();
    await third.close();
  });

  const cases = {
    "a history for a pack": () => history,
    "nothing": () => Buffer.alloc(0),
    "another token space": () => change(pack, (h) => (h.__metadata__.token_space = "0".repeat(64))),
    "another version": () => change(pack, (h) => (h.__metadata__.version = "2")),
    "no metadata": () => change(pack, (h) => delete h.__metadata__),
    "another shape": () => change(pack, (h) => (h.tokens.shape = [10, 6, 1, 128])),
    "another dtype": () => change(pack, (h) => (h.tokens.dtype = "U8")),
    "an array too many": () => change(pack, (h) => (h.more = { dtype: "U8", shape: [0], data_offsets: [9093, 9093] })),
    "arrays that overlap": () => change(pack, (h) => (h.tokens.data_offsets = [0, 7680])),
    "offsets beyond the end": () => change(pack, (h) => (h.records.data_offsets = [8160, 1e15])),
    "offsets that are no numbers": () => change(pack, (h) => (h.records.data_offsets = ["8160", null])),
    "a shape of 2⁵³": () => change(pack, (h) => (h.records.shape = [2 ** 53])),
    "a header of 2⁶³ bytes": () => { const b = Buffer.from(pack); b.writeBigUInt64LE(2n ** 63n); return b; },
    "a negative scale": () => withData((d) => d.writeFloatLE(-1, 0)),
    "a scale that is no number": () => withData((d) => d.writeFloatLE(NaN, 4)),
    "an infinite scale": () => withData((d) => d.writeFloatLE(Infinity, 4)),
    "the same id twice": () => records((text) => text.replace('"video1"', '"video2"')),
    "an empty id": () => records((text) => text.replace('"video1"', '""      ')),
    "a number for an id": () => records((text) => text.replace('"video1"', "12345678")),
    "records that are no JSON": () => records((text) => text.replace("[[", "[{")),
    "fewer records": () => records(() => "[]".padEnd(933)),
  };

  function change(bytes, how) {
    const p = parts(bytes);
    how(p.header);
    return joined(p);
  }

  function withData(how) {
    const p = parts(pack);
    p.data = Buffer.from(p.data);
    how(p.data);
    return joined(p);
  }

  function records(how) {
    return withData((d) => d.write(how(d.toString("latin1", 8160)), 8160, "latin1"));
  }

  for (const [what, make] of Object.entries(cases)) {
    test(what, async () => {
      const name = what === "another token space" ? "TokenSpaceError" : "PackError";
      await assert.rejects(rec.store.importPack(make()), { name });
      assert.equal(rec.store.length, 0);
    });
  }

  for (const [what, column, value] of [
    ["a video that is not there", 0, 2], ["half a video", 0, 0.5], ["watched above 1", 1, 1.01], ["watched NaN", 1, NaN],
    ["liked 2", 2, 2], ["liked NaN", 2, NaN], ["the year 10000", 3, 253402300800], ["infinitely late", 3, Infinity],
  ]) {
    test(`a history with ${what}`, async () => {
      const p = parts(history);
      p.data = Buffer.from(p.data);
      p.data.writeDoubleLE(value, 32 + 8 * column);
      await assert.rejects(rec.history.load(joined(p)), { name: "PackError" });
      assert.equal(rec.history.length + rec.store.length, 0);
    });
  }

  test("larger than allowed", async () => {
    await assert.rejects(rec.store.importPack(pack, { maxBytes: 100 }), /raise maxBytes/);
    await assert.rejects(rec.history.load(history, { maxBytes: 100 }), /raise maxBytes/);
  });

  test("20,000 files that were broken at random: read, or refused", async () => {
    const other = await load();
    const next = random(17);
    let refused = 0;
    for (let n = 0; n < 20_000; n++) {
      const isPack = n % 2 === 0;
      const bytes = mutated(isPack ? pack : history, next);
      try {
        await (isPack ? other.store.importPack(bytes) : other.history.load(bytes));
      } catch (e) {
        if (!(e instanceof PackError)) throw e;
        refused++;
      }
    }
    assert.ok(refused > 10_000, `only ${refused} were refused`);
    await other.close();
  });
});

describe("bundles", () => {
  test("20,000 manifests and tokenizers that were broken at random: read, or refused", async () => {
    const next = random(18);
    const manifest = await readFile(join(BUNDLE, "manifest.json"));
    const tokenizer = Buffer.from(JSON.stringify({ vocab: { a: 0, b: 1, ab: 2 }, merges: [["a", "b"]] }));
    for (let n = 0; n < 20_000; n++) {
      try {
        if (n % 2) parseManifest(mutated(manifest, next));
        else Tokenizer.fromJson(mutated(tokenizer, next), 4096).encode("ab a b");
      } catch (e) {
        if (!(e instanceof LinkedOutError)) throw e;
      }
    }
  });

  const small = { bundle: null, precision: undefined };
  const changes = [
    ["a newer format", (m) => (m.format_version = 3), "BundleVersionError"],
    ["an older format", (m) => (m.format_version = 1), "BundleVersionError"],
    ["no format", (m) => delete m.format_version, "BundleCorruptError"],
    ["a path that leaves the folder", (m) => (m.tokenizer.path = "../../secret"), "BundleCorruptError"],
    ["a backslash in a path", (m) => (m.tokenizer.path = "..\\secret"), "BundleCorruptError"],
    ["another hash", (m) => (m.tokenizer.sha256 = "0".repeat(64)), "BundleCorruptError"],
    ["another size", (m) => (m.tokenizer.bytes -= 1), "BundleCorruptError"],
    ["no precisions", (m) => (m.precisions = {}), "BundleCorruptError"],
    ["a file that is not there", (m) => (m.tokenizer.path = "nothing.json"), "BundleCorruptError"],
    ["a mean of another length", (m) => m.user_model.mean.pop(), "BundleCorruptError"],
    ["a size of 0", (m) => (m.user_model.size[0] = 0), "BundleCorruptError"],
    ["no trust in any layer", (m) => (m.user_model.layer_prior = [0, 0, 0, 0, 0, 0]), "BundleCorruptError"],
    ["a shape that no device can hold", (m) => (m.config.frame_size = 65536), "BundleCorruptError"],
    ["weights that overflow on some CPUs", (m) => (m.precisions.int8.full_range_weights = true), "BundleError"],
  ];
  for (const [what, change, name] of changes) {
    test(what, async (t) => {
      const path = join(folder(t), "bundle");
      await cp(BUNDLE, path, { recursive: true });
      const manifest = JSON.parse(await readFile(join(path, "manifest.json"), "utf-8"));
      change(manifest);
      await writeFile(join(path, "manifest.json"), JSON.stringify(manifest));
      await assert.rejects(load({ ...small, bundle: path, precision: "int8" }), { name });
    });
  }

  test("a graph that was changed, one that is none, a link that leaves the folder", async (t) => {
    const root = folder(t);
    const path = join(root, "bundle");
    await cp(BUNDLE, path, { recursive: true });
    await writeFile(join(path, "tokenizer.json"), "{}");
    await assert.rejects(load({ bundle: path }), /tokenizer.json has 2 bytes/);
    const { rm } = await import("node:fs/promises");
    await rm(join(path, "tokenizer.json"));
    await writeFile(join(root, "outside.json"), "{}");
    await symlink("../outside.json", join(path, "tokenizer.json"));
    await assert.rejects(load({ bundle: path }), /a link that leaves/);
    const { createHash } = await import("node:crypto");
    await rm(join(path, "tokenizer.json"));
    await cp(join(BUNDLE, "tokenizer.json"), join(path, "tokenizer.json"));
    const manifest = JSON.parse(await readFile(join(path, "manifest.json"), "utf-8"));
    const graph = Buffer.from("this is no graph");
    const { encoder } = manifest.precisions.int8.files;
    Object.assign(encoder, { bytes: graph.length, sha256: createHash("sha256").update(graph).digest("hex") });
    await writeFile(join(path, encoder.path), graph);
    await writeFile(join(path, "manifest.json"), JSON.stringify(manifest));
    await assert.rejects(load({ bundle: path, precision: "int8" }), { name: "BundleCorruptError", message: /cannot load/ });
  });

  test("an unknown precision names the known ones", async () => {
    await assert.rejects(load({ precision: "int9" }), { name: "ArgumentError", message: /int8, int4/ });
  });
});
