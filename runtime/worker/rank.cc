#include "runtime/worker/rank.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <stdexcept>

#include "absl/strings/str_cat.h"
#include "kernels/linear/tensor_core_check.h"
#include "runtime/model/tags.h"
#include "runtime/receipt/numerics_id.h"
#include "runtime/worker/build_id.h"
#include "runtime/worker/memory_plan.h"

namespace invar {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr milliseconds kIdlePoll{200};
constexpr milliseconds kBusyPoll{1};
// An idle leader says so this often; a follower that hears nothing for kLeaderSilence leaves.
constexpr std::chrono::seconds kHeartbeat{5};
constexpr std::chrono::seconds kLeaderSilence{120};
// Longest wait for draws of an earlier step that a plan refers to.
constexpr std::chrono::seconds kDrawDeadline{120};

struct DrawnToken {
  uint64_t sequence;
  uint32_t position;
  int32_t token;
};

std::span<const std::byte> bytes_of(const std::string& s) { return std::as_bytes(std::span(s.data(), s.size())); }

// Ranks of a host share its GPUs in turn.
int ranks_per_gpu(const parallel::Transport& transport) {
  const int gpus = std::max(1, Device::cuda_devices());
  return (transport.local_size() + gpus - 1) / gpus;
}

absl::StatusOr<std::unique_ptr<Device>> open_device(DeviceOptions options, const parallel::Transport& transport) {
  options.cuda_device = transport.local_rank() % std::max(1, Device::cuda_devices());
  return Device::open(options);
}

// Bytes this rank may take of its GPU; 0 on a CPU.
int64_t budget(const Device& device, const RankOptions& options, const parallel::Transport& transport) {
  if (device.backend() == Backend::kCpu) return 0;
  return static_cast<int64_t>(options.gpu_memory_utilization * static_cast<double>(device.memory().total)) /
         ranks_per_gpu(transport);
}

// The least of the members' values: a collective over them.
int64_t share_least(parallel::Transport& transport, const std::vector<int>& members, int64_t mine) {
  std::vector<int64_t> all(members.size());
  parallel::Group(transport, members, kStartTag)
      .all_gather(std::as_bytes(std::span(&mine, 1)), std::as_writable_bytes(std::span(all)), "KV pages");
  return *std::min_element(all.begin(), all.end());
}

}  // namespace

Rank::Rank(parallel::Transport& transport, const RankOptions& options)
    : progress_(std::make_shared<ProgressBoard>(transport.rank(), transport.host(), transport.rank() / options.layout.tp)),
      watched_(watched(transport, *progress_)),
      transport_(*watched_),
      options_(options),
      at_(parallel::coordinates_of(options.layout, transport.rank())),
      members_(parallel::replica_members(options.layout, at_)),
      sampler_(parallel::rank_of(options.layout, {at_.dp, options.layout.pp - 1, at_.ep, 0})) {}

