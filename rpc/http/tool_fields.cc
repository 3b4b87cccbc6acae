// tools, tool_choice, parallel_tool_calls of a chat body.
#include "absl/strings/str_cat.h"
#include "rpc/http/ask.h"
#include "runtime/tool_call/schema.h"

namespace invar::http {
namespace {

constexpr size_t kMostTools = 1024;

// The functions, in the order of the list.
std::vector<Json> read_functions(const Json& tools, Fields& outer) {
  std::vector<Json> functions;
  if (tools.size() > kMostTools) outer.fail("tools", absl::StrCat("has ", tools.size(), " tools, at most ", kMostTools));
  for (size_t i = 0; i < tools.size() && outer.status().ok(); ++i) {
    const std::string place = absl::StrCat("tools[", i, "]");
    if (!tools[i].is_object()) {
      outer.fail(place, absl::StrCat(show(tools[i]), " is not an object"));
      break;
    }
    Fields tool(tools[i], place + ".");
    if (const auto type = tool.text("type"); type && *type != "function")
      tool.fail("type", absl::StrCat("\"", *type, "\" is not supported; function"));
    const Json* given = tool.object("function");
    if (given == nullptr) tool.fail("function", "is missing");
    if (tool.status().ok()) {
      Fields function(*given, place + ".function.");
      const auto name = function.text("name");
      if (!name || name->empty()) function.fail("name", "is missing");
      function.object("parameters");
      tool.fail(function.status());
      functions.push_back(*given);
    }
    outer.fail(tool.status());
  }
  return functions;
}

// A forced call is itself a constraint.
void refuse_other_constraints(Fields& fields, const v1::SamplingParams& s, const std::string& choice) {
  if (s.has_guided_json() || s.guided_json_object() || s.has_guided_regex() || s.guided_choice_size() > 0 ||
      s.has_guided_grammar())
    fields.fail("tool_choice", absl::StrCat(choice, " and a constraint on the answer (response_format, guided_*, ",
                                            "structured_outputs) exclude each other"));
}

}  // namespace

void read_tools(Fields& fields, const ModelFacts& model, Ask& ask, v1::SamplingParams& sampling) {
  const Json* tools = fields.list("tools");
  const Json* choice = fields.find("tool_choice");
  ToolUse& use = ask.tools;
  use.parallel = fields.boolean("parallel_tool_calls").value_or(true);
  const std::vector<Json> functions = tools != nullptr ? read_functions(*tools, fields) : std::vector<Json>();
  if (!fields.status().ok()) return;
  const std::string shown = choice != nullptr ? show(*choice) : "";
  if (choice != nullptr ? *choice == "none" : functions.empty()) return;
  if (functions.empty()) return fields.fail("tool_choice", absl::StrCat(shown, " needs tools"));
  if (choice == nullptr || *choice == "auto") {
    if (!model.tool_format)
      return fields.fail(choice == nullptr ? "tools" : "tool_choice",
                         "\"auto\" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set; or ask with "
                         "tool_choice = \"none\", \"required\" or a function");
    use.mode = ToolUse::Mode::kAuto;
    use.format = *model.tool_format;
    // A mark that is a special token would be left out of the text.
    const std::string_view mark = tool_call::begin_of(use.format);
    if (const auto id = model.tokenizer != nullptr ? model.tokenizer->id_of(mark) : std::nullopt;
        id && model.tokenizer->is_special(*id))
      sampling.set_skip_special_tokens(false);
    return;
  }
  refuse_other_constraints(fields, sampling, shown);
  ask.field_names.insert(ask.field_names.begin(), {{"guided_json", "tools"}});
  if (*choice == "required") {
    use.mode = ToolUse::Mode::kRequired;
    use.format = tool_call::Format::kForced;
    sampling.set_guided_json(tool_call::schema_of_calls(functions, use.parallel));
    return;
  }
  if (!choice->is_object())
    return fields.fail("tool_choice", absl::StrCat(shown, " is not supported; \"none\", \"auto\", \"required\" or a function"));
  Fields named(*choice, "tool_choice.");
  if (named.text("type").value_or("function") != "function") named.fail("type", absl::StrCat(shown, " names no function"));
  const Json* function = named.object("function");
  if (function == nullptr) named.fail("function", "is missing");
  if (named.status().ok()) {
    Fields inner(*function, "tool_choice.function.");
    use.name = inner.text("name").value_or("");
    named.fail(inner.status());
  }
  fields.fail(named.status());
  if (!fields.status().ok()) return;
  use.mode = ToolUse::Mode::kNamed;
  for (const Json& f : functions)
    if (f["name"] == use.name) return sampling.set_guided_json(tool_call::schema_of_arguments(f));
  fields.fail("tool_choice", absl::StrCat(show(use.name), " is none of the tools"));
}

}  // namespace invar::http
