#include "ranking.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <unordered_map>
#include <unordered_set>

#include "kernel.h"

namespace linkedout {
namespace {

constexpr size_t KEPT_FOR_EXPLAINING = 4096;
constexpr size_t CHUNK = 1024;  // candidates whose tokens are upcast at a time
constexpr size_t LIKED_VIDEOS = 5, AVOIDED_VIDEOS = 3;

// A user's query in whole numbers; see linkedout_edge/rank/scorer.py.
class WholeQuery {
public:
    WholeQuery(const Taste &user, const Shape &shape)
        : shape_(shape), digits_(shape.tokens()), units_(shape.scales()), offsets_(shape.layers) {
        const auto largest =
            static_cast<double>(std::min<size_t>(LINKEDOUT_KERNEL_LARGEST, LINKEDOUT_KERNEL_MOST / shape.width));
        for (size_t n = 0; n < shape.scales(); n++) {
            const double *const query = user.query.data() + n * shape.width;
            double most = 1e-12;
            for (size_t d = 0; d < shape.width; d++) most = std::max(most, std::fabs(query[d]));
            const double unit = most / largest;
            units_[n] = static_cast<float>(unit);
            for (size_t d = 0; d < shape.width; d++)
                digits_[n * shape.width + d] = static_cast<int16_t>(std::nearbyint(query[d] / unit));
        }
        for (size_t layer = 0; layer < shape.layers; layer++) offsets_[layer] = static_cast<float>(user.offset[layer]);
    }

