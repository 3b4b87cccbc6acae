#include "rpc/server/health.h"

#include <grpcpp/health_check_service_interface.h>
#include <spdlog/spdlog.h>

#include "rpc/proto/invar.grpc.pb.h"
#include "rpc/proto/vllm_engine.grpc.pb.h"

namespace invar::rpc {

Health::Health(grpc::HealthCheckServiceInterface& service, std::shared_ptr<const ServingState> state,
               std::chrono::milliseconds period)
    : service_(service), state_(std::move(state)) {
  set(false);
  thread_ = std::thread([this, period] { run(period); });
}

Health::~Health() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void Health::update() {
  const v1::ServerState state = state_->state();
  const bool serving = state == v1::SERVER_STATE_SERVING;
  std::lock_guard lock(mutex_);
  if (serving == serving_) return;
  serving_ = serving;
  set(serving);
  spdlog::info("health of {}: {}", v1::Invar::service_full_name(), v1::ServerState_Name(state));
}

void Health::set(bool serving) {
  service_.SetServingStatus(v1::Invar::service_full_name(), serving);
  service_.SetServingStatus(::vllm::grpc::engine::VllmEngine::service_full_name(), serving);
}

void Health::run(std::chrono::milliseconds period) {
  std::unique_lock lock(mutex_);
  while (!stop_) {
    lock.unlock();
    update();
    lock.lock();
    changed_.wait_for(lock, period, [&] { return stop_; });
  }
}

}  // namespace invar::rpc
