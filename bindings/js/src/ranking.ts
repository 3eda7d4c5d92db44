/** What callers get back: `Ranking`, `Ranked`, `Failed`, and the `Explanation` of a place. */

import type { FailureCode } from "./errors.js";
import type { Event } from "./inputs.js";
import { USUAL } from "./taste.js";

export type Role = "candidate" | "history" | "video";

/** One video that could not be used, and why; it never spoils the rest. */
export interface Failed {
  id: string;
  /** Where it stood. */
  role: Role;
  /** Stable, for programs. */
  code: FailureCode;
  /** For people. */
  reason: string;
}

/** Seconds of wall time that a call spent, by part. */
export interface Timing {
  decode: number;
  encode: number;
  user: number;
  score: number;
  total: number;
}

/** Why a video stands where it stands, exactly. */
export interface Explanation {
  id: string;
  /**
   * [N][L]: what each watched video adds to the score by each layer, compared with the average video, which has the
   * score 0. With `prior` and `explored` it sums to the score.
   */
  matrix: number[][];
  /** Ids of the N watched videos, oldest first. */
  history: string[];
  layerNames: string[];
  /** The strongest entries in words. */
  sentence: string;
  score: number;
  /** The part of the score that the app's prior added. */
  prior: number;
  /** The part that `explore` added, because little is known of such videos. */
  explored: number;
}

/**
 * `content`: scored by what is in it (plus the prior). `cold_start`: nothing is known to be liked yet, so the list begins
 * with videos that differ. `prior`: the same, but the prior alone decided.
 */
export type Source = "content" | "cold_start" | "prior";

/** One place of a ranking. */
export class Ranked {
  readonly #layers: Float32Array;
  readonly #explain: () => Explanation;

  constructor(
    /** From 1, the best. */
    readonly rank: number,
    readonly id: string,
    /** In standard deviations of the calibration set. */
    readonly score: number,
    readonly source: Source,
    layers: Float32Array,
    explain: () => Explanation,
  ) {
    this.#layers = layers;
    this.#explain = explain;
  }

  /** What each of the L layers contributes; they sum to the score, less what prior and `explore` added. */
  get layers(): number[] {
    return [...this.#layers];
  }

  /** Why it stands here. */
  explain(): Explanation {
    return this.#explain();
  }

  toJSON(): { rank: number; id: string; score: number; layers: number[]; source: Source } {
    return { rank: this.rank, id: this.id, score: this.score, layers: this.layers, source: this.source };
  }
}

/** Videos, best first: an array with what belongs to the whole ranking. */
export interface Ranking extends ReadonlyArray<Ranked> {
  /** The ids, best first. */
  readonly ids: string[];
  /** The scores, best first. */
  readonly scores: Float32Array;
  readonly failed: Failed[];
  readonly timing: Timing;
}

const NOTHING_KNOWN = "Nothing is known of your taste yet, so the list begins with videos that differ from each other.";

/** One plain sentence: the watched videos that add most to the score, in its direction. */
export function sentenceOf(events: readonly Event[], matrix: readonly number[][], prior: number, name: (e: Event) => string): string {
  if (!events.length) {
    if (!prior) return NOTHING_KNOWN;
    return `Nothing was watched yet; the app's prior ranks it ${prior > 0 ? "above" : "below"} the average.`;
  }
  const perVideo = new Map<string, number>();
  const latest = new Map<string, Event>();
  events.forEach((event, n) => {
    const row = matrix[n]!.reduce((a, b) => a + b, 0);
    perVideo.set(event.id, (perVideo.get(event.id) ?? 0) + row);
    latest.set(event.id, event);
  });
  const total = [...perVideo.values()].reduce((a, b) => a + b, 0);
  const sign = total >= 0 ? 1 : -1;
  const strongest = [...perVideo].map(([id, v]) => [id, sign * v] as const).filter(([, v]) => v > 1e-9);
  strongest.sort((a, b) => b[1] - a[1]);
  if (!strongest.length) return "Nothing that you watched speaks for or against it, so it keeps its place in the list.";
  const named = strongest.slice(0, 2).filter(([, v]) => v >= 0.5 * strongest[0]![1]);
  const causes = new Map<string, string[]>();
  for (const [id] of named) {
    const event = latest.get(id)!;
    const key = causeOf(event, sign).join("|");
    causes.set(key, [...(causes.get(key) ?? []), `“${name(event)}”`]);
  }
  const phrases = [...causes].map(([key, names]) => {
    const [cause, verb] = key.split("|");
    const listed = names.join(" and ");
    return cause ? `it ${cause} ${listed}, which you ${verb}` : `you ${verb} ${listed}`;
  });
  return `${sign > 0 ? "Recommended" : "Ranked low"} because ${phrases.join(", and because ")}.`;
}

/** How what the user did with a video speaks for (+) or against (-) the ranked one, and what they did. */
function causeOf(event: Event, sign: number): [cause: string, verb: string] {
  const repels = event.liked === null ? event.watched < USUAL : !event.liked;
  const verb = event.liked === null ? (repels ? "skipped" : "watched") : repels ? "disliked" : "liked";
  if (sign > 0) return [repels ? "is unlike" : "", verb];
  return [repels ? "resembles" : "is unlike", verb];
}
