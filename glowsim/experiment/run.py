"""Running a scenario to a folder on disk: replications, verdicts, tables, report; whole or not at all.

Everything is written into ``RUN.partial`` and the folder is renamed at the end, so an interrupted run
leaves nothing that loads as a result.
"""

from __future__ import annotations

import functools
import json
import multiprocessing
import os
import platform
import resource
import shutil
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import glowsim
from glowsim.build import BuildError
from glowsim.core.errors import GlowsimError, WorldError
from glowsim.experiment.judgement import summarise
from glowsim.experiment.parts import merging
from glowsim.experiment.replicate import Replicated, Watcher, journal_path, replicate
from glowsim.registry import RegistryError
from glowsim.results import Tables
from glowsim.scenario import Scenario, digest
from glowsim.scenario import laws as law_models
from glowsim.scenario import workload as kinds

__all__ = ["Finished", "begin", "conclude", "expected_requests", "run"]

_SHORT_RUN_REQUESTS = 200_000
_SHORT_RUN_REPLICATIONS = 5
_LITTLE_TOLERANCE = 1e-6
_PACKAGES = ("numpy", "scipy", "simpy", "pandas", "pyarrow", "pydantic", "matplotlib", "typst")

Progress = Callable[[int, int, float], None]
"""Told the replication, how many there are, and the simulated time in seconds."""


class Finished(NamedTuple):
    """A run that is on disk."""

    folder: Path
    summary: dict[str, Any]
    wall_s: float
    cpu_s: float


def expected_requests(scenario: Scenario) -> float:
    """Return about how many requests a replication has; for a trace, what its duration would hold at 10/s."""
    total = 0.0
    for workload in scenario.workload:
        per_arrival = 1.0
        if isinstance(workload, kinds.Sessions):
            per_arrival = max(law_models.mean(workload.turns), 1.0)
            rate = _rate_per_s(workload.arrivals)
        else:
            rate = _rate_per_s(workload)
        expected = rate * scenario.duration_s
        arrivals = expected if workload.tasks is None else min(expected, workload.tasks)
        total += arrivals * per_arrival
    return total


def _rate_per_s(arrivals: kinds.Workload | kinds.Arrivals) -> float:
    match arrivals:
        case kinds.PoissonArrivals():
            return arrivals.rate_per_s
        case kinds.PiecewiseArrivals():
            return max(step.rate_per_s for step in arrivals.steps)
        case kinds.DiurnalArrivals() | kinds.WeeklyArrivals():
            return arrivals.mean_per_s
        case kinds.BurstsArrivals():
            share = arrivals.lasts_s / arrivals.every_s
            return arrivals.base_per_s * (1 - share) + arrivals.burst_per_s * share
        case kinds.Closed():
            return arrivals.users / max(law_models.mean(arrivals.think_s), 0.1)
        case _:
            return 10.0


def run(
    scenario: Scenario, name: str, folder: Path, *, replications: int | None = None, jobs: int = 1,
    data: Path | None = None, allow_plugins: bool = False, command: Sequence[str] = (),
    progress: Progress | None = None, watcher: Watcher | None = None,
) -> Finished:  # fmt: skip
    """Run a scenario into a folder that does not exist yet.

    Parameters
    ----------
    scenario
        What to run.
    name
        What it is called: its file's name.
    folder
        Where the run goes; written as ``folder.partial`` first.
    replications
        How many; default: the scenario's, else 5 where a run is short and 1 where it is long. A scenario in
        which nothing is random is run once.
    jobs
        Processes to spread the replications over.
    data
        The folder of recorded traces.
    allow_plugins
        Whether controllers may be code beside the scenario.
    command
        How to do it again, for the manifest.
    progress
        Told how far it is.
    watcher
        Who looks at it in progress; there is one replication then.

    Raises
    ------
    GlowsimError
        The folder exists, or the scenario cannot be built.
    """
    begun_s = time.monotonic()
    wanted = 1 if watcher is not None else replications or scenario.replications
    if wanted is None:
        wanted = _SHORT_RUN_REPLICATIONS if expected_requests(scenario) <= _SHORT_RUN_REQUESTS else 1
    partial = begin(folder)
    try:
        done = _replicated(scenario, wanted, partial, jobs, data, allow_plugins, progress, watcher)
    except (BuildError, RegistryError, KeyboardInterrupt):
        shutil.rmtree(partial)
        raise
    for each in done:
        mean_open, rate_times_time = each.little
        if abs(mean_open - rate_times_time) > _LITTLE_TOLERANCE * max(mean_open, 1.0):
            raise WorldError(
                f"Little's law fails in replication {each.number}: {mean_open} against {rate_times_time}"
            )
    return conclude(scenario, name, folder, done, begun_s=begun_s, command=command)


