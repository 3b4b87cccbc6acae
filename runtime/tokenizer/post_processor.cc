#include "runtime/tokenizer/post_processor.h"

#include "runtime/tokenizer/strings.h"

namespace invar::tokenizer {
namespace {

constexpr size_t kMaxIds = 1024;

void read_step(const Fields& field, const std::function<bool(int32_t)>& known, int& templates, PostProcessor& all) {
  const std::string type = field.text("type");
  if (!field.ok()) return;
  if (type == "Sequence") {
    field.only({"type", "processors"});
    for (const Fields& child : field.list("processors")) read_step(child, known, templates, all);
    return;
  }
  if (type == "ByteLevel") return field.only({"type", "add_prefix_space", "trim_offsets", "use_regex"});
  // A second template around the first is what Hugging Face gives up on, too.
  if (type != "TemplateProcessing" || ++templates > 1) return field.unsupported("type");

  field.only({"type", "single", "pair", "special_tokens"});  // pair: no request has two texts
  const Fields special_tokens = field.child("special_tokens");
  int texts = 0;
  for (const Fields& piece : field.list("single")) {
    piece.only({"SpecialToken", "Sequence"});
    if (piece.present("Sequence")) {
      if (piece.child("Sequence").text("id") != "A") piece.child("Sequence").unsupported("id");
      ++texts;
    } else {
      const std::string name = piece.child("SpecialToken").text("id");
      for (const Fields& id : special_tokens.child(name).list("ids")) {
        const auto& value = id.value();
        if (!value.is_number_integer() || value < 0 || value > INT32_MAX || !known(value.get<int32_t>())) {
          id.fail("", concat(value.dump(), " is not the id of a token"));
          return;
        }
        (texts == 0 ? all.before : all.after).push_back(value.get<int32_t>());
      }
    }
    if (!field.ok()) return;
  }
  if (texts != 1) field.fail("single", concat("has the text ", texts, " times"));
  if (all.before.size() + all.after.size() > kMaxIds) field.fail("single", concat("adds more than ", kMaxIds, " ids"));
}

}  // namespace

absl::StatusOr<PostProcessor> PostProcessor::read(const Fields& field, const std::function<bool(int32_t)>& known) {
  PostProcessor processor;
  int templates = 0;
  read_step(field, known, templates, processor);
  if (!field.ok()) return field.error();
  return processor;
}

}  // namespace invar::tokenizer
