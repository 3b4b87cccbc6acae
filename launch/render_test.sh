#!/usr/bin/env bash
# invar render: prompts and errors, byte for byte.
#   render_test.sh INVAR
set -uo pipefail
invar=$1
models=$(cd "$(dirname "$0")/../configs/models" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0

# gives EXPECTED STDIN ARGUMENT...: the command writes exactly this (printf escapes) and ends well.
gives() {
  printf "$1" >"$work/wanted"
  printf '%s' "$2" | timeout 60 "$invar" render "${@:3}" >"$work/out" 2>"$work/err"
  if [[ $? != 0 ]] || ! cmp -s "$work/wanted" "$work/out"; then
    echo "FAILED: render ${*:3} < $2; wanted, got, errors:"
    cat "$work/wanted"; echo; cat "$work/out" "$work/err"
    failures=$((failures + 1))
  fi
}
# refuses CODE PATTERN STDIN ARGUMENT...
refuses() {
  local got
  printf '%s' "$3" | timeout 60 "$invar" render "${@:4}" >"$work/out" 2>"$work/err"
  got=$?
  if [[ $got != "$1" ]] || ! grep -qE "$2" "$work/err" || [[ -s $work/out ]]; then
    echo "FAILED: render ${*:4} < $3 -> exit code $got, wanted $1 and /$2/; said:"
    cat "$work/err"
    failures=$((failures + 1))
  fi
}

hello='[{"role": "user", "content": "Hello"}]'
for model in demo-moe demo-dense; do
  gives '<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n' "$hello" "$models/$model"
  gives '<|im_start|>user\nHello<|im_end|>\n' "$hello" "$models/$model" --no-generation-prompt
  gives '<|im_start|>user\nHello<|im_end|>\n' "{\"messages\": $hello, \"add_generation_prompt\": false}" "$models/$model"
done
cat >"$work/own.jinja" <<'TEMPLATE'
{{- eos_token ~ '|' ~ strftime_now('%d %B %Y') }}
{% for tool in tools or [] %}{{ tool | tojson }}{% endfor %}

{%- if style is defined %}[{{ style }}]{% endif %}
{%- if messages[0].role != 'user' %}{{ raise_exception('the first message must be the user\'s') }}{% endif %}
TEMPLATE
printf '[{"type": "function", "function": {"name": "f", "b": 1, "a": [1.0, null]}}]' >"$work/tools.json"
gives '<|endoftext|>|01 March 2025\n{"type": "function", "function": {"name": "f", "b": 1, "a": [1.0, null]}}[calm]' \
  "{\"messages\": $hello, \"chat_template_kwargs\": {\"style\": \"calm\"}}" "$models/demo-moe" --chat-template "$work/own.jinja" \
  --tools "$work/tools.json" --clock 2025-03-01T23:59:59Z
refuses 2 "the first message must be the user's" '[{"role": "system", "content": "x"}]' "$models/demo-moe" --chat-template "$work/own.jinja"
printf 'one\n{{ messages[0].content.nothing.more }}\n' >"$work/wrong.jinja"
refuses 2 'wrong.jinja, line 2.*nothing' "$hello" "$models/demo-moe" --chat-template "$work/wrong.jinja"
refuses 2 '2 \| \{\{ messages\[0\].content.nothing.more' "$hello" "$models/demo-moe" --chat-template "$work/wrong.jinja"
refuses 2 'not JSON at byte 2' '[}' "$models/demo-moe"
refuses 2 'messages' '{"message": []}' "$models/demo-moe"
refuses 2 'messages' '7' "$models/demo-moe"
refuses 2 'no/such/folder' "$hello" no/such/folder
refuses 2 'no/such.jinja' "$hello" "$models/demo-moe" --chat-template no/such.jinja
refuses 2 'clock yesterday' "$hello" "$models/demo-moe" --clock yesterday
mkdir "$work/bare"
refuses 2 'no chat template' "$hello" "$work/bare"
refuses 2 'no-tools.json' "$hello" "$models/demo-moe" --tools "$work/no-tools.json"

((failures == 0)) && echo "all prompts and errors as wanted" || { echo "$failures failed"; exit 1; }
