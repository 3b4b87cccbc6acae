#include "runtime/grammar/json_schema.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "nlohmann/json.hpp"
#include "runtime/grammar/json_disjoint.h"
#include "runtime/grammar/json_formats.h"
#include "runtime/grammar/json_number.h"
#include "runtime/grammar/json_pointer.h"
#include "runtime/grammar/json_text.h"
#include "runtime/grammar/regex.h"
#include "runtime/model_config/message.h"
#include "runtime/model_config/strict_json.h"

namespace invar::grammar {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kDeepest = 64;

// Say nothing about what is valid, or only where to find it.
const std::set<std::string, std::less<>> kAnnotations = {
    "title",    "description", "default", "examples",    "example",       "$schema",          "$comment",       "deprecated",
    "readOnly", "writeOnly",   "$defs",   "definitions", "discriminator", "contentMediaType", "contentEncoding"};
const std::set<std::string, std::less<>> kObjectWords = {"properties", "required", "additionalProperties"};
const std::set<std::string, std::less<>> kArrayWords = {"items", "prefixItems", "minItems", "maxItems", "uniqueItems"};
const std::set<std::string, std::less<>> kStringWords = {"minLength", "maxLength", "pattern", "format"};
const std::set<std::string, std::less<>> kNumberWords = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"};

class Compiler {
 public:
  Compiler(const Json& root, int64_t reach) : root_(root), b_(reach), text_(b_) {}

  absl::StatusOr<Network> run() {
    const int32_t rule = b_.rule();
    value(root_, "#", 0, b_.start(rule), b_.end(rule));
    while (!work_.empty() && good()) {
      const Work w = work_.front();
      work_.pop_front();
      value(*w.schema, w.at, 0, b_.start(w.rule), b_.end(w.rule));
    }
    if (!status_.ok()) return status_;
    return b_.build(rule);
  }

 private:
  struct Work {
    const Json* schema;
    std::string at;
    int32_t rule;
  };

  bool good() const { return status_.ok() && !b_.full(); }
  template <class... Parts>
  void fail(std::string_view at, const Parts&... parts) {
    if (status_.ok()) status_ = absl::InvalidArgumentError(message("at ", at, ": ", parts...));
  }

  // A rule for a schema that may be used in several places, or inside of itself. Its body is made later.
  int32_t rule_of(const Json& schema, const std::string& at) {
    const auto [found, added] = rules_.try_emplace(&schema, 0);
    if (added) {
      found->second = b_.rule();
      work_.push_back({&schema, at, found->second});
    }
    return found->second;
  }

  // Schemas inside of others become rules of their own, so that their states are shared and their masks too; small ones do not.
  void nested(const Json& schema, const std::string& at, int32_t from, int32_t to) {
    if (schema.is_boolean() || (schema.is_object() && schema.empty())) return value(schema, at, 0, from, to);
    b_.call(from, rule_of(schema, at), to);
  }

  void value(const Json& s, const std::string& at, int depth, int32_t from, int32_t to) {
    if (!good()) return;
    if (depth > kDeepest) return fail(at, "schemas nested deeper than ", kDeepest);
    if (s.is_boolean()) {
      if (!s.get<bool>()) return fail(at, "the schema false is satisfied by nothing");
      return b_.call(from, text_.any_value(), to);
    }
    if (!s.is_object()) return fail(at, "a schema must be an object or a boolean, not ", s.type_name());
    check_words(s, at);
    if (!good()) return;
    if (s.contains("$ref")) return reference(s, at, from, to);
    if (s.contains("const")) {
      alone(s, at, "const", true);
      const Json& v = s["const"];
      if (!type_allows(s, v)) return fail(below(at, "const"), "is not of the type that the schema wants");
      return constants({v}, from, to);
    }
    if (s.contains("enum")) return enumeration(s, at, from, to);
    for (const char* word : {"anyOf", "oneOf", "allOf"})
      if (s.contains(word)) return combined(s, at, word, depth, from, to);
    for (const std::string& type : types_of(s, at)) of_type(s, at, type, from, to);
  }