absl::StatusOr<std::unique_ptr<Rank>> Rank::load(parallel::Transport& given, const LoadedModel& model, const RankOptions& options,
                                                 std::string digest, const LoadProgressFn& progress) {
  const ModelConfig& config = model.config;
  const absl::Status fits = parallel::validate(options.layout, {config.num_layers, config.moe.num_experts});
  if (!fits.ok()) return fits;
  if (given.size() != options.layout.world())
    return absl::InvalidArgumentError(absl::StrCat("layout ", parallel::to_string(options.layout), " needs ",
                                                   options.layout.world(), " ranks, but ", given.size(), " were started"));
  if (options.max_model_len < 0 || options.max_model_len > config.max_position_embeddings)
    return absl::InvalidArgumentError(absl::StrCat("--max-model-len ", options.max_model_len, ": the model has ",
                                                   config.max_position_embeddings, " positions (max_position_embeddings)"));
  auto rank = std::unique_ptr<Rank>(new Rank(given, options));
  parallel::Transport& transport = rank->transport_;
  auto device = open_device(options.device, transport);
  if (!device.ok()) return device.status();
  rank->device_ = *std::move(device);
  rank->sampler_of_rows_ = std::make_unique<RowSampler>(*rank->device_);
  const ModelShard shard = ModelShard::make(config, options.layout, rank->at_, options.device.control_arm);
  auto kv = kv_size(config, memory_needs(config, shard, options), options, budget(*rank->device_, options, transport));
  if (!kv.ok()) return kv.status();
  if (rank->device_->backend() == Backend::kCuda) kv->pages = share_least(transport, rank->members_, kv->pages);
  if (digest.empty()) {
    auto shared = share_digest(transport, [&] { return digest_of(model, options.device.threads, progress); });
    if (!shared.ok()) return shared.status();
    digest = *std::move(shared);
  }
  const int64_t length = options.max_model_len > 0 ? options.max_model_len : config.max_position_embeddings;
  const int64_t positions = std::min(length, kv->pages * kv->page_size);
  if (rank->device_->backend() == Backend::kCuda) {
    const absl::Status sound = check_tensor_cores(*rank->device_);
    if (!sound.ok()) return sound;
    const Exchange exchange = options.exchange;
    if ((exchange == Exchange::kAuto || exchange == Exchange::kPeer) && options.layout.tp > 1) {
      auto peer =
          parallel::PeerMemory::open(transport, *rank->device_, parallel::tp_members(options.layout, rank->at_),
                                     peer_sizes(config, options.max_num_batched_tokens), {},
                                     // Ranks that share one are better off over the host, unless told otherwise.
                                     exchange == Exchange::kPeer ? parallel::SharedGpus::kTaken : parallel::SharedGpus::kRefused);
      if (peer.ok())
        rank->peer_ = *std::move(peer);
      else if (exchange == Exchange::kPeer)
        return peer.status();
    }
    const bool travels = options.layout.replica() > (rank->peer_ ? options.layout.tp : 1);
    if (exchange != Exchange::kHost && travels) {
      auto nccl = parallel::start_nccl(transport, *rank->device_);
      if (nccl.ok()) {
        rank->nccl_ = *std::move(nccl);
        rank->device_transport_ = watched(*rank->nccl_, *rank->progress_);
      } else if (options.exchange == Exchange::kNccl) {
        return nccl.status();
      }
    }
  }
  parallel::Transport& moves = rank->device_transport_ ? *rank->device_transport_ : transport;
  auto decoder = Decoder::load(*rank->device_, moves, config,
                               {.layout = options.layout,
                                .at = rank->at_,
                                .kv = *kv,
                                .max_positions = positions,
                                .record_decode = options.record_decode,
                                .peer = rank->peer_.get()},
                               *model.weights, progress);
  if (!decoder.ok()) return decoder.status();
  rank->decoder_ = *std::move(decoder);

  rank->facts_ = {.homes = options.layout.ep,
                  .pages_per_home = kv->pages,
                  .page_size = kv->page_size,
                  .max_positions = positions,
                  .vocab_size = config.vocab_size,
                  .numerics_id = numerics_id(options.device.profile, options.device.control_arm),
                  .model_digest = digest,
                  .layout = parallel::to_string(options.layout),
                  .ranks = options.layout.replica()};
  rank->report_ = {
      .rank = transport.rank(),
      .host = transport.host(),
      .pid = static_cast<int>(getpid()),
      .device = absl::StrCat(rank->device_->describe(), rank->peer_ ? ", peer" : "", rank->device_transport_ ? ", nccl" : ""),
      .numerics_id = rank->facts_.numerics_id,
      .model_digest = digest,
      .build_id = std::string(build_id()),
      .weight_bytes = static_cast<int64_t>(rank->decoder_->weight_bytes()),
      .kv_bytes = static_cast<int64_t>(rank->decoder_->kv_bytes())};
  if (!options.trace.empty()) {
    v1::TraceHeader header;
    header.set_numerics_id(rank->facts_.numerics_id);
    header.set_model_digest(digest);
    header.set_layout(rank->facts_.layout);
    header.set_rank(transport.rank());
    header.set_coordinates(absl::StrCat("dp", rank->at_.dp, " pp", rank->at_.pp, " ep", rank->at_.ep, " tp", rank->at_.tp));
    header.set_values(options.trace_detail == TraceDetail::kValues);
    auto trace = TraceRecorder::create(options.trace, header, *rank->device_);
    if (!trace.ok()) return trace.status();
    rank->trace_ = *std::move(trace);
  }
  return rank;
}

