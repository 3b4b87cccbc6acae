#include "runtime/engine/stop_strings.h"

#include <random>

#include "gtest/gtest.h"

namespace invar::engine {
namespace {

struct Shown {
  std::string text;
  int stop = -1;
};

// Feeds pieces until a stop; the rest is not fed, as the engine would not.
Shown feed(StopStrings stops, const std::vector<std::string>& pieces, size_t unsearched = 0) {
  Shown out;
  for (size_t i = 0; i < pieces.size(); ++i) {
    StopStrings::Piece p = stops.push(pieces[i], i >= unsearched);
    out.text += p.text;
    if (p.stop >= 0) {
      out.stop = p.stop;
      return out;
    }
  }
  out.text += stops.finish();
  return out;
}

// The definition, plainly: the shortest prefix of the text that ends in a stop string, the longest such stop string.
Shown plainly(const std::vector<std::string>& stops, bool include, const std::string& text) {
  for (size_t end = 1; end <= text.size(); ++end) {
    int best = -1;
    for (size_t i = 0; i < stops.size(); ++i)
      if (end >= stops[i].size() && text.compare(end - stops[i].size(), stops[i].size(), stops[i]) == 0 &&
          (best < 0 || stops[i].size() > stops[best].size()))
        best = static_cast<int>(i);
    if (best >= 0) return {text.substr(0, include ? end : end - stops[best].size()), best};
  }
  return {text, -1};
}

TEST(StopStrings, CutsAtAndAfter) {
  EXPECT_EQ(feed(StopStrings({"END"}, false), {"abcENDdef"}).text, "abc");
  EXPECT_EQ(feed(StopStrings({"END"}, true), {"abcENDdef"}).text, "abcEND");
  EXPECT_EQ(feed(StopStrings({"END"}, false), {"abcEN", "Xdef"}).text, "abcENXdef");
}

TEST(StopStrings, HoldsBackOnlyWhatCouldBecomeAStop) {
  StopStrings stops({"</s>", "\n\nUser:"}, false);
  EXPECT_EQ(stops.push("hello <", true).text, "hello ");
  EXPECT_EQ(stops.push("b", true).text, "<b");
  EXPECT_EQ(stops.push("x\n\nUse", true).text, "x");
  EXPECT_EQ(stops.push("r", true).text, "");
  EXPECT_EQ(stops.push("s\n", true).text, "\n\nUsers");
  EXPECT_EQ(stops.finish(), "\n");
  EXPECT_EQ(stops.finish(), "");
}

TEST(StopStrings, NothingIsHeldBackWhenTheStopIsIncluded) {
  StopStrings stops({"</s>"}, true);
  EXPECT_EQ(stops.push("hello </s", true).text, "hello </s");
  const StopStrings::Piece p = stops.push(">tail", true);
  EXPECT_EQ(p.text, ">");
  EXPECT_EQ(p.stop, 0);
}

TEST(StopStrings, MultiByteCharacters) {
  // "é" is C3 A9, "è" is C3 A8: the first byte alone must not match, and no character is ever shown in halves.
  EXPECT_EQ(feed(StopStrings({"é"}, false), {"caf", "è", "s"}).text, "cafès");
  EXPECT_EQ(feed(StopStrings({"é"}, false), {"caf", "é", "s"}).text, "caf");
  EXPECT_EQ(feed(StopStrings({"🙂🙃"}, false), {"a🙂", "🙂", "🙃", "b"}).text, "a🙂");
  StopStrings held({"🙂🙃"}, false);
  EXPECT_EQ(held.push("a🙂", true).text, "a");
  EXPECT_EQ(held.push("🙂", true).text, "🙂");
}

TEST(StopStrings, MinTokens) {
  EXPECT_EQ(feed(StopStrings({"ab"}, false), {"xab", "yab", "z"}, 1).text, "xaby");
  // Begins in the text that is not searched, complete after it.
  EXPECT_EQ(feed(StopStrings({"ab"}, false), {"xa", "by"}, 1).text, "x");
  EXPECT_EQ(feed(StopStrings({"aa"}, false), {"aa", "a", "z"}, 1).text, "a");
}

TEST(StopStrings, AnyCutIntoPiecesGivesTheSame) {
  std::mt19937 random(7);
  const auto word = [&](int longest) {
    std::string s;
    for (int n = 1 + static_cast<int>(random() % longest); n > 0; --n) s.push_back("ab"[random() % 2]);
    return s;
  };
  int stopped = 0;
  for (int round = 0; round < 4000; ++round) {
    std::vector<std::string> stops;
    for (size_t n = 1 + random() % 3; n > 0; --n) stops.push_back(word(6));
    const bool include = random() % 2;
    const std::string text = word(24);
    std::vector<std::string> pieces;
    for (size_t at = 0; at < text.size();) {
      const size_t n = random() % 5;
      pieces.push_back(text.substr(at, n));
      at += pieces.back().size();
    }
    const Shown want = plainly(stops, include, text), got = feed(StopStrings(stops, include), pieces);
    ASSERT_EQ(got.text, want.text) << text;
    if (want.stop >= 0) {
      ++stopped;
      ASSERT_EQ(stops[got.stop], stops[want.stop]);
    } else {
      ASSERT_EQ(got.stop, -1);
    }
  }
  EXPECT_GT(stopped, 1000);
}

}  // namespace
}  // namespace invar::engine
