#include "taste.hpp"

#include <algorithm>
#include <cmath>

#include "linear.hpp"

namespace linkedout {
namespace {

constexpr double LIKED = 1.2, DISLIKED = -0.5;
constexpr double NOISE = 1.0, FEW_EVENTS = 20.0;
constexpr double AGED_DAYS = 365.0;
constexpr size_t EVIDENCE_EVENTS = 32;
constexpr double TEMPER = 4.0, TEMPER_EVENTS = 16.0, LEAST_FIT = 1e-9;
constexpr double PRIOR_VIDEOS = 10.0;

// Trust in each layer after what its kernel alone makes of the latest events.
std::vector<double> gates_of(const Taste &user, const std::vector<Said> &told) {
    const Space &space = *user.space;
    const size_t layers = space.shape.layers, row = space.shape.row(),
                 first = user.events - std::min(user.events, EVIDENCE_EVENTS);
    const size_t count = user.events - first;
    std::vector<double> gates(layers);
    for (size_t layer = 0; layer < layers; layer++) {
        const auto of = [&](size_t n) { return user.seen.data() + ((first + n) * layers + layer) * row; };
        std::vector<double> joint(count * count), y(count);
        for (size_t i = 0; i < count; i++) {
            for (size_t j = 0; j <= i; j++)
                joint[i * count + j] = static_cast<double>(dot(of(i), of(j), row)) / space.size[layer];
            joint[i * count + i] += told[first + i].noise;
            y[i] = told[first + i].wanted;
        }
        cholesky(joint, count);
        solve_lower(joint, count, y.data());
        double fit = 0, evidence = 0;  // log of the density of y under N(0, s (K + noise)) of any scale s
        for (size_t n = 0; n < count; n++) {
            fit += y[n] * y[n];
            evidence -= std::log(joint[n * count + n]);
        }
        evidence -= 0.5 * static_cast<double>(count) * std::log(std::max(fit, LEAST_FIT));
        // A layer may be trusted not at all: log 0 is -inf, and its gate 0.
        gates[layer] =
            std::log(space.prior[layer]) + TEMPER / (1.0 + static_cast<double>(count) / TEMPER_EVENTS) * evidence;
    }
    const double most = *std::max_element(gates.begin(), gates.end());
    double sum = 0;
    for (double &gate : gates) sum += gate = std::exp(gate - most);
    for (double &gate : gates) gate /= sum;
    return gates;
}

}  // namespace

Space Space::following(const RunningSum &sum) const {
    Space out = *this;
    for (size_t n = 0; n < mean.size(); n++)
        out.mean[n] = (PRIOR_VIDEOS * mean[n] + sum.total(n)) / (PRIOR_VIDEOS + static_cast<double>(sum.count()));
    return out;
}

Said said(double watched, int32_t liked, double age_hours) {
    const double wanted = liked == LINKEDOUT_LIKED      ? LIKED
                          : liked == LINKEDOUT_DISLIKED ? DISLIKED
                                                        : std::min(std::max(watched, 0.0), 1.0);
    const double age = std::isnan(age_hours) ? 0.0 : std::min(std::max(age_hours, 0.0), 1e9);
    return {wanted - USUAL, NOISE * (1.0 + age / (24 * AGED_DAYS))};
}

void dequantize(const Shape &shape, const int8_t *tokens, const float *scales, float *out) {
    for (size_t n = 0; n < shape.scales(); n++)
        for (size_t d = 0; d < shape.width; d++)
            out[n * shape.width + d] = static_cast<float>(tokens[n * shape.width + d]) * scales[n];
}

double Taste::weight_of(size_t event) const {
    const size_t layers = space->shape.layers;
    double sum = 0;
    for (size_t layer = 0; layer < layers; layer++) sum += weights[event * layers + layer];
    return sum;
}

bool Taste::is_known() const {
    return std::any_of(weights.begin(), weights.end(), [](double weight) { return weight > 0; });
}

void Taste::center(std::vector<float> &values) const {
    const std::vector<float> mean(space->mean.begin(), space->mean.end());
    for (size_t at = 0; at < values.size(); at += mean.size())
        for (size_t d = 0; d < mean.size(); d++) values[at + d] -= mean[d];
}

void Taste::weigh(std::vector<float> &centered) const {
    const size_t layers = space->shape.layers, row = space->shape.row();
    std::vector<float> by(layers * row);
    for (size_t layer = 0; layer < layers; layer++)
        std::fill_n(by.begin() + static_cast<std::ptrdiff_t>(layer * row), row,
                    static_cast<float>(std::sqrt(gates[layer] / space->size[layer])));
    for (size_t at = 0; at < centered.size(); at += by.size())
        for (size_t d = 0; d < by.size(); d++) centered[at + d] *= by[d];
}

std::vector<float> Taste::contributions(std::vector<float> value) const {
    center(value);
    const size_t layers = space->shape.layers, row = space->shape.row();
    std::vector<float> matrix(events * layers);
    for (size_t n = 0; n < matrix.size(); n++) {
        const float *const mine = seen.data() + n * row, *const other = value.data() + n % layers * row;
        double similar = 0;
        for (size_t d = 0; d < row; d++) similar += static_cast<double>(mine[d]) * static_cast<double>(other[d]);
        matrix[n] = static_cast<float>(weights[n] * similar);
    }
    return matrix;
}

std::vector<double> Taste::deviation(std::vector<float> values) const {
    center(values);
    weigh(values);
    const size_t size = space->mean.size(), count = values.size() / size;
    std::vector<float> mine = seen;
    weigh(mine);
    std::vector<double> out(count), shared(events);
    for (size_t k = 0; k < count; k++) {
        const float *const row = values.data() + k * size;
        double variance = 0;
        for (size_t d = 0; d < size; d++) variance += static_cast<double>(row[d]) * static_cast<double>(row[d]);
        for (size_t n = 0; n < events; n++) shared[n] = static_cast<double>(dot(mine.data() + n * size, row, size));
        solve_lower(factor, events, shared.data());
        for (const double s : shared) variance -= s * s;
        out[k] = space->scale * std::sqrt(std::max(variance, 0.0));
    }
    return out;
}

Taste fit(const std::vector<float> &values, const std::vector<Said> &told, std::shared_ptr<const Space> space) {
    Taste user;
    user.space = std::move(space);
    const Space &known = *user.space;
    const size_t layers = known.shape.layers, row = known.shape.row(), size = known.mean.size(), count = told.size();
    user.events = count;
    user.query.assign(size, 0.0);
    user.offset.assign(layers, 0.0);
    user.gates = known.prior;
    if (count == 0) return user;
    user.seen = values;
    user.center(user.seen);
    user.gates = gates_of(user, told);

    std::vector<float> rows = user.seen;
    user.weigh(rows);
    user.kernel.resize(count * count);
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j <= i; j++)
            user.kernel[i * count + j] = user.kernel[j * count + i] =
                static_cast<double>(dot(rows.data() + i * size, rows.data() + j * size, size));
    user.factor = user.kernel;
    std::vector<double> alpha(count);
    const double few = 1.0 + FEW_EVENTS / static_cast<double>(count);
    for (size_t n = 0; n < count; n++) {
        user.factor[n * count + n] += few * told[n].noise;
        alpha[n] = few * told[n].wanted;
    }
    cholesky(user.factor, count);
    solve_lower(user.factor, count, alpha.data());
    solve_upper(user.factor, count, alpha.data());

    user.weights.resize(count * layers);
    for (size_t n = 0; n < count; n++)
        for (size_t layer = 0; layer < layers; layer++) {
            const double weight = user.weights[n * layers + layer] =
                known.scale * alpha[n] * (user.gates[layer] / known.size[layer]);
            const float *const from = user.seen.data() + (n * layers + layer) * row;
            double *const to = user.query.data() + layer * row;
            for (size_t d = 0; d < row; d++) to[d] += weight * static_cast<double>(from[d]);
        }
    for (size_t n = 0; n < size; n++) user.offset[n / row] += user.query[n] * known.mean[n];
    const auto is_number = [](double value) { return std::isfinite(value); };
    if (!std::all_of(user.query.begin(), user.query.end(), is_number) ||
        !std::all_of(user.weights.begin(), user.weights.end(), is_number))
        fail(LINKEDOUT_BACKEND, "what is liked is no number: encode the videos of the history again");
    return user;
}

}  // namespace linkedout