std::vector<RankReport> Rank::gather_reports() { return invar::gather_reports(transport_, members_, report_); }

absl::Status Rank::run(PlanChannel* channel) {
  std::string failure;
  absl::StatusCode code = absl::StatusCode::kUnavailable;
  progress_->restart();
  try {
    return channel ? lead(*channel) : follow();
  } catch (const parallel::PeerFailure& e) {
    failure = e.what();
  } catch (const DeviceFailure& e) {
    failure = absl::StrCat("rank ", report_.rank, " on ", report_.host, " in step ", step_, ": ", e.what());
  } catch (const std::exception& e) {
    code = absl::StatusCode::kInternal;
    failure = absl::StrCat("rank ", report_.rank, " on ", report_.host, " in step ", step_, ": ", e.what());
  }
  if (peer_) peer_->keep_window();
  if (channel) {
    v1::StepResult lost;
    lost.set_step(step_);
    lost.set_failure(failure);
    channel->post(lost);
  }
  return absl::Status(code, failure);
}

absl::Status Rank::lead(PlanChannel& channel) {
  const auto tell_others = [&](const v1::StepPlan& plan) {
    const std::string bytes = plan.SerializeAsString();
    for (size_t i = 1; i < members_.size(); ++i) transport_.send_message(members_[i], kPlanTag, bytes_of(bytes));
  };
  auto last_word = Clock::now();
  for (;;) {
    auto plan = channel.next(pending_.empty() ? kIdlePoll : milliseconds(0));
    if (!plan.ok()) {  // the coordinator is gone: nobody will send another plan
      v1::StepPlan bye;
      bye.set_shutdown(true);
      tell_others(bye);
      return plan.status();
    }
    if (plan->has_value()) {
      const v1::StepPlan& p = **plan;
      tell_others(p);
      last_word = Clock::now();
      if (p.shutdown()) {
        while (!pending_.empty()) collect_results(channel, kBusyPoll);
        return absl::OkStatus();
      }
      execute(p);
      collect_results(channel, milliseconds(0));
      continue;
    }
    if (!pending_.empty()) {
      collect_results(channel, kBusyPoll);
      continue;
    }
    while (!awaited_tokens_.empty() && take_tokens(milliseconds(0))) {
    }
    if (Clock::now() - last_word > kHeartbeat) {
      tell_others(v1::StepPlan());  // step 0: only a sign of life
      last_word = Clock::now();
    }
  }
}

absl::Status Rank::follow() {
  std::vector<std::byte> bytes;
  auto last_word = Clock::now();
  for (;;) {
    if (!transport_.try_receive_message(members_.front(), kPlanTag, bytes, kIdlePoll)) {
      while (!awaited_tokens_.empty() && take_tokens(milliseconds(0))) {
      }
      if (Clock::now() - last_word > kLeaderSilence)
        throw parallel::PeerFailure({.rank = report_.rank,
                                     .host = report_.host,
                                     .phase = "waiting for a plan",
                                     .peer = members_.front(),
                                     .waited_seconds = std::chrono::duration<double>(Clock::now() - last_word).count()});
      continue;
    }
    last_word = Clock::now();
    v1::StepPlan plan;
    if (!plan.ParseFromArray(bytes.data(), static_cast<int>(bytes.size())))
      throw std::logic_error("a plan from the leader cannot be parsed");
    if (plan.shutdown()) return absl::OkStatus();
    if (plan.step() != 0) execute(plan);
  }
}

