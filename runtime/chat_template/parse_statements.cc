// Template text and {% statements %}.
#include <algorithm>

#include "runtime/chat_template/parser.h"

namespace invar::jinja {
namespace {

// Sets a value for the length of a scope.
template <typename T>
struct Held {
  Held(T& place, T value) : place(place), before(std::exchange(place, std::move(value))) {}
  ~Held() { place = before; }
  T& place;
  T before;
};

template <typename Node>
std::unique_ptr<Node> node_at(int line) {
  auto node = std::make_unique<Node>();
  node->line = line;
  return node;
}

}  // namespace

Body Parser::statements(std::initializer_list<std::string_view> ends) {
  const Level level(*this);
  Body body;
  while (!at(TokenKind::kEnd)) {
    const Token begun = take();
    if (begun.kind == TokenKind::kData) {
      auto node = node_at<TextStatement>(begun.line);
      node->text = begun.text;
      body.push_back(std::move(node));
    } else if (begun.kind == TokenKind::kVariableBegin) {
      auto node = node_at<OutputStatement>(begun.line);
      node->value = tuple_or_expression(true);
      if (!at(TokenKind::kVariableEnd)) fail_unexpected("'}}'");
      take();
      body.push_back(std::move(node));
    } else {  // nothing else comes out of the lexer here but the beginning of a block
      if (std::any_of(ends.begin(), ends.end(), [&](std::string_view end) { return at_name(end); })) return body;
      body.push_back(statement());
      expect_block_end();
    }
  }
  if (ends.size() > 0) {
    fail_here(concat("the template ends inside of a block, expected '{% ", *(ends.end() - 1), " %}'"));
  }
  return body;
}

Body Parser::block_until(std::string_view end) {
  expect_block_end();
  Body body = statements({end});
  take();
  return body;
}

std::unique_ptr<const Statement> Parser::statement() {
  const int line = token().line;
  if (!at(TokenKind::kName)) fail_unexpected("the name of a statement");
  const std::string name = token().text;
  if (name == "for") return for_statement();
  if (name == "if") return if_statement();
  if (name == "set") return set_statement();
  if (name == "with") return with_statement();
  if (name == "macro") return macro_statement();
  if (name == "call") return call_statement();
  if (name == "filter") return filter_statement();
  if (name == "generation") return generation_statement();
  if (name == "break") return jump_statement(Flow::kBreak);
  if (name == "continue") return jump_statement(Flow::kContinue);
  if (name == "print") {
    take();
    auto node = node_at<OutputStatement>(line);
    node->value = expression();
    return node;
  }
  for (const std::string_view refused : {"include", "import", "from", "extends", "block", "autoescape"}) {
    if (name == refused) {
      throw Failure(absl::StatusCode::kUnimplemented, concat("'{% ", name, " %}' is not supported in chat templates"), line);
    }
  }
  if (name.starts_with("end") || name == "else" || name == "elif") {
    fail_here(open_blocks_.empty() ? concat("'", name, "' without a block that it could belong to")
                                   : concat("unexpected '", name, "' inside of '", open_blocks_.back(), "'"));
  }
  fail_here(concat("there is no statement named '", name, "'"));
}

std::unique_ptr<const Statement> Parser::for_statement() {
  auto node = node_at<ForStatement>(take().line);
  node->loop = symbol("loop");
  open_loops_.push_back(&node->uses_loop);
  node->target = target(/*namespaces=*/false);
  if (!skip_name("in")) fail_unexpected("'in'");
  node->items = tuple_or_expression(/*with_conditional=*/false, false, "recursive");
  if (skip_name("if")) node->test = expression();
  node->recursive = skip_name("recursive");
  expect_block_end();
  open_blocks_.push_back("for");
  ++loops_;
  node->body = statements({"else", "endfor"});
  --loops_;
  open_loops_.pop_back();
  if (take().text == "else") node->otherwise = block_until("endfor");
  open_blocks_.pop_back();
  node->uses_loop |= node->recursive;
  return node;
}

std::unique_ptr<const Statement> Parser::if_statement() {
  auto node = node_at<IfStatement>(token().line);
  open_blocks_.push_back("if");
  ++conditional_;
  while (true) {
    take();  // if, elif
    ExpressionPtr test = tuple_or_expression(/*with_conditional=*/false);
    expect_block_end();
    node->branches.emplace_back(std::move(test), statements({"elif", "else", "endif"}));
    if (at_name("elif")) continue;
    if (take().text == "else") node->otherwise = block_until("endif");
    break;
  }
  --conditional_;
  open_blocks_.pop_back();
  return node;
}

Target Parser::target_part(bool namespaces) {
  const Level level(*this);
  Target part;
  if (skip_operator("(")) {
    part = target(namespaces);
    expect_operator(")");
    return part;
  }
  const int line = token().line;
  const std::string name = expect_name();
  for (const std::string_view constant : {"true", "True", "false", "False", "none", "None"}) {
    if (name == constant) fail_here(concat("'", name, "' cannot be assigned to"), line);
  }
  if (name == "loop" && !open_loops_.empty()) fail_here("'loop' cannot be assigned to inside of a loop", line);
  part.symbol = symbol(name);
  if (namespaces && skip_operator(".")) {
    part.kind = Target::Kind::kAttribute;
    part.attribute = expect_name();
  }
  return part;
}

Target Parser::target(bool namespaces, bool with_tuple) {
  Target first = target_part(namespaces);
  if (!with_tuple || !at_operator(",")) return first;
  Target all;
  all.kind = Target::Kind::kTuple;
  all.parts.push_back(std::move(first));
  while (skip_operator(",")) {
    if (!at(TokenKind::kName) && !at_operator("(")) break;
    if (at_name("in")) break;
    all.parts.push_back(target_part(namespaces));
  }
  return all;
}

std::vector<std::unique_ptr<const FilterExpression>> Parser::block_filters(bool first_without_pipe) {
  std::vector<std::unique_ptr<const FilterExpression>> filters;
  if (first_without_pipe) filters.push_back(filter(nullptr));
  while (skip_operator("|")) filters.push_back(filter(nullptr));
  return filters;
}

std::unique_ptr<const Statement> Parser::set_statement() {
  const int line = take().line;
  Target assigned = target(/*namespaces=*/true);
  if (skip_operator("=")) {
    auto node = node_at<SetStatement>(line);
    node->target = std::move(assigned);
    node->value = tuple_or_expression(true);
    return node;
  }
  auto node = node_at<SetBlockStatement>(line);
  node->target = std::move(assigned);
  node->filters = block_filters(false);
  open_blocks_.push_back("set");
  node->body = block_until("endset");
  open_blocks_.pop_back();
  return node;
}

std::unique_ptr<const Statement> Parser::with_statement() {
  auto node = node_at<WithStatement>(take().line);
  while (!at(TokenKind::kBlockEnd)) {
    if (!node->values.empty()) expect_operator(",");
    Target assigned = target(/*namespaces=*/false, /*with_tuple=*/false);
    expect_operator("=");
    node->values.emplace_back(std::move(assigned), expression());
  }
  open_blocks_.push_back("with");
  node->body = block_until("endwith");
  open_blocks_.pop_back();
  return node;
}

void Parser::signature(MacroCode& code) {
  expect_operator("(");
  while (!at_operator(")")) {
    const std::string name = expect_name();
    code.parameters.emplace_back(symbol(name), name);
    if (code.parameters.size() > kMaxArguments) fail_here(concat("a macro has more than ", kMaxArguments, " parameters"));
    if (skip_operator("=")) {
      code.defaults.push_back(expression());
    } else if (!code.defaults.empty()) {
      fail_here(concat("the parameter '", name, "' has no default but follows one that has"));
    }
    if (!skip_operator(",")) break;
  }
  expect_operator(")");
}

void Parser::macro_body(MacroCode& code, std::string_view end) {
  code.caller = symbol("caller");
  code.varargs = symbol("varargs");
  code.kwargs = symbol("kwargs");
  // A break inside cannot leave a loop outside.
  const Held<int> no_loops(loops_, 0);
  open_macros_.push_back(&code);
  open_blocks_.push_back(end.substr(3));
  code.body = block_until(end);
  open_blocks_.pop_back();
  open_macros_.pop_back();
  for (const auto& [symbol, name] : code.parameters) {
    if (name == "caller") code.uses_caller = false;
    if (name == "varargs") code.uses_varargs = false;
    if (name == "kwargs") code.uses_kwargs = false;
  }
}

std::unique_ptr<const Statement> Parser::macro_statement() {
  auto node = node_at<MacroStatement>(take().line);
  node->code.line = node->line;
  node->code.name = expect_name();
  node->symbol = symbol(node->code.name);
  signature(node->code);
  macro_body(node->code, "endmacro");
  return node;
}

std::unique_ptr<const Statement> Parser::call_statement() {
  auto node = node_at<CallBlockStatement>(take().line);
  node->code.line = node->line;
  node->code.name = "caller";
  if (at_operator("(")) signature(node->code);
  ExpressionPtr called = expression();
  const auto* call = dynamic_cast<const CallExpression*>(called.get());
  if (call == nullptr) fail_here("a call block wants the call of a macro");
  called.release();
  node->call.reset(call);
  macro_body(node->code, "endcall");
  return node;
}

std::unique_ptr<const Statement> Parser::filter_statement() {
  auto node = node_at<FilterBlockStatement>(take().line);
  node->filters = block_filters(true);
  open_blocks_.push_back("filter");
  node->body = block_until("endfilter");
  open_blocks_.pop_back();
  return node;
}

std::unique_ptr<const Statement> Parser::generation_statement() {
  auto node = node_at<ScopeStatement>(take().line);
  const Held<int> no_loops(loops_, 0);
  open_blocks_.push_back("generation");
  node->body = block_until("endgeneration");
  open_blocks_.pop_back();
  return node;
}

std::unique_ptr<const Statement> Parser::jump_statement(Flow flow) {
  if (loops_ == 0) fail_here(concat("'", token().text, "' outside of a loop"));
  auto node = node_at<JumpStatement>(take().line);
  node->flow = flow;
  return node;
}

}  // namespace invar::jinja
