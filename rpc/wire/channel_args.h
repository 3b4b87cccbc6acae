// Channel settings of both ends.
#pragma once

#include <grpcpp/server_builder.h>
#include <grpcpp/support/channel_arguments.h>

#include <chrono>
#include <cstdint>

namespace invar::rpc {

// A dead peer (host down, cable cut, process stopped) is noticed within about `dead_after`: HTTP/2 pings go out after half of it
// without traffic, and an answer is waited for the other half. Proxies, DNS service configs and shared connections are off: the
// environment must not decide where bytes go.
grpc::ChannelArguments client_args(std::chrono::milliseconds dead_after, int64_t max_message_bytes);

// The server's half. Without it gRPC answers a client that pings more often than every five minutes with "too many pings".
// `dead_after` 0: the server itself sends no pings.
void set_server_args(grpc::ServerBuilder& builder, std::chrono::milliseconds dead_after, int64_t max_receive_bytes);

}  // namespace invar::rpc
