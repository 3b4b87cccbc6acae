#include "runtime/grammar/ebnf.h"

#include <algorithm>
#include <iterator>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "runtime/grammar/ebnf_parser.h"
#include "runtime/model_config/message.h"

namespace invar::grammar {
namespace {

using Kind = EbnfNode::Kind;

// Rules of this size are written out where they are used (in all, up to so many
// states). A loop over characters that calls a rule for each of them would
// otherwise be asked anew wherever the loop stands: see Automaton::groups.
constexpr int64_t kSmall = 200;
constexpr int32_t kMostWrittenOut = 50'000;

template <class Visit>
void visit_rules(const EbnfNode &node, const Visit &visit) {
  if (node.kind == Kind::kRule) visit(node.rule);
  for (const EbnfNode &part : node.parts) visit_rules(part, visit);
}

bool calls_itself_first(const EbnfNode &node, int32_t rule) {
  if (node.kind == Kind::kRule) return node.rule == rule;
  return node.kind == Kind::kSequence && !node.parts.empty() && node.parts[0].kind == Kind::kRule && node.parts[0].rule == rule;
}

// expr ::= expr "+" term | term is term ("+" term)*. What begins with itself in
// another way is refused when the network is built.
absl::Status without_left_recursion(EbnfRule *rule, int32_t index) {
  std::vector<EbnfNode> alternatives;
  if (rule->body.kind == Kind::kChoice) {
    alternatives = std::move(rule->body.parts);
  } else {
    alternatives.push_back(std::move(rule->body));
  }
  EbnfNode first{.kind = Kind::kChoice}, more{.kind = Kind::kChoice};
  bool any = false;
  for (EbnfNode &a : alternatives) {
    if (!calls_itself_first(a, index)) {
      first.parts.push_back(std::move(a));
      continue;
    }
    any = true;
    if (a.kind == Kind::kRule) continue;  // nothing but itself
    a.parts.erase(a.parts.begin());
    more.parts.push_back(std::move(a));
  }
  if (!any) {
    rule->body = first.parts.size() == 1 ? EbnfNode(std::move(first.parts[0])) : std::move(first);
    return absl::OkStatus();
  }
  if (first.parts.empty())
    return absl::InvalidArgumentError(message("rule ", rule->name,
                                              " refers to itself without anything in between, so that no "
                                              "text would ever begin"));
  EbnfNode body;
  body.parts.push_back(std::move(first));
  if (!more.parts.empty()) {
    EbnfNode repeat{.kind = Kind::kRepeat};
    repeat.parts.push_back(std::move(more));
    body.parts.push_back(std::move(repeat));
  }
  rule->body = std::move(body);
  return absl::OkStatus();
}

// What tells two parts of a grammar apart.
void append_key(const EbnfNode &node, std::string *key) {
  *key +=
      message(static_cast<int>(node.kind), ",", node.rule, ",", node.min, ",", node.max, ",", node.text.size(), ":", node.text);
  for (const CodePointRange &r : node.characters.ranges())
    *key += message(static_cast<uint32_t>(r.first), "-", static_cast<uint32_t>(r.last), ",");
  *key += "(";
  for (const EbnfNode &part : node.parts) append_key(part, key);
  *key += ")";
}

// "(" expr ")" | "(" expr "," expr ")" is "(" expr (")" | "," expr ")"): fewer places in every bracket.
void share_beginnings(EbnfNode *node) {
  for (EbnfNode &part : node->parts) share_beginnings(&part);
  if (node->kind != Kind::kChoice) return;
  std::vector<EbnfNode> merged;
  std::vector<std::vector<EbnfNode>> rests;  // of each of them; empty = it stands as it was
  std::unordered_map<std::string, size_t> with;
  const auto behind_first = [](EbnfNode &sequence) {
    EbnfNode rest;
    rest.parts.assign(std::make_move_iterator(sequence.parts.begin() + 1), std::make_move_iterator(sequence.parts.end()));
    sequence.parts.resize(1);
    return rest.parts.size() == 1 ? EbnfNode(std::move(rest.parts[0])) : rest;
  };
  for (EbnfNode &a : node->parts) {
    std::string key;
    const bool sequence = a.kind == Kind::kSequence && !a.parts.empty();
    if (sequence) append_key(a.parts[0], &key);
    const auto [found, added] = sequence ? with.try_emplace(std::move(key), merged.size()) : std::pair(with.end(), true);
    if (added) {
      merged.push_back(std::move(a));
      rests.emplace_back();
      continue;
    }
    std::vector<EbnfNode> &rest = rests[found->second];
    if (rest.empty()) rest.push_back(behind_first(merged[found->second]));
    rest.push_back(behind_first(a));
  }
  for (size_t i = 0; i < merged.size(); ++i) {
    if (rests[i].empty()) continue;
    EbnfNode choice{.kind = Kind::kChoice};
    choice.parts = std::move(rests[i]);
    share_beginnings(&choice);
    merged[i].parts.push_back(std::move(choice));
  }
  node->parts = std::move(merged);
}

class Writer {
 public:
  Writer(const EbnfGrammar &grammar, int64_t reach) : rules_(grammar.rules), b_(reach), rule_of_(rules_.size(), -1) {
    find_small();
  }

  absl::StatusOr<Network> run(int32_t root) {
    rule_of(root);
    while (!todo_.empty() && !b_.full()) {
      const int32_t r = todo_.back();
      todo_.pop_back();
      add(rules_[r].body, b_.start(rule_of_[r]), b_.end(rule_of_[r]));
    }
    return b_.build(rule_of_[root]);
  }

