// Any bytes for what reads files and texts: an error of ours, or something that keeps what it promises. One program a
// reader; `make fuzz-bindings` builds them with AddressSanitizer and UBSan and runs them.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "bundle.hpp"
#include "packs.hpp"
#include "tokenizer.hpp"

using namespace linkedout;

namespace {

const std::string SPACE(64, '0');
const Shape SHAPE{2, 1, 4};

void promise(bool kept) {
    if (!kept) std::abort();
}

[[maybe_unused]] void manifest(std::string_view data) {
    const Manifest m = parse_manifest(data, "");
    promise(m.mean.size() == m.shape.layers * m.shape.row() && m.size.size() == m.shape.layers);
    promise(m.layer_names.size() == m.shape.layers && m.shape.features() <= 1 << 20);
    promise(m.encoder.path.find("..") != 0 && m.encoder.path.front() != '/');
}

// The first half is a tokenizer, the rest, behind a NUL, a title.
[[maybe_unused]] void tokenizer(std::string_view data) {
    const size_t end = std::min(data.find('\0'), data.size());
    const std::string_view title = data.substr(std::min(end + 1, data.size()));
    static const Tokenizer plain(R"({"vocab": {"a": 0, "b": 1, "ab": 2, "Ġ": 3, "Ġab": 4, "?": 5, "abab": 6},
        "merges": [["a", "b"], ["Ġ", "ab"], ["ab", "ab"]]})",
                                 7);
    for (const int32_t id : plain.encode(data, SIZE_MAX)) promise(id >= 0 && id < 7);
    promise(ill_formed_at(well_formed(data)) == std::string_view::npos);
    const Tokenizer own(data.substr(0, end), 4096);
    for (const int32_t id : own.encode(title, SIZE_MAX)) promise(id >= 0 && id < 4096);
    promise(own.encode(title, 3).size() <= 3);
}

void whole(const Pack &pack) {
    promise(pack.tokens.size() == pack.records.size() * SHAPE.tokens());
    promise(pack.scales.size() == pack.records.size() * SHAPE.scales());
    for (const float scale : pack.scales) promise(scale >= 0);
    for (const Record &r : pack.records) promise(!r.id.empty() && ill_formed_at(r.id) == std::string_view::npos);
}

[[maybe_unused]] void pack(std::string_view data) {
    const Pack read = read_pack(data, SPACE, SHAPE);
    whole(read);
    whole(read_pack(write_pack(read, SPACE, SHAPE), SPACE, SHAPE));
}

[[maybe_unused]] void history(std::string_view data) {
    const SavedHistory read = read_history(data, SPACE, SHAPE);
    whole(read.videos);
    for (const SavedEvent &e : read.events)
        promise(e.video < read.videos.records.size() && e.watched >= 0 && e.watched <= 1 && e.liked * e.liked <= 1);
    const SavedHistory again = read_history(write_history(read, SPACE, SHAPE), SPACE, SHAPE);
    promise(again.events.size() == read.events.size());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    // A copy of exactly its size, so that a sanitizer sees each byte that is read beside it.
    const std::string copy(reinterpret_cast<const char *>(data), size);
    try {
        FUZZ(copy);
    } catch (const Error &e) {
        promise(*e.what() != '\0' && e.status > LINKEDOUT_OK && e.status < LINKEDOUT_OUT_OF_MEMORY);
    }
    return 0;
}
