/** The sum of what is stored, kept up to date: the user model compares videos with the average one. */

import { rint } from "./linear.js";

/** Scales are counted in units of 2⁻³⁰: whole numbers add up to the same whatever came and left in which order. */
const UNITS = 2 ** 30;
const LARGEST = 2 ** 7;
/** Units are added in two parts, so that each sum of 2¹⁷ videos stays below 2⁵³ and is exact. */
const PART = 2 ** 20;

/** Sum of the tokens of videos that come and go. */
export class RunningSum {
  count = 0;
  private readonly high: Float64Array;
  private readonly low: Float64Array;

  /** @param size L·M·D. */
  constructor(size: number) {
    this.high = new Float64Array(size);
    this.low = new Float64Array(size);
  }

  /** A video comes (`sign` 1) or leaves (-1). */
  add(tokens: Int8Array, scales: Float32Array, sign: 1 | -1): void {
    const width = tokens.length / scales.length;
    for (let t = 0, i = 0; t < scales.length; t++) {
      const scale = Math.min(Math.max(scales[t]! || 0, -LARGEST), LARGEST);
      const units = rint(scale * UNITS);
      const high = Math.floor(units / PART);
      const low = units - high * PART;
      for (let d = 0; d < width; d++, i++) {
        const token = sign * tokens[i]!;
        this.high[i]! += token * high;
        this.low[i]! += token * low;
      }
    }
    this.count += sign;
  }

  /** Sum of the dequantized tokens, [L·M·D]. */
  total(): Float64Array {
    return this.high.map((h, i) => (h * PART + this.low[i]!) / UNITS);
  }
}
