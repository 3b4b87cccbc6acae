// Ranks as processes of an MPI job. MPI moves bytes and nothing else: Isend, Irecv, Iprobe, Test; no reduction, no collective
// besides start and end. Blocking calls are not used because they know no deadline.
#include <mpi.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <deque>
#include <thread>

#include "absl/strings/str_cat.h"
#include "parallel/transport/transport.h"

namespace invar::parallel {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kChunk = 1 << 20;  // bytes of one MPI message at most: counts stay ints, and progress shows chunk by chunk
constexpr size_t kHostName = 64;
constexpr auto kYieldFor = std::chrono::microseconds(100);  // an answer in this time costs no sleep
constexpr auto kLongestSleep = std::chrono::microseconds(500);

// What an MPI message is part of. The number of chunks is in the tag, so that two sides that disagree about a size either do
// not match at all or differ in a chunk's size: never do bytes of one entry end up in another.
enum class Stream { kExchange = 0, kMessageHead = 1, kMessageRest = 2 };
int mpi_tag(Stream stream, int tag, size_t chunks) {
  return static_cast<int>(stream) << 27 | tag << 15 | static_cast<int>(chunks & 0x7fff);
}
constexpr int kLargestMpiTag = (2 << 27) | (kMaxTag << 15) | 0x7fff;

std::string error_text(int code) {
  char text[MPI_MAX_ERROR_STRING];
  int length = 0;
  if (MPI_Error_string(code, text, &length) != MPI_SUCCESS) return absl::StrCat("MPI error ", code);
  return std::string(text, length);
}

// Waits between polls: at first the core is only offered to others, then naps grow with the time already waited, to a sixteenth
// of it. Ranks may outnumber cores, so a spinning rank can keep the one it waits for from running.
class Backoff {
 public:
  void moved() { since_ = Clock::now(); }
  Clock::duration idle() const { return Clock::now() - since_; }
  void pause() const {
    const Clock::duration waited = idle();
    if (waited < kYieldFor)
      std::this_thread::yield();
    else
      std::this_thread::sleep_for(std::min<Clock::duration>(waited / 16, kLongestSleep));
  }

