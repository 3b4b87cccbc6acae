#include "runtime/weights/safetensors_header.h"

#include <algorithm>
#include <array>
#include <utility>

#include "absl/strings/str_join.h"
#include "nlohmann/json.hpp"
#include "runtime/model_config/message.h"
#include "runtime/model_config/strict_json.h"

namespace invar {
namespace {

// Reads {"name": {"dtype": "..", "shape": [..], "data_offsets": [begin, end]}, "__metadata__": {"..": ".."}} and nothing else.
// A state per place keeps nesting bounded without a tree: a header may have 100 MB.
class HeaderReader : public nlohmann::json_sax<nlohmann::json> {
 public:
  // `read`: the parser went through to the end.
  absl::Status take(bool read, std::vector<TensorRecord>& records) {
    if (!read || place_ != Place::kEnd) fail("the header is not a JSON object");  // unless there is a better reason already
    if (status_.ok()) records = std::move(records_);
    return status_;
  }

  bool null() override { return scalar("null"); }
  bool boolean(bool x) override { return scalar(x ? "true" : "false"); }
  bool number_integer(number_integer_t x) override { return scalar(message(x)); }
  bool number_float(number_float_t, const string_t& text) override { return scalar(show_text(text)); }
  bool binary(binary_t&) override { return scalar("binary"); }
  bool number_unsigned(number_unsigned_t x) override {
    if (place_ != Place::kNumbers) return scalar(message(x));
    if (x > static_cast<uint64_t>(INT64_MAX)) return fail_field(message("has the entry ", x, "; it is too large"));
    if (numbers_.size() == kMaxTensorRank) return fail_field(message("has more than ", kMaxTensorRank, " entries"));
    numbers_.push_back(static_cast<int64_t>(x));
    return true;
  }
  bool string(string_t& text) override {
    if (place_ == Place::kMetadata) return true;
    if (place_ != Place::kTensor || field_ != "dtype") return scalar(show_text(text));
    const std::optional<ElementType> type = parse_element_type(text);
    if (!type) return fail_field(message("is ", show_text(text), "; it is not a known element type"));
    records_.back().type = *type;
    return true;
  }
  bool start_object(size_t) override {
    if (place_ == Place::kStart) {
      place_ = Place::kNames;
    } else if (place_ == Place::kNames && metadata_) {
      place_ = Place::kMetadata;
    } else if (place_ == Place::kNames) {
      place_ = Place::kTensor;
      seen_ = {};
    } else {
      return scalar("an object");
    }
    return true;
  }
  bool end_object() override {
    if (place_ == Place::kNames) {
      place_ = Place::kEnd;
      return true;
    }
    if (place_ == Place::kTensor) {
      for (int i = 0; i < 3; ++i) {
        field_ = kFields[i];
        if (!seen_[i]) return fail_field("is missing");
      }
    }
    place_ = Place::kNames;
    return true;
  }
  bool start_array(size_t) override {
    if (place_ != Place::kTensor || field_ == "dtype") return scalar("a list");
    place_ = Place::kNumbers;
    numbers_.clear();
    return true;
  }
  bool end_array() override {
    place_ = Place::kTensor;
    TensorRecord& record = records_.back();
    if (field_ == "shape") {
      record.shape = numbers_;
      return true;
    }
    if (numbers_.size() != 2) return fail_field(message("has ", numbers_.size(), " entries; it must have two"));
    record.begin = numbers_[0];
    record.end = numbers_[1];
    return true;
  }
  bool key(string_t& name) override {
    if (place_ == Place::kNames) {
      metadata_ = name == "__metadata__";
      field_.clear();
      if (metadata_) {
        return !std::exchange(metadata_seen_, true) || fail("__metadata__ is given twice");
      }
      records_.emplace_back();
      records_.back().name = name;
      return true;
    }
    if (place_ == Place::kMetadata) return true;
    field_ = name;
    const auto known = std::find(kFields.begin(), kFields.end(), name);
    if (known == kFields.end()) {
      field_.clear();
      return fail(message(where(), "has the unknown field ", show_text(name)));
    }
    return !std::exchange(seen_[known - kFields.begin()], true) || fail_field("is given twice");
  }
  bool parse_error(size_t position, const std::string&, const nlohmann::json::exception&) override {
    return fail(message("not valid JSON at byte ", position, " of the header"));
  }

 private:
  enum class Place { kStart, kNames, kTensor, kNumbers, kMetadata, kEnd };
  static constexpr std::array<std::string_view, 3> kFields = {"dtype", "shape", "data_offsets"};

