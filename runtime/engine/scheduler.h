// Builds one replica's steps: which sequences, which tokens, which pages. Policy only: it never waits and sends nothing.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <unordered_map>
#include <vector>

#include "runtime/engine/executor.h"
#include "runtime/engine/page_pool.h"
#include "runtime/engine/sequence.h"
#include "runtime/proto/step.pb.h"

namespace invar::engine {

struct SchedulerLimits {
  int64_t max_num_seqs = 256;
  int64_t max_num_batched_tokens = 2048;
  int64_t longest_chunk = 2048;
  bool prefix_caching = true;
};

// Draws a plan asks for, in the order of its chunks: positions [first, first + count) of `sequence`.
struct ExpectedDraws {
  uint64_t sequence = 0;
  int64_t first = 0;
  int64_t count = 0;
};

struct SchedulerCounts {
  int64_t running = 0, waiting = 0;
  int64_t pages_total = 0, pages_used = 0, pages_cached = 0;
  uint64_t preemptions = 0;
};

// Used by one thread. Sequences belong to the caller and must outlive their stay here.
class Scheduler {
 public:
  // `facts` with homes, pages and page size of at least 1. `next_number`: first sequence number to hand out.
  Scheduler(const SchedulerLimits& limits, const ReplicaFacts& facts);

  // A new or moved sequence joins the queue.
  void add(Sequence* s);
  // Ends a sequence wherever it is: pages are free for the next plan, results still in flight will find nobody.
  // `trust_pages` false: its keys and values may be wrong (logits were not finite), so nobody may find them again.
  void remove(Sequence* s, bool trust_pages = true);
  // The replica is gone: hands all sequences back, in order, as if they had never started.
  std::vector<Sequence*> abandon();

  // Fills `plan` (all but the step number) and what results it will bring. False if there is nothing to compute now; then
  // what has to be told to the ranks (ended sequences) waits for the next plan.
  bool build(v1::StepPlan* plan, std::vector<ExpectedDraws>* expected);

  // The sequence behind a number, also if it was preempted and this result was still in flight; null if it has ended.
  Sequence* find(uint64_t number) const;
  // One awaited result of `s` has come back; the caller has taken its token over.
  void received(Sequence* s);

  int64_t flush_cache();
  SchedulerCounts counts() const;

 private:
  struct Home {
    explicit Home(int64_t pages) : pool(pages) {}
    PagePool pool;
    int64_t running = 0;
    std::unordered_map<BlockKey, int64_t, BlockKeyHash> computing;  // blocks that running sequences will have filled soon
  };
  struct Placement {
    int home = -1;  // -1 = no home has room
    int64_t hits = 0;
    bool wait = false;  // its next block is being computed there: waiting is cheaper than computing it twice
  };

  void plan_decodes(v1::StepPlan* plan, std::vector<ExpectedDraws>* expected);
  void plan_prefills(v1::StepPlan* plan, std::vector<ExpectedDraws>* expected);
  void admit(v1::StepPlan* plan, std::vector<ExpectedDraws>* expected);
  bool room_for_next(Sequence* s, std::vector<uint32_t>* new_pages);
  Placement place(Sequence* s);
  void await_blocks(Sequence* s, int home, int64_t first, int64_t end);
  bool awaits_block(const Sequence& s) const;
  void start(Sequence* s, const Placement& placement, v1::StepPlan* plan, std::vector<uint32_t>* new_pages);
  int64_t chunk_of(const Sequence& s) const;
  void add_masks(Sequence* s, int64_t first, v1::Chunk* chunk, v1::StepPlan* plan);
  void emit(Sequence* s, int64_t count, const std::vector<uint32_t>& new_pages, v1::StepPlan* plan,
            std::vector<ExpectedDraws>* expected);
  void preempt(Sequence* s);
  void leave_ranks(Sequence* s, bool trust_pages);
  void register_blocks(Sequence* s);
  int64_t blocks_readable(const Sequence& s) const;
  Home& home_of(const Sequence& s) { return homes_[s.home]; }

  const SchedulerLimits limits_;
  const int64_t page_size_;
  std::vector<Home> homes_;
  std::set<Sequence*, SequenceOrder> running_, waiting_;
  std::unordered_map<uint64_t, Sequence*> numbers_;
  std::vector<uint64_t> ended_;  // to be told to the ranks with the next plan
  uint64_t next_number_ = 1;
  uint64_t preemptions_ = 0;
  // Of the plan being built.
  int64_t budget_ = 0;
  bool preempted_ = false;
  std::map<grammar::TokenMask, uint32_t> masks_;  // -> entry of Chunk.draw_masks; sequences in equal states share theirs
};

}  // namespace invar::engine
