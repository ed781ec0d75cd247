"""The daemon: one process that puts a scenario's control plane in front of real or emulated agents."""

from __future__ import annotations

import asyncio
import logging
import secrets
import signal
import socket
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

import aiohttp
import uvicorn
from starlette.applications import Starlette

from glowsim import build
from glowsim.core.errors import JournalError
from glowsim.core.journal import Journal, Recording, read
from glowsim.core.streams import Streams
from glowsim.emulation import Drawn, EmulatedAgent, RealTime, agent_worlds
from glowsim.live.driver import Driver
from glowsim.live.gateway import Gateway
from glowsim.live.settings import Settings, SettingsError, settings
from glowsim.live.telemetry import Telemetry
from glowsim.live.upstream import http_json
from glowsim.scenario import Scenario

__all__ = ["Daemon", "run_daemon", "serving"]

_log = logging.getLogger(__name__)
_MEMORY = 10_000
_CONTENTS = 20_000
_LAST_WORDS_S = 2.0
"""Kept of the grace for answers that are being written."""


class Daemon(NamedTuple):
    """A daemon that serves."""

    driver: Driver
    address: str
    admin_address: str


def run_daemon(
    scenario: Scenario, *, host: str = "127.0.0.1", port: int = 8080, admin_port: int = 8081,
    upstreams: Mapping[str, Sequence[str]] | None = None, health_path: str | None = None, journal_path: Path,
    grace_s: float = 30.0, allow_plugins: bool = False,
) -> int:  # fmt: skip
    """Serve a scenario's fleet until SIGTERM or SIGINT; return the exit code.

    Prints one line, with both addresses, when it is ready. A journal that is there is gone on with.

    Parameters
    ----------
    scenario
        The configuration: its fleet and its controllers.
    host
        Where to listen; anything but loopback needs ``GLOWSIM_KEYS`` and ``GLOWSIM_ADMIN_TOKEN``.
    port, admin_port
        Of the data plane and of the admin's side; 0: chosen by the system.
    upstreams
        Agent -> URLs of its instances; agents without any are emulated.
    health_path
        Where those instances say how they are; without one, an instance that takes connections is well.
    journal_path
        Where the journal goes.
    grace_s
        From the signal until the process has ended, for open requests to finish.
    allow_plugins
        Whether controllers may be code beside the scenario.

    Returns
    -------
    0 after a signal, 1 if the control plane raised.

    Raises
    ------
    SettingsError
        It cannot start so: an unknown agent, an address in use, an unsafe address.
    JournalError
        The journal there is of another scenario, or none.
    """
    chosen = settings(
        host=host, port=port, admin_port=admin_port, upstreams=upstreams or {}, health_path=health_path,
        journal_path=journal_path, grace_s=grace_s,
    )  # fmt: skip

    async def main() -> int:
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        async with serving(scenario, chosen, allow_plugins=allow_plugins) as daemon:
            print(f"glowsim serves {daemon.address} (admin {daemon.admin_address})", flush=True)
            ends = [asyncio.ensure_future(each.wait()) for each in (stop, daemon.driver.broken)]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for end in ends:
                end.cancel()
        if daemon.driver.error is not None:
            _log.critical("the control plane failed", exc_info=daemon.driver.error)
            return 1
        return 0

    return asyncio.run(main())


