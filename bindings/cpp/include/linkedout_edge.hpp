// linkedout-edge in C++17: the C interface with destructors, strings and exceptions. All of it is in this header.
//
//     linkedout::Recommender rec("bundles/base");
//     linkedout::Store store(rec);
//     store.put({"a.mp4", rec.encode({rgb.data(), 7, 144, 144}, "Cats"), "Cats"});
//     linkedout::History history(rec);
//     history.add({"seen.mp4", features});
//     for (const linkedout::Ranked &r : rec.rank(store, history).all()) std::cout << r.id << " " << r.score << "\n";
//
// linkedout_edge.h says what each call does; docs/bindings-cpp.md how it all fits together.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "linkedout_edge.h"

namespace linkedout {

// What is thrown; `status` is one of LINKEDOUT_….
class Error : public std::runtime_error {
public:
    Error(linkedout_status code, const std::string &what) : std::runtime_error(what), status(code) {}

    const linkedout_status status;
};

using Bytes = std::vector<std::uint8_t>;

// Frames in order of time: uint8 [count][height][width][3], RGB, without gaps. They are not copied.
struct Frames {
    const std::uint8_t *data;
    std::int64_t count, height, width;
};

struct Video {
    std::string id;
    Bytes features;  // from Recommender::encode
    std::optional<std::string> title = std::nullopt;
    std::string content = "";
};

struct Event {
    std::string id;
    Bytes features = {};  // empty: those that the history has of the id already
    std::optional<std::string> title = std::nullopt;
    double watched = 1.0;  // fraction
    std::optional<bool> liked = std::nullopt;
    std::optional<double> at = std::nullopt;  // Unix seconds
};

struct Prior {
    std::vector<double> values;         // NaN: unknown
    std::vector<std::string> ids = {};  // whose they are; empty: the candidates'
    double weight = 1.0;
};

struct RankOptions {
    std::optional<std::int64_t> top_k = std::nullopt;
    double diversity = 0.0, explore = 0.0;
    bool exclude_watched = false, fold_duplicates = false;
    std::optional<Prior> prior = std::nullopt;
    double now = 0.0;  // Unix seconds; 0: the present hour
};

struct Ranked {
    std::size_t rank;  // from 1
    std::string id;
    float score;
    std::vector<float> layers;  // [L]
    std::int32_t source;        // LINKEDOUT_SOURCE_…
    std::int64_t position;      // in the candidates as given
};

struct Failed {
    std::string id;
    linkedout_status status;
    std::int64_t position;
};

struct Explanation {
    double score, prior, explored;
    std::vector<std::vector<float>> matrix;  // [N][L]
    std::vector<std::string> history;        // ids of the N watched videos
    std::string sentence;
};

struct Interest {
    double share;
    std::vector<std::string> videos;
};

struct TasteSummary {
    std::size_t events;
    std::vector<Interest> likes;
    std::vector<std::string> avoids;
    std::vector<double> layers;
    std::string sentence;
};

namespace detail {

inline void check(linkedout_status status) {
    if (status != LINKEDOUT_OK) throw Error(status, linkedout_last_error());
}

inline linkedout_text text(std::string_view value) {
    return {value.data() == nullptr ? "" : value.data(), value.size()};
}

inline linkedout_text text(const std::optional<std::string> &value) {
    return value ? text(std::string_view(*value)) : linkedout_text{nullptr, 0};
}

inline std::vector<linkedout_text> texts(const std::vector<std::string> &values) {
    std::vector<linkedout_text> out;
    for (const std::string &value : values) out.push_back(text(std::string_view(value)));
    if (out.empty()) out.reserve(1);  // so that data() is not NULL: an empty list is not "all"
    return out;
}

// Text that a call copies out: `call` gets a buffer, its capacity and where its length goes.
template <class Call>
std::string read_text(const Call &call) {
    std::string out;
    std::size_t length = 0;
    check(call(nullptr, 0, &length));
    do {  // it may have become longer meanwhile
        out.resize(length);
        const linkedout_status status = call(out.data(), out.size(), &length);
        if (status != LINKEDOUT_BUFFER_TOO_SMALL) check(status);
    } while (length > out.size());
    out.resize(length);
    return out;
}

template <class Handle>
struct Closer {
    linkedout_status (*close)(Handle *);
    void operator()(Handle *handle) const { close(handle); }
};

template <class Handle>
using Owner = std::unique_ptr<Handle, Closer<Handle>>;

inline Bytes take(linkedout_bytes *bytes) {
    const Owner<linkedout_bytes> owner(bytes, {linkedout_bytes_close});
    const void *data = nullptr;
    std::size_t size = 0;
    check(linkedout_bytes_get(bytes, &data, &size));
    const auto *const first = static_cast<const std::uint8_t *>(data);
    return Bytes(first, first + size);
}

inline linkedout_video video(std::string_view id, const std::optional<std::string> &title, const Bytes &features,
                             std::string_view content = {}) {
    linkedout_video out = LINKEDOUT_VIDEO_INIT;
    out.id = text(id);
    out.title = text(title);
    out.content = text(content);
    out.features = features.empty() ? nullptr : features.data();
    out.features_size = features.size();
    return out;
}

}  // namespace detail

class Recommender;

// Videos in memory.
class Store {
public:
    explicit Store(const Recommender &recommender);

