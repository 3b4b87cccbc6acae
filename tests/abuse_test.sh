#!/usr/bin/env bash
# A hostile crowd at `invar serve`; see abuse.py.
#   abuse_test.sh INVAR
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
invar=$1
work=$(mktemp -d)
# shellcheck source=support/serve.sh
source "$here/support/serve.sh"
trap '[[ -z $server ]] || kill -9 "$server" 2>/dev/null; wait 2>/dev/null; rm -rf "$work"' EXIT

start_server --threads 1 --num-gpu-blocks-override 4096
python3 "$here/abuse.py" "http://$http" --pid "$server" || { grep -v 'http peer' "$work/log" | tail -20; exit 1; }
end_server
