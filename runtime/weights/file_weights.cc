#include "runtime/weights/file_weights.h"

#include <algorithm>
#include <system_error>

#include "absl/strings/str_join.h"
#include "runtime/model_config/message.h"
#include "runtime/model_config/strict_json.h"
#include "runtime/model_config/text_file.h"
#include "runtime/weights/slice.h"
#include "runtime/weights/tree_hash.h"

namespace invar {
namespace {

constexpr uintmax_t kMaxIndexBytes = 64 << 20;
constexpr int64_t kReleaseBytes = 4 << 20;  // read this much, then let the pages go

std::string show_shape(const std::vector<int64_t>& shape) { return message("[", absl::StrJoin(shape, ", "), "]"); }

// Older exports carry the rotary frequencies, which follow from the config, and a copy of a tied head.
bool may_be_ignored(std::string_view tensor, const ModelConfig& config) {
  constexpr std::string_view kRotary = ".rotary_emb.inv_freq";
  return tensor.ends_with(kRotary) || (config.tie_word_embeddings && tensor == "lm_head.weight");
}

}  // namespace

absl::StatusOr<std::unique_ptr<FileWeights>> FileWeights::open(const std::filesystem::path& folder, const ModelConfig& config) {
  std::unique_ptr<FileWeights> weights(new FileWeights());
  const std::filesystem::path single = folder / "model.safetensors";
  const std::filesystem::path index = folder / "model.safetensors.index.json";
  std::error_code error;
  absl::Status status;
  if (std::filesystem::exists(single, error)) {
    status = weights->open_file(single);
  } else if (std::filesystem::exists(index, error)) {
    status = weights->open_indexed(folder, index);
  } else {
    status = absl::NotFoundError(message(folder.string(), ": has neither model.safetensors nor model.safetensors.index.json"));
  }
  if (status.ok()) {
    status = weights->check_against(config);
    if (!status.ok()) status = absl::Status(status.code(), message(folder.string(), ": ", status.message()));
  }
  if (!status.ok()) return status;
  return weights;
}

absl::Status FileWeights::open_file(const std::filesystem::path& path) {
  absl::StatusOr<std::unique_ptr<SafetensorsFile>> file = SafetensorsFile::open(path);
  if (!file.ok()) return file.status();
  for (const TensorRecord& record : (*file)->tensors()) {
    const auto [at, fresh] = tensors_.emplace(record.name, Entry{file->get(), &record});
    if (!fresh) {
      return absl::InvalidArgumentError(message("tensor ", show_text(record.name), " is both in ",
                                                at->second.file->path().string(), " and in ", path.string()));
    }
  }
  files_.push_back(*std::move(file));
  return absl::OkStatus();
}

absl::Status FileWeights::open_indexed(const std::filesystem::path& folder, const std::filesystem::path& index) {
  const absl::StatusOr<std::string> text = read_text_file(index, kMaxIndexBytes);
  if (!text.ok()) return text.status();
  const auto invalid = [&](std::string_view why) { return absl::InvalidArgumentError(message(index.string(), ": ", why)); };
  const absl::StatusOr<nlohmann::json> json = parse_strict_json(*text);
  if (!json.ok()) return invalid(std::string(json.status().message()));
  if (!json->is_object() || !json->contains("weight_map") || !json->at("weight_map").is_object()) {
    return invalid("weight_map is missing or not an object");
  }
  const nlohmann::json& map = json->at("weight_map");
  std::set<std::string> names;
  for (const auto& [tensor, file] : map.items()) {
    if (!file.is_string())
      return invalid(message("weight_map: ", show_text(tensor), " is ", show_json(file), "; it must be a file name"));
    const std::string& name = file.get_ref<const std::string&>();
    // A name with a folder in it could reach any file of the machine.
    if (name.find_first_of(std::string_view("/\\\0", 3)) != std::string::npos || !name.ends_with(".safetensors")) {
      return invalid(
          message("weight_map: ", show_text(tensor), " is ", show_json(file), "; it must be a .safetensors file of this folder"));
    }
    names.insert(name);
  }
  for (const std::string& name : names) {
    if (absl::Status status = open_file(folder / name); !status.ok()) return status;
  }
  for (const auto& [tensor, file] : map.items()) {
    const auto at = tensors_.find(tensor);
    const std::string& named = file.get_ref<const std::string&>();
    if (at == tensors_.end() || at->second.file->path().filename() != named) {
      return invalid(message("weight_map: ", show_text(tensor), " is ", show_json(file), "; that file has no such tensor"));
    }
  }
  for (const auto& [tensor, entry] : tensors_) {
    if (!map.contains(tensor)) {
      return invalid(
          message("weight_map: ", show_text(tensor), " is not there; ", entry.file->path().string(), " has such a tensor"));
    }
  }
  return absl::OkStatus();
}

absl::Status FileWeights::check_against(const ModelConfig& config) {
  std::map<std::string, Entry, std::less<>> kept;
  for (const ExpectedTensor& expected : expected_tensors(config)) {
    const auto at = tensors_.find(expected.name);
    if (at == tensors_.end()) {
      return absl::InvalidArgumentError(
          message("tensor ", show_text(expected.name), " with shape ", show_shape(expected.shape), " is missing"));
    }
    const TensorRecord& record = *at->second.record;
    const std::string where =
        message("tensor ", show_text(expected.name), " in ", at->second.file->path().filename().string(), ": ");
    if (record.shape != expected.shape) {
      return absl::InvalidArgumentError(
          message(where, "shape is ", show_shape(record.shape), "; by config.json it must be ", show_shape(expected.shape)));
    }
    if (!is_weight_type(record.type)) {
      return absl::InvalidArgumentError(message(where, "dtype is ", name(record.type), "; it must be BF16, F16 or F32"));
    }
    total_bytes_ += record.end - record.begin;
    kept.insert(tensors_.extract(at));
  }
  for (const auto& [tensor, entry] : tensors_) {
    if (!may_be_ignored(tensor, config)) {
      return absl::InvalidArgumentError(message("tensor ", show_text(tensor), " in ", entry.file->path().filename().string(),
                                                " is not one of this ", config.architecture, "'s by config.json"));
    }
  }
  tensors_ = std::move(kept);
  return absl::OkStatus();
}

std::vector<int64_t> FileWeights::shape(std::string_view tensor) const {
  const auto at = tensors_.find(tensor);
  return at == tensors_.end() ? std::vector<int64_t>{} : at->second.record->shape;
}

absl::Status FileWeights::read_rows(std::string_view tensor, int64_t row0, int64_t rows, int64_t col0, int64_t cols, Bf16* out,
                                    int64_t out_stride) const {
  const auto at = tensors_.find(tensor);
  const Slice slice = {row0, rows, col0, cols};
  if (at == tensors_.end()) return check_slice(tensor, {}, slice, out_stride);
  const TensorRecord& record = *at->second.record;
  if (absl::Status status = check_slice(tensor, record.shape, slice, out_stride); !status.ok()) return status;

  const int64_t width = columns_of(record.shape);
  const int64_t size = bytes_of(record.type);
  const std::byte* data = at->second.file->data(record);
  // Rows that lie one after another on both sides are one long row.
  const bool whole = cols == width && (out_stride == cols || rows <= 1);
  const int64_t lines = whole ? 1 : rows;
  const int64_t line = whole ? rows * cols : cols;
  const int64_t step = std::max<int64_t>(1, kReleaseBytes / size);
  const std::byte* unreleased = data + (row0 * width + col0) * size;
  for (int64_t r = 0; r < lines; ++r) {
    const int64_t first = (row0 + r) * width + col0;
    for (int64_t c = 0; c < line; c += step) {
      const int64_t count = std::min(step, line - c);
      const std::byte* in = data + (first + c) * size;
      const int64_t bad = to_bf16(record.type, in, count, out + r * out_stride + c);
      if (bad >= 0) {
        const int64_t element = first + c + bad;
        return absl::InvalidArgumentError(message(at->second.file->path().string(), ": tensor ", show_text(tensor), ": element ",
                                                  element, " (row ", element / width, ", column ", element % width, ") is ",
                                                  show_element(record.type, in + bad * size),
                                                  "; weights must be finite in bf16"));
      }
      const std::byte* end = in + count * size;
      if (end - unreleased >= kReleaseBytes || (r + 1 == lines && c + count == line)) {
        SafetensorsFile::release(unreleased, end);
        unreleased = end;
      }
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> FileWeights::content_digest(int threads, const LoadProgressFn& progress) const {
  std::vector<std::string> descriptions;
  descriptions.reserve(tensors_.size());  // items point into it
  std::vector<HashItem> items;
  for (const auto& [tensor, entry] : tensors_) {
    descriptions.push_back(message(name(entry.record->type), " ", show_shape(entry.record->shape)));
    items.push_back({tensor, descriptions.back(), entry.file->data(*entry.record), entry.record->end - entry.record->begin});
  }
  int64_t bytes_done = 0;
  return hash_items("weights", items, threads, [&](size_t i, int64_t begin, int64_t end) {
    SafetensorsFile::release(items[i].data + begin, items[i].data + end);
    bytes_done += end - begin;
    if (progress) progress({bytes_done, total_bytes_, items[i].name});
  });
}

absl::StatusOr<std::unique_ptr<WeightSource>> open_file_weights(const std::filesystem::path& folder, const ModelConfig& config) {
  absl::StatusOr<std::unique_ptr<FileWeights>> weights = FileWeights::open(folder, config);
  if (!weights.ok()) return weights.status();
  return std::unique_ptr<WeightSource>(*std::move(weights));
}

}  // namespace invar
