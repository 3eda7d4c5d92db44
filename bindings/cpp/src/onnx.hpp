// The encoder graph in ONNX Runtime, which is loaded at run time and never linked.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "bundle.hpp"

namespace linkedout {

// CPUs that this process may use: affinity, and cgroup quota (rounded up) where that is less.
int available_cpus();

class Encoder {
public:
    // `library`: a path, or "" for the system's search path. LINKEDOUT_MISSING_DEPENDENCY, LINKEDOUT_BUNDLE_CORRUPT, or
    // LINKEDOUT_DEVICE if this CPU would compute the graph wrongly.
    Encoder(const std::string &graph, const Manifest &manifest, const std::string &library, int threads);
    ~Encoder();
    Encoder(const Encoder &) = delete;
    Encoder &operator=(const Encoder &) = delete;

    // `frames`: uint8 [count][H][W][3], prepared, 1 <= count <= F; `title`: at most T ids. features() bytes into
    // `features`. Safe from several threads.
    void run(const uint8_t *frames, size_t count, const std::vector<int32_t> &title, void *features) const;

    int threads() const { return threads_; }
    std::string name() const;  // "onnxruntime 1.32.0"

private:
    struct Session;

    size_t frames_, frame_size_, title_tokens_;
    Shape shape_;
    int threads_;
    std::unique_ptr<Session> session_;
};

}  // namespace linkedout
