// Byte-level BPE, as linkedout_edge/text/tokenizer.py has it.
#pragma once

#include <array>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "common.hpp"

namespace linkedout {

class Tokenizer {
public:
    // From a bundle's tokenizer.json; ids have to be below `vocab_size`. LINKEDOUT_BUNDLE_CORRUPT if it is none.
    Tokenizer(std::string_view json, int64_t vocab_size);

    // Ids of `text`, at most `limit` of them. Ill-formed UTF-8 counts as "?".
    std::vector<int32_t> encode(std::string_view text, size_t limit) const;

private:
    using Symbol = uint32_t;
    struct Merge {
        uint32_t rank;
        Symbol joined;
    };

    void encode_piece(std::string_view piece, std::vector<int32_t> &ids) const;
    const Merge *find(Symbol left, Symbol right) const;

    std::array<Symbol, 256> symbol_of_byte_{};
    std::vector<int32_t> id_of_symbol_;  // -1: not in the vocabulary
    std::unordered_map<uint64_t, Merge> merges_;
};

}  // namespace linkedout
