#include "kernels/attention/attention_step.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "kernels/attention/cuda/attention.h"

namespace invar {
namespace {

constexpr int64_t kHeaderWords = 64;  // a PlanHeader, and positions() 256-byte aligned
static_assert(sizeof(cuda::PlanHeader) <= kHeaderWords * sizeof(int32_t));

template <class T>
constexpr int64_t words(size_t count) {
  static_assert(sizeof(T) % sizeof(int32_t) == 0);
  return static_cast<int64_t>(count * (sizeof(T) / sizeof(int32_t)));
}

}  // namespace

void AttentionStep::make_room(const Device& device, int64_t size) {
  const size_t bytes = static_cast<size_t>(size) * sizeof(int32_t);
  if (host_.size() >= bytes && host_.size() > 0) return;
  // Half as much again, so that a sequence that grows by a page does not move the block.
  host_ = Buffer(bytes + bytes / 2);
  if (device.backend() == Backend::kCuda) device_ = Buffer(device, bytes + bytes / 2);
  ++generation_;
}

void AttentionStep::reserve(const Device& device, int64_t rows, int64_t page_entries, int64_t splits) {
  // positions, sequences, order, begins; an item and a merge a row at most, and an item a split.
  const int64_t plan = rows * (5 + words<cuda::PlanItem>(1) + words<cuda::PlanMerge>(1)) + splits * words<cuda::PlanItem>(1);
  make_room(device, kHeaderWords + 1 + plan + page_entries + 8 * 8);  // 8 arrays, each rounded up
  reserved_states_ = std::max(reserved_states_, splits);
}

void AttentionStep::reset(const Device& device, std::span<const int32_t> positions, std::span<const int32_t> sequences,
                          std::span<const std::span<const int32_t>> page_tables, int64_t page_size, AttentionHeads heads) {
  on_device_ = device.backend() == Backend::kCuda;
  rows_ = static_cast<int64_t>(positions.size());
  sequence_count_ = static_cast<int64_t>(page_tables.size());
  page_size_ = page_size;

  std::vector<int32_t> begins = {0};
  for (const auto& table : page_tables) begins.push_back(begins.back() + static_cast<int32_t>(table.size()));
  plan_ = {};
  int64_t multiprocessors = 1;
  if constexpr (kCudaBuilt)
    if (on_device_) {
      multiprocessors = cuda::multiprocessors(device);
      plan_ = cuda::make_plan({multiprocessors, heads.kv, heads.group}, positions, sequences, begins);
    }

  int64_t size = kHeaderWords;
  constexpr int64_t kAlignment = 8;  // a kernel loads a PlanItem by two accesses of 16 bytes
  const auto place = [&](int64_t count) {
    return std::exchange(size, size + (count + kAlignment - 1) / kAlignment * kAlignment);
  };
  positions_ = place(rows_);
  sequences_ = place(rows_);
  begins_ = place(words<int32_t>(begins.size()));
  entries_ = place(begins.back());
  cuda::PlanHeader header{};
  header.rows = static_cast<int32_t>(rows_);
  header.positions = static_cast<int32_t>(positions_);
  header.entries = static_cast<int32_t>(entries_);
  header.decode_items = static_cast<int32_t>(plan_.decode.size());
  header.prefill_items = static_cast<int32_t>(plan_.prefill.size());
  header.decode_merges = static_cast<int32_t>(plan_.decode_merges);
  header.merges = static_cast<int32_t>(plan_.merges.size());
  header.order = static_cast<int32_t>(place(words<cuda::PlanRow>(plan_.order.size())));
  header.decode = static_cast<int32_t>(place(words<cuda::PlanItem>(plan_.decode.size())));
  header.prefill = static_cast<int32_t>(place(words<cuda::PlanItem>(plan_.prefill.size())));
  header.merge = static_cast<int32_t>(place(words<cuda::PlanMerge>(plan_.merges.size())));
  make_room(device, size);

  auto* block = host_.as<int32_t>();
  const auto put = [&](int64_t offset, const auto& values) {
    if (!values.empty()) std::memcpy(block + offset, values.data(), values.size() * sizeof(values[0]));
  };
  std::memcpy(block, &header, sizeof(header));
  put(positions_, positions);
  put(sequences_, sequences);
  put(begins_, begins);
  for (size_t s = 0; s < page_tables.size(); ++s) put(entries_ + begins[s], page_tables[s]);
  put(header.order, plan_.order);
  put(header.decode, plan_.decode);
  put(header.prefill, plan_.prefill);
  put(header.merge, plan_.merges);
  // A recorded step holds the address of the states: one of fewer splits may have asked for less room, or for none.
  if (states_bytes() > states_.size()) ++generation_;
  if (on_device_) device.upload(device_.data(), block, static_cast<size_t>(size) * sizeof(int32_t));
}

size_t AttentionStep::states_bytes() const {
  return static_cast<size_t>(std::max(plan_.states, reserved_states_) * state_floats_) * sizeof(float);
}

float* AttentionStep::states(const Device& device, int64_t floats) const {
  state_floats_ = std::max(state_floats_, floats);
  if (states_.size() < states_bytes()) {
    states_ = Buffer(device, states_bytes());
    ++generation_;
  }
  return states_.as<float>();
}

}  // namespace invar
