#include "runtime/weights/safetensors_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "runtime/model_config/message.h"

namespace invar {
namespace {

constexpr uint64_t kLengthBytes = 8;

// Little-endian, whatever the host is.
uint64_t load_length(const std::byte* p) {
  uint64_t length = 0;
  for (int i = 7; i >= 0; --i) length = length << 8 | std::to_integer<uint64_t>(p[i]);
  return length;
}

}  // namespace

absl::StatusOr<std::unique_ptr<SafetensorsFile>> SafetensorsFile::open(const std::filesystem::path& path) {
  const auto invalid = [&](std::string_view why) { return absl::InvalidArgumentError(message(path.string(), ": ", why)); };
  // O_NONBLOCK: opening a pipe must not wait for its writer; plain files do not notice.
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return absl::NotFoundError(message(path.string(), ": ", std::strerror(errno)));
  std::unique_ptr<SafetensorsFile> file(new SafetensorsFile());
  file->path_ = path;
  struct stat info = {};
  const bool plain = ::fstat(fd, &info) == 0 && S_ISREG(info.st_mode);
  const uint64_t size = plain ? static_cast<uint64_t>(info.st_size) : 0;
  if (size >= kLengthBytes) {
    void* map = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (map != MAP_FAILED) {
      file->map_ = map;
      file->map_bytes_ = size;
    }
  }
  const int map_errno = errno;
  ::close(fd);  // the mapping stays
  if (!plain) return invalid("not a plain file");
  if (size < kLengthBytes)
    return invalid(message("has ", size, " bytes; a safetensors file begins with 8 bytes of header length"));
  if (!file->map_) return absl::InternalError(message(path.string(), ": cannot be mapped: ", std::strerror(map_errno)));

  const std::byte* bytes = static_cast<const std::byte*>(file->map_);
  const uint64_t header = load_length(bytes);
  if (header > size - kLengthBytes) {
    return invalid(message("header length is ", header, "; the file has only ", size - kLengthBytes, " bytes after it"));
  }
  if (header > kMaxSafetensorsHeader) {
    return invalid(message("header length is ", header, "; at most ", kMaxSafetensorsHeader, " are read"));
  }
  file->data_ = bytes + kLengthBytes + header;
  absl::StatusOr<std::vector<TensorRecord>> tensors =
      parse_safetensors_header(std::string_view(reinterpret_cast<const char*>(bytes + kLengthBytes), header),
                               static_cast<int64_t>(size - kLengthBytes - header));
  if (!tensors.ok()) return invalid(std::string(tensors.status().message()));
  file->tensors_ = *std::move(tensors);
  return file;
}

SafetensorsFile::~SafetensorsFile() {
  if (map_) ::munmap(map_, map_bytes_);
}

void SafetensorsFile::release(const std::byte* begin, const std::byte* end) {
  static const uintptr_t page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const uintptr_t first = (reinterpret_cast<uintptr_t>(begin) + page - 1) / page * page;
  const uintptr_t last = reinterpret_cast<uintptr_t>(end) / page * page;
  if (first < last) ::madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
}

}  // namespace invar
