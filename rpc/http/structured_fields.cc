// Structured output under its many names: OpenAI's response_format, vLLM's guided_* and structured_outputs.
#include "absl/strings/str_cat.h"
#include "rpc/http/ask.h"

namespace invar::http {
namespace {

// A schema, given as an object or as its text.
std::string schema_text(const Json& schema) { return schema.is_string() ? schema.get<std::string>() : schema.dump(); }

// The same five under two sets of names.
void read_kinds(Fields& fields, v1::SamplingParams& s, const char* json, const char* json_object, const char* regex,
                const char* choice, const char* grammar) {
  if (const Json* schema = fields.find(json)) {
    if (schema->is_object() || schema->is_string() || schema->is_boolean()) {
      s.set_guided_json(schema_text(*schema));
    } else {
      fields.fail(json, absl::StrCat(show(*schema), " is not a JSON schema"));
    }
  }
  if (fields.boolean(json_object).value_or(false)) s.set_guided_json_object(true);
  if (const auto pattern = fields.text(regex)) s.set_guided_regex(*pattern);
  if (const Json* choices = fields.list(choice)) {
    if (choices->empty()) fields.fail(choice, "the list is empty");
    for (std::string& text : fields.texts(choice)) s.add_guided_choice(std::move(text));
  }
  if (const auto text = fields.text(grammar)) s.set_guided_grammar(*text);
}

void read_response_format(const Json& given, Fields& outer, v1::SamplingParams& s) {
  Fields format(given, "response_format.");
  const std::string type = format.text("type").value_or("");
  if (type == "json_object") {
    s.set_guided_json_object(true);
  } else if (type == "json_schema") {
    const Json* wrapper = format.object("json_schema");
    if (wrapper == nullptr) {
      format.fail("json_schema", "is missing");
    } else {
      Fields schema(*wrapper, "response_format.json_schema.");
      if (const Json* text = schema.object("schema")) {
        s.set_guided_json(schema_text(*text));
      } else {
        schema.fail("schema", "is missing");
      }
      format.fail(schema.status());
    }
  } else if (type != "text") {
    format.fail("type", absl::StrCat("\"", type, "\" is not supported; text, json_object, json_schema"));
  }
  outer.fail(format.status());
}

}  // namespace

void read_structured(Fields& fields, v1::SamplingParams& s, FieldNames& names) {
  if (const Json* format = fields.object("response_format")) {
    read_response_format(*format, fields, s);
    names.insert(names.end(), {{"guided_json", "response_format.json_schema.schema"}, {"guided_json_object", "response_format"}});
  }
  read_kinds(fields, s, "guided_json", "guided_json_object", "guided_regex", "guided_choice", "guided_grammar");
  if (const Json* given = fields.object("structured_outputs")) {
    Fields outputs(*given, "structured_outputs.");
    read_kinds(outputs, s, "json", "json_object", "regex", "choice", "grammar");
    outputs.refuse("structural_tag", "is not supported; json, json_object, regex, choice, grammar");
    fields.fail(outputs.status());
    for (const char* kind : {"json", "json_object", "regex", "choice", "grammar"})
      names.emplace_back(absl::StrCat("guided_", kind), absl::StrCat("structured_outputs.", kind));
  }
  fields.refuse("structural_tag", "is not supported");
  fields.ignore({"guided_decoding_backend", "guided_whitespace_pattern"});
}

}  // namespace invar::http