  void check_words(const Json& s, const std::string& at) {
    static const std::set<std::string, std::less<>> others = {"type", "$ref", "const", "enum", "anyOf", "oneOf", "allOf"};
    for (const auto& [word, v] : s.items()) {
      if (kAnnotations.contains(word) || others.contains(word) || kObjectWords.contains(word) || kArrayWords.contains(word) ||
          kStringWords.contains(word) || kNumberWords.contains(word) || (word == "$id" && &s == &root_))
        continue;
      return fail(below(at, word), "the keyword ", show_text(word), " is not supported");
    }
  }

  // These keywords stand for a whole schema here; what stands beside them would have to be joined with it.
  void alone(const Json& s, const std::string& at, std::string_view word, bool with_type) {
    for (const auto& [other, v] : s.items())
      if (other != word && !kAnnotations.contains(other) && other != "$id" && !(with_type && other == "type"))
        return fail(below(at, other), "the keyword ", show_text(other), " beside ", word, " is not supported");
  }

  void reference(const Json& s, const std::string& at, int32_t from, int32_t to) {
    alone(s, at, "$ref", false);
    if (!s["$ref"].is_string()) return fail(below(at, "$ref"), "must be a string");
    const std::string ref = s["$ref"];
    const Json* target = resolve_pointer(root_, ref);
    if (!target)
      return fail(below(at, "$ref"), show_text(ref),
                  ref.starts_with('#') ? " is not in the schema" : " is not inside the schema, which is not supported");
    b_.call(from, rule_of(*target, ref), to);
  }

  bool type_allows(const Json& s, const Json& v) {
    if (!s.contains("type")) return true;
    const auto matches = [&](const Json& type) {
      if (!type.is_string()) return false;
      const std::string name = type;
      if (name == "number") return v.is_number();
      if (name == "integer")
        return v.is_number_integer() || (v.is_number_float() && v.get<double>() == std::floor(v.get<double>()));
      return name == std::string(v.type_name());
    };
    const Json& type = s["type"];
    return type.is_array() ? std::any_of(type.begin(), type.end(), matches) : matches(type);
  }

  void enumeration(const Json& s, const std::string& at, int32_t from, int32_t to) {
    alone(s, at, "enum", true);
    const Json& list = s["enum"];
    if (!list.is_array() || list.empty()) return fail(below(at, "enum"), "must be a list with at least one value");
    std::vector<Json> values;
    for (const Json& v : list)
      if (type_allows(s, v)) values.push_back(v);
    if (values.empty()) return fail(below(at, "enum"), "no value has the type that the schema wants");
    constants(values, from, to);
  }

  void constants(const std::vector<Json>& values, int32_t from, int32_t to) {
    std::vector<std::string> texts;
    for (const Json& v : values) {
      if (v.is_structured()) {
        const int32_t begin = b_.state();
        b_.epsilon(from, begin);
        constant(v, begin, to);
      } else {
        texts.push_back(v.is_string() ? json_spelling(v.get<std::string>()) : v.dump());
      }
    }
    const int32_t begin = b_.state();
    b_.epsilon(from, begin);
    b_.literals(begin, texts, to);
  }

  void constant(const Json& v, int32_t from, int32_t to) {
    if (!good()) return;
    if (!v.is_structured()) return b_.literal(from, v.is_string() ? json_spelling(v.get<std::string>()) : v.dump(), to);
    int32_t at = b_.state();
    b_.edge(from, v.is_object() ? '{' : '[', v.is_object() ? '{' : '[', at);
    bool first = true;
    for (const auto& [key, child] : v.items()) {
      if (!std::exchange(first, false)) {
        const int32_t behind = b_.state();
        b_.edge(at, ',', ',', behind);
        at = behind;
      }
      at = spaced(at);
      if (v.is_object()) {
        const int32_t colon = b_.state(), behind = b_.state();
        b_.literal(at, json_spelling(key), colon);
        b_.edge(colon, ':', ':', behind);
        at = spaced(behind);
      }
      const int32_t behind = b_.state();
      constant(child, at, behind);
      at = behind;
    }
    b_.edge(spaced(at), v.is_object() ? '}' : ']', v.is_object() ? '}' : ']', to);
  }

