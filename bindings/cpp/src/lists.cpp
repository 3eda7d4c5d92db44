#include "lists.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "linear.hpp"

namespace linkedout {
namespace {

constexpr float DUPLICATE_FROM = 0.9f;
constexpr size_t COMPARED = 1024, DIVERSIFIED = 200, BLOCK = 256;
constexpr double NOTHING_NEW = 1e-6;

constexpr size_t INTEREST_EVENTS = 64, LEAST_EVENTS = 2, SHARED_PLACES = 10, ROUNDS = 4;
constexpr double SPLIT_FROM = 0.15, SHARE = 0.2;

constexpr size_t UNKNOWN_PLACES = 20;
constexpr double REPRESENTS = 0.5;
constexpr double LEVEL = 1e-5;  // as close as this, the first goes first: rounding differs by language and CPU

constexpr double NEVER = -std::numeric_limits<double>::infinity();

// Keep the best of each group of near-identical videos, until `limit` are kept.
Positions deduplicate(const Positions &order, size_t width, const UnitTokens &unit, size_t limit) {
    Positions kept;
    std::vector<float> compared;
    const auto same = [&](const float *a, const float *b) { return dot(a, b, width) >= DUPLICATE_FROM; };
    for (size_t start = 0; start < order.size() && kept.size() < limit; start += BLOCK) {
        const Positions block(order.begin() + static_cast<std::ptrdiff_t>(start),
                              order.begin() + static_cast<std::ptrdiff_t>(std::min(start + BLOCK, order.size())));
        const std::vector<float> mine = unit(block);
        const size_t before = compared.size() / width;
        Positions chosen;  // of the block
        for (size_t n = 0; n < block.size(); n++) {
            const float *const row = mine.data() + n * width;
            bool is_new = true;
            for (size_t k = 0; is_new && k < before; k++) is_new = !same(row, compared.data() + k * width);
            for (size_t k = 0; is_new && k < chosen.size(); k++) is_new = !same(row, mine.data() + chosen[k] * width);
            if (!is_new) continue;
            chosen.push_back(n);
            kept.push_back(block[n]);
            if (compared.size() / width < COMPARED) compared.insert(compared.end(), row, row + width);
        }
    }
    if (kept.size() > limit) kept.resize(limit);
    return kept;
}

// (1 + cosine) / 2 after centering: [K][K], ones on the diagonal.
std::vector<double> similarities(const std::vector<float> &vectors, size_t width) {
    const size_t count = vectors.size() / width;
    std::vector<double> mean(width), centered(vectors.begin(), vectors.end());
    for (size_t n = 0; n < vectors.size(); n++) mean[n % width] += centered[n];
    for (double &m : mean) m /= static_cast<double>(count);
    for (size_t n = 0; n < centered.size(); n++) centered[n] -= mean[n % width];
    for (size_t k = 0; k < count; k++) {
        double *const row = centered.data() + k * width;
        double length = 0;
        for (size_t d = 0; d < width; d++) length += row[d] * row[d];
        length = std::sqrt(length);
        // Videos that do not differ from the mean have no direction: they keep a zero vector.
        for (size_t d = 0; d < width; d++) row[d] = length > 1e-6 ? row[d] / length : 0.0;
    }
    std::vector<double> similar(count * count, 1.0);
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < i; j++) {
            double sums[4] = {0, 0, 0, 0};  // side by side, as in `dot`
            const double *const a = centered.data() + i * width, *const b = centered.data() + j * width;
            size_t d = 0;
            for (; d + 4 <= width; d += 4)
                for (size_t lane = 0; lane < 4; lane++) sums[lane] += a[d + lane] * b[d + lane];
            for (; d < width; d++) sums[0] += a[d] * b[d];
            similar[i * count + j] = similar[j * count + i] = 0.5 + 0.5 * ((sums[0] + sums[1]) + (sums[2] + sums[3]));
        }
    return similar;
}

// Reorder the best so that neighbors differ: greedy MAP inference of a determinantal point process.
Positions diversify(const Positions &order, const std::vector<float> &scores, size_t width, const UnitTokens &unit,
                    const Wish &wish) {
    const size_t count = std::min(order.size(), DIVERSIFIED);
    if (count < 2) return order;
    const Positions window(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(count));
    const size_t places = std::min(wish.limit, count);
    const std::vector<double> similar = similarities(unit(window), width);
    // Cholesky rows of what is chosen, and what each video would still add to the determinant.
    std::vector<double> rows, left(count);
    for (size_t n = 0; n < count; n++) left[n] = similar[n * count + n];
    std::vector<bool> free(count, true);
    Positions out;
    while (out.size() < places) {
        size_t best = count;
        double most = NEVER;
        for (size_t n = 0; n < count; n++) {
            if (!free[n] || !(left[n] > NOTHING_NEW)) continue;
            const double quality = (1.0 - wish.diversity) * static_cast<double>(scores[window[n]]);
            const double gain = quality + wish.diversity * std::log(left[n]);
            if (best == count || gain > most) {  // of equals the better placed one
                best = n;
                most = gain;
            }
        }
        if (best == count) break;
        const size_t chosen = out.size();
        const double root = std::sqrt(left[best]);
        rows.resize((chosen + 1) * count);
        for (size_t n = 0; n < count; n++) {
            double sum = 0;
            for (size_t k = 0; k < chosen; k++) sum += rows[k * count + best] * rows[k * count + n];
            const double entry = (similar[best * count + n] - sum) / root;
            rows[chosen * count + n] = entry;
            left[n] -= entry * entry;
        }
        free[best] = false;
        out.push_back(window[best]);
    }
    for (size_t n = 0; n < count; n++)
        if (free[n]) out.push_back(window[n]);
    out.insert(out.end(), order.begin() + static_cast<std::ptrdiff_t>(count), order.end());
    return out;
}

Positions cut(Positions order, size_t limit) {
    if (order.size() > limit) order.resize(limit);
    return order;
}

// Unit vectors of centered tokens [K][L][M·D], in place.
void directions(const Taste &user, std::vector<float> &centered) {
    user.weigh(centered);
    const size_t width = user.space->mean.size();
    for (size_t at = 0; at < centered.size(); at += width) {
        const float length = std::max(std::sqrt(dot(&centered[at], &centered[at], width)), 1e-9f);
        for (size_t d = 0; d < width; d++) centered[at + d] /= length;
    }
}

// The square of a cosine, 0 for those that point away.
float alikeness(const float *a, const float *b, size_t width) {
    const float cosine = std::max(dot(a, b, width), 0.0f);
    return cosine * cosine;
}

}  // namespace

