// Filters on lists, dicts and whatever else can be looped over.
#include <algorithm>

#include "runtime/chat_template/filters.h"
#include "runtime/chat_template/methods.h"
#include "runtime/chat_template/operators.h"
#include "runtime/chat_template/parameters.h"
#include "runtime/chat_template/show.h"
#include "runtime/chat_template/text.h"

namespace invar::jinja {
namespace {

Value generator(Interpreter& run, Items items) { return make_sequence(run.budget(), std::move(items), Shape::kGenerator); }

Value length(Interpreter& run, const Value& subject, const Arguments& arguments) {
  const Parameters none("length", arguments, {});
  return Value(static_cast<Integer>(length_of(run.budget(), subject)));
}

Value to_list(Interpreter& run, const Value& subject, const Arguments& arguments) {
  const Parameters none("list", arguments, {});
  return make_sequence(run.budget(), items_of(run.budget(), subject));
}

Value first(Interpreter& run, const Value& subject, const Arguments& arguments) {
  const Parameters none("first", arguments, {});
  const auto sequence = iterate(run.budget(), subject);
  const bool once = sequence->shape == Shape::kGenerator;
  const size_t at = once ? sequence->given : 0;
  if (at >= sequence->items.size()) return Value::undefined("No first item, sequence was empty.");
  if (once) sequence->given = at + 1;
  return sequence->items[at];
}

Value last(Interpreter& run, const Value& subject, const Arguments& arguments) {
  const Parameters none("last", arguments, {});
  if (subject.is(Kind::kSequence) && subject.sequence()->shape == Shape::kGenerator) fail("'generator' object is not reversible");
  const auto sequence = iterate(run.budget(), subject);
  return sequence->items.empty() ? Value::undefined("No last item, sequence was empty.") : sequence->items.back();
}

Value join(Interpreter& run, const Value& subject, const Arguments& arguments) {
  const Parameters given("join", arguments, {"d", "attribute"});
  const AttributePath path(given[1]);
  const std::string separator = given.has(0) ? to_text(run, given[0]) : "";
  std::string out;
  bool begun = false;
  for (const Value& item : items_of(run.budget(), subject)) {
    run.budget().bytes(separator.size());
    if (std::exchange(begun, true)) out += separator;
    append_text(run, out, path.of(run, item));
  }
  return Value(std::move(out));
}

Value reverse(Interpreter& run, const Value& subject, const Arguments& arguments) {
  const Parameters none("reverse", arguments, {});
  if (subject.is_text()) return slice(run, subject, Value(), Value(), Value(Integer{-1}));
  Items items = items_of(run.budget(), subject);
  std::reverse(items.begin(), items.end());
  const bool once = subject.is(Kind::kSequence) && subject.sequence()->shape == Shape::kGenerator;
  return make_sequence(run.budget(), std::move(items), once ? Shape::kList : Shape::kGenerator);
}

Value items(Interpreter& run, const Value& subject, const Arguments& arguments) {
  const Parameters none("items", arguments, {});
  if (subject.is_undefined()) return generator(run, {});
  if (!subject.is(Kind::kDict)) fail("Can only get item pairs from a mapping.");
  return generator(run, items_of(run.budget(), run_method(run, subject, "items", {})));
}

using Keyed = std::vector<std::pair<Value, Value>>;  // what to sort by, item

Value sorted(Interpreter& run, Keyed keyed, bool backwards) {
  // Equal items keep their order also backwards.
  std::stable_sort(keyed.begin(), keyed.end(), [&](const auto& a, const auto& b) {
    return backwards ? less(run, b.first, a.first) : less(run, a.first, b.first);
  });
  Items out;
  for (auto& [key, item] : keyed) out.push_back(std::move(item));
  return make_sequence(run.budget(), std::move(out));
}

Value sort(Interpreter& run, const Value& subject, const Arguments& arguments) {
  const Parameters given("sort", arguments, {"reverse", "case_sensitive", "attribute"});
  const bool case_matters = given.flag(1);
  std::vector<AttributePath> paths;
  if (given[2].is_text()) {
    for (const std::string_view part : split(given.text(2), ",", -1)) paths.emplace_back(part);
  } else {
    paths.emplace_back(given[2]);
  }
  Keyed keyed;
  for (const Value& item : items_of(run.budget(), subject)) {
    Items keys;
    for (const AttributePath& path : paths) {
      Value key = path.of(run, item);
      keys.push_back(case_matters ? std::move(key) : without_case(run, key));
    }
    keyed.emplace_back(make_sequence(run.budget(), std::move(keys)), item);
  }
  return sorted(run, std::move(keyed), given.flag(0));
}

Value dictsort(Interpreter& run, const Value& subject, const Arguments& arguments) {
  const Parameters given("dictsort", arguments, {"case_sensitive", "by", "reverse"});
  if (subject.is_undefined()) fail_undefined(subject);
  if (!subject.is(Kind::kDict)) fail("dictsort wants a mapping, not '", type_name(subject), "'");
  const std::string_view by = given.text(1, "key");
  if (by != "key" && by != "value") fail("dictsort: by is neither \"key\" nor \"value\" but \"", by, "\"");
  Keyed keyed;
  for (const auto& [key, value] : subject.dict().entries) {
    const Value& what = by == "key" ? key : value;
    keyed.emplace_back(given.flag(0) ? what : without_case(run, what), make_sequence(run.budget(), {key, value}, Shape::kTuple));
  }
  return sorted(run, std::move(keyed), given.flag(2));
}

Value unique(Interpreter& run, const Value& subject, const Arguments& arguments) {
  const Parameters given("unique", arguments, {"case_sensitive", "attribute"});
  const AttributePath path(given[1]);
  absl::flat_hash_map<std::string, bool> keys;
  Items out;
  for (const Value& item : items_of(run.budget(), subject)) {
    const Value part = path.of(run, item);
    auto key = key_text(given.flag(0) ? part : without_case(run, part));
    if (!key) fail("unhashable type: '", type_name(part), "'");
    run.budget().bytes(key->size());
    if (keys.emplace(*std::move(key), true).second) out.push_back(item);
  }
  return generator(run, std::move(out));
}

template <bool largest>
Value extreme(Interpreter& run, const Value& subject, const Arguments& arguments) {
  const Parameters given(largest ? "max" : "min", arguments, {"case_sensitive", "attribute"});
  const AttributePath path(given[1]);
  std::optional<std::pair<Value, Value>> best;  // key, item
  for (const Value& item : items_of(run.budget(), subject)) {
    Value key = path.of(run, item);
    if (!given.flag(0)) key = without_case(run, key);
    if (!best || (largest ? compare(run, Comparison::kGreater, key, best->first) : less(run, key, best->first)))
      best = {key, item};
  }
  return best ? best->second : Value::undefined("No aggregated item, sequence was empty.");
}

Value sum(Interpreter& run, const Value& subject, const Arguments& arguments) {
  const Parameters given("sum", arguments, {"attribute", "start"});
  const AttributePath path(given[0]);
  Value total = given.has(1) ? given[1] : Value(Integer{0});
  for (const Value& item : items_of(run.budget(), subject)) total = binary(run, Operator::kAdd, total, path.of(run, item));
  return total;
}

Value batch(Interpreter& run, const Value& subject, const Arguments& arguments) {
  const Parameters given("batch", arguments, {"linecount", "fill_with"}, 1);
  const int64_t size = given.integer(0, 1);
  if (size < 1 || size > kMaxRange) fail("batch: linecount ", size, " is not between 1 and ", kMaxRange);
  Items out, line;
  const auto end_line = [&] { out.push_back(make_sequence(run.budget(), std::exchange(line, {}))); };
  for (const Value& item : items_of(run.budget(), subject)) {
    if (static_cast<int64_t>(line.size()) == size) end_line();
    line.push_back(item);
  }
  if (!line.empty()) {
    if (!given[1].is_none()) line.resize(static_cast<size_t>(size), given[1]);
    end_line();
  }
  return generator(run, std::move(out));
}

Value slices(Interpreter& run, const Value& subject, const Arguments& arguments) {
  const Parameters given("slice", arguments, {"slices", "fill_with"}, 1);
  const int64_t count = given.integer(0, 1);
  if (count < 1 || count > kMaxRange) fail("slice: slices ", count, " is not between 1 and ", kMaxRange);
  const Items all = items_of(run.budget(), subject);
  const size_t each = all.size() / static_cast<size_t>(count), longer = all.size() % static_cast<size_t>(count);
  Items out;
  size_t from = 0;
  for (size_t i = 0; i < static_cast<size_t>(count); ++i) {
    const size_t end = from + each + (i < longer ? 1 : 0);
    Items part(all.begin() + static_cast<std::ptrdiff_t>(from), all.begin() + static_cast<std::ptrdiff_t>(end));
    if (!given[1].is_none() && i >= longer) part.push_back(given[1]);
    from = end;
    out.push_back(make_sequence(run.budget(), std::move(part)));
  }
  return generator(run, std::move(out));
}

}  // namespace

std::vector<FilterEntry> sequence_filters() {
  return {
      {"batch", batch},        {"count", length},    {"dictsort", dictsort}, {"first", first},  {"items", items},
      {"join", join},          {"last", last},       {"length", length},     {"list", to_list}, {"max", extreme<true>},
      {"min", extreme<false>}, {"reverse", reverse}, {"slice", slices},      {"sort", sort},    {"sum", sum},
      {"unique", unique},
  };
}

}  // namespace invar::jinja
