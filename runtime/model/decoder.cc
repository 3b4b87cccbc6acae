#include "runtime/model/decoder.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "kernels/activation/activation.h"
#include "kernels/moe/router.h"
#include "kernels/norm/norm.h"
#include "runtime/model/tags.h"

namespace invar {
namespace {

using namespace v1;  // NOLINT: the trace's operator names

// Room for n elements; contents are lost when it grows.
template <class T>
T* room(Buffer& buffer, int64_t n) {
  const size_t bytes = static_cast<size_t>(std::max<int64_t>(n, 1)) * sizeof(T);
  if (buffer.size() < bytes) buffer = Buffer(bytes);
  return buffer.as<T>();
}

const Bf16* or_null(const std::vector<Bf16>& v) { return v.empty() ? nullptr : v.data(); }

// Logits rows computed and shipped at a time: bounds memory when a whole prompt's logits are wanted.
constexpr int64_t kLogitsBlock = 64;

}  // namespace

int64_t kv_page_bytes(const ModelConfig& config, const Layout& layout, int64_t page_size) {
  int64_t most = 0;
  for (int pp = 0; pp < layout.pp; ++pp)
    for (int tp = 0; tp < layout.tp; ++tp) {
      const ModelShard s = ModelShard::make(config, layout, {0, pp, 0, tp});
      most = std::max(most, s.layers.size() * s.kv_heads.size() * config.head_dim * page_size * 2 * 2);
    }
  return most;
}

Decoder::Decoder(const Device& device, parallel::Transport& transport, const ModelConfig& config, const Options& options)
    : device_(device),
      transport_(transport),
      config_(config),
      shard_(ModelShard::make(config, options.layout, options.at, device.control_arm())),
      tp_(transport, parallel::tp_members(options.layout, options.at), kTensorParallelTag),
      ep_(transport, parallel::ep_members(options.layout, options.at), kExpertParallelTag),
      all_reduce_(device, tp_),
      exchange_(device, ep_, parallel::expert_owners(config.moe.num_experts, options.layout.ep)) {}

absl::StatusOr<std::unique_ptr<Decoder>> Decoder::load(const Device& device, parallel::Transport& transport,
                                                       const ModelConfig& config, const Options& options,
                                                       const WeightSource& source, const LoadProgressFn& progress) {
  auto d = std::unique_ptr<Decoder>(new Decoder(device, transport, config, options));
  auto table = RopeTable::make(config.rope, config.rope_theta, config.head_dim, options.max_positions);
  if (!table.ok()) return table.status();
  d->rope_ = *std::move(table);
  auto weights = load_rank_weights(device, config, d->shard_, source, progress);
  if (!weights.ok()) return weights.status();
  d->weights_ = *std::move(weights);
  if (!d->shard_.kv_heads.empty())
    for (int64_t l = 0; l < d->shard_.layers.size(); ++l)
      d->pages_.emplace_back(device, options.kv.pages, options.kv.page_size, d->shard_.kv_heads.size(), config.head_dim);
  else
    d->pages_.resize(d->shard_.layers.size());
  return d;
}

size_t Decoder::kv_bytes() const {
  size_t n = 0;
  for (const KvPages& p : pages_) n += p.bytes();
  return n;
}

void Decoder::forward(const StepRows& rows, TraceRecorder* trace, const LogitsSink& sink) {
  trace_ = trace;
  const int64_t n = rows.size(), hidden = config_.hidden_size;
  room<Bf16>(x_, n * hidden);
  room<Bf16>(normed_, n * hidden);
  room<Bf16>(output_, n * hidden);
  if (shard_.first_stage) embed(rows);
  else receive_hidden(n);
  for (int64_t i = 0; i < shard_.layers.size(); ++i) {
    const LayerWeights& w = weights_.layers[i];
    const int64_t layer = shard_.layers.begin + i;
    if (n > 0) attention_block(rows, layer, w, pages_[i]);
    if (n > 0)
      rms_norm(device_, {.rows = n, .width = hidden, .x = x_.as<Bf16>(), .x_stride = hidden, .weight = w.post_attention_norm.data(),
                         .epsilon = config_.rms_norm_eps, .y = normed_.as<Bf16>(), .y_stride = hidden});
    if (trace_) trace_->record(MLP_NORM, layer, normed_.as<Bf16>(), hidden, 0, hidden);
    if (w.moe) moe_block(n, layer, w);
    else if (n > 0) dense_block(n, layer, w);
    if (n > 0) residual_add(device_, x_.as<Bf16>(), output_.as<Bf16>(), n * hidden);
    if (trace_) trace_->record(MLP_RESIDUAL, layer, x_.as<Bf16>(), hidden, 0, hidden);
  }
  if (shard_.last_stage) head(rows, sink);
  else send_hidden(n);
}

void Decoder::embed(const StepRows& rows) {
  const int64_t n = rows.size(), hidden = config_.hidden_size;
  Bf16* x = x_.as<Bf16>();
  const PackedWeights& table = *weights_.embedding;
  const auto copy_row = [&](int32_t token, Bf16* to) {
    for (int64_t c = 0; c < hidden; ++c) to[c] = table.at(token - shard_.vocabulary.begin, c);
  };
  if (tp_.size() == 1) {
    for (int64_t r = 0; r < n; ++r) copy_row(rows.tokens[r], x + r * hidden);
  } else if (n > 0) {
    // The owner of a token sends its row; every rank knows the tokens, hence who sends how many.
    std::vector<std::vector<int64_t>> rows_of(tp_.size());
    for (int64_t r = 0; r < n; ++r)
      rows_of[parallel::shard_owner(config_.vocab_size, tp_.size(), rows.tokens[r])].push_back(r);
    Bf16* moved = room<Bf16>(moved_, n * hidden);
    std::vector<std::span<std::byte>> pieces;
    int64_t at = 0;
    for (const auto& mine : rows_of) {
      const int64_t count = static_cast<int64_t>(mine.size()) * hidden;
      pieces.push_back(std::as_writable_bytes(std::span(moved + at, static_cast<size_t>(count))));
      at += count;
    }
    Bf16* own = reinterpret_cast<Bf16*>(pieces[tp_.index()].data());
    for (const int64_t r : rows_of[tp_.index()]) {
      copy_row(rows.tokens[r], own);
      own += hidden;
    }
    tp_.all_gather_v(pieces[tp_.index()], pieces, "embedding rows");
    const Bf16* from = moved;
    for (const auto& owned : rows_of)
      for (const int64_t r : owned) {
        std::memcpy(x + r * hidden, from, hidden * sizeof(Bf16));
        from += hidden;
      }
  }
  if (trace_) trace_->record(EMBED, -1, x, hidden, 0, hidden);
}

void Decoder::receive_hidden(int64_t n) {
  if (n == 0) return;
  Coordinates from = shard_.at;
  --from.pp;
  const parallel::Receive r{parallel::rank_of(shard_.layout, from),
                            {x_.data(), static_cast<size_t>(n * config_.hidden_size) * sizeof(Bf16)}};
  transport_.exchange({}, {&r, 1}, {"hidden rows from the previous stage", kStageTag});
}

void Decoder::send_hidden(int64_t n) {
  if (n == 0) return;
  Coordinates to = shard_.at;
  ++to.pp;
  const parallel::Send s{parallel::rank_of(shard_.layout, to),
                         {x_.data(), static_cast<size_t>(n * config_.hidden_size) * sizeof(Bf16)}};
  transport_.exchange({&s, 1}, {}, {"hidden rows to the next stage", kStageTag});
}

void Decoder::reduce(const RowShard& shard, int64_t rows, const float* partials, const std::vector<Bf16>& bias, Bf16* y) {
  all_reduce_.run({.rows = rows, .outputs = config_.hidden_size, .segments = shard.segments, .partials = partials,
                   .bias = or_null(bias), .y = y});
}

void Decoder::attention_block(const StepRows& rows, int64_t layer, const LayerWeights& w, KvPages& pages) {
  const int64_t n = rows.size(), hidden = config_.hidden_size, hd = config_.head_dim;
  const int64_t q_width = shard_.o.k.size(), kv_width = shard_.kv_heads.size() * hd, stride = q_width + 2 * kv_width;
  rms_norm(device_, {.rows = n, .width = hidden, .x = x_.as<Bf16>(), .x_stride = hidden, .weight = w.input_norm.data(),
                     .epsilon = config_.rms_norm_eps, .y = normed_.as<Bf16>(), .y_stride = hidden});
  if (trace_) trace_->record(ATTENTION_NORM, layer, normed_.as<Bf16>(), hidden, 0, hidden);

  float* partials = room<float>(partials_, static_cast<int64_t>(shard_.o.nodes.size()) * n * hidden);
  if (q_width > 0) {
    Bf16* q = room<Bf16>(qkv_, n * stride);
    Bf16* k = q + q_width;
    Bf16* v = k + kv_width;
    linear_column(device_, {.rows = n, .x = normed_.as<Bf16>(), .x_stride = hidden, .weights = &w.qkv, .bias = or_null(w.qkv_bias),
                            .y = q, .y_stride = stride});
    if (!w.q_norm.empty()) {
      rms_norm(device_, {.rows = n, .groups = shard_.query_heads.size(), .width = hd, .x = q, .x_stride = stride,
                         .weight = w.q_norm.data(), .epsilon = config_.rms_norm_eps, .y = q, .y_stride = stride});
      rms_norm(device_, {.rows = n, .groups = shard_.kv_heads.size(), .width = hd, .x = k, .x_stride = stride,
                         .weight = w.k_norm.data(), .epsilon = config_.rms_norm_eps, .y = k, .y_stride = stride});
    }
    // Query and key heads lie side by side: one call rotates both.
    rope(device_, {.rows = n, .heads = shard_.query_heads.size() + shard_.kv_heads.size(), .head_dim = hd, .x = q,
                   .x_stride = stride, .positions = rows.positions.data(), .table = &rope_});
    pages.write(device_, n, k, v, stride, rows.slots.data());
    if (trace_) {
      const int64_t own = (shard_.owned_kv_heads.begin - shard_.kv_heads.begin) * hd;
      trace_->record(QUERY, layer, q, stride, shard_.o.k.begin, q_width);
      trace_->record(KEY, layer, k + own, stride, shard_.owned_kv_heads.begin * hd, shard_.owned_kv_heads.size() * hd);
      trace_->record(VALUE, layer, v + own, stride, shard_.owned_kv_heads.begin * hd, shard_.owned_kv_heads.size() * hd);
    }
    Bf16* y = room<Bf16>(attended_, n * q_width);
    attention(device_, {.rows = n, .query_heads = shard_.query_heads.size(), .head_dim = hd, .q = q, .q_stride = stride,
                        .positions = rows.positions.data(), .sequences = rows.sequences.data(), .page_tables = rows.page_tables,
                        .kv_head_of = shard_.kv_head_of, .pages = &pages, .window = config_.window_of(layer),
                        .scale = numerics::div(1.0f, numerics::sqrt(static_cast<float>(hd))), .y = y, .y_stride = q_width});
    if (trace_) trace_->record(ATTENTION, layer, y, q_width, shard_.o.k.begin, q_width);
    linear_row(device_, {.rows = n, .x = y, .x_stride = q_width, .weights = &w.o, .segments = shard_.o.segments,
                         .first = shard_.o.first, .last = shard_.o.last, .nodes = shard_.o.nodes, .partials = partials});
  }
  reduce(shard_.o, n, partials, w.o_bias, output_.as<Bf16>());
  if (trace_) trace_->record(ATTENTION_OUTPUT, layer, output_.as<Bf16>(), hidden, 0, hidden);
  residual_add(device_, x_.as<Bf16>(), output_.as<Bf16>(), n * hidden);
  if (trace_) trace_->record(ATTENTION_RESIDUAL, layer, x_.as<Bf16>(), hidden, 0, hidden);
}

void Decoder::dense_block(int64_t n, int64_t layer, const LayerWeights& w) {
  const int64_t hidden = config_.hidden_size, width = shard_.down.k.size();
  float* partials = room<float>(partials_, static_cast<int64_t>(shard_.down.nodes.size()) * n * hidden);
  if (width > 0) {
    Bf16* gate_up = room<Bf16>(gate_up_, n * 2 * width);
    Bf16* y = room<Bf16>(activation_, n * width);
    linear_column(device_, {.rows = n, .x = normed_.as<Bf16>(), .x_stride = hidden, .weights = &w.gate_up,
                            .bias = or_null(w.gate_up_bias), .y = gate_up, .y_stride = 2 * width});
    silu_mul(device_, {.rows = n, .width = width, .x = gate_up, .x_stride = 2 * width, .y = y, .y_stride = width});
    if (trace_) trace_->record(MLP_ACTIVATION, layer, y, width, shard_.down.k.begin, width);
    linear_row(device_, {.rows = n, .x = y, .x_stride = width, .weights = &w.down, .segments = shard_.down.segments,
                         .first = shard_.down.first, .last = shard_.down.last, .nodes = shard_.down.nodes, .partials = partials});
  }
  reduce(shard_.down, n, partials, w.down_bias, output_.as<Bf16>());
  if (trace_) trace_->record(MLP_OUTPUT, layer, output_.as<Bf16>(), hidden, 0, hidden);
}

void Decoder::moe_block(int64_t n, int64_t layer, const LayerWeights& w) {
  const int64_t hidden = config_.hidden_size, experts = config_.moe.num_experts, top_k = config_.moe.top_k;
  float* scores = room<float>(router_, n * experts);
  int32_t* ids = room<int32_t>(ids_, n * top_k);
  float* weights = room<float>(weights_of_, n * top_k);
  if (n > 0) {
    linear_column(device_, {.rows = n, .x = normed_.as<Bf16>(), .x_stride = hidden, .weights = &w.router, .y_fp32 = scores,
                            .y_stride = experts});
    route(device_, {.rows = n, .experts = experts, .top_k = top_k, .renormalise = config_.moe.norm_topk_prob, .logits = scores,
                    .ids = ids, .weights = weights});
  }
  if (trace_) {
    trace_->record(ROUTER_LOGITS, layer, scores, experts, 0, experts);
    trace_->record(EXPERT_IDS, layer, ids, top_k, 0, top_k);
    trace_->record(EXPERT_WEIGHTS, layer, weights, top_k, 0, top_k);
  }
  const parallel::DispatchedRows here = exchange_.dispatch(normed_.as<Bf16>(), n, hidden, ids, top_k);
  const int64_t rows = here.rows();
  Bf16* results = room<Bf16>(moved_, rows * hidden);
  if (rows > 0) {
    float* partials = room<float>(partials_, static_cast<int64_t>(shard_.expert.nodes.size()) * rows * hidden);
    std::vector<const ExpertWeights*> held;
    for (const ExpertWeights& e : w.experts) held.push_back(&e);
    if (!shard_.expert.k.empty())
      expert_mlp(device_, {.offsets = here.offsets, .experts = held, .x = here.x, .hidden = hidden,
                           .segments = shard_.expert.segments, .first = shard_.expert.first, .last = shard_.expert.last,
                           .nodes = shard_.expert.nodes, .partials = partials});
    reduce(shard_.expert, rows, partials, {}, results);
  }
  const parallel::ReturnedRows home = exchange_.combine_return(results);
  if (trace_)
    for (int64_t i = 0; i < top_k; ++i) {
      std::vector<Bf16> slot(static_cast<size_t>(n * hidden));
      for (int64_t r = 0; r < n; ++r)
        if (home.row_of[r * top_k + i] >= 0)
          std::memcpy(slot.data() + r * hidden, home.expert_rows + home.row_of[r * top_k + i] * hidden, hidden * sizeof(Bf16));
      trace_->record(EXPERT_OUTPUT, layer, slot.data(), hidden, i * hidden, hidden);
    }
  if (n > 0)
    combine(device_, {.rows = n, .width = hidden, .top_k = top_k, .expert_rows = home.expert_rows, .row_of = home.row_of.data(),
                      .weights = weights, .y = output_.as<Bf16>()});
  if (trace_) trace_->record(MLP_OUTPUT, layer, output_.as<Bf16>(), hidden, 0, hidden);
}

void Decoder::head(const StepRows& rows, const LogitsSink& sink) {
  const int64_t hidden = config_.hidden_size, vocab = config_.vocab_size, mine = shard_.vocabulary.size();
  const int64_t n = static_cast<int64_t>(rows.logits.size());
  // Only rows whose logits are wanted are normed: x is not read again in this step.
  for (int64_t first = 0; first < n; first += kLogitsBlock) {
    const int64_t count = std::min(kLogitsBlock, n - first);
    Bf16* y = normed_.as<Bf16>();
    for (int64_t i = 0; i < count; ++i)
      std::memcpy(y + i * hidden, x_.as<Bf16>() + rows.logits[first + i] * hidden, hidden * sizeof(Bf16));
    rms_norm(device_, {.rows = count, .width = hidden, .x = y, .x_stride = hidden, .weight = weights_.final_norm.data(),
                       .epsilon = config_.rms_norm_eps, .y = y, .y_stride = hidden});
    const std::vector<int64_t> block(rows.logits.begin() + first, rows.logits.begin() + first + count);
    if (trace_) trace_->record(FINAL_NORM, -1, y, hidden, 0, hidden, &block);
    float* part = room<float>(logits_, count * mine);
    linear_column(device_, {.rows = count, .x = y, .x_stride = hidden, .weights = weights_.head.get(), .y_fp32 = part,
                            .y_stride = mine});
    if (trace_) trace_->record(LOGITS, -1, part, mine, shard_.vocabulary.begin, mine, &block);
    if (tp_.size() == 1) {
      sink(first, count, part);
      continue;
    }
    // Shards go to the sampling rank as they are; there they are laid side by side.
    if (tp_.index() != 0) {
      const parallel::Send s{0, std::as_bytes(std::span(part, static_cast<size_t>(count * mine)))};
      tp_.exchange({&s, 1}, {}, "logits");
      continue;
    }
    float* arrived = room<float>(gathered_, 2 * count * vocab);
    float* whole = arrived + count * vocab;
    std::vector<parallel::Receive> receives;
    int64_t at = 0;
    for (int r = 1; r < tp_.size(); ++r) {
      const int64_t size = count * parallel::shard(vocab, tp_.size(), r).size();
      receives.push_back({r, std::as_writable_bytes(std::span(arrived + at, static_cast<size_t>(size)))});
      at += size;
    }
    tp_.exchange({}, receives, "logits");
    for (int r = 0; r < tp_.size(); ++r) {
      const Range range = parallel::shard(vocab, tp_.size(), r);
      const float* from = r == 0 ? part : reinterpret_cast<const float*>(receives[r - 1].bytes.data());
      for (int64_t i = 0; i < count; ++i)
        std::memcpy(whole + i * vocab + range.begin, from + i * range.size(), range.size() * sizeof(float));
    }
    sink(first, count, whole);
  }
}

}  // namespace invar
