#include "runtime/tool_call/reader.h"

#include <algorithm>
#include <cctype>
#include <optional>
#include <utility>

#include "runtime/tool_call/call_scanner.h"

namespace invar::tool_call {
namespace {

using Events = std::vector<Event>;

constexpr size_t kLongestName = 256;  // of a bare one

bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }
bool in_name(char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '-' || c == '.'; }

class NamedReader final : public Reader {
 public:
  explicit NamedReader(std::string name) : name_(std::move(name)) {}
  void take(std::string_view text, Events* events) override {
    if (!name_.empty()) events->push_back({Event::Kind::kCall, 0, std::exchange(name_, {})});
    if (!text.empty()) events->push_back({Event::Kind::kArguments, 0, std::string(text)});
  }
  void finish(Events* events) override { take("", events); }

 private:
  std::string name_;
};

// What the formats share: text that waits, places in it, and one call at a time.
class FormatReader final : public Reader {
 public:
  explicit FormatReader(Format format) : format_(format) {
    if (format == Format::kLlama3Json || format == Format::kForced) place_ = Place::kStart;
  }

  void take(std::string_view text, Events* events) override {
    waiting_ += text;
    while (step(false, events)) {
    }
  }
  void finish(Events* events) override {
    // A further call that is cut off before it is known is nobody's content.
    if (calls_ > 0 && (place_ == Place::kBehindTag || (place_ == Place::kObject && !announced_))) return;
    while (step(true, events)) {
    }
    if (call_) give_up(events);
    content(std::exchange(waiting_, {}), events);
  }

 private:
  enum class Place {
    kContent,    // until a call begins
    kStart,      // of an answer that is calls or content as a whole
    kBehindTag,  // a call must begin
    kObject,     // in a call's object
    kNamed,      // Mistral: in the arguments that follow a bare name
    kBetween,    // behind a call
    kBroken,     // the call went wrong within its arguments
  };

  static std::string_view end_tag() { return "</tool_call>"; }

  void content(std::string text, Events* events) {
    if (!text.empty()) events->push_back({Event::Kind::kContent, 0, std::move(text)});
  }
  void arguments(std::string text, Events* events) {
    if (!text.empty()) events->push_back({Event::Kind::kArguments, calls_ - 1, std::move(text)});
  }
  std::string cut(size_t count) {
    std::string out = waiting_.substr(0, count);
    waiting_.erase(0, count);
    return out;
  }
  // White space at the front; false if there may be more of it.
  bool skip_space() {
    const auto end = std::find_if_not(waiting_.begin(), waiting_.end(), is_space);
    skipped_.append(waiting_.begin(), end);
    waiting_.erase(waiting_.begin(), end);
    return !waiting_.empty();
  }
  enum class Seen { kYes, kNo, kPerhaps };
  Seen begins(std::string_view tag) const {
    if (waiting_.starts_with(tag)) return Seen::kYes;
    return tag.starts_with(waiting_) ? Seen::kPerhaps : Seen::kNo;
  }
  // Text up to `tag`, or up to what may be its beginning.
  bool until(std::string_view tag, bool last, std::string* text) {
    const size_t found = waiting_.find(tag);
    if (found != std::string::npos) {
      *text = cut(found);
      return true;
    }
    size_t held = last ? 0 : std::min(tag.size() - 1, waiting_.size());
    while (held > 0 && !tag.starts_with(std::string_view(waiting_).substr(waiting_.size() - held))) --held;
    *text = cut(waiting_.size() - held);
    return false;
  }

  // Reads on; false: not without more text.
  bool step(bool last, Events* events) {
    switch (place_) {
      case Place::kContent: {
        const std::string_view tag = begin_of(format_);
        std::string text;
        if (tag.empty()) {
          content(cut(waiting_.size()), events);
          return false;
        }
        const bool found = until(tag, last, &text);
        content(std::move(text), events);
        if (!found) return false;
        waiting_.erase(0, tag.size());
        before_ = tag;
        place_ = Place::kBehindTag;
        return true;
      }
      case Place::kStart:
        return start(last, events);
      case Place::kBehindTag:
        return behind_tag(last, events);
      case Place::kObject:
        return object(events);
      case Place::kNamed:
        return named(events);
      case Place::kBetween:
        return between(last, events);
      case Place::kBroken: {
        if (format_ != Format::kHermes) {
          arguments(cut(waiting_.size()), events);
          return false;
        }
        std::string text;
        const bool found = until(end_tag(), last, &text);
        arguments(std::move(text), events);
        if (found) place_ = Place::kBetween;
        return found;
      }
    }
    return false;
  }

  // Nothing here is a call: as it stands.
  bool no_call(Events* events) {
    content(std::exchange(before_, {}) + std::exchange(skipped_, {}), events);
    in_list_ = false;
    place_ = Place::kContent;
    if (format_ == Format::kLlama3Json || format_ == Format::kForced) content(cut(waiting_.size()), events);
    return true;
  }

