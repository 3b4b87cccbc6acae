#include "runtime/chat_template/globals.h"

#include "runtime/chat_template/clock.h"
#include "runtime/chat_template/methods.h"
#include "runtime/chat_template/operators.h"
#include "runtime/chat_template/parameters.h"
#include "runtime/chat_template/show.h"

namespace invar::jinja {
namespace {

// range(stop), range(start, stop), range(start, stop, step)
Value make_range(Interpreter& run, const Arguments& arguments) {
  const size_t count = arguments.positional.size();
  if (count == 0 || count > 3 || !arguments.named.empty()) fail("range() takes one to three integers");
  const auto number = [&](size_t i) { return index_of(arguments.positional[i], "an argument of range()"); };
  const int64_t start = count == 1 ? 0 : number(0), stop = count == 1 ? number(0) : number(1), step = count == 3 ? number(2) : 1;
  if (step == 0) fail("range() arg 3 must not be zero");
  const Integer span = step > 0 ? Integer{stop} - start : Integer{start} - stop;
  const Integer size = span <= 0 ? 0 : (span - 1) / (step > 0 ? Integer{step} : -Integer{step}) + 1;
  if (size > kMaxRange) fail_exhausted("range() has more than ", kMaxRange, " items");
  run.budget().bytes(static_cast<size_t>(size) * sizeof(Value));
  Items items;
  for (Integer i = 0; i < size; ++i) items.emplace_back(start + i * step);
  std::string shown = concat("range(", start, ", ", stop, step == 1 ? "" : concat(", ", step), ")");
  return Value(std::make_shared<const Sequence>(Sequence{Shape::kRange, std::move(items), 1, std::move(shown), 0}));
}

// What dict() and namespace() take: a mapping or pairs, and names.
template <typename Set>
void each_entry(Interpreter& run, std::string_view callee, const Arguments& arguments, const Set& set) {
  if (arguments.positional.size() > 1) fail(callee, "() takes at most one argument without a name");
  if (!arguments.positional.empty()) {
    const Value& from = arguments.positional.front();
    if (from.is(Kind::kDict)) {
      for (const auto& [key, value] : from.dict().entries) set(key, value);
    } else {
      for (const Value& pair : items_of(run.budget(), from)) {
        const Items both = items_of(run.budget(), pair);
        if (both.size() != 2) fail(callee, "() wants pairs, an item has ", both.size(), " parts");
        set(both[0], both[1]);
      }
    }
  }
  for (const auto& [name, value] : arguments.named) set(Value(name), value);
}

Value make_dict(Interpreter& run, const Arguments& arguments) {
  DictMaker dict(run.budget());
  each_entry(run, "dict", arguments, [&](const Value& key, const Value& value) { dict.set(key, value); });
  return dict.done();
}

Value make_namespace(Interpreter& run, const Arguments& arguments) {
  auto* space = run.keep<Namespace>();
  each_entry(run, "namespace", arguments, [&](const Value& key, const Value& value) {
    if (!key.is_text()) fail("an attribute of a namespace has a name that is not a string but '", type_name(key), "'");
    space->set(run, key.text(), value);
  });
  return Value(space);
}

class Cycler : public Object {
 public:
  explicit Cycler(Items items) : items_(std::move(items)) {}
  std::string_view type_name() const override { return "Cycler"; }
  std::string shown(Interpreter&) const override { return "<Cycler>"; }
  std::optional<Value> attribute(Interpreter&, std::string_view name) override {
    return name == "current" ? std::optional(items_[at_]) : std::nullopt;
  }
  std::optional<Value> call_method(Interpreter&, std::string_view name, const Arguments&) override {
    if (name == "reset") {
      at_ = 0;
      return Value();
    }
    if (name != "next") return std::nullopt;
    Value current = items_[at_];
    at_ = (at_ + 1) % items_.size();
    return current;
  }

 private:
  const Items items_;
  size_t at_ = 0;
};

Value make_cycler(Interpreter& run, const Arguments& arguments) {
  if (arguments.positional.empty() || !arguments.named.empty()) fail("cycler() takes at least one item");
  run.budget().bytes(arguments.positional.size() * sizeof(Value));
  return Value(run.keep<Cycler>(arguments.positional));
}

// Nothing the first time, the separator from then on.
class Joiner : public Object {
 public:
  explicit Joiner(Value separator) : separator_(std::move(separator)) {}
  std::string_view type_name() const override { return "Joiner"; }
  std::string shown(Interpreter&) const override { return "<Joiner>"; }
  bool callable() const override { return true; }
  Value call(Interpreter&, const Arguments&) override { return std::exchange(used_, true) ? separator_ : Value(std::string()); }

