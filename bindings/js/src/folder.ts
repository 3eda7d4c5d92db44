/**
 * Node: bundles, and store and history, in folders.
 *
 * `linkedout.log` is the only truth: records are appended, each one write of the library, with a CRC-32, and flushed to
 * the disk. What was forgotten leaves when the log is rewritten, and the old one is overwritten.
 */

import { constants, copyFile, link, mkdir, open, readFile, realpath, rename, stat, unlink, writeFile, type FileHandle } from "node:fs/promises";
import { join, resolve, sep } from "node:path";
import { fileURLToPath } from "node:url";

import type { BundleReader } from "./bundle.js";
import { BundleCorruptError, BundleNotFoundError, StorageBusyError, StorageVersionError, said } from "./errors.js";
import { Queue, storageError, type Changes, type EventRecord, type Storage, type VideoRecord } from "./storage.js";

/** Reads a bundle's files from a folder; links that leave it are refused. */
export async function folderReader(folder: string | URL): Promise<BundleReader> {
  const path = folder instanceof URL || folder.startsWith("file:") ? fileURLToPath(folder) : folder;
  const found = path && (await stat(path).catch(() => null));
  if (!found || !found.isDirectory()) {
    throw new BundleNotFoundError(`there is no folder at ${JSON.stringify(path)}: name a bundle's folder, unzipped`);
  }
  const root = await realpath(path);
  return {
    async read(name: string, limit: number): Promise<Uint8Array | null> {
      try {
        const file = await realpath(join(root, ...name.split("/")));
        if (!file.startsWith(root + sep)) {
          throw new BundleCorruptError(`${name} is a link that leaves the bundle's folder: replace it by the file itself`);
        }
        const info = await stat(file);
        if (!info.isFile()) throw new BundleCorruptError(`${name} in the bundle is not a regular file`); // a fifo would block
        if (info.size > limit) throw new BundleCorruptError(`${name} has ${info.size} bytes: at most ${limit} were expected`);
        return await readFile(file);
      } catch (e) {
        const { code } = e as NodeJS.ErrnoException;
        if (code === "ENOENT" || code === "ENOTDIR") return null;
        throw e instanceof BundleCorruptError ? e : new BundleCorruptError(`${name} in the bundle cannot be read: ${said(e)}`);
      }
    },
  };
}

const LOG = "linkedout.log";
const LOCK = "linkedout.lock";
const MAGIC = Buffer.from("linkedout-edge log 1\n");
const MARK = Buffer.from([0x89, 0x4c, 0x4f, 0x45]); // begins each record
const HEADER = 12; // mark, length, CRC-32
const CHUNK = 1024; // videos of a record, when the log is rewritten
const SMALL = 1 << 20; // bytes: a log that is larger, and has doubled, is rewritten without what is out of date

/** What a log says, replayed. */
interface State {
  videos: Map<string, VideoRecord>;
  events: Map<number, EventRecord>;
}

/**
 * Open the folder that keeps store and history, and make it if it is not there.
 *
 * @throws {StorageBusyError} Another process has it open.
 * @throws {StorageError} It cannot be used.
 */
export async function openFolder(folder: string): Promise<Storage> {
  const path = resolve(folder);
  try {
    await mkdir(path, { recursive: true });
    await takeLock(path);
  } catch (e) {
    throw storageError(e, path);
  }
  try {
    return await Folder.open(path);
  } catch (e) {
    await unlink(join(path, LOCK)).catch(() => undefined);
    throw storageError(e, path);
  }
}

class Folder implements Storage {
  private readonly queue = new Queue();
  private most: number;

  private constructor(
    private readonly path: string,
    private file: FileHandle,
    private size: number,
  ) {
    this.most = Math.max(SMALL, 2 * size);
  }

