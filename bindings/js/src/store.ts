/** Layer tokens by id: in memory, and in a storage where there is one. */

import { RunningSum } from "./average.js";
import { ArgumentError, ArgumentTypeError, ClosedError, PackError, StorageError, VideoNotFoundError, typeName } from "./errors.js";
import { checkList } from "./inputs.js";
import { Queue, type Changes, type EventRecord, type Storage, type VideoRecord } from "./storage.js";
import { readPack, writePack, type FileVideo, type TokenShape } from "./tokenfile.js";

const MAX_VIDEOS = 100_000;
const MAX_PACK_BYTES = 2 ** 30;
const FIRST_CAPACITY = 64;

/** What the tokens of an id were made from. */
export interface Fingerprint {
  /** Hash of frames, or of a file's size and samples. */
  content: string;
  title: string | null;
  /** Of the file, in bytes and milliseconds: while both are the same it is not read again. */
  size: number | null;
  modified: number | null;
}

/** How full a store is. */
export interface StoreStats {
  videos: number;
  /** Beyond it the least recently used one leaves; what the history holds stays. */
  maxVideos: number;
  payloadBytes: number;
  /** Videos that had to leave so far. */
  evicted: number;
  /** Videos that are only in memory, though there is a `dataDir`: it could not be written to. */
  unsaved: number;
}

/** Ids that were looked up, to be ranked. */
export class Selection {
  constructor(
    readonly store: TokenStore,
    /** What is ranked, in the given order, each once. */
    readonly ids: readonly string[],
    /** Ids that were not in the store. */
    readonly missing: readonly string[],
  ) {}

  get length(): number {
    return this.ids.length;
  }
}

interface Entry extends Fingerprint {
  row: number;
  /** Grows with each change of the store: says whether the tokens are still those that were read. */
  stamp: number;
  used: number;
}

export class TokenStore {
  /** @internal Sum of what is stored. */
  sum: RunningSum;
  /** @internal Changes with every video that comes, changes or leaves. */
  revision = 0;
  /** @internal Called after videos were removed on request: what was derived from them goes too. */
  forgotten: () => void = () => undefined;
  /** @internal int8 [V, L, M, D], and more rows that are not used yet. */
  tokens = new Int8Array(0);
  /** @internal float32 [V, L, M]. */
  scales = new Float32Array(0);
  /** @internal One write after the other. */
  readonly writes = new Queue();
  private entries = new Map<string, Entry>();
  private names: string[] = [];
  private pending = new Set<string>();
  private pins = new Map<string, number>();
  private clock = 0;
  private evicted = 0;
  private leaving: string[] = [];
  private closed = false;

  private constructor(
    /** @internal */
    readonly shape: TokenShape,
    private readonly storage: Storage | null,
    private readonly maxVideos: number,
  ) {
    this.sum = new RunningSum(this.size);
  }

  /** @internal With what the storage holds of the token space; the events are the history's. */
  static async open(
    shape: TokenShape, storage: Storage | null, maxVideos = MAX_VIDEOS,
  ): Promise<{ store: TokenStore; events: EventRecord[] }> {
    const store = new TokenStore(shape, storage, maxVideos);
    const { videos, events } = storage ? await storage.load(shape.space) : { videos: [], events: [] };
    const { size, count } = store;
    for (const { id, title, content, size: bytes, modified, payload } of videos) {
      if (payload.length !== size + 4 * count) throw new StorageError(`the stored tokens of ${id} have another size: remove dataDir`);
      const copy = new Uint8Array(payload); // aligned; a Buffer's slice would be none
      store.set(id, new Int8Array(copy.buffer, 0, size), new Float32Array(copy.slice(size).buffer), { title, content, size: bytes, modified });
    }
    return { store, events };
  }

  /** Whether an id is stored. */
  has(id: string): boolean {
    return this.entries.has(id);
  }

  /** How many videos are stored. */
  get length(): number {
    return this.entries.size;
  }

  /** Ids, in the order in which they came. */
  [Symbol.iterator](): Iterator<string> {
    return [...this.entries.keys()][Symbol.iterator]();
  }

  /**
   * Look ids up for `rank`.
   *
   * @param ids Stored ids, else everything stored. Unknown ones are in `missing` and fail when ranked.
   */
  select(ids?: Iterable<string>): Selection {
    this.checkOpen();
    if (ids === undefined) return new Selection(this, [...this], []);
    const wanted = [...new Set(checkList(ids, "ids") as Iterable<string>)];
    return new Selection(this, wanted.filter((i) => this.has(i)), wanted.filter((i) => !this.has(i)));
  }

