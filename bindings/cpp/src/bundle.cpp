#include "bundle.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "json.hpp"
#include "sha256.hpp"

namespace linkedout {
namespace {

constexpr int64_t FORMAT_VERSION = 2;
constexpr const char *MANIFEST = "manifest.json";
constexpr uint64_t MAX_MANIFEST_BYTES = 1 << 20;
constexpr uint64_t MAX_FILE_BYTES = (uint64_t{1} << 31) - 1;  // a graph is one protobuf message, and those end here
constexpr int64_t MAX_DIMENSION = 1 << 16;
constexpr size_t WIDEST = 1024;  // widest token that can be scored
constexpr const char *AGAIN = ". Copy or export the bundle again.";

[[noreturn]] void corrupt(const std::string &why) { fail(LINKEDOUT_BUNDLE_CORRUPT, why + AGAIN); }
[[noreturn]] void nonsense(const std::string &why) { corrupt(std::string(MANIFEST) + " makes no sense: " + why); }

// A path that could lead out of the bundle, on any system, is refused.
void check_path(const std::string &path) {
    bool good = path.find_first_of(std::string_view("\\:\0", 3)) == std::string::npos;
    for (size_t at = 0; good && at <= path.size();) {
        const size_t end = std::min(path.find('/', at), path.size());
        const std::string part = path.substr(at, end - at);
        good = !part.empty() && part != "." && part != "..";
        at = end + 1;
    }
    if (!good) corrupt("the bundle names a file that is not a relative path with forward slashes inside it");
}

// Fields of an object of the manifest; messages name them.
class Fields {
public:
    Fields(const Json &object, std::string name) : object_(object), name_(std::move(name)) {
        if (!object.is_object()) nonsense(name_ + " is no object");
    }

    const Json *find(const char *key) const {
        const auto found = object_.find(key);
        return found == object_.end() ? nullptr : &*found;
    }

    const Json &need(const char *key) const {
        const Json *found = find(key);
        if (found == nullptr) nonsense(path(key) + " is missing");
        return *found;
    }

    std::string text(const char *key) const { return as_text(need(key), key); }
    std::string text_or_none(const char *key) const {
        const Json *found = find(key);
        return found == nullptr ? "" : as_text(*found, key);
    }

    int64_t whole(const char *key, int64_t least, int64_t most, int64_t otherwise = -1) const {
        const Json *found = otherwise < 0 ? &need(key) : find(key);
        if (found == nullptr) return otherwise;
        if (!found->is_number_integer()) nonsense(path(key) + " is no whole number");
        const bool huge = found->is_number_unsigned() && found->get<uint64_t>() > INT64_MAX;
        const int64_t value = found->get<int64_t>();
        if (huge || value < least || value > most) nonsense(path(key) + " is out of range");
        return value;
    }

    bool flag(const char *key) const {
        const Json *found = find(key);
        if (found == nullptr) return false;
        if (!found->is_boolean()) nonsense(path(key) + " is neither true nor false");
        return found->get<bool>();
    }

    double number(const char *key, double otherwise) const {
        const Json *found = find(key);
        return found == nullptr ? otherwise : as_number(*found, path(key));
    }

    std::vector<double> numbers(const char *key) const { return as_numbers(need(key), path(key)); }
    std::vector<double> numbers_or_none(const char *key) const {
        const Json *found = find(key);
        return found == nullptr ? std::vector<double>() : as_numbers(*found, path(key));
    }

    const Json &array(const char *key) const {
        const Json &found = need(key);
        if (!found.is_array()) nonsense(path(key) + " is no list");
        return found;
    }

    std::string path(const char *key) const { return name_.empty() ? key : name_ + "." + key; }

    static std::vector<double> as_numbers(const Json &value, const std::string &name) {
        if (!value.is_array()) nonsense(name + " is no list");
        std::vector<double> out;
        for (const Json &n : value) out.push_back(as_number(n, name));
        return out;
    }

private:
    static double as_number(const Json &value, const std::string &name) {
        if (!value.is_number()) nonsense(name + " holds what is no number");
        return value.get<double>();
    }

    std::string as_text(const Json &value, const char *key) const {
        if (!value.is_string()) nonsense(path(key) + " is no text");
        return value.get<std::string>();
    }

