// Ranks as threads of one process.
//
// A sender leaves a parcel in the receiver's mailbox; the receiver copies. Small parcels are copied into the mailbox, so the
// sender need not wait; large ones are lent: the parcel points into the sender's memory and the sender waits until it is taken,
// which costs one copy and couples the two ranks as MPI's large messages do.
#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "parallel/transport/transport.h"

namespace invar::parallel {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kLargestOwnedParcel = 16 << 10;  // bytes; above, the copy costs more than the wait

enum class Kind : uint8_t { kExchange, kMessage };
using Key = std::tuple<Kind, int /*source*/, int /*tag*/>;

struct Parcel {
  std::vector<std::byte> owned;
  std::span<const std::byte> bytes;
  bool taken = false;  // guarded by the sender's mailbox
};

struct Mailbox {
  std::mutex mutex;
  std::condition_variable changed;
  uint64_t changes = 0;  // counts parcels left, lent parcels taken, interrupts: what a waiter may have missed
  bool interrupted = false;
  std::map<Key, std::deque<std::shared_ptr<Parcel>>> queues;

  void note_change() {
    ++changes;
    changed.notify_all();
  }
};

struct Shared {
  explicit Shared(int size) : mailboxes(size) {
    char name[256] = "?";
    gethostname(name, sizeof name - 1);
    host = name;
  }
  std::string host;
  std::vector<Mailbox> mailboxes;
};

class ThreadsTransport final : public Transport {
 public:
  ThreadsTransport(std::shared_ptr<Shared> shared, int rank, const TransportOptions& options)
      : shared_(std::move(shared)), rank_(rank), options_(options), own_(shared_->mailboxes[rank]) {}

  int rank() const override { return rank_; }
  int size() const override { return static_cast<int>(shared_->mailboxes.size()); }
  const std::string& host() const override { return shared_->host; }
  int local_rank() const override { return options_.local_before + rank_; }
  int local_size() const override { return options_.local_others + size(); }

  void exchange(std::span<const Send> sends, std::span<const Receive> receives, const Phase& phase) override;
  void send_message(int peer, int tag, std::span<const std::byte> bytes) override {
    auto parcel = std::make_shared<Parcel>();
    parcel->owned.assign(bytes.begin(), bytes.end());
    parcel->bytes = parcel->owned;
    leave(peer, {Kind::kMessage, rank_, tag}, std::move(parcel));
  }
  bool try_receive_message(int peer, int tag, std::vector<std::byte>& out, std::chrono::milliseconds wait) override;
  void interrupt() override { interrupt(rank_); }
  void abort(int) override {
    for (int r = 0; r < size(); ++r) interrupt(r);
  }
  void finalize() override {}  // nothing is under way: exchanges are over and messages lie at their receivers

 private:
  struct Lent {
    int peer;
    std::shared_ptr<Parcel> parcel;
  };

  void interrupt(int rank) {
    Mailbox& box = shared_->mailboxes[rank];
    const std::lock_guard lock(box.mutex);
    box.interrupted = true;
    box.note_change();
  }
  void leave(int peer, const Key& key, std::shared_ptr<Parcel> parcel) {
    Mailbox& box = shared_->mailboxes[peer];
    const std::lock_guard lock(box.mutex);
    box.queues[key].push_back(std::move(parcel));
    box.note_change();
  }
  // Copies what has come for the open receives, in posting order.
  void take_arrived(std::span<const Receive> receives, std::vector<bool>& done, const Phase& phase, Clock::time_point start);
  void withdraw(const std::vector<Lent>& lent, const Key& key);
  // Called with own_.mutex held.
  [[noreturn]] void fail(PeerFailure::Cause cause, std::span<const Send> sends, std::span<const Receive> receives,
                         const std::vector<bool>& done, const std::vector<Lent>& lent, const Phase& phase,
                         Clock::time_point start);