    void put(const Video &video) {
        const linkedout_video given = detail::video(video.id, video.title, video.features, video.content);
        detail::check(linkedout_store_put(get(), &given));
    }

    std::size_t remove(const std::vector<std::string> &ids) {
        const std::vector<linkedout_text> texts = detail::texts(ids);
        std::size_t removed = 0;
        detail::check(linkedout_store_remove(get(), texts.data(), texts.size(), &removed));
        return removed;
    }

    std::size_t size() const {
        std::size_t count = 0;
        detail::check(linkedout_store_count(get(), &count));
        return count;
    }

    std::optional<std::size_t> find(std::string_view id) const {
        std::size_t position = 0;
        const linkedout_status status = linkedout_store_find(get(), detail::text(id), &position);
        if (status == LINKEDOUT_NOT_FOUND) return std::nullopt;
        detail::check(status);
        return position;
    }

    // By position, in order of arrival.
    Video at(std::size_t position) const {
        Video out;
        out.id = text(position, LINKEDOUT_TEXT_ID);
        const std::string title = text(position, LINKEDOUT_TEXT_TITLE);
        if (!title.empty()) out.title = title;
        out.content = text(position, LINKEDOUT_TEXT_CONTENT);
        out.features.resize(features_size_);
        detail::check(linkedout_store_features(get(), position, out.features.data(), out.features.size()));
        return out;
    }

    // How many videos the pack holds.
    std::size_t read_pack(const void *data, std::size_t size) {
        std::size_t count = 0;
        detail::check(linkedout_store_read_pack(get(), data, size, &count));
        return count;
    }

    Bytes write_pack() const { return pack(nullptr, 0); }
    Bytes write_pack(const std::vector<std::string> &ids) const {
        const std::vector<linkedout_text> texts = detail::texts(ids);
        return pack(texts.data(), texts.size());
    }

    linkedout_store *get() const { return handle_.get(); }

private:
    std::string text(std::size_t position, std::int32_t which) const {
        return detail::read_text([&](char *to, std::size_t capacity, std::size_t *length) {
            return linkedout_store_text(get(), position, which, to, capacity, length);
        });
    }

    Bytes pack(const linkedout_text *ids, std::size_t count) const {
        linkedout_bytes *bytes = nullptr;
        detail::check(linkedout_store_write_pack(get(), ids, count, &bytes));
        return detail::take(bytes);
    }

    detail::Owner<linkedout_store> handle_;
    std::size_t features_size_;
};

// What was watched, oldest first, and the features of it.
class History {
public:
    explicit History(const Recommender &recommender);
    History(const Recommender &recommender, const void *saved, std::size_t size);

    void add(const Event &event) {
        const linkedout_video video = detail::video(event.id, event.title, event.features);
        linkedout_event given = LINKEDOUT_EVENT_INIT;
        given.video = &video;
        given.watched = event.watched;
        if (event.liked) given.liked = *event.liked ? LINKEDOUT_LIKED : LINKEDOUT_DISLIKED;
        given.has_at = event.at ? 1 : 0;
        given.at = event.at.value_or(0.0);
        detail::check(linkedout_history_add(get(), &given));
    }

