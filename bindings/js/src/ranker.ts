/** Stored events and candidates → scores, order and evidence; everything is stored by now. */

import { arrangeUnknown, WINDOW as UNKNOWN_WINDOW } from "./coldstart.js";
import { notStored } from "./encoder.js";
import { ArgumentError } from "./errors.js";
import type { Event } from "./inputs.js";
import type { Intake } from "./intake.js";
import { findInterests, takeTurns, WINDOW as SHARED_WINDOW } from "./interests.js";
import { rerank, unitTokens } from "./listwise.js";
import { standardized, type Priors } from "./prior.js";
import { summarize, type TasteSummary } from "./profile.js";
import { Ranked, sentenceOf, type Explanation, type Source } from "./ranking.js";
import { inDigits, score, type WholeQuery } from "./scorer.js";
import type { TokenStore } from "./store.js";
import { dequantize, fit, noise, wanted, type Space, type Taste } from "./taste.js";

const KEPT_FOR_EXPLAINING = 4096;

/** How the list is to be made; see `Recommender.rank`. */
export interface Wish {
  limit: number | null;
  diversity: number;
  foldDuplicates: boolean;
  priors: Priors | null;
  explore: number;
}

/** A history that was looked up and fitted. */
export interface Past {
  events: readonly Event[];
  user: Taste;
  query: WholeQuery;
  interests: number[][];
  revision: number;
  hour: number;
}

export class Ranker {
  private latest: Past | null = null;

  constructor(
    private readonly store: TokenStore,
    private readonly space: Space,
    private readonly layerNames: string[],
  ) {}

  /** Drop what is remembered of a history. */
  forget(): void {
    this.latest = null;
  }

  /** Find a history's tokens, and fit the user; the same history as before is not fitted again within the hour. */
  lookUp(events: readonly Event[], intake: Intake): Past {
    const usable = this.usable(events, (e) => e.id, "history", intake);
    const hour = Math.floor(Date.now() / 3_600_000);
    const { latest } = this;
    const isSame =
      latest && latest.revision === this.store.revision && latest.hour === hour && latest.events.length === usable.length &&
      usable.every((e, n) => e.equals(latest.events[n]!) && e.video.title === latest.events[n]!.video.title);
    if (isSame) return latest;
    const space = this.space.following(this.store.sum.total(), this.store.sum.count);
    const ages = usable.map((e) => (e.time === null ? null : hour - e.time / 3600));
    const user = fit(
      this.values(usable.map((e) => e.id)),
      Float64Array.from(usable, (e) => wanted(e.watched, e.liked)),
      Float64Array.from(ages, noise),
      space,
    );
    const query = inDigits(user, this.store.shape.perLayer);
    this.latest = { events: usable, user, query, interests: findInterests(user), revision: this.store.revision, hour };
    return this.latest;
  }

