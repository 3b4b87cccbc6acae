// Message tags: one number a stream, so that streams between the same two ranks never mix.
#pragma once

namespace invar {

inline constexpr int kTensorParallelTag = 1;
inline constexpr int kExpertParallelTag = 2;
inline constexpr int kStageTag = 3;   // hidden rows between pipeline stages
inline constexpr int kPlanTag = 4;    // plans from the leader to the ranks of its replica
inline constexpr int kResultTag = 5;  // results from sampling ranks to the leader
inline constexpr int kTokensTag = 6;  // tokens drawn, from the sampling rank to the first stage of its home
inline constexpr int kStartTag = 7;   // facts exchanged once after loading

}  // namespace invar
