#include "onnx.hpp"

#include <dlfcn.h>
#include <unistd.h>
#if defined(__linux__)
#include <sched.h>
#endif
#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#endif

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <thread>

#include "onnxruntime_c_api.h"

namespace linkedout {
namespace {

constexpr uint32_t API = 20;  // of ONNX Runtime 1.20, the oldest that is supported

// One loaded library. They stay loaded: ONNX Runtime has threads and state that outlive sessions.
struct Library {
    const OrtApi *api = nullptr;
    OrtEnv *env = nullptr;
    std::string version;
};

void ORT_API_CALL say_nothing(void *, OrtLoggingLevel, const char *, const char *, const char *, const char *) {}

std::string load_error(const char *name) {
    const char *said = dlerror();
    return said == nullptr ? std::string(name) : std::string(said);
}

const Library &load_library(const std::string &path) {
    static std::mutex lock;
    static auto *const loaded = new std::map<std::string, Library>();  // never freed, see above
    const std::lock_guard<std::mutex> guard(lock);
    const auto found = loaded->find(path);
    if (found != loaded->end()) return found->second;

    // From 1.29 on the library writes a device id and sends usage events from its loading on, unless it finds this.
    setenv("ORT_DISABLE_TELEMETRY", "1", 1);
    void *library = nullptr;
    std::string why;
#if defined(__APPLE__)
    const char *const usual[] = {"libonnxruntime.dylib", "libonnxruntime.1.dylib"};
#else
    const char *const usual[] = {"libonnxruntime.so.1", "libonnxruntime.so"};
#endif
    if (!path.empty()) {
        library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
        if (library == nullptr) why = load_error(path.c_str());
    } else {
        for (const char *name : usual) {
            library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
            if (library != nullptr) break;
            why = load_error(name);
        }
    }
    if (library == nullptr)
        fail(LINKEDOUT_MISSING_DEPENDENCY, "ONNX Runtime cannot be loaded (" + why +
                                               "): name its library in `onnxruntime` of the load options, or put it on "
                                               "the system's search path; 1.20 or newer");
    const auto get_base = reinterpret_cast<const OrtApiBase *(*)()>(dlsym(library, "OrtGetApiBase"));
    const OrtApiBase *base = get_base == nullptr ? nullptr : get_base();
    const OrtApi *api = base == nullptr ? nullptr : base->GetApi(API);
    if (api == nullptr) {
        const std::string version = base == nullptr ? "no ONNX Runtime" : base->GetVersionString();
        dlclose(library);
        fail(LINKEDOUT_MISSING_DEPENDENCY, "the library is " + version + ": ONNX Runtime 1.20 or newer is needed");
    }
    Library made;
    made.api = api;
    made.version = base->GetVersionString();
    if (OrtStatus *status = api->CreateEnvWithCustomLogger(say_nothing, nullptr, ORT_LOGGING_LEVEL_FATAL,
                                                           "linkedout-edge", &made.env)) {
        const std::string said = api->GetErrorMessage(status);
        api->ReleaseStatus(status);
        fail(LINKEDOUT_BACKEND, "onnxruntime cannot start: " + said);
    }
    if (OrtStatus *status = api->DisableTelemetryEvents(made.env)) api->ReleaseStatus(status);
    return loaded->emplace(path, made).first->second;
}

// Whether pairs of int8 products overflow where weights use all eight bits: x86 without VNNI.
bool overflows() {
#if defined(__x86_64__) || defined(__i386__)
    unsigned a = 0, b = 0, c = 0, d = 0;
    const bool avx512_vnni = __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (c >> 11 & 1) != 0;
    const bool avx_vnni = __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && (a >> 4 & 1) != 0;
    return !avx512_vnni && !avx_vnni;
#else
    return false;
#endif
}

#if defined(__linux__)
// The beginning of a small file; "" if it cannot be read.
std::string contents(const std::string &path) {
    const std::unique_ptr<std::FILE, int (*)(std::FILE *)> file(std::fopen(path.c_str(), "re"), std::fclose);
    char text[4096];
    return file ? std::string(text, std::fread(text, 1, sizeof(text), file.get())) : std::string();
}
#endif

struct Wanted {
    const char *name;
    ONNXTensorElementDataType type;
    std::vector<int64_t> shape;  // -1: any
};

}  // namespace

int available_cpus() {
    int count = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
#if defined(__linux__)
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof(set), &set) == 0) count = std::max(1, CPU_COUNT(&set));
    // Version 2 of cgroups; in a container its own is the root.
    std::string path = contents("/proc/self/cgroup");
    path.erase(0, path.rfind("0::", 0) == 0 ? 3 : path.size());
    path.erase(std::min(path.find('\n'), path.size()));
    for (;;) {
        double quota = 0, period = 0;
        const std::string limit = contents("/sys/fs/cgroup" + path + "/cpu.max");
        if (std::sscanf(limit.c_str(), "%lf %lf", &quota, &period) == 2 && quota > 0 && period > 0)
            count = std::max(1, std::min(count, static_cast<int>(std::ceil(quota / period))));
        if (path.empty()) break;
        path.erase(std::min(path.rfind('/'), path.size()));
    }
