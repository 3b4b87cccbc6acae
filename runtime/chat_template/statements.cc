// Statements execute themselves.
#include "runtime/chat_template/globals.h"
#include "runtime/chat_template/loop.h"
#include "runtime/chat_template/operators.h"
#include "runtime/chat_template/show.h"

namespace invar::jinja {
namespace {

Value filtered(Interpreter& run, const std::vector<std::unique_ptr<const FilterExpression>>& filters, Value value) {
  for (const auto& filter : filters) value = filter->apply(run, value);
  return value;
}

}  // namespace

Flow TextStatement::execute(Interpreter& run) const {
  run.write(text);
  return Flow::kOn;
}

Flow OutputStatement::execute(Interpreter& run) const {
  const Value shown = run.evaluate(*value);
  run.write(shown.is_text() ? shown.text() : to_text(run, shown));
  return Flow::kOn;
}

Flow IfStatement::execute(Interpreter& run) const {
  for (const auto& [test, body] : branches) {
    if (truthy(run.evaluate(*test))) return run.execute(body);
  }
  return run.execute(otherwise);
}

Flow ForStatement::execute(Interpreter& run) const { return loop_over(run, run.evaluate(*items), run.frame(), 0); }

Flow ForStatement::loop_over(Interpreter& run, const Value& over, Frame* outer, int depth0) const {
  // Only a loop that the template can get hold of has to outlive its end.
  std::optional<Loop> unnamed;
  Loop* state = uses_loop ? run.keep<Loop>(run, *this, over, outer, depth0) : &unnamed.emplace(run, *this, over, outer, depth0);
  bool finished_one = false;
  while (state->next(run)) {
    run.budget().steps();
    const Interpreter::Scope scope(run, outer);
    if (uses_loop) run.assign(loop, Value(state));
    run.assign(target, state->item());
    const Flow flow = run.execute(body);
    if (flow == Flow::kBreak) break;
    // Jinja counts an iteration at its end: a loop whose every iteration ends early runs its else block.
    finished_one |= flow == Flow::kOn;
  }
  if (finished_one || otherwise.empty()) return Flow::kOn;
  const Interpreter::Scope scope(run, outer);
  return run.execute(otherwise);
}

Flow SetStatement::execute(Interpreter& run) const {
  run.assign(target, run.evaluate(*value));
  return Flow::kOn;
}

Flow SetBlockStatement::execute(Interpreter& run) const {
  Flow flow = Flow::kOn;
  std::string text = run.capture([&] {
    const Interpreter::Scope scope(run, run.frame());
    flow = run.execute(body);
  });
  if (flow == Flow::kOn) run.assign(target, filtered(run, filters, Value(std::move(text))));
  return flow;
}

Flow WithStatement::execute(Interpreter& run) const {
  Items values_now;
  for (const auto& [name, value] : values) values_now.push_back(run.evaluate(*value));
  const Interpreter::Scope scope(run, run.frame());
  for (size_t i = 0; i < values.size(); ++i) run.assign(values[i].first, values_now[i]);
  return run.execute(body);
}

Flow MacroStatement::execute(Interpreter& run) const {
  run.keep_frames();
  run.assign(symbol, Value(run.keep<Macro>(code, run.frame())));
  return Flow::kOn;
}

Flow CallBlockStatement::execute(Interpreter& run) const {
  run.keep_frames();
  const Value caller(run.keep<Macro>(code, run.frame()));
  Arguments arguments = run.evaluate(call->arguments);
  arguments.named.emplace_back("caller", caller);
  Value result;
  if (const auto* method = dynamic_cast<const AttributeExpression*>(call->callee.get())) {
    const Value receiver = run.evaluate(*method->object);
    result = run.call_method(receiver, method->name, arguments);
  } else {
    result = run.call(run.evaluate(*call->callee), arguments);
  }
  run.write(to_text(run, result));
  return Flow::kOn;
}

Flow FilterBlockStatement::execute(Interpreter& run) const {
  Flow flow = Flow::kOn;
  std::string text = run.capture([&] {
    const Interpreter::Scope scope(run, run.frame());
    flow = run.execute(body);
  });
  if (flow == Flow::kOn) run.write(to_text(run, filtered(run, filters, Value(std::move(text)))));
  return flow;
}

Flow ScopeStatement::execute(Interpreter& run) const {
  const Interpreter::Scope scope(run, run.frame());
  return run.execute(body);
}

}  // namespace invar::jinja
