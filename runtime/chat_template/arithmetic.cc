// Operators on numbers, text and lists.
#include <cmath>

#include "runtime/chat_template/format.h"
#include "runtime/chat_template/operators.h"

namespace invar::jinja {
namespace {

constexpr std::string_view kSigns[] = {"+", "-", "*", "/", "//", "%", "** or pow()"};

[[noreturn]] void fail_types(Operator op, const Value& a, const Value& b) {
  fail("unsupported operand type(s) for ", kSigns[static_cast<size_t>(op)], ": '", type_name(a), "' and '", type_name(b), "'");
}

[[noreturn]] void fail_large() { fail("an integer became too large"); }

Integer integer_power(Integer base, Integer exponent) {
  Integer result = 1;
  while (exponent > 0) {
    if ((exponent & 1) && __builtin_mul_overflow(result, base, &result)) fail_large();
    exponent >>= 1;
    // 0, 1 and -1 stay small; anything else overflows before the exponent has many digits.
    if (exponent > 0 && __builtin_mul_overflow(base, base, &base)) fail_large();
  }
  return result;
}

Value integers(Operator op, Integer a, Integer b) {
  Integer result = 0;
  switch (op) {
    case Operator::kAdd:
      if (__builtin_add_overflow(a, b, &result)) fail_large();
      return Value(result);
    case Operator::kSubtract:
      if (__builtin_sub_overflow(a, b, &result)) fail_large();
      return Value(result);
    case Operator::kMultiply:
      if (__builtin_mul_overflow(a, b, &result)) fail_large();
      return Value(result);
    case Operator::kDivide:
      if (b == 0) fail("division by zero");
      return Value(static_cast<double>(a) / static_cast<double>(b));
    case Operator::kFloorDivide:
    case Operator::kModulo: {
      if (b == 0) fail(op == Operator::kModulo ? "integer modulo by zero" : "integer division or modulo by zero");
      if (b == -1) {  // the smallest integer has no opposite
        if (op == Operator::kModulo) return Value(Integer{0});
        if (__builtin_sub_overflow(Integer{0}, a, &result)) fail_large();
        return Value(result);
      }
      const bool down = a % b != 0 && (a < 0) != (b < 0);
      return Value(op == Operator::kModulo ? a % b + (down ? b : 0) : a / b - (down ? 1 : 0));
    }
    case Operator::kPower:
      if (b < 0) {
        if (a == 0) fail("0.0 cannot be raised to a negative power");
        return Value(std::pow(static_cast<double>(a), static_cast<double>(b)));
      }
      return Value(integer_power(a, b));
  }
  return Value();
}

Value floats(Operator op, double a, double b) {
  switch (op) {
    case Operator::kAdd:
      return Value(a + b);
    case Operator::kSubtract:
      return Value(a - b);
    case Operator::kMultiply:
      return Value(a * b);
    case Operator::kDivide:
      if (b == 0) fail("float division by zero");
      return Value(a / b);
    case Operator::kFloorDivide:
    case Operator::kModulo: {
      if (b == 0) fail(op == Operator::kModulo ? "float modulo" : "float floor division by zero");
      double rest = std::fmod(a, b);
      double quotient = (a - rest) / b;
      if (rest != 0 && (b < 0) != (rest < 0)) {
        rest += b;
        quotient -= 1;
      }
      if (op == Operator::kModulo) return Value(rest == 0 ? std::copysign(0.0, b) : rest);
      if (quotient == 0) return Value(std::copysign(0.0, a / b));
      double floor = std::floor(quotient);
      if (quotient - floor > 0.5) floor += 1;
      return Value(floor);
    }
    case Operator::kPower: {
      if (a == 0 && b < 0) fail("0.0 cannot be raised to a negative power");
      if (a < 0 && b != std::floor(b)) fail("a root of a negative number is not supported");
      const double result = std::pow(a, b);
      if (std::isinf(result) && !std::isinf(a) && !std::isinf(b)) fail("a power became too large");
      return Value(result);
    }
  }
  return Value();
}

Value repeated(Interpreter& run, const Value& value, Integer times) {
  if (times < 0) times = 0;
  const auto pay = [&](size_t size) {
    if (times > static_cast<Integer>(kMaxBytes)) times = static_cast<Integer>(kMaxBytes);  // more than any budget
    const Integer whole = times * static_cast<Integer>(size);
    run.budget().bytes(whole > static_cast<Integer>(kMaxBytes) ? kMaxBytes + 1 : static_cast<size_t>(whole));
  };
  if (value.is_text()) {
    if (value.text().empty()) times = 0;
    pay(value.text().size());
    std::string out;
    for (Integer i = 0; i < times; ++i) out += value.text();
    return Value(std::move(out));
  }
  const Sequence& s = *value.sequence();
  if (s.items.empty()) times = 0;
  pay(s.items.size() * sizeof(Value));
  Items out;
  for (Integer i = 0; i < times; ++i) out.insert(out.end(), s.items.begin(), s.items.end());
  return make_sequence(run.budget(), std::move(out), s.shape);
}

bool is_list(const Value& v) {
  return v.is(Kind::kSequence) && (v.sequence()->shape == Shape::kList || v.sequence()->shape == Shape::kTuple);
}

Value added(Interpreter& run, const Value& a, const Value& b) {
  if (a.is_text()) {
    if (!b.is_text()) fail("can only concatenate str (not \"", type_name(b), "\") to str");
    run.budget().bytes(a.text().size() + b.text().size());
    return Value(a.text() + b.text());
  }
  if (is_list(a)) {
    if (!is_list(b) || a.sequence()->shape != b.sequence()->shape) {
      fail("can only concatenate ", type_name(a), " (not \"", type_name(b), "\") to ", type_name(a));
    }
    run.budget().bytes((a.sequence()->items.size() + b.sequence()->items.size()) * sizeof(Value));
    Items all = a.sequence()->items;
    all.insert(all.end(), b.sequence()->items.begin(), b.sequence()->items.end());
    return make_sequence(run.budget(), std::move(all), a.sequence()->shape);
  }
  fail_types(Operator::kAdd, a, b);
}

}  // namespace

Value binary(Interpreter& run, Operator op, const Value& left, const Value& right) {
  if (left.is_undefined()) fail_undefined(left);
  if (op == Operator::kModulo && left.is_text()) return format_percent(run, left.text(), right);
  if (right.is_undefined()) fail_undefined(right);
  if (left.is_number() && right.is_number()) {
    if (left.is_integral() && right.is_integral()) return integers(op, left.integral(), right.integral());
    return floats(op, left.number(), right.number());
  }
  if (op == Operator::kAdd) return added(run, left, right);
  if (op == Operator::kMultiply) {
    if ((left.is_text() || is_list(left)) && right.is_integral()) return repeated(run, left, right.integral());
    if ((right.is_text() || is_list(right)) && left.is_integral()) return repeated(run, right, left.integral());
    if (left.is_text() || is_list(left)) fail("can't multiply sequence by non-int of type '", type_name(right), "'");
  }
  fail_types(op, left, right);
}

Value negated(const Value& value) {
  if (value.is_undefined()) fail_undefined(value);
  if (value.is(Kind::kFloat)) return Value(-value.number());
  if (!value.is_integral()) fail("bad operand type for unary -: '", type_name(value), "'");
  return integers(Operator::kSubtract, 0, value.integral());
}

Value positive(const Value& value) {
  if (value.is_undefined()) fail_undefined(value);
  if (value.is(Kind::kFloat)) return value;
  if (!value.is_integral()) fail("bad operand type for unary +: '", type_name(value), "'");
  return Value(value.integral());
}

}  // namespace invar::jinja
