/** The recommender, in a worker: encoding a video takes a few tenths of a second, and the page stays smooth meanwhile. */

import * as ort from "./ort/ort.wasm.min.mjs";
import { Recommender } from "./linkedout-edge/index.js";

ort.env.wasm.wasmPaths = new URL("./ort/", import.meta.url).href;
ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency) : 1;

let rec;
let isKept = true;

const calls = {
  async load() {
    const options = { ort, bundle: new URL("./bundle/", import.meta.url), precision: "int8" };
    try {
      rec = await Recommender.load({ ...options, dataDir: "what-next" });
    } catch (e) {
      if (!["StorageBusyError", "StorageError"].includes(e.name)) throw e;
      rec = await Recommender.load(options); // open in another tab, or a private window
      isKept = false;
    }
    return { isKept, info: rec.info() };
  },

  encode: (video) => rec.encode([video]),

  add: async (id, fields) => void (await rec.history.add(id, fields)),
  forget: (id) => rec.history.forget(id),
  clear: () => rec.history.clear(),

  /** Rank, and say why and what is believed. */
  async rank(ids) {
    const start = performance.now();
    const ranking = await rec.rank(null, ids);
    const took = performance.now() - start;
    return {
      took,
      ranked: ranking.map((r) => ({ id: r.id, score: r.score, source: r.source, reason: r.explain().sentence })),
      taste: rec.taste(),
      history: rec.history.export(),
    };
  },
};

onmessage = async ({ data: { call, name, values } }) => {
  try {
    postMessage({ call, value: await calls[name](...values) });
  } catch (e) {
    postMessage({ call, error: { name: e.name, message: e.message } });
  }
};
