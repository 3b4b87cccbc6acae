#include "rpc/wire/credentials.h"

namespace invar::rpc {

absl::Status check_mutual(const TlsMaterial& tls) {
  if (!tls.certificates.empty() && !tls.ca_certificates.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      "TLS on the worker link is mutual: --worker-ssl-certfile, --worker-ssl-keyfile and --worker-ssl-ca-certs go together");
}

std::shared_ptr<grpc::ServerCredentials> server_credentials(const std::optional<ServerTls>& tls) {
  if (!tls.has_value()) return grpc::InsecureServerCredentials();
  grpc_ssl_client_certificate_request_type request = GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE;
  // A certificate that is shown must be one of the CA's, whether it must be shown or not.
  if (tls->client == ClientCertificate::kOptional) request = GRPC_SSL_REQUEST_CLIENT_CERTIFICATE_AND_VERIFY;
  if (tls->client == ClientCertificate::kRequired) request = GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY;
  grpc::SslServerCredentialsOptions options(request);
  options.pem_root_certs = tls->own.ca_certificates;
  options.pem_key_cert_pairs.push_back({tls->own.key, tls->own.certificates});
  return grpc::SslServerCredentials(options);
}

std::shared_ptr<grpc::ChannelCredentials> channel_credentials(const std::optional<ClientTls>& tls, grpc::ChannelArguments& args) {
  if (!tls.has_value()) return grpc::InsecureChannelCredentials();
  if (!tls->server_name.empty()) args.SetSslTargetNameOverride(tls->server_name);
  return grpc::SslCredentials({tls->own.ca_certificates, tls->own.key, tls->own.certificates});
}

}  // namespace invar::rpc