  /** Rank candidates, each given once. */
  rank(past: Past, candidates: readonly string[], wish: Wish, intake: Intake): Ranked[] {
    const { store } = this;
    const { user, events } = past;
    const ids = this.usable(candidates, (id) => id, "candidate", intake);
    const rows = Int32Array.from(ids, (id) => store.row(id));
    const layers = store.shape.layers;
    const content = events.length
      ? score(past.query, store.tokens, store.scales, rows)
      : { scores: new Float32Array(ids.length), layers: new Float32Array(ids.length * layers) };
    // While nothing is known to be liked, all is uncertain alike.
    const explored = wish.explore && user.isKnown
      ? Float32Array.from(standardized(user.deviation(this.values(ids))), (v) => Math.fround(v) * wish.explore) : null;
    const bonus = wish.priors?.bonus(ids) ?? null;
    let scores = content.scores;
    for (const more of [explored, bonus]) if (more) scores = scores.map((s, n) => s + more[n]!);

    let source: Source = "content";
    let head = past.interests.length > 1 ? SHARED_WINDOW : 0;
    if (!user.isKnown && !bonus) [source, head] = ["cold_start", UNKNOWN_WINDOW];
    else if (!events.length) source = "prior";
    const limit = wish.limit === null || wish.diversity ? wish.limit : Math.max(wish.limit, head);
    const vectors = (n: number): Float32Array => unitTokens(store.read(ids[n]!).tokens, store.count);
    let order = rerank(scores, limit, vectors, store.count, wish.diversity, wish.foldDuplicates);
    if (head && !wish.diversity) {
      const window = order.slice(0, head);
      const values = this.values(window.map((n) => ids[n]!));
      const ranked = Float64Array.from(window, (n) => scores[n]!);
      const mixed = source === "cold_start" ? arrangeUnknown(user, values, ranked) : takeTurns(user, past.interests, values, ranked);
      order = [...mixed.map((n) => window[n]!), ...order.slice(head)];
    }
    if (wish.limit !== null) order = order.slice(0, wish.limit);

    const kept = order.slice(0, KEPT_FOR_EXPLAINING).map((n) => ids[n]!);
    const { tokens, scales } = this.copies(kept);
    return order.map((n, place) => {
      const id = ids[n]!;
      const stamp = store.stamp(id);
      const values = (): Float32Array => {
        if (place >= kept.length) return this.valuesOf(id, stamp);
        const part = <T extends Int8Array | Float32Array>(a: T, size: number): T => a.subarray(place * size, (place + 1) * size) as T;
        return dequantize(part(tokens, store.size), part(scales, store.count));
      };
      const explain = (): Explanation => this.explain(past, id, scores[n]!, values, bonus?.[n] ?? 0, explored?.[n] ?? 0);
      return new Ranked(place + 1, id, scores[n]!, source, content.layers.subarray(n * layers, (n + 1) * layers), explain);
    });
  }

  /** What is believed of a user. */
  summary(past: Past): TasteSummary {
    return summarize(past.events, past.user, past.interests, [...this.layerNames], (e) => this.name(e));
  }

  /** Values [V, L, W] of stored videos. */
  private values(ids: readonly string[]): Float32Array {
    const { tokens, scales } = this.copies(ids);
    return dequantize(tokens, scales);
  }

  private copies(ids: readonly string[]): { tokens: Int8Array; scales: Float32Array } {
    const { store } = this;
    const tokens = new Int8Array(ids.length * store.size);
    const scales = new Float32Array(ids.length * store.count);
    ids.forEach((id, n) => {
      const row = store.row(id);
      tokens.set(store.tokens.subarray(row * store.size, (row + 1) * store.size), n * store.size);
      scales.set(store.scales.subarray(row * store.count, (row + 1) * store.count), n * store.count);
    });
    return { tokens, scales };
  }

  /** Values of a stored video, if it is still the one that was scored. */
  private valuesOf(id: string, stamp: number): Float32Array {
    if (this.store.stamp(id) !== stamp) {
      throw new ArgumentError("the video left the store or changed since it was ranked: rank again to explain it");
    }
    return this.values([id]);
  }

  private explain(
    { events, user }: Past, id: string, total: number, read: () => Float32Array, prior: number, explored: number,
  ): Explanation {
    const { layers } = user.space;
    const flat = events.length ? Float32Array.from(user.contributions(read())) : new Float32Array(0);
    const matrix = events.map((_, n) => [...flat.subarray(n * layers, (n + 1) * layers)]);
    return {
      id, matrix, history: events.map((e) => e.id), layerNames: [...this.layerNames],
      sentence: sentenceOf(events, matrix, prior, (e) => this.name(e)), score: total, prior, explored,
    };
  }

  /** What to call a watched video: by the event's own title, else by the one that it was encoded with. */
  private name(event: Event): string {
    return event.video.name(this.store.fingerprint(event.id)?.title ?? null);
  }

  /** Those that can be scored; what was removed meanwhile is noted as failed. */
  private usable<T>(things: readonly T[], idOf: (thing: T) => string, role: "candidate" | "history", intake: Intake): T[] {
    return things.filter((thing) => {
      const id = idOf(thing);
      if (intake.unusable.has(id)) return false;
      if (this.store.has(id)) return true;
      intake.fail(id, role, notStored());
      return false;
    });
  }
}
