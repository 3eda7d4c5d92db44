#include "json.hpp"

namespace linkedout {

Json parse_json(std::string_view text, linkedout_status status, const std::string &what, const OnKey &on_key) {
    const auto look = [&](int depth, Json::parse_event_t event, const Json &value) {
        if (depth >= MAX_DEPTH)
            fail(status, what + " is nested more than " + std::to_string(MAX_DEPTH) + " levels deep");
        if (event == Json::parse_event_t::key && on_key) on_key(depth, value.get_ref<const std::string &>());
        return true;
    };
    try {
        return Json::parse(text.begin(), text.end(), look);
    } catch (const Json::exception &) {  // its message would quote the file
        fail(status, what + " is no valid JSON");
    }
}

}  // namespace linkedout
