// The C ABI: checks what callers hand in, and turns exceptions into statuses. No rule of ranking is here.
#include <cmath>
#include <cstring>
#include <new>

#include "frames.hpp"
#include "handles.hpp"
#include "kernel.h"
#include "linkedout_edge.h"
#include "ranking.hpp"

using namespace linkedout;

namespace {

constexpr size_t LARGEST_STRUCT = 4096;  // that a later version of the header may have

thread_local std::string last_error;

// Never destroyed, so that closing a handle at exit is safe.
Handles &handles() {
    static auto *const all = new Handles();
    return *all;
}

linkedout_status failed(linkedout_status status, const char *message) noexcept {
    try {
        last_error = message;
    } catch (...) {
        last_error.clear();
    }
    return status;
}

template <class Work>
linkedout_status guarded(const Work &work) noexcept {
    try {
        work();
        return LINKEDOUT_OK;
    } catch (const Error &e) {
        return failed(e.status, e.what());
    } catch (const std::bad_alloc &) {
        return failed(LINKEDOUT_OUT_OF_MEMORY, "there is no memory left for that");
    } catch (const std::exception &e) {
        return failed(LINKEDOUT_INTERNAL, e.what());
    } catch (...) {
        return failed(LINKEDOUT_INTERNAL, "unknown");
    }
}

template <class T>
struct KindOf;
template <>
struct KindOf<Model> {
    static constexpr Kind value = Kind::recommender;
};
template <>
struct KindOf<Store> {
    static constexpr Kind value = Kind::store;
};
template <>
struct KindOf<History> {
    static constexpr Kind value = Kind::history;
};
template <>
struct KindOf<Ranking> {
    static constexpr Kind value = Kind::ranking;
};
template <>
struct KindOf<TasteSummary> {
    static constexpr Kind value = Kind::taste;
};
template <>
struct KindOf<std::string> {
    static constexpr Kind value = Kind::bytes;
};

template <class T>
std::shared_ptr<T> get(const void *handle) {
    return std::static_pointer_cast<T>(handles().get(KindOf<T>::value, handle));
}

template <class T, class Handle>
void give(Handle **out, std::shared_ptr<T> object) {
    *out = static_cast<Handle *>(handles().add(KindOf<T>::value, std::move(object)));
}

template <class T>
linkedout_status close_handle(const void *handle) {
    return guarded([&] { handles().close(KindOf<T>::value, handle); });
}

void need(const void *pointer, const char *name) {
    if (pointer == nullptr) fail(LINKEDOUT_ARGUMENT, std::string(name) + " is NULL");
}

void need_room(const void *pointer, size_t capacity, const char *name) {
    if (pointer == nullptr && capacity != 0)
        fail(LINKEDOUT_ARGUMENT, std::string(name) + " is NULL, with room for something");
}

// A struct of the caller, who may have an older or newer header: what this version does not know has to be 0.
size_t checked_size(const void *given, size_t own, const char *name) {
    need(given, name);
    size_t size = 0;
    std::memcpy(&size, given, sizeof(size));
    if (size < own || size > LARGEST_STRUCT)
        fail(LINKEDOUT_ARGUMENT, std::string(name) + ".struct_size is " + std::to_string(size) + ": expected " +
                                     std::to_string(own) + ", as its _INIT macro sets it");
    const auto *const bytes = static_cast<const uint8_t *>(given);
    for (size_t n = own; n < size; n++)
        if (bytes[n] != 0)
            fail(LINKEDOUT_ARGUMENT, std::string(name) + " has a field that this version of the library does not know");
    return size;
}

template <class T>
T read_struct(const T *given, const char *name) {
    checked_size(given, sizeof(T), name);
    return *given;
}

template <class T>
void write_struct(T *to, T value, const char *name) {
    value.struct_size = checked_size(to, sizeof(T), name);
    *to = value;
}

bool flag(int32_t value, const char *name) {
    if (value != 0 && value != 1) fail(LINKEDOUT_ARGUMENT, std::string(name) + " is neither 0 nor 1");
    return value == 1;
}

double fraction(double value, const char *name) {
    if (!(value >= 0 && value <= 1)) {
        const char *const hint = value > 1 && value <= 100 ? "; divide percent by 100" : "";
        fail(LINKEDOUT_ARGUMENT, std::string(name) + " must be from 0 to 1" + hint);
    }
    return value;
}

double moment(double value, const char *name) {
    if (!(value >= FIRST_MOMENT && value <= LAST_MOMENT))
        fail(LINKEDOUT_ARGUMENT, std::string(name) + " must be seconds since 1970, in the years 1 to 9999");
    return value;
}

std::string_view raw(const linkedout_text &text, const char *name) {
    if (text.data == nullptr) {
        if (text.length != 0 && text.length != LINKEDOUT_UP_TO_NUL)
            fail(LINKEDOUT_ARGUMENT, std::string(name) + " has a length but no data");
        return {};
    }
    const size_t length = text.length == LINKEDOUT_UP_TO_NUL ? std::strlen(text.data) : text.length;
    if (length > PTRDIFF_MAX) fail(LINKEDOUT_ARGUMENT, std::string(name) + " has an impossible length");
    return {text.data, length};
}

void check_length(std::string_view text, const char *name) {
    if (text.size() > MAX_TEXT && characters(text) > MAX_TEXT)
        fail(LINKEDOUT_ARGUMENT, std::string(name) + " has more than " + std::to_string(MAX_TEXT) + " characters");
}

std::string_view id_of(const linkedout_text &text) {
    const std::string_view id = raw(text, "id");
    if (id.empty()) fail(LINKEDOUT_ARGUMENT, "id must not be empty");
    return id;
}

std::string new_id(const linkedout_text &text) {
    const std::string_view id = id_of(text);
    if (ill_formed_at(id) != std::string_view::npos) fail(LINKEDOUT_ARGUMENT, "id is not well-formed UTF-8");
    check_length(id, "id");
    return std::string(id);
}

Record record_of(const linkedout_video &video) {
    Record record{new_id(video.id), std::nullopt, well_formed(raw(video.content, "content"))};
    if (video.title.data != nullptr) record.title = well_formed(raw(video.title, "title"));
    check_length(record.title.value_or(""), "title");
    check_length(record.content, "content");
    return record;
}

std::vector<std::string_view> ids_of(const linkedout_text *ids, size_t count, const char *name) {
    need_room(ids, count, name);
    if (count > PTRDIFF_MAX / sizeof(linkedout_text)) fail(LINKEDOUT_ARGUMENT, std::string(name) + ": impossibly many");
    std::vector<std::string_view> out;
    out.reserve(count);
    for (size_t n = 0; n < count; n++) out.push_back(id_of(ids[n]));
    return out;
}

// Copy text out, by the rules at the top of the header.
void write_text(std::string_view value, char *text, size_t capacity, size_t *length) {
    need(length, "length");
    need_room(text, capacity, "text");
    *length = value.size();
    if (text == nullptr) return;
    if (capacity < value.size())
        fail(LINKEDOUT_BUFFER_TOO_SMALL, "text has " + std::to_string(value.size()) + " bytes");
    if (!value.empty()) std::memcpy(text, value.data(), value.size());
    if (capacity > value.size()) text[value.size()] = '\0';
}

// The same for arrays.
template <class T, class From>
void write_array(const std::vector<From> &values, T *out, size_t capacity, size_t *count, const char *name) {
    need(count, "count");
    need_room(out, capacity, name);
    *count = values.size();
    if (out == nullptr) return;
    if (capacity < values.size()) fail(LINKEDOUT_BUFFER_TOO_SMALL, std::string(name) + " has too little room");
    for (size_t n = 0; n < values.size(); n++) out[n] = static_cast<T>(values[n]);
}

[[noreturn]] void out_of_range(const char *name) { fail(LINKEDOUT_ARGUMENT, std::string(name) + " is out of range"); }

template <class Values>
const auto &item(const Values &values, size_t index, const char *name) {
    if (index >= values.size()) out_of_range(name);
    return values[index];
}

// Copy out the text that `find` gives of a handle's object: a view into it, or a copy if it may change meanwhile.
template <class T, class Find>
linkedout_status text_from(const void *handle, char *text, size_t capacity, size_t *length, const Find &find) {
    return guarded([&] { write_text(find(*get<T>(handle)), text, capacity, length); });
}

std::string_view text_of(const Record &record, int32_t which) {
    switch (which) {
        case LINKEDOUT_TEXT_ID: return record.id;
        case LINKEDOUT_TEXT_TITLE: return record.title ? std::string_view(*record.title) : std::string_view();
        case LINKEDOUT_TEXT_CONTENT: return record.content;
        default: out_of_range("which");
    }
}

void check_same(const Model &model, const Tokens &other, const char *name) {
    if (other.space != model.tokens->space || !(other.shape == model.tokens->shape))
        fail(LINKEDOUT_TOKEN_SPACE,
             std::string("the ") + name + " is of another token space: make it with the same bundle");
}

using Reading = std::shared_lock<std::shared_mutex>;
using Writing = std::unique_lock<std::shared_mutex>;

}  // namespace

