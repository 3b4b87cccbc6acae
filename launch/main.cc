// The one program: `invar COMMAND`.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>

#include "launch/commands.h"
#include "launch/yaml_flags.h"
#include "rpc/tls/tls_files.h"
#include "runtime/worker/build_id.h"

namespace invar::launch {

int fail(const std::string& command, const absl::Status& status) {
  std::fprintf(stderr, "invar %s: %s\n", command.c_str(), std::string(status.message()).c_str());
  return status.code() == absl::StatusCode::kInvalidArgument || status.code() == absl::StatusCode::kNotFound ||
                 status.code() == absl::StatusCode::kUnimplemented
             ? kExitUsage
             : kExitFailed;
}

namespace {

int run(int argc, char** argv) {
  CLI::App program("Invar: LLM inference whose answers are the same bits on every layout, and can be proven.", "invar");
  program.set_version_flag("--version", std::string(build_id()));
  program.require_subcommand(1);
  // A flag of the command line wins over the same one from --config, which stands before it.
  program.option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast)->always_capture_default();
  program.footer(
      "Examples:\n"
      "  invar serve --model FOLDER --tp 2          coordinator and two ranks on this machine\n"
      "  invar complete 'once upon a time'          stream a completion from it\n"
      "  invar generate --model FOLDER < r.jsonl    no server: requests in, answers with digests out\n"
      "Each command has its own --help.");
  Commands commands;
  add_serve(program, commands);
  add_worker(program, commands);
  add_preflight(program, commands);
  add_generate(program, commands);
  add_complete(program, commands);
  add_chat(program, commands);
  add_verify(program, commands);
  add_diff(program, commands);
  add_bench(program, commands);
  add_inspect(program, commands);
  add_tokenize(program, commands);
  add_render(program, commands);
  for (const auto& [app, work] : commands) {
    auto* command = const_cast<CLI::App*>(app);
    for (CLI::Option* option : command->get_options([](const CLI::Option* o) { return o->get_default_str() == "[]"; }))
      option->default_str("");
    if (command->get_option_no_throw("--config") == nullptr)
      command->add_option("--config", "YAML file with the same keys as these flags; flags given here win")->option_text("FILE");
  }

  std::vector<std::string> arguments(argv + 1, argv + argc);
  if (!arguments.empty()) {
    const auto named = program.get_subcommands([&](const CLI::App* app) { return app->get_name() == arguments.front(); });
    if (!named.empty()) {
      const CLI::App* command = named.front();
      auto expanded = expand_config(*command, {arguments.begin() + 1, arguments.end()});
      if (!expanded.ok()) return fail(command->get_name(), expanded.status());
      arguments.resize(1);
      arguments.insert(arguments.end(), expanded->begin(), expanded->end());
    }
  }
  std::reverse(arguments.begin(), arguments.end());  // CLI11 takes a stack
  try {
    program.parse(arguments);
  } catch (const CLI::ParseError& e) {
    return program.exit(e) == 0 ? 0 : kExitUsage;
  }
  return commands.at(program.get_subcommands().front())();
}

}  // namespace
}  // namespace invar::launch

int main(int argc, char** argv) {
  invar::rpc::keep_openssl_to_the_end();
  try {
    return invar::launch::run(argc, argv);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "invar: %s\n", e.what());
    return invar::launch::kExitFailed;
  }
}