 private:
  Clock::time_point since_ = Clock::now();
};

// MPI requests that are waited for together.
struct Batch {
  struct Part {
    int peer;
    bool sending;
    size_t bytes;
    bool done = false;
  };
  std::vector<MPI_Request> requests;
  std::vector<Part> parts;
};

class MpiTransport final : public Transport {
 public:
  MpiTransport(int rank, int size, const TransportOptions& options) : rank_(rank), size_(size), options_(options) {
    char name[256] = "?";
    gethostname(name, sizeof name - 1);
    host_ = name;
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  const std::string& host() const override { return host_; }
  int local_rank() const override { return local_rank_; }
  int local_size() const override { return local_size_; }

  void exchange(std::span<const Send> sends, std::span<const Receive> receives, const Phase& phase) override;
  void send_message(int peer, int tag, std::span<const std::byte> bytes) override;
  bool try_receive_message(int peer, int tag, std::vector<std::byte>& out, std::chrono::milliseconds wait) override;
  void interrupt() override { interrupted_.store(true, std::memory_order_relaxed); }
  void abort(int exit_code) override { MPI_Abort(MPI_COMM_WORLD, exit_code); }
  void finalize() override;
  void learn_hosts();

 private:
  struct Outgoing {  // a message that is on its way
    std::vector<std::byte> bytes;
    Batch batch;
    Clock::time_point posted;
  };

  PeerFailure::Facts facts(PeerFailure::Cause cause, const Phase& phase, Clock::time_point start) const {
    return {.cause = cause,
            .rank = rank_,
            .host = host_,
            .phase = phase.name,
            .collective = phase.collective,
            .waited_seconds = std::chrono::duration<double>(Clock::now() - start).count()};
  }
  [[noreturn]] void fail(PeerFailure::Facts facts) {
    failed_ = true;
    throw PeerFailure(std::move(facts));
  }
  void check_usable(const Phase& phase);
  void post(Batch& batch, int peer, Stream stream, int tag, std::span<const std::byte> bytes, const Phase& phase);
  void post(Batch& batch, int peer, Stream stream, int tag, std::span<std::byte> bytes, const Phase& phase);
  // One look at the batch; true if something was completed.
  bool advance(Batch& batch, const Phase& phase, Clock::time_point start);
  void complete(Batch& batch, const Phase& phase);
  void give_up(Batch& batch, PeerFailure::Facts facts);
  void advance_messages();

  int rank_;
  int size_;
  TransportOptions options_;
  std::string host_;
  int local_rank_ = 0;
  int local_size_ = 1;
  std::atomic<bool> interrupted_{false};
  bool failed_ = false;
  std::deque<Outgoing> outgoing_;
  std::vector<MPI_Status> statuses_;
  std::vector<int> completed_;
};

void MpiTransport::check_usable(const Phase& phase) {
  if (failed_) {
    PeerFailure::Facts f = facts(PeerFailure::Cause::kLost, phase, Clock::now());
    f.detail = "this transport failed before";
    fail(std::move(f));
  }
}

void MpiTransport::post(Batch& batch, int peer, Stream stream, int tag, std::span<const std::byte> bytes, const Phase& phase) {
  const int with = mpi_tag(stream, tag, (bytes.size() + kChunk - 1) / kChunk);
  for (size_t at = 0; at < bytes.size(); at += kChunk) {
    const std::span<const std::byte> chunk = bytes.subspan(at, std::min(kChunk, bytes.size() - at));
    MPI_Request request = MPI_REQUEST_NULL;
    const int code = MPI_Isend(chunk.data(), static_cast<int>(chunk.size()), MPI_BYTE, peer, with, MPI_COMM_WORLD, &request);
    batch.requests.push_back(request);
    batch.parts.push_back({peer, true, chunk.size()});
    if (code == MPI_SUCCESS) continue;
    PeerFailure::Facts f = facts(PeerFailure::Cause::kLost, phase, Clock::now());
    f.detail = error_text(code);
    give_up(batch, std::move(f));
  }
}

void MpiTransport::post(Batch& batch, int peer, Stream stream, int tag, std::span<std::byte> bytes, const Phase& phase) {
  const int with = mpi_tag(stream, tag, (bytes.size() + kChunk - 1) / kChunk);
  for (size_t at = 0; at < bytes.size(); at += kChunk) {
    const std::span<std::byte> chunk = bytes.subspan(at, std::min(kChunk, bytes.size() - at));
    MPI_Request request = MPI_REQUEST_NULL;
    const int code = MPI_Irecv(chunk.data(), static_cast<int>(chunk.size()), MPI_BYTE, peer, with, MPI_COMM_WORLD, &request);
    batch.requests.push_back(request);
    batch.parts.push_back({peer, false, chunk.size()});
    if (code == MPI_SUCCESS) continue;
    PeerFailure::Facts f = facts(PeerFailure::Cause::kLost, phase, Clock::now());
    f.detail = error_text(code);
    give_up(batch, std::move(f));
  }
}

bool MpiTransport::advance(Batch& batch, const Phase& phase, Clock::time_point start) {
  const int count = static_cast<int>(batch.requests.size());
  if (count == 0) return false;
  statuses_.resize(count);
  completed_.resize(count);
  int done = 0;
  const int code = MPI_Testsome(count, batch.requests.data(), &done, completed_.data(), statuses_.data());
  if (code != MPI_SUCCESS && code != MPI_ERR_IN_STATUS) {
    PeerFailure::Facts f = facts(PeerFailure::Cause::kLost, phase, start);
    f.detail = error_text(code);
    give_up(batch, std::move(f));
  }
  if (done == MPI_UNDEFINED) return false;  // all requests are null: nothing was open
  for (int i = 0; i < done; ++i) {
    Batch::Part& part = batch.parts[completed_[i]];
    part.done = true;
    const int error = code == MPI_ERR_IN_STATUS ? statuses_[i].MPI_ERROR : MPI_SUCCESS;
    int got = static_cast<int>(part.bytes);
    if (!part.sending && error == MPI_SUCCESS) MPI_Get_count(&statuses_[i], MPI_BYTE, &got);
    if (error == MPI_SUCCESS && static_cast<size_t>(got) == part.bytes) continue;
    const bool size = error == MPI_SUCCESS || error == MPI_ERR_TRUNCATE;
    PeerFailure::Facts f = facts(size ? PeerFailure::Cause::kSizeMismatch : PeerFailure::Cause::kLost, phase, start);
    f.peer = part.peer;
    f.sending = part.sending;
    f.expected = part.bytes;
    f.got = error == MPI_SUCCESS ? got : 0;
    if (error != MPI_SUCCESS) f.detail = error_text(error);
    give_up(batch, std::move(f));
  }
  return done > 0;
}

void MpiTransport::give_up(Batch& batch, PeerFailure::Facts f) {
  // A receive left open could still write into memory that the caller is about to free.
  for (size_t i = 0; i < batch.requests.size(); ++i)
    if (!batch.parts[i].sending && batch.requests[i] != MPI_REQUEST_NULL) MPI_Cancel(&batch.requests[i]);
  if (f.peer < 0) {
    std::vector<int> others;
    // Who does not send explains more than who does not take.
    for (const bool sending : {false, true})
      for (const Batch::Part& part : batch.parts) {
        if (part.done || part.sending != sending) continue;
        if (f.peer < 0) {
          f.peer = part.peer;
          f.sending = sending;
        }
        if (part.peer != f.peer && std::find(others.begin(), others.end(), part.peer) == others.end())
          others.push_back(part.peer);
      }
    for (const Batch::Part& part : batch.parts) {
      if (part.peer != f.peer || part.sending != f.sending) continue;
      f.expected += part.bytes;
      if (part.done) f.got += part.bytes;
    }
    std::string also;
    for (int peer : others) absl::StrAppend(&also, also.empty() ? "waited also for rank " : ", ", peer);
    if (!also.empty()) absl::StrAppend(&f.detail, f.detail.empty() ? "" : "; ", also);
  }
  fail(std::move(f));
}

void MpiTransport::complete(Batch& batch, const Phase& phase) {
  const Clock::time_point start = Clock::now();
  Backoff backoff;
  for (;;) {
    if (advance(batch, phase, start)) backoff.moved();
    // Asked anew each time: the batch may have been complete before this call.
    if (std::all_of(batch.parts.begin(), batch.parts.end(), [](const Batch::Part& part) { return part.done; })) return;
    if (interrupted_.load(std::memory_order_relaxed)) give_up(batch, facts(PeerFailure::Cause::kInterrupted, phase, start));
    if (backoff.idle() > options_.timeout) give_up(batch, facts(PeerFailure::Cause::kTimeout, phase, start));
    advance_messages();
    backoff.pause();
  }
}

void MpiTransport::exchange(std::span<const Send> sends, std::span<const Receive> receives, const Phase& phase) {
  check_usable(phase);
  Batch batch;
  for (const Receive& receive : receives) post(batch, receive.peer, Stream::kExchange, phase.tag, receive.bytes, phase);
  for (const Send& send : sends) post(batch, send.peer, Stream::kExchange, phase.tag, send.bytes, phase);
  complete(batch, phase);
}

void MpiTransport::send_message(int peer, int tag, std::span<const std::byte> bytes) {
  const Phase phase{"sending a message", tag};
  check_usable(phase);
  advance_messages();
  // One copy: length, then the bytes. The head goes out as the first chunk, so a short message is one MPI message.
  Outgoing& out = outgoing_.emplace_back();
  out.posted = Clock::now();
  const uint64_t length = bytes.size();
  out.bytes.resize(sizeof length + bytes.size());
  std::memcpy(out.bytes.data(), &length, sizeof length);
  if (!bytes.empty()) std::memcpy(out.bytes.data() + sizeof length, bytes.data(), bytes.size());
  const std::span<const std::byte> all = out.bytes;
  const size_t head = std::min(kChunk, all.size());
  post(out.batch, peer, Stream::kMessageHead, tag, all.first(head), phase);
  post(out.batch, peer, Stream::kMessageRest, tag, all.subspan(head), phase);
  advance(out.batch, phase, out.posted);
}

void MpiTransport::advance_messages() {
  const Phase phase{"sending a message"};
  while (!outgoing_.empty()) {
    Outgoing& out = outgoing_.front();
    advance(out.batch, phase, out.posted);
    const bool done = std::all_of(out.batch.parts.begin(), out.batch.parts.end(), [](const Batch::Part& p) { return p.done; });
    if (!done) {
      if (Clock::now() - out.posted > options_.timeout)
        give_up(out.batch, facts(PeerFailure::Cause::kTimeout, phase, out.posted));
      return;
    }
    outgoing_.pop_front();
  }
}

bool MpiTransport::try_receive_message(int peer, int tag, std::vector<std::byte>& out, std::chrono::milliseconds wait) {
  const Phase phase{"waiting for a message", tag};
  check_usable(phase);
  const Clock::time_point start = Clock::now();
  Backoff backoff;
  MPI_Status status;
  // The head is one chunk, and so is its number in the tag.
  const int head_tag = mpi_tag(Stream::kMessageHead, tag, 1);
  for (int found = 0; !found;) {
    const int code = MPI_Iprobe(peer, head_tag, MPI_COMM_WORLD, &found, &status);
    PeerFailure::Facts f =
        facts(code == MPI_SUCCESS ? PeerFailure::Cause::kInterrupted : PeerFailure::Cause::kLost, phase, start);
    f.peer = peer;
    if (code != MPI_SUCCESS) f.detail = error_text(code);
    if (code != MPI_SUCCESS || interrupted_.load(std::memory_order_relaxed)) fail(std::move(f));
    if (found) break;
    if (Clock::now() - start >= wait) return false;
    advance_messages();
    backoff.pause();
  }
  int count = 0;
  MPI_Get_count(&status, MPI_BYTE, &count);
  std::vector<std::byte> head(count);
  Batch batch;
  post(batch, peer, Stream::kMessageHead, tag, std::span<std::byte>(head), phase);
  complete(batch, phase);
  uint64_t length = 0;
  std::memcpy(&length, head.data(), sizeof length);
  out.resize(length);
  const size_t first = head.size() - sizeof length;
  if (first > 0) std::memcpy(out.data(), head.data() + sizeof length, first);
  Batch rest;
  post(rest, peer, Stream::kMessageRest, tag, std::span(out).subspan(first), phase);
  complete(rest, phase);
  return true;
}

void MpiTransport::learn_hosts() {
  std::vector<std::array<char, kHostName>> names(size_);
  std::array<char, kHostName> mine{};
  std::strncpy(mine.data(), host_.c_str(), kHostName - 1);
  std::vector<Send> sends;
  std::vector<Receive> receives;
  for (int r = 0; r < size_; ++r) {
    sends.push_back({r, std::as_bytes(std::span(mine))});
    receives.push_back({r, std::as_writable_bytes(std::span(names[r]))});
  }
  exchange(sends, receives, {"exchange of host names"});
  local_size_ = static_cast<int>(std::count(names.begin(), names.end(), mine));
  local_rank_ = static_cast<int>(std::count(names.begin(), names.begin() + rank_, mine));
}

void MpiTransport::finalize() {
  const Phase phase{"leaving the group"};
  check_usable(phase);
  while (!outgoing_.empty()) {
    Outgoing last = std::move(outgoing_.front());  // complete() takes finished messages off the queue itself
    outgoing_.pop_front();
    complete(last.batch, phase);
  }
  // MPI_Finalize waits for everybody and knows no deadline; this does.
  const std::byte out{1};
  std::byte in{0};
  for (int reach = 1; reach < size_; reach *= 2) {
    const Send send{(rank_ + reach) % size_, {&out, 1}};
    const Receive receive{(rank_ + size_ - reach % size_) % size_, {&in, 1}};
    exchange({&send, 1}, {&receive, 1}, phase);
  }
  failed_ = true;  // of no further use
  MPI_Finalize();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Transport>> start_mpi(const TransportOptions& options) {
  int started = 0;
  MPI_Initialized(&started);
  if (started) return absl::FailedPreconditionError("transport = mpi: already started in this process");
  int provided = 0;
  // One thread at a time, but not always the one that called main.
  int code = MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &provided);
  if (code != MPI_SUCCESS) return absl::UnavailableError(absl::StrCat("transport = mpi: MPI_Init: ", error_text(code)));
  if (provided < MPI_THREAD_FUNNELED)
    return absl::UnavailableError(
        absl::StrCat("transport = mpi: this MPI offers thread level ", provided, ", funnelled is needed"));
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  int* largest_tag = nullptr;
  int has = 0;
  MPI_Comm_get_attr(MPI_COMM_WORLD, MPI_TAG_UB, &largest_tag, &has);
  if (!has || *largest_tag < kLargestMpiTag)
    return absl::UnavailableError(absl::StrCat("transport = mpi: this MPI allows tags up to ", has ? *largest_tag : 0, ", ",
                                               kLargestMpiTag, " are needed"));
  int rank = 0, size = 1;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  auto transport = std::make_unique<MpiTransport>(rank, size, options);
  try {
    transport->learn_hosts();
  } catch (const PeerFailure& failure) {
    return absl::UnavailableError(absl::StrCat("transport = mpi: ", failure.what()));
  }
  return absl::StatusOr<std::unique_ptr<Transport>>(std::move(transport));
}

}  // namespace invar::parallel
