// All golden vectors of bindings/conformance, through linkedout_edge.hpp.
//
// LINKEDOUT_BUNDLE: the bundle's folder. LINKEDOUT_GOLDEN: bindings/conformance. LINKEDOUT_ONNXRUNTIME: ONNX Runtime's
// library; without it, what begins with frames is left out and said.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <linkedout_edge.hpp>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#define STB_IMAGE_IMPLEMENTATION
#define STBI_ONLY_PNG
#define STBI_NO_FAILURE_STRINGS
#include <stb/stb_image.h>

#include "testing.hpp"

using namespace linkedout;
using Json = nlohmann::json;
using testing::read_file;
using testing::setting;

namespace {

Json golden;

struct Strip {
    Bytes pixels;
    std::int64_t count, height, width;
    Frames frames() const { return {pixels.data(), count, height, width}; }
};

Strip strip_of(const std::string &name, std::int64_t count) {
    const std::string file = read_file(setting("LINKEDOUT_GOLDEN") + "/" + name);
    int width = 0, height = 0, channels = 0;
    stbi_uc *pixels = stbi_load_from_memory(reinterpret_cast<const stbi_uc *>(file.data()),
                                            static_cast<int>(file.size()), &width, &height, &channels, 3);
    CHECK_SAYING(pixels != nullptr, name);
    if (pixels == nullptr) std::exit(2);
    Strip out{Bytes(pixels, pixels + std::size_t(width) * std::size_t(height) * 3), count, height / count, width};
    stbi_image_free(pixels);
    return out;
}

struct Tokens {
    std::vector<std::vector<int>> tokens;  // [L·M][D]
    std::vector<float> scales;             // [L·M]
};

Tokens expected_tokens(const Json &video) {
    Tokens out;
    for (const Json &layer : video["tokens"])
        for (const Json &token : layer) out.tokens.push_back(token.get<std::vector<int>>());
    for (const Json &layer : video["scales"])
        for (const Json &scale : layer) out.scales.push_back(scale.get<float>());
    return out;
}

Bytes features_of(const Json &video) {
    const Tokens t = expected_tokens(video);
    Bytes out;
    for (const auto &token : t.tokens)
        for (const int value : token) out.push_back(static_cast<std::uint8_t>(value));
    const auto *const scales = reinterpret_cast<const std::uint8_t *>(t.scales.data());
    out.insert(out.end(), scales, scales + t.scales.size() * sizeof(float));
    return out;
}

Tokens tokens_of(const Bytes &features, const Tokens &shaped) {
    Tokens out = shaped;
    std::size_t at = 0;
    for (auto &token : out.tokens)
        for (int &value : token) value = static_cast<std::int8_t>(features[at++]);
    std::memcpy(out.scales.data(), features.data() + at, out.scales.size() * sizeof(float));
    return out;
}

std::optional<std::string> title_of(const Json &video) {
    const auto title = video["title"].get<std::string>();
    return title.empty() ? std::nullopt : std::optional<std::string>(title);
}

// The names of golden.json's instruction_set that this CPU has; empty where that is not known.
std::set<std::string> instruction_set() {
    std::set<std::string> out;
#if defined(__x86_64__) && defined(__linux__)
    const std::map<std::string, std::string> names = {{"avx2", "avx2"},
                                                      {"avx512f", "avx512f"},
                                                      {"avx512_vnni", "avx512-vnni"},
                                                      {"avx_vnni", "avx-vnni"},
                                                      {"amx_int8", "amx-int8"}};
    std::ifstream file("/proc/cpuinfo");
    for (std::string line; std::getline(file, line);) {
        if (line.rfind("flags", 0) != 0) continue;
        std::istringstream flags(line);
        for (std::string flag; flags >> flag;)
            if (const auto found = names.find(flag); found != names.end()) out.insert(found->second);
        break;
    }
#endif
    return out;
}

// Whether ONNX Runtime rounds here as where the vectors were made.
bool rounds_alike(const Recommender &rec) {
    const Json &made = golden["made_with"];
    std::set<std::string> wanted;
    for (const Json &name : made["instruction_set"]) wanted.insert(name.get<std::string>());
    return rec.text(LINKEDOUT_INFO_BACKEND) == "onnxruntime " + made["onnxruntime"].get<std::string>() &&
           made["architecture"] == "x86-64" && !wanted.empty() && instruction_set() == wanted;
}

void put_all(Store &store, const std::map<std::string, Bytes> &features, const Json &ids) {
    for (const Json &video : golden["videos"]) {
        const auto id = video["id"].get<std::string>();
        if (std::find(ids.begin(), ids.end(), video["id"]) != ids.end())
            store.put({id, features.at(id), title_of(video)});
    }
}

// A hash of all scores' bits from given tokens (FNV-1a): the same on every machine.
std::uint64_t bits = 0xcbf29ce484222325;

void note(float score) {
    std::uint32_t word = 0;
    std::memcpy(&word, &score, sizeof(word));
    for (int n = 0; n < 4; n++) bits = (bits ^ (word >> 8 * n & 0xFF)) * 0x100000001b3;
}

// Cases from given features; how far scores were off at most.
double check_cases(const Recommender &rec, const std::map<std::string, Bytes> &features, double limit,
                   bool exact_order) {
    double worst = 0;
    const double now = std::floor(double(time(nullptr)) / 3600) * 3600 + 600;  // ages count from a moment of our own
    for (const Json &one : golden["cases"]) {
        const auto name = one["name"].get<std::string>();
        Store store(rec);
        put_all(store, features, one["store"]);
        History history(rec);
        for (const Json &e : one["events"]) {
            Event event;
            event.id = "video" + std::to_string(e["video"].get<int>());
            event.features = features.at(event.id);
            event.watched = e.value("watched", 1.0);
            if (e.contains("liked") && !e["liked"].is_null()) event.liked = e["liked"].get<bool>();
            if (e.contains("age_hours")) event.at = now - e["age_hours"].get<double>() * 3600;
            history.add(event);
        }
        RankOptions options;
        options.now = now;
        const Ranking ranking = rec.rank(store, history, one["candidates"].get<std::vector<std::string>>(), options);
        const auto order = one["order"].get<std::vector<std::string>>();
        CHECK_SAYING(ranking.size() == order.size() && ranking.failed().empty(), name);
        const Json &scores = one["scores"];
        for (const Ranked &r : ranking.all()) {
            const double wanted = scores[r.id].get<double>(), off = std::fabs(double(r.score) - wanted);
            worst = std::max(worst, off);
            CHECK_SAYING(off <= limit, name + ", " + r.id + " is off by " + std::to_string(off));
            CHECK_SAYING(one["candidates"][std::size_t(r.position)] == r.id, name);
            CHECK_SAYING((r.source == LINKEDOUT_SOURCE_COLD_START) == (name.rfind("cold start", 0) == 0), name);
            if (!exact_order) continue;
            note(r.score);
            const double other = scores[order[r.rank - 1]].get<double>();
            CHECK_SAYING(std::fabs(wanted - other) <= limit, name + ": the order differs by more than the tolerance");
            const auto layers = one["contributions"][r.id].get<std::vector<double>>();
            for (std::size_t layer = 0; layer < layers.size(); layer++)
                CHECK_SAYING(std::fabs(double(r.layers[layer]) - layers[layer]) <= limit, name + ", layers of " + r.id);
            const Explanation why = ranking.explain(r.rank - 1);
            const Json &matrix = one["explanations"][r.id];
            CHECK_SAYING(why.matrix.size() == matrix.size() && why.history.size() == matrix.size(), name);
            double sum = why.prior + why.explored;
            for (std::size_t event = 0; event < matrix.size(); event++)
                for (std::size_t layer = 0; layer < matrix[event].size(); layer++) {
                    const double entry = why.matrix[event][layer];
                    CHECK_SAYING(std::fabs(entry - matrix[event][layer].get<double>()) <= limit, name + ", matrix");
                    sum += entry;
                }
            CHECK_SAYING(std::fabs(sum - why.score) <= 2 * limit, name + ": the matrix is not the score");
        }
        if (!exact_order) continue;
        Json likes = Json::array();
        const TasteSummary taste = rec.taste(store, history, now);
        for (const Interest &interest : taste.likes) likes.push_back(interest.videos);
        CHECK_SAYING(likes == one["likes"], name + ": likes " + likes.dump());
        CHECK_SAYING(Json(taste.avoids) == one["avoids"], name + ": avoids " + Json(taste.avoids).dump());
        if (name.rfind("cold start: an empty", 0) == 0)
            for (std::size_t n = 0; n < order.size(); n++) CHECK_SAYING(ranking.id(n) == order[n], name);
    }
    return worst;
}

void check_titles(const Recommender &rec) {
    const auto limit = golden["bundle"]["title_tokens"].get<std::size_t>();
    CHECK(std::size_t(rec.info().title_tokens) == limit);
    for (const Json &row : golden["titles"])
        CHECK_SAYING(Json(rec.tokenize(row["text"].get<std::string>())) == row["ids"], row.dump());
    for (const Json &video : golden["videos"]) {
        std::vector<std::int32_t> ids = rec.tokenize(video["title"].get<std::string>());
        if (ids.size() > limit) ids.resize(limit);
        CHECK_SAYING(Json(ids) == video["title_ids"], video["id"].dump());
    }
    for (const Json &row : golden["surrogates"]) {
        CHECK_SAYING(Json(rec.tokenize(row["read_as"].get<std::string>())) == row["ids"], row.dump());
        // Half a character in UTF-8 is what encoders that do not look make of it: three bytes.
        std::string text;
        const auto json = row["json"].get<std::string>();
        for (std::size_t n = 1; n + 1 < json.size(); n++) {
            if (json.compare(n, 2, "\\u") != 0) {
                text += json[n];
                continue;
            }
            const auto half = static_cast<unsigned>(std::stoul(json.substr(n + 2, 4), nullptr, 16));
            text += {static_cast<char>(0xE0 | half >> 12), static_cast<char>(0x80 | (half >> 6 & 0x3F)),
                     static_cast<char>(0x80 | (half & 0x3F))};
            n += 5;
        }
        CHECK_SAYING(Json(rec.tokenize(text)) == row["ids"], row.dump());
    }
}

void check_frames(const Recommender &rec) {
    const int limit = golden["tolerance"]["pixel"].get<int>();
    int off = 0;
    for (const Json &video : golden["videos"]) {
        if (!video.contains("prepared")) continue;
        const auto count = video["frame_count"].get<std::int64_t>();
        CHECK_SAYING(Json(rec.choose_frames(count)) == video["chosen"], video["id"].dump());
        const Strip given = strip_of(video["frames"], count);
        const Strip wanted = strip_of(video["prepared"], std::int64_t(video["chosen"].size()));
        const Bytes got = rec.prepare_frames(given.frames());
        CHECK_SAYING(got.size() == wanted.pixels.size(), video["id"].dump());
        for (std::size_t n = 0; n < got.size(); n++) off = std::max(off, std::abs(int(got[n]) - int(wanted.pixels[n])));
    }
    CHECK_SAYING(off <= limit, std::to_string(off) + " gray levels");
    std::cout << "prepared frames: at most " << off << " gray levels off\n";
}

void check_encoder(const Recommender &rec) {
    const bool alike = rounds_alike(rec);
    const Json &tolerance = golden["tolerance"];
    std::map<std::string, Bytes> features;
    double steps = 0, cosine = 1;
    for (const Json &video : golden["videos"]) {
        const auto id = video["id"].get<std::string>();
        const Strip strip = strip_of(video["frames"], video["frame_count"]);
        features[id] = rec.encode(strip.frames(), video["title"].get<std::string>());
        const Tokens want = expected_tokens(video), got = tokens_of(features[id], want);
        for (std::size_t n = 0; n < want.scales.size(); n++) {
            double dot = 0, a = 0, b = 0;
            for (std::size_t d = 0; d < want.tokens[n].size(); d++) {
                const double x = double(got.tokens[n][d]) * double(got.scales[n]);
                const double y = double(want.tokens[n][d]) * double(want.scales[n]);
                dot += x * y, a += x * x, b += y * y;
                steps = std::max(steps, std::fabs(x - y) / double(want.scales[n]));
            }
            cosine = std::min(cosine, dot / std::sqrt(a * b));
        }
    }
    CHECK(cosine >= tolerance["token_cosine"].get<double>());
    if (alike) CHECK(steps <= tolerance["token_steps"].get<double>());
    const double limit = tolerance[alike ? "score" : "score_from_frames"].get<double>();
    const double worst = check_cases(rec, features, limit, false);
    std::cout << "from frames, " << rec.text(LINKEDOUT_INFO_BACKEND)
              << (alike ? ", the same CPU" : ", another CPU or version") << ": tokens at most " << steps
              << " steps off, cosine at least " << cosine << ", scores within " << worst << "\n";
}

linkedout_status status_of(const std::function<void()> &call) {
    try {
        call();
    } catch (const Error &e) {
        CHECK_SAYING(!std::string(e.what()).empty(), "an error says nothing");
        return e.status;
    }
    return LINKEDOUT_OK;
}

void check_errors(const Recommender &rec, const std::map<std::string, Bytes> &features) {
    Store store(rec);
    History history(rec);
    store.put({"video0", features.at("video0")});
    history.add({"video1", features.at("video1")});
    std::size_t seen = 0;
    for (const Json &row : golden["errors"]) {
        const auto what = row["what"].get<std::string>();
        linkedout_status got = LINKEDOUT_OK, wanted = LINKEDOUT_ARGUMENT;
        if (row.contains("candidates") && row["candidates"].is_string()) {
            std::cout << "left out, types forbid it: " << what << "\n";  // a bare string for a list does not compile
            continue;
        }
        if (row["call"] == "load") {
            wanted = LINKEDOUT_BUNDLE_NOT_FOUND;
            got = status_of([&] { Recommender(row["bundle"].get<std::string>()); });
        } else if (row.contains("frames_dtype") || row.contains("frames_shape")) {
            wanted = LINKEDOUT_INVALID_FRAMES;
            const bool gray = row.contains("frames_shape");
            const Bytes data(gray ? 8 * 16 * 16 : 8 * 16 * 16 * 3 * sizeof(float));
            linkedout_frames frames = LINKEDOUT_FRAMES_INIT;
            frames.data = data.data();
            frames.size = data.size();
            frames.count = 8, frames.height = 16, frames.width = 16;
            if (gray) frames.channels = 1;
            std::size_t count = 0;
            got = status_of([&] { detail::check(linkedout_prepare_frames(rec.get(), &frames, nullptr, 0, &count)); });
        } else if (row.contains("top_k")) {
            RankOptions options;
            options.top_k = row["top_k"].get<std::int64_t>();
            got = status_of([&] { rec.rank(store, history, {"video0"}, options); });
        } else if (row.contains("watched")) {
            Event event{"video1"};
            event.watched = row["watched"].get<double>();
            got = status_of([&] { history.add(event); });
        } else {
            wanted = LINKEDOUT_NOT_FOUND;
            const auto failed = rec.rank(store, history, row["candidates"].get<std::vector<std::string>>()).failed();
            CHECK_SAYING(failed.size() == 1 && failed[0].id == row["candidates"][0] && failed[0].position == 0, what);
            got = failed.empty() ? LINKEDOUT_OK : failed[0].status;
        }
        CHECK_SAYING(got == wanted, what + " gives " + linkedout_status_name(got));
        seen++;
    }
    CHECK(seen + 1 == golden["errors"].size());
}

}  // namespace

