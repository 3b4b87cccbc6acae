#include "runtime/grammar/json_number.h"

#include <algorithm>
#include <map>
#include <tuple>

namespace invar::grammar {
namespace {

constexpr int64_t kMostDigits = 15;

// Digits in [low, high], and what becomes of "equal so far" to the bounds.
template <class Next>
void digits_between(NetworkBuilder& b, int32_t from, bool tight_low, char low, bool tight_high, char high, const Next& next) {
  const char first = tight_low ? low : '0', last = tight_high ? high : '9';
  for (char c = first; c <= last;) {
    const bool at_low = tight_low && c == low, at_high = tight_high && c == high;
    char end = c;  // the digits that touch no bound share an edge
    if (!at_low && !at_high) end = tight_high ? static_cast<char>(last - 1) : last;
    b.edge(from, static_cast<uint8_t>(c), static_cast<uint8_t>(end), next(at_low, at_high));
    c = static_cast<char>(end + 1);
  }
}

// Whole numbers with exactly the digits of `low` and `high`, which are as long as each other. behind(tight_low, tight_high) is
// where they lead.
template <class Behind>
void same_length(NetworkBuilder& b, int32_t from, std::string_view low, std::string_view high, const Behind& behind) {
  std::map<std::tuple<size_t, bool, bool>, int32_t> places = {{{0, true, true}, from}};
  for (size_t i = 0; i < low.size(); ++i)
    for (const bool tight_low : {true, false})
      for (const bool tight_high : {true, false}) {
        const auto place = places.find({i, tight_low, tight_high});
        if (place == places.end()) continue;
        digits_between(b, place->second, tight_low, low[i], tight_high, high[i], [&](bool at_low, bool at_high) {
          if (i + 1 == low.size()) return behind(at_low, at_high);
          const auto [next, added] = places.try_emplace({i + 1, at_low, at_high}, 0);
          if (added) next->second = b.state();
          return next->second;
        });
      }
}

// For each length that whole numbers in [low, high] have: part(low, high, low is the bound, high is the bound).
template <class Part>
void by_length(const std::string& low, const std::string& high, const Part& part) {
  for (size_t length = low.size(); length <= high.size(); ++length) {
    const bool first = length == low.size(), last = length == high.size();
    const std::string least = length == 1 ? "0" : "1" + std::string(length - 1, '0');
    part(first ? low : least, last ? high : std::string(length, '9'), first, last);
  }
}

void add_magnitudes(NetworkBuilder& b, int32_t from, uint64_t least, uint64_t most, int32_t to) {
  if (least > most) return;
  by_length(std::to_string(least), std::to_string(most), [&](const std::string& low, const std::string& high, bool, bool) {
    const int32_t begin = b.state();
    b.epsilon(from, begin);
    same_length(b, begin, low, high, [&](bool, bool) { return to; });
  });
}

struct Magnitude {
  std::string whole = "0", fraction;
  bool exclusive = false;
};

int compare(const Magnitude& a, const Magnitude& b) {
  if (a.whole.size() != b.whole.size()) return a.whole.size() < b.whole.size() ? -1 : 1;
  if (const int c = a.whole.compare(b.whole); c != 0) return c;
  return a.fraction.compare(b.fraction);  // no trailing zeros: order of texts is order of numbers
}

class Fractions {
 public:
  Fractions(NetworkBuilder& b, const Magnitude& low, const Magnitude& high, int64_t most, int32_t to)
      : b_(b), low_(low), high_(high), most_(most), to_(to) {}

  // Where a whole part leads that is equal to the bounds' or not.
  int32_t behind_whole(bool tight_low, bool tight_high) {
    const int32_t whole = state(-1, tight_low, tight_high);
    return whole;
  }

 private:
  // After `digits` of the fraction; -1 = before the point.
  int32_t state(int64_t digits, bool tight_low, bool tight_high) {
    const auto [found, added] = states_.try_emplace({digits, tight_low, tight_high}, 0);
    if (!added) return found->second;
    const int32_t at = found->second = b_.state();
    if (digits != 0 && may_end(std::max<int64_t>(digits, 0), tight_low, tight_high)) b_.epsilon(at, to_);
    if (digits < 0) {
      if (most_ > 0) b_.edge(at, '.', '.', state(0, tight_low, tight_high));
      return at;
    }
    if (digits == most_) return at;
    digits_between(b_, at, tight_low, digit(low_.fraction, digits), tight_high, digit(high_.fraction, digits),
                   [&](bool l, bool h) { return state(digits + 1, l, h); });
    return at;
  }
  static char digit(const std::string& fraction, int64_t i) {
    return i < static_cast<int64_t>(fraction.size()) ? fraction[i] : '0';
  }
  bool may_end(int64_t digits, bool tight_low, bool tight_high) const {
    if (tight_low && (digits < static_cast<int64_t>(low_.fraction.size()) || low_.exclusive)) return false;
    return !tight_high || digits < static_cast<int64_t>(high_.fraction.size()) || !high_.exclusive;
  }

