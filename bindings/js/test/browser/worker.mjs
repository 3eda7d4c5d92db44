import { load } from "./setup.mjs";

onmessage = async ({ data: video }) => {
  const rec = await load({ dataDir: "in-a-worker" });
  const ranking = await rec.rank([video], [{ ...video, id: "copy" }, { file: new File(["x"], "x.mp4") }]);
  await rec.history.add(video.id);
  await rec.history.clear();
  await rec.close();
  postMessage({ ranked: ranking.map((r) => r.toJSON()), failed: ranking.failed });
};
