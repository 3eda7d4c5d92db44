import { parentPort, workerData } from "node:worker_threads";

import { Recommender } from "../dist/index.js";
import { golden, videoOf } from "./setup.mjs";

const rec = await Recommender.load({ ort: () => import("onnxruntime-node"), bundle: workerData.bundle, threads: 1 });
const video = await videoOf(golden.videos[7]);
const ranking = await rec.rank([video], [{ ...video, id: "copy" }]);
parentPort.postMessage(ranking.map((r) => r.toJSON()));
await rec.close();
