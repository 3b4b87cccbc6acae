// What a step's kernels read of its rows, in the device's memory: one copy a step, at addresses that stay while the step does not
// grow beyond the largest one seen.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/device/device.h"
#include "runtime/model/step_rows.h"

namespace invar {

class StepInputs {
 public:
  // `rows` must stay until the step has been computed. Waits for the step before.
  void reset(const Device& device, const StepRows& rows);

  const int32_t* tokens() const { return tokens_; }        // [tokens]; may be none
  const int32_t* positions() const { return positions_; }  // [rows]
  const int64_t* slots() const { return slots_; }          // [rows]
  const int64_t* logits() const { return logits_; }        // [rows whose logits are wanted]

 private:
  Buffer staging_;
  Buffer device_;
  const int32_t* tokens_ = nullptr;
  const int32_t* positions_ = nullptr;
  const int64_t* slots_ = nullptr;
  const int64_t* logits_ = nullptr;
};

}  // namespace invar
