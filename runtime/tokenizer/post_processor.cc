#include "runtime/tokenizer/post_processor.h"

#include "runtime/tokenizer/strings.h"


namespace invar::tokenizer {
namespace {

constexpr size_t kMaxIds = 1024;

void read_step(const Fields& field, const std::function<bool(int32_t)>& known, PostProcessor& all) {
  const std::string type = field.text("type");
  if (!field.ok()) return;
  if (type == "Sequence") {
    field.only({"type", "processors"});
    for (const Fields& child : field.list("processors")) read_step(child, known, all);
    return;
  }
  if (type == "ByteLevel") return field.only({"type", "add_prefix_space", "trim_offsets", "use_regex"});
  if (type != "TemplateProcessing") return field.unsupported("type");

  field.only({"type", "single", "pair", "special_tokens"});  // pair: no request has two texts
  const Fields special_tokens = field.child("special_tokens");
  PostProcessor step;
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
        (texts == 0 ? step.before : step.after).push_back(value.get<int32_t>());
      }
    }
    if (!field.ok()) return;
  }
  if (texts != 1) field.fail("single", concat("has the text ", texts, " times"));
  // A later processor wraps what the earlier ones made.
  all.before.insert(all.before.begin(), step.before.begin(), step.before.end());
  all.after.insert(all.after.end(), step.after.begin(), step.after.end());
  if (all.before.size() + all.after.size() > kMaxIds) field.fail("single", concat("adds more than ", kMaxIds, " ids"));
}

}  // namespace

absl::StatusOr<PostProcessor> PostProcessor::read(const Fields& field, const std::function<bool(int32_t)>& known) {
  PostProcessor processor;
  read_step(field, known, processor);
  if (!field.ok()) return field.error();
  return processor;
}

}  // namespace invar::tokenizer
