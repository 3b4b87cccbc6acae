#include "runtime/weights/model_digest.h"

#include <system_error>

#include "absl/strings/escaping.h"
#include "runtime/model_config/message.h"
#include "runtime/model_config/strict_json.h"
#include "runtime/model_config/text_file.h"
#include "runtime/weights/tree_hash.h"

namespace invar {
namespace {

constexpr uintmax_t kMaxTokenizerBytes = 512 << 20;

// Keys sorted, no white space; numbers keep their kind (1 is not 1.0). Empty stays empty.
absl::StatusOr<std::string> canonical(std::string_view document, const std::string& text) {
  if (text.empty()) return std::string();
  const absl::StatusOr<nlohmann::json> json = parse_strict_json(text);
  if (!json.ok()) return absl::Status(json.status().code(), message(document, ": ", json.status().message()));
  return json->dump();
}

}  // namespace

absl::StatusOr<ModelDocuments> read_model_documents(const std::filesystem::path& folder_or_config_json) {
  std::error_code error;
  const bool folder = std::filesystem::is_directory(folder_or_config_json, error);
  ModelDocuments documents;
  absl::StatusOr<std::string> config =
      read_text_file(folder ? folder_or_config_json / "config.json" : folder_or_config_json, kMaxConfigBytes);
  if (!config.ok()) return config.status();
  documents.config_json = *std::move(config);
  const auto read_optional = [&](const char* name, uintmax_t max_bytes, std::string& out) {
    const std::filesystem::path path = folder_or_config_json / name;
    if (!folder || !std::filesystem::exists(path, error)) return absl::OkStatus();
    absl::StatusOr<std::string> text = read_text_file(path, max_bytes);
    if (text.ok()) out = *std::move(text);
    return text.status();
  };
  if (absl::Status s = read_optional("generation_config.json", kMaxConfigBytes, documents.generation_config_json); !s.ok())
    return s;
  if (absl::Status s = read_optional("tokenizer.json", kMaxTokenizerBytes, documents.tokenizer_json); !s.ok()) return s;
  return documents;
}

absl::StatusOr<std::string> model_digest(const ModelDocuments& documents, const WeightSource& weights, int threads,
                                         const LoadProgressFn& progress) {
  const absl::StatusOr<std::string> config = canonical("config.json", documents.config_json);
  if (!config.ok()) return config.status();
  const absl::StatusOr<std::string> generation = canonical("generation_config.json", documents.generation_config_json);
  if (!generation.ok()) return generation.status();
  const absl::StatusOr<std::string> content = weights.content_digest(threads, progress);
  if (!content.ok()) return content.status();
  const std::string digest =
      Sha256().part("invar model").part(*config).part(*generation).part(documents.tokenizer_json).part(*content).finish();
  return absl::BytesToHexString(digest);
}

}  // namespace invar
