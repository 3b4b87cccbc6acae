#!/usr/bin/env bash
# The engine under mpirun with 1 to 8 ranks: the same bits as threads in one process.
#   mpi_layouts_test.sh INVAR
set -uo pipefail
invar=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# shellcheck source=support/mpi_runs.sh
source "$(dirname "$0")/support/mpi_runs.sh"
cat >"$work/requests.jsonl" <<'JSON'
{"prompt": "once upon a time", "sampling_params": {"temperature": 0, "max_tokens": 12}}
{"prompt": "It is a truth universally acknowledged, that a single man in possession of a good fortune", "sampling_params": {"temperature": 0, "max_tokens": 8, "logprobs": 2}}
{"prompt": "tom and his dog", "sampling_params": {"temperature": 0.9, "seed": 3, "max_tokens": 12, "n": 2}}
{"prompt": "one day, a little girl named lily", "sampling_params": {"temperature": 0, "max_tokens": 48}}
{"prompt": "In the beginning", "sampling_params": {"temperature": 1.0, "seed": 42, "max_tokens": 48}}
JSON
for model in demo-moe demo-dense; do
  common=(generate --model "$(dirname "$0")/../configs/models/$model" --input "$work/requests.jsonl" --threads 1 --num-gpu-blocks-override 128)
  "$invar" "${common[@]}" >"$work/one" || exit 1
  [[ $(wc -l <"$work/one") == 5 ]] || { echo "no five answers"; exit 1; }
  reference=$(digest "$work/one")
  try 1 equal --tp 1
  for tp in 2 3 4 5 6 7 8; do try "$tp" equal --tp "$tp"; done
  try 3 equal --pp 3
  try 6 equal --tp 3 --pp 2 --long-prefill-token-threshold 7
  if [[ $model == demo-moe ]]; then
    try 3 equal --ep 3
    try 8 equal --tp 2 --pp 2 --ep 2
  fi
  # Rounding to bf16 hides the order of most sums; on these tokens it shows in the dense model.
  [[ $model == demo-moe ]] || try 8 different --tp 8 --control-arm rank-order-all-reduce
done
# A server that starts its ranks itself: every flag it hands on must be one that a worker takes.
"$invar" serve --grpc-uds "$work/socket" --transport mpi --tp 2 --model "$(dirname "$0")/../configs/models/demo-moe" --threads 1 \
  >"$work/serve" 2>&1 &
server=$!
if timeout 100 "$invar" complete --grpc-uds "$work/socket" --wait 60 --input "$work/requests.jsonl" >"$work/served" 2>"$work/err" &&
  [[ $(wc -l <"$work/served") == 5 ]]; then
  echo "serve with ranks of its own answers"
else
  echo "  FAILED: serve with ranks of its own gave no five answers"
  cat "$work/err" "$work/serve" | head -20
  failures=$((failures + 1))
fi
kill "$server" 2>/dev/null
wait "$server"
((failures == 0)) || { echo "$failures runs failed"; exit 1; }
