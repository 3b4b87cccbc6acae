#!/usr/bin/env bash
# Ranks under mpirun, one of which is stopped in the middle of a step: /metrics, /health and the log name it; let go on, it goes on.
#   rank_metrics_test.sh INVAR
set -uo pipefail
invar=$1
work=$(mktemp -d)
# shellcheck source=support/serve.sh
source "$(dirname "$0")/support/serve.sh"
stopped=
trap '[[ -z $stopped ]] || kill -CONT "$stopped" 2>/dev/null; [[ -z $server ]] || kill -9 "$server" 2>/dev/null; wait 2>/dev/null; rm -rf "$work"' EXIT
failures=0
fail() { echo "FAILED: $*"; failures=$((failures + 1)); }

send() {  # send METHOD PATH [BODY]: on descriptor 3
  local body=${3:-}
  exec 3<>"/dev/tcp/${http%:*}/${http##*:}" || return 1
  printf '%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s' "$1" "$2" "${#body}" "$body" >&3
}
get() {  # get PATH: the answer to $work/answer
  send GET "$1" && timeout 20 cat <&3 >"$work/answer"
  exec 3>&-
}
# value NAME RANK: of the metrics last read, in thousandths; empty = there is none
value() { grep -E "^invar_rank_$1\{[^}]*rank=\"$2\"[,}]" "$work/answer" | awk '{printf "%d", $2 * 1000}'; }
# until SECONDS EXPRESSION...: reads the metrics until the expression holds
until_() {
  local end=$((SECONDS + $1))
  shift
  while ((SECONDS < end)); do
    get /metrics
    eval "$*" && return 0
    sleep 0.3
  done
  fail "never came about: $*"
  grep invar_rank "$work/answer" | grep -v '^#'
  return 1
}

start_server --threads 1 --num-gpu-blocks-override 512 --tp 2 --transport mpi --step-timeout 3
send POST /v1/completions '{"prompt": "once upon a time", "max_tokens": 8, "temperature": 0, "ignore_eos": true}'
timeout 60 cat <&3 | grep -q '"finish_reason"' || fail "no answer"
# Ranks report at different moments; idle, they come to agree.
until_ 20 '(( $(value steps_total 0) >= 8000 && $(value steps_total 0) == $(value steps_total 1) && $(value step_age_seconds 1) == 0 )) &&
           (( $(value collectives_begun_total 0) > 8000 && $(value collectives_begun_total 0) == $(value collectives_finished_total 1) ))'
get /get_server_info
pid=$(tr '{' '\n' <"$work/answer" | grep -E '"rank": ?1,' | grep -oE '"pid": ?[0-9]+' | grep -oE '[0-9]+' | head -1)
[[ -n $pid ]] || { fail "no pid of rank 1"; cat "$work/answer"; exit 1; }

exec 4<>"/dev/tcp/${http%:*}/${http##*:}"
body='{"prompt": "once upon a time", "max_tokens": 400, "temperature": 0, "ignore_eos": true, "stream": true}'
printf 'POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s' "${#body}" "$body" >&4
read -r line <&4
[[ $line == *200* ]] || fail "the stream did not begin: $line"
kill -STOP "$pid" && stopped=$pid
until_ 30 '(( $(value heard_age_seconds 1) > 4000 ))' && {
  (($(value heard_age_seconds 0) < 4000)) || fail "rank 0 is not heard of either"
  (($(value progress_age_seconds 1) > 2000 && $(value step_age_seconds 1) > 2000)) || fail "the age of the stopped rank does not grow"
  (($(value progress_age_seconds 0) > 2000)) || fail "rank 0 waits, but its age does not grow"
  [[ $(value waiting 0) == 1000 ]] || fail "rank 0 does not wait"
  before=$(value heard_age_seconds 1)
  sleep 1
  get /metrics
  (($(value heard_age_seconds 1) >= before + 900)) || fail "the silence does not grow"
}
get /health
grep -q ' 503 ' "$work/answer" || fail "health is still good"
grep -qE 'rank [01] on host' "$work/answer" || { fail "health names nobody"; cat "$work/answer"; }
grep -qE 'rank 1 on host [^;]*not heard of for|rank 1 on host' "$work/answer" || fail "health does not name rank 1"
kill -CONT "$pid" && stopped=
timeout 180 cat <&4 >"$work/stream"  # two ranks that spin, on a busy machine
grep -q 'data: \[DONE\]' "$work/stream" || { fail "the stream did not end"; tail -3 "$work/stream"; }
grep -q '"error"' "$work/stream" && fail "the stream ended with an error"
exec 4>&-
until_ 20 '(( $(value step_age_seconds 1) == 0 && $(value heard_age_seconds 1) < 3000 && $(value steps_total 1) == $(value steps_total 0) ))'
get /health
grep -q ' 200 ' "$work/answer" || fail "health did not come back"
end_server || failures=$((failures + 1))
grep -q 'a step has had no result for 3000 ms; rank' "$work/log" || { fail "the log does not say who is behind"; tail -5 "$work/log"; }
((failures == 0)) || { echo "$failures failed"; exit 1; }
echo "a stopped rank is named, and goes on when it is let go"
