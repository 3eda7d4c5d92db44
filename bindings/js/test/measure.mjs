/** What benchmarks/bindings.py has done and timed, for Node and the browser alike. */

/**
 * @param pack A feature pack: its first `watched` videos were watched, the others are ranked.
 * @param pixels uint8 [7, 144, 144, 3] of the video that is encoded.
 * @returns what does one thing for a word, and gives the seconds that it took.
 */
export async function measured(rec, pack, pixels, watched) {
  const ids = await rec.store.importPack(pack);
  const history = ids.slice(0, watched).map((video) => ({ video, watched: 1 }));
  const candidates = ids.slice(watched);
  const video = { id: "frames", title: "Two cats", frames: { data: pixels, shape: [7, 144, 144, 3] } };
  return async (word) => {
    if (word === "event") { // not timed: the user is fitted anew by the next ranking
      history.push(history[0]);
      return 0;
    }
    if (word === "encode") await rec.store.remove([video.id]);
    const start = performance.now();
    if (word === "encode") await rec.encode([video]);
    else await rec.rank(history, candidates);
    return (performance.now() - start) / 1000;
  };
}
