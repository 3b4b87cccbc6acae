// Expressions, from the loosest binding to the tightest.
#include <charconv>

#include "runtime/chat_template/filters.h"
#include "runtime/chat_template/is_tests.h"
#include "runtime/chat_template/parser.h"

namespace invar::jinja {

bool Parser::at_tuple_end(std::string_view extra_end) const {
  return at(TokenKind::kVariableEnd) || at(TokenKind::kBlockEnd) || at_operator(")") ||
         (!extra_end.empty() && at_name(extra_end));
}

// a, b, c is a tuple also without parentheses.
ExpressionPtr Parser::tuple_or_expression(bool with_conditional, bool parentheses, std::string_view extra_end) {
  const int line = token().line;
  auto tuple = std::make_unique<ListExpression>();
  tuple->tuple = true;
  bool comma = false;
  while (!at_tuple_end(extra_end)) {
    tuple->items.push_back(expression(with_conditional));
    tuple->height = std::max(tuple->height, tuple->items.back()->height + 1);
    if (!skip_operator(",")) break;
    comma = true;
  }
  if (!comma && !tuple->items.empty()) return std::move(tuple->items.front());
  if (tuple->items.empty() && !parentheses) fail_unexpected("an expression");
  return made(std::move(tuple), line, {});
}

ExpressionPtr Parser::expression(bool with_conditional) {
  const Level level(*this);
  int line = token().line;
  ExpressionPtr value = logic(false);
  while (with_conditional && skip_name("if")) {
    auto choice = std::make_unique<ConditionalExpression>();
    ++conditional_;
    choice->test = logic(false);
    if (skip_name("else")) choice->otherwise = expression();
    --conditional_;
    choice->value = std::move(value);
    const Expression *a = choice->test.get(), *b = choice->value.get(), *c = choice->otherwise.get();
    value = made(std::move(choice), line, {a, b, c});
    line = token().line;
  }
  return value;
}

ExpressionPtr Parser::logic(bool is_and) {
  const int line = token().line;
  ExpressionPtr left = is_and ? negation() : logic(true);
  while (skip_name(is_and ? "and" : "or")) {
    auto node = std::make_unique<LogicExpression>();
    node->is_and = is_and;
    node->right = is_and ? negation() : logic(true);
    node->left = std::move(left);
    const Expression *a = node->left.get(), *b = node->right.get();
    left = made(std::move(node), line, {a, b});
  }
  return left;
}

ExpressionPtr Parser::negation() {
  if (!at_name("not")) return comparison();
  const Level level(*this);
  const int line = take().line;
  auto node = std::make_unique<NotExpression>();
  node->operand = negation();
  const Expression* operand = node->operand.get();
  return made(std::move(node), line, {operand});
}

ExpressionPtr Parser::comparison() {
  static constexpr std::pair<std::string_view, Comparison> kSigns[] = {
      {"==", Comparison::kEqual},        {"!=", Comparison::kUnequal}, {"<=", Comparison::kLessEqual},
      {">=", Comparison::kGreaterEqual}, {"<", Comparison::kLess},     {">", Comparison::kGreater},
  };
  const int line = token().line;
  auto node = std::make_unique<CompareExpression>();
  node->first = sum();
  const auto next = [&]() -> std::optional<Comparison> {
    for (const auto& [sign, comparison] : kSigns) {
      if (skip_operator(sign)) return comparison;
    }
    if (skip_name("in")) return Comparison::kIn;
    if (at_name("not") && look().kind == TokenKind::kName && look().text == "in") {
      take();
      take();
      return Comparison::kNotIn;
    }
    return std::nullopt;
  };
  node->height = node->first->height + 1;
  while (const auto comparison = next()) {
    node->rest.emplace_back(*comparison, sum());
    node->height = std::max(node->height, node->rest.back().second->height + 1);
  }
  if (node->rest.empty()) return std::move(node->first);
  return made(std::move(node), line, {});
}

ExpressionPtr Parser::sum() {
  const int line = token().line;
  ExpressionPtr left = concatenation();
  while (at_operator("+") || at_operator("-")) {
    auto node = std::make_unique<BinaryExpression>();
    node->op = take().text == "+" ? Operator::kAdd : Operator::kSubtract;
    node->right = concatenation();
    node->left = std::move(left);
    const Expression *a = node->left.get(), *b = node->right.get();
    left = made(std::move(node), line, {a, b});
  }
  return left;
}

ExpressionPtr Parser::concatenation() {
  const int line = token().line;
  ExpressionPtr first = product();
  if (!at_operator("~")) return first;
  auto node = std::make_unique<ConcatExpression>();
  node->height = first->height + 1;
  node->parts.push_back(std::move(first));
  while (skip_operator("~")) {
    node->parts.push_back(product());
    node->height = std::max(node->height, node->parts.back()->height + 1);
  }
  return made(std::move(node), line, {});
}

ExpressionPtr Parser::product() {
  const int line = token().line;
  ExpressionPtr left = power();
  while (at_operator("*") || at_operator("/") || at_operator("//") || at_operator("%")) {
    auto node = std::make_unique<BinaryExpression>();
    node->op = at_operator("*")    ? Operator::kMultiply
               : at_operator("/")  ? Operator::kDivide
               : at_operator("//") ? Operator::kFloorDivide
                                   : Operator::kModulo;
    take();
    node->right = power();
    node->left = std::move(left);
    const Expression *a = node->left.get(), *b = node->right.get();
    left = made(std::move(node), line, {a, b});
  }
  return left;
}

ExpressionPtr Parser::power() {
  const int line = token().line;
  ExpressionPtr left = unary();
  while (skip_operator("**")) {  // from the left, unlike Python
    auto node = std::make_unique<BinaryExpression>();
    node->op = Operator::kPower;
    node->right = unary();
    node->left = std::move(left);
    const Expression *a = node->left.get(), *b = node->right.get();
    left = made(std::move(node), line, {a, b});
  }
  return left;
}

ExpressionPtr Parser::unary(bool with_filter) {
  const Level level(*this);
  const int line = token().line;
  ExpressionPtr node;
  if (at_operator("-") || at_operator("+")) {
    auto sign = std::make_unique<UnaryExpression>();
    sign->negative = take().text == "-";
    sign->operand = unary(false);
    const Expression* operand = sign->operand.get();
    node = made(std::move(sign), line, {operand});
  } else {
    node = primary();
  }
  node = postfix(std::move(node));
  return with_filter ? filtered(std::move(node)) : std::move(node);
}

ExpressionPtr Parser::primary() {
  if (at(TokenKind::kName)) return name_or_constant();
  if (at(TokenKind::kInteger) || at(TokenKind::kFloat)) return number();
  if (at(TokenKind::kText)) {
    auto node = std::make_unique<Constant>();
    const int line = token().line;
    std::string text;
    while (at(TokenKind::kText)) text += take().text;  // "a" "b" is "ab"
    node->value = Value(std::move(text));
    return made(std::move(node), line, {});
  }
  if (skip_operator("(")) {
    ExpressionPtr inner = tuple_or_expression(true, /*parentheses=*/true);
    expect_operator(")");
    return inner;
  }
  if (at_operator("[")) return list();
  if (at_operator("{")) return dict();
  fail_unexpected("an expression");
}

ExpressionPtr Parser::name_or_constant() {
  const Token name = take();
  const std::string& text = name.text;
  const bool is_true = text == "true" || text == "True", is_none = text == "none" || text == "None";
  if (is_true || is_none || text == "false" || text == "False") {
    auto node = std::make_unique<Constant>();
    if (!is_none) node->value = Value(is_true);
    return made(std::move(node), name.line, {});
  }
  note_use(text);
  auto node = std::make_unique<NameExpression>();
  node->symbol = symbol(text);
  return made(std::move(node), name.line, {});
}

ExpressionPtr Parser::number() {
  const Token written = take();
  auto node = std::make_unique<Constant>();
  const char *begin = written.text.data(), *end = begin + written.text.size();
  if (written.kind == TokenKind::kFloat) {
    double value = 0;
    const auto read = std::from_chars(begin, end, value);
    if (read.ec != std::errc{} || read.ptr != end) fail_here(concat(written.text, " is beyond what a float holds"), written.line);
    node->value = Value(value);
  } else {
    int base = 10;
    if (written.text.size() > 2 && begin[0] == '0') {
      base = (begin[1] | 32) == 'x' ? 16 : (begin[1] | 32) == 'o' ? 8 : (begin[1] | 32) == 'b' ? 2 : 10;
    }
    int64_t value = 0;
    const auto read = std::from_chars(begin + (base == 10 ? 0 : 2), end, value, base);
    if (read.ec != std::errc{} || read.ptr != end) fail_here(concat("the integer ", written.text, " is too large"), written.line);
    node->value = Value(Integer{value});
  }
  return made(std::move(node), written.line, {});
}

ExpressionPtr Parser::list() {
  const int line = take().line;
  auto node = std::make_unique<ListExpression>();
  while (!at_operator("]")) {
    node->items.push_back(expression());
    node->height = std::max(node->height, node->items.back()->height + 1);
    if (!skip_operator(",")) break;
  }
  expect_operator("]");
  return made(std::move(node), line, {});
}

ExpressionPtr Parser::dict() {
  const int line = take().line;
  auto node = std::make_unique<DictExpression>();
  while (!at_operator("}")) {
    ExpressionPtr key = expression();
    expect_operator(":");
    ExpressionPtr value = expression();
    node->height = std::max({node->height, key->height + 1, value->height + 1});
    node->entries.emplace_back(std::move(key), std::move(value));
    if (!skip_operator(",")) break;
  }
  expect_operator("}");
  return made(std::move(node), line, {});
}

ExpressionPtr Parser::postfix(ExpressionPtr subject) {
  while (true) {
    if (at_operator(".") || at_operator("[")) {
      subject = subscript(std::move(subject));
    } else if (at_operator("(")) {
      subject = call(std::move(subject));
    } else {
      return subject;
    }
  }
}

ExpressionPtr Parser::filtered(ExpressionPtr subject) {
  while (true) {
    if (skip_operator("|")) {
      subject = filter(std::move(subject));
    } else if (at_name("is")) {
      subject = test(std::move(subject));
    } else if (at_operator("(")) {
      subject = call(std::move(subject));
    } else {
      return subject;
    }
  }
}

ExpressionPtr Parser::subscript(ExpressionPtr subject) {
  const Token begun = take();
  const auto indexed = [&](ExpressionPtr index) {
    auto node = std::make_unique<SubscriptExpression>();
    node->object = std::move(subject);
    node->index = std::move(index);
    const Expression *a = node->object.get(), *b = node->index.get();
    return made(std::move(node), begun.line, {a, b});
  };
  if (begun.text == ".") {
    if (at(TokenKind::kInteger)) return indexed(number());  // x.0 is x[0]
    if (!at(TokenKind::kName)) fail_unexpected("a name or a number");
    auto node = std::make_unique<AttributeExpression>();
    node->object = std::move(subject);
    node->name = take().text;
    const Expression* object = node->object.get();
    return made(std::move(node), begun.line, {object});
  }
  ExpressionPtr start;
  if (!at_operator(":")) start = expression();
  if (start && at_operator(",")) {  // x[1, 2]: the index is a tuple
    auto tuple = std::make_unique<ListExpression>();
    tuple->tuple = true;
    tuple->height = start->height + 1;
    tuple->items.push_back(std::move(start));
    while (skip_operator(",")) {
      tuple->items.push_back(expression());
      tuple->height = std::max(tuple->height, tuple->items.back()->height + 1);
    }
    expect_operator("]");
    return indexed(made(std::move(tuple), begun.line, {}));
  }
  if (start && skip_operator("]")) return indexed(std::move(start));
  expect_operator(":");
  auto node = std::make_unique<SliceExpression>();
  node->object = std::move(subject);
  node->start = std::move(start);
  if (!at_operator(":") && !at_operator("]")) node->stop = expression();
  if (skip_operator(":") && !at_operator("]")) node->step = expression();
  expect_operator("]");
  const Expression *a = node->object.get(), *b = node->start.get(), *c = node->stop.get(), *d = node->step.get();
  return made(std::move(node), begun.line, {a, b, c, d});
}

ExpressionPtr Parser::call(ExpressionPtr callee) {
  auto node = std::make_unique<CallExpression>();
  const int line = token().line;
  node->callee = std::move(callee);
  node->arguments = call_arguments();
  node->height = height_of(node->arguments) + 1;
  const Expression* inner = node->callee.get();
  return made(std::move(node), line, {inner});
}

std::unique_ptr<const FilterExpression> Parser::filter(ExpressionPtr subject) {
  auto node = std::make_unique<FilterExpression>();
  const int line = token().line;
  node->name = expect_name();
  while (skip_operator(".")) node->name += concat(".", expect_name());
  node->filter = find_filter(node->name);
  if (node->filter == nullptr && conditional_ == 0) fail_here(concat("there is no filter named '", node->name, "'"), line);
  node->subject = std::move(subject);
  if (at_operator("(")) node->arguments = call_arguments();
  node->height = height_of(node->arguments) + 1;
  const Expression* inner = node->subject.get();
  return made(std::move(node), line, {inner});
}

ExpressionPtr Parser::test(ExpressionPtr subject) {
  const int line = take().line;
  const bool negated = skip_name("not");
  auto node = std::make_unique<TestExpression>();
  node->name = expect_name();
  while (skip_operator(".")) node->name += concat(".", expect_name());
  node->test = find_test(node->name);
  if (node->test == nullptr && conditional_ == 0) fail_here(concat("there is no test named '", node->name, "'"), line);
  node->subject = std::move(subject);
  if (at_operator("(")) {
    node->arguments = call_arguments();
  } else if ((at(TokenKind::kName) && !at_name("else") && !at_name("or") && !at_name("and")) || at(TokenKind::kText) ||
             at(TokenKind::kInteger) || at(TokenKind::kFloat) || at_operator("[") || at_operator("{")) {
    if (at_name("is")) fail_here("tests cannot be chained with 'is'");
    node->arguments.positional.push_back(postfix(primary()));  // x is divisibleby 3
  }
  node->height = height_of(node->arguments) + 1;
  const Expression* inner = node->subject.get();
  ExpressionPtr whole = made(std::move(node), line, {inner});
  if (!negated) return whole;
  auto negation = std::make_unique<NotExpression>();
  negation->operand = std::move(whole);
  inner = negation->operand.get();
  return made(std::move(negation), line, {inner});
}

CallArguments Parser::call_arguments() {
  const Level level(*this);
  const int line = token().line;
  CallArguments arguments;
  expect_operator("(");
  const auto only_if = [&](bool allowed) {
    if (!allowed) fail_here("the arguments of a call are in the wrong order", line);
  };
  for (int count = 1; !at_operator(")"); ++count) {
    if (count > kMaxArguments) fail_here(concat("a call has more than ", kMaxArguments, " arguments"), line);
    if (skip_operator("*")) {
      only_if(!arguments.spread && !arguments.spread_named);
      arguments.spread = expression();
    } else if (skip_operator("**")) {
      only_if(!arguments.spread_named);
      arguments.spread_named = expression();
    } else if (at(TokenKind::kName) && look().kind == TokenKind::kOperator && look().text == "=") {
      only_if(!arguments.spread_named);
      std::string name = take().text;
      take();
      for (const auto& [given, value] : arguments.named) {
        if (given == name) fail_here(concat("the argument '", name, "' is given twice"), line);
      }
      arguments.named.emplace_back(std::move(name), expression());
    } else {
      only_if(!arguments.spread && !arguments.spread_named && arguments.named.empty());
      arguments.positional.push_back(expression());
    }
    if (!skip_operator(",")) break;
  }
  expect_operator(")");
  return arguments;
}

}  // namespace invar::jinja
