#include "launch/preflight_links.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <stdexcept>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "parallel/transport/group.h"

namespace invar::launch {
namespace {

using Clock = std::chrono::steady_clock;
constexpr int kTag = 4000;  // of no stream of a worker
constexpr size_t kSmall = 8, kLarge = 4 << 20;
constexpr int kSmallRounds = 20, kLargeRounds = 3, kRingRounds = 4, kClockRounds = 5;
constexpr int kTableRanks = 16;

double seconds_since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

// Bytes that only this sender sends: a message of somebody else does not pass for it.
std::vector<std::byte> pattern(int sender, size_t bytes) {
  std::vector<std::byte> out(bytes);
  uint64_t state = 0x9E3779B97F4A7C15ull * static_cast<uint64_t>(sender + 1);
  for (std::byte& b : out) {
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    b = static_cast<std::byte>(state >> 56);
  }
  return out;
}

// `wanted` is pattern(sender): made once, for comparing must cost little beside the exchange.
void check(const std::vector<std::byte>& got, const std::vector<std::byte>& wanted, int sender, int receiver, const char* phase) {
  if (got == wanted) return;
  throw std::runtime_error(
      absl::StrCat("phase ", phase, ": ", got.size(), " bytes from rank ", sender, " to rank ", receiver, " arrived changed"));
}

// Seconds of the best round trip. `first` speaks first.
double ping_pong(parallel::Transport& t, int peer, bool first, size_t bytes, int rounds, const char* phase) {
  const std::vector<std::byte> mine = pattern(t.rank(), bytes), wanted = pattern(peer, bytes);
  std::vector<std::byte> theirs(bytes);
  const parallel::Send send[] = {{peer, mine}};
  const parallel::Receive receive[] = {{peer, theirs}};
  double best = 1e9;
  for (int round = 0; round <= rounds; ++round) {  // the first warms up
    const auto begin = Clock::now();
    if (first) t.exchange(send, {}, {phase, kTag});
    t.exchange({}, receive, {phase, kTag});
    if (!first) t.exchange(send, {}, {phase, kTag});
    if (round > 0) best = std::min(best, seconds_since(begin));
    check(theirs, wanted, peer, t.rank(), phase);
    theirs.front() = theirs.back() = std::byte{0};  // the next round's must come
  }
  return best;
}

// Whom `rank` meets in `round` of size - 1 (size made even), -1 = nobody: one place stays, the others move round a circle.
int partner(int rank, int round, int size) {
  const int even = size + size % 2, circle = even - 1;
  int peer = 0;
  if (rank == even - 1) {
    peer = round % circle;
  } else if (rank == round % circle) {
    peer = even - 1;
  } else {
    peer = (2 * round - rank + 2 * circle) % circle;
  }
  return peer < size ? peer : -1;
}

double wall_seconds() { return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count(); }

// Between rank 0 and `other`; on rank 0 the seconds that the other's clock is ahead. The quickest round trip counts.
double clock_offset(parallel::Transport& t, int other) {
  const int peer = t.rank() == 0 ? other : 0;
  double best = 1e9, offset = 0;
  for (int round = 0; round < kClockRounds; ++round) {
    double mine = wall_seconds(), theirs = 0;
    const parallel::Send send[] = {{peer, std::as_bytes(std::span(&mine, 1))}};
    const parallel::Receive receive[] = {{peer, std::as_writable_bytes(std::span(&theirs, 1))}};
    if (t.rank() == 0) {
      t.exchange(send, {}, {"clocks", kTag});
      t.exchange({}, receive, {"clocks", kTag});
      const double back = wall_seconds();
      if (back - mine < best) best = back - mine, offset = theirs - (mine + back) / 2;
    } else {
      t.exchange({}, receive, {"clocks", kTag});
      mine = wall_seconds();
      t.exchange(send, {}, {"clocks", kTag});
    }
  }
  return offset;
}

double ring(parallel::Transport& t) {
  const int next = (t.rank() + 1) % t.size(), previous = (t.rank() + t.size() - 1) % t.size();
  const std::vector<std::byte> mine = pattern(t.rank(), kLarge), wanted = pattern(previous, kLarge);
  std::vector<std::byte> theirs(kLarge);
  const parallel::Send send[] = {{next, mine}};
  const parallel::Receive receive[] = {{previous, theirs}};
  const auto begin = Clock::now();
  for (int round = 0; round < kRingRounds; ++round) t.exchange(send, receive, {"ring", kTag});
  const double seconds = seconds_since(begin);
  check(theirs, wanted, previous, t.rank(), "ring");
  return kRingRounds * static_cast<double>(kLarge) / seconds / 1e9;
}

}  // namespace

LinkReport measure_links(parallel::Transport& t) {
  LinkReport report;
  report.ranks = t.size();
  const size_t size = static_cast<size_t>(t.size());
  std::vector<int> world(size);
  for (int r = 0; r < t.size(); ++r) world[static_cast<size_t>(r)] = r;
  parallel::Group group(t, world, kTag);
  std::vector<PairTimes> mine(size);
  for (int round = 0; round < t.size() - 1 + t.size() % 2; ++round) {
    group.barrier("before a round of pairs");
    const int peer = partner(t.rank(), round, t.size());
    if (peer < 0 || peer == t.rank()) continue;
    const bool first = t.rank() < peer;
    PairTimes& pair = mine[static_cast<size_t>(peer)];
    pair.latency_us = ping_pong(t, peer, first, kSmall, kSmallRounds, "latency of pairs") / 2 * 1e6;
    pair.gigabytes_s =
        2 * static_cast<double>(kLarge) / ping_pong(t, peer, first, kLarge, kLargeRounds, "bandwidth of pairs") / 1e9;
  }
  std::vector<PairTimes> all(t.rank() == 0 ? size * size : 0);
  group.gather(std::as_bytes(std::span(mine)), std::as_writable_bytes(std::span(all)), 0, "times of pairs");
  report.pairs = std::move(all);
  group.barrier("before the ring");
  const double speed = t.size() > 1 ? ring(t) : 0;
  std::vector<double> speeds(t.rank() == 0 ? size : 0);
  group.gather(std::as_bytes(std::span(&speed, 1)), std::as_writable_bytes(std::span(speeds)), 0, "times of the ring");
  if (t.rank() == 0) report.ring_gigabytes_s = *std::min_element(speeds.begin(), speeds.end());
  report.clock_offsets.assign(size, 0);
  for (int peer = 1; peer < t.size(); ++peer)
    if (t.rank() == 0 || t.rank() == peer) report.clock_offsets[static_cast<size_t>(peer)] = clock_offset(t, peer);
  return report;
}

std::string to_text(const LinkReport& report, const std::vector<std::string>& hosts) {
  if (report.ranks < 2) return "one rank: nothing to exchange\n";
  std::string out;
  const auto name = [&](int r) { return absl::StrCat("rank ", r, " on ", hosts[static_cast<size_t>(r)]); };
  if (report.ranks <= kTableRanks) {
    absl::StrAppend(&out, "latency in microseconds (upper right) and bandwidth in GB/s (lower left) between ranks\n        ");
    for (int b = 0; b < report.ranks; ++b) absl::StrAppendFormat(&out, "%8d", b);
    for (int a = 0; a < report.ranks; ++a) {
      absl::StrAppendFormat(&out, "\n%8d", a);
      for (int b = 0; b < report.ranks; ++b) {
        if (a == b) absl::StrAppend(&out, "       -");
        if (a < b) absl::StrAppendFormat(&out, "%8.1f", report.pair(a, b).latency_us);
        if (a > b) absl::StrAppendFormat(&out, "%8.2f", report.pair(a, b).gigabytes_s);
      }
    }
    absl::StrAppend(&out, "\n");
  }
  std::pair<int, int> late{0, 1}, narrow{0, 1};
  for (int a = 0; a < report.ranks; ++a) {
    for (int b = a + 1; b < report.ranks; ++b) {
      if (report.pair(a, b).latency_us > report.pair(late.first, late.second).latency_us) late = {a, b};
      if (report.pair(a, b).gigabytes_s < report.pair(narrow.first, narrow.second).gigabytes_s) narrow = {a, b};
    }
  }
  absl::StrAppendFormat(&out, "longest latency: %.1f us, %s and %s\n", report.pair(late.first, late.second).latency_us,
                        name(late.first), name(late.second));
  absl::StrAppendFormat(&out, "least bandwidth: %.2f GB/s, %s and %s\n", report.pair(narrow.first, narrow.second).gigabytes_s,
                        name(narrow.first), name(narrow.second));
  absl::StrAppendFormat(&out, "ring of all ranks at once: %.2f GB/s each\n", report.ring_gigabytes_s);
  return out;
}

}  // namespace invar::launch
