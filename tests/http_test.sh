#!/usr/bin/env bash
# `invar serve` over HTTP, whole: the digests of HTTP, gRPC and `invar generate` are one, receipts hold on another layout, keys are
# wanted, and SIGTERM finishes what runs.
#   http_test.sh INVAR
set -uo pipefail
invar=$1
work=$(mktemp -d)
# shellcheck source=support/serve.sh
source "$(dirname "$0")/support/serve.sh"
trap '[[ -z $server ]] || kill -9 "$server" 2>/dev/null; wait 2>/dev/null; rm -rf "$work"' EXIT
failures=0
fail() { echo "FAILED: $*"; failures=$((failures + 1)); }
common=(--threads 1 --num-gpu-blocks-override 512)

ask() {  # ask METHOD PATH [BODY [HEADER]]: status line and headers to $work/head, body to $work/body
  local method=$1 path=$2 body=${3:-} header=${4:-X-Nothing: 1}
  exec 3<>"/dev/tcp/${http%:*}/${http##*:}" || return 1
  printf '%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n%s\r\nContent-Length: %d\r\n\r\n%s' \
    "$method" "$path" "$header" "${#body}" "$body" >&3
  cat <&3 >"$work/answer"
  exec 3>&-
  sed '/^\r$/,$d' "$work/answer" >"$work/head"
  sed '1,/^\r$/d' "$work/answer" >"$work/body"
}
status() { sed -n '1s/HTTP\/1.1 \([0-9]*\).*/\1/p' "$work/head"; }
digest() { grep -oE '"response_digest": ?"[0-9a-f]{64}"' "$1" | grep -oE '[0-9a-f]{64}' | tail -1; }

start_server "${common[@]}" --tp 2 --drain-timeout 120
"$invar" generate "${common[@]}" -p 'once upon a time' --max-tokens 24 >"$work/generated" || fail "invar generate"
wanted=$(digest "$work/generated")
[[ -n $wanted ]] || fail "no digest from invar generate"
"$invar" complete --server "$grpc" --temperature 0 --max-tokens 24 --json 'once upon a time' >"$work/completed" || fail "invar complete"
body='"prompt": "once upon a time", "temperature": 0, "max_tokens": 24'
same() { [[ $(status) == 200 && $(digest "$work/body") == "$wanted" ]] || { fail "$1: status $(status), digest $(digest "$work/body"), wanted $wanted"; cat "$work/body"; }; }
[[ $(digest "$work/completed") == "$wanted" ]] || fail "gRPC's digest is $(digest "$work/completed"), wanted $wanted"
ask POST /v1/completions "{$body}"; same /v1/completions
ask POST /v1/completions "{$body, \"stream\": true}"; same "/v1/completions, streamed"
grep -q 'data: \[DONE\]' "$work/body" || fail "no [DONE]"
ask POST /v1/completions "{$body, \"stream\": true, \"stream_options\": {\"include_usage\": true}}"; same "streamed with usage"
ask POST /generate '{"text": "once upon a time", "sampling_params": {"temperature": 0, "max_new_tokens": 24}}'; same /generate
ask POST /v1/completions "{${body/once/twice}}"
[[ $(status) == 200 && $(digest "$work/body") != "$wanted" ]] || fail "control: another prompt has the same digest"

# A chat is its template's text, tokenised once.
messages='"messages": [{"role": "user", "content": "tell me a story"}]'
ask POST /tokenize "{$messages}"
tokens=$(grep -oE '"tokens":\[[0-9,]*\]' "$work/body" | cut -d: -f2)
[[ -n $tokens ]] || { fail "/tokenize of a chat"; cat "$work/body"; }
ask POST /v1/chat/completions "{$messages, \"temperature\": 0, \"max_tokens\": 16}"
[[ $(status) == 200 ]] || { fail "chat"; cat "$work/body"; }
chat=$(digest "$work/body")
ask POST /v1/completions "{\"prompt\": $tokens, \"temperature\": 0, \"max_tokens\": 16}"
[[ $(digest "$work/body") == "$chat" ]] || fail "the chat's digest is $chat, of its tokens $(digest "$work/body")"

# Structured output: under OpenAI's name, vLLM's and SGLang's.
text() { sed -nE 's/.*"(text|content)":"(([^"\\]|\\.)*)".*/\2/p' "$work/body"; }
ask POST /v1/completions '{"prompt": "once upon a time", "max_tokens": 30, "seed": 1, "guided_choice": ["yes indeed", "never"]}'
[[ $(text) == "yes indeed" || $(text) == never ]] || { fail "guided_choice"; cat "$work/body"; }
ask POST /generate '{"text": "once upon a time", "sampling_params": {"max_new_tokens": 30, "regex": "[0-9]{3}-[a-c]+z"}}'
[[ $(text) =~ ^[0-9]{3}-[a-c]+ ]] || { fail "regex"; cat "$work/body"; }
schema='{"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"], "additionalProperties": false}'
ask POST /v1/chat/completions "{$messages, \"max_tokens\": 60, \"temperature\": 0, \"response_format\": {\"type\": \"json_schema\", \"json_schema\": {\"name\": \"x\", \"schema\": $schema}}}"
[[ $(text) == *'\"a\"'* && $(text) =~ (true|false) ]] || { fail "json_schema"; cat "$work/body"; }

