/** The golden vectors, and what compares with them, for Node and the browser alike. */

/** Indices of what a test may look up: golden.json by key. */
export async function goldenOf(read) {
  return JSON.parse(new TextDecoder().decode(await read("golden.json")));
}

export function tokensOf(video) {
  return { tokens: Int8Array.from(video.tokens.flat(2)), scales: Float32Array.from(video.scales.flat()) };
}

/** Put the golden tokens of some videos into the store. */
export function putGolden(rec, golden, ids) {
  for (const video of golden.videos.filter((v) => ids.includes(v.id))) {
    const { tokens, scales } = tokensOf(video);
    rec.store.put(video.id, tokens, scales, { title: video.title || null, content: "", size: null, modified: null });
  }
}

export function eventsOf(golden, testCase, now = Date.now()) {
  return testCase.events.map(({ video, watched, liked, age_hours: age }) => ({
    video: golden.videos[video].id,
    watched: watched ?? 1,
    liked: liked ?? null,
    at: age === undefined ? null : new Date(now - age * 3_600_000),
  }));
}

/** A stack of frames [count·H, W] in RGBA as frames. */
export function framesOf(picture, count) {
  return { data: picture.data, shape: [count, picture.height / count, picture.width, 4] };
}

const near = (a, b, limit) => Math.abs(a - b) <= limit;

/** What differs between a ranking and a golden case; "" if nothing does. */
export function compareCase(golden, testCase, ranking) {
  const limit = golden.tolerance.score;
  const wrong = [];
  if ([...ranking.ids].sort().join() !== [...testCase.order].sort().join()) return `ids ${ranking.ids}`;
  for (const r of ranking) {
    if (!near(r.score, testCase.scores[r.id], limit)) wrong.push(`score of ${r.id}: ${r.score}`);
    const parts = testCase.contributions[r.id];
    if (!r.layers.every((x, l) => near(x, parts[l], limit))) wrong.push(`layers of ${r.id}: ${r.layers}`);
    const { matrix } = r.explain();
    const expected = testCase.explanations[r.id];
    const fits =
      matrix.length === expected.length && matrix.every((row, n) => row.every((x, l) => near(x, expected[n][l], limit)));
    if (!fits) wrong.push(`explanation of ${r.id}: ${JSON.stringify(matrix)}`);
    if (!near(matrix.flat().reduce((a, b) => a + b, 0), r.score, 2 * limit)) wrong.push(`sum of ${r.id}`);
  }
  ranking.ids.forEach((id, n) => {
    if (!near(testCase.scores[id], testCase.scores[testCase.order[n]], limit)) wrong.push(`order ${ranking.ids}`);
  });
  return wrong.join("; ");
}

/** What differs between what is believed of a user and a golden case; "" if nothing does. */
export function compareTaste(testCase, taste) {
  const ours = JSON.stringify([taste.likes.map((i) => i.videos), taste.avoids]);
  const expected = JSON.stringify([testCase.likes, testCase.avoids]);
  return ours === expected ? "" : `likes and avoids ${ours}, not ${expected}`;
}

/** What differs between tokens and a golden video's, where int8 may have been rounded elsewhere; "" if nothing does. */
export function compareTokens(golden, video, { tokens, scales }) {
  const expected = tokensOf(video);
  const width = tokens.length / scales.length;
  let least = 1;
  for (let t = 0; t < scales.length; t++) {
    let [product, ours, theirs] = [0, 0, 0];
    for (let i = t * width; i < (t + 1) * width; i++) {
      product += tokens[i] * expected.tokens[i];
      ours += tokens[i] ** 2;
      theirs += expected.tokens[i] ** 2;
    }
    least = Math.min(least, product / Math.sqrt(ours * theirs));
  }
  return least >= golden.tolerance.token_cosine ? "" : `a token of ${video.id} has the cosine ${least}`;
}

/** Frames that a golden error case asks for, as a video. */
export function wrongVideo(error) {
  if (error.frames_dtype) return { id: "wrong", frames: { data: new Float32Array(8 * 16 * 16 * 3), shape: [8, 16, 16, 3] } };
  if (error.frames_shape) {
    return { id: "wrong", frames: { data: new Uint8Array(error.frames_shape.reduce((a, b) => a * b)), shape: error.frames_shape } };
  }
  return null;
}

/** What a golden error case does: the name of what was thrown, or the codes in `failed`. */
export async function resultOf(error, rec, load) {
  try {
    if (error.call === "load") return await load(error.bundle);
    const wrong = wrongVideo(error);
    const candidates = wrong ? [wrong] : (error.candidates ?? ["video0"]);
    const history = [{ video: "video1", watched: error.watched ?? 1 }];
    const ranking = await rec.rank(history, candidates, error.top_k === undefined ? {} : { topK: error.top_k });
    return ranking.failed.map((f) => f.code);
  } catch (e) {
    return e.name;
  }
}
