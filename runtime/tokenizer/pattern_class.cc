#include "runtime/tokenizer/pattern_class.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <cctype>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_format.h"
#include "runtime/tokenizer/strings.h"
#include "runtime/tokenizer/utf8.h"

namespace invar::tokenizer {
namespace {

constexpr int kMaxClassDepth = 8;

// PCRE2's own \s has U+180E, which is no white space since Unicode 6.3.
constexpr std::string_view kSpace =
    R"(\x09-\x0d\x20\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
constexpr std::string_view kHex = "0-9A-Fa-f";

PatternItem literal(char32_t c) { return {.literal = c}; }
PatternItem set(std::string_view inside, bool negated = false) {
  return {.is_set = true, .negated = negated, .inside = std::string(inside)};
}

std::string hexadecimal(char32_t c) { return absl::StrFormat("%x", static_cast<uint32_t>(c)); }
std::string escaped(char32_t c) { return concat("\\x{", hexadecimal(c), "}"); }

bool pcre2_knows(const std::string& pattern) {
  int code = 0;
  PCRE2_SIZE where = 0;
  pcre2_code* compiled =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), PCRE2_UTF | PCRE2_UCP, &code, &where, nullptr);
  pcre2_code_free(compiled);
  return compiled != nullptr;
}

// General categories by lower-case name, short and long.
const absl::flat_hash_map<std::string, std::string>& categories() {
  static const auto* const names = [] {
    constexpr std::pair<std::string_view, std::string_view> kCategories[] = {{"L", "letter"},
                                                                             {"Lu", "uppercaseletter"},
                                                                             {"Ll", "lowercaseletter"},
                                                                             {"Lt", "titlecaseletter"},
                                                                             {"Lm", "modifierletter"},
                                                                             {"Lo", "otherletter"},
                                                                             {"M", "mark"},
                                                                             {"Mn", "nonspacingmark"},
                                                                             {"Mc", "spacingmark"},
                                                                             {"Me", "enclosingmark"},
                                                                             {"N", "number"},
                                                                             {"Nd", "decimalnumber"},
                                                                             {"Nl", "letternumber"},
                                                                             {"No", "othernumber"},
                                                                             {"P", "punctuation"},
                                                                             {"Pc", "connectorpunctuation"},
                                                                             {"Pd", "dashpunctuation"},
                                                                             {"Ps", "openpunctuation"},
                                                                             {"Pe", "closepunctuation"},
                                                                             {"Pi", "initialpunctuation"},
                                                                             {"Pf", "finalpunctuation"},
                                                                             {"Po", "otherpunctuation"},
                                                                             {"S", "symbol"},
                                                                             {"Sm", "mathsymbol"},
                                                                             {"Sc", "currencysymbol"},
                                                                             {"Sk", "modifiersymbol"},
                                                                             {"So", "othersymbol"},
                                                                             {"Z", "separator"},
                                                                             {"Zs", "spaceseparator"},
                                                                             {"Zl", "lineseparator"},
                                                                             {"Zp", "paragraphseparator"},
                                                                             {"C", "other"},
                                                                             {"Cc", "control"},
                                                                             {"Cf", "format"},
                                                                             {"Co", "privateuse"},
                                                                             {"Cn", "unassigned"}};
    auto* table = new absl::flat_hash_map<std::string, std::string>;
    for (const auto& [brief, full] : kCategories) {
      table->emplace(absl::AsciiStrToLower(std::string(brief)), brief);
      table->emplace(full, brief);
    }
    return table;
  }();
  return *names;
}