    std::size_t forget(std::string_view id) {
        std::size_t removed = 0;
        detail::check(linkedout_history_forget(get(), detail::text(id), &removed));
        return removed;
    }

    std::size_t forget_since(double at) {
        std::size_t removed = 0;
        detail::check(linkedout_history_forget_since(get(), at, &removed));
        return removed;
    }

    std::size_t clear() {
        std::size_t removed = 0;
        detail::check(linkedout_history_clear(get(), &removed));
        return removed;
    }

    std::size_t size() const {
        std::size_t events = 0;
        detail::check(linkedout_history_count(get(), &events));
        return events;
    }

    // By position, 0 being the oldest.
    Event at(std::size_t position) const {
        linkedout_event event = LINKEDOUT_EVENT_INIT;
        detail::check(linkedout_history_event(get(), position, &event));
        Event out;
        out.id = text(position, LINKEDOUT_TEXT_ID);
        const std::string title = text(position, LINKEDOUT_TEXT_TITLE);
        if (!title.empty()) out.title = title;
        out.features.resize(features_size_);
        detail::check(linkedout_history_features(get(), position, out.features.data(), out.features.size()));
        out.watched = event.watched;
        if (event.liked != LINKEDOUT_LIKED_UNKNOWN) out.liked = event.liked == LINKEDOUT_LIKED;
        if (event.has_at != 0) out.at = event.at;
        return out;
    }

    Bytes save() const {
        linkedout_bytes *bytes = nullptr;
        detail::check(linkedout_history_save(get(), &bytes));
        return detail::take(bytes);
    }

    linkedout_history *get() const { return handle_.get(); }

private:
    std::string text(std::size_t position, std::int32_t which) const {
        return detail::read_text([&](char *to, std::size_t capacity, std::size_t *length) {
            return linkedout_history_text(get(), position, which, to, capacity, length);
        });
    }

    detail::Owner<linkedout_history> handle_;
    std::size_t features_size_;
};

// Videos, best first.
class Ranking {
public:
    explicit Ranking(linkedout_ranking *handle) : handle_(handle, {linkedout_ranking_close}) {
        detail::check(linkedout_ranking_sizes(handle, &sizes_));
    }

    std::size_t size() const { return sizes_.places; }

    Ranked operator[](std::size_t place) const {
        Ranked out{place + 1, id(place), 0, std::vector<float>(sizes_.layers), 0, 0};
        detail::check(
            linkedout_ranking_places(get(), place, 1, &out.position, &out.score, &out.source, out.layers.data()));
        return out;
    }

    std::vector<Ranked> all() const {
        std::vector<Ranked> out;
        for (std::size_t place = 0; place < size(); place++) out.push_back((*this)[place]);
        return out;
    }

    std::string id(std::size_t place) const {
        return detail::read_text([&](char *to, std::size_t capacity, std::size_t *length) {
            return linkedout_ranking_id(get(), place, to, capacity, length);
        });
    }

    std::vector<Failed> failed() const {
        std::vector<Failed> out(sizes_.failed);
        for (std::size_t n = 0; n < out.size(); n++)
            out[n].id = detail::read_text([&](char *to, std::size_t capacity, std::size_t *length) {
                return linkedout_ranking_failed(get(), n, &out[n].position, &out[n].status, to, capacity, length);
            });
        return out;
    }

    Explanation explain(std::size_t place) const {
        linkedout_explanation numbers = LINKEDOUT_EXPLANATION_INIT;
        std::vector<float> flat(sizes_.events * sizes_.layers);
        detail::check(linkedout_ranking_explain(get(), place, &numbers, flat.data(), flat.size()));
        Explanation out{numbers.score, numbers.prior, numbers.explored, {}, {}, {}};
        for (std::size_t event = 0; event < sizes_.events; event++) {
            const float *const row = flat.data() + event * sizes_.layers;
            out.matrix.emplace_back(row, row + sizes_.layers);
            out.history.push_back(detail::read_text([&](char *to, std::size_t capacity, std::size_t *length) {
                return linkedout_ranking_event_id(get(), event, to, capacity, length);
            }));
        }
        out.sentence = detail::read_text([&](char *to, std::size_t capacity, std::size_t *length) {
            return linkedout_ranking_sentence(get(), place, to, capacity, length);
        });
        return out;
    }

