// The schedule of clauses 12 and 13 on vocabulary loops; README.md has the order, sample_reference.cc the scalar text. One
// thread: callers hand rows to the threads of a device.
#include <algorithm>
#include <limits>
#include <vector>

#include "kernels/logits/candidates.h"
#include "kernels/logits/log_softmax.h"
#include "kernels/logits/logits.h"
#include "kernels/logits/vocabulary_loops.h"

namespace invar {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Memory that a thread keeps between draws; a vocabulary is large enough for a fresh allocation to cost more than a pass over it.
struct Scratch {
  explicit Scratch(const VocabularyLoops& loops) : candidates(loops) {}
  Candidates candidates;
  std::vector<float> z, y, perturbed;
  std::vector<int32_t> counts;
  std::vector<uint8_t> seen;
};

bool finite(const VocabularyLoops& loops, const float* z, int64_t count) {
  int32_t lowest, highest;
  loops.key_range(z, count, &lowest, &highest);
  return lowest >= signed_key(-kInfinity) && highest < signed_key(kInfinity) && highest > signed_key(-kInfinity);
}

class Draw {
 public:
  Draw(const Device& device, const SampleProblem& problem, Scratch& scratch)
      : p_(problem),
        loops_(vocabulary_loops(device.isa())),
        reversed_(device.control_arm() == ControlArm::kReversedTies),
        count_(static_cast<int64_t>(problem.logits.size())),
        scratch_(scratch) {}

  SampleResult run() {
    SampleResult result;
    result.finite = count_ > 0 && finite(loops_, p_.logits.data(), count_);
    if (!result.finite) return result;
    const float* z = adjusted();
    result.finite = finite(loops_, z, count_);
    if (!result.finite) return result;
    result.token = choose(z);
    report(result);
    return result;
  }

 private:
  // The logits that step 2 looks at: the raw ones where nothing changes them.
  const float* adjusted() {
    const SamplingControls& c = p_.controls;
    const bool penalties = (c.repetition_penalty != 1.0f || c.presence_penalty != 0.0f || c.frequency_penalty != 0.0f) &&
                           !(p_.prompt.empty() && p_.output.empty());
    if (p_.allowed.empty() && p_.bias.empty() && !penalties) return p_.logits.data();
    std::vector<float>& z = scratch_.z;
    z.resize(std::max<size_t>(z.size(), count_));
    mask(z.data());
    for (const LogitBias& b : p_.bias)
      if (b.bias != 0.0f && b.token >= 0 && b.token < count_) z[b.token] = numerics::add(z[b.token], b.bias);
    if (penalties) penalise(z);
    return z.data();
  }

  // Whole bytes at a time: masks are mostly runs of the one or the other.
  void mask(float* z) const {
    const float* raw = p_.logits.data();
    if (p_.allowed.empty()) {
      std::copy(raw, raw + count_, z);
      return;
    }
    const auto bytes = static_cast<int64_t>(p_.allowed.size());
    for (int64_t first = 0; first < count_; first += 8) {
      const int64_t count = std::min<int64_t>(8, count_ - first);
      const uint8_t bits = first / 8 < bytes ? p_.allowed[first / 8] : 0;
      if (bits == 0) {
        std::fill_n(z + first, count, -kInfinity);
      } else if (bits == 0xff) {
        std::copy(raw + first, raw + first + count, z + first);
      } else {
        for (int64_t i = 0; i < count; ++i) z[first + i] = bits >> i & 1 ? raw[first + i] : -kInfinity;
      }
    }
  }

  void penalise(std::vector<float>& z) {
    const SamplingControls& c = p_.controls;
    const bool repetition = c.repetition_penalty != 1.0f;
    scratch_.seen.resize(std::max<size_t>(scratch_.seen.size(), count_));
    scratch_.counts.resize(std::max<size_t>(scratch_.counts.size(), count_));
    const auto known = [&](int32_t token) { return token >= 0 && token < count_; };
    for (const int32_t token : p_.output)
      if (known(token)) ++scratch_.counts[token];
    for (const std::span<const int32_t> tokens : {p_.prompt, p_.output}) {
      for (const int32_t token : tokens) {
        if (!known(token) || scratch_.seen[token]) continue;
        scratch_.seen[token] = 1;
        float& x = z[token];
        if (repetition) x = x < 0 ? numerics::mul(x, c.repetition_penalty) : numerics::div(x, c.repetition_penalty);
        const int32_t n = scratch_.counts[token];
        if (n == 0) continue;
        if (c.frequency_penalty != 0.0f) x = numerics::sub(x, numerics::mul(c.frequency_penalty, static_cast<float>(n)));
        if (c.presence_penalty != 0.0f) x = numerics::sub(x, c.presence_penalty);
      }
    }
    for (const std::span<const int32_t> tokens : {p_.prompt, p_.output})
      for (const int32_t token : tokens)
        if (known(token)) scratch_.seen[token] = 0, scratch_.counts[token] = 0;
  }

