"""grpcio against `invar serve`, knowing nothing but what the server's reflection tells: no .proto of this repository is read.

    grpc_client.py GRPC_ADDRESS HTTP_ADDRESS PID       the server is told to end on the way, with the signal an operator sends
"""
import concurrent.futures
import json
import os
import queue
import signal
import struct
import sys
import threading
import time
import urllib.request

import grpc
from google.protobuf import descriptor_pool, json_format, message_factory
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

SERVICES = ["invar.v1.Invar", "vllm.grpc.engine.VllmEngine"]
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
PROMPT = "once upon a time"
checks = 0


def check(what, good, seen=""):
    global checks
    checks += 1
    if not good:
        sys.exit(f"FAILED: {what}: {seen}")


class Reflected:
    """The methods of a service as the server describes them: call(Method, {fields}) -> messages."""

    def __init__(self, channel, pool, service):
        self.channel, self.service = channel, pool.FindServiceByName(service)

    def call(self, method, fields=None, timeout=60):
        m = self.service.methods_by_name[method]
        ask = message_factory.GetMessageClass(m.input_type)
        answer = message_factory.GetMessageClass(m.output_type)
        kind = self.channel.unary_stream if m.server_streaming else self.channel.unary_unary
        stub = kind(f"/{self.service.full_name}/{method}", request_serializer=ask.SerializeToString, response_deserializer=answer.FromString)
        return stub(json_format.ParseDict(fields or {}, ask()), timeout=timeout)

    def generate(self, fields, timeout=60):
        """(responses, ids of each choice, trailers)"""
        call = self.call("Generate", fields, timeout)
        responses = list(call)
        ids = {}
        for choice in (c for r in responses for c in r.choices):
            ids.setdefault(choice.index, []).extend(choice.token_ids)
        return responses, ids, {k: v for k, v in call.trailing_metadata()}


def refused(call):
    try:
        answer = call()
        list(answer) if hasattr(answer, "__iter__") else None
    except grpc.RpcError as error:
        return error.code(), error.details()
    return grpc.StatusCode.OK, ""


