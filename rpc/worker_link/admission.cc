#include "rpc/worker_link/admission.h"

#include <limits>
#include <set>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace invar::rpc {
namespace {

constexpr size_t kMaxText = 256;

// What a worker calls itself goes into messages and logs.
std::string shown(const std::string& text) { return absl::CHexEscape(text.substr(0, kMaxText)); }

std::string rank_name(const v1::RankInfo& rank) { return absl::StrCat("rank ", rank.rank(), " on host ", shown(rank.host())); }

// Compares one field of every rank; the message names the first rank that differs and counts the others.
absl::Status check_ranks(const v1::Hello& hello, const char* field, const std::string& expected,
                         const std::string& (v1::RankInfo::*get)() const) {
  const v1::RankInfo* first = nullptr;
  int differing = 0;
  // A replica whose ranks differ among themselves is refused even where the coordinator takes any value.
  const std::string& wanted = expected.empty() ? (hello.ranks(0).*get)() : expected;
  for (const v1::RankInfo& rank : hello.ranks()) {
    if ((rank.*get)() == wanted) continue;
    if (differing++ == 0) first = &rank;
  }
  if (differing == 0) return absl::OkStatus();
  std::string message = absl::StrCat(rank_name(*first), ": ", field, " ", shown((first->*get)()), ", expected ", shown(wanted));
  if (differing > 1) absl::StrAppend(&message, " (and ", differing - 1, " more ranks)");
  return absl::FailedPreconditionError(message);
}

absl::Status check_shape(const v1::Hello& hello) {
  const v1::Layout& layout = hello.layout();
  const uint64_t per_replica = uint64_t{layout.tensor_parallel()} * layout.pipeline_parallel() * layout.expert_parallel();
  if (static_cast<uint64_t>(hello.ranks_size()) != per_replica) {
    return absl::InvalidArgumentError(absl::StrCat("replica ", hello.replica(), ": ", hello.ranks_size(), " ranks named, layout ",
                                                   layout_name(layout), " has ", per_replica));
  }
  std::set<uint32_t> numbers;
  for (const v1::RankInfo& rank : hello.ranks()) {
    if (!numbers.insert(rank.rank()).second) {
      return absl::InvalidArgumentError(absl::StrCat("replica ", hello.replica(), ": rank ", rank.rank(), " is named twice"));
    }
    for (const std::string* text : {&rank.host(), &rank.device(), &rank.numerics_id(), &rank.model_digest(), &rank.build_id()}) {
      if (text->size() > kMaxText) {
        return absl::InvalidArgumentError(
            absl::StrCat(rank_name(rank), ": a text of ", text->size(), " bytes, limit ", kMaxText));
      }
    }
  }
  return absl::OkStatus();
}

absl::Status check_capacity(const v1::Hello& hello) {
  const v1::Capacity& capacity = hello.capacity();
  const auto bad = [&](const char* field, uint64_t value, const std::string& wanted) {
    return absl::InvalidArgumentError(absl::StrCat("replica ", hello.replica(), ": ", field, " ", value, ", expected ", wanted));
  };
  constexpr uint64_t kInt32 = std::numeric_limits<int32_t>::max();
  if (capacity.homes() != hello.layout().expert_parallel()) {
    return bad("homes", capacity.homes(), absl::StrCat(hello.layout().expert_parallel(), " (expert_parallel)"));
  }
  if (capacity.pages_per_home() < 1 || capacity.pages_per_home() > kInt32) {
    return bad("pages_per_home", capacity.pages_per_home(), "1 .. 2^31 - 1");
  }
  if (capacity.page_size() < 1 || capacity.page_size() > 65536) return bad("page_size", capacity.page_size(), "1 .. 65536");
  if (capacity.max_positions() < 1 || capacity.max_positions() > kInt32) {
    return bad("max_positions", capacity.max_positions(), "1 .. 2^31 - 1");
  }
  if (capacity.vocab_size() < 1 || capacity.vocab_size() > kInt32)
    return bad("vocab_size", capacity.vocab_size(), "1 .. 2^31 - 1");
  if (capacity.layout().size() > kMaxText)
    return bad("length of layout", capacity.layout().size(), absl::StrCat("<= ", kMaxText));
  return absl::OkStatus();
}

}  // namespace

std::string layout_name(const v1::Layout& layout) {
  return absl::StrCat("tp", layout.tensor_parallel(), " pp", layout.pipeline_parallel(), " ep", layout.expert_parallel(), " dp",
                      layout.data_parallel());
}

absl::Status check_hello(const v1::Hello& hello, const Expected& expected, Mismatch* mismatch) {
  const auto because = [&](Mismatch what) {
    if (mismatch != nullptr) *mismatch = what;
  };
  if (hello.ranks().empty()) return absl::InvalidArgumentError(absl::StrCat("replica ", hello.replica(), ": no ranks named"));
  // The build goes first: with another build the rest of the message may mean something else.
  absl::Status status = check_ranks(hello, "build", expected.build_id, &v1::RankInfo::build_id);
  if (!status.ok()) {
    because(Mismatch::kBuild);
    return status;
  }
  if (const std::string name = parallel::to_string(expected.layout); layout_name(hello.layout()) != name) {
    return absl::FailedPreconditionError(absl::StrCat("replica ", hello.replica(), " (", rank_name(hello.ranks(0)), "): layout ",
                                                      layout_name(hello.layout()), ", expected ", name));
  }
  if (hello.replica() >= static_cast<uint32_t>(expected.layout.dp)) {
    return absl::FailedPreconditionError(absl::StrCat("replica ", hello.replica(), " (", rank_name(hello.ranks(0)),
                                                      "): replica index out of range, expected 0 .. ", expected.layout.dp - 1));
  }
  if (status = check_shape(hello); !status.ok()) return status;
  if (status = check_ranks(hello, "model digest", expected.model_digest, &v1::RankInfo::model_digest); !status.ok()) {
    because(Mismatch::kModelDigest);
    return status;
  }
  if (status = check_ranks(hello, "numerics id", expected.numerics_id, &v1::RankInfo::numerics_id); !status.ok()) {
    because(Mismatch::kNumericsId);
    return status;
  }
  return check_capacity(hello);
}

ReplicaFacts to_facts(const v1::Hello& hello) {
  const v1::Capacity& capacity = hello.capacity();
  ReplicaFacts facts;
  facts.homes = static_cast<int>(capacity.homes());
  facts.pages_per_home = static_cast<int64_t>(capacity.pages_per_home());
  facts.page_size = capacity.page_size();
  facts.max_positions = static_cast<int64_t>(capacity.max_positions());
  facts.vocab_size = capacity.vocab_size();
  facts.numerics_id = hello.ranks(0).numerics_id();
  facts.model_digest = hello.ranks(0).model_digest();
  facts.layout = capacity.layout();
  facts.ranks = hello.ranks_size();
  return facts;
}

}  // namespace invar::rpc
