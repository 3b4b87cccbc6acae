#include "runtime/chat_template/loop.h"

#include "runtime/chat_template/operators.h"

namespace invar::jinja {

Loop::Loop(Interpreter& run, const ForStatement& statement, const Value& items, Frame* outer, int depth0)
    : statement_(statement),
      items_(iterate(run.budget(), items)),
      outer_(outer),
      depth0_(depth0),
      at_(items_->shape == Shape::kGenerator ? items_->given : 0) {}

std::optional<Value> Loop::pull(Interpreter& run) {
  while (at_ < items_->items.size()) {
    run.budget().steps();
    const Value& item = items_->items[at_++];
    if (items_->shape == Shape::kGenerator) items_->given = at_;
    if (statement_.test == nullptr) return item;
    const Interpreter::Scope scope(run, outer_);
    run.assign(statement_.target, item);
    if (truthy(run.evaluate(*statement_.test))) return item;
  }
  return std::nullopt;
}

bool Loop::look_ahead(Interpreter& run) {
  if (ahead_.empty()) {
    if (auto item = pull(run)) ahead_.push_back(*std::move(item));
  }
  return !ahead_.empty();
}

bool Loop::next(Interpreter& run) {
  if (!look_ahead(run)) return false;
  if (index_ > 0) previous_ = std::move(current_);
  current_ = std::move(ahead_.front());
  ahead_.pop_front();
  ++index_;
  return true;
}

size_t Loop::length(Interpreter& run) {
  if (statement_.test == nullptr) return index_ + ahead_.size() + items_->items.size() - at_;
  while (auto item = pull(run)) {
    run.budget().bytes(sizeof(Value));
    ahead_.push_back(*std::move(item));
  }
  return index_ + ahead_.size();
}

std::string Loop::shown(Interpreter&) const { return concat("<LoopContext ", index_, ">"); }

std::optional<Value> Loop::attribute(Interpreter& run, std::string_view name) {
  const auto number = [](size_t n) { return Value(static_cast<Integer>(n)); };
  if (name == "index") return number(index_);
  if (name == "index0") return number(index_ - 1);
  if (name == "first") return Value(index_ == 1);
  if (name == "last") return Value(!look_ahead(run));
  if (name == "length") return number(length(run));
  if (name == "revindex") return number(length(run) - index_ + 1);
  if (name == "revindex0") return number(length(run) - index_);
  if (name == "previtem") return previous_ ? *previous_ : Value::undefined("there is no previous item");
  if (name == "nextitem") return look_ahead(run) ? ahead_.front() : Value::undefined("there is no next item");
  if (name == "depth") return Value(Integer{depth0_ + 1});
  if (name == "depth0") return Value(Integer{depth0_});
  return std::nullopt;
}

std::optional<Value> Loop::call_method(Interpreter& run, std::string_view name, const Arguments& arguments) {
  if (name == "cycle") {
    if (arguments.positional.empty()) fail("no items for cycling given");
    return arguments.positional[(index_ - 1) % arguments.positional.size()];
  }
  if (name != "changed") return std::nullopt;
  bool same = changed_ && changed_->size() == arguments.positional.size();
  for (size_t i = 0; same && i < changed_->size(); ++i) same = equal(run, (*changed_)[i], arguments.positional[i]);
  if (!same) {
    run.budget().bytes(arguments.positional.size() * sizeof(Value));
    changed_ = arguments.positional;
  }
  return Value(!same);
}

Value Loop::call(Interpreter& run, const Arguments& arguments) {
  if (!statement_.recursive) fail("the loop must have the 'recursive' marker to be called recursively");
  if (arguments.positional.size() != 1 || !arguments.named.empty()) fail("loop() takes what is to be looped over");
  return Value(run.capture([&] { statement_.loop_over(run, arguments.positional[0], outer_, depth0_ + 1); }));
}

}  // namespace invar::jinja
