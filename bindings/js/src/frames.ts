/**
 * Which frames of a video are taken, and how they are made square: as `linkedout_edge/decode/frames.py` and OpenCV's
 * INTER_AREA do, so that one video makes the same tokens everywhere. Nothing is cropped.
 */

import { InvalidFramesError, typeName } from "./errors.js";
import { rint } from "./linear.js";

/** 8192 × 4320, a little over 8K. */
export const MAX_PIXELS = 8192 * 4320;
const EXPECTED = "expected { data: Uint8Array, shape: [F, H, W, 3] } (RGB), or 4 channels (RGBA)";
const { fround } = Math;

/** Frames that the app decoded: [F, H, W, 3] RGB, or RGBA, whose alpha is ignored. */
export interface Frames {
  data: Uint8Array | Uint8ClampedArray;
  shape: readonly [frames: number, height: number, width: number, channels: number];
}

/** What is taken for frames: `Frames`, or what a canvas gives, a picture a frame. */
export type FramesLike = Frames | readonly ImageData[];

/** Indices of at most `count` well-spread frames out of `frames`: those on screen at the centers of equal intervals. */
export function spread(frames: number, count: number): number[] {
  if (frames <= count) return [...new Array(frames).keys()];
  return Array.from({ length: count }, (_, i) => Math.floor(((2 * i + 1) * frames) / (2 * count)));
}

/** Frames as RGB without alpha, checked. */
export function asRgb(given: FramesLike): Frames {
  const frames = isPictures(given) ? joined(given) : given;
  const { data, shape } = (frames ?? {}) as { data: unknown; shape: Frames["shape"] };
  if (!(data instanceof Uint8Array || data instanceof Uint8ClampedArray) || !Array.isArray(shape)) {
    throw new InvalidFramesError(`frames are ${typeName(data ?? given)}: ${EXPECTED}`);
  }
  if ((shape.length as number) !== 4 || !shape.every((n) => Number.isInteger(n) && n >= 0)) {
    const hint = (shape.length as number) === 3 ? " (one frame? put a 1 before its shape)" : "";
    throw new InvalidFramesError(`frames have shape [${shape.join(", ")}]: ${EXPECTED}${hint}`);
  }
  const [count, height, width, channels] = shape as Frames["shape"];
  if (channels !== 3 && channels !== 4) throw new InvalidFramesError(`frames have ${channels} channels: ${EXPECTED}`);
  if (!(count * height * width)) throw new InvalidFramesError(`frames have shape [${shape.join(", ")}], which holds no pixel`);
  if (height * width > MAX_PIXELS) {
    throw new InvalidFramesError(`frames have ${width} × ${height} pixels, more than ${MAX_PIXELS}: make them smaller`);
  }
  if (data.length !== count * height * width * channels) {
    throw new InvalidFramesError(`frames of shape [${shape.join(", ")}] have ${data.length} bytes: give a byte a channel`);
  }
  if (channels === 3) return { data, shape: [count, height, width, 3] };
  const rgb = new Uint8Array((data.length / 4) * 3);
  for (let i = 0, o = 0; i < data.length; i += 4) {
    rgb[o++] = data[i]!;
    rgb[o++] = data[i + 1]!;
    rgb[o++] = data[i + 2]!;
  }
  return { data: rgb, shape: [count, height, width, 3] };
}

/** At most `count` of the frames, squashed to squares: uint8 [min(F, count), size, size, 3], one after the other. */
export function prepareFrames(rgb: Frames, count: number, size: number): Uint8Array {
  const [frames, height, width] = rgb.shape;
  const chosen = spread(frames, count);
  const bytes = size * size * 3;
  const out = new Uint8Array(chosen.length * bytes);
  chosen.forEach((n, i) => {
    const frame = rgb.data.subarray(n * height * width * 3, (n + 1) * height * width * 3);
    resizeArea(frame, height, width, size, out.subarray(i * bytes, (i + 1) * bytes));
  });
  return out;
}

function isPictures(given: unknown): given is readonly ImageData[] {
  return Array.isArray(given) && given.length > 0 && given.every((p) => p?.data && p.width && p.height);
}

function joined(pictures: readonly ImageData[]): Frames {
  const { width, height } = pictures[0]!;
  if (pictures.some((p) => p.width !== width || p.height !== height)) {
    throw new InvalidFramesError("frames differ in size: all of a video must be alike");
  }
  const data = new Uint8Array(pictures.length * width * height * 4);
  pictures.forEach((p, i) => data.set(p.data, i * width * height * 4));
  return { data, shape: [pictures.length, height, width, 4] };
}

type Picture = Uint8Array | Uint8ClampedArray;

