"""How fast the gateway is, as ratios to a bare proxy on the same machine, in the same minute.

Ways to the same agent that answers at once, each a process of its own on loopback:

``direct``: the client asks the agent.
``bare_proxy``: an aiohttp server that hands every body to one aiohttp client session.
``gateway``: ``glowsim serve`` with a controller of every family, the journal on.
``litellm``: LiteLLM's proxy, where it is installed: one worker, one model, neither database nor keys.

A closed loop of clients on kept-alive connections asks as fast as it is answered; the CPU time of the process in the
middle is read from the operating system, since it survives noisy neighbours better than the rate does. Then the same
requests arrive at a fixed rate, and latency counts from the moment at which each was due.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from aiohttp import ClientSession, TCPConnector, web
from ruamel.yaml import YAML

from glowsim.bench import stack_scenario
from glowsim.core.errors import GlowsimError

__all__ = ["bench_gateway", "beside"]

_PATH = "/v1/chat/completions"
_MESSAGES = [{"role": "user", "content": "What is due in May? " * 4}]
_QUESTION = json.dumps({"model": "only", "messages": _MESSAGES, "max_tokens": 64}).encode()
_PEER_NEEDS = ("litellm", "fastapi", "uvicorn", "httptools", "opentelemetry-sdk")
_PEER_STARTS_WITHIN_S = 180.0
_ANSWER = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "The return. " * 25}, "finish_reason": "stop"}
        ],
        "usage": {"prompt_tokens": 24, "completion_tokens": 64, "total_tokens": 88},
    }
).encode()  # fmt: skip


def bench_gateway(
    *, rounds: int = 3, clients: int = 32, seconds: float = 4.0, rate_per_s: float = 200.0, peer: Path | None = None
) -> dict[str, Any]:  # fmt: skip
    """Measure all ways in turn, several times; return medians and their ratios.

    Parameters
    ----------
    rounds
        How often, at least 1.
    clients
        Connections of the closed loop, at least 1.
    seconds
        How long each measurement takes, above 0.
    rate_per_s
        Of the open loop, above 0.
    peer
        The executable ``litellm`` of an environment with LiteLLM's proxy, OpenTelemetry and httptools; None: it is
        left out.

    Returns
    -------
    For each way ``requests_per_s``, ``cpu_us`` (CPU time of the process in the middle for a request), ``rss_mb``, and
    ``p50_ms`` and ``p99_ms`` at the fixed rate; the gateway's ``ratios`` to the bare proxy and, as ``of_litellm`` and
    ``cpu_of_litellm``, to the peer; and the ``versions`` in the peer's environment.

    Raises
    ------
    GlowsimError
        A process did not start, or the peer's environment lacks something.
    """
    versions = {} if peer is None else _versions(peer)
    ways = ("direct", "bare_proxy", "gateway", *(("litellm",) if peer else ()))
    measured: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as folder, _process("agent") as (agent, agent_id):
        for _ in range(rounds):
            measured["direct"].append(_measure(agent, agent_id, clients, seconds, rate_per_s))
            with _process("proxy", agent) as (proxy, proxy_id):
                measured["bare_proxy"].append(_measure(proxy, proxy_id, clients, seconds, rate_per_s))
            with _gateway(Path(folder), agent) as (gateway, gateway_id):
                measured["gateway"].append(_measure(gateway, gateway_id, clients, seconds, rate_per_s))
            if peer is not None:
                with _litellm(peer, Path(folder), agent) as (proxy, proxy_id):
                    measured["litellm"].append(_measure(proxy, proxy_id, clients, seconds, rate_per_s))
    figures: dict[str, Any] = {
        name: {key: median(each[key] for each in rows) for key in rows[0]} for name, rows in measured.items()
    }
    pairs = list(zip(measured["gateway"], measured["bare_proxy"], measured["direct"], strict=True))
    figures["ratios"] = {
        "requests_per_s": median(mine["requests_per_s"] / bare["requests_per_s"] for mine, bare, _ in pairs),
        "cpu": median(bare["cpu_us"] / mine["cpu_us"] for mine, bare, _ in pairs),
        "added_p99_ms": median(mine["p99_ms"] - direct["p99_ms"] for mine, _, direct in pairs),
    }
    if peer is not None:
        others = list(zip(measured["gateway"], measured["litellm"], strict=True))
        figures["ratios"] |= {
            "of_litellm": median(mine["requests_per_s"] / its["requests_per_s"] for mine, its in others),
            "cpu_of_litellm": median(its["cpu_us"] / mine["cpu_us"] for mine, its in others),
        }
        figures["versions"] = versions
    return figures


def beside() -> Path | None:
    """Return the executable ``litellm`` of this Python's own environment, or None."""
    found = shutil.which("litellm", path=str(Path(sys.executable).parent))
    return None if found is None else Path(found)


