/**
 * Files that carry layer tokens to other devices and languages: feature packs and saved histories, both safetensors.
 * docs/formats.md describes them; for equal contents the bytes are those that Python writes.
 */

import { PackError, TokenSpaceError } from "./errors.js";
import { Event, Video } from "./inputs.js";

const VERSION = "1";
const MAX_TEXT = 64 * 1024;
const MAX_EVENTS = 65536;
/** The years 1 to 9999, which every calendar knows. */
const [EARLIEST, LATEST] = [-62135596800, 253402300800];
const BYTES: Record<string, number> = { F64: 8, F32: 4, I8: 1, U8: 1 };

/** What such a file says of one video. */
export interface FileVideo {
  id: string;
  title: string | null;
  content: string;
  /** [L·M·D]. */
  tokens: Int8Array;
  /** [L·M], finite and not negative. */
  scales: Float32Array;
}

/** What tokens must be like: the model's token space, and L, M and D. */
export interface TokenShape {
  space: string;
  layers: number;
  perLayer: number;
  width: number;
}

interface Kind {
  format: string;
  name: string;
  origin: string;
  arrays: string[];
}

const PACK: Kind = {
  format: "linkedout-pack", name: "the pack", origin: "what exportPack gave", arrays: ["tokens", "scales", "records"],
};
const HISTORY: Kind = {
  format: "linkedout-history", name: "the saved history", origin: "what history.save gave",
  arrays: ["tokens", "scales", "records", "events"],
};

/** A feature pack of the videos. */
export function writePack(videos: readonly FileVideo[], shape: TokenShape): Uint8Array {
  return write(PACK, videos, shape);
}

/** A history of the events; each one's video must be among the videos. */
export function writeHistory(events: readonly Event[], videos: readonly FileVideo[], shape: TokenShape): Uint8Array {
  const place = new Map(videos.map((v, n) => [v.id, n]));
  const table = events.flatMap((e) => [place.get(e.id)!, e.watched, e.liked === null ? -1 : Number(e.liked), e.time ?? NaN]);
  return write(HISTORY, videos, shape, Float64Array.from(table));
}

/**
 * Read a feature pack, and check all of it.
 *
 * @throws {TokenSpaceError} It was made by another model.
 * @throws {PackError} Anything else that is wrong with it.
 */
export function readPack(bytes: Uint8Array, shape: TokenShape): FileVideo[] {
  return read(PACK, bytes, shape).videos;
}

/** Read a saved history, and check all of it. Throws as `readPack` does. */
export function readHistory(bytes: Uint8Array, shape: TokenShape): { events: Event[]; videos: FileVideo[] } {
  const { videos, table } = read(HISTORY, bytes, shape);
  const count = table.length / 4;
  const wrong = (what: string): PackError => new PackError(`${what}: save it again`);
  if (count > MAX_EVENTS) throw wrong(`the saved history has ${count} events, more than ${MAX_EVENTS}`);
  const named = videos.map((v) => new Video({ id: v.id, title: v.title }));
  const events = Array.from({ length: count }, (_, n) => {
    const [video, watched, liked, at] = table.subarray(4 * n, 4 * n + 4) as unknown as [number, number, number, number];
    if (!named[video] || ![-1, 0, 1].includes(liked)) {
      throw wrong("an event of the saved history names no video, or its liked is not -1, 0 or 1");
    }
    if (!(watched >= 0 && watched <= 1)) throw wrong("an event of the saved history has a watched outside 0 to 1");
    if (!Number.isNaN(at) && !(at >= EARLIEST && at < LATEST)) {
      throw wrong("an event of the saved history has a time that no calendar knows");
    }
    return Event.at(named[video], watched, liked < 0 ? null : liked === 1, Number.isNaN(at) ? null : at);
  });
  return { events, videos };
}

