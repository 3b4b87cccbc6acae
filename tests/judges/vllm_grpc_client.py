#!/usr/bin/env python3
"""A vLLM gateway's view of Invar: the service vllm.grpc.engine.VllmEngine through stubs that others generated.

Starts `invar serve` with the demo model, asks it through invar.v1 (`invar complete`) and through the stubs of PyPI's smg-grpc-proto,
streamed and whole, alone and in company, and compares the digests of the answers' token ids. With --gateway it also puts the
gateway itself (PyPI's smg) in front and compares the texts it gives over HTTP.

  python3 -m venv V && V/bin/pip install smg-grpc-proto grpcio-reflection grpcio-health-checking [smg]
  V/bin/python tests/judges/vllm_grpc_client.py INVAR [--gateway]
"""
import argparse
import concurrent.futures
import hashlib
import io
import json
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import zipfile

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from smg_grpc_proto import vllm_engine_pb2 as pb
from smg_grpc_proto import vllm_engine_pb2_grpc
from smg_grpc_proto.generated import common_pb2

SERVICE = "vllm.grpc.engine.VllmEngine"
MODEL = pathlib.Path(__file__).resolve().parents[2] / "configs/models/demo-moe"
PROMPTS = ["once upon a time", "It is a truth universally acknowledged, that a single man in possession of a good fortune",
           "the captain looked at the sea and said", "tom and his dog"]
failures = checks = 0


def check(what, good, seen=""):
    global failures, checks
    failures += not good
    checks += 1
    print(f"{'ok    ' if good else 'FAILED'} {what}{'' if good else f': {seen}'}")


def digest(ids):
    return hashlib.sha256(b"".join(i.to_bytes(4, "little") for i in ids)).hexdigest()[:16]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def sampling_of(i):
    """Two greedy, two drawn; one with two choices and a stop string."""
    if i % 2 == 0:
        return {"temperature": 0, "max_tokens": 24}
    return {"temperature": 0.875, "top_p": 0.9375, "top_k": 40, "min_p": 0.03125, "seed": 7 + i, "max_tokens": 20, "n": 1 + i // 2,
            "repetition_penalty": 1.125, "presence_penalty": 0.25, "frequency_penalty": 0.5, "skip_special_tokens": True}


def through_invar(invar, address, ids):
    """The same requests through invar.v1: ids and digest of each choice."""
    lines = []
    for i, prompt in enumerate(ids):
        # An absent field is generation_config.json's there and the interface's own default here.
        sampling = {"top_k": 0, "top_p": 1, "min_p": 0, "repetition_penalty": 1, **sampling_of(i)}
        lines.append(json.dumps({"prompt_token_ids": {"ids": list(prompt)}, "sampling_params": sampling}))
    done = subprocess.run([invar, "complete", "--server", address, "--wait", "60", "--input", "-"], input="\n".join(lines), text=True,
                          stdout=subprocess.PIPE, timeout=120, check=True)
    return [[(c["token_ids"], c["response_digest"]) for c in sorted(json.loads(line)["choices"], key=lambda c: c.get("index", 0))]
            for line in done.stdout.splitlines()]


def ask(stub, prompt, sampling, stream, request_id):
    """(ids of each choice, the Complete messages, trailers)"""
    call = stub.Generate(pb.GenerateRequest(request_id=request_id, stream=stream, sampling_params=pb.SamplingParams(**sampling),
                                            tokenized=pb.TokenizedInput(input_ids=prompt)), timeout=60)
    chunks, ends = {}, {}
    for response in call:
        if response.HasField("chunk"):
            chunks.setdefault(response.chunk.index, []).extend(response.chunk.token_ids)
        else:
            ends[response.complete.index] = response.complete
    ids = [list(ends[i].output_ids) for i in sorted(ends)]
    if stream and [chunks.get(i, []) for i in sorted(ends)] != ids:
        raise AssertionError("the chunks do not make the whole")
    return ids, ends, {k: v for k, v in call.trailing_metadata()}


def refused(call):
    try:
        call()
    except grpc.RpcError as error:
        return error.code(), error.details()
    return grpc.StatusCode.OK, ""


