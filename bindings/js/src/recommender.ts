/** `Recommender`: joins bundle, encoder, store, history and scoring, and nothing else. */

import { Bundle, IN_NODE, type BundleReader } from "./bundle.js";
import { Encoder, type Decoder } from "./encoder.js";
import { ArgumentError, ArgumentTypeError, ClosedError, StorageError, VideoError, typeName } from "./errors.js";
import { History } from "./history.js";
import { Event, Video, asEvents, asVideo, asVideos, checkList, type EventLike, type VideoLike } from "./inputs.js";
import { Intake, type Job } from "./intake.js";
import { flag, fraction, known, positive } from "./options.js";
import type { Ort, OrtLike } from "./ort.js";
import { Priors, type PriorLike } from "./prior.js";
import type { TasteSummary } from "./profile.js";
import { Ranker } from "./ranker.js";
import type { Failed, Ranked, Ranking, Timing } from "./ranking.js";
import { Queue, type Storage } from "./storage.js";
import { Selection, TokenStore } from "./store.js";
import { MAX_EVENTS, Space } from "./taste.js";
import { Tokenizer } from "./tokenizer.js";
import { readFrames } from "./video.js";

const BATCH = 64;
const BATCH_MS = 2000;

export interface LoadOptions {
  /** `onnxruntime-web` or `onnxruntime-node`, or a function that imports it. */
  ort: OrtLike;
  /** A bundle's folder as a path (Node) or URL, or a reader. */
  bundle: string | URL | BundleReader;
  /** Which of its precisions; its first, if left out. */
  precision?: string;
  /**
   * Keeps history and store: a folder in Node, the name of an IndexedDB database in a browser; of this app alone. Without
   * it both live in memory.
   */
  dataDir?: string;
  /** Keeps them somewhere else. */
  storage?: Storage;
  /** Threads of ONNX Runtime on the CPU; in a browser set `ort.env.wasm.numThreads` instead. */
  threads?: number;
  /** Further options of `InferenceSession.create`, such as `executionProviders`. */
  sessionOptions?: object;
  /** Makes frames of files; left out, the browser's `<video>`. */
  decoder?: Decoder;
  /** Most videos of the store; beyond it the least recently used leaves. */
  maxVideos?: number;
}

export interface RankOptions {
  /** Give only so many. */
  topK?: number;
  /** From 0 (by score alone) to 1: how much the best 200 are reordered so that neighbors differ. */
  diversity?: number;
  /** Leave out candidates that are in the history. */
  excludeWatched?: boolean;
  /** Of near-identical videos give the best placed one only. */
  foldDuplicates?: boolean;
  /** What you know besides content; standardized over the candidates and added to the score. */
  prior?: PriorLike | null;
  /** From 0 (off) to 1: how much it counts that little is known of a video, which resembles nothing that was watched. */
  explore?: number;
}

export interface EncodeOptions {
  /** Called after each video. What it throws stops the work and is thrown here; what was encoded before stays. */
  progress?: (done: number, total: number) => void;
  /** Stops after the video that is being encoded, which is kept. */
  signal?: AbortSignal;
}

/** What `Recommender.encode` did. */
export interface EncodeResult {
  /** Ids that were encoded. */
  encoded: string[];
  /** Ids that were in the store already. */
  unchanged: string[];
  failed: Failed[];
}

/** What runs. */
export interface Info {
  bundle: string;
  precision: string;
  /** Tokens are interchangeable within one. */
  tokenSpace: string;
  layerNames: string[];
  /** At most so many frames of a video are read, each squashed to a square of this side. */
  frames: number;
  frameSize: number;
  /** Library → version. */
  versions: Record<string, string>;
  /** Measure → value against fp32, from the manifest. */
  agreement: Record<string, number>;
}

interface Spent {
  decode: number;
  encode: number;
}

/** Ranks videos by what was watched, on this device. Make one with `Recommender.load`. */
export class Recommender {
  private readonly ranker: Ranker;
  private readonly encoding = new Queue();
  private closed = false;
  /** What was watched. */
  readonly history: History;

  private constructor(
    private readonly bundle: Bundle,
    private readonly encoder: Encoder,
    /** Layer tokens of the videos that were encoded. */
    readonly store: TokenStore,
    events: Awaited<ReturnType<typeof TokenStore.open>>["events"],
    private readonly versions: Record<string, string>,
  ) {
    const { userModel, layerNames } = bundle.manifest;
    this.ranker = new Ranker(store, Space.made(userModel), layerNames);
    const forgotten = (): void => this.ranker.forget();
    store.forgotten = forgotten;
    this.history = new History(store, events, (video) => this.ensure(video), forgotten);
  }

