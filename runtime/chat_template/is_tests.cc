#include "runtime/chat_template/is_tests.h"

#include "runtime/chat_template/filters.h"
#include "runtime/chat_template/operators.h"
#include "runtime/chat_template/parameters.h"
#include "runtime/chat_template/show.h"
#include "runtime/chat_template/text.h"

namespace invar::jinja {
namespace {

// A test of the value alone.
template <bool (*holds)(const Value&)>
bool plain(Interpreter&, const Value& subject, const Arguments& arguments) {
  const Parameters none("the test", arguments, {});
  return holds(subject);
}

bool is_undefined(const Value& v) { return v.is_undefined(); }
bool is_defined(const Value& v) { return !v.is_undefined(); }
bool is_none(const Value& v) { return v.is_none(); }
bool is_boolean(const Value& v) { return v.is(Kind::kBool); }
bool is_true(const Value& v) { return v.is(Kind::kBool) && v.boolean(); }
bool is_false(const Value& v) { return v.is(Kind::kBool) && !v.boolean(); }
bool is_integer(const Value& v) { return v.is(Kind::kInteger); }
bool is_float(const Value& v) { return v.is(Kind::kFloat); }
bool is_number(const Value& v) { return v.is_number(); }
bool is_string(const Value& v) { return v.is_text(); }
bool is_mapping(const Value& v) { return v.is(Kind::kDict); }
bool is_iterable(const Value& v) { return v.is_text() || v.is(Kind::kDict) || v.is(Kind::kSequence) || v.is_undefined(); }
bool is_callable(const Value& v) { return v.is_undefined() || (v.is(Kind::kObject) && v.object().callable()); }
bool is_escaped(const Value&) { return false; }
// What has a length and can be indexed: also text and dicts.
bool is_sequence(const Value& v) {
  if (!v.is(Kind::kSequence)) return v.is_text() || v.is(Kind::kDict) || v.is_undefined();
  const Shape shape = v.sequence()->shape;
  return shape == Shape::kList || shape == Shape::kTuple || shape == Shape::kRange;
}

template <Comparison comparison>
bool compares(Interpreter& run, const Value& subject, const Arguments& arguments) {
  const Parameters given("the test", arguments, {"other"}, 1);
  return compare(run, comparison, subject, given[0]);
}

bool same_as(Interpreter&, const Value& subject, const Arguments& arguments) {
  const Parameters given("sameas", arguments, {"other"}, 1);
  return subject.same_object(given[0]);
}

bool divisible(Interpreter& run, const Value& subject, const Value& by, Integer rest) {
  return equal(run, binary(run, Operator::kModulo, subject, by), Value(rest));
}
bool is_odd(Interpreter& run, const Value& subject, const Arguments& arguments) {
  const Parameters none("odd", arguments, {});
  return divisible(run, subject, Value(Integer{2}), 1);
}
bool is_even(Interpreter& run, const Value& subject, const Arguments& arguments) {
  const Parameters none("even", arguments, {});
  return divisible(run, subject, Value(Integer{2}), 0);
}
bool divisible_by(Interpreter& run, const Value& subject, const Arguments& arguments) {
  const Parameters given("divisibleby", arguments, {"num"}, 1);
  return divisible(run, subject, given[0], 0);
}

template <bool want_upper>
bool in_case(Interpreter& run, const Value& subject, const Arguments& arguments) {
  const Parameters none(want_upper ? "upper" : "lower", arguments, {});
  const std::string text = to_text(run, subject);
  run.budget().bytes(text.size() * 4);
  bool known = false;
  return is_class(text, want_upper ? "isupper" : "islower", known);
}

bool is_filter(Interpreter& run, const Value& subject, const Arguments& arguments) {
  const Parameters none("filter", arguments, {});
  if (subject.is_text()) run.budget().steps(subject.text().size() / 64);
  return subject.is_text() && find_filter(subject.text()) != nullptr;
}
bool is_test(Interpreter&, const Value& subject, const Arguments& arguments) {
  const Parameters none("test", arguments, {});
  return subject.is_text() && find_test(subject.text()) != nullptr;
}

constexpr TestEntry kTests[] = {
    {"!=", compares<Comparison::kUnequal>},
    {"<", compares<Comparison::kLess>},
    {"<=", compares<Comparison::kLessEqual>},
    {"==", compares<Comparison::kEqual>},
    {">", compares<Comparison::kGreater>},
    {">=", compares<Comparison::kGreaterEqual>},
    {"boolean", plain<is_boolean>},
    {"callable", plain<is_callable>},
    {"defined", plain<is_defined>},
    {"divisibleby", divisible_by},
    {"eq", compares<Comparison::kEqual>},
    {"equalto", compares<Comparison::kEqual>},
    {"escaped", plain<is_escaped>},
    {"even", is_even},
    {"false", plain<is_false>},
    {"filter", is_filter},
    {"float", plain<is_float>},
    {"ge", compares<Comparison::kGreaterEqual>},
    {"greaterthan", compares<Comparison::kGreater>},
    {"gt", compares<Comparison::kGreater>},
    {"in", compares<Comparison::kIn>},
    {"integer", plain<is_integer>},
    {"iterable", plain<is_iterable>},
    {"le", compares<Comparison::kLessEqual>},
    {"lessthan", compares<Comparison::kLess>},
    {"lower", in_case<false>},
    {"lt", compares<Comparison::kLess>},
    {"mapping", plain<is_mapping>},
    {"ne", compares<Comparison::kUnequal>},
    {"none", plain<is_none>},
    {"number", plain<is_number>},
    {"odd", is_odd},
    {"sameas", same_as},
    {"sequence", plain<is_sequence>},
    {"string", plain<is_string>},
    {"test", is_test},
    {"true", plain<is_true>},
    {"undefined", plain<is_undefined>},
    {"upper", in_case<true>},
};

}  // namespace

const TestEntry* find_test(std::string_view name) {
  for (const TestEntry& entry : kTests) {
    if (entry.name == name) return &entry;
  }
  return nullptr;
}

}  // namespace invar::jinja
