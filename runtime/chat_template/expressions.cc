// Expressions evaluate themselves.
#include "runtime/chat_template/filters.h"
#include "runtime/chat_template/is_tests.h"
#include "runtime/chat_template/operators.h"
#include "runtime/chat_template/show.h"

namespace invar::jinja {

Value Constant::evaluate(Interpreter&) const { return value; }

Value NameExpression::evaluate(Interpreter& run) const { return run.lookup(symbol); }

Value ListExpression::evaluate(Interpreter& run) const {
  Items values;
  values.reserve(items.size());
  for (const auto& item : items) values.push_back(run.evaluate(*item));
  return make_sequence(run.budget(), std::move(values), tuple ? Shape::kTuple : Shape::kList);
}

Value DictExpression::evaluate(Interpreter& run) const {
  DictMaker dict(run.budget());
  for (const auto& [key, value] : entries) {
    const Value name = run.evaluate(*key);
    dict.set(name, run.evaluate(*value));
  }
  return dict.done();
}

Value AttributeExpression::evaluate(Interpreter& run) const { return attribute_of(run, run.evaluate(*object), name); }

Value SubscriptExpression::evaluate(Interpreter& run) const {
  const Value from = run.evaluate(*object);
  return subscript(run, from, run.evaluate(*index));
}

Value SliceExpression::evaluate(Interpreter& run) const {
  const Value from = run.evaluate(*object);
  const auto bound = [&](const ExpressionPtr& e) { return e ? run.evaluate(*e) : Value(); };
  const Value first = bound(start), last = bound(stop);
  return slice(run, from, first, last, bound(step));
}

Value CallExpression::evaluate(Interpreter& run) const {
  // x.name(...) calls the method without making a value of it first.
  if (const auto* method = dynamic_cast<const AttributeExpression*>(callee.get())) {
    const Value receiver = run.evaluate(*method->object);
    if (receiver.is_undefined()) fail_undefined(receiver);
    return run.call_method(receiver, method->name, run.evaluate(arguments));
  }
  const Value called = run.evaluate(*callee);
  return run.call(called, run.evaluate(arguments));
}

Value FilterExpression::evaluate(Interpreter& run) const { return apply(run, run.evaluate(*subject)); }

Value FilterExpression::apply(Interpreter& run, const Value& on) const {
  if (filter == nullptr) fail("there is no filter named '", name, "'");
  return filter->apply(run, on, run.evaluate(arguments));
}

Value TestExpression::evaluate(Interpreter& run) const {
  if (test == nullptr) fail("there is no test named '", name, "'");
  const Value on = run.evaluate(*subject);
  return Value(test->holds(run, on, run.evaluate(arguments)));
}

Value UnaryExpression::evaluate(Interpreter& run) const {
  const Value value = run.evaluate(*operand);
  return negative ? negated(value) : positive(value);
}

Value BinaryExpression::evaluate(Interpreter& run) const {
  const Value a = run.evaluate(*left);
  return binary(run, op, a, run.evaluate(*right));
}

Value ConcatExpression::evaluate(Interpreter& run) const {
  std::string text;
  for (const auto& part : parts) append_text(run, text, run.evaluate(*part));
  return Value(std::move(text));
}

Value CompareExpression::evaluate(Interpreter& run) const {
  Value left = run.evaluate(*first);
  for (const auto& [comparison, operand] : rest) {
    Value right = run.evaluate(*operand);
    if (!compare(run, comparison, left, right)) return Value(false);
    left = std::move(right);
  }
  return Value(true);
}

Value LogicExpression::evaluate(Interpreter& run) const {
  Value first = run.evaluate(*left);
  return truthy(first) == is_and ? run.evaluate(*right) : first;
}

Value NotExpression::evaluate(Interpreter& run) const { return Value(!truthy(run.evaluate(*operand))); }

Value ConditionalExpression::evaluate(Interpreter& run) const {
  if (truthy(run.evaluate(*test))) return run.evaluate(*value);
  if (otherwise) return run.evaluate(*otherwise);
  return Value::undefined("the inline if-expression evaluated to false and no else section was defined.");
}

}  // namespace invar::jinja
