/**
 * What a user likes, in closed form: events → a query per layer. No training, no graph.
 *
 * Gaussian-process regression on centered layer tokens; `linkedout_edge/rank/taste.py` and docs/ranking.md say why. Constants
 * are those of Python. Dimensions: N events, L layers, W = M·D numbers of a layer.
 */

import { cholesky, dot, dotSingles, solve, whiten } from "./linear.js";

/** Fraction of an average video that is watched: an event at this value says nothing. */
export const USUAL = 0.3;
const LIKED = 1.2;
const DISLIKED = -0.5;
const NOISE = 1;
const FEW_EVENTS = 20;
const AGED_DAYS = 365;
/** Only the latest so many events count. */
export const MAX_EVENTS = 192;
const EVIDENCE_EVENTS = 32;
const TEMPER = 4;
const TEMPER_EVENTS = 16;
const LEAST_FIT = 1e-9;
const PRIOR_VIDEOS = 10;

/** What is known of tokens before anything is known of a user. */
export class Space {
  /**
   * @param layers L.
   * @param width W.
   * @param mean [L, W], the average video's tokens.
   * @param size [L], mean squared length of a centered token; > 0.
   * @param prior [L], how far each layer is trusted at first; sums to 1.
   * @param scale Scores are multiplied by it.
   */
  constructor(
    readonly layers: number,
    readonly width: number,
    readonly mean: Float64Array,
    readonly size: Float64Array,
    readonly prior: Float64Array,
    readonly scale: number,
  ) {}

  /** From a manifest's numbers. */
  static made(
    model: { mean: readonly (readonly number[])[]; size: readonly number[]; layer_prior: readonly number[]; score_scale: number },
  ): Space {
    const layers = model.size.length;
    const trust = model.layer_prior.length ? model.layer_prior : new Array<number>(layers).fill(1);
    const total = trust.reduce((a, b) => a + b, 0);
    return new Space(
      layers, model.mean[0]!.length, Float64Array.from(model.mean.flat()), Float64Array.from(model.size),
      Float64Array.from(trust, (p) => p / total), model.score_scale,
    );
  }

  /** The same with the mean drawn to `count` more videos, whose tokens sum to `total` [L, W]. */
  following(total: Float64Array, count: number): Space {
    const mean = this.mean.map((m, i) => (PRIOR_VIDEOS * m + total[i]!) / (PRIOR_VIDEOS + count));
    return new Space(this.layers, this.width, mean, this.size, this.prior, this.scale);
  }
}

/** Float32 values [V, L, W] of int8 tokens with float32 scales, `scales.length` tokens in all. */
export function dequantize(tokens: Int8Array, scales: Float32Array): Float32Array {
  const values = new Float32Array(tokens.length);
  const width = scales.length ? tokens.length / scales.length : 0;
  for (let i = 0, t = 0; t < scales.length; t++) {
    for (let d = 0; d < width; d++, i++) values[i] = tokens[i]! * scales[t]!;
  }
  return values;
}

/** How much of its video an event asks for, relative to an average video: > 0 attracts, < 0 repels. */
export function wanted(watched: number, liked: boolean | null): number {
  const y = liked === null ? Math.min(Math.max(Number.isNaN(watched) ? USUAL : watched, 0), 1) : liked ? LIKED : DISLIKED;
  return y - USUAL;
}

/** Variance of an event's noise. An age that is unknown (null) or in the future counts as 0. */
export function noise(ageHours: number | null): number {
  return NOISE * (1 + Math.max(ageHours ?? 0, 0) / (24 * AGED_DAYS));
}

/** A user. `score(t) = Σ_l ⟨query[l], t[l]⟩ − offset[l]`. */
export class Taste {
  /**
   * @param space Where it was fitted.
   * @param count N.
   * @param query [L, W].
   * @param offset [L].
   * @param gates [L], sums to 1: at which depth the taste lives.
   * @param weights [N, L], > 0 attracts, < 0 repels.
   * @param seen [N, L, W], the events' centered tokens.
   * @param kernel [N, N], how alike the events' videos are.
   * @param noise [N].
   */
  constructor(
    readonly space: Space,
    readonly count: number,
    readonly query: Float64Array,
    readonly offset: Float64Array,
    readonly gates: Float64Array,
    readonly weights: Float64Array,
    readonly seen: Float32Array,
    readonly kernel: Float64Array,
    readonly noise: Float64Array,
  ) {}

  /** Whether anything is known to attract. */
  get isKnown(): boolean {
    return this.weights.some((w) => w > 0);
  }

  /** Tokens [K, L, W] minus the average video's. */
  centered(values: Float32Array): Float32Array {
    return center(values, this.space);
  }

  /** Centered tokens as rows [K, L·W]: their inner products are the kernel's, gates and all. */
  rows(centered: Float32Array): Float32Array {
    return rowsOf(centered, this.gates, this.space);
  }

  /** What each event adds by each layer to the score of one video [L, W]: [N, L]. */
  contributions(values: Float32Array): Float64Array {
    const { layers, width } = this.space;
    const mine = this.centered(values);
    return this.weights.map((w, at) => w * dotSingles(this.seen, at * width, mine, (at % layers) * width, width));
  }

