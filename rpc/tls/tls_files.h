// Certificates and keys from files, checked before anything listens or dials: gRPC itself says of a bad file no more than that
// no handshake succeeds. Keys and certificates are never part of a message.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace invar::rpc {

enum class ClientCertificate : uint8_t { kNone, kOptional, kRequired };

// Paths; empty = not given.
struct TlsFiles {
  std::string certfile;  // PEM: the certificate, then its chain
  std::string keyfile;   // PEM, without a pass phrase; empty: the key is in certfile
  std::string ca_certs;  // PEM: whose certificates the peer may show
};

// PEM texts; empty = none.
struct TlsMaterial {
  std::string certificates, key, ca_certificates;
};

// First in main: OpenSSL stays whole while the process ends. Otherwise its exit handler frees what gRPC's threads, which nobody
// joins, may still use in a handshake: a client that was refused crashed now and then after it had said so.
void keep_openssl_to_the_end();

// Reads and checks what is given. `prefix` is the flags': "--ssl-" says "--ssl-certfile FILE: ...". NotFound: a file that cannot
// be read; InvalidArgument: it holds no certificate or key, the key is another certificate's or encrypted, a key without a
// certificate; FailedPrecondition: a certificate is expired or not yet valid, with its name and the date.
absl::StatusOr<TlsMaterial> read_tls(const TlsFiles& files, std::string_view prefix);

// "CN=node1, valid until 2027-01-01" of the first certificate, for a log.
std::string describe_certificate(const std::string& pem);

struct ServerTls {
  TlsMaterial own;
  ClientCertificate client = ClientCertificate::kNone;
};
struct ClientTls {
  TlsMaterial own;          // ca_certificates empty: those of this system; certificates and key: for servers that ask for them
  std::string server_name;  // the name that the server's certificate must be for; empty: the host that is dialled
};

}  // namespace invar::rpc
