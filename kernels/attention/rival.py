"""Times torch's scaled_dot_product_attention on the cases of kernels_attention_cuda_bench, in the same run on the same GPU.

Usage: python3 rival.py kernels_attention_cuda_bench [part of a case's name]
Keys and values of the rival lie in one piece, without pages.
"""

import subprocess
import sys

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention


def microseconds(f):
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)

    def timed(calls):
        begin.record()
        for _ in range(calls):
            f()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) * 1e3 / calls

    timed(2)
    calls = int(min(200, max(2, 1e4 / timed(2))))
    return sorted(timed(calls) for _ in range(7))[3]


def rival(backend, sequences, context, rows, query_heads, kv_heads, head_dim):
    if rows not in (1, context):
        return None  # torch's causal mask begins at the first key
    draw = lambda heads, length: torch.randn(sequences, heads, length, head_dim, device="cuda", dtype=torch.bfloat16)
    q, k, v = draw(query_heads, rows), draw(kv_heads, context), draw(kv_heads, context)
    with sdpa_kernel(backend):
        return microseconds(
            lambda: scaled_dot_product_attention(q, k, v, is_causal=rows > 1, enable_gqa=query_heads != kv_heads)
        )


def main():
    print("torch", torch.__version__)
    output = subprocess.run([sys.argv[1], "tc"] + sys.argv[2:], capture_output=True, text=True, check=True).stdout
    for line in output.splitlines():
        fields = line.split("|")
        if len(fields) < 3:
            print(line)
            continue
        ours = float(fields[2].split()[0])
        shape = [int(x) for x in fields[1].split()]
        text = ""
        for name, backend in (("flash", SDPBackend.FLASH_ATTENTION), ("cuDNN", SDPBackend.CUDNN_ATTENTION)):
            try:
                other = rival(backend, *shape) if "+" not in fields[0] else None
                text += "" if other is None else f" | {name} {other:.1f} us: {other / ours:.2f} of its rate"
            except RuntimeError as error:
                text += f" | {name}: {str(error).splitlines()[0][:40]}"
        print(line + text, flush=True)


if __name__ == "__main__":
    main()
