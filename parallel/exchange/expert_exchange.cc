#include "parallel/exchange/expert_exchange.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "absl/strings/str_cat.h"

namespace invar::parallel {

ExpertExchange::ExpertExchange(const Device& device, const Group& ep, std::vector<int> owner)
    : device_(&device), ep_(ep), owner_(std::move(owner)), experts_of_(ep.size()) {
  for (size_t expert = 0; expert < owner_.size(); ++expert) {
    if (owner_[expert] < 0 || owner_[expert] >= ep.size())
      throw std::logic_error(absl::StrCat("expert exchange: expert ", expert, " has owner ", owner_[expert], " of ", ep.size()));
    experts_of_[owner_[expert]].push_back(static_cast<int>(expert));
  }
  local_experts_ = experts_of_[ep.index()];
  place_.resize(owner_.size());
  int place = 0;
  for (const std::vector<int>& experts : experts_of_)
    for (int expert : experts) place_[expert] = place++;
}

Bf16* ExpertExchange::rows_of(Buffer& buffer, int64_t rows) {
  const size_t bytes = rows * width_ * sizeof(Bf16);
  if (buffer.size() < bytes) buffer = Buffer(bytes + bytes / 4);  // a little more: routing differs from step to step
  return buffer.as<Bf16>();
}

DispatchedRows ExpertExchange::dispatch(const Bf16* rows, int64_t n, int64_t width, const int32_t* ids, int64_t top_k) {
  width_ = width;
  const int64_t experts = static_cast<int64_t>(owner_.size());
  const int64_t capacity = (n * top_k + experts - 1) / experts;
  const bool bounded = device_->control_arm() == ControlArm::kExpertCapacity;

  // Home order: (owner, expert, row, slot), so that a peer's rows are one stretch and an expert's rows one stretch in it.
  row_of_.assign(n * top_k, -1);
  sent_counts_.assign(experts, 0);
  for (int64_t i = 0; i < n * top_k; ++i) {
    if (ids[i] < 0 || ids[i] >= experts)
      throw std::logic_error(absl::StrCat("expert exchange: row ", i / top_k, " asks for expert ", ids[i], " of ", experts));
    int64_t& count = sent_counts_[place_[ids[i]]];
    if (bounded && count == capacity) continue;
    row_of_[i] = count++;  // for now the place within the expert's stretch
  }
  std::vector<int64_t> begin(experts + 1, 0);
  for (int64_t place = 0; place < experts; ++place) begin[place + 1] = begin[place] + sent_counts_[place];
  for (int64_t i = 0; i < n * top_k; ++i)
    if (row_of_[i] >= 0) row_of_[i] += begin[place_[ids[i]]];
  Bf16* home = rows_of(home_rows_, begin[experts]);
  device_->pool().run(n, [&](int64_t r) {
    for (int64_t i = r * top_k; i < (r + 1) * top_k; ++i)
      if (row_of_[i] >= 0) std::memcpy(home + row_of_[i] * width, rows + r * width, width * sizeof(Bf16));
  });

  home_.assign(ep_.size(), {});
  for (int64_t peer = 0, place = 0; peer < ep_.size(); ++peer) {
    home_[peer].first = begin[place];
    place += static_cast<int64_t>(experts_of_[peer].size());
    home_[peer].count = begin[place] - home_[peer].first;
  }
  exchange_counts();
  if (ep_.size() == 1) return {home, offsets_};  // home order is dispatched order

  Bf16* arrived = rows_of(arrival_rows_, source_.back().first + source_.back().count);
  move_rows(home, home_, arrived, source_, "expert dispatch");
  Bf16* sorted = rows_of(sorted_rows_, offsets_.back());
  device_->pool().run(static_cast<int64_t>(pieces_.size()), [&](int64_t i) {
    const Piece& piece = pieces_[i];
    // Rows whose expert is at home did not travel: they are where they were packed.
    const bool stayed = piece.source == ep_.index();
    const Bf16* from = stayed ? home + home_[piece.source].first * width : arrived + source_[piece.source].first * width;
    std::memcpy(sorted + piece.in_sorted * width, from + piece.in_stretch * width, piece.count * width * sizeof(Bf16));
  });
  return {sorted, offsets_};
}

void ExpertExchange::exchange_counts() {
  const int64_t local = static_cast<int64_t>(local_experts_.size());
  received_counts_.assign(ep_.size() * local, 0);
  std::vector<std::span<const std::byte>> to;
  std::vector<std::span<std::byte>> from;
  for (int64_t peer = 0, place = 0; peer < ep_.size(); ++peer) {
    const size_t experts = experts_of_[peer].size();
    to.push_back(std::as_bytes(std::span(sent_counts_).subspan(place, experts)));
    from.push_back(std::as_writable_bytes(std::span(received_counts_).subspan(peer * local, local)));
    place += static_cast<int64_t>(experts);
  }
  ep_.all_to_all_v(to, from, "expert counts");

  source_.assign(ep_.size(), {});
  std::vector<int64_t> in_stretch(ep_.size(), 0);
  for (int source = 0; source < ep_.size(); ++source) {
    if (source > 0) source_[source].first = source_[source - 1].first + source_[source - 1].count;
    if (source == ep_.index()) continue;  // an empty stretch of arrivals
    for (int64_t e = 0; e < local; ++e) source_[source].count += received_counts_[source * local + e];
  }
  offsets_.assign(local + 1, 0);
  pieces_.clear();
  for (int64_t e = 0, at = 0; e < local; ++e) {
    for (int source = 0; source < ep_.size(); ++source) {
      const int64_t count = received_counts_[source * local + e];
      if (count > 0) pieces_.push_back({source, in_stretch[source], at, count});
      in_stretch[source] += count;
      at += count;
    }
    offsets_[e + 1] = at;
  }
}

void ExpertExchange::move_rows(const Bf16* from, const std::vector<Stretch>& sent, Bf16* to, const std::vector<Stretch>& received,
                               const char* name) {
  const int64_t chunk = std::max<int64_t>(1, kExchangeChunkBytes / (width_ * int64_t{sizeof(Bf16)}));  // rows
  std::vector<Send> sends;
  std::vector<Receive> receives;
  for (int step = 1; step < ep_.size(); ++step) {
    const int right = (ep_.index() + step) % ep_.size();
    const int left = (ep_.index() + ep_.size() - step) % ep_.size();
    for (int64_t at = 0; at < sent[right].count; at += chunk) {
      const int64_t rows = std::min(chunk, sent[right].count - at);
      sends.push_back({right, std::as_bytes(std::span(from + (sent[right].first + at) * width_, rows * width_))});
    }
    for (int64_t at = 0; at < received[left].count; at += chunk) {
      const int64_t rows = std::min(chunk, received[left].count - at);
      receives.push_back({left, std::as_writable_bytes(std::span(to + (received[left].first + at) * width_, rows * width_))});
    }
  }
  ep_.exchange(sends, receives, name);
}

ReturnedRows ExpertExchange::combine_return(const Bf16* results) {
  if (ep_.size() == 1) return {results, row_of_};
  Bf16* home = home_rows_.as<Bf16>();
  Bf16* leaving = arrival_rows_.as<Bf16>();
  device_->pool().run(static_cast<int64_t>(pieces_.size()), [&](int64_t i) {
    const Piece& piece = pieces_[i];
    const bool stays = piece.source == ep_.index();
    Bf16* into = stays ? home + home_[piece.source].first * width_ : leaving + source_[piece.source].first * width_;
    std::memcpy(into + piece.in_stretch * width_, results + piece.in_sorted * width_, piece.count * width_ * sizeof(Bf16));
  });
  move_rows(leaving, source_, home, home_, "expert return");
  return {home, row_of_};
}

}  // namespace invar::parallel
