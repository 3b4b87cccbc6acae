// Steps of clauses 12 and 13 for many rows: what runs over whole vocabularies goes to the GPU, what is left goes on here with the
// functions that sample() uses. One download for rows without filters, a second one for the candidates of the others.
#include "kernels/logits/cuda/sample_rows.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <vector>

#include "kernels/logits/candidates.h"
#include "kernels/logits/cuda/vocabulary.h"
#include "kernels/logits/log_softmax.h"
#include "kernels/logits/vocabulary_loops.h"

namespace invar::cuda {
namespace {

static_assert(sizeof(VocabularyTask) % alignof(VocabularyTally) == 0);

bool penalised(const SampleProblem& p) {
  const SamplingControls& c = p.controls;
  return (c.repetition_penalty != 1.0f && !(p.prompt.empty() && p.output.empty())) ||
         ((c.presence_penalty != 0.0f || c.frequency_penalty != 0.0f) && !p.output.empty());
}

// Drawn from a copy of the row.
bool changed(const SampleProblem& p) { return !p.allowed.empty() || !p.bias.empty() || penalised(p); }

// How a row is drawn, seen from its controls alone.
struct Filters {
  bool greedy, min_p, top_k, top_p;
  Filters(const SamplingControls& c, int64_t vocabulary)
      : greedy(c.temperature == 0.0f),
        min_p(!greedy && c.min_p > 0.0f),
        top_k(!greedy && c.top_k > 0 && c.top_k < vocabulary),
        top_p(!greedy && c.top_p < 1.0f) {}
  bool any() const { return min_p || top_k || top_p; }
};

// What happens to one row. A row's filters and its penalties decide which passes it needs.
struct Row {
  int raw = -1;   // task over the logits as they are
  int draw = -1;  // task the draw comes from: raw, or one over masked, biased and penalised logits
  bool filtered = false;
  bool wants_logprobs = false;
  int32_t forced = -1;
  bool on_host = false;  // the row is downloaded whole
};

struct Entry {
  int32_t id;
  float z;
};

bool before(const Entry& a, const Entry& b) {
  const uint32_t ka = numerics::order_key(a.z), kb = numerics::order_key(b.z);
  return ka != kb ? ka > kb : a.id < b.id;
}

template <class T>
T* room(const Device& device, Buffer& buffer, size_t count) {
  const size_t bytes = count * sizeof(T);
  if (buffer.size() < bytes) buffer = Buffer(device, bytes + bytes / 2);
  return buffer.as<T>();
}

}  // namespace

struct RowSampler::State {
  explicit State(const Device& d) : device(d) {}
  std::vector<SampledRow> run(const float* logits, int64_t vocabulary, std::span<const SampleProblem> problems);

 private:
  void plan(std::span<const SampleProblem> problems);
  void plan_draw(const SampleProblem& p, const Filters& filters, VocabularyTask& task) const;
  void plan_report(const SampleProblem& p, Row& row);
  std::vector<VocabularyPenalty> penalties_of(const SampleProblem& p) const;
  void pass();
  void fetch_candidates(const VocabularyPass& pass);
  std::vector<Entry> listed(int task) const;
  void finish(const SampleProblem& p, Row& row, SampleResult& result) const;
  int32_t draw_filtered(const SampleProblem& p, const Row& row, const std::vector<Entry>& candidates) const;
  void report(const SampleProblem& p, const Row& row, SampleResult& result) const;
  void sample_on_host(const SampleProblem& p, int64_t r, SampledRow& result);

  bool reversed() const { return device.control_arm() == ControlArm::kReversedTies; }
  int32_t id_of(unsigned long long largest) const {
    return static_cast<int32_t>(reversed() ? static_cast<uint32_t>(largest) : ~static_cast<uint32_t>(largest));
  }
  int64_t blocks() const { return (vocabulary_ + kVocabularyBlock - 1) / kVocabularyBlock; }

