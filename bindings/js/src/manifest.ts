/** `manifest.json`, checked. Fields that this version does not know are ignored, so that a format can grow. */

import { BundleCorruptError, BundleVersionError, said } from "./errors.js";

export const MANIFEST = "manifest.json";
export const FORMAT_VERSION = 2;
export const MAX_MANIFEST_BYTES = 1 << 20;
const MAX_DIMENSION = 1 << 16;

/** Shape of the model; docs/architecture.md has the names of dimensions. */
export interface Config {
  frames: number;
  frame_size: number;
  vocab_size: number;
  title_tokens: number;
  /** L of them. */
  taps: number[];
  /** M. */
  tokens_per_layer: number;
  /** D. */
  token_width: number;
}

const DEFAULTS: Config = {
  frames: 8, frame_size: 128, vocab_size: 4096, title_tokens: 16, taps: [1, 2, 3, 4, 5, 6], tokens_per_layer: 2, token_width: 64,
};

/** One file of the bundle; `path` is relative to the manifest, with forward slashes. */
export interface FileEntry {
  path: string;
  sha256: string;
  bytes: number;
}

export interface Precision {
  encoder: FileEntry;
  agreement: Record<string, number>;
  fullRange: boolean;
}

export interface Manifest {
  name: string;
  tokenSpace: string;
  config: Config;
  precisions: Map<string, Precision>;
  tokenizer: FileEntry;
  userModel: { mean: number[][]; size: number[]; layer_prior: number[]; score_scale: number };
  layerNames: string[];
}

const AGAIN = "Export or copy the bundle again.";
type Json = Record<string, unknown>;

/**
 * Read and check a manifest.
 *
 * @throws {BundleVersionError} It is of a newer format, or of an older one.
 * @throws {BundleCorruptError} It is no JSON, or what it says makes no sense.
 */
export function parseManifest(bytes: Uint8Array): Manifest {
  let json: unknown;
  try {
    json = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (e) {
    throw new BundleCorruptError(`${MANIFEST} is not valid: ${said(e)}. ${AGAIN}`);
  }
  const m = object(json, "it");
  const version = whole(m.format_version, "format_version");
  if (version >= 1 && version !== FORMAT_VERSION) {
    throw new BundleVersionError(
      `the bundle has format version ${version}, this linkedout-edge reads ${FORMAT_VERSION}: export the bundle again with ` +
        `this version, or install ${version > FORMAT_VERSION ? "a newer one" : "the version that made it"}`,
    );
  }
  check(version === FORMAT_VERSION, `format_version is ${version}`);
  const config = configOf(object(m.config ?? {}, "config"));
  const layers = config.taps.length;
  const width = config.tokens_per_layer * config.token_width;

  const precisions = Object.entries(object(m.precisions, "precisions")).map(([name, given]): [string, Precision] => {
    const p = object(given, `precision ${name}`);
    const files = object(p.files, `files of precision ${name}`);
    check("encoder" in files, `precision '${name}' has no encoder graph`);
    const agreement = object(p.agreement ?? {}, "agreement") as Record<string, number>;
    return [name, { encoder: entry(files.encoder), agreement, fullRange: p.full_range_weights === true }];
  });
  check(precisions.length > 0, "it lists no precisions");

  const names = m.layer_names ?? [];
  check(isList(names, (n) => typeof n === "string") && [0, layers].includes(names.length), "layer_names are not L names");
  const model = object(m.user_model, "user_model");
  const { mean, size, layer_prior: prior = [], score_scale: scale = 1 } = model;
  check(
    isList(mean, (row) => isList(row, isNumber) && row.length === width) && mean.length === layers,
    `user_model.mean is not ${layers} lists of ${width} numbers`,
  );
  check(isList(size, (s) => isNumber(s) && s > 0) && size.length === layers, `user_model.size is not ${layers} numbers above 0`);
  check(
    isList(prior, (p) => isNumber(p) && p >= 0) && (!prior.length || (prior.length === layers && prior.some(Boolean))),
    `user_model.layer_prior is not ${layers} numbers, not all 0`,
  );
  check(isNumber(scale) && scale > 0, "user_model.score_scale is not above 0");
  return {
    name: text(m.name, "name"),
    tokenSpace: digest(m.token_space, "token_space"),
    config,
    precisions: new Map(precisions),
    tokenizer: entry(m.tokenizer),
    userModel: { mean, size, layer_prior: prior, score_scale: scale } as Manifest["userModel"],
    layerNames: names.length ? (names as string[]) : config.taps.map((t) => `layer ${t}`),
  };
}

/** Refuse a path that could lead out of the bundle, on any system. */
export function checkPath(path: string): void {
  const parts = path.split("/");
  if (parts.some((p) => ["", ".", ".."].includes(p)) || /[\\:\0]/.test(path)) {
    throw new BundleCorruptError(
      `the bundle names the file ${JSON.stringify(path)}: expected a relative path with forward slashes that stays inside it`,
    );
  }
}

function configOf(given: Json): Config {
  const config = { ...DEFAULTS };
  for (const name of Object.keys(DEFAULTS) as (keyof Config)[]) {
    const value = given[name] ?? DEFAULTS[name];
    const isRight = name === "taps" ? isList(value, Number.isInteger) && value.length > 0 : inRange(value);
    check(isRight, `config.${name} is ${JSON.stringify(value)}`);
    Object.assign(config, { [name]: value });
  }
  const payload = config.taps.length * config.tokens_per_layer * (config.token_width + 4);
  check(
    payload <= 1 << 20 && config.frames * config.frame_size ** 2 <= 1 << 28 && config.token_width <= 1024,
    "its shapes ask for more memory than any device has",
  );
  return config;
}

function entry(value: unknown): FileEntry {
  const e = object(value, "a file");
  const path = text(e.path, "path");
  checkPath(path);
  const bytes = whole(e.bytes, "bytes");
  check(bytes >= 0 && bytes < 2 ** 31, `${path} is listed with ${bytes} bytes`);
  return { path, sha256: digest(e.sha256, "sha256"), bytes };
}

function check(isRight: boolean, reason: string): asserts isRight {
  if (!isRight) throw new BundleCorruptError(`${MANIFEST} makes no sense: ${reason}. ${AGAIN}`);
}

function object(value: unknown, name: string): Json {
  check(typeof value === "object" && value !== null && !Array.isArray(value), `${name} is no object`);
  return value as Json;
}

function text(value: unknown, name: string): string {
  check(typeof value === "string", `${name} is no text`);
  return value;
}

function whole(value: unknown, name: string): number {
  check(Number.isInteger(value), `${name} is no whole number`);
  return value as number;
}

function digest(value: unknown, name: string): string {
  check(/^[0-9a-f]{64}$/.test(text(value, name)), `${name} is no SHA-256`);
  return value as string;
}

function isNumber(value: unknown): value is number {
  return typeof value === "number" && Number.isFinite(value);
}

function inRange(value: unknown): boolean {
  return Number.isInteger(value) && (value as number) >= 1 && (value as number) <= MAX_DIMENSION;
}

function isList(value: unknown, each: (item: unknown) => boolean): value is unknown[] {
  return Array.isArray(value) && value.every((item) => each(item));
}
