// Where two traces part: the first token, layer, operator and element whose bits differ, whatever the layouts were.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "runtime/proto/trace.pb.h"

namespace invar {

struct TraceDifference {
  std::string request;
  uint32_t choice = 0;
  uint32_t position = 0;
  int32_t layer = -1;
  v1::TraceOperatorKind kind = v1::EMBED;
  // First differing column and its bits on both sides; absent when a trace holds digests only.
  struct Element {
    uint32_t column = 0;
    uint32_t bits_a = 0, bits_b = 0;
    uint32_t bytes = 4;
    uint32_t differing = 0;  // how many columns differ in all
  };
  std::optional<Element> element;
  std::string missing;  // "" | "A" | "B": that trace has no such operator for this token
};

struct TraceComparison {
  uint64_t tokens = 0;                    // (request, choice, position) found in both
  uint64_t operators = 0;                 // operator results compared
  uint64_t only_in_a = 0, only_in_b = 0;  // tokens that one trace alone has
  std::string layout_a, layout_b;
  std::string numerics_id_a, numerics_id_b;
  uint64_t differing_tokens = 0;
  std::optional<TraceDifference> first;
};

// Traces are path prefixes as given to --trace; all files PREFIX.r* are read. NotFound when there are none; InvalidArgument names
// file and offset of what cannot be read. A token computed twice (preemption) must agree with itself; its last version is taken.
absl::StatusOr<TraceComparison> compare_traces(const std::string& a, const std::string& b);

// The comparison as a person reads it.
std::string describe(const TraceComparison& comparison);

}  // namespace invar