const char *linkedout_last_error(void) { return last_error.c_str(); }

const char *linkedout_status_name(linkedout_status status) {
    static const char *const names[] = {"ok",
                                        "argument",
                                        "closed",
                                        "bundle_not_found",
                                        "bundle_corrupt",
                                        "bundle_version",
                                        "backend",
                                        "device",
                                        "missing_dependency",
                                        "pack",
                                        "token_space",
                                        "not_found",
                                        "invalid_frames",
                                        "buffer_too_small",
                                        "out_of_memory",
                                        "internal"};
    return status >= 0 && status <= LINKEDOUT_INTERNAL ? names[status] : "unknown";
}

const char *linkedout_version(void) { return LINKEDOUT_VERSION; }

linkedout_status linkedout_bytes_get(const linkedout_bytes *bytes, const void **data, size_t *size) {
    return guarded([&] {
        const auto found = get<std::string>(bytes);
        need(data, "data");
        need(size, "size");
        *data = found->data();
        *size = found->size();
    });
}

linkedout_status linkedout_bytes_close(linkedout_bytes *bytes) { return close_handle<std::string>(bytes); }

linkedout_status linkedout_load(const linkedout_load_options *options, linkedout_recommender **recommender) {
    return guarded([&] {
        const linkedout_load_options how = read_struct(options, "options");
        need(recommender, "recommender");
        const std::string_view bundle = raw(how.bundle, "bundle");
        if (bundle.empty()) fail(LINKEDOUT_ARGUMENT, "bundle is empty: name a bundle's folder");
        if (how.threads < 0 || how.threads > 1024)
            fail(LINKEDOUT_ARGUMENT, "threads must be from 0 (as many as the process may use) to 1024");
        const bool with_encoder = !flag(how.without_encoder, "without_encoder");
        give(recommender, std::make_shared<Model>(std::string(bundle), std::string(raw(how.precision, "precision")),
                                                  std::string(raw(how.onnxruntime, "onnxruntime")),
                                                  how.threads == 0 ? available_cpus() : how.threads, with_encoder));
    });
}