def judge(invar, address):
    channel = grpc.insecure_channel(address)
    stub = vllm_engine_pb2_grpc.VllmEngineStub(channel)
    deadline = time.time() + 60
    while time.time() < deadline:
        try:
            if stub.HealthCheck(pb.HealthCheckRequest(), timeout=2).healthy:
                break
        except grpc.RpcError:
            pass
        time.sleep(0.2)
    check("HealthCheck is healthy", stub.HealthCheck(pb.HealthCheckRequest(), timeout=5).healthy)
    status = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=SERVICE), timeout=5).status
    check(f"grpc.health.v1 of {SERVICE} is SERVING", status == health_pb2.HealthCheckResponse.SERVING, status)
    services = ProtoReflectionDescriptorDatabase(channel).get_services()
    check("reflection lists it", SERVICE in services and "invar.v1.Invar" in services, services)

    model = stub.GetModelInfo(pb.GetModelInfoRequest(), timeout=5)
    config = json.loads((MODEL / "config.json").read_text())
    check("GetModelInfo", model.is_generation and model.vocab_size == config["vocab_size"] and model.served_model_name == "demo" and
          list(model.architectures) == config["architectures"] and pathlib.Path(model.model_path) == MODEL, model)
    server = stub.GetServerInfo(pb.GetServerInfoRequest(), timeout=5)
    check("GetServerInfo", server.data_parallel_size == 1 and server.block_size == 16 and server.max_num_seqs > 0, server)
    chunks = list(stub.GetTokenizer(common_pb2.GetTokenizerRequest(), timeout=20))
    archive = b"".join(c.data for c in chunks)
    inside = zipfile.ZipFile(io.BytesIO(archive))
    check("GetTokenizer", chunks[-1].sha256 == hashlib.sha256(archive).hexdigest() and inside.testzip() is None and
          inside.read("tokenizer.json") == (MODEL / "tokenizer.json").read_bytes())

    done = subprocess.run([invar, "tokenize", str(MODEL), "--add-special-tokens"], input="\n".join(map(json.dumps, PROMPTS)), text=True,
                          stdout=subprocess.PIPE, check=True)
    ids = [json.loads(line) for line in done.stdout.splitlines()]
    for i, text in enumerate(PROMPTS):
        end = [r.complete for r in stub.Generate(pb.GenerateRequest(request_id=f"text{i}", text=text, sampling_params=pb.SamplingParams(
            temperature=0, max_tokens=24)), timeout=60)][-1]
        check(f"text input {i}: prompt_tokens", end.prompt_tokens == len(ids[i]), (end.prompt_tokens, ids[i]))

    ours = through_invar(invar, address, ids)
    for stream in (True, False):
        for i, prompt in enumerate(ids):
            got, ends, trailers = ask(stub, prompt, sampling_of(i), stream, f"alone{i}{stream}")
            wanted = [c[0] for c in ours[i]]
            check(f"{'streamed' if stream else 'whole   '} {i}: {len(got)} choices, digests {' '.join(map(digest, got))}",
                  list(map(digest, got)) == list(map(digest, wanted)), list(map(digest, wanted)))
            check(f"{'streamed' if stream else 'whole   '} {i}: usage",
                  all(e.completion_tokens == len(g) and e.prompt_tokens == len(prompt) for e, g in zip(ends.values(), got)))
            if len(got) == 1:
                check(f"{'streamed' if stream else 'whole   '} {i}: digest in the trailers",
                      trailers.get("invar-response-digest") == ours[i][0][1], trailers)
    with concurrent.futures.ThreadPoolExecutor(24) as pool:
        jobs = [(i % len(ids), pool.submit(ask, stub, ids[i % len(ids)], sampling_of(i % len(ids)), i % 3 > 0, f"crowd{i}")) for i in range(96)]
        different = sum(job.result()[0] != [c[0] for c in ours[i]] for i, job in jobs)
    check("96 at once: the same digests", different == 0, f"{different} differ")
    changed = dict(sampling_of(1), seed=1000)
    check("control arm: another seed, another digest", ask(stub, ids[1], changed, True, "control")[0] != [c[0] for c in ours[1]])

    sampling = dict(sampling_of(0), logprobs=3, prompt_logprobs=1)
    end = ask(stub, ids[0], sampling, False, "logprobs")[1][0]
    lp, plp = end.output_logprobs, end.input_logprobs
    check("logprobs of the answer", list(lp.token_ids) == ours[0][0][0] and len(lp.top_logprobs) == 24 and
          all(t.token_ids[0] == i and t.values[0] == v for t, i, v in zip(lp.top_logprobs, lp.token_ids, lp.token_logprobs)))
    check("logprobs of the prompt", list(plp.token_ids) == ids[0] and not plp.token_logprobs[0].HasField("value") and
          all(p.HasField("value") and p.value <= 0 for p in plp.token_logprobs[1:]))

    stop = ours[0][0][0][9]
    first = ours[0][0][0].index(stop)
    end = ask(stub, ids[0], dict(sampling_of(0), stop_token_ids=[stop]), True, "stop id")[1][0]
    check("stop id", end.finish_reason == "stop" and end.matched_token_id == stop and len(end.output_ids) == first + 1, end)
    end = ask(stub, ids[0], dict(sampling_of(0), stop=["little", "zzz"], skip_special_tokens=True), True, "stop")[1][0]
    check("stop string", end.finish_reason == "stop" and end.matched_stop_str == "little", end)

    def text_of(ids):
        return json.loads(subprocess.run([invar, "tokenize", str(MODEL), "--decode", "--skip-special-tokens"], input=json.dumps(list(ids)), text=True,
                                         stdout=subprocess.PIPE, check=True).stdout)

    end = ask(stub, ids[0], dict(sampling_of(0), choice=pb.ChoiceConstraint(choices=["a whale", "the king"])), True, "choice")[1][0]
    check("choice", text_of(end.output_ids) in ("a whale", "the king") and end.finish_reason == "stop", text_of(end.output_ids))
    end = ask(stub, ids[0], dict(sampling_of(0), regex="[0-9]{3}-[0-9]{2}"), True, "regex")[1][0]
    check("regex", re.fullmatch("[0-9]{3}-[0-9]{2}", text_of(end.output_ids)) is not None, text_of(end.output_ids))
    schema = {"type": "object", "properties": {"age": {"type": "integer", "minimum": 1, "maximum": 99}}, "required": ["age"],
              "additionalProperties": False}
    end = ask(stub, ids[0], dict(sampling_of(0), max_tokens=60, json_schema=json.dumps(schema)), True, "schema")[1][0]
    try:
        age = json.loads(text_of(end.output_ids))
    except ValueError:
        age = None
    check("JSON schema", isinstance(age, dict) and list(age) == ["age"] and 1 <= age["age"] <= 99, text_of(end.output_ids))
    other = ask(stub, ids[0], dict(sampling_of(0), logit_bias={ours[0][0][0][0]: -100.0}), True, "bias")[0][0]
    check("logit_bias", other[0] != ours[0][0][0][0], other)

    def generate(**fields):
        fields.setdefault("tokenized", pb.TokenizedInput(input_ids=ids[0]))
        return refused(lambda: list(stub.Generate(pb.GenerateRequest(request_id="bad", **fields), timeout=20)))

    for name, fields in {
            "temperature": {"sampling_params": pb.SamplingParams(temperature=-1)},
            "top_p": {"sampling_params": pb.SamplingParams(top_p=2)},
            "logprobs": {"sampling_params": pb.SamplingParams(logprobs=-1)},
            "structural_tag": {"sampling_params": pb.SamplingParams(structural_tag="{}")},
            "truncate_prompt_tokens": {"sampling_params": pb.SamplingParams(truncate_prompt_tokens=3)},
            "kv_transfer_params_json": {"kv_transfer_params_json": "{}"},
            "mm_inputs": {"mm_inputs": pb.MultimodalInputs(im_token_id=3)},
            "media_refs": {"media_refs": pb.MediaRefs(items=[pb.MediaRef(url="file:///etc/passwd")])},
            "data_parallel_rank": {"data_parallel_rank": 3},
            "input_ids": {"tokenized": pb.TokenizedInput(input_ids=[2**32 - 1])}}.items():
        code, text = generate(**fields)
        check(f"{name} is refused by name", code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNIMPLEMENTED) and name in text,
              (code, text))
    code, text = refused(lambda: stub.Embed(pb.EmbedRequest(), timeout=5))
    check("Embed is UNIMPLEMENTED", code == grpc.StatusCode.UNIMPLEMENTED and "Embed" in text, (code, text))

    call = stub.Generate(pb.GenerateRequest(request_id="victim", stream=True, tokenized=pb.TokenizedInput(input_ids=ids[0]),
                                            sampling_params=pb.SamplingParams(temperature=0, max_tokens=3500, ignore_eos=True)), timeout=60)
    next(call)
    stub.Abort(pb.AbortRequest(request_ids=["nobody", "victim"]), timeout=5)
    last = [r for r in call][-1].complete
    check("Abort", last.finish_reason == "abort" and len(last.output_ids) < 3500, last.finish_reason)
    load = stub.GetLoads(pb.GetLoadsRequest(), timeout=5)
    check("GetLoads: idle", load.loads[0].num_total_reqs == 0 and load.loads[0].max_total_num_tokens > 0, load)
    check("FlushCache", stub.FlushCache(common_pb2.FlushCacheRequest(), timeout=20).success)


