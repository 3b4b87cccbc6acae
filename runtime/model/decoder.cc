#include "runtime/model/decoder.h"

#include <algorithm>

#include "kernels/activation/activation.h"
#include "kernels/heads/heads.h"
#include "kernels/linear/gather_rows.h"
#include "kernels/norm/norm.h"
#include "kernels/norm/residual_norm.h"
#include "kernels/rows/rows.h"
#include "runtime/model/room.h"
#include "runtime/model/tags.h"

namespace invar {
namespace {

using namespace v1;  // NOLINT: the trace's operator names

const Bf16* or_null(const DeviceArray<Bf16>& v) { return v.empty() ? nullptr : v.data(); }

// Recorded steps are kept, one for each size.
constexpr int64_t kMostRecordedRows = 64;

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

parallel::PeerSizes peer_sizes(const ModelConfig& config, int64_t rows) {
  // A slice of one node of each rank, in whole blocks where linears deal them; an uneven layout's ranks ship more, and take more
  // parts.
  constexpr int64_t kMost = int64_t{128} << 20;  // bytes
  constexpr int64_t kTurn = int64_t{RowOwners::kBlock} * kMostPeers;
  const int64_t whole_rows = rows > kMostRecordedRows ? (rows + kTurn - 1) / kTurn * kTurn : rows;
  const int64_t elements = whole_rows * config.hidden_size * std::max<int64_t>(1, config.moe.top_k);
  const int64_t values = elements * 4, least = config.hidden_size * 4 * numerics::kSegments;
  return {.values = static_cast<size_t>(std::clamp(values, least, std::max(kMost, least))),
          .results = static_cast<size_t>(std::clamp(elements * 2, least, std::max(kMost, least))),
          .arrivals = static_cast<size_t>(kMostRecordedRows * config.hidden_size * 4 * numerics::kSegments),
          .whole = static_cast<size_t>(kLogitsBlock * config.vocab_size * 4)};
}

Decoder::Decoder(const Device& device, parallel::Transport& transport, const ModelConfig& config, const Options& options)
    : device_(device),
      staged_(device.backend() == Backend::kCpu || &transport.host_memory() != &transport ? nullptr
                                                                                          : parallel::staged(transport, device)),
      transport_(staged_ ? *staged_ : transport),
      config_(config),
      shard_(ModelShard::make(config, options.layout, options.at, device.control_arm())),
      tp_(transport_, parallel::tp_members(options.layout, options.at), kTensorParallelTag),
      peer_(tp_.size() > 1 ? options.peer : nullptr),
      all_reduce_(device, tp_, parallel::ReduceAlgorithm::kAuto, peer_),
      moe_(device, config_, shard_,
           parallel::Group(transport_, parallel::ep_members(options.layout, options.at), kExpertParallelTag), all_reduce_,
           partials_) {}

absl::StatusOr<std::unique_ptr<Decoder>> Decoder::load(const Device& device, parallel::Transport& transport,
                                                       const ModelConfig& config, const Options& options,
                                                       const WeightSource& source, const LoadProgressFn& progress) {
  auto d = std::unique_ptr<Decoder>(new Decoder(device, transport, config, options));
  auto table = RopeTable::make(config.rope, config.rope_theta, config.head_dim, options.max_positions);
  if (!table.ok()) return table.status();
  d->rope_ = *std::move(table);
  d->rope_.to_device(device);
  auto weights = load_rank_weights(device, config, d->shard_, source, progress);
  if (!weights.ok()) return weights.status();
  d->weights_ = *std::move(weights);
  d->moe_.hold(d->weights_.layers);
  // Ranks that exchange otherwise than on the device, and rows whose places the host looks up, wait in the middle of a step.
  const bool alone =
      options.layout.replica() == 1 || (options.layout.replica() == options.layout.tp && d->peer_ && d->peer_->recordable());
  d->may_record_ =
      options.record_decode && device.backend() == Backend::kCuda && alone && (config.moe.num_experts == 0 || d->moe_.at_home());
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
  inputs_.reset(device_, rows);
  if (!shard_.kv_heads.empty() && !pages_.empty())
    step_.reset(device_, rows.positions, rows.sequences, rows.page_tables, pages_[0].page_size(),
                {.kv = shard_.kv_heads.size(), .group = (shard_.query_heads.size() - 1) / shard_.kv_heads.size() + 1});
  if (run_recorded(rows, sink)) return;
  layers(rows);
  if (shard_.last_stage)
    head(rows, sink);
  else
    send_hidden(rows.size());
}

bool Decoder::run_recorded(const StepRows& rows, const LogitsSink& sink) {
  const int64_t n = rows.size(), wanted = static_cast<int64_t>(rows.logits.size());
  if (!may_record_ || trace_ || n == 0 || n > kMostRecordedRows || wanted == 0 || wanted > kLogitsBlock || step_.has_prefill())
    return false;
  Recorded& r = recorded_[{n, wanted, step_.has_merges()}];
  const bool settled = r.allocations == Device::allocations() && r.generation == step_.generation() && r.allocations > 0;
  const float* logits = nullptr;  // as the last queued or recorded step left them
  const auto work = [&] {
    layers(rows);
    logits = peer_ ? logits_over_peers(rows, 0, wanted) : logits_of(rows, 0, wanted);
  };
  if (!settled) {  // the first step of this size, or buffers have moved since: one by one, so that every buffer has its size
    r.work = {};
    work();
    r.allocations = Device::allocations();
    r.generation = step_.generation();
  } else {
    if (!r.work) {
      try {
        r.work = device_.record(work);
      } catch (const DeviceFailure&) {
        may_record_ = false;  // a schedule for a shape of this model waits in the middle: such steps are never recorded
        recorded_.clear();
        work();
        if (logits) sink(0, wanted, logits);
        return true;
      }
      r.logits = logits;
    }
    device_.run(r.work);
    logits = r.logits;
  }
  if (logits) sink(0, wanted, logits);
  return true;
}

void Decoder::layers(const StepRows& rows) {
  const int64_t n = rows.size(), hidden = config_.hidden_size;
  room<Bf16>(device_, x_, n * hidden);
  room<Bf16>(device_, normed_, n * hidden);
  room<Bf16>(device_, output_, n * hidden);
  if (shard_.first_stage)
    embed(rows);
  else
    receive_hidden(n);
  const int64_t count = shard_.layers.size();
  if (n > 0 && count > 0) norm(n, weights_.layers[0].input_norm.data());
  for (int64_t i = 0; i < count; ++i) {
    const LayerWeights& w = weights_.layers[i];
    const int64_t layer = shard_.layers.begin + i;
    const Bf16* next_norm = i + 1 < count ? weights_.layers[i + 1].input_norm.data() : nullptr;
    if (n > 0) attention_block(rows, layer, w, pages_[i], w.post_attention_norm.data());
    if (trace_) trace_->record(MLP_NORM, layer, normed_.as<Bf16>(), hidden, 0, hidden);
    if (w.moe)
      moe_block(n, i, w, next_norm);
    else if (n > 0)
      dense_block(n, layer, w, next_norm);
  }
}

void Decoder::norm(int64_t n, const Bf16* weight) {
  const int64_t hidden = config_.hidden_size;
  rms_norm(device_, {.rows = n,
                     .width = hidden,
                     .x = x_.as<Bf16>(),
                     .x_stride = hidden,
                     .weight = weight,
                     .epsilon = config_.rms_norm_eps,
                     .y = normed_.as<Bf16>(),
                     .y_stride = hidden});
}

// output_ is the block's result.
void Decoder::add_block(const BlockEnd& end, int64_t n) {
  const int64_t hidden = config_.hidden_size;
  if (trace_ || !end.next_norm) {
    residual_add(device_, x_.as<Bf16>(), output_.as<Bf16>(), n * hidden);
    if (trace_) trace_->record(end.residual, end.layer, x_.as<Bf16>(), hidden, 0, hidden);
    if (end.next_norm) norm(n, end.next_norm);
    return;
  }
  residual_rms_norm(device_, {.rows = n,
                              .width = hidden,
                              .x = x_.as<Bf16>(),
                              .y = output_.as<Bf16>(),
                              .weight = end.next_norm,
                              .epsilon = config_.rms_norm_eps,
                              .normed = normed_.as<Bf16>()});
}

void Decoder::embed(const StepRows& rows) {
  const int64_t n = rows.size(), hidden = config_.hidden_size;
  if (peer_) {
    if (n > 0) share_embeddings(n);
  } else if (tp_.size() > 1) {
    if (n > 0) exchange_embeddings(rows);
  } else if (n > 0) {
    gather_rows(
        device_,
        {.weights = weights_.embedding.get(), .ids = inputs_.tokens(), .rows = n, .y = x_.as<Bf16>(), .y_stride = hidden});
  }
  if (trace_) trace_->record(EMBED, -1, x_.as<Bf16>(), hidden, 0, hidden);
}

// The same without the host: each rank puts the rows that it has in their places, and these go to the others.
void Decoder::share_embeddings(int64_t n) {
  if constexpr (kCudaBuilt) {
    const int64_t hidden = config_.hidden_size;
    Bf16* x = x_.as<Bf16>();
    gather_rows(device_, {.weights = weights_.embedding.get(),
                          .ids = inputs_.tokens(),
                          .first_id = shard_.vocabulary.begin,
                          .rows = n,
                          .y = x,
                          .y_stride = hidden});
    const PeerView& view = peer_->view();
    const int64_t most = cuda::peer_rows_limit(view, hidden);
    for (int64_t first = 0; first < n; first += most) {
      cuda::PeerRows p{
          .rows = std::min(most, n - first), .width = hidden, .ids = inputs_.tokens() + first, .x = x + first * hidden};
      for (int m = 0; m < tp_.size(); ++m) p.first_id[m] = parallel::shard(config_.vocab_size, tp_.size(), m).begin;
      peer_->run([&] { cuda::peer_rows(device_, view, p); });
    }
  }
}

// The owner of a token sends its row; every rank knows the tokens, hence who sends how many.
void Decoder::exchange_embeddings(const StepRows& rows) {
  const int64_t n = rows.size(), hidden = config_.hidden_size;
  std::vector<std::vector<int64_t>> rows_of(tp_.size());
  for (int64_t r = 0; r < n; ++r) rows_of[parallel::shard_owner(config_.vocab_size, tp_.size(), rows.tokens[r])].push_back(r);
  Bf16* moved = room<Bf16>(device_, moved_, n * hidden);
  place_by_owner_.resize(static_cast<size_t>(n));
  std::vector<std::span<std::byte>> pieces;
  int64_t at = 0;
  for (const auto& owned : rows_of) {
    pieces.push_back(std::as_writable_bytes(std::span(moved + at * hidden, owned.size() * hidden)));
    for (const int64_t r : owned) place_by_owner_[r] = at++;
  }
  const std::span<std::byte> own = pieces[tp_.index()];
  if (!own.empty()) {
    tokens_by_owner_.clear();
    for (const int64_t r : rows_of[tp_.index()]) tokens_by_owner_.push_back(rows.tokens[r]);
    const int64_t count = static_cast<int64_t>(tokens_by_owner_.size());
    if (owned_tokens_.size() < count) owned_tokens_ = DeviceArray<int32_t>(device_, count);
    device_.upload(owned_tokens_.data(), tokens_by_owner_.data(), tokens_by_owner_.size() * sizeof(int32_t));
    gather_rows(device_, {.weights = weights_.embedding.get(),
                          .ids = owned_tokens_.data(),
                          .first_id = shard_.vocabulary.begin,
                          .rows = count,
                          .y = reinterpret_cast<Bf16*>(own.data()),
                          .y_stride = hidden});
  }
  tp_.all_gather_v(own, pieces, "embedding rows");
  const int64_t bytes = hidden * int64_t{sizeof(Bf16)};
  gather_rows(device_, {.count = n,
                        .row_bytes = bytes,
                        .from = moved,
                        .from_stride = bytes,
                        .index = embedding_index_.place(device_, place_by_owner_),
                        .to = x_.data(),
                        .to_stride = bytes});
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

parallel::RowReduction Decoder::reduction_of(const RowShard& shard, int64_t n, const DeviceArray<Bf16>& bias) {
  const int64_t hidden = config_.hidden_size;
  return {.rows = n,
          .outputs = hidden,
          .segments = shard.segments,
          .partials = room<float>(device_, partials_, static_cast<int64_t>(shard.nodes.size()) * n * hidden),
          .bias = or_null(bias),
          .y = output_.as<Bf16>()};
}

bool Decoder::multiply_row(const RowShard& shard, const PackedWeights& weights, const Bf16* x, const BlockEnd& end,
                           parallel::RowReduction* reduction) {
  RowLinear linear{.rows = reduction->rows,
                   .x = x,
                   .x_stride = shard.k.size(),
                   .weights = &weights,
                   .segments = shard.segments,
                   .first = shard.first,
                   .last = shard.last,
                   .nodes = shard.nodes,
                   .partials = partials_.as<float>()};
  using parallel::RowValues;
  if (row_finishes(device_, linear)) {
    reduction->values = RowValues::kFinished;
    linear.bias = reduction->bias;
    linear.y = x_.as<Bf16>();
    linear.adds = !trace_ && row_adds_residual(device_, linear);
    if (!linear.adds) linear.y = output_.as<Bf16>();
  } else if (!trace_ && end.next_norm) {
    linear.targets = all_reduce_.targets(*reduction);
    if (linear.targets.count == 0) linear.owners = all_reduce_.owners(*reduction);
    if (linear.targets.count > 0) reduction->values = RowValues::kSent;
    if (linear.owners.count > 0) reduction->values = RowValues::kDealt;
  }
  linear_row(device_, linear);
  return linear.adds;
}

// A trace wants every operator's result, so it takes the longer way; the bits are the same.
void Decoder::reduce_and_add(const parallel::RowReduction& reduction, const BlockEnd& end, bool added) {
  const int64_t hidden = config_.hidden_size;
  if (added) {
    if (end.next_norm) norm(reduction.rows, end.next_norm);
    return;
  }
  if (trace_ || !end.next_norm) {
    all_reduce_.run(reduction);
    if (trace_) trace_->record(end.output, end.layer, output_.as<Bf16>(), hidden, 0, hidden);
    return add_block(end, reduction.rows);
  }
  all_reduce_.run(reduction,
                  {.x = x_.as<Bf16>(), .weight = end.next_norm, .epsilon = config_.rms_norm_eps, .normed = normed_.as<Bf16>()});
}

void Decoder::attention_block(const StepRows& rows, int64_t layer, const LayerWeights& w, KvPages& pages, const Bf16* next_norm) {
  const int64_t n = rows.size(), hidden = config_.hidden_size, hd = config_.head_dim;
  const int64_t q_width = shard_.o.k.size(), kv_width = shard_.kv_heads.size() * hd, stride = q_width + 2 * kv_width;
  if (trace_) trace_->record(ATTENTION_NORM, layer, normed_.as<Bf16>(), hidden, 0, hidden);

  const BlockEnd end{layer, ATTENTION_OUTPUT, ATTENTION_RESIDUAL, next_norm};
  parallel::RowReduction reduction = reduction_of(shard_.o, n, w.o_bias);
  bool added = false;
  if (q_width > 0) {
    Bf16* q = room<Bf16>(device_, qkv_, n * stride);
    Bf16* k = q + q_width;
    Bf16* v = k + kv_width;
    linear_column(device_, {.rows = n,
                            .x = normed_.as<Bf16>(),
                            .x_stride = hidden,
                            .weights = &w.qkv,
                            .bias = or_null(w.qkv_bias),
                            .y = q,
                            .y_stride = stride});
    prepare_heads(device_, {.rows = n,
                            .query_heads = shard_.query_heads.size(),
                            .kv_heads = shard_.kv_heads.size(),
                            .head_dim = hd,
                            .qkv = q,
                            .stride = stride,
                            .q_weight = or_null(w.q_norm),
                            .k_weight = or_null(w.k_norm),
                            .epsilon = config_.rms_norm_eps,
                            .positions = inputs_.positions(),
                            .table = &rope_,
                            .pages = &pages,
                            .slots = inputs_.slots()});
    if (trace_) {
      const int64_t own = (shard_.owned_kv_heads.begin - shard_.kv_heads.begin) * hd;
      trace_->record(QUERY, layer, q, stride, shard_.o.k.begin, q_width);
      trace_->record(KEY, layer, k + own, stride, shard_.owned_kv_heads.begin * hd, shard_.owned_kv_heads.size() * hd);
      trace_->record(VALUE, layer, v + own, stride, shard_.owned_kv_heads.begin * hd, shard_.owned_kv_heads.size() * hd);
    }
    Bf16* y = room<Bf16>(device_, attended_, n * q_width);
    attention(device_, {.query_heads = shard_.query_heads.size(),
                        .head_dim = hd,
                        .q = q,
                        .q_stride = stride,
                        .step = &step_,
                        .kv_head_of = shard_.kv_head_of,
                        .pages = &pages,
                        .window = config_.window_of(layer),
                        .scale = numerics::div(1.0f, numerics::sqrt(static_cast<float>(hd))),
                        .y = y,
                        .y_stride = q_width});
    if (trace_) trace_->record(ATTENTION, layer, y, q_width, shard_.o.k.begin, q_width);
    added = multiply_row(shard_.o, w.o, y, end, &reduction);
  }
  reduce_and_add(reduction, end, added);
}

void Decoder::dense_block(int64_t n, int64_t layer, const LayerWeights& w, const Bf16* next_norm) {
  const int64_t hidden = config_.hidden_size, width = shard_.down.k.size();
  const BlockEnd end{layer, MLP_OUTPUT, MLP_RESIDUAL, next_norm};
  parallel::RowReduction reduction = reduction_of(shard_.down, n, w.down_bias);
  bool added = false;
  if (width > 0) {
    Bf16* y = room<Bf16>(device_, activation_, n * width);
    linear_gated(device_, {.rows = n,
                           .x = normed_.as<Bf16>(),
                           .x_stride = hidden,
                           .weights = &w.gate_up,
                           .both = room<Bf16>(device_, gate_up_, n * w.gate_up.matrix().outputs()),
                           .y = y,
                           .y_stride = width});
    if (trace_) trace_->record(MLP_ACTIVATION, layer, y, width, shard_.down.k.begin, width);
    added = multiply_row(shard_.down, w.down, y, end, &reduction);
  }
  reduce_and_add(reduction, end, added);
}

void Decoder::moe_block(int64_t n, int64_t local_layer, const LayerWeights& w, const Bf16* next_norm) {
  const int64_t layer = shard_.layers.begin + local_layer, hidden = config_.hidden_size;
  moe_.run(
      {.rows = n, .local_layer = local_layer, .weights = &w, .x = normed_.as<Bf16>(), .y = output_.as<Bf16>(), .trace = trace_});
  if (n == 0) return;
  if (trace_) trace_->record(MLP_OUTPUT, layer, output_.as<Bf16>(), hidden, 0, hidden);
  add_block({layer, MLP_OUTPUT, MLP_RESIDUAL, next_norm}, n);
}

// Rows [first, first + count) of those whose logits are wanted: this rank's share of the vocabulary, in logits_. Only they are
// normed: x is not read again in this step.
const float* Decoder::logits_of(const StepRows& rows, int64_t first, int64_t count) {
  const int64_t hidden = config_.hidden_size, mine = shard_.vocabulary.size(), bytes = hidden * int64_t{sizeof(Bf16)};
  Bf16* y = normed_.as<Bf16>();
  gather_rows(device_, {.count = count,
                        .row_bytes = bytes,
                        .from = x_.data(),
                        .from_stride = bytes,
                        .index = inputs_.logits() + first,
                        .to = y,
                        .to_stride = bytes});
  rms_norm(device_, {.rows = count,
                     .width = hidden,
                     .x = y,
                     .x_stride = hidden,
                     .weight = weights_.final_norm.data(),
                     .epsilon = config_.rms_norm_eps,
                     .y = y,
                     .y_stride = hidden});
  // Over peer memory the sampling rank's share goes to its place among the whole rows at once.
  const bool in_place = peer_ && tp_.index() == 0;
  float* part = in_place ? peer_->whole() : room<float>(device_, logits_, count * mine);
  const int64_t stride = in_place ? config_.vocab_size : mine;
  linear_column(device_,
                {.rows = count, .x = y, .x_stride = hidden, .weights = weights_.head.get(), .y_fp32 = part, .y_stride = stride});
  if (trace_) {
    const std::vector<int64_t> block(rows.logits.begin() + first, rows.logits.begin() + first + count);
    trace_->record(FINAL_NORM, -1, y, hidden, 0, hidden, &block);
    trace_->record(LOGITS, -1, part, stride, shard_.vocabulary.begin, mine, &block);
  }
  return part;
}

const float* Decoder::logits_over_peers(const StepRows& rows, int64_t first, int64_t count) {
  const float* part = logits_of(rows, first, count);
  if constexpr (kCudaBuilt)
    peer_->run([&] {
      cuda::peer_shards(device_, peer_->view(),
                        {.rows = count,
                         .stride = config_.vocab_size,
                         .column = shard_.vocabulary.begin,
                         .width = shard_.vocabulary.size(),
                         .part = part});
    });
  return peer_->whole();
}

void Decoder::head(const StepRows& rows, const LogitsSink& sink) {
  const int64_t vocab = config_.vocab_size, mine = shard_.vocabulary.size();
  const int64_t n = static_cast<int64_t>(rows.logits.size());
  for (int64_t first = 0; first < n; first += kLogitsBlock) {
    const int64_t count = std::min(kLogitsBlock, n - first);
    if (peer_) {
      if (const float* whole = logits_over_peers(rows, first, count)) sink(first, count, whole);
      continue;
    }
    const float* part = logits_of(rows, first, count);
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
    float* arrived = room<float>(device_, gathered_, 2 * count * vocab);
    float* whole = arrived + count * vocab;
    std::vector<parallel::Receive> receives;
    int64_t at = 0;
    for (int r = 1; r < tp_.size(); ++r) {
      const int64_t size = count * parallel::shard(vocab, tp_.size(), r).size();
      receives.push_back({r, std::as_writable_bytes(std::span(arrived + at, static_cast<size_t>(size)))});
      at += size;
    }
    tp_.exchange({}, receives, "logits");
    std::vector<const float*> shards;
    std::vector<int64_t> widths;
    for (int r = 0; r < tp_.size(); ++r) {
      shards.push_back(r == 0 ? part : reinterpret_cast<const float*>(receives[r - 1].bytes.data()));
      widths.push_back(parallel::shard(vocab, tp_.size(), r).size());
    }
    join_shards(device_, {.rows = count, .shards = shards, .widths = widths, .y = whole});
    sink(first, count, whole);
  }
}

}  // namespace invar