    const Json &object_;
    const std::string name_;
};

FileEntry file_entry(const Json &value, const std::string &name) {
    const Fields fields(value, name);
    FileEntry entry{fields.text("path"), fields.text("sha256"), 0};
    entry.bytes = static_cast<uint64_t>(fields.whole("bytes", 0, INT64_MAX));
    check_path(entry.path);
    if (entry.sha256.size() != 64 || entry.sha256.find_first_not_of("0123456789abcdef") != std::string::npos)
        nonsense(name + ".sha256 is not 64 hex digits");
    return entry;
}

void read_config(const Fields &config, Manifest &out) {
    const auto dimension = [&](const char *key, int64_t otherwise) {
        return static_cast<size_t>(config.whole(key, 1, MAX_DIMENSION, otherwise));
    };
    // What is left out has the value of linkedout_edge/config.py.
    out.frames = dimension("frames", 8);
    out.frame_size = dimension("frame_size", 128);
    out.title_tokens = dimension("title_tokens", 16);
    out.vocab_size = static_cast<int64_t>(dimension("vocab_size", 4096));
    out.shape.per_layer = dimension("tokens_per_layer", 2);
    out.shape.width = dimension("token_width", 64);
    std::vector<int64_t> taps = {1, 2, 3, 4, 5, 6};
    if (config.find("taps") != nullptr) {
        taps.clear();
        for (const Json &tap : config.array("taps")) {
            if (!tap.is_number_integer()) nonsense("config.taps holds what is no whole number");
            taps.push_back(tap.get<int64_t>());
        }
    }
    if (taps.empty()) nonsense("config.taps is empty");
    out.shape.layers = taps.size();
    for (const int64_t tap : taps) out.layer_names.push_back("layer " + std::to_string(tap));
    if (out.shape.width > WIDEST) nonsense("tokens are wider than " + std::to_string(WIDEST));
    if (out.shape.features() > 1 << 20 || out.frames * out.frame_size * out.frame_size > 1 << 28)
        nonsense("its shapes ask for more memory than any device has");
}

void read_user_model(const Fields &model, Manifest &out) {
    const size_t layers = out.shape.layers, width = out.shape.row();
    const Json &mean = model.array("mean");
    bool good = mean.size() == layers;
    for (size_t layer = 0; good && layer < layers; layer++) {
        const std::vector<double> row = Fields::as_numbers(mean[layer], "user_model.mean");
        good = row.size() == width;
        out.mean.insert(out.mean.end(), row.begin(), row.end());
    }
    if (!good)
        nonsense("user_model.mean is not " + std::to_string(layers) + " lists of " + std::to_string(width) +
                 " numbers");
    out.size = model.numbers("size");
    if (out.size.size() != layers) nonsense("user_model.size has not a number for each layer");
    for (const double size : out.size)
        if (!(size > 0)) nonsense("user_model.size holds what is not above 0");
    out.layer_prior = model.numbers_or_none("layer_prior");
    double trust = 0;
    for (const double prior : out.layer_prior) {
        if (!(prior >= 0)) nonsense("user_model.layer_prior holds what is below 0");
        trust += prior;
    }
    if (!out.layer_prior.empty() && (out.layer_prior.size() != layers || !(trust > 0)))
        nonsense("user_model.layer_prior is neither empty nor a number for each layer, not all 0");
    out.score_scale = model.number("score_scale", 1.0);
    if (!(out.score_scale > 0)) nonsense("user_model.score_scale is not above 0");
}

}  // namespace

Manifest parse_manifest(std::string_view json, const std::string &precision) {
    if (json.size() > MAX_MANIFEST_BYTES)
        corrupt(std::string(MANIFEST) + " has more than " + std::to_string(MAX_MANIFEST_BYTES) + " bytes");
    std::string parent, first;
    const auto on_key = [&](int level, const std::string &key) {
        if (level == 1) parent = key;
        if (level == 2 && parent == "precisions" && first.empty()) first = key;
    };
    const Json file = parse_json(json, LINKEDOUT_BUNDLE_CORRUPT, MANIFEST, on_key);
    const Fields fields(file, "");

    const int64_t version = fields.whole("format_version", INT64_MIN, INT64_MAX);
    if (version >= 1 && version != FORMAT_VERSION)  // before anything else: every other field may differ
        fail(LINKEDOUT_BUNDLE_VERSION,
             "the bundle has format version " + std::to_string(version) + ", and this version of the library reads " +
                 std::to_string(FORMAT_VERSION) + ": export the bundle again with " +
                 (version > FORMAT_VERSION ? "this version, or install a newer library" : "this version"));
    if (version != FORMAT_VERSION) nonsense("format_version is " + std::to_string(version));

    Manifest out;
    out.name = fields.text("name");
    out.token_space = fields.text("token_space");
    if (out.token_space.size() != 64 || out.token_space.find_first_not_of("0123456789abcdef") != std::string::npos)
        nonsense("token_space is not 64 hex digits");
    out.license = fields.text_or_none("licence");
    out.provenance = fields.text_or_none("provenance");
    read_config(Fields(fields.need("config"), "config"), out);
    out.tokenizer = file_entry(fields.need("tokenizer"), "tokenizer");

    const Json &precisions = fields.need("precisions");
    if (!precisions.is_object() || precisions.empty()) nonsense("it lists no precisions");
    out.precision = precision.empty() ? first : precision;
    std::string names;
    for (const auto &[name, value] : precisions.items()) {
        names += (names.empty() ? "" : ", ") + name;
        const Fields one(value, "precisions." + name);
        const FileEntry encoder =
            file_entry(Fields(one.need("files"), "files").need("encoder"), "precisions." + name + ".files.encoder");
        const bool full_range = one.flag("full_range_weights");
        if (name == out.precision) {
            out.encoder = encoder;
            out.full_range_weights = full_range;
        }
    }
    if (precisions.find(out.precision) == precisions.end())
        fail(LINKEDOUT_ARGUMENT, "the bundle has no precision \"" + out.precision + "\": expected one of " + names);

    read_user_model(Fields(fields.need("user_model"), "user_model"), out);
    if (fields.find("layer_names") != nullptr && !fields.array("layer_names").empty()) {
        out.layer_names.clear();
        for (const Json &name : fields.array("layer_names")) {
            if (!name.is_string()) nonsense("layer_names holds what is no text");
            out.layer_names.push_back(name.get<std::string>());
        }
        if (out.layer_names.size() != out.shape.layers) nonsense("it does not name each layer");
    }
    return out;
}

Folder::Folder(const std::string &path) {
    const std::unique_ptr<char, void (*)(void *)> real(realpath(path.c_str(), nullptr), std::free);
    struct stat info;
    if (path.find('\0') != std::string::npos || !real || stat(real.get(), &info) != 0 || !S_ISDIR(info.st_mode))
        fail(LINKEDOUT_BUNDLE_NOT_FOUND, "there is no bundle at \"" + path + "\": pass the folder that holds its " +
                                             MANIFEST + " (a .zip has to be unpacked first)");
    root_ = real.get();
}

std::string Folder::manifest() const { return read(MANIFEST, MAX_MANIFEST_BYTES); }

std::string Folder::read(const FileEntry &entry) const {
    check_path(entry.path);
    if (entry.bytes > MAX_FILE_BYTES) corrupt(entry.path + " is listed with more bytes than are ever read");
    std::string data = read(entry.path, entry.bytes);
    if (data.size() != entry.bytes)
        corrupt(entry.path + " has " + std::to_string(data.size()) + " bytes, the manifest says " +
                std::to_string(entry.bytes));
    if (sha256(data) != entry.sha256) corrupt(entry.path + " was changed: its SHA-256 is not the manifest's");
    return data;
}

std::string Folder::read(const std::string &path, uint64_t limit) const {
    const std::unique_ptr<char, void (*)(void *)> real(realpath((root_ + "/" + path).c_str(), nullptr), std::free);
    if (!real) corrupt(path + " is missing from the bundle, or cannot be read");
    const std::string inside = root_ == "/" ? root_ : root_ + "/";
    if (std::strncmp(real.get(), inside.c_str(), inside.size()) != 0)
        corrupt(path + " is a link that leaves the bundle's folder: replace it by the file itself");
    const int file = open(real.get(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // a fifo would block
    if (file < 0) corrupt(path + " in the bundle cannot be read: " + std::strerror(errno));
    const auto close_file = [](const int *f) { close(*f); };
    const std::unique_ptr<const int, decltype(close_file)> closer(&file, close_file);
    struct stat info;
    if (fstat(file, &info) != 0 || !S_ISREG(info.st_mode)) corrupt(path + " in the bundle is not a regular file");
    if (static_cast<uint64_t>(info.st_size) > limit)
        corrupt(path + " has " + std::to_string(info.st_size) + " bytes: at most " + std::to_string(limit) +
                " were expected");
    std::string data(static_cast<size_t>(info.st_size), '\0');
    size_t done = 0;
    while (done < data.size()) {
        const ssize_t got = ::read(file, data.data() + done, data.size() - done);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) corrupt(path + " in the bundle cannot be read: " + std::strerror(errno));
        if (got == 0) break;  // it became shorter meanwhile
        done += static_cast<size_t>(got);
    }
    data.resize(done);
    return data;
}

}  // namespace linkedout