def judge_gateway(invar, address, log):
    """smg in front: what it answers over HTTP is the text that Invar gives."""
    port, metrics = free_port(), free_port()
    gateway = subprocess.Popen([str(pathlib.Path(sys.executable).parent / "smg"), "launch", "--host", "127.0.0.1", "--port", str(port), "--worker-urls",
                                f"grpc://{address}", "--prometheus-port", str(metrics)], stdout=log, stderr=subprocess.STDOUT)
    try:
        def post(path, body):
            request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=60) as reply:
                return reply.read().decode()

        for _ in range(150):
            try:
                models = urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=2).read().decode()
                if '"demo"' in models:
                    break
            except OSError:
                pass
            time.sleep(0.2)
        else:
            return check("the gateway knows the model", False, "not within 30 s")
        for i, text in enumerate(PROMPTS):
            done = subprocess.run([invar, "complete", "--server", address, text, "--temperature", "0", "--max-tokens", "24", "--json"],
                                  text=True, stdout=subprocess.PIPE, check=True)
            answer = json.loads(done.stdout)
            wanted = answer["choices"][0]["text"]
            body = {"model": "demo", "prompt": text, "temperature": 0, "max_tokens": 24}
            whole = json.loads(post("/v1/completions", body))
            check(f"gateway, whole {i}: {digest(wanted.encode())}", whole["choices"][0]["text"] == wanted, (whole, wanted))
            check(f"gateway, usage {i}", whole["usage"]["completion_tokens"] == answer["usage"]["completion_tokens"], whole["usage"])
            lines = post("/v1/completions", dict(body, stream=True)).splitlines()
            pieces = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
            streamed = "".join(c["text"] for p in pieces for c in p["choices"])
            check(f"gateway, streamed {i}", streamed == wanted, (streamed, wanted))
        chat = json.loads(post("/v1/chat/completions", {"model": "demo", "temperature": 0, "max_tokens": 8, "logprobs": True,
                                                        "top_logprobs": 2, "messages": [{"role": "user", "content": "hello"}]}))
        check("gateway, chat with logprobs", len(chat["choices"][0]["logprobs"]["content"]) == 8, chat)
    finally:
        gateway.terminate()
        gateway.wait(30)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("invar", help="the program")
    arguments.add_argument("--gateway", action="store_true", help="put PyPI's smg in front too")
    flags = arguments.parse_args()
    address = f"127.0.0.1:{free_port()}"
    with tempfile.TemporaryFile() as log:
        server = subprocess.Popen([flags.invar, "serve", "--grpc-port", address.rsplit(":", 1)[1], "--no-http", "--model", str(MODEL), "--served-model-name", "demo",
                                   "--num-gpu-blocks-override", "4096"], stdout=log, stderr=subprocess.STDOUT)
        try:
            judge(flags.invar, address)
            if flags.gateway:
                judge_gateway(flags.invar, address, log)
        finally:
            server.terminate()
            server.wait(60)
            if failures:
                log.seek(0)
                print(log.read().decode(errors="replace")[-4000:], file=sys.stderr)
    print(f"{checks} checks, {failures} failures" if failures else f"{checks} checks, all as it should be")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
