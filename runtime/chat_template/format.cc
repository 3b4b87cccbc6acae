#include "runtime/chat_template/format.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/str_format.h"
#include "runtime/chat_template/operators.h"
#include "runtime/chat_template/parameters.h"
#include "runtime/chat_template/show.h"
#include "runtime/chat_template/text.h"
#include "runtime/tokenizer/utf8.h"

namespace invar::jinja {
namespace {

constexpr int64_t kMaxWidth = 100'000;  // of a padded field; also the digits behind a point are padding
constexpr int64_t kMaxPrecision = 500;

struct Specification {
  std::string fill = " ";
  char align = 0;  // < > ^ =; 0: the type's own
  char sign = '-';
  bool alternate = false;
  char grouping = 0;
  int64_t width = 0, precision = -1;
  char type = 0;
};

int64_t read_number(std::string_view text, size_t& at, int64_t most, std::string_view what) {
  int64_t number = 0;
  for (; at < text.size() && absl::ascii_isdigit(static_cast<unsigned char>(text[at])); ++at) {
    number = number * 10 + (text[at] - '0');
    if (number > most) fail("the ", what, " of a format is larger than ", most);
  }
  return number;
}

Specification read_specification(std::string_view text) {
  Specification spec;
  constexpr std::string_view kAligns = "<>^=";
  size_t at = 0;
  const auto aligns = [&](size_t i) { return i < text.size() && kAligns.find(text[i]) != std::string_view::npos; };
  const size_t first = text.empty() ? 0 : static_cast<size_t>(tokenizer::utf8_length(static_cast<unsigned char>(text[0])));
  if (first > 0 && aligns(first)) {
    spec.fill = text.substr(0, first);
    spec.align = text[first];
    at = first + 1;
  } else if (aligns(0)) {
    spec.align = text[at++];
  }
  const auto next = [&](std::string_view any) {
    return at < text.size() && any.find(text[at]) != std::string_view::npos ? text[at++] : '\0';
  };
  if (const char sign = next("+- ")) spec.sign = sign;
  spec.alternate = next("#") != 0;
  if (next("0") && spec.align == 0) {
    spec.fill = "0";
    spec.align = '=';
  }
  spec.width = read_number(text, at, kMaxWidth, "width");
  spec.grouping = next(",_");
  if (next(".")) {
    if (at >= text.size() || !absl::ascii_isdigit(static_cast<unsigned char>(text[at])))
      fail("format specifier missing precision");
    spec.precision = read_number(text, at, kMaxPrecision, "precision");
  }
  if (at < text.size()) spec.type = text[at++];
  if (at < text.size()) fail("the format specification '", text, "' is not valid");
  return spec;
}

std::string grouped(std::string digits, char separator, size_t size = 3) {
  if (separator == 0) return digits;
  size_t whole = 0;
  while (whole < digits.size() && absl::ascii_isxdigit(static_cast<unsigned char>(digits[whole]))) ++whole;
  for (size_t i = whole; i > size; i -= size) digits.insert(i - size, 1, separator);
  return digits;
}

std::string in_base(Integer magnitude, int base, bool upper) {
  std::string digits;
  do {
    digits += (upper ? "0123456789ABCDEF" : "0123456789abcdef")[static_cast<int>(magnitude % base)];
    magnitude /= base;
  } while (magnitude > 0);
  std::reverse(digits.begin(), digits.end());
  return digits;
}

std::string float_digits(double magnitude, char type, int64_t precision, bool alternate) {
  if (!std::isfinite(magnitude)) {
    const bool large = absl::ascii_isupper(static_cast<unsigned char>(type));
    return std::isnan(magnitude) ? (large ? "NAN" : "nan") : (large ? "INF" : "inf");
  }
  const int p = static_cast<int>(precision < 0 ? 6 : precision);
  switch (type) {
    case 'e':
      return alternate ? absl::StrFormat("%#.*e", p, magnitude) : absl::StrFormat("%.*e", p, magnitude);
    case 'E':
      return alternate ? absl::StrFormat("%#.*E", p, magnitude) : absl::StrFormat("%.*E", p, magnitude);
    case 'g':
      return alternate ? absl::StrFormat("%#.*g", p, magnitude) : absl::StrFormat("%.*g", p, magnitude);
    case 'G':
      return alternate ? absl::StrFormat("%#.*G", p, magnitude) : absl::StrFormat("%.*G", p, magnitude);
    default:
      return alternate ? absl::StrFormat("%#.*f", p, magnitude) : absl::StrFormat("%.*f", p, magnitude);
  }
}

// Sign, prefix and digits, padded.
Value placed(Interpreter& run, const Specification& spec, const std::string& sign, const std::string& digits) {
  const char align = spec.align == 0 ? '>' : spec.align;
  if (align == '=') {
    const Value padded = pad_text(run, digits, spec.width - static_cast<int64_t>(sign.size()), spec.fill, 1);
    return make_text(run.budget(), sign + padded.text());
  }
  return pad_text(run, sign + digits, spec.width, spec.fill, align == '<' ? -1 : align == '^' ? 0 : 1);
}

std::string sign_of(bool negative, char wanted) { return negative ? "-" : wanted == '+' ? "+" : wanted == ' ' ? " " : ""; }

Value formatted_integer(Interpreter& run, Integer value, const Specification& spec) {
  if (spec.precision >= 0) fail("precision not allowed in integer format specifier");
  const bool negative = value < 0;
  if (negative && __builtin_sub_overflow(Integer{0}, value, &value)) fail("an integer became too large");
  const int base = spec.type == 'x' || spec.type == 'X' ? 16 : spec.type == 'o' ? 8 : spec.type == 'b' ? 2 : 10;
  std::string sign = sign_of(negative, spec.sign);
  if (spec.alternate && base != 10) sign += concat("0", std::string(1, spec.type));
  return placed(run, spec, sign, grouped(in_base(value, base, spec.type == 'X'), spec.grouping, base == 10 ? 3 : 4));
}

Value formatted_float(Interpreter& run, double value, const Specification& spec) {
  const bool percent = spec.type == '%';
  std::string digits;
  if (spec.type == 0 && spec.precision < 0) {
    digits = float_text(std::fabs(value));
  } else {
    digits = float_digits(std::fabs(value) * (percent ? 100 : 1),
                          spec.type == 0 ? 'g'
                          : percent      ? 'f'
                                         : spec.type,
                          spec.precision, spec.alternate);
    if (spec.type == 0 && digits.find_first_of(".en") == std::string::npos) digits += ".0";
  }
  return placed(run, spec, sign_of(std::signbit(value) && !std::isnan(value), spec.sign),
                grouped(std::move(digits), spec.grouping) + (percent ? "%" : ""));
}

// format(value, specification)
Value formatted(Interpreter& run, const Value& value, std::string_view specification) {
  if (specification.empty()) return Value(to_text(run, value));
  const Specification spec = read_specification(specification);
  constexpr std::string_view kFloatTypes = "eEfFgG%";
  const bool as_float = spec.type != 0 && kFloatTypes.find(spec.type) != std::string_view::npos;
  const auto unknown = [&] {
    fail("unknown format code '", std::string(1, spec.type), "' for object of type '", type_name(value), "'");
  };
  if (value.is(Kind::kBool) && spec.type == 0) return formatted(run, Value(to_text(run, value)), specification);
  if (value.is_integral() && !as_float) {
    if (spec.type != 0 && std::string_view("dxXobcn").find(spec.type) == std::string_view::npos) unknown();
    if (spec.type != 'c') return formatted_integer(run, value.integral(), spec);
    unknown();
  }
  if (value.is_number()) {
    if (spec.type != 0 && !as_float) unknown();
    return formatted_float(run, value.number(), spec);
  }
  if (!value.is_text()) fail("unsupported format string passed to ", type_name(value), ".__format__");
  if (spec.type != 0 && spec.type != 's') unknown();
  if (spec.align == '=') fail("'=' alignment not allowed in string format specifier");
  std::string_view text = value.text();
  if (spec.precision >= 0) {
    size_t end = 0;
    for (int64_t i = 0; i < spec.precision && end < text.size(); ++i)
      end += static_cast<size_t>(tokenizer::utf8_length(static_cast<unsigned char>(text[end])));
    text = text.substr(0, end);
  }
  return pad_text(run, text, spec.width, spec.fill, spec.align == '>' ? 1 : spec.align == '^' ? 0 : -1);
}

// A field of {}: a name or number, then .attributes and [keys].
Value field_value(Interpreter& run, std::string_view field, const Arguments& arguments, size_t& automatic) {
  size_t at = field.find_first_of(".[");
  const std::string_view first = field.substr(0, at);
  if (at == std::string_view::npos) at = field.size();
  Value value;
  if (first.empty() || std::all_of(first.begin(), first.end(), [](unsigned char c) { return absl::ascii_isdigit(c); })) {
    size_t digit = 0;
    const size_t index = first.empty() ? automatic++ : static_cast<size_t>(read_number(first, digit, kMaxWidth, "field"));
    if (index >= arguments.positional.size()) fail("replacement index ", index, " out of range for positional arguments");
    value = arguments.positional[index];
  } else {
    const auto found =
        std::find_if(arguments.named.begin(), arguments.named.end(), [&](const auto& a) { return a.first == first; });
    if (found == arguments.named.end()) fail("format() has no argument '", first, "'");
    value = found->second;
  }
  while (at < field.size()) {
    const bool key = field[at++] == '[';
    const size_t end = std::min(key ? field.find(']', at) : field.find_first_of(".[", at), field.size());
    const std::string_view name = field.substr(at, end - at);
    const bool number =
        key && !name.empty() && std::all_of(name.begin(), name.end(), [](unsigned char c) { return absl::ascii_isdigit(c); });
    size_t digit = 0;
    value = !key ? attribute_of(run, value, name)
                 : subscript(run, value, number ? Value(Integer{read_number(name, digit, INT32_MAX, "index")}) : Value(name));
    at = std::min(end + (key ? 1 : 0), field.size());
    if (at < field.size() && field[at] != '.' && field[at] != '[') fail("only '.' or '[' may follow ']' in a format field");
  }
  return value;
}

}  // namespace

Value format_braces(Interpreter& run, std::string_view format, const Arguments& arguments) {
  std::string out;
  size_t automatic = 0;
  for (size_t at = 0; at < format.size();) {
    const char c = format[at];
    if (c != '{' && c != '}') {
      const size_t end = std::min(format.find_first_of("{}", at), format.size());
      run.budget().bytes(end - at);
      out += format.substr(at, end - at);
      at = end;
      continue;
    }
    if (at + 1 < format.size() && format[at + 1] == c) {
      out += c;
      at += 2;
      continue;
    }
    if (c == '}') fail("single '}' encountered in format string");
    const size_t end = format.find('}', at);
    if (end == std::string_view::npos) fail("expected '}' before end of string");
    std::string_view field = format.substr(at + 1, end - at - 1);
    if (field.find('{') != std::string_view::npos) fail("a format field inside of another is not supported");
    at = end + 1;
    const size_t colon = field.find(':');
    const std::string_view specification = colon == std::string_view::npos ? "" : field.substr(colon + 1);
    field = field.substr(0, colon);
    const size_t mark = field.find('!');
    const std::string_view conversion = mark == std::string_view::npos ? "" : field.substr(mark + 1);
    Value value = field_value(run, field.substr(0, mark), arguments, automatic);
    if (conversion == "r") {
      value = Value(to_repr(run, value));
    } else if (conversion == "s") {
      value = Value(to_text(run, value));
    } else if (mark != std::string_view::npos) {
      fail("the conversion '!", conversion, "' of a format field is not supported");
    }
    out += formatted(run, value, specification).text();
  }
  return Value(std::move(out));
}

Value format_percent(Interpreter& run, std::string_view format, const Value& values) {
  const bool is_tuple = values.is(Kind::kSequence) && values.sequence()->shape == Shape::kTuple;
  const Items items = is_tuple ? values.sequence()->items : Items{values};
  size_t used = 0;
  bool by_name = false;
  std::string out;
  for (size_t at = 0; at < format.size();) {
    if (format[at] != '%') {
      const size_t end = std::min(format.find('%', at), format.size());
      run.budget().bytes(end - at);
      out += format.substr(at, end - at);
      at = end;
      continue;
    }
    if (++at >= format.size()) fail("incomplete format");
    std::optional<Value> named;
    if (format[at] == '(') {
      const size_t end = format.find(')', at);
      if (end == std::string_view::npos) fail("incomplete format key");
      if (!values.is(Kind::kDict)) fail("format requires a mapping");
      const std::string_view key = format.substr(at + 1, end - at - 1);
      const Value* found = values.dict().find(run.budget(), key);
      if (found == nullptr) fail("the mapping has no key '", key, "'");
      named = *found;
      by_name = true;
      at = end + 1;
    }
    Specification spec;
    for (; at < format.size() && std::string_view("#0- +").find(format[at]) != std::string_view::npos; ++at) {
      switch (format[at]) {
        case '#':
          spec.alternate = true;
          break;
        case '-':
          spec.align = '<';
          break;
        case '0':
          if (spec.align == 0) spec.align = '=';
          break;
        default:
          spec.sign = format[at] == '+' || spec.sign == '+' ? '+' : ' ';
      }
    }
    if (spec.align == '=') spec.fill = "0";
    spec.width = read_number(format, at, kMaxWidth, "width");
    if (at < format.size() && format[at] == '.') spec.precision = read_number(format, ++at, kMaxPrecision, "precision");
    while (at < format.size() && (format[at] == 'l' || format[at] == 'h' || format[at] == 'L')) ++at;
    if (at >= format.size()) fail("incomplete format");
    const char type = format[at++];
    if (type == '%') {
      out += '%';
      continue;
    }
    if (!named && used >= items.size()) fail("not enough arguments for format string");
    const Value& value = named ? *named : items[used++];
    switch (type) {
      case 's':
      case 'r':
      case 'c': {
        if (type == 'c' && !(value.is_text() && character_count(value.text()) == 1)) fail("%c requires a single character");
        if (spec.align == '=') spec.align = '>';
        spec.fill = " ";
        if (spec.align == 0) spec.align = '>';
        const Value text(type == 'r' ? to_repr(run, value) : to_text(run, value));
        const Specification& s = spec;
        out += formatted(run, text, concat(std::string(1, s.align), s.width, s.precision >= 0 ? concat(".", s.precision) : ""))
                   .text();
        break;
      }
      case 'd':
      case 'i':
      case 'u':
      case 'x':
      case 'X':
      case 'o': {
        if (value.is_undefined()) fail_undefined(value);
        const bool whole = type == 'd' || type == 'i' || type == 'u';
        if (!value.is_number() || (!whole && !value.is_integral())) {
          fail("%", std::string(1, type), " format: ", whole ? "a real number" : "an integer", " is required, not ",
               type_name(value));
        }
        if (value.is(Kind::kFloat) && !(std::fabs(value.number()) < 1e30)) fail("cannot convert this float to an integer");
        spec.type = whole ? 'd' : type;
        const int64_t digits = std::exchange(spec.precision, -1);
        Integer number = value.is_integral() ? value.integral() : static_cast<Integer>(value.number());
        if (digits > 0) {  // at least so many digits
          Specification inner = spec;
          inner.width = digits + (number < 0 || spec.sign != '-' ? 1 : 0);
          inner.fill = "0";
          inner.align = '=';
          const Value text = formatted_integer(run, number, inner);
          out += pad_text(run, text.text(), spec.width, " ", spec.align == '<' ? -1 : 1).text();
        } else {
          out += formatted_integer(run, number, spec).text();
        }
        break;
      }
      case 'f':
      case 'F':
      case 'e':
      case 'E':
      case 'g':
      case 'G':
        if (value.is_undefined()) fail_undefined(value);
        if (!value.is_number()) fail("must be real number, not ", type_name(value));
        spec.type = type;
        out += formatted_float(run, value.number(), spec).text();
        break;
      default:
        fail("unsupported format character '", std::string(1, type), "'");
    }
  }
  // Python takes whatever can be indexed for a mapping, of which nothing has to be used.
  const bool mapping = values.is(Kind::kDict) || values.is_undefined() || (values.is(Kind::kSequence) && !is_tuple);
  if (used < items.size() && !by_name && !mapping) fail("not all arguments converted during string formatting");
  return Value(std::move(out));
}

Value pad_text(Interpreter& run, std::string_view text, int64_t width, std::string_view fill, int side) {
  const auto length = static_cast<int64_t>(character_count(text));
  run.budget().bytes(text.size());
  if (width <= length) return Value(text);
  const int64_t pad = width - length;
  if (pad > static_cast<int64_t>(kMaxBytes)) fail_exhausted("a text is padded to more than ", kMaxBytes, " characters");
  run.budget().bytes(static_cast<size_t>(pad) * fill.size());
  const int64_t left = side < 0 ? 0 : side > 0 ? pad : pad / 2 + (pad & width & 1);
  std::string out;
  for (int64_t i = 0; i < left; ++i) out += fill;
  out += text;
  for (int64_t i = left; i < pad; ++i) out += fill;
  return Value(std::move(out));
}

Value replace_text(Interpreter& run, std::string_view text, std::string_view old, std::string_view now, int64_t count) {
  run.budget().bytes(text.size());
  std::string out;
  size_t from = 0;
  if (old.empty()) {  // before every character and at the end
    while (count != 0) {
      run.budget().bytes(now.size());
      out += now;
      if (count > 0) --count;
      if (from >= text.size()) break;
      const auto length = static_cast<size_t>(tokenizer::utf8_length(static_cast<unsigned char>(text[from])));
      out += text.substr(from, length);
      from += length;
    }
  } else {
    for (size_t at; count != 0 && (at = find_first(text, old, from)) != std::string_view::npos; --count) {
      run.budget().bytes(now.size());
      out += text.substr(from, at - from);
      out += now;
      from = at + old.size();
    }
  }
  out += text.substr(std::min(from, text.size()));
  return Value(std::move(out));
}

}  // namespace invar::jinja
