// The values of a template: Python's, as far as Jinja shows them.
//
// Text, sequences and dicts never change once made (the sandbox that transformers uses refuses their mutating methods), so they
// are shared. What does change (namespaces, loops, ...) is an Object that belongs to the run and is pointed to; so shared
// ownership has no cycles.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "runtime/chat_template/budget.h"

namespace invar::jinja {

class Value;
class Interpreter;
struct Arguments;
struct Dict;
struct Sequence;
using Items = std::vector<Value>;
template <typename T>
using TextMap = absl::flat_hash_map<std::string, T, tokenizer::TextHash, std::equal_to<>>;
using Integer = __int128;  // JSON brings unsigned 64 bit; results beyond this are refused, Python's would go on

enum class Kind { kUndefined, kNone, kBool, kInteger, kFloat, kText, kSequence, kDict, kObject };

// A thing with an identity, and attributes that may change.
struct Object {
  virtual ~Object() = default;
  virtual std::string_view type_name() const = 0;
  virtual std::string shown(Interpreter&) const = 0;  // what {{ it }} writes
  virtual std::optional<Value> attribute(Interpreter&, std::string_view name);
  // nullopt: there is no such method, the attribute of that name is called instead.
  virtual std::optional<Value> call_method(Interpreter&, std::string_view name, const Arguments&);
  virtual bool callable() const { return false; }
  virtual Value call(Interpreter&, const Arguments&);
};

class Value {
 public:
  Value() : data_(Nothing{}) {}  // none
  explicit Value(bool value) : data_(value) {}
  explicit Value(Integer value) : data_(value) {}
  explicit Value(double value) : data_(value) {}
  explicit Value(std::string text) : data_(std::make_shared<const std::string>(std::move(text))) {}
  explicit Value(std::string_view text) : Value(std::string(text)) {}
  explicit Value(const char*) = delete;  // would become a bool
  explicit Value(std::shared_ptr<const Sequence> sequence) : data_(std::move(sequence)) {}
  explicit Value(std::shared_ptr<const Dict> dict) : data_(std::move(dict)) {}
  explicit Value(Object* object) : data_(object) {}
  // `why` is the error that using it in earnest gives: "'x' is undefined".
  static Value undefined(std::string why) {
    Value v;
    v.data_ = Missing{std::make_shared<const std::string>(std::move(why))};
    return v;
  }

  Kind kind() const { return static_cast<Kind>(data_.index()); }
  bool is(Kind k) const { return kind() == k; }
  bool is_undefined() const { return is(Kind::kUndefined); }
  bool is_none() const { return is(Kind::kNone); }
  bool is_text() const { return is(Kind::kText); }
  bool is_integral() const { return is(Kind::kInteger) || is(Kind::kBool); }  // a bool is an int in Python
  bool is_number() const { return is_integral() || is(Kind::kFloat); }

  const std::string& why_undefined() const { return *std::get<Missing>(data_).why; }
  bool boolean() const { return std::get<bool>(data_); }
  Integer integral() const { return is(Kind::kBool) ? Integer{boolean()} : std::get<Integer>(data_); }
  double number() const { return is(Kind::kFloat) ? std::get<double>(data_) : static_cast<double>(integral()); }
  const std::string& text() const { return *std::get<std::shared_ptr<const std::string>>(data_); }
  const std::shared_ptr<const Sequence>& sequence() const { return std::get<std::shared_ptr<const Sequence>>(data_); }
  const Dict& dict() const { return *std::get<std::shared_ptr<const Dict>>(data_); }
  Object& object() const { return *std::get<Object*>(data_); }

  bool same_object(const Value& other) const { return data_ == other.data_; }  // Python's `is`

 private:
  struct Missing {
    std::shared_ptr<const std::string> why;
    bool operator==(const Missing&) const = default;
  };
  struct Nothing {
    bool operator==(const Nothing&) const = default;
  };
  // In the order of Kind.
  std::variant<Missing, Nothing, bool, Integer, double, std::shared_ptr<const std::string>, std::shared_ptr<const Sequence>,
               std::shared_ptr<const Dict>, Object*>
      data_;
};

// Python has several types here that differ in what they can do. A generator gives each item once.
enum class Shape { kList, kTuple, kRange, kGenerator, kKeys, kValues, kItems };

struct Sequence {
  Shape shape;
  Items items;
  int depth;
  std::string range;         // "range(0, 3)"
  mutable size_t given = 0;  // items a generator has handed out; generators are never shared between runs
};

struct Dict {
  std::vector<std::pair<Value, Value>> entries;  // in the order they were made
  TextMap<size_t> places;                        // of the keys' canonical texts; only filled for many entries
  int depth = 0;
  // nullptr: not there, or not a possible key.
  const Value* find(Budget& budget, const Value& key) const;
  const Value* find(Budget& budget, std::string_view key) const;
};

class DictMaker {
 public:
  explicit DictMaker(Budget& budget) : budget_(budget), dict_(std::make_shared<Dict>()) {}
  // A key that is there keeps its place and gets the new value. An unhashable key (a list) is an error.
  void set(const Value& key, Value value);
  Value done();

 private:
  Budget& budget_;
  std::shared_ptr<Dict> dict_;
};

Value make_sequence(Budget& budget, Items items, Shape shape = Shape::kList);
Value make_text(Budget& budget, std::string text);

// Equal keys (1, 1.0, true) have equal canonical texts; nullopt: not hashable. Fails for tuples beyond kMaxTupleKey.
std::optional<std::string> key_text(const Value& value);
// Fails for what cannot be a key: "unhashable type: 'list'".
void check_hashable(const Value& value);

int depth_of(const Value& value);
bool truthy(const Value& value);
std::string_view type_name(const Value& value);  // Python's: "str", "dict", "NoneType"
// The error of using an undefined value, for everything that Jinja does not allow with one.
[[noreturn]] void fail_undefined(const Value& value);

// The items that a loop sees: of a dict its keys, of text its characters, of undefined none. Fails for what cannot be looped
// over. A generator's items count from its `given`; whoever takes them moves it.
std::shared_ptr<const Sequence> iterate(Budget& budget, const Value& value);
// The same as a plain list; a generator is used up.
Items items_of(Budget& budget, const Value& value);
// len(); fails for what has none.
size_t length_of(Budget& budget, const Value& value);

}  // namespace invar::jinja
