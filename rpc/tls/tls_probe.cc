#include "rpc/tls/tls_probe.h"

#include <fcntl.h>
#include <netdb.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace invar::rpc {
namespace {

struct CloseFd {
  int fd = -1;
  ~CloseFd() {
    if (fd >= 0) close(fd);
  }
};
struct FreeSsl {
  void operator()(SSL* ssl) const { SSL_free(ssl); }
  void operator()(SSL_CTX* context) const { SSL_CTX_free(context); }
  void operator()(BIO* bio) const { BIO_free(bio); }
  void operator()(X509* certificate) const { X509_free(certificate); }
  void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
};
template <class T>
using Owned = std::unique_ptr<T, FreeSsl>;

// A connected socket, blocking, with `wait` for each read and write.
absl::StatusOr<int> dial(const std::string& address, std::chrono::milliseconds wait) {
  const size_t colon = address.rfind(':');
  if (absl::StartsWith(address, "unix:") || colon == std::string::npos)
    return absl::InvalidArgumentError(absl::StrCat(address, " is not of the form host:port"));
  std::string host = address.substr(0, colon);
  if (host.size() > 2 && host.front() == '[') host = host.substr(1, host.size() - 2);
  addrinfo hints{}, *found = nullptr;
  hints.ai_socktype = SOCK_STREAM;
  if (const int error = getaddrinfo(host.c_str(), address.c_str() + colon + 1, &hints, &found); error != 0)
    return absl::UnavailableError(absl::StrCat(host, ": ", gai_strerror(error)));
  int fd = -1;
  absl::Status last = absl::UnavailableError(absl::StrCat(host, " has no address"));
  for (const addrinfo* a = found; a != nullptr && fd < 0; a = a->ai_next) {
    fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) continue;
    pollfd writable{fd, POLLOUT, 0};
    int error = 0;
    socklen_t size = sizeof error;
    if (connect(fd, a->ai_addr, a->ai_addrlen) != 0 && errno != EINPROGRESS) {
      error = errno;
    } else if (poll(&writable, 1, static_cast<int>(wait.count())) != 1) {
      error = ETIMEDOUT;
    } else if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0) {
      error = errno;
    }
    if (error == 0) break;
    last = error == ETIMEDOUT ? absl::DeadlineExceededError(absl::StrCat("no answer within ", wait.count(), " ms"))
                              : absl::UnavailableError(std::strerror(error));
    close(fd);
    fd = -1;
  }
  freeaddrinfo(found);
  if (fd < 0) return last;
  fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
  const timeval limit{wait.count() / 1000, (wait.count() % 1000) * 1000};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  return fd;
}

Owned<BIO> memory(const std::string& text) { return Owned<BIO>(BIO_new_mem_buf(text.data(), static_cast<int>(text.size()))); }

void use(const TlsMaterial& own, SSL_CTX* context) {
  if (own.ca_certificates.empty()) {
    SSL_CTX_set_default_verify_paths(context);
  } else {
    const Owned<BIO> bio = memory(own.ca_certificates);
    while (X509* certificate = PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr)) {
      X509_STORE_add_cert(SSL_CTX_get_cert_store(context), certificate);
      X509_free(certificate);
    }
  }
  if (!own.certificates.empty()) {
    const Owned<BIO> chain = memory(own.certificates), key = memory(own.key);
    const Owned<X509> first(PEM_read_bio_X509(chain.get(), nullptr, nullptr, nullptr));
    if (first != nullptr) SSL_CTX_use_certificate(context, first.get());
    while (X509* certificate = PEM_read_bio_X509(chain.get(), nullptr, nullptr, nullptr))
      SSL_CTX_add_extra_chain_cert(context, certificate);
    const Owned<EVP_PKEY> private_key(PEM_read_bio_PrivateKey(key.get(), nullptr, nullptr, nullptr));
    if (private_key != nullptr) SSL_CTX_use_PrivateKey(context, private_key.get());
  }
  ERR_clear_error();
}

