#include "runtime/tokenizer/pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <time.h>

#include <algorithm>

#include "runtime/tokenizer/pattern_dialect.h"
#include "runtime/tokenizer/strings.h"
#include "runtime/tokenizer/utf8.h"

namespace invar::tokenizer {
namespace {

constexpr size_t kMaxPatternBytes = 16 << 10;
constexpr size_t kStarts = 64;  // positions tried between two looks at the clock

template <auto free_function>
struct Free {
  template <typename T>
  void operator()(T* p) const {
    free_function(p);
  }
};

// What a thread needs to match, made once for each thread.
struct Matcher {
  std::unique_ptr<pcre2_match_context, Free<pcre2_match_context_free>> context{pcre2_match_context_create(nullptr)};
  std::unique_ptr<pcre2_match_data, Free<pcre2_match_data_free>> data{pcre2_match_data_create(1, nullptr)};
  std::unique_ptr<pcre2_jit_stack, Free<pcre2_jit_stack_free>> stack{pcre2_jit_stack_create(32 << 10, 1 << 20, nullptr)};
  Matcher() {
    pcre2_jit_stack_assign(context.get(), nullptr, stack.get());
    pcre2_set_heap_limit(context.get(), 64 << 10);  // KiB, for the interpreter
  }
};

Matcher& matcher() {
  thread_local Matcher instance;
  return instance;
}

int64_t thread_nanoseconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return now.tv_sec * int64_t{1'000'000'000} + now.tv_nsec;
}

pcre2_code* code_of(void* code) { return static_cast<pcre2_code*>(code); }

}  // namespace

MatchBudget::MatchBudget(size_t text_bytes)
    : end_(thread_nanoseconds() + 2'000'000'000 + 4'000 * static_cast<int64_t>(text_bytes)) {}

bool MatchBudget::spent() const { return thread_nanoseconds() > end_; }

std::shared_ptr<const Pattern> Pattern::read(const Fields& holder) {
  const Fields field = holder.child("pattern");
  field.only({"String", "Regex"});
  const bool is_regex = field.present("Regex");
  if (is_regex && field.present("String")) field.fail("", "has both String and Regex");
  std::string text = field.text(is_regex ? "Regex" : "String");
  // Hugging Face finds the empty pattern before every character; no real file means that.
  if (field.ok() && text.empty()) field.fail("", "is empty");
  if (!field.ok()) return nullptr;
  if (!is_regex) return string(std::move(text));
  auto pattern = regex(text);
  if (pattern.ok()) return *std::move(pattern);
  if (absl::IsUnimplemented(pattern.status())) {
    field.unsupported("Regex", std::string(pattern.status().message()));
  } else {
    field.fail("Regex", std::string(pattern.status().message()));
  }
  return nullptr;
}

std::shared_ptr<const Pattern> Pattern::string(std::string text) {
  std::shared_ptr<Pattern> pattern(new Pattern);
  pattern->text_ = std::move(text);
  return pattern;
}

absl::StatusOr<std::shared_ptr<const Pattern>> Pattern::regex(std::string_view oniguruma) {
  if (oniguruma.size() > kMaxPatternBytes)
    return absl::InvalidArgumentError(concat("a pattern of ", oniguruma.size(), " bytes is too long"));
  auto translated = translate_pattern(oniguruma);
  if (!translated.ok()) return translated.status();
  std::shared_ptr<Pattern> pattern(new Pattern);
  pattern->text_ = oniguruma;
  const std::unique_ptr<pcre2_compile_context, Free<pcre2_compile_context_free>> context(pcre2_compile_context_create(nullptr));
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  pcre2_set_parens_nest_limit(context.get(), 200);
  int error = 0;
  PCRE2_SIZE where = 0;
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated->data()), translated->size(),
                                   PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C | PCRE2_USE_OFFSET_LIMIT,
                                   &error, &where, context.get());
  if (code == nullptr) {
    PCRE2_UCHAR message[160];
    pcre2_get_error_message(error, message, sizeof message);
    return absl::InvalidArgumentError(concat("does not compile: ", reinterpret_cast<const char*>(message)));
  }
  pattern->code_ = code;
  // Without JIT (no executable memory) the interpreter finds the same, slower; nothing to report.
  pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
  return pattern;
}

Pattern::~Pattern() { pcre2_code_free(code_of(code_)); }

absl::StatusOr<Pattern::Found> Pattern::find(std::string_view text, size_t from, const MatchBudget& budget) const {
  Matcher& m = matcher();
  // A benign pattern's steps from one start grow with the text (a long run of spaces), so the limit does. It holds for each
  // start anew; that is why the starts come in portions, with a look at the clock between them.
  pcre2_set_match_limit(m.context.get(), static_cast<uint32_t>(1'000'000 + 8 * text.size()));
  while (true) {
    size_t last = std::min(from + kStarts, text.size());
    while (last < text.size() && (static_cast<unsigned char>(text[last]) & 0xC0) == 0x80) ++last;
    pcre2_set_offset_limit(m.context.get(), last);
    const auto match = [&](uint32_t options) {
      return pcre2_match(code_of(code_), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), from,
                         PCRE2_NO_UTF_CHECK | options, m.data.get(), m.context.get());
    };
    int result = match(0);
    if (result == PCRE2_ERROR_JIT_STACKLIMIT) result = match(PCRE2_NO_JIT);
    if (result >= 0) {
      const PCRE2_SIZE* range = pcre2_get_ovector_pointer(m.data.get());
      // \K, the one way to a match that begins after its end or before its start, is not in the dialect.
      return Found{range[0], range[1], true};
    }
    if (result != PCRE2_ERROR_NOMATCH) {
      return absl::ResourceExhaustedError(
          concat("pattern '", text_.substr(0, 80), "' takes too many steps (PCRE2 error ", result, ")"));
    }
    if (last >= text.size()) return Found{text.size(), text.size(), false};
    from = last;
    if (budget.spent()) return absl::ResourceExhaustedError(concat("pattern '", text_.substr(0, 80), "' takes too long"));
  }
}

absl::Status Pattern::find_all(std::string_view text, const MatchBudget& budget, std::vector<Span>& out) const {
  size_t previous = 0;  // end of the last match
  const auto put = [&](size_t begin, size_t end) {
    if (previous != begin) out.push_back({static_cast<uint32_t>(previous), static_cast<uint32_t>(begin), false});
    out.push_back({static_cast<uint32_t>(begin), static_cast<uint32_t>(end), true});
    previous = end;
  };
  if (is_string()) {
    for (size_t at = 0; (at = text.find(text_, at)) != std::string_view::npos; at = previous) put(at, at + text_.size());
  } else {
    bool any = false;
    size_t from = 0;
    for (int looks = 0; from <= text.size() && !text.empty();) {
      auto found = find(text, from, budget);
      if (!found.ok()) return found.status();
      if (!found->any) break;
      if (found->begin == found->end && any && previous == found->end) {
        // An empty match right behind the last one would be found for ever.
        from =
            found->end < text.size() ? found->end + utf8_length(static_cast<unsigned char>(text[found->end])) : text.size() + 1;
      } else {
        put(found->begin, found->end);
        any = true;
        from = found->end;
      }
      if (++looks % 64 == 0 && budget.spent()) {
        return absl::ResourceExhaustedError(concat("pattern '", text_.substr(0, 80), "' takes too long"));
      }
    }
  }
  if (previous != text.size()) out.push_back({static_cast<uint32_t>(previous), static_cast<uint32_t>(text.size()), false});
  return absl::OkStatus();
}

}  // namespace invar::tokenizer