  /** How unsure the scores of tokens [C, L, W] are: posterior standard deviations [C]. */
  deviation(values: Float32Array): Float64Array {
    const n = this.count;
    const size = this.space.layers * this.space.width;
    const rows = this.rows(this.centered(values));
    const seen = this.rows(this.seen);
    const root = withNoise(this.kernel, this.noise);
    cholesky(root, n);
    const out = new Float64Array(rows.length / size);
    const shared = new Float64Array(n);
    for (let c = 0; c < out.length; c++) {
      for (let k = 0; k < n; k++) shared[k] = dotSingles(seen, k * size, rows, c * size, size);
      whiten(root, n, shared);
      const variance = dotSingles(rows, c * size, rows, c * size, size) - dot(shared, 0, shared, 0, n);
      out[c] = this.space.scale * Math.sqrt(Math.max(variance, 0));
    }
    return out;
  }
}

/**
 * Fit a user.
 *
 * @param values [N, L, W], tokens of the history, oldest first; N may be 0.
 * @param y [N], from `wanted`.
 * @param variance [N], from `noise`.
 * @param space What is known of tokens.
 */
export function fit(values: Float32Array, y: Float64Array, variance: Float64Array, space: Space): Taste {
  const { layers, width } = space;
  const count = y.length;
  const size = layers * width;
  const seen = center(values, space);
  const none = new Float64Array(0);
  if (!count) {
    return new Taste(space, 0, new Float64Array(size), new Float64Array(layers), space.prior, none, seen, none, variance);
  }
  const from = Math.max(0, count - EVIDENCE_EVENTS);
  const gates = gatesOf(seen.subarray(from * size), y.subarray(from), variance.subarray(from), space);
  const kernel = gram(rowsOf(seen, gates, space), count, size);
  const few = 1 + FEW_EVENTS / count;
  const noisy = variance.map((v) => few * v);
  const root = withNoise(kernel, noisy);
  cholesky(root, count);
  const alpha = y.map((v) => few * v);
  solve(root, count, alpha);
  const weights = new Float64Array(count * layers);
  const query = new Float64Array(size);
  const offset = new Float64Array(layers);
  for (let n = 0; n < count; n++) {
    for (let l = 0; l < layers; l++) {
      const w = space.scale * alpha[n]! * (gates[l]! / space.size[l]!);
      weights[n * layers + l] = w;
      const start = (n * layers + l) * width;
      for (let i = 0; i < width; i++) query[l * width + i]! += w * seen[start + i]!;
    }
  }
  for (let l = 0; l < layers; l++) offset[l] = dot(query, l * width, space.mean, l * width, width);
  return new Taste(space, count, query, offset, gates, weights, seen, kernel, noisy);
}

function center(values: Float32Array, space: Space): Float32Array {
  const mean = Float32Array.from(space.mean);
  const out = new Float32Array(values.length);
  for (let start = 0; start < out.length; start += mean.length) {
    for (let i = 0; i < mean.length; i++) out[start + i] = values[start + i]! - mean[i]!;
  }
  return out;
}

function rowsOf(centered: Float32Array, gates: Float64Array, space: Space): Float32Array {
  const by = Float32Array.from(gates, (g, l) => Math.sqrt(g / space.size[l]!));
  const { layers, width } = space;
  const out = new Float32Array(centered.length);
  for (let start = 0, l = 0; start < out.length; start += width, l = (l + 1) % layers) {
    for (let i = start; i < start + width; i++) out[i] = centered[i]! * by[l]!;
  }
  return out;
}

/** Inner products [n, n] of rows [n, width]. */
function gram(rows: Float32Array, n: number, width: number): Float64Array {
  const out = new Float64Array(n * n);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j <= i; j++) {
      out[i * n + j] = out[j * n + i] = dotSingles(rows, i * width, rows, j * width, width);
    }
  }
  return out;
}

function withNoise(kernel: Float64Array, noise: Float64Array): Float64Array {
  const out = kernel.slice();
  for (let i = 0; i < noise.length; i++) out[i * (noise.length + 1)]! += noise[i]!;
  return out;
}

/**
 * Trust in each layer [L] after what its kernel alone makes of the events: softmax of the tempered log density of y under
 * N(0, s (K + noise)) of any scale s.
 */
function gatesOf(seen: Float32Array, y: Float64Array, variance: Float64Array, space: Space): Float64Array {
  const n = y.length;
  const { layers, width } = space;
  const temper = TEMPER / (1 + n / TEMPER_EVENTS);
  const logits = new Float64Array(layers);
  for (let l = 0; l < layers; l++) {
    const root = new Float64Array(n * n);
    for (let i = 0; i < n; i++) {
      for (let j = 0; j <= i; j++) {
        root[i * n + j] = dotSingles(seen, (i * layers + l) * width, seen, (j * layers + l) * width, width) / space.size[l]!;
      }
      root[i * (n + 1)]! += variance[i]!;
    }
    cholesky(root, n);
    const white = y.slice();
    whiten(root, n, white);
    let evidence = -0.5 * n * Math.log(Math.max(dot(white, 0, white, 0, n), LEAST_FIT));
    for (let i = 0; i < n; i++) evidence -= Math.log(root[i * (n + 1)]!);
    logits[l] = Math.log(space.prior[l]!) + temper * evidence;
  }
  const top = Math.max(...logits);
  const gates = logits.map((x) => Math.exp(x - top));
  const total = gates.reduce((a, b) => a + b, 0);
  return gates.map((g) => g / total);
}
