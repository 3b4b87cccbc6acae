// The "post_processor" of tokenizer.json: the ids around a text when special tokens are asked for.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/tokenizer/fields.h"

namespace invar::tokenizer {

struct PostProcessor {
  std::vector<int32_t> before, after;

  // Supported types: TemplateProcessing (its template for one text), ByteLevel (which moves offsets only), Sequence.
  // `known` says whether an id has a token.
  static absl::StatusOr<PostProcessor> read(const Fields& field, const std::function<bool(int32_t)>& known);
};

}  // namespace invar::tokenizer
