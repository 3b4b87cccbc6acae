#!/usr/bin/env bash
# EleutherAI's lm-eval (from PyPI) over /v1/completions, twice: one request at a time, and batches of eight, eight at once. The outputs of every
# sample must be the same; with a server that breaks the contract on purpose some must differ.
#   lm_eval_judge.sh INVAR GSM8K.jsonl [VENV [SAMPLES]]       GSM8K's test split: lines with "question" and "answer"
# Not part of ctest: the installation alone takes minutes.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
invar=$1 data=$(realpath "$2") venv=${3:-/tmp/invar-lm-eval} samples=${4:-200}
work=$(mktemp -d)
# shellcheck source=../support/serve.sh
source "$here/../support/serve.sh"
trap '[[ -z $server ]] || kill -9 "$server" 2>/dev/null; wait 2>/dev/null; rm -rf "$work"' EXIT

"$venv/bin/python" -c 'import lm_eval' 2>/dev/null || { python3 -m venv "$venv" && "$venv/bin/pip" -q install 'lm-eval[api]'; } || exit 1
cat >"$work/gsm8k_lines.yaml" <<YAML
task: gsm8k_lines
dataset_path: json
dataset_kwargs: {data_files: {test: $data}}
test_split: test
output_type: generate_until
doc_to_text: "Question: {{question}}\nAnswer:"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["Question:"], do_sample: false, temperature: 0, max_gen_toks: 128}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
YAML

evaluate() {  # evaluate NAME BATCH CONCURRENT
  HF_HOME=$work/hf "$venv/bin/lm_eval" --model local-completions \
    --model_args "model=demo,base_url=http://$http/v1/completions,num_concurrent=$3,tokenized_requests=False,tokenizer_backend=None,max_retries=1" \
    --tasks gsm8k_lines --include_path "$work" --batch_size "$2" --limit "$samples" --log_samples --output_path "$work/$1" \
    >"$work/$1.log" 2>&1 || { echo "FAILED: lm_eval"; tail -20 "$work/$1.log"; exit 1; }
}
differing() {  # of the samples of two runs
  "$venv/bin/python" - "$work/$1" "$work/$2" <<'PY'
import glob, json, sys
runs = []
for folder in sys.argv[1:]:
    lines = [json.loads(line) for file in glob.glob(folder + "/**/samples_*.jsonl", recursive=True) for line in open(file)]
    runs.append({line["doc_id"]: line["resps"] for line in lines})
assert runs[0] and runs[0].keys() == runs[1].keys(), "the runs have other samples"
print(sum(runs[0][k] != runs[1][k] for k in runs[0]), "of", len(runs[0]))
PY
}

start_server --tp 2 --served-model-name demo
evaluate one 1 1
evaluate many 8 8
end_server || exit 1
same=$(differing one many)
start_server --served-model-name demo --control-arm fixed-split-count
evaluate arm_one 1 1
evaluate arm_many 8 8
end_server || exit 1
arm=$(differing arm_one arm_many)
echo "samples that differ between batch sizes: $same; with the control arm: $arm"
[[ $same == "0 of "* && $arm != "0 of "* ]]
