/** Compiled, never run: what an app in TypeScript writes, for a browser, without the types of Node. */

import { Recommender, Video, VideoError, readFrames, type Frames, type LoadOptions, type Ranked, type Ranking } from "../dist/index.js";
import * as web from "onnxruntime-web";

export async function app(files: FileList, element: HTMLVideoElement, pixels: ImageData[]): Promise<string> {
  const options: LoadOptions = { ort: web, bundle: new URL("/bundle/", location.href), dataDir: "app", precision: "int8" };
  const rec = await Recommender.load({ ...options, ort: () => import("onnxruntime-web") });
  const frames: Frames = await readFrames(element, 7, 144);
  const { failed } = await rec.encode([...Array.from(files, (file) => ({ file })), { id: "a", frames }, new Video({ id: "b", frames: pixels })]);
  for (const f of failed) console.log(f.id, f.code === "unreadable", f.reason);
  try {
    await rec.history.add("a", { watched: 0.5, liked: null, at: new Date() });
  } catch (e) {
    if (e instanceof VideoError) console.log(e.code);
  }
  const ranking: Ranking = await rec.rank(["a", { video: "b", liked: true }], rec.store.select(), { topK: 3, prior: { a: 1 } });
  const best: Ranked | undefined = ranking[0];
  const matrix: number[][] = best?.explain().matrix ?? [];
  // @ts-expect-error an option that does not exist
  await rec.rank([], [], { top_k: 3 });
  // @ts-expect-error a single string is no list of ids
  await rec.rank([], 7);
  // @ts-expect-error what is inside is not for apps
  rec.store.put("a", new Int8Array(), new Float32Array(), null);
  return `${rec.taste().sentence} ${ranking.ids.length + matrix.length + ranking.map((r) => r.score).length}`;
}