  std::shared_ptr<Shared> shared_;
  int rank_;
  TransportOptions options_;
  Mailbox& own_;
};

void ThreadsTransport::take_arrived(std::span<const Receive> receives, std::vector<bool>& done, const Phase& phase,
                                    Clock::time_point start) {
  std::vector<std::pair<size_t, std::shared_ptr<Parcel>>> arrived;
  {
    const std::lock_guard lock(own_.mutex);  // over the whole list: entries for one peer must be matched in order
    for (size_t i = 0; i < receives.size(); ++i) {
      if (done[i]) continue;
      const auto queue = own_.queues.find({Kind::kExchange, receives[i].peer, phase.tag});
      if (queue == own_.queues.end() || queue->second.empty()) continue;
      arrived.emplace_back(i, std::move(queue->second.front()));
      queue->second.pop_front();
    }
  }
  const Receive* wrong = nullptr;
  uint64_t got = 0;
  for (const auto& [i, parcel] : arrived) {
    if (parcel->bytes.size() == receives[i].bytes.size()) {
      std::memcpy(receives[i].bytes.data(), parcel->bytes.data(), parcel->bytes.size());
      done[i] = true;
    } else if (!wrong) {
      wrong = &receives[i];
      got = parcel->bytes.size();
    }
    if (!parcel->owned.empty()) continue;
    Mailbox& sender = shared_->mailboxes[receives[i].peer];
    const std::lock_guard lock(sender.mutex);
    parcel->taken = true;
    sender.note_change();
  }
  if (wrong)
    throw PeerFailure({.cause = PeerFailure::Cause::kSizeMismatch,
                       .rank = rank_,
                       .host = host(),
                       .phase = phase.name,
                       .collective = phase.collective,
                       .peer = wrong->peer,
                       .expected = wrong->bytes.size(),
                       .got = got,
                       .waited_seconds = std::chrono::duration<double>(Clock::now() - start).count()});
}

void ThreadsTransport::exchange(std::span<const Send> sends, std::span<const Receive> receives, const Phase& phase) {
  const Clock::time_point start = Clock::now();
  const Key key{Kind::kExchange, rank_, phase.tag};
  std::vector<Lent> lent;
  for (const Send& send : sends) {
    if (send.bytes.empty()) continue;
    auto parcel = std::make_shared<Parcel>();
    if (send.bytes.size() <= kLargestOwnedParcel) {
      parcel->owned.assign(send.bytes.begin(), send.bytes.end());
      parcel->bytes = parcel->owned;
    } else {
      parcel->bytes = send.bytes;
      lent.push_back({send.peer, parcel});
    }
    leave(send.peer, key, std::move(parcel));
  }
  std::vector<bool> done(receives.size());
  for (size_t i = 0; i < receives.size(); ++i) done[i] = receives[i].bytes.empty();

  size_t open = std::count(done.begin(), done.end(), false) + lent.size();  // entries still to be received or taken
  Clock::time_point moved = start;
  try {
    for (uint64_t seen = 0;;) {
      size_t still_lent = 0;
      {
        const std::lock_guard lock(own_.mutex);
        if (own_.interrupted) fail(PeerFailure::Cause::kInterrupted, sends, receives, done, lent, phase, start);
        seen = own_.changes;  // read before looking: what comes while we look makes the wait below return at once
        for (const Lent& l : lent) still_lent += !l.parcel->taken;
      }
      take_arrived(receives, done, phase, start);
      const size_t now_open = std::count(done.begin(), done.end(), false) + still_lent;
      if (now_open == 0) return;
      if (now_open < open) moved = Clock::now();  // only own progress renews the deadline, not a message of somebody else
      open = now_open;
      std::unique_lock lock(own_.mutex);
      if (!own_.changed.wait_until(lock, moved + options_.timeout, [&] { return own_.changes != seen; }))
        fail(PeerFailure::Cause::kTimeout, sends, receives, done, lent, phase, start);
    }
  } catch (...) {
    withdraw(lent, key);
    throw;
  }
}

void ThreadsTransport::withdraw(const std::vector<Lent>& lent, const Key& key) {
  // The receiver must not find a pointer into memory that this rank is about to leave. A parcel no longer in its queue is being
  // copied: wait for the end of that memcpy.
  for (const Lent& l : lent) {
    Mailbox& box = shared_->mailboxes[l.peer];
    bool copying = false;
    {
      const std::lock_guard lock(box.mutex);
      auto& queue = box.queues[key];
      copying = std::erase(queue, l.parcel) == 0;
    }
    if (!copying) continue;
    std::unique_lock lock(own_.mutex);
    own_.changed.wait(lock, [&] { return l.parcel->taken; });
  }
}

void ThreadsTransport::fail(PeerFailure::Cause cause, std::span<const Send> sends, std::span<const Receive> receives,
                            const std::vector<bool>& done, const std::vector<Lent>& lent, const Phase& phase,
                            Clock::time_point start) {
  PeerFailure::Facts facts{.cause = cause,
                           .rank = rank_,
                           .host = host(),
                           .phase = phase.name,
                           .collective = phase.collective,
                           .waited_seconds = std::chrono::duration<double>(Clock::now() - start).count()};
  std::vector<int> others;
  const auto also = [&](int peer) {
    if (peer != facts.peer && std::find(others.begin(), others.end(), peer) == others.end()) others.push_back(peer);
  };
  for (size_t i = 0; i < receives.size(); ++i) {
    if (done[i]) continue;
    if (facts.peer < 0) {
      facts.peer = receives[i].peer;
      for (size_t j = 0; j < receives.size(); ++j) {
        if (receives[j].peer != facts.peer) continue;
        facts.expected += receives[j].bytes.size();
        if (done[j]) facts.got += receives[j].bytes.size();
      }
    }
    also(receives[i].peer);
  }
  for (const Lent& l : lent) {
    if (l.parcel->taken) continue;
    if (facts.peer < 0) {
      facts.peer = l.peer;
      facts.sending = true;
      for (const Send& send : sends)
        if (send.peer == l.peer) facts.expected += send.bytes.size();
      for (const Lent& o : lent)
        if (o.peer == l.peer && !o.parcel->taken) facts.got += o.parcel->bytes.size();
      facts.got = facts.expected - facts.got;
    }
    also(l.peer);
  }
  for (int peer : others) absl::StrAppend(&facts.detail, facts.detail.empty() ? "waited also for rank " : ", ", peer);
  throw PeerFailure(std::move(facts));
}

bool ThreadsTransport::try_receive_message(int peer, int tag, std::vector<std::byte>& out, std::chrono::milliseconds wait) {
  const Clock::time_point start = Clock::now();
  std::unique_lock lock(own_.mutex);
  auto& queue = own_.queues[{Kind::kMessage, peer, tag}];  // map references outlive later insertions
  own_.changed.wait_until(lock, start + wait, [&] { return own_.interrupted || !queue.empty(); });
  if (own_.interrupted)
    throw PeerFailure({.cause = PeerFailure::Cause::kInterrupted,
                       .rank = rank_,
                       .host = host(),
                       .phase = "waiting for a message",
                       .peer = peer,
                       .waited_seconds = std::chrono::duration<double>(Clock::now() - start).count()});
  if (queue.empty()) return false;
  out = std::move(queue.front()->owned);
  queue.pop_front();
  return true;
}

}  // namespace

std::vector<std::unique_ptr<Transport>> start_threads(int size, const TransportOptions& options) {
  const auto shared = std::make_shared<Shared>(size);
  std::vector<std::unique_ptr<Transport>> transports;
  for (int rank = 0; rank < size; ++rank) transports.push_back(std::make_unique<ThreadsTransport>(shared, rank, options));
  return transports;
}

}  // namespace invar::parallel
