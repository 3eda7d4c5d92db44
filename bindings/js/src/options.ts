/** Checks of the numbers and switches that callers pass; every message says what would be right. */

import { ArgumentError, ArgumentTypeError, typeName } from "./errors.js";

/** A whole number from 1 on. */
export function positive(name: string, value: unknown): number {
  if (typeof value !== "number") throw new ArgumentTypeError(`${name} must be a whole number, not ${typeName(value)}`);
  if (!Number.isInteger(value) || value < 1) {
    throw new ArgumentError(`${name} must be a whole number, at least 1, not ${value}; leave it out for the default`);
  }
  return value;
}

/** A number from 0 to 1. */
export function fraction(name: string, value: unknown): number {
  if (typeof value !== "number") throw new ArgumentTypeError(`${name} must be a number from 0 to 1, not ${typeName(value)}`);
  if (!(value >= 0 && value <= 1)) {
    const hint = value > 1 && value <= 100 ? "; it is a fraction, divide percent by 100" : "";
    throw new ArgumentError(`${name} must be from 0 to 1, not ${value}${hint}`);
  }
  return value;
}

/** True or false. */
export function flag(name: string, value: unknown): boolean {
  if (typeof value !== "boolean") throw new ArgumentTypeError(`${name} must be true or false, not ${typeName(value)}`);
  return value;
}

/** Refuse names that no option has, such as `top_k`. */
export function known(given: object, names: readonly string[]): void {
  const wrong = Object.keys(given).find((name) => !names.includes(name));
  if (wrong !== undefined) throw new ArgumentTypeError(`unknown option '${wrong}': expected one of ${names.join(", ")}`);
}
