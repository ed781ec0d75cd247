"""Real model servers as processes of this machine: each on a core of its own, below everything else.

llama.cpp's answers one request at a time, first come first served. transformers' batches continuously. Both listen on
loopback, reach for nothing outside, and use one thread for their arithmetic, so that two of them on two cores do not
slow each other more than the machine's caches make them. They are nice, so that the gateway and the generator of load,
which need little, get it at once. They end when the block that started them does, and also with this process.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from glowsim.core.errors import GlowsimError

__all__ = ["ENVIRONMENT", "Server", "command", "glowsim_serving", "prime", "running"]

_NICE: Final = 5
_READY_WITHIN_S: Final = 120.0
_ENDS_WITHIN_S: Final = 10.0
_ASKS_EVERY_S: Final = 0.1
ENVIRONMENT: Final = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


class Server(NamedTuple):
    """A server that is ready."""

    url: str
    process: subprocess.Popen[bytes]
    ready_after_s: float
    """From its start until it took connections."""


def command(kind: str, model: Path, port: str, core: int | str) -> list[str]:
    """Return how a server is started.

    Parameters
    ----------
    kind
        ``llama`` or ``transformers``.
    model
        What it serves: a GGUF, or a folder.
    port
        Where it listens; ``{port}`` for the ``process`` adapter.
    core
        Of the processor; on a machine with fewer, they come round again. ``{instance}`` for the ``process`` adapter.

    >>> command("llama", Path("m.gguf"), "{port}", 0)[2:4]
    ['glowsim.fidelity.pinned', '0']
    """
    python = sys.executable
    serve = {
        "llama": [
            python, "-m", "llama_cpp.server", "--model", str(model), "--n_ctx", "2048", "--n_threads", "1",
            "--n_threads_batch", "1", "--interrupt_requests", "false", "--verbose", "false",
        ],
        "transformers": [
            python, "-m", "transformers.cli.transformers", "serve", str(model), "--device", "cpu",
            "--continuous-batching", "--cb-block-size", "32", "--cb-num-blocks", "512", "--cb-max-batch-tokens", "1024",
        ],
    }[kind]  # fmt: skip
    return [
        python,
        "-m",
        "glowsim.fidelity.pinned",
        str(core),
        str(_NICE),
        *serve,
        "--host",
        "127.0.0.1",
        "--port",
        port,
    ]


@contextmanager
def running(
    kind: str, models: Sequence[Path], log: Path, *, cores: Sequence[int] | None = None
) -> Iterator[list[Server]]:
    """Run a server for each model, on a core each, while the block lasts; yield them when all have answered.

    Parameters
    ----------
    kind
        ``llama`` or ``transformers``.
    models
        What they serve.
    log
        The file that takes what they print.
    cores
        Of the processor, one for each; default: 0, 1 and on.

    Raises
    ------
    GlowsimError
        One ended, or was not ready in time.
    """
    with ExitStack() as stack:
        output = stack.enter_context(log.open("ab"))
        started = []
        for core, model in zip(cores if cores is not None else range(len(models)), models, strict=True):
            port = _free_port()
            process = subprocess.Popen(  # noqa: S603
                command(kind, model, str(port), core), stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                env=os.environ | ENVIRONMENT,
            )  # fmt: skip
            stack.callback(_end, process)
            started.append((f"http://127.0.0.1:{port}", process, time.monotonic()))
        ready = []
        for (url, process, begun_s), model in zip(started, models, strict=True):
            _await(url, process, log)
            ready.append(Server(url, process, time.monotonic() - begun_s))
            prime(url, str(model))
        yield ready


@contextmanager
def glowsim_serving(scenarios: Sequence[Mapping[str, Any]], folder: Path) -> Iterator[list[str]]:
    """Run ``glowsim serve`` for each scenario while the block lasts; yield the URLs when all take requests.

    Parameters
    ----------
    scenarios
        In YAML's spelling, with where the instances are.
    folder
        For the files, journals and logs.

    Raises
    ------
    GlowsimError
        One did not start.
    """
    with ExitStack() as stack:
        started = []
        for number, scenario in enumerate(scenarios):
            path, log = folder / f"{number}.yaml", folder / f"{number}.log"
            path.write_text(json.dumps(scenario), encoding="utf-8")  # JSON is YAML
            said = [sys.executable, "-m", "glowsim", "serve", str(path), "--port", "0", "--admin-port", "0"]
            said += ["--unvalidated", "--grace", "1", "--journal", str(folder / f"{number}.glow")]
            errors = stack.enter_context(log.open("wb"))
            process = subprocess.Popen(said, stdout=subprocess.PIPE, stderr=errors)  # noqa: S603
            stack.callback(_end, process)
            started.append((process, log))
        for process, _ in started:
            stack.callback(process.terminate)  # these come first, so that all end side by side
        urls = []
        for process, log in started:
            assert process.stdout is not None
            words = process.stdout.readline().decode().split()
            url = next((word for word in words if word.startswith("http://")), None)
            if url is None:
                raise GlowsimError(f"glowsim serve did not start: {log.read_text(errors='replace')[-2000:]}")
            _ready(url)
            urls.append(url)
        yield urls


def prime(url: str, model: str, times: int = 3) -> None:
    """Ask a server a few short questions, so that it has loaded and compiled what it needs; wait for the answers."""
    host, _, port = url.removeprefix("http://").partition(":")
    asked = {"model": model, "messages": [{"role": "user", "content": "warm"}], "max_tokens": 8}
    for _ in range(times):
        connection = http.client.HTTPConnection(host, int(port), timeout=_READY_WITHIN_S)
        try:
            connection.request(
                "POST", "/v1/chat/completions", json.dumps(asked), {"content-type": "application/json"}
            )
            answer = connection.getresponse()
            raw = answer.read()
        finally:
            connection.close()
        if answer.status != http.client.OK:
            raise GlowsimError(f"{url} answered {answer.status}: {raw[:500]!r}")


def _ready(url: str) -> None:
    """Return when a gateway says that it takes requests.

    Raises
    ------
    GlowsimError
        It does not in time.
    """
    host, _, port = url.removeprefix("http://").partition(":")
    until_s = time.monotonic() + _READY_WITHIN_S
    while time.monotonic() < until_s:
        connection = http.client.HTTPConnection(host, int(port), timeout=_READY_WITHIN_S)
        try:
            connection.request("GET", "/readyz")
            if connection.getresponse().status == http.client.OK:
                return
        finally:
            connection.close()
        time.sleep(_ASKS_EVERY_S)
    raise GlowsimError(f"{url} was not ready within {_READY_WITHIN_S:g} s")


def _await(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Return when a server takes connections."""
    host, _, port = url.removeprefix("http://").partition(":")
    until_s = time.monotonic() + _READY_WITHIN_S
    while time.monotonic() < until_s:
        if process.poll() is not None:
            raise GlowsimError(f"a server ended with {process.returncode} before it was ready: see {log}")
        try:
            socket.create_connection((host, int(port)), timeout=1.0).close()
        except OSError:
            time.sleep(_ASKS_EVERY_S)
        else:
            return
    raise GlowsimError(f"a server was not ready within {_READY_WITHIN_S:g} s: see {log}")


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.stdout is not None:
        process.stdout.close()
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
