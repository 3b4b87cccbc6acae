#include "runtime/model_config/text_file.h"

#include <fstream>
#include <system_error>

#include "runtime/model_config/message.h"

namespace invar {

absl::StatusOr<std::string> read_text_file(const std::filesystem::path& path, uintmax_t max_bytes) {
  std::error_code error;
  const std::filesystem::file_status status = std::filesystem::status(path, error);
  if (!std::filesystem::exists(status)) return absl::NotFoundError(message(path.string(), ": no such file"));
  // A folder or a pipe has no size to read; opening a pipe would wait for its writer.
  if (!std::filesystem::is_regular_file(status)) return absl::InvalidArgumentError(message(path.string(), ": not a plain file"));
  const uintmax_t size = std::filesystem::file_size(path, error);
  if (error) return absl::NotFoundError(message(path.string(), ": ", error.message()));
  if (size > max_bytes) {
    return absl::InvalidArgumentError(message(path.string(), ": has ", size, " bytes; at most ", max_bytes, " are read"));
  }
  std::ifstream in(path, std::ios::binary);
  std::string text(size, '\0');
  in.read(text.data(), static_cast<std::streamsize>(size));
  if (!in) return absl::NotFoundError(message(path.string(), ": cannot be read"));
  return text;
}

}  // namespace invar