// The last error's text; of an alert, what the other side told us.
std::string ssl_error() {
  unsigned long last = 0;
  for (unsigned long e = ERR_get_error(); e != 0; e = ERR_get_error()) last = e;
  const char* reason = last == 0 ? nullptr : ERR_reason_error_string(last);
  return reason == nullptr ? "" : reason;
}

}  // namespace

absl::Status reach(const std::string& address, std::chrono::milliseconds wait) {
  const absl::StatusOr<int> dialled = dial(address, wait);
  if (dialled.ok()) close(*dialled);
  return dialled.status();
}

std::string explain_failure(const std::string& address, const std::optional<ClientTls>& tls, std::chrono::milliseconds wait,
                            const std::string& flag_prefix) {
  const absl::StatusOr<int> dialled = dial(address, wait);
  if (!dialled.ok()) return "";
  const CloseFd socket{*dialled};
  std::string host = address.substr(0, address.rfind(':'));
  if (host.size() > 2 && host.front() == '[') host = host.substr(1, host.size() - 2);
  const Owned<SSL_CTX> context(SSL_CTX_new(TLS_client_method()));
  if (tls.has_value()) use(tls->own, context.get());
  const Owned<SSL> ssl(SSL_new(context.get()));
  static constexpr unsigned char kProtocols[] = "\x02h2";
  SSL_set_alpn_protos(ssl.get(), kProtocols, 3);
  const std::string name = tls.has_value() && !tls->server_name.empty() ? tls->server_name : host;
  SSL_set_tlsext_host_name(ssl.get(), name.c_str());
  SSL_set_fd(ssl.get(), socket.fd);
  bool asked = false;  // for a certificate of ours
  SSL_set_cert_cb(
      ssl.get(),
      [](SSL*, void* flag) {
        *static_cast<bool*>(flag) = true;
        return 1;
      },
      &asked);
  ERR_clear_error();
  const bool shaken = SSL_connect(ssl.get()) == 1;
  const std::string error = shaken ? "" : ssl_error();
  const Owned<X509> shown(SSL_get1_peer_certificate(ssl.get()));
  if (!tls.has_value()) {
    // An alert, too, is TLS: "certificate required", for example.
    const bool speaks = shown != nullptr || absl::StrContains(error, "alert");
    return speaks ? absl::StrCat("it speaks TLS and was dialled in plain text: give ", flag_prefix, "ca-certs") : "";
  }
  if (shown == nullptr) {
    if (absl::StrContains(error, "alert")) return absl::StrCat("TLS: it says: ", error);
    return absl::StrCat("it does not speak TLS", error.empty() ? "" : absl::StrCat(" (", error, ")"), ": leave ", flag_prefix,
                        "ca-certs out, or give it a certificate");
  }
  if (const long verified = SSL_get_verify_result(ssl.get()); verified != X509_V_OK)
    return absl::StrCat("its certificate is not accepted: ", X509_verify_cert_error_string(verified),
                        verified == X509_V_ERR_CERT_HAS_EXPIRED || verified == X509_V_ERR_CERT_NOT_YET_VALID
                            ? ""
                            : absl::StrCat("; ", flag_prefix, "ca-certs must name who signed it"));
  if (X509_check_ip_asc(shown.get(), name.c_str(), 0) != 1 &&
      X509_check_host(shown.get(), name.data(), name.size(), 0, nullptr) != 1)
    return absl::StrCat("its certificate is for another name than ", name, ": see ", flag_prefix, "server-name");
  if (!shaken) return error.empty() ? "" : absl::StrCat("TLS: ", error);
  // With TLS 1.3 a server that refuses the client's certificate does so after the handshake: by an alert or, as gRPC, by closing
  // the connection. One that takes it sends its HTTP/2 settings at once, so this does not wait long.
  char byte = 0;
  if (!asked || SSL_read(ssl.get(), &byte, 1) > 0) return "";
  if (tls->own.certificates.empty())
    return absl::StrCat("it asks for a certificate: give ", flag_prefix, "certfile and ", flag_prefix, "keyfile");
  return "it refuses our certificate: another CA than it knows, or expired";
}

}  // namespace invar::rpc
