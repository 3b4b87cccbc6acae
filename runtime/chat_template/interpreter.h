// One run of a template: its names, its output, and what it has used of the budget. One thread, one use.
#pragma once

#include <chrono>
#include <deque>

#include "absl/container/inlined_vector.h"
#include "nlohmann/json.hpp"
#include "runtime/chat_template/syntax.h"

namespace invar::jinja {

struct Arguments {
  Items positional;
  std::vector<std::pair<std::string, Value>> named;
};

// The names that were set in a scope.
struct Frame {
  Frame* parent = nullptr;
  absl::InlinedVector<std::pair<Symbol, Value>, 4> variables;
  bool kept = false;  // a macro was defined inside and may outlive the scope
};

class Interpreter {
 public:
  Interpreter(const Template& parsed, std::chrono::system_clock::time_point now) : template_(parsed), now_(now) {}
  Interpreter(const Interpreter&) = delete;
  Interpreter& operator=(const Interpreter&) = delete;

  // Both are objects; variables win. Throws Failure. To be called once.
  std::string render(const nlohmann::ordered_json& variables, const nlohmann::ordered_json& defaults);

  Value evaluate(const Expression& expression);
  Arguments evaluate(const CallArguments& arguments);
  Flow execute(const Statement& statement);
  Flow execute(const Body& body);

  Budget& budget() { return budget_; }
  std::chrono::system_clock::time_point now() const { return now_; }

  // Held while something waits for its parts, so that recursion ends before the stack does.
  class Depth {
   public:
    explicit Depth(Interpreter& run) : run_(run) {
      if (++run.depth_ > kMaxRunDepth) {
        --run.depth_;
        fail_exhausted("the template nests calls and values deeper than ", kMaxRunDepth, " levels");
      }
    }
    Depth(const Depth&) = delete;
    Depth& operator=(const Depth&) = delete;
    ~Depth() { --run_.depth_; }

   private:
    Interpreter& run_;
  };
  [[nodiscard]] Depth deeper() { return Depth(*this); }

  // Names. A scope is a fresh frame on top of `parent` until its end.
  class Scope {
   public:
    Scope(Interpreter& run, Frame* parent);
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;
    ~Scope();

   private:
    Interpreter& run_;
    Frame* before_;
    std::unique_ptr<Frame> frame_;
  };
  Frame* frame() const { return frame_; }
  Value lookup(Symbol symbol);
  void assign(Symbol symbol, Value value);
  void assign(const Target& target, const Value& value);

  // Output. capture() gives what `work` writes as text of its own.
  void write(std::string_view text);
  template <typename Work>
  std::string capture(const Work& work) {
    struct Restore {
      std::string*& place;
      std::string* before;
      ~Restore() { place = before; }
    };
    std::string captured;
    const Restore restore{out_, std::exchange(out_, &captured)};
    work();
    return captured;
  }

  // Makes an object that lives as long as the run.
  template <typename Thing, typename... Parts>
  Thing* keep(Parts&&... parts) {
    budget_.bytes(sizeof(Thing) + 64);
    auto thing = std::make_unique<Thing>(std::forward<Parts>(parts)...);
    Thing* place = thing.get();
    objects_.push_back(std::move(thing));
    return place;
  }
  // A macro refers to the current frame.
  void keep_frames();

  Value call(const Value& callee, const Arguments& arguments);
  Value call_method(const Value& object, std::string_view name, const Arguments& arguments);
  // By name, for map(), select() and their like. Fail for names that are not known.
  Value apply_filter(std::string_view name, const Value& subject, const Arguments& arguments);
  bool apply_test(std::string_view name, const Value& subject, const Arguments& arguments);

 private:
  Value from_json(const nlohmann::ordered_json& json, int depth);

  const Template& template_;
  const std::chrono::system_clock::time_point now_;
  Budget budget_;
  int depth_ = 0;
  std::vector<std::optional<Value>> context_;  // by symbol: variables and globals
  Frame* frame_ = nullptr;
  std::string* out_ = nullptr;
  std::vector<std::unique_ptr<Object>> objects_;
  std::vector<std::unique_ptr<Frame>> kept_frames_;
};

}  // namespace invar::jinja