  /**
   * Remove one id or several, in all token spaces, and overwrite their tokens. Unknown ids are no error.
   *
   * @returns How many were there.
   * @throws {StorageError} It cannot be written; nothing was removed.
   */
  async remove(ids: string | Iterable<string>): Promise<number> {
    this.checkOpen();
    const wanted = typeof ids === "string" ? [ids] : [...new Set(checkList(ids, "ids") as Iterable<string>)];
    for (const id of wanted) {
      if (typeof id !== "string") throw new ArgumentTypeError(`ids must be strings, not ${typeName(id)}`);
    }
    const found = wanted.filter((i) => this.has(i)).length;
    await this.writes.run(() => this.write({ remove: wanted }, true));
    this.forgotten();
    return found;
  }

  /**
   * Layer tokens, ids, titles and content hashes as one safetensors file, for other devices.
   *
   * @param ids What to write, else everything stored.
   * @throws {VideoNotFoundError} An id is not in the store.
   */
  exportPack(ids?: Iterable<string>): Uint8Array {
    const chosen = this.select(ids);
    if (chosen.missing.length) {
      throw new VideoNotFoundError(
        `${chosen.missing.length} of the ids are not in the store, the first is '${chosen.missing[0]}': encode them ` +
          "first, or leave them out",
      );
    }
    return writePack(chosen.ids.map((id) => this.fileVideo(id)), this.shape);
  }

  /**
   * Take over the videos of a pack; what is stored under their ids is replaced. All of it is checked before.
   *
   * @returns Their ids.
   * @throws {TokenSpaceError} It was made by another model.
   * @throws {PackError} It is no pack, damaged, too large, or of other shapes.
   * @throws {StorageError} It cannot be written; what was taken over is in memory.
   */
  async importPack(bytes: Uint8Array, { maxBytes = MAX_PACK_BYTES } = {}): Promise<string[]> {
    this.checkOpen();
    if (bytes.length > maxBytes) {
      throw new PackError(`the pack has ${bytes.length} bytes, more than the ${maxBytes} allowed: raise maxBytes if you trust it`);
    }
    const videos = readPack(bytes, this.shape);
    if (videos.length > this.maxVideos) {
      throw new PackError(`the pack holds ${videos.length} videos, and the store at most ${this.maxVideos}`);
    }
    for (const v of videos) this.put(v.id, v.tokens, v.scales, { title: v.title, content: v.content, size: null, modified: null });
    await this.flush();
    return videos.map((v) => v.id);
  }

  /** How full the store is. */
  stats(): StoreStats {
    this.checkOpen();
    return {
      videos: this.length,
      maxVideos: this.maxVideos,
      payloadBytes: this.length * (this.size + 4 * this.count),
      evicted: this.evicted,
      unsaved: this.pending.size,
    };
  }

  // What the recommender uses.

  /** @internal Numbers of a video's tokens: L·M·D. */
  get size(): number {
    return this.count * this.shape.width;
  }

  /** @internal Tokens of a video: L·M. */
  get count(): number {
    return this.shape.layers * this.shape.perLayer;
  }

  /** @internal Put tokens under an id, in memory; `flush` writes them. */
  put(id: string, tokens: Int8Array, scales: Float32Array, madeFrom: Fingerprint): void {
    if (!this.has(id) && this.length >= this.maxVideos) this.evict();
    this.set(id, tokens, scales, madeFrom);
    if (this.storage) this.pending.add(id);
  }

  /** @internal Write what was put. */
  async flush(): Promise<void> {
    await this.writes.run(async () => {
      if (this.pending.size || this.leaving.length) await this.write({}, false);
    });
  }

  /** @internal One write of what was put and of `changes`, all or nothing; the caller has its turn in `writes`. */
  async write(changes: Changes, purge: boolean): Promise<void> {
    this.checkOpen();
    const remove = changes.remove ?? [];
    const evicted = this.leaving.filter((id) => !this.has(id));
    const removed = new Set(remove);
    const put = [...this.pending].filter((id) => this.has(id) && !removed.has(id));
    const stamps = put.map((id) => this.entries.get(id)!.stamp);
    if (this.storage) {
      const records = put.map((id) => this.record(id));
      await this.storage.write({ ...changes, put: records, remove: [...remove, ...evicted] }, purge);
    }
    this.leaving = this.leaving.filter((id) => !evicted.includes(id));
    put.forEach((id, n) => this.entries.get(id)?.stamp === stamps[n] && this.pending.delete(id));
    for (const id of remove) this.drop(id);
  }

  /** @internal What an id's tokens were made from; null if it is not stored. */
  fingerprint(id: string): Fingerprint | null {
    return this.entries.get(id) ?? null;
  }

  /** @internal Note that the same content lies in a file that was only touched. */
  setFile(id: string, size: number, modified: number): void {
    Object.assign(this.entries.get(id)!, { size, modified });
    if (this.storage) this.pending.add(id);
  }

  /** @internal Where an id's tokens lie, which is marked as used; -1 if it is not stored. */
  row(id: string): number {
    const entry = this.entries.get(id);
    if (!entry) return -1;
    entry.used = ++this.clock;
    return entry.row;
  }

