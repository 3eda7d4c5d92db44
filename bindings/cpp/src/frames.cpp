#include "frames.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace linkedout {
namespace {

constexpr size_t CHANNELS = 3;
constexpr int64_t MAX_PIXELS = 8192 * 4320;  // of a frame, as decoders have it
constexpr int64_t MAX_FRAMES = 1 << 20;

uint8_t rounded(float value) {  // halves to even, as OpenCV
    return static_cast<uint8_t>(std::min(255.0f, std::max(0.0f, std::nearbyint(value))));
}

// What one pixel of the source adds to one of the result, along one axis.
struct Share {
    size_t from, to;
    float weight;
};

// Shares along an axis that shrinks from `length` to `size`.
std::vector<Share> area_shares(size_t length, size_t size) {
    const double scale = 1.0 / (static_cast<double>(size) / static_cast<double>(length));
    std::vector<Share> shares;
    for (size_t to = 0; to < size; to++) {
        const double begin = static_cast<double>(to) * scale, end = begin + scale;
        const double covered = std::min(scale, static_cast<double>(length) - begin);
        const size_t last = std::min(static_cast<size_t>(std::floor(end)), length - 1);
        const size_t first = std::min(static_cast<size_t>(std::ceil(begin)), last);
        if (static_cast<double>(first) - begin > 1e-3)
            shares.push_back({first - 1, to, static_cast<float>((static_cast<double>(first) - begin) / covered)});
        for (size_t from = first; from < last; from++) shares.push_back({from, to, static_cast<float>(1.0 / covered)});
        const double rest = end - static_cast<double>(last);
        if (rest > 1e-3)
            shares.push_back({last, to, static_cast<float>(std::min(std::min(rest, 1.0), covered) / covered)});
    }
    return shares;
}

// Both sides shrink, or stay: the mean of the area that a pixel covers.
void shrink(const uint8_t *in, size_t height, size_t width, size_t size, uint8_t *out) {
    const std::vector<Share> columns = area_shares(width, size), rows = area_shares(height, size);
    const size_t row = size * CHANNELS;
    std::vector<float> line(row), sum(row, 0.0f);
    size_t to = 0;
    const auto finish = [&] {
        for (size_t n = 0; n < row; n++) out[to * row + n] = rounded(sum[n]);
        std::fill(sum.begin(), sum.end(), 0.0f);
    };
    for (const Share &share : rows) {
        if (share.to != to) {
            finish();
            to = share.to;
        }
        std::fill(line.begin(), line.end(), 0.0f);
        const uint8_t *const source = in + share.from * width * CHANNELS;
        for (const Share &column : columns)
            for (size_t c = 0; c < CHANNELS; c++)
                line[column.to * CHANNELS + c] +=
                    static_cast<float>(source[column.from * CHANNELS + c]) * column.weight;
        for (size_t n = 0; n < row; n++) sum[n] += share.weight * line[n];
    }
    finish();
}

// The same to exactly a half, where OpenCV rounds halves up.
void halve(const uint8_t *in, size_t size, uint8_t *out) {
    const size_t row = 2 * size * CHANNELS;
    for (size_t y = 0; y < size; y++, in += 2 * row)
        for (size_t x = 0; x < size; x++)
            for (size_t c = 0; c < CHANNELS; c++) {
                const uint8_t *const at = in + 2 * x * CHANNELS + c;
                *out++ = static_cast<uint8_t>((at[0] + at[CHANNELS] + at[row] + at[row + CHANNELS] + 2) >> 2);
            }
}

// Of a side where both pixels of the source lie, and the second one's weight in 2048ths.
struct Pair {
    size_t first, second;
    int weight;
};

std::vector<Pair> linear_pairs(size_t length, size_t size) {
    const double inverse = static_cast<double>(size) / static_cast<double>(length), scale = 1.0 / inverse;
    std::vector<Pair> pairs;
    for (size_t to = 0; to < size; to++) {
        auto first = static_cast<int64_t>(std::floor(static_cast<double>(to) * scale));
        auto part = static_cast<float>(static_cast<double>(to + 1) - static_cast<double>(first + 1) * inverse);
        part = part <= 0 ? 0.0f : part - std::floor(part);
        const auto end = static_cast<int64_t>(length) - 1;
        if (first >= end) {
            first = end;
            part = 0;
        }
        pairs.push_back({static_cast<size_t>(first), static_cast<size_t>(std::min(first + 1, end)),
                         static_cast<int>(std::nearbyint(part * 2048.0f))});
    }
    return pairs;
}

// A side grows: OpenCV's INTER_AREA is then bilinear, with weights that make areas of the other.
void enlarge(const uint8_t *in, size_t height, size_t width, size_t size, uint8_t *out) {
    const std::vector<Pair> columns = linear_pairs(width, size), rows = linear_pairs(height, size);
    const auto across = [&](size_t y, const Pair &x, size_t c) {
        const uint8_t *const line = in + y * width * CHANNELS + c;
        return line[x.first * CHANNELS] * (2048 - x.weight) + line[x.second * CHANNELS] * x.weight;
    };
    for (const Pair &y : rows)
        for (const Pair &x : columns)
            for (size_t c = 0; c < CHANNELS; c++) {
                // OpenCV drops the same bits on the way, for the width of its instructions.
                const int above = (across(y.first, x, c) >> 4) * (2048 - y.weight) >> 16;
                const int below = (across(y.second, x, c) >> 4) * y.weight >> 16;
                *out++ = static_cast<uint8_t>((above + below + 2) >> 2);
            }
}

void resize(const uint8_t *in, size_t height, size_t width, size_t size, uint8_t *out) {
    if (height == size && width == size)
        std::memcpy(out, in, size * size * CHANNELS);
    else if (height == 2 * size && width == 2 * size)
        halve(in, size, out);
    else if (height >= size && width >= size)
        shrink(in, height, width, size, out);
    else
        enlarge(in, height, width, size, out);
}

}  // namespace