Positions best_first(const std::vector<float> &scores, size_t limit) {
    Positions order(scores.size());
    std::iota(order.begin(), order.end(), size_t{0});
    const auto better = [&](size_t a, size_t b) { return scores[a] != scores[b] ? scores[a] > scores[b] : a < b; };
    if (limit < order.size()) {
        std::nth_element(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(limit), order.end(), better);
        order.resize(limit);
    }
    std::sort(order.begin(), order.end(), better);
    return order;
}

std::vector<double> standardized(std::vector<double> values) {
    const auto count = static_cast<double>(values.size());
    double mean = 0, variance = 0, largest = 1.0;
    for (const double value : values) {
        mean += value / count;
        largest = std::max(largest, std::fabs(value));
    }
    for (const double value : values) variance += (value - mean) * (value - mean) / count;
    const double spread = std::sqrt(variance);
    // Rounding makes the standard deviation of equal numbers a little more than 0.
    const bool differ = spread > 1e-12 * largest && std::isfinite(spread);
    for (double &value : values) value = differ ? (value - mean) / spread : 0.0;
    return values;
}

Positions rerank(const std::vector<float> &scores, const Wish &wish, size_t width, const UnitTokens &unit) {
    if (wish.limit == 1 || !(wish.diversity > 0 || wish.fold_duplicates))  // neither changes who is first
        return best_first(scores, wish.limit);
    const bool all = wish.limit == SIZE_MAX;
    const size_t needed = all ? SIZE_MAX : wish.diversity > 0 ? std::max(wish.limit, DIVERSIFIED) : wish.limit;
    Positions order = best_first(scores, all || needed > SIZE_MAX / 4 ? SIZE_MAX : 4 * needed);
    if (wish.fold_duplicates) {
        Positions kept = deduplicate(order, width, unit, needed);
        if (!all && kept.size() < needed && order.size() < scores.size())
            kept = deduplicate(best_first(scores, SIZE_MAX), width, unit, needed);
        order = std::move(kept);
    }
    if (wish.diversity > 0) order = diversify(order, scores, width, unit, wish);
    return cut(std::move(order), wish.limit);
}

