// What a GPU has consumed, by NVML's counter. For benches only.
#pragma once

#include <optional>

#include "kernels/device/device.h"

namespace invar::ceilings {

class EnergyMeter {
 public:
  explicit EnergyMeter(const Device& device);
  ~EnergyMeter();
  EnergyMeter(const EnergyMeter&) = delete;
  EnergyMeter& operator=(const EnergyMeter&) = delete;

  // Joules since the driver was loaded, brought up to date every 20 to 100 ms; nothing where NVML or its counter is missing.
  std::optional<double> joules() const;

 private:
  void* library_ = nullptr;
  void* card_ = nullptr;
  int (*read_)(void*, unsigned long long*) = nullptr;  // NOLINT: NVML's type
};

}  // namespace invar::ceilings
