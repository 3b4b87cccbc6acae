#include "parallel/transport/peer_failure.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace invar::parallel {
namespace {

std::string message(const PeerFailure::Facts& f) {
  const char* end = "";
  switch (f.cause) {
    case PeerFailure::Cause::kTimeout:
      end = "gave up at the deadline";
      break;
    case PeerFailure::Cause::kInterrupted:
      end = "was interrupted";
      break;
    case PeerFailure::Cause::kSizeMismatch:
      end = "was sent another size than agreed";
      break;
    case PeerFailure::Cause::kLost:
      end = "lost the connection";
      break;
  }
  std::string text = absl::StrFormat("rank %d on %s waited %.1f s ", f.rank, f.host, f.waited_seconds);
  if (f.peer >= 0) absl::StrAppend(&text, "for rank ", f.peer, " ");
  absl::StrAppend(&text, "in ", f.phase);
  if (f.collective > 0) absl::StrAppend(&text, " (collective ", f.collective, ")");
  absl::StrAppend(&text, " and ", end);
  if (f.peer >= 0) absl::StrAppend(&text, f.sending ? ": to take " : ": expected ", f.expected, " bytes, got ", f.got);
  if (!f.detail.empty()) absl::StrAppend(&text, "; ", f.detail);
  return text;
}

}  // namespace

PeerFailure::PeerFailure(Facts facts) : std::runtime_error(message(facts)), facts_(std::move(facts)) {}

}  // namespace invar::parallel