// \p{Name}, \p{^Name}, \P{Name}; `at` stands behind the p.
absl::StatusOr<PatternItem> read_property(std::string_view pattern, size_t& at, bool negated) {
  const size_t close = at < pattern.size() && pattern[at] == '{' ? pattern.find('}', at) : std::string_view::npos;
  if (close == std::string_view::npos || close - at > 64) return absl::InvalidArgumentError("\\p without {a property}");
  std::string_view name = pattern.substr(at + 1, close - at - 1);
  at = close + 1;
  if (!name.empty() && name[0] == '^') {
    negated = !negated;
    name.remove_prefix(1);
  }
  std::string plain;
  for (const char c : name) {
    if (c == ' ' || c == '_' || c == '-') continue;
    if (!std::isalpha(static_cast<unsigned char>(c)))
      return absl::UnimplementedError(concat("property '", name, "' is not supported"));
    plain.push_back(c);
  }
  const std::string lower = absl::AsciiStrToLower(plain);
  const std::string head = negated ? "\\P{" : "\\p{";
  if (const auto found = categories().find(lower); found != categories().end()) return set(concat(head, found->second, "}"));
  // A bare script name means the script in Oniguruma, but the script and its extensions in PCRE2.
  if (pcre2_knows(concat("\\p{sc:", plain, "}"))) return set(concat(head, "sc:", plain, "}"));
  // Names in X with three letters are PCRE2's own inventions; so is L&, which has no letters only.
  const bool invention = lower.size() == 3 && lower[0] == 'x';
  if (!invention && lower != "any" && pcre2_knows(concat("\\p{", plain, "}"))) return set(concat(head, plain, "}"));
  return absl::UnimplementedError(concat("property '", name, "' is not supported"));
}

// `digits` hexadecimal digits at `at`.
absl::StatusOr<PatternItem> read_hex(std::string_view pattern, size_t& at, size_t digits, char32_t limit) {
  char32_t value = 0;
  const size_t end = at + digits;
  if (digits == 0 || digits > 6 || end > pattern.size()) return absl::InvalidArgumentError("bad hexadecimal escape");
  for (; at < end; ++at) {
    const auto c = static_cast<unsigned char>(pattern[at]);
    if (!std::isxdigit(c)) return absl::InvalidArgumentError("bad hexadecimal escape");
    value = value * 16 + static_cast<char32_t>(std::isdigit(c) ? c - '0' : std::tolower(c) - 'a' + 10);
  }
  if (value > limit || (value >= 0xD800 && value < 0xE000))
    return absl::InvalidArgumentError(concat("escape for ", hexadecimal(value), " is out of range"));
  return literal(value);
}

}  // namespace

std::string PatternItem::outside() const {
  if (!is_set) return escaped(literal);
  return concat(negated ? "[^" : "[", inside, "]");
}

absl::StatusOr<PatternItem> read_escape(std::string_view pattern, size_t& at, bool in_class) {
  if (++at >= pattern.size()) return absl::InvalidArgumentError("ends with a backslash");
  const CodePoint c = code_point_at(pattern, at);
  at += c.length;
  if (c.value >= 0x80) return literal(c.value);
  switch (c.value) {
    case 't':
      return literal('\t');
    case 'n':
      return literal('\n');
    case 'r':
      return literal('\r');
    case 'f':
      return literal('\f');
    case 'v':
      return literal('\v');
    case 'a':
      return literal('\a');
    case 'e':
      return literal(0x1B);
    case 's':
      return set(kSpace);
    case 'S':
      return set(kSpace, true);
    case 'd':
      return set("\\p{Nd}");
    case 'D':
      return set("\\P{Nd}");
    case 'w':
      return set(in_class ? kWordInClass : kWord);
    case 'W':
      return set(in_class ? kWordInClass : kWord, true);
    case 'h':
      return set(kHex);
    case 'H':
      return set(kHex, true);
    case 'p':
      return read_property(pattern, at, false);
    case 'P':
      return read_property(pattern, at, true);
    case 'u':
      return read_hex(pattern, at, 4, 0xFFFF);
    case 'x':
      if (at < pattern.size() && pattern[at] == '{') {
        const size_t close = pattern.find('}', ++at);
        if (close == std::string_view::npos) return absl::InvalidArgumentError("\\x{ without }");
        auto item = read_hex(pattern, at, close - at, 0x10FFFF);
        at = close + 1;
        return item;
      }
      return read_hex(pattern, at, 2, 0x7F);  // above, Oniguruma means a byte and not a character
    default:
      if (std::isalnum(static_cast<unsigned char>(c.value))) {
        return absl::UnimplementedError(concat("escape '\\", std::string(1, static_cast<char>(c.value)), "' is not supported"));
      }
      return literal(c.value);
  }
}