  int32_t spaced(int32_t at) {
    const int32_t behind = b_.state();
    b_.call(at, text_.white_space(), behind);
    return behind;
  }

  void combined(const Json& s, const std::string& at, const std::string& word, int depth, int32_t from, int32_t to) {
    alone(s, at, word, false);
    const std::string here = below(at, word);
    const Json& list = s[word];
    if (!list.is_array() || list.empty()) return fail(here, "must be a list with at least one schema");
    if (word == "allOf" && list.size() > 1) return fail(here, "allOf with more than one schema is not supported");
    if (word == "oneOf")
      for (size_t j = 0; j < list.size() && good(); ++j)
        for (size_t i = 0; i < j; ++i)
          if (!disjoint_schemas(root_, list[i], list[j]))
            return fail(here, "a value may satisfy both schema ", i, " and schema ", j,
                        ": oneOf is supported where types, constants or a required property with different constants tell them "
                        "apart; use anyOf");
    for (size_t i = 0; i < list.size() && good(); ++i) {
      const int32_t begin = b_.state();
      b_.epsilon(from, begin);
      value(list[i], below(here, std::to_string(i)), depth + 1, begin, to);
    }
  }

  std::vector<std::string> types_of(const Json& s, const std::string& at) {
    static const std::set<std::string, std::less<>> known = {"null", "boolean", "object", "array", "number", "string", "integer"};
    std::vector<std::string> types;
    if (s.contains("type")) {
      const Json& type = s["type"];
      const Json list = type.is_array() ? type : Json::array({type});
      for (const Json& t : list) {
        if (!t.is_string() || !known.contains(t.get<std::string>()))
          fail(below(at, "type"), show_json(nlohmann::json(t)), " is not a type of JSON Schema");
        else
          types.push_back(t);
      }
      if (list.empty()) fail(below(at, "type"), "is empty");
      return types;
    }
    // Without a type, keywords say which one is meant; without those, anything is.
    const auto has = [&](const auto& words) {
      return std::any_of(words.begin(), words.end(), [&](const std::string& w) { return s.contains(w); });
    };
    if (has(kObjectWords)) types.push_back("object");
    if (has(kArrayWords)) types.push_back("array");
    if (has(kStringWords)) types.push_back("string");
    if (has(kNumberWords)) types.push_back("number");
    if (types.empty()) types = {"object", "array", "string", "number", "boolean", "null"};
    return types;
  }

  void of_type(const Json& s, const std::string& at, const std::string& type, int32_t from, int32_t to) {
    if (!good()) return;
    const int32_t begin = b_.state();
    b_.epsilon(from, begin);
    if (type == "null") return b_.literal(begin, "null", to);
    if (type == "boolean") return b_.literals(begin, {"true", "false"}, to);
    if (type == "object") return object(s, at, begin, to);
    if (type == "array") return array(s, at, begin, to);
    if (type == "string") return string(s, at, begin, to);
    return type == "integer" ? integer(s, at, begin, to) : number(s, at, begin, to);
  }

  // ---------------------------------------------------------------- objects

  struct Property {
    std::string name, at;
    const Json* schema;
    bool required;
  };

