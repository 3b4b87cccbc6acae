#!/usr/bin/env python3
"""A hostile crowd at `invar serve`, while one honest client goes on asking: no abuse may change, stop or much delay its answers, every abuse
must be answered or cut off, and afterwards memory, pages and open files must be where they were.

  abuse.py http://127.0.0.1:8000 --pid PID_OF_THE_SERVER
"""
import argparse
import asyncio
import json
import os
import resource
import socket
import struct
import sys
import time
from urllib.parse import urlparse

HONEST = {"prompt": "once upon a time", "temperature": 0, "max_tokens": 16}
LONG = {"prompt": "once upon a time", "temperature": 0, "max_tokens": 4000, "ignore_eos": True, "stream": True}
TEXT = "/v1/completions"
CHAT = "/v1/chat/completions"


def request(path, body, headers=""):
    data = body if isinstance(body, bytes) else (body if isinstance(body, str) else json.dumps(body)).encode()
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{headers}Content-Length: {len(data)}\r\n\r\n".encode() + data


def nested(levels, opening="[", closing="]", inside="1"):
    return opening * levels + inside + closing * levels


def hostile_bodies():
    """(name, path, body): each must be a 4xx with an error object."""
    deep_schema = {"type": "string"}
    for _ in range(60):
        deep_schema = {"type": "array", "items": deep_schema}
    yield "100,000 lists deep", TEXT, nested(100_000)
    yield "100,000 objects deep", TEXT, nested(100_000, '{"a":', "}")
    yield "opened and never closed", TEXT, "[" * 1_000_000
    yield "65 levels deep", TEXT, '{"prompt": "x", "x": ' + nested(65) + "}"
    yield "invalid UTF-8", TEXT, b'{"prompt": "\xff\xfe\xc3\x28"}'
    yield "overlong UTF-8", TEXT, b'{"prompt": "\xc0\x80"}'
    yield "a surrogate in UTF-8", TEXT, b'{"prompt": "\xed\xa0\x80"}'
    yield "half a surrogate pair", TEXT, '{"prompt": "\\ud800"}'
    yield "invalid UTF-8 in a key", TEXT, b'{"prompt": "x", "\xff": 1}'
    yield "a NUL outside of strings", TEXT, b'{"prompt": "x"}\x00'
    yield "NaN", TEXT, '{"prompt": "x", "temperature": NaN}'
    yield "a number beyond doubles", TEXT, '{"prompt": "x", "temperature": 1e999}'
    yield "10,000 digits", TEXT, '{"prompt": "x", "max_tokens": ' + "9" * 10_000 + "}"
    yield "two values", TEXT, '{"prompt": "x"} {"prompt": "y"}'
    yield "no object", TEXT, '"prompt"'
    yield "nothing", TEXT, ""
    yield "a byte order mark alone", TEXT, b"\xef\xbb\xbf"
    yield "3 MiB of prompt", TEXT, {"prompt": "x " * 1_500_000}
    yield "300,000 token ids", TEXT, {"prompt": [5] * 300_000}
    yield "2,000 prompts", TEXT, {"prompt": ["x"] * 2_000}
    yield "n of a million", TEXT, {"prompt": "x", "n": 1_000_000}
    yield "10,000 stops", TEXT, {"prompt": "x", "stop": ["s%d" % i for i in range(10_000)]}
    yield "a bias of a million", TEXT, {"prompt": "x", "logit_bias": {str(i): 1 for i in range(100_000)}}
    yield "negative ids", TEXT, {"prompt": [-1, -(1 << 40)]}
    yield "a regex that explodes", TEXT, {"prompt": "x", "guided_regex": "(((a{1,1000}){1,1000}){1,1000}){1,1000}"}
    yield "a regex 100,000 deep", TEXT, {"prompt": "x", "guided_regex": "(" * 100_000 + "a" + ")" * 100_000}
    yield "a schema that is no schema", TEXT, {"prompt": "x", "guided_json": {"type": ["nothing"], "items": 3}}
    yield "a reference to nowhere", TEXT, {"prompt": "x", "guided_json": {"$ref": "#/" + "a/" * 10_000}}
    yield "a schema of 60 levels", TEXT, {"prompt": "x", "guided_json": {"a": deep_schema}}
    yield "messages that are none", CHAT, {"messages": [[]] * 10_000}
    yield "content of numbers", CHAT, {"messages": [{"role": "user", "content": [{"type": "text", "text": 7}] * 1_000}]}
    yield "an image", CHAT, {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}]}]}


