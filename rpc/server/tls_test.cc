// TLS and client certificates on the public port and the worker link, over real sockets: who comes in, and what the others are
// told.
#include <map>

#include "rpc/proto/vllm_engine.grpc.pb.h"
#include "rpc/server/service_harness.h"
#include "rpc/tls/test_certificates.h"
#include "rpc/worker_link/hello.h"
#include "rpc/worker_link/link_channel.h"
#include "rpc/worker_link/worker_gate.h"

namespace invar::rpc {
namespace {

using ::testing::HasSubstr;

class TlsTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    ours_ = new TestCertificates("our CA");
    ours_->sign("node", "127.0.0.1");
    ours_->sign("elsewhere", "elsewhere.example");
    ours_->sign("old", "127.0.0.1", /*expired=*/true);
    theirs_ = new TestCertificates("their CA");
    theirs_->sign("node", "127.0.0.1");
    ASSERT_TRUE(ours_->ok() && theirs_->ok()) << "is there an openssl command?";
  }
  static void TearDownTestSuite() {
    delete ours_;
    delete theirs_;
  }

  // A server that serves with this certificate.
  static std::unique_ptr<Server> server(const std::optional<ServerTls>& tls, std::shared_ptr<Engine>* engine) {
    Arrangement given;
    given.server.tls = tls;
    auto started = Server::start(given.server);
    EXPECT_TRUE(started.ok()) << started.status();
    std::vector<std::unique_ptr<Executor>> executors;
    executors.push_back(std::make_unique<engine::FakeExecutor>(given.fake));
    *engine = start_engine(given, std::move(executors));
    (*started)->serve(*engine, {});
    return *std::move(started);
  }
  static absl::StatusOr<std::unique_ptr<Client>> dial(const Server& server, std::optional<ClientTls> tls) {
    ClientOptions options;
    options.address = server.addresses()[0];
    options.connect_wait = 5s;
    options.tls = std::move(tls);
    return Client::connect(options);
  }
  static void says(const absl::Status& status, const std::string& what) {
    EXPECT_FALSE(status.ok()) << "wanted: " << what;
    EXPECT_THAT(std::string(status.message()), HasSubstr(what));
  }
  // Only the CA: what most clients have.
  static ClientTls trusting(const TestCertificates& ca) { return {{"", "", ca.text("ca.pem")}, ""}; }

  static TestCertificates *ours_, *theirs_;
};
TestCertificates *TlsTest::ours_ = nullptr, *TlsTest::theirs_ = nullptr;

TEST_F(TlsTest, AClientThatTrustsTheCaIsServedAndOthersLearnWhy) {
  std::shared_ptr<Engine> engine;
  const auto server = this->server(ServerTls{ours_->material("node"), ClientCertificate::kNone}, &engine);
  const auto client = dial(*server, trusting(*ours_));
  ASSERT_TRUE(client.ok()) << client.status();
  EXPECT_TRUE((*client)->generate_whole(request_of({1, 2}, 5), 10s).ok());

  const auto begin = std::chrono::steady_clock::now();
  says(dial(*server, std::nullopt).status(), "it speaks TLS and was dialled in plain text: give --tls-ca-certs");
  says(dial(*server, trusting(*theirs_)).status(), "its certificate is not accepted: ");
  says(dial(*server, ClientTls()).status(), "its certificate is not accepted: ");
  says(dial(*server, ClientTls{trusting(*ours_).own, "somebody.example"}).status(),
       "its certificate is for another name than somebody.example");
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 15s) << "what does not mend itself is not waited for";
}

TEST_F(TlsTest, ANameInPlaceOfTheHost) {
  std::shared_ptr<Engine> engine;
  const auto server = this->server(ServerTls{ours_->material("elsewhere"), ClientCertificate::kNone}, &engine);
  says(dial(*server, trusting(*ours_)).status(), "its certificate is for another name than 127.0.0.1: see --tls-server-name");
  EXPECT_TRUE(dial(*server, ClientTls{trusting(*ours_).own, "elsewhere.example"}).ok());
}

TEST_F(TlsTest, AnExpiredCertificateIsNamed) {
  std::shared_ptr<Engine> engine;
  const auto server = this->server(ServerTls{ours_->material("old"), ClientCertificate::kNone}, &engine);
  says(dial(*server, trusting(*ours_)).status(), "certificate has expired");
}

