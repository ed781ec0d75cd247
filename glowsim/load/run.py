"""Load on a real target, to a folder on disk: the tables, summary and verdict of a simulated run.

A real run is one replication. Another is another run, with the next replication's requests, so the intervals
and verdicts are those of `glowsim run`, and one run alone decides nothing.
"""

from __future__ import annotations

import asyncio
import resource
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from glowsim import build
from glowsim.core.errors import GlowsimError
from glowsim.experiment.parts import merging
from glowsim.experiment.replicate import Replicated, keep, rare_collections
from glowsim.experiment.run import Finished, begin, conclude
from glowsim.load import records
from glowsim.load.faces import FACES, Face
from glowsim.load.generator import Generator, TargetError, User
from glowsim.load.http import address_of, opened
from glowsim.load.sending import interrupting
from glowsim.results import ENDINGS
from glowsim.scenario import Scenario, format_duration
from glowsim.scenario.workload import Workload
from glowsim.serving_cost import server_table

__all__ = ["Load", "load"]

_LATE_S: Final = 0.01
_LATE_SHARE: Final = 0.1
"""A generator is too late if 1 in 100 requests was sent later than both: so long, so much of the median
latency."""
_BUSY: Final = 0.8
"""Share of a core from which on a generator in one thread may itself be what is slow."""
_AT_ONCE: Final = 128
"""Requests drawn at a time: a whole block would have those that are due meanwhile wait for 20 ms."""
_SPARE_FILES: Final = 256
_OWN_LIMITS: Final = ("Too many open files", "Cannot assign requested address", "No buffer space available")
_MOST_SAID: Final = 20
_UNKNOWN: Final = (
    "retries", "wait_s_mean", "wait_s_p95", "degraded_rate", "answered_stale", "answered_other_model",
    "cost_instances_usd", "cost_servers_usd",
)  # fmt: skip
"""What only the target could know."""
_COST: Final = ("cost_usd", "cost_usd_per_task")


class Load(NamedTuple):
    """How a target is to be loaded."""

    target: str
    """Its URL."""
    api: str = "chat"
    """``chat`` or ``tasks``: how it is spoken to."""
    key: str | None = None
    """Sent as a bearer token; nothing of it is written down."""
    duration_s: float | None = None
    """Sending stops then, if not before; default: the scenario's duration."""
    replications: int = 1
    """Runs, one after the other."""
    most_in_flight: int = 10_000


class _Sent(NamedTuple):
    """What a replication's generator says about itself."""

    rows: Any
    took_s: float
    cpu_s: float
    generator: Generator


def load(
    scenario: Scenario, name: str, folder: Path, how: Load, *, data: Path | None = None, command: Sequence[str] = (),
) -> Finished:  # fmt: skip
    """Send a scenario's workload to a target, into a folder that does not exist yet.

    SIGINT ends it early; what was measured until then is kept.

    Parameters
    ----------
    scenario
        Its workload is sent; its agents' timeouts and prices hold. Its faults and controllers are the target's
        own affair.
    name
        What it is called: its file's name.
    folder
        Where the run goes; written as ``folder.partial`` first.
    how
        The target, and how it is to be loaded.
    data
        The folder of recorded traces.
    command
        How to do it again, for the manifest.

    Raises
    ------
    GlowsimError
        The folder exists, the scenario cannot be sent, or the target cannot be loaded as asked.
    """
    begun_s = time.monotonic()
    face, how = FACES[how.api], how._replace(target=address_of(how.target))
    _check(scenario, how)
    _allow_files(how.most_in_flight)
    partial = begin(folder)
    sent: list[_Sent] = []
    kept: list[Replicated] = []
    ended_by = ""
    try:
        with merging(partial) as add:
            for number in range(how.replications):
                try:
                    sent.append(asyncio.run(_sent(scenario, number, how, face, data)))
                except (TargetError, KeyboardInterrupt) as error:
                    if not sent:
                        raise
                    ended_by = (
                        str(error) or "interrupted"
                    )  # what the replications before have measured is kept
                    break
                kept.append(_kept(scenario, number, partial, sent[-1]))
                add(number)
                if sent[-1].generator.interrupted:
                    break
    except (GlowsimError, KeyboardInterrupt):
        shutil.rmtree(partial)
        raise
    measured = _measured(scenario, how, sent)
    if ended_by:
        measured["warnings"].append(f"ended after {len(sent)} of {how.replications} replications: {ended_by}")
    return conclude(scenario, name, folder, kept, begun_s=begun_s, command=command, measured=measured)