linkedout_status linkedout_recommender_close(linkedout_recommender *recommender) {
    return close_handle<Model>(recommender);
}

linkedout_status linkedout_recommender_info(const linkedout_recommender *recommender, linkedout_info *info) {
    return guarded([&] {
        const auto model = get<Model>(recommender);
        const Manifest &m = model->manifest;
        const auto number = [](size_t value) { return static_cast<int32_t>(value); };
        write_struct(info,
                     {sizeof(*info), number(m.frames), number(m.frame_size), number(m.title_tokens),
                      number(m.shape.layers), number(m.shape.per_layer), number(m.shape.width),
                      model->encoder ? model->encoder->threads() : 0, model->encoder ? 1 : 0, m.shape.features()},
                     "info");
    });
}

linkedout_status linkedout_recommender_text(const linkedout_recommender *recommender, int32_t which, size_t index,
                                            char *text, size_t capacity, size_t *length) {
    return guarded([&] {
        const auto model = get<Model>(recommender);
        const Manifest &m = model->manifest;
        if (index >= (which == LINKEDOUT_INFO_LAYER_NAME ? m.layer_names.size() : 1)) out_of_range("index");
        const auto write = [&](std::string_view value) { write_text(value, text, capacity, length); };
        switch (which) {
            case LINKEDOUT_INFO_BUNDLE: return write(m.name);
            case LINKEDOUT_INFO_PRECISION: return write(m.precision);
            case LINKEDOUT_INFO_TOKEN_SPACE: return write(m.token_space);
            case LINKEDOUT_INFO_BACKEND: return write(model->encoder ? model->encoder->name() : "");
            case LINKEDOUT_INFO_SCORER: return write(std::string(linkedout_kernel_path()) + " kernel");
            case LINKEDOUT_INFO_LAYER_NAME: return write(m.layer_names[index]);
            case LINKEDOUT_INFO_LICENSE: return write(m.license);
            case LINKEDOUT_INFO_PROVENANCE: return write(m.provenance);
            default: out_of_range("which");
        }
    });
}

