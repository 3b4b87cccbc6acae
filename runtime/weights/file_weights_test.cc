#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <functional>
#include <random>
#include <set>

#include "runtime/model_config/weight_names.h"
#include "runtime/weights/model_digest.h"
#include "runtime/weights/safetensors_file.h"
#include "runtime/weights/safetensors_writer.h"
#include "runtime/weights/weight_source.h"

namespace invar {
namespace {

using nlohmann::json;
using testing::HasSubstr;

constexpr const char* kConfig = R"({"architectures":["LlamaForCausalLM"],"vocab_size":20,"hidden_size":16,"intermediate_size":24,
  "num_hidden_layers":2,"num_attention_heads":2,"num_key_value_heads":1,"max_position_embeddings":64,"rms_norm_eps":1e-5})";
constexpr const char* kQ = "model.layers.1.self_attn.q_proj.weight";  // [16][16]
constexpr const char* kNorm = "model.layers.0.input_layernorm.weight";

class FileWeightsTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::path(testing::TempDir()) /
              (std::string("invar_file_weights_") + testing::UnitTest::GetInstance()->current_test_info()->name());
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
    config_ = *parse_model_config(kConfig, "");
    tensors_.clear();
    std::mt19937 random(5);
    for (const ExpectedTensor& expected : expected_tensors(config_)) {
      int64_t count = 1;
      for (const int64_t dim : expected.shape) count *= dim;
      std::vector<uint16_t> values(count);
      for (uint16_t& v : values) v = static_cast<uint16_t>(0x3c00 + random() % 0x400);
      tensors_.push_back({expected.name, "BF16", expected.shape, bytes_of_values(values)});
    }
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  TensorToWrite& tensor(std::string_view name) {
    for (TensorToWrite& t : tensors_) {
      if (t.name == name) return t;
    }
    ADD_FAILURE() << name;
    return tensors_[0];
  }
  void erase(std::string_view name) {
    std::erase_if(tensors_, [&](const TensorToWrite& t) { return t.name == name; });
  }
  void write() { write_safetensors(folder_ / "model.safetensors", tensors_); }
  // Tensor i goes to file i mod `files`, in reverse order inside a file.
  json write_split(int files) {
    json index = {{"metadata", {{"total_size", 1}}}, {"weight_map", json::object()}};
    for (int f = 0; f < files; ++f) {
      const std::string name = "model-0000" + std::to_string(f + 1) + "-of-0000" + std::to_string(files) + ".safetensors";
      std::vector<TensorToWrite> part;
      for (size_t i = f; i < tensors_.size(); i += files) {
        part.insert(part.begin(), tensors_[i]);
        index["weight_map"][tensors_[i].name] = name;
      }
      write_safetensors(folder_ / name, part);
    }
    write_index(index);
    return index;
  }
  void write_index(const json& index) { std::ofstream(folder_ / "model.safetensors.index.json") << index.dump(); }
  std::string refusal() {
    const auto weights = open_file_weights(folder_, config_);
    return weights.ok() ? "accepted" : std::string(weights.status().message());
  }
  std::unique_ptr<WeightSource> open() {
    auto weights = open_file_weights(folder_, config_);
    EXPECT_TRUE(weights.ok()) << weights.status();
    return weights.ok() ? *std::move(weights) : nullptr;
  }
  std::string digest() { return *model_digest({.config_json = kConfig}, *open()); }

  std::filesystem::path folder_;
  ModelConfig config_;
  std::vector<TensorToWrite> tensors_;
};

