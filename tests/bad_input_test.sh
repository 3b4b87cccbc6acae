#!/usr/bin/env bash
# Bad input to the whole program: a clear error that names the field and the value, and a server that lives on.
#   bad_input_test.sh INVAR
set -uo pipefail
invar=$1
models=$(cd "$(dirname "$0")/../configs/models" && pwd)
work=$(mktemp -d)
server=
trap '[[ -z $server ]] || kill "$server" 2>/dev/null; wait; rm -rf "$work"' EXIT
failures=0

# refuses CODE PATTERN COMMAND...: the command ends with this exit code and says something like PATTERN.
refuses() {
  local code=$1 pattern=$2 got
  shift 2
  timeout 60 "$@" >"$work/out" 2>"$work/err" </dev/null
  got=$?
  if [[ $got != "$code" ]] || ! grep -qiE "$pattern" "$work/err"; then
    echo "FAILED: $* -> exit code $got, wanted $code and /$pattern/; said:"
    head -5 "$work/err"
    failures=$((failures + 1))
  fi
}
model_copy() {  # model_copy NAME: a copy of demo-moe to be spoilt
  mkdir -p "$work/$1"
  cp "$models/demo-moe/"*.json "$models/demo-moe/model.safetensors" "$work/$1/"
}
edit() { sed -i "$2" "$work/$1/config.json"; }
generate() { refuses "$1" "$2" "$invar" generate -p x --max-tokens 1 "${@:3}"; }

# Flags and layouts.
generate 2 'tp = 9|tensor.*9' --tp 9
generate 2 'pp = 5' --pp 5
generate 2 'ep = 9' --ep 9
generate 2 'ep = 2' --ep 2 --model "$models/demo-dense"
generate 2 'block-size 24' --block-size 24
generate 2 'max-model-len 99999' --max-model-len 99999
generate 2 'kv-cache-memory-bytes 1000' --kv-cache-memory-bytes 1000
generate 2 'no-such-flag' --no-such-flag
generate 2 'no/such/folder' --model no/such/folder
printf 'tp: 2\nno_such_key: 1\n' >"$work/config.yaml"
generate 2 'config.yaml:2.*no.such.key' --config "$work/config.yaml"
printf 'tp: [1\n' >"$work/broken.yaml"
generate 2 'broken.yaml' --config "$work/broken.yaml"

refuses 2 'uds.*excludes|excludes.*uds' "$invar" complete --uds a --grpc-uds b x
refuses 2 'excludes' "$invar" serve --grpc-uds a --grpc-port 1
refuses 2 'tool-call-parser: .*pythonic.*hermes' "$invar" serve --enable-auto-tool-choice --tool-call-parser pythonic
refuses 2 'enable-auto-tool-choice: needs --tool-call-parser' "$invar" serve --enable-auto-tool-choice

