#include "parallel/transport/transport.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <functional>
#include <thread>

namespace invar::parallel {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

std::vector<std::byte> pattern(size_t bytes, int seed) {
  std::vector<std::byte> out(bytes);
  for (size_t i = 0; i < bytes; ++i) out[i] = static_cast<std::byte>((i * 131 + i / 251 + seed * 17) & 255);
  return out;
}

void on_ranks(std::vector<std::unique_ptr<Transport>>& transports, const std::function<void(Transport&)>& f) {
  std::vector<std::thread> threads;
  for (auto& t : transports) threads.emplace_back([&] { f(*t); });
  for (std::thread& t : threads) t.join();
}

TEST(ThreadsTransport, FifoPerPeerAndTagWithAndWithoutDelays) {
  for (const bool slow : {false, true}) {
    auto transports = start_threads(3);
    if (slow)
      for (auto& t : transports) t = delayed(std::move(t), {.seed = 5, .most = 300us});
    on_ranks(transports, [](Transport& t) {
      for (int round = 0; round < 50; ++round) {
        const int tag = round % 2;
        std::vector<std::vector<std::byte>> out, in;
        std::vector<Send> sends;
        std::vector<Receive> receives;
        out.reserve(64);
        in.reserve(64);
        for (int peer = 0; peer < 3; ++peer)  // oneself too
          for (int i = 0; i < 4; ++i) {
            const size_t bytes = i == 2 ? 0 : 100 + i * 20000;  // owned, lent and empty parcels
            sends.push_back({peer, out.emplace_back(pattern(bytes, t.rank() * 10 + i + round))});
            receives.push_back({peer, in.emplace_back(bytes)});
          }
        t.exchange(sends, receives, {"test", tag});
        for (int peer = 0, k = 0; peer < 3; ++peer)
          for (int i = 0; i < 4; ++i, ++k) ASSERT_EQ(in[k], pattern(in[k].size(), peer * 10 + i + round)) << peer << " " << i;
      }
    });
  }
}

TEST(ThreadsTransport, GroupsOfOneLaunchShareTheHost) {
  const auto first = start_threads(2, {.local_others = 2}), second = start_threads(2, {.local_before = 2, .local_others = 2});
  EXPECT_EQ(first[1]->local_rank(), 1);
  EXPECT_EQ(second[0]->local_rank(), 2);
  EXPECT_EQ(second[1]->rank(), 1);
  EXPECT_EQ(second[1]->local_size(), 4);
}

TEST(ThreadsTransport, TagsAreSeparateStreams) {
  auto transports = start_threads(2);
  const auto a = pattern(10, 1), b = pattern(10, 2);
  const Send send_a{1, a}, send_b{1, b};
  transports[0]->exchange({&send_a, 1}, {}, {"a", 1});  // small parcels do not wait for their receiver
  transports[0]->exchange({&send_b, 1}, {}, {"b", 2});
  std::vector<std::byte> got_a(10), got_b(10);
  const Receive receive_a{0, got_a}, receive_b{0, got_b};
  transports[1]->exchange({}, {&receive_b, 1}, {"b", 2});
  transports[1]->exchange({}, {&receive_a, 1}, {"a", 1});
  EXPECT_EQ(got_a, a);
  EXPECT_EQ(got_b, b);
}

TEST(ThreadsTransport, BigExchangeInBothDirectionsDoesNotDeadlock) {
  auto transports = start_threads(4);
  on_ranks(transports, [](Transport& t) {
    const auto out = pattern(9'000'001, t.rank());
    std::vector<std::vector<std::byte>> in(4, std::vector<std::byte>(out.size()));
    std::vector<Send> sends;
    std::vector<Receive> receives;
    for (int peer = 0; peer < 4; ++peer) {
      sends.push_back({peer, out});
      receives.push_back({peer, in[peer]});
    }
    t.exchange(sends, receives, {"big"});
    for (int peer = 0; peer < 4; ++peer) EXPECT_EQ(in[peer], pattern(out.size(), peer));
  });
}

TEST(ThreadsTransport, AbsentSenderIsNamedAtTheDeadline) {
  auto transports = start_threads(4, {.timeout = 100ms});
  std::vector<std::byte> from1(5000), from2(7), from3(7);
  const std::vector<Receive> receives{{1, from1}, {2, from2}, {3, from3}};
  const auto sent = pattern(7, 0);
  const Send send{0, sent};
  transports[2]->exchange({&send, 1}, {}, {"gather"});
  const auto start = std::chrono::steady_clock::now();
  try {
    transports[0]->exchange({}, receives, {"gather", 0, 17});
    FAIL() << "nobody sent, yet the exchange ended";
  } catch (const PeerFailure& failure) {
    EXPECT_LT(std::chrono::steady_clock::now() - start, 5s);
    const PeerFailure::Facts& f = failure.facts();
    EXPECT_EQ(f.cause, PeerFailure::Cause::kTimeout);
    EXPECT_EQ(f.rank, 0);
    EXPECT_EQ(f.peer, 1);
    EXPECT_EQ(f.phase, "gather");
    EXPECT_EQ(f.collective, 17u);
    EXPECT_EQ(f.expected, 5000u);
    EXPECT_EQ(f.got, 0u);
    EXPECT_FALSE(f.sending);
    EXPECT_FALSE(f.host.empty());
    EXPECT_THAT(failure.what(), HasSubstr("rank 0 on " + f.host));
    EXPECT_THAT(failure.what(), HasSubstr("for rank 1 in gather (collective 17)"));
    EXPECT_THAT(failure.what(), HasSubstr("expected 5000 bytes, got 0; waited also for rank 3"));
  }
}

TEST(ThreadsTransport, ReceiverThatNeverTakesIsNamedAndFindsNothingAfterwards) {
  auto transports = start_threads(2, {.timeout = 50ms});
  {
    const auto out = pattern(1 << 20, 3);
    const Send send{1, out};
    try {
      transports[0]->exchange({&send, 1}, {}, {"activations"});
      FAIL();
    } catch (const PeerFailure& failure) {
      EXPECT_TRUE(failure.facts().sending);
      EXPECT_EQ(failure.facts().peer, 1);
      EXPECT_EQ(failure.facts().expected, 1u << 20);
      EXPECT_EQ(failure.facts().got, 0u);
    }
  }
  std::vector<std::byte> in(1 << 20);  // the sender's memory is gone: its parcel must be, too
  const Receive receive{0, in};
  EXPECT_THROW(transports[1]->exchange({}, {&receive, 1}, {"activations"}), PeerFailure);
}

TEST(ThreadsTransport, OnlyOwnProgressRenewsTheDeadline) {
  auto transports = start_threads(2, {.timeout = 150ms});
  std::atomic<bool> stop{false};
  std::thread chatter([&] {
    while (!stop) {
      transports[1]->send_message(0, 0, pattern(8, 0));
      std::this_thread::sleep_for(10ms);
    }
  });
  std::vector<std::byte> in(4);
  const Receive receive{1, in};
  const auto start = std::chrono::steady_clock::now();
  EXPECT_THROW(transports[0]->exchange({}, {&receive, 1}, {"test"}), PeerFailure);
  EXPECT_LT(std::chrono::steady_clock::now() - start, 5s);
  stop = true;
  chatter.join();
}

TEST(ThreadsTransport, SlowButMovingExchangeOutlivesTheTimeout) {
  auto transports = start_threads(2, {.timeout = 200ms});
  std::thread sender([&] {
    for (int i = 0; i < 6; ++i) {
      std::this_thread::sleep_for(80ms);
      const auto out = pattern(8, i);
      const Send send{0, out};
      transports[1]->exchange({&send, 1}, {}, {"slow"});
    }
  });
  std::vector<std::vector<std::byte>> in(6, std::vector<std::byte>(8));
  std::vector<Receive> receives;
  for (auto& i : in) receives.push_back({1, i});
  EXPECT_NO_THROW(transports[0]->exchange({}, receives, {"slow"}));
  EXPECT_EQ(in[5], pattern(8, 5));
  sender.join();
}

TEST(ThreadsTransport, SizeMismatchIsTold) {
  auto transports = start_threads(2);
  const auto out = pattern(100, 0);
  const Send send{1, out};
  transports[0]->exchange({&send, 1}, {}, {"rows"});
  std::vector<std::byte> in(90);
  const Receive receive{0, in};
  try {
    transports[1]->exchange({}, {&receive, 1}, {"rows"});
    FAIL();
  } catch (const PeerFailure& failure) {
    EXPECT_EQ(failure.facts().cause, PeerFailure::Cause::kSizeMismatch);
    EXPECT_EQ(failure.facts().expected, 90u);
    EXPECT_EQ(failure.facts().got, 100u);
  }
}

TEST(ThreadsTransport, InterruptEndsWaitsNowAndLater) {
  auto transports = start_threads(2);
  std::thread later([&] {
    std::this_thread::sleep_for(50ms);
    transports[0]->interrupt();
  });
  std::vector<std::byte> in(4), message;
  const Receive receive{1, in};
  const auto start = std::chrono::steady_clock::now();
  try {
    transports[0]->exchange({}, {&receive, 1}, {"test"});
    FAIL();
  } catch (const PeerFailure& failure) {
    EXPECT_EQ(failure.facts().cause, PeerFailure::Cause::kInterrupted);
    EXPECT_EQ(failure.facts().peer, 1);
  }
  EXPECT_LT(std::chrono::steady_clock::now() - start, 10s);  // not the 60 s of the deadline
  later.join();
  EXPECT_THROW(transports[0]->try_receive_message(1, 0, message, 10s), PeerFailure);
  EXPECT_FALSE(transports[1]->try_receive_message(0, 0, message, 1ms));  // only rank 0 was
}

TEST(ThreadsTransport, AbortEndsEverybodysWaits) {
  auto transports = start_threads(3);
  std::atomic<int> ended{0};
  on_ranks(transports, [&](Transport& t) {
    if (t.rank() == 2) {
      std::this_thread::sleep_for(30ms);
      t.abort(1);
      return;
    }
    std::vector<std::byte> in(4);
    const Receive receive{2, in};
    EXPECT_THROW(t.exchange({}, {&receive, 1}, {"test"}), PeerFailure);
    ++ended;
  });
  EXPECT_EQ(ended, 2);
}

TEST(ThreadsTransport, MessagesOfAnySizeInOrderApartFromExchanges) {
  auto transports = start_threads(2);
  on_ranks(transports, [](Transport& t) {
    const int peer = 1 - t.rank();
    for (int i = 0; i < 20; ++i) t.send_message(peer, 3, pattern(i * 10007, i));  // both send before either receives
    const auto out = pattern(12, 99);
    std::vector<std::byte> in(12);
    const Send send{peer, out};
    const Receive receive{peer, in};
    t.exchange({&send, 1}, {&receive, 1}, {"test", 3});
    EXPECT_EQ(in, out);
    for (int i = 0; i < 20; ++i) {
      std::vector<std::byte> message(5, std::byte{1});
      while (!t.try_receive_message(peer, 3, message, 20ms)) {
      }
      EXPECT_EQ(message, pattern(i * 10007, i));
    }
    std::vector<std::byte> message;
    EXPECT_FALSE(t.try_receive_message(peer, 3, message, 0ms));
    t.finalize();
  });
}

TEST(ThreadsTransport, TransportsOutliveEachOther) {
  auto transports = start_threads(2);
  const auto out = pattern(8, 0);
  const Send send{1, out};
  transports[0]->exchange({&send, 1}, {}, {"test"});
  transports[0].reset();
  std::vector<std::byte> in(8);
  const Receive receive{0, in};
  transports[1]->exchange({}, {&receive, 1}, {"test"});
  EXPECT_EQ(in, out);
}

}  // namespace
}  // namespace invar::parallel