  /**
   * Load a bundle. Nothing is fetched but the bundle, and that only where it is given by a URL.
   *
   * @throws {ArgumentError | ArgumentTypeError} Options that make no sense.
   * @throws {BundleError} No such bundle, or one that cannot be used (see its subclasses).
   * @throws {StorageError} `dataDir` cannot be used.
   */
  static async load(options: LoadOptions): Promise<Recommender> {
    if (typeof options !== "object" || options === null) {
      throw new ArgumentTypeError("load takes one object: Recommender.load({ ort, bundle })");
    }
    known(options, ["ort", "bundle", "precision", "dataDir", "storage", "threads", "sessionOptions", "decoder", "maxVideos"]);
    const { bundle, precision, dataDir, threads, sessionOptions = {}, decoder = readFrames, maxVideos } = options;
    if (dataDir !== undefined && (typeof dataDir !== "string" || !dataDir)) {
      throw new ArgumentError("dataDir must be a folder's path, or in a browser a database's name: leave it out to keep nothing");
    }
    if (dataDir !== undefined && options.storage) throw new ArgumentError("dataDir and storage contradict each other: leave one out");
    if (threads !== undefined) positive("threads", threads);
    if (maxVideos !== undefined) positive("maxVideos", maxVideos);
    const opened = await Bundle.open(bundle, precision);
    const { manifest } = opened;
    const { config } = manifest;
    const tokenizer = Tokenizer.fromJson(await opened.tokenizer(), config.vocab_size);
    const model = await opened.encoder();
    const ort = await ortOf(options.ort);
    const encoder = await Encoder.load(ort, model, config, tokenizer, decoder, {
      ...(threads === undefined ? {} : { intraOpNumThreads: threads }),
      interOpNumThreads: 1,
      enableCpuMemArena: false, // memory stays flat on a device
      enableMemPattern: false,
      logSeverityLevel: 3,
      ...sessionOptions,
    });
    let storage: Storage | null = null;
    try {
      storage = options.storage ?? (dataDir === undefined ? null : await openStorage(dataDir));
      const shape = {
        space: manifest.tokenSpace, layers: config.taps.length, perLayer: config.tokens_per_layer, width: config.token_width,
      };
      const { store, events } = await TokenStore.open(shape, storage, maxVideos);
      const versions = Object.entries(ort.env?.versions ?? {}).map(([name, v]) => [name === "common" ? "onnxruntime" : `onnxruntime-${name}`, v]);
      return new Recommender(opened, encoder, store, events, Object.fromEntries(versions) as Record<string, string>);
    } catch (e) {
      await storage?.close();
      await encoder.close();
      throw e;
    }
  }

  /**
   * Rank videos by what was watched. The history is not changed.
   *
   * While nothing is known to be liked, the list begins with videos that differ from each other and from what was skipped.
   * Where the history holds two interests, both get places among the first ten.
   *
   * @param history Watched videos or events, oldest first; left out or null is `rec.history`, `[]` a cold start. Only the
   *   latest 192 count.
   * @param candidates Videos to rank, or what `rec.store.select` gave; left out or null is everything in the store that was
   *   not watched.
   * @returns The ranking; videos that could not be used are in its `failed`.
   * @throws {ArgumentError | ArgumentTypeError} Arguments that make no sense, such as a single string for a list.
   * @throws {BackendError} ONNX Runtime failed.
   * @throws {ClosedError} After `close`.
   */
  async rank(
    history?: Iterable<EventLike> | null, candidates?: Iterable<VideoLike> | Selection | null, options: RankOptions = {},
  ): Promise<Ranking> {
    const start = performance.now();
    this.checkOpen();
    known(options, ["topK", "diversity", "excludeWatched", "foldDuplicates", "prior", "explore"]);
    const { topK, diversity = 0, excludeWatched = false, foldDuplicates = false, prior, explore = 0 } = options;
    flag("excludeWatched", excludeWatched);
    const wish = {
      limit: topK === undefined ? null : positive("topK", topK),
      diversity: fraction("diversity", diversity),
      foldDuplicates: flag("foldDuplicates", foldDuplicates),
      priors: prior === undefined || prior === null ? null : new Priors(prior),
      explore: fraction("explore", explore),
    };
    const given = history === undefined || history === null ? [...this.history] : asEvents(history);
    const intake = new Intake(this.store);
    const events: Event[] = [];
    for (const e of given.slice(-MAX_EVENTS)) if (await intake.admit(e.video, "history")) events.push(e);
    const isOpen = candidates === undefined || candidates === null;
    const watched = new Set(excludeWatched || isOpen ? given.map((e) => e.id) : []);
    const chosen = await this.candidates(candidates, watched, intake, wish.priors);

    const spent = { decode: 0, encode: 0 };
    const jobs = await intake.jobs();
    const unpin = this.store.pin(jobs.length ? new Set([...intake.ids, ...chosen]) : []);
    try {
      // A ranking continues from memory where the storage cannot be written: `store.stats().unsaved` says so.
      if (jobs.length) await this.run(jobs, intake, spent, {}).catch((e) => { if (!(e instanceof StorageError)) throw e; });
      this.checkOpen();
      const fitting = performance.now();
      const past = this.ranker.lookUp(events, intake);
      const scoring = performance.now();
      const ranked = this.ranker.rank(past, chosen, wish, intake);
      const end = performance.now();
      return asRanking(ranked, intake.failed, {
        ...spent, user: (scoring - fitting) / 1000, score: (end - scoring) / 1000, total: (end - start) / 1000,
      });
    } finally {
      unpin();
    }
  }

