// Thousands of damaged tokenizer.json files, the same ones in every run: each must load or be refused, and if it loads it must
// encode or refuse. tokenizer_fuzz.cc looks further; this runs everywhere.
#include <random>

#include "gtest/gtest.h"
#include "runtime/tokenizer/tokenizer.h"
#include "runtime/tokenizer/tokenizer_samples.h"

namespace invar {
namespace {

using tokenizer::Json;
using Random = std::mt19937;

size_t below(Random& random, size_t n) { return random() % n; }  // the library's distributions differ between libraries

struct Tally {
  int loaded = 0, refused = 0, encoded = 0;
};

void run(const std::string& file, const std::string& text, Tally& tally) {
  const auto made = Tokenizer::parse(file);
  if (!made.ok()) {
    EXPECT_FALSE(made.status().message().empty());
    ++tally.refused;
    return;
  }
  ++tally.loaded;
  const auto ids = (*made)->encode(text, true);
  if (!ids.ok()) return;
  ++tally.encoded;
  StreamDecoder stream(*made, false);
  std::string streamed;
  for (const int32_t id : *ids) {
    ASSERT_GE(id, 0);
    ASSERT_LT(id, (*made)->vocab_size());
    streamed += stream.push(id);
  }
  streamed += stream.finish();
  ASSERT_EQ(streamed, (*made)->decode(*ids, false));
}

std::string damaged_bytes(std::string file, Random& random) {
  constexpr std::string_view kBytes = "\"\\{}[]:,0123456789.-eE \xFF\xC3\x80\0tfn";
  for (size_t n = 1 + below(random, 4); n > 0 && !file.empty(); --n) {
    const size_t at = below(random, file.size());
    switch (below(random, 5)) {
      case 0:
        file[at] = static_cast<char>(random());
        break;
      case 1:
        file[at] = kBytes[below(random, kBytes.size())];
        break;
      case 2:
        file.erase(at, 1 + below(random, 40));
        break;
      case 3:
        file.insert(at, file.substr(below(random, file.size()), below(random, 60)));
        break;
      case 4:
        file.resize(at);
        break;
    }
  }
  return file;
}

// A value somewhere in the tree, reached by random steps.
Json& somewhere(Json& root, Random& random) {
  Json* at = &root;
  while (at->is_structured() && !at->empty() && below(random, 6) > 0) {
    auto next = at->begin();
    std::advance(next, static_cast<std::ptrdiff_t>(below(random, at->size())));
    at = &*next;
  }
  return *at;
}

Json odd_value(const Json& root, Random& random) {
  static const Json kOdd[] = {nullptr,
                              true,
                              false,
                              0,
                              1,
                              -1,
                              1.5,
                              1e300,
                              2147483647,
                              2147483648u,
                              18446744073709551615u,
                              "",
                              " ",
                              "a",
                              "▁",
                              "é",
                              "Sequence",
                              "Replace",
                              "Split",
                              "ByteLevel",
                              "Metaspace",
                              "ByteFallback",
                              "Fuse",
                              "Strip",
                              "NFKC",
                              "Isolated",
                              "MergedWithNext",
                              "(a+)+$",
                              "[^",
                              "\\p{L}+",
                              "x*",
                              "(?i)",
                              "<|bos|>",
                              "<0x41>",
                              std::string(3000, 'a'),
                              Json::array(),
                              Json::object(),
                              Json::array({Json::array()})};
  if (below(random, 3) == 0) {
    Json copy = root;
    return somewhere(copy, random);
  }
  return kOdd[below(random, std::size(kOdd))];
}

Json damaged_tree(const Json& root, Random& random) {
  Json tree = root;
  for (size_t n = 1 + below(random, 3); n > 0; --n) {
    // Half of the changes avoid the vocabulary, which is most of the tree.
    Json& part = below(random, 2) ? tree
                                  : tree[std::vector<const char*>{"normalizer", "pre_tokenizer", "decoder", "post_processor",
                                                                  "added_tokens"}[below(random, 5)]];
    Json& target = somewhere(part, random);
    if (target.is_array() && below(random, 2)) {
      target.push_back(odd_value(root, random));
    } else if (target.is_object() && !target.empty() && below(random, 2)) {
      auto victim = target.begin();
      std::advance(victim, static_cast<std::ptrdiff_t>(below(random, target.size())));
      target.erase(victim);
    } else {
      target = odd_value(root, random);
    }
    if (!tree.is_object()) break;
  }
  return tree;
}

TEST(Mutations, DamagedBytes) {
  Random random(1);
  Tally tally;
  const auto files = tokenizer::sample_files();
  for (int i = 0; i < 6000; ++i) {
    run(damaged_bytes(files[below(random, files.size())], random),
        tokenizer::sample_texts()[below(random, tokenizer::sample_texts().size())], tally);
  }
  EXPECT_GT(tally.refused, 1000);
  EXPECT_GT(tally.encoded, 100);  // not all damage is seen by the reader of JSON
}

TEST(Mutations, DamagedTrees) {
  Random random(2);
  Tally tally;
  const Json samples[] = {tokenizer::byte_level_sample(), tokenizer::sentencepiece_sample(), tokenizer::mixed_sample()};
  for (int i = 0; i < 4000; ++i) {
    const Json tree = damaged_tree(samples[below(random, 3)], random);
    run(tree.dump(-1, ' ', false, Json::error_handler_t::replace),
        tokenizer::sample_texts()[below(random, tokenizer::sample_texts().size())], tally);
  }
  EXPECT_GT(tally.refused, 1000);
  EXPECT_GT(tally.encoded, 500);
}

TEST(Mutations, DamagedText) {
  Random random(3);
  for (const std::string& file : tokenizer::sample_files()) {
    const auto made = Tokenizer::parse(file);
    ASSERT_TRUE(made.ok()) << made.status();
    int encoded = 0, refused = 0;
    for (int i = 0; i < 3000; ++i) {
      std::string text = tokenizer::sample_texts()[below(random, tokenizer::sample_texts().size())];
      for (size_t n = below(random, 4); n > 0 && !text.empty(); --n) text = damaged_bytes(text, random);
      const auto ids = (*made)->encode(text, false);
      if (!ids.ok()) {
        EXPECT_EQ(ids.status().code(), absl::StatusCode::kInvalidArgument);
        ++refused;
        continue;
      }
      ++encoded;
      std::string streamed;
      StreamDecoder stream(*made, true);
      for (const int32_t id : *ids) streamed += stream.push(id);
      ASSERT_EQ(streamed + stream.finish(), (*made)->decode(*ids, true));
    }
    EXPECT_GT(encoded, 300);
    EXPECT_GT(refused, 300);
  }
}

// Any ids at all can be decoded.
TEST(Mutations, RandomIds) {
  Random random(4);
  for (const std::string& file : tokenizer::sample_files()) {
    const auto made = Tokenizer::parse(file);
    ASSERT_TRUE(made.ok());
    for (int i = 0; i < 5000; ++i) {
      std::vector<int32_t> ids;
      for (size_t n = below(random, 12); n > 0; --n)
        ids.push_back(below(random, 10) ? static_cast<int32_t>(below(random, 300)) : static_cast<int32_t>(random()));
      const bool skip = below(random, 2);
      std::string streamed;
      StreamDecoder stream(*made, skip);
      for (const int32_t id : ids) {
        const std::string piece = stream.push(id);
        ASSERT_EQ(tokenizer::first_invalid_utf8(piece), std::string_view::npos);
        streamed += piece;
      }
      ASSERT_EQ(streamed + stream.finish(), (*made)->decode(ids, skip));
    }
  }
}

}  // namespace
}  // namespace invar
