// Bundles, feature packs and saved histories: what is written can be read, and nothing broken is.
//
// LINKEDOUT_BUNDLE: the bundle's folder. LINKEDOUT_GOLDEN: bindings/conformance.
#include <sys/stat.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <functional>
#include <limits>
#include <linkedout_edge.hpp>
#include <nlohmann/json.hpp>

#include "testing.hpp"

using namespace linkedout;
using Json = nlohmann::ordered_json;
namespace fs = std::filesystem;
using testing::read_file;
using testing::setting;

namespace {

constexpr std::size_t TOKENS = 768, SCALES = 12;

linkedout_status status_of(const std::function<void()> &call) {
    try {
        call();
    } catch (const Error &e) {
        CHECK_SAYING(std::string(e.what()).size() > 10, "an error says too little");
        return e.status;
    }
    return LINKEDOUT_OK;
}

Bytes features_of(int seed) {
    Bytes out(TOKENS + SCALES * sizeof(float));
    for (std::size_t n = 0; n < TOKENS; n++) out[n] = static_cast<std::uint8_t>(n * std::size_t(seed + 3) * 37 % 251);
    for (std::size_t n = 0; n < SCALES; n++) {
        const float scale = 0.01f + 0.001f * static_cast<float>(n + std::size_t(seed));
        std::memcpy(out.data() + TOKENS + n * sizeof(scale), &scale, sizeof(scale));
    }
    return out;
}

// A safetensors file that can be taken apart and put together wrongly.
struct File {
    Json header;
    std::string data;

    explicit File(const Bytes &bytes) {
        std::uint64_t length = 0;
        std::memcpy(&length, bytes.data(), sizeof(length));
        const std::string all(bytes.begin(), bytes.end());
        header = Json::parse(all.substr(8, length));
        data = all.substr(8 + length);
    }

    std::string made() const { return made(header.dump()); }
    std::string made(const std::string &text) const {
        const std::uint64_t length = text.size();
        return std::string(reinterpret_cast<const char *>(&length), sizeof(length)) + text + data;
    }

    // Replace a tensor by another of other length; those behind it move.
    void replace(const char *name, const std::string &bytes, const Json &shape) {
        const auto begin = header[name]["data_offsets"][0].get<std::size_t>(),
                   end = header[name]["data_offsets"][1].get<std::size_t>();
        data = data.substr(0, begin) + bytes + data.substr(end);
        for (auto &[key, tensor] : header.items()) {
            if (key == "__metadata__") continue;
            for (Json &offset : tensor["data_offsets"])
                if (offset.get<std::size_t>() >= end && !(key == name && &offset == &tensor["data_offsets"][0]))
                    offset = offset.get<std::size_t>() + bytes.size() - (end - begin);
        }
        header[name]["data_offsets"] = {begin, begin + bytes.size()};
        header[name]["shape"] = shape;
    }