absl::StatusOr<std::string> read_class(std::string_view pattern, size_t& at, int depth) {
  if (depth > kMaxClassDepth) return absl::InvalidArgumentError("classes are nested too deep");
  struct Operand {  // a union: characters and plain sets in `inside`, whatever needs brackets of its own in `nested`
    std::string inside;
    std::vector<std::string> nested;
    std::string text() const {
      if (nested.empty()) return concat("[", inside, "]");
      std::string all = "(?:";
      if (!inside.empty()) all += concat("[", inside, "]|");
      for (size_t i = 0; i < nested.size(); ++i) all += concat(i ? "|" : "", nested[i]);
      return all + ")";
    }
    bool empty() const { return inside.empty() && nested.empty(); }
  };
  std::vector<Operand> operands(1);
  bool negated = false;
  if (++at < pattern.size() && pattern[at] == '^') negated = true, ++at;

  const auto read_item = [&]() -> absl::StatusOr<PatternItem> {
    if (pattern[at] == '\\') {
      if (at + 1 < pattern.size() && pattern[at + 1] == 'b') return absl::UnimplementedError("'\\b' in a class is not supported");
      return read_escape(pattern, at, true);
    }
    const CodePoint c = code_point_at(pattern, at);
    at += c.length;
    return literal(c.value);
  };

  while (true) {
    if (at >= pattern.size()) return absl::InvalidArgumentError("a class is not closed");
    if (pattern[at] == ']') break;
    if (pattern[at] == '[') {
      if (pattern.substr(at, 2) == "[:") return absl::UnimplementedError("POSIX brackets in a class are not supported");
      auto nested = read_class(pattern, at, depth + 1);
      if (!nested.ok()) return nested;
      operands.back().nested.push_back(*std::move(nested));
      continue;
    }
    if (pattern.substr(at, 2) == "&&") {
      at += 2;
      operands.emplace_back();
      continue;
    }
    auto item = read_item();
    if (!item.ok()) return item.status();
    if (item->is_set) {
      if (item->negated) {
        operands.back().nested.push_back(item->outside());
      } else {
        operands.back().inside += item->inside;
      }
      continue;
    }
    // A hyphen between two characters is a range; at either end, or beside a set, it is itself.
    const bool range = at + 1 < pattern.size() && pattern[at] == '-' && pattern[at + 1] != ']' && pattern[at + 1] != '[' &&
                       pattern.substr(at + 1, 2) != "&&";
    if (!range) {
      operands.back().inside += escaped(item->literal);
      continue;
    }
    ++at;
    auto high = read_item();
    if (!high.ok()) return high.status();
    if (high->is_set || high->literal < item->literal)
      return absl::InvalidArgumentError("a range in a class ends before it begins");
    operands.back().inside += concat(escaped(item->literal), "-", escaped(high->literal));
  }
  ++at;
  for (const Operand& operand : operands) {
    if (operand.empty()) return absl::InvalidArgumentError("a class is empty");
  }
  if (operands.size() == 1 && operands[0].nested.empty()) return concat(negated ? "[^" : "[", operands[0].inside, "]");
  std::string all;
  for (size_t i = 0; i + 1 < operands.size(); ++i) all += concat("(?=", operands[i].text(), ")");
  all += operands.back().text();
  return negated ? concat("(?:(?!", all, ")(?s:.))") : concat("(?:", all, ")");
}

}  // namespace invar::tokenizer
