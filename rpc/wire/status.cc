#include "rpc/wire/status.h"

#include "absl/strings/str_cat.h"

namespace invar::rpc {
namespace {
constexpr size_t kMaxMessage = 2048;  // percent encoding may triple it
}

grpc::Status to_grpc(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  std::string message(status.message());
  if (message.size() > kMaxMessage) {
    message.resize(kMaxMessage - 3);
    message += "...";
  }
  return grpc::Status(static_cast<grpc::StatusCode>(status.raw_code()), message);
}

absl::Status from_grpc(const grpc::Status& status, absl::string_view who) {
  if (status.ok()) return absl::OkStatus();
  const std::string& message = status.error_message();
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()),
                      who.empty() ? message : absl::StrCat(who, ": ", message));
}

}  // namespace invar::rpc
