#include "runtime/chat_template/value.h"

#include <cmath>

#include "runtime/chat_template/show.h"
#include "runtime/chat_template/text.h"

namespace invar::jinja {
namespace {

constexpr size_t kSearchedInOrder = 8;  // entries of a dict that are looked through faster than hashed

bool same_key(const Value& a, const Value& b) {
  if (a.is_text() && b.is_text()) return a.text() == b.text();
  if (a.is_text() || b.is_text()) return false;
  const auto x = key_text(a), y = key_text(b);
  return x && y && *x == *y;
}

}  // namespace

std::optional<Value> Object::attribute(Interpreter&, std::string_view) { return std::nullopt; }
std::optional<Value> Object::call_method(Interpreter&, std::string_view, const Arguments&) { return std::nullopt; }
Value Object::call(Interpreter&, const Arguments&) { fail("'", type_name(), "' object is not callable"); }

std::optional<std::string> key_text(const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined:
      return "u";
    case Kind::kNone:
      return "n";
    case Kind::kBool:
    case Kind::kInteger:
      return concat("i", integer_text(value.integral()));
    case Kind::kFloat: {
      const double number = value.number();
      // An integral float equals the integer.
      if (number == std::floor(number) && std::fabs(number) < 1e30) {
        return concat("i", integer_text(static_cast<Integer>(number)));
      }
      return concat("f", float_text(number));
    }
    case Kind::kText:
      return concat("s", value.text());
    case Kind::kSequence: {
      const Sequence& s = *value.sequence();
      if (s.shape != Shape::kTuple) return std::nullopt;
      std::string whole = "t";
      for (const Value& item : s.items) {
        const auto part = key_text(item);
        if (!part) return std::nullopt;
        whole += concat(part->size(), ":", *part);
        // Also bounds tuples of tuples that share their parts, whose texts grow without end.
        if (whole.size() > kMaxTupleKey) fail_exhausted("a tuple used as a key is longer than ", kMaxTupleKey, " bytes");
      }
      return whole;
    }
    case Kind::kDict:
      return std::nullopt;
    case Kind::kObject:
      return concat("o", reinterpret_cast<uintptr_t>(&value.object()));
  }
  return std::nullopt;
}

void check_hashable(const Value& value) {
  const bool never = value.is(Kind::kDict) || (value.is(Kind::kSequence) && !key_text(value));
  if (never) fail("unhashable type: '", type_name(value), "'");
}

const Value* Dict::find(Budget& budget, const Value& key) const {
  if (key.is_text()) return find(budget, std::string_view(key.text()));
  budget.steps(key.is(Kind::kSequence) ? 64 : 4);
  if (places.empty()) {
    for (const auto& [name, value] : entries) {
      if (same_key(name, key)) return &value;
    }
    return nullptr;
  }
  const auto text = key_text(key);
  const auto at = text ? places.find(*text) : places.end();
  return at == places.end() ? nullptr : &entries[at->second].second;
}

const Value* Dict::find(Budget& budget, std::string_view key) const {
  budget.steps(key.size() / 64);
  if (places.empty()) {
    for (const auto& [name, value] : entries) {
      if (name.is_text() && name.text() == key) return &value;
    }
    return nullptr;
  }
  const auto at = places.find(concat("s", key));
  return at == places.end() ? nullptr : &entries[at->second].second;
}

void DictMaker::set(const Value& key, Value value) {
  check_hashable(key);
  const auto text = key_text(key);
  budget_.bytes(sizeof(Value) * 2 + text->size());
  dict_->depth = std::max(dict_->depth, depth_of(value));
  if (const Value* there = dict_->find(budget_, key)) {
    *const_cast<Value*>(there) = std::move(value);
    return;
  }
  dict_->entries.emplace_back(key, std::move(value));
  if (dict_->entries.size() <= kSearchedInOrder) return;
  if (dict_->places.empty()) {
    for (size_t i = 0; i + 1 < dict_->entries.size(); ++i) dict_->places.emplace(*key_text(dict_->entries[i].first), i);
  }
  dict_->places.emplace(*text, dict_->entries.size() - 1);
}

