// What one run of a template has used so far of what limits.h allows.
#pragma once

#include "runtime/chat_template/failure.h"
#include "runtime/chat_template/limits.h"

namespace invar::jinja {

class Budget {
 public:
  // Work that is not paid for by bytes: nodes evaluated, values compared.
  void steps(size_t count = 1) {
    if (count > static_cast<size_t>(steps_)) fail_exhausted("the template takes more than ", kMaxSteps, " steps");
    steps_ -= static_cast<int64_t>(count);
  }
  // To be called before memory is taken, with a size that may be hostile. Copying costs time as well.
  void bytes(size_t count) {
    if (count > bytes_) fail_exhausted("the template makes more than ", kMaxBytes, " bytes of text and lists");
    bytes_ -= count;
    steps(count / 256);
  }

 private:
  int64_t steps_ = kMaxSteps;
  size_t bytes_ = kMaxBytes;
};

}  // namespace invar::jinja
