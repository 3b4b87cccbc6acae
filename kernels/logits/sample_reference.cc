// Clauses 12 and 13 in scalar code with a full sort: what sample() must reproduce (README.md).
#include <algorithm>
#include <limits>
#include <map>
#include <set>
#include <vector>

#include "kernels/logits/candidates.h"
#include "kernels/logits/log_softmax.h"
#include "kernels/logits/logits.h"

namespace invar {
namespace {

namespace nm = numerics;

bool finite(std::span<const float> z) {
  bool some = false;
  for (const float x : z) {
    if (x != x || x == std::numeric_limits<float>::infinity()) return false;
    some |= x > -std::numeric_limits<float>::infinity();
  }
  return some;
}

bool before(std::span<const float> z, int32_t a, int32_t b) {
  const uint32_t ka = nm::order_key(z[a]), kb = nm::order_key(z[b]);
  return ka != kb ? ka > kb : a < b;
}

std::vector<int32_t> in_order(std::span<const float> z) {
  std::vector<int32_t> ids;
  for (size_t i = 0; i < z.size(); ++i) ids.push_back(static_cast<int32_t>(i));
  std::sort(ids.begin(), ids.end(), [&](int32_t a, int32_t b) { return before(z, a, b); });
  return ids;
}

std::vector<float> adjusted(const SampleProblem& p) {
  std::vector<float> z(p.logits.begin(), p.logits.end());
  std::map<int32_t, int32_t> count;
  std::set<int32_t> seen(p.prompt.begin(), p.prompt.end());
  for (const int32_t token : p.output) {
    ++count[token];
    seen.insert(token);
  }
  const SamplingControls& c = p.controls;
  for (size_t i = 0; i < z.size(); ++i)
    if (!token_allowed(p.allowed, static_cast<int64_t>(i))) z[i] = -std::numeric_limits<float>::infinity();
  for (const LogitBias& b : p.bias)
    if (b.bias != 0.0f && b.token >= 0 && b.token < static_cast<int64_t>(z.size())) z[b.token] = nm::add(z[b.token], b.bias);
  for (int32_t i = 0; i < static_cast<int32_t>(z.size()); ++i) {
    if (c.repetition_penalty != 1.0f && seen.contains(i))
      z[i] = z[i] < 0 ? nm::mul(z[i], c.repetition_penalty) : nm::div(z[i], c.repetition_penalty);
    if (!count.contains(i)) continue;
    if (c.frequency_penalty != 0.0f) z[i] = nm::sub(z[i], nm::mul(c.frequency_penalty, static_cast<float>(count[i])));
    if (c.presence_penalty != 0.0f) z[i] = nm::sub(z[i], c.presence_penalty);
  }
  return z;
}

int32_t choose(const SampleProblem& p, const std::vector<float>& z) {
  const SamplingControls& c = p.controls;
  std::vector<int32_t> order = in_order(z);
  if (c.temperature == 0.0f) return order[0];
  std::vector<float> y;
  for (const float x : z) y.push_back(nm::div(x, c.temperature));
  if (!finite(y)) return order[0];
  order = in_order(y);
  const float max = y[order[0]];
  if (c.min_p > 0.0f) std::erase_if(order, [&](int32_t i) { return nm::mass(y[i], max) < least_mass(c.min_p); });
  if (c.top_k > 0 && c.top_k < static_cast<int64_t>(order.size())) order.resize(c.top_k);
  if (c.top_p < 1.0f) {
    uint64_t total = 0, sum = 0;
    for (const int32_t i : order) total += nm::mass(y[i], max);
    size_t kept = 0;
    while (kept < order.size() && inside_nucleus(sum, fixed_top_p(c.top_p), total)) sum += nm::mass(y[order[kept++]], max);
    order.resize(kept);
  }
  std::vector<float> perturbed(z.size());
  for (const int32_t i : order)
    perturbed[i] = nm::add(y[i], nm::gumbel(c.seed, static_cast<uint32_t>(p.position), static_cast<uint32_t>(i), c.choice));
  return *std::min_element(order.begin(), order.end(), [&](int32_t a, int32_t b) { return before(perturbed, a, b); });
}

}  // namespace

SampleResult sample_reference(const SampleProblem& p) {
  SampleResult result;
  result.finite = finite(p.logits);
  if (!result.finite) return result;
  const std::vector<float> z = adjusted(p);
  result.finite = finite(z);
  if (!result.finite) return result;
  result.token = choose(p, z);
  const bool forced = p.force >= 0 && p.force < static_cast<int64_t>(z.size());
  if (p.top_logprobs < 0 && !forced) return result;

  const std::vector<int32_t> order = in_order(p.logits);
  uint64_t sum = 0;
  for (const float x : p.logits) sum += nm::mass(x, p.logits[order[0]]);
  const LogSoftmax log_softmax{p.logits[order[0]], log_of_masses(sum)};
  const auto describe = [&](int32_t token) {
    const auto rank = std::find(order.begin(), order.end(), token) - order.begin() + 1;
    return TokenLogprob{token, log_softmax.of(p.logits[token]), static_cast<int32_t>(rank)};
  };
  if (forced) result.forced = describe(p.force);
  if (p.top_logprobs < 0) return result;
  result.chosen = describe(result.token);
  for (int32_t i = 0; i < p.top_logprobs && i < static_cast<int32_t>(order.size()); ++i) result.top.push_back(describe(order[i]));
  return result;
}

}  // namespace invar