function write(kind: Kind, videos: readonly FileVideo[], shape: TokenShape, table?: Float64Array): Uint8Array {
  const count = videos.length;
  const { layers, perLayer, width } = shape;
  const records = `[${videos.map((v) => `[${[v.id, v.title, v.content].map(ascii).join(", ")}]`).join(", ")}]`;
  const text = new TextEncoder().encode(records);
  // The library that Python uses puts wider numbers first.
  const arrays: [name: string, dtype: string, shape: number[], parts: readonly ArrayBufferView[]][] = [
    ["scales", "F32", [count, layers, perLayer], videos.map((v) => v.scales)],
    ["tokens", "I8", [count, layers, perLayer, width], videos.map((v) => v.tokens)],
    ["records", "U8", [text.length], [text]],
  ];
  if (table) arrays.unshift(["events", "F64", [table.length / 4, 4], [table]]);
  let end = 0;
  const described = arrays.map(([name, dtype, dims]) => {
    const start = end;
    end += sizeOf(dtype, dims);
    return [name, { dtype, shape: dims, data_offsets: [start, end] }];
  });
  const metadata = { format: kind.format, token_space: shape.space, version: VERSION };
  const json = new TextEncoder().encode(JSON.stringify({ __metadata__: metadata, ...Object.fromEntries(described) }));
  const from = 8 + Math.ceil(json.length / 8) * 8;
  const out = new Uint8Array(from + end).fill(0x20, 0, from);
  new DataView(out.buffer).setBigUint64(0, BigInt(from - 8), true);
  out.set(json, 8);
  let at = from;
  for (const [, , , parts] of arrays) {
    for (const p of parts) {
      out.set(new Uint8Array(p.buffer, p.byteOffset, p.byteLength), at);
      at += p.byteLength;
    }
  }
  return out;
}

