// Keeps grpc.health.v1 true: "" is SERVING while the process lives, "invar.v1.Invar" and the gateways'
// service while a model is loaded and steps are made.
#pragma once

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>

#include "rpc/server/serving_state.h"

namespace grpc {
class HealthCheckServiceInterface;
}

namespace invar::rpc {

class Health {
 public:
  // `service` belongs to the gRPC server and must outlive this.
  Health(grpc::HealthCheckServiceInterface& service, std::shared_ptr<const ServingState> state, std::chrono::milliseconds period);
  ~Health();
  void update();  // now, after the state was changed

 private:
  void run(std::chrono::milliseconds period);
  void set(bool serving);

  grpc::HealthCheckServiceInterface& service_;
  const std::shared_ptr<const ServingState> state_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool serving_ = false;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace invar::rpc
