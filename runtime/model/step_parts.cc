#include "runtime/model/step_parts.h"

#include "kernels/attention/attention.h"
#include "kernels/device/cuda/context.h"
#include "kernels/heads/heads.h"
#include "kernels/norm/norm.h"
#include "kernels/norm/residual_norm.h"
#include "kernels/peer/peer.h"

namespace invar {
namespace {

using cuda::PeerRows;
using cuda::PeerShards;

thread_local StepParts* mine = nullptr;

}  // namespace

// What the linker makes of the decoder's calls, and what it calls the functions that these replace.
void wrapped_heads(const Device&, const PrepareHeads&) asm("__wrap__ZN5invar13prepare_headsERKNS_6DeviceERKNS_12PrepareHeadsE");
void own_heads(const Device&, const PrepareHeads&) asm("__real__ZN5invar13prepare_headsERKNS_6DeviceERKNS_12PrepareHeadsE");
void wrapped_attention(const Device&, const Attention&) asm("__wrap__ZN5invar9attentionERKNS_6DeviceERKNS_9AttentionE");
void own_attention(const Device&, const Attention&) asm("__real__ZN5invar9attentionERKNS_6DeviceERKNS_9AttentionE");
void wrapped_norm(const Device&, const RmsNorm&) asm("__wrap__ZN5invar8rms_normERKNS_6DeviceERKNS_7RmsNormE");
void own_norm(const Device&, const RmsNorm&) asm("__real__ZN5invar8rms_normERKNS_6DeviceERKNS_7RmsNormE");
void wrapped_residual(const Device&,
                      const ResidualRmsNorm&) asm("__wrap__ZN5invar17residual_rms_normERKNS_6DeviceERKNS_15ResidualRmsNormE");
void own_residual(const Device&,
                  const ResidualRmsNorm&) asm("__real__ZN5invar17residual_rms_normERKNS_6DeviceERKNS_15ResidualRmsNormE");
void wrapped_exchange(const Device&, const PeerView&, const PeerMerge&, const PeerNorm&, PeerWay) asm(
    "__wrap__ZN5invar4cuda15peer_merge_normERKNS_6DeviceERKNS_8PeerViewERKNS_9PeerMergeERKNS_8PeerNormENS_7PeerWayE");
void own_exchange(const Device&, const PeerView&, const PeerMerge&, const PeerNorm&, PeerWay) asm(
    "__real__ZN5invar4cuda15peer_merge_normERKNS_6DeviceERKNS_8PeerViewERKNS_9PeerMergeERKNS_8PeerNormENS_7PeerWayE");
void wrapped_arrivals(const Device&, const PeerView&, const PeerMerge&, const PeerNorm&) asm(
    "__wrap__ZN5invar4cuda18peer_arrivals_normERKNS_6DeviceERKNS_8PeerViewERKNS_9PeerMergeERKNS_8PeerNormE");
void own_arrivals(const Device&, const PeerView&, const PeerMerge&, const PeerNorm&) asm(
    "__real__ZN5invar4cuda18peer_arrivals_normERKNS_6DeviceERKNS_8PeerViewERKNS_9PeerMergeERKNS_8PeerNormE");
void wrapped_rows(const Device&, const PeerView&,
                  const PeerRows&) asm("__wrap__ZN5invar4cuda9peer_rowsERKNS_6DeviceERKNS_8PeerViewERKNS0_8PeerRowsE");
void own_rows(const Device&, const PeerView&,
              const PeerRows&) asm("__real__ZN5invar4cuda9peer_rowsERKNS_6DeviceERKNS_8PeerViewERKNS0_8PeerRowsE");
void wrapped_shards(const Device&, const PeerView&,
                    const PeerShards&) asm("__wrap__ZN5invar4cuda11peer_shardsERKNS_6DeviceERKNS_8PeerViewERKNS0_10PeerShardsE");
void own_shards(const Device&, const PeerView&,
                const PeerShards&) asm("__real__ZN5invar4cuda11peer_shardsERKNS_6DeviceERKNS_8PeerViewERKNS0_10PeerShardsE");

void wrapped_heads(const Device& d, const PrepareHeads& p) {
  StepParts::run(StepPart::kHeads, [&] { own_heads(d, p); });
}
void wrapped_attention(const Device& d, const Attention& p) {
  StepParts::run(StepPart::kAttention, [&] { own_attention(d, p); });
}
void wrapped_norm(const Device& d, const RmsNorm& p) {
  StepParts::run(StepPart::kNorm, [&] { own_norm(d, p); });
}
void wrapped_residual(const Device& d, const ResidualRmsNorm& p) {
  StepParts::run(StepPart::kMerge, [&] { own_residual(d, p); });
}
void wrapped_exchange(const Device& d, const PeerView& v, const PeerMerge& p, const PeerNorm& next, PeerWay way) {
  StepParts::run(StepPart::kExchange, [&] { own_exchange(d, v, p, next, way); });
}
// With the linear that sends: without it, this would wait for ever.
void wrapped_arrivals(const Device& d, const PeerView& v, const PeerMerge& p, const PeerNorm& next) {
  StepParts::run(StepPart::kSent, [&] { own_arrivals(d, v, p, next); });
}
void wrapped_rows(const Device& d, const PeerView& v, const PeerRows& p) {
  StepParts::run(StepPart::kMove, [&] { own_rows(d, v, p); });
}
void wrapped_shards(const Device& d, const PeerView& v, const PeerShards& p) {
  StepParts::run(StepPart::kMove, [&] { own_shards(d, v, p); });
}

std::string_view name(StepPart part) {
  constexpr std::string_view kNames[kStepParts] = {"qkv",
                                                   "o and down",
                                                   "gate and up",
                                                   "head",
                                                   "rope and cache",
                                                   "attention",
                                                   "norm",
                                                   "residual, norm",
                                                   "exchange",
                                                   "rows and shards",
                                                   "o and down with exchange"};
  return kNames[static_cast<int>(part)];
}

struct StepParts::Timed {
  struct Call {
    StepPart part;
    cudaEvent_t begin, end;
  };
  std::vector<Call> calls;
};

StepParts::StepParts(const Device& device) : device_(device) { mine = this; }
StepParts::~StepParts() { mine = nullptr; }

void StepParts::leave_out(unsigned parts) {
  left_out_ = parts;
  renewed_ = Buffer(device_, 16);  // an allocation: the decoder trusts no recorded step from before one
}

void StepParts::time_calls() { timed_ = std::make_unique<Timed>(); }

std::array<double, kStepParts> StepParts::times() {
  std::array<double, kStepParts> sum{};
  device_.synchronize();
  for (const Timed::Call& c : timed_->calls) {
    float ms;
    cuda::check(cudaEventElapsedTime(&ms, c.begin, c.end));
    sum[static_cast<int>(c.part)] += ms * 1e3;
    cudaEventDestroy(c.begin);
    cudaEventDestroy(c.end);
  }
  timed_.reset();
  return sum;
}

void StepParts::run(StepPart part, const std::function<void()>& call) {
  if (mine && mine->left_out_ >> static_cast<int>(part) & 1) return;
  if (!mine || !mine->timed_) return call();
  Timed::Call c{part, nullptr, nullptr};
  cuda::check(cudaEventCreate(&c.begin));
  cuda::check(cudaEventCreate(&c.end));
  cuda::check(cudaEventRecord(c.begin, mine->device_.cuda().stream));
  call();
  cuda::check(cudaEventRecord(c.end, mine->device_.cuda().stream));
  mine->timed_->calls.push_back(c);
}

}  // namespace invar
