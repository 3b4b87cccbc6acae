// Filters that make or change numbers, and default.
#include <charconv>
#include <cmath>
#include <limits>

#include "absl/strings/ascii.h"
#include "absl/strings/str_format.h"
#include "runtime/chat_template/filters.h"
#include "runtime/chat_template/operators.h"
#include "runtime/chat_template/parameters.h"
#include "runtime/chat_template/text.h"

namespace invar::jinja {
namespace {

// A single underscore may stand between digits; nullopt if one stands elsewhere.
std::optional<std::string> without_underscores(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '_') {
      out += text[i];
    } else if (i == 0 || i + 1 == text.size() || !absl::ascii_isalnum(static_cast<unsigned char>(text[i - 1])) ||
               !absl::ascii_isalnum(static_cast<unsigned char>(text[i + 1]))) {
      return std::nullopt;
    }
  }
  return out;
}

// int(text, base) of Python; nullopt where it raises ValueError.
std::optional<Integer> read_integer(std::string_view written, int64_t base) {
  auto text = without_underscores(strip(written, true, true));
  if (!text || text->empty()) return std::nullopt;
  std::string_view digits = *text;
  const bool negative = digits[0] == '-';
  if (negative || digits[0] == '+') digits.remove_prefix(1);
  const auto prefixed = [&](char letter) {
    return digits.size() > 2 && digits[0] == '0' && absl::ascii_tolower(static_cast<unsigned char>(digits[1])) == letter;
  };
  for (const auto& [letter, its_base] : {std::pair{'x', 16}, std::pair{'o', 8}, std::pair{'b', 2}}) {
    if (!prefixed(letter) || (base != 0 && base != its_base)) continue;
    digits.remove_prefix(2);
    base = its_base;
    break;
  }
  if (base == 0) {
    if (digits.size() > 1 && digits[0] == '0' && digits.find_first_not_of('0') != std::string_view::npos) return std::nullopt;
    base = 10;
  }
  if (digits.empty()) return std::nullopt;
  Integer value = 0;
  for (const char c : digits) {
    const auto byte = static_cast<unsigned char>(c);
    const int digit = absl::ascii_isdigit(byte) ? c - '0' : absl::ascii_isalpha(byte) ? absl::ascii_tolower(byte) - 'a' + 10 : 99;
    if (digit >= base) return std::nullopt;
    if (__builtin_mul_overflow(value, Integer{base}, &value) || __builtin_add_overflow(value, Integer{digit}, &value))
      fail("an integer became too large");
  }
  return negative ? -value : value;
}

std::optional<double> read_float(std::string_view written) {
  const auto text = without_underscores(strip(written, true, true));
  if (!text || text->empty()) return std::nullopt;
  std::string_view digits = *text;
  const bool negative = digits[0] == '-';
  if (negative || digits[0] == '+') digits.remove_prefix(1);
  const std::string small = lower(digits);
  double value = 0;
  if (small == "inf" || small == "infinity") {
    value = std::numeric_limits<double>::infinity();
  } else if (small == "nan") {
    value = std::numeric_limits<double>::quiet_NaN();
  } else {
    if (digits.empty() || (!absl::ascii_isdigit(static_cast<unsigned char>(digits[0])) && digits[0] != '.')) return std::nullopt;
    const auto read = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    if (read.ptr != digits.data() + digits.size() || read.ec == std::errc::invalid_argument) return std::nullopt;
    // Out of range: infinite if it is large, which the first digits do not tell; 1e-999 is zero.
    if (read.ec == std::errc::result_out_of_range)
      value = small.find("e-") != std::string::npos ? 0 : std::numeric_limits<double>::infinity();
  }
  return negative ? -value : value;
}

std::optional<Integer> whole(double value) {
  if (!(std::fabs(value) < 1e38)) return std::nullopt;
  return static_cast<Integer>(value);
}

