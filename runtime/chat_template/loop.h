// The items of a for loop as they are asked for, and what the template sees of it under the name `loop`.
#pragma once

#include <deque>

#include "runtime/chat_template/interpreter.h"

namespace invar::jinja {

class Loop : public Object {
 public:
  // `outer`: the scope around the loop, where the loop's own condition is tested.
  Loop(Interpreter& run, const ForStatement& statement, const Value& items, Frame* outer, int depth0);

  // Moves to the next item that passes the condition; false at the end.
  bool next(Interpreter& run);
  const Value& item() const { return current_; }

  std::string_view type_name() const override { return "LoopContext"; }
  std::string shown(Interpreter& run) const override;
  std::optional<Value> attribute(Interpreter& run, std::string_view name) override;
  std::optional<Value> call_method(Interpreter& run, std::string_view name, const Arguments& arguments) override;
  bool callable() const override { return statement_.recursive; }
  Value call(Interpreter& run, const Arguments& arguments) override;  // loop(items) in a recursive loop

 private:
  std::optional<Value> pull(Interpreter& run);
  bool look_ahead(Interpreter& run);  // false: there is no next item
  size_t length(Interpreter& run);

  const ForStatement& statement_;
  const std::shared_ptr<const Sequence> items_;
  Frame* const outer_;
  const int depth0_;
  size_t at_;                // in items_
  std::deque<Value> ahead_;  // pulled because the template asked, not yet given
  size_t index_ = 0;         // of the current item, from 1
  Value current_;
  std::optional<Value> previous_;
  std::optional<Items> changed_;  // the last arguments of loop.changed()
};

}  // namespace invar::jinja
