/**
 * A user and candidates' tokens → scores, over the bytes as they are stored. The same bits as `linkedout_edge/_kernel.c`
 * for the same query: sums of products are whole and exact; what follows is rounded to float32 after each step.
 */

import { BackendError } from "./errors.js";
import { rint } from "./linear.js";
import type { Taste } from "./taste.js";

const LARGEST = 127 * 256 + 127;
const MOST = 2 ** 24 - 1;
const { fround } = Math;

/** A query in whole numbers. */
export interface WholeQuery {
  /** [L·M, D]; those of a token add up to 2²⁴ - 1 at most, so that sums of products with int8 fit into int32. */
  digits: Int16Array;
  /** [L·M], what a digit is worth. */
  units: Float32Array;
  /** [L]. */
  offsets: Float32Array;
}

/** Write a user's query in whole numbers; `perLayer` is M. */
export function inDigits(user: Taste, perLayer: number): WholeQuery {
  const { query, offset, space } = user;
  if (!query.every(Number.isFinite)) {
    throw new BackendError("what is liked is no number: encode the videos of the history again");
  }
  const width = space.width / perLayer;
  const largest = Math.min(LARGEST, Math.floor(MOST / width));
  const units = new Float64Array(space.layers * perLayer);
  const digits = new Int16Array(query.length);
  for (let t = 0; t < units.length; t++) {
    let top = 1e-12;
    for (let i = t * width; i < (t + 1) * width; i++) top = Math.max(top, Math.abs(query[i]!));
    units[t] = top / largest;
    for (let i = t * width; i < (t + 1) * width; i++) digits[i] = rint(query[i]! / units[t]!);
  }
  return { digits, units: Float32Array.from(units), offsets: Float32Array.from(offset) };
}

/** Exact: see `WholeQuery`. Four sums do not wait for each other, and `imul` needs no check. */
function wholeDot(tokens: Int8Array, t: number, digits: Int16Array, q: number, width: number): number {
  let [a, b, c, d] = [0, 0, 0, 0];
  const full = width & ~3;
  for (let i = 0; i < full; i += 4) {
    a = (a + Math.imul(tokens[t + i]!, digits[q + i]!)) | 0;
    b = (b + Math.imul(tokens[t + i + 1]!, digits[q + i + 1]!)) | 0;
    c = (c + Math.imul(tokens[t + i + 2]!, digits[q + i + 2]!)) | 0;
    d = (d + Math.imul(tokens[t + i + 3]!, digits[q + i + 3]!)) | 0;
  }
  for (let i = full; i < width; i++) a = (a + Math.imul(tokens[t + i]!, digits[q + i]!)) | 0;
  return (a + b + c + d) | 0;
}

/**
 * Score rows where they lie.
 *
 * @param query The user's.
 * @param tokens [V, L, M, D], all that is stored.
 * @param scales [V, L, M].
 * @param rows [C], which of them are candidates.
 * @returns Scores [C] and what each layer contributes [C, L].
 * @throws {BackendError} A score is no number.
 */
export function score(
  query: WholeQuery, tokens: Int8Array, scales: Float32Array, rows: ArrayLike<number>,
): { scores: Float32Array; layers: Float32Array } {
  const { digits, units, offsets } = query;
  const count = units.length;
  const size = digits.length;
  const width = size / count;
  const perLayer = count / offsets.length;
  const scores = new Float32Array(rows.length);
  const layers = new Float32Array(rows.length * offsets.length);
  for (let n = 0; n < rows.length; n++) {
    const row = rows[n]!;
    let total = 0;
    for (let l = 0, k = 0, q = 0, t = row * size; l < offsets.length; l++) {
      let sum = 0;
      for (let m = 0; m < perLayer; m++, k++) {
        const whole = wholeDot(tokens, t, digits, q, width);
        t += width;
        q += width;
        const product = fround(fround(fround(whole) * units[k]!) * scales[row * count + k]!);
        sum = m ? fround(sum + product) : product;
      }
      sum = fround(sum - offsets[l]!);
      layers[n * offsets.length + l] = sum;
      total = l ? fround(total + sum) : sum;
    }
    if (!Number.isFinite(total)) {
      throw new BackendError("a score is no number: check the bundle, and encode the videos again");
    }
    scores[n] = total;
  }
  return { scores, layers };
}
