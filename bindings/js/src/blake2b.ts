/** BLAKE2b-128 (RFC 7693), which WebCrypto lacks: content hashes are those of the Python package. */

/** 64-bit words as low and high halves, here and below. */
const IV = Int32Array.of(
  0xf3bcc908, 0x6a09e667, 0x84caa73b, 0xbb67ae85, 0xfe94f82b, 0x3c6ef372, 0x5f1d36f1, 0xa54ff53a,
  0xade682d1, 0x510e527f, 0x2b3e6c1f, 0x9b05688c, 0xfb41bd6b, 0x1f83d9ab, 0x137e2179, 0x5be0cd19,
);
const SIGMA = Uint8Array.from(
  "0123456789abcdefea489fd61c02b753b8c052fdae3671947931dcbe265a40f8905724afe1bc683d2c6a0b834d75fe19c51fed4a0763928b" +
    "db7ec13950f4862a6fe9b308c2d714a5a2847615fb9e3cd00123456789abcdefea489fd61c02b753",
  (digit) => 2 * parseInt(digit, 16),
);
const DIGEST = 16;
const BLOCK = 128;
const WORD = 2 ** 32;
const UNWORD = 2 ** -32;

/** The hash of parts one after the other: 32 hex digits. */
export function blake2b128(...parts: (Uint8Array | Uint8ClampedArray)[]): string {
  const h = IV.slice();
  h[0]! ^= 0x01010000 ^ DIGEST;
  const v = new Int32Array(32);
  const m = new Int32Array(32);
  const block = new Uint8Array(BLOCK);
  const view = new DataView(block.buffer);
  let filled = 0;
  let total = 0;

  // Whole int32 arithmetic, which engines compile best; `>>> 0` reads a half as unsigned, and a sum's carry is what is above.
  function mix(a: number, b: number, c: number, d: number, x: number, y: number): void {
    let al = v[a]!;
    let ah = v[a + 1]!;
    let bl = v[b]!;
    let bh = v[b + 1]!;
    let cl = v[c]!;
    let ch = v[c + 1]!;
    let sum = (al >>> 0) + (bl >>> 0) + (m[x]! >>> 0);
    ah = (ah + bh + m[x + 1]! + ((sum * UNWORD) | 0)) | 0;
    al = sum | 0;
    let dh = v[d]! ^ al; // rotated by 32
    let dl = v[d + 1]! ^ ah;
    sum = (cl >>> 0) + (dl >>> 0);
    ch = (ch + dh + ((sum * UNWORD) | 0)) | 0;
    cl = sum | 0;
    let xl = bl ^ cl;
    let xh = bh ^ ch;
    bl = (xl >>> 24) | (xh << 8);
    bh = (xh >>> 24) | (xl << 8);
    sum = (al >>> 0) + (bl >>> 0) + (m[y]! >>> 0);
    ah = (ah + bh + m[y + 1]! + ((sum * UNWORD) | 0)) | 0;
    al = sum | 0;
    xl = dl ^ al;
    xh = dh ^ ah;
    dl = (xl >>> 16) | (xh << 16);
    dh = (xh >>> 16) | (xl << 16);
    sum = (cl >>> 0) + (dl >>> 0);
    ch = (ch + dh + ((sum * UNWORD) | 0)) | 0;
    cl = sum | 0;
    xl = bl ^ cl;
    xh = bh ^ ch;
    v[a] = al;
    v[a + 1] = ah;
    v[b] = (xl << 1) | (xh >>> 31);
    v[b + 1] = (xh << 1) | (xl >>> 31);
    v[c] = cl;
    v[c + 1] = ch;
    v[d] = dl;
    v[d + 1] = dh;
  }

  function compress(last: boolean): void {
    v.set(h);
    v.set(IV, 16);
    v[24]! ^= total;
    v[25]! ^= total / WORD;
    if (last) {
      v[28]! ^= -1;
      v[29]! ^= -1;
    }
    for (let i = 0; i < 32; i++) m[i] = view.getInt32(4 * i, true);
    for (let s = 0; s < SIGMA.length; s += 16) {
      mix(0, 8, 16, 24, SIGMA[s]!, SIGMA[s + 1]!);
      mix(2, 10, 18, 26, SIGMA[s + 2]!, SIGMA[s + 3]!);
      mix(4, 12, 20, 28, SIGMA[s + 4]!, SIGMA[s + 5]!);
      mix(6, 14, 22, 30, SIGMA[s + 6]!, SIGMA[s + 7]!);
      mix(0, 10, 20, 30, SIGMA[s + 8]!, SIGMA[s + 9]!);
      mix(2, 12, 22, 24, SIGMA[s + 10]!, SIGMA[s + 11]!);
      mix(4, 14, 16, 26, SIGMA[s + 12]!, SIGMA[s + 13]!);
      mix(6, 8, 18, 28, SIGMA[s + 14]!, SIGMA[s + 15]!);
    }
    for (let i = 0; i < 16; i++) h[i]! ^= v[i]! ^ v[i + 16]!;
  }

  for (const part of parts) {
    for (let at = 0; at < part.length; ) {
      if (filled === BLOCK) {
        total += BLOCK; // the last block is compressed at the end
        compress(false);
        filled = 0;
      }
      const piece = part.subarray(at, at + BLOCK - filled);
      block.set(piece, filled);
      filled += piece.length;
      at += piece.length;
    }
  }
  block.fill(0, filled);
  total += filled;
  compress(true);
  return Array.from(new Uint8Array(h.buffer, 0, DIGEST), (b) => b.toString(16).padStart(2, "0")).join("");
}