def begin(folder: Path) -> Path:
    """Make the folder in which a run is until it is whole, ``folder.partial``, and return it.

    Raises
    ------
    GlowsimError
        One of the two is there already.
    """
    partial = _partial(folder)
    for taken in (folder, partial):
        if taken.exists():
            raise GlowsimError(f"{taken} exists: name another folder with --out, or remove it")
    partial.mkdir(parents=True)
    return partial


def _partial(folder: Path) -> Path:
    return folder.with_name(folder.name + ".partial")


def conclude(
    scenario: Scenario, name: str, folder: Path, done: Sequence[Replicated], *, begun_s: float,
    command: Sequence[str] = (), measured: Mapping[str, Any] | None = None,
) -> Finished:  # fmt: skip
    """Judge the replications whose tables lie in ``folder.partial``, write what is left, make it ``folder``.

    Parameters
    ----------
    scenario
        What was run.
    name
        What it is called: its file's name.
    folder
        Where the run goes.
    done
        The replications in order, at least one.
    begun_s
        When it began, on the monotonic clock.
    command
        How to do it again, for the manifest.
    measured
        Of a run against a real target: how its requests were sent, for the summary.
    """
    partial = _partial(folder)
    deterministic = not done[0].random
    summary = summarise(name, scenario, done, deterministic=deterministic)
    manifest = {
        "glowsim": glowsim.__version__,
        "name": name,
        "scenario": scenario.title,
        "digest": digest(scenario),
        "seed": scenario.seed,
        "replications": len(done),
        "deterministic": deterministic,
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "packages": {package: version(package) for package in _PACKAGES},
        "command": list(command),
        "column_digests": [each.digests for each in done],
        "tables": list(Tables._fields),
    }
    if measured is not None:
        summary["measured"] = dict(measured)
        manifest["measured"] = {"target": measured["target"], "api": measured["api"]}
    cpu_s = _cpu_s()
    summary |= {"wall_s": time.monotonic() - begun_s, "cpu_s": cpu_s}
    _write_json(partial / "scenario.json", scenario.dump())
    _write_json(partial / "summary.json", summary)
    _write_json(partial / "manifest.json", manifest)
    from glowsim.report import write_reports

    write_reports(partial, scenario, summary, manifest)
    _sync(partial)
    partial.rename(folder)
    return Finished(folder, summary, time.monotonic() - begun_s, cpu_s)


def _replicated(
    scenario: Scenario, wanted: int, folder: Path, jobs: int, data: Path | None, allow_plugins: bool,
    progress: Progress | None, watcher: Watcher | None,
) -> list[Replicated]:  # fmt: skip
    """Run the replications, one or several at a time, and put their tables together as they come."""
    make = functools.partial(
        replicate, scenario, folder=folder, data=data, allow_plugins=allow_plugins, watcher=watcher
    )
    jobs = min(jobs, wanted)
    each = (
        _in_turn(make, wanted, progress)
        if jobs == 1
        else _at_once(make, wanted, jobs, progress, scenario.duration_s)
    )
    done = []
    with merging(folder) as add, closing(each):
        for number, replicated in enumerate(each):
            done.append(replicated)
            add(number)
            if not replicated.random:
                break
    for number in range(len(done), wanted):  # begun before it was known that nothing is random
        journal_path(folder, number).unlink(missing_ok=True)
    return done


Make = Callable[..., Replicated]


def _in_turn(make: Make, wanted: int, progress: Progress | None) -> Generator[Replicated, None, None]:
    for number in range(wanted):
        told = None if progress is None else functools.partial(progress, number, wanted)
        yield make(number, progress=told)


def _at_once(
    make: Make, wanted: int, jobs: int, progress: Progress | None, until_s: float
) -> Generator[Replicated, None, None]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(jobs, wanted), mp_context=context) as pool:
        futures = [pool.submit(make, number) for number in range(wanted)]
        try:
            for number, future in enumerate(futures):
                replicated = future.result()
                if progress is not None:
                    progress(number, wanted, until_s)
                yield replicated
        finally:
            pool.shutdown(cancel_futures=True)


def _write_json(path: Path, data: dict[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _sync(folder: Path) -> None:
    for path in [*folder.iterdir(), folder]:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _cpu_s() -> float:
    """Return the CPU seconds of this process and its ended children."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)
