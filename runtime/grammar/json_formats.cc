#include "runtime/grammar/json_formats.h"

#include <map>

#include "absl/strings/str_cat.h"

namespace invar::grammar {
namespace {

// RFC 3339, with the right number of days in each month; seconds up to 59, because readers differ on leap seconds.
const std::string kDate =
    "(?:[0-9]{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-"
    "8]))|"
    "(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)-02-29)";
const std::string kTime = "(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\\.[0-9]{1,9})?(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])";
const std::string kByte = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])";
const std::string kLabel = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?";
const std::string kGroup = "[0-9A-Fa-f]{1,4}";

std::string ipv6() {
  const auto groups = [](int count) { return absl::StrCat("(?:", kGroup, ":){", count, "}"); };
  std::string all = absl::StrCat(groups(7), kGroup);  // without ::
  for (int before = 0; before <= 7; ++before) {
    // `before` groups, ::, and at most 7 - before behind it
    const std::string head = before == 0 ? ":" : absl::StrCat("(?:", kGroup, ":){", before, "}");
    const int behind = 7 - before;
    const std::string tail = behind == 0 ? "" : absl::StrCat("(?:", kGroup, "(?::", kGroup, "){0,", behind - 1, "})?");
    absl::StrAppend(&all, "|", head, ":", tail);
  }
  return absl::StrCat("(?:", all, ")");
}

const std::map<std::string, std::string, std::less<>>& formats() {
  static const auto* const all = new std::map<std::string, std::string, std::less<>>{
      {"date", kDate},
      {"time", kTime},
      {"date-time", absl::StrCat(kDate, "T", kTime)},
      {"duration",
       "P(?:[0-9]{1,9}W|(?:[0-9]{1,9}D|[0-9]{1,9}M(?:[0-9]{1,9}D)?|[0-9]{1,9}Y(?:[0-9]{1,9}M(?:[0-9]{1,9}D)?)?)"
       "(?:T(?:[0-9]{1,9}S|[0-9]{1,9}M(?:[0-9]{1,9}S)?|[0-9]{1,9}H(?:[0-9]{1,9}M(?:[0-9]{1,9}S)?)?))?|"
       "T(?:[0-9]{1,9}S|[0-9]{1,9}M(?:[0-9]{1,9}S)?|[0-9]{1,9}H(?:[0-9]{1,9}M(?:[0-9]{1,9}S)?)?))"},
      {"uuid", "[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}"},
      {"email", absl::StrCat("[A-Za-z0-9_%+-]+(?:\\.[A-Za-z0-9_%+-]+)*@", kLabel, "(?:\\.", kLabel, ")+")},
      {"hostname", absl::StrCat(kLabel, "(?:\\.", kLabel, ")*")},
      {"ipv4", absl::StrCat(kByte, "(?:\\.", kByte, "){3}")},
      {"ipv6", ipv6()},
      {"uri", "[A-Za-z][A-Za-z0-9+.-]*:(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})+"},
  };
  return *all;
}

}  // namespace

std::string_view json_format(std::string_view name) {
  const auto found = formats().find(name);
  return found == formats().end() ? std::string_view() : found->second;
}

std::string json_format_names() {
  std::string names;
  for (const auto& [name, regex] : formats()) absl::StrAppend(&names, names.empty() ? "" : ", ", name);
  return names;
}

}  // namespace invar::grammar
