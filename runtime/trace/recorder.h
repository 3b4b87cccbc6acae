// Writes one rank's trace file. Off (a null recorder) it costs nothing; on, it copies what every operator computed.
#pragma once

#include <cstdint>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/device/device.h"
#include "runtime/proto/trace.pb.h"

namespace invar {

enum class TraceDetail : uint8_t { kDigests, kValues };  // kValues lets `invar diff` name the element

class TraceRecorder {
 public:
  // The file of rank r of trace `path` is `path`.r<rank>. `device`: whose memory is recorded; must outlive the recorder.
  static absl::StatusOr<std::unique_ptr<TraceRecorder>> create(const std::string& path, const v1::TraceHeader& header,
                                                               const Device& device);

  void plan(const v1::StepPlan& plan);
  void begin_step(uint64_t step, std::vector<v1::TraceRow> rows);
  // Data is row-major with `stride` elements between rows. `rows` selects rows of the step (null = all of them, in order).
  template <class T>
  void record(v1::TraceOperatorKind kind, int64_t layer, const T* data, int64_t stride, int64_t first_column, int64_t columns,
              const std::vector<int64_t>* rows = nullptr);
  void end_step();

 private:
  TraceRecorder(std::ofstream out, bool values, const Device& device) : out_(std::move(out)), values_(values), device_(device) {}
  void write(const v1::TraceEntry& entry);

  std::ofstream out_;
  bool values_;
  const Device& device_;
  std::vector<std::byte> fetched_;  // values of a device that the host does not share memory with
  v1::TraceEntry step_;
};

}  // namespace invar