/** JSON in ASCII, as Python writes it. */
function ascii(value: unknown): string {
  return JSON.stringify(value).replace(/[\u007f-\uffff]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

function sizeOf(dtype: string, dims: readonly number[]): number {
  return dims.reduce((a, b) => a * b, BYTES[dtype] ?? NaN);
}

function read(kind: Kind, bytes: Uint8Array, shape: TokenShape): { videos: FileVideo[]; table: Float64Array } {
  if (!(bytes instanceof Uint8Array)) throw new PackError(`${kind.name} must be given as a Uint8Array`);
  const { header, data } = opened(kind, bytes);
  const { name } = kind;
  const { __metadata__: meta = {}, ...described } = header;
  if (meta.format !== kind.format) throw new PackError(`this is another kind of file than ${name}: give ${kind.origin}`);
  if (meta.version !== VERSION) {
    throw new PackError(`${name} has version '${String(meta.version)}', and this version of the library reads '${VERSION}'`);
  }
  if (meta.token_space !== shape.space) {
    throw new TokenSpaceError(
      `${name} was made in token space ${String(meta.token_space).slice(0, 12)}…, and this model's is ` +
        `${shape.space.slice(0, 12)}…: make it with the same bundle (any of its precisions)`,
    );
  }
  const names = Object.keys(described);
  if (names.length !== kind.arrays.length || !kind.arrays.every((n) => names.includes(n))) {
    throw new PackError(`${name} holds ${names.sort().join(", ")}: expected ${kind.arrays.join(", ")}`);
  }
  const arrays = described as unknown as Record<string, Described>;
  const count = arrays.tokens!.shape[0] ?? 0;
  const expected: Record<string, [string, number[]]> = {
    tokens: ["I8", [count, shape.layers, shape.perLayer, shape.width]],
    scales: ["F32", [count, shape.layers, shape.perLayer]],
    records: ["U8", arrays.records!.shape.slice(0, 1)],
    events: ["F64", [arrays.events?.shape[0] ?? 0, 4]],
  };
  for (const n of kind.arrays) {
    const [dtype, dims] = expected[n]!;
    const found = arrays[n]!;
    if (found.dtype !== dtype || found.shape.join() !== dims.join()) {
      throw new PackError(`${n} in ${name} is ${found.dtype} [${found.shape}]: expected ${dtype} [${dims}]`);
    }
  }
  const part = (n: string): ArrayBuffer => new Uint8Array(data.subarray(...arrays[n]!.data_offsets)).buffer; // a copy, aligned
  const scales = new Float32Array(part("scales"));
  const tokens = new Int8Array(part("tokens"));
  if (!scales.every((s) => Number.isFinite(s) && s >= 0)) {
    throw new PackError(`${name} has scales that are negative or no numbers: make it again`);
  }
  const perVideo = shape.layers * shape.perLayer;
  const videos = recordsOf(new Uint8Array(part("records")), count, name).map(([id, title, content], n) => ({
    id, title, content,
    tokens: tokens.slice(n * perVideo * shape.width, (n + 1) * perVideo * shape.width),
    scales: scales.slice(n * perVideo, (n + 1) * perVideo),
  }));
  return { videos, table: arrays.events ? new Float64Array(part("events")) : new Float64Array(0) };
}

interface Described {
  dtype: string;
  shape: number[];
  data_offsets: [number, number];
}

/** A safetensors file's header and data: arrays lie one behind the other, without gaps, to the end. */
function opened(kind: Kind, bytes: Uint8Array): { header: Record<string, Record<string, unknown>>; data: Uint8Array } {
  const damaged = (why: string): PackError => new PackError(`${kind.name} is damaged or no safetensors file: ${why}`);
  if (bytes.length < 8) throw damaged("it is too short");
  const length = Number(new DataView(bytes.buffer, bytes.byteOffset, 8).getBigUint64(0, true));
  if (length > bytes.length - 8) throw damaged("its header is cut off");
  const data = bytes.subarray(8 + length);
  let header: Record<string, Record<string, unknown>>;
  try {
    header = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes.subarray(8, 8 + length)));
  } catch {
    throw damaged("its header is no JSON");
  }
  const isWhole = (n: unknown): boolean => Number.isSafeInteger(n) && (n as number) >= 0;
  if (typeof header !== "object" || header === null || Array.isArray(header)) throw damaged("its header is no object");
  const found = Object.entries(header).flatMap(([name, given]) => {
    if (typeof given !== "object" || given === null) throw damaged(`${name} is no object`);
    if (name === "__metadata__") return [];
    const { dtype, shape, data_offsets: offsets } = given as Record<string, unknown>;
    const isRight =
      typeof dtype === "string" && Array.isArray(shape) && shape.every(isWhole) &&
      Array.isArray(offsets) && offsets.length === 2 && offsets.every(isWhole);
    if (!isRight || !(dtype in BYTES) || offsets[1] - offsets[0] !== sizeOf(dtype, shape)) {
      throw damaged(`the size of ${name} is not what its shape says`);
    }
    return [offsets as [number, number]];
  });
  let end = 0;
  for (const [start, stop] of found.sort((a, b) => a[0] - b[0] || a[1] - b[1])) {
    if (start !== end) throw damaged("its arrays overlap or leave gaps");
    end = stop;
  }
  if (end !== data.length) throw damaged("its arrays do not fill it");
  return { header, data };
}

function recordsOf(text: Uint8Array, count: number, name: string): [string, string | null, string][] {
  let records: unknown;
  try {
    records = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(text));
  } catch {
    throw new PackError(`the records of ${name} are no JSON: make it again`);
  }
  if (!Array.isArray(records) || records.length !== count) {
    throw new PackError(`${name} has tokens of ${count} videos, and not as many records: make it again`);
  }
  const isText = (value: unknown): value is string => typeof value === "string";
  for (const r of records as unknown[]) {
    if (!Array.isArray(r) || r.length !== 3 || !isText(r[0]) || !isText(r[2]) || !(r[1] === null || isText(r[1]))) {
      throw new PackError(`a record of ${name} is not [id, title or null, content hash]: make it again`);
    }
    if (!r[0] || (r as (string | null)[]).some((s) => s && s.length > MAX_TEXT && [...s].length > MAX_TEXT)) {
      throw new PackError(`a record of ${name} has an empty id, or text that is too long: make it again`);
    }
  }
  if (new Set((records as [string][]).map((r) => r[0])).size !== count) {
    throw new PackError(`an id occurs twice in ${name}: make it again`);
  }
  return records as [string, string | null, string][];
}