std::vector<Positions> find_interests(const Taste &user) {
    Positions kept;
    for (size_t n = 0; n < user.events; n++)
        if (user.weight_of(n) > 0) kept.push_back(n);
    if (kept.size() > INTEREST_EVENTS) kept.erase(kept.begin(), kept.end() - INTEREST_EVENTS);
    const std::vector<Positions> one = kept.empty() ? std::vector<Positions>{} : std::vector<Positions>{kept};
    const size_t count = kept.size();
    if (count < 2 * LEAST_EVENTS) return one;

    std::vector<double> alike(count * count), whole(count, 0.0);
    const auto product = [&](size_t i, size_t j) { return user.kernel[kept[i] * user.events + kept[j]]; };
    size_t first = 0, second = 0;
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < count; j++) {
            const double length = std::sqrt(std::max(product(i, i), 1e-12)) * std::sqrt(std::max(product(j, j), 1e-12));
            alike[i * count + j] = product(i, j) / length;
            whole[i] += alike[i * count + j];
            if (alike[i * count + j] < alike[first * count + second]) first = i, second = j;
        }
    std::vector<bool> side(count);
    for (size_t n = 0; n < count; n++) side[n] = alike[first * count + n] >= alike[second * count + n];
    const auto size_of = [&] { return static_cast<size_t>(std::count(side.begin(), side.end(), true)); };
    for (size_t round = 0; round < ROUNDS; round++) {
        const size_t ours = size_of();
        if (ours == 0 || ours == count) return one;
        std::vector<bool> next(count);
        for (size_t i = 0; i < count; i++) {
            double with_first = 0;
            for (size_t j = 0; j < count; j++)
                if (side[j]) with_first += alike[i * count + j];
            next[i] =
                with_first / static_cast<double>(ours) >= (whole[i] - with_first) / static_cast<double>(count - ours);
        }
        side = next;
    }
    const size_t ours = size_of(), theirs = count - ours;
    if (std::min(ours, theirs) < LEAST_EVENTS) return one;
    double across = 0, all = 0, own = 0;
    for (size_t i = 0; i < count; i++) {
        own += alike[i * count + i];
        for (size_t j = 0; j < count; j++) {
            all += alike[i * count + j];
            if (side[i] && !side[j]) across += alike[i * count + j];
        }
    }
    const auto pairs = static_cast<double>(ours * (ours - 1) + theirs * (theirs - 1));
    const double within = (all - own - 2.0 * across) / pairs;
    if (within - across / static_cast<double>(ours * theirs) < SPLIT_FROM) return one;
    std::vector<Positions> both(2);
    for (size_t n = 0; n < count; n++) both[side[n] ? 0 : 1].push_back(kept[n]);
    const auto rank = [](const Positions &events) { return std::pair(events.size(), events.back()); };
    if (rank(both[0]) < rank(both[1])) std::swap(both[0], both[1]);
    return both;
}

