// Where a JSON value ends, read piece by piece.
#pragma once

#include <cstddef>
#include <string_view>

namespace invar::tool_call {

class ValueScanner {
 public:
  // Takes the bytes of `text` from `at` that belong to the value; white space before it too. `done`: the value is complete (of a
  // number, true, false or null: what ends it has been seen, and not taken). Brackets are only counted: text that is no JSON
  // ends somewhere as well.
  size_t take(std::string_view text, size_t at, bool* done);
  bool begun() const { return begun_; }
  // A closing bracket or a comma stood where the value had to begin.
  bool broken() const { return broken_; }

 private:
  int depth_ = 0;
  bool begun_ = false, in_string_ = false, escaped_ = false, plain_ = false, broken_ = false;
};

}  // namespace invar::tool_call
