#include "parallel/transport/peer_seats.h"

#include <gtest/gtest.h>

#include <string>

namespace invar::parallel {
namespace {

struct Place {
  char host;
  char gpu;
  int64_t pid;
};
std::vector<PeerSeat> seats_at(const std::vector<Place>& places) {
  static const char owners[16] = {};
  std::vector<PeerSeat> seats(places.size());
  for (size_t i = 0; i < places.size(); ++i) {
    seats[i].host[0] = places[i].host;
    seats[i].gpu[0] = places[i].gpu;
    seats[i].pid = places[i].pid;
    seats[i].owner = &owners[i];
  }
  return seats;
}
std::string refusal(const std::vector<Place>& places, const std::vector<int>& members, SharedGpus shared = SharedGpus::kTaken) {
  return std::string(check_shared_gpus(seats_at(places), members, shared).message());
}
bool says(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

TEST(PeerSeats, AGpuEachIsTaken) {
  const std::vector<Place> apart{{'a', 'x', 1}, {'a', 'y', 1}, {'b', 'x', 1}};  // a UUID on another host is another GPU
  EXPECT_FALSE(gpus_are_shared(seats_at(apart)));
  EXPECT_EQ(refusal(apart, {0, 1}, SharedGpus::kRefused), "");
}

TEST(PeerSeats, ThreadsOfOneGroupMayShareAGpu) {
  const std::vector<Place> three_on_two{{'a', 'x', 1}, {'a', 'y', 1}, {'a', 'x', 1}};
  EXPECT_TRUE(gpus_are_shared(seats_at(three_on_two)));
  EXPECT_EQ(refusal(three_on_two, {0, 1, 2}), "");
  EXPECT_TRUE(says(refusal(three_on_two, {0, 1, 2}, SharedGpus::kRefused), "ranks 0 and 2 share a GPU;"));
}

TEST(PeerSeats, ProcessesMayNot) {
  const std::vector<Place> two_on_one{{'a', 'x', 1}, {'a', 'x', 2}};
  EXPECT_TRUE(says(refusal(two_on_one, {0, 1}), "ranks 0 and 1 are processes that share a GPU"));
  EXPECT_TRUE(says(refusal(two_on_one, {0}), "ranks 0 and 1 are processes that share a GPU"));  // not of one group either
}

// Ranks of two groups on each GPU, one of each: a rank's peer is never kept from launching by who waits for the rank's kernel.
TEST(PeerSeats, TwoGroupsWithARankEachMay) {
  const std::vector<Place> two_by_two{{'a', 'x', 1}, {'a', 'y', 1}, {'a', 'x', 1}, {'a', 'y', 1}};
  EXPECT_EQ(refusal(two_by_two, {0, 1}), "");
  EXPECT_EQ(refusal(two_by_two, {2, 3}), "");
}

TEST(PeerSeats, TwoOfAGroupWithOneOfAnotherMayNot) {
  const std::vector<Place> three_and_three{{'a', 'x', 1}, {'a', 'y', 1}, {'a', 'x', 1},
                                           {'a', 'y', 1}, {'a', 'x', 1}, {'a', 'y', 1}};
  EXPECT_TRUE(says(refusal(three_and_three, {0, 1, 2}), "ranks 0 and 2 share a GPU with rank 4, who is of another group"));
  EXPECT_TRUE(says(refusal(three_and_three, {3, 4, 5}), "ranks 3 and 5 share a GPU with rank 1, who is of another group"));
}

TEST(PeerSeats, WhoHasAGpuTogetherHasOneOwner) {
  const auto seats = seats_at({{'a', 'x', 1}, {'a', 'y', 1}, {'a', 'x', 1}, {'b', 'x', 1}});
  EXPECT_EQ(first_on_gpu(seats, 2), seats[0].owner);
  EXPECT_EQ(first_on_gpu(seats, 0), seats[0].owner);
  EXPECT_EQ(first_on_gpu(seats, 1), seats[1].owner);
  EXPECT_EQ(first_on_gpu(seats, 3), seats[3].owner);
}

}  // namespace
}  // namespace invar::parallel
