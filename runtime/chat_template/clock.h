// Python's strftime, in UTC and English whatever the machine is set to.
#pragma once

#include <chrono>
#include <string>
#include <string_view>

namespace invar::jinja {

// Fails naming the directive for one that is not known. %-d, %_d and %0d (no padding, spaces, zeros) as in glibc.
std::string format_time(std::string_view format, std::chrono::system_clock::time_point time);

}  // namespace invar::jinja
