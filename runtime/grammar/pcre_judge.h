// For tests: PCRE2, which shares no code with this folder, says whether a text is right.
#pragma once

#ifndef PCRE2_CODE_UNIT_WIDTH
#define PCRE2_CODE_UNIT_WIDTH 8
#endif
#include <pcre2.h>

#include <optional>
#include <string>

#include "gtest/gtest.h"

namespace invar::grammar {

// The whole text must match. Nothing: PCRE2 gave up (too many ways to try).
inline std::optional<bool> pcre_judges(const std::string& pattern, const std::string& text) {
  int error;
  size_t offset;
  const std::string whole = "(?:" + pattern + ")";
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(whole.data()), whole.size(),
                                   PCRE2_UTF | PCRE2_ANCHORED | PCRE2_ENDANCHORED | PCRE2_DOLLAR_ENDONLY |
                                       (pattern.find("\\u") != std::string::npos ? PCRE2_ALT_BSUX : 0),
                                   &error, &offset, nullptr);
  EXPECT_NE(code, nullptr) << pattern;
  if (!code) return std::nullopt;
  pcre2_match_data* data = pcre2_match_data_create_from_pattern(code, nullptr);
  const int rc = pcre2_match(code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), 0, 0, data, nullptr);
  const bool gave_up = rc == PCRE2_ERROR_MATCHLIMIT || rc == PCRE2_ERROR_DEPTHLIMIT || rc == PCRE2_ERROR_HEAPLIMIT;
  EXPECT_TRUE(rc >= 0 || rc == PCRE2_ERROR_NOMATCH || gave_up) << pattern << " error " << rc;
  pcre2_match_data_free(data);
  pcre2_code_free(code);
  if (gave_up) return std::nullopt;
  return rc >= 0;
}

}  // namespace invar::grammar
