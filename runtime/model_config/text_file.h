// A whole file as text, bounded.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "absl/status/statusor.h"

namespace invar {

inline constexpr uintmax_t kMaxConfigBytes = 16 << 20;  // config.json and its like; real ones have a few kilobytes

// NotFound: cannot be opened or read. InvalidArgument: not a plain file, or larger than max_bytes. Messages start with the path.
absl::StatusOr<std::string> read_text_file(const std::filesystem::path& path, uintmax_t max_bytes);

}  // namespace invar
