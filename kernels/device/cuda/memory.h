// What Device and Buffer ask of a GPU, without CUDA's own headers: declared in every build, defined in one with CUDA.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "kernels/device/device.h"

namespace invar::cuda {

absl::StatusOr<CudaContext*> open(int index);
void close(CudaContext* context);
std::string describe(const CudaContext& context);
int device_count();
Device::Memory memory(const Device& device);

std::byte* allocate(const Device& device, size_t bytes);  // zeroed
std::byte* allocate_host(const Device& device, size_t bytes);
void release(std::byte* p);
void release_host(std::byte* p);

void upload(const Device& device, void* to, const void* from, size_t bytes);
void download(const Device& device, void* to, const void* from, size_t bytes);
void copy(const Device& device, void* to, const void* from, size_t bytes);
void synchronize(const Device& device);

std::shared_ptr<void> record(const Device& device, const std::function<void()>& work);
void run(const Device& device, void* graph);
uint64_t allocations();

}  // namespace invar::cuda
