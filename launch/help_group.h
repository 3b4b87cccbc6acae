// Headings in --help: a list of seventy flags is read by nobody.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace invar::launch {

// Flags added to `app` while it lives stand under `heading`.
class HelpGroup {
 public:
  HelpGroup(CLI::App& app, const std::string& heading) : defaults_(*app.option_defaults()), before_(defaults_.get_group()) {
    defaults_.group(heading);
  }
  ~HelpGroup() { defaults_.group(before_); }
  HelpGroup(const HelpGroup&) = delete;
  HelpGroup& operator=(const HelpGroup&) = delete;

 private:
  CLI::OptionDefaults& defaults_;
  const std::string before_;
};

}  // namespace invar::launch
