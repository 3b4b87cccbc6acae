#include "rpc/worker_link/relay.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <stdexcept>

#include "absl/strings/str_cat.h"

namespace invar::rpc {
namespace {

sockaddr_in loopback(int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<uint16_t>(port));
  return address;
}

// False at the end of either side.
bool move_bytes(int from, int to) {
  char buffer[65536];
  const ssize_t n = recv(from, buffer, sizeof buffer, 0);
  for (ssize_t done = 0; done < n;) {
    const ssize_t m = send(to, buffer + done, static_cast<size_t>(n - done), MSG_NOSIGNAL);
    if (m <= 0) return false;
    done += m;
  }
  return n > 0;
}

}  // namespace

Relay::Relay(const std::string& target) : target_port_(std::stoi(target.substr(target.rfind(':') + 1))) {
  listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = loopback(0);
  socklen_t size = sizeof address;
  if (bind(listener_, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 || ::listen(listener_, 1) != 0 ||
      getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    throw std::runtime_error("relay: cannot listen");
  }
  port_ = ntohs(address.sin_port);
  thread_ = std::thread([this] { run(); });
}

Relay::~Relay() {
  stop_ = true;
  thread_.join();
  close(listener_);
}

std::string Relay::address() const { return absl::StrCat("127.0.0.1:", port_); }

void Relay::run() {
  int near = -1, far = -1;
  while (!stop_) {
    pollfd fds[3] = {{listener_, POLLIN, 0}, {near, POLLIN, 0}, {far, POLLIN, 0}};
    if (frozen_) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
      continue;
    }
    if (poll(fds, near < 0 ? 1 : 3, 10) <= 0) continue;
    if (near < 0) {
      near = accept(listener_, nullptr, nullptr);
      far = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
      sockaddr_in address = loopback(target_port_);
      if (connect(far, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) break;
      continue;
    }
    if (fds[1].revents != 0 && !move_bytes(near, far)) break;
    if (fds[2].revents != 0 && !move_bytes(far, near)) break;
  }
  if (near >= 0) close(near);
  if (far >= 0) close(far);
}

}  // namespace invar::rpc
