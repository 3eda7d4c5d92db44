/**
 * The rolling history: what was watched, latest last; in memory, and in the storage. Tokens that came into the store with
 * an event leave it with the event; those that `encode` or a ranking put there stay.
 */

import { ArgumentError, ArgumentTypeError, ClosedError, PackError, typeName } from "./errors.js";
import { asVideo, Event, Video, type EventFields, type VideoLike } from "./inputs.js";
import { known } from "./options.js";
import type { EventRecord } from "./storage.js";
import type { TokenStore } from "./store.js";
import { readHistory, writeHistory } from "./tokenfile.js";

const MAX_EVENTS = 256;
const MAX_AGE = 365 * 24 * 3600;
const SURE_AFTER = 7 * 24 * 3600;
const MAX_BYTES = 2 ** 28;

interface StoredEvent {
  key: number;
  event: Event;
  addedAt: number;
  /** Whether its video was encoded only for the history: its tokens leave the store with it. */
  autoEncoded: boolean;
}

/** An event as plain JSON values. */
export interface ExportedEvent {
  id: string;
  title: string | null;
  watched: number;
  liked: boolean | null;
  /** ISO 8601. */
  at: string | null;
}

/** Events in the order in which they were added, whatever the clock said then. At most 256, and a year. */
export class History {
  private entries: StoredEvent[];
  private unpin: () => void = () => undefined;
  private closed = false;

  /**
   * @internal
   * @param store Where the videos' tokens are.
   * @param records What the storage held.
   * @param encode Puts a video into the store, or throws the `VideoError` that says why not.
   * @param forgotten Called after events were removed: what was derived from them goes too.
   * @param clock Present time in Unix seconds.
   */
  constructor(
    private readonly store: TokenStore,
    records: readonly EventRecord[],
    private readonly encode: (video: Video) => Promise<void>,
    private readonly forgotten: () => void,
    private readonly clock: () => number = () => Date.now() / 1000,
  ) {
    this.entries = records.map(({ key, id, title, watched, liked, at, recorded, brought }) => ({
      key, addedAt: recorded, autoEncoded: brought, event: Event.at(new Video({ id, title }), watched, liked, at),
    }));
    this.hold(this.entries);
  }

  /**
   * Note that a video was watched; when this is done, the video is encoded and kept, on the disk if there is one.
   *
   * @param video A video, or the complete `EventFields`.
   * @param fields `at` is now, if left out.
   * @returns The event as kept: without content, which is not needed any more.
   * @throws {VideoError} The video cannot be used (see its subclasses); the history is unchanged.
   * @throws {StorageError} It cannot be written; the history is unchanged.
   */
  async add(video: VideoLike | EventFields | Event, fields: Omit<EventFields, "video"> = {}): Promise<Event> {
    this.checkOpen();
    const isComplete = video instanceof Event || (typeof video === "object" && video !== null && "video" in video);
    known(fields, ["watched", "liked", "at"]);
    if (isComplete && Object.keys(fields).length) {
      throw new ArgumentError(`an event is complete: set ${Object.keys(fields).join(", ")} in the event itself`);
    }
    const event =
      video instanceof Event ? video
      : isComplete ? new Event(video)
      : new Event({ video: asVideo(video), at: new Date(this.clock() * 1000), ...fields });
    const { id } = event;
    const unpin = this.store.pin([id]); // it must not be evicted between encoding and keeping
    try {
      const autoEncoded = !this.store.has(id) || this.wasAutoEncoded(id);
      await this.encode(event.video);
      const kept = Event.at(event.video.withoutContent(), event.watched, event.liked, event.time);
      await this.change(() => false, [[kept, autoEncoded]]);
      return kept;
    } finally {
      unpin();
    }
  }

  /**
   * Remove the events of one video, or all since a moment, from memory and disk.
   *
   * @param what Id of the video, or since when: a `Date`, or how many milliseconds ago. Events of unknown age count by when
   *   they were added.
   * @returns How many events were removed.
   * @throws {StorageError} It cannot be written; nothing was removed.
   */
  async forget(what: string | { since: Date | number }): Promise<number> {
    this.checkOpen();
    if (typeof what === "string") return this.dropWhere((e) => e.event.id === what);
    const since = what?.since;
    if (!(since instanceof Date) && typeof since !== "number") {
      throw new ArgumentTypeError(
        `forget takes an id or { since: Date or milliseconds }, not ${typeName(what)}; clear() forgets everything`,
      );
    }
    const moment = since instanceof Date ? since.getTime() / 1000 : this.clock() - since / 1000;
    if (Number.isNaN(moment)) throw new ArgumentError("since is an invalid Date");
    return this.dropWhere((e) => (e.event.time ?? e.addedAt) >= moment);
  }

  /** Forget everything; gives how many events there were. */
  async clear(): Promise<number> {
    this.checkOpen();
    return this.dropWhere(() => true);
  }

  /** All events as plain JSON values, oldest first. */
  export(): ExportedEvent[] {
    return Array.from(this, (e) => ({
      id: e.id, title: e.video.title, watched: e.watched, liked: e.liked, at: e.at?.toISOString() ?? null,
    }));
  }

