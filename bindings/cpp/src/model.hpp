// What the handles stand for: a recommender, a store and a history.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "average.hpp"
#include "lists.hpp"
#include "onnx.hpp"
#include "packs.hpp"
#include "taste.hpp"
#include "tokenizer.hpp"

namespace linkedout {

// Which tokens are meant. Stores and histories keep it, so that they outlive their recommender.
struct Tokens {
    std::string space;
    Shape shape;
};

// A bundle, loaded. It never changes.
class Model {
public:
    Model(const std::string &bundle, const std::string &precision, const std::string &library, int threads,
          bool with_encoder);

    const Manifest manifest;
    const std::shared_ptr<const Tokens> tokens;
    const Tokenizer tokenizer;
    const Space space;
    const std::unique_ptr<const Encoder> encoder;  // nullptr: loaded without

private:
    Model(const Folder &folder, const std::string &precision, const std::string &library, int threads,
          bool with_encoder);
};

// Features, checked and copied: LINKEDOUT_ARGUMENT if they are of another size or hold what is no number.
struct Features {
    Features(const Shape &shape, const void *data, size_t size);
    Features(std::vector<int8_t> checked_tokens, std::vector<float> checked_scales)
        : tokens(std::move(checked_tokens)), scales(std::move(checked_scales)) {}

    std::vector<int8_t> tokens;
    std::vector<float> scales;
};

// Copy features out; LINKEDOUT_ARGUMENT if `size` is another.
void copy_features(const Shape &shape, const int8_t *tokens, const float *scales, void *out, size_t size);

// Videos in memory, in order of arrival. Its users lock.
class Store {
public:
    static constexpr size_t MAX_VIDEOS = 400000;  // of which the sum cannot overflow

    explicit Store(std::shared_ptr<const Tokens> tokens);

    void put(Record record, const int8_t *tokens, const float *scales);
    void take(const Pack &pack);
    size_t remove(const std::vector<std::string_view> &ids);

    std::optional<size_t> find(std::string_view id) const;
    size_t count() const { return records_.size(); }
    const std::shared_ptr<const Record> &record(size_t row) const { return records_[row]; }
    const int8_t *tokens_of(size_t row) const { return tokens_.data() + row * kind->shape.tokens(); }
    const float *scales_of(size_t row) const { return scales_.data() + row * kind->shape.scales(); }
    const int8_t *tokens() const { return tokens_.data(); }
    const float *scales() const { return scales_.data(); }
    const RunningSum &sum() const { return sum_; }
    uint64_t revision() const { return revision_; }            // changes with every change
    uint64_t stamp(size_t row) const { return stamps_[row]; }  // the revision at which it came

    const std::shared_ptr<const Tokens> kind;
    mutable std::shared_mutex lock;

private:
    std::vector<std::shared_ptr<const Record>> records_;
    std::vector<int8_t> tokens_;
    std::vector<float> scales_;
    std::vector<uint64_t> stamps_;
    std::unordered_map<std::string_view, size_t> rows_;  // keys lie in records_
    RunningSum sum_;
    uint64_t revision_;
};

// A watched video: its record and features, shared by its events.
struct Watched {
    Record record;
    std::vector<int8_t> tokens;
    std::vector<float> scales;
};

struct HistoryEvent {
    std::shared_ptr<const Watched> video;
    double watched;
    int32_t liked;
    double at;     // NaN: unknown
    double added;  // when it came into this process; NaN: it was loaded
};

// A history that was fitted.
struct Past {
    std::vector<HistoryEvent> events;  // those that counted, oldest first
    Taste user;
    std::vector<Positions> interests;
};

// What was watched, oldest first. Its users lock.
class History {
public:
    explicit History(std::shared_ptr<const Tokens> tokens) : kind(std::move(tokens)) {}
    History(std::shared_ptr<const Tokens> tokens, SavedHistory saved);

    // `features` none: those that the history has of the id.
    void add(Record record, std::optional<Features> features, double watched, int32_t liked, double at, double now);
    size_t forget(std::string_view id);
    size_t forget_since(double at);
    size_t clear();
    SavedHistory saved() const;

    const std::vector<HistoryEvent> &events() const { return events_; }
    bool has(std::string_view id) const;
    uint64_t revision() const { return revision_; }

    const std::shared_ptr<const Tokens> kind;
    mutable std::shared_mutex lock;

    // What the latest ranking made of it: fitting takes as long as scoring a thousand videos.
    struct Fitted {
        std::shared_ptr<const Past> past;
        std::shared_ptr<const Tokens> model;  // whose tokens these are: every model has its own
        uint64_t revision = 0, store_revision = 0;
        double now = 0;
    };
    mutable std::mutex fitted_lock;
    mutable Fitted fitted;

private:
    template <class Gone>
    size_t remove(const Gone &gone);
    void changed();

    std::vector<HistoryEvent> events_;
    uint64_t revision_ = 0;
};

// Seconds since 1970.
double unix_now();

// Look a history up and fit it. Both may be nullptr. `now` 0: the present hour. The caller holds both locks.
std::shared_ptr<const Past> fitted_past(const Model &model, const Store *store, const History *history, double now);

}  // namespace linkedout
