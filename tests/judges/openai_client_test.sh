#!/usr/bin/env bash
# Starts `invar serve` on the demo model and lets OpenAI's Python client (from PyPI) judge it.
#   openai_client_test.sh INVAR FOLDER_FOR_THE_CLIENT
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
invar=$1
venv=$2
work=$(mktemp -d)
# shellcheck source=../support/serve.sh
source "$here/../support/serve.sh"
# shellcheck source=../support/pypi.sh
source "$here/../support/pypi.sh"
trap '[[ -z $server ]] || kill -9 "$server" 2>/dev/null; wait 2>/dev/null; rm -rf "$work"' EXIT

pypi "$venv" openai 'openai>=1.40,<4'
start_server --threads 1 --num-gpu-blocks-override 1024 --served-model-name demo --api-key judge-key
timeout 200 "$venv/bin/python" "$here/openai_client.py" "http://$http/v1" judge-key demo || { tail -20 "$work/log"; exit 1; }
end_server
