"""``glowsim serve --advise``: a daemon beside the traffic. It reads a log and metrics, and has no data plane."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urljoin

import aiohttp
import uvloop

from glowsim import build
from glowsim.certification.certificate import CertificateError, check
from glowsim.certification.certificate import read as read_certificate
from glowsim.certification.envelope import Watch
from glowsim.core.advice import ADVISED
from glowsim.core.errors import JournalError
from glowsim.core.journal import Recording, files_of, read
from glowsim.core.streams import Streams
from glowsim.core.types import Command, Event
from glowsim.live.adapters.load_reports import LoadReports, Metered
from glowsim.live.advice.advisor import Advisor, after_instances
from glowsim.live.advice.fleet import Agents, Instances, place_of
from glowsim.live.advice.listener import Listener, LogFile
from glowsim.live.advice.pages import Watched, pages
from glowsim.live.advice.recommendations import Recommendation, Recommendations
from glowsim.live.daemon import serve_apps
from glowsim.live.dashboard.document import Document
from glowsim.live.dashboard.routes import Dashboard
from glowsim.live.reloading import in_header
from glowsim.live.segments import Segments
from glowsim.live.settings import Settings, SettingsError, settings
from glowsim.live.signals import first_of, told_to_stop
from glowsim.live.sockets import address_of, listening
from glowsim.live.store import Store
from glowsim.scenario import Scenario
from glowsim.scenario.live import CallableAgent

__all__ = ["Advice", "Sources", "advising", "run_advice"]

_log = logging.getLogger(__name__)
_DAY_S: Final = 86_400.0
_LOOK_EVERY_S: Final = 1.0


class Sources(NamedTuple):
    """What is listened to; at least one of the two.

    >>> Sources(Path("spend.jsonl")).lag_s
    60.0
    """

    log: Path | None = None
    """A request log that grows."""
    format: str | None = None
    """Its format; None: it is recognised."""
    metrics: Mapping[str, Sequence[str]] = {}
    """Agent -> the pages of its instances' metrics."""
    lag_s: float = 60.0
    """How long after its beginning a request is in the log at the latest, without being late; 0 or more."""
    report_every_s: float = 5.0


class Advice(NamedTuple):
    """An advisor that listens."""

    admin_address: str
    recommendations: Recommendations
    telemetry: Watched
    advisor: Advisor
    listener: Listener
    reports: LoadReports


def run_advice(
    scenario: Scenario, sources: Sources, *, host: str = "127.0.0.1", admin_port: int = 8081, journal_path: Path,
    store_path: Path | None = None, allow_plugins: bool = False, certificate: Path | None = None,
) -> int:  # fmt: skip
    """Advise until SIGTERM or SIGINT; return the exit code: 0 after a signal, 1 if it could not go on.

    Recommendations are printed, one a line. A journal that is there is gone on with.

    Parameters
    ----------
    scenario
        The fleet as it is, and the controllers that are to be heard.
    sources
        What is listened to.
    host, admin_port
        Where the admin's side listens, 0: any port; anything but loopback needs ``GLOWSIM_ADMIN_TOKEN``.
    journal_path
        The folder that the journal goes to.
    store_path
        Where the key of hashes is kept; default: the journal's path and ``.db``.
    allow_plugins
        Whether controllers may be code beside the scenario.
    certificate
        Where a certificate may lie; traffic is held against its envelope if one does.

    Raises
    ------
    SettingsError
        It cannot start so: nothing to listen to, an unknown agent, an address in use or unsafe.
    LogError
        The log is not there, or cannot be followed.
    JournalError
        The journal there is of another scenario, of a gateway, or none.
    StoreError
        The store cannot be used.
    """
    chosen = settings(
        tokens=True,  # there is no data plane that needs keys
        journal_records=scenario.live.journal.records, journal_keep_bytes=scenario.live.journal.keep_bytes,
        host=host, admin_port=admin_port, journal_path=journal_path, store_path=store_path,
    )  # fmt: skip

    async def main() -> int:
        stop = told_to_stop()
        async with advising(
            scenario, sources, chosen, allow_plugins=allow_plugins, certificate=certificate
        ) as advice:
            print(f"glowsim advises (admin {advice.admin_address})", flush=True)
            await first_of(stop, advice.listener.failed)
        if advice.listener.error is not None:
            _log.critical("the advisor failed", exc_info=advice.listener.error)
            return 1
        return 0

    return uvloop.run(main())