linkedout_status linkedout_choose_frames(const linkedout_recommender *recommender, int64_t total, int64_t *indices,
                                         size_t capacity, size_t *count) {
    return guarded([&] {
        const auto model = get<Model>(recommender);
        if (total < 1 || total > INT64_MAX / (2 * static_cast<int64_t>(model->manifest.frames))) out_of_range("total");
        write_array(spread(static_cast<size_t>(total), model->manifest.frames), indices, capacity, count, "indices");
    });
}

linkedout_status linkedout_prepare_frames(const linkedout_recommender *recommender, const linkedout_frames *frames,
                                          uint8_t *prepared, size_t capacity, size_t *count) {
    return guarded([&] {
        const auto model = get<Model>(recommender);
        const Manifest &m = model->manifest;
        const Frames given = checked_frames(read_struct(frames, "frames"));
        need(count, "count");
        need_room(prepared, capacity, "prepared");
        const size_t taken = std::min(given.count, m.frames);
        *count = taken;
        if (prepared == nullptr) return;
        if (capacity < taken * m.frame_size * m.frame_size * 3)
            fail(LINKEDOUT_BUFFER_TOO_SMALL, "prepared has too little room");
        prepare_frames(given, m.frames, m.frame_size, prepared);
    });
}

linkedout_status linkedout_tokenize(const linkedout_recommender *recommender, linkedout_text title, int32_t *ids,
                                    size_t capacity, size_t *count) {
    return guarded([&] {
        const auto model = get<Model>(recommender);
        write_array(model->tokenizer.encode(raw(title, "title"), SIZE_MAX), ids, capacity, count, "ids");
    });
}

linkedout_status linkedout_encode(const linkedout_recommender *recommender, const linkedout_frames *frames,
                                  linkedout_text title, void *features, size_t size) {
    return guarded([&] {
        const auto model = get<Model>(recommender);
        const Manifest &m = model->manifest;
        if (!model->encoder)
            fail(LINKEDOUT_MISSING_DEPENDENCY, "the recommender was loaded without the encoder: load it with one");
        const Frames given = checked_frames(read_struct(frames, "frames"));
        need(features, "features");
        if (size != m.shape.features())
            fail(LINKEDOUT_ARGUMENT, "there is room for " + std::to_string(size) + " bytes of features: expected " +
                                         std::to_string(m.shape.features()));
        std::vector<uint8_t> prepared(std::min(given.count, m.frames) * m.frame_size * m.frame_size * 3);
        const size_t count = prepare_frames(given, m.frames, m.frame_size, prepared.data());
        const std::vector<int32_t> ids = model->tokenizer.encode(raw(title, "title"), m.title_tokens);
        model->encoder->run(prepared.data(), count, ids, features);
    });
}

linkedout_status linkedout_store_create(const linkedout_recommender *recommender, linkedout_store **store) {
    return guarded([&] {
        const auto model = get<Model>(recommender);
        need(store, "store");
        give(store, std::make_shared<Store>(model->tokens));
    });
}

linkedout_status linkedout_store_close(linkedout_store *store) { return close_handle<Store>(store); }

linkedout_status linkedout_store_put(linkedout_store *store, const linkedout_video *video) {
    return guarded([&] {
        const auto found = get<Store>(store);
        const linkedout_video given = read_struct(video, "video");
        const Features features(found->kind->shape, given.features, given.features_size);
        Record record = record_of(given);
        const Writing writing(found->lock);
        found->put(std::move(record), features.tokens.data(), features.scales.data());
    });
}

linkedout_status linkedout_store_remove(linkedout_store *store, const linkedout_text *ids, size_t count,
                                        size_t *removed) {
    return guarded([&] {
        const auto found = get<Store>(store);
        const std::vector<std::string_view> gone = ids_of(ids, count, "ids");
        const Writing writing(found->lock);
        const size_t number = found->remove(gone);
        if (removed != nullptr) *removed = number;
    });
}