def _check(scenario: Scenario, how: Load) -> None:
    key = how.key
    if key is not None and not (key and key.isascii() and key.isprintable() and key == key.strip()):
        raise GlowsimError(
            "--key-env: the key in it is empty, or has spaces around it or characters no header holds"
        )
    if how.duration_s is not None and how.duration_s <= scenario.warmup_s:
        raise GlowsimError(
            f"--duration: the first {format_duration(scenario.warmup_s)} are the scenario's warm-up and do not count: "
            "give more, or --set warmup=0s"
        )
    if how.duration_s is not None and how.duration_s > scenario.duration_s:
        raise GlowsimError(
            f"--duration: the scenario sends for {format_duration(scenario.duration_s)} only: give no more, or "
            f"--set duration={how.duration_s:g}s"
        )
    for number, workload in enumerate(scenario.workload):
        asked = [name for name in scenario.shares(workload) if name in scenario.services]
        if asked:
            raise GlowsimError(
                f"workload.{number}: {asked[0]} is a service, and a client cannot tell which agent of it has "
                f"answered: name the agents ({', '.join(scenario.services[asked[0]].agents)})"
            )


def _allow_files(most_in_flight: int) -> None:
    """Let this process open a file for every call in flight, as far as the system lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = most_in_flight + _SPARE_FILES
    wanted = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def _sent(scenario: Scenario, number: int, how: Load, face: Face, data: Path | None) -> _Sent:
    sources = build.sources(scenario, number, data, at_once=_AT_ONCE)
    users = [User(name, agent.timeout_s) for name, agent in scenario.agents().items()]
    async with opened(how.target, face, how.key, scenario.regions) as target:
        generator = Generator(
            sources, users, target, until_s=how.duration_s or scenario.duration_s,
            drain_s=scenario.drain_s, most_in_flight=how.most_in_flight,
        )  # fmt: skip
        with interrupting(generator.stop), rare_collections():
            begun_s = time.process_time()
            took_s = await generator.run()
            return _Sent(generator.records.rows, took_s, time.process_time() - begun_s, generator)


def _kept(scenario: Scenario, number: int, folder: Path, sent: _Sent) -> Replicated:
    tables = records.tables(sent.rows, scenario, sent.took_s)
    unknown = set(_UNKNOWN)
    if sent.generator.without_source:
        unknown.add("cache_hit_rate")
    if sent.generator.without_usage:
        unknown |= {"cost_tokens_usd", "tokens_out", *_COST}
    by_the_hour = any(agent.instance_usd_per_hour for agent in scenario.agents().values())
    if by_the_hour or server_table(scenario, 0.0)["usd_per_hour"].any():
        unknown |= set(_COST)  # the tokens' part of it is known, the rest is not
    header = build.header(scenario, number)
    kept = keep(scenario, number, folder, header, tables, random=True, servers={}, unknown=unknown)
    return kept._replace(cpu_s=sent.cpu_s)


# --- what is said about the sending ---------------------------------------------------------------------


def _measured(scenario: Scenario, how: Load, sent: Sequence[_Sent]) -> dict[str, Any]:
    rows = np.concatenate([each.rows for each in sent])
    late_s = (rows["t_sent_s"] - rows["t_arrive_s"])[~np.isnan(rows["t_sent_s"])]
    said: Counter[str] = Counter()
    for each in sent:
        said.update(each.generator.said)
    lateness_s = None
    if len(late_s):
        lateness_s = {
            "p50": float(np.quantile(late_s, 0.5)), "p99": float(np.quantile(late_s, 0.99)), "max": float(late_s.max()),
        }  # fmt: skip
    return {
        "target": how.target,
        "api": how.api,
        "sent": len(late_s),
        "lateness_s": lateness_s,
        "most_in_flight": how.most_in_flight,
        "peak_in_flight": max(each.generator.peak_in_flight for each in sent),
        "held": sum(each.generator.held for each in sent),
        "interrupted": sent[-1].generator.interrupted,
        "took_s": [each.took_s for each in sent],
        "cpu_s": [each.cpu_s for each in sent],
        "errors": dict(said.most_common(_MOST_SAID)),
        "warnings": list(_warnings(scenario, how, sent, rows, lateness_s, said)),
        "notes": list(_notes(scenario, how, sent)),
    }


def _warnings(
    scenario: Scenario, how: Load, sent: Sequence[_Sent], rows: Any, lateness_s: dict[str, float] | None,
    said: Counter[str],
) -> Iterator[str]:  # fmt: skip
    """Yield what may spoil the measurement, each a sentence without its full stop."""
    last, wanted_s = sent[-1], how.duration_s or scenario.duration_s
    if last.generator.interrupted:
        nth = f"replication {len(sent)} of {how.replications} " if how.replications > 1 else ""
        yield f"{nth}interrupted after {format_duration(round(last.took_s, 1))} of {format_duration(wanted_s)}"
    held = sum(each.generator.held for each in sent)
    if held:
        yield f"{held:,} requests waited because {how.most_in_flight:,} were in flight: raise --max-in-flight"
    answered = rows["ending"] == ENDINGS.index("answered")
    median_s = float(np.median((rows["t_end_s"] - rows["t_arrive_s"])[answered])) if answered.any() else 0.0
    if not held and lateness_s is not None and lateness_s["p99"] > max(_LATE_S, _LATE_SHARE * median_s):
        yield (
            f"the generator was late: 1 in 100 requests was sent {lateness_s['p99'] * 1000:,.0f} ms after it was "
            "due or later; what is measured is in part this machine, not the target"
        )
    for number, each in enumerate(sent):
        share = each.cpu_s / each.took_s if each.took_s else 0.0
        if share > _BUSY:
            yield f"the generator took {share:.0%} of a core in replication {number}: it may be what is slow"
    short = [words for words in said if any(limit in words for limit in _OWN_LIMITS)]
    if short:
        yield f"this machine ran short: {short[0]}; lower --max-in-flight or raise its limits"


def _notes(scenario: Scenario, how: Load, sent: Sequence[_Sent]) -> Iterator[str]:
    """Yield what of the scenario does not hold here, each a sentence without its full stop."""
    yield "what the target does inside, and what its instances cost, is not known here"
    if how.duration_s is not None and how.duration_s < scenario.duration_s:
        yield f"sending stopped after {format_duration(how.duration_s)} of {format_duration(scenario.duration_s)}"
    without = sum(each.generator.without_usage for each in sent)
    if without:
        yield f"{without:,} answers did not say what they used, so there is no cost and no count of output tokens"
    if scenario.faults:
        yield "the scenario's faults are not made to happen"
    yield from sorted({words for workload in scenario.workload for words in _of_workload(workload)})


def _of_workload(workload: Workload) -> Iterator[str]:
    if workload.priority != 1 or workload.cacheable or workload.deadline_s or workload.kind == "sessions":
        yield "priorities, sessions, deadlines and what may be cached go in headers that only glowsim's gateway reads"
    if workload.tenants > 1 or workload.kind in ("preset", "fitted"):
        yield "all requests are one tenant's, the key's"
    if workload.users_from:
        yield "requests name their users' regions, but all of them come from this machine"
