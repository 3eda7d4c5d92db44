// Feature packs and saved histories: safetensors files, all of which is checked before anything of it is taken over.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "common.hpp"

namespace linkedout {

// Many videos.
struct Pack {
    std::vector<Record> records;  // [V], ids distinct
    std::vector<int8_t> tokens;   // [V][L][M][D]
    std::vector<float> scales;    // [V][L][M]
};

// An event of a saved history.
struct SavedEvent {
    size_t video;  // in 0..V-1
    double watched;
    int32_t liked;  // LINKEDOUT_LIKED, …
    double at;      // Unix seconds, NaN: unknown
};

struct SavedHistory {
    Pack videos;
    std::vector<SavedEvent> events;  // oldest first
};

// Moments that every language can name: years 1 to 9999.
constexpr double FIRST_MOMENT = -62135596800.0, LAST_MOMENT = 253402300799.0;

// LINKEDOUT_PACK, or LINKEDOUT_TOKEN_SPACE if another model made it.
Pack read_pack(std::string_view data, const std::string &token_space, const Shape &shape);
SavedHistory read_history(std::string_view data, const std::string &token_space, const Shape &shape);

std::string write_pack(const Pack &pack, const std::string &token_space, const Shape &shape);
std::string write_history(const SavedHistory &history, const std::string &token_space, const Shape &shape);

}  // namespace linkedout
