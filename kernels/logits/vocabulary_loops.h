// Loops over a vocabulary, one table of functions an instruction set. Equal bits; sample.cc and hash.cc choose.
#pragma once

#include <cstdint>

#include "kernels/numerics.h"

namespace invar {

enum class Isa : uint8_t;  // device.h, which files compiled for other instruction sets do not include

inline constexpr int64_t kKeyBlock = 64;

// Order keys here are signed: numerics::order_key with its top bit turned over, so that vectors can compare them.
struct VocabularyLoops {
  uint64_t (*hash)(const float* z, int64_t count, uint64_t first);
  // Largest order key of each run of kKeyBlock logits, the last one may be short.
  void (*block_keys)(const float* z, int64_t count, int32_t* out);
  // Smallest and largest order key; count >= 1.
  void (*key_range)(const float* z, int64_t count, int32_t* lowest, int32_t* highest);
  // First or last index with this key; count if there is none.
  int64_t (*find_first)(const float* z, int64_t count, int32_t key);
  int64_t (*find_last)(const float* z, int64_t count, int32_t key);
  int64_t (*count_above)(const float* z, int64_t count, int32_t key);
  int64_t (*count_equal)(const float* z, int64_t count, int32_t key);
  void (*divide)(const float* z, int64_t count, float by, float* y);
  // numerics::mass(z[i], max) for z[i] <= max, max finite.
  uint64_t (*mass_sum)(const float* z, int64_t count, float max);
  void (*masses)(const float* z, int64_t count, float max, uint64_t* out);
  // RN(y[i] + gumbel(seed, position, id, choice)), id = ids[i]; of the whole vocabulary id = i.
  void (*perturb)(const float* y, const int32_t* ids, int64_t count, uint64_t seed, uint32_t position, uint32_t choice,
                  float* out);
  void (*perturb_all)(const float* y, int64_t count, uint64_t seed, uint32_t position, uint32_t choice, float* out);
};

const VocabularyLoops& vocabulary_loops(Isa isa);
extern const VocabularyLoops kVocabularyLoopsAvx2;
extern const VocabularyLoops kVocabularyLoopsAvx512;

inline int32_t signed_key(float z) { return static_cast<int32_t>(numerics::order_key(z) ^ 0x80000000u); }

}  // namespace invar