TEST_F(FileWeightsTest, ReadsSlicesOfMatricesAndVectors) {
  write();
  const auto weights = open();
  ASSERT_TRUE(weights);
  EXPECT_EQ(weights->shape(kQ), (std::vector<int64_t>{16, 16}));
  EXPECT_EQ(weights->shape(kNorm), std::vector<int64_t>{16});
  EXPECT_TRUE(weights->shape("nothing").empty());
  int64_t bytes = 0;
  for (const TensorToWrite& t : tensors_) bytes += static_cast<int64_t>(t.bytes.size());
  EXPECT_EQ(weights->total_bytes(), bytes);

  const auto element = [](const TensorToWrite& t, int64_t i) {
    uint16_t bits;
    std::memcpy(&bits, t.bytes.data() + 2 * i, 2);
    return bits;
  };
  const int64_t slices[][4] = {{0, 16, 0, 16}, {3, 5, 0, 16}, {3, 5, 2, 7},  {15, 1, 15, 1},
                               {0, 16, 8, 8},  {4, 0, 0, 16}, {16, 0, 16, 0}};
  for (const auto& [row0, rows, col0, cols] : slices) {
    for (const int64_t stride : {cols, cols + 3}) {
      std::vector<Bf16> out(400, Bf16{0xabcd});
      ASSERT_TRUE(weights->read_rows(kQ, row0, rows, col0, cols, out.data(), stride).ok());
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t c = 0; c < stride; ++c) {
          // Between the rows of a wide stride nothing is written.
          EXPECT_EQ(out[r * stride + c].bits, c < cols ? element(tensor(kQ), (row0 + r) * 16 + col0 + c) : 0xabcd);
        }
      }
      EXPECT_EQ(out[rows * stride].bits, 0xabcd);
    }
  }
  for (const int64_t stride : {1, 4}) {
    std::vector<Bf16> out(64, Bf16{0xabcd});
    ASSERT_TRUE(weights->read_rows(kNorm, 2, 9, 0, 1, out.data(), stride).ok());
    for (int64_t i = 0; i < 9; ++i) EXPECT_EQ(out[i * stride].bits, element(tensor(kNorm), 2 + i));
    EXPECT_EQ(out[9 * stride].bits, 0xabcd);
  }
}

TEST_F(FileWeightsTest, SlicesOutsideOfATensorAreRefused) {
  write();
  const auto weights = open();
  ASSERT_TRUE(weights);
  std::vector<Bf16> out(1000);
  const auto refused = [&](std::string_view name, int64_t row0, int64_t rows, int64_t col0, int64_t cols, int64_t stride) {
    return std::string(weights->read_rows(name, row0, rows, col0, cols, out.data(), stride).message());
  };
  EXPECT_THAT(refused("nothing", 0, 1, 0, 1, 1), HasSubstr("tensor \"nothing\": the model has no such tensor"));
  EXPECT_THAT(refused(kQ, 0, 17, 0, 16, 16), HasSubstr("17 rows from 0, 16 columns from 0 are not inside shape [16, 16]"));
  EXPECT_THAT(refused(kQ, 16, 1, 0, 16, 16), HasSubstr("1 rows from 16"));
  EXPECT_THAT(refused(kQ, -1, 2, 0, 16, 16), HasSubstr("2 rows from -1"));
  EXPECT_THAT(refused(kQ, 0, -1, 0, 16, 16), HasSubstr("-1 rows from 0"));
  EXPECT_THAT(refused(kQ, 1, INT64_MAX, 0, 16, 16), HasSubstr("are not inside"));
  EXPECT_THAT(refused(kQ, 0, 2, 10, 7, 16), HasSubstr("7 columns from 10"));
  EXPECT_THAT(refused(kQ, 0, 2, 0, 16, 15), HasSubstr("out_stride is 15"));
  EXPECT_THAT(refused(kNorm, 0, 1, 0, 16, 16), HasSubstr("16 columns from 0 are not inside shape [16]"));
}

TEST_F(FileWeightsTest, EveryWeightTypeGivesBf16) {
  std::vector<float> values(256);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i) * 0.01337f - 1;
  tensor(kQ).dtype = "F32";
  tensor(kQ).bytes = bytes_of_values(values);
  tensor(kNorm).dtype = "F16";
  tensor(kNorm).bytes = bytes_of_values(std::vector<uint16_t>(16, 0x3c01));  // 1 + 2^-10: rounds down to 1
  write();
  const auto weights = open();
  ASSERT_TRUE(weights);
  std::vector<Bf16> out(256);
  ASSERT_TRUE(weights->read_rows(kQ, 0, 16, 0, 16, out.data(), 16).ok());
  for (size_t i = 0; i < values.size(); ++i) EXPECT_EQ(out[i].bits, numerics::bf(values[i]).bits);
  ASSERT_TRUE(weights->read_rows(kNorm, 0, 16, 0, 1, out.data(), 1).ok());
  EXPECT_EQ(out[7].bits, 0x3f80);
}

