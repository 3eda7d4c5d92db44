// SHA-256 (FIPS 180-4). The one hash that the core needs; a library for it would be larger than all of the core.
#pragma once

#include <string>
#include <string_view>

namespace linkedout {

// 64 hex digits.
std::string sha256(std::string_view data);

}  // namespace linkedout
