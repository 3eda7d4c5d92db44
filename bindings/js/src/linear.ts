/** The little linear algebra that a fit needs. Matrices are flat, row by row, in float64. */

/** Half to even, as Python and C round. */
export function rint(x: number): number {
  const floor = Math.floor(x);
  const rest = x - floor;
  if (rest !== 0.5) return Math.round(x);
  return floor % 2 === 0 ? floor : floor + 1;
}

/** Inner product of `count` entries. */
export function dot(a: Float64Array, from: number, b: Float64Array, start: number, count: number): number {
  let sum = 0;
  for (let i = 0; i < count; i++) sum += a[from + i]! * b[start + i]!;
  return sum;
}

/** The same of float32: a function of its own, which engines compile for that type, and with four sums that do not wait. */
export function dotSingles(a: Float32Array, from: number, b: Float32Array, start: number, count: number): number {
  let s0 = 0;
  let s1 = 0;
  let s2 = 0;
  let s3 = 0;
  const full = count - (count % 4);
  let i = 0;
  for (; i < full; i += 4) {
    s0 += a[from + i]! * b[start + i]!;
    s1 += a[from + i + 1]! * b[start + i + 1]!;
    s2 += a[from + i + 2]! * b[start + i + 2]!;
    s3 += a[from + i + 3]! * b[start + i + 3]!;
  }
  for (; i < count; i++) s0 += a[from + i]! * b[start + i]!;
  return s0 + s1 + (s2 + s3);
}

/** Replace the lower half of a positive definite [n, n] by its Cholesky factor. */
export function cholesky(matrix: Float64Array, n: number): void {
  for (let i = 0; i < n; i++) {
    for (let j = 0; j <= i; j++) {
      const rest = matrix[i * n + j]! - dot(matrix, i * n, matrix, j * n, j);
      matrix[i * n + j] = i === j ? Math.sqrt(rest) : rest / matrix[j * n + j]!;
    }
  }
}

/** L⁻¹ y, in place, for a Cholesky factor L. */
export function whiten(root: Float64Array, n: number, y: Float64Array): void {
  for (let i = 0; i < n; i++) y[i] = (y[i]! - dot(root, i * n, y, 0, i)) / root[i * n + i]!;
}

/** (L Lᵀ)⁻¹ y, in place. */
export function solve(root: Float64Array, n: number, y: Float64Array): void {
  whiten(root, n, y);
  for (let i = n - 1; i >= 0; i--) {
    let sum = y[i]!;
    for (let j = i + 1; j < n; j++) sum -= root[j * n + i]! * y[j]!;
    y[i] = sum / root[i * n + i]!;
  }
}

/** Position of the largest; of equals the first. */
export function argmax(values: ArrayLike<number>): number {
  let best = 0;
  for (let i = 1; i < values.length; i++) if (values[i]! > values[best]!) best = i;
  return best;
}
