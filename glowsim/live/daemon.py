"""The daemon: one process that puts a scenario's control plane in front of real or emulated agents."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import signal
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import aiohttp
import uvloop
from starlette.types import ASGIApp

from glowsim import build
from glowsim.core.errors import JournalError
from glowsim.core.journal import SUFFIX, Recording, files_of, read
from glowsim.core.price import Price
from glowsim.core.streams import Streams
from glowsim.core.types import Command, Event, Usage
from glowsim.emulation import Drawn, EmulatedAgent, RealTime, agent_worlds
from glowsim.live.adapters import Reach, of_urls
from glowsim.live.adapters.http import Connections
from glowsim.live.admin import Admin
from glowsim.live.content import Content, in_words
from glowsim.live.dashboard.document import Document
from glowsim.live.dashboard.routes import Dashboard
from glowsim.live.driver import Driver
from glowsim.live.front_door import FrontDoor, Service
from glowsim.live.gateway import Fleet, Gateway
from glowsim.live.identity import Identity, TokenReader
from glowsim.live.key_set import KeySet
from glowsim.live.outbox import Outbox
from glowsim.live.places import Places
from glowsim.live.protocols import BadBody
from glowsim.live.reloading import Reloading, idle_timeouts, in_header
from glowsim.live.segments import Segments
from glowsim.live.server import Server
from glowsim.live.settings import Settings, SettingsError, settings
from glowsim.live.signals import first_of, told_to_stop
from glowsim.live.sockets import address_of, listening
from glowsim.live.store import Store, StoreError
from glowsim.live.store.rollups import Rollups
from glowsim.live.telemetry import Telemetry
from glowsim.live.validity import Validity
from glowsim.reload import carried, same_fleet
from glowsim.scenario import Scenario
from glowsim.scenario.live import CallableAgent, OpenAIHttp

if TYPE_CHECKING:
    from glowsim.live.otel import Tracing

__all__ = ["Daemon", "run_daemon", "serving"]

_log = logging.getLogger(__name__)
Watch = Callable[[Event, Sequence[Command]], None]
_MEMORY = 10_000
_ROLL_UP_EVERY_S = 10.0
_CONTENTS = 20_000
_FIRST_ANSWERS_S = 1.0
"""That clients wait at most, at the start, for instances to say that they are there."""
_LAST_WORDS_S = 2.0
"""Kept of the grace for answers that are being written."""


class Daemon(NamedTuple):
    """A daemon that serves."""

    driver: Driver
    address: str
    admin_address: str
    reloading: Reloading


def run_daemon(
    scenario: Scenario, *, host: str = "127.0.0.1", port: int = 8080, admin_port: int = 8081,
    upstreams: Mapping[str, Sequence[str]] | None = None, health_path: str | None = None, journal_path: Path,
    store_path: Path | None = None, keep_text: bool = False, grace_s: float = 30.0, allow_plugins: bool = False,
    folder: Path | None = None, certificate: Path | None = None, again: Callable[[], Scenario] | None = None,
) -> int:  # fmt: skip
    """Serve a scenario's fleet until SIGTERM or SIGINT; return the exit code.

    Prints one line, with both addresses, when it is ready. A journal that is there is gone on with. SIGHUP has it
    take on what the scenario's file says by then.

    Parameters
    ----------
    scenario
        The configuration: its fleet and its controllers.
    host
        Where to listen; anything but loopback needs ``GLOWSIM_KEYS`` and ``GLOWSIM_ADMIN_TOKEN``.
    port, admin_port
        Of the data plane and of the admin's side; 0: chosen by the system.
    upstreams
        Agent -> URLs of its instances, in place of what the scenario's ``live`` says; agents without either are
        emulated.
    health_path
        Where the instances of ``upstreams`` say how they are; without one, an instance that takes connections is well.
    journal_path
        The folder that the journal goes to.
    store_path
        Where feedback, audit and roll-ups go; default: the journal's path and ``.db``.
    keep_text
        Whether texts of feedback are kept.
    grace_s
        From the signal until the process has ended, for open requests to finish.
    allow_plugins
        Whether controllers and agents may be code beside the scenario.
    folder
        The scenario's, from which relative paths start; default: the current one.
    certificate
        Where the certificate of its controllers is, without which no real agent is served; None: none is asked for.
    again
        Reads the scenario once more; None: it is what it is.

    Returns
    -------
    0 after a signal, 1 if the control plane raised.

    Raises
    ------
    SettingsError
        It cannot start so: an unknown agent, an address in use, an unsafe address.
    JournalError
        The journal there is of another scenario, or none.
    CertificateError
        There is no certificate for the controllers of an agent that is real.
    StoreError
        The store is in use by another daemon, no store, damaged, of a newer version, or read-only.
    """
    chosen = settings(
        tokens=scenario.live.tokens is not None,
        journal_records=scenario.live.journal.records, journal_keep_bytes=scenario.live.journal.keep_bytes,
        host=host, port=port, admin_port=admin_port, upstreams=upstreams or {}, health_path=health_path,
        journal_path=journal_path, store_path=store_path, keep_text=keep_text, grace_s=grace_s,
    )  # fmt: skip

    async def main() -> int:
        stop = told_to_stop()
        async with serving(
            scenario, chosen, allow_plugins=allow_plugins, folder=folder, certificate=certificate, again=again
        ) as daemon:
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, daemon.reloading.order, "SIGHUP")
            print(f"glowsim serves {daemon.address} (admin {daemon.admin_address})", flush=True)
            await first_of(stop, daemon.driver.broken)
        if daemon.driver.error is not None:
            _log.critical("the control plane failed", exc_info=daemon.driver.error)
            return 1
        return 0

    return uvloop.run(main())


@asynccontextmanager
async def serving(
    scenario: Scenario, chosen: Settings, *, allow_plugins: bool = False, folder: Path | None = None,
    certificate: Path | None = None, again: Callable[[], Scenario] | None = None,
) -> AsyncIterator[Daemon]:  # fmt: skip
    """Serve while the block lasts; then stop admitting, let open requests finish, and close the journal.

    Raises as `run_daemon` does.
    """
    fleet = list(scenario.agents().items())
    names = {name: number for number, (name, _) in enumerate(fleet)}
    _known(chosen.upstreams, names)
    folder = folder or Path.cwd()
    reaches = _reaches(scenario, chosen, allow_plugins=allow_plugins)
    emulated = frozenset(names) - frozenset(reaches)
    validity = Validity(scenario, frozenset(reaches), certificate)
    tokens = scenario.live.tokens
    reader = None if tokens is None else TokenReader(tokens, os.environ, folder)
    identity = Identity(chosen, reader)
    streams = Streams(scenario.seed)
    journal, earlier, before = _journal(scenario, chosen)
    plane = build.control_plane(before, Streams(before.seed), allow_plugins=allow_plugins, fall_back=True)
    counts = [(len(reaches[name].urls) if name in reaches else 0) or agent.instances for name, agent in fleet]
    telemetry = Telemetry(scenario, plane, counts)
    rollups = Rollups(list(names), partial(_cost_usd, [model.price for model in scenario.models.values()]))
    tracing = _tracing(scenario, reaches) if scenario.live.otel else None
    hear: list[Watch] = [telemetry.saw, validity.saw, rollups.saw]
    if tracing is not None:
        hear.append(tracing.saw)
    truths = {name: Drawn(scenario, name, streams) for name in emulated}
    async with AsyncExitStack() as stack:
        if tracing is not None:
            stack.push_async_callback(tracing.export.close)
        data = stack.enter_context(listening(chosen.host, chosen.port))
        admin = stack.enter_context(listening(chosen.host, chosen.admin_port))
        store = Store(chosen.store, keep_requests=chosen.keep_requests)
        stack.push_async_callback(store.close)
        stack.push_async_callback(_roll_up, store, rollups)
        store.journal = journal.header["id"]
        driver = Driver(
            plane,
            journal,
            memory=_MEMORY,
            contents=_CONTENTS,
            apologise=partial(_apology, chosen.apology),
            clock=time.perf_counter,
            watch=partial(_to_all, hear),
            calling=None if tracing is None else tracing.calling,
            served=store.saw,
            # What a kill took from the journal was numbered too, and its clients may yet speak of it.
            after_request=(store.boot - 1) << 32,
            idle_timeouts=idle_timeouts(scenario),
            probe_timeout_s=scenario.live.probe_timeout_s,
        )
        ends = await stack.enter_async_context(AsyncExitStack())
        session = await ends.enter_async_context(
            aiohttp.ClientSession(
                connector=Connections(limit=0),
                cookie_jar=aiohttp.DummyCookieJar(),
                max_line_size=65536,
            )
        )
        if reader is not None and tokens is not None and tokens.keys_url is not None:
            key_set = KeySet(tokens.keys_url, tokens.algorithm, session, reader.take)
            ends.push_async_callback(key_set.close)
            await key_set.open()
            identity.key_set = key_set
        places = Places(
            driver,
            session,
            await ends.enter_async_context(AsyncExitStack()),
            folder,
            probe_timeout_s=scenario.live.probe_timeout_s,
        )
        ends.push_async_callback(driver.close, max(chosen.grace_s - _LAST_WORDS_S, chosen.grace_s / 2.0))
        if earlier is None:
            journal.begin({})
        else:
            driver.recover(earlier)
            if before is not scenario:
                moved = carried(before, scenario, driver.plane, allow_plugins=allow_plugins)
                driver.reload(*moved, in_header(scenario), idle_timeouts(scenario))
                telemetry.plane = driver.plane
            driver.flush()
        fixed = {name for name, reach in reaches.items() if not getattr(reach.spec, "process", None)}
        telemetry.epoch_unix_s = time.time() - driver.now_s()
        real_time = RealTime(driver.now_s, driver.loop_time)
        for (name, agent), world in zip(fleet, agent_worlds(scenario), strict=True):
            number = names[name]
            # Those that can be scaled come back at the size that they were last ordered to have.
            count = agent.instances if name in fixed else driver.wanted.get(number, agent.instances)
            if name in reaches:
                await places.put(number, reaches[name], name=name, region=world.region, count=count)
                continue
            emulation = EmulatedAgent(number, world, truths[name], streams, real_time)
            driver.scalers[number] = emulation
            for _ in range(count):
                driver.add(number, emulation.instance(), region=world.region)
        await places.all_asked(_FIRST_ANSWERS_S)
        outbox = Outbox(store, driver, keep_text=chosen.keep_text)
        await outbox.catch_up()
        front_door = FrontDoor(
            {
                name: Service(order, scenario.services[name].failover_s)
                for name, order in build.nearest_agents(scenario).items()
            },
            list(names),
            driver.servable,
            driver.now_s,
        )
        hear.append(front_door.saw)
        known = Fleet(
            agents=names,
            models={name: agent.model for name, agent in fleet},
            emulated=emulated,
            regions={name: number for number, name in enumerate(scenario.regions)},
            region_of=[scenario.regions.index(agent.region) for _, agent in fleet],
            front_door=front_door,
        )
        gateway: ASGIApp = Gateway(driver, chosen, known, identity, store.hash_key, outbox)
        if tracing is not None:
            tracing.url_of = places.url_of
            gateway = tracing.around(gateway)

        def document(scenario: Scenario) -> Document:
            return Document(scenario, telemetry, source="live", emulated=emulated, certificate=validity.state)

        def renewed(scenario: Scenario) -> None:
            telemetry.scenario, telemetry.plane = scenario, driver.plane
            dashboard.document = document(scenario)

        dashboard = Dashboard(document(scenario), driver)
        reloading = Reloading(
            scenario,
            again or (lambda: scenario),
            driver,
            validity,
            outbox,
            renewed,
            allow_plugins=allow_plugins,
        )
        pages = Admin(
            driver,
            telemetry,
            chosen,
            emulated,
            validity,
            dashboard,
            store,
            outbox,
            reloading,
            names,
            identity.key_set,
        ).app()
        async with (
            serve_apps({gateway: data, pages: admin}, chosen),
            _often(chosen.flush_every_s, driver.flush),
            _often(_ROLL_UP_EVERY_S, partial(_roll_up, store, rollups)),
        ):
            try:
                yield Daemon(driver, address_of(chosen.host, data), address_of(chosen.host, admin), reloading)
            finally:
                await ends.aclose()  # answers that are being written still go out
                dashboard.close()


@asynccontextmanager
async def serve_apps(apps: Mapping[Any, socket.socket], chosen: Settings) -> AsyncIterator[None]:
    """Serve applications at sockets while the block lasts."""
    servers = {
        Server(app, max_header_bytes=chosen.max_header_bytes, connections=chosen.connections): where
        for app, where in apps.items()
    }
    serve = [asyncio.create_task(server.serve([where])) for server, where in servers.items()]
    try:
        for server in servers:
            await server.ready.wait()
        yield
    finally:
        for server in servers:
            server.should_exit = True
        await asyncio.gather(*serve)


@asynccontextmanager
async def _often(every_s: float, work: Callable[[], Awaitable[None] | None]) -> AsyncIterator[None]:
    """Do something again and again while the block lasts."""

    async def again() -> None:
        while True:
            await asyncio.sleep(every_s)
            doing = work()
            if doing is not None:
                await doing

    task = asyncio.create_task(again())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait((task,))


async def _roll_up(store: Store, rollups: Rollups) -> None:
    """Write what was counted since the last time."""
    work = rollups.writing()
    if work is not None:
        try:
            await store.done(work)
        except StoreError as error:
            _log.error("some roll-ups are lost: %s", error)


def _cost_usd(prices: Sequence[Price], model: int, usage: Usage) -> float:
    """Return what an attempt cost."""
    return prices[model].cost_usd(usage.tokens_in, usage.tokens_cached, usage.tokens_out)


def _to_all(hear: Sequence[Watch], event: Event, commands: Sequence[Command]) -> None:
    for each in hear:
        each(event, commands)


def _apology(text: str, task: Any) -> str | None:
    if not isinstance(task, Content):
        return text
    try:
        return in_words(text, Usage(), task)
    except BadBody:
        return None


def _reaches(scenario: Scenario, chosen: Settings, *, allow_plugins: bool) -> dict[str, Reach]:
    """Return agent -> how it is reached: by what stands in the scenario, or by the URLs that were given."""
    specs = {name: spec for said, spec in scenario.live.agents.items() for name in scenario.members(said)}
    specs |= {name: of_urls(urls, chosen.health_path) for name, urls in chosen.upstreams.items()}
    if any(isinstance(spec, CallableAgent) for spec in specs.values()) and not allow_plugins:
        raise SettingsError("an agent of live.agents is a function, which is code: give --allow-plugins")
    agents, models = scenario.agents(), list(scenario.models)
    return {
        name: Reach(spec, os.environ, timeout_s=agents[name].timeout_s, models=models)
        for name, spec in specs.items()
    }


def _tracing(scenario: Scenario, reaches: Mapping[str, Reach]) -> Tracing | None:
    """Return what speaks to OpenTelemetry, unless the environment forbids it; nothing of that is imported before.

    Raises
    ------
    SettingsError
        It is not installed, or the environment asks for what is not offered.
    """
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    try:
        from glowsim.live.otel import Spoken, Tracing
    except ModuleNotFoundError as error:
        raise SettingsError(f"live.otel needs {error.name}: pip install 'glowsim[otel]'") from error
    specs = [None if name not in reaches else reaches[name].spec for name in scenario.agents()]
    spoken = [
        Spoken("openai", spec.model)
        if isinstance(spec, OpenAIHttp)
        else Spoken("emulated" if spec is None else spec.adapter, None)
        for spec in specs
    ]
    return Tracing(list(scenario.agents()), list(scenario.models), spoken)


def _known(upstreams: Iterable[str], agents: Iterable[str]) -> None:
    for name in upstreams:
        if name not in agents:
            near = get_close_matches(name, agents, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(agents)}"
            raise SettingsError(f"--upstream {name}: there is no such agent; {hint}")


def _journal(scenario: Scenario, chosen: Settings) -> tuple[Segments, Recording | None, Scenario]:
    """Return the journal; the last segment of the one that is gone on with; and the scenario that this is of."""
    header = in_header(scenario) | {"id": secrets.token_hex(8)}
    folder, earlier, before = chosen.journal_path, None, scenario
    _adopt(folder)
    files = files_of(folder)
    if not files and folder.is_dir() and any(folder.iterdir()):
        raise JournalError(f"{folder} is a folder of other things: give another --journal")
    if files:
        earlier = read(files[-1])
        if earlier.header.get("digest") != header["digest"]:
            if "configuration" not in earlier.header:
                raise JournalError(
                    f"{folder} is the journal of another scenario, {earlier.header.get('scenario')!r}: move it away, "
                    "or give another --journal"
                )
            before = Scenario.model_validate(earlier.header["configuration"])
            same_fleet(before, scenario)
            header = in_header(before) | {"id": header["id"]}
        header["id"] = earlier.header.get("id", header["id"])
    kept = {"records": chosen.journal_records, "keep_bytes": chosen.journal_keep_bytes}
    return Segments(header, folder, **kept), earlier, before


def _adopt(folder: Path) -> None:
    """Make a journal of before version 5, which is one file, the first segment of a folder."""
    moving = folder.with_name(folder.name + ".moving")
    if folder.is_file():
        read(folder)
        moving.mkdir(exist_ok=True)
        folder.rename(moving / f"{1:08}{SUFFIX}")
    if not folder.exists() and moving.exists():
        moving.rename(folder)
