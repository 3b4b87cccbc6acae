// What an operator decides about a rank.
#pragma once

#include <cstdint>
#include <string>

#include "kernels/device/device.h"
#include "parallel/grid/grid.h"
#include "runtime/trace/recorder.h"

namespace invar {

// How the memory of GPUs moves between ranks. The bits are the same.
enum class Exchange : uint8_t {
  // TP ranks: peer memory where each has a GPU of its own on one host and reaches the others'. What else travels, and TP ranks
  // that are apart: NCCL where each rank has a GPU of its own and the library is there, else through the host.
  kAuto,
  kHost,
  kNccl,
  kPeer,  // as kAuto, but refused where TP ranks cannot use peer memory; ranks of one process may share a GPU
};

struct RankOptions {
  parallel::Layout layout;
  DeviceOptions device;
  int64_t page_size = 16;
  int64_t pages = 0;           // per home; 0 = what kv_cache_bytes holds
  int64_t kv_cache_bytes = 0;  // per rank; 0 = what a GPU's share leaves, 1 GiB of host memory, or less if that is enough
  double gpu_memory_utilization = 0.9;    // share of a GPU's memory that its ranks take together
  int64_t max_num_seqs = 256;             // for the KV default only
  int64_t max_num_batched_tokens = 2048;  // rows of the largest step: for the memory plan only
  int64_t max_model_len = 0;              // 0 = max_position_embeddings
  Exchange exchange = Exchange::kAuto;
  bool record_decode = true;  // CUDA graphs for decode steps
  std::string trace;          // path prefix; empty = no trace
  TraceDetail trace_detail = TraceDetail::kValues;
};

}  // namespace invar