linkedout_status linkedout_store_count(const linkedout_store *store, size_t *count) {
    return guarded([&] {
        const auto found = get<Store>(store);
        need(count, "count");
        const Reading reading(found->lock);
        *count = found->count();
    });
}

linkedout_status linkedout_store_find(const linkedout_store *store, linkedout_text id, size_t *position) {
    return guarded([&] {
        const auto found = get<Store>(store);
        need(position, "position");
        const Reading reading(found->lock);
        const std::optional<size_t> row = found->find(id_of(id));
        if (!row) fail(LINKEDOUT_NOT_FOUND, "the id is not in the store");
        *position = *row;
    });
}

linkedout_status linkedout_store_text(const linkedout_store *store, size_t position, int32_t which, char *text,
                                      size_t capacity, size_t *length) {
    return text_from<Store>(store, text, capacity, length, [&](const Store &found) {
        const Reading reading(found.lock);
        if (position >= found.count()) out_of_range("position");
        return std::string(text_of(*found.record(position), which));
    });
}

linkedout_status linkedout_store_features(const linkedout_store *store, size_t position, void *features, size_t size) {
    return guarded([&] {
        const auto found = get<Store>(store);
        const Reading reading(found->lock);
        if (position >= found->count()) out_of_range("position");
        copy_features(found->kind->shape, found->tokens_of(position), found->scales_of(position), features, size);
    });
}

linkedout_status linkedout_store_read_pack(linkedout_store *store, const void *data, size_t size, size_t *count) {
    return guarded([&] {
        const auto found = get<Store>(store);
        need_room(data, size, "data");
        const Pack pack = read_pack({static_cast<const char *>(data), size}, found->kind->space, found->kind->shape);
        const Writing writing(found->lock);
        found->take(pack);
        if (count != nullptr) *count = pack.records.size();
    });
}

linkedout_status linkedout_store_write_pack(const linkedout_store *store, const linkedout_text *ids, size_t count,
                                            linkedout_bytes **pack) {
    return guarded([&] {
        const auto found = get<Store>(store);
        need(pack, "pack");
        const std::vector<std::string_view> named = ids_of(ids, count, "ids");
        const Reading reading(found->lock);
        const Shape &shape = found->kind->shape;
        Positions rows;
        std::vector<bool> taken(found->count(), false);
        for (const std::string_view id : named) {
            const std::optional<size_t> row = found->find(id);
            if (!row) fail(LINKEDOUT_NOT_FOUND, "one of the ids is not in the store: encode it first, or leave it out");
            if (!taken[*row]) rows.push_back(*row);
            taken[*row] = true;
        }
        if (ids == nullptr)
            for (size_t row = 0; row < found->count(); row++) rows.push_back(row);
        Pack out;
        for (const size_t row : rows) {
            out.records.push_back(*found->record(row));
            out.tokens.insert(out.tokens.end(), found->tokens_of(row), found->tokens_of(row) + shape.tokens());
            out.scales.insert(out.scales.end(), found->scales_of(row), found->scales_of(row) + shape.scales());
        }
        give(pack, std::make_shared<std::string>(write_pack(out, found->kind->space, shape)));
    });
}

linkedout_status linkedout_history_create(const linkedout_recommender *recommender, linkedout_history **history) {
    return guarded([&] {
        const auto model = get<Model>(recommender);
        need(history, "history");
        give(history, std::make_shared<History>(model->tokens));
    });
}

linkedout_status linkedout_history_close(linkedout_history *history) { return close_handle<History>(history); }

linkedout_status linkedout_history_add(linkedout_history *history, const linkedout_event *event) {
    return guarded([&] {
        const auto found = get<History>(history);
        const linkedout_event given = read_struct(event, "event");
        const linkedout_video video = read_struct(given.video, "event.video");
        const double watched = fraction(given.watched, "watched");
        if (given.liked < LINKEDOUT_LIKED_UNKNOWN || given.liked > LINKEDOUT_LIKED)
            fail(LINKEDOUT_ARGUMENT,
                 "liked is neither LINKEDOUT_LIKED, LINKEDOUT_DISLIKED nor LINKEDOUT_LIKED_UNKNOWN");
        const double at = flag(given.has_at, "has_at") ? moment(given.at, "at") : std::nan("");
        std::optional<Features> features;
        if (video.features != nullptr || video.features_size != 0)
            features.emplace(found->kind->shape, video.features, video.features_size);
        Record record = record_of(video);
        const Writing writing(found->lock);
        found->add(std::move(record), std::move(features), watched, given.liked, at, unix_now());
    });
}

