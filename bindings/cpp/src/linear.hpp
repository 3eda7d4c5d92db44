// The little linear algebra that is needed. Sums have one order on every machine, so the same tokens give the same
// answers everywhere; several sums side by side let compilers use vector instructions without reordering any.
#pragma once

#include <cmath>
#include <cstddef>
#include <vector>

namespace linkedout {

constexpr size_t LANES = 16;

inline float dot(const float *a, const float *b, size_t count) {
    float sums[LANES] = {0};
    size_t n = 0;
    for (; n + LANES <= count; n += LANES)
        for (size_t lane = 0; lane < LANES; lane++) sums[lane] += a[n + lane] * b[n + lane];
    for (; n < count; n++) sums[n % LANES] += a[n] * b[n];
    for (size_t half = LANES / 2; half != 0; half /= 2)
        for (size_t lane = 0; lane < half; lane++) sums[lane] += sums[lane + half];
    return sums[0];
}

// Lower triangular factor of a positive definite matrix [count][count], in place. What lies above the diagonal stays.
inline void cholesky(std::vector<double> &matrix, size_t count) {
    for (size_t row = 0; row < count; row++) {
        double *const mine = matrix.data() + row * count;
        for (size_t column = 0; column <= row; column++) {
            const double *const other = matrix.data() + column * count;
            double sum = mine[column];
            for (size_t n = 0; n < column; n++) sum -= mine[n] * other[n];
            mine[column] = row == column ? std::sqrt(sum) : sum / other[column];
        }
    }
}

// Solve L x = b in place, L being a factor of `cholesky`.
inline void solve_lower(const std::vector<double> &factor, size_t count, double *x) {
    for (size_t row = 0; row < count; row++) {
        for (size_t n = 0; n < row; n++) x[row] -= factor[row * count + n] * x[n];
        x[row] /= factor[row * count + row];
    }
}

// Solve Lᵀ x = b in place.
inline void solve_upper(const std::vector<double> &factor, size_t count, double *x) {
    for (size_t row = count; row-- > 0;) {
        x[row] /= factor[row * count + row];
        for (size_t n = 0; n < row; n++) x[n] -= factor[row * count + n] * x[row];
    }
}

}  // namespace linkedout
