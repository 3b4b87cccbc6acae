// Templates and variables that fuzzing begins with: every statement, many filters, the shapes that chats have.
#pragma once

#include <string>
#include <vector>

#include "nlohmann/json.hpp"

namespace invar::jinja {

inline const std::vector<std::string>& sample_templates() {
  static const std::vector<std::string> kSamples = {
      "{%- for message in messages %}\n  {{- '<|' + message['role'] + '|>\\n' + message.content | trim }}\n{%- else -%} none {% "
      "endfor %}",
      "{% set ns = namespace(n=0, s='') %}{% for m in messages[::-1] if m.role != 'tool' %}{% set ns.n = ns.n + loop.index0 * 2 "
      "%}{% set ns.s = "
      "m.role ~ ns.s %}{% if loop.last %}{{ ns.n }}{{ ns.s[1:-1] }}{% endif %}{% endfor %}",
      "{% macro f(a, b=[1, 2]) %}{{ a }}{{ b[0] }}{{ varargs }}{{ kwargs }}{% if a %}{{ f(a - 1) }}{% endif %}{% endmacro %}{{ "
      "f(3, 4, 5, x=6) }}",
      "{% macro box() %}[{{ caller('x') }}]{% endmacro %}{% call(y) box() %}{{ y * 3 }}{% endcall %}",
      "{% for k, v in tools[0].function.items() %}{{ k }}: {{ v | tojson(indent=2) }}{% if not loop.last %}, {% endif %}{% "
      "endfor %}",
      "{% set x %}a{{ eos_token }}b{% endset %}{{ x | upper | replace('A', 'cc', 1) }}{% with y = x, z = 1 %}{{ y ~ z }}{% "
      "endwith %}",
      "{% filter upper | trim %} {# comment #} text {% raw %}{{ raw }}{% endraw %}{% endfilter %}",
      "{% for x in [[1, [2]], 3] recursive %}{{ loop(x) if x is iterable else x ~ loop.depth }}{% if x == 3 %}{% break %}{% "
      "endif %}{% endfor %}",
      "{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | join(', ') }}{{ messages | map('length') "
      "| list | sum }}",
      "{{ 'a,b c'.split(',') }}{{ 'x'.center(9, '*') }}{{ '%s-%05.2f' % ('a', 1.5) }}{{ '{:>8}|{0}'.format(1) }}{{ "
      "'aXbX'.rsplit('X', 1) }}",
      "{{ 7 // 2 ** 2 % -3 - 1.5e3 / 4 }}{{ 1 < 2 <= 3 != 4 }}{{ not true and 'a' in 'abc' or none is none }}{{ {'a': (1,), 2: "
      "[true]} }}",
      "{{ range(9, 0, -2) | batch(2, 'x') | list }}{{ messages | sort(attribute='role,content') | first }}{{ 'a b' | title | "
      "indent(2, true) }}",
      "{% if messages[0].role == 'system' %}{% generation %}{{ messages[0].content }}{% endgeneration %}{% elif tools %}t{% else "
      "%}{{ "
      "raise_exception('no ' ~ eos_token) }}{% endif %}{{ strftime_now('%d %b %Y') }}",
      "{% for m in messages %}{{ loop.previtem.role if not loop.first }}{{ loop.cycle('a', 'b') }}{{ loop.changed(m.role) }}{{ "
      "loop.revindex }}{% "
      "endfor %}{% set c = cycler(1, 2) %}{{ c.next() }}{% set j = joiner() %}{{ j() }}{{ j() }}",
  };
  return kSamples;
}

inline nlohmann::ordered_json sample_variables() {
  return nlohmann::ordered_json::parse(R"({
    "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": " Hällo <b> 🐎 \n"},
                 {"role": "assistant", "content": null, "tool_calls": [{"function": {"name": "f", "arguments": {"x": [1, 2.5, true]}}}]},
                 {"role": "tool", "content": "{\"a\": 1}"}, {"role": "user", "content": [{"type": "text", "text": "x"}]}],
    "tools": [{"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {}}}}],
    "bos_token": "<s>", "eos_token": "</s>", "add_generation_prompt": true, "n": 3, "e": [], "x": -1.5})");
}

}  // namespace invar::jinja
