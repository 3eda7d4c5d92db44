/** What the page asks the network for: shown to who uses it, as the service worker tells it. */

const rows = [];

/** Show requests in a list, and in a few words how many went elsewhere. */
export function followNetwork(list, words) {
  const show = (row) => {
    rows.push(row);
    const { url, from } = row;
    const item = document.createElement("li");
    item.textContent = `${from.padEnd(9)} ${url.startsWith(location.origin) ? new URL(url).pathname : url}`;
    list.prepend(item);
    const elsewhere = rows.filter((r) => !r.url.startsWith(location.origin)).length;
    const fetched = new Set(rows.filter((r) => r.from === "network").map((r) => r.url)).size;
    const own = fetched ? `${fetched} files were fetched, all from this page's own address` : "not even a file was fetched";
    words.textContent = elsewhere ? `${elsewhere} requests were stopped` : `nothing (${own})`;
  };
  new BroadcastChannel("network").onmessage = ({ data }) => show(data);
  // What came before there was a service worker.
  new PerformanceObserver((entries) => {
    for (const e of entries.getEntries()) {
      if (e.name.startsWith("http") && !navigator.serviceWorker?.controller) show({ url: e.name, from: "network" });
    }
  }).observe({ type: "resource", buffered: true });
}

/** So that the page works offline, and all that its worker loads is seen. Without one it works, but only online. */
export async function startServiceWorker() {
  if (!navigator.serviceWorker) return;
  await navigator.serviceWorker.register("sw.js");
  if (navigator.serviceWorker.controller) return;
  await new Promise((resolve) => navigator.serviceWorker.addEventListener("controllerchange", resolve, { once: true }));
}
