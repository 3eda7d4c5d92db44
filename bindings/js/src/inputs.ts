/**
 * What callers hand in. A mistake in the *call* (a bare string for a list) is thrown here, because nothing sensible can be
 * ranked. A problem of *one video* is found when that video is needed, and becomes an entry of `failed`.
 */

import { blake2b128 } from "./blake2b.js";
import { ArgumentError, ArgumentTypeError, VideoUnreadableError, said, typeName } from "./errors.js";
import { asRgb, type FramesLike } from "./frames.js";
import { fraction } from "./options.js";

const SAMPLE = 64 * 1024;

/** One video: a file, frames that the app has decoded, or the id of a video that is in the store. */
export interface VideoFields {
  /** Its name in rankings, history and store. Left out, it is the file's path or name, or the content hash of the frames. */
  id?: string;
  /** Text that the model reads beside the frames. */
  title?: string | null;
  /** Kept, not copied: do not change them afterwards. */
  frames?: FramesLike;
  /** A file to decode, such as a `File` that was dropped on a page. */
  file?: Blob;
}

/** A checked video. Plain `VideoFields` do as well. */
export class Video {
  readonly title: string | null;
  readonly frames: FramesLike | null;
  readonly file: Blob | null;
  readonly #id: string | null;
  #content: string | null = null;

  /** @throws {ArgumentError | ArgumentTypeError} Fields that make no sense, alone or together. */
  constructor(fields: VideoFields) {
    const { id = null, title = null, frames = null, file = null } = fields;
    for (const [name, value] of Object.entries({ id, title })) {
      if (value !== null && typeof value !== "string") {
        throw new ArgumentTypeError(`${name} must be a string, not ${typeName(value)}`);
      }
    }
    if (id === "") throw new ArgumentError("id must not be empty: leave it out to use the file's name");
    if (file !== null && !(file instanceof Blob)) {
      throw new ArgumentTypeError(`file must be a File or Blob, not ${typeName(file)}; frames go into frames`);
    }
    if (file && frames) throw new ArgumentError("a video has either a file or frames, not both: leave one out");
    if (!file && !frames && id === null) {
      throw new ArgumentError("a video needs a file, frames, or the id of a video that is in the store");
    }
    this.#id = id ?? (file ? pathOf(file) : null);
    if (file && !this.#id) throw new ArgumentError("a Blob has no name: give the video an id");
    this.title = title;
    this.frames = frames;
    this.file = file;
  }

  get id(): string {
    return this.#id ?? this.#hashOfFrames();
  }

  /** Whether there is something to encode. */
  get hasContent(): boolean {
    return this.frames !== null || this.file !== null;
  }

  /**
   * Hash of its frames, or of the file's size and three samples of it; the same as in Python.
   *
   * @throws {VideoUnreadableError} The file cannot be read.
   */
  async content(): Promise<string> {
    if (this.frames) return this.#hashOfFrames();
    return (this.#content ??= this.file ? await hashOfFile(this.file) : "");
  }

  /** What to call it in a sentence: its title, else the one it is known by, else the last part of its id. */
  name(knownTitle: string | null): string {
    const title = this.title?.trim() || knownTitle?.trim();
    return title || (this.id.replace(/\\/g, "/").replace(/\/+$/, "").split("/").at(-1) ?? "") || this.id;
  }

  /** The same without content, which is not needed once it is encoded. */
  withoutContent(): Video {
    return new Video({ id: this.id, title: this.title });
  }

  #hashOfFrames(): string {
    if (this.#content === null) {
      try {
        const { data, shape } = asRgb(this.frames!);
        this.#content = blake2b128(new TextEncoder().encode(`|u1 (${shape.join(", ")})\n`), data);
      } catch {
        this.#content = `<frames: ${typeName(this.frames)}>`; // cannot be ranked; still needs a name to fail under
      }
    }
    return this.#content;
  }
}

async function hashOfFile(file: Blob): Promise<string> {
  const { size } = file;
  const starts = new Set([0, Math.max(0, Math.floor(size / 2) - SAMPLE / 2), Math.max(0, size - SAMPLE)]);
  const parts = [new TextEncoder().encode(String(size))];
  try {
    for (const at of [...starts].sort((a, b) => a - b)) {
      parts.push(new Uint8Array(await file.slice(at, at + SAMPLE).arrayBuffer()));
    }
  } catch (e) {
    throw new VideoUnreadableError(`the file cannot be read: ${said(e)}`);
  }
  return blake2b128(...parts);
}

function pathOf(file: Blob): string | null {
  const { webkitRelativePath, name } = file as Partial<File>;
  return webkitRelativePath || name || null;
}

/** A string is the id of a video that is in the store. */
export type VideoLike = string | Video | VideoFields;

/** One watched video, with what is known of how it was watched. */
export interface EventFields {
  video: VideoLike;
  /** Fraction that was watched, from 0 to 1; 1 if left out. A low one is a skip. */
  watched?: number;
  /** True for a like, false for a dislike. */
  liked?: boolean | null;
  /** When. Null is of unknown age; a moment in the future counts as now. */
  at?: Date | null;
}

export type EventLike = VideoLike | EventFields;

/** A checked event. */
export class Event {
  readonly video: Video;
  readonly watched: number;
  readonly liked: boolean | null;
  /** Unix seconds; a `Date` holds no more than milliseconds. */
  readonly time: number | null;