  void object(const Json& s, const std::string& at, int32_t from, int32_t to) {
    std::vector<Property> properties;
    if (s.contains("properties")) {
      if (!s["properties"].is_object()) return fail(below(at, "properties"), "must be an object");
      for (const auto& [name, schema] : s["properties"].items())
        properties.push_back({name, below(below(at, "properties"), name), &schema, false});
    }
    // A schema that lists its properties means these, unless it asks for more itself.
    const Json* additional = nullptr;
    if (s.contains("additionalProperties")) {
      const Json& a = s["additionalProperties"];
      if (!a.is_boolean() || a.get<bool>()) additional = &a;
    } else if (!s.contains("properties")) {
      additional = &anything_;
    }
    if (s.contains("required")) {
      const Json& required = s["required"];
      if (!required.is_array()) return fail(below(at, "required"), "must be a list of names");
      for (const Json& name : required) {
        if (!name.is_string()) return fail(below(at, "required"), "must be a list of names");
        const auto found = std::find_if(properties.begin(), properties.end(),
                                        [&](const Property& p) { return p.name == name.get<std::string>(); });
        if (found != properties.end()) {
          found->required = true;
        } else if (s.contains("additionalProperties") && !additional) {
          return fail(below(at, "required"), show_text(name.get<std::string>()),
                      " is no property, and additionalProperties is false");
        } else {
          properties.push_back({name, below(at, "required"), additional ? additional : &anything_, true});
        }
      }
    }
    if (properties.empty() && additional == &anything_) return b_.call(from, text_.any_object(), to);
    const int32_t open = b_.state(), close = b_.state();
    b_.edge(from, '{', '{', open);
    // Before property i: nothing is written yet, or something is.
    int32_t empty = spaced(open), some = b_.state();
    for (size_t i = 0; i < properties.size() && good(); ++i) {
      const Property& p = properties[i];
      const int32_t name = b_.state(), colon = b_.state(), behind = b_.state(), next_empty = b_.state(), next_some = b_.state();
      b_.epsilon(empty, name);
      comma(some, name);
      b_.literal(name, json_spelling(p.name), colon);
      b_.edge(colon, ':', ':', behind);
      nested(*p.schema, p.at, spaced(behind), next_some);
      if (!p.required) {
        b_.epsilon(empty, next_empty);
        b_.epsilon(some, next_some);
      }
      empty = next_empty;
      some = next_some;
    }
    if (additional && good()) {
      std::vector<std::string> names;
      for (const Property& p : properties) names.push_back(p.name);
      const int32_t rule = names.empty() ? text_.string() : text_.name_except(names);
      const int32_t name = b_.state(), colon = b_.state(), behind = b_.state();
      b_.epsilon(empty, name);
      comma(some, name);
      b_.call(name, rule, colon);
      b_.edge(colon, ':', ':', behind);
      nested(*additional, below(at, "additionalProperties"), spaced(behind), some);
    }
    b_.epsilon(empty, close);
    b_.epsilon(spaced(some), close);
    b_.edge(close, '}', '}', to);
  }

  void comma(int32_t from, int32_t to) {
    const int32_t behind = b_.state();
    b_.edge(from, ',', ',', behind);
    b_.call(behind, text_.white_space(), to);
  }

  // ---------------------------------------------------------------- arrays

  // A count of items or characters; `otherwise` if it is not there.
  int64_t count(const Json& s, const std::string& at, const char* word, int64_t otherwise) {
    if (!s.contains(word)) return otherwise;
    const Json& v = s[word];
    const bool whole = v.is_number_integer() || (v.is_number_float() && v.get<double>() == std::floor(v.get<double>()));
    if (!whole || v.get<double>() < 0) {
      fail(below(at, word), "must be a whole number of at least 0, not ", show_json(nlohmann::json(v)));
      return otherwise;
    }
    return static_cast<int64_t>(std::min(v.get<double>(), 1e9));
  }

