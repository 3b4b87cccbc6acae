// For tests: a TCP relay on 127.0.0.1 that can go silent without closing anything, as a dead host or a cut cable does.
#pragma once

#include <atomic>
#include <string>
#include <thread>

namespace invar::rpc {

class Relay {
 public:
  explicit Relay(const std::string& target);  // "127.0.0.1:port"; one connection is relayed
  ~Relay();

  std::string address() const;
  void freeze() { frozen_ = true; }  // bytes are neither read nor written from now on

 private:
  void run();

  int listener_ = -1;
  int port_ = 0;
  int target_port_ = 0;
  std::atomic<bool> frozen_{false}, stop_{false};
  std::thread thread_;
};

}  // namespace invar::rpc
