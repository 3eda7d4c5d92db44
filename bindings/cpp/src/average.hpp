// The sum of what is stored, as linkedout_edge/store/average.py keeps it: whole numbers add up to the same in any order.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "common.hpp"

namespace linkedout {

class RunningSum {
public:
    explicit RunningSum(const Shape &shape) : shape_(shape), sum_(shape.tokens()) {}

    void add(const int8_t *tokens, const float *scales) { change(tokens, scales, 1); }
    void remove(const int8_t *tokens, const float *scales) { change(tokens, scales, -1); }

    size_t count() const { return count_; }
    double total(size_t n) const { return static_cast<double>(sum_[n]) * UNIT; }

private:
    static constexpr double UNIT = 1.0 / (1 << 30);
    static constexpr double LARGEST = 128;  // a larger scale counts as so much: no model gives any, a made-up pack may

    void change(const int8_t *tokens, const float *scales, int64_t sign) {
        for (size_t n = 0; n < shape_.scales(); n++) {
            const double scale = std::min(std::max(static_cast<double>(scales[n]), -LARGEST), LARGEST);
            const int64_t units = sign * static_cast<int64_t>(std::nearbyint(scale / UNIT));
            for (size_t d = 0; d < shape_.width; d++)
                sum_[n * shape_.width + d] += tokens[n * shape_.width + d] * units;
        }
        count_ = sign > 0 ? count_ + 1 : count_ - 1;
    }

    Shape shape_;
    std::vector<int64_t> sum_;
    size_t count_ = 0;
};

}  // namespace linkedout