  /** All events, and the tokens of their videos, as one safetensors file that Python and other bindings read too. */
  save(): Uint8Array {
    const events = [...this].filter((e) => this.store.has(e.id));
    const ids = [...new Set(events.map((e) => e.id))];
    return writeHistory(events, ids.map((id) => this.store.fileVideo(id)), this.store.shape);
  }

  /**
   * Add the events of a file that `save` or another binding wrote, behind those that are here. An event that is here already
   * is not added again. Videos that the store knows keep the tokens that they have.
   *
   * @returns How many events were added.
   * @throws {TokenSpaceError} It was saved with another model.
   * @throws {PackError} It is damaged or another kind of file; the history is unchanged.
   * @throws {StorageError} It cannot be written; the history is unchanged.
   */
  async load(bytes: Uint8Array, { maxBytes = MAX_BYTES } = {}): Promise<number> {
    this.checkOpen();
    if (bytes.length > maxBytes) {
      throw new PackError(`the saved history has ${bytes.length} bytes, more than the ${maxBytes} allowed: raise maxBytes if you trust it`);
    }
    const { events, videos } = readHistory(bytes, this.store.shape);
    const here = [...this];
    const added = events.filter((event) => {
      const at = here.findIndex((e) => e.equals(event));
      if (at >= 0) here.splice(at, 1);
      return at < 0;
    });
    const wanted = new Set(added.map((e) => e.id));
    const unpin = this.store.pin(wanted);
    try {
      const fresh = new Set([...wanted].filter((id) => !this.store.has(id)));
      for (const { id, title, content, tokens, scales } of videos) {
        if (fresh.has(id)) this.store.put(id, tokens, scales, { title, content, size: null, modified: null });
      }
      await this.change(() => false, added.map((e) => [e, fresh.has(e.id) || this.wasAutoEncoded(e.id)]));
    } finally {
      unpin();
    }
    return added.length;
  }

  /** Events, oldest first. */
  [Symbol.iterator](): Iterator<Event> {
    this.checkOpen();
    return this.young().map((e) => e.event)[Symbol.iterator]();
  }

  get length(): number {
    return this.young().length;
  }

  /** @internal Release the memory. */
  close(): void {
    this.closed = true;
    this.entries = [];
  }

  private checkOpen(): void {
    if (this.closed) throw new ClosedError("the history was closed with its recommender: load a new one");
  }

  /** Those that are not too old. */
  private young(): StoredEvent[] {
    const oldest = this.clock() - MAX_AGE;
    return this.entries.filter((e) => e.event.time === null || e.event.time >= oldest);
  }

  /**
   * Those that are too old for sure: a newer event that is itself a week old says so too, so that a clock that jumps years
   * ahead, and back, empties nothing.
   */
  private expired(entries: readonly StoredEvent[]): Set<StoredEvent> {
    const now = this.clock();
    let reached = now;
    for (const e of [...entries].reverse()) {
      reached = Math.min(reached, e.addedAt); // an event that was added later proves that the time then was not later
      if (reached <= now - SURE_AFTER) {
        const oldest = reached - MAX_AGE;
        return new Set(entries.filter((x) => x.event.time !== null && x.event.time < oldest));
      }
    }
    return new Set();
  }

  /** Whether the tokens were encoded only for an event. */
  private wasAutoEncoded(id: string): boolean {
    return this.entries.some((e) => e.autoEncoded && e.event.id === id);
  }

  private async dropWhere(gone: (e: StoredEvent) => boolean): Promise<number> {
    const count = await this.change(gone, [], true);
    this.forgotten();
    return count;
  }

  /** Add events, each with whether it was encoded only for the history; remove what is to go or out of bounds. */
  private change(gone: (e: StoredEvent) => boolean, added: readonly (readonly [Event, boolean])[], purge = false): Promise<number> {
    return this.store.writes.run(async () => {
      this.checkOpen();
      const now = this.clock();
      const next = (this.entries.at(-1)?.key ?? 0) + 1;
      const more = added.map(([event, autoEncoded], n) => ({ key: next + n, event, autoEncoded, addedAt: now }));
      const entries = [...this.entries, ...more];
      const old = this.expired(entries);
      const toGo = entries.filter(gone);
      const left = entries.filter((e) => !old.has(e) && !toGo.includes(e)).slice(-MAX_EVENTS);
      const stay = new Set(left);
      const still = new Set(left.map((e) => e.event.id));
      const leaving = entries.filter((e) => !stay.has(e));
      const remove = new Set(leaving.filter((e) => e.autoEncoded && !still.has(e.event.id)).map((e) => e.event.id));
      const changes = {
        add: more.filter((e) => stay.has(e)).map(record),
        drop: leaving.filter((e) => e.key < next).map((e) => e.key),
        remove: [...remove],
      };
      await this.store.write(changes, purge);
      this.hold(left);
      return toGo.length;
    });
  }

  /** Make these the events, and keep their videos from being evicted. */
  private hold(entries: StoredEvent[]): void {
    const before = this.unpin;
    this.entries = entries;
    this.unpin = this.store.pin(entries.map((e) => e.event.id));
    before();
  }
}

/** As the storage keeps it; its names are part of the format. */
function record({ key, event, addedAt, autoEncoded }: StoredEvent): EventRecord {
  const { id, video, watched, liked, time } = event;
  return { key, id, title: video.title, watched, liked, at: time, recorded: addedAt, brought: autoEncoded };
}