int main() {
    golden = Json::parse(read_file(setting("LINKEDOUT_GOLDEN") + "/golden.json"));
    LoadOptions options;
    options.without_encoder = true;
    options.precision = golden["bundle"]["precision"].get<std::string>();
    const Recommender rec(setting("LINKEDOUT_BUNDLE"), options);
    CHECK(rec.text(LINKEDOUT_INFO_TOKEN_SPACE) == golden["bundle"]["token_space"]);
    CHECK(rec.text(LINKEDOUT_INFO_BUNDLE) == golden["bundle"]["name"]);
    const Json manifest = Json::parse(read_file(setting("LINKEDOUT_BUNDLE") + "/manifest.json"));
    const Json &files = manifest["precisions"][options.precision]["files"];
    CHECK(golden["bundle"]["sha256"][files["encoder"]["path"].get<std::string>()] == files["encoder"]["sha256"]);
    CHECK(golden["bundle"]["sha256"]["tokenizer.json"] == manifest["tokenizer"]["sha256"]);

    std::map<std::string, Bytes> features;
    for (const Json &video : golden["videos"]) features[video["id"]] = features_of(video);
    check_titles(rec);
    check_frames(rec);
    check_errors(rec, features);
    const double worst = check_cases(rec, features, golden["tolerance"]["score"].get<double>(), true);
    std::cout << "from tokens, " << rec.text(LINKEDOUT_INFO_SCORER) << ": " << golden["cases"].size()
              << " cases, scores within " << worst << " (they are given to six digits); bits " << std::hex << bits
              << std::dec << "\n";

    options.onnxruntime = setting("LINKEDOUT_ONNXRUNTIME");
    if (options.onnxruntime.empty()) {
        std::cout << "left out, LINKEDOUT_ONNXRUNTIME names no library: from frames\n";
    } else {
        options.without_encoder = false;
        check_encoder(Recommender(setting("LINKEDOUT_BUNDLE"), options));
        CHECK(setting("ORT_DISABLE_TELEMETRY") == "1");
    }
    return testing::finish("conformance");
}
