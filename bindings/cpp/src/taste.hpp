// What a user likes, in closed form: events → a query per layer. The formulas and constants are those of
// linkedout_edge/rank/taste.py, which says why.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "average.hpp"
#include "common.hpp"

namespace linkedout {

constexpr double USUAL = 0.3;
constexpr size_t MAX_EVENTS = 192;  // only the latest so many count

// What is known of tokens before anything is known of a user.
struct Space {
    Shape shape;
    std::vector<double> mean;   // [L][M·D]
    std::vector<double> size;   // [L]
    std::vector<double> prior;  // [L], sums to 1
    double scale = 1.0;

    Space following(const RunningSum &sum) const;
};

// What one event says.
struct Said {
    double wanted;  // > 0 attracts, < 0 repels
    double noise;   // > 0
};

// `liked`: 1, 0 or -1 (LINKEDOUT_LIKED, …); `age_hours`: NaN if unknown.
Said said(double watched, int32_t liked, double age_hours);

// Int8 tokens and scales → float [L][M·D].
void dequantize(const Shape &shape, const int8_t *tokens, const float *scales, float *out);

struct Taste {
    std::shared_ptr<const Space> space;
    std::vector<double> query;    // [L][M·D]
    std::vector<double> offset;   // [L]
    std::vector<double> gates;    // [L], sums to 1
    std::vector<double> weights;  // [N][L], > 0 attracts, < 0 repels
    std::vector<float> seen;      // [N][L][M·D], centered
    std::vector<double> kernel;   // [N][N]
    std::vector<double> factor;   // [N][N], of kernel and noise
    size_t events = 0;            // N

    bool is_known() const;
    double weight_of(size_t event) const;  // over all layers

    // Tokens [K][L][M·D] minus the average video's, in place.
    void center(std::vector<float> &values) const;

    // Centered tokens, weighted so that their inner products are the kernel's, in place.
    void weigh(std::vector<float> &centered) const;

    // What each event adds by each layer to the score of one video [L][M·D]: [N][L].
    std::vector<float> contributions(std::vector<float> value) const;

    // How unsure scores of tokens [K][L][M·D] are: standard deviations [K].
    std::vector<double> deviation(std::vector<float> values) const;
};

// `values` float [N][L][M·D], oldest first; `told` [N]. LINKEDOUT_BACKEND if they are so large that nothing comes of it.
Taste fit(const std::vector<float> &values, const std::vector<Said> &told, std::shared_ptr<const Space> space);

}  // namespace linkedout
