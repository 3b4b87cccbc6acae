#include "launch/progress.h"

#include <unistd.h>

#include <cstdio>

namespace invar::launch {

ProgressBar::ProgressBar(std::string what) : what_(std::move(what)), terminal_(isatty(STDERR_FILENO) != 0) {}

ProgressBar::~ProgressBar() {
  if (terminal_) std::fputs("\r\033[K", stderr);
}

void ProgressBar::show(int64_t done, int64_t total) {
  if (!terminal_ || total <= 0) return;
  const auto now = std::chrono::steady_clock::now();
  if (now - last_ < std::chrono::milliseconds(100) && done < total) return;
  last_ = now;
  constexpr int kWidth = 30;
  const int filled = static_cast<int>(kWidth * done / total);
  std::fprintf(stderr, "\r%s [%s%s] %3d %% of %.1f MB\033[K", what_.c_str(), std::string(filled, '#').c_str(),
               std::string(kWidth - filled, ' ').c_str(), static_cast<int>(100 * done / total), static_cast<double>(total) / 1e6);
  std::fflush(stderr);
}

LoadProgressFn ProgressBar::callback() {
  return [this](const LoadProgress& p) { show(p.bytes_done, p.bytes_total); };
}

}  // namespace invar::launch
