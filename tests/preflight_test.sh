#!/usr/bin/env bash
# invar preflight under mpirun: good layouts, and what it says of bad ones.
#   preflight_test.sh INVAR
set -uo pipefail
invar=$1
models=$(cd "$(dirname "$0")/../configs/models" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0
mpi=(mpirun --allow-run-as-root --oversubscribe --bind-to none --mca mpi_yield_when_idle 1 --mca btl_vader_single_copy_mechanism none)

# says CODE PATTERN... -- ARGUMENT...: mpirun with these ends with this code and its output holds each pattern.
says() {
  local code=$1 got patterns=()
  shift
  while [[ $1 != -- ]]; do patterns+=("$1"); shift; done
  shift
  timeout 100 "${mpi[@]}" "$@" >"$work/out" 2>&1 </dev/null
  got=$?
  for pattern in "${patterns[@]}"; do
    if [[ $got != "$code" ]] || ! grep -qE "$pattern" "$work/out"; then
      echo "FAILED: $* -> exit code $got, wanted $code and /$pattern/; said:"
      head -30 "$work/out"
      failures=$((failures + 1))
      return
    fi
  done
  echo "ok: $*"
}

for ranks in 1 2 3 4; do
  says 0 'these ranks can work together' "^rank $((ranks - 1)) " 'fingerprint [0-9a-f]{16}' -- \
    -np "$ranks" "$invar" preflight --model "$models/demo-moe" --tp "$ranks" --threads 1
done
says 0 'ring of all ranks' 'least bandwidth: [0-9.]+ GB/s' 'digest [0-9a-f]{64}' -- -np 2 "$invar" preflight --model "$models/demo-dense" --tp 2 --full --threads 1
says 1 'wants 4 ranks, 3 were started' 'NOT ready' -- -np 3 "$invar" preflight --model "$models/demo-moe" --tp 4 --threads 1

# A rank whose model folder is another, or is not there.
says 1 'rank [02] on host .*: model files' 'NOT ready' -- \
  -np 2 "$invar" preflight --model "$models/demo-moe" --tp 3 --threads 1 : -np 1 "$invar" preflight --model "$models/demo-dense" --tp 3 --threads 1
says 1 'rank 1 on host .*no/such/folder' -- \
  -np 1 "$invar" preflight --model "$models/demo-moe" --tp 2 --threads 1 : -np 1 "$invar" preflight --model no/such/folder --tp 2 --threads 1

# Nobody listens there; a rank that never comes to MPI; one that leaves on the way.
says 1 'rank 0 on host .*--coordinator 127.0.0.1:1: Connection refused' -- \
  -np 2 "$invar" preflight --model "$models/demo-moe" --tp 2 --coordinator 127.0.0.1:1 --threads 1
says 1 'rank 0 of 3 on host .*: still in MPI_Init' 'rank 1 of 3 on host .*: gave up in MPI_Init.*ranks that no line' -- \
  -np 2 "$invar" preflight --model "$models/demo-moe" --tp 3 --timeout 6 : -np 1 sleep 40
if grep -q 'rank 2 of 3' "$work/out"; then echo "FAILED: the rank that never came speaks"; failures=$((failures + 1)); fi

((failures == 0)) || { echo "$failures failed"; exit 1; }
