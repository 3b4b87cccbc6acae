#!/usr/bin/env bash
# Starts `invar serve` on the demo model and lets OpenAI's Python client (from PyPI) judge it.
#   openai_client_test.sh INVAR FOLDER_FOR_THE_CLIENT
# Skipped, with a message, only where PyPI cannot be reached.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
invar=$1
venv=$2
work=$(mktemp -d)
# shellcheck source=../support/serve.sh
source "$here/../support/serve.sh"
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

start_server --threads 1 --num-gpu-blocks-override 1024 --served-model-name demo --api-key judge-key
timeout 200 "$venv/bin/python" "$here/openai_client.py" "http://$http/v1" judge-key demo || { tail -20 "$work/log"; exit 1; }
end_server
