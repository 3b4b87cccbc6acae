#include "kernels/logits/candidates.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <memory>
#include <numeric>

#include "kernels/logits/log_softmax.h"

namespace invar {

uint64_t fixed_top_p(float top_p) { return top_p > 0.0f ? static_cast<uint64_t>(static_cast<double>(top_p) * 0x1p32) : 0; }

uint64_t least_mass(float min_p) { return static_cast<uint64_t>(static_cast<double>(std::min(min_p, 1.0f)) * 0x1p40); }

bool inside_nucleus(uint64_t before, uint64_t fixed_top_p, uint64_t total) {
  using Wide = unsigned __int128;
  return before == 0 || static_cast<Wide>(before) << kTopPBits < static_cast<Wide>(fixed_top_p) * total;
}

void Candidates::make_room(int64_t count) {
  if (static_cast<int64_t>(ids_.size()) >= count) return;
  ids_.resize(count);
  y_.resize(count);
  masses_.resize(count);
}

void Candidates::reset(const float* y, int64_t count) {
  make_room(count);
  size_ = count;
  std::iota(ids_.begin(), ids_.begin() + count, 0);
  std::copy(y, y + count, y_.begin());
}

void Candidates::reset_listed(std::span<const int32_t> ids, std::span<const float> y) {
  size_ = static_cast<int64_t>(ids.size());
  make_room(size_);
  std::copy(ids.begin(), ids.end(), ids_.begin());
  std::copy(y.begin(), y.end(), y_.begin());
}

// The k-th largest of the blocks' keys is not above the k-th largest key, so k entries or more are found behind it, in few
// blocks.
void Candidates::reset_top(const float* y, int64_t count, int64_t k) {
  const int64_t blocks = (count + kKeyBlock - 1) / kKeyBlock;
  if (k >= blocks / 2) return reset(y, count);
  block_keys_.resize(blocks);
  loops_.block_keys(y, count, block_keys_.data());
  sorted_keys_ = block_keys_;
  std::nth_element(sorted_keys_.begin(), sorted_keys_.begin() + (k - 1), sorted_keys_.end(), std::greater<>());
  reset_from(y, count, sorted_keys_[k - 1]);
}

// A mass of m needs y >= max + ln m up to the rounding of the exponential, which is far below the margin.
void Candidates::reset_mass(const float* y, int64_t count, uint64_t least, float max) {
  constexpr double kMargin = 1.0 / 64;
  if (least == 0) return reset(y, count);
  block_keys_.resize((count + kKeyBlock - 1) / kKeyBlock);
  loops_.block_keys(y, count, block_keys_.data());
  const double bound = static_cast<double>(max) + log_of_masses(least);
  reset_from(y, count, signed_key(static_cast<float>(bound - kMargin * std::max(1.0, std::abs(bound)))));
}

void Candidates::reset_from(const float* y, int64_t count, int32_t key) {
  make_room(count);
  int64_t n = 0;
  for (int64_t first = 0; first < count; first += kKeyBlock) {
    if (block_keys_[first / kKeyBlock] < key) continue;
    for (int64_t i = first; i < std::min(count, first + kKeyBlock); ++i) {  // no branch: a flat distribution would mispredict it
      ids_[n] = static_cast<int32_t>(i);
      y_[n] = y[i];
      n += signed_key(y[i]) >= key ? 1 : 0;
    }
  }
  size_ = n;
}

template <class Keep>
void Candidates::keep_where(const Keep& keep) {
  int64_t n = 0;
  for (int64_t i = 0; i < size(); ++i) {
    const bool stays = keep(i);
    ids_[n] = ids_[i];
    y_[n] = y_[i];
    n += stays ? 1 : 0;
  }
  size_ = n;
}

void Candidates::keep_mass(uint64_t least, float max) {
  loops_.masses(y_.data(), size(), max, masses_.data());
  keep_where([&](int64_t i) { return masses_[i] >= least; });
}

void Candidates::keep_top(int64_t k) {
  if (k >= size()) return;
  keep_prefix([](int64_t) { return uint64_t{1}; }, [k](uint64_t before) { return before < static_cast<uint64_t>(k); });
}

bool Candidates::keep_nucleus(float top_p, float max, uint64_t total) {
  loops_.masses(y_.data(), size(), max, masses_.data());
  const uint64_t fixed = fixed_top_p(top_p);
  const auto inside = [=](uint64_t before) { return inside_nucleus(before, fixed, total); };
  if (inside(std::accumulate(masses_.begin(), masses_.begin() + size_, uint64_t{0}))) return false;
  keep_prefix([&](int64_t i) { return masses_[i]; }, inside);
  return true;
}

constexpr int64_t kShortList = 600;

// Keeps a prefix of the order: an entry stays if `inside`, a monotone function that is true for 0, holds for the weight before
// it. A long list is not sorted: the entry where the prefix ends is found by its key's digits, 12, 12 and 8 bits, then by id.
template <class Weight, class Inside>
void Candidates::keep_prefix(const Weight& weight, const Inside& inside) {
  if (size_ == 0) return;
  if (size_ <= kShortList) {  // sorting it costs less than clearing the bins
    active_.resize(size());
    std::iota(active_.begin(), active_.end(), 0);
    std::sort(active_.begin(), active_.end(), [&](int32_t a, int32_t b) {
      const uint32_t ka = numerics::order_key(y_[a]), kb = numerics::order_key(y_[b]);
      return ka != kb ? ka > kb : ids_[a] < ids_[b];
    });
    uint64_t before = 0;
    size_t stay = 0;
    for (; stay < active_.size() && inside(before); ++stay) before += weight(active_[stay]);
    std::sort(active_.begin(), active_.begin() + static_cast<int64_t>(stay));
    for (size_t i = 0; i < stay; ++i) {
      ids_[i] = ids_[active_[i]];
      y_[i] = y_[active_[i]];
    }
    size_ = static_cast<int64_t>(stay);
    return;
  }
  struct Bin {
    uint64_t weight;
    int64_t count;
  };
  constexpr int kShift[] = {20, 8, 0}, kBins[] = {4096, 4096, 256};
  const auto bins = std::make_unique<std::array<Bin, 4096>>();
  active_.resize(size());
  std::iota(active_.begin(), active_.end(), 0);
  uint64_t before = 0;
  uint32_t cut = 0;  // digits of the last key that stays
  for (int level = 0; level < 3; ++level) {
    const auto digit = [&](int32_t i) { return numerics::order_key(y_[i]) >> kShift[level] & (kBins[level] - 1u); };
    std::fill_n(bins->begin(), kBins[level], Bin{});
    for (const int32_t i : active_) {
      Bin& bin = (*bins)[digit(i)];
      bin.weight += weight(i);
      ++bin.count;
    }
    // The last bin that begins inside holds the end of the prefix; all above it stay, all below go.
    uint32_t last = 0;
    uint64_t before_last = before, sum = before;
    for (int b = kBins[level] - 1; b >= 0 && inside(sum); --b) {
      if ((*bins)[b].count == 0) continue;
      last = static_cast<uint32_t>(b);
      before_last = sum;
      sum += (*bins)[b].weight;
    }
    before = before_last;
    cut |= last << kShift[level];
    std::erase_if(active_, [&](int32_t i) { return digit(i) != last; });
  }
  int32_t last_id = 0;
  for (const int32_t i : active_) {  // equal keys, ids ascending
    if (!inside(before)) break;
    last_id = ids_[i];
    before += weight(i);
  }
  keep_where([&](int64_t i) {
    const uint32_t key = numerics::order_key(y_[i]);
    return key > cut || (key == cut && ids_[i] <= last_id);
  });
}

std::vector<int32_t> Candidates::sorted() const {
  std::vector<std::pair<uint32_t, int32_t>> order;
  for (int64_t i = 0; i < size_; ++i) order.emplace_back(~numerics::order_key(y_[i]), ids_[i]);
  std::sort(order.begin(), order.end());
  std::vector<int32_t> ids;
  for (const auto& [key, id] : order) ids.push_back(id);
  return ids;
}

}  // namespace invar
