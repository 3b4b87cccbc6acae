// Passes over rows of logits on a GPU. Results are integers, or values picked by integers, so any order of adding gives them;
// what needs double precision or a decision is left to the host (sample_rows.cc).
#pragma once

#include <cstdint>

#include "kernels/device/device.h"

namespace invar::cuda {

// The float whose numerics::order_key this is.
INVAR_HD float float_of_key(uint32_t key) { return numerics::bits_float(key & 0x80000000u ? key ^ 0x80000000u : ~key); }
inline constexpr uint32_t kInfinityKey = 0xff800000u, kMinusInfinityKey = 0x007fffffu;
// Neither NaN nor +inf, and something above -inf: what sample() calls finite, from the range of the order keys.
INVAR_HD bool finite_range(uint32_t lowest, uint32_t highest) {
  return lowest >= kMinusInfinityKey && highest < kInfinityKey && highest > kMinusInfinityKey;
}

// What is wanted of a row. `z` is one row of a pass: the raw logits, or a copy with penalties.
struct VocabularyTask {
  const float* z = nullptr;
  float temperature = 0;  // > 0: y = RN(z / temperature) is looked at
  uint32_t position = 0, choice = 0;
  uint64_t seed = 0;
  bool hash = false;
  bool noise = false;       // draw over all y
  bool mass = false;        // sum of mass(z, max z), and the ranks of `drawn by` and `forced`
  double nucleus = 0;       // > 0: sum of mass(y, max y), and candidates hold at least this share of it, from the top
  int32_t forced = -1;      // a token whose logit and rank are wanted
  int32_t drawn_by = -1;    // task whose greedy or noisy draw is wanted with its logit and rank in this row
  int32_t best = 0;         // > 0: candidates hold at least the `best` first in the order of z
  int32_t best_scaled = 0;  // > 0: and of y
  bool by_mass = false;     // candidates hold at least the ids whose mass(y, max y) can reach that with logarithm `least`
  double least = 0;
  // Mask, biases, penalties: z is a copy of `raw` to be made, -inf where `allowed` (`allowed_bytes` of them) has no bit, with
  // tokens [first_penalty, last_penalty) of the list changed.
  const float* raw = nullptr;
  const uint8_t* allowed = nullptr;
  int64_t allowed_bytes = 0;
  int64_t first_penalty = 0, last_penalty = 0;
  float repetition = 1, frequency = 0, presence = 0;
};

// What came out. The caller clears it before a pass.
struct VocabularyTally {
  unsigned long long largest;        // of z: order key in the upper half, the id that wins a tie in the lower
  unsigned long long largest_noisy;  // the same of y + noise
  unsigned long long hash;
  unsigned long long mass;
  unsigned long long scaled_mass;
  uint32_t lowest_flipped;                         // ~(lowest order key of z)
  uint32_t scaled_lowest_flipped, scaled_highest;  // of y
  uint32_t threshold, scaled_threshold;            // candidates: order key of z, or of y, is at least this; 0 = none wanted
  uint32_t drawn_before, forced_before;            // entries that come before in order
  float drawn_logit, forced_logit;
  uint32_t candidates;  // how many there are; only as many are written as there is room for
};

struct VocabularyCandidate {
  int32_t id;
  float z;
};

// A token of a row that a bias or penalties change.
struct VocabularyPenalty {
  int32_t id;
  int32_t count;  // how often in the output; -1: neither there nor in the prompt
  float bias;     // 0 = none
};

inline constexpr int kVocabularyBlock = 64;   // logits that share a block key
inline constexpr int kVocabularyBins = 4096;  // of a histogram of masses, by the first 12 bits of the order key of y
inline constexpr int kMostCandidates = 4096;  // of a task; where there are more, the host takes the row

struct VocabularyPass {
  int64_t vocabulary = 0;
  int tasks = 0;
  const VocabularyTask* task = nullptr;
  VocabularyTally* tally = nullptr;
  bool reversed_ties = false;
  uint32_t* block_keys = nullptr;  // [tasks][ceil(vocabulary / 64)]: largest order key of z; null when nobody needs thresholds
  unsigned long long* bins = nullptr;         // [tasks][kVocabularyBins]; null when no task wants a nucleus
  VocabularyCandidate* candidates = nullptr;  // [tasks][kMostCandidates], in any order
};

// Makes the rows of tasks with a mask, biases or penalties; `most` is the largest number of penalties of a task.
void penalise(const Device& device, const VocabularyPass& pass, const VocabularyPenalty* penalties, int64_t most);
// Largest, lowest, hash, noise, block keys.
void scan_vocabulary(const Device& device, const VocabularyPass& pass);
// Masses of y by bin, of the tasks that want a nucleus.
void bin_masses(const Device& device, const VocabularyPass& pass);
// threshold and scaled_threshold of the tasks that want candidates, scaled_mass.
void find_thresholds(const Device& device, const VocabularyPass& pass);
// Mass, ranks, candidates; needs what those above found.
void weigh_vocabulary(const Device& device, const VocabularyPass& pass);
// to[task * each + i] = candidate i of a task, for i below `each`; waits for it.
void download_candidates(const Device& device, const VocabularyPass& pass, int64_t each, VocabularyCandidate* to);

}  // namespace invar::cuda
