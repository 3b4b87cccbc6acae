#include "runtime/chat_template/interpreter.h"

#include "runtime/chat_template/filters.h"
#include "runtime/chat_template/globals.h"
#include "runtime/chat_template/is_tests.h"
#include "runtime/chat_template/methods.h"
#include "runtime/chat_template/operators.h"
#include "runtime/tokenizer/utf8.h"

namespace invar::jinja {

std::string Interpreter::render(const nlohmann::ordered_json& variables, const nlohmann::ordered_json& defaults) {
  context_.resize(template_.names.size());
  add_globals(*this, template_, context_);
  for (const nlohmann::ordered_json* layer : {&defaults, &variables}) {
    for (const auto& [name, value] : layer->items()) {
      budget_.steps();
      // What the template never names is never looked at.
      if (const auto at = template_.symbols.find(name); at != template_.symbols.end()) {
        context_[static_cast<size_t>(at->second)] = from_json(value, 0);
      }
    }
  }
  std::string out;
  out_ = &out;
  const Scope root(*this, nullptr);
  execute(template_.body);
  return out;
}

Value Interpreter::from_json(const nlohmann::ordered_json& json, int depth) {
  if (depth > kMaxValueDepth) fail_exhausted("a variable is nested deeper than ", kMaxValueDepth, " levels");
  switch (json.type()) {
    case nlohmann::ordered_json::value_t::boolean:
      return Value(json.get<bool>());
    case nlohmann::ordered_json::value_t::number_integer:
      return Value(Integer{json.get<int64_t>()});
    case nlohmann::ordered_json::value_t::number_unsigned:
      return Value(Integer{json.get<uint64_t>()});
    case nlohmann::ordered_json::value_t::number_float:
      return Value(json.get<double>());
    case nlohmann::ordered_json::value_t::string: {
      const auto& text = json.get_ref<const std::string&>();
      if (const size_t at = tokenizer::first_invalid_utf8(text); at != std::string_view::npos) {
        fail("a variable has text that is not UTF-8, at byte ", at);
      }
      return make_text(budget_, text);
    }
    case nlohmann::ordered_json::value_t::array: {
      Items items;
      items.reserve(json.size());
      for (const auto& item : json) items.push_back(from_json(item, depth + 1));
      return make_sequence(budget_, std::move(items));
    }
    case nlohmann::ordered_json::value_t::object: {
      DictMaker dict(budget_);
      for (const auto& [key, item] : json.items()) {
        if (tokenizer::first_invalid_utf8(key) != std::string_view::npos) fail("a variable has a key that is not UTF-8");
        dict.set(Value(key), from_json(item, depth + 1));
      }
      return dict.done();
    }
    default:
      return Value();  // null; binary and discarded values do not come out of a parser
  }
}

Value Interpreter::evaluate(const Expression& expression) {
  budget_.steps();
  const Depth held(*this);
  try {
    return expression.evaluate(*this);
  } catch (Failure& failure) {
    if (failure.line == 0) failure.line = expression.line;
    throw;
  }
}

Arguments Interpreter::evaluate(const CallArguments& arguments) {
  Arguments values;
  for (const auto& e : arguments.positional) values.positional.push_back(evaluate(*e));
  if (arguments.spread) {
    for (Value& item : items_of(budget_, evaluate(*arguments.spread))) values.positional.push_back(std::move(item));
  }
  for (const auto& [name, e] : arguments.named) {
    budget_.bytes(name.size());
    values.named.emplace_back(name, evaluate(*e));
  }
  if (arguments.spread_named) {
    const Value more = evaluate(*arguments.spread_named);
    if (!more.is(Kind::kDict)) fail("the argument after ** is not a mapping but '", type_name(more), "'");
    if (more.dict().entries.size() > kMaxArguments) fail("a call has more than ", kMaxArguments, " arguments");
    for (const auto& [key, value] : more.dict().entries) {
      if (!key.is_text()) fail("the keys after ** are not all strings");
      for (const auto& [given, unused] : values.named) {
        if (given == key.text()) fail("the argument '", given, "' is given twice");
      }
      values.named.emplace_back(key.text(), value);
    }
  }
  return values;
}

Flow Interpreter::execute(const Statement& statement) {
  budget_.steps();
  const Depth held(*this);
  try {
    return statement.execute(*this);
  } catch (Failure& failure) {
    if (failure.line == 0) failure.line = statement.line;
    throw;
  }
}

Flow Interpreter::execute(const Body& body) {
  for (const auto& statement : body) {
    if (const Flow flow = execute(*statement); flow != Flow::kOn) return flow;
  }
  return Flow::kOn;
}

Interpreter::Scope::Scope(Interpreter& run, Frame* parent) : run_(run), before_(run.frame_), frame_(std::make_unique<Frame>()) {
  frame_->parent = parent;
  run.frame_ = frame_.get();
}

Interpreter::Scope::~Scope() {
  run_.frame_ = before_;
  if (frame_->kept) run_.kept_frames_.push_back(std::move(frame_));
}

Value Interpreter::lookup(Symbol symbol) {
  for (const Frame* frame = frame_; frame != nullptr; frame = frame->parent) {
    for (const auto& [name, value] : frame->variables) {
      if (name == symbol) return value;
    }
    budget_.steps(frame->variables.size() / 16);
  }
  const auto index = static_cast<size_t>(symbol);
  if (context_[index]) return *context_[index];
  budget_.steps(template_.names[index].size() / 64);
  return Value::undefined(concat("'", template_.names[index], "' is undefined"));
}

void Interpreter::assign(Symbol symbol, Value value) {
  budget_.steps(frame_->variables.size() / 16);
  for (auto& [name, old] : frame_->variables) {
    if (name != symbol) continue;
    old = std::move(value);
    return;
  }
  frame_->variables.emplace_back(symbol, std::move(value));
}

void Interpreter::assign(const Target& target, const Value& value) {
  if (target.kind == Target::Kind::kName) return assign(target.symbol, value);
  if (target.kind == Target::Kind::kAttribute) {
    const Value owner = lookup(target.symbol);
    auto* space = owner.is(Kind::kObject) ? dynamic_cast<Namespace*>(&owner.object()) : nullptr;
    if (space == nullptr) fail("cannot assign attribute '", target.attribute, "' of a value that is not a namespace");
    budget_.steps(target.attribute.size() / 64);
    space->set(*this, target.attribute, value);
    return;
  }
  const Items items = items_of(budget_, value);
  if (items.size() < target.parts.size()) {
    fail("not enough values to unpack (expected ", target.parts.size(), ", got ", items.size(), ")");
  }
  if (items.size() > target.parts.size()) fail("too many values to unpack (expected ", target.parts.size(), ")");
  for (size_t i = 0; i < items.size(); ++i) assign(target.parts[i], items[i]);
}

void Interpreter::write(std::string_view text) {
  budget_.bytes(text.size());
  if (text.size() > kMaxOutputBytes - out_->size()) fail_exhausted("the prompt is longer than ", kMaxOutputBytes, " bytes");
  out_->append(text);
}

void Interpreter::keep_frames() {
  for (Frame* frame = frame_; frame != nullptr && !frame->kept; frame = frame->parent) {
    budget_.bytes(sizeof(Frame));
    frame->kept = true;
  }
}

Value Interpreter::call(const Value& callee, const Arguments& arguments) {
  if (callee.is_undefined()) fail_undefined(callee);
  if (!callee.is(Kind::kObject)) fail("'", type_name(callee), "' object is not callable");
  const Depth held(*this);
  return callee.object().call(*this, arguments);
}

Value Interpreter::call_method(const Value& object, std::string_view name, const Arguments& arguments) {
  if (object.is(Kind::kObject)) {
    const Depth held(*this);
    if (auto result = object.object().call_method(*this, name, arguments)) return *std::move(result);
  } else if (has_method(object, name)) {
    return run_method(*this, object, name, arguments);
  }
  return call(attribute_of(*this, object, name), arguments);
}

Value Interpreter::apply_filter(std::string_view name, const Value& subject, const Arguments& arguments) {
  budget_.steps(1 + name.size() / 64);
  const FilterEntry* filter = find_filter(name);
  if (filter == nullptr) fail("there is no filter named '", name, "'");
  return filter->apply(*this, subject, arguments);
}

bool Interpreter::apply_test(std::string_view name, const Value& subject, const Arguments& arguments) {
  const TestEntry* test = find_test(name);
  if (test == nullptr) fail("there is no test named '", name, "'");
  budget_.steps();
  return test->holds(*this, subject, arguments);
}

}  // namespace invar::jinja