@asynccontextmanager
async def advising(
    scenario: Scenario, sources: Sources, chosen: Settings, *, allow_plugins: bool = False,
    certificate: Path | None = None, clock: Callable[[], float] = time.time, look_every_s: float = _LOOK_EVERY_S,
) -> AsyncIterator[Advice]:  # fmt: skip
    """Advise while the block lasts; ``clock`` is seconds since 1970 UTC. Raises as `run_advice` does."""
    metered = _metered(scenario, sources)
    if sources.log is None and not metered:
        raise SettingsError(
            "there is nothing to listen to: give --log FILE, or --metrics AGENT=URL, or 'metrics' of live.agents"
        )
    plane = build.control_plane(
        scenario, Streams(scenario.seed), allow_plugins=allow_plugins, fall_back=True, advise=True
    )
    async with AsyncExitStack() as stack:
        admin = stack.enter_context(listening(chosen.host, chosen.admin_port))
        log, first, lag_s = None, [], 0.0
        if sources.log is not None:
            log, lag_s = LogFile(sources.log, sources.format), sources.lag_s
            stack.callback(log.tail.close)
            first = log.read()  # it says when the journal's time begins
        store = Store(chosen.store, keep_requests=1)
        stack.push_async_callback(store.close)
        begun_s = min((call.begun_s for call in first), default=clock()) - lag_s
        journal, earlier = _journal(scenario, chosen, begun_s // _DAY_S * _DAY_S)
        stack.callback(journal.close)
        epoch_s = float(journal.header["advice"]["epoch_unix_s"])

        def now_s() -> float:
            return clock() - epoch_s

        instances, agents = _instances(scenario, metered, earlier), Agents(scenario)
        there = Counter(agent for agent, _ in instances.all())
        telemetry = Watched(scenario, plane, [there[number] for number in range(len(agents.names))])
        telemetry.epoch_unix_s = epoch_s
        said = _Said(epoch_s)
        recommendations = Recommendations(telemetry, instances.called, said)
        envelope, envelope_is = _envelope(scenario, certificate, recommendations)
        hear = [telemetry.saw, recommendations.saw, *([] if envelope is None else [envelope.saw])]
        regions = [scenario.regions.index(agent.region) for agent in scenario.agents().values()]
        advisor = Advisor(
            plane, journal, instances, regions=regions, lag_s=lag_s, hash_of=partial(_hash, store.hash_key),
            watch=partial(_to_all, hear), beside=lambda: {"recommendations": recommendations.snapshot()},
        )  # fmt: skip
        if earlier is None:
            journal.begin({})
        else:
            said.quiet = True
            recommendations.restore(earlier.header.get("recommendations"))
            _remember(earlier, hear)
            advisor.recover(earlier)
            said.quiet = False
        advisor.begin(max(advisor.now_s, begun_s - epoch_s))
        advisor.forget_instances()
        listener = Listener(log, advisor, agents, recommendations, epoch_unix_s=epoch_s, now_s=now_s)
        listener.take(first)
        reports = await _reports(stack, metered, instances, advisor, now_s, sources.report_every_s)

        def heard() -> dict[str, Any]:
            return {
                **listener.heard(),
                "reports": {"instances": sum(map(len, metered.values())), "errors": reports.errors},
                "envelope": envelope_is,
                "not_advised": _left_out(scenario),
            }

        dashboard = Dashboard(
            Document(scenario, telemetry, source="advice", recommendations=recommendations.shown),
            _Clock(advisor),
        )
        app = pages(chosen, recommendations, telemetry, dashboard, lambda: advisor.now_s, heard)
        async with serve_apps({app: admin}, chosen):
            following = asyncio.create_task(listener.follow(look_every_s))
            try:
                yield Advice(
                    address_of(chosen.host, admin), recommendations, telemetry, advisor, listener, reports
                )
            finally:
                following.cancel()
                await asyncio.wait((following,))
                dashboard.close()


class _Clock:
    """What a dashboard asks of a driver: the time is the advisor's, and there is always somebody listening."""

    admitting = True

    def __init__(self, advisor: Advisor) -> None:
        self._advisor = advisor

    def now_s(self) -> float:
        return self._advisor.now_s


class _Said:
    """Prints recommendations; none while an earlier journal is read."""

    def __init__(self, epoch_unix_s: float) -> None:
        self._epoch_unix_s = epoch_unix_s
        self.quiet = False
        self._closed = False

    def __call__(self, recommendation: Recommendation) -> None:
        if self.quiet or self._closed:
            return
        try:
            print(recommendation.line(self._epoch_unix_s), flush=True)
        except OSError as error:  # whoever read the lines has gone; the pages and the journal have them
            self._closed = True
            _log.warning("recommendations cannot be printed any more: %s", error)


def _metered(scenario: Scenario, sources: Sources) -> dict[int, list[str]]:
    """Return agent -> pages of metrics: those that were given, or else those of the scenario's live side."""
    numbers = {name: number for number, name in enumerate(scenario.agents())}
    found: dict[int, list[str]] = {}
    for name, spec in scenario.live.agents.items():
        if not isinstance(spec, CallableAgent) and spec.metrics is not None:
            for member in scenario.members(name):
                found[numbers[member]] = [urljoin(url + "/", spec.metrics) for url in spec.urls]
    for name, urls in sources.metrics.items():
        if name not in numbers:
            raise SettingsError(f"--metrics {name}: there is no such agent; there are {', '.join(numbers)}")
        for url in urls:
            if not url.startswith(("http://", "https://")):
                raise SettingsError(
                    f"--metrics {name}: {url!r} is not a URL that begins with http:// or https://"
                )
        if len({place_of(url) for url in urls}) < len(urls):
            raise SettingsError(
                f"--metrics {name}: two pages are at one host and port: name each instance once"
            )
        found[numbers[name]] = list(urls)
    return {number: urls for number, urls in found.items() if urls}


def _instances(
    scenario: Scenario, metered: Mapping[int, Sequence[str]], earlier: Recording | None
) -> Instances:
    """Return the instances as they are known at first: those with metrics or URLs, or as many as the scenario says."""
    agents = scenario.agents()
    found = Instances(len(agents), 0 if earlier is None else after_instances(earlier))
    urls = {
        member: spec.urls
        for name, spec in scenario.live.agents.items()
        if not isinstance(spec, CallableAgent)
        for member in scenario.members(name)
    }
    for number, (name, agent) in enumerate(agents.items()):
        there = metered.get(number) or urls.get(name) or ()
        known: list[str | None] = list(dict.fromkeys(map(place_of, there)))
        for place in known or [None] * agent.instances:
            found.add(number, place)
        if known:
            found.settle(number)
    return found


async def _reports(
    stack: AsyncExitStack, metered: Mapping[int, Sequence[str]], instances: Instances, advisor: Advisor,
    now_s: Callable[[], float], every_s: float,
) -> LoadReports:  # fmt: skip
    """Poll the metrics of instances from now on."""
    session = await stack.enter_async_context(
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), cookie_jar=aiohttp.DummyCookieJar())
    )
    asked = {
        instances.of(agent)[place_of(url)]: Metered(agent, url)
        for agent, urls in metered.items()
        for url in urls
    }
    reports = LoadReports(
        session, instances=lambda: asked, tell=advisor.report, now_s=now_s, report_every_s=every_s
    )
    polling = asyncio.get_running_loop().create_task(reports.run())
    stack.callback(polling.cancel)
    return reports


