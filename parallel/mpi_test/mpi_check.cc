// One rank of the checks that need real MPI processes. mpi_test.sh runs it on several rank counts and compares what it prints.
//   mpi_check                    all checks; rank 0 prints "digest HEX" (equal for every rank count) and "control HEX"
//   mpi_check --absent RANK      that rank never comes; the others must say so within the deadline and end the job
//   mpi_check --killed RANK      that rank is killed in the middle
//   mpi_check --interrupt        each rank waits for what never comes, until its own second thread interrupts it
//   mpi_check --wrong-size       rank 1 sends another size than rank 0 expects
#include <signal.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string_view>
#include <thread>

#include "parallel/exchange/expert_exchange.h"
#include "parallel/grid/grid.h"
#include "parallel/reduce/tree_all_reduce.h"

namespace invar::parallel {
namespace {

using namespace std::chrono_literals;

[[noreturn]] void die(Transport& t, const std::string& what) {
  std::fprintf(stderr, "FAIL on rank %d of %d: %s\n", t.rank(), t.size(), what.c_str());
  t.abort(1);
  std::abort();
}
void check(Transport& t, bool ok, const char* what) {
  if (!ok) die(t, what);
}

std::vector<std::byte> pattern(size_t bytes, int seed) {
  std::vector<std::byte> out(bytes);
  for (size_t i = 0; i < bytes; ++i) out[i] = static_cast<std::byte>((i * 131 + i / 251 + seed * 17) & 255);
  return out;
}

void check_transport(Transport& t) {
  const size_t sizes[] = {1, 0, 4096, 70000, (1 << 20) - 1, 1 << 20, (3 << 20) + 5};
  for (int tag = 0; tag <= kMaxTag; tag += kMaxTag) {
    std::vector<std::vector<std::byte>> out, in;
    std::vector<Send> sends;
    std::vector<Receive> receives;
    for (int peer = 0; peer < t.size(); ++peer)  // itself too
      for (size_t i = 0; i < std::size(sizes); ++i) {
        out.push_back(pattern(sizes[i], t.rank() * 10 + static_cast<int>(i)));
        in.emplace_back(sizes[i]);
      }
    for (size_t i = 0; i < out.size(); ++i) {
      sends.push_back({static_cast<int>(i / std::size(sizes)), out[i]});
      receives.push_back({static_cast<int>(i / std::size(sizes)), in[i]});
    }
    t.exchange(sends, receives, {"fifo", tag});
    for (size_t i = 0; i < in.size(); ++i)
      check(t,
            in[i] == pattern(in[i].size(), static_cast<int>(i / std::size(sizes)) * 10 + static_cast<int>(i % std::size(sizes))),
            "fifo");
  }
  const int right = (t.rank() + 1) % t.size(), left = (t.rank() + t.size() - 1) % t.size();
  for (const size_t bytes : {0, 5, 1 << 20, 5 << 20}) t.send_message(right, 3, pattern(bytes, t.rank()));
  for (const size_t bytes : {0, 5, 1 << 20, 5 << 20}) {
    std::vector<std::byte> message;
    while (!t.try_receive_message(left, 3, message, 100ms)) {
    }
    check(t, message == pattern(bytes, left), "messages");
  }
  std::vector<std::byte> message;
  check(t, !t.try_receive_message(left, 3, message, 1ms), "a message too many");
}

void check_group(Transport& t) {
  std::vector<int> members;
  for (int r = t.size() - 1; r >= 0; --r) members.push_back(r);
  Group g(t, members);
  for (int round = 0; round < 20; ++round) {
    std::vector<int> all(g.size());
    const int mine = g.index() * 3 + round;
    g.all_gather(std::as_bytes(std::span(&mine, 1)), std::as_writable_bytes(std::span(all)));
    for (int i = 0; i < g.size(); ++i) check(t, all[i] == i * 3 + round, "all_gather");
    int word = g.index() == round % g.size() ? round : -1;
    g.broadcast(std::as_writable_bytes(std::span(&word, 1)), round % g.size());
    check(t, word == round, "broadcast");
    g.barrier();
  }
}

struct Digest {
  uint64_t value = 0;
  uint64_t index = 0;
  void add(uint32_t bits) { value += numerics::hash_element(index++, bits); }
};

// The same problem for every rank count: 8 segment values an element, folded into the nodes that this rank would hold.
void check_reduce(Transport& t, ControlArm arm, Digest& digest) {
  const int tp = std::min(t.size(), numerics::kSegments);
  if (t.rank() >= tp) return;
  std::vector<int> members;
  for (int r = 0; r < tp; ++r) members.push_back(r);
  const Device device({.control_arm = arm});
  struct Shape {
    int64_t rows, outputs, k, unit;
  };
  for (const Shape& s : {Shape{1, 1, 512, 64}, Shape{7, 515, 512, 64}, Shape{33, 1030, 512, 64}, Shape{3, 99, 48, 16}}) {
    const RowSegments segments = RowSegments::cut(s.k, s.unit);
    const int64_t count = s.rows * s.outputs;
    std::mt19937_64 random(7);
    std::vector<float> values(numerics::kSegments * count);
    // The halves of the tree cancel but for their last bits: otherwise rounding to bf16 hides nearly every other order.
    for (int64_t i = 0; i < std::ssize(values); ++i) {
      const uint32_t r = static_cast<uint32_t>(random());
      values[i] = i < 4 * count ? numerics::bits_float((r & 0x807fffffu) | ((118 + r / 64 % 16) << 23))
                                : -numerics::bits_float(numerics::float_bits(values[i - 4 * count]) ^ (r & 3));
    }
    std::vector<Bf16> bias(s.outputs);
    for (Bf16& b : bias) b = numerics::bf(static_cast<float>(random() % 100) * 0.01f);
    const auto value_of = [&](numerics::TreeNode node, int64_t k) {
      std::vector<numerics::TreeNode> leaves;
      std::vector<float> leaf_values;
      for (int i = node.index << node.level; i < (node.index + 1) << node.level; ++i) {
        if (segments.empty(i, i + 1)) continue;
        leaves.push_back({0, i});
        leaf_values.push_back(values[i * count + k]);
      }
      return merge_to_root(leaves, leaf_values.data(), 1);
    };
    const Range own = segments_of(tp, t.rank());
    std::vector<float> partials;
    for (const auto node : shipped_nodes(arm, segments, static_cast<int>(own.begin), static_cast<int>(own.end)))
      for (int64_t k = 0; k < count; ++k) partials.push_back(value_of(node, k));
    std::vector<Bf16> expected(count);
    for (int64_t k = 0; k < count; ++k)
      expected[k] = numerics::bf(numerics::add(value_of({3, 0}, k), numerics::widen(bias[k % s.outputs])));
    for (const auto algorithm : {ReduceAlgorithm::kGather, ReduceAlgorithm::kScatter}) {
      TreeAllReduce reduce(device, Group(t, members), algorithm);
      std::vector<Bf16> y(count);
      reduce.run({.rows = s.rows,
                  .outputs = s.outputs,
                  .segments = segments,
                  .partials = partials.data(),
                  .bias = bias.data(),
                  .y = y.data()});
      for (int64_t k = 0; k < count; ++k) {
        check(t, arm != ControlArm::kNone || y[k].bits == expected[k].bits, "tree all-reduce");
        digest.add(y[k].bits);
      }
    }
  }
}

// The same tokens for every rank count, each at home somewhere; the digest goes over tokens, not over ranks.
void check_exchange(Transport& t, Digest& digest) {
  constexpr int64_t kTokens = 203, kWidth = 1100, kExperts = 24, kTopK = 3;
  std::vector<int> members;
  for (int r = 0; r < t.size(); ++r) members.push_back(r);
  Group ep(t, members);
  const Device device(DeviceOptions{});
  for (const bool uneven : {false, true}) {
    std::mt19937_64 random(3);
    std::vector<int32_t> ids;
    std::vector<Bf16> x(kTokens * kWidth);
    for (Bf16& v : x) v.bits = static_cast<uint16_t>(random());
    for (int64_t r = 0; r < kTokens; ++r) {
      std::vector<int32_t> picks{static_cast<int32_t>(uneven ? 17 : random() % 8), static_cast<int32_t>(18 + random() % 3),
                                 static_cast<int32_t>(21 + random() % 3)};
      ids.insert(ids.end(), picks.begin(), picks.end());
    }
    std::vector<int> owner = expert_owners(kExperts, t.size());
    if (uneven) std::fill(owner.begin(), owner.begin() + 20, t.size() - 1);
    ExpertExchange exchange(device, ep, owner);
    const Range mine = shard(kTokens, t.size(), t.rank());
    const DispatchedRows got =
        exchange.dispatch(x.data() + mine.begin * kWidth, mine.size(), kWidth, ids.data() + mine.begin * kTopK, kTopK);
    std::vector<Bf16> results(got.rows() * kWidth);
    for (size_t e = 0; e + 1 < got.offsets.size(); ++e)
      for (int64_t i = got.offsets[e] * kWidth; i < got.offsets[e + 1] * kWidth; ++i)
        results[i].bits = static_cast<uint16_t>(got.x[i].bits * 31 + exchange.local_experts()[e] * 257);
    const ReturnedRows back = exchange.combine_return(results.data());
    std::vector<uint16_t> home(mine.size() * kTopK * kWidth);
    for (int64_t i = 0; i < mine.size() * kTopK; ++i)
      for (int64_t k = 0; k < kWidth; ++k) {
        const uint16_t got_bits = back.expert_rows[back.row_of[i] * kWidth + k].bits;
        const int64_t token = mine.begin + i / kTopK;
        check(t, got_bits == static_cast<uint16_t>(x[token * kWidth + k].bits * 31 + ids[mine.begin * kTopK + i] * 257),
              "expert exchange");
        home[i * kWidth + k] = got_bits;
      }
    std::vector<uint16_t> all(kTokens * kTopK * kWidth);
    std::vector<std::span<std::byte>> pieces;
    for (int r = 0; r < t.size(); ++r) {
      const Range tokens = shard(kTokens, t.size(), r);
      pieces.push_back(
          std::as_writable_bytes(std::span(all).subspan(tokens.begin * kTopK * kWidth, tokens.size() * kTopK * kWidth)));
    }
    ep.all_gather_v(std::as_bytes(std::span(home)), pieces);
    for (uint16_t bits : all) digest.add(bits);
  }
}

int all_checks(std::unique_ptr<Transport> t) {
  for (const bool slow : {false, true}) {
    if (slow) t = delayed(std::move(t), {.seed = 1, .most = 2ms});
    check_transport(*t);
    check_group(*t);
    Digest digest, control;
    check_reduce(*t, ControlArm::kNone, digest);
    check_exchange(*t, digest);
    check_reduce(*t, ControlArm::kRankOrderAllReduce, control);
    if (t->rank() == 0) std::printf("digest %016lx\ncontrol %016lx\n", digest.value, control.value);
  }
  check(*t, t->local_rank() >= 0 && t->local_rank() < t->local_size(), "local rank");
  t->finalize();
  return 0;
}

// Takes part in collectives until a peer does not.
int until_failure(Transport& t, std::string_view mode, int who) {
  std::vector<int> members;
  for (int r = 0; r < t.size(); ++r) members.push_back(r);
  Group group(t, members);
  std::vector<std::byte> mine(100000), all(mine.size() * t.size());
  const auto start = std::chrono::steady_clock::now();
  try {
    for (int step = 0; step < 1000000; ++step) {
      if (t.rank() == who && step == 5) {
        std::fprintf(stderr, "rank %d leaves\n", who);
        if (mode == "--killed") raise(SIGKILL);
        std::this_thread::sleep_for(30s);
        return 0;
      }
      group.all_gather(mine, all, "test step");
    }
  } catch (const PeerFailure& failure) {
    std::fprintf(stderr, "%s [%.1f s]\n", failure.what(),
                 std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    std::this_thread::sleep_for(300ms);  // the other ranks' words, too, before the job ends
    t.abort(3);
  }
  return 1;
}

int wrong_size(Transport& t) {
  const std::vector<std::byte> out(2'000'000);
  std::vector<std::byte> in(1'900'000);
  const Send send{0, out};
  const Receive receive{1, in};
  try {
    if (t.rank() == 1) t.exchange({&send, 1}, {}, {"rows"});
    if (t.rank() == 0) t.exchange({}, {&receive, 1}, {"rows"});
  } catch (const PeerFailure& failure) {
    std::fprintf(stderr, "%s\n", failure.what());
    t.abort(3);
  }
  std::this_thread::sleep_for(10s);
  return 1;
}

// Both kinds of wait; says "interrupted" and ends the job with an error, since an interrupted transport is of no further use.
int interrupted(Transport& t) {
  std::thread second([&] {
    std::this_thread::sleep_for(200ms);
    t.interrupt();
  });
  const int right = (t.rank() + 1) % t.size();
  int ended = 0;
  std::vector<std::byte> in(10);
  const Receive receive{right, in};
  try {
    if (t.rank() == 0)
      t.try_receive_message(right, 0, in, 60s);
    else
      t.exchange({}, {&receive, 1}, {"idle"});
  } catch (const PeerFailure& failure) {
    ended += failure.facts().cause == PeerFailure::Cause::kInterrupted;
  }
  try {
    t.exchange({}, {&receive, 1}, {"idle"});
  } catch (const PeerFailure&) {
    ++ended;
  }
  second.join();
  std::fprintf(stderr, "rank %d: %d waits interrupted\n", t.rank(), ended);
  std::this_thread::sleep_for(300ms);
  t.abort(3);
  return 1;
}

}  // namespace
}  // namespace invar::parallel

int main(int argc, char** argv) {
  using namespace invar::parallel;
  const std::string_view mode = argc > 1 ? argv[1] : "";
  auto transport = start_mpi({.timeout = std::chrono::milliseconds(mode.empty() ? 60000 : 2000)});
  if (!transport.ok()) {
    std::fprintf(stderr, "%s\n", std::string(transport.status().message()).c_str());
    return 1;
  }
  if (mode == "--wrong-size") return wrong_size(**transport);
  if (mode == "--interrupt") return interrupted(**transport);
  if (argc == 3) return until_failure(**transport, mode, std::atoi(argv[2]));
  return all_checks(*std::move(transport));
}