    // Scores of rows; `contributions` [rows][L], or nullptr.
    void score(const int8_t *tokens, const float *scales, size_t stored, const std::vector<int64_t> &rows,
               float *scores, float *contributions) const {
        const linkedout_kernel_task task = {
            digits_.data(), units_.data(), offsets_.data(), shape_.layers, shape_.per_layer, shape_.width, tokens,
            scales,         stored,        rows.data(),     rows.size(),   scores,           contributions};
        const int wrong = linkedout_kernel_score(&task);
        if (wrong == -1) throw std::bad_alloc();
        if (wrong != 0) fail(LINKEDOUT_INTERNAL, "the scoring kernel refused its arguments");
        for (size_t n = 0; n < rows.size(); n++)
            if (!std::isfinite(scores[n])) fail(LINKEDOUT_BACKEND, "a score is no number: encode the videos again");
    }

private:
    Shape shape_;
    std::vector<int16_t> digits_;
    std::vector<float> units_, offsets_;
};

// Each layer token of length (L·M)^-½.
std::vector<float> unit_tokens(const Store &store, const std::vector<int64_t> &rows, const Positions &positions) {
    const Shape &shape = store.kind->shape;
    std::vector<float> out(positions.size() * shape.tokens());
    float *to = out.data();
    const float root = std::sqrt(static_cast<float>(shape.scales()));
    for (const size_t position : positions) {
        const int8_t *from = store.tokens_of(static_cast<size_t>(rows[position]));
        for (size_t n = 0; n < shape.scales(); n++, from += shape.width, to += shape.width) {
            int32_t squares = 0;
            for (size_t d = 0; d < shape.width; d++) squares += int32_t{from[d]} * from[d];
            const float length = std::max(std::sqrt(static_cast<float>(squares)), 1e-9f) * root;
            for (size_t d = 0; d < shape.width; d++) to[d] = static_cast<float>(from[d]) / length;
        }
    }
    return out;
}

std::vector<float> dequantized(const Store &store, const std::vector<int64_t> &rows, const Positions &positions) {
    const Shape &shape = store.kind->shape;
    std::vector<float> out(positions.size() * shape.tokens());
    for (size_t n = 0; n < positions.size(); n++) {
        const auto row = static_cast<size_t>(rows[positions[n]]);
        dequantize(shape, store.tokens_of(row), store.scales_of(row), out.data() + n * shape.tokens());
    }
    return out;
}

// How unsure each score is, standardized as a prior is.
std::vector<double> unsure(const Taste &user, const Store &store, const std::vector<int64_t> &rows) {
    std::vector<double> out;
    for (size_t start = 0; start < rows.size(); start += CHUNK) {
        Positions part(std::min(CHUNK, rows.size() - start));
        std::iota(part.begin(), part.end(), start);
        const std::vector<double> some = user.deviation(dequantized(store, rows, part));
        out.insert(out.end(), some.begin(), some.end());
    }
    return standardized(std::move(out));
}

// What a video is called in a sentence: its title, else the last part of its id.
std::string name_of(const Record &record, const Store *store) {
    const auto title_of = [](const Record &r) { return std::string(stripped(r.title.value_or(""))); };
    std::string title = title_of(record);
    if (title.empty() && store != nullptr)
        if (const std::optional<size_t> row = store->find(record.id)) title = title_of(*store->record(*row));
    if (!title.empty()) return title;
    const size_t last = record.id.find_last_not_of("/\\");
    if (last == std::string::npos) return record.id;
    const std::string id = record.id.substr(0, last + 1);
    return id.substr(id.find_last_of("/\\") + 1);  // npos + 1 is 0
}

std::string quoted(const std::string &name) { return "\u201C" + name + "\u201D"; }

// What the user did with a video, and how that speaks for or against the ranked one.
std::pair<std::string, std::string> cause_of(const HistoryEvent &event, bool speaks_for) {
    const bool skipped = event.liked == LINKEDOUT_LIKED_UNKNOWN && event.watched < USUAL;
    const bool against = event.liked == LINKEDOUT_DISLIKED || skipped;
    const std::string verb = event.liked == LINKEDOUT_DISLIKED ? "disliked"
                             : event.liked == LINKEDOUT_LIKED  ? "liked"
                             : skipped                         ? "skipped"
                                                               : "watched";
    if (speaks_for) return {verb, against ? "is unlike" : ""};
    return {verb, against ? "resembles" : "is unlike"};
}

std::string listed(const std::vector<std::string> &names) {
    std::string out;
    for (size_t n = 0; n < names.size(); n++) out += (n == 0 ? "" : n + 1 == names.size() ? " and " : ", ") + names[n];
    return out;
}

}  // namespace

Ranking::Ranking(const Model &model, std::shared_ptr<const Store> kept_store, const History *history,
                 const std::vector<std::string_view> *candidates, const RankOptions &options)
    : shape(model.manifest.shape), store_(kept_store) {
    const Store &store = *kept_store;
    const std::shared_lock<std::shared_mutex> reading(store.lock);
    std::shared_lock<std::shared_mutex> reading_history;
    if (history != nullptr) reading_history = std::shared_lock<std::shared_mutex>(history->lock);
    newest_ = store.revision();
    past = fitted_past(model, &store, history, options.now);
    const Taste &user = past->user;

    // Candidates: their rows, and where they stand in what was given.
    std::unordered_set<std::string_view> watched;
    if (history != nullptr && (options.exclude_watched || candidates == nullptr))
        for (const HistoryEvent &e : history->events()) watched.insert(e.video->record.id);
    std::vector<int64_t> rows;
    Positions given;
    if (candidates == nullptr) {
        for (size_t row = 0; row < store.count(); row++)
            if (watched.empty() || watched.count(store.record(row)->id) == 0) {
                rows.push_back(static_cast<int64_t>(row));
                given.push_back(row);
            }
    } else {
        std::vector<bool> taken(store.count(), false);
        std::unordered_set<std::string_view> missing;
        rows.reserve(candidates->size());
        given.reserve(candidates->size());
        for (size_t n = 0; n < candidates->size(); n++) {
            const std::string_view id = (*candidates)[n];
            if (!watched.empty() && watched.count(id) != 0) continue;
            const std::optional<size_t> row = store.find(id);
            if (!row) {
                if (missing.insert(id).second) failed.push_back({n, std::string(id)});
            } else if (!taken[*row]) {
                taken[*row] = true;
                rows.push_back(static_cast<int64_t>(*row));
                given.push_back(n);
            }
        }
    }
    const size_t count = rows.size();

    // Scores.
    std::vector<float> scores(count, 0.0f), split, explored, bonus;
    const bool few = options.wish.limit <= KEPT_FOR_EXPLAINING && KEPT_FOR_EXPLAINING < count;
    std::optional<WholeQuery> query;
    if (user.events != 0 && count != 0) {
        query.emplace(user, shape);
        if (!few) split.resize(count * shape.layers);
        query->score(store.tokens(), store.scales(), store.count(), rows, scores.data(), few ? nullptr : split.data());
    }
    if (options.explore > 0 && user.is_known()) {  // while nothing is known to be liked, all is uncertain alike
        for (const double z : unsure(user, store, rows))
            explored.push_back(static_cast<float>(options.explore) * static_cast<float>(z));
        for (size_t n = 0; n < count; n++) scores[n] += explored[n];
    }
    if (options.has_prior) {
        std::vector<double> values(count, std::numeric_limits<double>::quiet_NaN()), known;
        if (!options.prior_by_id) {
            for (size_t n = 0; n < count; n++) values[n] = options.prior[given[n]];
        } else {
            std::unordered_map<std::string_view, double> by_id;
            for (size_t n = 0; n < options.prior_ids.size(); n++) by_id[options.prior_ids[n]] = options.prior[n];
            for (size_t n = 0; n < count; n++) {
                const auto found = by_id.find(store.record(static_cast<size_t>(rows[n]))->id);
                if (found != by_id.end()) values[n] = found->second;
            }
        }
        for (const double value : values)
            if (!std::isnan(value)) known.push_back(value);
        known = standardized(std::move(known));
        bonus.assign(count, 0.0f);
        size_t next = 0;
        for (size_t n = 0; n < count; n++)
            if (!std::isnan(values[n]))
                scores[n] += bonus[n] = static_cast<float>(options.prior_weight * known[next++]);
    }

    // Order.
    size_t head = past->interests.size() > 1 ? SHARED_WINDOW : 0;
    if (!user.is_known() && !options.has_prior) {
        source = LINKEDOUT_SOURCE_COLD_START;
        head = UNKNOWN_WINDOW;
    } else if (past->events.empty()) {
        source = LINKEDOUT_SOURCE_PRIOR;
    }
    const bool mixed = head != 0 && !(options.wish.diversity > 0);
    Wish wish = options.wish;
    if (mixed) wish.limit = std::max(wish.limit, head);
    const auto unit = [&](const Positions &positions) { return unit_tokens(store, rows, positions); };
    Positions order = rerank(scores, wish, shape.tokens(), unit);
    if (mixed) {
        const Positions window(order.begin(),
                               order.begin() + static_cast<std::ptrdiff_t>(std::min(head, order.size())));
        std::vector<double> ranked;
        for (const size_t position : window) ranked.push_back(static_cast<double>(scores[position]));
        std::vector<float> values = dequantized(store, rows, window);
        const Positions again = source == LINKEDOUT_SOURCE_COLD_START
                                    ? arrange_unknown(user, std::move(values), ranked)
                                    : take_turns(user, past->interests, std::move(values), ranked);
        for (size_t n = 0; n < again.size(); n++) order[n] = window[again[n]];
        if (order.size() > options.wish.limit) order.resize(options.wish.limit);
    }

    // What is kept of it.
    places.reserve(order.size());
    std::vector<int64_t> placed;
    for (const size_t position : order) {
        const int64_t row = rows[position];
        placed.push_back(row);
        places.push_back({given[position], scores[position], bonus.empty() ? 0.0f : bonus[position],
                          explored.empty() ? 0.0f : explored[position], store.record(static_cast<size_t>(row))});
    }
    layers.assign(places.size() * shape.layers, 0.0f);
    if (query && few) {
        std::vector<float> again(placed.size());
        query->score(store.tokens(), store.scales(), store.count(), placed, again.data(), layers.data());
    } else if (query) {
        for (size_t n = 0; n < order.size(); n++)
            std::copy_n(split.begin() + static_cast<std::ptrdiff_t>(order[n] * shape.layers), shape.layers,
                        layers.begin() + static_cast<std::ptrdiff_t>(n * shape.layers));
    }
    const size_t kept = std::min(placed.size(), KEPT_FOR_EXPLAINING);
    tokens_.reserve(kept * shape.tokens());
    scales_.reserve(kept * shape.scales());
    for (size_t n = 0; n < kept; n++) {
        const auto row = static_cast<size_t>(placed[n]);
        tokens_.insert(tokens_.end(), store.tokens_of(row), store.tokens_of(row) + shape.tokens());
        scales_.insert(scales_.end(), store.scales_of(row), store.scales_of(row) + shape.scales());
    }
    for (const HistoryEvent &e : past->events) names_.push_back(name_of(e.video->record, &store));
}

std::vector<float> Ranking::matrix(size_t place) const {
    std::vector<float> value(shape.tokens());
    if (place * shape.tokens() < tokens_.size()) {
        dequantize(shape, tokens_.data() + place * shape.tokens(), scales_.data() + place * shape.scales(),
                   value.data());
    } else {
        const std::shared_ptr<const Store> store = store_.lock();
        const char *const gone = "the video left the store or changed since it was ranked: rank again to explain it";
        if (!store) fail(LINKEDOUT_NOT_FOUND, gone);
        const std::shared_lock<std::shared_mutex> reading(store->lock);
        const std::optional<size_t> row = store->find(places[place].record->id);
        if (!row || store->stamp(*row) > newest_) fail(LINKEDOUT_NOT_FOUND, gone);
        dequantize(shape, store->tokens_of(*row), store->scales_of(*row), value.data());
    }
    return past->user.contributions(std::move(value));
}

std::string Ranking::sentence(size_t place) const {
    if (past->events.empty()) {
        const float prior = places[place].prior;
        if (prior == 0)
            return "Nothing is known of your taste yet, so the list begins with videos that differ from each other.";
        return std::string("Nothing was watched yet; the app's prior ranks it ") + (prior > 0 ? "above" : "below") +
               " the average.";
    }
    const std::vector<float> matrix = this->matrix(place);
    struct Sum {
        double value = 0;
        size_t latest = 0, order = 0;
    };
    std::unordered_map<std::string_view, Sum> by_id;
    double total = 0;
    for (size_t n = 0; n < past->events.size(); n++) {
        double row = 0;
        for (size_t layer = 0; layer < shape.layers; layer++)
            row += static_cast<double>(matrix[n * shape.layers + layer]);
        const auto [sum, is_new] = by_id.emplace(past->events[n].video->record.id, Sum{0, 0, n});
        sum->second.value += row;
        sum->second.latest = n;
        total += row;
    }
    const bool speaks_for = total >= 0;
    const double sign = speaks_for ? 1.0 : -1.0;
    std::vector<Sum> strongest;
    for (const auto &[id, sum] : by_id)
        if (sign * sum.value > 1e-9) strongest.push_back(sum);
    std::sort(strongest.begin(), strongest.end(), [&](const Sum &a, const Sum &b) {
        return a.value != b.value ? sign * a.value > sign * b.value : a.order < b.order;
    });
    if (strongest.empty())
        return "Nothing that you watched speaks for or against it, so it keeps its place in the list.";
    if (strongest.size() > 2) strongest.resize(2);
    if (strongest.size() == 2 && sign * strongest[1].value < 0.5 * sign * strongest[0].value) strongest.pop_back();
    struct Cause {
        std::string verb, cause;
        std::vector<std::string> names;
    };
    std::vector<Cause> causes;
    for (const Sum &sum : strongest) {
        const auto [verb, cause] = cause_of(past->events[sum.latest], speaks_for);
        const std::string name = quoted(names_[sum.latest]);
        if (!causes.empty() && causes[0].verb == verb && causes[0].cause == cause)
            causes[0].names.push_back(name);
        else
            causes.push_back({verb, cause, {name}});
    }
    std::string out = speaks_for ? "Recommended" : "Ranked low";
    for (size_t n = 0; n < causes.size(); n++) {
        const Cause &c = causes[n];
        out += n == 0 ? " because " : ", and because ";
        out += c.cause.empty() ? "you " + c.verb + " " + listed(c.names)
                               : "it " + c.cause + " " + listed(c.names) + ", which you " + c.verb;
    }
    return out + ".";
}

TasteSummary::TasteSummary(const Model &model, const Store *store, const History *history, double now) {
    std::shared_lock<std::shared_mutex> reading, reading_history;
    if (store != nullptr) reading = std::shared_lock<std::shared_mutex>(store->lock);
    if (history != nullptr) reading_history = std::shared_lock<std::shared_mutex>(history->lock);
    const std::shared_ptr<const Past> past = fitted_past(model, store, history, now);
    const Taste &user = past->user;
    const Shape &shape = model.manifest.shape;
    events = past->events.size();
    layers = user.gates;

    // How hard an event pulls towards its own like.
    std::vector<double> own(events, 0.0);
    for (size_t n = 0; n < events * shape.layers; n++) {
        const float *const seen = user.seen.data() + n * shape.row();
        double length = 0;
        for (size_t d = 0; d < shape.row(); d++) length += static_cast<double>(seen[d]) * static_cast<double>(seen[d]);
        own[n / shape.layers] += user.weights[n] * length;
    }
    const auto strongest = [&](Positions places, double sign, size_t most) {
        std::sort(places.begin(), places.end(),
                  [&](size_t a, size_t b) { return own[a] != own[b] ? sign * own[a] > sign * own[b] : a < b; });
        std::vector<std::string> ids;
        for (const size_t n : places) {
            const std::string &id = past->events[n].video->record.id;
            if (sign * own[n] > 0 && ids.size() < most && std::find(ids.begin(), ids.end(), id) == ids.end())
                ids.push_back(id);
        }
        return ids;
    };
    size_t attracting = 0;
    for (const Positions &group : past->interests) attracting += group.size();
    for (const Positions &group : past->interests)
        likes.push_back(
            {static_cast<double>(group.size()) / static_cast<double>(attracting), strongest(group, 1.0, LIKED_VIDEOS)});
    Positions others;  // events of videos that are not named as liked
    for (size_t n = 0; n < events; n++) {
        const auto names_it = [&](const Interest &like) {
            return std::find(like.videos.begin(), like.videos.end(), past->events[n].video->record.id) !=
                   like.videos.end();
        };
        if (std::none_of(likes.begin(), likes.end(), names_it)) others.push_back(n);
    }
    avoids = strongest(others, -1.0, AVOIDED_VIDEOS);

    std::unordered_map<std::string_view, std::string> named;
    for (const HistoryEvent &e : past->events) named[e.video->record.id] = quoted(name_of(e.video->record, store));
    const auto names = [&](const std::vector<std::string> &ids) {
        std::vector<std::string> out;
        for (const std::string &id : ids) out.push_back(named[id]);
        return listed(out);
    };
    for (const Interest &like : likes)
        sentence += (sentence.empty() ? "Likes videos like " : ", and videos like ") + names(like.videos);
    if (likes.empty()) sentence = "Nothing is known to be liked yet";
    if (!avoids.empty()) sentence += "; avoids videos like " + names(avoids);
    sentence += ".";
}

}  // namespace linkedout
