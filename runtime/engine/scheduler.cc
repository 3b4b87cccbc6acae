#include "runtime/engine/scheduler.h"

#include <algorithm>
#include <cassert>
#include <tuple>

namespace invar::engine {
namespace {

// One running sequence more than the least loaded home has weighs as much as this many prompt tokens found in a prefix cache:
// below it a cached prefix attracts a sequence, above it load spreads.
constexpr int64_t kTokensPerRunningSequence = 64;
// Queued sequences that cannot start yet are passed over, but no plan looks at more of them than this.
constexpr int kMostPassedOver = 1024;
constexpr uint32_t kNoLogits = 0xffffffffu;
// Draws of one sequence under a constraint in one plan: each may bring a mask of its own (verification has many known tokens).
constexpr int64_t kMostMaskedDraws = 32;

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace

Scheduler::Scheduler(const SchedulerLimits& limits, const ReplicaFacts& facts) : limits_(limits), page_size_(facts.page_size) {
  homes_.reserve(facts.homes);
  for (int h = 0; h < facts.homes; ++h) homes_.emplace_back(facts.pages_per_home);
}

void Scheduler::add(Sequence* s) {
  assert(s->state == Sequence::State::kNew);
  s->state = Sequence::State::kWaiting;
  waiting_.insert(s);
}

void Scheduler::remove(Sequence* s, bool trust_pages) {
  if (s->state == Sequence::State::kRunning) {
    leave_ranks(s, trust_pages);
  } else {
    waiting_.erase(s);
  }
  if (s->number) numbers_.erase(s->number);
  s->number = 0;
  s->pending = 0;
  s->state = Sequence::State::kDone;
}

std::vector<Sequence*> Scheduler::abandon() {
  std::vector<Sequence*> all(waiting_.begin(), waiting_.end());
  all.insert(all.end(), running_.begin(), running_.end());
  std::sort(all.begin(), all.end(), SequenceOrder());
  for (Sequence* s : all) {
    s->state = Sequence::State::kNew;
    s->number = 0;
    s->pending = s->planned = s->registered = s->announced = 0;
    s->awaited_block = -1;
    s->pages.clear();
    s->keys.clear();  // the next replica's pages may have another size
  }
  waiting_.clear();
  running_.clear();
  numbers_.clear();
  ended_.clear();
  return all;
}

Sequence* Scheduler::find(uint64_t number) const {
  const auto it = numbers_.find(number);
  return it == numbers_.end() ? nullptr : it->second;
}

void Scheduler::received(Sequence* s) {
  assert(s->pending > 0);
  --s->pending;
  ++s->logits_from;
  if (s->state == Sequence::State::kWaiting && s->pending == 0) {
    numbers_.erase(s->number);
    s->number = 0;
  }
}

bool Scheduler::build(v1::StepPlan* plan, std::vector<ExpectedDraws>* expected) {
  budget_ = limits_.max_num_batched_tokens;
  preempted_ = false;
  masks_.clear();
  plan_decodes(plan, expected);
  plan_prefills(plan, expected);
  // Pages just ran out: whoever starts now would be the next to be thrown out.
  if (!preempted_) admit(plan, expected);
  if (plan->chunks().empty()) return false;
  plan->mutable_ended()->Add(ended_.begin(), ended_.end());
  ended_.clear();
  // Only now: a block found in the cache must be complete before the step in which it is read, whatever the order in which
  // ranks work on the chunks of one step.
  for (const v1::Chunk& chunk : plan->chunks()) register_blocks(numbers_.at(chunk.sequence()));
  return true;
}

void Scheduler::plan_decodes(v1::StepPlan* plan, std::vector<ExpectedDraws>* expected) {
  const std::vector<Sequence*> snapshot(running_.begin(), running_.end());
  for (Sequence* s : snapshot) {
    if (budget_ == 0) return;
    if (s->state != Sequence::State::kRunning || !s->plannable() || s->known_ahead() > 1) continue;
    // Its mask depends on the token that is still to be drawn.
    if (s->constraint && s->known_ahead() < 1) continue;
    std::vector<uint32_t> new_pages;
    if (room_for_next(s, &new_pages)) emit(s, 1, new_pages, plan, expected);
  }
}

void Scheduler::plan_prefills(v1::StepPlan* plan, std::vector<ExpectedDraws>* expected) {
  for (Sequence* s : running_) {
    if (budget_ == 0) return;
    if (s->known_ahead() > 1) emit(s, chunk_of(*s), {}, plan, expected);
  }
}

// Makes sure that position `planned` of a running sequence has a slot. Whoever is last in order in the same home gives way,
// `s` itself included: then false. Victims are never in this plan yet, because decodes are planned in order and before all else.
bool Scheduler::room_for_next(Sequence* s, std::vector<uint32_t>* new_pages) {
  if (s->planned < static_cast<int64_t>(s->pages.size()) * page_size_) return true;
  while (!home_of(*s).pool.allocate(1, new_pages)) {
    const auto victim = std::find_if(running_.rbegin(), running_.rend(), [&](Sequence* v) { return v->home == s->home; });
    Sequence* const last = *victim;
    preempt(last);
    if (last == s) return false;
  }
  s->pages.push_back(new_pages->back());
  return true;
}

void Scheduler::admit(v1::StepPlan* plan, std::vector<ExpectedDraws>* expected) {
  int passed_over = 0;
  for (auto it = waiting_.begin(); it != waiting_.end() && budget_ > 0 && passed_over < kMostPassedOver;) {
    if (static_cast<int64_t>(running_.size()) >= limits_.max_num_seqs) return;
    Sequence* s = *it++;
    // Preempted with draws in flight: they are kept, so it starts when they have come.
    if (s->pending > 0 || awaits_block(*s)) {
      ++passed_over;
      continue;
    }
    const Placement placement = place(s);
    if (placement.wait) {
      ++passed_over;
      continue;
    }
    if (placement.home < 0) return;  // nobody overtakes for lack of pages, or long prompts would starve
    std::vector<uint32_t> new_pages;
    start(s, placement, plan, &new_pages);
    emit(s, chunk_of(*s), new_pages, plan, expected);
  }
}

int64_t Scheduler::blocks_readable(const Sequence& s) const {
  // The first position whose logits are needed is computed, not found.
  return limits_.prefix_caching ? s.logits_from / page_size_ : 0;
}

Scheduler::Placement Scheduler::place(Sequence* s) {
  const int64_t readable = blocks_readable(*s);
  if (limits_.prefix_caching) extend_block_keys(s->tokens, page_size_, &s->keys);
  const int64_t table = divide_up(std::min<int64_t>(static_cast<int64_t>(s->tokens.size()), s->end), page_size_);
  int64_t least_running = INT64_MAX;
  for (const Home& home : homes_) least_running = std::min(least_running, home.running);
  s->awaited_block = -1;
  Placement best;
  int64_t best_score = 0, best_free = 0;
  for (size_t h = 0; h < homes_.size(); ++h) {
    Home& home = homes_[h];
    int64_t hits = 0, idle_hits = 0;
    for (; hits < readable; ++hits) {
      const std::optional<uint32_t> page = home.pool.find(s->keys[hits]);
      if (!page) break;
      idle_hits += home.pool.idle(*page);
    }
    // All known tokens get their pages at once, so that only decodes can run out; one page is left to those who run.
    const int64_t free = home.pool.available() - idle_hits;
    if (table - hits + (home.running > 0 ? 1 : 0) > free) continue;
    const int64_t score = hits * page_size_ - (home.running - least_running) * kTokensPerRunningSequence;
    if (best.home >= 0 && std::tie(score, free) <= std::tie(best_score, best_free)) continue;
    best.home = static_cast<int>(h);
    best.hits = hits;
    best_score = score;
    best_free = free;
  }
  if (best.home >= 0) await_blocks(s, best.home, best.hits, readable);
  best.wait = s->awaited_block >= 0;
  return best;
}

// If block `first` is being computed on `home`: remembers the last of the blocks that are, so that many equal prompts waiting for
// one cost one look-up each a plan.
void Scheduler::await_blocks(Sequence* s, int home, int64_t first, int64_t end) {
  s->home = home;
  for (int64_t i = first; i < end && homes_[home].computing.contains(s->keys[i]); ++i) s->awaited_block = i;
}

bool Scheduler::awaits_block(const Sequence& s) const {
  return s.awaited_block >= 0 && homes_[s.home].computing.contains(s.keys[s.awaited_block]);
}

void Scheduler::start(Sequence* s, const Placement& placement, v1::StepPlan* plan, std::vector<uint32_t>* new_pages) {
  waiting_.erase(s);
  running_.insert(s);
  s->state = Sequence::State::kRunning;
  s->number = next_number_++;
  s->home = placement.home;
  numbers_.emplace(s->number, s);
  Home& home = home_of(*s);
  ++home.running;
  // Shared before anything is allocated, or the allocation could evict what was just found.
  for (int64_t i = 0; i < placement.hits; ++i) {
    const uint32_t page = *home.pool.find(s->keys[i]);
    home.pool.share(page);
    s->pages.push_back(page);
  }
  s->planned = placement.hits * page_size_;
  s->registered = placement.hits;
  const int64_t known = std::min<int64_t>(static_cast<int64_t>(s->tokens.size()), s->end);
  const bool allocated = home.pool.allocate(divide_up(known, page_size_) - placement.hits, new_pages);
  assert(allocated);
  (void)allocated;
  s->announced = s->registered;
  if (limits_.prefix_caching)
    for (; s->announced < known / page_size_; ++s->announced) ++home.computing[s->keys[s->announced]];
  if (!s->started_before) s->cached_tokens = s->planned;
  s->started_before = true;

  v1::SequenceStart* started = plan->add_started();
  started->set_sequence(s->number);
  started->set_home(static_cast<uint32_t>(s->home));
  started->mutable_tokens()->Add(s->tokens.begin(), s->tokens.end());
  started->set_prompt_length(static_cast<uint32_t>(s->prompt_length));
  *started->mutable_sampling() = *s->sampling;
  started->set_choice(s->choice);
  started->set_top_logprobs(s->top_logprobs);
  started->set_prompt_logprobs(s->logits_from < s->prompt_length - 1 ? s->prompt_logprobs : -1);
  started->set_request_id(*s->request_id);
  started->mutable_pages()->Add(s->pages.begin(), s->pages.end());
  if (s->late_token_ids) started->mutable_late_token_ids()->Add(s->late_token_ids->begin(), s->late_token_ids->end());
  if (s->bad_words)
    for (const std::vector<int32_t>& word : *s->bad_words) started->add_bad_words()->mutable_ids()->Add(word.begin(), word.end());
  s->pages.insert(s->pages.end(), new_pages->begin(), new_pages->end());
}

// Known tokens of a running sequence that go into the next chunk.
int64_t Scheduler::chunk_of(const Sequence& s) const {
  const int64_t most = s.constraint ? std::max<int64_t>(s.logits_from - s.planned, 0) + kMostMaskedDraws : INT64_MAX;
  return std::min({s.known_ahead(), budget_, limits_.longest_chunk, most});
}

// Of the draws behind positions [first, planned), all of which are known.
void Scheduler::add_masks(Sequence* s, int64_t first, v1::Chunk* chunk, v1::StepPlan* plan) {
  for (int64_t p = first; p < s->planned; ++p) {
    uint32_t entry = 0;
    if (p + 1 >= s->prompt_length) {
      // An error ended the choice when its last token came; for a forced token behind one every draw is as good.
      const absl::StatusOr<grammar::TokenMask> mask = s->constraint->mask_after(s->answer_before(p + 1));
      if (mask.ok() && *mask) {
        const auto [found, added] = masks_.try_emplace(*mask, static_cast<uint32_t>(plan->token_masks_size()) + 1);
        if (added) plan->add_token_masks(reinterpret_cast<const char*>((*mask)->data()), (*mask)->size());
        entry = found->second;
      }
    }
    chunk->add_draw_masks(entry);
  }
}

void Scheduler::emit(Sequence* s, int64_t count, const std::vector<uint32_t>& new_pages, v1::StepPlan* plan,
                     std::vector<ExpectedDraws>* expected) {
  v1::Chunk* chunk = plan->add_chunks();
  chunk->set_sequence(s->number);
  chunk->set_first_position(static_cast<uint32_t>(s->planned));
  chunk->set_count(static_cast<uint32_t>(count));
  chunk->mutable_new_pages()->Add(new_pages.begin(), new_pages.end());
  const int64_t first_logits = std::max(s->planned, s->logits_from);
  s->planned += count;
  budget_ -= count;
  chunk->set_logits_from(first_logits < s->planned ? static_cast<uint32_t>(first_logits) : kNoLogits);
  if (first_logits >= s->planned) return;
  expected->push_back({s->number, first_logits + 1, s->planned - first_logits});
  s->pending += s->planned - first_logits;
  if (s->constraint) add_masks(s, first_logits, chunk, plan);
}

// Recomputing is the only form of preemption: its pages stay findable until somebody needs them, so coming back is often cheap.
void Scheduler::preempt(Sequence* s) {
  leave_ranks(s, true);
  s->state = Sequence::State::kWaiting;
  waiting_.insert(s);
  if (s->pending == 0) {
    numbers_.erase(s->number);
    s->number = 0;
  }
  ++preemptions_;
  preempted_ = true;
}

void Scheduler::leave_ranks(Sequence* s, bool trust_pages) {
  Home& home = home_of(*s);
  if (trust_pages) register_blocks(s);
  if (limits_.prefix_caching)
    for (int64_t i = s->registered; i < s->announced; ++i) {
      const auto it = home.computing.find(s->keys[i]);
      if (--it->second == 0) home.computing.erase(it);
    }
  if (!trust_pages)
    for (const uint32_t page : s->pages) home.pool.forget(page);
  home.pool.release(s->pages);
  --home.running;
  running_.erase(s);
  ended_.push_back(s->number);
  s->pages.clear();
  s->planned = s->registered = s->announced = 0;
}

// Makes full pages findable whose tokens are known and whose positions are in a plan. Later plans are executed later.
void Scheduler::register_blocks(Sequence* s) {
  if (!limits_.prefix_caching) return;
  const int64_t full = std::min<int64_t>(s->planned, static_cast<int64_t>(s->tokens.size())) / page_size_;
  if (s->registered >= full) return;
  extend_block_keys(s->tokens, page_size_, &s->keys);
  Home& home = home_of(*s);
  for (; s->registered < full; ++s->registered) {
    home.pool.remember(s->keys[s->registered], s->pages[s->registered]);
    if (s->registered >= s->announced) continue;
    const auto it = home.computing.find(s->keys[s->registered]);
    if (--it->second == 0) home.computing.erase(it);
  }
}

int64_t Scheduler::flush_cache() {
  int64_t freed = 0;
  for (Home& home : homes_) freed += home.pool.flush();
  return freed;
}

SchedulerCounts Scheduler::counts() const {
  SchedulerCounts c;
  c.running = static_cast<int64_t>(running_.size());
  c.waiting = static_cast<int64_t>(waiting_.size());
  for (const Home& home : homes_) {
    c.pages_total += home.pool.total();
    c.pages_used += home.pool.used();
    c.pages_cached += home.pool.cached();
  }
  c.preemptions = preemptions_;
  return c;
}

}  // namespace invar::engine
