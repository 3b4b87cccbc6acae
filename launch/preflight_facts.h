// What a rank's machine has, as `invar preflight` prints and compares it. Gathering is local; comparing is pure.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "launch/flags.h"
#include "launch/security_flags.h"
#include "parallel/grid/grid.h"

namespace invar::launch {

// One rank. Texts that begin with "error: " are what went wrong.
struct RankFacts {
  int rank = 0, local_rank = 0, pid = 0;
  std::string host;
  int cores = 0;             // this process may use
  double memory_gib = 0;     // that can be used now
  std::string isa;           // the widest vector path
  std::string device;        // "cpu avx512, 2 threads", "cuda:0 NVIDIA H100 80GB HBM3"; opening a GPU tests its arithmetic
  std::string driver, nccl;  // empty where there is none
  std::string numerics_id;   // from values that this machine computed
  std::string build_id;
  std::string model;        // fingerprint of the files, or with --full the digest of the contents
  int64_t memlock_kib = 0;  // -1 = unlimited
  int64_t nofile = 0;
  std::vector<std::string> interfaces;  // "eth0 10.0.0.2", up and not loopback
  std::string coordinator;              // of leaders: "reached", an error; empty = not tried
  double clock_offset = 0;              // seconds ahead of rank 0; filled in later
};
void to_json(nlohmann::json& j, const RankFacts& f);
void from_json(const nlohmann::json& j, RankFacts& f);

struct FactsOptions {
  const RankFlags* ranks = nullptr;
  const LinkTlsFlags* tls = nullptr;
  std::string coordinator;  // empty = not tried
  bool full = false;        // hash the weights themselves
  int local_size = 1;
  std::chrono::milliseconds wait{5000};
};
// Of this process; `at` has rank, local_rank and host already. Never fails: errors are facts.
RankFacts gather_facts(RankFacts at, const FactsOptions& options);

// SHA-256 over config, tokenizer and, of each safetensors file, name, size and header: another model, another version, a download
// that stopped. Bytes of weights are not read. A text that begins with "error: " when the model cannot be opened.
std::string model_fingerprint(const ModelFlags& flags, bool full);

std::vector<std::string> interfaces();

struct Finding {
  bool fatal = false;
  std::string text;  // names rank and host
  bool operator==(const Finding&) const = default;
};
// What would keep these ranks from working together (fatal), or slow them down. `facts` in rank order.
std::vector<Finding> compare(const std::vector<RankFacts>& facts, const parallel::Layout& layout);

}  // namespace invar::launch
