// Tokens to a tree.
#pragma once

#include <initializer_list>

#include "runtime/chat_template/lexer.h"
#include "runtime/chat_template/syntax.h"

namespace invar::jinja {

// Throws Failure with the line: what is not Jinja, statements that would read other templates, filters and tests that are not
// known (those in a branch that may not run fail when they run, as in Jinja).
Template parse_template(std::string_view source);

class Parser {
 public:
  explicit Parser(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}
  Template run();

 private:
  // parse_statements.cc
  Body statements(std::initializer_list<std::string_view> ends);  // stops in front of the end's name
  Body block_until(std::string_view end);                         // and behind it
  std::unique_ptr<const Statement> statement();
  std::unique_ptr<const Statement> for_statement();
  std::unique_ptr<const Statement> if_statement();
  std::unique_ptr<const Statement> set_statement();
  std::unique_ptr<const Statement> with_statement();
  std::unique_ptr<const Statement> macro_statement();
  std::unique_ptr<const Statement> call_statement();
  std::unique_ptr<const Statement> filter_statement();
  std::unique_ptr<const Statement> generation_statement();
  std::unique_ptr<const Statement> jump_statement(Flow flow);
  void signature(MacroCode& code);
  void macro_body(MacroCode& code, std::string_view end);
  Target target(bool namespaces, bool with_tuple = true);
  Target target_part(bool namespaces);
  std::vector<std::unique_ptr<const FilterExpression>> block_filters(bool first_without_pipe);

  // parse_expressions.cc
  ExpressionPtr tuple_or_expression(bool with_conditional, bool parentheses = false, std::string_view extra_end = "");
  ExpressionPtr expression(bool with_conditional = true);
  ExpressionPtr logic(bool is_and);
  ExpressionPtr negation();
  ExpressionPtr comparison();
  ExpressionPtr sum();
  ExpressionPtr concatenation();
  ExpressionPtr product();
  ExpressionPtr power();
  ExpressionPtr unary(bool with_filter = true);
  ExpressionPtr primary();
  ExpressionPtr name_or_constant();
  ExpressionPtr number();
  ExpressionPtr list();
  ExpressionPtr dict();
  ExpressionPtr postfix(ExpressionPtr subject);
  ExpressionPtr filtered(ExpressionPtr subject);
  ExpressionPtr subscript(ExpressionPtr subject);
  ExpressionPtr call(ExpressionPtr callee);
  std::unique_ptr<const FilterExpression> filter(ExpressionPtr subject);
  ExpressionPtr test(ExpressionPtr subject);
  CallArguments call_arguments();
  bool at_tuple_end(std::string_view extra_end) const;

  // parser.cc
  const Token& token() const { return tokens_[at_]; }
  const Token& look() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
  Token take();
  bool at(TokenKind kind) const { return token().kind == kind; }
  bool at_operator(std::string_view text) const { return at(TokenKind::kOperator) && token().text == text; }
  bool at_name(std::string_view text) const { return at(TokenKind::kName) && token().text == text; }
  bool skip_operator(std::string_view text);
  bool skip_name(std::string_view text);
  void expect_operator(std::string_view text);
  std::string expect_name();
  void expect_block_end();
  [[noreturn]] void fail_here(const std::string& message, int line = 0) const;
  [[noreturn]] void fail_unexpected(std::string_view wanted) const;
  Symbol symbol(const std::string& name);
  // A name that is read: loops and macros around it are told.
  void note_use(const std::string& name);

  // Sets line and height; fails if the tree has become too high. `children` may be null.
  template <typename Node>
  std::unique_ptr<const Node> made(std::unique_ptr<Node> node, int line, std::initializer_list<const Expression*> children) {
    for (const Expression* child : children) {
      if (child != nullptr) node->height = std::max(node->height, child->height + 1);
    }
    node->line = line;
    if (node->height > kMaxTreeDepth) fail_here(concat("an expression is nested deeper than ", kMaxTreeDepth, " levels"), line);
    return node;
  }
  static int height_of(const CallArguments& arguments);

  // Counts how deep the parser itself is in the text.
  struct Level {
    explicit Level(Parser& parser);
    ~Level() { --parser.level_; }
    Parser& parser;
  };

  std::vector<Token> tokens_;
  size_t at_ = 0;
  int level_ = 0;
  int conditional_ = 0;            // branches around the text that is being read
  int loops_ = 0;                  // that a break would leave
  std::vector<bool*> open_loops_;  // their uses_loop
  std::vector<MacroCode*> open_macros_;
  std::vector<std::string_view> open_blocks_;
  Template template_;
};

}  // namespace invar::jinja
