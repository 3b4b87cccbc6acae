#include "runtime/engine/stop_strings.h"

#include <algorithm>
#include <utility>

namespace invar::engine {

StopStrings::StopStrings(std::vector<std::string> stops, bool include) : include_(include) {
  for (std::string& stop : stops) {
    Automaton a;
    a.pattern = std::move(stop);
    a.fallback.resize(a.pattern.size(), 0);
    for (uint32_t i = 1, k = 0; i < a.pattern.size(); ++i) {
      while (k > 0 && a.pattern[i] != a.pattern[k]) k = a.fallback[k - 1];
      if (a.pattern[i] == a.pattern[k]) ++k;
      a.fallback[i] = k;
    }
    automata_.push_back(std::move(a));
  }
}

// True when the pattern is complete with `c`.
bool StopStrings::advance(Automaton* a, char c) {
  if (a->matched == a->pattern.size()) a->matched = a->fallback.back();
  while (a->matched > 0 && a->pattern[a->matched] != c) a->matched = a->fallback[a->matched - 1];
  if (a->pattern[a->matched] == c) ++a->matched;
  return a->matched == a->pattern.size();
}

StopStrings::Piece StopStrings::push(std::string_view piece, bool searched) {
  if (automata_.empty()) return {std::string(piece), -1};
  for (const char c : piece) {
    held_.push_back(c);
    int stop = -1;
    for (size_t i = 0; i < automata_.size(); ++i) {
      if (!advance(&automata_[i], c) || !searched) continue;
      if (stop < 0 || automata_[i].pattern.size() > automata_[stop].pattern.size()) stop = static_cast<int>(i);
    }
    if (stop < 0) continue;
    std::string text = std::exchange(held_, {});
    if (!include_) {
      const size_t cut = automata_[stop].pattern.size();
      text.resize(text.size() - std::min(cut, text.size()));
    }
    return {std::move(text), stop};
  }
  size_t keep = 0;
  if (!include_)
    for (const Automaton& a : automata_) {
      // A pattern that is complete but did not count may go on only through its border.
      const size_t open = a.matched == a.pattern.size() ? a.fallback.back() : a.matched;
      keep = std::max(keep, open);
    }
  keep = std::min(keep, held_.size());
  std::string text = held_.substr(0, held_.size() - keep);
  held_.erase(0, text.size());
  return {std::move(text), -1};
}

std::string StopStrings::finish() { return std::exchange(held_, {}); }

}  // namespace invar::engine
