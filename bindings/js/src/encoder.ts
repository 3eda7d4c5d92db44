/** Videos → layer tokens: frames and titles as the graph takes them. */

import { BackendError, BundleCorruptError, InvalidFramesError, VideoError, VideoNotFoundError, VideoUnreadableError, said } from "./errors.js";
import { asRgb, prepareFrames, type Frames } from "./frames.js";
import type { Video } from "./inputs.js";
import type { Config } from "./manifest.js";
import type { Ort, OrtSession, OrtTensor } from "./ort.js";
import type { Tokenizer } from "./tokenizer.js";

/** Gives at most `count` well-spread frames of a file; `size` is the side that they will be squashed to. */
export type Decoder = (file: Blob, count: number, size: number) => Promise<Frames>;

export interface Encoded {
  tokens: Int8Array;
  scales: Float32Array;
}

const INPUTS = ["frame_mask", "frames", "title_ids", "title_mask"];
const OUTPUTS = ["scales", "tokens"];

export class Encoder {
  private constructor(
    private readonly ort: Ort,
    private readonly session: OrtSession,
    private readonly config: Config,
    private readonly tokenizer: Tokenizer,
    private readonly decoder: Decoder,
  ) {}

  /** @throws {BundleCorruptError} The bytes are no graph of the contract. */
  static async load(
    ort: Ort, model: Uint8Array, config: Config, tokenizer: Tokenizer, decoder: Decoder, options: object,
  ): Promise<Encoder> {
    let session: OrtSession;
    try {
      session = await ort.InferenceSession.create(model, options);
    } catch (e) {
      throw new BundleCorruptError(`ONNX Runtime cannot load the encoder graph: ${said(e)}`);
    }
    for (const [kind, found, wanted] of [["inputs", session.inputNames, INPUTS], ["outputs", session.outputNames, OUTPUTS]] as const) {
      if ([...found].sort().join() !== wanted.join()) {
        throw new BundleCorruptError(
          `the encoder graph has the ${kind} ${found.join(", ")}: expected ${wanted.join(", ")}. Export the bundle again.`,
        );
      }
    }
    return new Encoder(ort, session, config, tokenizer, decoder);
  }

  /**
   * Frames uint8 [F, size, size, 3], 1 ≤ F ≤ count, one after the other.
   *
   * @throws {VideoError} The video cannot be used.
   */
  async prepare(video: Video): Promise<Uint8Array> {
    const { frames: count, frame_size: size } = this.config;
    if (video.frames) return prepareFrames(asRgb(video.frames), count, size);
    if (!video.file) throw notStored();
    let decoded: Frames;
    try {
      decoded = await this.decoder(video.file, count, size);
    } catch (e) {
      throw e instanceof VideoError ? e : new VideoUnreadableError(`decoding failed: ${said(e)}`);
    }
    const rgb = asRgb(decoded);
    if (rgb.shape[0] > count) throw new InvalidFramesError(`the decoder gave ${rgb.shape[0]} frames: expected at most ${count}`);
    return prepareFrames(rgb, count, size);
  }

  /**
   * Encode one video.
   *
   * @param prepared From `prepare`.
   * @param title What the model reads beside the frames.
   * @throws {BackendError} ONNX Runtime failed.
   */
  async encode(prepared: Uint8Array, title: string | null): Promise<Encoded> {
    const { frames: count, frame_size: size, title_tokens: most, taps, tokens_per_layer: perLayer, token_width: width } = this.config;
    const frames = new Uint8Array(count * size * size * 3);
    frames.set(prepared);
    const ids = this.tokenizer.encode(title ?? "", most);
    const titleIds = new Int32Array(most);
    titleIds.set(ids);
    const upTo = (n: number, length: number): Uint8Array => new Uint8Array(length).fill(1, 0, n);
    const feeds = {
      frames: this.tensor("uint8", frames, [1, count, size, size, 3]),
      frame_mask: this.tensor("bool", upTo(prepared.length / (size * size * 3), count), [1, count]),
      title_ids: this.tensor("int32", titleIds, [1, most]),
      title_mask: this.tensor("bool", upTo(ids.length, most), [1, most]),
    };
    let out: Record<string, OrtTensor>;
    try {
      out = await this.session.run(feeds);
    } catch (e) {
      throw new BackendError(`ONNX Runtime failed in the encoder graph: ${said(e)}`);
    }
    const tokens = out.tokens!.data;
    const scales = out.scales!.data;
    const tokenCount = taps.length * perLayer;
    if (!(tokens instanceof Int8Array) || !(scales instanceof Float32Array) || tokens.length !== tokenCount * width || scales.length !== tokenCount) {
      throw new BackendError("the encoder gave tokens of another type or shape than the manifest says: export the bundle again");
    }
    if (!scales.every(Number.isFinite)) throw new BackendError("the encoder gave scales that are no numbers: check the bundle");
    return { tokens: tokens.slice(), scales: scales.slice() };
  }

  /** Release the graph's memory. */
  async close(): Promise<void> {
    await this.session.release?.();
  }

  private tensor(type: string, data: unknown, dims: readonly number[]): OrtTensor {
    return new this.ort.Tensor(type as never, data as never, dims) as OrtTensor;
  }
}

/** What is wrong with an id that the store does not have. */
export function notStored(): VideoNotFoundError {
  return new VideoNotFoundError("the id is not in the store: encode the video first, or pass its file or frames");
}