  const Device& device;
  const float* logits_ = nullptr;
  int64_t vocabulary_ = 0;
  std::vector<Row> rows_;
  std::vector<VocabularyTask> tasks_;
  std::vector<VocabularyPenalty> penalties_;
  std::map<const uint8_t*, std::vector<int>> masks_;  // by host mask: the tasks that look at it, all of one size
  Buffer task_memory_, changed_memory_, key_memory_, bin_memory_, candidate_memory_;
  Buffer tally_copy_, candidate_copy_;      // host
  const VocabularyTally* tally_ = nullptr;  // by task
  int64_t each_ = 0;                        // candidates of a task in candidate_copy_
  std::vector<std::byte> upload_copy_;
  std::vector<float> row_copy_;
};

std::vector<SampledRow> RowSampler::State::run(const float* logits, int64_t vocabulary, std::span<const SampleProblem> problems) {
  logits_ = logits;
  vocabulary_ = vocabulary;
  plan(problems);
  pass();
  std::vector<SampledRow> results(problems.size());
  device.pool().run(static_cast<int64_t>(problems.size()), [&](int64_t r) {
    if (rows_[r].on_host) return;
    results[r].hash = tally_[rows_[r].raw].hash;
    finish(problems[r], rows_[r], results[r].sample);
  });
  for (size_t r = 0; r < problems.size(); ++r)
    if (rows_[r].on_host) sample_on_host(problems[r], static_cast<int64_t>(r), results[r]);
  return results;
}

void RowSampler::State::plan(std::span<const SampleProblem> problems) {
  rows_.assign(problems.size(), {});
  tasks_.clear();
  penalties_.clear();
  masks_.clear();
  const auto copies = std::count_if(problems.begin(), problems.end(), changed);
  float* copy = copies ? room<float>(device, changed_memory_, static_cast<size_t>(copies * vocabulary_)) : nullptr;
  std::vector<size_t> listed;  // rows with a list of biases and penalties
  for (size_t r = 0; r < problems.size(); ++r) {
    const SampleProblem& p = problems[r];
    Row& row = rows_[r];
    const float* z = logits_ + static_cast<int64_t>(r) * vocabulary_;
    const Filters filters(p.controls, vocabulary_);
    row.filtered = filters.any();
    row.wants_logprobs = p.top_logprobs >= 0;
    row.forced = p.force >= 0 && p.force < vocabulary_ ? p.force : -1;
    // Too many candidates, or a rank that the candidates cannot tell: sample() does the whole row.
    const int64_t most = blocks() / 2;
    row.on_host = vocabulary_ == 0 || !(p.controls.temperature >= 0.0f) || !(p.controls.top_p > 0.0f) || p.top_logprobs > most ||
                  (filters.top_k && !filters.min_p && p.controls.top_k > most) ||
                  (filters.min_p && least_mass(p.controls.min_p) == 0) || (row.filtered && most == 0) ||
                  (row.filtered && changed(p) && row.wants_logprobs);
    if (row.on_host) continue;
    row.raw = row.draw = static_cast<int>(tasks_.size());
    tasks_.push_back({.z = z, .hash = true});
    if (changed(p)) {
      row.draw = static_cast<int>(tasks_.size());
      tasks_.push_back({.z = copy,
                        .raw = z,
                        .allowed_bytes = static_cast<int64_t>(p.allowed.size()),
                        .repetition = p.controls.repetition_penalty,
                        .frequency = p.controls.frequency_penalty,
                        .presence = p.controls.presence_penalty});
      if (!p.allowed.empty()) masks_[p.allowed.data()].push_back(row.draw);
      listed.push_back(r);
      copy += vocabulary_;
    }
    plan_draw(p, filters, tasks_[row.draw]);
    plan_report(p, row);
  }
  std::vector<std::vector<VocabularyPenalty>> lists(listed.size());
  device.pool().run(static_cast<int64_t>(listed.size()), [&](int64_t i) { lists[i] = penalties_of(problems[listed[i]]); });
  for (size_t i = 0; i < listed.size(); ++i) {
    VocabularyTask& task = tasks_[rows_[listed[i]].draw];
    task.first_penalty = static_cast<int64_t>(penalties_.size());
    penalties_.insert(penalties_.end(), lists[i].begin(), lists[i].end());
    task.last_penalty = static_cast<int64_t>(penalties_.size());
  }
}

void RowSampler::State::plan_draw(const SampleProblem& p, const Filters& filters, VocabularyTask& task) const {
  if (filters.greedy) return;
  task.temperature = p.controls.temperature;
  task.position = static_cast<uint32_t>(p.position);
  task.choice = p.controls.choice;
  task.seed = p.controls.seed;
  task.noise = !filters.any();
  if (filters.min_p) {
    task.by_mass = true;
    task.least = log_of_masses(least_mass(p.controls.min_p));
  } else if (filters.top_k) {
    task.best_scaled = p.controls.top_k;
  } else if (filters.top_p) {
    task.nucleus = p.controls.top_p;
  }
}

void RowSampler::State::plan_report(const SampleProblem& p, Row& row) {
  VocabularyTask& task = tasks_[row.raw];
  task.mass = row.wants_logprobs || row.forced >= 0;
  task.forced = row.forced;
  task.best = std::max(p.top_logprobs, 0);
  // The rank of a draw among candidates is found among them.
  if (row.wants_logprobs && !row.filtered) task.drawn_by = row.draw;
}

std::vector<VocabularyPenalty> RowSampler::State::penalties_of(const SampleProblem& p) const {
  thread_local std::vector<int32_t> place_of;  // by id: 1 + its place in the list, 0 = none; all 0 between calls
  place_of.resize(std::max<size_t>(place_of.size(), vocabulary_));
  std::vector<VocabularyPenalty> list;
  const auto entry = [&](int32_t token) -> VocabularyPenalty& {
    int32_t& place = place_of[token];
    if (place == 0) {
      list.push_back({token, -1, 0});
      place = static_cast<int32_t>(list.size());
    }
    return list[place - 1];
  };
  for (const LogitBias& b : p.bias)
    if (b.bias != 0.0f && b.token >= 0 && b.token < vocabulary_) entry(b.token).bias = b.bias;
  if (penalised(p))
    for (const bool output : {false, true})
      for (const int32_t token : output ? p.output : p.prompt) {
        if (token < 0 || token >= vocabulary_) continue;
        VocabularyPenalty& e = entry(token);
        e.count = std::max(e.count, 0) + (output ? 1 : 0);
      }
  for (const VocabularyPenalty& penalty : list) place_of[penalty.id] = 0;
  return list;
}

void RowSampler::State::pass() {
  tally_ = nullptr;
  each_ = 0;
  if (tasks_.empty()) return;
  bool masses = false, keys = false, bins = false, bounds = false, copies = false;
  int64_t most_penalties = 0;
  for (const VocabularyTask& t : tasks_) {
    masses |= t.mass;
    keys |= t.best > 0 || t.best_scaled > 0;
    bins |= t.nucleus > 0;
    bounds |= t.by_mass;
    copies |= t.raw != nullptr;
    most_penalties = std::max(most_penalties, t.last_penalty - t.first_penalty);
  }
  const bool lists = keys || bins || bounds;
  // The tallies' zeros travel with the tasks: one copy instead of a copy and a clearing.
  const size_t task_bytes = tasks_.size() * sizeof(VocabularyTask), tally_bytes = tasks_.size() * sizeof(VocabularyTally);
  const size_t penalty_bytes = penalties_.size() * sizeof(VocabularyPenalty);
  const size_t mask_begin = task_bytes + tally_bytes + penalty_bytes;
  size_t bytes = mask_begin;
  for (const auto& [mask, users] : masks_) bytes += static_cast<size_t>(tasks_[users.front()].allowed_bytes);
  upload_copy_.assign(bytes, std::byte{});
  auto* tasks = reinterpret_cast<VocabularyTask*>(room<std::byte>(device, task_memory_, bytes));
  size_t at = mask_begin;
  for (const auto& [mask, users] : masks_) {  // rows that share a mask share its copy
    const auto size = static_cast<size_t>(tasks_[users.front()].allowed_bytes);
    std::memcpy(upload_copy_.data() + at, mask, size);
    for (const int task : users) tasks_[task].allowed = reinterpret_cast<const uint8_t*>(tasks) + at;
    at += size;
  }
  std::memcpy(upload_copy_.data(), tasks_.data(), task_bytes);
  if (penalty_bytes) std::memcpy(upload_copy_.data() + task_bytes + tally_bytes, penalties_.data(), penalty_bytes);
  device.upload(tasks, upload_copy_.data(), upload_copy_.size());
  VocabularyPass pass{.vocabulary = vocabulary_,
                      .tasks = static_cast<int>(tasks_.size()),
                      .task = tasks,
                      .tally = reinterpret_cast<VocabularyTally*>(tasks + tasks_.size()),
                      .reversed_ties = reversed()};
  if (keys) pass.block_keys = room<uint32_t>(device, key_memory_, tasks_.size() * blocks());
  if (bins) pass.bins = room<unsigned long long>(device, bin_memory_, tasks_.size() * kVocabularyBins);
  if (lists) pass.candidates = room<VocabularyCandidate>(device, candidate_memory_, tasks_.size() * kMostCandidates);
  if (copies) penalise(device, pass, reinterpret_cast<const VocabularyPenalty*>(pass.tally + tasks_.size()), most_penalties);
  scan_vocabulary(device, pass);
  if (bins) bin_masses(device, pass);
  if (lists) find_thresholds(device, pass);
  if (lists || masses) weigh_vocabulary(device, pass);

  if (tally_copy_.size() < tally_bytes) tally_copy_ = Buffer::staging(device, 2 * tally_bytes);
  device.download(tally_copy_.data(), pass.tally, tally_bytes);
  tally_ = tally_copy_.as<VocabularyTally>();
  fetch_candidates(pass);
}

void RowSampler::State::fetch_candidates(const VocabularyPass& pass) {
  for (int t = 0; t < pass.tasks; ++t) each_ = std::max<int64_t>(each_, tally_[t].candidates);
  each_ = std::min<int64_t>(each_, kMostCandidates);
  if (each_ == 0) return;
  const size_t bytes = static_cast<size_t>(pass.tasks * each_) * sizeof(VocabularyCandidate);
  if (candidate_copy_.size() < bytes) candidate_copy_ = Buffer::staging(device, 2 * bytes);
  download_candidates(device, pass, each_, candidate_copy_.as<VocabularyCandidate>());
}

// They come in any order; by id they do not depend on it.
std::vector<Entry> RowSampler::State::listed(int task) const {
  const auto* from = candidate_copy_.as<VocabularyCandidate>() + task * each_;
  std::vector<Entry> entries;
  entries.reserve(tally_[task].candidates);
  for (uint32_t i = 0; i < tally_[task].candidates; ++i) entries.push_back({from[i].id, from[i].z});
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) { return a.id < b.id; });
  return entries;
}

