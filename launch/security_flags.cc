#include "launch/security_flags.h"

#include <filesystem>
#include <fstream>
#include <map>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "launch/help_group.h"

namespace invar::launch {
namespace {

bool given(const rpc::TlsFiles& f) { return !f.certfile.empty() || !f.keyfile.empty() || !f.ca_certs.empty(); }

}  // namespace

void add_flags(CLI::App& app, ServerTlsFlags& f) {
  const HelpGroup group(app, "TLS of the public ports");
  using rpc::ClientCertificate;
  const std::map<std::string, ClientCertificate> names = {
      {"none", ClientCertificate::kNone}, {"optional", ClientCertificate::kOptional}, {"required", ClientCertificate::kRequired},
      {"0", ClientCertificate::kNone},    {"1", ClientCertificate::kOptional},        {"2", ClientCertificate::kRequired}};
  app.add_option("--ssl-certfile", f.files.certfile, "certificate (PEM, then its chain) of the public ports; none = plain text")
      ->option_text("FILE");
  app.add_option("--ssl-keyfile", f.files.keyfile, "its key, without a pass phrase; default: in the same file")
      ->option_text("FILE");
  app.add_option("--ssl-ca-certs", f.files.ca_certs, "whose client certificates are taken")->option_text("FILE");
  app.add_option("--ssl-cert-reqs", f.cert_reqs, "client certificates: none, optional or required (0, 1, 2)")
      ->transform(CLI::CheckedTransformer(names))
      ->option_text("none|optional|required");
}

void add_flags(CLI::App& app, LinkTlsFlags& f) {
  const HelpGroup group(app, "TLS of the worker link");
  app.add_option("--worker-ssl-certfile", f.files.certfile,
                 "certificate that this end of the worker link shows; both ends need one")
      ->option_text("FILE");
  app.add_option("--worker-ssl-keyfile", f.files.keyfile, "its key; default: in the same file")->option_text("FILE");
  app.add_option("--worker-ssl-ca-certs", f.files.ca_certs, "whose certificates the other end may show")->option_text("FILE");
  app.add_option("--worker-ssl-server-name", f.server_name,
                 "name in the coordinator's certificate, if not the host that is dialled")
      ->option_text("NAME");
}

void add_flags(CLI::App& app, ClientSecurityFlags& f) {
  const HelpGroup group(app, "TLS and keys");
  app.add_flag("--tls", f.tls, "the server speaks TLS; its certificate must be signed by a CA that this system knows");
  app.add_option("--tls-ca-certs,--tls-ca", f.files.ca_certs, "the server speaks TLS; who signed its certificate")
      ->option_text("FILE");
  app.add_option("--tls-certfile", f.files.certfile, "certificate for servers that ask for one")->option_text("FILE");
  app.add_option("--tls-keyfile", f.files.keyfile, "its key; default: in the same file")->option_text("FILE");
  app.add_option("--tls-server-name", f.server_name, "name in the server's certificate, if not the host that is dialled")
      ->option_text("NAME");
  app.add_option("--api-key", f.api_key, "key for servers that ask for one; others on this machine can see it: better a file")
      ->option_text("KEY");
  app.add_option("--api-key-file", f.api_key_file, "file whose first line is the key")->option_text("FILE");
}

absl::StatusOr<std::optional<rpc::ServerTls>> server_tls(const ServerTlsFlags& f) {
  if (f.files.certfile.empty()) {
    for (const auto& [flag, wrong] : {std::pair{"--ssl-keyfile", !f.files.keyfile.empty()},
                                      {"--ssl-ca-certs", !f.files.ca_certs.empty()},
                                      {"--ssl-cert-reqs", f.cert_reqs != rpc::ClientCertificate::kNone}})
      if (wrong) return absl::InvalidArgumentError(absl::StrCat(flag, " is given, but no --ssl-certfile"));
    return std::nullopt;
  }
  if (f.cert_reqs != rpc::ClientCertificate::kNone && f.files.ca_certs.empty())
    return absl::InvalidArgumentError("--ssl-cert-reqs asks for client certificates, but --ssl-ca-certs does not say whose");
  auto read = rpc::read_tls(f.files, "--ssl-");
  if (!read.ok()) return read.status();
  return rpc::ServerTls{*std::move(read), f.cert_reqs};
}

absl::StatusOr<std::optional<rpc::ClientTls>> link_tls(const LinkTlsFlags& f) {
  if (!given(f.files)) {
    if (!f.server_name.empty())
      return absl::InvalidArgumentError("--worker-ssl-server-name is given, but no --worker-ssl-certfile");
    return std::nullopt;
  }
  if (f.files.certfile.empty() || f.files.ca_certs.empty())
    return absl::InvalidArgumentError(absl::StrCat(
        "TLS on the worker link is mutual: ", f.files.certfile.empty() ? "--worker-ssl-certfile" : "--worker-ssl-ca-certs",
        " is missing"));
  auto read = rpc::read_tls(f.files, "--worker-ssl-");
  if (!read.ok()) return read.status();
  return rpc::ClientTls{*std::move(read), f.server_name};
}

absl::StatusOr<std::optional<rpc::ClientTls>> client_tls(const ClientSecurityFlags& f) {
  if (!f.tls && !given(f.files)) {
    if (!f.server_name.empty())
      return absl::InvalidArgumentError("--tls-server-name is given, but neither --tls nor --tls-ca-certs");
    return std::nullopt;
  }
  auto read = rpc::read_tls(f.files, "--tls-");
  if (!read.ok()) return read.status();
  return rpc::ClientTls{*std::move(read), f.server_name};
}

absl::StatusOr<std::string> client_key(const ClientSecurityFlags& f) {
  if (f.api_key_file.empty()) return f.api_key;
  if (!f.api_key.empty()) return absl::InvalidArgumentError("--api-key and --api-key-file: one of them");
  std::ifstream in(f.api_key_file);
  std::string line;
  if (!std::getline(in, line))
    return absl::NotFoundError(absl::StrCat("--api-key-file ", f.api_key_file, ": no line can be read"));
  return std::string(absl::StripAsciiWhitespace(line));
}

std::vector<std::string> worker_arguments(const LinkTlsFlags& f) {
  std::vector<std::string> a;
  const auto add = [&](const char* flag, const std::string& path) {
    if (!path.empty()) a.insert(a.end(), {flag, std::filesystem::absolute(path).string()});
  };
  add("--worker-ssl-certfile", f.files.certfile);
  add("--worker-ssl-keyfile", f.files.keyfile);
  add("--worker-ssl-ca-certs", f.files.ca_certs);
  if (!f.server_name.empty()) a.insert(a.end(), {"--worker-ssl-server-name", f.server_name});
  return a;
}

}  // namespace invar::launch
