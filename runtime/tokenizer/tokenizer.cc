#include "runtime/tokenizer/tokenizer.h"

#include <fstream>
#include <system_error>

#include "runtime/tokenizer/document.h"
#include "runtime/tokenizer/fields.h"
#include "runtime/tokenizer/strings.h"
#include "runtime/tokenizer/tokenizer_parts.h"
#include "runtime/tokenizer/utf8.h"

namespace invar {
namespace {

using tokenizer::concat;
using tokenizer::Fields;
using tokenizer::Segment;
using tokenizer::Vocabulary;

absl::StatusOr<std::string> read_file(const std::filesystem::path& path) {
  std::error_code error;
  const auto size = std::filesystem::file_size(path, error);
  if (error) return absl::NotFoundError(concat(path.string(), ": ", error.message()));
  std::ifstream file(path, std::ios::binary);
  std::string text(size, '\0');
  if (!file.read(text.data(), static_cast<std::streamsize>(size)))
    return absl::UnavailableError(concat(path.string(), ": cannot be read"));
  return text;
}

// The classes of transformers that build their template from add_bos_token and add_eos_token and thereby overrule the one in
// tokenizer.json; for the others a false says nothing.
bool replaces_template(std::string_view tokenizer_class) {
  for (const std::string_view name : {"LlamaTokenizer", "CodeLlamaTokenizer", "GemmaTokenizer", "CohereTokenizer"}) {
    if (tokenizer_class == name || tokenizer_class == concat(name, "Fast")) return true;
  }
  return false;
}

// The id of "bos_token" or "eos_token": a string, an object with "content", or null.
absl::StatusOr<std::optional<int32_t>> named_token(const nlohmann::json& config, const char* key, const Tokenizer& tokenizer) {
  const auto found = config.find(key);
  if (found == config.end() || found->is_null()) return std::nullopt;
  const nlohmann::json* text = found->is_object() && found->contains("content") ? &(*found)["content"] : &*found;
  if (!text->is_string())
    return absl::InvalidArgumentError(concat("tokenizer_config.json: ", key, ": neither a string nor an added token"));
  const auto id = tokenizer.id_of(text->get_ref<const std::string&>());
  if (!id)
    return absl::InvalidArgumentError(
        concat("tokenizer_config.json: ", key, ": '", text->get_ref<const std::string&>(), "' is no token"));
  return id;
}

absl::StatusOr<std::optional<bool>> named_flag(const nlohmann::json& config, const char* key) {
  const auto found = config.find(key);
  if (found == config.end() || found->is_null()) return std::nullopt;
  if (!found->is_boolean()) return absl::InvalidArgumentError(concat("tokenizer_config.json: ", key, ": not true or false"));
  return found->get<bool>();
}

// Puts `id` at one end of the template, or takes it away.
absl::Status settle(const char* key, std::optional<bool> wanted, std::optional<int32_t> id, bool may_remove,
                    std::vector<int32_t>& ids, bool at_front) {
  if (!wanted || (!*wanted && !may_remove)) return absl::OkStatus();
  if (*wanted && !id)
    return absl::InvalidArgumentError(concat("tokenizer_config.json: ", key, ": true, but no such token is named"));
  const bool there = !ids.empty() && id && (at_front ? ids.front() : ids.back()) == *id;
  const auto place = at_front ? ids.begin() : ids.end();
  if (*wanted && !there) ids.insert(place, *id);
  if (!*wanted && there) ids.erase(at_front ? ids.begin() : ids.end() - 1);
  return absl::OkStatus();
}

}  // namespace

Tokenizer::Tokenizer(std::unique_ptr<const Parts> parts) : parts_(std::move(parts)) {}
Tokenizer::~Tokenizer() = default;

absl::StatusOr<std::shared_ptr<const Tokenizer>> Tokenizer::load(const std::filesystem::path& folder) {
  auto text = read_file(folder / "tokenizer.json");
  if (!text.ok()) return text.status();
  auto config = read_file(folder / "tokenizer_config.json");
  if (!config.ok() && !absl::IsNotFound(config.status())) return config.status();
  auto tokenizer = parse(*text, config.ok() ? std::string_view(*config) : std::string_view());
  if (!tokenizer.ok())
    return absl::Status(tokenizer.status().code(), concat(folder.string(), ": ", tokenizer.status().message()));
  return tokenizer;
}

absl::StatusOr<std::shared_ptr<const Tokenizer>> Tokenizer::parse(std::string_view tokenizer_json,
                                                                  std::string_view tokenizer_config_json) {
  auto document = tokenizer::parse_document(tokenizer_json);
  if (!document.ok()) return document.status();
  absl::Status error;
  const Fields root(document->root, "", error);
  // truncation and padding describe a call, not a tokenizer: whoever encodes with transformers gets neither unless asked for.
  root.only(
      {"version", "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer", "post_processor", "decoder", "model"});
  if (root.text("version", "1.0") != "1.0") root.unsupported("version");
  const Fields model = root.child("model");
  if (!error.ok()) return error;

  auto bpe = tokenizer::Bpe::build(model, *document);
  if (!bpe.ok()) return bpe.status();
  auto parts = std::make_unique<Parts>(*std::move(bpe));
  const auto read = [&](const char* key, auto&& reader, auto& part) {
    if (!error.ok() || !root.present(key)) return;
    auto result = reader(root.child(key));
    if (result.ok()) {
      part = *std::move(result);
    } else {
      error = result.status();
    }
  };
  read("normalizer", tokenizer::Normalizer::read, parts->normalizer);
  read("pre_tokenizer", tokenizer::PreTokenizer::read, parts->pre_tokenizer);
  read("decoder", tokenizer::Decoder::read, parts->decoder);
  const auto read_added = [&](const Fields&) {
    return tokenizer::AddedTokens::read(root, parts->bpe.vocabulary(), parts->normalizer);
  };
  read("added_tokens", read_added, parts->added);
  const auto read_post = [&](const Fields& field) {
    return tokenizer::PostProcessor::read(field, [&](int32_t id) { return parts->token(id).has_value(); });
  };
  read("post_processor", read_post, parts->post_processor);
  if (!error.ok()) return error;

  Parts& made = *parts;
  std::shared_ptr<const Tokenizer> tokenizer(new Tokenizer(std::move(parts)));
  if (tokenizer_config_json.empty()) return tokenizer;

  const auto config = nlohmann::json::parse(tokenizer_config_json, nullptr, false);
  if (!config.is_object()) return absl::InvalidArgumentError("tokenizer_config.json: not a JSON object");
  auto bos = named_token(config, "bos_token", *tokenizer), eos = named_token(config, "eos_token", *tokenizer);
  auto add_bos = named_flag(config, "add_bos_token"), add_eos = named_flag(config, "add_eos_token");
  for (const absl::Status& status : {bos.status(), eos.status(), add_bos.status(), add_eos.status()}) {
    if (!status.ok()) return status;
  }
  made.bos = *bos;
  made.eos = *eos;
  const auto name = config.find("tokenizer_class");
  const bool may_remove = name != config.end() && name->is_string() && replaces_template(name->get_ref<const std::string&>());
  auto status = settle("add_bos_token", *add_bos, *bos, may_remove, made.post_processor.before, true);
  if (status.ok()) status = settle("add_eos_token", *add_eos, *eos, may_remove, made.post_processor.after, false);
  if (!status.ok()) return status;
  return tokenizer;
}

absl::StatusOr<std::vector<int32_t>> Tokenizer::encode(std::string_view utf8, bool add_special_tokens) const {
  if (utf8.size() > kMaxTextBytes)
    return absl::InvalidArgumentError(concat("text: ", utf8.size(), " bytes are more than ", kMaxTextBytes));
  if (const size_t at = tokenizer::first_invalid_utf8(utf8); at != std::string_view::npos) {
    return absl::InvalidArgumentError(concat("text: invalid UTF-8 at byte ", at));
  }
  const Parts& parts = *parts_;
  const tokenizer::MatchBudget budget(utf8.size());
  const bool bytes = parts.pre_tokenizer.ends_in_bytes();
  std::vector<int32_t> ids;
  if (add_special_tokens) ids = parts.post_processor.before;

  // Added tokens are looked for twice: in the text as it came, then in what is left, normalized.
  std::vector<Segment> raw, segments;
  parts.added.split(utf8, false, raw);
  for (const Segment& outer : raw) {
    if (outer.id != Vocabulary::kNone) {
      ids.push_back(outer.id);
      continue;
    }
    auto text = parts.normalizer.apply(std::string(utf8.substr(outer.begin, outer.end - outer.begin)), budget);
    if (!text.ok()) return text.status();
    segments.clear();
    parts.added.split(*text, true, segments);
    for (const Segment& inner : segments) {
      if (inner.id != Vocabulary::kNone) {
        ids.push_back(inner.id);
        continue;
      }
      tokenizer::Words words;
      words.text = segments.size() == 1 ? *std::move(text) : text->substr(inner.begin, inner.end - inner.begin);
      words.ranges.push_back({0, static_cast<uint32_t>(words.text.size()), outer.begin == 0 && inner.begin == 0});
      if (auto status = parts.pre_tokenizer.apply(words, budget); !status.ok()) return status;
      for (const auto& range : words.ranges) {
        parts.bpe.encode(std::string_view(words.text).substr(range.begin, range.end - range.begin), bytes, ids);
      }
    }
  }
  if (add_special_tokens) ids.insert(ids.end(), parts.post_processor.after.begin(), parts.post_processor.after.end());
  return ids;
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special_tokens) const {
  tokenizer::DecoderRun run(parts_->decoder);
  for (const int32_t id : ids) {
    const auto token = parts_->token(id);
    if (token && !(skip_special_tokens && is_special(id))) run.token(*token);
  }
  run.finish();
  return run.take();
}

absl::StatusOr<std::string> Tokenizer::decode_checked(std::span<const int32_t> ids, bool skip_special_tokens) const {
  for (size_t i = 0; i < ids.size(); ++i) {
    if (!parts_->token(ids[i])) return absl::InvalidArgumentError(concat("ids[", i, "]: no token has the id ", ids[i]));
  }
  return decode(ids, skip_special_tokens);
}

int32_t Tokenizer::vocab_size() const { return std::max(parts_->bpe.vocabulary().size(), parts_->added.size()); }
std::optional<int32_t> Tokenizer::id_of(std::string_view token) const { return parts_->id_of(token); }
std::string Tokenizer::token_text(int32_t id) const { return std::string(parts_->token(id).value_or("")); }

std::string Tokenizer::token_bytes(int32_t id) const {
  const auto token = parts_->token(id);
  return token ? parts_->decoder.token_bytes(*token) : std::string();
}

bool Tokenizer::is_special(int32_t id) const {
  const auto* token = parts_->added.find(id);
  return token != nullptr && token->special;
}

std::optional<int32_t> Tokenizer::bos() const { return parts_->bos; }
std::optional<int32_t> Tokenizer::eos() const { return parts_->eos; }

}  // namespace invar
