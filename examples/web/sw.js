/**
 * Keeps the page for offline use, tells it what was asked of the network, and lets nothing be asked of anybody else.
 *
 * `VERSION` and `FILES` are filled in by build.mjs: another file makes another version, which replaces the one before.
 */

const VERSION = "";
const FILES = [];

self.addEventListener("install", (event) => event.waitUntil(self.skipWaiting()));

self.addEventListener("activate", (event) => event.waitUntil((async () => {
  for (const name of await caches.keys()) if (name !== VERSION) await caches.delete(name);
  await self.clients.claim();
  const cache = await caches.open(VERSION);
  for (const path of FILES) {
    if (!(await cache.match(path))) {
      await cache.add(path);
      tell(new URL(path, self.registration.scope).href, "network");
    }
  }
})()));

self.addEventListener("fetch", (event) => event.respondWith(answer(event.request)));

async function answer(request) {
  const url = new URL(request.url);
  if (url.origin !== self.location.origin) {
    tell(request.url, "stopped");
    return Response.error();
  }
  const cache = await caches.open(VERSION);
  const path = url.pathname.endsWith("/") ? `${url.href}index.html` : url.href;
  let response = await cache.match(path);
  tell(request.url, response ? "kept" : "network");
  if (!response) {
    response = await fetch(path);
    if (response.ok && request.method === "GET") await cache.put(path, response.clone());
  }
  const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.get("range") ?? "");
  return range ? part(response, range) : isolated(response.body, response.status, response.headers);
}

/** Part of a file, as players ask for it. */
async function part(response, [, first, last]) {
  const body = await response.arrayBuffer();
  const start = Number(first);
  const end = last ? Math.min(Number(last), body.byteLength - 1) : body.byteLength - 1;
  const headers = new Headers(response.headers);
  headers.set("Content-Range", `bytes ${start}-${end}/${body.byteLength}`);
  headers.set("Content-Length", String(end - start + 1));
  return isolated(body.slice(start, end + 1), 206, headers);
}

/** With the headers that let WebAssembly have threads, from the second visit on. */
function isolated(body, status, given) {
  const headers = new Headers(given);
  headers.set("Cross-Origin-Opener-Policy", "same-origin");
  headers.set("Cross-Origin-Embedder-Policy", "require-corp");
  return new Response(body, { status, headers });
}

function tell(url, from) {
  const channel = new BroadcastChannel("network");
  channel.postMessage({ url, from });
  channel.close();
}