  /**
   * Put videos into the store, so that ranking them costs next to nothing. Files that changed are encoded again.
   *
   * @throws {ArgumentError | ArgumentTypeError} Arguments that make no sense.
   * @throws {BackendError} ONNX Runtime failed; what was encoded before stays.
   * @throws {StorageError} `dataDir` cannot be written; what could not be kept there is in memory.
   */
  async encode(videos: Iterable<VideoLike>, options: EncodeOptions = {}): Promise<EncodeResult> {
    this.checkOpen();
    known(options, ["progress", "signal"]);
    const intake = new Intake(this.store, true);
    for (const video of asVideos(videos)) await intake.admit(video, "video");
    const encoded = await this.run(await intake.jobs(), intake, { decode: 0, encode: 0 }, options);
    const { failed } = intake;
    const left = new Set([...encoded, ...failed.filter((f) => f.code !== "conflict").map((f) => f.id)]);
    return { encoded, unchanged: intake.ids.filter((id) => !left.has(id) && this.store.has(id)), failed };
  }

  /**
   * What is believed of the user, to be shown to them.
   *
   * @param history As of `rank`. Videos that are not in the store do not count.
   */
  taste(history?: Iterable<EventLike> | null): TasteSummary {
    this.checkOpen();
    const given = history === undefined || history === null ? [...this.history] : asEvents(history);
    const stored = given.filter((e) => this.store.has(e.id));
    return this.ranker.summary(this.ranker.lookUp(stored.slice(-MAX_EVENTS), new Intake(this.store)));
  }

  /** Remove a video from history and store; whether it was in one of them. */
  async forget(id: string): Promise<boolean> {
    this.checkOpen();
    if (typeof id !== "string") throw new ArgumentTypeError(`id must be a string, not ${typeName(id)}`);
    return this.encoding.run(async () => {
      const events = await this.history.forget(id);
      return (await this.store.remove(id)) > 0 || events > 0;
    });
  }

  /** Run the encoder once, so that the first ranking does not pay for planning; gives the seconds. */
  async warmup(): Promise<number> {
    this.checkOpen();
    const start = performance.now();
    const { frame_size: size } = this.bundle.manifest.config;
    await this.encoding.run(() => this.encoder.encode(new Uint8Array(size * size * 3), null));
    return (performance.now() - start) / 1000;
  }

  /** What runs. */
  info(): Info {
    this.checkOpen();
    const { name, tokenSpace, layerNames, config } = this.bundle.manifest;
    return {
      bundle: name, precision: this.bundle.precision, tokenSpace, layerNames: [...layerNames],
      frames: config.frames, frameSize: config.frame_size, versions: { ...this.versions }, agreement: { ...this.bundle.agreement },
    };
  }

  /** Release model, history and store; twice is fine. Any later call throws `ClosedError`. */
  async close(): Promise<void> {
    if (this.closed) return;
    this.closed = true;
    await this.encoding.run(async () => {
      this.ranker.forget();
      await this.store.close();
      this.history.close();
      await this.encoder.close();
    });
  }

  private checkOpen(): void {
    if (this.closed) throw new ClosedError("the recommender was closed: load a new one with Recommender.load(...)");
  }

