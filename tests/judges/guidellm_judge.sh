#!/usr/bin/env bash
# guidellm (a load generator, from PyPI) against `invar serve`: chats and completions, one at a time and 16 at once. No request may fail, and what
# was answered alone must be what was answered under load; with a server that breaks the contract on purpose some answers must differ.
#   guidellm_judge.sh INVAR [VENV [REQUESTS]]
# Not part of ctest: it brings PyTorch along, 6 GB, and its installation takes minutes.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
invar=$(realpath "$1") venv=${2:-/tmp/invar-guidellm} requests=${3:-96}
model=$(realpath "$here/../../configs/models/demo-dense")
work=$(mktemp -d)
# shellcheck source=../support/serve.sh
source "$here/../support/serve.sh"
trap '[[ -z $server ]] || kill -9 "$server" 2>/dev/null; wait 2>/dev/null; rm -rf "$work"' EXIT

"$venv/bin/python" -c 'import guidellm' 2>/dev/null || { python3 -m venv "$venv" && "$venv/bin/pip" -q install 'guidellm>=0.8,<0.9'; } || exit 1

load() {  # load NAME PATH STREAMS: guidellm's report to $work/NAME/benchmarks.json
  mkdir -p "$work/$1"
  # Without HF_HUB_OFFLINE it asks the hub for the tokenizer's folder first, again and again where there is no way to it.
  (cd "$work/$1" && HF_HUB_OFFLINE=1 HF_HOME=$work/hf timeout 300 "$venv/bin/guidellm" run \
    --backend "kind=openai_http,target=http://$http,request_format=$2,extras={\"body\":{\"temperature\":0}}" \
    --profile "kind=concurrent,streams=$3" --constraint "kind=max_requests,count=$requests" \
    --data kind=synthetic_text,prompt_tokens=96,prompt_tokens_stdev=40,output_tokens=48,output_tokens_stdev=16 --seed kind=static,value=7 \
    --tokenizer "kind=hf_auto,model=$model" --disable-progress) >"$work/$1.log" 2>&1 || { echo "FAILED: guidellm"; tail -20 "$work/$1.log"; exit 1; }
}
compare() {  # compare NAME NAME: how many of the same requests have other answers
  "$venv/bin/python" - "$requests" "$work/$1" "$work/$2" <<'PY'
import json, sys
runs = []
for folder in sys.argv[2:]:
    benchmark = json.load(open(folder + "/benchmarks.json"))["benchmarks"][0]
    done, metrics = benchmark["requests"], benchmark["metrics"]
    assert not done["errored"] and len(done["successful"]) == int(sys.argv[1]), {k: len(v or []) for k, v in done.items()}
    assert all(r["output_metrics"]["text_tokens"] for r in done["successful"]), "an answer without tokens"
    runs.append({r["request_args"]: r["output"] for r in done["successful"]})
    mean = lambda name: metrics[name]["successful"]["mean"]
    print("%s: %d requests, 0 failed, %.0f output tokens/s, first token %.1f ms, between tokens %.2f ms" % (
        folder.rsplit("/", 1)[1], len(done["successful"]), mean("output_tokens_per_second"), mean("time_to_first_token_ms"), mean("inter_token_latency_ms")), file=sys.stderr)
both = runs[0].keys() & runs[1].keys()
assert len(both) >= 0.8 * int(sys.argv[1]), "the runs have other requests"
print(sum(runs[0][k] != runs[1][k] for k in both), "of", len(both))
PY
}

served=(--model "$model" --served-model-name demo --num-gpu-blocks-override 4096 --threads 1)
differ=()
start_server "${served[@]}" --tp 2
for path in /v1/chat/completions /v1/completions; do
  name=${path//\//_}
  load "alone$name" "$path" 1
  load "load$name" "$path" 16
  differ+=("$(compare "alone$name" "load$name")") || exit 1
done
end_server || exit 1
start_server "${served[@]}" --control-arm fixed-split-count
load arm_alone /v1/chat/completions 1
load arm_load /v1/chat/completions 16
arm=$(compare arm_alone arm_load) || exit 1
end_server || exit 1
echo "answers that differ under load: chats ${differ[0]}, completions ${differ[1]}; with the control arm: $arm"
[[ ${differ[0]} == "0 of "* && ${differ[1]} == "0 of "* && $arm != "0 of "* ]]
