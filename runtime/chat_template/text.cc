#include "runtime/chat_template/text.h"

#include <string.h>
#include <unicode/bytestream.h>
#include <unicode/casemap.h>
#include <unicode/stringoptions.h>
#include <unicode/uchar.h>

#include <algorithm>

#include "runtime/tokenizer/utf8.h"

namespace invar::jinja {
namespace {

using tokenizer::code_point_at;
using tokenizer::code_point_before;

bool is_line_end(char32_t c) {
  return (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 || c == 0x2029;
}

using CaseFunction = void (*)(const char*, uint32_t, icu::StringPiece, icu::ByteSink&, icu::Edits*, UErrorCode&);

std::string mapped(std::string_view text, CaseFunction function) {
  std::string out;
  out.reserve(text.size());
  icu::StringByteSink<std::string> sink(&out);
  UErrorCode error = U_ZERO_ERROR;
  function("", 0, icu::StringPiece(text.data(), static_cast<int32_t>(text.size())), sink, nullptr, error);
  return U_FAILURE(error) ? std::string(text) : out;
}

bool is_cased(char32_t c) {
  const auto cp = static_cast<UChar32>(c);
  return u_isupper(cp) || u_islower(cp) || u_istitle(cp);
}

std::string reversed(std::string_view text) { return std::string(text.rbegin(), text.rend()); }

}  // namespace

bool is_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

size_t character_count(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

std::u32string decode(std::string_view text) {
  std::u32string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const auto c = code_point_at(text, at);
    out.push_back(c.value);
    at += static_cast<size_t>(c.length);
  }
  return out;
}

std::string encode(std::u32string_view characters) {
  std::string out;
  for (const char32_t c : characters) tokenizer::append_code_point(out, c);
  return out;
}

bool is_space(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

size_t leading_space(std::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    const auto c = code_point_at(text, at);
    if (!is_space(c.value)) break;
    at += static_cast<size_t>(c.length);
  }
  return at;
}

size_t trailing_space(std::string_view text) {
  size_t end = text.size();
  while (end > 0) {
    const auto c = code_point_before(text, end);
    if (!is_space(c.value)) break;
    end -= static_cast<size_t>(c.length);
  }
  return text.size() - end;
}

std::string_view strip(std::string_view text, bool left, bool right) {
  if (left) text.remove_prefix(leading_space(text));
  if (right) text.remove_suffix(trailing_space(text));
  return text;
}

std::string_view strip(std::string_view text, std::string_view characters, bool left, bool right) {
  std::u32string set = decode(characters);
  std::sort(set.begin(), set.end());
  const auto in_set = [&](char32_t c) { return std::binary_search(set.begin(), set.end(), c); };
  while (left && !text.empty()) {
    const auto c = code_point_at(text, 0);
    if (!in_set(c.value)) break;
    text.remove_prefix(static_cast<size_t>(c.length));
  }
  while (right && !text.empty()) {
    const auto c = code_point_before(text, text.size());
    if (!in_set(c.value)) break;
    text.remove_suffix(static_cast<size_t>(c.length));
  }
  return text;
}

std::string upper(std::string_view text) { return mapped(text, &icu::CaseMap::utf8ToUpper); }
std::string lower(std::string_view text) { return mapped(text, &icu::CaseMap::utf8ToLower); }

std::string title(std::string_view text) {
  std::u32string out = decode(text);
  bool inside = false;
  for (char32_t& c : out) {
    const auto cp = static_cast<UChar32>(c);
    c = static_cast<char32_t>(inside ? u_tolower(cp) : u_totitle(cp));
    inside = is_cased(static_cast<char32_t>(cp));
  }
  return encode(out);
}

std::string capitalize(std::string_view text) {
  if (text.empty()) return {};
  const size_t first = static_cast<size_t>(code_point_at(text, 0).length);
  return title(text.substr(0, first)) + lower(text.substr(first));
}

std::string swapcase(std::string_view text) {
  std::u32string out = decode(text);
  for (char32_t& c : out) {
    const auto cp = static_cast<UChar32>(c);
    if (u_isupper(cp)) {
      c = static_cast<char32_t>(u_tolower(cp));
    } else if (u_islower(cp)) {
      c = static_cast<char32_t>(u_toupper(cp));
    }
  }
  return encode(out);
}

size_t find_first(std::string_view text, std::string_view part, size_t from) {
  if (from > text.size()) return std::string_view::npos;
  if (part.empty()) return from;
  // Linear whatever is searched, unlike std::string::find.
  const void* at = memmem(text.data() + from, text.size() - from, part.data(), part.size());
  return at == nullptr ? std::string_view::npos : static_cast<size_t>(static_cast<const char*>(at) - text.data());
}

size_t find_last(std::string_view text, std::string_view part) {
  if (part.empty()) return text.size();
  const size_t at = find_first(reversed(text), reversed(part));
  return at == std::string_view::npos ? at : text.size() - at - part.size();
}

size_t count_parts(std::string_view text, std::string_view part) {
  if (part.empty()) return character_count(text) + 1;
  size_t count = 0;
  for (size_t at = 0; (at = find_first(text, part, at)) != std::string_view::npos; at += part.size()) ++count;
  return count;
}

std::vector<std::string_view> split(std::string_view text, std::string_view separator, int64_t limit) {
  std::vector<std::string_view> parts;
  size_t from = 0;
  for (size_t at; limit != 0 && (at = find_first(text, separator, from)) != std::string_view::npos; --limit) {
    parts.push_back(text.substr(from, at - from));
    from = at + separator.size();
  }
  parts.push_back(text.substr(from));
  return parts;
}

std::vector<std::string_view> split_right(std::string_view text, std::string_view separator, int64_t limit) {
  // The same from the other end: places and lengths of the reversed text's parts, mirrored.
  const std::string back = reversed(text), back_separator = reversed(separator);
  std::vector<std::string_view> parts;
  for (const std::string_view part : split(back, back_separator, limit)) {
    const size_t end = text.size() - static_cast<size_t>(part.data() - back.data());
    parts.push_back(text.substr(end - part.size(), part.size()));
  }
  std::reverse(parts.begin(), parts.end());
  return parts;
}

std::vector<std::string_view> split_space(std::string_view text, int64_t limit) {
  std::vector<std::string_view> parts;
  for (text.remove_prefix(leading_space(text)); !text.empty(); text.remove_prefix(leading_space(text)), --limit) {
    if (limit == 0) {
      parts.push_back(text);
      break;
    }
    size_t end = 0;
    while (end < text.size()) {
      const auto c = code_point_at(text, end);
      if (is_space(c.value)) break;
      end += static_cast<size_t>(c.length);
    }
    parts.push_back(text.substr(0, end));
    text.remove_prefix(end);
  }
  return parts;
}

std::vector<std::string_view> split_space_right(std::string_view text, int64_t limit) {
  std::vector<std::string_view> parts;
  for (text.remove_suffix(trailing_space(text)); !text.empty(); text.remove_suffix(trailing_space(text)), --limit) {
    if (limit == 0) {
      parts.push_back(text);
      break;
    }
    size_t from = text.size();
    while (from > 0) {
      const auto c = code_point_before(text, from);
      if (is_space(c.value)) break;
      from -= static_cast<size_t>(c.length);
    }
    parts.push_back(text.substr(from));
    text.remove_suffix(text.size() - from);
  }
  std::reverse(parts.begin(), parts.end());
  return parts;
}

std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends) {
  std::vector<std::string_view> lines;
  size_t from = 0;
  for (size_t at = 0; at < text.size();) {
    const auto c = code_point_at(text, at);
    size_t next = at + static_cast<size_t>(c.length);
    if (is_line_end(c.value)) {
      if (c.value == '\r' && next < text.size() && text[next] == '\n') ++next;
      lines.push_back(text.substr(from, (keep_ends ? next : at) - from));
      from = next;
    }
    at = next;
  }
  if (from < text.size()) lines.push_back(text.substr(from));
  return lines;
}

bool is_printable(char32_t c) {
  if (c == ' ') return true;
  switch (u_charType(static_cast<UChar32>(c))) {
    case U_UNASSIGNED:
    case U_CONTROL_CHAR:
    case U_FORMAT_CHAR:
    case U_PRIVATE_USE_CHAR:
    case U_SURROGATE:
    case U_SPACE_SEPARATOR:
    case U_LINE_SEPARATOR:
    case U_PARAGRAPH_SEPARATOR:
      return false;
    default:
      return true;
  }
}

bool is_class(std::string_view text, std::string_view method, bool& known) {
  known = true;
  const std::u32string all = decode(text);
  const auto every = [&](auto test) {
    return !all.empty() && std::all_of(all.begin(), all.end(), [&](char32_t c) { return test(static_cast<UChar32>(c)); });
  };
  const auto numeric_type = [](UChar32 c) { return u_getIntPropertyValue(c, UCHAR_NUMERIC_TYPE); };
  const auto digit = [&](UChar32 c) { return numeric_type(c) == U_NT_DECIMAL || numeric_type(c) == U_NT_DIGIT; };
  const auto numeric = [&](UChar32 c) { return numeric_type(c) != U_NT_NONE; };
  const auto letter = [](UChar32 c) { return (U_GET_GC_MASK(c) & U_GC_L_MASK) != 0; };
  if (method == "isalpha") return every(letter);
  if (method == "isalnum") return every([&](UChar32 c) { return letter(c) || numeric(c); });
  if (method == "isascii") return is_ascii(text);
  if (method == "isdecimal") return every([&](UChar32 c) { return numeric_type(c) == U_NT_DECIMAL; });
  if (method == "isdigit") return every(digit);
  if (method == "isnumeric") return every(numeric);
  if (method == "isspace") return every([](UChar32 c) { return is_space(static_cast<char32_t>(c)); });
  if (method == "isprintable") return std::all_of(all.begin(), all.end(), is_printable);
  if (method == "isidentifier") {
    const auto start = [](UChar32 c) { return c == '_' || u_hasBinaryProperty(c, UCHAR_XID_START); };
    return every([](UChar32 c) { return u_hasBinaryProperty(c, UCHAR_XID_CONTINUE) != 0; }) &&
           start(static_cast<UChar32>(all[0]));
  }
  if (method == "islower" || method == "isupper") {
    const bool want_upper = method == "isupper";
    bool some = false;
    for (const char32_t c : all) {
      const auto cp = static_cast<UChar32>(c);
      if (u_istitle(cp) || (want_upper ? u_islower(cp) : u_isupper(cp))) return false;
      some |= want_upper ? u_isupper(cp) : u_islower(cp);
    }
    return some;
  }
  if (method == "istitle") {
    bool some = false, inside = false;
    for (const char32_t c : all) {
      const auto cp = static_cast<UChar32>(c);
      const bool first = u_isupper(cp) || u_istitle(cp);
      if (first ? inside : (u_islower(cp) && !inside)) return false;
      inside = is_cased(c);
      some |= inside;
    }
    return some;
  }
  known = false;
  return false;
}

}  // namespace invar::jinja