#endif
    return count;
}

struct Encoder::Session {
    const Library &library;
    OrtSession *session = nullptr;
    OrtMemoryInfo *memory = nullptr;

    explicit Session(const Library &loaded) : library(loaded) {}
    ~Session() {
        if (session != nullptr) library.api->ReleaseSession(session);
        if (memory != nullptr) library.api->ReleaseMemoryInfo(memory);
    }
    Session(const Session &) = delete;
    Session &operator=(const Session &) = delete;

    void check(OrtStatus *status, linkedout_status as, const std::string &what) const {
        if (status == nullptr) return;
        const std::string said = library.api->GetErrorMessage(status);
        library.api->ReleaseStatus(status);
        fail(as, "onnxruntime " + library.version + " " + what + ": " + said);
    }

    void check_ports(bool inputs, const std::vector<Wanted> &wanted) const {
        const OrtApi &api = *library.api;
        const auto read = [&](OrtStatus *status) { check(status, LINKEDOUT_BUNDLE_CORRUPT, "cannot read the graph"); };
        const std::string kind = inputs ? "input" : "output";
        const auto wrong = [&](const std::string &name) {
            fail(LINKEDOUT_BUNDLE_CORRUPT,
                 "the encoder graph's " + kind + " " + name + " is not what it should be. Export the bundle again.");
        };
        size_t count = 0;
        read(inputs ? api.SessionGetInputCount(session, &count) : api.SessionGetOutputCount(session, &count));
        if (count != wanted.size()) wrong("count");
        OrtAllocator *allocator = nullptr;
        read(api.GetAllocatorWithDefaultOptions(&allocator));
        for (size_t n = 0; n < count; n++) {
            char *text = nullptr;
            read(inputs ? api.SessionGetInputName(session, n, allocator, &text)
                        : api.SessionGetOutputName(session, n, allocator, &text));
            const std::string name = text;
            if (OrtStatus *status = api.AllocatorFree(allocator, text)) api.ReleaseStatus(status);
            const auto found =
                std::find_if(wanted.begin(), wanted.end(), [&](const Wanted &port) { return name == port.name; });
            if (found == wanted.end()) wrong(name);
            OrtTypeInfo *info = nullptr;
            read(inputs ? api.SessionGetInputTypeInfo(session, n, &info)
                        : api.SessionGetOutputTypeInfo(session, n, &info));
            const std::unique_ptr<OrtTypeInfo, void (*)(OrtTypeInfo *)> owner(info, api.ReleaseTypeInfo);
            const OrtTensorTypeAndShapeInfo *tensor = nullptr;
            read(api.CastTypeInfoToTensorInfo(info, &tensor));
            if (tensor == nullptr) wrong(name);
            ONNXTensorElementDataType type = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
            size_t rank = 0;
            read(api.GetTensorElementType(tensor, &type));
            read(api.GetDimensionsCount(tensor, &rank));
            std::vector<int64_t> shape(rank);
            read(api.GetDimensions(tensor, shape.data(), rank));
            bool good = type == found->type && rank == found->shape.size();
            for (size_t d = 0; good && d < rank; d++)
                good = shape[d] < 0 || found->shape[d] < 0 || shape[d] == found->shape[d];
            if (!good) wrong(name);
        }
    }
};

Encoder::Encoder(const std::string &graph, const Manifest &manifest, const std::string &library, int threads)
    : frames_(manifest.frames),
      frame_size_(manifest.frame_size),
      title_tokens_(manifest.title_tokens),
      shape_(manifest.shape),
      threads_(threads) {
    if (manifest.full_range_weights && overflows())
        fail(LINKEDOUT_DEVICE,
             "the encoder has int8 weights of all eight bits, which overflow on x86 CPUs without VNNI: use another "
             "precision or bundle (docs/cpus.md)");
    session_ = std::make_unique<Session>(load_library(library));
    Session &s = *session_;
    const OrtApi &api = *s.library.api;
    const auto set = [&](OrtStatus *status) { s.check(status, LINKEDOUT_BACKEND, "refuses an option"); };
    OrtSessionOptions *options = nullptr;
    set(api.CreateSessionOptions(&options));
    const std::unique_ptr<OrtSessionOptions, void (*)(OrtSessionOptions *)> owner(options, api.ReleaseSessionOptions);
    // As in Python: memory stays flat, and threads that wait do not burn power.
    set(api.SetIntraOpNumThreads(options, threads));
    set(api.SetInterOpNumThreads(options, 1));
    set(api.SetSessionLogSeverityLevel(options, 3));
    set(api.DisableMemPattern(options));
    set(api.DisableCpuMemArena(options));
    set(api.AddSessionConfigEntry(options, "session.intra_op.allow_spinning", "0"));
    s.check(api.CreateSessionFromArray(s.library.env, graph.data(), graph.size(), options, &s.session),
            LINKEDOUT_BUNDLE_CORRUPT, "cannot load the encoder graph");
    set(api.CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &s.memory));

    const auto frames = static_cast<int64_t>(frames_), side = static_cast<int64_t>(frame_size_);
    const auto title = static_cast<int64_t>(title_tokens_), layers = static_cast<int64_t>(shape_.layers);
    const auto tokens = static_cast<int64_t>(shape_.per_layer), width = static_cast<int64_t>(shape_.width);
    s.check_ports(true, {{"frames", ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8, {-1, frames, side, side, 3}},
                         {"frame_mask", ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL, {-1, frames}},
                         {"title_ids", ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32, {-1, title}},
                         {"title_mask", ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL, {-1, title}}});
    s.check_ports(false, {{"tokens", ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8, {-1, layers, tokens, width}},
                          {"scales", ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, {-1, layers, tokens}}});
}

