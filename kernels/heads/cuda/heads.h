// The heads of a row on a GPU, in one launch: how a problem is laid over threads (plain data, decided on the host), and the
// launch.
#pragma once

#include "kernels/heads/heads.h"

namespace invar::cuda {

// Equal bits, different shapes.
struct HeadsPlan {
  enum class Schedule : uint8_t {
    kSeparate,  // no 16-byte pieces (head_dim or rotated half no multiple of 8, head_dim over 256, unaligned): the four
                // operations
    kPieces,    // a thread takes a piece of a head: soonest done while all blocks fit at once
    kPairs,     // a thread takes a piece of either half of two heads: a third of the instructions an element, for many rows
                // (at most kMostPairRows); head_dim 64, 128 or 256, all of it rotated
  };
  Schedule schedule = Schedule::kSeparate;
  bool early = false;  // kPieces: angles and slots are asked for before the norm is summed, for more registers
};
inline constexpr int64_t kMostPairRows = int64_t{65535} * 4;

HeadsPlan plan_heads(int multiprocessors, const PrepareHeads& problem);

// False, and nothing done: kSeparate.
bool prepare_heads(const Device& device, const PrepareHeads& problem);
bool prepare_heads(const Device& device, const PrepareHeads& problem, const HeadsPlan& plan);

}  // namespace invar::cuda
