#include "sha256.hpp"

#include <array>
#include <cstdint>
#include <cstring>

namespace linkedout {
namespace {

constexpr std::array<uint32_t, 64> K = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

uint32_t rotated(uint32_t x, int by) { return (x >> by) | (x << (32 - by)); }

void digest_block(std::array<uint32_t, 8> &state, const unsigned char *block) {
    std::array<uint32_t, 64> w;
    for (size_t n = 0; n < 16; n++)
        w[n] = uint32_t{block[4 * n]} << 24 | uint32_t{block[4 * n + 1]} << 16 | uint32_t{block[4 * n + 2]} << 8 |
               uint32_t{block[4 * n + 3]};
    for (size_t n = 16; n < 64; n++) {
        const uint32_t s0 = rotated(w[n - 15], 7) ^ rotated(w[n - 15], 18) ^ (w[n - 15] >> 3);
        const uint32_t s1 = rotated(w[n - 2], 17) ^ rotated(w[n - 2], 19) ^ (w[n - 2] >> 10);
        w[n] = w[n - 16] + s0 + w[n - 7] + s1;
    }
    auto [a, b, c, d, e, f, g, h] = state;
    for (size_t n = 0; n < 64; n++) {
        const uint32_t t1 = h + (rotated(e, 6) ^ rotated(e, 11) ^ rotated(e, 25)) + ((e & f) ^ (~e & g)) + K[n] + w[n];
        const uint32_t t2 = (rotated(a, 2) ^ rotated(a, 13) ^ rotated(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
        h = g, g = f, f = e, e = d + t1, d = c, c = b, b = a, a = t1 + t2;
    }
    const std::array<uint32_t, 8> more = {a, b, c, d, e, f, g, h};
    for (size_t n = 0; n < 8; n++) state[n] += more[n];
}

}  // namespace

std::string sha256(std::string_view data) {
    std::array<uint32_t, 8> state = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                     0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    const auto *bytes = reinterpret_cast<const unsigned char *>(data.data());
    size_t left = data.size();
    for (; left >= 64; left -= 64, bytes += 64) digest_block(state, bytes);
    unsigned char last[128] = {0};
    if (left != 0) std::memcpy(last, bytes, left);
    last[left] = 0x80;
    const size_t size = left < 56 ? 64 : 128;
    const uint64_t bits = uint64_t{data.size()} * 8;
    for (size_t n = 0; n < 8; n++) last[size - 1 - n] = static_cast<unsigned char>(bits >> (8 * n));
    for (size_t at = 0; at < size; at += 64) digest_block(state, last + at);
    std::string hex;
    for (const uint32_t word : state)
        for (int shift = 28; shift >= 0; shift -= 4) hex += "0123456789abcdef"[word >> shift & 15];
    return hex;
}

}  // namespace linkedout
