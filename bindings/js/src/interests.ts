/** Several interests in one history: which there are, and how they share the first places of a list. */

import { argmax } from "./linear.js";
import type { Taste } from "./taste.js";

const MAX_EVENTS = 64;
const LEAST_EVENTS = 2;
const SPLIT_FROM = 0.15;
const SHARE = 0.2;
const PLACES = 10;
/** The first ten places are shared, among the best so many. */
export const WINDOW = 40;
const ROUNDS = 4;

/** Which events belong together: numbers of the events of each interest, one or two, the larger first; of equal ones the one with the latest event. */
export function findInterests(user: Taste): number[][] {
  const { layers } = user.space;
  const attracts: number[] = [];
  for (let n = 0; n < user.count; n++) {
    let sum = 0;
    for (let l = 0; l < layers; l++) sum += user.weights[n * layers + l]!;
    if (sum > 0) attracts.push(n);
  }
  const kept = attracts.slice(-MAX_EVENTS);
  const count = kept.length;
  if (count < 2 * LEAST_EVENTS) return count ? [kept] : [];
  const alike = cosines(user, kept);
  const least = argmax(alike.map((x) => -x));
  const first = Math.floor(least / count) * count;
  const second = (least % count) * count;
  const whole = kept.map((_, i) => sumOf(alike.subarray(i * count, (i + 1) * count)));
  let side = kept.map((_, i) => alike[first + i]! >= alike[second + i]!);
  for (let round = 0; round < ROUNDS; round++) {
    const ones = side.filter(Boolean).length;
    if (ones === 0 || ones === count) return [kept];
    side = withFirst(alike, side).map((w, i) => w / ones >= (whole[i]! - w) / (count - ones));
  }
  const ones = side.filter(Boolean).length;
  if (Math.min(ones, count - ones) < LEAST_EVENTS) return [kept];
  let across = 0;
  let trace = 0;
  for (let i = 0; i < count; i++) {
    trace += alike[i * (count + 1)]!;
    for (let j = 0; j < count; j++) if (side[i] && !side[j]) across += alike[i * count + j]!;
  }
  const pairs = ones * (ones - 1) + (count - ones) * (count - ones - 1);
  const within = (sumOf(alike) - trace - 2 * across) / pairs;
  if (within - across / (ones * (count - ones)) < SPLIT_FROM) return [kept];
  const both = [kept.filter((_, i) => side[i]), kept.filter((_, i) => !side[i])];
  return both.sort((a, b) => b.length - a.length || b.at(-1)! - a.at(-1)!);
}

/** Let interests share the first places of a list: the new order of its head. */
export function takeTurns(user: Taste, groups: number[][], values: Float32Array, scores: Float64Array): number[] {
  const { layers, width } = user.space;
  const size = layers * width;
  const count = scores.length;
  const centered = user.centered(values);
  const adds = groups.map((group) => {
    const query = new Float64Array(size);
    for (const n of group) {
      for (let i = 0; i < size; i++) query[i]! += user.weights[n * layers + Math.floor(i / width)]! * user.seen[n * size + i]!;
    }
    return Float64Array.from(scores, (_, c) => {
      let sum = 0;
      for (let i = 0; i < size; i++) sum += query[i]! * centered[c * size + i]!;
      return sum;
    });
  });
  const members = groups.reduce((sum, g) => sum + g.length, 0);
  const served = groups.map(() => 0);
  const free = new Array<boolean>(count).fill(true);
  const chosen: number[] = [];
  while (chosen.length < Math.min(PLACES, count)) {
    const lost = groups.map((g, i) => 1 - 1 / (1 + (SHARE * served[i]!) / (groups.length * (g.length / members))));
    const best = argmax(free.map((f, c) => (f ? scores[c]! - adds.reduce((sum, a, i) => sum + lost[i]! * a[c]!, 0) : -Infinity)));
    const total = Math.max(adds.reduce((sum, a) => sum + Math.max(a[best]!, 0), 0), 1e-12);
    adds.forEach((a, i) => (served[i]! += Math.max(a[best]!, 0) / total));
    free[best] = false;
    chosen.push(best);
  }
  return [...chosen, ...free.flatMap((f, c) => (f ? [c] : []))];
}

/** Symmetric to the last bit, so that rounding picks no order. */
function cosines(user: Taste, events: number[]): Float64Array {
  const length = events.map((n) => Math.sqrt(Math.max(user.kernel[n * (user.count + 1)]!, 1e-12)));
  const out = new Float64Array(events.length ** 2);
  events.forEach((a, i) => {
    events.forEach((b, j) => (out[i * events.length + j] = user.kernel[a * user.count + b]! / (length[i]! * length[j]!)));
  });
  return out;
}

/** How alike each is to all of the first side together. */
function withFirst(alike: Float64Array, side: boolean[]): number[] {
  return side.map((_, i) => side.reduce((sum, s, j) => (s ? sum + alike[i * side.length + j]! : sum), 0));
}

function sumOf(values: Float64Array): number {
  return values.reduce((a, b) => a + b, 0);
}
