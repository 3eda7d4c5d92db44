/** What keeps store and history between sessions: IndexedDB in a browser, a folder in Node, or an app's own. */

import { StorageError, StorageFullError, StorageReadOnlyError, said } from "./errors.js";

/** Tokens of one video in one token space. */
export interface VideoRecord {
  id: string;
  /** The token space. */
  space: string;
  title: string | null;
  content: string;
  /** Of the file, in bytes and milliseconds; null for frames. */
  size: number | null;
  modified: number | null;
  /** Tokens int8 [L·M·D], then scales float32 [L·M], little-endian. */
  payload: Uint8Array;
}

/** One event of the history. */
export interface EventRecord {
  /** Grows with each event. */
  key: number;
  id: string;
  title: string | null;
  watched: number;
  liked: boolean | null;
  /** Unix seconds. */
  at: number | null;
  /** When it was added. */
  recorded: number;
  /** Whether its tokens came into the store with an event. */
  brought: boolean;
}

/** What one write changes. */
export interface Changes {
  put?: VideoRecord[];
  /** Ids that leave, in all token spaces. */
  remove?: string[];
  add?: EventRecord[];
  /** Keys of events that leave. */
  drop?: number[];
}

export interface Storage {
  /** Everything of one token space, videos in the order in which they came, events by key. */
  load(space: string): Promise<{ videos: VideoRecord[]; events: EventRecord[] }>;
  /**
   * Make all the changes or none; they are durable when this returns.
   *
   * @param purge What leaves was asked to be forgotten: its bytes must not stay behind either.
   */
  write(changes: Changes, purge: boolean): Promise<void>;
  close(): Promise<void>;
}

/** An error of a file system or browser as one of ours. */
export function storageError(error: unknown, place: string): StorageError {
  if (error instanceof StorageError) return error;
  const { code, name } = error as { code?: unknown; name?: unknown };
  if (code === "ENOSPC" || code === "EDQUOT" || name === "QuotaExceededError") {
    return new StorageFullError(`there is no room left in ${place}: free some; what was stored before is still there`);
  }
  if (code === "EROFS" || code === "EACCES" || code === "EPERM") {
    return new StorageReadOnlyError(`${place} cannot be written to (${String(code)}): choose another dataDir; ranking still works`);
  }
  return new StorageError(`${place} cannot be used: ${said(error)}`);
}

/** Does one thing after the other. */
export class Queue {
  private last: Promise<unknown> = Promise.resolve();

  run<T>(work: () => Promise<T>): Promise<T> {
    const done = this.last.then(work);
    this.last = done.catch(() => undefined);
    return done;
  }
}
