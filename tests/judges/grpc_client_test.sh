#!/usr/bin/env bash
# gRPC clients from PyPI judge `invar serve`: grpcio, which learns from reflection alone what there is; the stubs that
# gateways for vLLM use; and such a gateway (smg), which answers over HTTP with Invar behind it.
#   grpc_client_test.sh INVAR FOLDER_FOR_THE_CLIENTS
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

pypi "$venv" 'grpc_reflection, grpc_health, smg_grpc_proto, smg' 'grpcio-reflection>=1.60,<2' 'grpcio-health-checking>=1.60,<2' 'smg-grpc-proto>=0.4.28,<0.5' 'smg>=1.13,<1.14'
start_server --threads 1 --num-gpu-blocks-override 1024 --served-model-name demo
timeout 200 "$venv/bin/python" "$here/grpc_client.py" "$grpc" "$http" "$server" || { tail -20 "$work/log"; exit 1; }
wait "$server"  # the judge told it to end
code=$?
server=
((code == 0)) || { echo "FAILED: the server's exit code after the drain is $code"; tail -5 "$work/log"; exit 1; }

timeout 200 "$venv/bin/python" "$here/vllm_grpc_client.py" "$invar" --gateway >"$work/out" 2>&1 || { grep -v '^ok ' "$work/out"; exit 1; }
tail -1 "$work/out"
