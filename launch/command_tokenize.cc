// invar tokenize: JSON strings, one a line, to JSON lists of ids, one a line; --decode goes back.
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "launch/commands.h"
#include "runtime/tokenizer/tokenizer.h"

namespace invar::launch {
namespace {

struct Flags {
  std::string model;
  bool decode = false;
  bool special = false;
  bool skip_special = false;
};

absl::StatusOr<nlohmann::json> convert(const Tokenizer& tokenizer, const Flags& flags, const nlohmann::json& in) {
  if (!flags.decode) {
    if (!in.is_string()) return absl::InvalidArgumentError("a JSON string is wanted");
    auto ids = tokenizer.encode(in.get_ref<const std::string&>(), flags.special);
    if (!ids.ok()) return ids.status();
    return nlohmann::json(*ids);
  }
  if (!in.is_array()) return absl::InvalidArgumentError("a JSON list of token ids is wanted");
  std::vector<int32_t> ids;
  for (const auto& id : in) {
    if (!id.is_number_integer()) return absl::InvalidArgumentError(absl::StrCat("not a token id: ", id.dump()));
    ids.push_back(id.get<int32_t>());
  }
  auto text = tokenizer.decode_checked(ids, flags.skip_special);
  if (!text.ok()) return text.status();
  return nlohmann::json(*text);
}

int tokenize(const Flags& flags) {
  auto tokenizer = Tokenizer::load(flags.model);
  if (!tokenizer.ok()) return fail("tokenize", tokenizer.status());
  std::string line;
  for (int number = 1; std::getline(std::cin, line); ++number) {
    if (line.empty()) continue;
    const auto in = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    auto out = in.is_discarded() ? absl::StatusOr<nlohmann::json>(absl::InvalidArgumentError("not JSON"))
                                 : convert(**tokenizer, flags, in);
    if (!out.ok())
      return fail("tokenize", absl::Status(out.status().code(), absl::StrCat("line ", number, ": ", out.status().message())));
    std::cout << out->dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) << std::endl;
  }
  return 0;
}

}  // namespace

void add_tokenize(CLI::App& program, Commands& commands) {
  auto flags = std::make_shared<Flags>();
  CLI::App* app = program.add_subcommand("tokenize", "text to token ids and back, line by line");
  app->add_option("MODEL", flags->model, "folder with tokenizer.json")->required();
  app->add_flag("--decode,-d", flags->decode, "JSON lists of ids in, JSON strings out");
  app->add_flag("--add-special-tokens", flags->special,
                "add what the model wants around a prompt, e.g. the beginning-of-sequence token");
  app->add_flag("--skip-special-tokens", flags->skip_special, "with --decode: leave special tokens out of the text");
  app->footer(
      "Examples:\n"
      "  echo '\"once upon a time\"' | invar tokenize FOLDER\n"
      "  echo '[516, 453, 261, 437]' | invar tokenize FOLDER --decode");
  commands[app] = [flags] { return tokenize(*flags); };
}

}  // namespace invar::launch