void RowSampler::State::finish(const SampleProblem& p, Row& row, SampleResult& result) const {
  for (const int task : {row.raw, row.draw}) {
    const VocabularyTally& tally = tally_[task];
    result.finite = finite_range(~tally.lowest_flipped, static_cast<uint32_t>(tally.largest >> 32));
    if (!result.finite) return;
    row.on_host |= tally.candidates > kMostCandidates;
  }
  if (row.on_host) return;
  const VocabularyTally& tally = tally_[row.draw];
  const bool scaled = tasks_[row.draw].temperature > 0.0f && finite_range(~tally.scaled_lowest_flipped, tally.scaled_highest);
  if (!scaled)
    result.token = id_of(tally.largest);
  else if (!row.filtered)
    result.token = id_of(tally.largest_noisy);
  else
    result.token = draw_filtered(p, row, listed(row.draw));
  row.on_host = result.token < 0 || (row.filtered && !scaled && row.wants_logprobs);
  if (!row.on_host) report(p, row, result);
}

// Steps 3 to 6 among the candidates; -1 if they are not enough.
int32_t RowSampler::State::draw_filtered(const SampleProblem& p, const Row& row, const std::vector<Entry>& candidates) const {
  const SamplingControls& c = p.controls;
  const Filters filters(c, vocabulary_);
  const VocabularyTally& tally = tally_[row.draw];
  const VocabularyLoops& loops = vocabulary_loops(device.isa());
  std::vector<int32_t> ids;
  std::vector<float> y;
  for (const Entry& e : candidates) {
    const float scaled = numerics::div(e.z, c.temperature);
    if (numerics::order_key(scaled) < tally.scaled_threshold) continue;  // listed for a log-probability
    ids.push_back(e.id);
    y.push_back(scaled);
  }
  Candidates kept(loops);
  kept.reset_listed(ids, y);
  const float max = float_of_key(tally.scaled_highest);
  if (filters.min_p) kept.keep_mass(least_mass(c.min_p), max);
  if (filters.top_k) kept.keep_top(c.top_k);
  if (filters.top_p) {
    const bool whole = !filters.min_p && !filters.top_k;
    if (!kept.keep_nucleus(c.top_p, max, whole ? tally.scaled_mass : kept.total_mass(max)) && whole) return -1;
  }
  if (kept.size() == 0) return -1;
  std::vector<float> noisy(static_cast<size_t>(kept.size()));
  loops.perturb(kept.y(), kept.ids(), kept.size(), c.seed, static_cast<uint32_t>(p.position), c.choice, noisy.data());
  int32_t lowest, highest;
  loops.key_range(noisy.data(), kept.size(), &lowest, &highest);
  return kept.ids()[reversed() ? loops.find_last(noisy.data(), kept.size(), highest)
                               : loops.find_first(noisy.data(), kept.size(), highest)];
}