TEST_F(FileWeightsTest, NonFiniteWeightsAreNamedWhenTheirSliceIsRead) {
  const uint16_t nan = 0x7fc0;
  std::memcpy(tensor(kQ).bytes.data() + 2 * (5 * 16 + 3), &nan, 2);
  write();
  const auto weights = open();
  ASSERT_TRUE(weights);
  std::vector<Bf16> out(256);
  const std::string expected = R"(tensor "model.layers.1.self_attn.q_proj.weight": element 83 (row 5, column 3) is 0x7fc0 (NaN))";
  EXPECT_THAT(std::string(weights->read_rows(kQ, 0, 16, 0, 16, out.data(), 16).message()), HasSubstr(expected));
  EXPECT_THAT(std::string(weights->read_rows(kQ, 4, 3, 2, 5, out.data(), 16).message()), HasSubstr(expected));
  EXPECT_TRUE(weights->read_rows(kQ, 0, 16, 4, 12, out.data(), 16).ok());  // another rank's shard
  EXPECT_TRUE(weights->read_rows(kQ, 6, 10, 0, 16, out.data(), 16).ok());
}

TEST_F(FileWeightsTest, LargeTensorsAreReadInPieces) {
  // More than one release step, odd width, and a bad element in the last piece.
  ModelConfig config = config_;
  config.vocab_size = 150'001;
  TensorToWrite& embed = tensor("model.embed_tokens.weight");
  std::vector<uint16_t> values(config.vocab_size * 16);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<uint16_t>(i * 2654435761u >> 20 & 0x3fff);
  embed.shape[0] = config.vocab_size;
  embed.bytes = bytes_of_values(values);
  tensor("lm_head.weight").shape[0] = config.vocab_size;
  values.back() = 0x7f80;
  tensor("lm_head.weight").bytes = bytes_of_values(values);
  write();
  const auto weights = open_file_weights(folder_, config);
  ASSERT_TRUE(weights.ok()) << weights.status();
  std::vector<Bf16> out(values.size());
  for (const auto& [col0, cols] : {std::pair<int64_t, int64_t>{0, 16}, {0, 5}, {11, 5}}) {
    ASSERT_TRUE((*weights)->read_rows(embed.name, 0, config.vocab_size, col0, cols, out.data(), cols).ok());
    for (int64_t r = 0; r < config.vocab_size; ++r) {
      ASSERT_EQ(std::memcmp(&out[r * cols], embed.bytes.data() + 2 * (r * 16 + col0), 2 * cols), 0) << r;
    }
  }
  EXPECT_THAT(std::string((*weights)->read_rows("lm_head.weight", 0, config.vocab_size, 0, 16, out.data(), 16).message()),
              HasSubstr("element 2400015 (row 150000, column 15) is 0x7f80 (infinity)"));
}

// Kilobytes of mapped files in this process's memory.
int64_t resident_file_kilobytes() {
  std::ifstream status("/proc/self/status");
  int64_t sum = 0;
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("RssFile:") || line.starts_with("RssShmem:")) sum += std::stoll(line.substr(line.find(':') + 1));
  }
  return sum;
}

TEST_F(FileWeightsTest, ReadingThroughAFileDoesNotKeepItInMemory) {
  ModelConfig config = config_;
  config.vocab_size = 1 << 20;
  for (const char* name : {"model.embed_tokens.weight", "lm_head.weight"}) {
    tensor(name).shape[0] = config.vocab_size;
    tensor(name).bytes.assign(config.vocab_size * 32, '\x3c');
  }
  write();
  const auto weights = open_file_weights(folder_, config);
  ASSERT_TRUE(weights.ok()) << weights.status();
  const int64_t file = (*weights)->total_bytes() >> 10;
  std::vector<Bf16> out(config.vocab_size * 16);
  const int64_t before = resident_file_kilobytes();
  for (const int64_t cols : {16, 5}) {  // whole rows, and a slice of each
    ASSERT_TRUE((*weights)->read_rows("lm_head.weight", 0, config.vocab_size, 0, cols, out.data(), cols).ok());
    EXPECT_LT(resident_file_kilobytes() - before, file / 4);
  }
  ASSERT_TRUE((*weights)->content_digest(2, {}).ok());
  EXPECT_LT(resident_file_kilobytes() - before, file / 4);

  // The measurement can fail: the same pages, touched without being let go.
  const auto mapped = SafetensorsFile::open(folder_ / "model.safetensors");
  const TensorRecord& head = (*mapped)->tensors()[0];
  int64_t sum = 0;
  for (int64_t i = 0; i < head.end - head.begin; i += 1024) sum += std::to_integer<int>((*mapped)->data(head)[i]);
  EXPECT_GT(sum, 0);
  EXPECT_GT(resident_file_kilobytes() - before, file / 4);
}

