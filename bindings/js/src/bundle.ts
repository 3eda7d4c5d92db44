/** Where a bundle's files come from, and that they are exactly what the manifest says. */

import { ArgumentError, ArgumentTypeError, BundleCorruptError, BundleError, BundleNotFoundError, said, typeName } from "./errors.js";
import { MANIFEST, MAX_MANIFEST_BYTES, parseManifest, type FileEntry, type Manifest, type Precision } from "./manifest.js";

/** Gives files of a bundle. */
export interface BundleReader {
  /**
   * Contents of one file.
   *
   * @param path Relative, with forward slashes, such as `manifest.json`.
   * @param limit More bytes than this are not wanted.
   * @returns Null if there is no such file.
   */
  read(path: string, limit: number): Promise<Uint8Array | null>;
}

/** An open bundle and the chosen precision. */
export class Bundle {
  private constructor(
    private readonly source: BundleReader,
    readonly manifest: Manifest,
    readonly precision: string,
    private readonly files: Precision,
  ) {}

  /**
   * Open a bundle.
   *
   * @param bundle A folder as a path (Node) or URL, or a reader.
   * @param precision Which of its precisions; its first, if left out.
   */
  static async open(bundle: string | URL | BundleReader, precision?: string): Promise<Bundle> {
    if (precision !== undefined && typeof precision !== "string") {
      throw new ArgumentTypeError(`precision must be a string such as "int8", not ${typeName(precision)}`);
    }
    const source = await readerOf(bundle);
    const bytes = await source.read(MANIFEST, MAX_MANIFEST_BYTES);
    if (!bytes) throw new BundleNotFoundError(`there is no ${MANIFEST} at ${nameOf(bundle)}: name a bundle's folder`);
    if (bytes.length > MAX_MANIFEST_BYTES) {
      throw new BundleCorruptError(`${MANIFEST} has more than ${MAX_MANIFEST_BYTES} bytes, which is no manifest`);
    }
    const manifest = parseManifest(bytes);
    const chosen = precision ?? [...manifest.precisions.keys()][0]!;
    const files = manifest.precisions.get(chosen);
    if (!files) {
      throw new ArgumentError(`unknown precision '${chosen}': expected one of ${[...manifest.precisions.keys()].join(", ")}`);
    }
    if (files.fullRange) {
      throw new BundleError(
        `the precision ${chosen} has full-range int8 weights, which overflow on some CPUs, and JavaScript cannot ask ` +
          "which this is: use another precision, or export the bundle without them",
      );
    }
    return new Bundle(source, manifest, chosen, files);
  }

  /** What was measured against fp32. */
  get agreement(): Record<string, number> {
    return this.files.agreement;
  }

  /** The encoder graph as ONNX bytes. */
  async encoder(): Promise<Uint8Array> {
    return this.read(this.files.encoder);
  }

  /** The tokenizer's JSON. */
  async tokenizer(): Promise<Uint8Array> {
    return this.read(this.manifest.tokenizer);
  }

  private async read(entry: FileEntry): Promise<Uint8Array> {
    const again = "Copy or export the bundle again.";
    const data = await this.source.read(entry.path, entry.bytes);
    if (!data) throw new BundleCorruptError(`${entry.path} is missing from the bundle. ${again}`);
    if (data.length !== entry.bytes) {
      const found = data.length > entry.bytes ? `more than ${entry.bytes}` : data.length;
      throw new BundleCorruptError(`${entry.path} has ${found} bytes, the manifest says ${entry.bytes}. ${again}`);
    }
    if (!globalThis.crypto?.subtle) {
      throw new BundleError("this page has no WebCrypto, so the bundle cannot be checked: serve it over https or from localhost");
    }
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", data as Uint8Array<ArrayBuffer>));
    if (Array.from(digest, (b) => b.toString(16).padStart(2, "0")).join("") !== entry.sha256) {
      throw new BundleCorruptError(`${entry.path} was changed: its SHA-256 is not the manifest's. ${again}`);
    }
    return data;
  }
}

/** Whether files and folders can be reached by path. */
export const IN_NODE = typeof process === "object" && typeof process.versions?.node === "string";

async function readerOf(bundle: unknown): Promise<BundleReader> {
  if (typeof bundle === "object" && bundle !== null && typeof (bundle as BundleReader).read === "function") {
    return bundle as BundleReader;
  }
  if (typeof bundle !== "string" && !(bundle instanceof URL)) {
    throw new ArgumentTypeError(`bundle must be a folder's path or URL, or a reader, not ${typeName(bundle)}`);
  }
  const isWeb = /^https?:/.test(String(bundle));
  if (IN_NODE && !isWeb) return (await import("./folder.js")).folderReader(bundle);
  const base = new URL(String(bundle).replace(/\/*$/, "/"), globalThis.location?.href);
  return { read: (path, limit) => fetched(new URL(path, base), limit) };
}

async function fetched(url: URL, limit: number): Promise<Uint8Array | null> {
  try {
    const response = await fetch(url);
    if (response.status === 404) return null;
    if (!response.ok || !response.body) throw new Error(`the server answered ${response.status}`);
    const parts: Uint8Array[] = [];
    let size = 0;
    const reader = response.body.getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      parts.push(value);
      size += value.length;
      if (size > limit) {
        await reader.cancel();
        break;
      }
    }
    const data = new Uint8Array(size);
    parts.reduce((at, part) => (data.set(part, at), at + part.length), 0);
    return data;
  } catch (e) {
    throw new BundleError(`${url.href} cannot be fetched: ${said(e)}`);
  }
}

function nameOf(bundle: string | URL | BundleReader): string {
  return typeof bundle === "string" || bundle instanceof URL ? JSON.stringify(String(bundle)) : "the reader";
}
