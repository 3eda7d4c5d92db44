// Events and candidates → order, scores and evidence; and what is believed of a user. As linkedout_edge/rank/pipeline.py,
// results.py and rank/profile.py have them.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "model.hpp"

namespace linkedout {

// How a list is to be made; see linkedout_rank_options.
struct RankOptions {
    Wish wish{SIZE_MAX};
    double explore = 0.0;
    bool exclude_watched = false;
    bool has_prior = false;
    std::vector<double> prior;  // aligned with candidates or prior_ids
    bool prior_by_id = false;
    std::vector<std::string> prior_ids;
    double prior_weight = 1.0;
    double now = 0.0;
};

struct Place {
    size_t position;
    float score;
    float prior;     // its part of the score
    float explored;  // its part of the score
    std::shared_ptr<const Record> record;
};

struct Failed {
    size_t position;
    std::string id;
};

class Ranking {
public:
    // `candidates` nullptr: all of the store that was not watched. `history` may be nullptr.
    Ranking(const Model &model, std::shared_ptr<const Store> store, const History *history,
            const std::vector<std::string_view> *candidates, const RankOptions &options);

    std::vector<Place> places;
    std::vector<Failed> failed;
    std::vector<float> layers;  // [K][L]
    int32_t source = LINKEDOUT_SOURCE_CONTENT;
    std::shared_ptr<const Past> past;
    Shape shape;

    // float [N][L]; LINKEDOUT_NOT_FOUND if the tokens that were scored are gone.
    std::vector<float> matrix(size_t place) const;
    std::string sentence(size_t place) const;

private:
    std::vector<std::string> names_;  // [N], what to call the watched videos
    std::weak_ptr<const Store> store_;
    uint64_t newest_ = 0;  // the store's revision when it was ranked
    std::vector<int8_t> tokens_;
    std::vector<float> scales_;  // of the first places
};

struct Interest {
    double share;
    std::vector<std::string> videos;
};

// What is believed of a user.
struct TasteSummary {
    TasteSummary(const Model &model, const Store *store, const History *history, double now);

    size_t events;
    std::vector<Interest> likes;
    std::vector<std::string> avoids;
    std::vector<double> layers;
    std::string sentence;
};

}  // namespace linkedout