def _versions(peer: Path) -> dict[str, str]:
    """Return the versions of what the peer's environment needs."""
    code = (
        "import importlib.metadata as m, json, sys\n"
        "known = {each.name.lower(): each.version for each in m.distributions() if each.name}\n"
        "print(json.dumps({name: known.get(name) for name in sys.argv[1:]}))"
    )
    python = peer.absolute().with_name("python")
    try:
        done = subprocess.run(  # noqa: S603  # the user's own choice, no shell
            [str(python), "-I", "-c", code, *_PEER_NEEDS], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise GlowsimError(
            f"{peer} has no Python beside it that runs: give the litellm of an environment"
        ) from error
    found: dict[str, str | None] = json.loads(done.stdout)
    missing = [name for name, version in found.items() if version is None]
    if missing:
        raise GlowsimError(
            f"the environment of {peer} lacks {', '.join(missing)}: install 'litellm[proxy]', opentelemetry-sdk and "
            "httptools there"
        )
    return {name: version for name, version in found.items() if version is not None}


@contextmanager
def _process(role: str, *arguments: str) -> Iterator[tuple[str, int]]:
    """Run a server of this module beside this process; yield its address and its process."""
    with _started([sys.executable, "-m", __name__, role, *arguments], r"(http://\S+)") as found:
        yield found


@contextmanager
def _gateway(folder: Path, agent: str) -> Iterator[tuple[str, int]]:
    scenario = folder / "bench.yaml"
    said = stack_scenario(1000).dump()
    said["fleet"][0] |= {"instances": 4, "concurrency": 64, "slots": 64, "timeout": "30s"}
    said["controllers"]["limiter"] = [{"use": "token_bucket", "rate": "100000/s", "burst": 100_000}]
    said["controllers"]["scaler"] |= {"min_instances": 4, "max_instances": 4}
    with scenario.open("w") as file:
        YAML(typ="safe").dump(said, file)
    shutil.rmtree(folder / "bench.glow", ignore_errors=True)
    command = [sys.executable, "-m", "glowsim", "serve", str(scenario), "--port", "0", "--admin-port", "0"]
    command += ["--journal", str(folder / "bench.glow"), "--grace", "2", "--unvalidated"]
    for _ in range(4):
        command += ["--upstream", f"only={agent}{_PATH}"]
    with _started(command, r"serves (http://\S+)") as found:
        yield found


@contextmanager
def _litellm(peer: Path, folder: Path, agent: str) -> Iterator[tuple[str, int]]:
    """Run LiteLLM's proxy in front of the agent."""
    where = {"model": "openai/m", "api_base": f"{agent}/v1", "api_key": "none"}
    config, log = folder / "litellm.yaml", folder / "litellm.log"
    with config.open("w") as file:
        YAML(typ="safe").dump({"model_list": [{"model_name": "only", "litellm_params": where}]}, file)
    with socket.create_server(("127.0.0.1", 0)) as one:
        port = one.getsockname()[1]
    command = [
        str(peer),
        "--config",
        str(config),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--num_workers",
        "1",
    ]
    alone = {  # no look at the network, and on loopback no key, which is the least work for it
        "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_TELEMETRY": "False", "LITELLM_LOG": "ERROR",
        "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
    }  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GLOWSIM_")}
    with (
        log.open("wb") as said,
        subprocess.Popen(  # noqa: S603  # the user's own choice, no shell
            command, stdout=said, stderr=subprocess.STDOUT, env=environment | alone, cwd=folder
        ) as process,
    ):
        try:
            url, until_s = f"http://127.0.0.1:{port}", time.monotonic() + _PEER_STARTS_WITHIN_S
            while not _lives(f"{url}/health/liveliness"):
                if process.poll() is not None or time.monotonic() > until_s:
                    last = log.read_text(errors="replace")[-1000:]
                    raise GlowsimError(f"{peer} did not serve; its last words:\n{last}")
                time.sleep(0.2)
            yield url, process.pid
        finally:
            process.kill()  # it keeps nothing, and may be slow to end


def _lives(url: str) -> bool:
    try:
        with urlopen(url, timeout=5.0) as response:  # noqa: S310  # an address of our own
            return bool(response.status == 200)
    except (URLError, OSError):
        return False


@contextmanager
def _started(command: list[str], address: str) -> Iterator[tuple[str, int]]:
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        try:
            assert process.stdout is not None
            found = re.search(address, process.stdout.readline())
            if found is None:
                raise GlowsimError(f"{' '.join(command[:5])} ... did not start; its errors are above")
            yield found[1], process.pid
        finally:
            process.terminate()


def _measure(url: str, process: int, clients: int, seconds: float, rate_per_s: float) -> dict[str, float]:
    async def main() -> dict[str, float]:
        where = url.removeprefix("http://").split(":")
        wires = [await _Wire.to(where[0], int(where[1])) for _ in range(clients)]
        warm_s = time.perf_counter() + seconds / 4.0
        await asyncio.gather(*(_loop(wire, warm_s) for wire in wires))
        begun_s, cpu_s = time.perf_counter(), _cpu_s(process)
        counts = await asyncio.gather(*(_loop(wire, begun_s + seconds) for wire in wires))
        n, took_s, used_s = sum(counts), time.perf_counter() - begun_s, _cpu_s(process) - cpu_s
        late_s = sorted(await _open_loop(wires, rate_per_s, seconds))
        for wire in wires:
            wire.close()
        return {
            "requests_per_s": n / took_s, "cpu_us": used_s / n * 1e6, "rss_mb": _rss_mb(process),
            "p50_ms": late_s[len(late_s) // 2] * 1e3, "p99_ms": late_s[int(len(late_s) * 0.99)] * 1e3,
        }  # fmt: skip

    return asyncio.run(main())


async def _loop(wire: _Wire, until_s: float) -> int:
    count = 0
    while time.perf_counter() < until_s:
        await wire.ask()
        count += 1
    return count


async def _open_loop(wires: list[_Wire], rate_per_s: float, seconds: float) -> list[float]:
    """Return each request's seconds from when it was due to its answer."""
    free: asyncio.Queue[_Wire] = asyncio.Queue()
    for wire in wires:
        free.put_nowait(wire)
    taken: list[float] = []

    async def ask(due_s: float) -> None:
        wire = await free.get()
        await wire.ask()
        taken.append(time.perf_counter() - due_s)
        free.put_nowait(wire)

    begun_s, asking = time.perf_counter(), []
    for i in range(int(rate_per_s * seconds)):
        due_s = begun_s + i / rate_per_s
        await asyncio.sleep(due_s - time.perf_counter())
        asking.append(asyncio.ensure_future(ask(due_s)))
    await asyncio.gather(*asking)
    return taken


class _Wire(asyncio.Protocol):
    """One kept-alive connection with one question on it at a time; it reads no more of an answer than it must."""

    def __init__(self) -> None:
        self._read = bytearray()
        self._end = -1
        self._answer: asyncio.Future[None] | None = None

    @staticmethod
    async def to(host: str, port: int) -> _Wire:
        _, wire = await asyncio.get_running_loop().create_connection(_Wire, host, port)
        head = f"POST {_PATH} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        wire._question = f"{head}Content-Length: {len(_QUESTION)}\r\n\r\n".encode() + _QUESTION
        return wire

    _question: bytes
    _transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def ask(self) -> asyncio.Future[None]:
        if self._transport.is_closing():
            raise ConnectionError("the server closed a connection that had nothing to do")
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(self._question)
        return self._answer

    def data_received(self, data: bytes) -> None:
        self._read += data
        if self._end < 0 and (head := self._read.find(b"\r\n\r\n")) >= 0:
            top = bytes(self._read[:head]).lower()
            length = re.search(rb"content-length: (\d+)", top)
            if b" 200 " not in top.partition(b"\r\n")[0] or length is None:
                self.connection_lost(GlowsimError(f"it was answered: {bytes(self._read[:500])!r}"))
                return
            self._end = head + 4 + int(length[1])
        if 0 <= self._end <= len(self._read) and self._answer is not None:
            del self._read[: self._end]
            self._end = -1
            answer, self._answer = self._answer, None
            answer.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error or ConnectionError("the server closed the connection"))

    def close(self) -> None:
        self._transport.close()


def _cpu_s(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _rss_mb(process: int) -> float:
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


async def _serve(app: web.Application) -> None:
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    print(f"http://{host}:{port}", flush=True)
    await asyncio.Event().wait()


def _agent() -> web.Application:
    async def answer(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(body=_ANSWER, content_type="application/json")

    app = web.Application()
    app.router.add_post(_PATH, answer)
    return app


def _proxy(agent: str) -> web.Application:
    async def pass_on(request: web.Request) -> web.Response:
        body = await request.read()
        headers = {"Content-Type": "application/json"}
        async with app[session].post(agent + _PATH, data=body, headers=headers) as response:
            return web.Response(
                body=await response.read(), status=response.status, content_type="application/json"
            )

    async def opened(app: web.Application) -> Any:
        async with ClientSession(connector=TCPConnector(limit=0)) as app[session]:
            yield

    app = web.Application()
    session = web.AppKey("session", ClientSession)
    app.cleanup_ctx.append(opened)
    app.router.add_post(_PATH, pass_on)
    return app


if __name__ == "__main__":
    import uvloop

    role, *given = sys.argv[1:]
    uvloop.run(_serve(_agent() if role == "agent" else _proxy(*given)))
