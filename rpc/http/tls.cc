#include "rpc/http/tls.h"

#include <boost/asio/buffer.hpp>
#include <utility>

#include "absl/strings/str_cat.h"

namespace invar::http {

absl::StatusOr<std::unique_ptr<boost::asio::ssl::context>> make_tls(const std::optional<rpc::ServerTls>& tls) {
  namespace ssl = boost::asio::ssl;
  if (!tls.has_value()) return nullptr;
  auto context = std::make_unique<ssl::context>(ssl::context::tls_server);
  boost::system::error_code error;
  const auto refused = [&](const char* what) {
    return absl::InvalidArgumentError(absl::StrCat("TLS: ", what, ": ", error.message()));
  };
  context->set_options(ssl::context::default_workarounds | ssl::context::no_sslv2 | ssl::context::no_sslv3 |
                           ssl::context::no_tlsv1 | ssl::context::no_tlsv1_1,
                       error);
  if (!error) context->use_certificate_chain(boost::asio::buffer(tls->own.certificates), error);
  if (error) return refused("certificate");
  context->use_private_key(boost::asio::buffer(tls->own.key), ssl::context::pem, error);
  if (error) return refused("key");
  if (tls->client != rpc::ClientCertificate::kNone) {
    context->add_certificate_authority(boost::asio::buffer(tls->own.ca_certificates), error);
    if (error) return refused("whose client certificates are taken");
    const bool required = tls->client == rpc::ClientCertificate::kRequired;
    context->set_verify_mode(ssl::verify_peer | (required ? ssl::verify_fail_if_no_peer_cert : 0), error);
    if (error) return refused("client certificates");
  }
  // Without an id of its own OpenSSL resumes no session of a client that showed a certificate, and ends the handshake instead.
  static constexpr unsigned char kSession[] = "invar";
  SSL_CTX_set_session_id_context(context->native_handle(), kSession, sizeof kSession - 1);
  return context;
}

}  // namespace invar::http