Frames checked_frames(const linkedout_frames &given) {
    const std::string expected = ": expected uint8 [count][height][width][3], RGB";
    const auto wrong = [&](const std::string &what) { fail(LINKEDOUT_INVALID_FRAMES, what + expected); };
    if (given.channels != CHANNELS) wrong("frames have " + std::to_string(given.channels) + " channels");
    if (given.count < 1 || given.height < 1 || given.width < 1) wrong("frames hold no pixel");
    if (given.data == nullptr) wrong("frames have no data");
    if (given.count > MAX_FRAMES) wrong("there are " + std::to_string(given.count) + " frames, too many");
    if (given.height > MAX_PIXELS || given.width > MAX_PIXELS || given.height * given.width > MAX_PIXELS)
        wrong("frames have " + std::to_string(given.width) + " x " + std::to_string(given.height) + " pixels, over " +
              std::to_string(MAX_PIXELS));
    const auto bytes = static_cast<uint64_t>(given.count) * static_cast<uint64_t>(given.height) *
                       static_cast<uint64_t>(given.width) * CHANNELS;
    if (bytes != given.size)
        wrong("frames have " + std::to_string(given.size) + " bytes where their shape has " + std::to_string(bytes));
    return {given.data, static_cast<size_t>(given.count), static_cast<size_t>(given.height),
            static_cast<size_t>(given.width)};
}

std::vector<size_t> spread(size_t total, size_t wanted) {
    std::vector<size_t> indices;
    for (size_t n = 0; n < std::min(total, wanted); n++)
        indices.push_back(total <= wanted ? n : (2 * n + 1) * total / (2 * wanted));
    return indices;
}

size_t prepare_frames(const Frames &frames, size_t wanted, size_t size, uint8_t *out) {
    const std::vector<size_t> chosen = spread(frames.count, wanted);
    for (const size_t index : chosen) {
        resize(frames.data + index * frames.height * frames.width * CHANNELS, frames.height, frames.width, size, out);
        out += size * size * CHANNELS;
    }
    return chosen.size();
}

}  // namespace linkedout
