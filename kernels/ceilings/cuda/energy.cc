#include "kernels/ceilings/cuda/energy.h"

#include <dlfcn.h>

#include "kernels/device/cuda/context.h"

namespace invar::ceilings {

// Loaded when it is needed: a program that has CUDA's runtime need not have NVML.
EnergyMeter::EnergyMeter(const Device&) {
  library_ = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
  if (!library_) return;
  const auto begin = reinterpret_cast<int (*)()>(dlsym(library_, "nvmlInit_v2"));
  const auto find = reinterpret_cast<int (*)(const char*, void**)>(dlsym(library_, "nvmlDeviceGetHandleByPciBusId_v2"));
  const auto read = reinterpret_cast<int (*)(void*, unsigned long long*)>(dlsym(library_, "nvmlDeviceGetTotalEnergyConsumption"));
  int gpu;
  char bus[32];
  if (!begin || !find || !read || cudaGetDevice(&gpu) != cudaSuccess ||
      cudaDeviceGetPCIBusId(bus, sizeof(bus), gpu) != cudaSuccess || begin() != 0 || find(bus, &card_) != 0)
    return;
  read_ = read;
}

EnergyMeter::~EnergyMeter() {
  if (library_) dlclose(library_);
}

std::optional<double> EnergyMeter::joules() const {
  unsigned long long millijoules;
  if (!read_ || read_(card_, &millijoules) != 0) return std::nullopt;
  return static_cast<double>(millijoules) * 1e-3;
}

}  // namespace invar::ceilings
