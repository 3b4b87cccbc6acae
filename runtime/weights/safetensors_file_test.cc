#include "runtime/weights/safetensors_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "runtime/weights/safetensors_writer.h"

namespace invar {
namespace {

using testing::HasSubstr;

class SafetensorsFileTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::path(testing::TempDir()) /
              (std::string("invar_safetensors_") + testing::UnitTest::GetInstance()->current_test_info()->name());
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string refusal(std::string_view bytes) {
    const std::filesystem::path path = folder_ / "x.safetensors";
    write_bytes(path, bytes);
    const auto file = SafetensorsFile::open(path);
    if (file.ok()) return "accepted";
    EXPECT_TRUE(absl::IsInvalidArgument(file.status())) << file.status();
    EXPECT_THAT(std::string(file.status().message()), HasSubstr(path.string() + ": "));
    return std::string(file.status().message());
  }
  std::string refusal(std::string_view header, size_t data_bytes) {
    return refusal(safetensors_bytes(header, std::string(data_bytes, 'x')));
  }

  std::filesystem::path folder_;
};

TEST_F(SafetensorsFileTest, ReadsWhatWasWritten) {
  const std::filesystem::path path = folder_ / "x.safetensors";
  write_safetensors(path, {{"b", "F32", {2, 3}, std::string(24, 'b')},
                           {"a", "BF16", {5}, std::string(10, 'a')},
                           {"scalar", "I64", {}, std::string(8, 's')},
                           {"empty", "F16", {0, 4}, ""}});
  const auto file = SafetensorsFile::open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  const std::vector<TensorRecord>& tensors = (*file)->tensors();
  ASSERT_EQ(tensors.size(), 4u);
  EXPECT_EQ(tensors[0].name, "a");
  EXPECT_EQ(tensors[0].type, ElementType::kBf16);
  EXPECT_EQ(tensors[0].shape, std::vector<int64_t>{5});
  EXPECT_EQ(tensors[0].elements(), 5);
  EXPECT_EQ(std::memcmp((*file)->data(tensors[0]), "aaaaaaaaaa", 10), 0);
  EXPECT_EQ(tensors[1].name, "b");
  EXPECT_EQ(tensors[1].shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(std::memcmp((*file)->data(tensors[1]), std::string(24, 'b').data(), 24), 0);
  EXPECT_EQ(tensors[2].name, "empty");
  EXPECT_EQ(tensors[2].elements(), 0);
  EXPECT_EQ(tensors[3].name, "scalar");
  EXPECT_EQ(tensors[3].elements(), 1);
  // Released pages come back with the same bytes.
  SafetensorsFile::release((*file)->data(tensors[1]), (*file)->data(tensors[1]) + 24);
  EXPECT_EQ(std::memcmp((*file)->data(tensors[1]), std::string(24, 'b').data(), 24), 0);
}

constexpr std::string_view kGood =
    R"({"a":{"dtype":"BF16","shape":[2,3],"data_offsets":[0,12]},"b":{"dtype":"F32","shape":[2],"data_offsets":[12,20]}})";

TEST_F(SafetensorsFileTest, HeaderLengthMustBeTrue) {
  const std::string data(20, 'x');
  EXPECT_EQ(refusal(kGood, 20), "accepted");
  EXPECT_EQ(refusal(std::string(kGood) + "     ", 20), "accepted");  // the format pads with spaces
  EXPECT_THAT(refusal(""), HasSubstr("has 0 bytes"));
  EXPECT_THAT(refusal("1234567"), HasSubstr("has 7 bytes"));
  EXPECT_THAT(refusal(std::string(8, '\0')), HasSubstr("does not begin with '{'"));
  const uint64_t whole = kGood.size() + data.size();
  EXPECT_THAT(refusal(safetensors_bytes(kGood, data, whole + 1)), HasSubstr("header length is " + std::to_string(whole + 1)));
  EXPECT_THAT(refusal(safetensors_bytes(kGood, data, UINT64_MAX)), HasSubstr("header length is 18446744073709551615"));
  EXPECT_THAT(refusal(safetensors_bytes(kGood, data, UINT64_MAX - 7)),
              HasSubstr("header length is 18446744073709551608"));  // + 8 wraps to 0
  EXPECT_THAT(refusal(safetensors_bytes(kGood, data, uint64_t{1} << 63)), HasSubstr("header length is 9223372036854775808"));
  EXPECT_THAT(refusal(safetensors_bytes(kGood, data, whole)), HasSubstr("not valid JSON"));
  EXPECT_THAT(refusal(safetensors_bytes(kGood, data, kGood.size() - 1)), HasSubstr("not valid JSON"));
  EXPECT_THAT(refusal(safetensors_bytes(kGood, data, 0)), HasSubstr("does not begin with '{'"));
}

TEST_F(SafetensorsFileTest, EveryTruncationIsRefused) {
  const std::string all = safetensors_bytes(kGood, std::string(20, 'x'));
  for (size_t n = 0; n < all.size(); ++n) EXPECT_NE(refusal(all.substr(0, n)), "accepted") << n;
  EXPECT_THAT(refusal(all.substr(0, all.size() - 1)),
              HasSubstr(R"(tensor "b": data_offsets is [12, 20]; the file has only 19 bytes of data)"));
  EXPECT_THAT(refusal(all + "x"), HasSubstr("the last tensor ends at byte 20 of the data; the file has 21"));
}

TEST_F(SafetensorsFileTest, OversizedHeadersAreNotRead) {
  const std::filesystem::path path = folder_ / "sparse.safetensors";
  write_bytes(path, safetensors_bytes("{", "", 100'000'001));
  std::filesystem::resize_file(path, 100'000'100);
  const auto file = SafetensorsFile::open(path);
  EXPECT_THAT(std::string(file.status().message()), HasSubstr("header length is 100000001; at most 100000000"));
}

TEST_F(SafetensorsFileTest, OnlyPlainFilesAreOpened) {
  EXPECT_TRUE(absl::IsNotFound(SafetensorsFile::open(folder_ / "nothing").status()));
  EXPECT_THAT(std::string(SafetensorsFile::open(folder_).status().message()), HasSubstr("not a plain file"));
  const std::filesystem::path pipe = folder_ / "pipe";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_THAT(std::string(SafetensorsFile::open(pipe).status().message()), HasSubstr("not a plain file"));  // and does not wait
}

struct Lie {
  const char* header;
  size_t data_bytes;
  const char* message;
};

TEST_F(SafetensorsFileTest, LyingHeadersAreRefusedByTensorAndField) {
  const Lie lies[] = {
      // places of tensors
      {R"({"a":{"dtype":"BF16","shape":[2,3],"data_offsets":[0,12]},"b":{"dtype":"F32","shape":[2],"data_offsets":[10,18]}})", 18,
       R"(tensor "b": data_offsets is [10, 18]; it overlaps tensor "a", which ends at 12)"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 8,
       "it overlaps tensor"},
      {R"({"a":{"dtype":"BF16","shape":[2,3],"data_offsets":[0,12]},"b":{"dtype":"F32","shape":[2],"data_offsets":[16,24]}})", 24,
       R"(tensor "b": data_offsets is [16, 24]; bytes 12 to 16 belong to no tensor)"},
      {R"({"a":{"dtype":"BF16","shape":[2],"data_offsets":[4,8]}})", 8,
       R"(tensor "a": data_offsets is [4, 8]; bytes 0 to 4 belong to no tensor)"},
      {R"({"a":{"dtype":"BF16","shape":[2],"data_offsets":[4,0]}})", 4,
       R"(tensor "a": data_offsets is [4, 0]; the end lies before the beginning)"},
      {R"({"a":{"dtype":"BF16","shape":[4],"data_offsets":[0,8]}})", 4, R"(the file has only 4 bytes of data)"},
      {R"({"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,18446744073709551615]}})", 4,
       "data_offsets has the entry 18446744073709551615"},
      {R"({"a":{"dtype":"BF16","shape":[2],"data_offsets":[-1,4]}})", 4, R"(tensor "a": data_offsets has the entry -1)"},
      {R"({"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4.0]}})", 4, R"(tensor "a": data_offsets has the entry "4.0")"},
      {R"({"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4,8]}})", 4,
       R"(tensor "a": data_offsets has 3 entries; it must have two)"},
      {R"({"a":{"dtype":"BF16","shape":[2],"data_offsets":[0]}})", 4, R"(tensor "a": data_offsets has 1 entries)"},
      {R"({"a":{"dtype":"BF16","shape":[2],"data_offsets":{"0":4}}})", 4, R"(tensor "a": data_offsets is an object)"},
      {R"({})", 4, "the last tensor ends at byte 0 of the data; the file has 4"},
      // shapes and types
      {R"({"a":{"dtype":"BF16","shape":[3],"data_offsets":[0,4]}})", 4,
       R"(tensor "a": data_offsets is [0, 4], 4 bytes; shape [3] in BF16 takes 6)"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", 4, "shape [2] in F32 takes 8"},
      {R"({"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,4]}})", 4, "its size overflows"},
      {R"({"a":{"dtype":"BF16","shape":[4294967296,4294967296],"data_offsets":[0,0]}})", 0,
       "its size overflows"},  // product = 0 mod 2^64
      {R"({"a":{"dtype":"U8","shape":[18446744073709551615],"data_offsets":[0,4]}})", 4,
       R"(tensor "a": shape has the entry 18446744073709551615)"},
      {R"({"a":{"dtype":"U8","shape":[-4],"data_offsets":[0,4]}})", 4, R"(tensor "a": shape has the entry -4)"},
      {R"({"a":{"dtype":"U8","shape":["4"],"data_offsets":[0,4]}})", 4, R"(tensor "a": shape has the entry "4")"},
      {R"({"a":{"dtype":"U8","shape":[[4]],"data_offsets":[0,4]}})", 4, R"(tensor "a": shape has the entry a list)"},
      {R"({"a":{"dtype":"U8","shape":4,"data_offsets":[0,4]}})", 4, R"(tensor "a": shape is 4; it must be a list)"},
      {R"({"a":{"dtype":"U8","shape":[1,1,1,1,1,1,1,1,4],"data_offsets":[0,4]}})", 4,
       R"(tensor "a": shape has more than 8 entries)"},
      {R"({"a":{"dtype":"Q4_0","shape":[4],"data_offsets":[0,4]}})", 4,
       R"(tensor "a": dtype is "Q4_0"; it is not a known element type)"},
      {R"({"a":{"dtype":7,"shape":[4],"data_offsets":[0,4]}})", 4, R"(tensor "a": dtype is 7; it must be a string)"},
      {R"({"a":{"dtype":["U8"],"shape":[4],"data_offsets":[0,4]}})", 4, R"(tensor "a": dtype is a list)"},
      // fields
      {R"({"a":{"shape":[4],"data_offsets":[0,4]}})", 4, R"(tensor "a": dtype is missing)"},
      {R"({"a":{"dtype":"U8","data_offsets":[0,4]}})", 4, R"(tensor "a": shape is missing)"},
      {R"({"a":{"dtype":"U8","shape":[4]}})", 4, R"(tensor "a": data_offsets is missing)"},
      {R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4],"extra":1}})", 4, R"(tensor "a": has the unknown field "extra")"},
      {R"({"a":{"dtype":"U8","dtype":"I8","shape":[4],"data_offsets":[0,4]}})", 4, R"(tensor "a": dtype is given twice)"},
      {R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"a":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}})", 8,
       R"(tensor "a" is given twice)"},
      {R"({"a":[1]})", 4, R"(tensor "a": is a list; it must be an object)"},
      {R"({"a":null})", 4, R"(tensor "a": is null; it must be an object)"},
      {R"({"__metadata__":{"a":1}})", 0, "__metadata__: holds 1; it may hold strings only"},
      {R"({"__metadata__":{"a":{}}})", 0, "__metadata__: holds an object"},
      {R"({"__metadata__":[]})", 0, "__metadata__: is a list"},
      {R"({"__metadata__":{},"__metadata__":{}})", 0, "__metadata__ is given twice"},
      {R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}{})", 4, "not valid JSON at byte"},
      {R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,1e999]}})", 4, "not valid JSON at byte"},
      {"{\"\xff\":{}}", 4, "not valid JSON at byte"},
      {" {}", 0, "does not begin with '{'"},
      {"[]", 0, "does not begin with '{'"},
  };
  for (const Lie& lie : lies) EXPECT_THAT(refusal(lie.header, lie.data_bytes), HasSubstr(lie.message)) << lie.header;
}

TEST_F(SafetensorsFileTest, DeepNestingAndHugeNamesAreHarmless) {
  EXPECT_THAT(refusal(R"({"a":)" + std::string(2'000'000, '['), 0), HasSubstr("is a list; it must be an object"));
  std::string deep = R"({"a":{"shape":)";
  for (int i = 0; i < 500'000; ++i) deep += R"({"a":)";
  EXPECT_THAT(refusal(deep, 0), HasSubstr("shape is an object"));
  const std::string error = refusal(R"({")" + std::string(1'000'000, 'n') + R"(":3})", 0);
  EXPECT_LT(error.size(), 500u);
  EXPECT_THAT(refusal(R"({"a\u0000z\n":3})", 0), HasSubstr(R"("a\x00z\n")"));
}

}  // namespace
}  // namespace invar
