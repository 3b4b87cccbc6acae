#include "runtime/chat_template/parser.h"

namespace invar::jinja {

Template parse_template(std::string_view source) { return Parser(tokenize(source)).run(); }

Template Parser::run() {
  template_.body = statements({});
  return std::move(template_);
}

Parser::Level::Level(Parser& parser) : parser(parser) {
  if (++parser.level_ > kMaxTreeDepth) {
    --parser.level_;
    parser.fail_here(concat("nested deeper than ", kMaxTreeDepth, " levels"));
  }
}

Token Parser::take() {
  Token taken = tokens_[at_];
  if (at_ + 1 < tokens_.size()) ++at_;
  return taken;
}

bool Parser::skip_operator(std::string_view text) { return at_operator(text) && (take(), true); }
bool Parser::skip_name(std::string_view text) { return at_name(text) && (take(), true); }

void Parser::expect_operator(std::string_view text) {
  if (!skip_operator(text)) fail_unexpected(concat("'", text, "'"));
}

std::string Parser::expect_name() {
  if (!at(TokenKind::kName)) fail_unexpected("a name");
  return take().text;
}

void Parser::expect_block_end() {
  if (!at(TokenKind::kBlockEnd)) fail_unexpected("the end of the block");
  take();
}

void Parser::fail_here(const std::string& message, int line) const {
  throw Failure(absl::StatusCode::kInvalidArgument, message, line > 0 ? line : token().line);
}

void Parser::fail_unexpected(std::string_view wanted) const {
  fail_here(concat("unexpected ", describe(token()), ", expected ", wanted));
}

Symbol Parser::symbol(const std::string& name) {
  const auto [at, fresh] = template_.symbols.try_emplace(name, static_cast<Symbol>(template_.names.size()));
  if (fresh) template_.names.push_back(name);
  return at->second;
}

void Parser::note_use(const std::string& name) {
  if (name == "loop") {
    for (bool* uses : open_loops_) *uses = true;
  }
  for (MacroCode* macro : open_macros_) {
    macro->uses_caller |= name == "caller";
    macro->uses_varargs |= name == "varargs";
    macro->uses_kwargs |= name == "kwargs";
  }
}

int Parser::height_of(const CallArguments& arguments) {
  int height = 0;
  for (const auto& e : arguments.positional) height = std::max(height, e->height);
  for (const auto& [name, e] : arguments.named) height = std::max(height, e->height);
  if (arguments.spread) height = std::max(height, arguments.spread->height);
  if (arguments.spread_named) height = std::max(height, arguments.spread_named->height);
  return height;
}

}  // namespace invar::jinja
