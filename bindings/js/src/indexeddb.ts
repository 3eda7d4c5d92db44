/** Store and history in IndexedDB: one database for one app, open in one tab or worker at a time. */

import { StorageBusyError, StorageError, StorageVersionError } from "./errors.js";
import { storageError, type Changes, type EventRecord, type Storage, type VideoRecord } from "./storage.js";

const VERSION = 1;
const WAIT_MS = 3000;

type StoredVideo = VideoRecord & { n: number };

/**
 * Open a database.
 *
 * @param name Of the database; each app of an origin takes its own.
 * @throws {StorageBusyError} Another tab or worker has it open.
 * @throws {StorageError} The browser does not allow it, as in some private windows.
 */
export async function openIndexedDb(name: string): Promise<Storage> {
  const place = `the database "${name}"`;
  if (!globalThis.indexedDB) {
    throw new StorageError("there is no IndexedDB here: leave dataDir out, or pass a storage of your own");
  }
  const release = await lock(`linkedout-edge:${name}`, place);
  try {
    const database = await opened(name);
    return new IndexedDb(database, place, release);
  } catch (e) {
    release();
    if ((e as Error)?.name === "VersionError") {
      throw new StorageVersionError(`${place} was written by a newer version of linkedout-edge: install that one`);
    }
    throw storageError(e, place);
  }
}

class IndexedDb implements Storage {
  constructor(
    private readonly database: IDBDatabase,
    private readonly place: string,
    private readonly release: () => void,
  ) {
    database.onversionchange = () => database.close(); // somebody deletes it
  }

  async load(space: string): Promise<{ videos: VideoRecord[]; events: EventRecord[] }> {
    try {
      const reading = this.database.transaction(["videos", "events"]);
      const ofSpace = IDBKeyRange.bound([space], [space, []]);
      const [videos, events] = await Promise.all([
        answer<StoredVideo[]>(reading.objectStore("videos").getAll(ofSpace)),
        answer<EventRecord[]>(reading.objectStore("events").getAll()),
      ]);
      return { videos: videos.sort((a, b) => a.n - b.n), events };
    } catch (e) {
      throw storageError(e, this.place);
    }
  }

  async write({ put = [], remove = [], add = [], drop = [] }: Changes): Promise<void> {
    try {
      // Strict: the browser answers when the disk has it.
      const writing = this.database.transaction(["videos", "events"], "readwrite", { durability: "strict" });
      const done = finished(writing);
      const videos = writing.objectStore("videos");
      const events = writing.objectStore("events");
      try {
        for (const id of remove) {
          for (const key of await answer(videos.index("id").getAllKeys(id))) videos.delete(key);
        }
        if (put.length) {
          const last = await answer(videos.index("n").openKeyCursor(null, "prev"));
          let n = last ? (last.key as number) : 0;
          for (const video of put) {
            const before = await answer<StoredVideo | undefined>(videos.get([video.space, video.id]));
            videos.put({ ...video, n: before?.n ?? ++n });
          }
        }
        for (const key of drop) events.delete(key);
        for (const event of add) events.put(event);
      } catch (e) {
        done.catch(() => undefined); // what went wrong is thrown here
        writing.abort();
        throw e;
      }
      await done;
    } catch (e) {
      throw storageError(e, this.place);
    }
  }

  async close(): Promise<void> {
    this.database.close();
    this.release();
  }
}

function opened(name: string): Promise<IDBDatabase> {
  const request = indexedDB.open(name, VERSION);
  request.onupgradeneeded = () => {
    const videos = request.result.createObjectStore("videos", { keyPath: ["space", "id"] });
    videos.createIndex("id", "id");
    videos.createIndex("n", "n");
    request.result.createObjectStore("events", { keyPath: "key" });
  };
  return answer(request);
}

function answer<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

function finished(transaction: IDBTransaction): Promise<void> {
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve();
    transaction.onabort = transaction.onerror = () => reject(transaction.error ?? new Error("the transaction was undone"));
  });
}

/** Hold a lock of the origin: two tabs that write past each other would bring back what one has forgotten. */
async function lock(name: string, place: string): Promise<() => void> {
  if (!globalThis.navigator?.locks) return () => undefined;
  let release = (): void => undefined;
  const held = new Promise<void>((resolve) => (release = resolve));
  await new Promise<void>((resolve, reject) => {
    navigator.locks
      .request(name, { signal: AbortSignal.timeout(WAIT_MS) }, () => (resolve(), held))
      .catch(() => reject(
        new StorageBusyError(`${place} is open in another tab or worker: close it there, or share one SharedWorker`),
      ));
  });
  return release;
}
