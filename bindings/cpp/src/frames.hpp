// Which frames of a video are taken, and how they are made square; as linkedout_edge/decode/frames.py does it.
#pragma once

#include <vector>

#include "common.hpp"

namespace linkedout {

// Frames as the app hands them in, checked: uint8 [count][height][width][3].
struct Frames {
    const uint8_t *data;
    size_t count, height, width;
};

// LINKEDOUT_INVALID_FRAMES if they are not what they should be.
Frames checked_frames(const linkedout_frames &given);

// Rising indices of at most `wanted` well-spread frames out of `total`.
std::vector<size_t> spread(size_t total, size_t wanted);

// Choose and resize: uint8 [spread(...)][size][size][3] into `out`; how many.
size_t prepare_frames(const Frames &frames, size_t wanted, size_t size, uint8_t *out);

}  // namespace linkedout
