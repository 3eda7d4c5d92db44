#include "model.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <unordered_set>

namespace linkedout {
namespace {

Space space_of(const Manifest &manifest) {
    Space space{manifest.shape, manifest.mean, manifest.size, manifest.layer_prior, manifest.score_scale};
    if (space.prior.empty()) space.prior.assign(space.shape.layers, 1.0);
    double sum = 0;
    for (const double prior : space.prior) sum += prior;
    for (double &prior : space.prior) prior /= sum;
    return space;
}

// No two states of any stores have the same number.
uint64_t next_revision() {
    static std::atomic<uint64_t> revision{0};
    return ++revision;
}

}  // namespace

double unix_now() { return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count(); }

Model::Model(const std::string &bundle, const std::string &precision, const std::string &library, int threads,
             bool with_encoder)
    : Model(Folder(bundle), precision, library, threads, with_encoder) {}

Model::Model(const Folder &folder, const std::string &precision, const std::string &library, int threads,
             bool with_encoder)
    : manifest(parse_manifest(folder.manifest(), precision)),
      tokens(std::make_shared<const Tokens>(Tokens{manifest.token_space, manifest.shape})),
      tokenizer(folder.read(manifest.tokenizer), manifest.vocab_size),
      space(space_of(manifest)),
      encoder(with_encoder ? std::make_unique<const Encoder>(folder.read(manifest.encoder), manifest, library, threads)
                           : nullptr) {}

Features::Features(const Shape &shape, const void *data, size_t size) : tokens(shape.tokens()), scales(shape.scales()) {
    if (data == nullptr || size != shape.features())
        fail(LINKEDOUT_ARGUMENT, "features have " + std::to_string(size) + " bytes: expected " +
                                     std::to_string(shape.features()) + ", as linkedout_encode gives them");
    std::memcpy(tokens.data(), data, shape.tokens());
    std::memcpy(scales.data(), static_cast<const uint8_t *>(data) + shape.tokens(), shape.scales() * sizeof(float));
    for (const float scale : scales)
        if (!std::isfinite(scale) || scale < 0)
            fail(LINKEDOUT_ARGUMENT, "features hold scales that are negative or no numbers: encode the video again");
}

void copy_features(const Shape &shape, const int8_t *tokens, const float *scales, void *out, size_t size) {
    if (out == nullptr || size != shape.features())
        fail(LINKEDOUT_ARGUMENT, "there is room for " + std::to_string(size) + " bytes of features: expected " +
                                     std::to_string(shape.features()));
    std::memcpy(out, tokens, shape.tokens());
    std::memcpy(static_cast<uint8_t *>(out) + shape.tokens(), scales, shape.scales() * sizeof(float));
}

Store::Store(std::shared_ptr<const Tokens> tokens)
    : kind(std::move(tokens)), sum_(kind->shape), revision_(next_revision()) {}

void Store::put(Record record, const int8_t *tokens, const float *scales) {
    const std::optional<size_t> known = find(record.id);
    const Shape &shape = kind->shape;
    auto kept = std::make_shared<const Record>(std::move(record));
    if (known) {
        const size_t row = *known;
        auto node = rows_.extract(kept->id);
        node.key() = kept->id;  // the old record goes
        rows_.insert(std::move(node));
        sum_.remove(tokens_of(row), scales_of(row));
        std::copy_n(tokens, shape.tokens(), tokens_.begin() + static_cast<std::ptrdiff_t>(row * shape.tokens()));
        std::copy_n(scales, shape.scales(), scales_.begin() + static_cast<std::ptrdiff_t>(row * shape.scales()));
        records_[row] = std::move(kept);
        stamps_[row] = revision_ = next_revision();
    } else {
        const size_t row = count();
        if (row >= MAX_VIDEOS)
            fail(LINKEDOUT_ARGUMENT,
                 "the store holds " + std::to_string(row) + " videos, and takes no more: remove some");
        // What can fail comes before what changes anything.
        const auto room = [](auto &of, size_t more) {
            if (of.capacity() - of.size() < more) of.reserve(std::max(2 * of.capacity(), of.size() + more));
        };
        room(tokens_, shape.tokens());
        room(scales_, shape.scales());
        room(records_, 1);
        room(stamps_, 1);
        rows_.emplace(kept->id, row);
        tokens_.insert(tokens_.end(), tokens, tokens + shape.tokens());
        scales_.insert(scales_.end(), scales, scales + shape.scales());
        records_.push_back(std::move(kept));
        stamps_.push_back(revision_ = next_revision());
    }
    sum_.add(tokens, scales);
}

void Store::take(const Pack &pack) {
    size_t more = 0;
    for (const Record &record : pack.records) more += !find(record.id);
    if (count() + more > MAX_VIDEOS)
        fail(LINKEDOUT_ARGUMENT, "with the pack the store would hold " + std::to_string(count() + more) +
                                     " videos: at most " + std::to_string(MAX_VIDEOS));
    const Shape &shape = kind->shape;
    for (size_t n = 0; n < pack.records.size(); n++)
        put(pack.records[n], pack.tokens.data() + n * shape.tokens(), pack.scales.data() + n * shape.scales());
}

size_t Store::remove(const std::vector<std::string_view> &ids) {
    const Shape &shape = kind->shape;
    std::vector<bool> gone(count(), false);
    size_t removed = 0;
    for (const std::string_view id : ids)
        if (const std::optional<size_t> row = find(id); row && !gone[*row]) {
            gone[*row] = true;
            removed++;
        }
    if (removed == 0) return 0;
    size_t to = 0;
    for (size_t row = 0; row < gone.size(); row++) {
        if (gone[row]) {
            sum_.remove(tokens_of(row), scales_of(row));
            rows_.erase(records_[row]->id);
            continue;
        }
        if (to != row) {
            std::copy_n(tokens_of(row), shape.tokens(),
                        tokens_.begin() + static_cast<std::ptrdiff_t>(to * shape.tokens()));
            std::copy_n(scales_of(row), shape.scales(),
                        scales_.begin() + static_cast<std::ptrdiff_t>(to * shape.scales()));
            records_[to] = std::move(records_[row]);
            stamps_[to] = stamps_[row];
            rows_[records_[to]->id] = to;
        }
        to++;
    }
    // What was removed does not stay in memory behind the end.
    std::fill(tokens_.begin() + static_cast<std::ptrdiff_t>(to * shape.tokens()), tokens_.end(), int8_t{0});
    std::fill(scales_.begin() + static_cast<std::ptrdiff_t>(to * shape.scales()), scales_.end(), 0.0f);
    tokens_.resize(to * shape.tokens());
    scales_.resize(to * shape.scales());
    records_.resize(to);
    stamps_.resize(to);
    revision_ = next_revision();
    return removed;
}

std::optional<size_t> Store::find(std::string_view id) const {
    const auto found = rows_.find(id);
    return found == rows_.end() ? std::nullopt : std::optional<size_t>(found->second);
}

History::History(std::shared_ptr<const Tokens> tokens, SavedHistory saved) : kind(std::move(tokens)) {
    const Shape &shape = kind->shape;
    std::vector<std::shared_ptr<const Watched>> videos;
    for (size_t n = 0; n < saved.videos.records.size(); n++) {
        const int8_t *const from = saved.videos.tokens.data() + n * shape.tokens();
        const float *const by = saved.videos.scales.data() + n * shape.scales();
        videos.push_back(std::make_shared<const Watched>(
            Watched{saved.videos.records[n], {from, from + shape.tokens()}, {by, by + shape.scales()}}));
    }
    const size_t skipped = saved.events.size() - std::min<size_t>(saved.events.size(), LINKEDOUT_MAX_EVENTS);
    for (size_t n = skipped; n < saved.events.size(); n++) {
        const SavedEvent &e = saved.events[n];
        events_.push_back({videos[e.video], e.watched, e.liked, e.at, std::nan("")});
    }
}

void History::add(Record record, std::optional<Features> features, double watched, int32_t liked, double at,
                  double now) {
    const auto known = std::find_if(events_.rbegin(), events_.rend(),
                                    [&](const HistoryEvent &e) { return e.video->record.id == record.id; });
    if (!features && known == events_.rend())
        fail(LINKEDOUT_NOT_FOUND, "the history has no features of that video yet: hand them in with the event");
    if (known != events_.rend()) {  // what is not given again stays
        const Watched &before = *known->video;
        if (!record.title) record.title = before.record.title;
        if (!features && record.content.empty()) record.content = before.record.content;
        if (!features) features = Features{before.tokens, before.scales};
    }
    const auto video = std::make_shared<const Watched>(
        Watched{std::move(record), std::move(features->tokens), std::move(features->scales)});
    std::vector<HistoryEvent> next = events_;
    for (HistoryEvent &e : next)
        if (e.video->record.id == video->record.id) e.video = video;  // an id has one record and one set of features
    next.push_back({video, watched, liked, at, now});
    if (next.size() > LINKEDOUT_MAX_EVENTS) next.erase(next.begin());
    events_ = std::move(next);
    changed();
}

void History::changed() {
    revision_++;
    const std::lock_guard<std::mutex> guard(fitted_lock);
    fitted = {};  // what was derived from what was forgotten goes too
}

template <class Gone>
size_t History::remove(const Gone &gone) {
    std::vector<HistoryEvent> left;
    for (const HistoryEvent &e : events_)  // in their order
        if (!gone(e)) left.push_back(e);
    const size_t removed = events_.size() - left.size();
    events_ = std::move(left);
    changed();
    return removed;
}

size_t History::forget(std::string_view id) {
    return remove([&](const HistoryEvent &e) { return e.video->record.id == id; });
}

size_t History::forget_since(double moment) {
    bool since = false;  // an event of unknown age was added after one that is known to be of then
    return remove([&](const HistoryEvent &e) {
        const bool gone = std::isnan(e.at) ? since || e.added >= moment : e.at >= moment;
        since = since || gone;
        return gone;
    });
}

size_t History::clear() {
    return remove([](const HistoryEvent &) { return true; });
}

bool History::has(std::string_view id) const {
    return std::any_of(events_.begin(), events_.end(), [&](const HistoryEvent &e) { return e.video->record.id == id; });
}

SavedHistory History::saved() const {
    SavedHistory out;
    std::unordered_map<const Watched *, size_t> places;
    for (const HistoryEvent &e : events_) {
        const auto [found, is_new] = places.emplace(e.video.get(), places.size());
        if (is_new) {
            out.videos.records.push_back(e.video->record);
            out.videos.tokens.insert(out.videos.tokens.end(), e.video->tokens.begin(), e.video->tokens.end());
            out.videos.scales.insert(out.videos.scales.end(), e.video->scales.begin(), e.video->scales.end());
        }
        out.events.push_back({found->second, e.watched, e.liked, e.at});
    }
    return out;
}

std::shared_ptr<const Past> fitted_past(const Model &model, const Store *store, const History *history, double now) {
    const double moment = now != 0 ? now : std::floor(unix_now() / 3600) * 3600;
    const uint64_t revision = history == nullptr ? 0 : history->revision();
    const uint64_t store_revision = store == nullptr ? 0 : store->revision();
    if (history != nullptr) {
        const std::lock_guard<std::mutex> guard(history->fitted_lock);
        const History::Fitted &kept = history->fitted;
        if (kept.past && kept.model == model.tokens && kept.revision == revision &&
            kept.store_revision == store_revision && kept.now == moment)
            return kept.past;
    }
    auto past = std::make_shared<Past>();
    const Shape &shape = model.manifest.shape;
    RunningSum sum = store == nullptr ? RunningSum(shape) : store->sum();
    if (history != nullptr) {
        const std::vector<HistoryEvent> &all = history->events();
        std::unordered_set<const Watched *> counted;
        for (const HistoryEvent &e : all)  // what was watched counts as stored
            if ((store == nullptr || !store->find(e.video->record.id)) && counted.insert(e.video.get()).second)
                sum.add(e.video->tokens.data(), e.video->scales.data());
        const size_t skipped = all.size() - std::min(all.size(), MAX_EVENTS);
        past->events.assign(all.begin() + static_cast<std::ptrdiff_t>(skipped), all.end());
    }
    std::vector<float> values(past->events.size() * shape.tokens());
    std::vector<Said> told;
    for (size_t n = 0; n < past->events.size(); n++) {
        const HistoryEvent &e = past->events[n];
        dequantize(shape, e.video->tokens.data(), e.video->scales.data(), values.data() + n * shape.tokens());
        told.push_back(said(e.watched, e.liked, (moment - e.at) / 3600));
    }
    past->user = fit(values, told, std::make_shared<const Space>(model.space.following(sum)));
    past->interests = find_interests(past->user);
    if (history != nullptr) {
        const std::lock_guard<std::mutex> guard(history->fitted_lock);
        history->fitted = {past, model.tokens, revision, store_revision, moment};
    }
    return past;
}

}  // namespace linkedout