void RowSampler::State::report(const SampleProblem& p, const Row& row, SampleResult& result) const {
  if (!row.wants_logprobs && row.forced < 0) return;
  const VocabularyTally& tally = tally_[row.raw];
  const LogSoftmax log_softmax{float_of_key(static_cast<uint32_t>(tally.largest >> 32)), log_of_masses(tally.mass)};
  const auto described = [&](int32_t token, float z, int64_t rank) {
    return TokenLogprob{token, log_softmax.of(z), static_cast<int32_t>(rank)};
  };
  if (row.forced >= 0) result.forced = described(row.forced, tally.forced_logit, int64_t{tally.forced_before} + 1);
  if (!row.wants_logprobs) return;
  std::vector<Entry> candidates = listed(row.raw);
  if (row.filtered) {
    // Whatever comes before the draw in order has a quotient no smaller than its, so it is a candidate too.
    const auto chosen = std::lower_bound(candidates.begin(), candidates.end(), Entry{result.token, 0},
                                         [](const Entry& a, const Entry& b) { return a.id < b.id; });
    const auto earlier = std::count_if(candidates.begin(), candidates.end(), [&](const Entry& e) { return before(e, *chosen); });
    result.chosen = described(result.token, chosen->z, earlier + 1);
  } else {
    result.chosen = described(result.token, tally.drawn_logit, int64_t{tally.drawn_before} + 1);
  }
  if (p.top_logprobs == 0) return;
  const auto count = std::min<size_t>(candidates.size(), static_cast<size_t>(p.top_logprobs));
  std::partial_sort(candidates.begin(), candidates.begin() + static_cast<int64_t>(count), candidates.end(), before);
  for (size_t i = 0; i < count; ++i)
    result.top.push_back(described(candidates[i].id, candidates[i].z, static_cast<int64_t>(i) + 1));
}

void RowSampler::State::sample_on_host(const SampleProblem& p, int64_t r, SampledRow& result) {
  row_copy_.resize(static_cast<size_t>(vocabulary_));
  device.download(row_copy_.data(), logits_ + r * vocabulary_, row_copy_.size() * sizeof(float));
  SampleProblem problem = p;
  problem.logits = row_copy_;
  result = {sample(device, problem), hash_logits(device, row_copy_.data(), vocabulary_, 0)};
}

RowSampler::RowSampler(const Device& device) : state_(std::make_unique<State>(device)) {}
RowSampler::~RowSampler() = default;

std::vector<SampledRow> RowSampler::run(const float* logits, int64_t vocabulary, std::span<const SampleProblem> problems) {
  return state_->run(logits, vocabulary, problems);
}

}  // namespace invar::cuda
