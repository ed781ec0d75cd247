"""The ``process`` adapter: instances are worker processes on this machine.

Each worker has a keeper (`glowsim.live.adapters.keeper`), a small process that ends it when the daemon says so
and also when the daemon is killed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from math import isfinite
from pathlib import Path
from typing import cast

from glowsim.live.calls import Checked, InstanceError, Serve

__all__ = ["Workers"]

_log = logging.getLogger(__name__)
_KEEPER = Path(__file__).with_name("keeper.py")
_SECRETS = ("GLOWSIM_KEYS", "GLOWSIM_ADMIN_TOKEN")
_TAIL_BYTES = 4096
_TAIL_LINES = 10
_CLASHES = 3
"""Times that a start is given another port."""
_KEEPER_RUNS = -1
_FIRST_POLL_S, _SLOWEST_POLL_S = 0.02, 1.0
_MARGIN_S = 2.0
"""What a keeper is given beyond the grace before it is killed with its group."""
_LAST_WORDS_S = 1.0
"""How long the output of a worker that has ended is read: something that left its group may hold it open."""


class Workers:
    """Scales worker processes on this machine: a `Scaler`.

    ``start`` runs the command and returns when the worker is ready: when what ``connect`` made of its address
    says that it is well, if that is `Checked`, and otherwise when it takes a connection. A worker that ends
    before, or takes too long, is an `InstanceError` with its exit code and the last lines that it printed, on
    either of its outputs; nothing more of them is kept, so a worker that needs a log writes one itself. A port
    that somebody else took meanwhile is exchanged for another, three times at most.

    ``stop`` sends SIGTERM to the worker and all that it started, waits for the grace, sends SIGKILL, and returns
    when they are gone. When this process ends, even by ``kill -9``, the same happens to every worker.

    All of it holds on Linux and macOS. A worker may start processes, but must not leave its process group. Each
    costs a keeper beside it, of about 10 MB.

    Parameters
    ----------
    command
        The program and its arguments; no shell. ``{port}`` and ``{instance}`` are replaced, and no other brace
        has a meaning.
    connect
        Makes the instance of a base URL such as ``http://127.0.0.1:40001``.
    lost
        Is told the number of a ready worker that ended by itself: `Driver.lost`.
    max_workers
        Processes at a time, those that are ending included, at least 1; a start beyond is an `InstanceError`.
    startup_timeout_s
        Seconds, above 0, within which a worker must be ready.
    grace_s
        Seconds, 0 or more, from SIGTERM to SIGKILL.
    environment
        Added to this process's environment, with the same replacements. The daemon's own secrets are taken out.
    directory
        Where they run; None: here.

    Raises
    ------
    ValueError
        A bound is broken, or neither command nor environment has ``{port}``.

    >>> Workers(["serve", "--port", "80"], connect=print, lost=print, max_workers=1)
    Traceback (most recent call last):
    ...
    ValueError: the command of a worker needs {port}, in an argument or in its environment: where to listen
    """

    def __init__(
        self, command: Sequence[str], *, connect: Callable[[str], Serve], lost: Callable[[int], None],
        max_workers: int, startup_timeout_s: float = 60.0, grace_s: float = 10.0,
        environment: Mapping[str, str] | None = None, directory: Path | None = None,
    ) -> None:  # fmt: skip
        self._environment = dict(environment or {})
        if isinstance(command, str) or not command or not command[0]:
            raise ValueError(
                f"the command of a worker is a list of a program and its arguments, not {command!r}"
            )
        if not any("{port}" in each for each in (*command, *self._environment.values())):
            raise ValueError(
                "the command of a worker needs {port}, in an argument or in its environment: where to listen"
            )
        if max_workers < 1:
            raise ValueError(f"max_workers: {max_workers} is not at least 1")
        if not (startup_timeout_s > 0.0 and isfinite(startup_timeout_s)):
            raise ValueError(f"startup_timeout_s: {startup_timeout_s} is not a number of seconds above 0")
        if not (grace_s >= 0.0 and isfinite(grace_s)):
            raise ValueError(f"grace_s: {grace_s} is not a number of seconds from 0")
        self._command = list(command)
        self._connect = connect
        self._lost = lost
        self._max_workers = max_workers
        self._startup_timeout_s = startup_timeout_s
        self._grace_s = grace_s
        self._directory = directory
        self._workers: dict[int, _Worker] = {}
        self._closed = False

    def addresses(self) -> dict[int, str]:
        """Return the base URLs of the ready workers, by instance."""
        return {number: each.url for number, each in self._workers.items() if each.serving()}

    async def start(self, instance: int) -> Serve:
        """Return a worker that is ready.

        Raises
        ------
        InstanceError
            It ended or took too long before it was ready, there are too many, or all is closed.
        """
        last: _Worker | None = None
        for _ in range(_CLASHES):
            last = await self._spawn(instance)
            try:
                serve = self._connect(last.url)
                await self._ready(last, serve)
            except BaseException:
                last.leave()
                raise
            if last.ready:
                return serve
            await asyncio.shield(last.closed)
            if not _taken(last.port):
                break
            _log.info("instance %d: somebody took port %d; it is given another", instance, last.port)
        assert last is not None
        raise InstanceError(f"the worker {last.end()} before it was ready{last.said()}")

    async def stop(self, instance: int) -> None:
        """Return when the worker is gone; one that is not there is gone."""
        worker = self._workers.get(instance)
        if worker is not None:
            await worker.gone(self._grace_s)

    async def close(self) -> None:
        """Start no more, and return when all workers are gone."""
        self._closed = True
        await asyncio.gather(*(each.gone(self._grace_s) for each in self._workers.values()))

    async def _spawn(self, instance: int) -> _Worker:
        if self._closed:
            raise InstanceError("no worker is started any more: they are closing")
        if instance in self._workers:
            raise InstanceError(f"instance {instance} has a worker already")
        if len(self._workers) >= self._max_workers:
            raise InstanceError(
                f"there are {self._max_workers} workers already: raise max_workers to have more"
            )
        worker = self._workers[instance] = _Worker(self._port())

        def filled(text: str) -> str:
            return text.replace("{port}", str(worker.port)).replace("{instance}", str(instance))

        def ended(_: asyncio.Future[int | None]) -> None:
            if worker.ready and not worker.leaving:
                _log.warning("instance %d: the worker %s%s", instance, worker.end(), worker.said())
                self._lost(instance)

        worker.ended.add_done_callback(ended)
        worker.closed.add_done_callback(lambda _: self._workers.pop(instance))
        keeper = [sys.executable, "-I", "-S", str(_KEEPER), str(self._grace_s)]
        command = [*keeper, *map(filled, self._command)]
        environment = {name: value for name, value in os.environ.items() if name not in _SECRETS}
        environment |= {name: filled(value) for name, value in self._environment.items()}
        try:  # a launch is not cut off half-way: only a keeper that has started can end its worker
            await asyncio.shield(worker.launch(command, environment, self._directory))
        except BaseException:
            worker.leave()
            raise
        return worker

    def _port(self) -> int:
        """Return a port that is free now, and that no other worker was given."""
        given = {each.port for each in self._workers.values()}
        while True:
            with socket.socket() as one:
                one.bind(("127.0.0.1", 0))
                port: int = one.getsockname()[1]
            if port not in given:
                return port

    async def _ready(self, worker: _Worker, serve: Serve) -> None:
        """Return when the worker is ready, or has ended before."""
        well = serve.healthy if isinstance(serve, Checked) else worker.connects
        poll = asyncio.ensure_future(_until(well))
        try:
            async with asyncio.timeout(self._startup_timeout_s):
                await asyncio.wait((poll, worker.ended), return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            raise InstanceError(
                f"the worker was not ready within {self._startup_timeout_s:g} s{worker.said()}"
            ) from None
        finally:
            poll.cancel()
        worker.ready = not worker.ended.done()


class _Worker(asyncio.SubprocessProtocol):
    """A worker and its keeper, as the event loop tells of them."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.ready = self.leaving = False
        loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[int | None] = loop.create_future()
        """The worker's exit code; None if nobody could tell."""
        self.closed: asyncio.Future[None] = loop.create_future()
        """Nothing more is heard of it."""
        self._transport: asyncio.SubprocessTransport | None = None
        self._code = bytearray()
        self._tail = bytearray()
        self._open = {_KEEPER_RUNS, 1, 2}
        """What has not ended yet: the keeper, its word on the worker, and what the worker prints."""

    async def launch(self, command: list[str], environment: dict[str, str], directory: Path | None) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.subprocess_exec(
                lambda: self, *command, start_new_session=True, env=environment, cwd=directory
            )
        except OSError as error:
            self.ended.set_result(None)
            self.closed.set_result(None)
            where = "" if directory is None else f" in {directory}"
            raise InstanceError(f"no process could be started{where}: {error.strerror}") from error

    # --- what the event loop tells --------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.SubprocessTransport, transport)  # uvloop's is one, but no subclass
        if self.leaving:
            self.leave()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if fd == 1:
            self._code += data
        else:
            self._tail += data
            del self._tail[:-_TAIL_BYTES]

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        self._over(fd)

    def process_exited(self) -> None:
        self._over(_KEEPER_RUNS)

    def _over(self, what: int) -> None:
        self._open.discard(what)
        if self._open <= {2} and not self.ended.done():
            self.kill()  # what the worker left, should the keeper itself have been killed
            self.ended.set_result(int(self._code) if self._code else None)
            asyncio.get_running_loop().call_later(_LAST_WORDS_S, self._close)
        if not self._open:
            self._close()

    def _close(self) -> None:
        if not self.closed.done():
            assert self._transport is not None
            self._transport.close()
            self.closed.set_result(None)

    # --- what the adapter does ------------------------------------------------------------------------

    def leave(self) -> None:
        """Have the keeper end it."""
        self.leaving = True
        lifeline = None if self._transport is None else self._transport.get_pipe_transport(0)
        if lifeline is not None:
            lifeline.close()

    def kill(self) -> None:
        if self._transport is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._transport.get_pid(), signal.SIGKILL)

    async def gone(self, grace_s: float) -> None:
        self.leave()
        await asyncio.wait((self.closed,), timeout=grace_s + _MARGIN_S)
        if not self.closed.done():
            self.kill()
        await asyncio.shield(self.closed)

    def serving(self) -> bool:
        return self.ready and not self.leaving and not self.ended.done()

    async def connects(self) -> bool:
        _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.close()
        return True

    def end(self) -> str:
        code = self.ended.result()
        if code is None:
            return "was killed with its keeper"
        return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"

    def said(self) -> str:
        """Return the last lines that it printed, as the end of a sentence."""
        text = "\n".join(self._tail.decode(errors="replace").splitlines()[-_TAIL_LINES:])
        shown = "".join(each if each.isprintable() or each == "\n" else "?" for each in text)
        return f"; its last lines:\n{shown}" if shown else ""


async def _until(well: Callable[[], Awaitable[bool]]) -> None:
    """Return when it is well; ask quickly at first, since many a worker is."""
    pause_s = _FIRST_POLL_S
    while True:
        try:
            async with asyncio.timeout(_SLOWEST_POLL_S * 5.0):
                if await well():
                    return
        except Exception as error:  # noqa: BLE001  # not well yet, as `Checked.healthy` has it
            _log.debug("not ready yet: %r", error)
        await asyncio.sleep(pause_s)
        pause_s = min(2.0 * pause_s, _SLOWEST_POLL_S)


def _taken(port: int) -> bool:
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False