  void array(const Json& s, const std::string& at, int32_t from, int32_t to) {
    if (s.contains("uniqueItems") && s["uniqueItems"] != Json(false))
      return fail(below(at, "uniqueItems"), "uniqueItems is not supported");
    std::vector<const Json*> prefix;
    if (s.contains("prefixItems")) {
      if (!s["prefixItems"].is_array()) return fail(below(at, "prefixItems"), "must be a list of schemas");
      for (const Json& item : s["prefixItems"]) prefix.push_back(&item);
    }
    const Json* items = prefix.empty() ? &anything_ : nullptr;  // as with properties: what is listed is meant
    if (s.contains("items")) {
      if (s["items"].is_array()) return fail(below(at, "items"), "a list of schemas is not supported here; use prefixItems");
      items = s["items"] == Json(false) ? nullptr : &s["items"];
    }
    const int64_t min = count(s, at, "minItems", 0);
    int64_t max = count(s, at, "maxItems", -1);
    const auto listed = static_cast<int64_t>(prefix.size());
    if (!items && (max < 0 || max > listed)) max = listed;
    if (!good()) return;
    if (max >= 0 && min > max) return fail(at, "no array has at least ", min, " and at most ", max, " items");
    if (items == &anything_ && prefix.empty() && min == 0 && max < 0) return b_.call(from, text_.any_array(), to);
    const int32_t open = b_.state(), close = b_.state(), end = b_.state();
    b_.edge(from, '[', '[', open);
    b_.call(end, text_.white_space(), close);
    b_.edge(close, ']', ']', to);
    int32_t here = spaced(open);
    if (min == 0) b_.epsilon(here, close);
    const int64_t copies = max >= 0 ? max : std::max({min, listed, int64_t{1}});
    for (int64_t i = 0; i < copies && good(); ++i) {
      const int32_t next = b_.state();
      int32_t item = here;
      if (i > 0) comma(here, item = b_.state());
      if (i < listed)
        nested(*prefix[i], below(below(at, "prefixItems"), std::to_string(i)), item, next);
      else
        nested(*items, below(at, "items"), item, next);
      if (i + 1 >= min) b_.epsilon(next, end);
      here = next;
    }
    if (max >= 0 || !good()) return;
    const int32_t item = b_.state(), next = b_.state();
    comma(here, item);
    nested(*items, below(at, "items"), item, next);
    b_.epsilon(next, here);
  }

  // ---------------------------------------------------------------- strings

  void string(const Json& s, const std::string& at, int32_t from, int32_t to) {
    const bool lengths = s.contains("minLength") || s.contains("maxLength"), pattern = s.contains("pattern"),
               format = s.contains("format");
    if (lengths + pattern + format > 1)
      return fail(below(at, pattern ? "pattern" : "format"), pattern ? "pattern" : "format", " beside ",
                  lengths ? "minLength or maxLength" : "format", " is not supported");
    if (lengths) {
      const int64_t min = count(s, at, "minLength", 0), max = count(s, at, "maxLength", -1);
      if (!good()) return;
      if (max >= 0 && min > max) return fail(at, "no string has at least ", min, " and at most ", max, " characters");
      const auto [found, added] = strings_.try_emplace({min, max}, 0);
      if (added) found->second = text_.string(min, max);
      return b_.call(from, found->second, to);
    }
    if (!pattern && !format) return b_.call(from, text_.string(), to);
    const char* word = pattern ? "pattern" : "format";
    if (!s[word].is_string()) return fail(below(at, word), "must be a string");
    std::string text = s[word];
    if (format) {
      const std::string_view known = json_format(text);
      if (known.empty())
        return fail(below(at, word), "the format ", show_text(text), " is not supported; these are: ", json_format_names());
      text = std::string(known);
    }
    const auto [found, added] = patterns_.try_emplace({text, pattern}, 0);
    if (added) {
      const absl::StatusOr<Regex> regex = parse_regex(text);
      if (!regex.ok()) return fail(below(at, word), regex.status().message());
      found->second = b_.rule();
      const int32_t open = b_.state(), close = b_.state();
      b_.edge(b_.start(found->second), '"', '"', open);
      add_regex(b_, JsonSpelling(), *regex, /*search=*/pattern, open, close);
      b_.edge(close, '"', '"', b_.end(found->second));
    }
    b_.call(from, found->second, to);
  }

  // ---------------------------------------------------------------- numbers

  bool bounded(const Json& s) const {
    return std::any_of(kNumberWords.begin(), kNumberWords.end(), [&](const std::string& w) { return s.contains(w); });
  }