    linkedout_ranking *get() const { return handle_.get(); }

private:
    detail::Owner<linkedout_ranking> handle_;
    linkedout_ranking_size sizes_ = LINKEDOUT_RANKING_SIZE_INIT;
};

struct LoadOptions {
    std::string precision = "";    // "": the bundle's first
    std::string onnxruntime = "";  // path of its library; "": the system's search path
    std::int32_t threads = 0;      // 0: as many as the process may use
    bool without_encoder = false;
};

// An open bundle.
class Recommender {
public:
    explicit Recommender(const std::string &bundle, const LoadOptions &options = {})
        : handle_(load(bundle, options), {linkedout_recommender_close}) {
        detail::check(linkedout_recommender_info(get(), &info_));
    }

    const linkedout_info &info() const { return info_; }

    // `which`: LINKEDOUT_INFO_….
    std::string text(std::int32_t which, std::size_t index = 0) const {
        return detail::read_text([&](char *to, std::size_t capacity, std::size_t *length) {
            return linkedout_recommender_text(get(), which, index, to, capacity, length);
        });
    }

    std::vector<std::int64_t> choose_frames(std::int64_t total) const {
        std::vector<std::int64_t> out(static_cast<std::size_t>(info_.frames));
        std::size_t count = 0;
        detail::check(linkedout_choose_frames(get(), total, out.data(), out.size(), &count));
        out.resize(count);
        return out;
    }

    // uint8 [count][frame_size][frame_size][3], as the encoder gets them.
    Bytes prepare_frames(const Frames &frames) const {
        const linkedout_frames given = c_frames(frames);
        const auto side = static_cast<std::size_t>(info_.frame_size);
        Bytes out(static_cast<std::size_t>(info_.frames) * side * side * 3);
        std::size_t count = 0;
        detail::check(linkedout_prepare_frames(get(), &given, out.data(), out.size(), &count));
        out.resize(count * side * side * 3);
        return out;
    }

    std::vector<std::int32_t> tokenize(std::string_view title) const {
        std::size_t count = 0;
        detail::check(linkedout_tokenize(get(), detail::text(title), nullptr, 0, &count));
        std::vector<std::int32_t> out(count);
        detail::check(linkedout_tokenize(get(), detail::text(title), out.data(), out.size(), &count));
        return out;
    }

    // Features of a video.
    Bytes encode(const Frames &frames, std::string_view title = {}) const {
        const linkedout_frames given = c_frames(frames);
        Bytes out(info_.features_size);
        detail::check(linkedout_encode(get(), &given, detail::text(title), out.data(), out.size()));
        return out;
    }

    // Rank all of the store that was not watched.
    Ranking rank(const Store &store, const History &history, const RankOptions &options = {}) const {
        return rank(store, &history, nullptr, 0, options);
    }

    Ranking rank(const Store &store, const History &history, const std::vector<std::string> &candidates,
                 const RankOptions &options = {}) const {
        const std::vector<linkedout_text> ids = detail::texts(candidates);
        return rank(store, &history, ids.data(), ids.size(), options);
    }

    TasteSummary taste(const Store &store, const History &history, double now = 0.0) const {
        linkedout_taste *made = nullptr;
        detail::check(linkedout_taste_of(get(), store.get(), history.get(), now, &made));
        const detail::Owner<linkedout_taste> owner(made, {linkedout_taste_close});
        linkedout_taste_size sizes = LINKEDOUT_TASTE_SIZE_INIT;
        detail::check(linkedout_taste_sizes(made, &sizes));
        const auto videos = [&](std::size_t interest, std::size_t count) {
            std::vector<std::string> out;
            for (std::size_t n = 0; n < count; n++)
                out.push_back(detail::read_text([&](char *to, std::size_t capacity, std::size_t *length) {
                    return linkedout_taste_video(made, interest, n, to, capacity, length);
                }));
            return out;
        };
        TasteSummary out{sizes.events, {}, videos(LINKEDOUT_AVOIDED, sizes.avoided), {}, {}};
        for (std::size_t n = 0; n < sizes.interests; n++) {
            double share = 0;
            std::size_t count = 0;
            detail::check(linkedout_taste_interest(made, n, &share, &count));
            out.likes.push_back({share, videos(n, count)});
        }
        out.layers.resize(sizes.layers);
        detail::check(linkedout_taste_layers(made, out.layers.data(), out.layers.size()));
        out.sentence = detail::read_text([&](char *to, std::size_t capacity, std::size_t *length) {
            return linkedout_taste_sentence(made, to, capacity, length);
        });
        return out;
    }

