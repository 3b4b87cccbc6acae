#include "rpc/worker_link/rank_reporter.h"

#include <grpcpp/create_channel.h>
#include <pthread.h>

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "rpc/proto/worker_link.grpc.pb.h"
#include "rpc/wire/channel_args.h"
#include "rpc/wire/credentials.h"
#include "rpc/worker_link/rank_state.h"

namespace invar::rpc {
namespace {

constexpr int64_t kMaxMessage = 64 << 10;
constexpr std::chrono::milliseconds kAtFirst{100}, kAfterFailure{1000}, kAnswer{5000};

}  // namespace

class RankReporter::Impl {
 public:
  Impl(const LinkOptions& link, int replica, std::function<RankProgress()> read) : replica_(replica), read_(std::move(read)) {
    grpc::ChannelArguments args = client_args(link.dead_after, kMaxMessage);
    const auto credentials = channel_credentials(link.tls, args);
    stub_ = v1::WorkerLink::NewStub(grpc::CreateCustomChannel(link.coordinator, credentials, args));
    thread_ = std::thread([this] { run(); });
  }
  ~Impl() {
    {
      std::lock_guard lock(mutex_);
      stop_ = true;
      if (call_ != nullptr) call_->TryCancel();
    }
    changed_.notify_all();
    thread_.join();
  }

 private:
  void run() {
    pthread_setname_np(pthread_self(), "invar-report");
    std::chrono::milliseconds pause = kAtFirst;
    std::unique_lock lock(mutex_);
    while (!changed_.wait_for(lock, pause, [&] { return stop_; })) {
      grpc::ClientContext call;
      call.set_deadline(std::chrono::system_clock::now() + kAnswer);
      call_ = &call;
      lock.unlock();
      v1::RankStateTaken taken;
      const grpc::Status status = stub_->Report(&call, to_proto(replica_, read_()), &taken);
      lock.lock();
      call_ = nullptr;
      pause = status.ok() ? std::chrono::milliseconds(std::clamp<uint32_t>(taken.next_ms(), 10, 60000)) : kAfterFailure;
    }
  }

  const int replica_;
  const std::function<RankProgress()> read_;
  std::unique_ptr<v1::WorkerLink::Stub> stub_;
  std::mutex mutex_;
  std::condition_variable changed_;
  grpc::ClientContext* call_ = nullptr;  // under way
  bool stop_ = false;
  std::thread thread_;
};

RankReporter::RankReporter(const LinkOptions& link, int replica, std::function<RankProgress()> read)
    : impl_(std::make_unique<Impl>(link, replica, std::move(read))) {}
RankReporter::~RankReporter() = default;

}  // namespace invar::rpc
