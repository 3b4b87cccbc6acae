#include "runtime/chat_template/parameters.h"

#include <algorithm>

#include "runtime/chat_template/operators.h"

namespace invar::jinja {

Parameters::Parameters(std::string_view callee, const Arguments& arguments, std::initializer_list<std::string_view> names,
                       size_t required)
    : callee_(callee), names_(names), values_(names.size(), nullptr) {
  if (arguments.positional.size() > names_.size()) {
    fail(callee, "() takes at most ", names_.size(), " arguments, ", arguments.positional.size(), " are given");
  }
  for (size_t i = 0; i < arguments.positional.size(); ++i) values_[i] = &arguments.positional[i];
  for (const auto& [name, value] : arguments.named) {
    const auto at = std::find(names_.begin(), names_.end(), name);
    if (at == names_.end()) fail(callee, "() got an unexpected keyword argument '", name, "'");
    const Value*& place = values_[static_cast<size_t>(at - names_.begin())];
    if (place != nullptr) fail(callee, "() got multiple values for argument '", name, "'");
    place = &value;
  }
  for (size_t i = 0; i < required; ++i) {
    if (values_[i] == nullptr) fail(callee, "() is missing its argument '", names_[i], "'");
  }
}

const Value& Parameters::operator[](size_t i) const {
  static const Value kNone;
  return values_[i] != nullptr ? *values_[i] : kNone;
}

bool Parameters::flag(size_t i, bool otherwise) const { return has(i) ? truthy(*values_[i]) : otherwise; }

int64_t Parameters::integer(size_t i, int64_t otherwise) const {
  return has(i) ? index_of(*values_[i], concat("the argument '", names_[i], "' of ", callee_, "()")) : otherwise;
}

std::string_view Parameters::text(size_t i, std::string_view otherwise) const {
  if (!has(i)) return otherwise;
  if (values_[i]->is_undefined()) fail_undefined(*values_[i]);
  if (!values_[i]->is_text()) fail_at(i, "a string");
  return values_[i]->text();
}

void Parameters::fail_at(size_t i, std::string_view wanted) const {
  fail("the argument '", names_[i], "' of ", callee_, "() is not ", wanted, " but '", type_name(*values_[i]), "'");
}

}  // namespace invar::jinja
