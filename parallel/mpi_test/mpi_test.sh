#!/bin/bash
# Runs mpi_check PROGRAM under MPIRUN on several rank counts: equal digests, differing controls, and clear ends of broken jobs.
set -u
program=$1 mpirun=$2
shift 2
# More ranks than cores: nobody may bind or spin. Options after the two paths are passed on (other hosts, other interfaces).
run=("$mpirun" --oversubscribe --allow-run-as-root --bind-to none --mca mpi_yield_when_idle 1 "$@")
out=$(mktemp -d) || exit 1
trap 'rm -rf "$out"' EXIT
failures=0
fail() {
  echo "FAIL: $1"
  cat "$out/log"
  failures=$((failures + 1))
}

for np in 1 2 3 4 8; do
  timeout 120 "${run[@]}" -np $np "$program" > "$out/$np" 2> "$out/log" || fail "np $np ended with $?"
  echo "np $np: $(tr '\n' ' ' < "$out/$np")"
done
digests=$(cat "$out"/[1-8] | grep -c '^digest')
[ "$digests" = 10 ] || fail "10 digests expected, $digests printed"
[ "$(cat "$out"/[1-8] | grep '^digest' | sort -u | wc -l)" = 1 ] || fail "digests differ between rank counts"
# Rank order is the tree's order on no count, and differs between counts (8 ranks of one segment each fold as 1 rank does).
[ "$(cat "$out"/[1-8] | grep '^control' | sort -u | wc -l)" = 4 ] || fail "the control arm does not depend on the rank count"

# expect NAME SECONDS PATTERN OPTION...: the job must end with an error in that time and say why.
expect() {
  local name=$1 seconds=$2 pattern=$3 begin=$SECONDS rc
  shift 3
  timeout -k 5 60 "${run[@]}" -np 3 "$program" "$@" > "$out/log" 2>&1
  rc=$?
  [ $rc != 0 ] && [ $rc != 124 ] && [ $rc != 137 -o "$name" = killed ] || fail "$name: ended with $rc"
  [ $((SECONDS - begin)) -le "$seconds" ] || fail "$name: took $((SECONDS - begin)) s"
  grep -Eq "$pattern" "$out/log" || fail "$name: no line like: $pattern"
  echo "$name: rc $rc after $((SECONDS - begin)) s"
}
expect absent 15 'rank [02] on .* waited [2-9]\.[0-9] s for rank 1 in test step \(collective 6\) and gave up at the deadline: expected 100000 bytes, got 0' \
  --absent 1
expect killed 15 'signal 9|Killed' --killed 2
expect interrupt 15 'rank 0: 2 waits interrupted' --interrupt
expect wrong-size 15 'rank 0 on .* for rank 1 in rows and was sent another size than agreed: expected 851424 bytes' --wrong-size

[ $failures = 0 ]
