#include "runtime/receipt/numerics_id.h"

#include <regex>
#include <set>

#include "gtest/gtest.h"
#include "runtime/receipt/sha256.h"

namespace invar {
namespace {

TEST(Sha256, KnownVectors) {
  // FIPS 180-4 examples.
  EXPECT_EQ(receipt::hex(receipt::Sha256().finish()), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(receipt::hex(receipt::Sha256().bytes("abc", 3).finish()),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(Sha256, IntegersAreLittleEndianAndTextsArePrefixed) {
  const uint8_t bytes[] = {3, 0, 0, 0, 'a', 'b', 'c', 0x44, 0x33, 0x22, 0x11, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11};
  EXPECT_EQ(receipt::Sha256().text("abc").le32(0x11223344).le64(0x1122334455667788).finish(),
            receipt::Sha256().bytes(bytes, sizeof(bytes)).finish());
  // Without the prefix these two would run together.
  EXPECT_NE(receipt::Sha256().text("ab").text("c").finish(), receipt::Sha256().text("a").text("bc").finish());
}

TEST(Sha256, FinishStartsANewMessage) {
  receipt::Sha256 sha;
  const receipt::Digest first = sha.text("x").finish();
  EXPECT_EQ(sha.text("x").finish(), first);
}

TEST(NumericsId, Form) {
  EXPECT_TRUE(std::regex_match(numerics_id(Profile::kPortable), std::regex("invar-v[0-9]+-portable-[0-9a-f]{16}")))
      << numerics_id(Profile::kPortable);
  EXPECT_TRUE(std::regex_match(numerics_id(Profile::kTc), std::regex("invar-v[0-9]+-tc-[0-9a-f]{16}")));
  EXPECT_TRUE(std::regex_match(numerics_id(Profile::kTc, ControlArm::kReversedTies),
                               std::regex("invar-v[0-9]+-tc\\+[a-z-]+-[0-9a-f]{16}")));
}

TEST(NumericsId, EveryProfileAndArmHasItsOwn) {
  const ControlArm arms[] = {ControlArm::kNone,          ControlArm::kRankOrderAllReduce, ControlArm::kFixedSplitCount,
                             ControlArm::kSwappedGroups, ControlArm::kReversedTies,       ControlArm::kExpertCapacity};
  std::set<std::string> ids;
  for (const Profile p : {Profile::kPortable, Profile::kTc})
    for (const ControlArm a : arms) ids.insert(numerics_id(p, a).substr(numerics_id(p, a).rfind('-')));
  EXPECT_EQ(ids.size(), 12u);
  EXPECT_EQ(numerics_id(Profile::kTc), numerics_id(Profile::kTc));
}

TEST(NumericsId, TextNamesTheConstants) {
  const std::string text = numerics_text(Profile::kPortable, ControlArm::kNone);
  for (const char* key : {"contract=", "profile=portable\n", "column_leaf=256\n", "row_leaf=256\n", "segments=8\n",
                          "sum_lanes=1024\n", "attention_block=64\n", "attention_split=512\n", "mass_bits=40\n", "dtype=bf16\n",
                          "exp2[5]=0x", "ln1p[7]=0x", "attention_weight[3]=0x", "wire=fp32"})
    EXPECT_NE(text.find(key), std::string::npos) << key << " in\n" << text;
  EXPECT_EQ(text.find("control_arm"), std::string::npos);
  // The denominator of attention is the one order that the profiles do not share and no constant or sample value shows.
  EXPECT_NE(text.find("attention_sum_lanes=8\n"), std::string::npos);
  const std::string tc = numerics_text(Profile::kTc, ControlArm::kNone);
  EXPECT_NE(tc.find("attention_denominator=chain of tensor-core steps"), std::string::npos) << tc;
  EXPECT_EQ(tc.find("attention_sum_lanes"), std::string::npos) << tc;
  EXPECT_NE(numerics_text(Profile::kPortable, ControlArm::kSwappedGroups).find("control_arm="), std::string::npos);
}

}  // namespace
}  // namespace invar
