// JSON from others: nlohmann's parser with a limit on nesting.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <string_view>

#include "common.hpp"

namespace linkedout {

using Json = nlohmann::json;

constexpr int MAX_DEPTH = 32;  // our files need 5 levels

// Called with each key and the level of its object: 1 is the outermost.
using OnKey = std::function<void(int level, const std::string &key)>;

// Parse, or fail with `status` and a message that begins with `what`.
Json parse_json(std::string_view text, linkedout_status status, const std::string &what, const OnKey &on_key = {});

}  // namespace linkedout