  // The stronger of an including and an excluding bound. `sign` 1: lower bounds, -1: upper.
  std::optional<DecimalBound> bound(const Json& s, const std::string& at, const char* including, const char* excluding, int sign,
                                    double* as_double) {
    std::optional<DecimalBound> best;
    for (const char* word : {including, excluding}) {
      if (!s.contains(word)) continue;
      const Json& v = s[word];
      if (!v.is_number()) {
        fail(below(at, word), "must be a number, not ", show_json(nlohmann::json(v)));
        continue;
      }
      const std::optional<Decimal> d = decimal_of(v.dump());
      if (!d) {
        fail(below(at, word), show_json(nlohmann::json(v)), " is beyond what is supported");
        continue;
      }
      const double x = v.get<double>();
      if (best && sign * x < sign * *as_double) continue;
      if (best && x == *as_double && word == including) continue;
      best = DecimalBound{*d, word == excluding};
      *as_double = x;
    }
    return best;
  }

  void number(const Json& s, const std::string& at, int32_t from, int32_t to) {
    if (!bounded(s)) return b_.call(from, text_.number(), to);
    double low = 0, high = 0;
    const auto least = bound(s, at, "minimum", "exclusiveMinimum", 1, &low);
    const auto most = bound(s, at, "maximum", "exclusiveMaximum", -1, &high);
    if (!good()) return;
    if (least && most && (low > high || (low == high && (least->exclusive || most->exclusive))))
      return fail(at, "no number lies within the bounds");
    const int32_t rule = b_.rule();
    add_decimals(b_, b_.start(rule), least, most, b_.end(rule));
    b_.call(from, rule, to);
  }

  void integer(const Json& s, const std::string& at, int32_t from, int32_t to) {
    if (!bounded(s)) return b_.call(from, text_.integer(), to);
    int64_t least = INT64_MIN + 1, most = INT64_MAX;
    double unused = 0;
    const auto low = bound(s, at, "minimum", "exclusiveMinimum", 1, &unused);
    const auto high = bound(s, at, "maximum", "exclusiveMaximum", -1, &unused);
    if (!good()) return;
    if (low && !whole_bound(*low, 1, &least)) return fail(at, "no integer of 64 bits lies within the bounds");
    if (high && !whole_bound(*high, -1, &most)) return fail(at, "no integer of 64 bits lies within the bounds");
    if (least > most) return fail(at, "no integer lies within the bounds");
    const int32_t rule = b_.rule();
    add_integers(b_, b_.start(rule), least, most, b_.end(rule));
    b_.call(from, rule, to);
  }

  // The first integer within a bound, seen from outside; false if none of 64 bits is. A bound beyond 64 bits leaves `out` alone.
  static bool whole_bound(const DecimalBound& bound, int sign, int64_t* out) {
    const Decimal& d = bound.value;
    const bool fits = d.whole.size() < 19 || (d.whole.size() == 19 && d.whole <= "9223372036854775807");
    if (!fits) return d.negative == (sign > 0);
    int64_t x = std::stoll(d.whole);
    if (d.negative) x = -x;
    const bool outside = d.fraction.empty() ? bound.exclusive : d.negative != (sign > 0);
    // A positive number with a fraction is rounded down by its digits, a negative one up: towards zero.
    if (outside) {
      if (x == INT64_MAX && sign > 0) return false;
      x += sign;
    }
    *out = x;
    return true;
  }

  const Json& root_;
  const Json anything_ = Json(true);  // told apart from a schema that says so by its address
  NetworkBuilder b_;
  JsonText text_;
  std::map<const Json*, int32_t> rules_;
  std::map<std::pair<int64_t, int64_t>, int32_t> strings_;
  std::map<std::pair<std::string, bool>, int32_t> patterns_;
  std::deque<Work> work_;
  absl::Status status_;
};

}  // namespace

absl::StatusOr<Network> json_schema_network(std::string_view schema, int64_t reach) {
  const absl::StatusOr<nlohmann::json> sound = parse_strict_json(schema, kDeepest);
  if (!sound.ok()) return sound.status();
  const Json root = Json::parse(schema, nullptr, /*allow_exceptions=*/false);
  return Compiler(root, reach).run();
}

absl::StatusOr<Network> json_object_network(int64_t reach) {
  NetworkBuilder b(reach);
  JsonText text(b);
  return b.build(text.any_object());
}

}  // namespace invar::grammar
