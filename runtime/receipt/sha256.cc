#include "runtime/receipt/sha256.h"

#include <openssl/evp.h>

#include <stdexcept>

namespace invar::receipt {
namespace {

EVP_MD_CTX* context_of(void* p) { return static_cast<EVP_MD_CTX*>(p); }

// Fetched once: looking the algorithm up costs more than hashing a block of a page's tokens.
const EVP_MD* algorithm() {
  static const EVP_MD* const md = EVP_MD_fetch(nullptr, "SHA256", nullptr);
  if (!md) throw std::runtime_error("OpenSSL offers no SHA-256");
  return md;
}

void check(int ok) {
  if (ok != 1) throw std::runtime_error("SHA-256 failed in OpenSSL");
}

}  // namespace

void Sha256::Free::operator()(void* context) const { EVP_MD_CTX_free(context_of(context)); }

Sha256::Sha256() : context_(EVP_MD_CTX_new()) { check(EVP_DigestInit_ex2(context_of(context_.get()), algorithm(), nullptr)); }
Sha256::~Sha256() = default;

Sha256& Sha256::bytes(const void* data, size_t size) {
  check(EVP_DigestUpdate(context_of(context_.get()), data, size));
  return *this;
}

Sha256& Sha256::text(std::string_view s) { return le32(static_cast<uint32_t>(s.size())).bytes(s.data(), s.size()); }

Sha256& Sha256::le32(uint32_t v) {
  const uint8_t b[4] = {static_cast<uint8_t>(v), static_cast<uint8_t>(v >> 8), static_cast<uint8_t>(v >> 16),
                        static_cast<uint8_t>(v >> 24)};
  return bytes(b, 4);
}

Sha256& Sha256::le64(uint64_t v) { return le32(static_cast<uint32_t>(v)).le32(static_cast<uint32_t>(v >> 32)); }

Sha256& Sha256::ids(std::span<const int32_t> ids) {
  le32(static_cast<uint32_t>(ids.size()));
  for (const int32_t id : ids) le32(static_cast<uint32_t>(id));
  return *this;
}

Digest Sha256::finish() {
  Digest out;
  check(EVP_DigestFinal_ex(context_of(context_.get()), out.data(), nullptr));
  check(EVP_DigestInit_ex2(context_of(context_.get()), algorithm(), nullptr));
  return out;
}

std::string hex(const Digest& digest) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string out;
  out.reserve(2 * digest.size());
  for (const uint8_t b : digest) {
    out.push_back(kDigits[b >> 4]);
    out.push_back(kDigits[b & 15]);
  }
  return out;
}

}  // namespace invar::receipt
