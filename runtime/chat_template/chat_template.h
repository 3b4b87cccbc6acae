// A chat template: text in the Jinja language as Hugging Face transformers runs it, made into the prompt of a chat.
//
// The template and its variables are untrusted: no content may crash or hang the process. Work, memory, nesting and output
// have bounds (limits.h), and a template reaches nothing but its variables and the time it was given.
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace invar {

// Immutable after parsing; render() may be called from any number of threads at once. Copies share the parsed template.
class ChatTemplate {
 public:
  // `name` stands in messages, usually the file. Errors quote the line of the template and its number:
  // InvalidArgument (the template is not well formed, or too large), Unimplemented (a statement that needs other files).
  static absl::StatusOr<ChatTemplate> parse(std::string source, std::string name);

  // `variables`: an object; messages, tools, documents, add_generation_prompt, bos_token and whatever else the template
  // reads. Keys keep their order. `now` is what strftime_now() sees, in UTC.
  // Errors: InvalidArgument with exactly the text that the template gave to raise_exception(); InvalidArgument quoting the
  // line for everything else that a template can do wrong (a variable that is not there, text plus number, ...);
  // ResourceExhausted (a bound of limits.h).
  absl::StatusOr<std::string> render(const nlohmann::ordered_json& variables, std::chrono::system_clock::time_point now) const;
  // The same with `defaults`, also an object, for what `variables` does not have.
  absl::StatusOr<std::string> render(const nlohmann::ordered_json& variables, const nlohmann::ordered_json& defaults,
                                     std::chrono::system_clock::time_point now) const;

  const std::string& name() const;

 private:
  struct Parsed;
  explicit ChatTemplate(std::shared_ptr<const Parsed> parsed) : parsed_(std::move(parsed)) {}
  std::shared_ptr<const Parsed> parsed_;
};

}  // namespace invar