Encoder::~Encoder() = default;

std::string Encoder::name() const { return "onnxruntime " + session_->library.version; }

void Encoder::run(const uint8_t *frames, size_t count, const std::vector<int32_t> &title, void *features) const {
    const Session &s = *session_;
    const OrtApi &api = *s.library.api;
    const size_t picture = frame_size_ * frame_size_ * 3;
    std::vector<uint8_t> pixels(frames_ * picture), frame_mask(frames_), title_mask(title_tokens_);
    std::vector<int32_t> ids(title_tokens_);
    std::memcpy(pixels.data(), frames, count * picture);
    std::fill_n(frame_mask.begin(), count, uint8_t{1});
    const size_t read = std::min(title.size(), title_tokens_);
    std::copy_n(title.begin(), read, ids.begin());
    std::fill_n(title_mask.begin(), read, uint8_t{1});

    const auto failed = [&](OrtStatus *status) { s.check(status, LINKEDOUT_BACKEND, "failed in the encoder graph"); };
    using Value = std::unique_ptr<OrtValue, void (*)(OrtValue *)>;
    const auto value = [&](void *data, size_t bytes, std::vector<int64_t> shape, ONNXTensorElementDataType type) {
        OrtValue *made = nullptr;
        failed(api.CreateTensorWithDataAsOrtValue(s.memory, data, bytes, shape.data(), shape.size(), type, &made));
        return Value(made, api.ReleaseValue);
    };
    const auto f = static_cast<int64_t>(frames_), side = static_cast<int64_t>(frame_size_);
    const auto t = static_cast<int64_t>(title_tokens_);
    const Value inputs[] = {
        value(pixels.data(), pixels.size(), {1, f, side, side, 3}, ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8),
        value(frame_mask.data(), frame_mask.size(), {1, f}, ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL),
        value(ids.data(), ids.size() * sizeof(int32_t), {1, t}, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32),
        value(title_mask.data(), title_mask.size(), {1, t}, ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL)};
    const OrtValue *const given[] = {inputs[0].get(), inputs[1].get(), inputs[2].get(), inputs[3].get()};
    const char *const input_names[] = {"frames", "frame_mask", "title_ids", "title_mask"};
    const char *const output_names[] = {"tokens", "scales"};
    OrtValue *out[] = {nullptr, nullptr};
    failed(api.Run(s.session, nullptr, input_names, given, 4, output_names, 2, out));
    const Value tokens(out[0], api.ReleaseValue), scales(out[1], api.ReleaseValue);

    const auto check_size = [&](const Value &made, size_t wanted) {
        OrtTensorTypeAndShapeInfo *info = nullptr;
        failed(api.GetTensorTypeAndShape(made.get(), &info));
        const std::unique_ptr<OrtTensorTypeAndShapeInfo, void (*)(OrtTensorTypeAndShapeInfo *)> owner(
            info, api.ReleaseTensorTypeAndShapeInfo);
        size_t elements = 0;
        failed(api.GetTensorShapeElementCount(info, &elements));
        if (elements != wanted) fail(LINKEDOUT_BACKEND, "the encoder graph gave an output of another size");
        void *data = nullptr;
        failed(api.GetTensorMutableData(made.get(), &data));
        return data;
    };
    const void *const token_data = check_size(tokens, shape_.tokens());
    const auto *const scale_data = static_cast<const float *>(check_size(scales, shape_.scales()));
    for (size_t n = 0; n < shape_.scales(); n++)
        if (!std::isfinite(scale_data[n]))
            fail(LINKEDOUT_BACKEND, "the encoder gave scales that are no numbers: check the bundle on another machine");
    std::memcpy(features, token_data, shape_.tokens());
    std::memcpy(static_cast<uint8_t *>(features) + shape_.tokens(), scale_data, shape_.scales() * sizeof(float));
}

}  // namespace linkedout
