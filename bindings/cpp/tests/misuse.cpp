// What a caller can get wrong: errors with a message, never a crash. Run with sanitizers too.
//
// LINKEDOUT_BUNDLE: the bundle's folder.
#include <linkedout_edge.h>

#include <array>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <thread>
#include <vector>

#include "testing.hpp"

namespace {

constexpr double NOT_A_NUMBER = std::numeric_limits<double>::quiet_NaN();

#define EXPECT(wanted, call)                                                                            \
    do {                                                                                                \
        const linkedout_status got = (call);                                                            \
        testing::check(got == (wanted), #call, __FILE__, __LINE__, linkedout_status_name(got));         \
        if (got != LINKEDOUT_OK)                                                                        \
            testing::check(*linkedout_last_error() != '\0', #call " says nothing", __FILE__, __LINE__); \
    } while (false)

template <class T>
T *nonsense(std::uintptr_t number) {
    return reinterpret_cast<T *>(number);
}

linkedout_recommender *load() {
    linkedout_load_options options = LINKEDOUT_LOAD_OPTIONS_INIT;
    const std::string bundle = testing::setting("LINKEDOUT_BUNDLE");
    options.bundle = linkedout_string(bundle.c_str());
    options.without_encoder = 1;
    linkedout_recommender *rec = nullptr;
    EXPECT(LINKEDOUT_OK, linkedout_load(&options, &rec));
    if (rec == nullptr) std::exit(testing::finish("misuse"));
    return rec;
}

std::vector<std::uint8_t> features_of(std::size_t size, unsigned seed) {
    std::vector<std::uint8_t> out(size);
    unsigned state = seed * 2654435761u + 1;
    for (auto &byte : out) byte = static_cast<std::uint8_t>((state = state * 1664525u + 1013904223u) >> 24);
    const std::array<float, 12> scales = {0.02f, 0.03f, 0.02f, 0.03f, 0.02f, 0.03f,
                                          0.02f, 0.03f, 0.02f, 0.03f, 0.02f, 0.03f};
    std::memcpy(out.data() + size - sizeof(scales), scales.data(), sizeof(scales));
    return out;
}

linkedout_video video_of(const char *id, const std::vector<std::uint8_t> &features) {
    linkedout_video video = LINKEDOUT_VIDEO_INIT;
    video.id = linkedout_string(id);
    video.features = features.data();
    video.features_size = features.size();
    return video;
}

void null_and_foreign_handles(linkedout_recommender *rec, linkedout_store *store) {
    linkedout_info info = LINKEDOUT_INFO_INIT;
    EXPECT(LINKEDOUT_ARGUMENT, linkedout_recommender_info(nullptr, &info));
    EXPECT(LINKEDOUT_CLOSED, linkedout_recommender_info(nonsense<linkedout_recommender>(0xDEADBEEF), &info));
    EXPECT(LINKEDOUT_CLOSED, linkedout_recommender_info(reinterpret_cast<linkedout_recommender *>(store), &info));
    EXPECT(LINKEDOUT_ARGUMENT, linkedout_recommender_info(rec, nullptr));
    EXPECT(LINKEDOUT_ARGUMENT, linkedout_recommender_close(nullptr));
    EXPECT(LINKEDOUT_ARGUMENT, linkedout_store_close(nullptr));
    EXPECT(LINKEDOUT_ARGUMENT, linkedout_history_close(nullptr));
    EXPECT(LINKEDOUT_ARGUMENT, linkedout_ranking_close(nullptr));
    EXPECT(LINKEDOUT_ARGUMENT, linkedout_taste_close(nullptr));
    EXPECT(LINKEDOUT_ARGUMENT, linkedout_bytes_close(nullptr));
    EXPECT(LINKEDOUT_CLOSED, linkedout_history_close(reinterpret_cast<linkedout_history *>(store)));
    EXPECT(LINKEDOUT_ARGUMENT, linkedout_store_create(rec, nullptr));
    EXPECT(LINKEDOUT_ARGUMENT, linkedout_history_create(rec, nullptr));
    EXPECT(LINKEDOUT_ARGUMENT, linkedout_rank(rec, store, nullptr, nullptr, 0, nullptr, nullptr));
    linkedout_ranking *ranking = nullptr;
    EXPECT(LINKEDOUT_ARGUMENT, linkedout_rank(rec, nullptr, nullptr, nullptr, 0, nullptr, &ranking));
    EXPECT(LINKEDOUT_CLOSED,
           linkedout_rank(rec, store, nonsense<linkedout_history>(7777777), nullptr, 0, nullptr, &ranking));
    testing::check(ranking == nullptr, "an error gives no handle", __FILE__, __LINE__);
}

void closing(linkedout_recommender *rec) {
    linkedout_store *store = nullptr, *other = nullptr;
    EXPECT(LINKEDOUT_OK, linkedout_store_create(rec, &store));
    EXPECT(LINKEDOUT_OK, linkedout_store_close(store));
    EXPECT(LINKEDOUT_CLOSED, linkedout_store_close(store));
    std::size_t count = 0;
    EXPECT(LINKEDOUT_CLOSED, linkedout_store_count(store, &count));
    EXPECT(LINKEDOUT_OK, linkedout_store_create(rec, &other));
    testing::check(other != store, "no handle is given out twice", __FILE__, __LINE__);
    EXPECT(LINKEDOUT_CLOSED, linkedout_store_count(store, &count));
    EXPECT(LINKEDOUT_OK, linkedout_store_close(other));
}

void sizes_of_structs(linkedout_recommender *rec, linkedout_store *store, std::size_t size) {
    linkedout_info info = LINKEDOUT_INFO_INIT;
    for (const std::size_t wrong : {std::size_t{0}, std::size_t{4}, sizeof(info) - 1, SIZE_MAX}) {
        info.struct_size = wrong;
        EXPECT(LINKEDOUT_ARGUMENT, linkedout_recommender_info(rec, &info));
    }
    struct {  // of a later header
        linkedout_info known;
        std::uint64_t more;
    } later = {LINKEDOUT_INFO_INIT, 0};
    later.known.struct_size = sizeof(later);
    EXPECT(LINKEDOUT_OK, linkedout_recommender_info(rec, &later.known));
    testing::check(later.known.struct_size == sizeof(later) && later.known.features_size == size, "later", __FILE__,
                   __LINE__);
    later.more = 1;
    EXPECT(LINKEDOUT_ARGUMENT, linkedout_recommender_info(rec, &later.known));

    const auto features = features_of(size, 1);
    linkedout_video video = video_of("a", features);
    video.struct_size = 1;
    EXPECT(LINKEDOUT_ARGUMENT, linkedout_store_put(store, &video));
    EXPECT(LINKEDOUT_ARGUMENT, linkedout_store_put(store, nullptr));
    for (const std::size_t wrong : {std::size_t{0}, std::size_t{1}, size - 1, size + 1, SIZE_MAX}) {
        video = video_of("a", features);
        video.features_size = wrong;
        EXPECT(LINKEDOUT_ARGUMENT, linkedout_store_put(store, &video));
    }
    video = video_of("a", features);
    video.features = nullptr;
    EXPECT(LINKEDOUT_ARGUMENT, linkedout_store_put(store, &video));
    std::vector<std::uint8_t> broken = features;
    for (const float scale : {-1.0f, std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
        std::memcpy(broken.data() + size - sizeof(scale), &scale, sizeof(scale));
        video = video_of("a", broken);
        EXPECT(LINKEDOUT_ARGUMENT, linkedout_store_put(store, &video));
    }
}

void texts(linkedout_recommender *rec, linkedout_store *store, std::size_t size) {
    const auto features = features_of(size, 2);
    linkedout_video video = video_of("", features);
    EXPECT(LINKEDOUT_ARGUMENT, linkedout_store_put(store, &video));
    video = video_of("\xFF", features);
    EXPECT(LINKEDOUT_ARGUMENT, linkedout_store_put(store, &video));
    video = video_of("x", features);
    video.id.length = SIZE_MAX - 1;
    EXPECT(LINKEDOUT_ARGUMENT, linkedout_store_put(store, &video));
    const std::string long_id(65537, 'x'), longest(65536, 'x'), with_nul("a\0b", 3);
    video.id = {long_id.data(), long_id.size()};
    EXPECT(LINKEDOUT_ARGUMENT, linkedout_store_put(store, &video));
    video.id = {nullptr, 5};
    EXPECT(LINKEDOUT_ARGUMENT, linkedout_store_put(store, &video));
    video.id = {longest.data(), longest.size()};
    EXPECT(LINKEDOUT_OK, linkedout_store_put(store, &video));
    video.id = {with_nul.data(), with_nul.size()};
    video.title = linkedout_string("t\xED\xA0\xBDt\xFFt");
    EXPECT(LINKEDOUT_OK, linkedout_store_put(store, &video));
    std::size_t position = 0, length = 99;
    EXPECT(LINKEDOUT_OK, linkedout_store_find(store, {with_nul.data(), with_nul.size()}, &position));
    std::array<char, 8> text;
    text.fill('#');
    EXPECT(LINKEDOUT_OK, linkedout_store_text(store, position, LINKEDOUT_TEXT_ID, nullptr, 0, &length));
    testing::check(length == 3, "length of an id", __FILE__, __LINE__);
    EXPECT(LINKEDOUT_BUFFER_TOO_SMALL,
           linkedout_store_text(store, position, LINKEDOUT_TEXT_ID, text.data(), 2, &length));
    testing::check(length == 3 && text[0] == '#', "nothing is written where it does not fit", __FILE__, __LINE__);
    EXPECT(LINKEDOUT_OK, linkedout_store_text(store, position, LINKEDOUT_TEXT_ID, text.data(), 3, &length));
    testing::check(text[3] == '#' && std::string(text.data(), 3) == with_nul, "exactly fits", __FILE__, __LINE__);
    EXPECT(LINKEDOUT_OK,
           linkedout_store_text(store, position, LINKEDOUT_TEXT_TITLE, text.data(), text.size(), &length));
    testing::check(std::string(text.data()) == "t?t?t", "ill-formed text in a title", __FILE__, __LINE__, text.data());
    EXPECT(LINKEDOUT_ARGUMENT, linkedout_store_text(store, position, 3, text.data(), text.size(), &length));
    EXPECT(LINKEDOUT_ARGUMENT, linkedout_store_text(store, position, -1, text.data(), text.size(), &length));
    EXPECT(LINKEDOUT_ARGUMENT, linkedout_store_text(store, 999, LINKEDOUT_TEXT_ID, text.data(), text.size(), &length));
    EXPECT(LINKEDOUT_ARGUMENT, linkedout_store_text(store, position, LINKEDOUT_TEXT_ID, nullptr, 4, &length));
    EXPECT(LINKEDOUT_ARGUMENT, linkedout_store_text(store, position, LINKEDOUT_TEXT_ID, text.data(), 8, nullptr));
    EXPECT(LINKEDOUT_NOT_FOUND, linkedout_store_find(store, linkedout_string("nobody"), &position));
    EXPECT(LINKEDOUT_ARGUMENT, linkedout_recommender_text(rec, LINKEDOUT_INFO_LAYER_NAME, 6, text.data(), 8, &length));
    EXPECT(LINKEDOUT_ARGUMENT, linkedout_recommender_text(rec, LINKEDOUT_INFO_BUNDLE, 1, text.data(), 8, &length));
    EXPECT(LINKEDOUT_ARGUMENT, linkedout_recommender_text(rec, 8, 0, text.data(), 8, &length));
    const std::vector<linkedout_text> gone = {{longest.data(), longest.size()}, {with_nul.data(), with_nul.size()}};
    std::size_t removed = 0;
    EXPECT(LINKEDOUT_OK, linkedout_store_remove(store, gone.data(), gone.size(), &removed));
    testing::check(removed == 2, "removed", __FILE__, __LINE__);
}

void frames(linkedout_recommender *rec, std::size_t size) {
    const std::vector<std::uint8_t> pixels(2 * 4 * 5 * 3);
    std::vector<std::uint8_t> features(size);
    std::size_t count = 0;
    const auto check = [&](linkedout_status wanted, std::int64_t f, std::int64_t h, std::int64_t w, std::int64_t c,
                           std::size_t bytes) {
        linkedout_frames given = LINKEDOUT_FRAMES_INIT;
        given.data = pixels.data();
        given.size = bytes;
        given.count = f, given.height = h, given.width = w, given.channels = c;
        EXPECT(wanted, linkedout_prepare_frames(rec, &given, nullptr, 0, &count));
    };
    check(LINKEDOUT_OK, 2, 4, 5, 3, pixels.size());
    check(LINKEDOUT_INVALID_FRAMES, 2, 4, 5, 3, pixels.size() + 1);
    check(LINKEDOUT_INVALID_FRAMES, 2, 4, 5, 1, pixels.size() / 3);
    check(LINKEDOUT_INVALID_FRAMES, 0, 4, 5, 3, 0);
    check(LINKEDOUT_INVALID_FRAMES, -2, -4, 5, 3, pixels.size());
    check(LINKEDOUT_INVALID_FRAMES, INT64_MAX, INT64_MAX, INT64_MAX, 3, pixels.size());
    check(LINKEDOUT_INVALID_FRAMES, 1 << 20, 8192, 4320, 3, 0);
    check(LINKEDOUT_INVALID_FRAMES, 1, 8192, 8192, 3, 8192 * 8192 * 3);
    linkedout_frames given = LINKEDOUT_FRAMES_INIT;
    given.count = 2, given.height = 4, given.width = 5, given.size = pixels.size();
    EXPECT(LINKEDOUT_INVALID_FRAMES, linkedout_prepare_frames(rec, &given, nullptr, 0, &count));
    given.data = pixels.data();
    std::vector<std::uint8_t> prepared(2 * 144 * 144 * 3 - 1);
    EXPECT(LINKEDOUT_BUFFER_TOO_SMALL, linkedout_prepare_frames(rec, &given, prepared.data(), prepared.size(), &count));
    EXPECT(LINKEDOUT_MISSING_DEPENDENCY, linkedout_encode(rec, &given, {nullptr, 0}, features.data(), features.size()));
    std::int64_t indices[8];
    EXPECT(LINKEDOUT_ARGUMENT, linkedout_choose_frames(rec, 0, indices, 8, &count));
    EXPECT(LINKEDOUT_ARGUMENT, linkedout_choose_frames(rec, INT64_MAX, indices, 8, &count));
    EXPECT(LINKEDOUT_BUFFER_TOO_SMALL, linkedout_choose_frames(rec, 100, indices, 6, &count));
    EXPECT(LINKEDOUT_OK, linkedout_choose_frames(rec, INT64_MAX / 16, indices, 8, &count));
}

void events(linkedout_recommender *rec, std::size_t size) {
    linkedout_history *history = nullptr;
    EXPECT(LINKEDOUT_OK, linkedout_history_create(rec, &history));
    const auto features = features_of(size, 3);
    linkedout_video video = video_of("a", features);
    linkedout_event event = LINKEDOUT_EVENT_INIT;
    EXPECT(LINKEDOUT_ARGUMENT, linkedout_history_add(history, &event));  // no video
    event.video = &video;
    for (const double wrong : {-0.1, 1.5, NOT_A_NUMBER, std::numeric_limits<double>::infinity()}) {
        event.watched = wrong;
        EXPECT(LINKEDOUT_ARGUMENT, linkedout_history_add(history, &event));
    }
    event.watched = 1;
    for (const std::int32_t wrong : {-2, 2}) {
        event.liked = wrong;
        EXPECT(LINKEDOUT_ARGUMENT, linkedout_history_add(history, &event));
    }
    event.liked = LINKEDOUT_LIKED;
    event.has_at = 1;
    for (const double wrong : {NOT_A_NUMBER, std::numeric_limits<double>::infinity(), 1e300, -1e12}) {
        event.at = wrong;
        EXPECT(LINKEDOUT_ARGUMENT, linkedout_history_add(history, &event));
    }
    event.has_at = 0;
    video.features = nullptr;
    video.features_size = 0;
    EXPECT(LINKEDOUT_NOT_FOUND, linkedout_history_add(history, &event));
    std::size_t count = 99;
    EXPECT(LINKEDOUT_OK, linkedout_history_count(history, &count));
    testing::check(count == 0, "refused events are not kept", __FILE__, __LINE__);
    video = video_of("a", features);
    EXPECT(LINKEDOUT_OK, linkedout_history_add(history, &event));
    video.features = nullptr;
    video.features_size = 0;
    for (int n = 0; n < LINKEDOUT_MAX_EVENTS + 10; n++) EXPECT(LINKEDOUT_OK, linkedout_history_add(history, &event));
    EXPECT(LINKEDOUT_OK, linkedout_history_count(history, &count));
    testing::check(count == LINKEDOUT_MAX_EVENTS, "bounded", __FILE__, __LINE__);
    EXPECT(LINKEDOUT_ARGUMENT, linkedout_history_event(history, count, &event));
    EXPECT(LINKEDOUT_ARGUMENT, linkedout_history_forget_since(history, NOT_A_NUMBER, nullptr));
    EXPECT(LINKEDOUT_OK, linkedout_history_forget(history, linkedout_string("a"), nullptr));
    EXPECT(LINKEDOUT_OK, linkedout_history_clear(history, nullptr));

    // Since when: known ages by themselves, unknown ones by what was added before them.
    const auto add = [&](const char *id, double at) {
        linkedout_video one = video_of(id, features);
        linkedout_event e = LINKEDOUT_EVENT_INIT;
        e.video = &one;
        e.has_at = std::isnan(at) ? 0 : 1;
        e.at = std::isnan(at) ? 0 : at;
        EXPECT(LINKEDOUT_OK, linkedout_history_add(history, &e));
    };
    linkedout_bytes *saved = nullptr;
    add("old", 1000), add("unknown, after the old one", NOT_A_NUMBER), add("new", 2000),
        add("after the new", NOT_A_NUMBER);
    EXPECT(LINKEDOUT_OK, linkedout_history_save(history, &saved));
    EXPECT(LINKEDOUT_OK, linkedout_history_close(history));
    const void *data = nullptr;
    EXPECT(LINKEDOUT_OK, linkedout_bytes_get(saved, &data, &count));
    EXPECT(LINKEDOUT_OK, linkedout_history_load(rec, data, count, &history));  // when they were added is not saved
    EXPECT(LINKEDOUT_OK, linkedout_bytes_close(saved));
    std::size_t removed = 0;
    EXPECT(LINKEDOUT_OK, linkedout_history_forget_since(history, 1500, &removed));
    testing::check(removed == 2, "forgotten since", __FILE__, __LINE__, std::to_string(removed));
    add("just now", NOT_A_NUMBER);
    EXPECT(LINKEDOUT_OK, linkedout_history_forget_since(history, 1e9, &removed));
    testing::check(removed == 1, "forgotten since it was added", __FILE__, __LINE__, std::to_string(removed));
    EXPECT(LINKEDOUT_OK, linkedout_history_close(history));
}

void options(linkedout_recommender *rec, linkedout_store *store, std::size_t size) {
    const auto a = features_of(size, 1), b = features_of(size, 2);
    linkedout_video video = video_of("a", a);
    EXPECT(LINKEDOUT_OK, linkedout_store_put(store, &video));
    video = video_of("b", b);
    EXPECT(LINKEDOUT_OK, linkedout_store_put(store, &video));
    const std::vector<linkedout_text> ids = {linkedout_string("a"), linkedout_string("b"), linkedout_string("a")};
    linkedout_ranking *ranking = nullptr;
    const auto rank = [&](linkedout_status wanted, const auto &change, std::size_t count = 3) {
        linkedout_rank_options how = LINKEDOUT_RANK_OPTIONS_INIT;
        change(how);
        EXPECT(wanted, linkedout_rank(rec, store, nullptr, ids.data(), count, &how, &ranking));
        if (wanted == LINKEDOUT_OK) EXPECT(LINKEDOUT_OK, linkedout_ranking_close(ranking));
    };
    using Options = linkedout_rank_options;
    for (const std::int64_t wrong : {std::int64_t{0}, std::int64_t{-2}, INT64_MIN})
        rank(LINKEDOUT_ARGUMENT, [&](Options &how) { how.top_k = wrong; });
    rank(LINKEDOUT_OK, [](Options &how) { how.top_k = INT64_MAX; });
    for (const double wrong : {-0.1, 1.1, NOT_A_NUMBER}) {
        rank(LINKEDOUT_ARGUMENT, [&](Options &how) { how.diversity = wrong; });
        rank(LINKEDOUT_ARGUMENT, [&](Options &how) { how.explore = wrong; });
    }
    rank(LINKEDOUT_ARGUMENT, [](Options &how) { how.exclude_watched = 2; });
    rank(LINKEDOUT_ARGUMENT, [](Options &how) { how.fold_duplicates = -1; });
    rank(LINKEDOUT_ARGUMENT, [](Options &how) { how.now = NOT_A_NUMBER; });
    const std::array<double, 3> prior = {1, 2, std::numeric_limits<double>::infinity()};
    const std::array<double, 3> huge = {1e308, -1e308, NOT_A_NUMBER};
    rank(LINKEDOUT_ARGUMENT, [&](Options &how) { how.prior = prior.data(), how.prior_count = 2; });
    rank(LINKEDOUT_ARGUMENT, [&](Options &how) { how.prior = prior.data(), how.prior_count = 3; });
    rank(LINKEDOUT_ARGUMENT, [&](Options &how) { how.prior_count = 3; });
    rank(LINKEDOUT_ARGUMENT, [&](Options &how) { how.prior_weight = NOT_A_NUMBER; });
    rank(LINKEDOUT_OK, [&](Options &how) { how.prior = huge.data(), how.prior_count = 3; });
    rank(LINKEDOUT_OK, [&](Options &how) { how.prior = prior.data(), how.prior_count = 2; }, 2);
    rank(LINKEDOUT_ARGUMENT, [](Options &how) { how.struct_size = 8; });
    linkedout_rank_options how = LINKEDOUT_RANK_OPTIONS_INIT;
    how.prior = prior.data(), how.prior_count = 2;
    EXPECT(LINKEDOUT_ARGUMENT, linkedout_rank(rec, store, nullptr, nullptr, 0, &how, &ranking));
    EXPECT(LINKEDOUT_ARGUMENT, linkedout_rank(rec, store, nullptr, nullptr, 3, nullptr, &ranking));
    EXPECT(LINKEDOUT_ARGUMENT, linkedout_rank(rec, store, nullptr, ids.data(), SIZE_MAX, nullptr, &ranking));

    EXPECT(LINKEDOUT_OK, linkedout_rank(rec, store, nullptr, ids.data(), 3, nullptr, &ranking));
    linkedout_ranking_size sizes = LINKEDOUT_RANKING_SIZE_INIT;
    EXPECT(LINKEDOUT_OK, linkedout_ranking_sizes(ranking, &sizes));
    testing::check(sizes.places == 2 && sizes.events == 0, "one id counts once", __FILE__, __LINE__);
    float scores[4], layers[2 * 6];
    EXPECT(LINKEDOUT_OK, linkedout_ranking_places(ranking, 0, 2, nullptr, scores, nullptr, layers));
    EXPECT(LINKEDOUT_OK, linkedout_ranking_places(ranking, 2, 0, nullptr, scores, nullptr, layers));
    EXPECT(LINKEDOUT_ARGUMENT, linkedout_ranking_places(ranking, 0, 3, nullptr, scores, nullptr, nullptr));
    EXPECT(LINKEDOUT_ARGUMENT, linkedout_ranking_places(ranking, 1, SIZE_MAX, nullptr, scores, nullptr, nullptr));
    EXPECT(LINKEDOUT_ARGUMENT, linkedout_ranking_places(ranking, SIZE_MAX, 2, nullptr, scores, nullptr, nullptr));
    linkedout_explanation why = LINKEDOUT_EXPLANATION_INIT;
    EXPECT(LINKEDOUT_OK, linkedout_ranking_explain(ranking, 1, &why, nullptr, 0));
    EXPECT(LINKEDOUT_ARGUMENT, linkedout_ranking_explain(ranking, 2, &why, nullptr, 0));
    std::size_t length = 0;
    EXPECT(LINKEDOUT_ARGUMENT, linkedout_ranking_sentence(ranking, 2, nullptr, 0, &length));
    EXPECT(LINKEDOUT_ARGUMENT, linkedout_ranking_event_id(ranking, 0, nullptr, 0, &length));
    EXPECT(LINKEDOUT_ARGUMENT, linkedout_ranking_failed(ranking, 0, nullptr, nullptr, nullptr, 0, &length));
    EXPECT(LINKEDOUT_OK, linkedout_ranking_close(ranking));
    EXPECT(LINKEDOUT_CLOSED, linkedout_ranking_sizes(ranking, &sizes));

    linkedout_taste *taste = nullptr;
    EXPECT(LINKEDOUT_ARGUMENT, linkedout_taste_of(rec, nullptr, nullptr, NOT_A_NUMBER, &taste));
    EXPECT(LINKEDOUT_OK, linkedout_taste_of(rec, nullptr, nullptr, 0, &taste));
    double trust[6];
    EXPECT(LINKEDOUT_BUFFER_TOO_SMALL, linkedout_taste_layers(taste, trust, 5));
    EXPECT(LINKEDOUT_OK, linkedout_taste_layers(taste, trust, 6));
    EXPECT(LINKEDOUT_ARGUMENT, linkedout_taste_interest(taste, 0, nullptr, nullptr));
    EXPECT(LINKEDOUT_ARGUMENT, linkedout_taste_video(taste, 0, 0, nullptr, 0, &length));
    EXPECT(LINKEDOUT_ARGUMENT, linkedout_taste_video(taste, LINKEDOUT_AVOIDED, 0, nullptr, 0, &length));
    EXPECT(LINKEDOUT_OK, linkedout_taste_close(taste));
}

// Numbers that no model gives, but that a made-up pack may hold.
void huge_features(linkedout_recommender *rec, std::size_t size) {
    linkedout_store *store = nullptr;
    linkedout_history *history = nullptr;
    EXPECT(LINKEDOUT_OK, linkedout_store_create(rec, &store));
    EXPECT(LINKEDOUT_OK, linkedout_history_create(rec, &history));
    auto plain = features_of(size, 4), huge = features_of(size, 5);
    const float scale = std::numeric_limits<float>::max() / 64;
    for (std::size_t n = 1; n <= 12; n++) std::memcpy(huge.data() + size - n * sizeof(scale), &scale, sizeof(scale));
    linkedout_video one = video_of("plain", plain), other = video_of("huge", huge);
    EXPECT(LINKEDOUT_OK, linkedout_store_put(store, &one));
    EXPECT(LINKEDOUT_OK, linkedout_store_put(store, &other));
    linkedout_rank_options how = LINKEDOUT_RANK_OPTIONS_INIT;
    how.explore = 1, how.diversity = 0.5, how.fold_duplicates = 1;
    linkedout_ranking *ranking = nullptr;
    linkedout_taste *taste = nullptr;
    EXPECT(LINKEDOUT_OK, linkedout_rank(rec, store, nullptr, nullptr, 0, nullptr, &ranking));  // a cold start
    EXPECT(LINKEDOUT_OK, linkedout_ranking_close(ranking));
    linkedout_event event = LINKEDOUT_EVENT_INIT;
    event.video = &one;
    EXPECT(LINKEDOUT_OK, linkedout_history_add(history, &event));
    // A huge score, but a number.
    EXPECT(LINKEDOUT_OK, linkedout_rank(rec, store, history, nullptr, 0, &how, &ranking));
    EXPECT(LINKEDOUT_OK, linkedout_ranking_close(ranking));
    event.video = &other;
    EXPECT(LINKEDOUT_OK, linkedout_history_add(history, &event));
    EXPECT(LINKEDOUT_BACKEND, linkedout_rank(rec, store, history, nullptr, 0, nullptr, &ranking));
    EXPECT(LINKEDOUT_BACKEND, linkedout_taste_of(rec, store, history, 0, &taste));
    EXPECT(LINKEDOUT_OK, linkedout_history_close(history));
    EXPECT(LINKEDOUT_OK, linkedout_store_close(store));
}

void loading() {
    linkedout_recommender *rec = nullptr;
    const std::string bundle = testing::setting("LINKEDOUT_BUNDLE");
    const auto load_with = [&](linkedout_status wanted, const auto &change) {
        linkedout_load_options how = LINKEDOUT_LOAD_OPTIONS_INIT;
        how.bundle = linkedout_string(bundle.c_str());
        how.without_encoder = 1;
        change(how);
        EXPECT(wanted, linkedout_load(&how, &rec));
    };
    using Options = linkedout_load_options;
    load_with(LINKEDOUT_ARGUMENT, [](Options &how) { how.bundle = {nullptr, 0}; });
    load_with(LINKEDOUT_ARGUMENT, [](Options &how) { how.precision = linkedout_string("int9"); });
    load_with(LINKEDOUT_ARGUMENT, [](Options &how) { how.threads = -1; });
    load_with(LINKEDOUT_ARGUMENT, [](Options &how) { how.threads = 100000; });
    load_with(LINKEDOUT_BUNDLE_NOT_FOUND, [](Options &how) { how.bundle = linkedout_string("/dev/null"); });
    load_with(LINKEDOUT_BUNDLE_CORRUPT, [](Options &how) { how.bundle = linkedout_string("/"); });
    load_with(LINKEDOUT_MISSING_DEPENDENCY, [](Options &how) {
        how.without_encoder = 0;
        how.onnxruntime = linkedout_string("no/such/library.so");
    });
    load_with(LINKEDOUT_MISSING_DEPENDENCY, [](Options &how) {
        how.without_encoder = 0;
        how.onnxruntime = linkedout_string("libm.so.6");  // a library, but not that one
    });
    EXPECT(LINKEDOUT_ARGUMENT, linkedout_load(nullptr, &rec));
}

// Several threads on the same handles, one of which closes them meanwhile.
void threads(std::size_t size) {
    linkedout_recommender *rec = load();
    linkedout_store *store = nullptr;
    linkedout_history *history = nullptr;
    EXPECT(LINKEDOUT_OK, linkedout_store_create(rec, &store));
    EXPECT(LINKEDOUT_OK, linkedout_history_create(rec, &history));
    std::atomic<int> wrong{0}, ranked{0}, closed{0};
    const auto fine = [&](linkedout_status status) {
        if (status == LINKEDOUT_CLOSED)
            closed++;
        else if (status != LINKEDOUT_OK && status != LINKEDOUT_NOT_FOUND)
            wrong++;
        return status == LINKEDOUT_OK;
    };
    const auto write = [&](unsigned seed) {
        for (unsigned n = 0; n < 300; n++) {
            const auto features = features_of(size, seed + n % 17);
            const std::string id = "v" + std::to_string((seed + n) % 23);
            linkedout_video video = video_of(id.c_str(), features);
            fine(linkedout_store_put(store, &video));
            linkedout_event event = LINKEDOUT_EVENT_INIT;
            event.video = &video;
            event.watched = n % 3 == 0 ? 0.1 : 0.9;
            fine(linkedout_history_add(history, &event));
            const linkedout_text gone = linkedout_string("v3");
            if (n % 7 == 0) fine(linkedout_store_remove(store, &gone, 1, nullptr));
            if (n % 50 == 0) fine(linkedout_history_forget(history, gone, nullptr));
        }
    };
    const auto rank = [&] {
        for (int n = 0; n < 60; n++) {
            linkedout_ranking *ranking = nullptr;
            linkedout_rank_options how = LINKEDOUT_RANK_OPTIONS_INIT;
            how.diversity = n % 2 == 0 ? 0.3 : 0;
            how.fold_duplicates = n % 3 == 0;
            if (!fine(linkedout_rank(rec, store, history, nullptr, 0, &how, &ranking))) continue;
            ranked++;
            linkedout_ranking_size sizes = LINKEDOUT_RANKING_SIZE_INIT;
            fine(linkedout_ranking_sizes(ranking, &sizes));
            if (sizes.places != 0) {
                std::vector<float> matrix(sizes.events * sizes.layers + 1);
                linkedout_explanation why = LINKEDOUT_EXPLANATION_INIT;
                fine(linkedout_ranking_explain(ranking, 0, &why, matrix.data(), matrix.size()));
            }
            fine(linkedout_ranking_close(ranking));
        }
    };
    {
        std::vector<std::thread> all;
        all.emplace_back(write, 1u), all.emplace_back(write, 100u), all.emplace_back(rank), all.emplace_back(rank);
        for (std::thread &t : all) t.join();
    }
    testing::check(wrong == 0 && closed == 0 && ranked > 0, "threads on one handle", __FILE__, __LINE__);
    std::thread busy(rank), writer(write, 7u);
    fine(linkedout_recommender_close(rec));
    fine(linkedout_store_close(store));
    fine(linkedout_history_close(history));
    busy.join(), writer.join();
    testing::check(wrong == 0 && closed > 0, "closed meanwhile", __FILE__, __LINE__);
}

}  // namespace

int main() {
    linkedout_recommender *rec = load();
    linkedout_info info = LINKEDOUT_INFO_INIT;
    EXPECT(LINKEDOUT_OK, linkedout_recommender_info(rec, &info));
    const std::size_t size = info.features_size;
    testing::check(size == 816, "816 bytes a video", __FILE__, __LINE__);
    linkedout_store *store = nullptr;
    EXPECT(LINKEDOUT_OK, linkedout_store_create(rec, &store));
    null_and_foreign_handles(rec, store);
    closing(rec);
    sizes_of_structs(rec, store, size);
    texts(rec, store, size);
    frames(rec, size);
    events(rec, size);
    options(rec, store, size);
    huge_features(rec, size);
    loading();
    threads(size);
    // What was made from a recommender outlives it.
    EXPECT(LINKEDOUT_OK, linkedout_recommender_close(rec));
    std::size_t count = 0;
    EXPECT(LINKEDOUT_OK, linkedout_store_count(store, &count));
    testing::check(count == 2, "the store outlives its recommender", __FILE__, __LINE__);
    EXPECT(LINKEDOUT_OK, linkedout_store_close(store));
    return testing::finish("misuse");
}
