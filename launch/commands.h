// The commands of `invar`. Each adds itself to the program; its work starts when it was chosen and returns the exit code:
// 0 = done, 1 = what was asked for failed, 2 = the command line or an input is wrong, 3 = a comparison found a difference.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <map>
#include <string>

#include "absl/status/status.h"

namespace invar::launch {

inline constexpr int kExitFailed = 1;
inline constexpr int kExitUsage = 2;
inline constexpr int kExitDifferent = 3;

// Chosen command -> its work.
using Commands = std::map<const CLI::App*, std::function<int()>>;

void add_serve(CLI::App& program, Commands& commands);
void add_worker(CLI::App& program, Commands& commands);
void add_preflight(CLI::App& program, Commands& commands);
void add_generate(CLI::App& program, Commands& commands);
void add_complete(CLI::App& program, Commands& commands);
void add_chat(CLI::App& program, Commands& commands);
void add_verify(CLI::App& program, Commands& commands);
void add_diff(CLI::App& program, Commands& commands);
void add_bench(CLI::App& program, Commands& commands);
void add_inspect(CLI::App& program, Commands& commands);
void add_tokenize(CLI::App& program, Commands& commands);
void add_render(CLI::App& program, Commands& commands);

// Prints "invar COMMAND: message" to stderr and returns the exit code that fits the status.
int fail(const std::string& command, const absl::Status& status);

}  // namespace invar::launch