function resizeArea(src: Picture, height: number, width: number, size: number, out: Uint8Array): void {
  if (height === size && width === size) out.set(src);
  else if (height < size || width < size) enlarge(src, height, width, size, out);
  else if (height % size === 0 && width % size === 0) average(src, height, width, size, out);
  else shrink(src, height, width, size, out);
}

/** Both sides are multiples: plain means. */
function average(src: Picture, height: number, width: number, size: number, out: Uint8Array): void {
  const [down, across] = [height / size, width / size];
  const scale = fround(1 / (down * across));
  for (let y = 0, o = 0; y < size; y++) {
    for (let x = 0; x < size * 3; x++, o++) {
      let sum = 0;
      const start = y * down * width * 3 + Math.floor(x / 3) * across * 3 + (x % 3);
      for (let i = 0; i < down; i++) for (let j = 0; j < across; j++) sum += src[start + (i * width + j) * 3]!;
      out[o] = down === 2 && across === 2 ? (sum + 2) >> 2 : rint(fround(sum * scale));
    }
  }
}

/** From which pixels, and with which weights, each of `size` new ones is made. */
function areas(length: number, size: number): { to: number; from: number; weight: number }[] {
  const scale = length / size;
  const table = [];
  for (let to = 0; to < size; to++) {
    const start = to * scale;
    const end = start + scale;
    const cell = Math.min(scale, length - start);
    const last = Math.min(Math.floor(end), length - 1);
    const first = Math.min(Math.ceil(start), last);
    if (first - start > 1e-3) table.push({ to, from: first - 1, weight: fround((first - start) / cell) });
    for (let from = first; from < last; from++) table.push({ to, from, weight: fround(1 / cell) });
    if (end - last > 1e-3) table.push({ to, from: last, weight: fround(Math.min(end - last, 1, cell) / cell) });
  }
  return table;
}

/** Each new pixel is the mean of the area that it covers. */
function shrink(src: Picture, height: number, width: number, size: number, out: Uint8Array): void {
  const across = areas(width, size);
  const row = size * 3;
  const sums = new Float32Array(row);
  const line = new Float32Array(row);
  let current = 0;
  const finish = (): void => {
    for (let x = 0; x < row; x++) out[current * row + x] = Math.min(rint(sums[x]!), 255);
  };
  for (const { to, from, weight } of areas(height, size)) {
    line.fill(0);
    for (const { to: x, from: sx, weight: a } of across) {
      const s = (from * width + sx) * 3;
      line[x * 3]! += fround(src[s]! * a);
      line[x * 3 + 1]! += fround(src[s + 1]! * a);
      line[x * 3 + 2]! += fround(src[s + 2]! * a);
    }
    if (to !== current) {
      finish();
      sums.fill(0);
      current = to;
    }
    for (let x = 0; x < row; x++) sums[x]! += fround(weight * line[x]!);
  }
  finish();
}

const COEFFICIENTS = 2048;

/** The two pixels that each new one lies between, and how much each counts, of 2048. */
function between(length: number, size: number): { first: number; second: number; near: number; far: number }[] {
  const scale = length / size;
  return Array.from({ length: size }, (_, to) => {
    let first = Math.floor(to * scale);
    let part = fround(to + 1 - (first + 1) * (size / length));
    part = part <= 0 ? 0 : fround(part - Math.floor(part));
    if (first >= length - 1) [first, part] = [length - 1, 0];
    return {
      first, second: Math.min(first + 1, length - 1),
      near: rint(fround(fround(1 - part) * COEFFICIENTS)), far: rint(fround(part * COEFFICIENTS)),
    };
  });
}

/** A side is smaller: OpenCV's INTER_AREA is bilinear then, with the weights of areas in whole numbers. */
function enlarge(src: Picture, height: number, width: number, size: number, out: Uint8Array): void {
  const across = between(width, size);
  const lines = new Map<number, Int32Array>();
  const line = (y: number): Int32Array => {
    let made = lines.get(y);
    if (!made) {
      made = new Int32Array(size * 3);
      across.forEach(({ first, second, near, far }, x) => {
        for (let c = 0; c < 3; c++) {
          made![x * 3 + c] = src[(y * width + first) * 3 + c]! * near + src[(y * width + second) * 3 + c]! * far;
        }
      });
      lines.delete(y - 2); // rows come in order
      lines.set(y, made);
    }
    return made;
  };
  between(height, size).forEach(({ first, second, near, far }, y) => {
    const [above, below] = [line(first), line(second)];
    for (let x = 0; x < size * 3; x++) {
      const sum = ((near * (above[x]! >> 4)) >> 16) + ((far * (below[x]! >> 4)) >> 16);
      out[y * size * 3 + x] = (sum + 2) >> 2;
    }
  });
}
