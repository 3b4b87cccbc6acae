// The arguments of a call laid out by the parameters of what is called.
#pragma once

#include <initializer_list>

#include "runtime/chat_template/interpreter.h"

namespace invar::jinja {

class Parameters {
 public:
  // Fails if there are more arguments than `names`, one is not among them or given twice, or one of the first `required` is
  // missing. Keeps pointers to `arguments`.
  Parameters(std::string_view callee, const Arguments& arguments, std::initializer_list<std::string_view> names,
             size_t required = 0);

  bool has(size_t i) const { return values_[i] != nullptr; }
  const Value& operator[](size_t i) const;  // none if it was not given
  bool flag(size_t i, bool otherwise = false) const;
  int64_t integer(size_t i, int64_t otherwise) const;                      // fails for what is no integer
  std::string_view text(size_t i, std::string_view otherwise = "") const;  // fails for what is no string

 private:
  [[noreturn]] void fail_at(size_t i, std::string_view wanted) const;

  std::string_view callee_;
  std::vector<std::string_view> names_;
  std::vector<const Value*> values_;
};

}  // namespace invar::jinja
