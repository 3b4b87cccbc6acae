// Small tokenizer.json files for the tests and the fuzzer.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "nlohmann/json.hpp"
#include "runtime/tokenizer/byte_alphabet.h"
#include "runtime/tokenizer/strings.h"
#include "runtime/tokenizer/utf8.h"

namespace invar::tokenizer {

using Json = nlohmann::ordered_json;

inline Json added_token(int id, const char* content, bool special) {
  return {{"id", id},        {"content", content},     {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", !special}, {"special", special}};
}

inline Json empty_tokenizer() {
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", Json::array()},
          {"normalizer", nullptr},
          {"pre_tokenizer", nullptr},
          {"post_processor", nullptr},
          {"decoder", nullptr},
          {"model",
           {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", nullptr},
            {"continuing_subword_prefix", nullptr},
            {"end_of_word_suffix", nullptr},
            {"fuse_unk", false},
            {"byte_fallback", false},
            {"vocab", Json::object()},
            {"merges", Json::array()}}}};
}

// Adds what `left` and `right` make, and the merge, to the model.
inline void add_merge(Json& tokenizer, const std::string& left, const std::string& right, bool as_pair) {
  Json& model = tokenizer["model"];
  if (!model["vocab"].contains(left + right)) model["vocab"][left + right] = model["vocab"].size();
  if (as_pair) {
    model["merges"].push_back({left, right});
  } else {
    model["merges"].push_back(left + " " + right);
  }
}

// Byte-level BPE in the manner of Llama 3 and Qwen: bytes are ids 0 .. 255 in byte order, then "hello", " hello", " world" with
// what they are made of, then <|bos|> and <|end|> (special) and <think> (not special).
inline Json byte_level_sample() {
  Json tokenizer = empty_tokenizer();
  for (int byte = 0; byte < 256; ++byte) {
    std::string character;
    append_byte_characters(std::string(1, static_cast<char>(byte)), character);
    tokenizer["model"]["vocab"][character] = byte;
  }
  const std::pair<const char*, const char*> merges[] = {{"h", "e"},     {"l", "l"},     {"he", "ll"}, {"hell", "o"},
                                                        {"Ġ", "hello"}, {"Ġ", "w"},     {"o", "r"},   {"Ġw", "or"},
                                                        {"l", "d"},     {"Ġwor", "ld"}, {"Ã", "©"}};
  for (const auto& [left, right] : merges) add_merge(tokenizer, left, right, false);
  const int next = static_cast<int>(tokenizer["model"]["vocab"].size());
  tokenizer["added_tokens"] = {added_token(next, "<|bos|>", true), added_token(next + 1, "<|end|>", true),
                               added_token(next + 2, "<think>", false)};
  tokenizer["pre_tokenizer"] = {
      {"type", "Sequence"},
      {"pretokenizers",
       {{{"type", "Split"},
         {"pattern",
          {{"Regex", R"((?i:'s|'t)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"}}},
         {"behavior", "Isolated"},
         {"invert", false}},
        {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", false}}}}};
  tokenizer["post_processor"] = {
      {"type", "TemplateProcessing"},
      {"single", {{{"SpecialToken", {{"id", "<|bos|>"}, {"type_id", 0}}}}, {{"Sequence", {{"id", "A"}, {"type_id", 0}}}}}},
      {"pair", Json::array()},
      {"special_tokens", {{"<|bos|>", {{"id", "<|bos|>"}, {"ids", {next}}, {"tokens", {"<|bos|>"}}}}}}};
  tokenizer["decoder"] = {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", true}, {"use_regex", true}};
  return tokenizer;
}

// BPE in the manner of Llama 2: <unk>, <s>, </s>, 256 byte tokens, the letters a-z and the mark for a space, a few merges.
inline Json sentencepiece_sample() {
  Json tokenizer = empty_tokenizer();
  Json& vocab = tokenizer["model"]["vocab"];
  for (const char* token : {"<unk>", "<s>", "</s>"}) vocab[token] = vocab.size();
  for (int byte = 0; byte < 256; ++byte) {
    constexpr char kDigits[] = "0123456789ABCDEF";
    vocab[concat("<0x", std::string(1, kDigits[byte / 16]), std::string(1, kDigits[byte % 16]), ">")] = vocab.size();
  }
  vocab["▁"] = vocab.size();
  for (char letter = 'a'; letter <= 'z'; ++letter) vocab[std::string(1, letter)] = vocab.size();
  for (const auto& [left, right] : {std::pair("▁", "t"), {"h", "e"}, {"▁t", "he"}, {"▁", "a"}, {"▁", "▁"}})
    add_merge(tokenizer, left, right, true);
  tokenizer["model"]["unk_token"] = "<unk>";
  tokenizer["model"]["fuse_unk"] = true;
  tokenizer["model"]["byte_fallback"] = true;
  tokenizer["added_tokens"] = {added_token(0, "<unk>", true), added_token(1, "<s>", true), added_token(2, "</s>", true)};
  tokenizer["normalizer"] = {
      {"type", "Sequence"},
      {"normalizers",
       {{{"type", "Prepend"}, {"prepend", "▁"}}, {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "▁"}}}}};
  tokenizer["decoder"] = {{"type", "Sequence"},
                          {"decoders",
                           {{{"type", "Replace"}, {"pattern", {{"String", "▁"}}}, {"content", " "}},
                            {{"type", "ByteFallback"}},
                            {{"type", "Fuse"}},
                            {{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}}}}};
  return tokenizer;
}

// The steps the two above do not have.
inline Json mixed_sample() {
  Json tokenizer = sentencepiece_sample();
  tokenizer["model"]["byte_fallback"] = false;
  tokenizer["model"]["fuse_unk"] = false;
  tokenizer["model"]["ignore_merges"] = true;
  tokenizer["normalizer"] = {{"type", "Sequence"},
                             {"normalizers",
                              {{{"type", "NFKC"}},
                               {{"type", "Lowercase"}},
                               {{"type", "Strip"}, {"strip_left", true}, {"strip_right", true}},
                               {{"type", "Replace"}, {"pattern", {{"Regex", R"([\p{Cc}&&[^\n]]+|\bq\w*)"}}}, {"content", " "}}}}};
  tokenizer["pre_tokenizer"] = {
      {"type", "Sequence"},
      {"pretokenizers",
       {{{"type", "Digits"}, {"individual_digits", false}},
        {{"type", "Split"}, {"pattern", {{"String", "-"}}}, {"behavior", "MergedWithPrevious"}, {"invert", false}},
        {{"type", "Metaspace"}, {"replacement", "▁"}, {"prepend_scheme", "first"}, {"split", true}}}}};
  tokenizer["post_processor"] = nullptr;
  tokenizer["decoder"] = {{"type", "Metaspace"}, {"replacement", "▁"}, {"prepend_scheme", "first"}, {"split", true}};
  Json word = added_token(400, "the", false);
  word["single_word"] = word["lstrip"] = word["rstrip"] = true;
  tokenizer["added_tokens"].push_back(word);
  return tokenizer;
}

inline std::vector<std::string> sample_files() {
  return {byte_level_sample().dump(), sentencepiece_sample().dump(), mixed_sample().dump()};
}

inline const std::vector<std::string>& sample_texts() {
  static const std::vector<std::string> texts = {"hello world",
                                                 " hello  hello\n\n it's 12345 é 你好 🦙<think>x<|end|>",
                                                 "the cat - the  end q12",
                                                 "",
                                                 "\xF0\x9F\x91\xA8\xE2\x80\x8D\xF0\x9F\x91\xA9",
                                                 "a\xCC\x81\t\x01"};
  return texts;
}

}  // namespace invar::tokenizer
