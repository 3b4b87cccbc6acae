#!/usr/bin/env bash
# Certificates and keys from the command line: serve, its ranks under mpirun, clients; and what is said of bad ones.
#   tls_test.sh INVAR
set -uo pipefail
invar=$1
model=$(cd "$(dirname "$0")/../configs/models/demo-moe" && pwd)
work=$(mktemp -d)
server=
trap '[[ -z $server ]] || kill "$server" 2>/dev/null; wait; rm -rf "$work"' EXIT
failures=0
fail() { echo "FAILED: $*"; failures=$((failures + 1)); }

cd "$work" || exit 1
authority() {  # authority NAME
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout "$1.key" -out "$1.pem" -days 2 -subj "/CN=$1" 2>>openssl.log
}
sign() {  # sign NAME AUTHORITY DAYS
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout "$1.key" -out "$1.csr" -subj "/CN=$1" 2>>openssl.log &&
    openssl x509 -req -in "$1.csr" -CA "$2.pem" -CAkey "$2.key" -CAcreateserial -days "$3" -out "$1.pem" \
      -extfile <(echo subjectAltName=IP:127.0.0.1,DNS:node.example) 2>>openssl.log
}
if ! { authority ours && authority theirs && sign node ours 2 && sign worker ours 2 && sign foreign theirs 2 && sign old ours -1; }; then
  cat openssl.log
  exit 1
fi

# refuses CODE PATTERN COMMAND...
refuses() {
  local code=$1 pattern=$2 got
  shift 2
  timeout 60 "$@" >out 2>err </dev/null
  got=$?
  if [[ $got != "$code" ]] || ! grep -qE -- "$pattern" err; then
    fail "$* -> exit code $got, wanted $code and /$pattern/; said:"
    head -5 err
  else
    echo "ok: $pattern"
  fi
}
# start FLAG...: a server on a free port, in $address.
start() {
  "$invar" serve --no-http --grpc-port 0 --model "$model" --threads 1 --num-gpu-blocks-override 64 "$@" 2>log &
  server=$!
  address=
  for _ in {1..300}; do
    address=$(grep -oE 'serving .* on 127.0.0.1:[0-9]+' log | grep -oE '127.0.0.1:[0-9]+' | head -1)
    [[ -n $address ]] && return
    kill -0 "$server" 2>/dev/null || break
    sleep 0.2
  done
  fail "serve $* did not come up"
  tail -5 log
}
stop() { kill "$server" 2>/dev/null; wait "$server" 2>/dev/null; server=; }
complete=("$invar" complete 'once upon a time' --temperature 0 --max-tokens 8 --wait 10)

# At the start.
serve=("$invar" serve --no-http --grpc-port 0 --model "$model")
refuses 2 '--ssl-certfile nowhere.pem: No such file' "${serve[@]}" --ssl-certfile nowhere.pem
refuses 2 '--ssl-keyfile .*worker.key: the key is not that of the certificate' "${serve[@]}" --ssl-certfile node.pem --ssl-keyfile worker.key
refuses 2 '--ssl-keyfile is given, but no --ssl-certfile' "${serve[@]}" --ssl-keyfile node.key
refuses 2 '--ssl-cert-reqs asks for client certificates' "${serve[@]}" --ssl-certfile node.pem --ssl-keyfile node.key --ssl-cert-reqs required
refuses 1 '--ssl-certfile old.pem: the certificate CN=old expired on' "${serve[@]}" --ssl-certfile old.pem --ssl-keyfile old.key
refuses 2 'mutual: --worker-ssl-ca-certs is missing' "${serve[@]}" --worker-ssl-certfile node.pem --worker-ssl-keyfile node.key

# TLS, a client certificate and a key, all asked for.
printf 'first-key\n' >keys
start --ssl-certfile node.pem --ssl-keyfile node.key --ssl-ca-certs ours.pem --ssl-cert-reqs 2 --api-key-file keys --api-key second-key
own=(--server "$address" --tls-ca ours.pem --tls-certfile worker.pem --tls-keyfile worker.key)
if answer=$(timeout 60 "${complete[@]}" "${own[@]}" --api-key-file keys 2>err) && [[ -n $answer ]]; then
  echo "ok: answered: $answer"
else
  fail "no answer"
  cat err
fi
[[ $(timeout 60 "${complete[@]}" "${own[@]}" --api-key second-key 2>/dev/null) == "$answer" ]] || fail "the second key"
refuses 1 'wants an API key' "${complete[@]}" "${own[@]}"
refuses 1 'API key is not known' "${complete[@]}" "${own[@]}" --api-key third-key
refuses 1 'speaks TLS and was dialled in plain text: give --tls-ca-certs' "${complete[@]}" --server "$address"
refuses 1 'asks for a certificate' "${complete[@]}" --server "$address" --tls-ca ours.pem
refuses 1 'refuses our certificate' "${complete[@]}" --server "$address" --tls-ca ours.pem --tls-certfile foreign.pem --tls-keyfile foreign.key
refuses 1 'certificate is not accepted' "${complete[@]}" "${own[@]:0:2}" --tls-ca theirs.pem --tls-certfile worker.pem --tls-keyfile worker.key
stop
for secret in 'PRIVATE KEY' 'BEGIN CERT' first-key second-key third-key; do
  if grep -q "$secret" log; then fail "the log holds $secret"; fi
done
grep -q 'with TLS: CN=node, valid until' log || fail "the log does not name the certificate"

# The worker link, with ranks that serve starts under mpirun.
if command -v mpirun >/dev/null; then
  link=(--worker-ssl-certfile worker.pem --worker-ssl-keyfile worker.key --worker-ssl-ca-certs ours.pem)
  start --transport mpi --tp 2 "${link[@]}"
  [[ $(timeout 60 "${complete[@]}" --server "$address" 2>/dev/null) == "$answer" ]] || fail "not the same answer over a worker link with TLS"
  stop
  "$invar" serve --no-http --grpc-port 0 --model "$model" --transport mpi --external-ranks --worker-address 127.0.0.1:0 "${link[@]}" 2>log &
  server=$!
  for _ in {1..100}; do
    address=$(grep -oE 'coordinator 127.0.0.1:[0-9]+' log | grep -oE '127.0.0.1:[0-9]+' | head -1)
    [[ -n $address ]] && break
    sleep 0.2
  done
  rank=(mpirun --allow-run-as-root --oversubscribe -np 1 "$invar" worker --model "$model" --threads 1 --num-gpu-blocks-override 64 --coordinator "$address")
  refuses 1 'speaks TLS and was dialled in plain text: give --worker-ssl-ca-certs' "${rank[@]}"
  refuses 1 'refuses our certificate' "${rank[@]}" --worker-ssl-certfile "$work/foreign.pem" --worker-ssl-keyfile "$work/foreign.key" --worker-ssl-ca-certs "$work/ours.pem"
  stop
fi
((failures == 0)) || { echo "$failures failed"; exit 1; }
echo "only who shows the right certificate and key comes in"