# --help of every command has an example of it.
mapfile -t commands < <("$invar" --help | sed -n '/^Subcommands:/,/^$/s/^  \([a-z]\+\) .*/\1/p')
((${#commands[@]} >= 12)) || { echo "FAILED: --help lists ${#commands[@]} commands"; failures=$((failures + 1)); }
for command in "${commands[@]}"; do
  "$invar" "$command" --help >"$work/help" || { echo "FAILED: invar $command --help"; failures=$((failures + 1)); }
  sed -n '/Example/,$p' "$work/help" | grep -q "invar $command" || { echo "FAILED: invar $command --help has no example"; failures=$((failures + 1)); }
done

# Model files.
model_copy truncated; truncate -s 5000000 "$work/truncated/model.safetensors"
generate 2 'model.safetensors' --model "$work/truncated"
model_copy lying; printf '\xff\xff\xff\xff\xff\xff\xff\x7f' | dd of="$work/lying/model.safetensors" conv=notrunc status=none
generate 2 'header' --model "$work/lying"
model_copy dtype; sed -i '0,/"BF16"/s//"BF17"/' "$work/dtype/model.safetensors"
generate 2 'BF17' --model "$work/dtype"
model_copy shape; sed -i '0,/\[2048,256\]/s//[2048,255]/' "$work/shape/model.safetensors"
generate 2 'lm_head|255' --model "$work/shape"
model_copy missing; sed -i '0,/lm_head.weight/s//lm_hexd.weight/' "$work/missing/model.safetensors"
generate 2 'lm_he' --model "$work/missing"
model_copy architecture; edit architecture 's/Qwen3MoeForCausalLM/MambaForCausalLM/'
generate 2 'MambaForCausalLM' --model "$work/architecture"
model_copy activation; edit activation 's/"silu"/"gelu"/'
generate 2 'hidden_act.*gelu' --model "$work/activation"
model_copy heads; edit heads 's/"num_key_value_heads": 2/"num_key_value_heads": 3/'
generate 2 'num_key_value_heads|num_attention_heads' --model "$work/heads"
model_copy nan
offset=$(($(od -An -tu8 -N8 "$work/nan/model.safetensors") + 8 + 2000))
printf '\xc0\x7f' | dd of="$work/nan/model.safetensors" bs=1 seek="$offset" conv=notrunc status=none
generate 2 'lm_head.weight.*(nan|finite)' --model "$work/nan"
model_copy tokenizer; printf '{"model": {"type": "WordPiece"}}' >"$work/tokenizer/tokenizer.json"
generate 2 'WordPiece|tokenizer' --model "$work/tokenizer"

# A server that lives on.
"$invar" serve --uds "$work/socket" --max-model-len 256 --num-gpu-blocks-override 64 2>"$work/log" &
server=$!
ask() {  # ask PATTERN JSON
  printf '%s\n' "$2" >"$work/request"
  timeout 60 "$invar" complete --uds "$work/socket" --wait 30 --input "$work/request" >"$work/out" 2>"$work/err"
  if [[ $? == 0 ]] || ! grep -qiE "$1" "$work/err"; then
    echo "FAILED: $2 -> wanted /$1/; said:"
    head -5 "$work/err" "$work/out"
    failures=$((failures + 1))
  fi
}
good() { timeout 60 "$invar" complete --uds "$work/socket" --wait 30 --temperature 0 --max-tokens 4 'once upon a time' 2>/dev/null; }
before=$(good)
[[ -n $before ]] || { echo "FAILED: no answer from the server"; cat "$work/log"; failures=$((failures + 1)); }
long=$(printf '5,%.0s' {1..300})
ask 'prompt.*300|300.*max_model_len' "{\"prompt_token_ids\": {\"ids\": [${long%,}]}}"
ask '2048' '{"prompt_token_ids": {"ids": [1, 2, 2048]}}'
ask '\-1' '{"prompt_token_ids": {"ids": [-1]}}'
ask 'prompt' '{"prompt": ""}'
ask 'prompt' '{}'
ask 'temperature' '{"prompt": "x", "sampling_params": {"temperature": -1}}'
ask 'temperature' '{"prompt": "x", "sampling_params": {"temperature": "NaN"}}'
ask 'top_p' '{"prompt": "x", "sampling_params": {"top_p": 1.5}}'
ask 'top_k' '{"prompt": "x", "sampling_params": {"top_k": -7}}'
ask 'min_p' '{"prompt": "x", "sampling_params": {"min_p": 2}}'
ask 'max_tokens' '{"prompt": "x", "sampling_params": {"max_tokens": 0}}'
ask ' n ?=|n must|\bn\b' '{"prompt": "x", "sampling_params": {"n": 100000}}'
ask 'logprobs' '{"prompt": "x", "sampling_params": {"logprobs": 100000}}'
ask 'repetition_penalty' '{"prompt": "x", "sampling_params": {"repetition_penalty": 0}}'
ask 'stop' '{"prompt": "x", "sampling_params": {"stop": [""]}}'
ask 'stop_token_ids' '{"prompt": "x", "sampling_params": {"stop_token_ids": [-5]}}'
after=$(good)
[[ -n $after && $before == "$after" ]] || { echo "FAILED: the server answers differently afterwards: '$before' '$after'"; failures=$((failures + 1)); }
kill -0 "$server" 2>/dev/null || { echo "FAILED: the server did not live on"; failures=$((failures + 1)); }

((failures == 0)) && echo "all refused, and the server lives on" || { echo "$failures failed"; exit 1; }
