# Sourced by shell tests that need `invar serve`: start_server FLAG... sets `server` (its process), `grpc` and `http` (its addresses);
# its log is $work/log. Wants `invar` and `work`. end_server stops it as an operator would and checks its exit code.
# shellcheck shell=bash

server=
start_server() {
  "$invar" serve --port 0 --grpc-port 0 "$@" 2>"$work/log" &
  server=$!
  for _ in $(seq 600); do
    grep -qs 'serving .* (HTTP)' "$work/log" && break
    kill -0 "$server" 2>/dev/null || break
    sleep 0.1
  done
  grpc=$(sed -nE 's/.*serving .* on (\S+) \(gRPC\).*/\1/p' "$work/log")
  http=$(sed -nE 's/.* and (\S+) \(HTTP\).*/\1/p' "$work/log")
  [[ -n $grpc && -n $http ]] || { echo "FAILED: the server did not come up"; cat "$work/log"; exit 1; }
}

end_server() {
  kill -TERM "$server"
  wait "$server"
  local code=$?
  server=
  ((code == 0)) || { echo "FAILED: the server's exit code is $code"; tail -5 "$work/log"; return 1; }
}
