// The launches of the attention kernels. For CUDA sources.
#pragma once

#include "kernels/attention/cuda/kernel.cuh"
#include "kernels/device/device.h"

namespace invar::cuda {

enum class PlanList : uint8_t { kDecode, kPrefill };

// Any shape, either profile. `tile_rows`: most rows of a tile of that list; `group`: most query heads of a KV head.
void launch_generic(const Device& device, AttentionParameters parameters, PlanList list, int64_t tile_rows, int64_t group);
// Sequences with one row; takes_decode() says for which problems.
bool takes_decode(const AttentionParameters& parameters);
void launch_decode(const Device& device, const AttentionParameters& parameters, int64_t group);
void launch_portable_decode(const Device& device, const AttentionParameters& parameters, int64_t group);
// Sequences with several rows.
bool takes_prefill(const Device& device, const AttentionParameters& parameters);
void launch_prefill(const Device& device, AttentionParameters parameters, int64_t tile_rows, int64_t group);
// States of split tiles of a list to rows of y.
void launch_merge(const Device& device, const AttentionParameters& parameters, PlanList list);

}  // namespace invar::cuda
