/**
 * Everything that this library throws on purpose. A message says what was wrong, what was expected and how to fix it.
 *
 * What goes wrong with *one video* in `rank` or `encode` is not thrown: it is an entry of `failed` in the result, whose
 * `code` is that of the `VideoError` below. Names and codes are those of the Python package.
 */

/** Base class of all errors of this library. `name` stays right where code is minified. */
export class LinkedOutError extends Error {
  override readonly name: string = "LinkedOutError";
}

/** An argument has a value that makes no sense. */
export class ArgumentError extends LinkedOutError {
  override readonly name: string = "ArgumentError";
}

/** An argument has the wrong type, such as a bare string where a list of videos is expected. */
export class ArgumentTypeError extends LinkedOutError {
  override readonly name: string = "ArgumentTypeError";
}

/** A bundle cannot be used. */
export class BundleError extends LinkedOutError {
  override readonly name: string = "BundleError";
}

/** There is no bundle at the given place. */
export class BundleNotFoundError extends BundleError {
  override readonly name: string = "BundleNotFoundError";
}

/** A bundle's files do not match its manifest. */
export class BundleCorruptError extends BundleError {
  override readonly name: string = "BundleCorruptError";
}

/** A bundle was written in a format that this version does not read. */
export class BundleVersionError extends BundleError {
  override readonly name: string = "BundleVersionError";
}

/** ONNX Runtime failed, or cannot do what was asked. */
export class BackendError extends LinkedOutError {
  override readonly name: string = "BackendError";
}

/** The recommender was closed; load a new one. */
export class ClosedError extends LinkedOutError {
  override readonly name: string = "ClosedError";
}

/** What lies in `dataDir` cannot be read or written. */
export class StorageError extends LinkedOutError {
  override readonly name: string = "StorageError";
}

/** There is no room left; what was acknowledged before is still there. */
export class StorageFullError extends StorageError {
  override readonly name: string = "StorageFullError";
}

/** `dataDir` cannot be written to. */
export class StorageReadOnlyError extends StorageError {
  override readonly name: string = "StorageReadOnlyError";
}

/** Another tab or process has `dataDir` open. */
export class StorageBusyError extends StorageError {
  override readonly name: string = "StorageBusyError";
}

/** `dataDir` was written by a newer version of the library, or is not ours. */
export class StorageVersionError extends StorageError {
  override readonly name: string = "StorageVersionError";
}

/** A feature pack or saved history cannot be used: another kind of file, damaged, too large, or of other shapes. */
export class PackError extends LinkedOutError {
  override readonly name: string = "PackError";
}

/** It was made by another model: its tokens mean something else. */
export class TokenSpaceError extends PackError {
  override readonly name: string = "TokenSpaceError";
}

/** Stable, for programs; see the `VideoError` of each. */
export type FailureCode = "not_found" | "unreadable" | "too_large" | "invalid_frames" | "conflict";

/** One video cannot be used. */
export class VideoError extends LinkedOutError {
  override readonly name: string = "VideoError";
  readonly code: FailureCode = "unreadable";
}

/** The id is not in the store. */
export class VideoNotFoundError extends VideoError {
  override readonly name: string = "VideoNotFoundError";
  override readonly code: FailureCode = "not_found";
}

/** The file is no video that can be decoded here. */
export class VideoUnreadableError extends VideoError {
  override readonly name: string = "VideoUnreadableError";
}

/** The file or its frames are over a limit. */
export class VideoTooLargeError extends VideoError {
  override readonly name: string = "VideoTooLargeError";
  override readonly code: FailureCode = "too_large";
}

/** Frames have the wrong type or shape. */
export class InvalidFramesError extends VideoError {
  override readonly name: string = "InvalidFramesError";
  override readonly code: FailureCode = "invalid_frames";
}

/** One id stands for two different contents in one call. */
export class ConflictError extends VideoError {
  override readonly name: string = "ConflictError";
  override readonly code: FailureCode = "conflict";
}

/** What to call a value's type in a message. */
export function typeName(value: unknown): string {
  if (value === null) return "null";
  if (typeof value !== "object") return typeof value;
  return value.constructor?.name || "object";
}

/** What an error of somebody else says. */
export function said(error: unknown): string {
  return error instanceof Error ? error.message || error.name : String(error);
}
