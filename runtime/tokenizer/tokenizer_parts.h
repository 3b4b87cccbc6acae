// What a Tokenizer is made of. For the sources of this folder only.
#pragma once

#include "runtime/tokenizer/added_tokens.h"
#include "runtime/tokenizer/bpe.h"
#include "runtime/tokenizer/decoder.h"
#include "runtime/tokenizer/normalizer.h"
#include "runtime/tokenizer/post_processor.h"
#include "runtime/tokenizer/pre_tokenizer.h"
#include "runtime/tokenizer/tokenizer.h"

namespace invar {

struct Tokenizer::Parts {
  explicit Parts(tokenizer::Bpe model) : bpe(std::move(model)) {}

  // The token of an id as written in the file, if there is one.
  std::optional<std::string_view> token(int32_t id) const {
    if (const auto* token = added.find(id)) return token->content;
    if (bpe.vocabulary().has(id)) return bpe.vocabulary().text(id);
    return std::nullopt;
  }
  std::optional<int32_t> id_of(std::string_view token) const {
    if (const auto* known = added.find(token)) return known->id;
    const int32_t id = bpe.vocabulary().find(token);
    return id == tokenizer::Vocabulary::kNone ? std::nullopt : std::optional(id);
  }

  tokenizer::Normalizer normalizer;
  tokenizer::AddedTokens added;
  tokenizer::PreTokenizer pre_tokenizer;
  tokenizer::Bpe bpe;
  tokenizer::PostProcessor post_processor;
  tokenizer::Decoder decoder;
  std::optional<int32_t> bos, eos;
};

}  // namespace invar
