// What read_tls says of good and bad files.
#include "rpc/tls/tls_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "rpc/tls/test_certificates.h"

namespace invar::rpc {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class TlsFilesTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    made_ = new TestCertificates("test CA");
    made_->sign("node", "127.0.0.1");
    made_->sign("other", "127.0.0.1");
    made_->sign("old", "127.0.0.1", /*expired=*/true);
    made_->encrypt("node", "locked");
    ASSERT_TRUE(made_->ok()) << "is there an openssl command?";
  }
  static void TearDownTestSuite() { delete made_; }

  static void refused(const TlsFiles& files, absl::StatusCode code, const std::vector<std::string>& says) {
    const auto read = read_tls(files, "--ssl-");
    EXPECT_EQ(read.status().code(), code) << read.status();
    for (const std::string& part : says) EXPECT_THAT(std::string(read.status().message()), HasSubstr(part));
    EXPECT_THAT(std::string(read.status().message()), Not(HasSubstr("BEGIN"))) << "nothing of a key may come into a log";
  }

  static TestCertificates* made_;
};
TestCertificates* TlsFilesTest::made_ = nullptr;

TEST_F(TlsFilesTest, GoodFilesAreRead) {
  const auto read = read_tls(made_->files("node"), "--ssl-");
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->certificates, made_->text("node.pem"));
  EXPECT_EQ(read->key, made_->text("node.key"));
  EXPECT_EQ(read->ca_certificates, made_->text("ca.pem"));
  EXPECT_THAT(describe_certificate(read->certificates), HasSubstr("CN=node, valid until 20"));
  EXPECT_THAT(describe_certificate(""), HasSubstr("no certificate"));

  std::ofstream(made_->path("both.pem")) << made_->text("node.pem") << made_->text("node.key");
  EXPECT_TRUE(read_tls({made_->path("both.pem"), "", ""}, "--ssl-").ok());
  EXPECT_TRUE(read_tls({}, "--ssl-").ok());
  EXPECT_TRUE(read_tls({"", "", made_->path("ca.pem")}, "--ssl-").ok());
}

TEST_F(TlsFilesTest, BadFilesAreNamed) {
  const std::string node = made_->path("node.pem"), key = made_->path("node.key"), nowhere = made_->path("nowhere.pem");
  const auto bad = absl::StatusCode::kInvalidArgument;
  refused({nowhere, key, ""}, absl::StatusCode::kNotFound, {"--ssl-certfile", nowhere, "No such file"});
  refused({node, nowhere, ""}, absl::StatusCode::kNotFound, {"--ssl-keyfile", nowhere});
  refused({node, key, nowhere}, absl::StatusCode::kNotFound, {"--ssl-ca-certs", nowhere});
  refused({"", key, ""}, bad, {"--ssl-keyfile", "there is no --ssl-certfile"});
  refused({key, "", ""}, bad, {"--ssl-certfile", "holds no certificate"});
  refused({node, "", ""}, bad, {"--ssl-certfile", "holds no private key"});
  refused({node, node, ""}, bad, {"--ssl-keyfile", "holds no private key"});
  refused({node, key, key}, bad, {"--ssl-ca-certs", "holds no certificate"});
  refused({node, made_->path("other.key"), ""}, bad, {"--ssl-keyfile", "the key is not that of the certificate", node});
  refused({node, made_->path("locked.key"), ""}, bad, {"--ssl-keyfile", "encrypted"});
  refused({made_->path("old.pem"), made_->path("old.key"), ""}, absl::StatusCode::kFailedPrecondition,
          {"--ssl-certfile", "CN=old", "expired on 2020-01-02"});
  refused({node, key, made_->path("old.pem")}, absl::StatusCode::kFailedPrecondition, {"--ssl-ca-certs", "expired"});
  std::ofstream(made_->path("cut.pem")) << made_->text("node.pem").substr(0, 200);
  refused({made_->path("cut.pem"), key, ""}, bad, {"holds no certificate"});
  refused({"/", key, ""}, absl::StatusCode::kNotFound, {"--ssl-certfile /"});
}

}  // namespace
}  // namespace invar::rpc
