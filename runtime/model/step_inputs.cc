#include "runtime/model/step_inputs.h"

#include <cstring>

namespace invar {

void StepInputs::reset(const Device& device, const StepRows& rows) {
  tokens_ = rows.tokens.data();
  positions_ = rows.positions.data();
  slots_ = rows.slots.data();
  logits_ = rows.logits.data();
  if (device.backend() == Backend::kCpu) return;

  size_t bytes = 0;
  const auto place = [&bytes](size_t size) {
    const size_t at = bytes;
    bytes += (size + 255) / 256 * 256;
    return at;
  };
  const size_t slots = place(rows.slots.size() * sizeof(int64_t)), logits = place(rows.logits.size() * sizeof(int64_t)),
               positions = place(rows.positions.size() * sizeof(int32_t)), tokens = place(rows.tokens.size() * sizeof(int32_t));
  device.synchronize();  // the staging buffer of the last step has been read
  if (device_.size() < bytes) {
    staging_ = Buffer::staging(device, bytes);
    device_ = Buffer(device, bytes);
  }
  const auto fill = [&](const auto*& to, const auto& from, size_t at) {
    std::memcpy(staging_.data() + at, from.data(), from.size() * sizeof(from[0]));
    to = reinterpret_cast<std::remove_reference_t<decltype(to)>>(device_.data() + at);
  };
  fill(slots_, rows.slots, slots);
  fill(logits_, rows.logits, logits);
  fill(positions_, rows.positions, positions);
  fill(tokens_, rows.tokens, tokens);
  device.queue_upload(device_.data(), staging_.data(), bytes);
}

}  // namespace invar