linkedout_status linkedout_history_forget(linkedout_history *history, linkedout_text id, size_t *removed) {
    return guarded([&] {
        const auto found = get<History>(history);
        const Writing writing(found->lock);
        const size_t number = found->forget(id_of(id));
        if (removed != nullptr) *removed = number;
    });
}

linkedout_status linkedout_history_forget_since(linkedout_history *history, double at, size_t *removed) {
    return guarded([&] {
        const auto found = get<History>(history);
        moment(at, "at");
        const Writing writing(found->lock);
        const size_t number = found->forget_since(at);
        if (removed != nullptr) *removed = number;
    });
}

linkedout_status linkedout_history_clear(linkedout_history *history, size_t *removed) {
    return guarded([&] {
        const auto found = get<History>(history);
        const Writing writing(found->lock);
        const size_t number = found->clear();
        if (removed != nullptr) *removed = number;
    });
}

linkedout_status linkedout_history_count(const linkedout_history *history, size_t *events) {
    return guarded([&] {
        const auto found = get<History>(history);
        need(events, "events");
        const Reading reading(found->lock);
        *events = found->events().size();
    });
}

linkedout_status linkedout_history_event(const linkedout_history *history, size_t position, linkedout_event *event) {
    return guarded([&] {
        const auto found = get<History>(history);
        const Reading reading(found->lock);
        const HistoryEvent &e = item(found->events(), position, "position");
        const bool has_at = !std::isnan(e.at);
        write_struct(event, {sizeof(*event), nullptr, e.watched, e.liked, has_at ? 1 : 0, has_at ? e.at : 0.0},
                     "event");
    });
}

linkedout_status linkedout_history_text(const linkedout_history *history, size_t position, int32_t which, char *text,
                                        size_t capacity, size_t *length) {
    return text_from<History>(history, text, capacity, length, [&](const History &found) {
        const Reading reading(found.lock);
        return std::string(text_of(item(found.events(), position, "position").video->record, which));
    });
}

linkedout_status linkedout_history_features(const linkedout_history *history, size_t position, void *features,
                                            size_t size) {
    return guarded([&] {
        const auto found = get<History>(history);
        const Reading reading(found->lock);
        const Watched &video = *item(found->events(), position, "position").video;
        copy_features(found->kind->shape, video.tokens.data(), video.scales.data(), features, size);
    });
}

linkedout_status linkedout_history_save(const linkedout_history *history, linkedout_bytes **saved) {
    return guarded([&] {
        const auto found = get<History>(history);
        need(saved, "saved");
        const Reading reading(found->lock);
        give(saved,
             std::make_shared<std::string>(write_history(found->saved(), found->kind->space, found->kind->shape)));
    });
}

linkedout_status linkedout_history_load(const linkedout_recommender *recommender, const void *data, size_t size,
                                        linkedout_history **history) {
    return guarded([&] {
        const auto model = get<Model>(recommender);
        need_room(data, size, "data");
        need(history, "history");
        SavedHistory saved =
            read_history({static_cast<const char *>(data), size}, model->tokens->space, model->tokens->shape);
        give(history, std::make_shared<History>(model->tokens, std::move(saved)));
    });
}