  static async open(path: string): Promise<Folder> {
    const name = join(path, LOG);
    const bytes = await readFile(name).catch((e: NodeJS.ErrnoException) => {
      if (e.code === "ENOENT") return null;
      throw e;
    });
    if (bytes && !bytes.subarray(0, MAGIC.length).equals(MAGIC.subarray(0, bytes.length))) {
      throw new StorageVersionError(`${name} was written by a newer version of linkedout-edge, or is not ours: choose another dataDir`);
    }
    const { state, whole, damaged } = replay(bytes ?? Buffer.alloc(0));
    if (damaged) {
      // Records behind the damage are whole: all of them are kept, and what was there is set aside.
      await writeFile(`${name}.damaged`, bytes!);
      console.warn(`linkedout-edge: ${name} was damaged; what is whole was kept, the old file is ${LOG}.damaged`);
    }
    if (!bytes || damaged || whole < MAGIC.length) await rewrite(path, state);
    const file = await open(name, "r+");
    const folder = new Folder(path, file, (await file.stat()).size);
    if (bytes && !damaged && whole >= MAGIC.length && whole < bytes.length) {
      await file.truncate(whole); // a write that was cut off: nobody was told that it was done
      await file.sync();
      folder.size = whole;
    }
    return folder;
  }

  async load(space: string): Promise<{ videos: VideoRecord[]; events: EventRecord[] }> {
    const { videos, events } = await this.state();
    return {
      videos: [...videos.values()].filter((v) => v.space === space),
      events: [...events.values()].sort((a, b) => a.key - b.key),
    };
  }

  write(changes: Changes, purge: boolean): Promise<void> {
    return this.queue.run(async () => {
      try {
        const record = encode(changes);
        try {
          await this.file.write(record, 0, record.length, this.size);
          await this.file.sync();
        } catch (e) {
          await this.file.truncate(this.size).catch(() => undefined);
          throw e;
        }
        this.size += record.length;
        if (purge || this.size > this.most) await this.compact();
      } catch (e) {
        throw storageError(e, this.path);
      }
    });
  }

  close(): Promise<void> {
    return this.queue.run(async () => {
      await this.file.close();
      await unlink(join(this.path, LOCK)).catch(() => undefined);
    });
  }

  private async state(): Promise<State> {
    const bytes = Buffer.alloc(this.size);
    await this.file.read(bytes, 0, this.size, 0);
    return replay(bytes).state;
  }

  /** Rewrite the log, and overwrite the old one: what has left must not stay behind. */
  private async compact(): Promise<void> {
    await rewrite(this.path, await this.state());
    const old = this.file;
    this.file = await open(join(this.path, LOG), "r+");
    const zeros = Buffer.alloc(1 << 20);
    for (let at = 0; at < this.size; at += zeros.length) await old.write(zeros, 0, Math.min(zeros.length, this.size - at), at);
    await old.sync();
    await old.close();
    this.size = (await this.file.stat()).size;
    this.most = Math.max(SMALL, 2 * this.size);
  }
}

