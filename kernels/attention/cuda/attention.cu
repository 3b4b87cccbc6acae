// What attention() does on a GPU: which kernel takes which part of a step.
#include <algorithm>
#include <stdexcept>
#include <string>

#include "kernels/attention/cuda/attention.h"
#include "kernels/attention/cuda/kernels.h"
#include "kernels/attention/cuda/layout.h"
#include "kernels/device/cuda/launch.cuh"

namespace invar::cuda {
namespace {

constexpr int kPiece = 8;  // elements of 16 bytes

// One thread copies 16 bytes of a key and of a value.
__global__ void write_kernel(const Bf16* k, const Bf16* v, int64_t stride, const int64_t* slots, Bf16* keys, Bf16* values,
                             int64_t pieces, int kv_heads, int head_dim, int page_size) {
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= pieces) return;
  const int row_pieces = kv_heads * head_dim / kPiece;
  const int64_t row = i / row_pieces;
  const int e = static_cast<int>(i % row_pieces) * kPiece;
  const int64_t slot = slots[row];
  if (slot < 0) return;
  const int64_t page = slot / page_size;
  const int64_t to = page_offset(page, kv_heads, e / head_dim, page_size, head_dim) +
                     kv_offset(head_dim, static_cast<int>(slot % page_size), e % head_dim);
  *reinterpret_cast<uint4*>(keys + to) = *reinterpret_cast<const uint4*>(k + row * stride + e);
  *reinterpret_cast<uint4*>(values + to) = *reinterpret_cast<const uint4*>(v + row * stride + e);
}

AttentionParameters parameters_of(const Device& device, const Attention& problem, int64_t* group) {
  const KvPages& pages = *problem.pages;
  const auto refuse = [](const std::string& what) { throw std::invalid_argument("attention on a GPU: " + what); };
  if (problem.query_heads > kMostQueryHeads) refuse("query_heads is " + std::to_string(problem.query_heads) + "; at most 256");
  if (pages.kv_heads() > kMostKvHeads) refuse("kv_heads is " + std::to_string(pages.kv_heads()) + "; at most 128");
  if (problem.head_dim > kMostHeadDim) refuse("head_dim is " + std::to_string(problem.head_dim) + "; at most 256");
  AttentionParameters p{.block = reinterpret_cast<const int32_t*>(problem.step->device_plan()),
                        .q = problem.q,
                        .keys = pages.keys(),
                        .values = pages.values(),
                        .y = problem.y,
                        .q_stride = problem.q_stride,
                        .y_stride = problem.y_stride,
                        .query_heads = static_cast<int32_t>(problem.query_heads),
                        .kv_heads = static_cast<int32_t>(pages.kv_heads()),
                        .head_dim = static_cast<int32_t>(problem.head_dim),
                        .page_size = static_cast<int32_t>(pages.page_size()),
                        .window = static_cast<int32_t>(problem.window),
                        .c = attention_order::exponent_scale(problem.scale),
                        .step = attention_order::exponent_step(attention_order::exponent_scale(problem.scale))};
  p.states = problem.step->states(device, problem.query_heads * (problem.head_dim + kStateExtra));
  int filled = 0;
  for (int64_t kv_head = 0; kv_head < pages.kv_heads(); ++kv_head) {
    for (int64_t h = 0; h < problem.query_heads; ++h)
      if (problem.kv_head_of[h] == kv_head) p.head[filled++] = static_cast<uint8_t>(h);
    p.head_begin[kv_head + 1] = static_cast<uint16_t>(filled);
    *group = std::max<int64_t>(*group, filled - p.head_begin[kv_head]);
  }
  return p;
}

}  // namespace

int64_t multiprocessors(const Device& device) { return device.cuda().multiprocessors; }

void write_pages(const Device& device, const KvPages& pages, int64_t rows, const Bf16* k, const Bf16* v, int64_t stride,
                 const int64_t* slots) {
  constexpr int kThreads = 128;
  const int64_t pieces = rows * pages.kv_heads() * pages.head_dim() / kPiece;
  if (pieces == 0) return;
  launch(device, {.grid = static_cast<unsigned>((pieces + kThreads - 1) / kThreads), .block = kThreads}, write_kernel, k, v,
         stride, slots, pages.keys(), pages.values(), pieces, static_cast<int>(pages.kv_heads()),
         static_cast<int>(pages.head_dim()), static_cast<int>(pages.page_size()));
}

namespace {

void run(const Device& device, const Attention& problem, bool generic) {
  const AttentionStep& step = *problem.step;
  if (step.rows() == 0 || problem.query_heads == 0) return;
  int64_t group = 0;
  const AttentionParameters p = parameters_of(device, problem, &group);
  if (step.has_decode()) {
    if (!generic && takes_decode(p))
      launch_decode(device, p, group);
    else
      launch_generic(device, p, PlanList::kDecode, 1, group);
    if (step.has_merges()) launch_merge(device, p, PlanList::kDecode);
  }
  if (step.has_prefill()) {
    const AttentionPlan& plan = step.plan();
    if (!generic && takes_prefill(device, p))
      launch_prefill(device, p, plan.tile_rows, group);
    else
      launch_generic(device, p, PlanList::kPrefill, plan.tile_rows, group);
    if (static_cast<int64_t>(plan.merges.size()) > plan.decode_merges) launch_merge(device, p, PlanList::kPrefill);
  }
}

}  // namespace

void attention_generic(const Device& device, const Attention& problem) { run(device, problem, true); }
void attention(const Device& device, const Attention& problem) { run(device, problem, false); }

}  // namespace invar::cuda
