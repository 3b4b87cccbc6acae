// Patterns in tokenizer.json are written for Oniguruma; this folder matches with PCRE2.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace invar::tokenizer {

// `pattern` (valid UTF-8, Oniguruma syntax) as a PCRE2 pattern that matches the same when compiled with PCRE2_UTF, PCRE2_UCP
// and PCRE2_MULTILINE and with \n as the only newline. What the two write alike but mean differently is rewritten: \s, \w,
// \b, \v, \h, script names, && and nesting in classes, x{1,3}+, x{2}?, x{,3}, (?m). Errors: Unimplemented for constructs
// without a known equivalent (named groups, back references, conditionals, verbs ..), InvalidArgument for what neither reads.
absl::StatusOr<std::string> translate_pattern(std::string_view pattern);

}  // namespace invar::tokenizer
