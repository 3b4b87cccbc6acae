// One way of running the same requests: layout, company, order, chunks, cache, pages, arithmetic path. Tests vary it and compare
// answers bit for bit.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/engine/engine.h"
#include "runtime/worker/local_executor.h"

namespace invar::tests {

// Where the ranks of every arrangement run: the CPU, or with `--device=cuda` on a test program's command line the GPUs that there
// are, by turns; where there is one, a case's ranks share it. The answers must be the same.
Backend& backend();
// --exchange=peer|host beside it: how GPU memory moves; else as `auto` has it.
Exchange& exchange();
// Takes both out of the arguments. Returns false, with a message on stderr, if it cannot be used.
bool take_device_flag(int* argc, char** argv);

struct Arrangement {
  std::string name = "one rank";
  std::optional<Backend> on;  // whatever --device says
  parallel::Layout layout;
  Profile profile = Profile::kPortable;
  Isa isa = detect_isa();
  ControlArm arm = ControlArm::kNone;
  int threads = 1;
  int64_t page_size = 16;
  int64_t pages = 512;  // per home
  int64_t max_num_seqs = 64;
  int64_t max_num_batched_tokens = 2048;
  int64_t long_prefill_token_threshold = 0;
  bool prefix_caching = true;
  int plans_in_flight = 2;
  int company = 0;          // other requests with random prompts, submitted in between
  int cancelled = 0;        // of the company, aborted while running
  uint64_t order = 0;       // 0 = as given; otherwise the requests are shuffled with this seed
  bool one_by_one = false;  // each request alone, in order
  enum class Warm { kCold, kPartial, kHot } warm = Warm::kCold;  // what the prefix cache holds beforehand
  uint64_t delay_seed = 0;                                       // 0 = none; otherwise random delays before every message
  std::string trace;                                             // --trace
};
std::ostream& operator<<(std::ostream& out, const Arrangement& a);

// What a client can see of an answer, bits included.
struct Answer {
  std::vector<int32_t> tokens;
  std::vector<int32_t> draws;  // with forced tokens
  std::vector<uint64_t> logits_hashes;
  std::vector<uint32_t> logprob_bits;
  std::string text;
  std::string digest;
  int finish_reason = 0;
  bool operator==(const Answer&) const = default;
};
std::ostream& operator<<(std::ostream& out, const Answer& a);
using Answers = std::map<std::string, Answer>;  // "request/choice"

struct Outcome {
  Answers answers;
  EngineStats stats;
};

// A model loaded once for many runs.
class Model {
 public:
  // A folder below configs/models, or an absolute path. Aborts the test program when it cannot be read.
  static const Model& get(const std::string& name_or_path);
  // Seeded random weights for a config.json text; no tokenizer.
  static std::unique_ptr<Model> dummy(const std::string& config_json);
  const LoadedModel& loaded() const { return *loaded_; }
  const std::string& digest() const { return digest_; }
  const std::shared_ptr<const Tokenizer>& tokenizer() const { return tokenizer_; }

 private:
  std::unique_ptr<LoadedModel> loaded_;
  std::string digest_;
  std::shared_ptr<const Tokenizer> tokenizer_;
};
// ../shared/models/stories260K/hf when the material is there.
std::filesystem::path shared_material();
bool has_shared_material();

// Starts engine and ranks, asks, stops. Throws std::runtime_error when the engine does not start or a request fails.
Outcome ask(const Model& model, const Arrangement& arrangement, const std::vector<v1::GenerateRequest>& requests);

// Requests of many lengths and kinds for a model of this vocabulary: greedy and seeded, n = 2, penalties, log-probabilities.
// Prompts are of token ids, the longest of `longest` tokens; pure function of the arguments.
std::vector<v1::GenerateRequest> mixed_requests(int64_t vocab_size, int64_t longest, uint64_t seed = 1);

}  // namespace invar::tests
