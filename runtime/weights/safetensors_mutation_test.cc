// Deterministic mutations of valid safetensors headers through the fuzzer's entry: no crash, no accepted lie.
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/weights/safetensors_fuzz.h"

namespace invar {
namespace {

std::string seed_of(int data_bytes, std::string_view header) {
  std::string text = {static_cast<char>(data_bytes), static_cast<char>(data_bytes >> 8)};
  return text.append(header);
}

const std::vector<std::string>& seeds() {
  static const std::vector<std::string> list = {
      seed_of(20, R"({"a":{"dtype":"BF16","shape":[2,3],"data_offsets":[0,12]},)"
                  R"("b":{"dtype":"F32","shape":[2],"data_offsets":[12,20]}})"),
      seed_of(48, R"({"__metadata__":{"format":"pt"},"w":{"data_offsets":[16,48],"dtype":"I64","shape":[4]},)"
                  R"("v":{"shape":[16,1],"dtype":"U8","data_offsets":[0,16]},)"
                  R"("e":{"dtype":"F16","shape":[0],"data_offsets":[16,16]}}  )"),
      seed_of(8, R"({"s":{"dtype":"F64","shape":[],"data_offsets":[0,8]}})"), seed_of(0, "{}")};
  return list;
}

std::string mutate(std::string text, std::mt19937_64& random) {
  static const std::string_view kPieces[] = {"0",
                                             "1",
                                             "4",
                                             "8",
                                             "12",
                                             "16",
                                             "20",
                                             "48",
                                             "-1",
                                             "1e3",
                                             "9223372036854775807",
                                             "18446744073709551615",
                                             "4294967296",
                                             "null",
                                             "{}",
                                             "[]",
                                             "[[[[",
                                             "{\"",
                                             "\"dtype\":\"U8\",",
                                             "\"BF16\"",
                                             "\"F32\"",
                                             "\"shape\":[1],",
                                             "\\u0000",
                                             "\xc3",
                                             " ",
                                             ","};
  const int changes = 1 + static_cast<int>(random() % 3);
  for (int i = 0; i < changes && !text.empty(); ++i) {
    const size_t at = random() % text.size();
    switch (random() % 6) {
      case 0:
        text[at] = static_cast<char>(random());
        break;
      case 1:
        text[at] = static_cast<char>('0' + random() % 10);
        break;
      case 2:
        text.insert(at, kPieces[random() % std::size(kPieces)]);
        break;
      case 3:
        text.erase(at, 1 + random() % 8);
        break;
      case 4:
        text.resize(at);
        break;
      default: {  // another number
        const size_t digit = text.find_first_of("0123456789", at);
        if (digit == std::string::npos) break;
        const size_t end = text.find_first_not_of("0123456789", digit);
        text.replace(digit, (end == std::string::npos ? text.size() : end) - digit, kPieces[random() % 13]);
      }
    }
  }
  return text;
}

TEST(SafetensorsMutation, NothingCrashesAndBothAnswersOccur) {
  for (const std::string& seed : seeds()) ASSERT_TRUE(fuzz_safetensors_header(seed)) << seed;
  std::mt19937_64 random(1);
  int accepted = 0, refused = 0;
  for (int i = 0; i < 200000; ++i) (fuzz_safetensors_header(mutate(seeds()[i % seeds().size()], random)) ? accepted : refused)++;
  EXPECT_GT(accepted, 2000);
  EXPECT_GT(refused, 20000);
}

}  // namespace
}  // namespace invar
