#include "parallel/transport/group.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <stdexcept>

#include "absl/strings/str_cat.h"

namespace invar::parallel {
namespace {

void copy_own(std::span<const std::byte> from, std::span<std::byte> to) {
  // A different size here is a bug of the caller, caught before it writes past an end.
  if (from.size() != to.size()) throw std::logic_error("group collective: a rank's own piece has two sizes");
  if (!from.empty() && from.data() != to.data()) std::memmove(to.data(), from.data(), from.size());
}

}  // namespace

Group::Group(Transport& transport, std::vector<int> members, int tag)
    : transport_(&transport), members_(std::move(members)), tag_(tag) {
  for (int i = 0; i < size(); ++i)
    if (members_[i] == transport.rank()) index_ = i;
  if (index_ < 0) throw std::logic_error("group: rank " + std::to_string(transport.rank()) + " is not among its members");
}

Group Group::of_all(Transport& transport, int tag) {
  std::vector<int> ranks(static_cast<size_t>(transport.size()));
  std::iota(ranks.begin(), ranks.end(), 0);
  return {transport, std::move(ranks), tag};
}

void Group::exchange(std::span<const Send> sends, std::span<const Receive> receives, const char* name) {
  std::vector<Send> out(sends.begin(), sends.end());
  std::vector<Receive> in(receives.begin(), receives.end());
  for (Send& send : out) send.peer = members_[send.peer];
  for (Receive& receive : in) receive.peer = members_[receive.peer];
  transport_->exchange(out, in, next(name));
}

void Group::all_to_all_v(std::span<const std::span<const std::byte>> to, std::span<const std::span<std::byte>> from,
                         const char* name) {
  copy_own(to[index_], from[index_]);
  std::vector<Send> sends;
  std::vector<Receive> receives;
  // Start with the right-hand neighbour, so that not everybody calls on member 0 first.
  for (int step = 1; step < size(); ++step) {
    const int right = (index_ + step) % size();
    const int left = (index_ + size() - step) % size();
    sends.push_back({members_[right], to[right]});
    receives.push_back({members_[left], from[left]});
  }
  const Phase phase = next(name);
  if (size() > 1) transport_->exchange(sends, receives, phase);
}

void Group::all_gather_v(std::span<const std::byte> mine, std::span<const std::span<std::byte>> pieces, const char* name) {
  const std::vector<std::span<const std::byte>> to(size(), mine);
  all_to_all_v(to, pieces, name);
}

void Group::all_gather(std::span<const std::byte> mine, std::span<std::byte> all, const char* name) {
  if (all.size() != mine.size() * size()) throw std::logic_error("all_gather: `all` is not size() pieces");
  std::vector<std::span<std::byte>> pieces;
  for (int i = 0; i < size(); ++i) pieces.push_back(all.subspan(i * mine.size(), mine.size()));
  all_gather_v(mine, pieces, name);
}

void Group::gather(std::span<const std::byte> mine, std::span<std::byte> all, int root, const char* name) {
  const Phase phase = next(name);
  if (index_ != root) {
    const Send send{members_[root], mine};
    transport_->exchange({&send, 1}, {}, phase);
    return;
  }
  if (all.size() != mine.size() * size()) throw std::logic_error("gather: `all` is not size() pieces");
  std::vector<Receive> receives;
  for (int i = 0; i < size(); ++i)
    if (i != index_) receives.push_back({members_[i], all.subspan(i * mine.size(), mine.size())});
  copy_own(mine, all.subspan(index_ * mine.size(), mine.size()));
  if (!receives.empty()) transport_->exchange({}, receives, phase);
}

void Group::broadcast(std::span<std::byte> bytes, int root, const char* name) {
  // Binomial tree over places counted from root: in round k the first 2^k places send 2^k to the right.
  const Phase phase = next(name);
  const int place = (index_ - root + size()) % size();
  const auto member_at = [&](int p) { return members_[(p + root) % size()]; };
  int reach = 1;
  if (place > 0) {
    while (reach * 2 <= place) reach *= 2;
    const Receive receive{member_at(place - reach), bytes};
    transport_->exchange({}, {&receive, 1}, phase);
    reach *= 2;
  }
  std::vector<Send> sends;
  for (; place + reach < size(); reach *= 2) sends.push_back({member_at(place + reach), bytes});
  if (!sends.empty()) transport_->exchange(sends, {}, phase);
}

void Group::barrier(const char* name) {
  // Dissemination: after round k each rank has heard, directly or not, of the 2^(k+1) - 1 ranks to its left.
  const Phase phase = next(name);
  const std::byte out{1};
  std::byte in{0};
  for (int reach = 1; reach < size(); reach *= 2) {
    const Send send{members_[(index_ + reach) % size()], {&out, 1}};
    const Receive receive{members_[(index_ + size() - reach) % size()], {&in, 1}};
    transport_->exchange({&send, 1}, {&receive, 1}, phase);
  }
}

absl::Status Group::agree(const absl::Status& mine, const char* name) {
  constexpr size_t kText = 512;
  std::vector<char> text(kText), all(kText * members_.size());
  if (!mine.ok()) {
    const std::string message = mine.message().empty() ? "refused" : std::string(mine.message());
    std::copy_n(message.begin(), std::min(message.size(), kText - 1), text.begin());
  }
  all_gather(std::as_bytes(std::span(text)), std::as_writable_bytes(std::span(all)), name);
  for (size_t i = 0; i < members_.size(); ++i)
    if (const char* objection = &all[i * kText]; *objection)
      return absl::FailedPreconditionError(absl::StrCat(objection, " (rank ", members_[i], ")"));
  return absl::OkStatus();
}

}  // namespace invar::parallel
