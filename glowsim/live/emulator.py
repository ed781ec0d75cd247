"""``glowsim emulate``: a simulated fleet behind real sockets, in real time.

Every instance has an address of its own, ``/{agent}/{number}``, and beneath it the protocols' paths, ``/run`` for
``{"input", "max_tokens_out", "stream"}``, ``/health``, and ``/metrics`` with vLLM's names. So live mode can be tried
without an agent and without a key. It proves the plumbing; it predicts nothing.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import uvloop
from starlette.types import Receive, Scope, Send

from glowsim.core.streams import Streams
from glowsim.core.types import Plan, Request, Usage
from glowsim.emulation import Drawn, EmulatedAgent, RealTime, agent_worlds
from glowsim.live.calls import Call, InstanceError, InvalidTask, Reply, Serve
from glowsim.live.content import Content
from glowsim.live.gateway import Task, tokens_of
from glowsim.live.protocols import PATHS, BadBody, Protocol
from glowsim.live.server import Server
from glowsim.live.settings import SettingsError
from glowsim.live.shapes import read_as
from glowsim.live.signals import told_to_stop
from glowsim.live.sockets import address_of, listening
from glowsim.live.web import ClientGone, Exchange, Refusal
from glowsim.scenario import Scenario

__all__ = ["Emulator", "emulating", "live_block", "run_emulator"]

_log = logging.getLogger(__name__)
_MOST_BODY_BYTES = 64 * 1024 * 1024
_BODY_WITHIN_S = 30.0
_MAX_TOKENS_OUT = 4096
_MAX_HEADER_BYTES = 64 * 1024
_CONNECTIONS = 100_000


class _Instance:
    def __init__(self, serve: Serve, concurrency: int, timeout_s: float) -> None:
        self.serve = serve
        self.concurrency = concurrency
        self.timeout_s = timeout_s
        self.inside = 0


class Emulator:
    """The instances of a fleet, as an ASGI application.

    Parameters
    ----------
    scenario
        Whose fleet; agents in steps cannot be emulated.
    agent
        Only this agent, as one instance at the root; None: the whole fleet.

    Raises
    ------
    BuildError
        An agent cannot be emulated.
    SettingsError
        There is no such agent.
    RuntimeError
        No event loop is running.
    """

    def __init__(self, scenario: Scenario, agent: str | None = None) -> None:
        loop = asyncio.get_running_loop()
        epoch_s = loop.time()
        clock = RealTime(lambda: loop.time() - epoch_s, lambda t_s: epoch_s + t_s)
        streams = Streams(scenario.seed)
        self._instances: dict[str, _Instance] = {}
        """By what their paths begin with."""
        fleet = list(scenario.agents().items())
        if agent is not None and agent not in dict(fleet):
            raise SettingsError(f"there is no agent {agent!r}; there are {', '.join(dict(fleet))}")
        for number, ((name, entry), world) in enumerate(zip(fleet, agent_worlds(scenario), strict=True)):
            if agent is not None and name != agent:
                continue
            emulated = EmulatedAgent(number, world, Drawn(scenario, name, streams), streams, clock)
            for place in range(entry.instances if agent is None else 1):
                prefix = f"/{name}/{place}" if agent is None else ""
                self._instances[prefix] = _Instance(emulated.instance(), entry.concurrency, entry.timeout_s)
        self._asked = 0
        self._id_prefix = secrets.token_hex(4)

    def prefixes(self) -> list[str]:
        """Return what the instances' paths begin with."""
        return list(self._instances)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one exchange."""
        http = Exchange(scope, receive, send)
        protocol: Protocol | None = None
        try:
            instance, path = self._found(http.path)
            protocol = PATHS.get(path)
            await self._page(http, instance, protocol, path)
        except ClientGone:
            pass
        except Refusal as error:
            await _refuse(http, protocol, error.status, error.message)
        except InvalidTask as error:
            await _refuse(http, protocol, 400, str(error))
        except (InstanceError, TimeoutError) as error:
            if http.begun:
                raise  # the connection breaks in mid-stream, as that of a real instance would
            await _refuse(http, protocol, 500, str(error) or "the emulated attempt took too long")

    async def _page(self, http: Exchange, instance: _Instance, protocol: Protocol | None, path: str) -> None:
        if path == "/health":
            await http.answer(200, b'{"healthy": true}')
        elif path == "/metrics":
            await http.answer(200, _metrics(instance), content_type=b"text/plain; version=0.0.4")
        elif protocol is None and path != "/run":
            raise Refusal(404, f"there is nothing at {http.path[:200]}")
        elif http.method != "POST":
            raise Refusal(405, "use POST here", headers={"Allow": "POST"})
        else:
            await self._serve(http, instance, protocol)

    def _found(self, path: str) -> tuple[_Instance, str]:
        if "" in self._instances:
            return self._instances[""], path
        parts = path.split("/", 3)
        instance = self._instances.get("/".join(parts[:3]))
        if instance is None:
            raise Refusal(404, f"there is no instance at {path[:200]}; instances are at /AGENT/NUMBER")
        return instance, f"/{parts[3]}" if len(parts) > 3 else "/"

    async def _serve(self, http: Exchange, instance: _Instance, protocol: Protocol | None) -> None:
        call = self._call(await http.body(_MOST_BODY_BYTES, _BODY_WITHIN_S), protocol)
        instance.inside += 1
        try:
            async with asyncio.timeout(instance.timeout_s):
                await http.while_there(
                    _stream(http, instance, call) if call.request.stream else _answer(http, instance, call)
                )
        finally:
            instance.inside -= 1

    def _call(self, raw: bytes, protocol: Protocol | None) -> Call:
        """Return what is asked, as one more call: its number decides its truth."""
        self._asked = number = self._asked + 1
        if protocol is None:
            task = read_as(raw, Task)
            content: Any = task.input
            tokens_in, most, streams = tokens_of(task.input), task.max_tokens_out, task.stream
        else:
            try:
                asked = protocol.read(raw)
            except BadBody as error:
                raise Refusal(400, error.message, param=error.param) from None
            content = Content(protocol, asked, f"{self._id_prefix}{number:x}", int(time.time()))
            tokens_in, most, streams = asked.tokens_in, asked.max_tokens_out, asked.stream
        most = most or _MAX_TOKENS_OUT
        request = Request(number, 0, tokens_in, most, stream=streams)
        return Call(number, 0, request, Plan(0, 0, tokens_in, most), content)


async def _answer(http: Exchange, instance: _Instance, call: Call) -> None:
    made = instance.serve(call)
    assert not isinstance(made, AsyncIterator)
    content, usage = await made
    if isinstance(call.task, Content):
        await http.answer(200, content.encode())
    else:
        await http.answer(200, json.dumps({"output": content, "usage": _counts(usage)}).encode())


async def _stream(http: Exchange, instance: _Instance, call: Call) -> None:
    made = instance.serve(call)
    pieces = made if isinstance(made, AsyncIterator) else _at_once(made, call)
    async with aclosing(pieces):  # type: ignore[type-var]  # an async generator
        async for piece in pieces:
            if not http.begun:
                await http.begin_events({})
            if isinstance(call.task, Content):
                await http.piece(piece or ": at work\n\n")
            else:
                await http.piece(f"data: {json.dumps({'delta': piece})}\n\n")
    if not isinstance(call.task, Content):
        await http.piece(f"data: {json.dumps({'done': True, 'usage': _counts(call.usage)})}\n\n")
    await http.end()


async def _at_once(made: Awaitable[Reply], call: Call) -> AsyncIterator[str]:
    reply = await made
    call.usage = reply.usage
    yield reply.content


def _counts(usage: Usage) -> dict[str, int]:
    return {
        "tokens_in": usage.tokens_in,
        "tokens_cached": usage.tokens_cached,
        "tokens_out": usage.tokens_out,
    }


def _metrics(instance: _Instance) -> bytes:
    running = min(instance.inside, instance.concurrency)
    waiting = instance.inside - running
    lines = []
    for name, value in (("num_requests_running", running), ("num_requests_waiting", waiting)):
        lines += [f"# TYPE vllm:{name} gauge", f'vllm:{name}{{model_name="emulated"}} {value}']
    return ("\n".join(lines) + "\n").encode()


async def _refuse(http: Exchange, protocol: Protocol | None, status: int, message: str) -> None:
    said = {"error": {"message": message}} if protocol is None else protocol.error(status, message)
    await http.answer(status, json.dumps(said).encode())


@asynccontextmanager
async def emulating(
    scenario: Scenario, *, host: str = "127.0.0.1", port: int = 0, agent: str | None = None
) -> AsyncIterator[tuple[str, Emulator]]:
    """Serve a simulated fleet while the block lasts; yield its address and the application.

    Raises as `Emulator` does, and `SettingsError` where it cannot listen.
    """
    with listening(host, port) as where:
        emulator = Emulator(scenario, agent)
        server = Server(emulator, max_header_bytes=_MAX_HEADER_BYTES, connections=_CONNECTIONS)
        serving = asyncio.create_task(server.serve([where]))
        try:
            await server.ready.wait()
            yield address_of(host, where), emulator
        finally:
            server.should_exit = True
            await serving


def run_emulator(scenario: Scenario, *, host: str, port: int, agent: str | None) -> None:
    """Serve a simulated fleet until SIGTERM or SIGINT; print where its instances are, as a ``live`` block.

    Raises as `emulating` does.
    """

    async def main() -> None:
        stop = told_to_stop()
        async with emulating(scenario, host=host, port=port, agent=agent) as (address, emulator):
            print(f"glowsim emulates {address}", flush=True)
            if agent is None:
                print(live_block(address, emulator), flush=True)
            await stop.wait()

    uvloop.run(main())


def live_block(address: str, emulator: Emulator) -> str:
    """Return how a daemon reaches an emulated fleet, as a scenario's ``live`` block."""
    urls: dict[str, list[str]] = {}
    for prefix in emulator.prefixes():
        urls.setdefault(prefix.split("/")[1], []).append(address + prefix)
    lines = ["live:", "  agents:"]
    for name, places in urls.items():
        lines += [
            f"    {name}:",
            "      adapter: openai_http",
            "      health: health",
            "      metrics: metrics",
        ]
        lines += ["      urls:", *(f"        - {url}" for url in places)]
    return "\n".join(lines)
