// libFuzzer target: the first byte says what the specification is (schema, regex, grammar, choices, one a line), the rest up to
// the first zero byte is its text, and what follows chooses tokens on the way through it. Masks must agree with accept();
// finished JSON must parse.
//   runtime_grammar_fuzz CORPUS_FOLDER
// writes samples into CORPUS_FOLDER if it is empty, so that no corpus has to be kept.
#include <cstdlib>
#include <string_view>

#include "nlohmann/json.hpp"
#include "runtime/grammar/grammar_samples.h"
#include "tests/support/fuzz_corpus.h"

namespace {

using invar::grammar::Grammar;
using invar::grammar::Matcher;
using invar::grammar::Specification;

constexpr const char* kSamples[] = {
    R"(s{"type":"object","properties":{"a":{"type":"string","maxLength":5},"b":{"$ref":"#"}},"required":["a"],"additionalProperties":{}})",
    R"(s{"anyOf":[{"enum":["x",1,[2]]},{"type":"array","items":{"type":"number","minimum":-1.5,"exclusiveMaximum":7}}]})",
    R"(s{"oneOf":[{"type":"string","format":"date-time"},{"type":"integer","minimum":3}],"$defs":{}})",
    R"(s{"type":"array","prefixItems":[{"const":null},{"type":"string","pattern":"^a|b$"}],"minItems":1,"maxItems":4,"items":false})",
    "o",
    "r(?:[a-f]{2,5}|\\d+\\.[^x]*)?$",
    "r(^a|b$|\\w\\s)*\\u00e9",
    "groot ::= e\ne ::= e [-+] t | t # left\nt ::= [0-9]{1,3} | \"(\" e \")\" | (\"x\" t?)*",
    "groot ::= \"{\" (p (\",\" p)*)? \"}\"\np ::= s \":\" (s | root)\ns ::= \"\\\"\" [^\"\\x00-\\x1f]* \"\\\"\"\n",
    "groot ::= (\"(\" root \")\" | \"(\" root \",\" . \")\" | [\\u00e9-\\U0001F600])+ \"\"",
    "cyes\nno\nmaybe"};

}  // namespace

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
  std::vector<std::string> samples;
  for (const std::string sample : kSamples) samples.push_back(sample + '\0' + "0123456789abcdef");
  invar::fill_empty_corpus(*argc, *argv, samples);
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t zero = std::min(input.find('\0'), size);
  Specification s;
  s.text = std::string(input.substr(1, zero == 0 ? 0 : zero - 1));
  switch (input[0]) {
    case 's':
      s.kind = Specification::Kind::kJsonSchema;
      break;
    case 'r':
      s.kind = Specification::Kind::kRegex;
      break;
    case 'g':
      s.kind = Specification::Kind::kEbnf;
      break;
    case 'c':
      s.kind = Specification::Kind::kChoice;
      for (size_t at = 0; at <= s.text.size();) {
        const size_t end = std::min(s.text.find('\n', at), s.text.size());
        s.choices.push_back(s.text.substr(at, end - at));
        at = end + 1;
      }
      break;
    default:
      break;
  }
  const auto made = Grammar::compile(s, invar::grammar::sample_tokens(), size % 2 ? Grammar::kCacheBytes : 30'000);
  if (!made.ok()) return 0;
  const auto& tokens = (*made)->tokens();
  Matcher m(*made);
  std::string text;
  for (size_t at = zero + 1; at < size && at < zero + 40; ++at) {
    const auto mask = m.mask(true);
    if (!mask.ok()) return 0;
    const std::vector<int32_t> ids = invar::grammar::allowed_ids(**mask);
    for (int32_t probe = data[at]; probe < tokens.vocab_size(); probe += 97) {
      Matcher copy = m;
      if (copy.accept(probe) != invar::grammar::token_allowed(**mask, probe)) std::abort();
    }
    if (ids.empty()) break;
    const int32_t token = ids[static_cast<size_t>(data[at]) * 7919 % ids.size()];
    if (!m.accept(token)) std::abort();
    text += tokens.texts[token];
  }
  const bool json = s.kind == Specification::Kind::kJsonSchema || s.kind == Specification::Kind::kJsonObject;
  if (json && m.may_end() && !nlohmann::json::accept(text)) std::abort();
  return 0;
}
