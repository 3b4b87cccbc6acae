#include "runtime/model/bench_plan.h"

#include <algorithm>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "runtime/worker/memory_plan.h"

namespace invar {
namespace {

absl::StatusOr<BenchShape> parse(const std::string& text) {
  BenchShape s{};
  if (std::sscanf(text.c_str(), "%ldx%ld", &s.rows, &s.context) != 2 || s.rows < 1 || s.context < 1)
    return absl::InvalidArgumentError(absl::StrCat("--decode ", text, ": want ROWSxCONTEXT, as in 64x1024"));
  return s;
}

// Requests of a trace at even distances, or made ones, cut to what the model and the pages hold.
absl::StatusOr<std::vector<Arrival>> requests(const std::string& trace, int64_t count, int64_t max_model_len) {
  std::vector<Arrival> all;
  if (trace == "default") {
    all = made_arrivals(count, 0);
  } else {
    auto read = read_arrivals(trace, INT64_MAX);
    if (!read.ok()) return read.status();
    all = *std::move(read);
  }
  const int64_t have = static_cast<int64_t>(all.size()), taken = std::min(count, have);
  std::vector<Arrival> some;
  for (int64_t i = 0; i < taken; ++i) {
    some.push_back(all[i * have / taken]);
    cut_to_context(&some.back(), max_model_len);
  }
  return some;
}

absl::Status plan_trace(const BenchOptions& o, const std::string& trace, int64_t gpu_memory, BenchPlan* p) {
  const RankOptions rank{.device = {.profile = p->profile, .backend = Backend::kCuda},
                         .page_size = o.page_size,
                         .gpu_memory_utilization = o.gpu_memory_utilization,
                         .max_num_seqs = o.max_num_seqs,
                         .max_num_batched_tokens = o.max_num_batched_tokens};
  const auto kv = kv_size(p->config, memory_needs(p->config, ModelShard::make(p->config, {}, {}), rank), rank,
                          static_cast<int64_t>(o.gpu_memory_utilization * static_cast<double>(gpu_memory)));
  if (!kv.ok()) return kv.status();
  const auto all = requests(trace, o.trace_requests, std::min(p->config.max_position_embeddings, kv->pages * kv->page_size));
  if (!all.ok()) return all.status();
  auto load = serve(*all, {.max_num_seqs = o.max_num_seqs,
                           .max_num_batched_tokens = o.max_num_batched_tokens,
                           .pages = kv->pages,
                           .page_size = kv->page_size,
                           .vocab_size = p->config.vocab_size,
                           .most_steps = o.trace_steps});
  if (!load.ok()) return load.status();
  for (const Arrival& a : *all) p->longest = std::max(p->longest, a.prompt_tokens + a.output_tokens);
  for (const ServedStep& step : load->steps)
    for (const int64_t slot : step.rows.slots) p->tokens = std::max(p->tokens, slot + 1);
  p->served.push_back(*std::move(load));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<BenchPlan> plan_bench(const BenchOptions& o, int64_t gpu_memory) {
  if (o.tp > 1 && !o.traces.empty())
    return absl::InvalidArgumentError(absl::StrCat("--tp ", o.tp, ": --price-trace is of one rank"));
  auto config = load_model_config(o.model);
  if (!config.ok()) return config.status();
  auto profile = parse_profile(o.profile);
  if (!profile.ok()) return profile.status();
  BenchPlan p{*std::move(config), *profile};
  for (const std::string& text : o.decode) {
    const auto shape = parse(text);
    if (!shape.ok()) return shape.status();
    p.decode.push_back(*shape);
    p.tokens = std::max(p.tokens, shape->rows * (shape->context + o.page_size));
    p.longest = std::max(p.longest, shape->context + 1);
  }
  for (const int64_t prompt : o.prefill) {
    p.tokens = std::max(p.tokens, prompt);
    p.longest = std::max(p.longest, prompt);
  }
  for (const std::string& trace : o.traces)
    if (const absl::Status planned = plan_trace(o, trace, gpu_memory, &p); !planned.ok())
      return absl::Status(planned.code(),
                          absl::StrCat("--price-trace ", trace == "default" ? "default: " : "", planned.message()));
  return p;
}

}  // namespace invar
