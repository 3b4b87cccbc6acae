// The objects of a run, and the functions that every template may call: range, dict, namespace, cycler, joiner,
// raise_exception, strftime_now.
#pragma once

#include "runtime/chat_template/interpreter.h"

namespace invar::jinja {

// namespace(a=1): the one thing whose attributes a template can set.
class Namespace : public Object {
 public:
  void set(Interpreter& run, std::string_view name, Value value);
  std::string_view type_name() const override { return "Namespace"; }
  std::string shown(Interpreter& run) const override;
  std::optional<Value> attribute(Interpreter&, std::string_view name) override;

 private:
  std::vector<std::pair<std::string, Value>> attributes_;
  TextMap<size_t> places_;
};

// A method that was named without being called, or a method of a value read by x["name"].
class BoundMethod : public Object {
 public:
  BoundMethod(Value receiver, std::string name) : receiver_(std::move(receiver)), name_(std::move(name)) {}
  std::string_view type_name() const override { return "builtin_function_or_method"; }
  std::string shown(Interpreter&) const override;
  bool callable() const override { return true; }
  Value call(Interpreter& run, const Arguments& arguments) override;

 private:
  const Value receiver_;
  const std::string name_;
};

class Function : public Object {
 public:
  using Work = Value (*)(Interpreter&, const Arguments&);
  Function(std::string_view name, Work work) : name_(name), work_(work) {}
  std::string_view type_name() const override { return "function"; }
  std::string shown(Interpreter&) const override { return concat("<function ", name_, ">"); }
  bool callable() const override { return true; }
  Value call(Interpreter& run, const Arguments& arguments) override { return work_(run, arguments); }

 private:
  const std::string_view name_;
  const Work work_;
};

class Macro : public Object {
 public:
  Macro(const MacroCode& code, Frame* frame) : code_(code), frame_(frame) {}
  std::string_view type_name() const override { return "Macro"; }
  std::string shown(Interpreter&) const override;
  std::optional<Value> attribute(Interpreter& run, std::string_view name) override;
  bool callable() const override { return true; }
  Value call(Interpreter& run, const Arguments& arguments) override;

 private:
  const MacroCode& code_;
  Frame* const frame_;  // where it was defined
};

// The functions that `parsed` names, each at its symbol.
void add_globals(Interpreter& run, const Template& parsed, std::vector<std::optional<Value>>& context);

}  // namespace invar::jinja
