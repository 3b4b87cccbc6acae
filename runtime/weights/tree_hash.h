// SHA-256, plain for small things and by chunks in parallel for weights.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace invar {

inline constexpr int64_t kHashChunkBytes = 16 << 20;  // part of the digest's definition

// Bytes with their length before them, so that two lists of parts never run together into the same text.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;
  Sha256& part(std::string_view bytes);
  Sha256& number(uint64_t value);  // eight bytes, little-endian
  std::string finish();            // 32 bytes; once

 private:
  void* context_;
};

// One thing to hash: SHA-256 over its name, a description and the SHA-256 of each of its chunks.
struct HashItem {
  std::string_view name;
  std::string_view description;
  const std::byte* data = nullptr;
  int64_t bytes = 0;
};
// SHA-256 over all items in the order given. `done(i, begin, end)` is called after bytes [begin, end) of item i were hashed, from
// one thread at a time.
std::string hash_items(std::string_view title, const std::vector<HashItem>& items, int threads,
                       const std::function<void(size_t, int64_t, int64_t)>& done);

}  // namespace invar
