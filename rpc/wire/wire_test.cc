#include <gmock/gmock.h>
#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

#include "rpc/wire/delta_merge.h"
#include "rpc/wire/listen.h"
#include "rpc/wire/status.h"

namespace invar::rpc {
namespace {

using google::protobuf::util::MessageDifferencer;

TEST(Status, CodesAndMessagesGoBothWays) {
  for (int code = 0; code <= 16; ++code) {
    const absl::Status status(static_cast<absl::StatusCode>(code), code == 0 ? "" : "top_p: 7 is not in (0, 1]");
    EXPECT_EQ(static_cast<int>(to_grpc(status).error_code()), code);
    EXPECT_EQ(from_grpc(to_grpc(status)), status);
  }
  EXPECT_EQ(from_grpc(grpc::Status(grpc::StatusCode::NOT_FOUND, "x"), "server a:1"), absl::NotFoundError("server a:1: x"));
  EXPECT_TRUE(from_grpc(grpc::Status::OK, "server a:1").ok());
}

TEST(Status, LongMessagesAreCutToWhatTrailersCarry) {
  const grpc::Status status = to_grpc(absl::InvalidArgumentError(std::string(100000, 'x')));
  EXPECT_LE(status.error_message().size(), 4096u);
  EXPECT_THAT(status.error_message(), ::testing::EndsWith("x..."));
}

v1::ChoiceDelta delta(uint32_t index, const std::string& text, int32_t token) {
  v1::ChoiceDelta out;
  out.set_index(index);
  out.set_text(text);
  out.add_token_ids(token);
  out.add_logits_hashes(static_cast<uint64_t>(token) << 40);
  out.add_draws(-token);
  v1::TokenLogprobs& logprobs = *out.add_logprobs();
  logprobs.mutable_chosen()->set_token_id(token);
  logprobs.add_top()->set_token_id(token + 1);
  return out;
}

TEST(DeltaMerge, EqualsConcatenation) {
  v1::GenerateResponse waiting, next;
  waiting.set_request_id("r");
  waiting.add_prompt_logprobs()->mutable_chosen()->set_token_id(5);
  *waiting.add_choices() = delta(1, "He", 10);
  next.set_request_id("r");
  *next.add_choices() = delta(0, "a", 20);
  *next.add_choices() = delta(1, "llo", 11);
  next.mutable_choices(1)->set_finish_reason(v1::FINISH_REASON_STOP);
  next.mutable_choices(1)->set_stop_reason("</s>");
  next.mutable_choices(1)->set_response_digest("abc");
  next.mutable_choices(1)->mutable_receipt()->add_output_token_ids(10);
  next.mutable_choices(1)->mutable_receipt()->add_output_token_ids(11);
  merge_response(next, waiting);

  v1::GenerateResponse last;
  *last.add_choices() = delta(0, "", 21);
  last.mutable_choices(0)->set_finish_reason(v1::FINISH_REASON_LENGTH);
  last.mutable_choices(0)->set_violation(3);
  last.mutable_usage()->set_completion_tokens(4);
  last.mutable_usage()->set_prompt_tokens(2);
  last.set_finished(true);
  merge_response(last, waiting);

  v1::GenerateResponse expected;
  expected.set_request_id("r");
  expected.add_prompt_logprobs()->mutable_chosen()->set_token_id(5);
  v1::ChoiceDelta& one = *expected.add_choices() = delta(1, "Hello", 10);
  one.add_token_ids(11);
  one.add_logits_hashes(uint64_t{11} << 40);
  one.add_draws(-11);
  *one.add_logprobs() = delta(1, "", 11).logprobs(0);
  one.set_finish_reason(v1::FINISH_REASON_STOP);
  one.set_stop_reason("</s>");
  one.set_response_digest("abc");
  *one.mutable_receipt() = next.choices(1).receipt();
  v1::ChoiceDelta& zero = *expected.add_choices() = delta(0, "a", 20);
  zero.add_token_ids(21);
  zero.add_logits_hashes(uint64_t{21} << 40);
  zero.add_draws(-21);
  *zero.add_logprobs() = delta(0, "", 21).logprobs(0);
  zero.set_finish_reason(v1::FINISH_REASON_LENGTH);
  zero.set_violation(3);
  expected.mutable_usage()->set_completion_tokens(4);
  expected.mutable_usage()->set_prompt_tokens(2);
  expected.set_finished(true);
  EXPECT_TRUE(MessageDifferencer::Equals(waiting, expected)) << waiting.DebugString() << "expected\n" << expected.DebugString();
}

// A field added to these messages later must be thought of here: a merge that forgot it would lose it for slow readers only.
TEST(DeltaMerge, KnowsEveryField) {
  EXPECT_EQ(v1::GenerateResponse::descriptor()->field_count(), 5);
  EXPECT_EQ(v1::ChoiceDelta::descriptor()->field_count(), 11);
}

TEST(Address, Forms) {
  for (const char* good : {"0.0.0.0:0", "host.example:65535", "[::]:80", "[::1]:50051", "unix:/run/a.sock"}) {
    EXPECT_TRUE(check_address(good, "listen address").ok()) << good;
  }
  for (const char* bad : {"", "host", ":80", "host:70000", "host:-1", "host:x", "host:", "::1:80", "unix:"}) {
    const absl::Status status = check_address(bad, "listen address");
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << bad;
    EXPECT_THAT(std::string(status.message()), ::testing::StartsWith("listen address \"")) << bad;
  }
}

}  // namespace
}  // namespace invar::rpc
