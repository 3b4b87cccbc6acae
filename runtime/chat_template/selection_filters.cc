// map, select, reject, selectattr, rejectattr: filters that take the name of a filter or a test.
#include "runtime/chat_template/filters.h"
#include "runtime/chat_template/operators.h"

namespace invar::jinja {
namespace {

// The arguments behind the first `used`.
Arguments rest_of(const Arguments& arguments, size_t used) {
  Arguments rest;
  rest.positional.assign(arguments.positional.begin() + static_cast<std::ptrdiff_t>(used), arguments.positional.end());
  rest.named = arguments.named;
  return rest;
}

const std::string& name_of(const Arguments& arguments, size_t i, std::string_view filter) {
  const Value& name = arguments.positional[i];
  if (!name.is_text()) fail(filter, " wants a name, not '", type_name(name), "'");
  return name.text();
}

// Jinja asks first whether there is anything, so none gives nothing and is no error.
Items subjects(Interpreter& run, const Value& subject) { return truthy(subject) ? items_of(run.budget(), subject) : Items(); }

Value map(Interpreter& run, const Value& subject, const Arguments& arguments) {
  Items out;
  if (arguments.positional.empty()) {
    const Value *attribute = nullptr, *otherwise = nullptr;
    for (const auto& [name, value] : arguments.named) {
      if (name == "attribute") {
        attribute = &value;
      } else if (name == "default") {
        otherwise = &value;
      } else {
        fail("map() got an unexpected keyword argument '", name, "'");
      }
    }
    if (attribute == nullptr) fail("map requires a filter argument");
    const AttributePath path(*attribute);
    if (otherwise != nullptr && otherwise->is_none()) otherwise = nullptr;
    for (const Value& item : subjects(run, subject)) out.push_back(path.of(run, item, otherwise));
  } else {
    const std::string& filter = name_of(arguments, 0, "map");
    const Arguments rest = rest_of(arguments, 1);
    for (const Value& item : subjects(run, subject)) out.push_back(run.apply_filter(filter, item, rest));
  }
  return make_sequence(run.budget(), std::move(out), Shape::kGenerator);
}

template <bool by_attribute, bool wanted>
Value select(Interpreter& run, const Value& subject, const Arguments& arguments) {
  constexpr size_t kBefore = by_attribute ? 1 : 0;
  const std::string_view filter = by_attribute ? (wanted ? "selectattr" : "rejectattr") : (wanted ? "select" : "reject");
  if (arguments.positional.size() < kBefore) fail(filter, " wants the name of an attribute");
  const AttributePath path(by_attribute ? arguments.positional[0] : Value());
  const bool tested = arguments.positional.size() > kBefore;
  const std::string* test = tested ? &name_of(arguments, kBefore, filter) : nullptr;
  const Arguments rest = tested ? rest_of(arguments, kBefore + 1) : Arguments();
  Items out;
  for (const Value& item : subjects(run, subject)) {
    const Value part = path.of(run, item);
    if ((tested ? run.apply_test(*test, part, rest) : truthy(part)) == wanted) out.push_back(item);
  }
  return make_sequence(run.budget(), std::move(out), Shape::kGenerator);
}

}  // namespace

std::vector<FilterEntry> selection_filters() {
  return {
      {"map", map},
      {"reject", select<false, false>},
      {"rejectattr", select<true, false>},
      {"select", select<false, true>},
      {"selectattr", select<true, true>},
  };
}

}  // namespace invar::jinja
