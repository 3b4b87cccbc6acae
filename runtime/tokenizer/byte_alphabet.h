// The byte alphabet of byte-level BPE (from GPT-2): each byte is written as one printable character, so that vocabularies
// can be text. Printable Latin-1 bytes stand for themselves, the other 68 become U+0100 and up in order.
#pragma once

#include <string>
#include <string_view>

namespace invar::tokenizer {

// Appends the characters for `bytes` to `out`.
void append_byte_characters(std::string_view bytes, std::string& out);
// The byte that a character stands for, or -1.
int byte_of_character(char32_t c);
// Appends the bytes that `token` (valid UTF-8) spells to `out`; if some character stands for no byte, the token as it is.
void append_token_bytes(std::string_view token, std::string& out);

}  // namespace invar::tokenizer
