#!/usr/bin/env bash
# The determinism procedures of others (batch_invariance.py) against `invar serve`; and against one that breaks the contract on purpose,
# where they must see it.
#   batch_invariance_test.sh INVAR
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
invar=$1
work=$(mktemp -d)
# shellcheck source=../support/serve.sh
source "$here/../support/serve.sh"
trap '[[ -z $server ]] || kill -9 "$server" 2>/dev/null; wait 2>/dev/null; rm -rf "$work"' EXIT

start_server --tp 2 --threads 1 --num-gpu-blocks-override 4096
python3 "$here/batch_invariance.py" "http://$http" --trials 50 || { echo "FAILED: answers differ"; exit 1; }
end_server || exit 1

start_server --threads 1 --num-gpu-blocks-override 4096 --control-arm fixed-split-count
for procedure in single mixed prefix radix needle logprobs thousand; do
  if python3 "$here/batch_invariance.py" "http://$http" "$procedure" --trials 10 --completions 40 --thousand-tokens 400 >"$work/out"; then
    echo "FAILED: the procedure '$procedure' does not notice split counts that depend on the batch"
    cat "$work/out"
    exit 1
  fi
done
end_server || exit 1
echo "one answer each; the control arm differs in every procedure"