  /** Distinct ids in input order, without `watched` and without those that failed already. */
  private async candidates(
    candidates: Iterable<VideoLike> | Selection | null | undefined, watched: Set<string>, intake: Intake, priors: Priors | null,
  ): Promise<string[]> {
    if (candidates === undefined || candidates === null) {
      priors?.align(null);
      return [...this.store].filter((id) => !watched.has(id));
    }
    if (candidates instanceof Selection) {
      if (candidates.store !== this.store) {
        throw new ArgumentError("the selection was made by another recommender's store: call rec.store.select again");
      }
      for (const id of candidates.missing) {
        if (await intake.admit(new Video({ id }), "candidate")) continue; // encoded or missing: said with the jobs
      }
      priors?.align(candidates.ids);
      return candidates.ids.filter((id) => !watched.has(id));
    }
    const videos = Array.from(checkList(candidates, "candidates"), (c, n) => asVideo(c, `candidates[${n}]`));
    priors?.align(videos.map((v) => v.id));
    const chosen = new Set<string>();
    for (const v of videos) if (!watched.has(v.id) && (await intake.admit(v, "candidate"))) chosen.add(v.id);
    return [...chosen];
  }

  /** Encode jobs, one after the other, and write what was encoded; gives the ids. */
  private async run(jobs: readonly Job[], intake: Intake, spent: Spent, { progress, signal }: EncodeOptions): Promise<string[]> {
    const total = intake.ids.length;
    let done = total - jobs.length;
    const encoded: string[] = [];
    const work = async (): Promise<void> => {
      let written = performance.now();
      if (done || !jobs.length) progress?.(done, total);
      for (const { id, video, title } of jobs) {
        if (signal?.aborted) break;
        this.checkOpen();
        try {
          await this.encodeOne(id, video, title, spent);
          encoded.push(id);
        } catch (e) {
          if (!(e instanceof VideoError)) throw e;
          intake.failEverywhere(id, e);
        }
        progress?.(++done, total);
        if (encoded.length % BATCH === 0 || performance.now() - written > BATCH_MS) {
          await this.store.flush();
          written = performance.now();
        }
      }
    };
    await this.encoding.run(async () => {
      try {
        await work();
      } catch (e) {
        await this.store.flush().catch(() => undefined); // what went wrong first is thrown
        throw e;
      }
      await this.store.flush();
    });
    return encoded;
  }

  private async encodeOne(id: string, video: Video, title: string | null, spent: Spent): Promise<void> {
    const start = performance.now();
    const content = await video.content();
    const prepared = await this.encoder.prepare(video);
    const ready = performance.now();
    const { tokens, scales } = await this.encoder.encode(prepared, title);
    this.checkOpen();
    spent.decode += (ready - start) / 1000;
    spent.encode += (performance.now() - ready) / 1000;
    const { size = null, lastModified = null } = (video.file ?? {}) as Partial<File>;
    this.store.put(id, tokens, scales, { content, title, size, modified: lastModified });
  }

  /** Put one video into the store, or throw why it cannot be. */
  private async ensure(video: Video): Promise<void> {
    const intake = new Intake(this.store);
    await intake.admit(video, "video");
    const jobs = await intake.jobs();
    const why = intake.unusable.get(video.id);
    if (why) throw why;
    await this.encoding.run(async () => {
      for (const job of jobs) await this.encodeOne(job.id, job.video, job.title, { decode: 0, encode: 0 });
    });
  }
}

async function ortOf(given: OrtLike): Promise<Ort> {
  const module = typeof given === "function" && !("InferenceSession" in given) ? await given() : given;
  const found = [module, (module as { default?: unknown })?.default].find((m) => (m as Ort)?.InferenceSession) as Ort | undefined;
  if (!found) {
    throw new ArgumentTypeError(
      'ort must be ONNX Runtime: import * as ort from "onnxruntime-web" (or "onnxruntime-node"), and pass { ort }',
    );
  }
  return found;
}

async function openStorage(dataDir: string): Promise<Storage> {
  if (IN_NODE) return (await import("./folder.js")).openFolder(dataDir);
  return (await import("./indexeddb.js")).openIndexedDb(dataDir);
}

function asRanking(ranked: Ranked[], failed: Failed[], timing: Timing): Ranking {
  return Object.defineProperties(ranked, {
    ids: { get: () => ranked.map((r) => r.id) },
    scores: { get: () => Float32Array.from(ranked, (r) => r.score) },
    failed: { value: failed },
    timing: { value: timing },
  }) as unknown as Ranking;
}