  int32_t choose(const float* z) {
    const SamplingControls& c = p_.controls;
    if (c.temperature == 0.0f) return largest(z, nullptr, count_);
    const float* y = z;
    if (c.temperature != 1.0f) {
      scratch_.y.resize(count_);
      loops_.divide(z, count_, c.temperature, scratch_.y.data());
      y = scratch_.y.data();
      // A temperature so low that a quotient overflows is greedy.
      if (!finite(loops_, y, count_)) return largest(z, nullptr, count_);
    }
    const bool min_p = c.min_p > 0.0f, top_k = c.top_k > 0 && c.top_k < count_, top_p = c.top_p < 1.0f;
    if (!min_p && !top_k && !top_p) {
      scratch_.perturbed.resize(count_);
      loops_.perturb_all(y, count_, c.seed, static_cast<uint32_t>(p_.position), c.choice, scratch_.perturbed.data());
      return largest(scratch_.perturbed.data(), nullptr, count_);
    }
    int32_t lowest, highest;
    loops_.key_range(y, count_, &lowest, &highest);
    const float max = y[loops_.find_first(y, count_, highest)];
    Candidates& kept = scratch_.candidates;
    if (min_p) {
      kept.reset_mass(y, count_, least_mass(c.min_p), max);
      kept.keep_mass(least_mass(c.min_p), max);
    }
    if (top_k) {
      if (!min_p) kept.reset_top(y, count_, c.top_k);
      kept.keep_top(c.top_k);
    }
    if (top_p) {
      if (min_p || top_k) {
        kept.keep_nucleus(c.top_p, max, kept.total_mass(max));
      } else {
        constexpr int64_t kUsualNucleus = 1000;
        const uint64_t total = loops_.mass_sum(y, count_, max);
        kept.reset_top(y, count_, kUsualNucleus);
        if (!kept.keep_nucleus(c.top_p, max, total)) {
          kept.reset(y, count_);
          kept.keep_nucleus(c.top_p, max, total);
        }
      }
    }
    scratch_.perturbed.resize(kept.size());
    loops_.perturb(kept.y(), kept.ids(), kept.size(), c.seed, static_cast<uint32_t>(p_.position), c.choice,
                   scratch_.perturbed.data());
    return largest(scratch_.perturbed.data(), kept.ids(), kept.size());
  }

  // Largest key, then lowest id.
  int32_t largest(const float* z, const int32_t* ids, int64_t count) const {
    int32_t lowest, highest;
    loops_.key_range(z, count, &lowest, &highest);
    const int64_t i = reversed_ ? loops_.find_last(z, count, highest) : loops_.find_first(z, count, highest);
    return ids ? ids[i] : static_cast<int32_t>(i);
  }

  void report(SampleResult& result) {
    const bool forced = p_.force >= 0 && p_.force < count_;
    if (p_.top_logprobs < 0 && !forced) return;
    const float* z = p_.logits.data();
    int32_t lowest, highest;
    loops_.key_range(z, count_, &lowest, &highest);
    const float max = z[loops_.find_first(z, count_, highest)];
    const LogSoftmax log_softmax{max, log_of_masses(loops_.mass_sum(z, count_, max))};
    const auto describe = [&](int32_t token) {
      const int32_t key = signed_key(z[token]);
      const int64_t before = loops_.count_above(z, count_, key) + loops_.count_equal(z, token, key);
      return TokenLogprob{token, log_softmax.of(z[token]), static_cast<int32_t>(before + 1)};
    };
    if (forced) result.forced = describe(p_.force);
    if (p_.top_logprobs < 0) return;
    result.chosen = describe(result.token);
    if (p_.top_logprobs == 0) return;
    Candidates& likeliest = scratch_.candidates;
    likeliest.reset_top(z, count_, p_.top_logprobs);
    likeliest.keep_top(p_.top_logprobs);
    for (const int32_t token : likeliest.sorted())
      result.top.push_back(TokenLogprob{token, log_softmax.of(z[token]), static_cast<int32_t>(result.top.size()) + 1});
  }

  const SampleProblem& p_;
  const VocabularyLoops& loops_;
  const bool reversed_;
  const int64_t count_;
  Scratch& scratch_;
};

}  // namespace

const VocabularyLoops& vocabulary_loops(Isa isa) { return isa == Isa::kAvx512 ? kVocabularyLoopsAvx512 : kVocabularyLoopsAvx2; }

uint64_t hash_logits(const Device& device, const float* z, int64_t count, int64_t first) {
  if (device.isa() != Isa::kScalar) return vocabulary_loops(device.isa()).hash(z, count, static_cast<uint64_t>(first));
  uint64_t sum = 0;
  for (int64_t i = 0; i < count; ++i)
    sum += numerics::hash_element(static_cast<uint64_t>(first + i), numerics::canonical_bits(z[i]));
  return sum;
}

SampleResult sample(const Device& device, const SampleProblem& problem) {
  if (device.isa() == Isa::kScalar && device.control_arm() == ControlArm::kNone) return sample_reference(problem);
  thread_local Scratch narrow(kVocabularyLoopsAvx2), wide(kVocabularyLoopsAvx512);
  return Draw(device, problem, device.isa() == Isa::kAvx512 ? wide : narrow).run();
}

}  // namespace invar
