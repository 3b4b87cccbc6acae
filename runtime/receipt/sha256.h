// SHA-256 as this project uses it: little-endian integers and length-prefixed strings, so that no two inputs share an encoding.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace invar::receipt {

using Digest = std::array<uint8_t, 32>;

class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;

  Sha256& bytes(const void* data, size_t size);
  Sha256& digest(const Digest& d) { return bytes(d.data(), d.size()); }
  Sha256& text(std::string_view s);  // le32 length, then the bytes
  Sha256& le32(uint32_t v);
  Sha256& le64(uint64_t v);
  Sha256& ids(std::span<const int32_t> ids);  // le32 count, then le32 each
  // The digest of all that was given; the object is then ready for a new message.
  Digest finish();

 private:
  struct Free {
    void operator()(void* context) const;
  };
  std::unique_ptr<void, Free> context_;
};

std::string hex(const Digest& digest);  // 64 lower-case digits

}  // namespace invar::receipt
