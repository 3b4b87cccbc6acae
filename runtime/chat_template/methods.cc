#include "runtime/chat_template/methods.h"

#include <algorithm>
#include <cmath>

#include "runtime/chat_template/operators.h"
#include "runtime/chat_template/parameters.h"

namespace invar::jinja {
namespace {

struct Named {
  std::string_view name;
  Method method;
};

Value view(Interpreter& run, const Dict& dict, Shape shape) {
  Items items;
  for (const auto& [key, value] : dict.entries) {
    items.push_back(shape == Shape::kKeys     ? key
                    : shape == Shape::kValues ? value
                                              : make_sequence(run.budget(), {key, value}, Shape::kTuple));
  }
  return make_sequence(run.budget(), std::move(items), shape);
}

Value dict_get(Interpreter& run, const Value& dict, const Arguments& arguments) {
  const Parameters given("get", arguments, {"key", "default"}, 1);
  check_hashable(given[0]);
  const Value* found = dict.dict().find(run.budget(), given[0]);
  return found != nullptr ? *found : given[1];
}
template <Shape shape>
Value dict_view(Interpreter& run, const Value& dict, const Arguments& arguments) {
  const Parameters none(shape == Shape::kKeys ? "keys" : shape == Shape::kValues ? "values" : "items", arguments, {});
  return view(run, dict.dict(), shape);
}
Value copy(Interpreter&, const Value& value, const Arguments& arguments) {
  const Parameters none("copy", arguments, {});
  return value;  // values never change, so the copy is the value
}

constexpr Named kDictMethods[] = {{"get", dict_get},
                                  {"keys", dict_view<Shape::kKeys>},
                                  {"values", dict_view<Shape::kValues>},
                                  {"items", dict_view<Shape::kItems>},
                                  {"copy", copy}};
constexpr std::string_view kDictChanges[] = {"clear", "pop", "popitem", "setdefault", "update"};

Value list_count(Interpreter& run, const Value& list, const Arguments& arguments) {
  const Parameters given("count", arguments, {"value"}, 1);
  const Items& items = list.sequence()->items;
  return Value(
      static_cast<Integer>(std::count_if(items.begin(), items.end(), [&](const Value& v) { return equal(run, v, given[0]); })));
}
Value list_index(Interpreter& run, const Value& list, const Arguments& arguments) {
  const Parameters given("index", arguments, {"value", "start", "stop"}, 1);
  const Items& items = list.sequence()->items;
  const auto size = static_cast<int64_t>(items.size());
  const auto bound = [&](size_t i, int64_t otherwise) {
    const int64_t at = given.integer(i, otherwise);
    return std::clamp<int64_t>(at < 0 ? at + size : at, 0, size);
  };
  for (int64_t i = bound(1, 0), stop = bound(2, size); i < stop; ++i) {
    if (equal(run, items[static_cast<size_t>(i)], given[0])) return Value(Integer{i});
  }
  fail("the value is not in the list");
}

constexpr Named kListMethods[] = {{"count", list_count}, {"index", list_index}, {"copy", copy}};
constexpr std::string_view kListChanges[] = {"append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort"};

Value is_integer(Interpreter&, const Value& number, const Arguments& arguments) {
  const Parameters none("is_integer", arguments, {});
  return Value(std::floor(number.number()) == number.number() && !std::isinf(number.number()));
}

constexpr Named kFloatMethods[] = {{"is_integer", is_integer}};

template <size_t N>
Method find(const Named (&table)[N], std::string_view name) {
  for (const auto& [known, method] : table) {
    if (known == name) return method;
  }
  return nullptr;
}

Method find_method(const Value& receiver, std::string_view name) {
  switch (receiver.kind()) {
    case Kind::kText:
      return find_text_method(name);
    case Kind::kDict:
      return find(kDictMethods, name);
    case Kind::kFloat:
      return find(kFloatMethods, name);
    case Kind::kSequence: {
      const Shape shape = receiver.sequence()->shape;
      if (shape == Shape::kList) return find(kListMethods, name);
      if ((shape == Shape::kTuple || shape == Shape::kRange) && name != "copy") return find(kListMethods, name);
      return nullptr;
    }
    default:
      return nullptr;
  }
}

bool would_change(const Value& receiver, std::string_view name) {
  const auto among = [&](const auto& names) { return std::find(std::begin(names), std::end(names), name) != std::end(names); };
  if (receiver.is(Kind::kDict)) return among(kDictChanges);
  return receiver.is(Kind::kSequence) && receiver.sequence()->shape == Shape::kList && among(kListChanges);
}

}  // namespace

bool has_method(const Value& receiver, std::string_view name) {
  return find_method(receiver, name) != nullptr || would_change(receiver, name);
}

Value run_method(Interpreter& run, const Value& receiver, std::string_view name, const Arguments& arguments) {
  run.budget().steps();
  const Method method = find_method(receiver, name);
  if (method == nullptr) {
    fail("access to attribute '", name, "' of '", type_name(receiver),
         "' object is unsafe: a template may not change its values");
  }
  return method(run, receiver, arguments);
}

}  // namespace invar::jinja