    linkedout_recommender *get() const { return handle_.get(); }

private:
    static linkedout_recommender *load(const std::string &bundle, const LoadOptions &options) {
        linkedout_load_options given = LINKEDOUT_LOAD_OPTIONS_INIT;
        given.bundle = detail::text(std::string_view(bundle));
        given.precision = detail::text(std::string_view(options.precision));
        given.onnxruntime = detail::text(std::string_view(options.onnxruntime));
        given.threads = options.threads;
        given.without_encoder = options.without_encoder ? 1 : 0;
        linkedout_recommender *made = nullptr;
        detail::check(linkedout_load(&given, &made));
        return made;
    }

    static linkedout_frames c_frames(const Frames &frames) {
        linkedout_frames out = LINKEDOUT_FRAMES_INIT;
        out.data = frames.data;
        out.count = frames.count;
        out.height = frames.height;
        out.width = frames.width;
        out.size = static_cast<std::size_t>(frames.count * frames.height * frames.width * 3);
        return out;
    }

    Ranking rank(const Store &store, const History *history, const linkedout_text *candidates, std::size_t count,
                 const RankOptions &options) const {
        linkedout_rank_options how = LINKEDOUT_RANK_OPTIONS_INIT;
        if (options.top_k) how.top_k = *options.top_k < 1 ? 0 : *options.top_k;  // -1 would be LINKEDOUT_ALL
        how.diversity = options.diversity;
        how.explore = options.explore;
        how.exclude_watched = options.exclude_watched ? 1 : 0;
        how.fold_duplicates = options.fold_duplicates ? 1 : 0;
        how.now = options.now;
        std::vector<linkedout_text> ids;
        const double nothing = 0;
        if (options.prior) {
            how.prior = options.prior->values.empty() ? &nothing : options.prior->values.data();
            how.prior_count = options.prior->values.size();
            how.prior_weight = options.prior->weight;
            if (!options.prior->ids.empty()) {
                if (options.prior->ids.size() != options.prior->values.size())
                    throw Error(LINKEDOUT_ARGUMENT, "prior has not as many ids as values");
                ids = detail::texts(options.prior->ids);
                how.prior_ids = ids.data();
            }
        }
        linkedout_ranking *made = nullptr;
        detail::check(linkedout_rank(get(), store.get(), history->get(), candidates, count, &how, &made));
        return Ranking(made);
    }

    detail::Owner<linkedout_recommender> handle_;
    linkedout_info info_ = LINKEDOUT_INFO_INIT;
};

inline Store::Store(const Recommender &recommender)
    : handle_(nullptr, {linkedout_store_close}), features_size_(recommender.info().features_size) {
    linkedout_store *made = nullptr;
    detail::check(linkedout_store_create(recommender.get(), &made));
    handle_.reset(made);
}

inline History::History(const Recommender &recommender)
    : handle_(nullptr, {linkedout_history_close}), features_size_(recommender.info().features_size) {
    linkedout_history *made = nullptr;
    detail::check(linkedout_history_create(recommender.get(), &made));
    handle_.reset(made);
}

inline History::History(const Recommender &recommender, const void *saved, std::size_t size)
    : handle_(nullptr, {linkedout_history_close}), features_size_(recommender.info().features_size) {
    linkedout_history *made = nullptr;
    detail::check(linkedout_history_load(recommender.get(), saved, size, &made));
    handle_.reset(made);
}

}  // namespace linkedout
