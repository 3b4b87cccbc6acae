// Finds stop strings in text that arrives in pieces and holds back what could still become one.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace invar::engine {

// The stop string that is complete first ends the text, as if it came character by character; of two complete at once, the
// longer one. So the result does not depend on how the text was cut into tokens. Work is linear in the text (Knuth-Morris-Pratt).
class StopStrings {
 public:
  // `stops`: non-empty strings. `include`: the text ends after the stop string instead of before it; nothing is held back then.
  StopStrings(std::vector<std::string> stops, bool include);

  struct Piece {
    std::string text;  // may be shown
    int stop = -1;     // index of the stop string that ended the text
  };
  // Takes more text. A stop string that is complete within a piece that is not `searched` does not count (min_tokens), but one
  // that begins there and is complete later does. After a stop nothing may be pushed.
  Piece push(std::string_view piece, bool searched);
  // The text is over: what was held back.
  std::string finish();

 private:
  struct Automaton {
    std::string pattern;
    std::vector<uint32_t> fallback;  // longest proper border of pattern[0, i]
    uint32_t matched = 0;
  };
  static bool advance(Automaton* a, char c);

  std::vector<Automaton> automata_;
  bool include_;
  std::string held_;  // end of the text, not shown yet
};

}  // namespace invar::engine
