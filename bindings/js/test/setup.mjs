/** What the tests in Node share. */

import { mkdtempSync, rmSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import { PNG } from "pngjs";

import { Recommender } from "../dist/index.js";
import { framesOf, goldenOf } from "./golden.mjs";

const here = fileURLToPath(new URL(".", import.meta.url));
export const CONFORMANCE = join(here, "../../conformance");
export const BUNDLE = join(here, "../../../linkedout_edge/bundles/base");

export const readGolden = (name) => readFile(join(CONFORMANCE, name));
export const golden = await goldenOf(readGolden);
export const ids = golden.videos.map((v) => v.id);

export const ort = () => import("onnxruntime-node");

export function load(options = {}) {
  return Recommender.load({ ort, bundle: BUNDLE, precision: golden.bundle.precision, threads: 1, ...options });
}

export async function picture(name) {
  return PNG.sync.read(await readGolden(name));
}

/** A golden video as an app would give it. */
export async function videoOf({ id, frames, frame_count: count, title }) {
  return { id, title: title || null, frames: framesOf(await picture(frames), count) };
}

/** A folder that is gone after the test. */
export function folder(t) {
  const path = mkdtempSync(join(tmpdir(), "linkedout-js-"));
  t.after(() => rmSync(path, { recursive: true, force: true }));
  return path;
}