 private:
  // Rules that reach no circle, from the ones that use no others upwards, with
  // what they would be written out.
  void find_small() {
    std::vector<std::vector<int32_t>> users(rules_.size());
    std::vector<int64_t> waits(rules_.size());
    std::vector<int32_t> ready;
    for (size_t r = 0; r < rules_.size(); ++r) {
      visit_rules(rules_[r].body, [&](int32_t used) {
        users[used].push_back(static_cast<int32_t>(r));
        ++waits[r];
      });
      if (waits[r] == 0) ready.push_back(static_cast<int32_t>(r));
    }
    size_.assign(rules_.size(), kSmall + 1);
    while (!ready.empty()) {
      const int32_t r = ready.back();
      ready.pop_back();
      size_[r] = size(rules_[r].body);
      for (const int32_t user : users[r])
        if (--waits[user] == 0) ready.push_back(user);
    }
  }

  int64_t size(const EbnfNode &node) const {
    int64_t all = 1 + static_cast<int64_t>(node.text.size());
    if (node.kind == Kind::kClass) all += static_cast<int64_t>(node.characters.ranges().size());
    if (node.kind == Kind::kRule) all += size_[node.rule] <= kSmall ? size_[node.rule] : 0;
    for (const EbnfNode &part : node.parts) all = std::min(all + size(part), 2 * kSmall);
    if (node.kind == Kind::kRepeat) all *= std::max<int64_t>({1, node.min, node.max});
    return std::min(all, 2 * kSmall);
  }

  int32_t rule_of(int32_t r) {
    if (rule_of_[r] < 0) {
      rule_of_[r] = b_.rule(rules_[r].name);
      todo_.push_back(r);
    }
    return rule_of_[r];
  }

  void add(const EbnfNode &node, int32_t from, int32_t to) {
    if (b_.full()) return;
    switch (node.kind) {
      case Kind::kText:
        return b_.literal(from, node.text, to);
      case Kind::kClass:
        return b_.sequences(from, utf8_sequences(node.characters), to);
      case Kind::kSequence:
        if (node.parts.empty()) return b_.epsilon(from, to);
        for (size_t i = 0; i < node.parts.size() && !b_.full(); ++i) {
          const int32_t next = i + 1 == node.parts.size() ? to : b_.state();
          add(node.parts[i], from, next);
          from = next;
        }
        return;
      case Kind::kChoice: {
        std::vector<std::string> texts;
        for (const EbnfNode &part : node.parts) {
          if (part.kind == Kind::kText) {
            texts.push_back(part.text);
            continue;
          }
          const int32_t begin = b_.state();  // its own: a loop inside must not lead into the others
          b_.epsilon(from, begin);
          add(part, begin, to);
        }
        if (texts.empty()) return;
        const int32_t begin = b_.state();
        b_.epsilon(from, begin);
        return b_.literals(begin, texts, to);
      }
      case Kind::kRepeat:
        return b_.repeat(from, node.min, node.max, may_be_empty(node.parts[0]), to,
                         [&](int32_t a, int32_t z) { add(node.parts[0], a, z); });
      case Kind::kRule:
        break;
    }
    // Decided once a rule: copies of a repetition must be alike.
    if (size_[node.rule] <= kSmall && b_.states() > kMostWrittenOut && rule_of_[node.rule] < 0 && !written_out_[node.rule])
      size_[node.rule] = kSmall + 1;
    if (size_[node.rule] > kSmall) return b_.call(from, rule_of(node.rule), to);
    written_out_[node.rule] = true;
    const int32_t begin = b_.state(), end = b_.state();
    b_.epsilon(from, begin);
    add(rules_[node.rule].body, begin, end);
    b_.epsilon(end, to);
  }

  // Or not known not to be.
  bool may_be_empty(const EbnfNode &node) const {
    switch (node.kind) {
      case Kind::kText:
        return node.text.empty();
      case Kind::kClass:
        return false;
      case Kind::kSequence:
        return std::all_of(node.parts.begin(), node.parts.end(), [&](const EbnfNode &p) { return may_be_empty(p); });
      case Kind::kChoice:
        return std::any_of(node.parts.begin(), node.parts.end(), [&](const EbnfNode &p) { return may_be_empty(p); });
      case Kind::kRepeat:
        return node.min == 0 || may_be_empty(node.parts[0]);
      case Kind::kRule:
        break;
    }
    return size_[node.rule] > kSmall || may_be_empty(rules_[node.rule].body);
  }

  const std::vector<EbnfRule> &rules_;
  NetworkBuilder b_;
  std::vector<int32_t> rule_of_;  // the network's; -1 = not called yet
  std::vector<int32_t> todo_;
  std::vector<int64_t> size_;  // written out, rules within included; more than kSmall: is called
  std::vector<bool> written_out_ = std::vector<bool>(rules_.size());
};

}  // namespace

absl::StatusOr<Network> ebnf_network(std::string_view text, int64_t reach) {
  absl::StatusOr<EbnfGrammar> grammar = parse_ebnf(text);
  if (!grammar.ok()) return grammar.status();
  for (size_t r = 0; r < grammar->rules.size(); ++r)
    if (absl::Status s = without_left_recursion(&grammar->rules[r], static_cast<int32_t>(r)); !s.ok()) return s;
  for (EbnfRule &rule : grammar->rules) share_beginnings(&rule.body);
  return Writer(*grammar, reach).run(grammar->root);
}

}  // namespace invar::grammar