TEST_F(FileWeightsTest, TheTensorsMustBeTheModels) {
  write();
  EXPECT_EQ(refusal(), "accepted");

  erase(kQ);
  write();
  EXPECT_THAT(refusal(), HasSubstr(R"(tensor "model.layers.1.self_attn.q_proj.weight" with shape [16, 16] is missing)"));

  SetUp();
  tensors_.push_back({"model.layers.2.input_layernorm.weight", "BF16", {16}, std::string(32, 'x')});
  write();
  EXPECT_THAT(refusal(), HasSubstr(R"(tensor "model.layers.2.input_layernorm.weight" in model.safetensors is not one of)"));

  SetUp();
  tensor(kQ).shape = {8, 32};
  write();
  EXPECT_THAT(refusal(),
              HasSubstr(R"(q_proj.weight" in model.safetensors: shape is [8, 32]; by config.json it must be [16, 16])"));

  SetUp();
  tensor(kNorm).shape = {16, 1};
  write();
  EXPECT_THAT(refusal(), HasSubstr("shape is [16, 1]; by config.json it must be [16]"));

  SetUp();
  tensor(kQ).dtype = "I16";
  write();
  EXPECT_THAT(refusal(), HasSubstr("dtype is I16; it must be BF16, F16 or F32"));

  SetUp();
  EXPECT_THAT(refusal(), HasSubstr("has neither model.safetensors nor model.safetensors.index.json"));
}

TEST_F(FileWeightsTest, RotaryBuffersAndATiedHeadMayStandByAndDoNotCount) {
  config_.tie_word_embeddings = true;
  const TensorToWrite head = tensor("lm_head.weight");
  erase("lm_head.weight");
  write();
  const std::string without = digest();
  const int64_t bytes = open()->total_bytes();
  tensors_.push_back(head);
  tensors_.push_back({"model.layers.0.self_attn.rotary_emb.inv_freq", "F32", {4}, std::string(16, 'x')});
  write();
  EXPECT_EQ(digest(), without);
  EXPECT_EQ(open()->total_bytes(), bytes);
  EXPECT_TRUE(open()->shape("lm_head.weight").empty());
  config_.tie_word_embeddings = false;  // now the head counts
  EXPECT_NE(digest(), without);
}

TEST_F(FileWeightsTest, OneFileAndManyHoldTheSameModel) {
  write();
  const std::string one = digest();
  std::vector<Bf16> expected(256);
  ASSERT_TRUE(open()->read_rows(kQ, 0, 16, 0, 16, expected.data(), 16).ok());
  std::filesystem::remove(folder_ / "model.safetensors");
  for (const int files : {1, 2, 3, 7}) {
    SetUp();
    write_split(files);
    EXPECT_EQ(digest(), one) << files;
    std::vector<Bf16> out(256);
    ASSERT_TRUE(open()->read_rows(kQ, 0, 16, 0, 16, out.data(), 16).ok());
    EXPECT_EQ(std::memcmp(out.data(), expected.data(), 512), 0);
  }
  // The control arm: one bit of one weight, one name, one type.
  tensor(kQ).bytes[100] ^= 1;
  write_split(2);
  EXPECT_NE(digest(), one);
}

TEST_F(FileWeightsTest, ALyingIndexIsRefused) {
  const json good = write_split(2);
  EXPECT_EQ(refusal(), "accepted");
  const auto with = [&](const std::function<void(json&)>& change) {
    json index = good;
    change(index);
    write_index(index);
    return refusal();
  };
  const std::string first = "model-00001-of-00002.safetensors", second = "model-00002-of-00002.safetensors";
  const std::string q_file = good["weight_map"][kQ];
  EXPECT_THAT(with([&](json& i) { i["weight_map"][kQ] = q_file == first ? second : first; }),
              HasSubstr("that file has no such tensor"));
  EXPECT_THAT(with([&](json& i) { i["weight_map"]["ghost"] = first; }),
              HasSubstr("weight_map: \"ghost\" is \"model-00001-of-00002.safetensors\""));
  EXPECT_THAT(with([&](json& i) { i["weight_map"].erase(kQ); }),
              HasSubstr(std::string("weight_map: \"") + kQ + "\" is not there"));
  EXPECT_THAT(with([&](json& i) { i["weight_map"][kQ] = 7; }), HasSubstr("is 7; it must be a file name"));
  EXPECT_THAT(with([&](json& i) { i["weight_map"][kQ] = "../model-00001-of-00002.safetensors"; }),
              HasSubstr("a .safetensors file of this folder"));
  EXPECT_THAT(with([&](json& i) { i["weight_map"][kQ] = "/etc/passwd"; }), HasSubstr("a .safetensors file of this folder"));
  EXPECT_THAT(with([&](json& i) { i["weight_map"][kQ] = "passwd"; }), HasSubstr("a .safetensors file of this folder"));
  EXPECT_THAT(with([&](json& i) { i["weight_map"][kQ] = "gone.safetensors"; }), HasSubstr("gone.safetensors"));
  EXPECT_THAT(with([&](json& i) { i.erase("weight_map"); }), HasSubstr("weight_map is missing"));
  EXPECT_THAT(with([&](json& i) { i["weight_map"] = json::array(); }), HasSubstr("weight_map is missing or not an object"));
  std::ofstream(folder_ / "model.safetensors.index.json") << R"({"weight_map":{"a":"x.safetensors","a":"y.safetensors"}})";
  EXPECT_THAT(refusal(), HasSubstr("the key \"a\" is given twice"));
  // The same tensor in both files, whatever the index says.
  write_index(good);
  const TensorToWrite twice = tensor(kQ);
  std::vector<TensorToWrite> parts[2];
  for (const TensorToWrite& t : tensors_) parts[good["weight_map"][t.name] == first ? 0 : 1].push_back(t);
  parts[q_file == first ? 1 : 0].push_back(twice);
  write_safetensors(folder_ / first, parts[0]);
  write_safetensors(folder_ / second, parts[1]);
  EXPECT_THAT(refusal(), HasSubstr("is both in"));
}

TEST_F(FileWeightsTest, DigestSeesEveryPartOfTheModel) {
  write();
  const auto weights = open();
  ASSERT_TRUE(weights);
  const ModelDocuments documents = {
      .config_json = kConfig, .generation_config_json = "{\"eos_token_id\": 1}", .tokenizer_json = "{}"};
  const std::string original = *model_digest(documents, *weights);
  EXPECT_EQ(original.size(), 64u);
  EXPECT_EQ(original.find_first_not_of("0123456789abcdef"), std::string::npos);

  ModelDocuments other = documents;
  other.config_json = json::parse(kConfig).dump(4);  // keys in another order, other white space
  other.generation_config_json = " {\n\"eos_token_id\":1}";
  EXPECT_EQ(*model_digest(other, *weights), original);
  for (const int threads : {1, 3, 8}) EXPECT_EQ(*model_digest(documents, *weights, threads), original);

  std::set<std::string> digests = {original};
  const auto differs = [&](const ModelDocuments& d, const WeightSource& w) {
    EXPECT_TRUE(digests.insert(*model_digest(d, w)).second);
  };
  other = documents;
  json config = json::parse(kConfig);
  config["rope_theta"] = 20000;
  other.config_json = config.dump();
  differs(other, *weights);
  other = documents;
  other.generation_config_json = "{\"eos_token_id\": 2}";
  differs(other, *weights);
  other.generation_config_json.clear();
  differs(other, *weights);
  other = documents;
  other.tokenizer_json = "{ }";  // bytes count: a tokenizer is not canonicalised
  differs(other, *weights);
  other.tokenizer_json.clear();
  differs(other, *weights);
  // A byte moved from one document to the next.
  other = {.config_json = "{}", .tokenizer_json = "{}x"};
  differs(other, *weights);
  // Weights: value, type with equal bytes.
  tensor(kNorm).bytes[0] ^= 1;
  write();
  differs(documents, *open());
  tensor(kNorm).dtype = "F16";
  write();
  differs(documents, *open());

  other = documents;
  other.config_json = "{";
  EXPECT_THAT(std::string(model_digest(other, *weights).status().message()), HasSubstr("config.json: not valid JSON"));
}

TEST_F(FileWeightsTest, DigestReportsProgressToTheEnd) {
  write();
  const auto weights = open();
  int64_t last = 0;
  int calls = 0;
  ASSERT_TRUE(model_digest({.config_json = kConfig}, *weights, 2, [&](const LoadProgress& p) {
                EXPECT_GT(p.bytes_done, last);
                EXPECT_EQ(p.bytes_total, weights->total_bytes());
                EXPECT_FALSE(weights->shape(p.tensor).empty());
                last = p.bytes_done;
                ++calls;
              }).ok());
  EXPECT_EQ(last, weights->total_bytes());
  EXPECT_EQ(calls, static_cast<int>(tensors_.size()));
}

TEST_F(FileWeightsTest, DigestIsPinned) {
  // Receipts of different builds must agree, so the rule may not drift unnoticed.
  for (TensorToWrite& t : tensors_) {
    for (size_t i = 0; i < t.bytes.size(); i += 2) {
      t.bytes[i] = static_cast<char>(i / 2 & 0xff);
      t.bytes[i + 1] = 0x3c;
    }
  }
  write();
  EXPECT_EQ(digest(), "ebcf43b6c52b31dd13daff16a1adff1f9f25289d6b914907206f3a7020889f73");
  EXPECT_EQ(*model_digest({.config_json = kConfig}, *make_dummy_weights(config_, 7)),
            "63a4c1f3881f01bcbb0329aae7e60a8d55601e7da831d31eba8d3a24ec2d3903");
}

TEST(Documents, FolderOrConfigAlone) {
  const std::filesystem::path folder = std::filesystem::path(testing::TempDir()) / "invar_documents";
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  EXPECT_TRUE(absl::IsNotFound(read_model_documents(folder).status()));
  std::ofstream(folder / "config.json") << "{\"a\":1}";
  EXPECT_EQ(read_model_documents(folder)->config_json, "{\"a\":1}");
  EXPECT_EQ(read_model_documents(folder)->tokenizer_json, "");
  std::ofstream(folder / "tokenizer.json") << "tok";
  std::ofstream(folder / "generation_config.json") << "{}";
  EXPECT_EQ(read_model_documents(folder)->tokenizer_json, "tok");
  EXPECT_EQ(read_model_documents(folder)->generation_config_json, "{}");
  EXPECT_EQ(read_model_documents(folder / "config.json")->tokenizer_json, "");
  std::filesystem::remove_all(folder);
}

TEST(RealModels, OpenAndDigest) {
  const std::filesystem::path source = INVAR_SOURCE_DIR;
  int opened = 0;
  for (const auto& folder : {source / "configs/models/demo-dense", source / "configs/models/demo-moe",
                             source / ".." / "shared/models/stories260K/hf"}) {
    if (!std::filesystem::exists(folder / "model.safetensors")) continue;
    SCOPED_TRACE(folder.string());
    ++opened;
    const auto config = load_model_config(folder);
    ASSERT_TRUE(config.ok()) << config.status();
    const auto weights = open_file_weights(folder, *config);
    ASSERT_TRUE(weights.ok()) << weights.status();
    EXPECT_TRUE(model_digest(*read_model_documents(folder), **weights).ok());
    std::vector<Bf16> out;
    for (const ExpectedTensor& tensor : expected_tensors(*config)) {
      const int64_t cols = tensor.shape.size() == 2 ? tensor.shape[1] : 1;
      out.resize(tensor.shape[0] * cols);
      const absl::Status status = (*weights)->read_rows(tensor.name, 0, tensor.shape[0], 0, cols, out.data(), cols);
      EXPECT_TRUE(status.ok()) << status;
    }
  }
  if (!opened) GTEST_SKIP() << "no model folder is there";
}

}  // namespace
}  // namespace invar
