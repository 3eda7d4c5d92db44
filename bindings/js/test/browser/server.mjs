/** A static server for the tests: a few folders, isolated so that WebAssembly may have threads. */

import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";

import { BUNDLE, CONFORMANCE } from "../setup.mjs";

const js = fileURLToPath(new URL("../../", import.meta.url));
const FOLDERS = {
  bundle: BUNDLE, conformance: CONFORMANCE, dist: join(js, "dist"), test: join(js, "test"), ort: join(js, "node_modules/onnxruntime-web/dist"),
};
const TYPES = {
  ".html": "text/html", ".js": "text/javascript", ".mjs": "text/javascript", ".json": "application/json", ".png": "image/png",
  ".wasm": "application/wasm", ".webm": "video/webm", ".css": "text/css", ".svg": "image/svg+xml",
};

/**
 * @param more Further folders by name.
 * @param isolated Whether pages get the headers for it.
 */
export function serve(more = {}, { isolated = true } = {}) {
  const folders = { ...FOLDERS, ...more };
  const server = createServer(async (request, response) => {
    const [, folder, ...rest] = normalize(decodeURI(new URL(request.url, "http://x").pathname)).split("/");
    const path = folders[folder] && join(folders[folder], ...rest, rest.at(-1) === "" ? "index.html" : "");
    const info = path && (await stat(path).catch(() => null));
    if (!info?.isFile()) return response.writeHead(404).end();
    const [start, end] = /bytes=(\d+)-(\d*)/.exec(request.headers.range ?? "")?.slice(1) ?? ["0", ""];
    const [from, to] = [Number(start), end ? Number(end) : info.size - 1];
    response.writeHead(request.headers.range ? 206 : 200, {
      "Content-Type": TYPES[extname(path)] ?? "application/octet-stream",
      "Content-Length": to - from + 1,
      "Accept-Ranges": "bytes",
      ...(request.headers.range ? { "Content-Range": `bytes ${from}-${to}/${info.size}` } : {}),
      ...(isolated ? { "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp" } : {}),
    });
    if (to < from) return response.end();
    return createReadStream(path, { start: from, end: to }).pipe(response);
  });
  return new Promise((resolve) => {
    server.listen(0, "127.0.0.1", () => {
      resolve({ url: `http://127.0.0.1:${server.address().port}`, close: () => (server.closeAllConnections(), server.close()) });
    });
  });
}
