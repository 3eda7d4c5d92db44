#include "tokenizer.hpp"

#include <queue>
#include <string>
#include <tuple>

#include "json.hpp"

namespace linkedout {
namespace {

constexpr const char *AGAIN = ". Export the bundle again.";

void append_utf8(std::string &text, uint32_t character) {  // below 0x800
    if (character < 0x80) {
        text += static_cast<char>(character);
    } else {
        text += static_cast<char>(0xC0 | character >> 6);
        text += static_cast<char>(0x80 | (character & 0x3F));
    }
}

// GPT-2's printable character for each of the 256 bytes.
std::array<std::string, 256> byte_alphabet() {
    std::array<std::string, 256> alphabet;
    uint32_t spare = 256;
    for (uint32_t byte = 0; byte < 256; byte++) {
        const bool plain = (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
        append_utf8(alphabet[byte], plain ? byte : spare++);
    }
    return alphabet;
}

enum class Class { letter, digit, space, other };

Class class_of(char c) {
    if (c >= 'a' && c <= 'z') return Class::letter;
    if (c >= '0' && c <= '9') return Class::digit;
    return c == ' ' ? Class::space : Class::other;
}

char folded(char c) {
    if (c >= 'A' && c <= 'Z') return static_cast<char>(c + ('a' - 'A'));
    return c >= '\t' && c <= '\r' ? ' ' : c;
}

// End of the piece that begins at `at`: " ?[a-z]+| ?[0-9]+| ?[^ a-z0-9]+| +".
size_t piece_end(std::string_view text, size_t at) {
    size_t end = at;
    if (text[at] == ' ' && at + 1 < text.size() && text[at + 1] != ' ') end++;
    const Class kind = class_of(text[end]);
    while (end < text.size() && class_of(text[end]) == kind) end++;
    return end;
}

}  // namespace

Tokenizer::Tokenizer(std::string_view json, int64_t vocab_size) {
    const std::string what = "the bundle's tokenizer";
    const auto corrupt = [&](const std::string &why) { fail(LINKEDOUT_BUNDLE_CORRUPT, what + " " + why + AGAIN); };
    const Json file = parse_json(json, LINKEDOUT_BUNDLE_CORRUPT, what);
    if (!file.is_object() || !file.contains("vocab") || !file["vocab"].is_object() || !file.contains("merges") ||
        !file["merges"].is_array())
        corrupt("is not {\"vocab\": {token: id}, \"merges\": [[a, b], ...]}");

    std::unordered_map<std::string, Symbol> symbols;
    const auto symbol = [&](const std::string &text) {
        const auto [found, is_new] = symbols.emplace(text, static_cast<Symbol>(id_of_symbol_.size()));
        if (is_new) id_of_symbol_.push_back(-1);
        return found->second;
    };
    const std::array<std::string, 256> alphabet = byte_alphabet();
    for (size_t byte = 0; byte < 256; byte++) symbol_of_byte_[byte] = symbol(alphabet[byte]);
    for (const auto &[token, id] : file["vocab"].items()) {
        if (!id.is_number_integer()) corrupt("has an id that is no whole number");
        // A number beyond int64 comes as a huge unsigned one, and turns negative here.
        const int64_t value = id.get<int64_t>();
        if (value < 0 || value >= vocab_size)
            corrupt("has the id " + std::to_string(value) + ", the model a vocabulary of " +
                    std::to_string(vocab_size));
        id_of_symbol_[symbol(token)] = static_cast<int32_t>(value);
    }
    uint32_t rank = 0;
    for (const Json &pair : file["merges"]) {
        if (!pair.is_array() || pair.size() != 2 || !pair[0].is_string() || !pair[1].is_string())
            corrupt("has a merge that is not [a, b]");
        const auto &left = pair[0].get_ref<const std::string &>(), &right = pair[1].get_ref<const std::string &>();
        const uint64_t key = uint64_t{symbol(left)} << 32 | symbol(right);
        merges_.emplace(key, Merge{rank++, symbol(left + right)});  // of equal pairs the first counts
    }
}

const Tokenizer::Merge *Tokenizer::find(Symbol left, Symbol right) const {
    const auto found = merges_.find(uint64_t{left} << 32 | right);
    return found == merges_.end() ? nullptr : &found->second;
}

std::vector<int32_t> Tokenizer::encode(std::string_view text, size_t limit) const {
    std::string plain = well_formed(text);
    for (char &c : plain) c = folded(c);
    std::vector<int32_t> ids;
    for (size_t at = 0, end; at < plain.size() && ids.size() < limit; at = end) {
        end = piece_end(plain, at);
        encode_piece(std::string_view(plain).substr(at, end - at), ids);
    }
    if (ids.size() > limit) ids.resize(limit);
    return ids;
}

// Join pairs by rank, leftmost first. A heap over a linked list: a title that is one endless word stays cheap.
void Tokenizer::encode_piece(std::string_view piece, std::vector<int32_t> &ids) const {
    constexpr Symbol GONE = UINT32_MAX;
    const size_t count = piece.size();
    std::vector<Symbol> parts(count);
    std::vector<size_t> after(count), before(count);  // `count`: none
    for (size_t n = 0; n < count; n++) {
        parts[n] = symbol_of_byte_[static_cast<unsigned char>(piece[n])];
        after[n] = n + 1;
        before[n] = n == 0 ? count : n - 1;
    }
    using Offer = std::tuple<uint32_t, size_t, Symbol, Symbol>;
    std::priority_queue<Offer, std::vector<Offer>, std::greater<>> heap;
    const auto offer = [&](size_t n) {
        if (after[n] >= count) return;
        if (const Merge *merge = find(parts[n], parts[after[n]]))
            heap.emplace(merge->rank, n, parts[n], parts[after[n]]);
    };
    for (size_t n = 0; n < count; n++) offer(n);
    while (!heap.empty()) {
        const auto [rank, left, a, b] = heap.top();
        heap.pop();
        const size_t right = after[left];
        if (right >= count || parts[left] != a || parts[right] != b) continue;  // merged into something else meanwhile
        parts[left] = find(a, b)->joined;
        parts[right] = GONE;
        after[left] = after[right];
        if (after[right] < count) before[after[right]] = left;
        offer(left);
        if (before[left] < count) offer(before[left]);
    }
    for (const Symbol part : parts)
        if (part != GONE && id_of_symbol_[part] >= 0) ids.push_back(id_of_symbol_[part]);
}

}  // namespace linkedout
