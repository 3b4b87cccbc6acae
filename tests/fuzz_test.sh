#!/usr/bin/env bash
# A short libFuzzer run over everything that reads untrusted bytes: safetensors headers, config.json, tokenizer.json, chat templates, schemas, regular
# expressions and grammars, HTTP bodies and the bytes of HTTP connections.
#   fuzz_test.sh SOURCE_FOLDER BUILD_FOLDER [SECONDS_EACH]
set -euo pipefail
source=$1
folder=$2
seconds=${3:-20}
command -v clang++ >/dev/null || { echo "skipped: no clang++"; exit 77; }
cmake -S "$source" -B "$folder" -G Ninja -DCMAKE_CXX_COMPILER=clang++ -DCMAKE_C_COMPILER=clang -DINVAR_FUZZERS=ON -DINVAR_TESTS=OFF \
  -DINVAR_BENCHES=OFF -DINVAR_CUDA=OFF -DCMAKE_CXX_FLAGS_RELEASE=-O1 >"$folder.log" 2>&1 || { cat "$folder.log"; exit 1; }
ninja -C "$folder" runtime_config_fuzz runtime_grammar_fuzz runtime_safetensors_fuzz runtime_tokenizer_fuzz runtime_chat_template_fuzz \
  runtime_tool_call_fuzz rpc_http_body_fuzz rpc_http_connection_fuzz >"$folder.log" 2>&1 || { tail -40 "$folder.log"; exit 1; }
run() {  # run PROGRAM SEED_FILE...
  local program=$1 corpus
  shift
  corpus=$(mktemp -d)
  (($#)) && cp "$@" "$corpus/"
  echo "== ${program##*/}"
  "$program" "$corpus" -max_total_time="$seconds" -timeout=30 -rss_limit_mb=3000 -print_final_stats=1 >"$folder.log" 2>&1 || { tail -40 "$folder.log"; exit 1; }
  grep -E 'stat::number_of_executed_units' "$folder.log"
  rm -rf "$corpus"
}
run "$folder/runtime/model_config/runtime_config_fuzz" "$source/configs/models/demo-moe/config.json"
head -c 20000 "$source/configs/models/demo-moe/model.safetensors" >"$folder/seed.safetensors"
run "$folder/runtime/weights/runtime_safetensors_fuzz" "$folder/seed.safetensors"
run "$folder/runtime/tokenizer/runtime_tokenizer_fuzz"
run "$folder/runtime/grammar/runtime_grammar_fuzz"
run "$folder/runtime/chat_template/runtime_chat_template_fuzz"
run "$folder/runtime/tool_call/runtime_tool_call_fuzz"
run "$folder/rpc/http/rpc_http_body_fuzz"
run "$folder/rpc/http/rpc_http_connection_fuzz"
