"""Real model servers as processes of this machine: each on a core of its own, below everything else.

llama.cpp's answers one request at a time, first come first served. transformers' batches continuously. Both listen on
loopback, reach for nothing outside, and use one thread for their arithmetic, so that two of them on two cores do not
slow each other more than the machine's caches make them. They are nice, so that the gateway and the generator of load,
which need little, get it at once. They end when the block that started them does; `kill -9` of this
process leaves them.
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
from typing import IO, Any, Final, NamedTuple

from glowsim.core.errors import GlowsimError

__all__ = ["ENVIRONMENT", "Server", "command", "glowsim_serving", "prime", "running"]

_NICE: Final = 5
_READY_WITHIN_S: Final = 120.0
_ENDS_WITHIN_S: Final = 10.0
_ASKS_EVERY_S: Final = 0.1
_HEALTH: Final = {"llama": "/v1/models", "transformers": "/health"}
"""Neither has the other's; `/v1/models` of transformers fails where no hub was ever reached."""
_CLASHES: Final = 3
"""Times that a server is started again on another port."""
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
    """Seconds from its start until it answered."""


_Begun = tuple[str, "subprocess.Popen[bytes]", float]
"""URL, process and when it began, of a server that is not ready yet."""


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
def running(kind: str, models: Sequence[Path], log: Path) -> Iterator[list[Server]]:
    """Run a server for each model, on core 0, 1 and on, while the block lasts; yield them when all have answered.

    Parameters
    ----------
    kind
        ``llama`` or ``transformers``.
    models
        What they serve.
    log
        The file that takes what they print.

    Raises
    ------
    GlowsimError
        One ended, or was not ready in time.
    """
    with ExitStack() as stack:
        output = stack.enter_context(log.open("ab"))
        begun = [_begin(kind, model, core, output, stack) for core, model in enumerate(models)]
        ready = []
        for core, (model, first) in enumerate(zip(models, begun, strict=True)):
            server = _awaited(*first, _HEALTH[kind])
            for _ in range(_CLASHES):
                if server is None:  # somebody may have taken its port
                    server = _awaited(*_begin(kind, model, core, output, stack), _HEALTH[kind])
            if server is None:
                raise GlowsimError(f"a server ended again and again before it was ready: see {log}")
            prime(server.url, str(model))
            ready.append(server)
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
    """Return when a gateway says that it takes requests."""
    until_s = time.monotonic() + _READY_WITHIN_S
    while not _answers(url, "/readyz"):
        if time.monotonic() > until_s:
            raise GlowsimError(f"{url} was not ready within {_READY_WITHIN_S:g} s")
        time.sleep(_ASKS_EVERY_S)


def _begin(kind: str, model: Path, core: int, output: IO[bytes], stack: ExitStack) -> _Begun:
    port = _free_port()
    process = subprocess.Popen(  # noqa: S603
        command(kind, model, str(port), core), stdin=subprocess.DEVNULL, stdout=output, stderr=output,
        env=os.environ | ENVIRONMENT,
    )  # fmt: skip
    stack.callback(_end, process)
    return f"http://127.0.0.1:{port}", process, time.monotonic()


def _awaited(url: str, process: subprocess.Popen[bytes], begun_s: float, health: str) -> Server | None:
    """Return a server when it says that it is well; None: it has ended."""
    while (waited_s := time.monotonic() - begun_s) < _READY_WITHIN_S:
        if process.poll() is not None:
            return None
        if _answers(url, health):
            return Server(url, process, waited_s)
        time.sleep(_ASKS_EVERY_S)
    raise GlowsimError(f"{url} was not ready within {_READY_WITHIN_S:g} s")


def _answers(url: str, path: str) -> bool:
    host, _, port = url.removeprefix("http://").partition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=_READY_WITHIN_S)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False  # nobody is there yet, or it is somebody else's
    finally:
        connection.close()


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
