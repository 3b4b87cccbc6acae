#include "runtime/model_config/strict_json.h"

#include <unordered_set>
#include <vector>

#include "absl/strings/escaping.h"
#include "runtime/model_config/message.h"

namespace invar {
namespace {

constexpr size_t kShown = 96;

// Walks the text once without building anything, so that depth and repeats are known before a tree exists.
class Checker : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit Checker(int max_depth) : max_depth_(max_depth) {}
  const absl::Status& status() const { return status_; }

  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }
  bool start_object(size_t) override {
    keys_.emplace_back();
    return deeper();
  }
  bool end_object() override {
    keys_.pop_back();
    --depth_;
    return true;
  }
  bool start_array(size_t) override { return deeper(); }
  bool end_array() override {
    --depth_;
    return true;
  }
  bool key(string_t& name) override {
    if (keys_.back().insert(name).second) return true;
    return fail(message("the key ", show_text(name), " is given twice"));
  }
  bool parse_error(size_t position, const std::string&, const nlohmann::json::exception& error) override {
    // 101 is a syntax error; 406 a number that no double holds.
    if (error.id == 406) return fail(message("a number near byte ", position, " is too large"));
    return fail(message("not valid JSON at byte ", position));
  }

 private:
  bool deeper() { return ++depth_ <= max_depth_ || fail(message("JSON nested deeper than ", max_depth_, " levels")); }
  bool fail(std::string message) {
    if (status_.ok()) status_ = absl::InvalidArgumentError(message);
    return false;
  }

  int max_depth_;
  int depth_ = 0;
  std::vector<std::unordered_set<std::string>> keys_;
  absl::Status status_;
};

}  // namespace

absl::StatusOr<nlohmann::json> parse_strict_json(std::string_view text, int max_depth) {
  Checker checker(max_depth);
  if (!nlohmann::json::sax_parse(text.begin(), text.end(), &checker)) {
    return checker.status().ok() ? absl::InvalidArgumentError("not valid JSON") : checker.status();
  }
  return nlohmann::json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
}

std::string show_json(const nlohmann::json& value) {
  std::string text = value.dump(-1, ' ', /*ensure_ascii=*/true, nlohmann::json::error_handler_t::replace);
  if (text.size() > kShown) text = message(text.substr(0, kShown), "...");
  return text;
}

std::string show_text(std::string_view text) {
  return message("\"", absl::CHexEscape(std::string(text.substr(0, kShown))), text.size() > kShown ? "...\"" : "\"");
}

}  // namespace invar
