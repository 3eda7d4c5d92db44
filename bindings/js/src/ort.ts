/** What is used of ONNX Runtime: `onnxruntime-web` and `onnxruntime-node` both fit. */

export interface OrtTensor {
  readonly data: unknown;
  readonly dims: readonly number[];
  dispose?(): void;
}

export interface OrtSession {
  readonly inputNames: readonly string[];
  readonly outputNames: readonly string[];
  run(feeds: Record<string, OrtTensor>): Promise<Record<string, OrtTensor>>;
  release?(): Promise<void>;
}

export interface Ort {
  InferenceSession: { create(model: Uint8Array, options?: object): Promise<OrtSession> };
  Tensor: new (type: never, data: never, dims: readonly number[]) => unknown;
  env?: { versions?: { common?: string; web?: string; node?: string } };
}

/** ONNX Runtime itself, or a function that imports it: then nothing of it is loaded before `Recommender.load`. */
export type OrtLike = Ort | (() => Promise<Ort | { default: Ort }>);
