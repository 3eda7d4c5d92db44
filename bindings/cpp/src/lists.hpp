// Steps that need the whole list: order, deduplication and diversity, interests that take turns, cold start, and priors; as
// linkedout_edge/rank/rerank.py, interests.py, coldstart.py and prior.py have them.
#pragma once

#include <functional>
#include <vector>

#include "taste.hpp"

namespace linkedout {

using Positions = std::vector<size_t>;

// Positions of the `limit` best, best first, ties in input order.
Positions best_first(const std::vector<float> &scores, size_t limit);

// With mean 0 and standard deviation 1; all 0 where they do not differ.
std::vector<double> standardized(std::vector<double> values);

// Tokens of positions: float [K][L][M·D], each layer token of length (L·M)^-½.
using UnitTokens = std::function<std::vector<float>(const Positions &)>;

struct Wish {
    size_t limit;  // SIZE_MAX: all
    double diversity = 0.0;
    bool fold_duplicates = false;
};

// The list: best first, near-duplicates left out, then diversified, then cut.
Positions rerank(const std::vector<float> &scores, const Wish &wish, size_t width, const UnitTokens &unit);

// Which events belong together: positions of the events of each interest, one or two, the larger first; of equally
// large ones the one with the latest event.
std::vector<Positions> find_interests(const Taste &user);

constexpr size_t SHARED_WINDOW = 40, UNKNOWN_WINDOW = 256;

// Let interests share the first places. `values` float [W][L][M·D] of the list's head, `scores` [W]; the new order.
Positions take_turns(const Taste &user, const std::vector<Positions> &groups, std::vector<float> values,
                     const std::vector<double> &scores);

// The same while nothing is known to be liked: far from what was skipped, each standing for many videos.
Positions arrange_unknown(const Taste &user, std::vector<float> values, const std::vector<double> &scores);

}  // namespace linkedout
