#include "runtime/trace/recorder.h"

#include <google/protobuf/util/delimited_message_util.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace invar {
namespace {

uint32_t bits_of(numerics::Bf16 x) { return (x.bits & 0x7fff) > 0x7f80 ? 0x7fff : x.bits; }
uint32_t bits_of(float x) { return numerics::canonical_bits(x); }
uint32_t bits_of(int32_t x) { return static_cast<uint32_t>(x); }

}  // namespace

absl::StatusOr<std::unique_ptr<TraceRecorder>> TraceRecorder::create(const std::string& path, const v1::TraceHeader& header,
                                                                     const Device& device) {
  const std::string file = absl::StrCat(path, ".r", header.rank());
  std::ofstream out(file, std::ios::binary | std::ios::trunc);
  if (!out) return absl::InvalidArgumentError(absl::StrCat("--trace: cannot write ", file, ": ", std::strerror(errno)));
  auto recorder = std::unique_ptr<TraceRecorder>(new TraceRecorder(std::move(out), header.values(), device));
  v1::TraceEntry entry;
  *entry.mutable_header() = header;
  recorder->write(entry);
  return recorder;
}

void TraceRecorder::plan(const v1::StepPlan& plan) {
  v1::TraceEntry entry;
  *entry.mutable_plan() = plan;
  write(entry);
}

void TraceRecorder::begin_step(uint64_t step, std::vector<v1::TraceRow> rows) {
  v1::TraceStep* s = step_.mutable_step();
  s->Clear();
  s->set_step(step);
  for (v1::TraceRow& row : rows) *s->add_rows() = std::move(row);
}

template <class T>
void TraceRecorder::record(v1::TraceOperatorKind kind, int64_t layer, const T* data, int64_t stride, int64_t first_column,
                           int64_t columns, const std::vector<int64_t>* rows) {
  const int64_t count = rows ? static_cast<int64_t>(rows->size()) : step_.step().rows_size();
  if (count == 0 || columns == 0) return;
  if (device_.backend() != Backend::kCpu) {
    const size_t bytes = static_cast<size_t>((count - 1) * stride + columns) * sizeof(T);
    fetched_.resize(bytes);
    device_.download(fetched_.data(), data, bytes);
    data = reinterpret_cast<const T*>(fetched_.data());
  }
  v1::TraceOperator* op = step_.mutable_step()->add_operators();
  op->set_kind(kind);
  op->set_layer(static_cast<int32_t>(layer));
  op->set_first_column(static_cast<uint32_t>(first_column));
  op->set_columns(static_cast<uint32_t>(columns));
  op->set_element_bytes(sizeof(T));
  for (int64_t r = 0; r < count; ++r) {
    if (rows) op->add_rows(static_cast<uint32_t>((*rows)[r]));
    uint64_t digest = 0;
    for (int64_t c = 0; c < columns; ++c) digest += numerics::hash_element(first_column + c, bits_of(data[r * stride + c]));
    op->add_digests(digest);
    if (values_) op->mutable_values()->append(reinterpret_cast<const char*>(data + r * stride), columns * sizeof(T));
  }
}
template void TraceRecorder::record(v1::TraceOperatorKind, int64_t, const numerics::Bf16*, int64_t, int64_t, int64_t,
                                    const std::vector<int64_t>*);
template void TraceRecorder::record(v1::TraceOperatorKind, int64_t, const float*, int64_t, int64_t, int64_t,
                                    const std::vector<int64_t>*);
template void TraceRecorder::record(v1::TraceOperatorKind, int64_t, const int32_t*, int64_t, int64_t, int64_t,
                                    const std::vector<int64_t>*);

void TraceRecorder::end_step() { write(step_); }

void TraceRecorder::write(const v1::TraceEntry& entry) {
  google::protobuf::util::SerializeDelimitedToOstream(entry, &out_);
  out_.flush();  // a trace is wanted most when the next step does not come back
}

}  // namespace invar