  /** @throws {ArgumentError | ArgumentTypeError} Fields that make no sense. */
  constructor(fields: EventFields, where = "video") {
    const { watched = 1, liked = null, at = null } = fields;
    this.watched = fraction("watched", watched);
    if (liked !== null && typeof liked !== "boolean") {
      throw new ArgumentTypeError(`liked must be true, false or null, not ${typeName(liked)}`);
    }
    if (at !== null && !(at instanceof Date)) throw new ArgumentTypeError(`at must be a Date, not ${typeName(at)}`);
    if (at && Number.isNaN(at.getTime())) throw new ArgumentError("at is an invalid Date");
    this.video = asVideo(fields.video, where);
    this.liked = liked;
    this.time = at && at.getTime() / 1000;
  }

  /** With a time that is finer than a `Date`. */
  static at(video: Video, watched: number, liked: boolean | null, time: number | null): Event {
    return Object.assign(Object.create(Event.prototype) as Event, { video, watched, liked, time });
  }

  get id(): string {
    return this.video.id;
  }

  get at(): Date | null {
    return this.time === null ? null : new Date(this.time * 1000);
  }

  /** Whether it says the same of the same video. */
  equals(other: Event): boolean {
    return this.id === other.id && this.watched === other.watched && this.liked === other.liked && this.time === other.time;
  }
}

/** Plain fields, a `Video`, or an id as a `Video`; `where` names the argument in the message. */
export function asVideo(value: unknown, where = "video"): Video {
  if (value instanceof Video) return value;
  if (typeof value === "string") return new Video({ id: value });
  if (isFields(value) && !("video" in value)) return new Video(value as VideoFields);
  const hint =
    isFields(value) ? "; an event belongs into the history, pass its video"
    : value instanceof Blob ? "; wrap it: { file }"
    : ArrayBuffer.isView(value) ? "; wrap frames: { frames: { data, shape } }" : "";
  throw new ArgumentTypeError(`${where} must be an id or { id, title, frames, file }, not ${typeName(value)}${hint}`);
}

/** A video or `EventFields` as an `Event`. */
export function asEvent(value: unknown, where = "video"): Event {
  if (value instanceof Event) return value;
  if (isFields(value) && "video" in value) return new Event(value as EventFields, where);
  return new Event({ video: asVideo(value, where) });
}

/** `values`, if they can be a list of videos. */
export function checkList(values: unknown, where: string): Iterable<unknown> {
  if (typeof values === "string") {
    throw new ArgumentTypeError(`${where} must be a list, not a single string: pass [${JSON.stringify(values)}]`);
  }
  const isList = typeof values === "object" && values !== null && Symbol.iterator in values;
  if (!isList || values instanceof Map || ArrayBuffer.isView(values)) {
    throw new ArgumentTypeError(`${where} must be a list of videos, not ${typeName(values)}: pass [...]`);
  }
  return values as Iterable<unknown>;
}

export function asVideos(values: unknown, where = "videos"): Video[] {
  return Array.from(checkList(values, where), (v, n) => asVideo(v, `${where}[${n}]`));
}

export function asEvents(values: unknown, where = "history"): Event[] {
  return Array.from(checkList(values, where), (v, n) => asEvent(v, `${where}[${n}]`));
}

function isFields(value: unknown): value is object {
  if (typeof value !== "object" || value === null) return false;
  const prototype = Object.getPrototypeOf(value) as unknown;
  return prototype === Object.prototype || prototype === null;
}
