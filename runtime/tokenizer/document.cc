#include "runtime/tokenizer/document.h"

#include <string>

#include "absl/status/status.h"
#include "runtime/tokenizer/strings.h"

namespace invar::tokenizer {
namespace {

using nlohmann::json;

constexpr size_t kMaxDepth = 64;
constexpr size_t kMaxBytes = size_t{1} << 30;  // keeps every offset in 32 bits

// Nine tenths of a tokenizer.json are half a million tiny strings in model.vocab and model.merges. A tree of them costs
// seconds and a gigabyte, so these two are caught on the way and everything else goes into the tree.
class Reader final : public nlohmann::json_sax<json> {
 public:
  explicit Reader(Document& document) : document_(document) {}

  bool null() override { return value(json(nullptr)); }
  bool boolean(bool v) override { return value(json(v)); }
  bool number_float(double v, const std::string&) override { return value(json(v)); }
  bool number_integer(int64_t v) override { return list_ == List::kVocabulary ? entry(v) : value(json(v)); }
  bool number_unsigned(uint64_t v) override {
    if (list_ == List::kVocabulary) return v > INT64_MAX ? fail("model.vocab: id is too large") : entry(static_cast<int64_t>(v));
    return value(json(v));
  }
  bool binary(json::binary_t&) override { return fail("binary values are not JSON"); }

  bool string(std::string& v) override {
    if (list_ == List::kMerges) return spaced_merge(v);
    if (list_ == List::kMergePair) return half_merge(v);
    return value(json(std::move(v)));
  }

  bool start_object(size_t) override {
    if (list_ == List::kNone && in_model() && key_ == "vocab") {
      if (document_.has_vocabulary) return fail("model.vocab is there twice");
      document_.has_vocabulary = true;
      list_ = List::kVocabulary;
      return true;
    }
    if (list_ != List::kNone) return fail(concat(list_name(), ": an object is not expected here"));
    return open(json::object());
  }

  bool end_object() override {
    if (list_ == List::kVocabulary) {
      list_ = List::kNone;
      return true;
    }
    stack_.pop_back();
    return true;
  }

  bool start_array(size_t) override {
    if (list_ == List::kNone && in_model() && key_ == "merges") {
      if (document_.has_merges) return fail("model.merges is there twice");
      document_.has_merges = true;
      list_ = List::kMerges;
      return true;
    }
    if (list_ == List::kMerges) {
      list_ = List::kMergePair;
      halves_ = 0;
      return true;
    }
    if (list_ != List::kNone) return fail(concat(list_name(), ": a list is not expected here"));
    return open(json::array());
  }

  bool end_array() override {
    if (list_ == List::kMergePair) {
      if (halves_ != 2) return fail(concat("model.merges[", document_.merges.size(), "]: not two tokens"));
      list_ = List::kMerges;
    } else if (list_ == List::kMerges) {
      list_ = List::kNone;
    } else {
      stack_.pop_back();
    }
    return true;
  }

  bool key(std::string& v) override {
    if (list_ == List::kNone && stack_.back()->contains(v)) return fail(concat("key '", v.substr(0, 80), "' is there twice"));
    key_.swap(v);
    return true;
  }

  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception& error) override {
    return fail(concat("not JSON at byte ", position, ": ", std::string_view(error.what()).substr(0, 160)));
  }

  const std::string& error() const { return error_; }

 private:
  enum class List { kNone, kVocabulary, kMerges, kMergePair };

  bool fail(std::string message) {
    if (error_.empty()) error_ = std::move(message);
    return false;
  }

  const char* list_name() const { return list_ == List::kVocabulary ? "model.vocab" : "model.merges"; }

  bool in_model() const { return stack_.size() == 2 && stack_[1] == model_; }

  // Puts `v` where the reading stands and returns where it lies.
  json* place(json v) {
    if (stack_.empty()) {
      document_.root = std::move(v);
      return &document_.root;
    }
    json& parent = *stack_.back();
    if (parent.is_object()) return &(parent[key_] = std::move(v));
    parent.push_back(std::move(v));
    return &parent.back();
  }

  bool value(json v) {
    if (list_ == List::kVocabulary) return fail(concat("model.vocab['", key_.substr(0, 80), "']: id is not an integer"));
    if (list_ != List::kNone)
      return fail(concat("model.merges[", document_.merges.size(), "]: not a string or a pair of strings"));
    place(std::move(v));
    return true;
  }

  bool open(json v) {
    if (stack_.size() >= kMaxDepth) return fail(concat("nested deeper than ", kMaxDepth));
    const bool is_model = stack_.size() == 1 && key_ == "model" && v.is_object();
    stack_.push_back(place(std::move(v)));
    if (is_model) model_ = stack_.back();
    return true;
  }

  uint32_t keep(std::string_view text) {
    const auto begin = static_cast<uint32_t>(document_.characters.size());
    document_.characters.insert(document_.characters.end(), text.begin(), text.end());
    return begin;
  }

  bool entry(int64_t id) {
    document_.vocabulary.push_back({keep(key_), static_cast<uint32_t>(key_.size()), id});
    return true;
  }

  bool spaced_merge(std::string_view v) {
    const size_t space = v.find(' ');
    if (space == std::string_view::npos || v.find(' ', space + 1) != std::string_view::npos) {
      return fail(concat("model.merges[", document_.merges.size(), "]: '", v.substr(0, 80), "' is not two tokens with a space"));
    }
    const uint32_t begin = keep(v.substr(0, space));
    keep(v.substr(space + 1));
    document_.merges.push_back({begin, static_cast<uint32_t>(space), static_cast<uint32_t>(v.size() - space - 1)});
    return true;
  }

  bool half_merge(std::string_view v) {
    const uint32_t begin = keep(v);
    if (halves_ == 0) {
      left_begin_ = begin;
    } else if (halves_ == 1) {
      document_.merges.push_back({left_begin_, begin - left_begin_, static_cast<uint32_t>(v.size())});
    } else {
      return fail(concat("model.merges[", document_.merges.size() - 1, "]: more than two tokens"));
    }
    ++halves_;
    return true;
  }

  Document& document_;
  std::vector<json*> stack_;  // open objects and lists; a parent does not grow, hence not move, while a child is open
  const json* model_ = nullptr;
  std::string key_;
  List list_ = List::kNone;
  int halves_ = 0;
  uint32_t left_begin_ = 0;
  std::string error_;
};

}  // namespace

absl::StatusOr<Document> parse_document(std::string_view text) {
  if (text.size() > kMaxBytes) return absl::InvalidArgumentError(concat("tokenizer.json: ", text.size(), " bytes are too many"));
  Document document;
  Reader reader(document);
  const bool complete = json::sax_parse(text.data(), text.data() + text.size(), &reader);
  if (!complete || !reader.error().empty()) return absl::InvalidArgumentError(concat("tokenizer.json: ", reader.error()));
  if (!document.root.is_object()) return absl::InvalidArgumentError("tokenizer.json: not a JSON object");
  return document;
}

}  // namespace invar::tokenizer
