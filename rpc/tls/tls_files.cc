#include "rpc/tls/tls_files.h"

#include <openssl/bio.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <cerrno>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace invar::rpc {
namespace {

template <auto kFree>
struct Free {
  template <class T>
  void operator()(T* p) const {
    kFree(p);
  }
};
void free_bio(BIO* bio) { BIO_free(bio); }
using Bio = std::unique_ptr<BIO, Free<free_bio>>;
using Certificate = std::unique_ptr<X509, Free<X509_free>>;
using Key = std::unique_ptr<EVP_PKEY, Free<EVP_PKEY_free>>;

Bio memory(const std::string& text) { return Bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size()))); }

absl::StatusOr<std::string> read(const std::string& path, const std::string& flag) {
  errno = 0;
  std::ifstream in(path, std::ios::binary);
  std::string text;
  std::error_code error;
  const bool file =
      std::filesystem::is_regular_file(path, error) || !std::filesystem::exists(path, error);  // a folder opens, too
  if (in && file) text.assign(std::istreambuf_iterator<char>(in), {});
  if (!file) return absl::NotFoundError(absl::StrCat(flag, " ", path, ": not a file"));
  if (!in && !in.eof())
    return absl::NotFoundError(absl::StrCat(flag, " ", path, ": ", errno != 0 ? std::strerror(errno) : "cannot be read"));
  if (text.size() > (4u << 20))
    return absl::InvalidArgumentError(absl::StrCat(flag, " ", path, ": ", text.size(), " bytes are no PEM file"));
  return text;
}

std::vector<Certificate> certificates_of(const std::string& pem) {
  std::vector<Certificate> out;
  const Bio bio = memory(pem);
  while (X509* certificate = PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr)) out.emplace_back(certificate);
  ERR_clear_error();
  return out;
}

std::string name_of(const X509& certificate) {
  const Bio bio(BIO_new(BIO_s_mem()));
  X509_NAME_print_ex(bio.get(), X509_get_subject_name(&certificate), 0,
                     XN_FLAG_ONELINE & ~ASN1_STRFLGS_ESC_MSB & ~XN_FLAG_SPC_EQ);
  char* text = nullptr;
  const long size = BIO_get_mem_data(bio.get(), &text);
  return std::string(text, static_cast<size_t>(size));
}

std::string date_of(const ASN1_TIME* time) {
  std::tm tm{};
  if (ASN1_TIME_to_tm(time, &tm) != 1) return "a date that cannot be read";
  return absl::StrFormat("%04d-%02d-%02d %02d:%02d UTC", tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min);
}

absl::Status check_dates(const X509& certificate, const std::string& where) {
  if (X509_cmp_current_time(X509_get0_notAfter(&certificate)) < 0)
    return absl::FailedPreconditionError(absl::StrCat(where, ": the certificate ", name_of(certificate), " expired on ",
                                                      date_of(X509_get0_notAfter(&certificate))));
  if (X509_cmp_current_time(X509_get0_notBefore(&certificate)) > 0)
    return absl::FailedPreconditionError(absl::StrCat(where, ": the certificate ", name_of(certificate), " is not valid before ",
                                                      date_of(X509_get0_notBefore(&certificate))));
  return absl::OkStatus();
}

// Every certificate of the file; at least one.
absl::Status check_certificates(const std::string& pem, const std::string& where, bool all_dates) {
  const std::vector<Certificate> certificates = certificates_of(pem);
  if (certificates.empty()) return absl::InvalidArgumentError(absl::StrCat(where, ": holds no certificate in PEM form"));
  for (const Certificate& c : certificates) {
    if (absl::Status s = check_dates(*c, where); !s.ok()) return s;
    if (!all_dates) break;
  }
  return absl::OkStatus();
}

// No terminal is asked for a pass phrase.
int no_pass_phrase(char*, int, int, void* asked) {
  *static_cast<bool*>(asked) = true;
  return -1;
}

absl::Status check_key(const std::string& key_pem, const std::string& certificates, const std::string& where,
                       const std::string& certfile) {
  bool encrypted = false;
  const Key key(PEM_read_bio_PrivateKey(memory(key_pem).get(), nullptr, no_pass_phrase, &encrypted));
  ERR_clear_error();
  if (key == nullptr)
    return absl::InvalidArgumentError(
        absl::StrCat(where, encrypted ? ": the key is encrypted; a server that starts by itself needs it without a pass phrase"
                                      : ": holds no private key in PEM form"));
  const bool fits = X509_check_private_key(certificates_of(certificates).front().get(), key.get()) == 1;
  ERR_clear_error();
  if (!fits) return absl::InvalidArgumentError(absl::StrCat(where, ": the key is not that of the certificate in ", certfile));
  return absl::OkStatus();
}

}  // namespace

void keep_openssl_to_the_end() { OPENSSL_init_crypto(OPENSSL_INIT_NO_ATEXIT, nullptr); }

absl::StatusOr<TlsMaterial> read_tls(const TlsFiles& files, std::string_view prefix) {
  TlsMaterial out;
  const auto flag = [&](const char* name) { return absl::StrCat(absl::string_view(prefix.data(), prefix.size()), name); };
  if (files.certfile.empty() && !files.keyfile.empty())
    return absl::InvalidArgumentError(absl::StrCat(flag("keyfile"), " ", files.keyfile, ": there is no ", flag("certfile")));
  if (!files.certfile.empty()) {
    auto certificates = read(files.certfile, flag("certfile"));
    if (!certificates.ok()) return certificates.status();
    out.certificates = *std::move(certificates);
    if (absl::Status s = check_certificates(out.certificates, absl::StrCat(flag("certfile"), " ", files.certfile), true); !s.ok())
      return s;
    const std::string& keyfile = files.keyfile.empty() ? files.certfile : files.keyfile;
    const std::string key_flag = flag(files.keyfile.empty() ? "certfile" : "keyfile");
    auto key = read(keyfile, key_flag);
    if (!key.ok()) return key.status();
    out.key = *std::move(key);
    if (absl::Status s = check_key(out.key, out.certificates, absl::StrCat(key_flag, " ", keyfile), files.certfile); !s.ok())
      return s;
  }
  if (!files.ca_certs.empty()) {
    auto authorities = read(files.ca_certs, flag("ca-certs"));
    if (!authorities.ok()) return authorities.status();
    out.ca_certificates = *std::move(authorities);
    // A bundle of many may hold an old one; a file of one that is expired can only refuse everybody.
    const bool single = certificates_of(out.ca_certificates).size() == 1;
    const std::string where = absl::StrCat(flag("ca-certs"), " ", files.ca_certs);
    if (certificates_of(out.ca_certificates).empty() || single)
      if (absl::Status s = check_certificates(out.ca_certificates, where, true); !s.ok()) return s;
  }
  return out;
}

std::string describe_certificate(const std::string& pem) {
  const std::vector<Certificate> certificates = certificates_of(pem);
  if (certificates.empty()) return "no certificate";
  return absl::StrCat(name_of(*certificates.front()), ", valid until ", date_of(X509_get0_notAfter(certificates.front().get())));
}

}  // namespace invar::rpc
