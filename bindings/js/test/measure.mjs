/** Times, for Node and the browser alike. */

const REPEATS = { encode: 15, rank: 60, fit: 20 };

/** The median of what `work` takes, in milliseconds. */
async function median(repeats, work) {
  const times = [];
  for (let n = 0; n < repeats; n++) {
    const start = performance.now();
    await work(n);
    times.push(performance.now() - start);
  }
  return Number(times.sort((a, b) => a - b)[repeats >> 1].toFixed(3));
}

/** Fill the store with 1,000 videos of random tokens, and measure. */
export async function measure(rec, video) {
  let seed = 17;
  const random = () => (seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0) / 2 ** 32;
  for (let n = 0; n < 1000; n++) {
    const tokens = Int8Array.from({ length: rec.store.size }, () => Math.round((random() - 0.5) * 254));
    const scales = Float32Array.from({ length: rec.store.count }, () => 0.01 + random() / 100);
    rec.store.put(`video ${n}`, tokens, scales, { title: null, content: "", size: null, modified: null });
  }
  const all = rec.store.select();
  const history = (last) => [...new Array(63).keys(), last].map((n) => ({ video: `video ${n}`, watched: (n % 10) / 10 }));
  const known = history(63);
  await rec.warmup();
  return {
    rank: await median(REPEATS.rank, () => rec.rank(known, all, { topK: 20 })),
    rank_after_an_event: await median(REPEATS.fit, (n) => rec.rank(history(100 + n), all, { topK: 20 })),
    encode: await median(REPEATS.encode, (n) => rec.encode([{ ...video, id: `copy ${n}` }])),
  };
}
