#include "packs.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <unordered_set>

#include "json.hpp"

namespace linkedout {
namespace {

constexpr const char *PACK = "linkedout-pack", *HISTORY = "linkedout-history", *VERSION = "1";
constexpr uint64_t MAX_HEADER = 1 << 20;
constexpr size_t ENTRIES = 4;  // of an event

[[noreturn]] void wrong(const std::string &why) { fail(LINKEDOUT_PACK, why); }

struct Tensor {
    std::string dtype;
    std::vector<uint64_t> shape;
    std::string_view data;
};

uint64_t element_size(const std::string &dtype) { return dtype == "F64" ? 8 : dtype == "F32" ? 4 : 1; }

uint64_t whole(const Json &value) {
    if (!value.is_number_integer() || value.get<int64_t>() < 0) wrong("the file's header holds what is no size");
    return value.get<uint64_t>();
}

// The tensors of a safetensors file, after its format, version, token space and names were checked.
std::map<std::string, Tensor> read_tensors(std::string_view data, const std::string &format,
                                           const std::string &token_space, const std::vector<std::string> &names) {
    const std::string what = format == PACK ? "feature pack" : "saved history";
    const auto damaged = [&] { wrong("the " + what + " is damaged or no safetensors file"); };
    uint64_t length = 0;
    if (data.size() < sizeof(length)) damaged();
    std::memcpy(&length, data.data(), sizeof(length));
    data.remove_prefix(sizeof(length));
    if (length > std::min<uint64_t>(data.size(), MAX_HEADER) || length == 0 || data.front() != '{') damaged();
    const Json header = parse_json(data.substr(0, length), LINKEDOUT_PACK, "the " + what + "'s header");
    data.remove_prefix(length);

    const auto meta = header.find("__metadata__");
    const auto said = [&](const char *key) {
        if (meta == header.end() || !meta->is_object()) return std::string();
        const auto found = meta->find(key);
        return found == meta->end() || !found->is_string() ? std::string() : found->get<std::string>();
    };
    if (said("format") != format) wrong("the file is no " + what);
    if (said("version") != VERSION)
        wrong("the " + what + " has another version than " + VERSION + ", which this version of the library reads");
    if (said("token_space") != token_space)
        fail(LINKEDOUT_TOKEN_SPACE, "the " + what + " was made in another token space than this model's " +
                                        token_space.substr(0, 12) +
                                        "...: make it with the same bundle (any of its precisions)");
    if (header.size() != names.size() + 1) wrong("the " + what + " holds other tensors than it should");

    std::map<std::string, Tensor> tensors;
    uint64_t used = 0;
    std::vector<std::pair<uint64_t, uint64_t>> parts;
    for (const std::string &name : names) {
        const auto found = header.find(name);
        if (found == header.end()) wrong("the " + what + " lacks " + name);
        const Json &one = *found;
        if (!one.is_object() || !one.contains("dtype") || !one["dtype"].is_string() || !one.contains("shape") ||
            !one["shape"].is_array() || !one.contains("data_offsets") || !one["data_offsets"].is_array() ||
            one["data_offsets"].size() != 2)
            damaged();
        Tensor tensor{one["dtype"].get<std::string>(), {}, {}};
        uint64_t count = element_size(tensor.dtype);
        for (const Json &side : one["shape"]) {
            const uint64_t size = whole(side);
            if (size != 0 && count > data.size() / size) damaged();  // more than there is
            count *= size;
            tensor.shape.push_back(size);
        }
        const uint64_t begin = whole(one["data_offsets"][0]), end = whole(one["data_offsets"][1]);
        if (begin > end || end > data.size() || end - begin != count) damaged();
        tensor.data = data.substr(begin, count);
        used += count;
        parts.emplace_back(begin, end);
        tensors.emplace(name, std::move(tensor));
    }
    std::sort(parts.begin(), parts.end());
    uint64_t at = 0;
    for (const auto &[begin, end] : parts) {
        if (begin != at) damaged();  // holes or overlaps
        at = end;
    }
    if (used != data.size()) damaged();
    return tensors;
}

void check(const Tensor &tensor, const char *name, const char *dtype, const std::vector<uint64_t> &shape) {
    if (tensor.dtype != dtype || tensor.shape != shape)
        wrong(std::string(name) + " in the file is of another type or shape than it should be");
}

std::vector<Record> read_records(std::string_view text, size_t count) {
    const Json records = parse_json(text, LINKEDOUT_PACK, "the list of records in the file");
    if (!records.is_array() || records.size() != count) wrong("the file has not a record for each video: create it again");
    std::vector<Record> out;
    std::unordered_set<std::string> ids;
    const auto fits = [](const std::string &value) { return characters(value) <= MAX_TEXT; };
    for (const Json &r : records) {
        if (!r.is_array() || r.size() != 3 || !r[0].is_string() || !(r[1].is_null() || r[1].is_string()) ||
            !r[2].is_string())
            wrong("a record of the file is not [id, title or null, content hash]: create it again");
        Record record{r[0].get<std::string>(), std::nullopt, r[2].get<std::string>()};
        if (r[1].is_string()) record.title = r[1].get<std::string>();
        if (record.id.empty() || !fits(record.id) || !fits(record.title.value_or("")) || !fits(record.content))
            wrong("a record of the file has an empty id, or text that is too long: create it again");
        if (!ids.insert(record.id).second) wrong("an id occurs twice in the file: create it again");
        out.push_back(std::move(record));
    }
    return out;
}

Pack read_videos(const std::map<std::string, Tensor> &tensors, const Shape &shape) {
    const Tensor &tokens = tensors.at("tokens"), &scales = tensors.at("scales"), &records = tensors.at("records");
    const uint64_t count = tokens.shape.empty() ? 0 : tokens.shape[0];
    check(tokens, "tokens", "I8", {count, shape.layers, shape.per_layer, shape.width});
    check(scales, "scales", "F32", {count, shape.layers, shape.per_layer});
    check(records, "records", "U8", {records.data.size()});
    Pack pack;
    pack.tokens.resize(tokens.data.size());
    pack.scales.resize(scales.data.size() / sizeof(float));
    if (count != 0) {
        std::memcpy(pack.tokens.data(), tokens.data.data(), tokens.data.size());
        std::memcpy(pack.scales.data(), scales.data.data(), scales.data.size());
    }
    for (const float scale : pack.scales)
        if (!std::isfinite(scale) || scale < 0)
            wrong("the file has scales that are negative or no numbers: create it again");
    pack.records = read_records(records.data, static_cast<size_t>(count));
    return pack;
}

struct Written {
    const char *name, *dtype;
    std::vector<uint64_t> shape;
    std::string_view data;
};

template <class T>
std::string_view bytes_of(const std::vector<T> &values) {
    return {reinterpret_cast<const char *>(values.data()), values.size() * sizeof(T)};
}

std::string write_tensors(const std::vector<Written> &tensors, const char *format, const std::string &token_space) {
    Json header = {{"__metadata__", {{"format", format}, {"version", VERSION}, {"token_space", token_space}}}};
    uint64_t at = 0;
    for (const Written &tensor : tensors) {
        header[tensor.name] = {
            {"dtype", tensor.dtype}, {"shape", tensor.shape}, {"data_offsets", {at, at + tensor.data.size()}}};
        at += tensor.data.size();
    }
    std::string text = header.dump();
    text.append((8 - text.size() % 8) % 8, ' ');  // so that numbers are aligned
    const uint64_t length = text.size();
    std::string out(reinterpret_cast<const char *>(&length), sizeof(length));
    out.reserve(sizeof(length) + text.size() + at);
    out += text;
    for (const Written &tensor : tensors) out += tensor.data;
    return out;
}

std::string records_text(const std::vector<Record> &records) {
    Json out = Json::array();
    for (const Record &r : records)
        out.push_back(Json::array({r.id, r.title ? Json(*r.title) : Json(nullptr), r.content}));
    return out.dump(-1, ' ', true);
}

// Those of the videos, in an order in which each is aligned.
void add_videos(std::vector<Written> &to, const Pack &pack, const Shape &shape, const std::string &records) {
    const uint64_t count = pack.records.size();
    to.push_back({"scales", "F32", {count, shape.layers, shape.per_layer}, bytes_of(pack.scales)});
    to.push_back({"tokens", "I8", {count, shape.layers, shape.per_layer, shape.width}, bytes_of(pack.tokens)});
    to.push_back({"records", "U8", {records.size()}, records});
}

}  // namespace

Pack read_pack(std::string_view data, const std::string &token_space, const Shape &shape) {
    return read_videos(read_tensors(data, PACK, token_space, {"tokens", "scales", "records"}), shape);
}

SavedHistory read_history(std::string_view data, const std::string &token_space, const Shape &shape) {
    const auto tensors = read_tensors(data, HISTORY, token_space, {"tokens", "scales", "records", "events"});
    SavedHistory history{read_videos(tensors, shape), {}};
    const Tensor &events = tensors.at("events");
    const uint64_t count = events.shape.empty() ? 0 : events.shape[0];
    check(events, "events", "F64", {count, ENTRIES});
    for (uint64_t n = 0; n < count; n++) {
        double e[ENTRIES];
        std::memcpy(e, events.data.data() + n * sizeof(e), sizeof(e));
        const auto videos = static_cast<double>(history.videos.records.size());
        const bool video = e[0] >= 0 && e[0] < videos && e[0] == std::floor(e[0]);
        const bool watched = e[1] >= 0 && e[1] <= 1, liked = e[2] == -1 || e[2] == 0 || e[2] == 1;
        const bool at = std::isnan(e[3]) || (e[3] >= FIRST_MOMENT && e[3] <= LAST_MOMENT);
        if (!video || !watched || !liked || !at) wrong("an event of the saved history is out of range: create it again");
        history.events.push_back({static_cast<size_t>(e[0]), e[1], static_cast<int32_t>(e[2]), e[3]});
    }
    return history;
}

std::string write_pack(const Pack &pack, const std::string &token_space, const Shape &shape) {
    const std::string records = records_text(pack.records);
    std::vector<Written> tensors;
    add_videos(tensors, pack, shape, records);
    return write_tensors(tensors, PACK, token_space);
}

std::string write_history(const SavedHistory &history, const std::string &token_space, const Shape &shape) {
    const std::string records = records_text(history.videos.records);
    std::vector<double> events;
    for (const SavedEvent &e : history.events)
        events.insert(events.end(), {static_cast<double>(e.video), e.watched, static_cast<double>(e.liked), e.at});
    std::vector<Written> tensors = {{"events", "F64", {history.events.size(), ENTRIES}, bytes_of(events)}};
    add_videos(tensors, history.videos, shape, records);
    return write_tensors(tensors, HISTORY, token_space);
}

}  // namespace linkedout
