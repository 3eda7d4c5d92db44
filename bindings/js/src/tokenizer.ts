/** Byte-level BPE, equal to `linkedout_edge/text/tokenizer.py`, whose rules look at ASCII only. */

import { BundleCorruptError, said } from "./errors.js";

const PIECES = / ?[a-z]+| ?[0-9]+| ?[^ a-z0-9]+| +/g;
const CACHED_PIECES = 8192;
const CACHED_LENGTH = 64;

/** GPT-2's printable character for each of the 256 bytes. */
function byteAlphabet(): string[] {
  let spare = 256;
  return Array.from({ length: 256 }, (_, b) => {
    const plain = (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
    return String.fromCharCode(plain ? b : spare++);
  });
}

const ALPHABET = byteAlphabet();

/** Text → token ids. */
export class Tokenizer {
  private readonly ranks = new Map<string, number>();
  private readonly cache = new Map<string, number[]>();
  private readonly utf8 = new TextEncoder();

  constructor(
    private readonly vocab: ReadonlyMap<string, number>,
    merges: readonly (readonly [string, string])[],
  ) {
    merges.forEach(([a, b], rank) => {
      const key = `${a} ${b}`;
      if (!this.ranks.has(key)) this.ranks.set(key, rank);
    });
  }

  /**
   * From a bundle's `tokenizer.json`.
   *
   * @throws {BundleCorruptError} It is not `{"vocab": {token: id}, "merges": [[a, b], …]}` with ids in [0, vocabSize).
   */
  static fromJson(bytes: Uint8Array, vocabSize: number): Tokenizer {
    const again = "Export the bundle again.";
    let file: { vocab?: unknown; merges?: unknown };
    try {
      file = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
    } catch (e) {
      throw new BundleCorruptError(`the bundle's tokenizer cannot be read: ${said(e)}. ${again}`);
    }
    const { vocab, merges } = file ?? {};
    const isText = (x: unknown): boolean => typeof x === "string";
    const isPair = (m: unknown): boolean => Array.isArray(m) && m.length === 2 && m.every(isText);
    if (typeof vocab !== "object" || !vocab || Array.isArray(vocab) || !Array.isArray(merges) || !merges.every(isPair)) {
      throw new BundleCorruptError(`the bundle's tokenizer has no vocab and merges. ${again}`);
    }
    const entries = Object.entries(vocab as Record<string, number>);
    const wrong = entries.find(([, id]) => !Number.isInteger(id) || id < 0 || id >= vocabSize);
    if (wrong) {
      throw new BundleCorruptError(
        `the bundle's tokenizer has the id ${wrong[1]}, the model a vocabulary of ${vocabSize}. ${again}`,
      );
    }
    return new Tokenizer(new Map(entries), merges as [string, string][]);
  }

  /** Ids of `text`, at most `limit` of them. Half of a character (a lone surrogate) counts as `?`. */
  encode(text: string, limit = Infinity): number[] {
    const folded = text
      .replace(/[\ud800-\udfff]/gu, "?")
      .replace(/[A-Z]/g, (c) => c.toLowerCase())
      .replace(/[\t\n\v\f\r]/g, " ");
    const ids: number[] = [];
    for (const [piece] of folded.matchAll(PIECES)) {
      if (ids.length >= limit) break;
      for (const id of this.piece(piece)) ids.push(id);
    }
    return ids.slice(0, limit);
  }

  private piece(piece: string): number[] {
    let ids = this.cache.get(piece);
    if (!ids) {
      ids = this.merge(Array.from(this.utf8.encode(piece), (b) => ALPHABET[b]!)).flatMap((s) => this.vocab.get(s) ?? []);
      if (piece.length <= CACHED_LENGTH) {
        if (this.cache.size >= CACHED_PIECES) this.cache.clear();
        this.cache.set(piece, ids);
      }
    }
    return ids;
  }

  /** Join pairs, always that of lowest rank, leftmost first. A heap over a linked list: one endless word stays cheap. */
  private merge(symbols: string[]): string[] {
    const n = symbols.length;
    const parts: (string | null)[] = [...symbols];
    const after = parts.map((_, i) => i + 1);
    const before = parts.map((_, i) => i - 1);
    const heap = new Heap();
    const offer = (i: number): void => {
      const j = after[i]!;
      const rank = j < n ? this.ranks.get(`${parts[i]} ${parts[j]}`) : undefined;
      if (rank !== undefined) heap.push({ rank, at: i, left: parts[i]!, right: parts[j]! });
    };
    for (let i = 0; i < n; i++) offer(i);
    for (let pair = heap.pop(); pair; pair = heap.pop()) {
      const { at: i, left, right } = pair;
      const j = after[i]!;
      if (j >= n || parts[i] !== left || parts[j] !== right) continue; // one was merged into something else meanwhile
      parts[i] = left + right;
      parts[j] = null;
      after[i] = after[j]!;
      if (after[j]! < n) before[after[j]!] = i;
      offer(i);
      if (before[i]! >= 0) offer(before[i]!);
    }
    return parts.filter((p) => p !== null);
  }
}

interface Pair {
  rank: number;
  at: number;
  left: string;
  right: string;
}

class Heap {
  private readonly items: Pair[] = [];

  push(item: Pair): void {
    let n = this.items.push(item) - 1;
    while (n > 0) {
      const parent = (n - 1) >> 1;
      if (!comesBefore(item, this.items[parent]!)) break;
      this.items[n] = this.items[parent]!;
      n = parent;
    }
    this.items[n] = item;
  }

  pop(): Pair | undefined {
    const first = this.items[0];
    const last = this.items.pop();
    if (!first || !last || first === last) return first;
    const count = this.items.length;
    let n = 0;
    for (let child = 1; child < count; child = 2 * n + 1) {
      if (child + 1 < count && comesBefore(this.items[child + 1]!, this.items[child]!)) child++;
      if (!comesBefore(this.items[child]!, last)) break;
      this.items[n] = this.items[child]!;
      n = child;
    }
    this.items[n] = last;
    return first;
  }
}

function comesBefore(a: Pair, b: Pair): boolean {
  return a.rank < b.rank || (a.rank === b.rank && a.at < b.at);
}