 private:
  const Value separator_;
  bool used_ = false;
};

Value make_joiner(Interpreter& run, const Arguments& arguments) {
  const Parameters given("joiner", arguments, {"sep"});
  return Value(run.keep<Joiner>(given.has(0) ? given[0] : Value(std::string(", "))));
}

Value raise_exception(Interpreter& run, const Arguments& arguments) {
  const Parameters given("raise_exception", arguments, {"message"}, 1);
  Failure failure(absl::StatusCode::kInvalidArgument, to_text(run, given[0]));
  failure.from_template = true;
  throw failure;
}

Value strftime_now(Interpreter& run, const Arguments& arguments) {
  const Parameters given("strftime_now", arguments, {"format"}, 1);
  run.budget().bytes(given.text(0).size() * 16);
  return make_text(run.budget(), format_time(given.text(0), run.now()));
}

}  // namespace

void add_globals(Interpreter& run, const Template& parsed, std::vector<std::optional<Value>>& context) {
  static constexpr std::pair<std::string_view, Function::Work> kFunctions[] = {
      {"range", make_range},          {"dict", make_dict},     {"namespace", make_namespace},
      {"cycler", make_cycler},        {"joiner", make_joiner}, {"raise_exception", raise_exception},
      {"strftime_now", strftime_now},
  };
  for (const auto& [name, work] : kFunctions) {
    const auto at = parsed.symbols.find(name);
    if (at != parsed.symbols.end()) context[static_cast<size_t>(at->second)] = Value(run.keep<Function>(name, work));
  }
}

void Namespace::set(Interpreter& run, std::string_view name, Value value) {
  const auto [at, fresh] = places_.try_emplace(std::string(name), attributes_.size());
  if (!fresh) {
    attributes_[at->second].second = std::move(value);
    return;
  }
  run.budget().bytes(sizeof(Value) * 2 + name.size() * 2);
  attributes_.emplace_back(name, std::move(value));
}

std::string Namespace::shown(Interpreter& run) const {
  std::string out = "<Namespace {";
  for (size_t i = 0; i < attributes_.size(); ++i) {
    if (i > 0) out += ", ";
    append_quoted(out, attributes_[i].first);
    out += concat(": ", to_repr(run, attributes_[i].second));
  }
  return out + "}>";
}

std::optional<Value> Namespace::attribute(Interpreter&, std::string_view name) {
  const auto at = places_.find(name);
  return at == places_.end() ? std::nullopt : std::optional(attributes_[at->second].second);
}

std::string BoundMethod::shown(Interpreter&) const {
  return concat("<built-in method ", name_, " of ", jinja::type_name(receiver_), " object>");
}
Value BoundMethod::call(Interpreter& run, const Arguments& arguments) { return run_method(run, receiver_, name_, arguments); }

std::string Macro::shown(Interpreter&) const { return concat("<Macro '", code_.name, "'>"); }

std::optional<Value> Macro::attribute(Interpreter& run, std::string_view name) {
  if (name == "name") return Value(code_.name);
  if (name == "caller") return Value(code_.uses_caller);
  if (name == "catch_varargs") return Value(code_.uses_varargs);
  if (name == "catch_kwargs") return Value(code_.uses_kwargs);
  if (name != "arguments") return std::nullopt;
  Items names;
  for (const auto& [symbol, parameter] : code_.parameters) names.emplace_back(parameter);
  return make_sequence(run.budget(), std::move(names), Shape::kTuple);
}

Value Macro::call(Interpreter& run, const Arguments& arguments) {
  const size_t count = code_.parameters.size(), plain = count - code_.defaults.size();
  std::vector<const Value*> given(count, nullptr);
  for (size_t i = 0; i < std::min(count, arguments.positional.size()); ++i) given[i] = &arguments.positional[i];
  const Value* caller = nullptr;
  DictMaker rest(run.budget());
  for (const auto& [name, value] : arguments.named) {
    run.budget().steps(count);
    size_t i = arguments.positional.size();
    while (i < count && code_.parameters[i].second != name) ++i;
    if (i < count) {
      given[i] = &value;
    } else if (name == "caller" && code_.uses_caller) {
      caller = &value;
    } else if (code_.uses_kwargs) {
      rest.set(Value(name), value);
    } else {
      fail("macro '", code_.name, "' takes no keyword argument '", name, "'");
    }
  }
  if (arguments.positional.size() > count && !code_.uses_varargs) {
    fail("macro '", code_.name, "' takes not more than ", count, " argument(s)");
  }
  const Interpreter::Scope scope(run, frame_);
  // First what was given, so that a default may name any parameter before it.
  for (size_t i = 0; i < count; ++i) {
    if (given[i] != nullptr) run.assign(code_.parameters[i].first, *given[i]);
  }
  for (size_t i = 0; i < count; ++i) {
    const auto& [symbol, name] = code_.parameters[i];
    if (given[i] != nullptr) continue;
    run.assign(symbol, i >= plain ? run.evaluate(*code_.defaults[i - plain])
                                  : Value::undefined(concat("parameter '", name, "' was not provided")));
  }
  if (code_.uses_caller) run.assign(code_.caller, caller != nullptr ? *caller : Value::undefined("No caller defined"));
  if (code_.uses_kwargs) run.assign(code_.kwargs, rest.done());
  if (code_.uses_varargs) {
    const size_t surplus = std::min(count, arguments.positional.size());
    run.assign(code_.varargs, make_sequence(run.budget(),
                                            Items(arguments.positional.begin() + static_cast<std::ptrdiff_t>(surplus),
                                                  arguments.positional.end()),
                                            Shape::kTuple));
  }
  return Value(run.capture([&] { run.execute(code_.body); }));
}

}  // namespace invar::jinja
