// A progress line on a terminal; silent elsewhere.
#pragma once

#include <chrono>
#include <string>

#include "runtime/weights/weight_source.h"

namespace invar::launch {

class ProgressBar {
 public:
  explicit ProgressBar(std::string what);
  ~ProgressBar();  // clears the line
  void show(int64_t done, int64_t total);
  LoadProgressFn callback();

 private:
  std::string what_;
  bool terminal_;
  std::chrono::steady_clock::time_point last_{};
};

}  // namespace invar::launch