Value to_integer(Interpreter&, const Value& subject, const Arguments& arguments) {
  const Parameters given("int", arguments, {"default", "base"});
  if (subject.is_undefined()) fail_undefined(subject);
  std::optional<Integer> value;
  if (subject.is_integral()) {
    value = subject.integral();
  } else if (subject.is(Kind::kFloat)) {
    value = whole(subject.number());
  } else if (subject.is_text()) {
    const int64_t base = given.integer(1, 10);
    if (base == 0 || (base >= 2 && base <= 36)) value = read_integer(subject.text(), base);
    if (!value) {
      if (const auto number = read_float(subject.text())) value = whole(*number);
    }
  }
  return value ? Value(*value) : given.has(0) ? given[0] : Value(Integer{0});
}

Value to_float(Interpreter&, const Value& subject, const Arguments& arguments) {
  const Parameters given("float", arguments, {"default"});
  if (subject.is_undefined()) fail_undefined(subject);
  std::optional<double> value;
  if (subject.is_number()) value = subject.number();
  if (subject.is_text()) value = read_float(subject.text());
  return value ? Value(*value) : given.has(0) ? given[0] : Value(0.0);
}

Value absolute(Interpreter&, const Value& subject, const Arguments& arguments) {
  const Parameters none("abs", arguments, {});
  if (subject.is_undefined()) fail_undefined(subject);
  if (subject.is(Kind::kFloat)) return Value(std::fabs(subject.number()));
  if (!subject.is_integral()) fail("bad operand type for abs(): '", type_name(subject), "'");
  return subject.integral() < 0 ? negated(subject) : Value(subject.integral());
}

Value rounded(Interpreter& run, const Value& subject, const Arguments& arguments) {
  const Parameters given("round", arguments, {"precision", "method"});
  if (subject.is_undefined()) fail_undefined(subject);
  if (!subject.is_number()) fail("round wants a number, not '", type_name(subject), "'");
  const int64_t precision = given.integer(0, 0);
  const std::string_view method = given.text(1, "common");
  if (precision < -300 || precision > 300) fail("round: precision ", precision, " is not between -300 and 300");
  const double value = subject.number();
  if (method == "ceil" || method == "floor") {
    const Value scale = precision >= 0 ? binary(run, Operator::kPower, precision > 30 ? Value(10.0) : Value(Integer{10}),
                                                Value(Integer{precision}))
                                       : Value(std::pow(10.0, static_cast<double>(precision)));
    const double scaled = binary(run, Operator::kMultiply, subject, scale).number();
    return binary(run, Operator::kDivide, Value(method == "ceil" ? std::ceil(scaled) : std::floor(scaled)), scale);
  }
  if (method != "common") fail("round: the method '", method, "' is none of common, ceil, floor");
  if (precision >= 0) {
    if (subject.is_integral()) return Value(subject.integral());
    if (!std::isfinite(value)) return subject;
    // Written out with so many digits, a float is rounded by its exact value, ties to even, as Python does it.
    const std::string digits = absl::StrFormat("%.*f", static_cast<int>(precision), value);
    double result = 0;
    std::from_chars(digits.data(), digits.data() + digits.size(), result);
    return Value(result);
  }
  const double scale = std::pow(10.0, static_cast<double>(-precision));
  const double result = std::nearbyint(value / scale) * scale;
  if (!subject.is_integral()) return Value(result);
  return Value(whole(result).value_or(0));
}

Value default_value(Interpreter&, const Value& subject, const Arguments& arguments) {
  const Parameters given("default", arguments, {"default_value", "boolean"});
  const bool absent = subject.is_undefined() || (given.flag(1) && !truthy(subject));
  return !absent ? subject : given.has(0) ? given[0] : Value(std::string());
}

}  // namespace

std::vector<FilterEntry> number_filters() {
  return {
      {"abs", absolute},   {"d", default_value}, {"default", default_value},
      {"float", to_float}, {"int", to_integer},  {"round", rounded},
  };
}

}  // namespace invar::jinja
