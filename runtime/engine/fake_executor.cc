#include "runtime/engine/fake_executor.h"

#include <algorithm>

#include "kernels/numerics.h"
#include "runtime/model_config/message.h"

namespace invar::engine {

using numerics::mix64;

uint64_t FakeModel::slot(uint64_t previous, int64_t position, int32_t token) const {
  return mix64(previous ^ mix64(salt * 1000003 + static_cast<uint64_t>(position) * 65537 + static_cast<uint64_t>(token)));
}
uint64_t FakeModel::logits_hash(uint64_t slot) const { return mix64(slot ^ 0x1061751061751061ull); }
int32_t FakeModel::draw(uint64_t slot, int64_t position, const v1::SamplingParams& s, uint32_t choice) const {
  uint64_t h = mix64(slot ^ 0xd4a3);
  if (s.temperature() > 0) h = mix64(h ^ mix64(s.seed()) ^ mix64(choice * 7919ull + static_cast<uint64_t>(position)));
  return static_cast<int32_t>(h % static_cast<uint64_t>(vocab_size));
}
int32_t FakeModel::permitted(int32_t token, const std::function<bool(int32_t)>& may) const {
  for (int64_t i = 0; i < vocab_size; ++i)
    if (const auto t = static_cast<int32_t>((token + i) % vocab_size); may(t)) return t;
  return token;
}
float FakeModel::logprob(uint64_t slot, int32_t token) const {
  return -static_cast<float>(mix64(slot ^ static_cast<uint64_t>(token)) % 100000) / 7919.0f;
}
FakeModel::Answer FakeModel::answer(const std::vector<int32_t>& prompt, const v1::SamplingParams& sampling, uint32_t choice,
                                    int64_t count, const May& may) const {
  Answer out;
  uint64_t state = 0;
  for (size_t p = 0; p < prompt.size(); ++p) state = slot(state, static_cast<int64_t>(p), prompt[p]);
  for (int64_t i = 0; i < count; ++i) {
    const int64_t position = static_cast<int64_t>(prompt.size()) + i;
    out.hashes.push_back(logits_hash(state));
    const int32_t drawn = draw(state, position, sampling, choice);
    out.tokens.push_back(may ? permitted(drawn, [&](int32_t t) { return may(out.tokens, t); }) : drawn);
    state = slot(state, position, out.tokens.back());
  }
  return out;
}

FakeExecutor::FakeExecutor(FakeOptions options) : options_(std::move(options)), report_(std::make_shared<Report>()) {
  const ReplicaFacts& f = options_.facts;
  kv_.assign(f.homes, std::vector<uint64_t>(f.pages_per_home * f.page_size, 0xdeadull));
  tables_.assign(f.homes, std::vector<int>(f.pages_per_home, 0));
}

absl::Status FakeExecutor::submit(const v1::StepPlan& plan) {
  std::lock_guard lock(mutex_);
  if (lost_) return absl::UnavailableError("rank 1 on host b is gone, phase all-reduce, collective 17");
  queue_.push_back(plan);
  last_submit_ = std::chrono::steady_clock::now();
  changed_.notify_all();
  return absl::OkStatus();
}

absl::StatusOr<v1::StepResult> FakeExecutor::next(std::chrono::milliseconds wait) {
  std::unique_lock lock(mutex_);
  const auto until = std::chrono::steady_clock::now() + wait;
  while (true) {
    if (lost_) return absl::UnavailableError("rank 1 on host b is gone, phase all-reduce, collective 17");
    const auto now = std::chrono::steady_clock::now();
    const bool hangs = !queue_.empty() && queue_.front().step() == options_.hang_at_step && !released_;
    if (!hangs && !queue_.empty() &&
        (static_cast<int>(queue_.size()) >= options_.backlog || now - last_submit_ >= options_.patience))
      break;
    if (now >= until) return absl::DeadlineExceededError("no result");
    changed_.wait_until(lock, queue_.empty() || hangs ? until : std::min(until, last_submit_ + options_.patience));
  }
  {
    std::lock_guard guard(report_->mutex);
    report_->most_backlog = std::max<int64_t>(report_->most_backlog, static_cast<int64_t>(queue_.size()));
  }
  const v1::StepPlan plan = queue_.front();
  queue_.pop_front();
  if (options_.lose_at_step && plan.step() >= options_.lose_at_step) {
    lost_ = true;
    if (!options_.fail_by_result) return absl::UnavailableError("rank 1 on host b is gone, phase all-reduce, collective 17");
    v1::StepResult failed;
    failed.set_failure("rank 1 on host b is gone, phase all-reduce, collective 17");
    return failed;
  }
  lock.unlock();
  v1::StepResult result = execute(plan);
  if (options_.tamper) options_.tamper(&result);
  return result;
}

void FakeExecutor::shutdown(std::chrono::milliseconds) {
  std::lock_guard lock(report_->mutex);
  report_->told_to_leave = true;
}

void FakeExecutor::release() {
  std::lock_guard lock(mutex_);
  released_ = true;
  changed_.notify_all();
}

void FakeExecutor::violation(const v1::StepPlan& plan, const std::string& what) {
  std::lock_guard lock(report_->mutex);
  report_->violations.push_back(message("step ", plan.step(), ": ", what));
}

uint64_t* FakeExecutor::slot(uint32_t home, uint32_t page, int64_t offset) {
  return &kv_[home][page * options_.facts.page_size + offset];
}

v1::StepResult FakeExecutor::execute(const v1::StepPlan& plan) {
  {
    std::lock_guard lock(report_->mutex);
    ++report_->plans;
  }
  if (plan.step() != step_ + 1) violation(plan, message("comes after step ", step_));
  step_ = plan.step();
  for (const uint64_t number : plan.ended()) {
    const auto it = live_.find(number);
    if (it == live_.end()) {
      violation(plan, message("ends sequence ", number, ", which is not live"));
      continue;
    }
    for (const uint32_t page : it->second.pages) --tables_[it->second.home][page];
    live_.erase(it);
  }
  // All starts first: what they found in the cache must be there before anything of this step is computed.
  for (const v1::SequenceStart& start : plan.started()) begin(plan, start);
  int64_t tokens = 0, decodes = 0;
  std::set<uint64_t> seen;
  for (const v1::Chunk& chunk : plan.chunks()) {
    tokens += chunk.count();
    decodes += chunk.count() == 1;
    if (!seen.insert(chunk.sequence()).second) violation(plan, message("has two chunks of sequence ", chunk.sequence()));
  }
  if (plan.chunks().empty()) violation(plan, "computes nothing");
  if (tokens > options_.max_num_batched_tokens) violation(plan, message("has ", tokens, " tokens"));
  if (plan.chunks_size() > options_.max_num_seqs || static_cast<int64_t>(live_.size()) > options_.max_num_seqs)
    violation(plan, message("has ", plan.chunks_size(), " chunks of ", live_.size(), " live sequences"));
  v1::StepResult result;
  result.set_step(plan.step());
  for (int row = 0; row < plan.chunks_size(); ++row) run(plan, row, plan.chunks(row), &result);
  std::lock_guard lock(report_->mutex);
  report_->computed_tokens += tokens;
  report_->mixed_plans += decodes > 0 && decodes < plan.chunks_size();
  return result;
}

void FakeExecutor::begin(const v1::StepPlan& plan, const v1::SequenceStart& start) {
  if (start.sequence() <= last_sequence_) violation(plan, message("sequence number ", start.sequence(), " is not new"));
  last_sequence_ = std::max(last_sequence_, start.sequence());
  if (start.home() >= kv_.size()) {
    violation(plan, message("home ", start.home()));
    return;
  }
  Live live;
  live.start = start;
  live.home = start.home();
  live.tokens.assign(start.tokens().begin(), start.tokens().end());
  live.known = start.tokens_size();
  live.pages.assign(start.pages().begin(), start.pages().end());
  if (start.prompt_length() < 1 || start.prompt_length() > live.tokens.size())
    violation(plan, message("prompt_length ", start.prompt_length(), " of ", live.tokens.size(), " tokens"));
  const v1::SamplingParams& s = start.sampling();
  if (!(s.has_temperature() && s.has_top_k() && s.has_top_p() && s.has_min_p() && s.has_repetition_penalty() &&
        s.has_presence_penalty() && s.has_frequency_penalty() && s.has_seed()))
    violation(plan, "sampling parameters are not effective ones");
  const int64_t page_size = options_.facts.page_size;
  live.computed = static_cast<int64_t>(live.pages.size()) * page_size;
  if (live.computed >= live.known) violation(plan, "nothing is left to compute after the cached pages");
  uint64_t state = 0;
  for (int64_t p = 0; p < std::min(live.computed, live.known); ++p) {
    state = options_.model.slot(state, p, live.tokens[p]);
    live.slots.push_back(state);
    const uint32_t page = live.pages[p / page_size];
    if (page >= tables_[live.home].size() || *slot(live.home, page, p % page_size) != state) {
      violation(plan, message("sequence ", start.sequence(), ": cached page ", page, " does not hold position ", p));
      break;
    }
  }
  for (const uint32_t page : live.pages) ++tables_[live.home][page];
  {
    std::lock_guard lock(report_->mutex);
    report_->cached_pages += live.pages.size();
    report_->homes_used.insert(live.home);
  }
  live_.emplace(start.sequence(), std::move(live));
}

void FakeExecutor::run(const v1::StepPlan& plan, int row, const v1::Chunk& chunk, v1::StepResult* result) {
  const auto it = live_.find(chunk.sequence());
  const std::string who = message("sequence ", chunk.sequence(), ": ");
  if (it == live_.end()) {
    violation(plan, who + "not live");
    return;
  }
  Live& live = it->second;
  const FakeModel& model = options_.model;
  const int64_t page_size = options_.facts.page_size;
  const int64_t first = chunk.first_position(), end = first + chunk.count();
  if (chunk.count() < 1 || chunk.count() > options_.longest_chunk) violation(plan, message(who, "chunk of ", chunk.count()));
  if (first != live.computed) {
    violation(plan, message(who, "chunk at ", first, " where ", live.computed, " positions are computed"));
    return;
  }
  for (const uint32_t page : chunk.new_pages()) {
    if (page >= tables_[live.home].size()) {
      violation(plan, message(who, "page ", page));
      return;
    }
    if (tables_[live.home][page]) violation(plan, message(who, "new page ", page, " is in a live page table"));
    ++tables_[live.home][page];
    live.pages.push_back(page);
  }
  if (static_cast<int64_t>(live.pages.size()) * page_size < end) {
    violation(plan, message(who, live.pages.size(), " pages do not reach position ", end - 1));
    return;
  }
  if (end > options_.facts.max_positions) violation(plan, message(who, "position ", end - 1, " is beyond the tables"));
  // The cache as attention reads it, all of it: nobody may have written over these slots.
  for (int64_t p = 0; p < first; ++p)
    if (*slot(live.home, live.pages[p / page_size], p % page_size) != live.slots[p]) {
      violation(plan, message(who, "page ", live.pages[p / page_size], " lost position ", p));
      return;
    }
  for (int64_t p = first; p < end; ++p) {
    if (p >= static_cast<int64_t>(live.tokens.size())) {
      violation(plan, message(who, "nobody has drawn the token at ", p));
      return;
    }
    const uint32_t page = live.pages[p / page_size];
    if (tables_[live.home][page] != 1) violation(plan, message(who, "writes page ", page, ", which another sequence reads"));
    const uint64_t before = p == 0 ? 0 : *slot(live.home, live.pages[(p - 1) / page_size], (p - 1) % page_size);
    const uint64_t state = model.slot(before, p, live.tokens[p]);
    *slot(live.home, page, p % page_size) = state;
    live.slots.push_back(state);
    if (p < chunk.logits_from()) continue;
    v1::TokenResult* r = result->add_tokens();
    r->set_sequence(chunk.sequence());
    r->set_position(static_cast<uint32_t>(p + 1));
    int32_t token = model.draw(options_.depends_on_batch ? state ^ static_cast<uint64_t>(row) : state, p + 1,
                               live.start.sampling(), live.start.choice());
    std::string mask;
    if (!chunk.draw_masks().empty()) {
      const int64_t draw = p - std::max<int64_t>(chunk.logits_from(), first);
      if (draw >= chunk.draw_masks_size() ||
          chunk.draw_masks(static_cast<int>(draw)) > static_cast<uint32_t>(plan.token_masks_size())) {
        violation(plan, message(who, "no mask for the draw at ", p));
      } else if (const uint32_t entry = chunk.draw_masks(static_cast<int>(draw)); entry > 0) {
        mask = plan.token_masks(static_cast<int>(entry) - 1);
        if (static_cast<int64_t>(mask.size()) != (model.vocab_size + 7) / 8)
          violation(plan, message(who, "a mask of ", mask.size(), " bytes"));
      }
    }
    const bool early = p + 1 - live.start.prompt_length() < live.start.sampling().min_tokens();
    r->set_token(model.permitted(token, [&](int32_t t) {
      const auto& late = live.start.late_token_ids();
      if (!mask.empty()) return (mask[t / 8] >> t % 8 & 1) != 0;
      return !early || std::find(late.begin(), late.end(), t) == late.end();
    }));
    r->set_finite(live.tokens[p] != model.nan_token);
    r->set_logits_hash(model.logits_hash(state));
    const bool of_prompt = p + 1 < static_cast<int64_t>(live.start.prompt_length());
    const int32_t top = of_prompt ? live.start.prompt_logprobs() : live.start.top_logprobs();
    const bool known = p + 1 < static_cast<int64_t>(live.tokens.size());
    if (top >= 0) {
      r->mutable_chosen()->set_token_id(r->token());
      r->mutable_chosen()->set_logprob(model.logprob(state, r->token()));
      if (known) {
        r->mutable_forced()->set_token_id(live.tokens[p + 1]);
        r->mutable_forced()->set_logprob(model.logprob(state, live.tokens[p + 1]));
      }
      for (int32_t i = 0; i < top; ++i) {
        v1::Logprob* l = r->add_top();
        l->set_token_id(i);
        l->set_logprob(model.logprob(state, i));
        l->set_rank(i + 1);
      }
    }
    if (of_prompt && live.start.prompt_logprobs() < 0) violation(plan, message(who, "logits at ", p, " that nobody asked for"));
    if (!known) live.tokens.push_back(r->token());
  }
  live.computed = end;
}

}  // namespace invar::engine