Positions take_turns(const Taste &user, const std::vector<Positions> &groups, std::vector<float> values,
                     const std::vector<double> &scores) {
    const Space &space = *user.space;
    const size_t width = space.mean.size(), row = space.shape.row(), layers = space.shape.layers, count = scores.size();
    user.center(values);
    // What each interest adds to each score, and how much of its places it serves.
    std::vector<std::vector<double>> adds(groups.size(), std::vector<double>(count)), serves;
    double events = 0;
    for (size_t g = 0; g < groups.size(); g++) {
        events += static_cast<double>(groups[g].size());
        std::vector<double> query(width);
        for (const size_t n : groups[g])
            for (size_t layer = 0; layer < layers; layer++) {
                const double weight = user.weights[n * layers + layer];
                for (size_t d = layer * row; d < (layer + 1) * row; d++)
                    query[d] += weight * static_cast<double>(user.seen[n * width + d]);
            }
        for (size_t w = 0; w < count; w++)
            for (size_t d = 0; d < width; d++) adds[g][w] += query[d] * static_cast<double>(values[w * width + d]);
    }
    serves = adds;
    for (size_t w = 0; w < count; w++) {
        double sum = 0;
        for (auto &by : serves) sum += by[w] = std::max(by[w], 0.0);
        for (auto &by : serves) by[w] /= std::max(sum, 1e-12);
    }
    std::vector<double> served(groups.size(), 0.0);
    std::vector<bool> free(count, true);
    Positions out;
    while (out.size() < std::min(SHARED_PLACES, count)) {
        size_t best = count;
        double most = NEVER;
        for (size_t w = 0; w < count; w++) {
            if (!free[w]) continue;
            double less = 0;
            for (size_t g = 0; g < groups.size(); g++) {
                const double share = static_cast<double>(groups[g].size()) / events;
                const double kept = 1.0 / (1.0 + SHARE * served[g] / (static_cast<double>(groups.size()) * share));
                less += (1.0 - kept) * adds[g][w];
            }
            const double total = scores[w] - less;
            if (best == count || total > most) {
                best = w;
                most = total;
            }
        }
        for (size_t g = 0; g < groups.size(); g++) served[g] += serves[g][best];
        free[best] = false;
        out.push_back(best);
    }
    for (size_t w = 0; w < count; w++)
        if (free[w]) out.push_back(w);
    return out;
}

Positions arrange_unknown(const Taste &user, std::vector<float> values, const std::vector<double> &scores) {
    const size_t width = user.space->mean.size(), count = scores.size();
    user.center(values);
    directions(user, values);
    std::vector<float> alike(count * count), covered(count, 0.0f);
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j <= i; j++)
            alike[i * count + j] = alike[j * count + i] = alikeness(&values[i * width], &values[j * width], width);
    std::vector<float> seen = user.seen;
    directions(user, seen);
    for (size_t n = 0; n < user.events; n++)  // what was skipped represents its like already
        for (size_t w = 0; w < count; w++)
            covered[w] = std::max(covered[w], alikeness(&seen[n * width], &values[w * width], width));
    const std::vector<double> away = standardized(scores);
    std::vector<bool> free(count, true);
    Positions out;
    while (out.size() < std::min(UNKNOWN_PLACES, count)) {
        std::vector<double> gain(count, 0.0);
        for (size_t i = 0; i < count; i++)
            for (size_t w = 0; w < count; w++)
                gain[i] += static_cast<double>(std::max(alike[i * count + w] - covered[w], 0.0f));
        double mean = 0.0, variance = 0.0, most = 1.0;
        for (const double g : gain) mean += g / static_cast<double>(count), most = std::max(most, g);
        for (const double g : gain) variance += (g - mean) * (g - mean) / static_cast<double>(count);
        if (std::sqrt(variance) <= LEVEL * most)  // standardized, rounding alone would decide
            std::fill(gain.begin(), gain.end(), 0.0);
        gain = standardized(std::move(gain));
        std::vector<double> worth(count, NEVER);
        for (size_t n = 0; n < count; n++)
            if (free[n]) worth[n] = away[n] + REPRESENTS * gain[n];
        const double least = *std::max_element(worth.begin(), worth.end()) - LEVEL;
        size_t best = 0;
        while (worth[best] < least) best++;
        out.push_back(best);
        free[best] = false;
        for (size_t w = 0; w < count; w++) covered[w] = std::max(covered[w], alike[best * count + w]);
    }
    Positions rest;
    for (size_t n = 0; n < count; n++)
        if (free[n]) rest.push_back(n);
    std::stable_sort(rest.begin(), rest.end(), [&](size_t a, size_t b) { return scores[a] > scores[b]; });
    out.insert(out.end(), rest.begin(), rest.end());
    return out;
}

}  // namespace linkedout
