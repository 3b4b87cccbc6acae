// The text of an answer, piece by piece, to what a client sees of it: content, and calls of tools.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/tool_call/format.h"

namespace invar::tool_call {

struct Event {
  enum class Kind : uint8_t { kContent, kCall, kArguments };
  Kind kind = Kind::kContent;
  int32_t call = 0;  // counts from 0
  std::string text;  // content; the name of the call; arguments as the model wrote them (a further piece)
};

// However the text is cut, the events say the same. What begins like a call and is none is content; what goes wrong within the
// arguments of a call stays there.
class Reader {
 public:
  virtual ~Reader() = default;
  virtual void take(std::string_view text, std::vector<Event>* events) = 0;
  // Nothing follows: what was held back because it might have begun a call.
  virtual void finish(std::vector<Event>* events) = 0;
};

std::unique_ptr<Reader> make_reader(Format format);
// All of the text is the arguments of one call.
std::unique_ptr<Reader> make_named_reader(std::string name);

}  // namespace invar::tool_call
