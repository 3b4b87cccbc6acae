// The attention order in scalar code, one row and head at a time: what every schedule must reproduce (README.md).
#include <algorithm>
#include <iterator>
#include <limits>
#include <vector>

#include "kernels/attention/attention.h"
#include "kernels/attention/attention_order.h"

namespace invar {
namespace {

using namespace attention_order;
namespace nm = numerics;

struct State {
  float reference = -std::numeric_limits<float>::infinity();
  float l = 0;
  std::vector<float> o;
};

class Row {
 public:
  Row(Profile profile, const Attention& problem, int64_t row, int64_t head)
      : profile_(profile),
        p_(problem),
        q_(problem.q + row * problem.q_stride + head * problem.head_dim),
        kv_head_(problem.kv_head_of[head]),
        table_(problem.step->page_table(problem.step->host_sequences()[row])),
        keys_(visible_keys(problem.step->host_positions()[row], problem.window)),
        c_(exponent_scale(problem.scale)),
        step_(exponent_step(c_)) {}

  void run(Bf16* y) const {
    State total;
    for (int64_t first = keys_.begin / kSplit * kSplit; first < keys_.end; first += kSplit) {
      State part = split(first);
      if (total.o.empty())
        total = std::move(part);
      else
        merge(total, part);
    }
    const float r = nm::div(1.0f, total.l);
    const bool finite = total.l < std::numeric_limits<float>::infinity();
    // Adding +0 gives a zero result one sign, whatever masked keys a schedule carried along.
    for (int64_t d = 0; d < p_.head_dim; ++d) y[d] = finite ? nm::bf(nm::fma(total.o[d], r, 0.0f)) : Bf16{0x7fff};
  }

 private:
  int64_t slot(int64_t key) const {
    return table_[key / p_.pages->page_size()] * p_.pages->page_size() + key % p_.pages->page_size();
  }

  float score(int64_t key) const {
    const int64_t s = slot(key);
    float acc = 0;
    if (profile_ == Profile::kPortable) {
      for (int64_t d = 0; d < p_.head_dim; ++d) acc = nm::fma(nm::widen(q_[d]), nm::widen(p_.pages->key(s, kv_head_, d)), acc);
      return acc;
    }
    for (int64_t d = 0; d < p_.head_dim; d += nm::kTensorCoreGroup) {
      Bf16 k[nm::kTensorCoreGroup];
      int count = 0;
      for (; count < nm::kTensorCoreGroup && d + count < p_.head_dim; ++count) k[count] = p_.pages->key(s, kv_head_, d + count);
      acc = nm::tensor_core_step(acc, q_ + d, k, count);
    }
    return acc;
  }

  State split(int64_t first) const {
    State state;
    state.o.assign(p_.head_dim, 0.0f);
    float lanes[kSumLanes] = {};  // portable
    for (int64_t block = first; block < first + kSplit; block += kBlock) {
      const int64_t begin = std::max(block, keys_.begin), end = std::min(block + kBlock, keys_.end);
      if (begin >= end) continue;
      float scores[kBlock], largest = -std::numeric_limits<float>::infinity();
      for (int64_t j = begin; j < end; ++j) {
        scores[j - block] = score(j);
        largest = std::max(largest, scores[j - block]);
      }
      if (moves(largest, step_, state.reference)) {
        const float reference = moved_reference(largest, c_, state.reference);
        const float alpha = rescale(state.reference, reference);
        for (float& l : lanes) l = nm::mul(l, alpha);
        state.l = nm::mul(state.l, alpha);
        for (float& o : state.o) o = nm::mul(o, alpha);
        state.reference = reference;
      }
      const float offset = nm::attention_offset(state.reference);
      Bf16 weights[kBlock] = {};
      for (int64_t j = begin; j < end; ++j) {
        const Bf16 p = nm::bf(nm::attention_weight(nm::fma(scores[j - block], step_, offset)));
        lanes[j % kSumLanes] = nm::add(lanes[j % kSumLanes], nm::widen(p));
        weights[j - block] = p;
      }
      if (profile_ == Profile::kTc) state.l = denominator_chain(state.l, weights);
      for (int64_t d = 0; d < p_.head_dim; ++d) state.o[d] = chain(state.o[d], weights, block, begin, end, d);
    }
    if (profile_ == Profile::kPortable) state.l = lane_tree(lanes);
    return state;
  }

  // The value products of one block go on from the accumulator; masked keys take no part.
  float chain(float acc, const Bf16* weights, int64_t block, int64_t begin, int64_t end, int64_t d) const {
    if (profile_ == Profile::kPortable) {
      for (int64_t j = begin; j < end; ++j)
        acc = nm::fma(nm::widen(weights[j - block]), nm::widen(p_.pages->value(slot(j), kv_head_, d)), acc);
      return acc;
    }
    for (int64_t group = block; group < block + kBlock; group += nm::kTensorCoreGroup) {
      Bf16 v[nm::kTensorCoreGroup] = {};
      for (int64_t j = std::max(begin, group); j < std::min(end, group + nm::kTensorCoreGroup); ++j)
        v[j - group] = p_.pages->value(slot(j), kv_head_, d);
      acc = nm::tensor_core_step(acc, weights + (group - block), v, nm::kTensorCoreGroup);
    }
    return acc;
  }

  // tc: the denominator goes on like a value column of ones. Masked keys have a weight of +0 here.
  static float denominator_chain(float acc, const Bf16* weights) {
    Bf16 ones[nm::kTensorCoreGroup];
    std::fill(std::begin(ones), std::end(ones), nm::bf(1.0f));
    for (int64_t group = 0; group < kBlock; group += nm::kTensorCoreGroup)
      acc = nm::tensor_core_step(acc, weights + group, ones, nm::kTensorCoreGroup);
    return acc;
  }

  static void merge(State& a, const State& b) {
    const float reference = std::max(a.reference, b.reference);
    const float wa = rescale(a.reference, reference), wb = rescale(b.reference, reference);
    a.l = nm::fma(b.l, wb, nm::mul(a.l, wa));
    for (size_t d = 0; d < a.o.size(); ++d) a.o[d] = nm::fma(b.o[d], wb, nm::mul(a.o[d], wa));
    a.reference = reference;
  }

  const Profile profile_;
  const Attention& p_;
  const Bf16* q_;
  const int64_t kv_head_;
  const std::span<const int32_t> table_;
  const KeyRange keys_;
  const float c_, step_;
};

}  // namespace

void attention_reference(Profile profile, const Attention& problem) {
  for (int64_t row = 0; row < problem.step->rows(); ++row)
    for (int64_t head = 0; head < problem.query_heads; ++head)
      Row(profile, problem, row, head).run(problem.y + row * problem.y_stride + head * problem.head_dim);
}

}  // namespace invar
