#include "runtime/chat_template/clock.h"

#include <time.h>

#include "absl/strings/ascii.h"
#include "absl/strings/str_format.h"
#include "runtime/chat_template/failure.h"

namespace invar::jinja {
namespace {

constexpr std::string_view kDays[] = {"Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"};
constexpr std::string_view kMonths[] = {"January", "February", "March",     "April",   "May",      "June",
                                        "July",    "August",   "September", "October", "November", "December"};

struct Padding {
  char fill;  // 0: none
  int width;
};

std::string padded(int64_t number, Padding padding, char flag) {
  std::string digits = concat(number);
  const char fill = flag == '-' ? '\0' : flag == '_' ? ' ' : flag == '0' ? '0' : padding.fill;
  if (fill != '\0' && digits.size() < static_cast<size_t>(padding.width)) {
    digits.insert(0, static_cast<size_t>(padding.width) - digits.size(), fill);
  }
  return digits;
}

// ISO 8601: the week that has the year's first Thursday is its first.
struct IsoWeek {
  int year, week;
};
IsoWeek iso_week(const tm& t) {
  const int year = t.tm_year + 1900, monday = (t.tm_wday + 6) % 7;
  const auto days = [](int y) { return (y % 4 == 0 && y % 100 != 0) || y % 400 == 0 ? 366 : 365; };
  const auto week_of = [&](int yday) { return (yday - monday + 9) / 7; };
  const int week = week_of(t.tm_yday + 1);
  if (week < 1) return {year - 1, week_of(t.tm_yday + 1 + days(year - 1))};
  // The last days of a year belong to the next one when its first Thursday is in their week.
  if (week == 53 && t.tm_yday - monday + 3 >= days(year)) return {year + 1, 1};
  return {year, week};
}

struct Moment {
  tm t;
  int64_t seconds, microseconds;
};

std::string directive(char letter, char flag, const Moment& m) {
  const tm& t = m.t;
  const int hour12 = t.tm_hour % 12 == 0 ? 12 : t.tm_hour % 12;
  const auto number = [&](int64_t n, char fill, int width) { return padded(n, {fill, width}, flag); };
  const auto all = [&](std::string_view format) {
    std::string out;
    for (const char c : format)
      out += absl::ascii_isalpha(static_cast<unsigned char>(c)) ? directive(c, 0, m) : std::string(1, c);
    return out;
  };
  switch (letter) {
    case 'a':
      return std::string(kDays[t.tm_wday].substr(0, 3));
    case 'A':
      return std::string(kDays[t.tm_wday]);
    case 'b':
    case 'h':
      return std::string(kMonths[t.tm_mon].substr(0, 3));
    case 'B':
      return std::string(kMonths[t.tm_mon]);
    case 'C':
      return number((t.tm_year + 1900) / 100, '0', 2);
    case 'd':
      return number(t.tm_mday, '0', 2);
    case 'e':
      return number(t.tm_mday, ' ', 2);
    case 'f':
      return absl::StrFormat("%06d", m.microseconds);
    case 'g':
      return number(iso_week(t).year % 100, '0', 2);
    case 'G':
      return number(iso_week(t).year, '0', 4);
    case 'H':
      return number(t.tm_hour, '0', 2);
    case 'I':
      return number(hour12, '0', 2);
    case 'j':
      return number(t.tm_yday + 1, '0', 3);
    case 'k':
      return number(t.tm_hour, ' ', 2);
    case 'l':
      return number(hour12, ' ', 2);
    case 'm':
      return number(t.tm_mon + 1, '0', 2);
    case 'M':
      return number(t.tm_min, '0', 2);
    case 'n':
      return "\n";
    case 'p':
      return t.tm_hour < 12 ? "AM" : "PM";
    case 'P':
      return t.tm_hour < 12 ? "am" : "pm";
    case 's':
      return concat(m.seconds);
    case 'S':
      return number(t.tm_sec, '0', 2);
    case 't':
      return "\t";
    case 'u':
      return concat(t.tm_wday == 0 ? 7 : t.tm_wday);
    case 'U':
      return number((t.tm_yday + 7 - t.tm_wday) / 7, '0', 2);
    case 'V':
      return number(iso_week(t).week, '0', 2);
    case 'w':
      return concat(t.tm_wday);
    case 'W':
      return number((t.tm_yday + 7 - (t.tm_wday + 6) % 7) / 7, '0', 2);
    case 'y':
      return number((t.tm_year + 1900) % 100, '0', 2);
    case 'Y':
      return number(t.tm_year + 1900, '\0', 4);
    case 'z':
    case 'Z':
      return "";  // as of datetime.now(), which knows no zone
    case 'c':
      return all("a b e H:M:S Y");
    case 'D':
    case 'x':
      return all("m/d/y");
    case 'F':
      return all("Y-m-d");
    case 'r':
      return all("I:M:S p");
    case 'R':
      return all("H:M");
    case 'T':
    case 'X':
      return all("H:M:S");
    case '%':
      return "%";
    default:
      fail("strftime_now() does not know the directive %", std::string(1, letter));
  }
}

}  // namespace

std::string format_time(std::string_view format, std::chrono::system_clock::time_point time) {
  using std::chrono::duration_cast, std::chrono::microseconds;
  const int64_t micros = duration_cast<microseconds>(time.time_since_epoch()).count();
  const int64_t rest = (micros % 1'000'000 + 1'000'000) % 1'000'000;
  Moment m{{}, (micros - rest) / 1'000'000, rest};
  const time_t seconds = static_cast<time_t>(m.seconds);
  if (gmtime_r(&seconds, &m.t) == nullptr || m.t.tm_year < -1899 || m.t.tm_year > 8099)
    fail("the clock is not within the years 1 to 9999");
  std::string out;
  for (size_t i = 0; i < format.size(); ++i) {
    if (format[i] != '%' || i + 1 == format.size()) {
      out += format[i];
      continue;
    }
    char flag = 0;
    if (format[i + 1] == '-' || format[i + 1] == '_' || format[i + 1] == '0') {
      flag = format[++i];
      if (i + 1 == format.size()) fail("strftime_now() has an unfinished directive");
    }
    out += directive(format[++i], flag, m);
  }
  return out;
}

}  // namespace invar::jinja
