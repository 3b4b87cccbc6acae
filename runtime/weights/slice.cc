#include "runtime/weights/slice.h"

#include "absl/strings/str_join.h"
#include "runtime/model_config/message.h"
#include "runtime/model_config/strict_json.h"

namespace invar {

int64_t columns_of(const std::vector<int64_t>& shape) { return shape.size() == 2 ? shape[1] : 1; }

absl::Status check_slice(std::string_view tensor, const std::vector<int64_t>& shape, const Slice& slice, int64_t out_stride) {
  if (shape.empty()) return absl::InvalidArgumentError(message("tensor ", show_text(tensor), ": the model has no such tensor"));
  const auto inside = [](int64_t first, int64_t count, int64_t all) {
    return first >= 0 && count >= 0 && first <= all && count <= all - first;
  };
  if (!inside(slice.row0, slice.rows, shape[0]) || !inside(slice.col0, slice.cols, columns_of(shape))) {
    return absl::InvalidArgumentError(message("tensor ", show_text(tensor), ": ", slice.rows, " rows from ", slice.row0, ", ",
                                              slice.cols, " columns from ", slice.col0, " are not inside shape [",
                                              absl::StrJoin(shape, ", "), "]"));
  }
  if (slice.rows > 1 && out_stride < slice.cols) {
    return absl::InvalidArgumentError(message("tensor ", show_text(tensor), ": out_stride is ", out_stride, "; rows of ",
                                              slice.cols, " columns would overlap"));
  }
  return absl::OkStatus();
}

}  // namespace invar
