// --config FILE: a YAML file with the same keys as the flags. Flags on the command line win; an unknown key is an error.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace invar::launch {

// Arguments of `app` (one command) with each --config FILE replaced by the file's entries, put in front so that what the user
// typed comes later and wins. A key is a flag's long name without dashes; underscores count as dashes; a list repeats the flag;
// true and false set or leave a switch. InvalidArgument names file, line and key.
absl::StatusOr<std::vector<std::string>> expand_config(const CLI::App& app, const std::vector<std::string>& arguments);

}  // namespace invar::launch
