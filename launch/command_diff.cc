// invar diff: where two traces part.
#include <cstdio>
#include <memory>

#include "launch/commands.h"
#include "runtime/trace/diff.h"

namespace invar::launch {
namespace {

struct Flags {
  std::string a, b;
};

int diff(const Flags& flags) {
  const auto comparison = compare_traces(flags.a, flags.b);
  if (!comparison.ok()) return fail("diff", comparison.status());
  std::fputs(describe(*comparison).c_str(), stdout);
  if (comparison->tokens == 0) return kExitFailed;
  return comparison->first ? kExitDifferent : 0;
}

}  // namespace

void add_diff(CLI::App& program, Commands& commands) {
  auto flags = std::make_shared<Flags>();
  CLI::App* app = program.add_subcommand("diff", "compare two traces: the first token, layer, operator and element that differ");
  app->add_option("A", flags->a, "trace, as given to --trace")->required();
  app->add_option("B", flags->b, "trace, as given to --trace")->required();
  app->footer(
      "Exit code 0: equal; 3: they differ. Layouts need not be the same; requests are matched by id.\n"
      "Example:\n"
      "  invar generate -p 'call me' --tp 1 --trace /tmp/a && invar generate -p 'call me' --tp 3 --trace /tmp/b && invar diff "
      "/tmp/a /tmp/b");
  commands[app] = [flags] { return diff(*flags); };
}

}  // namespace invar::launch
