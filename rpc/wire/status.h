// absl::Status and grpc::Status have the same codes; this is the one place that turns one into the other.
#pragma once

#include <grpcpp/support/status.h>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace invar::rpc {

// Messages travel as HTTP/2 trailers, which peers bound at 8 KiB in all: longer ones are cut and end in "...".
grpc::Status to_grpc(const absl::Status& status);
// `who` ("server 10.0.0.1:50051") is put before the message of an error; empty = nothing is.
absl::Status from_grpc(const grpc::Status& status, absl::string_view who = "");

}  // namespace invar::rpc