  NetworkBuilder& b_;
  const Magnitude &low_, &high_;
  const int64_t most_;
  const int32_t to_;
  std::map<std::tuple<int64_t, bool, bool>, int32_t> states_;
};

void add_magnitudes(NetworkBuilder& b, int32_t from, const Magnitude& least, const Magnitude& most, int32_t to) {
  if (compare(least, most) > 0) return;
  by_length(least.whole, most.whole, [&](const std::string& low, const std::string& high, bool at_low, bool at_high) {
    const auto digits = static_cast<int64_t>(low.size());
    if (digits > kMostDigits) return;
    const int32_t begin = b.state();
    b.epsilon(from, begin);
    Fractions fractions(b, least, most, kMostDigits - digits, to);
    same_length(b, begin, low, high, [&](bool l, bool h) { return fractions.behind_whole(l && at_low, h && at_high); });
  });
}

}  // namespace

void add_integers(NetworkBuilder& builder, int32_t from, int64_t least, int64_t most, int32_t to) {
  if (most >= 0)
    add_magnitudes(builder, from, static_cast<uint64_t>(std::max<int64_t>(least, 0)), static_cast<uint64_t>(most), to);
  if (least >= 0) return;
  const int32_t negative = builder.state();
  builder.edge(from, '-', '-', negative);
  const auto size = [](int64_t x) { return uint64_t{0} - static_cast<uint64_t>(x); };
  add_magnitudes(builder, negative, most < 0 ? size(most) : 1, size(least), to);
}

std::optional<Decimal> decimal_of(std::string_view number) {
  Decimal d;
  size_t at = 0;
  if (at < number.size() && number[at] == '-') d.negative = true, ++at;
  std::string digits;
  int64_t point = -1;
  for (; at < number.size() && number[at] != 'e' && number[at] != 'E'; ++at) {
    if (number[at] == '.') {
      point = static_cast<int64_t>(digits.size());
    } else if (number[at] >= '0' && number[at] <= '9') {
      digits += number[at];
    } else {
      return std::nullopt;
    }
  }
  if (point < 0) point = static_cast<int64_t>(digits.size());
  if (at < number.size()) {
    int64_t exponent = 0;
    const bool minus = number.substr(at + 1).starts_with('-');
    for (at += number.substr(at + 1).find_first_not_of("+-") + 1; at < number.size() && exponent < 1000; ++at)
      exponent = exponent * 10 + (number[at] - '0');
    if (exponent > 40) return std::nullopt;
    point += minus ? -exponent : exponent;
  }
  if (point < 0) digits.insert(0, static_cast<size_t>(-point), '0'), point = 0;
  if (point > static_cast<int64_t>(digits.size())) digits.append(static_cast<size_t>(point) - digits.size(), '0');
  d.whole = digits.substr(0, static_cast<size_t>(point));
  d.fraction = digits.substr(static_cast<size_t>(point));
  d.whole.erase(0, std::min(d.whole.find_first_not_of('0'), d.whole.size()));
  if (d.whole.empty()) d.whole = "0";
  while (d.fraction.ends_with('0')) d.fraction.pop_back();
  d.negative &= !d.zero();
  return d;
}

void add_decimals(NetworkBuilder& builder, int32_t from, const std::optional<DecimalBound>& least,
                  const std::optional<DecimalBound>& most, int32_t to) {
  const Magnitude nothing, largest{.whole = std::string(kMostDigits, '9')};
  const auto of = [](const DecimalBound& bound) { return Magnitude{bound.value.whole, bound.value.fraction, bound.exclusive}; };
  if (!most || !most->value.negative)
    add_magnitudes(builder, from, least && !least->value.negative ? of(*least) : nothing, most ? of(*most) : largest, to);
  if (least && !least->value.negative) return;
  const int32_t negative = builder.state();
  builder.edge(from, '-', '-', negative);
  const Magnitude above_zero{.exclusive = true};
  add_magnitudes(builder, negative, most && most->value.negative ? of(*most) : above_zero, least ? of(*least) : largest, to);
}

}  // namespace invar::grammar