void Rank::execute(const v1::StepPlan& plan) {
  const auto begin = Clock::now();
  step_ = plan.step();
  progress_->step_begins();
  sequences_.apply(plan);
  std::vector<LogitsRow> wanted;
  const uint32_t home = static_cast<uint32_t>(at_.ep);
  StepRows rows = sequences_.rows_of(plan, home, facts_.page_size, wanted);
  if (decoder_->shard().first_stage) fill_tokens(plan, rows);
  if (trace_) {
    if (leader()) trace_->plan(plan);
    trace_->begin_step(step_, sequences_.trace_rows(plan, home));
  }
  v1::StepResult mine;
  mine.set_step(step_);
  decoder_->forward(rows, trace_.get(), [&](int64_t first, int64_t count, const float* logits) {
    draw(plan, std::span(wanted).subspan(first, count), logits, &mine);
  });
  if (trace_) {
    if (decoder_->samples()) {
      std::vector<int32_t> draws;
      for (const v1::TokenResult& t : mine.tokens()) draws.push_back(t.token());
      trace_->record(v1::DRAW, -1, draws.data(), 1, 0, 1, &rows.logits);
    }
    trace_->end_step();
  }
  mine.set_compute_us(static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - begin).count()));
  progress_->step_ends();

  if (decoder_->samples())
    send_tokens(mine);
  else if (decoder_->shard().first_stage && !wanted.empty())
    awaited_tokens_.push_back(step_);
  if (leader()) {
    Pending p;
    p.result.set_step(step_);
    for (int ep = 0; ep < options_.layout.ep; ++ep)
      p.missing.push_back(parallel::rank_of(options_.layout, {at_.dp, options_.layout.pp - 1, ep, 0}));
    if (decoder_->samples()) {
      std::erase(p.missing, transport_.rank());
      p.result = std::move(mine);
    }
    pending_.push_back(std::move(p));
  } else if (decoder_->samples()) {
    transport_.send_message(members_.front(), kResultTag, bytes_of(mine.SerializeAsString()));
  }
}

void Rank::fill_tokens(const v1::StepPlan& plan, StepRows& rows) {
  for_chunks(sequences_, plan, static_cast<uint32_t>(at_.ep), [&](const v1::Chunk& chunk, const RankSequence& s) {
    for (uint32_t p = chunk.first_position(); p < chunk.first_position() + chunk.count(); ++p) {
      while (p >= s.tokens.size()) {
        if (awaited_tokens_.empty())
          throw std::logic_error(
              absl::StrCat("sequence ", chunk.sequence(), " has no token at position ", p, " and none is coming"));
        if (take_tokens(milliseconds(0))) continue;
        constexpr const char* kWait = "waiting for tokens drawn";
        progress_->wait_begins(kWait);
        if (!take_tokens(kDrawDeadline))
          throw parallel::PeerFailure({.rank = report_.rank,
                                       .host = report_.host,
                                       .phase = kWait,
                                       .peer = sampler_,
                                       .waited_seconds = double(kDrawDeadline.count())});
        progress_->wait_ends();
      }
      rows.tokens.push_back(s.tokens[p]);
    }
  });
  // Draws nobody asked for must be taken too, or the sender would wait for us for ever.
  while (awaited_tokens_.size() > static_cast<size_t>(options_.layout.pp) + 2 && take_tokens(kDrawDeadline)) {
  }
}

bool Rank::take_tokens(milliseconds wait) {
  std::vector<std::byte> bytes;
  if (!transport_.try_receive_message(sampler_, kTokensTag, bytes, wait)) return false;
  awaited_tokens_.pop_front();
  for (size_t i = 0; i + sizeof(DrawnToken) <= bytes.size(); i += sizeof(DrawnToken)) {
    DrawnToken d;
    std::memcpy(&d, bytes.data() + i, sizeof d);
    if (!sequences_.contains(d.sequence)) continue;
    std::vector<int32_t>& tokens = sequences_.at(d.sequence).tokens;
    if (d.position == tokens.size()) tokens.push_back(d.token);
  }
  return true;
}

