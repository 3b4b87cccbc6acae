// Comparing values and reaching into them.
#include <algorithm>
#include <cmath>

#include "runtime/chat_template/globals.h"
#include "runtime/chat_template/methods.h"
#include "runtime/chat_template/operators.h"
#include "runtime/chat_template/show.h"
#include "runtime/chat_template/text.h"
#include "runtime/tokenizer/utf8.h"

namespace invar::jinja {
namespace {

std::string owner_name(const Value& value) { return value.is_none() ? "None" : concat(type_name(value), " object"); }

bool is_view(Shape shape) { return shape == Shape::kKeys || shape == Shape::kItems; }

bool equal_sequences(Interpreter& run, const Sequence& a, const Sequence& b) {
  if (&a == &b) return true;
  if (is_view(a.shape) && is_view(b.shape)) {  // as sets
    return a.items.size() == b.items.size() && std::all_of(a.items.begin(), a.items.end(), [&](const Value& x) {
             return std::any_of(b.items.begin(), b.items.end(), [&](const Value& y) { return equal(run, x, y); });
           });
  }
  if (a.shape != b.shape || a.shape == Shape::kGenerator || a.shape == Shape::kValues) return false;
  if (a.items.size() != b.items.size()) return false;
  for (size_t i = 0; i < a.items.size(); ++i) {
    if (!equal(run, a.items[i], b.items[i])) return false;
  }
  return true;
}

bool equal_dicts(Interpreter& run, const Dict& a, const Dict& b) {
  if (&a == &b) return true;
  if (a.entries.size() != b.entries.size()) return false;
  for (const auto& [key, value] : a.entries) {
    run.budget().steps();
    const Value* other = b.find(run.budget(), key);
    if (other == nullptr || !equal(run, value, *other)) return false;
  }
  return true;
}

// Where Python's slice begins, ends and goes.
struct Range {
  int64_t start, stop, step;
};
Range resolved(int64_t size, const Value& start, const Value& stop, const Value& step) {
  constexpr Integer kFar = int64_t{1} << 40;  // beyond any value's end
  const auto number = [&](const Value& v, int64_t otherwise) {
    return v.is_none() ? otherwise : static_cast<int64_t>(std::clamp<Integer>(v.integral(), -kFar, kFar));
  };
  Range r{0, 0, number(step, 1)};
  if (r.step == 0) fail("slice step cannot be zero");
  const int64_t low = r.step > 0 ? 0 : -1, high = r.step > 0 ? size : size - 1;
  const auto bound = [&](const Value& v, int64_t otherwise) {
    if (v.is_none()) return otherwise;
    const int64_t i = number(v, 0);
    return std::clamp(i < 0 ? i + size : i, low, high);
  };
  r.start = bound(start, r.step > 0 ? low : high);
  r.stop = bound(stop, r.step > 0 ? high : low);
  return r;
}

template <typename Visit>
void each_place(const Range& r, const Visit& visit) {
  if (r.step > 0) {
    for (int64_t i = r.start; i < r.stop; i += r.step) visit(static_cast<size_t>(i));
  } else {
    for (int64_t i = r.start; i > r.stop; i += r.step) visit(static_cast<size_t>(i));
  }
}

std::optional<Value> item_at(Interpreter& run, const Value& object, const Value& index) {
  if (object.is(Kind::kDict)) {
    const Value* found = object.dict().find(run.budget(), index);
    return found == nullptr ? std::nullopt : std::optional(*found);
  }
  if (!index.is_integral()) return std::nullopt;
  Integer i = index.integral();
  if (object.is_text()) {
    const std::string& text = object.text();
    run.budget().steps(text.size() / 256);
    const bool ascii = is_ascii(text);
    const auto size = static_cast<Integer>(ascii ? text.size() : character_count(text));
    if (i < 0) i += size;
    if (i < 0 || i >= size) return std::nullopt;
    if (ascii) return Value(std::string(1, text[static_cast<size_t>(i)]));
    run.budget().steps(text.size() / 8);  // all of it is decoded
    return Value(encode(decode(text).substr(static_cast<size_t>(i), 1)));
  }
  if (!object.is(Kind::kSequence)) return std::nullopt;
  const Sequence& s = *object.sequence();
  if (s.shape != Shape::kList && s.shape != Shape::kTuple && s.shape != Shape::kRange) return std::nullopt;
  if (i < 0) i += static_cast<Integer>(s.items.size());
  if (i < 0 || i >= static_cast<Integer>(s.items.size())) return std::nullopt;
  return s.items[static_cast<size_t>(i)];
}

}  // namespace

bool equal(Interpreter& run, const Value& a, const Value& b) {
  run.budget().steps();
  const auto held = run.deeper();
  if (a.is_number() && b.is_number()) {
    if (a.is_integral() && b.is_integral()) return a.integral() == b.integral();
    return a.number() == b.number();
  }
  if (a.kind() != b.kind()) return false;
  switch (a.kind()) {
    case Kind::kText:
      run.budget().steps(std::min(a.text().size(), b.text().size()) / 256);
      return a.text() == b.text();
    case Kind::kSequence:
      return equal_sequences(run, *a.sequence(), *b.sequence());
    case Kind::kDict:
      return equal_dicts(run, a.dict(), b.dict());
    case Kind::kObject:
      return &a.object() == &b.object();
    default:
      return true;  // none and none, undefined and undefined
  }
}

bool less(Interpreter& run, const Value& a, const Value& b, std::string_view sign) {
  run.budget().steps();
  const auto held = run.deeper();
  if (a.is_undefined()) fail_undefined(a);
  if (b.is_undefined()) fail_undefined(b);
  if (a.is_number() && b.is_number()) {
    if (a.is_integral() && b.is_integral()) return a.integral() < b.integral();
    return a.number() < b.number();
  }
  if (a.is_text() && b.is_text()) {
    run.budget().steps(std::min(a.text().size(), b.text().size()) / 256);
    return a.text() < b.text();  // bytes of UTF-8 sort as characters do
  }
  if (a.is(Kind::kSequence) && b.is(Kind::kSequence)) {
    const Sequence &x = *a.sequence(), &y = *b.sequence();
    if (x.shape == y.shape && (x.shape == Shape::kList || x.shape == Shape::kTuple)) {
      for (size_t i = 0; i < std::min(x.items.size(), y.items.size()); ++i) {
        if (!equal(run, x.items[i], y.items[i])) return less(run, x.items[i], y.items[i], sign);
      }
      return x.items.size() < y.items.size();
    }
  }
  fail("'", sign, "' not supported between instances of '", type_name(a), "' and '", type_name(b), "'");
}

bool compare(Interpreter& run, Comparison comparison, const Value& a, const Value& b) {
  const auto nan = [&] {
    return (a.is(Kind::kFloat) && std::isnan(a.number())) || (b.is(Kind::kFloat) && std::isnan(b.number()));
  };
  switch (comparison) {
    case Comparison::kEqual:
      return equal(run, a, b);
    case Comparison::kUnequal:
      return !equal(run, a, b);
    case Comparison::kLess:
      return less(run, a, b, "<");
    // Not the other way round, so that the message has the types in the order they are written in.
    case Comparison::kLessEqual:
      return (less(run, a, b, "<=") || equal(run, a, b)) && !nan();
    case Comparison::kGreater:
      return !less(run, a, b, ">") && !equal(run, a, b) && !nan();
    case Comparison::kGreaterEqual:
      return !less(run, a, b, ">=") && !nan();
    case Comparison::kIn:
      return contains(run, b, a);
    case Comparison::kNotIn:
      return !contains(run, b, a);
  }
  return false;
}

bool contains(Interpreter& run, const Value& container, const Value& item) {
  switch (container.kind()) {
    case Kind::kUndefined:
      return false;
    case Kind::kText:
      if (!item.is_text()) fail("'in <string>' requires string as left operand, not ", type_name(item));
      run.budget().steps((container.text().size() + item.text().size()) / 64);
      return find_first(container.text(), item.text()) != std::string_view::npos;
    case Kind::kDict:
      check_hashable(item);
      return container.dict().find(run.budget(), item) != nullptr;
    case Kind::kSequence: {
      const Sequence& s = *container.sequence();
      const bool once = s.shape == Shape::kGenerator;
      for (size_t i = once ? s.given : 0; i < s.items.size(); ++i) {
        if (once) s.given = i + 1;
        if (s.items[i].same_object(item) || equal(run, s.items[i], item)) return true;
      }
      return false;
    }
    default:
      fail("argument of type '", type_name(container), "' is not iterable");
  }
}

Value attribute_of(Interpreter& run, const Value& object, std::string_view name) {
  run.budget().steps(name.size() / 64);  // names are the template's, and may be a megabyte
  if (object.is_undefined()) fail_undefined(object);
  if (object.is(Kind::kObject)) {
    if (auto found = object.object().attribute(run, name)) return *std::move(found);
  } else if (has_method(object, name)) {
    return Value(run.keep<BoundMethod>(object, std::string(name)));
  } else if (object.is(Kind::kDict)) {
    if (const Value* found = object.dict().find(run.budget(), name)) return *found;
  }
  return Value::undefined(concat("'", owner_name(object), "' has no attribute '", name, "'"));
}

Value subscript(Interpreter& run, const Value& object, const Value& index) {
  if (object.is_undefined()) fail_undefined(object);
  if (auto found = item_at(run, object, index)) return *std::move(found);
  if (index.is_text()) return attribute_of(run, object, index.text());
  return Value::undefined(concat(owner_name(object), " has no element ", to_repr(run, index)));
}

Value slice(Interpreter& run, const Value& object, const Value& start, const Value& stop, const Value& step) {
  if (object.is_undefined()) fail_undefined(object);
  if (object.is(Kind::kDict)) fail("unhashable type: 'slice'");
  const bool sliceable =
      object.is(Kind::kSequence) && (object.sequence()->shape == Shape::kList || object.sequence()->shape == Shape::kTuple ||
                                     object.sequence()->shape == Shape::kRange);
  if (!object.is_text() && !sliceable) fail("'", type_name(object), "' object is not subscriptable");
  for (const Value* bound : {&start, &stop, &step}) {
    if (bound->is_undefined()) fail_undefined(*bound);
    if (!bound->is_none() && !bound->is_integral()) fail("slice indices must be integers or none, not '", type_name(*bound), "'");
  }
  if (object.is_text()) {
    const std::string& text = object.text();
    run.budget().bytes(text.size() * (is_ascii(text) ? 1 : 5));
    if (is_ascii(text)) {
      const Range r = resolved(static_cast<int64_t>(text.size()), start, stop, step);
      if (r.step == 1)
        return Value(r.start < r.stop ? text.substr(static_cast<size_t>(r.start), static_cast<size_t>(r.stop - r.start)) : "");
      std::string out;
      each_place(r, [&](size_t i) { out += text[i]; });
      return Value(std::move(out));
    }
    const std::u32string all = decode(text);
    std::u32string out;
    each_place(resolved(static_cast<int64_t>(all.size()), start, stop, step), [&](size_t i) { out += all[i]; });
    return Value(encode(out));
  }
  const Sequence& s = *object.sequence();
  Items out;
  each_place(resolved(static_cast<int64_t>(s.items.size()), start, stop, step), [&](size_t i) { out.push_back(s.items[i]); });
  return make_sequence(run.budget(), std::move(out), s.shape == Shape::kTuple ? Shape::kTuple : Shape::kList);
}

int64_t index_of(const Value& value, std::string_view what) {
  if (value.is_undefined()) fail_undefined(value);
  if (!value.is_integral()) fail(what, " is not an integer but '", type_name(value), "'");
  const Integer i = value.integral();
  if (i < INT64_MIN || i > INT64_MAX) fail(what, " is too large");
  return static_cast<int64_t>(i);
}

}  // namespace invar::jinja