  std::string where() const {
    if (place_ == Place::kMetadata || (place_ == Place::kNames && metadata_)) return "__metadata__: ";
    return records_.empty() ? "" : message("tensor ", show_text(records_.back().name), ": ");
  }
  // A value where none of its kind may stand.
  bool scalar(std::string_view shown) {
    if (place_ == Place::kStart) return fail("the header is not a JSON object");
    if (place_ == Place::kMetadata) return fail(message("__metadata__: holds ", shown, "; it may hold strings only"));
    if (place_ == Place::kNumbers) return fail_field(message("has the entry ", shown, "; it must be an unsigned integer"));
    if (place_ == Place::kTensor) {
      return fail_field(message("is ", shown, "; it must be ", field_ == "dtype" ? "a string" : "a list of unsigned integers"));
    }
    return fail(message(where(), "is ", shown, "; it must be an object"));
  }
  bool fail_field(std::string_view why) { return fail(message(where(), field_, " ", why)); }
  bool fail(std::string_view why) {
    if (status_.ok()) status_ = absl::InvalidArgumentError(std::string(why));
    return false;
  }

  Place place_ = Place::kStart;
  bool metadata_ = false;
  bool metadata_seen_ = false;
  std::string field_;
  std::array<bool, 3> seen_ = {};
  std::vector<int64_t> numbers_;
  std::vector<TensorRecord> records_;
  absl::Status status_;
};

absl::Status check_size(const TensorRecord& record, int64_t data_bytes) {
  const auto fail = [&](std::string_view why) {
    return absl::InvalidArgumentError(message("tensor ", show_text(record.name), ": ", why));
  };
  const std::string offsets = message("data_offsets is [", record.begin, ", ", record.end, "]");
  if (record.begin > record.end) return fail(message(offsets, "; the end lies before the beginning"));
  if (record.end > data_bytes) return fail(message(offsets, "; the file has only ", data_bytes, " bytes of data"));
  int64_t bytes = bytes_of(record.type);
  for (const int64_t dim : record.shape) {
    if (__builtin_mul_overflow(bytes, dim, &bytes)) {
      return fail(message("shape is [", absl::StrJoin(record.shape, ", "), "]; its size overflows"));
    }
  }
  if (record.end - record.begin != bytes) {
    return fail(message(offsets, ", ", record.end - record.begin, " bytes; shape [", absl::StrJoin(record.shape, ", "), "] in ",
                        name(record.type), " takes ", bytes));
  }
  return absl::OkStatus();
}

absl::Status check_tiling(const std::vector<TensorRecord>& records, int64_t data_bytes) {
  std::vector<const TensorRecord*> by_begin;
  for (const TensorRecord& record : records) by_begin.push_back(&record);
  std::sort(by_begin.begin(), by_begin.end(), [](const TensorRecord* a, const TensorRecord* b) {
    return a->begin != b->begin ? a->begin < b->begin : a->end < b->end;
  });
  int64_t reached = 0;
  const TensorRecord* last = nullptr;
  for (const TensorRecord* record : by_begin) {
    const auto fail = [&](std::string_view why) {
      return absl::InvalidArgumentError(
          message("tensor ", show_text(record->name), ": data_offsets is [", record->begin, ", ", record->end, "]; ", why));
    };
    if (record->begin < reached) return fail(message("it overlaps tensor ", show_text(last->name), ", which ends at ", reached));
    if (record->begin > reached) return fail(message("bytes ", reached, " to ", record->begin, " belong to no tensor"));
    reached = record->end;
    last = record;
  }
  if (reached != data_bytes) {
    return absl::InvalidArgumentError(
        message("the last tensor ends at byte ", reached, " of the data; the file has ", data_bytes));
  }
  return absl::OkStatus();
}

}  // namespace

int64_t TensorRecord::elements() const { return (end - begin) / bytes_of(type); }

absl::StatusOr<std::vector<TensorRecord>> parse_safetensors_header(std::string_view header, int64_t data_bytes) {
  if (header.empty() || header.front() != '{') return absl::InvalidArgumentError("the header does not begin with '{'");
  HeaderReader reader;
  const bool read = nlohmann::json::sax_parse(header.begin(), header.end(), &reader);
  std::vector<TensorRecord> records;
  if (absl::Status status = reader.take(read, records); !status.ok()) return status;
  std::sort(records.begin(), records.end(), [](const TensorRecord& a, const TensorRecord& b) { return a.name < b.name; });
  const auto twice = std::adjacent_find(records.begin(), records.end(),
                                        [](const TensorRecord& a, const TensorRecord& b) { return a.name == b.name; });
  if (twice != records.end()) return absl::InvalidArgumentError(message("tensor ", show_text(twice->name), " is given twice"));
  for (const TensorRecord& record : records) {
    if (absl::Status status = check_size(record, data_bytes); !status.ok()) return status;
  }
  if (absl::Status status = check_tiling(records, data_bytes); !status.ok()) return status;
  return records;
}

}  // namespace invar
