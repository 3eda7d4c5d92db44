/** `Recommender.taste`: what the model believes a user likes, in a form that an app can show. */

import type { Event } from "./inputs.js";
import { dotSingles } from "./linear.js";
import type { Taste } from "./taste.js";

const LIKED = 5;
const AVOIDED = 3;

/** One thing that a user likes, shown by watched videos. */
export interface Interest {
  /** Its part of the events that attract, from 0 to 1. */
  share: number;
  /** Ids of watched videos that show it best, the best first; at most 5. */
  videos: string[];
}

/** What is believed of a user. */
export interface TasteSummary {
  /** How many events it rests on. */
  events: number;
  /** Interests, one or two, the larger first; empty while nothing is known to be liked. */
  likes: Interest[];
  /** Ids of watched videos whose like is ranked low, the lowest first; at most 3. */
  avoids: string[];
  /** L trusts that sum to 1: at which depth of the model the taste lives. */
  layers: number[];
  layerNames: string[];
  /** The same in words. */
  sentence: string;
}

/** Say what a user's taste is. */
export function summarize(
  events: readonly Event[], user: Taste, interests: readonly number[][], layerNames: string[], name: (e: Event) => string,
): TasteSummary {
  const { layers, width } = user.space;
  const own = events.map((_, n) => {
    let pull = 0; // how hard an event pulls towards its own like
    for (let l = 0; l < layers; l++) {
      const start = (n * layers + l) * width;
      pull += user.weights[n * layers + l]! * dotSingles(user.seen, start, user.seen, start, width);
    }
    return pull;
  });
  const strongest = (places: readonly number[], sign: number, count: number): string[] => {
    const pulls = places.filter((n) => sign * own[n]! > 0).sort((a, b) => sign * (own[b]! - own[a]!) || a - b);
    return [...new Set(pulls.map((n) => events[n]!.id))].slice(0, count);
  };
  const attracting = interests.reduce((sum, g) => sum + g.length, 0);
  const likes = interests.map((g) => ({ share: g.length / attracting, videos: strongest(g, 1, LIKED) }));
  const likedIds = new Set(likes.flatMap((like) => like.videos));
  const avoids = strongest([...events.keys()].filter((n) => !likedIds.has(events[n]!.id)), -1, AVOIDED);
  const byId = new Map(events.map((e) => [e.id, e]));
  const listed = (ids: string[]): string => {
    const names = ids.map((id) => `“${name(byId.get(id)!)}”`);
    return names.length === 1 ? names[0]! : `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`;
  };
  const liked = likes.map((like) => `videos like ${listed(like.videos)}`).join(", and ");
  let sentence = likes.length ? `Likes ${liked}` : "Nothing is known to be liked yet";
  if (avoids.length) sentence += `; avoids videos like ${listed(avoids)}`;
  return { events: events.length, likes, avoids, layers: [...user.gates], layerNames, sentence: `${sentence}.` };
}
