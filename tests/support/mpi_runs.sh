# Sourced by shell tests that hold `invar generate` under mpirun to one answer. Wants `invar`, `work` with requests.jsonl, `model`
# (its name), `common` (flags of every run) and `reference` (a digest); counts `failures`.
# shellcheck shell=bash

# Ids, and bits of logits and log-probabilities, of all answers, as one digest.
digest() { grep -oE '"(token_ids|logits_hashes|logprob_bits)":[^]]*' "$1" | sha256sum | cut -c1-16; }

failures=0
try() {  # try RANKS EXPECTED(equal|different) FLAG...
  local ranks=$1 expected=$2 got status verdict=equal
  shift 2
  timeout 180 mpirun --allow-run-as-root --oversubscribe -np "$ranks" --bind-to none --mca mpi_yield_when_idle 1 \
    --mca btl_vader_single_copy_mechanism none "$invar" "${common[@]}" --transport mpi "$@" <"$work/requests.jsonl" >"$work/out" 2>"$work/err"
  status=$?
  got=$(digest "$work/out")
  [[ $got == "$reference" ]] || verdict=different
  printf '%-10s %-90s %s %s\n' "$model" "$*" "$got" "$verdict"
  if ((status != 0)) || [[ $verdict != "$expected" ]]; then
    echo "  FAILED: exit code $status, expected $expected"
    head -20 "$work/err"
    failures=$((failures + 1))
  fi
}
