#include "launch/yaml_flags.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace invar::launch {
namespace {

absl::Status append_entries(const CLI::App& app, const std::string& file, std::vector<std::string>& out) {
  YAML::Node root;
  try {
    root = YAML::LoadFile(file);
  } catch (const YAML::BadFile&) {
    return absl::NotFoundError(absl::StrCat("--config ", file, ": cannot be read"));
  } catch (const YAML::Exception& e) {
    return absl::InvalidArgumentError(absl::StrCat("--config ", file, ":", e.mark.line + 1, ": ", e.msg));
  }
  if (root.IsNull()) return absl::OkStatus();
  if (!root.IsMap())
    return absl::InvalidArgumentError(absl::StrCat("--config ", file, ": must be a map of flag names to values"));
  for (const auto& entry : root) {
    std::string key = entry.first.IsScalar() ? entry.first.Scalar() : "?";
    const std::string where = absl::StrCat("--config ", file, ":", entry.first.Mark().line + 1, ": ", key);
    std::replace(key.begin(), key.end(), '_', '-');
    const CLI::Option* option = app.get_option_no_throw("--" + key);
    if (option == nullptr || key == "help" || key == "config")
      return absl::InvalidArgumentError(
          absl::StrCat(where, " is not a flag of `invar ", app.get_name(), "`; see invar ", app.get_name(), " --help"));
    const bool is_switch = option->get_items_expected_max() == 0;
    std::vector<YAML::Node> values;
    if (entry.second.IsSequence())
      for (const auto& value : entry.second) values.push_back(value);
    else
      values.push_back(entry.second);
    for (const YAML::Node& value : values) {
      if (!value.IsScalar()) return absl::InvalidArgumentError(absl::StrCat(where, ": must be a value or a list of values"));
      if (is_switch) {
        bool on = false;
        if (!YAML::convert<bool>::decode(value, on))
          return absl::InvalidArgumentError(absl::StrCat(where, " ", value.Scalar(), ": must be true or false"));
        if (on) out.push_back("--" + key);
      } else {
        out.push_back("--" + key);
        out.push_back(value.Scalar());
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<std::string>> expand_config(const CLI::App& app, const std::vector<std::string>& arguments) {
  std::vector<std::string> from_files, rest;
  for (size_t i = 0; i < arguments.size(); ++i) {
    std::string file;
    if (arguments[i] == "--config") {
      if (i + 1 == arguments.size()) return absl::InvalidArgumentError("--config: a file name must follow");
      file = arguments[++i];
    } else if (arguments[i].rfind("--config=", 0) == 0) {
      file = arguments[i].substr(9);
    } else {
      rest.push_back(arguments[i]);
      continue;
    }
    const absl::Status read = append_entries(app, file, from_files);
    if (!read.ok()) return read;
  }
  from_files.insert(from_files.end(), rest.begin(), rest.end());
  return from_files;
}

}  // namespace invar::launch
