"""A daemon in a thread of its own, and clients that speak to it in bytes.

Whatever is sent is followed by a probe: a clean request that ends the connection. So every conversation ends, and an
answer that is out of step with its request is seen, for then the probe's is not the last.
"""

from __future__ import annotations

import asyncio
import io
import json
import logging
import threading
from contextlib import contextmanager
from http.client import HTTPResponse
from types import SimpleNamespace
from typing import NamedTuple

import pytest

TEXT = """
title: A small fleet that is well
question: Does it stand whatever it is sent?
seed: 1
duration: 10s
regions: [eu, us]
models:
  m: {input: $1/1M, output: $2/1M}
fleet:
  - {agent: tax, model: m, instances: 2, concurrency: 100, timeout: 20s, service: {law: time, time: 1ms}}
workload:
  - {kind: poisson, rate: 1/s, agents: all, tokens_in: 100, tokens_out: 20}
"""
PROBE = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
HEALTHY = b'{"healthy":true}'
ASKED = {"model": "tax", "messages": [{"role": "user", "content": "What is due?"}], "max_tokens": 3}


class Said(NamedTuple):
    """One answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self):
        return json.loads(self.body)

    def error(self):
        """Return the message of an error, in whichever protocol's shape."""
        return self.json()["error"]["message"]


class _Bytes(io.BytesIO):
    def makefile(self, mode):
        return self

    def close(self):
        pass


def answers(raw):
    """Return the answers that some bytes are, whole and one after the other."""
    source, found = _Bytes(raw), []
    while source.tell() < len(raw):
        one = HTTPResponse(source)
        one.begin()
        if one.status >= 200:
            assert one.chunked or one.length is not None, raw
        body = one.read() if one.status >= 200 else b""
        found.append(Said(one.status, {name.lower(): value for name, value in one.getheaders()}, body))
    return found


def post(body, *headers, path="/v1/chat/completions", length=True, host="localhost"):
    """Return a request as bytes; a body that is no bytes becomes JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", f"Host: {host}", "Content-Type: application/json", *headers]
    lines += [f"Content-Length: {len(data)}"] if length else []
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + data


def chunked(*chunks, trailers=b""):
    """Return a body in chunks."""
    return b"".join(b"%x\r\n%s\r\n" % (len(each), each) for each in chunks) + b"0\r\n" + trailers + b"\r\n"


async def conversation(port, *pieces, probe=True):
    """Return the answers to some bytes and to the probe; a connection that is reset has said what it had said."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    heard = bytearray()

    async def listen():
        try:
            while piece := await reader.read(65536):
                heard.extend(piece)
        except ConnectionError:
            pass

    listening = asyncio.create_task(listen())
    try:
        for piece in (*pieces, PROBE) if probe else pieces:
            writer.write(piece)
            await writer.drain()
    except ConnectionError:
        pass
    await listening
    writer.close()
    return answers(bytes(heard))


def conversations(port, many, probe=True):
    """Return the answers to many conversations, of which a hundred are under way at once."""

    async def main():
        turn = asyncio.Semaphore(100)

        async def one(pieces):
            async with turn, asyncio.timeout(60.0):
                return await conversation(port, *pieces, probe=probe)

        return await asyncio.gather(*map(one, many))

    return asyncio.run(main())


@contextmanager
def running(folder, text=TEXT, environment=None, *, allow_plugins=False, **given):
    """Run a daemon in a thread; it ends with the block, and its journal replays."""
    from glowsim import build
    from glowsim.core.journal import first_difference, read
    from glowsim.core.streams import Streams
    from glowsim.live.daemon import serving
    from glowsim.live.settings import settings
    from glowsim.scenario import load

    scenario, path = load(text), folder / "fleet.journal"
    chosen = settings(
        environment=environment or {}, journal_path=path, port=0, admin_port=0, grace_s=4.0,
        tokens=scenario.live.tokens is not None, **given,
    )  # fmt: skip
    there, told = threading.Event(), []

    async def main():
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        async with serving(scenario, chosen, folder=folder, allow_plugins=allow_plugins) as daemon:
            told.append((daemon, loop, stop))
            there.set()
            await stop.wait()

    def thread():
        try:
            asyncio.run(main())
        except BaseException as error:
            told.append(error)
            there.set()
            raise

    serves = threading.Thread(target=thread)
    serves.start()
    there.wait()
    if isinstance(told[0], BaseException):
        serves.join()
        raise told[0]
    daemon, loop, stop = told[0]

    def call(function):
        """Return what a function returns on the daemon's own loop."""

        async def work():
            return function()

        return asyncio.run_coroutine_threadsafe(work(), loop).result()

    try:
        yield SimpleNamespace(
            address=daemon.address, admin_address=daemon.admin_address, driver=daemon.driver, path=path,
            port=int(daemon.address.rpartition(":")[2]), admin_port=int(daemon.admin_address.rpartition(":")[2]),
            call=call,
        )  # fmt: skip
    finally:
        loop.call_soon_threadsafe(stop.set)
        serves.join()
    fresh = build.control_plane(scenario, Streams(scenario.seed), fall_back=True)
    assert first_difference(read(path), fresh) is None


@pytest.fixture(scope="session")
def hostile():
    """What speaks to a daemon in bytes, by name."""
    return SimpleNamespace(
        running=running, conversations=conversations, answers=answers, post=post, chunked=chunked, TEXT=TEXT,
        PROBE=PROBE, HEALTHY=HEALTHY, ASKED=ASKED, Said=Said,
    )  # fmt: skip


@pytest.fixture
def unharmed(caplog):
    """See to it that a test leaves no error in the log."""
    with caplog.at_level(logging.WARNING):
        yield
    errors = [each for each in caplog.records if each.levelno >= logging.ERROR]
    assert not errors, [each.getMessage() for each in errors]
