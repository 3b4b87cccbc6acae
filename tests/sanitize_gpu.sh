#!/usr/bin/env bash
# Runs the kernel tests under compute-sanitizer on a machine with a GPU: one line a program and tool, exit status 1 if any of them
# found something, failed, or was not done within its time.
#   tests/sanitize_gpu.sh [BUILD_FOLDER] [--tools memcheck,racecheck,synccheck] [--only PART_OF_A_NAME] [--jobs N] [--timeout SECONDS] [--log FOLDER]
#                         [--all-tests]
# Two at a time: synccheck keeps memory of the GPU for every launch under way, and where that does not suffice it goes on without
# looking at the launch, and other programs find none either.
# A program is slower by 10 to 1000 times under these tools, so each runs the tests named in `few`, which launch every kernel;
# --all-tests runs all (hours).
set -uo pipefail
[[ ${1:-} == --help ]] && { sed -n '2,/^set/p' "$0" | sed '$d'; exit 0; }

folder=build tools=memcheck,racecheck,synccheck only='' jobs=2 limit=600 log='' all=0
[[ ${1:-} == --* || -z ${1:-} ]] || { folder=$1; shift; }
while (($#)); do
  case $1 in
    --tools) tools=$2; shift ;;
    --only) only=$2; shift ;;
    --jobs) jobs=$2; shift ;;
    --timeout) limit=$2; shift ;;
    --log) log=$2; shift ;;
    --all-tests) all=1 ;;
    *) echo "unknown argument $1" >&2; exit 2 ;;
  esac
  shift
done
command -v compute-sanitizer >/dev/null || { echo "compute-sanitizer is not in PATH: it comes with the CUDA toolkit" >&2; exit 2; }
[[ -n $log ]] || { log=$(mktemp -d); trap 'rm -rf "$log"' EXIT; }
mkdir -p "$log"

# GoogleTest filters for programs whose whole test takes too long under a tool.
declare -A few=(
  [kernels_portable_linear_cuda_test]='*/Ordinary:*NothingToDo*:*WeightsComeBack*'
)
# Of shared memory every access is followed: slower by another factor of ten.
declare -A few_races=(
  [kernels_gated_linear_cuda_test]='*/96x512:*NotTheSame*'
  [kernels_moe_cuda_test]='Router*:Combine*:*/72x176:*ARowHas*'
  [kernels_peer_arrivals_cuda_test]='*GiveTheCpusBits*:*RecordedWork*'
  [parallel_reduce_cuda_test]='*GivesTheHostsBits/2_on_1:*RecordedWork*/2_on_1:*LinearsThat*/2_on_1'
  [kernels_attention_cuda_test]='*AnAllMinusInfinity*:*NonFiniteRowsStayAlone*:*AGraphIsReplayed*:*TableEntries*:*PagesReadBack*'
  [kernels_merge_cuda_test]='*TheListedOrder*:*AddListed*:*MergeResidualNorm*'
  [kernels_portable_linear_cuda_test]='*ColumnEqualsReference/Ordinary:*NothingToDo*'
  [kernels_tensor_core_linear_cuda_test]='*ShortChains*:*EveryDecodePlan*/72x512_3_rows:*EveryPrefillPlan*/72x2304_65_rows:*RowsAdd*:*GroupsEqual*:*Finish*'
)

# This one queues hundreds of launches that nothing on the host waits for: 60 GB of the tool's memory.
declare -A few_barriers=(
  [kernels_peer_arrivals_cuda_test]='-*ManyOperationsWithoutTheHost*'
)

# Programs whose ranks wait for one another on the GPU: a launch that waits for the stream's work, as the tool may be told to, would
# be one that waits for another rank's launch.
ranks='^(kernels_peer_arrivals|parallel_reduce|parallel_transport|runtime_model)_cuda_test$'

# Programs that launch no kernel but those of the others, thousands of times: not for racecheck.
no_kernels_of_its_own='^runtime_model_cuda_test$'

# cuBLAS's kernels, which serve as oracles. And the decode kernels of attention, of which racecheck reports races that are none: each write it names is a bulk copy into a stage
# that a warp has read. One lane (or eight) of the warp arrives at the stage's mbarrier behind a __syncwarp(), which orders the reads
# of all its lanes; the tool takes only those lanes for done that arrive themselves.
no_races='nvjet_sm90|decode_kernel<invar::cuda::<unnamed>::Shared<\(int\)(64|128), \(int\)[1248]>>'

mapfile -t programs < <(find "$folder" -type f -name '*_cuda_test' -perm -u+x | grep -F -- "$only" | sort)
((${#programs[@]})) || { echo "no *_cuda_test with '$only' in its name under $folder: build with -DINVAR_CUDA=ON first" >&2; exit 2; }

# check PROGRAM TOOL: its line on stdout, what the tool said in a log.
check() {
  local program=$1 tool=$2 name filter arguments=() file began=$SECONDS status verdict explained=''
  name=$(basename "$program")
  filter=${few[$name]:-*}
  [[ $tool == racecheck ]] && filter=${few_races[$name]:-$filter}
  [[ $tool == synccheck ]] && filter=${few_barriers[$name]:-$filter}
  ((all)) && filter='*'
  file=$log/$name.$tool.log
  case $tool in
    memcheck) arguments=(--report-api-errors no) ;;  # tests ask for what cannot be had, and check the error themselves
    racecheck) arguments=(--racecheck-report analysis) ;;
    synccheck) [[ $name =~ $ranks ]] || arguments=(--force-synchronization-limit 16) ;;  # it keeps memory until then
  esac
  timeout -k 5 "$limit" compute-sanitizer --tool "$tool" "${arguments[@]}" --error-exitcode 99 --print-limit 1000 \
    "$program" --gtest_filter="$filter" --gtest_brief=0 >"$file" 2>&1
  status=$?
  if [[ $status == 99 && $tool == racecheck ]] && grep -q '^\[  PASSED' "$file" && ! grep -q '^\[  FAILED' "$file" &&
    ! grep 'Race reported between' "$file" | grep -qvE "$no_races"; then
    status=0
    explained=" ($(grep -c 'Race reported between' "$file") reports that are no races)"
  fi
  case $status in
    0) verdict=clean$explained ;;
    99) verdict="FOUND $(grep -E 'ERROR SUMMARY|RACECHECK SUMMARY' "$file" | tail -1 | sed 's/^=* *//')" ;;
    124 | 137) verdict="NOT DONE in $limit s" ;;
    *) verdict="FAILED with status $status" ;;
  esac
  ((status)) && grep -qE 'Unable to allocate enough memory|exception.*out of memory' "$file" &&
    verdict="NOT DONE: no memory left on the GPU, take fewer --jobs"
  # A test that skips itself, as without a GPU, proves nothing.
  if [[ $verdict == clean* ]] && ! grep -q '^\[       OK' "$file"; then verdict="FAILED: no test ran"; status=1; fi
  printf '%-42s %-10s %4d tests %4d s  %s\n' "$name" "$tool" "$(grep -c '^\[       OK' "$file")" $((SECONDS - began)) "$verdict"
  return $((status != 0))
}

bad=0 running=0
for tool in ${tools//,/ }; do
  for program in "${programs[@]}"; do
    [[ $tool == racecheck && $(basename "$program") =~ $no_kernels_of_its_own ]] && ((!all)) && continue
    if ((running >= jobs)); then wait -n || bad=1; running=$((running - 1)); fi
    check "$program" "$tool" &
    running=$((running + 1))
  done
done
while ((running)); do wait -n || bad=1; running=$((running - 1)); done
exit $bad
