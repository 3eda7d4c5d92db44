/** An order while nothing is known to be liked: nothing was watched yet, or all was skipped. */

import { argmax, dotSingles } from "./linear.js";
import { standardized } from "./prior.js";
import type { Taste } from "./taste.js";

/** So many candidates are arranged. */
export const WINDOW = 256;
const PLACES = 20;
const REPRESENTS = 0.5;
/** Candidates as close as this are level, and the first of them goes first: rounding differs by language. */
const LEVEL = 1e-5;

/**
 * Best first: far from what was skipped, each standing for many videos that none before it stands for (greedy facility
 * location). What was skipped represents its like already.
 *
 * @param values [K, L, W], tokens.
 * @param scores [K].
 */
export function arrangeUnknown(user: Taste, values: Float32Array, scores: Float64Array): number[] {
  const count = scores.length;
  const size = user.space.layers * user.space.width;
  const rows = directions(user, user.centered(values), size);
  const seen = directions(user, user.seen, size);
  const likeness = (a: Float32Array, i: number, j: number): number => Math.max(dotSingles(a, i * size, rows, j * size, size), 0) ** 2;
  const alike = new Float32Array(count * count);
  for (let i = 0; i < count; i++) {
    for (let j = 0; j <= i; j++) alike[i * count + j] = alike[j * count + i] = likeness(rows, i, j);
  }
  const covered = new Float32Array(count);
  for (let n = 0; n < user.count; n++) {
    for (let j = 0; j < count; j++) covered[j] = Math.max(covered[j]!, likeness(seen, n, j));
  }
  const free = new Array<boolean>(count).fill(true);
  const chosen: number[] = [];
  const away = standardized(scores);
  while (chosen.length < Math.min(PLACES, count)) {
    const gain = new Float64Array(count);
    for (let i = 0; i < count; i++) {
      for (let j = 0; j < count; j++) gain[i]! += Math.max(Math.fround(alike[i * count + j]! - covered[j]!), 0);
    }
    const more = isLevel(gain) ? new Float64Array(count) : standardized(gain);
    const worth = free.map((f, i) => (f ? away[i]! + REPRESENTS * more[i]! : -Infinity));
    const least = worth[argmax(worth)]! - LEVEL;
    const best = worth.findIndex((w) => w >= least);
    chosen.push(best);
    free[best] = false;
    for (let j = 0; j < count; j++) covered[j] = Math.max(covered[j]!, alike[best * count + j]!);
  }
  const rest = free.flatMap((f, i) => (f ? [i] : []));
  return [...chosen, ...rest.sort((a, b) => scores[b]! - scores[a]! || a - b)];
}

/** Whether numbers differ by no more than rounding: standardized, that alone would decide. */
function isLevel(gain: Float64Array): boolean {
  const mean = gain.reduce((a, b) => a + b, 0) / gain.length;
  const spread = Math.sqrt(gain.reduce((a, g) => a + (g - mean) ** 2, 0) / gain.length);
  return spread <= LEVEL * gain.reduce((a, b) => Math.max(a, b), 1);
}

/** Unit vectors of centered tokens. */
function directions(user: Taste, centered: Float32Array, size: number): Float32Array {
  const rows = user.rows(centered);
  for (let start = 0; start < rows.length; start += size) {
    const length = Math.max(Math.sqrt(dotSingles(rows, start, rows, start, size)), 1e-9);
    for (let i = start; i < start + size; i++) rows[i]! /= length;
  }
  return rows;
}
