#!/usr/bin/env bash
# Starts `invar serve` on the demo model and lets OpenAI's Python client (from PyPI) judge it.
#   openai_client_test.sh INVAR FOLDER_FOR_THE_CLIENT
# Skipped, with a message, only where PyPI cannot be reached.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
invar=$1
venv=$2
work=$(mktemp -d)
server=
trap '[[ -z $server ]] || kill -9 "$server" 2>/dev/null; wait 2>/dev/null; rm -rf "$work"' EXIT

if ! "$venv/bin/python" -c 'import openai' 2>/dev/null; then
  rm -rf "$venv"
  python3 -m venv "$venv" || { echo "FAILED: python3 -m venv (Debian: python3-venv)"; exit 1; }
  if ! "$venv/bin/pip" --disable-pip-version-check --no-input install --retries 2 --timeout 20 'openai>=1.40,<4' >"$work/pip" 2>&1; then
    cat "$work/pip"
    grep -qiE 'connection|timed out|resol|unreachable|proxy' "$work/pip" && { echo "skipped: PyPI cannot be reached"; exit 77; }
    echo "FAILED: the client cannot be installed"
    exit 1
  fi
fi

"$invar" serve --port 0 --grpc-port 0 --threads 1 --num-gpu-blocks-override 1024 --served-model-name demo --api-key judge-key 2>"$work/log" &
server=$!
for _ in $(seq 600); do
  grep -q 'serving .* (HTTP)' "$work/log" && break
  kill -0 "$server" 2>/dev/null || break
  sleep 0.1
done
http=$(sed -nE 's/.*serving .* and (\S+) \(HTTP\).*/\1/p' "$work/log")
[[ -n $http ]] || { echo "FAILED: the server did not come up"; cat "$work/log"; exit 1; }
timeout 200 "$venv/bin/python" "$here/openai_client.py" "http://$http/v1" judge-key demo || { tail -20 "$work/log"; exit 1; }
kill -TERM "$server"
wait "$server" || { echo "FAILED: the server's exit code is $?"; exit 1; }
server=
