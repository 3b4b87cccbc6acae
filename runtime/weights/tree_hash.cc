#include "runtime/weights/tree_hash.h"

#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>
#include <mutex>
#include <thread>

namespace invar {
namespace {

// A digest that silently was not computed would make two models equal; OpenSSL fails here only without memory.
void must(int ok) {
  if (ok != 1) std::abort();
}

EVP_MD_CTX* context(void* p) { return static_cast<EVP_MD_CTX*>(p); }

}  // namespace

Sha256::Sha256() : context_(EVP_MD_CTX_new()) {
  must(context_ && EVP_DigestInit_ex(context(context_), EVP_sha256(), nullptr) == 1);
}
Sha256::~Sha256() { EVP_MD_CTX_free(context(context_)); }

Sha256& Sha256::number(uint64_t value) {
  std::array<unsigned char, 8> bytes;
  for (int i = 0; i < 8; ++i) bytes[i] = static_cast<unsigned char>(value >> (8 * i));
  must(EVP_DigestUpdate(context(context_), bytes.data(), bytes.size()));
  return *this;
}

Sha256& Sha256::part(std::string_view bytes) {
  number(bytes.size());
  must(EVP_DigestUpdate(context(context_), bytes.data(), bytes.size()));
  return *this;
}

std::string Sha256::finish() {
  std::string digest(32, '\0');
  must(EVP_DigestFinal_ex(context(context_), reinterpret_cast<unsigned char*>(digest.data()), nullptr));
  return digest;
}

std::string hash_items(std::string_view title, const std::vector<HashItem>& items, int threads,
                       const std::function<void(size_t, int64_t, int64_t)>& done) {
  struct Chunk {
    size_t item;
    int64_t begin;
    int64_t end;
    std::array<unsigned char, 32> digest;
  };
  std::vector<Chunk> chunks;
  for (size_t i = 0; i < items.size(); ++i) {
    for (int64_t begin = 0; begin < items[i].bytes; begin += kHashChunkBytes) {
      chunks.push_back({i, begin, std::min(items[i].bytes, begin + kHashChunkBytes), {}});
    }
  }
  std::atomic<size_t> next = 0;
  std::mutex reporting;
  const auto work = [&] {
    for (size_t c = next++; c < chunks.size(); c = next++) {
      Chunk& chunk = chunks[c];
      must(EVP_Digest(items[chunk.item].data + chunk.begin, static_cast<size_t>(chunk.end - chunk.begin), chunk.digest.data(),
                      nullptr, EVP_sha256(), nullptr));
      const std::lock_guard lock(reporting);
      done(chunk.item, chunk.begin, chunk.end);
    }
  };
  const size_t helpers = std::min<size_t>(threads > 1 ? threads - 1 : 0, chunks.size());
  std::vector<std::thread> pool;
  for (size_t i = 0; i < helpers; ++i) pool.emplace_back(work);
  work();
  for (std::thread& thread : pool) thread.join();

  Sha256 root;
  root.part(title).number(items.size());
  size_t c = 0;
  for (size_t i = 0; i < items.size(); ++i) {
    root.part(items[i].name).part(items[i].description).number(static_cast<uint64_t>(items[i].bytes));
    for (; c < chunks.size() && chunks[c].item == i; ++c) {
      root.part(std::string_view(reinterpret_cast<const char*>(chunks[c].digest.data()), chunks[c].digest.size()));
    }
  }
  return root.finish();
}

}  // namespace invar
