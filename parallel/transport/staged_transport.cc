#include <algorithm>
#include <vector>

#include "parallel/transport/transport.h"

namespace invar::parallel {
namespace {

class StagedTransport : public Transport {
 public:
  StagedTransport(Transport& inner, const Device& device) : inner_(inner), device_(device) {}

  int rank() const override { return inner_.rank(); }
  int size() const override { return inner_.size(); }
  const std::string& host() const override { return inner_.host(); }
  int local_rank() const override { return inner_.local_rank(); }
  int local_size() const override { return inner_.local_size(); }
  Transport& host_memory() override { return inner_.host_memory(); }

  void exchange(std::span<const Send> sends, std::span<const Receive> receives, const Phase& phase) override {
    size_t bytes = 0;
    for (const Send& s : sends) bytes += place(s.bytes.size());
    for (const Receive& r : receives) bytes += place(r.bytes.size());
    if (staging_.size() < bytes) {
      device_.synchronize();  // uploads may still be reading the old one
      staging_ = Buffer::staging(device_, bytes + bytes / 4);
    }
    std::byte* at = staging_.data();
    std::vector<Send> host_sends;
    std::vector<Receive> host_receives;
    for (const Send& s : sends) {
      device_.queue_download(at, s.bytes.data(), s.bytes.size());
      host_sends.push_back({s.peer, {at, s.bytes.size()}});
      at += place(s.bytes.size());
    }
    for (const Receive& r : receives) {
      host_receives.push_back({r.peer, {at, r.bytes.size()}});
      at += place(r.bytes.size());
    }
    device_.synchronize();  // also: uploads of the last exchange have left the staging buffer
    inner_.exchange(host_sends, host_receives, phase);
    for (size_t i = 0; i < receives.size(); ++i)
      device_.queue_upload(receives[i].bytes.data(), host_receives[i].bytes.data(), receives[i].bytes.size());
  }

  void send_message(int peer, int tag, std::span<const std::byte> bytes) override { inner_.send_message(peer, tag, bytes); }
  bool try_receive_message(int peer, int tag, std::vector<std::byte>& out, std::chrono::milliseconds wait) override {
    return inner_.try_receive_message(peer, tag, out, wait);
  }
  void interrupt() override { inner_.interrupt(); }
  void abort(int exit_code) override { inner_.abort(exit_code); }
  void finalize() override { inner_.finalize(); }

 private:
  static size_t place(size_t bytes) { return (bytes + 63) / 64 * 64; }

  Transport& inner_;
  const Device& device_;
  Buffer staging_;
};

}  // namespace

std::unique_ptr<Transport> staged(Transport& inner, const Device& device) {
  return std::make_unique<StagedTransport>(inner, device);
}

}  // namespace invar::parallel
