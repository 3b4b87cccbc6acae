// A template's text as tokens, with trim_blocks and lstrip_blocks on, as transformers sets them: the newline after a block or a
// comment goes, and so does white space in front of one that stands first in its line.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "runtime/chat_template/value.h"

namespace invar::jinja {

enum class TokenKind {
  kData,
  kBlockBegin,
  kBlockEnd,
  kVariableBegin,
  kVariableEnd,
  kName,
  kText,
  kInteger,
  kFloat,
  kOperator,
  kEnd
};

struct Token {
  TokenKind kind;
  std::string text;  // data, a name, an operator, a string's value; a number as written
  int line;          // from 1
};

// Splits the whole template. `source`: valid UTF-8 with \n as its only line end (normalise_source). Throws Failure.
std::vector<Token> tokenize(std::string_view source);

// Line ends become \n and one at the very end goes, as Jinja does before anything else.
std::string normalise_source(std::string_view source);

// How messages call a token.
std::string describe(const Token& token);

}  // namespace invar::jinja