void Rank::draw(const v1::StepPlan& plan, std::span<const LogitsRow> rows, const float* logits, v1::StepResult* result) {
  std::vector<SampleProblem> problems;
  std::vector<DrawRules> rules;
  rules.reserve(rows.size());  // problems look into it
  for (const LogitsRow& row : rows) {
    const RankSequence& s = sequences_.at(row.sequence);
    const size_t next = size_t{row.position} + 1;
    const std::span<const int32_t> known(s.tokens);
    const size_t prompt = std::min<size_t>(s.prompt_length, next);
    const std::span<const int32_t> output = known.subspan(prompt, next - prompt);
    std::span<const uint8_t> mask;
    if (row.mask > 0) {
      const std::string& bytes = plan.token_masks(static_cast<int>(row.mask) - 1);
      mask = {reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()};
    }
    // Draws that only report on the prompt are free of what is said of the answer.
    rules.push_back(next < s.prompt_length ? DrawRules() : draw_rules(s, output, mask));
    problems.push_back({.controls = s.controls,
                        .prompt = known.first(prompt),
                        .output = output,
                        .allowed = rules.back().allowed,
                        .bias = rules.back().bias,
                        .position = static_cast<int32_t>(next),
                        .top_logprobs = next < s.prompt_length ? s.prompt_logprobs : s.top_logprobs,
                        .force = next < known.size() ? known[next] : -1});
  }
  // A sequence gets at most one new token a step, and problems look at its tokens, which therefore must not grow before all rows
  // are done.
  const std::vector<SampledRow> sampled = sampler_of_rows_->run(logits, facts_.vocab_size, problems);
  const auto set = [](v1::Logprob* to, const TokenLogprob& from) {
    to->set_token_id(from.token);
    to->set_logprob(from.logprob);
    to->set_logprob_bits(numerics::float_bits(from.logprob));
    to->set_rank(from.rank);
  };
  for (size_t i = 0; i < rows.size(); ++i) {
    const SampleProblem& problem = problems[i];
    const auto& [drawn, hash] = sampled[i];
    v1::TokenResult& out = *result->add_tokens();
    out.set_sequence(rows[i].sequence);
    out.set_position(static_cast<uint32_t>(problem.position));
    out.set_token(drawn.token);
    out.set_finite(drawn.finite);
    out.set_logits_hash(hash);
    if (problem.top_logprobs >= 0) {
      set(out.mutable_chosen(), drawn.chosen);
      if (problem.force >= 0) set(out.mutable_forced(), drawn.forced);
      for (const TokenLogprob& t : drawn.top) set(out.add_top(), t);
    }
    std::vector<int32_t>& tokens = sequences_.at(rows[i].sequence).tokens;
    if (static_cast<size_t>(problem.position) == tokens.size()) tokens.push_back(drawn.token);
  }
}

void Rank::send_tokens(const v1::StepResult& mine) {
  if (mine.tokens_size() == 0) return;
  std::vector<DrawnToken> drawn;
  for (const v1::TokenResult& t : mine.tokens()) drawn.push_back({t.sequence(), t.position(), t.token()});
  for (const int peer : parallel::tp_members(options_.layout, {at_.dp, 0, at_.ep, 0}))
    if (peer != transport_.rank()) transport_.send_message(peer, kTokensTag, std::as_bytes(std::span(drawn)));
}

bool Rank::collect_results(PlanChannel& channel, milliseconds wait) {
  std::vector<std::byte> bytes;
  while (!pending_.empty()) {
    Pending& p = pending_.front();
    while (!p.missing.empty()) {
      if (!transport_.try_receive_message(p.missing.back(), kResultTag, bytes, wait)) return false;
      v1::StepResult part;
      if (!part.ParseFromArray(bytes.data(), static_cast<int>(bytes.size())) || part.step() != p.result.step())
        throw std::logic_error(
            absl::StrCat("the result of step ", p.result.step(), " from rank ", p.missing.back(), " is not one"));
      p.result.mutable_tokens()->MergeFrom(part.tokens());
      p.result.set_compute_us(std::max(p.result.compute_us(), part.compute_us()));
      p.missing.pop_back();
    }
    channel.post(p.result);
    pending_.pop_front();
  }
  return true;
}

}  // namespace invar
