/** Files → frames in a browser, by its own decoder. Works where there is a document, not in a worker. */

import { VideoError, VideoTooLargeError, VideoUnreadableError, said } from "./errors.js";
import { MAX_PIXELS, asRgb, prepareFrames, type Frames } from "./frames.js";

const MAX_SECONDS = 4 * 3600;
const PATIENCE_MS = 20_000;

/**
 * Well-spread frames of a video: those on screen at the centers of `count` equal intervals, each once.
 *
 * A `<video>` that plays is sought through: give one that nobody is watching. To encode in a worker, call this on the page
 * and post the frames.
 *
 * @param source A file, the address of one, or a `<video>` element.
 * @param count Frames wanted, 7 for the bundle that ships (`rec.info().frames`).
 * @param size Squash each frame to a square of this side (`rec.info().frameSize`) as soon as it is read: seven frames of a 4K
 *   video would take 232 MB. Left out, they keep their size.
 * @returns RGB squares, or RGBA of the video's own size.
 * @throws {VideoUnreadableError} The browser cannot decode it.
 * @throws {VideoTooLargeError} It is too long or its frames too large.
 */
export async function readFrames(
  source: Blob | string | URL | HTMLVideoElement, count = 7, size?: number,
): Promise<Frames> {
  if (typeof document === "undefined") {
    throw new VideoUnreadableError(
      "there is no <video> here to decode files: pass frames, or load with a decoder of your own (in a browser's worker: " +
        "call readFrames on the page, and post what it gives)",
    );
  }
  if (source instanceof HTMLVideoElement) return sought(source, count, size);
  const video = document.createElement("video");
  video.muted = true;
  video.playsInline = true;
  video.preload = "auto";
  const address = source instanceof Blob ? URL.createObjectURL(source) : String(source);
  try {
    if (!(source instanceof Blob)) video.crossOrigin = "anonymous"; // else the canvas keeps its pixels to itself
    video.src = address;
    return await sought(video, count, size);
  } finally {
    video.removeAttribute("src");
    video.load(); // lets the decoder go
    if (source instanceof Blob) URL.revokeObjectURL(address);
  }
}

async function sought(video: HTMLVideoElement, count: number, size?: number): Promise<Frames> {
  if (video.readyState < HTMLMediaElement.HAVE_CURRENT_DATA) await happened(video, "loadeddata");
  if (!Number.isFinite(video.duration)) {
    await moved(video, Number.MAX_SAFE_INTEGER); // a recording without a length in its header: its end says it
  }
  const { duration, videoWidth: width, videoHeight: height } = video;
  if (!width || !height) throw new VideoUnreadableError("the file has no pictures that this browser can decode");
  if (!(duration > 0) || !Number.isFinite(duration)) throw new VideoUnreadableError("the file does not say how long it is");
  if (duration > MAX_SECONDS) throw new VideoTooLargeError(`it is ${Math.round(duration)} s long, more than ${MAX_SECONDS} s`);
  if (width * height > MAX_PIXELS) throw new VideoTooLargeError(`its frames have ${width} × ${height} pixels, more than ${MAX_PIXELS}`);
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d", { willReadFrequently: true, alpha: false })!;
  const times = new Set<number>();
  const frames: (Uint8Array | Uint8ClampedArray)[] = [];
  for (let n = 0; n < count; n++) {
    await moved(video, ((n + 0.5) * duration) / count);
    const time = timeOf(video, n);
    if (times.has(time)) continue; // a short video has fewer frames
    times.add(time);
    try {
      context.drawImage(video, 0, 0);
      const { data } = context.getImageData(0, 0, width, height);
      frames.push(size ? prepareFrames(asRgb({ data, shape: [1, height, width, 4] }), 1, size) : data);
    } catch (e) {
      if (e instanceof VideoError) throw e;
      throw new VideoUnreadableError(`its frames cannot be read, as of a video of another site: ${said(e)}`, { cause: e });
    }
  }
  const bytes = frames[0]!.length;
  const data = new Uint8Array(frames.length * bytes);
  frames.forEach((frame, n) => data.set(frame, n * bytes));
  return { data, shape: size ? [frames.length, size, size, 3] : [frames.length, height, width, 4] };
}

/** When the frame on screen begins, where the browser says it; else `unknown`. */
function timeOf(video: HTMLVideoElement, unknown: number): number {
  if (typeof VideoFrame === "undefined") return unknown;
  const frame = new VideoFrame(video);
  frame.close();
  return frame.timestamp ?? unknown;
}

async function moved(video: HTMLVideoElement, seconds: number): Promise<void> {
  const done = happened(video, "seeked");
  video.currentTime = seconds;
  await done;
}

function happened(video: HTMLVideoElement, name: "loadeddata" | "seeked"): Promise<void> {
  return new Promise((resolve, reject) => {
    const stop = new AbortController();
    const settle = (then: () => void): void => {
      clearTimeout(timer);
      stop.abort();
      then();
    };
    const fail = (why: string, cause?: unknown): void => settle(() => reject(new VideoUnreadableError(why, { cause })));
    const refused = (): void => fail("this browser cannot decode it: MP4 with H.264 and WebM are played by most", video.error);
    const timer = setTimeout(() => fail(`this browser took longer than ${PATIENCE_MS / 1000} s to decode it`), PATIENCE_MS);
    video.addEventListener(name, () => settle(resolve), { signal: stop.signal });
    video.addEventListener("error", refused, { signal: stop.signal });
    if (video.error) refused();
  });
}
