// One safetensors file, mapped, its header checked before anything is used.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/weights/safetensors_header.h"

namespace invar {

class SafetensorsFile {
 public:
  // NotFound: no such file. InvalidArgument: not a safetensors file, or a lying one; the message starts with the path.
  // The file must not be shortened while it is open: reading a mapped page that is gone ends the process.
  static absl::StatusOr<std::unique_ptr<SafetensorsFile>> open(const std::filesystem::path& path);
  ~SafetensorsFile();
  SafetensorsFile(const SafetensorsFile&) = delete;
  SafetensorsFile& operator=(const SafetensorsFile&) = delete;

  const std::filesystem::path& path() const { return path_; }
  const std::vector<TensorRecord>& tensors() const { return tensors_; }  // by name
  const std::byte* data(const TensorRecord& tensor) const { return data_ + tensor.begin; }

  // The pages wholly inside [begin, end) are not needed soon: they leave this process's memory and come back when touched. This
  // keeps a rank's resident size at its own shard, whatever it reads through.
  static void release(const std::byte* begin, const std::byte* end);

 private:
  SafetensorsFile() = default;

  std::filesystem::path path_;
  void* map_ = nullptr;
  size_t map_bytes_ = 0;
  const std::byte* data_ = nullptr;
  std::vector<TensorRecord> tensors_;
};

}  // namespace invar