linkedout_status linkedout_rank(const linkedout_recommender *recommender, const linkedout_store *store,
                                const linkedout_history *history, const linkedout_text *candidates, size_t count,
                                const linkedout_rank_options *options, linkedout_ranking **ranking) {
    return guarded([&] {
        const auto model = get<Model>(recommender);
        const auto stored = get<Store>(store);
        const auto past = history == nullptr ? nullptr : get<History>(history);
        const linkedout_rank_options defaults = LINKEDOUT_RANK_OPTIONS_INIT;
        const linkedout_rank_options how = options == nullptr ? defaults : read_struct(options, "options");
        need(ranking, "ranking");
        check_same(*model, *stored->kind, "store");
        if (past) check_same(*model, *past->kind, "history");
        const std::vector<std::string_view> ids = ids_of(candidates, count, "candidates");

        RankOptions wanted;
        if (how.top_k < 1 && how.top_k != LINKEDOUT_ALL)
            fail(LINKEDOUT_ARGUMENT,
                 "top_k must be at least 1, not " + std::to_string(how.top_k) + "; LINKEDOUT_ALL gives all");
        if (how.top_k != LINKEDOUT_ALL) wanted.wish.limit = static_cast<size_t>(how.top_k);
        wanted.wish.diversity = fraction(how.diversity, "diversity");
        wanted.wish.fold_duplicates = flag(how.fold_duplicates, "fold_duplicates");
        wanted.explore = fraction(how.explore, "explore");
        wanted.exclude_watched = flag(how.exclude_watched, "exclude_watched");
        wanted.now = how.now == 0 ? 0.0 : moment(how.now, "now");
        if (!std::isfinite(how.prior_weight)) fail(LINKEDOUT_ARGUMENT, "prior_weight must be finite");
        need_room(how.prior, how.prior_count, "prior");
        if (how.prior != nullptr) {
            wanted.has_prior = true;
            wanted.prior_weight = how.prior_weight;
            if (how.prior_ids == nullptr && candidates == nullptr)
                fail(LINKEDOUT_ARGUMENT, "prior has nothing to be aligned with: pass prior_ids, or candidates");
            if (how.prior_ids == nullptr && how.prior_count != count)
                fail(LINKEDOUT_ARGUMENT, "prior has " + std::to_string(how.prior_count) + " values for " +
                                             std::to_string(count) + " candidates: pass one for each (NaN: unknown)");
            wanted.prior.assign(how.prior, how.prior + how.prior_count);
            for (const double value : wanted.prior)
                if (std::isinf(value)) fail(LINKEDOUT_ARGUMENT, "prior must hold finite numbers; NaN where unknown");
            if (how.prior_ids != nullptr) {
                wanted.prior_by_id = true;
                for (const std::string_view id : ids_of(how.prior_ids, how.prior_count, "prior_ids"))
                    wanted.prior_ids.emplace_back(id);
            }
        }
        give(ranking,
             std::make_shared<Ranking>(*model, stored, past.get(), candidates == nullptr ? nullptr : &ids, wanted));
    });
}

linkedout_status linkedout_ranking_close(linkedout_ranking *ranking) { return close_handle<Ranking>(ranking); }

linkedout_status linkedout_ranking_sizes(const linkedout_ranking *ranking, linkedout_ranking_size *sizes) {
    return guarded([&] {
        const auto found = get<Ranking>(ranking);
        write_struct(sizes,
                     {sizeof(*sizes), found->places.size(), found->failed.size(), found->past->events.size(),
                      found->shape.layers},
                     "sizes");
    });
}

linkedout_status linkedout_ranking_places(const linkedout_ranking *ranking, size_t first, size_t count,
                                          int64_t *positions, float *scores, int32_t *sources, float *layers) {
    return guarded([&] {
        const auto found = get<Ranking>(ranking);
        const size_t width = found->shape.layers;
        if (first > found->places.size() || count > found->places.size() - first) out_of_range("first + count");
        for (size_t n = 0; n < count; n++) {
            const Place &place = found->places[first + n];
            if (positions != nullptr) positions[n] = static_cast<int64_t>(place.position);
            if (scores != nullptr) scores[n] = place.score;
            if (sources != nullptr) sources[n] = found->source;
        }
        if (layers != nullptr && count != 0)
            std::memcpy(layers, found->layers.data() + first * width, count * width * sizeof(float));
    });
}

linkedout_status linkedout_ranking_id(const linkedout_ranking *ranking, size_t place, char *text, size_t capacity,
                                      size_t *length) {
    return text_from<Ranking>(ranking, text, capacity, length, [&](const Ranking &found) {
        return std::string_view(item(found.places, place, "place").record->id);
    });
}

linkedout_status linkedout_ranking_failed(const linkedout_ranking *ranking, size_t index, int64_t *position,
                                          linkedout_status *status, char *text, size_t capacity, size_t *length) {
    return guarded([&] {
        const auto found = get<Ranking>(ranking);
        const Failed &failure = item(found->failed, index, "index");
        if (position != nullptr) *position = static_cast<int64_t>(failure.position);
        if (status != nullptr) *status = LINKEDOUT_NOT_FOUND;
        write_text(failure.id, text, capacity, length);
    });
}