def over_http(address, path, body):
    request = urllib.request.Request(f"http://{address}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as reply:
        return json.load(reply)


def judge_reflection(channel):
    database = ProtoReflectionDescriptorDatabase(channel)
    listed = set(database.get_services())
    check("reflection lists the services", listed >= {*SERVICES, "grpc.health.v1.Health"}, listed)
    pool = descriptor_pool.DescriptorPool(database)
    methods = {m.full_name for name in SERVICES for m in pool.FindServiceByName(name).methods}
    check("reflection describes their methods", {"invar.v1.Invar.Generate", "vllm.grpc.engine.VllmEngine.Generate"} <= methods, methods)
    try:
        pool.FindServiceByName("invar.v1.Nobody")
        check("a service that is not there is not described", False)
    except KeyError:
        pass
    return pool


def judge_calls(invar, http):
    sampling = {"temperature": 0, "max_tokens": 24}
    responses, ids, trailers = invar.generate({"prompt": PROMPT, "sampling_params": sampling})
    check("the last response says so", [r.finished for r in responses].index(True) == len(responses) - 1, responses)
    check("24 tokens, counted", len(ids[0]) == 24 == responses[-1].usage.completion_tokens, responses[-1])
    last = responses[-1].choices[0]
    digest = trailers.get("invar-response-digest", "")
    check("the digest is in the trailers and in the last response", len(digest) == 64 and digest == last.response_digest, trailers)
    answer = over_http(http, "/v1/completions", {"prompt": PROMPT, "return_token_ids": True, **sampling})
    check("HTTP's answer has the same digest", answer["invar"]["response_digest"] == digest, (answer, digest))
    check("HTTP's answer has the same tokens", answer["choices"][0]["token_ids"] == ids[0], (answer, ids))
    check("HTTP's answer has the same text", answer["choices"][0]["text"] == "".join(c.text for r in responses for c in r.choices), answer)
    check("trailers name numerics and model", trailers.get("invar-numerics-id") == answer["invar"]["numerics_id"] and
          trailers.get("invar-model-digest") == answer["invar"]["model_digest"], trailers)
    drawn = {"temperature": 0.75, "top_p": 0.875, "top_k": 40, "seed": 11, "max_tokens": 20}
    _, _, mine = invar.generate({"prompt": "call me", "sampling_params": drawn})
    theirs = over_http(http, "/v1/completions", {"prompt": "call me", **drawn})["invar"]["response_digest"]
    check("drawn answers have one digest too", mine["invar-response-digest"] == theirs, (mine, theirs))
    other = invar.generate({"prompt": "call me", "sampling_params": dict(drawn, seed=12)})[2]["invar-response-digest"]
    check("control: another seed, another digest", other != theirs)
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        company = list(pool.map(lambda i: invar.generate({"prompt": [PROMPT, "call me"][i % 2], "sampling_params": [sampling, drawn][i % 2]})[2], range(48)))
    check("48 at once: the same digests", all(t["invar-response-digest"] == [digest, theirs][i % 2] for i, t in enumerate(company)))

    two, ids, trailers = invar.generate({"prompt": PROMPT, "return_receipt": True, "sampling_params": dict(drawn, n=2, logprobs=3)})
    ends = {c.index: c for r in two for c in r.choices if c.finish_reason}
    check("two choices, each with a receipt", sorted(ends) == [0, 1] and all(list(c.receipt.output_token_ids) == ids[i] and
          c.receipt.response_digest == c.response_digest and len(c.receipt.logits_hashes) == len(ids[i]) for i, c in ends.items()), ends)
    logprobs = [l for r in two for c in r.choices if c.index == 0 for l in c.logprobs]
    check("log-probabilities with their bits", [l.chosen.token_id for l in logprobs] == ids[0] and all(len(l.top) == 3 for l in logprobs) and
          all(struct.pack("<f", l.chosen.logprob) == struct.pack("<I", l.chosen.logprob_bits) for l in logprobs), logprobs[:1])

    tokens = invar.call("Tokenize", {"text": PROMPT})
    check("Tokenize and Detokenize", invar.call("Detokenize", {"ids": list(tokens.ids), "skip_special_tokens": True}).text == PROMPT, tokens)
    model = invar.call("GetModelInfo")
    check("GetModelInfo", model.name == "demo" and model.model_digest == answer["invar"]["model_digest"] and model.vocab_size > 0, model)


def judge_errors(invar):
    invalid = grpc.StatusCode.INVALID_ARGUMENT
    for field, value in {"temperature": -1, "top_p": 2, "min_p": -0.5, "n": 0, "top_k": -7, "repetition_penalty": 0, "presence_penalty": 3,
                         "logprobs": -5, "guided_regex": "(", "guided_json": "{", "guided_grammar": "root ::= x", "stop_token_ids": [-1],
                         "allowed_token_ids": [1 << 30]}.items():
        code, text = refused(lambda: invar.call("Generate", {"prompt": "x", "sampling_params": {field: value}}))
        wanted = invalid
        check(f"{field} {value} is refused by name", code == wanted and field in text, (code, text))
    code, text = refused(lambda: invar.call("Generate", {}))
    check("no prompt is refused by name", code == invalid and "prompt" in text, (code, text))
    code, text = refused(lambda: invar.call("Generate", {"prompt_token_ids": {"ids": [1 << 30]}}))
    check("a token id that is none", code == invalid and "prompt_token_ids" in text, (code, text))
    code, text = refused(lambda: invar.call("Generate", {"prompt": "x", "require_model_digest": "ab" * 32}))
    check("another model is refused", code == grpc.StatusCode.FAILED_PRECONDITION and "ab" * 32 in text, (code, text))
    code, text = refused(lambda: invar.call("Abort", {"request_id": "nobody"}))
    check("Abort of nobody", code == grpc.StatusCode.NOT_FOUND and "nobody" in text, (code, text))
    method = invar.channel.unary_unary(f"/{invar.service.full_name}/Nothing")
    check("a method that is not there", refused(lambda: method(b"", timeout=10))[0] == grpc.StatusCode.UNIMPLEMENTED)
    method = invar.channel.unary_stream(f"/{invar.service.full_name}/Generate")
    code, _ = refused(lambda: method(b"\xff\xff\xff\xff", timeout=10))
    check("bytes that are no message", code == grpc.StatusCode.UNIMPLEMENTED, code)  # gRPC's own answer
    code, text = refused(lambda: method(b"\x12" + b"\x80\x80\x80\x04" + b"x" * (8 << 20), timeout=20))  # 8 MiB of prompt
    check("a message that is too long", code == grpc.StatusCode.RESOURCE_EXHAUSTED, (code, text))

    long = {"prompt": PROMPT, "sampling_params": {"temperature": 0, "max_tokens": 3500, "ignore_eos": True}}
    code, _ = refused(lambda: invar.call("Generate", long, timeout=0.3))
    check("the call's deadline", code == grpc.StatusCode.DEADLINE_EXCEEDED, code)
    call = invar.call("Generate", dict(long, request_id="victim"))
    next(call)
    invar.call("Abort", {"request_id": "victim"})
    check("Abort of a stream", refused(lambda: call)[0] == grpc.StatusCode.CANCELLED)
    call = invar.call("Generate", long)
    next(call)
    call.cancel()
    until = time.monotonic() + 10
    while ((stats := invar.call("GetServerInfo").stats).running or stats.waiting) and time.monotonic() < until:
        time.sleep(0.05)
    check("what was cut off is not computed on", not stats.running and not stats.waiting, stats)


def judge_drain(channel, invar, health, pid):
    """SIGTERM: every Watch turns, then the stream that runs ends as if nothing were."""
    turned = queue.Queue()

    def watch(service):
        try:
            for answer in health.Watch(health_pb2.HealthCheckRequest(service=service), timeout=60):
                turned.put((service, answer.status, time.monotonic()))
                if answer.status == NOT_SERVING:
                    return
        except grpc.RpcError as error:
            turned.put((service, error.code(), time.monotonic()))

    for service in SERVICES:
        threading.Thread(target=watch, args=[service], daemon=True).start()
    first = [turned.get(timeout=10) for _ in SERVICES]
    check("Watch says SERVING at once", {(s, status) for s, status, _ in first} == {(s, SERVING) for s in SERVICES}, first)
    call = invar.call("Generate", {"prompt": PROMPT, "sampling_params": {"temperature": 0, "max_tokens": 3500, "ignore_eos": True}})
    first = next(call)
    check("tokens come before the answer is finished", not first.finished, first)
    got = sum(len(c.token_ids) for c in first.choices)
    os.kill(pid, signal.SIGTERM)
    seen = [turned.get(timeout=10) for _ in SERVICES]
    check("Watch turns to NOT_SERVING", {(s, status) for s, status, _ in seen} == {(s, NOT_SERVING) for s in SERVICES}, seen)
    code, text = refused(lambda: invar.call("Generate", {"prompt": "x"}, timeout=10))
    check("a new request is refused while the old one runs", code == grpc.StatusCode.UNAVAILABLE and "drain" in text, (code, text))
    for response in call:
        got += sum(len(c.token_ids) for c in response.choices)
    ended = time.monotonic()
    check("the stream goes on to its end", got == 3500 and call.code() == grpc.StatusCode.OK, (got, call.code()))
    check("its digest is in the trailers", len(dict(call.trailing_metadata()).get("invar-response-digest", "")) == 64)
    check("health turned before the stream ended", max(t for _, _, t in seen) < ended, (seen, ended))


def main():
    address, http, pid = sys.argv[1], sys.argv[2], int(sys.argv[3])
    channel = grpc.insecure_channel(address)
    health = health_pb2_grpc.HealthStub(channel)
    pool = judge_reflection(channel)
    for service in ["", *SERVICES]:
        status = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=10).status
        check(f"health of '{service}'", status == SERVING, status)
    code, _ = refused(lambda: health.Check(health_pb2.HealthCheckRequest(service="nobody"), timeout=10))
    check("health of a service that is not there", code == grpc.StatusCode.NOT_FOUND, code)
    invar = Reflected(channel, pool, SERVICES[0])
    judge_calls(invar, http)
    judge_errors(invar)
    judge_drain(channel, invar, health, pid)
    print(f"grpcio {grpc.__version__}: {checks} checks, all as it should be")


main()
