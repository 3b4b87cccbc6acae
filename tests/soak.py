#!/usr/bin/env python3
"""An hour of trouble in small: short requests, some cancelled, some read slowly, some bad, some no HTTP at all; then everything must be
back where it was, and each kind of request must have had one answer.

  soak.py http://localhost:8000 --pid PID_OF_THE_SERVER [--requests 10000] [--at-once 96]
"""
import argparse
import asyncio
import json
import os
import random
import sys
import time
from urllib.parse import urlparse

PROMPTS = ["once upon a time", "the captain looked", "call me", "there was a little girl", "in the forest", "she said", "the sea"]
BAD = [  # (path, body, status wanted)
    ("/v1/completions", '{"prompt": "x", "temperature": -1}', 400),
    ("/v1/completions", '{"prompt": "x", "max_tokens": "many"}', 400),
    ("/v1/completions", '{"prompt": 7}', 400),
    ("/v1/completions", '{"prompt": "x", ', 400),
    ("/v1/chat/completions", '{"messages": [{"role": "user"}]}', 400),
    ("/v1/chat/completions", '{"messages": [{"role": "user", "content": "x"}], "guided_regex": "(", "max_tokens": 4}', 400),
    ("/v1/completions", '{"prompt": "x", "model": "another"}', 404),
    ("/generate", '{"sampling_params": {}}', 400),
    ("/nowhere", "{}", 404),
]
RUBBISH = [b"\x16\x03\x01\x02\x00\x01\x00", b"GET\r\n\r\n", b"POST /v1/completions HTTP/1.1\r\nContent-Length: -4\r\n\r\n", b"\x00" * 64,
           b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\n\r\n{"]


def kinds(count):
    """Requests whose answers are known to be the same each time."""
    rng = random.Random(1)
    for i in range(count):
        yield {"prompt": rng.choice(PROMPTS) + " " + rng.choice(PROMPTS) * rng.randint(0, 6), "max_tokens": rng.randint(1, 12),
               "temperature": rng.choice([0, 0.7, 1.2]), "seed": i, "stream": True, "ignore_eos": rng.random() < 0.5}


class Soak:
    def __init__(self, options):
        self.o = options
        address = urlparse(options.url)
        self.host, self.port = address.hostname, address.port
        self.kinds = list(kinds(60))
        self.digests = [set() for _ in self.kinds]
        self.seen = dict.fromkeys(("answered", "cancelled", "slow", "bad", "rubbish"), 0)
        self.wrong = []

    async def send(self, path, body, content="application/json"):
        reader, writer = await asyncio.open_connection(self.host, self.port)
        data = body.encode()
        writer.write(f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: {content}\r\n"
                     f"Content-Length: {len(data)}\r\n\r\n".encode() + data)
        return reader, writer

    async def one(self, rng):
        await getattr(self, rng.choices(["answered", "cancelled", "slow", "bad", "rubbish"], [70, 12, 4, 10, 4])[0])(rng)

    async def answered(self, rng, pause=0.0):
        number = rng.randrange(len(self.kinds))
        reader, writer = await self.send("/v1/completions", json.dumps(self.kinds[number]))
        answer = b""
        while piece := await asyncio.wait_for(reader.read(128 if pause else 65536), self.o.patience):
            answer += piece
            if pause:
                await asyncio.sleep(pause)
        writer.close()
        text = answer.decode(errors="replace")
        at = text.rfind('"response_digest":')
        if not text.startswith("HTTP/1.1 200") or at < 0 or "data: [DONE]" not in text:
            self.wrong.append(f"no whole answer: {text[:300]!r}")
        else:
            self.digests[number].add(text[at + 18:].split('"')[1])
        self.seen["slow" if pause else "answered"] += 1

    async def slow(self, rng):
        await self.answered(rng, pause=0.01)

    async def cancelled(self, rng):
        request = dict(rng.choice(self.kinds), max_tokens=400, ignore_eos=True)
        reader, writer = await self.send("/v1/completions", json.dumps(request))
        for _ in range(rng.randint(0, 4)):
            await asyncio.wait_for(reader.read(512), self.o.patience)
        writer.transport.abort()  # no farewell
        self.seen["cancelled"] += 1

    async def bad(self, rng):
        path, body, status = rng.choice(BAD)
        reader, writer = await self.send(path, body)
        answer = await asyncio.wait_for(reader.read(), self.o.patience)
        writer.close()
        if not answer.startswith(f"HTTP/1.1 {status}".encode()) or b'"error"' not in answer:
            self.wrong.append(f"{path} {body}: wanted {status}, got {answer[:200]!r}")
        self.seen["bad"] += 1

    async def rubbish(self, rng):
        _, writer = await asyncio.open_connection(self.host, self.port)
        writer.write(rng.choice(RUBBISH))
        await asyncio.sleep(rng.random() * 0.1)
        writer.transport.abort()
        self.seen["rubbish"] += 1

    async def run(self, count, seed):
        rng, left = random.Random(seed), iter(range(count))

        async def worker():
            for _ in left:
                try:
                    await self.one(rng)
                except (OSError, asyncio.TimeoutError) as error:
                    self.wrong.append(f"{type(error).__name__}: {error}")

        await asyncio.gather(*(worker() for _ in range(self.o.at_once)))

    async def metric(self, name):
        reader, writer = await asyncio.open_connection(self.host, self.port)
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        text = (await reader.read()).decode()
        writer.close()
        return sum(float(line.rsplit(" ", 1)[1]) for line in text.split("\n") if line.startswith(name + "{") or line.startswith(name + " "))

    async def settled(self):
        """What the server holds once nothing runs: KV pages in use beyond the cache's, resident MiB, open files."""
        end = time.monotonic() + self.o.patience
        while await self.metric("invar_num_requests_running") + await self.metric("invar_num_requests_waiting") > 0:
            if time.monotonic() > end:
                self.wrong.append("requests still run after everybody left")
                break
            await asyncio.sleep(0.1)
        _, writer = await self.send("/flush_cache", "{}")
        await asyncio.sleep(0.5)
        writer.close()
        await asyncio.sleep(0.5)
        status = open(f"/proc/{self.o.pid}/status").read()
        resident = int(status.split("VmRSS:")[1].split()[0]) / 1024
        return await self.metric("invar_kv_cache_pages_used"), resident, len(os.listdir(f"/proc/{self.o.pid}/fd"))


async def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--pid", type=int, required=True)
    parser.add_argument("--requests", type=int, default=10000)
    parser.add_argument("--at-once", type=int, default=96)
    parser.add_argument("--patience", type=float, default=120, help="seconds an answer may take")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    soak = Soak(parser.parse_args())
    print(f"seed {soak.o.seed}", flush=True)
    await soak.run(soak.o.requests // 4, soak.o.seed)  # allocators and caches reach their size
    before = await soak.settled()
    begin = time.monotonic()
    await soak.run(soak.o.requests - soak.o.requests // 4, soak.o.seed + 1)
    seconds = time.monotonic() - begin
    after = await soak.settled()
    print(f"{soak.seen}, {soak.o.requests * 3 // 4 / seconds:.0f} requests a second")
    for name, was, now, most in zip(("KV pages in use", "resident MiB", "open files"), before, after, (0, 24, 3)):
        print(f"{name}: {was:g} -> {now:g}")
        if now - was > most:
            soak.wrong.append(f"{name} grew from {was:g} to {now:g}")
    several = [i for i, seen in enumerate(soak.digests) if len(seen) > 1]
    if several:
        soak.wrong.append(f"requests with more than one digest: {several}")
    if sum(map(bool, soak.digests)) < len(soak.kinds) or min(soak.seen.values()) == 0:
        soak.wrong.append("not every kind of request was seen")
    if await soak.metric("invar_num_requests_running") or await soak.metric("invar_kv_cache_pages_used"):
        soak.wrong.append("pages or requests are left")
    for line in soak.wrong[:10]:
        print("FAILED:", line)
    return 1 if soak.wrong else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