@asynccontextmanager
async def serving(
    scenario: Scenario, chosen: Settings, *, allow_plugins: bool = False
) -> AsyncIterator[Daemon]:
    """Serve while the block lasts; then stop admitting, let open requests finish, and close the journal.

    Raises as `run_daemon` does.
    """
    names = {name: number for number, name in enumerate(scenario.agents())}
    _known(chosen.upstreams, names)
    emulated = frozenset(names) - frozenset(chosen.upstreams)
    streams = Streams(scenario.seed)
    plane = build.control_plane(scenario, streams, allow_plugins=allow_plugins, fall_back=True)
    urls = chosen.upstreams
    fleet = list(scenario.agents().items())
    counts = [len(urls[name]) if name in urls else agent.instances for name, agent in fleet]
    telemetry = Telemetry(scenario, plane, counts)
    truths = {name: Drawn(scenario, name, streams) for name in emulated}
    with _listening(chosen.host, chosen.port) as data, _listening(chosen.host, chosen.admin_port) as admin:
        journal, earlier = _journal(scenario, chosen.journal_path)
        driver = Driver(
            plane,
            journal,
            memory=_MEMORY,
            contents=_CONTENTS,
            apology=chosen.apology,
            clock=time.perf_counter,
            watch=telemetry.saw,
            idle_timeouts={
                names[name]: agent.idle_timeout_s for name, agent in fleet if agent.idle_timeout_s is not None
            },
        )
        if earlier is not None:
            driver.recover(earlier)
            driver.flush()
            _growing(chosen.journal_path).replace(chosen.journal_path)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            models = list(scenario.models)
            real_time = RealTime(driver.now_s, driver.loop_time)
            for (name, agent), world in zip(fleet, agent_worlds(scenario), strict=True):
                number = names[name]
                if name in emulated:
                    emulation = EmulatedAgent(number, world, truths[name], streams, real_time)
                    driver.scalers[number] = emulation
                    instances = [emulation.instance() for _ in range(agent.instances)]
                else:
                    instances = [
                        http_json(
                            session,
                            url,
                            timeout_s=agent.timeout_s,
                            model_name=models.__getitem__,
                            health_path=chosen.health_path,
                        )
                        for url in urls[name]
                    ]
                for instance in instances:
                    driver.add(number, instance, region=world.region)
            gateway = Gateway(
                driver=driver,
                telemetry=telemetry,
                settings=chosen,
                agents=names,
                models={name: agent.model for name, agent in fleet},
                regions={name: scenario.regions.index(agent.region) for name, agent in fleet},
                emulated=emulated,
                hash_key=secrets.token_bytes(32),
            )
            servers = [_Server(app, chosen) for app in (gateway.data_app(), gateway.admin_app())]
            serve = [
                asyncio.create_task(server.serve([where]))
                for server, where in zip(servers, (data, admin), strict=True)
            ]
            flushing = asyncio.create_task(_flush_often(driver, chosen.flush_every_s))
            try:
                for server in servers:
                    await server.ready.wait()
                yield Daemon(driver, _address(chosen.host, data), _address(chosen.host, admin))
            finally:
                flushing.cancel()
                await driver.close(max(chosen.grace_s - _LAST_WORDS_S, chosen.grace_s / 2.0))
                for server in servers:
                    server.should_exit = True
                await asyncio.gather(*serve)
                await asyncio.wait((flushing,))


def _known(upstreams: Iterable[str], agents: Iterable[str]) -> None:
    for name in upstreams:
        if name not in agents:
            near = get_close_matches(name, agents, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(agents)}"
            raise SettingsError(f"--upstream {name}: there is no such agent; {hint}")


def _journal(scenario: Scenario, path: Path) -> tuple[Journal, Recording | None]:
    """Return a fresh journal; and what an earlier one holds, in whose place the fresh one grows."""
    header = build.header(scenario, 0) | {"on_error": "fall back"}
    if not path.exists():
        return Journal(header, path), None
    recording = read(path)
    if recording.header.get("digest") != header["digest"]:
        raise JournalError(
            f"{path} is the journal of another scenario, {recording.header.get('scenario')!r}: move it away, "
            "or give another --journal"
        )
    _growing(path).unlink(missing_ok=True)
    return Journal(header, _growing(path)), recording


def _growing(path: Path) -> Path:
    return path.with_name(path.name + ".recovering")


async def _flush_often(driver: Driver, every_s: float) -> None:
    while True:
        await asyncio.sleep(every_s)
        driver.flush()


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise SettingsError(
            f"cannot listen on {host} port {port}: {error.strerror}; give another port, or 0 for any"
        ) from error


def _address(host: str, where: socket.socket) -> str:
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{where.getsockname()[1]}"


class _Server(uvicorn.Server):
    """A server without a hand on signals and logs; h11, because it bounds the headers while they come in."""

    def __init__(self, app: Starlette, chosen: Settings) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http="h11",
                h11_max_incomplete_event_size=chosen.max_header_bytes,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=1,
            )
        )
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start and say so."""
        await super().startup(sockets)
        self.ready.set()

    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]
        """Leave the signals to the daemon."""
        return nullcontext()
