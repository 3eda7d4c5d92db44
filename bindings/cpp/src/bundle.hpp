// Opening and checking a bundle, as linkedout_edge/bundle/ does it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "common.hpp"

namespace linkedout {

struct FileEntry {
    std::string path;  // relative to the manifest, with forward slashes
    std::string sha256;
    uint64_t bytes = 0;
};

// What is used of a manifest, for one precision.
struct Manifest {
    std::string name, token_space, precision, license, provenance;
    size_t frames = 0, frame_size = 0, title_tokens = 0;
    int64_t vocab_size = 0;
    Shape shape;
    std::vector<std::string> layer_names;  // L
    std::vector<double> mean;              // [L][M·D]
    std::vector<double> size;              // [L]
    std::vector<double> layer_prior;       // [L], or empty
    double score_scale = 1.0;
    FileEntry encoder, tokenizer;
    bool full_range_weights = false;
};

// Read and check a manifest. `precision` "" is its first. LINKEDOUT_BUNDLE_CORRUPT, LINKEDOUT_BUNDLE_VERSION, or
// LINKEDOUT_ARGUMENT if there is no such precision.
Manifest parse_manifest(std::string_view json, const std::string &precision);

// Files below a folder, none of which leads out of it.
class Folder {
public:
    explicit Folder(const std::string &path);  // LINKEDOUT_BUNDLE_NOT_FOUND
    std::string manifest() const;
    std::string read(const FileEntry &entry) const;  // size and SHA-256 checked

private:
    std::string read(const std::string &path, uint64_t limit) const;

    std::string root_;
};

}  // namespace linkedout