# Receipts, in the body and by header, hold on one rank.
ask POST /v1/completions '{"prompt": "call me", "seed": 7, "max_tokens": 12, "n": 2}' 'X-Invar-Receipt: 1'
cp "$work/body" "$work/receipts.json"
"$invar" verify "${common[@]}" --tp 1 "$work/receipts.json" >"$work/verified" 2>&1 || { fail "verify"; cat "$work/verified"; }
mkdir -p "$work/receipts/more" && cp "$work/receipts.json" "$work/receipts/a.json" && cp "$work/receipts.json" "$work/receipts/more/b.json"
"$invar" verify "${common[@]}" "$work/receipts" >"$work/folder" 2>&1 || { fail "verify of a folder"; cat "$work/folder"; }
[[ $(grep -c ': equal' "$work/folder") == 4 ]] || { fail "four receipts of a folder must be equal"; cat "$work/folder"; }
[[ $(grep -c ': equal' "$work/verified") == 2 ]] || { fail "two receipts must be equal"; cat "$work/verified"; }

# SIGTERM: health turns, the stream goes on to its end, the process ends with 0.
exec 4<>"/dev/tcp/${http%:*}/${http##*:}"
long='{"prompt": "once upon a time", "temperature": 0, "max_tokens": 1500, "ignore_eos": true, "stream": true}'
printf 'POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s' "${#long}" "$long" >&4
IFS= read -r line <&4
[[ $line == *200* ]] || fail "the long stream: $line"
kill -TERM "$server"
turned=
for _ in $(seq 50); do
  ask GET /health && [[ $(status) == 503 ]] && { turned=1; break; }
  sleep 0.02
done
[[ -n $turned ]] || fail "health did not turn to 503"
grep -q draining "$work/body" || { fail "health says nothing of draining"; cat "$work/body"; }
cat <&4 >"$work/long"
exec 4>&-
grep -q 'data: \[DONE\]' "$work/long" && grep -q '"finish_reason":"length"' "$work/long" || { fail "the stream was cut by the drain"; tail -c 500 "$work/long"; }
wait "$server"
code=$?
server=
[[ $code == 0 ]] || { fail "exit code $code after SIGTERM"; tail -5 "$work/log"; }

# Keys from a file; neither they nor what is asked shows in the log.
printf '# who\nsecret-one\n\nsecret-two\n' >"$work/keys"
start_server "${common[@]}" --api-key-file "$work/keys"
ask POST /v1/completions "{$body}"
[[ $(status) == 401 ]] || fail "without a key: $(status)"
ask POST /v1/completions "{$body}" 'Authorization: Bearer secret-two'
same "with a key"
ask GET /health
[[ $(status) == 200 ]] || fail "health wants no key"
grep -qE 'secret-(one|two)|once upon' "$work/log" && fail "a key or a prompt is in the log"
grep -q 'method=POST path=/v1/completions status=200 .*key=1 .*digest=' "$work/log" || { fail "no access log line"; cat "$work/log"; }
end_server || failures=$((failures + 1))

# On Unix sockets, with vLLM's flag; gRPC beside it. A socket that a killed server left is no hindrance, a living server's is.
cat >"$work/over_uds.py" <<'PY'
import socket, sys
with socket.socket(socket.AF_UNIX) as s:
    s.connect(sys.argv[1])
    body = sys.argv[2].encode()
    s.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    print(b"".join(iter(lambda: s.recv(65536), b"")).decode())
PY
for _ in 1 2; do
  "$invar" serve "${common[@]}" --uds "$work/socket" 2>"$work/log" &
  server=$!
  "$invar" complete --uds "$work/socket" --wait 30 --temperature 0 --max-tokens 24 --json 'once upon a time' >"$work/completed" || { fail "complete --uds"; cat "$work/log"; }
  [[ $(digest "$work/completed") == "$wanted" ]] || fail "gRPC's digest on a Unix socket is $(digest "$work/completed"), wanted $wanted"
  python3 "$work/over_uds.py" "$work/socket" "{$body}" >"$work/body"
  [[ $(digest "$work/body") == "$wanted" ]] || { fail "HTTP's digest on a Unix socket"; cat "$work/body"; }
  grep -q "http peer=unix:$work/socket " "$work/log" || { fail "no access log line of a Unix socket"; cat "$work/log"; }
  "$invar" serve "${common[@]}" --uds "$work/socket" 2>"$work/second" && fail "a second server on the same socket"
  grep -q "unix:$work/socket.*in use" "$work/second" || { fail "the second server says no reason"; cat "$work/second"; }
  kill -9 "$server" && wait "$server" 2>/dev/null
  [[ -S $work/socket ]] || fail "control: a killed server leaves its socket"
done
"$invar" serve "${common[@]}" --uds "$work/socket" 2>"$work/log" &
server=$!
"$invar" complete --grpc-uds "$work/socket.grpc" --wait 30 --max-tokens 4 x >/dev/null 2>&1 || fail "complete --grpc-uds"
end_server || failures=$((failures + 1))
[[ -e $work/socket || -e $work/socket.grpc ]] && fail "a socket is left behind"
((failures == 0)) && echo "one digest over HTTP, gRPC and offline; receipts hold; the drain finishes" || { echo "$failures failed"; exit 1; }
