// The little linear algebra that is needed. Sums have one order on every machine, so the same tokens give the same
// answers everywhere; several sums side by side let compilers use vector instructions without reordering any.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstring>
#include <vector>

namespace linkedout {

// Four numbers that are added up side by side. Left to themselves, compilers shuffle them more than they add.
typedef float Four __attribute__((vector_size(16)));

inline Four four(const float *at) {
    Four out;
    std::memcpy(&out, at, sizeof(out));
    return out;
}

inline float dot(const float *a, const float *b, size_t count) {
    Four sums[4] = {};
    size_t n = 0;
    for (; n + 16 <= count; n += 16)
        for (size_t k = 0; k < 4; k++) sums[k] += four(a + n + 4 * k) * four(b + n + 4 * k);
    const Four sum = (sums[0] + sums[2]) + (sums[1] + sums[3]);
    float out = (sum[0] + sum[2]) + (sum[1] + sum[3]);
    for (; n < count; n++) out += a[n] * b[n];
    return out;
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
