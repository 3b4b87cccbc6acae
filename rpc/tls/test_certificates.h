// For tests: certificates made when the test runs, by the openssl command.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "absl/strings/str_cat.h"
#include "rpc/tls/tls_files.h"

namespace invar::rpc {

// A folder with a CA and what it signs; gone with the object.
class TestCertificates {
 public:
  explicit TestCertificates(const std::string& name) {
    std::string pattern = (std::filesystem::temp_directory_path() / "invar_tls_XXXXXX").string();
    folder_ = mkdtemp(pattern.data());
    ok_ = run(absl::StrCat(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout ca.key -out ca.pem -days 2 "
        "-subj '/CN=",
        name, "'"));
  }
  ~TestCertificates() { std::filesystem::remove_all(folder_); }
  TestCertificates(const TestCertificates&) = delete;
  TestCertificates& operator=(const TestCertificates&) = delete;

  // NAME.pem and NAME.key, signed by the CA, for `host` (IP address or name). Expired since yesterday, or good for two days.
  void sign(const std::string& name, const std::string& host, bool expired = false) {
    const bool ip = host.find_first_not_of("0123456789.") == std::string::npos;
    std::ofstream(folder_ / "extensions") << "subjectAltName=" << (ip ? "IP:" : "DNS:") << host << "\n";
    ok_ = ok_ && run(absl::StrCat("openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout ", name,
                                  ".key -out request.pem -subj '/CN=", name, "'"));
    const std::string dates = expired ? "-startdate 20200101000000Z -enddate 20200102000000Z" : "-days 2";
    std::ofstream(folder_ / "index.txt");
    std::ofstream(folder_ / "ca.conf")
        << "[ca]\ndefault_ca=d\n[d]\ndatabase=index.txt\nrand_serial=yes\ndefault_md=sha256\npolicy=p\n"
           "new_certs_dir=.\nunique_subject=no\n[p]\ncommonName=supplied\n";
    ok_ = ok_ && run(absl::StrCat("openssl ca -batch -notext -config ca.conf -cert ca.pem -keyfile ca.key -in request.pem -out ",
                                  name, ".pem -extfile extensions ", dates));
  }
  // A key with a pass phrase.
  void encrypt(const std::string& name, const std::string& encrypted) {
    ok_ = ok_ && run(absl::StrCat("openssl pkey -in ", name, ".key -aes128 -passout pass:secret -out ", encrypted, ".key"));
  }

  bool ok() const { return ok_; }
  std::string path(const std::string& file) const { return (folder_ / file).string(); }
  std::string text(const std::string& file) const {
    std::ifstream in(folder_ / file);
    return std::string(std::istreambuf_iterator<char>(in), {});
  }
  TlsFiles files(const std::string& name) const { return {path(name + ".pem"), path(name + ".key"), path("ca.pem")}; }
  TlsMaterial material(const std::string& name) const { return {text(name + ".pem"), text(name + ".key"), text("ca.pem")}; }

 private:
  bool run(const std::string& command) const {
    return std::system(absl::StrCat("cd '", folder_.string(), "' && ", command, " >log 2>&1").c_str()) == 0;
  }

  std::filesystem::path folder_;
  bool ok_ = false;
};

}  // namespace invar::rpc
