// invar verify: recompute receipts with one teacher-forced prefill each, on any layout, and say whether they hold.
#include <google/protobuf/util/json_util.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "launch/commands.h"
#include "launch/local_engine.h"
#include "runtime/receipt/receipt.h"

namespace invar::launch {
namespace {

struct Flags {
  RankFlags ranks;
  EngineFlags engine;
  std::vector<std::string> files;
};

struct Claim {
  std::string where;  // "answer.jsonl:3 choice 0"
  v1::Receipt receipt;
};

// A file holds receipts, or answers that carry some (of `invar generate`, `invar complete --json` or HTTP); one JSON value, or
// one a line.
absl::Status read_claims(const std::string& file, std::vector<Claim>& claims) {
  std::ifstream in(file);
  if (!in) return absl::NotFoundError(absl::StrCat(file, ": cannot be read"));
  const std::string text((std::istreambuf_iterator<char>(in)), {});
  std::vector<std::pair<std::string, nlohmann::json>> values;
  if (auto whole = nlohmann::json::parse(text, nullptr, false); !whole.is_discarded()) {
    values.emplace_back(file, std::move(whole));
  } else {
    size_t begin = 0;
    for (int number = 1; begin < text.size(); ++number) {
      const size_t end = std::min(text.find('\n', begin), text.size());
      const std::string line = text.substr(begin, end - begin);
      begin = end + 1;
      if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
      auto value = nlohmann::json::parse(line, nullptr, false);
      if (value.is_discarded()) return absl::InvalidArgumentError(absl::StrCat(file, ":", number, ": not JSON"));
      values.emplace_back(absl::StrCat(file, ":", number), std::move(value));
    }
  }
  for (const auto& [where, value] : values) {
    const auto add = [&](const std::string& name, const nlohmann::json& receipt) -> absl::Status {
      auto parsed = receipt_from_json(receipt.dump());
      if (!parsed.ok()) return absl::InvalidArgumentError(absl::StrCat(name, ": ", parsed.status().message()));
      claims.push_back({name, *std::move(parsed)});
      return absl::OkStatus();
    };
    if (!value.is_object()) return absl::InvalidArgumentError(absl::StrCat(where, ": neither a receipt nor an answer"));
    if (value.contains("invar") && value["invar"].is_object()) {  // an answer over HTTP
      const auto& proof = value["invar"];
      const auto several = proof.contains("choices") ? proof["choices"] : nlohmann::json::array({proof});
      for (const auto& choice : several) {
        if (!choice.is_object() || !choice.contains("receipt"))
          return absl::InvalidArgumentError(
              absl::StrCat(where, ": an answer without a receipt; ask for one (\"invar\": {\"receipt\": true})"));
        const absl::Status added = add(absl::StrCat(where, " choice ", choice.value("index", 0)), choice["receipt"]);
        if (!added.ok()) return added;
      }
      continue;
    }
    if (!value.contains("choices")) {
      const absl::Status added = add(where, value);
      if (!added.ok()) return added;
      continue;
    }
    for (const auto& choice : value["choices"]) {
      if (!choice.is_object() || !choice.contains("receipt"))
        return absl::InvalidArgumentError(
            absl::StrCat(where, ": an answer without a receipt; ask for one (generate --receipts)"));
      const absl::Status added = add(absl::StrCat(where, " choice ", choice.value("index", 0)), choice["receipt"]);
      if (!added.ok()) return added;
    }
  }
  return absl::OkStatus();
}

v1::GenerateRequest replay_of(const v1::Receipt& receipt, size_t number) {
  v1::GenerateRequest r;
  r.set_request_id(absl::StrCat("receipt-", number));
  *r.mutable_prompt_token_ids()->mutable_ids() = receipt.prompt_token_ids();
  *r.mutable_sampling_params() = receipt.sampling_params();
  *r.mutable_forced_token_ids()->mutable_ids() = receipt.output_token_ids();
  r.set_forced_choice(receipt.choice());
  return r;
}

// A folder stands for its .json and .jsonl files, those of folders inside too, by name.
absl::StatusOr<std::vector<std::string>> files_of(const std::vector<std::string>& named) {
  namespace fs = std::filesystem;
  std::vector<std::string> files;
  for (const std::string& name : named) {
    std::error_code error;
    if (!fs::is_directory(name, error)) {
      files.push_back(name);
      continue;
    }
    const size_t before = files.size();
    for (fs::recursive_directory_iterator at(name, error), end; !error && at != end; at.increment(error))
      if (at->is_regular_file(error) && (at->path().extension() == ".json" || at->path().extension() == ".jsonl"))
        files.push_back(at->path().string());
    if (error) return absl::UnavailableError(absl::StrCat(name, ": ", error.message()));
    if (files.size() == before) return absl::NotFoundError(absl::StrCat(name, ": no .json or .jsonl file in this folder"));
    std::sort(files.begin() + static_cast<std::ptrdiff_t>(before), files.end());
  }
  return files;
}

int verify(const Flags& flags) {
  std::vector<Claim> claims;
  const auto files = files_of(flags.files);
  if (!files.ok()) return fail("verify", files.status());
  for (const std::string& file : *files) {
    const absl::Status read = read_claims(file, claims);
    if (!read.ok()) return fail("verify", read);
  }
  if (claims.empty())  // "all equal" would be a lie
    return fail("verify", absl::InvalidArgumentError(absl::StrCat(absl::StrJoin(flags.files, ", "), ": no receipt")));
  auto local = start_local_engine(flags.ranks, flags.engine);
  if (!local.ok()) return fail("verify", local.status());
  const ReplicaFacts& facts = local->engine->facts();
  std::printf("recomputing %zu receipt%s on %s, %s\n", claims.size(), claims.size() == 1 ? "" : "s", facts.layout.c_str(),
              facts.numerics_id.c_str());
  std::vector<v1::GenerateRequest> requests;
  for (size_t i = 0; i < claims.size(); ++i) requests.push_back(replay_of(claims[i].receipt, i));
  const auto answers = run_all(*local->engine, requests);
  int differ = 0;
  for (size_t i = 0; i < claims.size(); ++i) {
    const v1::Receipt& receipt = claims[i].receipt;
    if (const absl::Status sound = check_receipt(receipt); !sound.ok()) {
      std::printf("%s: NOT EQUAL: %s\n", claims[i].where.c_str(), std::string(sound.message()).c_str());
      ++differ;
      // A receipt that contradicts itself may still say where: go on and compare what can be compared.
    }
    if (!answers[i].ok()) {
      std::printf("%s: cannot be recomputed: %s\n", claims[i].where.c_str(), std::string(answers[i].status().message()).c_str());
      ++differ;
      continue;
    }
    const v1::ChoiceDelta& choice = answers[i]->choices(0);  // the only one that was asked for
    const std::vector<int32_t> draws(choice.draws().begin(), choice.draws().end());
    const std::vector<uint64_t> hashes(choice.logits_hashes().begin(), choice.logits_hashes().end());
    const ReceiptVerdict verdict = compare_receipt(
        receipt, {.numerics_id = facts.numerics_id, .model_digest = facts.model_digest, .draws = draws, .logits_hashes = hashes});
    if (verdict.equal()) {
      std::printf("%s: equal (%d tokens, digest %s)\n", claims[i].where.c_str(), receipt.output_token_ids_size(),
                  receipt.response_digest().substr(0, 16).c_str());
    } else {
      std::printf("%s: NOT EQUAL: %s\n", claims[i].where.c_str(), verdict.message.c_str());
      if (choice.has_violation())
        std::printf("%s: the constraint of the request does not allow the token at output position %u\n", claims[i].where.c_str(),
                    choice.violation());
      ++differ;
    }
  }
  return differ == 0 ? 0 : kExitDifferent;
}

}  // namespace

void add_verify(CLI::App& program, Commands& commands) {
  auto flags = std::make_shared<Flags>();
  CLI::App* app = program.add_subcommand("verify", "recompute receipts on any layout: equal, or the first position that differs");
  app->add_option("RECEIPT", flags->files,
                  "files with receipts, or with answers that carry them; or folders of such .json and .jsonl files")
      ->required()
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  add_flags(*app, flags->ranks);
  add_flags(*app, flags->engine);
  app->footer(
      "Exit code 0: all equal; 3: one is not. The layout need not be the one that answered.\n"
      "Example:\n  invar generate --receipts -p 'call me' --tp 4 > a.jsonl && invar verify a.jsonl --tp 1");
  commands[app] = [flags] { return verify(*flags); };
}

}  // namespace invar::launch
