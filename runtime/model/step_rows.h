// The rows of one step that a rank's home computes, in plan order.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace invar {

struct StepRows {
  std::vector<int32_t> tokens;     // used by the first stage only; may be empty elsewhere
  std::vector<int32_t> positions;  // absolute
  std::vector<int32_t> sequences;  // index into page_tables
  std::vector<int64_t> slots;      // page * page_size + offset, where the row's key and value go
  std::vector<std::span<const int32_t>> page_tables;
  std::vector<int64_t> logits;  // rows whose logits are wanted, ascending

  int64_t size() const { return static_cast<int64_t>(positions.size()); }
};

}  // namespace invar
