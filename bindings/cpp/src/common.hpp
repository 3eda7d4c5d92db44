// What every part of the core uses: errors, shapes, and text that is well formed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "linkedout_edge.h"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "features are little endian, and so has the machine to be"
#endif

namespace linkedout {

// Raised inside the core; the C ABI turns it into a status and a message.
class Error : public std::exception {
public:
    Error(linkedout_status code, std::string said) : status(code), message(std::move(said)) {}
    const char *what() const noexcept override { return message.c_str(); }

    const linkedout_status status;
    const std::string message;
};

[[noreturn]] inline void fail(linkedout_status status, std::string message) { throw Error(status, std::move(message)); }

// Shapes of a bundle, named as in linkedout_edge/config.py.
struct Shape {
    size_t layers = 0;     // L
    size_t per_layer = 0;  // M
    size_t width = 0;      // D

    size_t scales() const { return layers * per_layer; }
    size_t tokens() const { return scales() * width; }
    size_t row() const { return per_layer * width; }  // M·D
    size_t features() const { return tokens() + scales() * sizeof(float); }
    bool operator==(const Shape &other) const {
        return layers == other.layers && per_layer == other.per_layer && width == other.width;
    }
};

constexpr size_t MAX_TEXT = 64 * 1024;  // characters of an id or title

// Where an ill-formed byte of `text` is, or npos.
size_t ill_formed_at(std::string_view text);

// The same with "?" for each ill-formed byte, and for each half of a character (a surrogate) that was written as three.
std::string well_formed(std::string_view text);

// Characters of well-formed text.
size_t characters(std::string_view text);

// Without white space at both ends.
std::string_view stripped(std::string_view text);

// What is known of a video beside its features.
struct Record {
    std::string id;
    std::optional<std::string> title;
    std::string content;
};

}  // namespace linkedout