linkedout_status linkedout_ranking_explain(const linkedout_ranking *ranking, size_t place,
                                           linkedout_explanation *explanation, float *matrix, size_t capacity) {
    return guarded([&] {
        const auto found = get<Ranking>(ranking);
        if (place >= found->places.size()) out_of_range("place");
        need_room(matrix, capacity, "matrix");
        checked_size(explanation, sizeof(*explanation), "explanation");
        const Place &at = found->places[place];
        if (matrix != nullptr) {
            const std::vector<float> values = found->matrix(place);
            if (capacity < values.size())
                fail(LINKEDOUT_BUFFER_TOO_SMALL, "the matrix has " + std::to_string(values.size()) + " numbers");
            std::copy(values.begin(), values.end(), matrix);
        }
        write_struct(explanation,
                     {sizeof(*explanation), static_cast<double>(at.score), static_cast<double>(at.prior),
                      static_cast<double>(at.explored)},
                     "explanation");
    });
}

linkedout_status linkedout_ranking_sentence(const linkedout_ranking *ranking, size_t place, char *text, size_t capacity,
                                            size_t *length) {
    return text_from<Ranking>(ranking, text, capacity, length, [&](const Ranking &found) {
        item(found.places, place, "place");
        return found.sentence(place);
    });
}

linkedout_status linkedout_ranking_event_id(const linkedout_ranking *ranking, size_t event, char *text, size_t capacity,
                                            size_t *length) {
    return text_from<Ranking>(ranking, text, capacity, length, [&](const Ranking &found) {
        return std::string_view(item(found.past->events, event, "event").video->record.id);
    });
}

linkedout_status linkedout_taste_of(const linkedout_recommender *recommender, const linkedout_store *store,
                                    const linkedout_history *history, double now, linkedout_taste **taste) {
    return guarded([&] {
        const auto model = get<Model>(recommender);
        const auto stored = store == nullptr ? nullptr : get<Store>(store);
        const auto past = history == nullptr ? nullptr : get<History>(history);
        need(taste, "taste");
        if (stored) check_same(*model, *stored->kind, "store");
        if (past) check_same(*model, *past->kind, "history");
        if (now != 0) moment(now, "now");
        give(taste, std::make_shared<TasteSummary>(*model, stored.get(), past.get(), now));
    });
}

linkedout_status linkedout_taste_close(linkedout_taste *taste) { return close_handle<TasteSummary>(taste); }

linkedout_status linkedout_taste_sizes(const linkedout_taste *taste, linkedout_taste_size *sizes) {
    return guarded([&] {
        const auto found = get<TasteSummary>(taste);
        write_struct(sizes,
                     {sizeof(*sizes), found->events, found->likes.size(), found->avoids.size(), found->layers.size()},
                     "sizes");
    });
}

linkedout_status linkedout_taste_interest(const linkedout_taste *taste, size_t interest, double *share,
                                          size_t *videos) {
    return guarded([&] {
        const auto found = get<TasteSummary>(taste);
        const Interest &like = item(found->likes, interest, "interest");
        if (share != nullptr) *share = like.share;
        if (videos != nullptr) *videos = like.videos.size();
    });
}

linkedout_status linkedout_taste_video(const linkedout_taste *taste, size_t interest, size_t index, char *text,
                                       size_t capacity, size_t *length) {
    return text_from<TasteSummary>(taste, text, capacity, length, [&](const TasteSummary &found) {
        const bool avoided = interest == LINKEDOUT_AVOIDED;
        const auto &videos = avoided ? found.avoids : item(found.likes, interest, "interest").videos;
        return std::string_view(item(videos, index, "index"));
    });
}

linkedout_status linkedout_taste_layers(const linkedout_taste *taste, double *layers, size_t capacity) {
    return guarded([&] {
        const auto found = get<TasteSummary>(taste);
        size_t count = 0;
        need(layers, "layers");
        write_array(found->layers, layers, capacity, &count, "layers");
    });
}

linkedout_status linkedout_taste_sentence(const linkedout_taste *taste, char *text, size_t capacity, size_t *length) {
    return text_from<TasteSummary>(taste, text, capacity, length,
                                   [](const TasteSummary &found) { return std::string_view(found.sentence); });
}