def hostile_bytes():
    """(name, bytes, status wanted)"""
    yield "5 MiB announced", b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 5242880\r\n\r\n", 413
    yield "more bytes than there are", b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 18446744073709551616\r\n\r\n", 400
    chunk = b"40000\r\n" + b"x" * 0x40000 + b"\r\n"
    yield "5 MiB in chunks", b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk * 20, 413
    yield "a head of 64 KiB", b"GET /health HTTP/1.1\r\nX: " + b"x" * 65536 + b"\r\n\r\n", 431
    yield "10,000 headers", b"GET /health HTTP/1.1\r\n" + b"".join(b"X%d: y\r\n" % i for i in range(10_000)) + b"\r\n", 431
    yield "a path of 64 KiB", b"GET /" + b"x" * 65536 + b" HTTP/1.1\r\n\r\n", 431
    yield "two lengths", b"POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 400
    yield "a length and chunks", b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400
    yield "a chunk of a size that is none", b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n", 400
    yield "TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500), 400
    yield "HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(50), 400
    yield "zeros", bytes(4096), 400
    yield "no HTTP", b"hello\r\n\r\n", 400


class Crowd:
    def __init__(self, options):
        address = urlparse(options.url)
        self.at = (address.hostname, address.port)
        self.pid = options.pid
        self.wrong = []
        self.digests = set()
        self.honest = self.slowest = 0.0
        self.done = False

    def fail(self, what):
        self.wrong.append(what)

    async def open(self):
        return await asyncio.open_connection(*self.at, limit=1 << 24)

    async def answer(self, data, patience=60):
        """Everything until the server closes, or until the answer that Content-Length announces is there."""
        reader, writer = await self.open()
        try:
            try:
                writer.write(data)
                await writer.drain()
            except ConnectionError:
                pass  # it has answered already and closed
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), patience)
            length = next((int(l.split(b":")[1]) for l in head.lower().split(b"\r\n") if l.startswith(b"content-length:")), 0)
            return head + await asyncio.wait_for(reader.readexactly(length), patience)
        finally:
            writer.transport.abort()

    async def ask_honestly(self):
        while not self.done:
            begin = time.monotonic()
            try:
                answer = await self.answer(request(TEXT, HONEST))
                self.digests.add(json.loads(answer.split(b"\r\n\r\n", 1)[1])["invar"]["response_digest"])
            except (OSError, asyncio.TimeoutError, asyncio.IncompleteReadError, ValueError, KeyError) as error:
                self.fail(f"the honest client got no answer: {type(error).__name__} {error}")
            self.honest += 1
            self.slowest = max(self.slowest, time.monotonic() - begin)
            await asyncio.sleep(0.05)

    async def bodies(self):
        for name, path, body in hostile_bodies():
            begin = time.monotonic()
            try:
                answer = await self.answer(request(path, body))
                status = int(answer[9:12])
                error = json.loads(answer.split(b"\r\n\r\n", 1)[1])["error"]["message"]
                if not 400 <= status < 500 or not error or len(answer) > 16384:
                    self.fail(f"{name}: status {status}, {len(answer)} bytes: {answer[:300]!r}")
            except (OSError, asyncio.TimeoutError, asyncio.IncompleteReadError, ValueError, KeyError) as e:
                self.fail(f"{name}: {type(e).__name__} {e}")
            if time.monotonic() - begin > 20:
                self.fail(f"{name}: took {time.monotonic() - begin:.1f} s")

    async def bytes(self):
        for name, data, wanted in hostile_bytes():
            try:
                answer = await self.answer(data)
                if int(answer[9:12]) != wanted:
                    self.fail(f"{name}: wanted {wanted}, got {answer[:200]!r}")
            except (OSError, asyncio.TimeoutError, asyncio.IncompleteReadError) as e:
                self.fail(f"{name}: {type(e).__name__} {e}")

    async def loris(self, begin, piece, wanted):
        """A byte now and then: told 408 when the server's time for a head (30 s) or a body (120 s) is over, or left by us."""
        reader, writer = await self.open()
        writer.write(begin)
        answer = asyncio.ensure_future(reader.read(4096))
        end = time.monotonic() + 40
        while not answer.done() and time.monotonic() < end:
            writer.write(piece)
            await asyncio.wait([answer], timeout=2)
        if answer.done():
            got = answer.exception() or answer.result()
            if wanted is None or not isinstance(got, bytes) or not got.startswith(b"HTTP/1.1 %d" % wanted):
                self.fail(f"slow bytes of {begin[:20]!r}: wanted {wanted}, got {got!r}"[:300])
        elif wanted is not None:
            self.fail(f"slow bytes of {begin[:20]!r}: not cut off within 40 s")
        answer.cancel()
        writer.transport.abort()

    async def lorises(self):
        head = [self.loris(b"GET /health HTTP/1.1\r\nX: ", b"x", 408) for _ in range(200)]
        body = [self.loris(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n", b" ", None) for _ in range(100)]
        await asyncio.gather(*head, *body)

    async def idle(self):
        """A thousand connections that say nothing."""
        before = self.files()
        idle = await asyncio.gather(*(self.open() for _ in range(1000)))
        await asyncio.sleep(1)
        if self.files() < before + 900:
            self.fail(f"control: a thousand connections, but {self.files() - before} more files")
        await self.bodies()  # all goes on
        for _, writer in idle:
            writer.transport.abort()

    async def pipelined(self):
        """Two hundred requests sent at once are answered in order; ten thousand whose answers nobody reads are not all taken."""
        reader, writer = await self.open()
        writer.write(b"".join(b"GET /nowhere%d HTTP/1.1\r\nHost: x\r\nX-Request-Id: r%d\r\n\r\n" % (i, i) for i in range(200)))
        for i in range(200):
            head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)).lower()
            if not head.startswith(b"http/1.1 404") or b"x-request-id: r%d\r\n" % i not in head:
                self.fail(f"pipelined request {i}: {head!r}")
                break
            await reader.readexactly(int(head.split(b"content-length:")[1].split(b"\r\n")[0]))
        writer.transport.abort()
        with socket.create_connection(self.at) as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            s.setblocking(False)
            flood = b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n" * 500_000  # 18 MB
            sent = 0
            end = time.monotonic() + 3
            while sent < len(flood) and time.monotonic() < end:
                try:
                    sent += s.send(flood[sent:sent + 65536])
                except BlockingIOError:
                    await asyncio.sleep(0.01)
                except OSError:
                    break
            if sent == len(flood):
                self.fail("18 MB of pipelined requests were taken from a client that reads nothing")

    async def half_closed(self):
        """A client that ends its side is gone: its request ends, however long it would have been."""
        for i in range(50):
            reader, writer = await self.open()
            writer.write(request(TEXT, LONG if i % 2 else dict(LONG, stream=False)))
            if i % 2:
                await asyncio.wait_for(reader.readuntil(b"data: "), 60)
            writer.write_eof()
            begin = time.monotonic()
            try:
                await asyncio.wait_for(reader.read(), 30)
            except ConnectionError:
                pass
            except asyncio.TimeoutError:
                self.fail(f"a half-closed connection stays open: {time.monotonic() - begin:.0f} s")
            writer.transport.abort()

    async def resets(self):
        """Connections cut with a reset: at once, in a head, in a body, in an answer."""
        whole = request(TEXT, LONG)
        for i in range(2000):
            reader, writer = await self.open()
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.write((b"", whole[:30], whole[:-5], whole)[i % 4])
            if i % 8 == 7:
                await asyncio.wait_for(reader.read(100), 60)
            writer.transport.abort()

    async def deaf(self):
        """Streams and whole answers that nobody reads."""
        crowd = []
        for i in range(60):
            s = socket.socket()
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            s.connect(self.at)
            s.sendall(request(TEXT, dict(LONG, stream=i % 2 == 0, logprobs=5)))
            crowd.append(s)
        await asyncio.sleep(8)
        for s in crowd:
            s.close()

    def files(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def memory(self, key):
        return int(open(f"/proc/{self.pid}/status").read().split(key + ":")[1].split()[0]) / 1024

    async def metric(self, name):
        reader, writer = await self.open()
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        text = (await reader.read()).decode()
        writer.transport.abort()
        return sum(float(line.rsplit(" ", 1)[1]) for line in text.split("\n") if line.startswith((name + "{", name + " ")))

    async def settled(self):
        """(resident MiB, open files, KV pages in use) once nothing runs."""
        end = time.monotonic() + 60
        while await self.metric("invar_num_requests_running") + await self.metric("invar_num_requests_waiting") > 0:
            if time.monotonic() > end:
                self.fail("requests of clients that left still run")
                break
            await asyncio.sleep(0.2)
        await self.answer(request("/flush_cache", "{}"))
        await asyncio.sleep(1)
        pages = await self.metric("invar_kv_cache_pages_used")
        await asyncio.sleep(0.5)
        return self.memory("VmRSS"), self.files(), pages

    async def attack(self, *more):
        await asyncio.gather(self.idle(), self.bytes(), self.pipelined(), self.half_closed(), self.resets(), self.deaf(), *more)


async def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--pid", type=int, required=True)
    crowd = Crowd(parser.parse_args())
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 8192), most))
    honest = asyncio.ensure_future(crowd.ask_honestly())
    for _ in range(2):  # allocators and caches reach their size
        await crowd.attack()
    before = await crowd.settled()
    await crowd.attack(crowd.lorises())
    crowd.done = True
    await honest
    after = await crowd.settled()
    print(f"{crowd.honest:.0f} honest requests, the slowest {crowd.slowest:.2f} s, {len(crowd.digests)} digest; peak {crowd.memory('VmHWM'):.0f} MiB")
    for name, was, now, more in zip(("resident MiB", "open files", "KV pages in use"), before, after, (48, 3, 0)):
        print(f"{name}: {was:g} -> {now:g}")
        if now - was > more:
            crowd.fail(f"{name} grew from {was:g} to {now:g}")
    if len(crowd.digests) != 1:
        crowd.fail(f"the honest client saw {len(crowd.digests)} digests")
    if crowd.slowest > 30:
        crowd.fail(f"the honest client waited {crowd.slowest:.1f} s")
    if after[2]:
        crowd.fail(f"{after[2]:g} KV pages are in use by nobody")
    if crowd.memory("VmHWM") > before[0] + 1024:
        crowd.fail("more than a GiB was taken for the crowd")
    for line in crowd.wrong[:20]:
        print("FAILED:", line[:500])
    return 1 if crowd.wrong else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