  bool start(bool last, Events* events) {
    if (!skip_space()) return last && !skipped_.empty() && no_call(events);
    if (format_ == Format::kLlama3Json) {
      constexpr std::string_view kTag = "<|python_tag|>";
      const Seen tag = begins(kTag);
      if (tag == Seen::kPerhaps && !last) return false;
      if (tag == Seen::kYes) {
        before_ = std::exchange(skipped_, {}) + cut(kTag.size());
        place_ = Place::kBehindTag;
        return true;
      }
      if (waiting_[0] != '{') return no_call(events);
      return open(events);
    }
    if (waiting_[0] != '[') return no_call(events);
    before_ = std::exchange(skipped_, {}) + cut(1);
    in_list_ = true;
    place_ = Place::kBehindTag;
    return true;
  }

  bool behind_tag(bool last, Events* events) {
    if (!skip_space()) return last && no_call(events);
    if (waiting_[0] == '{') return open(events);
    if (format_ != Format::kMistral || in_list_) return no_call(events);
    if (waiting_[0] == '[') {
      before_ += std::exchange(skipped_, {}) + cut(1);
      in_list_ = true;
      return true;
    }
    const auto end = static_cast<size_t>(std::find_if_not(waiting_.begin(), waiting_.end(), in_name) - waiting_.begin());
    if (end > kLongestName) return no_call(events);
    if (end == waiting_.size()) return last && no_call(events);
    if (end == 0) return no_call(events);
    constexpr std::string_view kArgs = "[ARGS]";
    const std::string_view rest = std::string_view(waiting_).substr(end);
    if (rest[0] != '{' && !rest.starts_with(kArgs)) {
      if (!last && kArgs.starts_with(rest)) return false;
      return no_call(events);
    }
    const std::string name = cut(end);
    if (waiting_[0] != '{') waiting_.erase(0, kArgs.size());
    begin_call(name, events);
    value_ = ValueScanner();
    place_ = Place::kNamed;
    return true;
  }

  void begin_call(const std::string& name, Events* events) {
    before_.clear();
    skipped_.clear();
    events->push_back({Event::Kind::kCall, calls_++, name});
    announced_ = true;
  }

  bool open(Events*) {
    before_ += std::exchange(skipped_, {});
    call_.emplace();
    announced_ = false;
    place_ = Place::kObject;
    return true;
  }

  bool object(Events* events) {
    if (waiting_.empty()) return false;
    size_t at = 0;
    const CallScanner::State state = call_->take(waiting_, &at);
    waiting_.erase(0, at);
    if (call_->known()) {
      if (!announced_) begin_call(call_->name(), events);
      arguments(call_->new_arguments(), events);
    }
    if (state == CallScanner::State::kMore) return false;
    if (announced_) {
      place_ = state == CallScanner::State::kDone ? Place::kBetween : Place::kBroken;
      call_.reset();
      return true;
    }
    give_up(events);
    return true;
  }

  // The object at hand is no call, or is cut off before it is known to be one.
  void give_up(Events* events) {
    if (!announced_) {
      content(std::exchange(before_, {}) + call_->raw(), events);
      in_list_ = false;
      place_ = Place::kContent;
    }
    call_.reset();
  }

  bool named(Events* events) {
    bool done = false;
    const size_t taken = value_.take(waiting_, 0, &done);
    arguments(cut(taken), events);
    if (done) place_ = Place::kBetween;
    return done;
  }

  bool between(bool last, Events* events) {
    if (!skip_space()) {
      if (last) skipped_.clear();
      return false;
    }
    if (format_ == Format::kHermes) {
      const Seen tag = closed_ ? begins(begin_of(format_)) : begins(end_tag());
      if (tag == Seen::kPerhaps && !last) return false;
      if (tag != Seen::kYes) return behind_calls(events);
      waiting_.erase(0, closed_ ? begin_of(format_).size() : end_tag().size());
      skipped_.clear();
      if (!std::exchange(closed_, !closed_)) return true;
      before_ = begin_of(format_);
      place_ = Place::kBehindTag;
      return true;
    }
    if (format_ == Format::kLlama3Json ? waiting_[0] == ';' || waiting_[0] == ',' : in_list_ && waiting_[0] == ',') {
      before_ = std::exchange(skipped_, {}) + cut(1);
      // A further call must follow, or what follows is content.
      place_ = Place::kBehindTag;
      return true;
    }
    if (in_list_ && waiting_[0] == ']') {
      waiting_.erase(0, 1);
      skipped_.clear();
      in_list_ = false;
      return true;
    }
    if (format_ == Format::kMistral) {
      // White space before a further mark is nobody's, before anything else it is content.
      const Seen mark = begins(begin_of(format_));
      if (mark == Seen::kPerhaps && !last) return false;
      if (mark == Seen::kYes) skipped_.clear();
    }
    return behind_calls(events);
  }

  bool behind_calls(Events* events) {
    closed_ = false;
    before_ = std::exchange(skipped_, {});
    return no_call(events);
  }

  const Format format_;
  Place place_ = Place::kContent;
  std::string waiting_;           // text that is not understood yet
  std::string before_, skipped_;  // what stood before a call that may turn out to be none
  std::optional<CallScanner> call_;
  ValueScanner value_;
  int32_t calls_ = 0;
  bool announced_ = false;  // the call at hand
  bool in_list_ = false;    // of calls
  bool closed_ = false;     // Hermes: behind </tool_call>
};

}  // namespace

std::unique_ptr<Reader> make_reader(Format format) { return std::make_unique<FormatReader>(format); }
std::unique_ptr<Reader> make_named_reader(std::string name) { return std::make_unique<NamedReader>(std::move(name)); }

}  // namespace invar::tool_call
