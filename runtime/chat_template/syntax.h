// A parsed template: expressions and statements that evaluate themselves. Immutable, so threads share it.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "runtime/chat_template/value.h"

namespace invar::jinja {

struct FilterEntry;
struct TestEntry;
struct Frame;

using Symbol = int;  // a name, as its place in Template::names

struct Expression {
  virtual ~Expression() = default;
  // Called through Interpreter::evaluate() only, which counts and adds the line to failures.
  virtual Value evaluate(Interpreter& run) const = 0;

  int line = 0;
  int height = 1;  // of the tree below: bounds the recursion that walks it
};
using ExpressionPtr = std::unique_ptr<const Expression>;

enum class Flow { kOn, kBreak, kContinue };

struct Statement {
  virtual ~Statement() = default;
  // Called through Interpreter::execute() only.
  virtual Flow execute(Interpreter& run) const = 0;

  int line = 0;
};
using Body = std::vector<std::unique_ptr<const Statement>>;

// f(a, b=c, *d, **e)
struct CallArguments {
  std::vector<ExpressionPtr> positional;
  std::vector<std::pair<std::string, ExpressionPtr>> named;
  ExpressionPtr spread, spread_named;  // may be null
};

struct Constant : Expression {
  Value evaluate(Interpreter& run) const override;
  Value value;
};

struct NameExpression : Expression {
  Value evaluate(Interpreter& run) const override;
  Symbol symbol = 0;
};

struct ListExpression : Expression {
  Value evaluate(Interpreter& run) const override;
  std::vector<ExpressionPtr> items;
  bool tuple = false;
};

struct DictExpression : Expression {
  Value evaluate(Interpreter& run) const override;
  std::vector<std::pair<ExpressionPtr, ExpressionPtr>> entries;
};

struct AttributeExpression : Expression {  // object.name
  Value evaluate(Interpreter& run) const override;
  ExpressionPtr object;
  std::string name;
};

struct SubscriptExpression : Expression {  // object[index]
  Value evaluate(Interpreter& run) const override;
  ExpressionPtr object, index;
};

struct SliceExpression : Expression {  // object[start:stop:step], each may be null
  Value evaluate(Interpreter& run) const override;
  ExpressionPtr object, start, stop, step;
};

struct CallExpression : Expression {
  Value evaluate(Interpreter& run) const override;
  ExpressionPtr callee;
  CallArguments arguments;
};

struct FilterExpression : Expression {
  Value evaluate(Interpreter& run) const override;
  Value apply(Interpreter& run, const Value& subject) const;
  ExpressionPtr subject;  // null: of a block
  std::string name;
  const FilterEntry* filter = nullptr;  // null: no such filter, an error when it is reached
  CallArguments arguments;
};

struct TestExpression : Expression {  // subject is name(arguments)
  Value evaluate(Interpreter& run) const override;
  ExpressionPtr subject;
  std::string name;
  const TestEntry* test = nullptr;
  CallArguments arguments;
};

enum class Operator { kAdd, kSubtract, kMultiply, kDivide, kFloorDivide, kModulo, kPower };
enum class Comparison { kEqual, kUnequal, kLess, kLessEqual, kGreater, kGreaterEqual, kIn, kNotIn };

struct UnaryExpression : Expression {  // -x, +x
  Value evaluate(Interpreter& run) const override;
  bool negative = false;
  ExpressionPtr operand;
};

struct BinaryExpression : Expression {
  Value evaluate(Interpreter& run) const override;
  Operator op{};
  ExpressionPtr left, right;
};

struct ConcatExpression : Expression {  // a ~ b ~ c
  Value evaluate(Interpreter& run) const override;
  std::vector<ExpressionPtr> parts;
};

struct CompareExpression : Expression {  // a < b <= c
  Value evaluate(Interpreter& run) const override;
  ExpressionPtr first;
  std::vector<std::pair<Comparison, ExpressionPtr>> rest;
};

struct LogicExpression : Expression {  // and, or: the deciding operand itself
  Value evaluate(Interpreter& run) const override;
  bool is_and = false;
  ExpressionPtr left, right;
};

struct NotExpression : Expression {
  Value evaluate(Interpreter& run) const override;
  ExpressionPtr operand;
};

struct ConditionalExpression : Expression {  // value if test else otherwise
  Value evaluate(Interpreter& run) const override;
  ExpressionPtr test, value, otherwise;  // otherwise may be null
};

// What can be assigned to: a name, an attribute of a namespace, or several of these.
struct Target {
  enum class Kind { kName, kAttribute, kTuple } kind = Kind::kName;
  Symbol symbol = 0;
  std::string attribute;
  std::vector<Target> parts;
};

struct TextStatement : Statement {
  Flow execute(Interpreter& run) const override;
  std::string text;
};

struct OutputStatement : Statement {  // {{ value }}
  Flow execute(Interpreter& run) const override;
  ExpressionPtr value;
};

struct IfStatement : Statement {
  Flow execute(Interpreter& run) const override;
  std::vector<std::pair<ExpressionPtr, Body>> branches;
  Body otherwise;
};

struct ForStatement : Statement {
  Flow execute(Interpreter& run) const override;
  // Runs the loop over `items`; `outer` is the scope around it and differs from the current one in a recursive call.
  Flow loop_over(Interpreter& run, const Value& items, Frame* outer, int depth0) const;
  Target target;
  ExpressionPtr items, test;  // test may be null
  Body body, otherwise;
  bool recursive = false;
  bool uses_loop = false;  // the name stands in the body
  Symbol loop = 0;
};

struct SetStatement : Statement {
  Flow execute(Interpreter& run) const override;
  Target target;
  ExpressionPtr value;
};

struct SetBlockStatement : Statement {
  Flow execute(Interpreter& run) const override;
  Target target;
  std::vector<std::unique_ptr<const FilterExpression>> filters;
  Body body;
};

struct WithStatement : Statement {
  Flow execute(Interpreter& run) const override;
  std::vector<std::pair<Target, ExpressionPtr>> values;
  Body body;
};

// The body of a macro or of a call block.
struct MacroCode {
  std::string name;  // "caller" for a call block
  std::vector<std::pair<Symbol, std::string>> parameters;
  std::vector<ExpressionPtr> defaults;  // of the last parameters
  Body body;
  // Names that the body reads and no parameter has: only then surplus arguments are taken.
  bool uses_caller = false, uses_varargs = false, uses_kwargs = false;
  Symbol caller = 0, varargs = 0, kwargs = 0;
  int line = 0;
};

struct MacroStatement : Statement {
  Flow execute(Interpreter& run) const override;
  Symbol symbol = 0;
  MacroCode code;
};

struct CallBlockStatement : Statement {  // {% call(x) macro(y) %}
  Flow execute(Interpreter& run) const override;
  std::unique_ptr<const CallExpression> call;
  MacroCode code;
};

struct FilterBlockStatement : Statement {
  Flow execute(Interpreter& run) const override;
  std::vector<std::unique_ptr<const FilterExpression>> filters;
  Body body;
};

struct ScopeStatement : Statement {  // {% generation %}: marks the assistant's text for training, here only a scope
  Flow execute(Interpreter& run) const override;
  Body body;
};

struct JumpStatement : Statement {
  Flow execute(Interpreter&) const override { return flow; }
  Flow flow{};
};

struct Template {
  std::vector<std::string> names;
  TextMap<Symbol> symbols;
  Body body;
};

}  // namespace invar::jinja
