#!/usr/bin/env python3
"""Procedures by which others judge determinism, against a running server.

  single, mixed, prefix, radix   SGLang's deterministic test: copies of a prompt in growing batches; three prompts in random
                                 proportions; prefixes of one long prompt; cached against fresh prefill, and prefill against decode
  needle, logprobs               vLLM's batch invariance tests: one fixed prompt at a random place of random batches; log-probabilities
                                 of a prompt alone and in a batch, bit for bit
  thousand                       Thinking Machines' test: a thousand completions of one prompt at temperature 0

Each prints how many different answers it saw and exits with 1 where there is more than one for the same request.

  batch_invariance.py http://localhost:8000 --trials 50
"""
import argparse
import concurrent.futures
import json
import random
import struct
import sys
import urllib.request

WORDS = ("once upon a time there was little girl who wanted to see the sea and old whale that could not sing until morning came "
         "over hill where king had lost his ring in dark forest near river").split()
SHORT = "once upon a time"
MEDIUM = "the captain looked at the sea and said to the men who stood around him that"


class Server:
    def __init__(self, url, timeout):
        self.url, self.timeout = url.rstrip("/"), timeout

    def post(self, path, body):
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=self.timeout) as reply:
                return json.load(reply) if reply.headers.get_content_type() == "application/json" else reply.read()
        except urllib.error.HTTPError as error:
            sys.exit(f"{path}: {error.code} {error.read().decode(errors='replace')[:500]}")

    def generate(self, texts, tokens, temperature=0.0, seed=42):
        """Answers to a batch as (text, bits of each token's log-probability)."""
        body = {"text": texts, "return_logprob": True,
                "sampling_params": {"temperature": temperature, "max_new_tokens": tokens, "sampling_seed": seed, "ignore_eos": True}}
        return [(a["text"], tuple(bits(p[0]) for p in a["meta_info"]["output_token_logprobs"])) for a in self.post("/generate", body)]

    def flush(self):
        self.post("/flush_cache", {})

    def complete(self, prompt, tokens, **more):
        return self.post("/v1/completions", {"prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": True, **more})


def bits(value):
    return struct.pack("<f", value).hex()


def story(rng, words):
    return " ".join(rng.choice(WORDS) for _ in range(words))


class Verdicts:
    def __init__(self):
        self.failed = False

    def show(self, name, answers):
        """answers: request -> the set of different answers seen."""
        for request, seen in answers.items():
            good = len(seen) == 1
            self.failed |= not good
            print(f"{name:9} {request:34} unique answers: {len(seen)}{'' if good else '   DIFFER'}", flush=True)


def batches(server, wanted, requests):
    """Sends batches of (name, text) and collects the different answers by name."""
    seen = {}
    for batch in requests:
        for (name, _), answer in zip(batch, server.generate([text for _, text in batch], wanted)):
            seen.setdefault(name, set()).add(answer)
    return seen


def single(server, o, rng):
    return batches(server, o.tokens, ([("one prompt", SHORT)] * n for n in range(1, o.trials + 1)))


def mixed(server, o, rng):
    prompts = [("short", SHORT), ("medium", MEDIUM), ("long", story(random.Random(1), o.longest // 2))]
    return batches(server, o.tokens, ([rng.choice(prompts) for _ in range(rng.randint(1, 24))] for _ in range(o.trials)))


def prefix(server, o, rng):
    whole = story(random.Random(2), o.longest).split()
    cuts = [(f"{n} words", " ".join(whole[:n])) for n in (1, o.longest // 8 - 1, o.longest // 4, o.longest // 2)]
    return batches(server, o.tokens, ([rng.choice(cuts) for _ in range(rng.randint(1, 16))] for _ in range(o.trials)))


def radix(server, o, rng):
    seen, text = {}, story(random.Random(3), o.longest // 2)
    for _ in range(max(2, o.trials // 10)):
        server.flush()
        for _ in range(2):  # fresh, then from the cache
            seen.setdefault("fresh and cached prefill", set()).add(server.generate([text], o.tokens)[0])
    # The same tokens decoded one by one, and read as a prompt.
    decoded = server.complete(text, o.tokens, logprobs=0, return_token_ids=True)["choices"][0]
    server.flush()
    ids = server.post("/tokenize", {"prompt": text})["tokens"] + decoded["token_ids"]
    echoed = server.complete(ids, 1, logprobs=0, echo=True)["choices"][0]["logprobs"]["token_logprobs"]
    n = len(decoded["token_ids"])
    of = lambda values: tuple(bits(v) for v in values)
    seen["prefill and decode"] = {of(decoded["logprobs"]["token_logprobs"]), of(echoed[len(ids) - n:len(ids)])}
    return seen


def needle(server, o, rng):
    def requests():
        yield [("needle", MEDIUM)]
        for _ in range(o.trials):
            batch = [(f"hay {rng.random()}", story(rng, rng.randint(1, o.longest // 2))) for _ in range(rng.randint(1, 31))]
            batch.insert(rng.randint(0, len(batch)), ("needle", MEDIUM))
            yield batch
    seen = batches(server, o.tokens, requests())
    return {"needle": seen["needle"]}


def logprobs(server, o, rng):
    texts = [story(random.Random(i), 4 + 7 * i % (o.longest // 2)) for i in range(24)]
    seen = {}
    for group in ([[t] for t in texts] + [texts, texts[::-1]]):
        for text, answer in zip(group, server.generate(group, o.tokens, temperature=0.6, seed=1234)):
            seen.setdefault(text, set()).add(answer)
    return {"alone, together, turned round": max(seen.values(), key=len)}


def thousand(server, o, rng):
    ask = lambda _: server.complete(MEDIUM, o.thousand_tokens)["choices"][0]["text"]
    with concurrent.futures.ThreadPoolExecutor(o.concurrency) as pool:  # the first one alone
        return {f"{o.completions} completions": {ask(0), *pool.map(ask, range(o.completions - 1))}}


def main():
    procedures = [single, mixed, prefix, radix, needle, logprobs, thousand]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("procedure", nargs="*", choices=[p.__name__ for p in procedures] + [[]], help="default: all")
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--tokens", type=int, default=24, help="of an answer")
    parser.add_argument("--longest", type=int, default=160, help="words of the longest prompts")
    parser.add_argument("--completions", type=int, default=1000)
    parser.add_argument("--thousand-tokens", type=int, default=128)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--seed", type=int, default=None, help="of the company; default: another one each time")
    parser.add_argument("--timeout", type=float, default=300, help="seconds a request may take")
    o = parser.parse_args()
    server, verdicts = Server(o.url, o.timeout), Verdicts()
    for procedure in procedures:
        if not o.procedure or procedure.__name__ in o.procedure:
            verdicts.show(procedure.__name__, procedure(server, o, random.Random(o.seed)))
    return 1 if verdicts.failed else 0


if __name__ == "__main__":
    sys.exit(main())
