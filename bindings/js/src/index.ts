/**
 * linkedout-edge: ranks local videos by what was watched, on the device itself. The same bundle, words and answers as the
 * Python package; docs/bindings-js.md says what differs.
 */

import "./telemetry.js"; // first of all

export type { BundleReader } from "./bundle.js";
export type { Decoder } from "./encoder.js";
export * from "./errors.js";
export { prepareFrames, type Frames, type FramesLike } from "./frames.js";
export type { ExportedEvent, History } from "./history.js";
export { Event, Video, type EventFields, type EventLike, type VideoFields, type VideoLike } from "./inputs.js";
export type { Ort, OrtLike } from "./ort.js";
export type { PriorLike, PriorValues, WeightedPrior } from "./prior.js";
export type { Interest, TasteSummary } from "./profile.js";
export type { Explanation, Failed, Ranked, Ranking, Role, Source, Timing } from "./ranking.js";
export {
  Recommender, type EncodeOptions, type EncodeResult, type Info, type LoadOptions, type RankOptions,
} from "./recommender.js";
export type { Changes, EventRecord, Storage, VideoRecord } from "./storage.js";
export type { Selection, StoreStats, TokenStore } from "./store.js";
export { readFrames } from "./video.js";
