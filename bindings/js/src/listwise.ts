/** Steps that need the whole list: removing near-duplicates, and diversity. Videos are compared by their stored tokens. */

import { dot, dotSingles } from "./linear.js";

const DUPLICATE_FROM = 0.9;
const COMPARED = 1024;
const DIVERSIFIED = 200;
const NOTHING_NEW = 1e-6;

/** A candidate's position → unit tokens, see `unitTokens`. */
export type Vectors = (position: number) => Float32Array;

/** One video's int8 [L·M, D] → float32, each layer token of length (L·M)^-½, so that the whole has length 1. */
export function unitTokens(tokens: Int8Array, count: number): Float32Array {
  const width = tokens.length / count;
  const out = new Float32Array(tokens.length);
  for (let start = 0; start < tokens.length; start += width) {
    let squares = 0;
    for (let i = start; i < start + width; i++) squares += tokens[i]! ** 2;
    const length = Math.max(Math.sqrt(squares), 1e-9) * Math.sqrt(count);
    for (let i = start; i < start + width; i++) out[i] = tokens[i]! / length;
  }
  return out;
}

/** Positions of the `limit` best (of all, if null), best first, ties in input order. */
export function bestFirst(scores: Float32Array, limit: number | null = null): number[] {
  const order = [...scores.keys()];
  const better = (a: number, b: number): number => scores[b]! - scores[a]! || a - b;
  if (limit === null || limit >= scores.length) return order.sort(better);
  const threshold = scores.slice().sort()[scores.length - limit]!;
  return order.filter((n) => scores[n]! >= threshold).sort(better).slice(0, limit);
}

/** Whether two unit rows of `count` tokens are near-identical; most are told apart after a few tokens. */
function isCopy(a: Float32Array, b: Float32Array, count: number): boolean {
  const width = a.length / count;
  let cosine = 0;
  for (let t = 0; t < count; t++) {
    if (cosine + (count - t) / count < DUPLICATE_FROM - 1e-4) return false; // a token adds 1 / count at most
    cosine += dotSingles(a, t * width, b, t * width, width);
  }
  return Math.fround(cosine) >= DUPLICATE_FROM;
}

/** Keep the best of each group of near-identical videos, of `count` tokens each, until `limit` are kept. */
export function deduplicate(order: readonly number[], vectors: Vectors, count: number, limit: number | null): number[] {
  const kept: number[] = [];
  const compared: Float32Array[] = [];
  for (const position of order) {
    if (kept.length === limit) break;
    const mine = vectors(position);
    if (compared.some((other) => isCopy(mine, other, count))) continue;
    kept.push(position);
    if (compared.length < COMPARED) compared.push(mine);
  }
  return kept;
}

/**
 * Reorder the best 200 so that neighbors differ: greedy MAP inference of a determinantal point process, as
 * `linkedout_edge/rank/rerank.py` explains.
 */
export function diversify(
  order: readonly number[], scores: Float32Array, vectors: Vectors, diversity: number, limit: number | null,
): number[] {
  const window = order.slice(0, DIVERSIFIED);
  const count = window.length;
  if (count < 2) return [...order];
  const places = Math.min(limit ?? count, count);
  const similar = similarities(window.map(vectors));
  const left = Float64Array.from(window, (_, i) => similar[i]![i]!);
  const free = new Array<boolean>(count).fill(true);
  const rows: Float64Array[] = [];
  const chosen: number[] = [];
  while (chosen.length < places) {
    let best = -1;
    let most = -Infinity;
    for (let i = 0; i < count; i++) {
      if (!free[i] || left[i]! <= NOTHING_NEW) continue;
      const gain = (1 - diversity) * scores[window[i]!]! + diversity * Math.log(left[i]!);
      if (gain > most) [best, most] = [i, gain];
    }
    if (best < 0) break;
    const root = Math.sqrt(left[best]!);
    const row = similar[best]!.map((s, i) => (s - rows.reduce((sum, r) => sum + r[best]! * r[i]!, 0)) / root);
    rows.push(row);
    row.forEach((r, i) => (left[i]! -= r * r));
    free[best] = false;
    chosen.push(best);
  }
  const rest = free.flatMap((f, i) => (f ? [i] : []));
  return [...[...chosen, ...rest].map((i) => window[i]!), ...order.slice(count)];
}

/** (1 + cosine) / 2 after the mean is taken away: [K][K], ones on the diagonal. */
function similarities(vectors: Float32Array[]): Float64Array[] {
  const width = vectors[0]!.length;
  const mean = new Float64Array(width);
  for (const v of vectors) for (let i = 0; i < width; i++) mean[i]! += v[i]! / vectors.length;
  const centered = vectors.map((v) => {
    const c = Float64Array.from(v, (x, i) => x - mean[i]!);
    const length = Math.sqrt(dot(c, 0, c, 0, width));
    return c.map((x) => (length > 1e-6 ? x / length : 0));
  });
  return centered.map((a, i) => Float64Array.from(centered, (b, j) => (i === j ? 1 : 0.5 + 0.5 * dot(a, 0, b, 0, width))));
}

/** The list: best first, near-duplicates left out, then diversified, then cut. `count` is how many tokens a video has. */
export function rerank(
  scores: Float32Array, limit: number | null, vectors: Vectors, count: number, diversity: number, foldDuplicates: boolean,
): number[] {
  if (limit === 1 || !(diversity || foldDuplicates)) return bestFirst(scores, limit); // neither changes who is first
  const needed = limit === null ? null : diversity ? Math.max(limit, DIVERSIFIED) : limit;
  let order = bestFirst(scores, needed === null ? null : 4 * needed);
  if (foldDuplicates) {
    let kept = deduplicate(order, vectors, count, needed);
    if (needed !== null && kept.length < needed && order.length < scores.length) kept = deduplicate(bestFirst(scores), vectors, count, needed);
    order = kept;
  }
  if (diversity) order = diversify(order, scores, vectors, diversity, limit);
  return limit === null ? order : order.slice(0, limit);
}