Value DictMaker::done() {
  if (++dict_->depth > kMaxValueDepth) fail_exhausted("a value is nested deeper than ", kMaxValueDepth, " levels");
  return Value(std::shared_ptr<const Dict>(std::move(dict_)));
}

Value make_sequence(Budget& budget, Items items, Shape shape) {
  budget.bytes(sizeof(Sequence) + items.size() * sizeof(Value));
  int depth = 0;
  for (const Value& item : items) depth = std::max(depth, depth_of(item));
  if (++depth > kMaxValueDepth) fail_exhausted("a value is nested deeper than ", kMaxValueDepth, " levels");
  return Value(std::make_shared<const Sequence>(Sequence{shape, std::move(items), depth, {}, 0}));
}

Value make_text(Budget& budget, std::string text) {
  budget.bytes(text.size());
  return Value(std::move(text));
}

int depth_of(const Value& value) {
  if (value.is(Kind::kSequence)) return value.sequence()->depth;
  return value.is(Kind::kDict) ? value.dict().depth : 0;
}

bool truthy(const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined:
    case Kind::kNone:
      return false;
    case Kind::kBool:
      return value.boolean();
    case Kind::kInteger:
      return value.integral() != 0;
    case Kind::kFloat:
      return value.number() != 0;
    case Kind::kText:
      return !value.text().empty();
    // A generator has no length: it is true even if nothing comes out of it.
    case Kind::kSequence:
      return value.sequence()->shape == Shape::kGenerator || !value.sequence()->items.empty();
    case Kind::kDict:
      return !value.dict().entries.empty();
    case Kind::kObject:
      return true;
  }
  return false;
}

std::string_view type_name(const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined:
      return "Undefined";
    case Kind::kNone:
      return "NoneType";
    case Kind::kBool:
      return "bool";
    case Kind::kInteger:
      return "int";
    case Kind::kFloat:
      return "float";
    case Kind::kText:
      return "str";
    case Kind::kSequence: {
      constexpr std::string_view kNames[] = {"list", "tuple", "range", "generator", "dict_keys", "dict_values", "dict_items"};
      return kNames[static_cast<size_t>(value.sequence()->shape)];
    }
    case Kind::kDict:
      return "dict";
    case Kind::kObject:
      return value.object().type_name();
  }
  return "";
}

void fail_undefined(const Value& value) { fail(value.why_undefined()); }

std::shared_ptr<const Sequence> iterate(Budget& budget, const Value& value) {
  const auto list_of = [&](Items items) { return make_sequence(budget, std::move(items)).sequence(); };
  switch (value.kind()) {
    case Kind::kUndefined:
      return list_of({});
    case Kind::kSequence:
      return value.sequence();
    case Kind::kText: {
      const std::string& text = value.text();
      budget.bytes(text.size() * sizeof(Value) * 2);
      Items characters;
      for (size_t at = 0; at < text.size();) {
        size_t end = at + 1;
        while (end < text.size() && (text[end] & 0xC0) == 0x80) ++end;
        characters.emplace_back(std::string_view(text).substr(at, end - at));
        at = end;
      }
      return list_of(std::move(characters));
    }
    case Kind::kDict: {
      Items keys;
      for (const auto& [key, unused] : value.dict().entries) keys.push_back(key);
      return list_of(std::move(keys));
    }
    default:
      fail("'", type_name(value), "' object is not iterable");
  }
}

Items items_of(Budget& budget, const Value& value) {
  const auto sequence = iterate(budget, value);
  budget.bytes(sequence->items.size() * sizeof(Value));
  if (sequence->shape != Shape::kGenerator) return sequence->items;
  const size_t from = std::exchange(sequence->given, sequence->items.size());
  return Items(sequence->items.begin() + static_cast<std::ptrdiff_t>(from), sequence->items.end());
}

size_t length_of(Budget& budget, const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined:
      return 0;
    case Kind::kText:
      budget.steps(value.text().size() / 256);
      return character_count(value.text());
    case Kind::kDict:
      return value.dict().entries.size();
    case Kind::kSequence:
      if (value.sequence()->shape != Shape::kGenerator) return value.sequence()->items.size();
      [[fallthrough]];
    default:
      fail("object of type '", type_name(value), "' has no len()");
  }
}

}  // namespace invar::jinja
