/** What page and worker share. */

import * as ort from "/ort/ort.wasm.min.mjs";
import { Recommender } from "/dist/index.js";

ort.env.wasm.wasmPaths = "/ort/";
ort.env.wasm.numThreads = 1;

export function load(options = {}) {
  return Recommender.load({ ort, bundle: "/bundle/", precision: "int8", ...options });
}

export async function read(name) {
  const response = await fetch(`/conformance/${name}`);
  if (!response.ok) throw new Error(`${name}: ${response.status}`);
  return new Uint8Array(await response.arrayBuffer());
}

/** A PNG's pixels, as they are in the file. */
export async function picture(name) {
  const options = { colorSpaceConversion: "none", premultiplyAlpha: "none" };
  const bitmap = await createImageBitmap(new Blob([await read(name)], { type: "image/png" }), options);
  const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d");
  context.drawImage(bitmap, 0, 0);
  return context.getImageData(0, 0, bitmap.width, bitmap.height);
}