    char *at(const char *name) { return data.data() + header[name]["data_offsets"][0].get<std::size_t>(); }
};

using Change = std::function<void(File &)>;

void records(File &file, const std::string &text) { file.replace("records", text, {text.size()}); }

// What is wrong in a pack as in a saved history of two videos.
std::vector<std::pair<std::string, Change>> common_changes() {
    const auto put = [](const char *name, float value) {
        return [=](File &f) { std::memcpy(f.at(name), &value, sizeof(value)); };
    };
    const auto meta = [](const char *key, const Json &value) {
        return [=](File &f) { f.header["__metadata__"][key] = value; };
    };
    const auto with_records = [](const std::string &text) { return [=](File &f) { records(f, text); }; };
    return {
        {"another format", meta("format", "linkedout-other")},
        {"another version", meta("version", "2")},
        {"a version that is a number", meta("version", 1)},
        {"no metadata", [](File &f) { f.header.erase("__metadata__"); }},
        {"metadata that is a list", [](File &f) { f.header["__metadata__"] = Json::array(); }},
        {"one more tensor",
         [](File &f) { f.header["more"] = {{"dtype", "U8"}, {"shape", {0}}, {"data_offsets", {0, 0}}}; }},
        {"a tensor less", [](File &f) { f.header.erase("scales"); }},
        {"another type", [](File &f) { f.header["tokens"]["dtype"] = "U8"; }},
        {"another shape", [](File &f) { f.header["tokens"]["shape"] = {2, 12, 64}; }},
        {"a shape of no dimension", [](File &f) { f.header["tokens"]["shape"] = Json::array(); }},
        {"a negative size", [](File &f) { f.header["tokens"]["shape"][0] = -2; }},
        {"a size that overflows", [](File &f) { f.header["tokens"]["shape"] = {1ull << 62, 4, 2, 64}; }},
        {"a size of no whole number", [](File &f) { f.header["tokens"]["shape"][0] = 2.0; }},
        {"offsets beyond the end", [](File &f) { f.header["tokens"]["data_offsets"] = {1 << 20, (1 << 20) + 1536}; }},
        {"offsets that overlap", [](File &f) { f.header["tokens"]["data_offsets"] = {0, 1536}; }},
        {"offsets turned around", [](File &f) { f.header["tokens"]["data_offsets"] = {1536, 0}; }},
        {"bytes behind the end", [](File &f) { f.data += "x"; }},
        {"a byte less", [](File &f) { f.data.pop_back(); }},
        {"a negative scale", put("scales", -1.0f)},
        {"an infinite scale", put("scales", std::numeric_limits<float>::infinity())},
        {"a scale that is no number", put("scales", std::nanf(""))},
        {"records that are no JSON", with_records("[[\"a\",null,\"\"],")},
        {"records that are no list", with_records("{\"a\":1,\"b\":2}")},
        {"a record less", with_records("[[\"a\",null,\"\"]]")},
        {"an id twice", with_records("[[\"a\",null,\"\"],[\"a\",null,\"\"]]")},
        {"an empty id", with_records("[[\"\",null,\"\"],[\"b\",null,\"\"]]")},
        {"an id that is a number", with_records("[[1,null,\"\"],[\"b\",null,\"\"]]")},
        {"a record of two", with_records("[[\"a\",null],[\"b\",null,\"\"]]")},
        {"a title that is a list", with_records("[[\"a\",[],\"\"],[\"b\",null,\"\"]]")},
        {"an id that is too long", with_records("[[\"" + std::string(65537, 'x') + "\",null,\"\"],[\"b\",null,\"\"]]")},
        {"half a character", with_records("[[\"\\ud83d\",null,\"\"],[\"b\",null,\"\"]]")},
        {"bytes that are no UTF-8", with_records("[[\"\xFF\",null,\"\"],[\"b\",null,\"\"]]")},
        {"records nested deeply", with_records(std::string(100000, '['))},
    };
}

void check_refused(const std::string &what, const Bytes &good,
                   const std::vector<std::pair<std::string, Change>> &changes,
                   const std::function<void(const std::string &)> &read) {
    CHECK_SAYING(status_of([&] { read(File(good).made()); }) == LINKEDOUT_OK, what + " put together again");
    for (const auto &[name, change] : changes) {
        File file(good);
        change(file);
        const linkedout_status status = status_of([&] { read(file.made()); });
        CHECK_SAYING(status == LINKEDOUT_PACK, what + " with " + name + ": " + linkedout_status_name(status));
    }
    File other(good);
    other.header["__metadata__"]["token_space"] = std::string(64, 'a');
    CHECK_SAYING(status_of([&] { read(other.made()); }) == LINKEDOUT_TOKEN_SPACE, what);
    const std::string whole(good.begin(), good.end());
    for (std::size_t length = 0; length < whole.size(); length += length < 600 ? 1 : 97)  // cut anywhere
        CHECK_SAYING(status_of([&] { read(whole.substr(0, length)); }) == LINKEDOUT_PACK, what + " cut");
    std::string length = whole;
    for (const std::uint64_t wrong : {std::uint64_t{0}, std::uint64_t{1} << 40, ~std::uint64_t{0}}) {
        std::memcpy(length.data(), &wrong, sizeof(wrong));
        CHECK_SAYING(status_of([&] { read(length); }) == LINKEDOUT_PACK, what + " with a wrong length");
    }
    CHECK_SAYING(status_of([&] { read(File(good).made(std::string(1000, '{'))); }) == LINKEDOUT_PACK, what);
    CHECK_SAYING(status_of([&] { read(""); }) == LINKEDOUT_PACK, what + " that is empty");
}

void packs(const Recommender &rec) {
    Store store(rec);
    store.put({"a", features_of(1), "Título “a”", "0123"});
    store.put({"b/ü\n", features_of(2)});
    const Bytes pack = store.write_pack();
    Store other(rec);
    CHECK(other.read_pack(pack.data(), pack.size()) == 2);
    CHECK(other.size() == 2 && other.at(0).features == features_of(1) && other.at(0).title == "Título “a”");
    CHECK(other.at(0).content == "0123" && other.at(1).id == "b/ü\n" && !other.at(1).title);
    CHECK(other.write_pack() == pack);
    CHECK(File(store.write_pack({"b/ü\n"})).header["tokens"]["shape"][0] == 1);
    CHECK(File(store.write_pack(std::vector<std::string>{})).header["tokens"]["shape"][0] == 0);
    CHECK(status_of([&] { store.write_pack({"nobody"}); }) == LINKEDOUT_NOT_FOUND);
    const Bytes empty = Store(rec).write_pack();
    CHECK(other.read_pack(empty.data(), empty.size()) == 0 && other.size() == 2);
    check_refused("a pack", pack, common_changes(), [&](const std::string &data) {
        Store fresh(rec);
        try {
            fresh.read_pack(data.data(), data.size());
        } catch (const Error &) {
            CHECK_SAYING(fresh.size() == 0, "something of a broken pack was taken over");
            throw;
        }
    });
    // The average video depends on what is stored, not on how it came to be.
    Store again(rec);
    again.put({"x", features_of(9)});
    again.put({"b/ü\n", features_of(5)});
    again.put({"a", features_of(1)});
    again.put({"b/ü\n", features_of(2)});
    again.remove({"x", "nobody"});
    History history(rec);
    history.add({"seen", features_of(3)});
    const Ranking first = rec.rank(store, history, {"a", "b/ü\n"}), second = rec.rank(again, history, {"a", "b/ü\n"});
    for (std::size_t place = 0; place < 2; place++)
        CHECK(first.id(place) == second.id(place) && first[place].score == second[place].score);
    // So does what was watched and is not stored.
    again.put({"seen", features_of(3)});
    CHECK(rec.rank(again, history, {"a"})[0].score == rec.rank(store, history, {"a"})[0].score);
    CHECK(rec.rank(again, history).size() == 2);  // all that was not watched
}

void histories(const Recommender &rec) {
    History history(rec);
    Event event{"a", features_of(1), "A"};
    event.watched = 0.25, event.liked = true, event.at = 1.75e9;
    history.add(event);
    history.add({"b", features_of(2)});
    event = {"a"};
    event.watched = 0.5, event.liked = false;
    history.add(event);
    const Bytes saved = history.save();
    const History loaded(rec, saved.data(), saved.size());
    CHECK(loaded.size() == 3 && loaded.save() == saved);
    CHECK(loaded.at(0).id == "a" && loaded.at(0).title == "A" && loaded.at(0).features == features_of(1));
    CHECK(loaded.at(0).watched == 0.25 && loaded.at(0).liked == true && loaded.at(0).at == 1.75e9);
    CHECK(loaded.at(1).id == "b" && loaded.at(1).watched == 1.0 && !loaded.at(1).liked && !loaded.at(1).at);
    CHECK(loaded.at(2).features == features_of(1) && loaded.at(2).liked == false);
    const File file(saved);
    CHECK(file.header["__metadata__"]["format"] == "linkedout-history" &&
          file.header["__metadata__"]["version"] == "1");
    CHECK(file.header["events"]["dtype"] == "F64" && file.header["events"]["shape"] == Json({3, 4}));
    CHECK(file.header["tokens"]["shape"] == Json({2, 6, 2, 64}));

    auto changes = common_changes();
    const auto entry = [](std::size_t n, double value) {
        return [=](File &f) { std::memcpy(f.at("events") + n * sizeof(value), &value, sizeof(value)); };
    };
    const double none = std::nan(""), endless = std::numeric_limits<double>::infinity();
    for (const double wrong : {-1.0, 2.0, 0.5, none, endless, 1e300})
        changes.emplace_back("a wrong video", entry(0, wrong));
    for (const double wrong : {-0.1, 1.1, none}) changes.emplace_back("a wrong fraction", entry(1, wrong));
    for (const double wrong : {-2.0, 0.5, 2.0, none}) changes.emplace_back("a wrong like", entry(2, wrong));
    for (const double wrong : {endless, -endless, 1e300}) changes.emplace_back("a wrong moment", entry(3, wrong));
    changes.emplace_back("events of another shape", [](File &f) { f.header["events"]["shape"] = {4, 3}; });
    changes.emplace_back("events of another type", [](File &f) {
        f.header["events"]["dtype"] = "F32";
        f.header["events"]["shape"] = {6, 4};
    });
    check_refused("a saved history", saved, changes,
                  [&](const std::string &data) { History(rec, data.data(), data.size()); });
    Store store(rec);
    const Bytes pack = store.write_pack();
    CHECK(status_of([&] { History(rec, pack.data(), pack.size()); }) == LINKEDOUT_PACK);
    CHECK(status_of([&] { store.read_pack(saved.data(), saved.size()); }) == LINKEDOUT_PACK);
    // What is forgotten is not saved.
    CHECK(history.forget("a") == 2 && history.size() == 1);
    CHECK(File(history.save()).header["tokens"]["shape"][0] == 1);
    CHECK(history.save().size() < saved.size() && history.clear() == 1);
}

void bundles() {
    const fs::path source = setting("LINKEDOUT_BUNDLE");
    const fs::path folder = fs::temp_directory_path() / ("linkedout-bundle-" + std::to_string(getpid()));
    fs::create_directories(folder / "onnx" / "int8");
    fs::copy(source / "tokenizer.json", folder / "tokenizer.json");
    fs::copy(source / "onnx" / "int8" / "encoder.onnx", folder / "onnx" / "int8" / "encoder.onnx");
    const std::string text = read_file((source / "manifest.json").string());
    const auto write = [&](const fs::path &name, const std::string &data) {
        std::ofstream(folder / name, std::ios::binary) << data;
    };
    LoadOptions options;
    options.without_encoder = true;
    const auto load = [&] { return status_of([&] { Recommender(folder.string(), options); }); };
    write("manifest.json", text);
    CHECK(load() == LINKEDOUT_OK);
    {
        const Recommender rec(folder.string(), options);
        CHECK(rec.text(LINKEDOUT_INFO_PRECISION) == "int8");  // the first in the file, not in the alphabet
    }

    const auto refused = [&](const std::string &what, linkedout_status wanted,
                             const std::function<void(Json &)> &change) {
        Json manifest = Json::parse(text);
        change(manifest);
        write("manifest.json", manifest.dump());
        const linkedout_status got = load();
        CHECK_SAYING(got == wanted, what + ": " + linkedout_status_name(got));
    };
    const auto corrupt = [&](const std::string &what, const std::function<void(Json &)> &change) {
        refused(what, LINKEDOUT_BUNDLE_CORRUPT, change);
    };
    refused("an older format", LINKEDOUT_BUNDLE_VERSION, [](Json &m) { m["format_version"] = 1; });
    refused("a newer format", LINKEDOUT_BUNDLE_VERSION, [](Json &m) { m = {{"format_version", 3}}; });
    corrupt("format 0", [](Json &m) { m["format_version"] = 0; });
    corrupt("a format in words", [](Json &m) { m["format_version"] = "2"; });
    for (const char *key : {"name", "token_space", "config", "precisions", "tokenizer", "user_model"})
        corrupt(std::string("no ") + key, [&](Json &m) { m.erase(key); });
    corrupt("a token space of another kind", [](Json &m) { m["token_space"] = "abc"; });
    for (const char *path :
         {"../tokenizer.json", "/etc/passwd", "a//b", "./tokenizer.json", "a\\b", "c:x", "", "a/..", "onnx/"})
        corrupt(std::string("the path ") + path, [&](Json &m) { m["tokenizer"]["path"] = path; });
    corrupt("a path with a NUL", [](Json &m) { m["tokenizer"]["path"] = std::string("tokenizer.json\0", 15); });
    corrupt("a file that is not there", [](Json &m) { m["tokenizer"]["path"] = "other.json"; });
    corrupt("a folder for a file", [](Json &m) { m["tokenizer"]["path"] = "onnx"; });
    corrupt("another hash", [](Json &m) { m["tokenizer"]["sha256"] = std::string(64, '0'); });
    corrupt("a hash of another kind", [](Json &m) { m["tokenizer"]["sha256"] = std::string(64, 'X'); });
    corrupt("fewer bytes", [](Json &m) { m["tokenizer"]["bytes"] = 10; });
    corrupt("more bytes", [](Json &m) { m["tokenizer"]["bytes"] = m["tokenizer"]["bytes"].get<int>() + 1; });
    corrupt("far more bytes", [](Json &m) { m["tokenizer"]["bytes"] = 1ull << 40; });
    corrupt("bytes below 0", [](Json &m) { m["tokenizer"]["bytes"] = -1; });
    corrupt("bytes beyond counting", [](Json &m) { m["tokenizer"]["bytes"] = ~0ull; });
    corrupt("no precisions", [](Json &m) { m["precisions"] = Json::object(); });
    corrupt("a precision without a graph", [](Json &m) { m["precisions"]["int4"]["files"].erase("encoder"); });
    corrupt("an unused graph that leaves the folder",
            [](Json &m) { m["precisions"]["int4"]["files"]["encoder"]["path"] = "../x"; });
    corrupt("a dimension of 0", [](Json &m) { m["config"]["frames"] = 0; });
    corrupt("a dimension below 0", [](Json &m) { m["config"]["token_width"] = -64; });
    corrupt("a dimension that is huge", [](Json &m) { m["config"]["tokens_per_layer"] = 1 << 17; });
    corrupt("dimensions that ask for much",
            [](Json &m) { m["config"]["frames"] = 60000, m["config"]["frame_size"] = 60000; });
    corrupt("no layers", [](Json &m) { m["config"]["taps"] = Json::array(); });
    corrupt("another number of layers", [](Json &m) { m["config"]["taps"] = {1, 2}; });
    corrupt("a small vocabulary", [](Json &m) { m["config"]["vocab_size"] = 100; });
    corrupt("names of other layers", [](Json &m) { m["layer_names"] = {"one"}; });
    corrupt("a short mean", [](Json &m) { m["user_model"]["mean"][0].erase(0); });
    corrupt("a size of 0", [](Json &m) { m["user_model"]["size"][0] = 0; });
    corrupt("a prior below 0", [](Json &m) { m["user_model"]["layer_prior"] = {1, 1, 1, 1, 1, -1}; });
    corrupt("a prior of nothing", [](Json &m) { m["user_model"]["layer_prior"] = {0, 0, 0, 0, 0, 0}; });
    corrupt("a prior of one", [](Json &m) { m["user_model"]["layer_prior"] = {1}; });
    corrupt("a scale of 0", [](Json &m) { m["user_model"]["score_scale"] = 0; });
    for (const std::string &broken : {std::string(""), std::string("{"), std::string("[]"), std::string("\xFF"),
                                      std::string(1000000, '['), std::string(1 << 21, ' ')}) {
        write("manifest.json", broken);
        CHECK(load() == LINKEDOUT_BUNDLE_CORRUPT);
    }

    // A tokenizer that fits its hash, and is none.
    const auto tokenizer = [&](const std::string &data, const std::string &hash) {
        write("tokenizer.json", data);
        refused("the tokenizer " + data, LINKEDOUT_BUNDLE_CORRUPT, [&](Json &m) {
            m["tokenizer"]["bytes"] = data.size();
            m["tokenizer"]["sha256"] = hash;
        });
    };
    tokenizer("{}", "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a");
    tokenizer("", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    tokenizer("[]", "4f53cda18c2baa0c0354bb5f9a3ecbe5ed12ab4d8e11ba873c2f11161202b945");
    fs::remove(folder / "tokenizer.json");

    // Links that leave the folder, and files that never end.
    write("manifest.json", text);
    fs::create_symlink(source / "tokenizer.json", folder / "tokenizer.json");
    CHECK(load() == LINKEDOUT_BUNDLE_CORRUPT);
    fs::remove(folder / "tokenizer.json");
    fs::copy(source / "tokenizer.json", folder / "real.json");
    fs::create_symlink("real.json", folder / "tokenizer.json");
    CHECK(load() == LINKEDOUT_OK);
    fs::remove(folder / "tokenizer.json");
    CHECK(mkfifo((folder / "tokenizer.json").c_str(), 0600) == 0);
    CHECK(load() == LINKEDOUT_BUNDLE_CORRUPT);
    fs::remove_all(folder);
}

}  // namespace

int main() {
    LoadOptions options;
    options.without_encoder = true;
    const Recommender rec(setting("LINKEDOUT_BUNDLE"), options);
    packs(rec);
    histories(rec);
    bundles();
    return testing::finish("formats");
}