  /** @internal A number that changes with the tokens of an id; 0 if it is not stored. */
  stamp(id: string): number {
    return this.entries.get(id)?.stamp ?? 0;
  }

  /** @internal Copies of an id's tokens and scales. */
  read(id: string): { tokens: Int8Array; scales: Float32Array } {
    const { row } = this.entries.get(id)!;
    return {
      tokens: this.tokens.slice(row * this.size, (row + 1) * this.size),
      scales: this.scales.slice(row * this.count, (row + 1) * this.count),
    };
  }

  /** @internal */
  fileVideo(id: string): FileVideo {
    const { title, content } = this.entries.get(id)!;
    return { id, title, content, ...this.read(id) };
  }

  /** @internal Keep ids from being evicted until the function that is returned is called. */
  pin(ids: Iterable<string>): () => void {
    const held = [...ids];
    for (const id of held) this.pins.set(id, (this.pins.get(id) ?? 0) + 1);
    return () => {
      for (const id of held.splice(0)) {
        const left = this.pins.get(id)! - 1;
        if (left) this.pins.set(id, left);
        else this.pins.delete(id);
      }
    };
  }

  /** @internal */
  checkOpen(): void {
    if (this.closed) throw new ClosedError("the store was closed with its recommender: load a new one");
  }

  /** @internal Write what was put, if that is possible, and release the memory. */
  async close(): Promise<void> {
    if (this.closed) return;
    await this.flush().catch(() => undefined);
    this.closed = true;
    this.entries.clear();
    this.names = [];
    this.tokens = new Int8Array(0);
    this.scales = new Float32Array(0);
    this.sum = new RunningSum(this.size);
    this.revision++;
    await this.writes.run(async () => this.storage?.close());
  }

  private set(id: string, tokens: Int8Array, scales: Float32Array, madeFrom: Fingerprint): void {
    if (tokens.length !== this.size || scales.length !== this.count) {
      throw new ArgumentError(`tokens of ${id} have ${tokens.length} numbers: expected ${this.size}`);
    }
    const before = this.entries.get(id);
    const row = before?.row ?? this.names.push(id) - 1;
    if (before) this.sum.add(this.part(row), this.partOfScales(row), -1);
    else this.grow(row + 1);
    this.tokens.set(tokens, row * this.size);
    this.scales.set(scales, row * this.count);
    this.sum.add(this.part(row), this.partOfScales(row), 1);
    const { title, content, size, modified } = madeFrom;
    this.entries.set(id, { title, content, size, modified, row, stamp: ++this.revision, used: ++this.clock });
  }

  private part(row: number): Int8Array {
    return this.tokens.subarray(row * this.size, (row + 1) * this.size);
  }

  private partOfScales(row: number): Float32Array {
    return this.scales.subarray(row * this.count, (row + 1) * this.count);
  }

  private grow(rows: number): void {
    if (rows * this.count <= this.scales.length) return;
    const capacity = Math.max(FIRST_CAPACITY, 2 * rows);
    const { tokens, scales } = this;
    this.tokens = new Int8Array(capacity * this.size);
    this.scales = new Float32Array(capacity * this.count);
    this.tokens.set(tokens);
    this.scales.set(scales);
  }

  private drop(id: string): void {
    const entry = this.entries.get(id);
    this.pending.delete(id);
    if (!entry) return;
    const { row } = entry;
    this.sum.add(this.part(row), this.partOfScales(row), -1);
    const moved = this.names.pop()!;
    const last = this.names.length;
    if (row !== last) {
      this.part(row).set(this.part(last));
      this.partOfScales(row).set(this.partOfScales(last));
      this.names[row] = moved;
      this.entries.get(moved)!.row = row;
    }
    this.part(last).fill(0); // removed means gone
    this.partOfScales(last).fill(0);
    this.entries.delete(id);
    this.revision++;
  }

  /** Let the least recently used leave: a hundredth at a time, so that not every video costs a search. */
  private evict(): void {
    const free = [...this.entries].filter(([id]) => !this.pins.has(id));
    free.sort(([, a], [, b]) => a.used - b.used);
    for (const [id] of free.slice(0, Math.max(1, Math.floor(this.maxVideos / 100)))) {
      this.drop(id);
      this.evicted++;
      if (this.storage) this.leaving.push(id);
    }
  }

  private record(id: string): VideoRecord {
    const { title, content, size, modified } = this.entries.get(id)!;
    const { tokens, scales } = this.read(id);
    const payload = new Uint8Array(this.size + 4 * this.count);
    payload.set(new Uint8Array(tokens.buffer));
    payload.set(new Uint8Array(scales.buffer), this.size);
    return { id, space: this.shape.space, title, content, size, modified, payload };
  }
}
