/**
 * Puts the page, the package, ONNX Runtime and the bundle into one folder that any web server can serve.
 *
 *     npm --prefix bindings/js install && npm --prefix bindings/js run build
 *     node examples/web/build.mjs [FOLDER]       examples/web/site, if left out
 */

import { createHash } from "node:crypto";
import { cp, mkdir, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { dirname, join, relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";

const here = fileURLToPath(new URL(".", import.meta.url));
const root = join(here, "../..");
const out = resolve(process.argv[2] ?? join(here, "site"));
const ort = join(root, "bindings/js/node_modules/onnxruntime-web/dist");
const bundle = join(root, "linkedout_edge/bundles/base");
const COPIES = [
  ...["index.html", "style.css", "icon.svg", "app.mjs", "model.mjs", "network.mjs", "clips.mjs", "clips"].map((name) => [join(here, name), name]),
  [join(root, "bindings/js/dist"), "linkedout-edge"],
  ...["ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"].map((name) => [join(ort, name), `ort/${name}`]),
  ...["manifest.json", "tokenizer.json", "onnx/int8/encoder.onnx"].map((name) => [join(bundle, name), `bundle/${name}`]),
];

await rm(out, { recursive: true, force: true });
for (const [from, to] of COPIES) {
  await mkdir(dirname(join(out, to)), { recursive: true });
  await cp(from, join(out, to), { recursive: true, filter: (path) => !/\.(d\.ts|md)$|folder\.js$/.test(path) });
}
await cp(join(here, "clips/CREDITS.md"), join(out, "clips/CREDITS.md"));

const paths = (await readdir(out, { recursive: true, withFileTypes: true }))
  .filter((e) => e.isFile())
  .map((e) => relative(out, join(e.parentPath ?? e.path, e.name)).replaceAll("\\", "/"))
  .sort();
const hash = createHash("sha256");
let [bytes, packed] = [0, 0];
for (const path of paths) {
  const data = await readFile(join(out, path));
  hash.update(path).update(data);
  bytes += data.length;
  packed += gzipSync(data).length;
}
const worker = (await readFile(join(here, "sw.js"), "utf-8"))
  .replace('VERSION = ""', `VERSION = "${hash.digest("hex").slice(0, 16)}"`)
  .replace("FILES = []", `FILES = ${JSON.stringify(paths)}`);
await writeFile(join(out, "sw.js"), worker);
console.log(`${out}: ${paths.length + 1} files, ${(bytes / 1e6).toFixed(1)} MB, ${(packed / 1e6).toFixed(1)} MB with gzip`);
