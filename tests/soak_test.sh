#!/usr/bin/env bash
# 10,000 requests of all manners against `invar serve`; see soak.py. The same with an engine whose answers depend on the company must fail.
#   soak_test.sh INVAR
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
invar=$1
work=$(mktemp -d)
# shellcheck source=support/serve.sh
source "$here/support/serve.sh"
trap '[[ -z $server ]] || kill -9 "$server" 2>/dev/null; wait 2>/dev/null; rm -rf "$work"' EXIT

start_server --tp 2 --threads 1 --num-gpu-blocks-override 2048 --max-queued-requests 1000
python3 "$here/soak.py" "http://$http" --pid "$server" || { tail -5 "$work/log"; exit 1; }
end_server || exit 1

start_server --threads 1 --num-gpu-blocks-override 2048 --control-arm fixed-split-count
if python3 "$here/soak.py" "http://$http" --pid "$server" --requests 600 --at-once 24 >"$work/out"; then
  echo "FAILED: answers that depend on the company went unnoticed"
  cat "$work/out"
  exit 1
fi
grep -q 'more than one digest' "$work/out" || { echo "FAILED: the control arm failed for another reason"; cat "$work/out"; exit 1; }
end_server || exit 1
