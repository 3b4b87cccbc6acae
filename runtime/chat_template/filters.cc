#include "runtime/chat_template/filters.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "runtime/chat_template/operators.h"
#include "runtime/chat_template/text.h"

namespace invar::jinja {
namespace {

absl::flat_hash_map<std::string_view, FilterEntry> all_filters() {
  absl::flat_hash_map<std::string_view, FilterEntry> table;
  for (const auto& part : {text_filters(), number_filters(), sequence_filters(), selection_filters()}) {
    for (const FilterEntry& entry : part) table.emplace(entry.name, entry);
  }
  return table;
}

}  // namespace

const FilterEntry* find_filter(std::string_view name) {
  static const auto kTable = all_filters();
  const auto at = kTable.find(name);
  return at == kTable.end() ? nullptr : &at->second;
}

AttributePath::AttributePath(const Value& attribute) {
  if (attribute.is_text()) {
    *this = AttributePath(std::string_view(attribute.text()));
  } else if (!attribute.is_none()) {
    steps_.push_back(attribute);
  }
}

AttributePath::AttributePath(std::string_view dotted) {
  for (const std::string_view step : split(dotted, ".", -1)) {
    const bool number = !step.empty() && step.size() < 10 &&
                        std::all_of(step.begin(), step.end(), [](unsigned char c) { return absl::ascii_isdigit(c); });
    steps_.push_back(number ? Value(Integer{std::stoi(std::string(step))}) : Value(step));
  }
}

Value AttributePath::of(Interpreter& run, Value item, const Value* otherwise) const {
  for (const Value& step : steps_) {
    run.budget().steps();
    item = subscript(run, item, step);
    if (otherwise != nullptr && item.is_undefined()) item = *otherwise;
  }
  return item;
}

Value without_case(Interpreter& run, const Value& value) {
  return value.is_text() ? make_text(run.budget(), lower(value.text())) : value;
}

}  // namespace invar::jinja
