/**
 * A prior: what the app knows of candidates besides their content. It is standardized over the candidates of the call
 * (unknown ones get 0), and `weight` times the result is added to the content score.
 */

import { ArgumentError, ArgumentTypeError, typeName } from "./errors.js";

/** Id → number, or numbers aligned with the candidates as they are given; NaN, like a missing id, means unknown. */
export type PriorValues = Readonly<Record<string, number>> | ReadonlyMap<string, number> | ArrayLike<number>;

/** A prior with a weight. Bare values weigh 1. */
export interface WeightedPrior {
  values: PriorValues;
  /** How much one standard deviation of it counts, in standard deviations of content; a negative one turns it around. */
  weight?: number;
}

export type PriorLike = PriorValues | WeightedPrior;

/** A checked prior, to be looked up by candidate. */
export class Priors {
  private readonly weight: number;
  private readonly list: number[] | null = null;
  private known: Map<string, number> = new Map();

  /** @throws {ArgumentError | ArgumentTypeError} It is no prior. */
  constructor(prior: unknown) {
    const isWeighted = typeof prior === "object" && prior !== null && typeof (prior as WeightedPrior).values === "object";
    const { values, weight = 1 } = isWeighted ? (prior as WeightedPrior) : { values: prior };
    if (typeof weight !== "number") throw new ArgumentTypeError(`weight must be a number, not ${typeName(weight)}`);
    if (!Number.isFinite(weight)) throw new ArgumentError(`weight must be finite, not ${weight}`);
    this.weight = weight;
    if (values instanceof Map) this.known = values;
    else if (Array.isArray(values) || ArrayBuffer.isView(values)) this.list = checked(Array.from(values as ArrayLike<number>));
    else if (typeof values === "object" && values !== null) this.known = new Map(Object.entries(values as Record<string, number>));
    else {
      throw new ArgumentTypeError(
        `prior must map ids to numbers, or be a list of numbers as long as candidates, not ${typeName(values)}`,
      );
    }
  }

  /** Say which candidates a list belongs to: ids as given, duplicates included; null if they were not given. */
  align(ids: readonly string[] | null): void {
    if (!this.list) return;
    if (!ids) {
      throw new ArgumentError(
        "prior is a list, but candidates were left out, so there is nothing to align it with: " +
          "pass a mapping from id to number, or candidates: rec.store.select(ids)",
      );
    }
    if (ids.length !== this.list.length) {
      throw new ArgumentError(
        `prior has ${this.list.length} values for ${ids.length} candidates: pass one for each (NaN where unknown), ` +
          "or a mapping from id to number",
      );
    }
    this.known = new Map();
    ids.forEach((id, n) => this.known.has(id) || this.known.set(id, this.list![n]!));
  }

  /** What the prior adds to each score. */
  bonus(ids: readonly string[]): Float32Array {
    const values = checked(ids.map((id) => this.known.get(id) ?? NaN));
    const standard = standardized(values.filter((v) => !Number.isNaN(v)));
    let next = 0;
    return Float32Array.from(values, (v) => (Number.isNaN(v) ? 0 : this.weight * standard[next++]!));
  }
}

/** The same with mean 0 and standard deviation 1; all 0 where values do not differ. */
export function standardized(values: ArrayLike<number>): Float64Array {
  const given = Float64Array.from(values);
  const sum = (numbers: Float64Array): number => numbers.reduce((a, b) => a + b, 0);
  const mean = sum(given) / given.length;
  const spread = Math.sqrt(sum(given.map((v) => (v - mean) ** 2)) / given.length);
  // Rounding makes the standard deviation of equal numbers a little more than 0.
  const least = 1e-12 * given.reduce((top, v) => Math.max(top, Math.abs(v)), 1);
  return spread > least ? given.map((v) => (v - mean) / spread) : given.fill(0);
}

function checked(values: unknown[]): number[] {
  for (const v of values) {
    if (typeof v !== "number") {
      throw new ArgumentTypeError("prior must hold numbers only; use NaN, or leave the id out, where unknown");
    }
    if (v === Infinity || v === -Infinity) {
      throw new ArgumentError("prior must hold finite numbers; use NaN, or leave the id out, where unknown");
    }
  }
  return values as number[];
}