/** Replace the log by one that holds nothing but a state. */
async function rewrite(path: string, state: State): Promise<void> {
  const name = join(path, LOG);
  const temporary = `${name}.new`;
  const file = await open(temporary, "w");
  try {
    await file.write(MAGIC);
    const videos = [...state.videos.values()];
    for (let n = 0; n < videos.length; n += CHUNK) await file.write(encode({ put: videos.slice(n, n + CHUNK) }));
    if (state.events.size) await file.write(encode({ add: [...state.events.values()] }));
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(temporary, name);
  const folder = await open(path, "r").catch(() => null); // Windows opens no folders, and needs none
  await folder?.sync().catch(() => undefined);
  await folder?.close();
}

/** A record: mark, length and CRC-32 of what follows; length of the JSON, the JSON, payloads. */
function encode({ put = [], remove = [], add = [], drop = [] }: Changes): Buffer {
  const described = put.map(({ payload, ...video }) => ({ ...video, bytes: payload.length }));
  const json = Buffer.from(JSON.stringify({ put: described, remove, add, drop }));
  const length = Buffer.alloc(4);
  length.writeUInt32LE(json.length);
  const body = Buffer.concat([length, json, ...put.map((v) => v.payload)]);
  const header = Buffer.alloc(HEADER);
  MARK.copy(header);
  header.writeUInt32LE(body.length, 4);
  header.writeUInt32LE(crc32(body), 8);
  return Buffer.concat([header, body]);
}

/**
 * Apply every whole record.
 *
 * @returns The state; how many bytes are whole from the start; whether whole records lie behind others that are not.
 */
function replay(bytes: Buffer): { state: State; whole: number; damaged: boolean } {
  const state: State = { videos: new Map(), events: new Map() };
  let damaged = false;
  let whole = bytes.length < MAGIC.length ? 0 : MAGIC.length;
  for (let at = MAGIC.length; at < bytes.length; ) {
    const end = endOfRecord(bytes, at);
    if (end) {
      damaged ||= at !== whole;
      apply(state, bytes.subarray(at + HEADER, end));
      at = whole = end;
    } else {
      const next = bytes.indexOf(MARK, at + 1);
      at = next < 0 ? bytes.length : next;
    }
  }
  return { state, whole, damaged };
}

function endOfRecord(bytes: Buffer, at: number): number {
  if (at + HEADER > bytes.length || !bytes.subarray(at, at + 4).equals(MARK)) return 0;
  const end = at + HEADER + bytes.readUInt32LE(at + 4);
  return end <= bytes.length && crc32(bytes.subarray(at + HEADER, end)) === bytes.readUInt32LE(at + 8) ? end : 0;
}

function apply(state: State, body: Buffer): void {
  let at = 4 + body.readUInt32LE(0);
  const { put, remove, add, drop } = JSON.parse(body.toString("utf-8", 4, at)) as Required<Changes> & {
    put: (Omit<VideoRecord, "payload"> & { bytes: number })[];
  };
  for (const { bytes, ...video } of put) {
    state.videos.set(JSON.stringify([video.space, video.id]), { ...video, payload: body.subarray(at, at + bytes) });
    at += bytes;
  }
  if (remove.length) {
    const gone = new Set(remove);
    for (const [key, video] of state.videos) if (gone.has(video.id)) state.videos.delete(key);
  }
  for (const key of drop) state.events.delete(key);
  for (const event of add) state.events.set(event.key, event);
}

const CRC = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let bit = 0; bit < 8; bit++) n = n & 1 ? (n >>> 1) ^ 0xedb88320 : n >>> 1;
  return n;
});

function crc32(bytes: Buffer): number {
  let crc = -1;
  for (let i = 0; i < bytes.length; i++) crc = CRC[(crc ^ bytes[i]!) & 255]! ^ (crc >>> 8);
  return ~crc >>> 0;
}

/** Say that this process has the folder; a lock whose process is gone does not count. */
async function takeLock(path: string): Promise<void> {
  const name = join(path, LOCK);
  const started = Math.round(Date.now() / 1000 - process.uptime());
  const mine = join(path, `${LOCK}.${process.pid}.${Math.random().toString(36).slice(2)}`);
  await writeFile(mine, JSON.stringify({ pid: process.pid, started }));
  try {
    for (let attempt = 0; attempt < 3; attempt++) {
      try {
        await link(mine, name); // fails if it is there: nobody else can have it then
        return;
      } catch (e) {
        const { code } = e as NodeJS.ErrnoException;
        if (code === "EPERM" || code === "ENOTSUP" || code === "ENOSYS") { // a file system without links, such as exFAT
          return await copyFile(mine, name, constants.COPYFILE_EXCL);
        }
        if (code !== "EEXIST") throw e;
      }
      if (await isHeld(name, started)) break;
      await unlink(name).catch(() => undefined);
    }
  } finally {
    await unlink(mine).catch(() => undefined);
  }
  throw new StorageBusyError(`${path} is open already, here or in another process: close it there, or choose another dataDir`);
}

async function isHeld(name: string, started: number): Promise<boolean> {
  try {
    const holder = JSON.parse(await readFile(name, "utf-8")) as { pid: number; started: number };
    // In a container a process that was started again often has the number of the one before.
    if (holder.pid === process.pid) return Math.abs(holder.started - started) < 3;
    process.kill(holder.pid, 0);
    return true;
  } catch (e) {
    return (e as NodeJS.ErrnoException).code === "EPERM"; // it lives, and belongs to somebody else
  }
}
