// libFuzzer target: the first byte chooses the format, the rest is an answer. Cut in other ways it must say the same, and no text
// may be lost but white space and what marks calls.
#include <cstdlib>
#include <string>

#include "runtime/tool_call/reader.h"

namespace {

using invar::tool_call::Event;

std::string shown(invar::tool_call::Format format, std::string_view text, size_t piece) {
  const auto reader = invar::tool_call::make_reader(format);
  std::vector<Event> events;
  for (size_t at = 0; at < text.size(); at += piece) reader->take(text.substr(at, piece), &events);
  reader->finish(&events);
  std::string out;
  int32_t calls = 0;
  auto last = Event::Kind::kContent;
  for (const Event& e : events) {
    if (e.kind == Event::Kind::kCall && e.call != calls++) std::abort();
    if (e.kind == Event::Kind::kArguments && e.call != calls - 1) std::abort();
    if (e.kind != last || e.kind == Event::Kind::kCall) out += static_cast<char>('0' + static_cast<int>(e.kind));
    last = e.kind;
    out += e.text;
  }
  return out;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using invar::tool_call::Format;
  if (size == 0) return 0;
  const auto format = static_cast<Format>(data[0] % 4);
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  const std::string whole = shown(format, text, text.size() + 1);
  if (shown(format, text, 1) != whole || shown(format, text, 3) != whole) std::abort();
  return 0;
}
