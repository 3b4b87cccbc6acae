#include "runtime/tokenizer/byte_alphabet.h"

#include <array>
#include <cstdint>

#include "runtime/tokenizer/utf8.h"

namespace invar::tokenizer {
namespace {

constexpr char32_t kFirstUnprintable = 0x100;
constexpr int kUnprintable = 68;

constexpr bool stands_for_itself(int byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

struct Tables {
  std::array<char32_t, 256> character{};
  std::array<int16_t, kFirstUnprintable + kUnprintable> byte{};
};

constexpr Tables make_tables() {
  Tables tables;
  for (auto& byte : tables.byte) byte = -1;
  char32_t next = kFirstUnprintable;
  for (int byte = 0; byte < 256; ++byte) {
    tables.character[byte] = stands_for_itself(byte) ? static_cast<char32_t>(byte) : next++;
    tables.byte[tables.character[byte]] = static_cast<int16_t>(byte);
  }
  return tables;
}

constexpr Tables kTables = make_tables();

}  // namespace

void append_byte_characters(std::string_view bytes, std::string& out) {
  for (const char byte : bytes) append_code_point(out, kTables.character[static_cast<unsigned char>(byte)]);
}

int byte_of_character(char32_t c) { return c < kTables.byte.size() ? kTables.byte[c] : -1; }

void append_token_bytes(std::string_view token, std::string& out) {
  const size_t before = out.size();
  for (size_t at = 0; at < token.size();) {
    const CodePoint c = code_point_at(token, at);
    const int byte = byte_of_character(c.value);
    if (byte < 0) {
      out.resize(before);
      out.append(token);
      return;
    }
    out.push_back(static_cast<char>(byte));
    at += c.length;
  }
}

}  // namespace invar::tokenizer
