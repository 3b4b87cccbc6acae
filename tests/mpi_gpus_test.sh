#!/usr/bin/env bash
# The engine under mpirun, a process a GPU, with prompts of hundreds of tokens: the CPU's bits over every exchange.
#   mpi_gpus_test.sh INVAR
# Skipped (77) without two GPUs. The models are made up: heads and widths that the kernels for many rows take.
set -uo pipefail
invar=$1
gpus=$(nvidia-smi -L 2>/dev/null | grep -c '^GPU')
((gpus >= 2)) || { echo "two GPUs are needed, here are $gpus"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# shellcheck source=support/mpi_runs.sh
source "$(dirname "$0")/support/mpi_runs.sh"
widths='"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 3, "num_attention_heads": 16, "num_key_value_heads": 8,
 "head_dim": 128, "vocab_size": 4096, "rms_norm_eps": 1e-6, "rope_theta": 10000, "max_position_embeddings": 2048,
 "attention_bias": false, "hidden_act": "silu", "tie_word_embeddings": false, "bos_token_id": 1, "eos_token_id": 2'
cat >"$work/dense.json" <<JSON
{"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", $widths}
JSON
cat >"$work/moe.json" <<JSON
{"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", $widths,
 "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 1024, "norm_topk_prob": true}
JSON
for length in 700 130 5 300 64; do
  ids=$(for ((i = 0; i < length; ++i)); do printf '%d,' $(((i * i * 31 + i * length + 7) % 4090 + 3)); done)
  echo "{\"prompt_token_ids\": {\"ids\": [${ids%,}]}, \"sampling_params\": {\"temperature\": 0, \"max_tokens\": 8, \"ignore_eos\": true}}"
done >"$work/requests.jsonl"
for model in dense moe; do
  common=(generate --model "$work/$model.json" --load-format dummy --profile tc --input "$work/requests.jsonl")
  "$invar" "${common[@]}" --device cpu >"$work/one" || exit 1
  [[ $(wc -l <"$work/one") == 5 ]] || { echo "no five answers"; exit 1; }
  reference=$(digest "$work/one")
  common+=(--device cuda --kv-cache-memory-bytes 256MB)
  try 1 equal --tp 1
  for tp in 2 3 4 8; do
    ((tp <= gpus)) || break
    for exchange in peer nccl host; do try "$tp" equal --tp "$tp" --exchange "$exchange"; done
    try "$tp" equal --tp "$tp" --exchange peer --long-prefill-token-threshold 100
    try "$tp" equal --tp "$tp" --exchange peer --enforce-eager
    [[ $model == dense ]] || for exchange in nccl host; do try "$tp" equal --ep "$tp" --exchange "$exchange"; done
  done
  try 2 equal --pp 2 --exchange nccl
  try 2 different --tp 2 --exchange peer --control-arm rank-order-all-reduce
done
((failures == 0)) || { echo "$failures runs failed"; exit 1; }
