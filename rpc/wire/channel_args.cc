#include "rpc/wire/channel_args.h"

#include <algorithm>
#include <limits>

namespace invar::rpc {
namespace {
int to_int(int64_t value) { return static_cast<int>(std::min<int64_t>(value, std::numeric_limits<int>::max())); }
}  // namespace

grpc::ChannelArguments client_args(std::chrono::milliseconds dead_after, int64_t max_message_bytes) {
  grpc::ChannelArguments args;
  const int half = to_int(std::max<int64_t>(dead_after.count() / 2, 100));
  args.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, half);
  args.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, half);
  args.SetInt(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 0);
  args.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  args.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  args.SetInt(GRPC_ARG_SERVICE_CONFIG_DISABLE_RESOLUTION, 1);
  args.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  args.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  args.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  args.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 5000);
  args.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 2000);
  args.SetMaxReceiveMessageSize(to_int(max_message_bytes));
  args.SetMaxSendMessageSize(-1);
  return args;
}

void set_server_args(grpc::ServerBuilder& builder, std::chrono::milliseconds dead_after, int64_t max_receive_bytes) {
  if (dead_after.count() > 0) {
    const int half = to_int(std::max<int64_t>(dead_after.count() / 2, 100));
    builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, half);
    builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, half);
    builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 0);
    builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  }
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 50);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PING_STRIKES, 0);
  builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, 16 << 10);
  builder.SetMaxReceiveMessageSize(to_int(max_receive_bytes));
  builder.SetMaxSendMessageSize(-1);
}

}  // namespace invar::rpc