def _envelope(
    scenario: Scenario, path: Path | None, recommendations: Recommendations
) -> tuple[Watch | None, str]:
    """Return what holds traffic against a certificate's envelope, and in words whether it does."""
    if path is None or not path.exists():
        return None, "no certificate"
    try:
        certificate = read_certificate(path)
        check(certificate, scenario, frozenset(scenario.agents()))
    except CertificateError as error:
        _log.warning("traffic is not held against %s: %s", path, error)
        return None, str(error)
    return Watch(certificate.bounds(), recommendations.left), f"of {path.name}, made {certificate.made}"


def _left_out(scenario: Scenario) -> list[str]:
    """Return the families of controllers that decide on the path only, and so are not heard."""
    families = {family for agent in scenario.agents().values() for family in scenario.controllers_of(agent)}
    return sorted(families - set(ADVISED))


def _remember(earlier: Recording, hear: Sequence[Callable[[Event, Sequence[Command]], None]]) -> None:
    """Have what an earlier advisor saw seen again."""
    event: Any = None
    commands: list[Any] = []
    for record in earlier.records():
        if isinstance(record, Command):
            commands.append(record)
        elif isinstance(record, Event):
            if event is not None:
                _to_all(hear, event, commands)
            event, commands = record, []
    if event is not None:
        _to_all(hear, event, commands)


def _to_all(
    hear: Sequence[Callable[[Event, Sequence[Command]], None]], event: Event, commands: Sequence[Command]
) -> None:
    for each in hear:
        each(event, commands)


def _hash(key: bytes, kind: str, name: str) -> int:
    """Return the keyed 64-bit hash of a name, never 0."""
    return (
        int.from_bytes(
            blake2b(name.encode(), digest_size=8, key=key, person=kind.encode()).digest(), "little"
        )
        or 1
    )


def _journal(scenario: Scenario, chosen: Settings, epoch_unix_s: float) -> tuple[Segments, Recording | None]:
    """Return the journal; and the last segment of the one that is gone on with, whose epoch and name it keeps."""
    header = in_header(scenario) | {"id": secrets.token_hex(8), "advice": {"epoch_unix_s": epoch_unix_s}}
    folder, earlier = chosen.journal_path, None
    files = files_of(folder) if folder.is_dir() else []
    if folder.exists() and not files:
        raise JournalError(f"{folder} is something else than a journal of advice: give another --journal")
    if files:
        earlier = read(files[-1])
        if "advice" not in earlier.header or earlier.header["digest"] != header["digest"]:
            what = "of another scenario" if "advice" in earlier.header else "of a gateway"
            raise JournalError(f"{folder} is the journal {what}: move it away, or give another --journal")
        header |= {name: earlier.header[name] for name in ("id", "advice")}
    kept = {"records": chosen.journal_records, "keep_bytes": chosen.journal_keep_bytes}
    return Segments(dict(header), folder, **kept), earlier