TEST_F(TlsTest, TlsToAPlainPortSaysSo) {
  std::shared_ptr<Engine> engine;
  const auto server = this->server(std::nullopt, &engine);
  says(dial(*server, trusting(*ours_)).status(), "it does not speak TLS");
  EXPECT_TRUE(dial(*server, std::nullopt).ok());
}

TEST_F(TlsTest, ClientCertificatesAreAskedFor) {
  std::shared_ptr<Engine> engine;
  const auto server = this->server(ServerTls{ours_->material("node"), ClientCertificate::kRequired}, &engine);
  const auto client = dial(*server, ClientTls{ours_->material("elsewhere"), ""});
  ASSERT_TRUE(client.ok()) << client.status();
  EXPECT_TRUE((*client)->generate_whole(request_of({1, 2}, 5), 10s).ok());
  says(dial(*server, trusting(*ours_)).status(), "it asks for a certificate: give --tls-certfile");
  TlsMaterial foreign = theirs_->material("node");
  foreign.ca_certificates = ours_->text("ca.pem");
  says(dial(*server, ClientTls{foreign, ""}).status(), "it refuses our certificate");
  TlsMaterial late = ours_->material("old");
  says(dial(*server, ClientTls{late, ""}).status(), "it refuses our certificate");
  says(dial(*server, std::nullopt).status(), "it speaks TLS");
  EXPECT_EQ(engine->stats().rejected, 0u) << "nobody else came as far as the engine";

  std::shared_ptr<Engine> another;
  const auto lenient = this->server(ServerTls{ours_->material("node"), ClientCertificate::kOptional}, &another);
  EXPECT_TRUE(dial(*lenient, trusting(*ours_)).ok());
  EXPECT_TRUE(dial(*lenient, ClientTls{ours_->material("node"), ""}).ok());
  EXPECT_FALSE(dial(*lenient, ClientTls{foreign, ""}).ok()) << "one that is shown must be good";
}

TEST_F(TlsTest, TheWorkerLinkIsMutual) {
  const parallel::Layout layout{.tp = 1, .pp = 1, .ep = 1, .dp = 1};
  const Arrangement given;
  const auto hello = [&] {
    return make_hello(0, layout, given.fake.facts, {RankReport{0, "h1", getpid(), "cpu", "N1", "D1", "B1", 0, 0}});
  };
  WorkerGateOptions options;
  options.layout = layout;
  options.tls = ours_->material("node");
  auto gate = WorkerGate::start(options);
  ASSERT_TRUE(gate.ok()) << gate.status();
  const auto join = [&](std::optional<ClientTls> tls, std::chrono::milliseconds wait = 5s) {
    LinkOptions link;
    link.coordinator = (*gate)->address();
    link.wait = wait;
    link.tls = std::move(tls);
    return LinkChannel::connect(link, hello());
  };
  says(join(std::nullopt).status(), "it speaks TLS and was dialled in plain text: give --worker-ssl-ca-certs");
  says(join(trusting(*ours_)).status(), "TLS on the worker link is mutual");
  says(join(ClientTls{theirs_->material("node"), ""}).status(), "its certificate is not accepted");
  TlsMaterial foreign = theirs_->material("node");
  foreign.ca_certificates = ours_->text("ca.pem");
  says(join(ClientTls{foreign, ""}).status(), "it refuses our certificate");
  EXPECT_EQ((*gate)->replicas().size(), 0u);
  auto channel = join(ClientTls{ours_->material("elsewhere"), ""});
  ASSERT_TRUE(channel.ok()) << channel.status();
  auto executors = (*gate)->wait(5s, nullptr);
  ASSERT_TRUE(executors.ok()) << executors.status();
  v1::StepPlan plan;
  plan.set_step(1);
  ASSERT_TRUE((*executors)[0]->submit(plan).ok());
  const auto got = (*channel)->next(5s);
  ASSERT_TRUE(got.ok() && got->has_value());
  EXPECT_EQ((*got)->step(), 1u);

  options.tls = TlsMaterial{ours_->text("node.pem"), ours_->text("node.key"), ""};
  says(WorkerGate::start(options).status(), "TLS on the worker link is mutual");
  options.tls.reset();
  gate = WorkerGate::start(options);
  ASSERT_TRUE(gate.ok());
  says(join(ClientTls{ours_->material("node"), ""}).status(), "it does not speak TLS");
}

}  // namespace
}  // namespace invar::rpc
