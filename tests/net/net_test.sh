#!/usr/bin/env bash
# Ranks on several hosts, over good and bad cables: the same bits as one rank in one process.
#   net_test.sh INVAR WIRE
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
invar=$1
wire=$2
agent=$here/rsh_namespace.sh
source "$here/hosts.sh"
require_namespaces
work=$(mktemp -d)
trap 'remove_hosts; rm -rf "$work"' EXIT

cat >"$work/requests.jsonl" <<'JSON'
{"prompt": "once upon a time", "sampling_params": {"temperature": 0, "max_tokens": 12}}
{"prompt": "In the beginning", "sampling_params": {"temperature": 1.0, "seed": 42, "max_tokens": 24, "n": 2}}
{"prompt": "It is a truth universally acknowledged", "sampling_params": {"temperature": 0, "max_tokens": 24}}
JSON
common=(generate --input "$work/requests.jsonl" --threads 1 --num-gpu-blocks-override 128)

# Token ids and logits hashes of all answers, as one digest.
digest() { grep -oE '"(token_ids|logits_hashes)":\[[^]]*\]' "$1" | sha256sum | cut -c1-16; }

"$invar" "${common[@]}" >"$work/one" || exit 1
[[ $(wc -l <"$work/one") == 3 ]] || { echo "the reference run gave no three answers"; exit 1; }
reference=$(digest "$work/one")
echo "one process: $reference"

failures=0
# try NAME HOSTS RANKS EXPECTED(equal|different) LAYOUT... [-- CABLE...]
try() {
  local name=$1 count=$2 ranks=$3 expected=$4 layout=() got status begin=$SECONDS
  shift 4
  while (($#)) && [[ $1 != -- ]]; do layout+=("$1"); shift; done
  (($#)) && shift
  make_hosts "$count" "$@" || { failures=$((failures + 1)); remove_hosts; return; }
  timeout 120 bash -c "$(declare -f on_hosts); hosts=(${hosts[*]}); agent=$agent; on_hosts \"\$@\"" _ \
    "$ranks" $(((ranks + count - 1) / count)) "$invar" "${common[@]}" --transport mpi "${layout[@]}" \
    <"$work/requests.jsonl" >"$work/out" 2>"$work/err"
  status=$?
  remove_hosts
  got=$(digest "$work/out")
  local verdict=equal
  [[ $got == "$reference" ]] || verdict=different
  printf '%-44s %s hosts, %s ranks, %2d s: %s %s\n' "$name" "$count" "$ranks" $((SECONDS - begin)) "$got" "$verdict"
  if ((status != 0)) || [[ $verdict != "$expected" ]]; then
    echo "  FAILED: exit code $status, expected $expected"
    head -20 "$work/err"
    failures=$((failures + 1))
  fi
}

try "TP 2, good cable"                     2 2 equal --tp 2
try "TP 4, good cable"                     2 4 equal --tp 4
try "TP 2 x PP 2, 1 ms delay, 0.5 ms jitter" 2 4 equal --tp 2 --pp 2 -- -d 1000 -j 500 -s 3
try "EP 4, four hosts, 1 ms delay"         4 4 equal --ep 4 -- -d 1000 -j 500 -s 4
try "TP 3, reordered, 0.5 % lost"          2 3 equal --tp 3 -- -d 500 -j 2000 -O -l 5000 -s 7
try "EP 2 x TP 2, four hosts, reordered, 0.5 % lost" 4 4 equal --ep 2 --tp 2 -- -d 500 -j 2000 -O -l 5000 -s 8
try "PP 4, four hosts, 100 Mbit/s"         4 4 equal --pp 4 -- -r 100
try "control: rank-order sum, TP 4"        2 4 different --tp 4 --control-arm rank-order-all-reduce
((failures == 0)) || { echo "$failures runs failed"; exit 1; }
