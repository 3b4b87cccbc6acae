#include "parallel/exchange/expert_exchange.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "absl/strings/str_cat.h"
#include "kernels/rows/rows.h"

namespace invar::parallel {

ExpertExchange::ExpertExchange(const Device& device, const Group& ep, std::vector<int> owner)
    : device_(&device), ep_(ep), ep_host_(ep.on_host()), owner_(std::move(owner)), experts_of_(ep.size()) {
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

const int64_t* DeviceIndex::place(const Device& device, std::span<const int64_t> values) {
  if (device.backend() == Backend::kCpu) return values.data();
  if (buffer_.size() < values.size_bytes()) buffer_ = Buffer(device, values.size_bytes() * 5 / 4);
  device.upload(buffer_.data(), values.data(), values.size_bytes());
  return buffer_.as<int64_t>();
}

Bf16* ExpertExchange::rows_of(Buffer& buffer, int64_t rows) {
  const size_t bytes = rows * width_ * sizeof(Bf16);
  if (buffer.size() < bytes) buffer = Buffer(*device_, bytes + bytes / 4);  // a little more: routing differs from step to step
  return buffer.as<Bf16>();
}

void ExpertExchange::reorder(const Bf16* from, const std::vector<int64_t>& index, DeviceIndex& place, Bf16* to) {
  const int64_t bytes = width_ * int64_t{sizeof(Bf16)};
  gather_rows(*device_, {.count = static_cast<int64_t>(index.size()),
                         .row_bytes = bytes,
                         .from = from,
                         .from_stride = bytes,
                         .index = place.place(*device_, index),
                         .to = to,
                         .to_stride = bytes});
}

DispatchedRows ExpertExchange::dispatch(const Bf16* rows, int64_t n, int64_t width, const int32_t* ids, int64_t top_k) {
  width_ = width;
  const int64_t experts = static_cast<int64_t>(owner_.size());
  const int64_t capacity = (n * top_k + experts - 1) / experts;
  const bool bounded = device_->control_arm() == ControlArm::kExpertCapacity;
  ids_.resize(static_cast<size_t>(n * top_k));
  device_->download(ids_.data(), ids, ids_.size() * sizeof(int32_t));

  // Home order: (owner, expert, row, slot), so that a peer's rows are one stretch and an expert's rows one stretch in it.
  row_of_.assign(n * top_k, -1);
  sent_counts_.assign(experts, 0);
  for (int64_t i = 0; i < n * top_k; ++i) {
    if (ids_[i] < 0 || ids_[i] >= experts)
      throw std::logic_error(absl::StrCat("expert exchange: row ", i / top_k, " asks for expert ", ids_[i], " of ", experts));
    int64_t& count = sent_counts_[place_[ids_[i]]];
    if (bounded && count == capacity) continue;
    row_of_[i] = count++;  // for now the place within the expert's stretch
  }
  std::vector<int64_t> begin(experts + 1, 0);
  for (int64_t place = 0; place < experts; ++place) begin[place + 1] = begin[place] + sent_counts_[place];
  token_of_.resize(static_cast<size_t>(begin[experts]));
  for (int64_t i = 0; i < n * top_k; ++i)
    if (row_of_[i] >= 0) {
      row_of_[i] += begin[place_[ids_[i]]];
      token_of_[row_of_[i]] = i / top_k;
    }
  home_.assign(ep_.size(), {});
  for (int64_t peer = 0, place = 0; peer < ep_.size(); ++peer) {
    home_[peer].first = begin[place];
    place += static_cast<int64_t>(experts_of_[peer].size());
    home_[peer].count = begin[place] - home_[peer].first;
  }
  exchange_counts();

  const int64_t here = begin[experts], arriving = source_.back().first + source_.back().count;
  Bf16* home = rows_of(travelled_, here + arriving);
  reorder(rows, token_of_, token_index_, home);
  if (ep_.size() == 1) return {home, offsets_};  // home order is dispatched order

  move_rows(home, home_, home + here * width, source_, "expert dispatch");
  order_arrivals();
  Bf16* sorted = rows_of(sorted_rows_, offsets_.back());
  reorder(home, travelled_of_, travelled_index_, sorted);
  return {sorted, offsets_};
}

// Where each dispatched row lies among the travelled ones, and the way back.
void ExpertExchange::order_arrivals() {
  const int64_t here = static_cast<int64_t>(token_of_.size());
  travelled_of_.resize(static_cast<size_t>(offsets_.back()));
  leaving_of_.resize(static_cast<size_t>(source_.back().first + source_.back().count));
  staying_of_.resize(static_cast<size_t>(home_[ep_.index()].count));
  for (const Piece& piece : pieces_)
    for (int64_t i = 0; i < piece.count; ++i) {
      const int64_t sorted = piece.in_sorted + i, place = piece.in_stretch + i;
      if (piece.source == ep_.index()) {  // rows whose expert is at home did not travel: they are where they were packed
        travelled_of_[sorted] = home_[piece.source].first + place;
        staying_of_[place] = sorted;
      } else {
        travelled_of_[sorted] = here + source_[piece.source].first + place;
        leaving_of_[source_[piece.source].first + place] = sorted;
      }
    }
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
  ep_host_.all_to_all_v(to, from, "expert counts");

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
  const int64_t* row_of = row_of_index_.place(*device_, row_of_);
  if (ep_.size() == 1) return {results, row_of, row_of_};
  Bf16* home = travelled_.as<Bf16>();
  Bf16* leaving = home + static_cast<int64_t>(token_of_.size()) * width_;
  reorder(results, leaving_of_, leaving_index_, leaving);
  reorder(results, staying_of_, staying_index_, home + home_[ep_.index()].first * width_);
  move_rows(leaving, source_, home, home_, "expert return");
  return {home, row_of, row_of_};
}

}  // namespace invar::parallel
