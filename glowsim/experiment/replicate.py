"""One replication from scenario to figures: run, read the journal, fold it, write its tables."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import nan
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from glowsim import build, results
from glowsim.core import journal
from glowsim.core.control_plane import ControlPlane
from glowsim.core.errors import ControllerError, WorldError
from glowsim.core.types import Command, Event
from glowsim.experiment.parts import write_parts
from glowsim.ledger import ledger
from glowsim.scenario import Scenario

__all__ = ["Replicated", "Watcher", "journal_path", "keep", "rare_collections", "replicate"]

Progress = Callable[[float], None]
"""Told the simulated time, in seconds."""


class Watcher(Protocol):
    """Looks at a replication in progress and says how fast it goes; nothing that happens in it changes."""

    def begins(self, plane: ControlPlane) -> Callable[[Event, Sequence[Command]], None]:
        """Hear what will decide; return who is told every event and what was answered to it."""

    def pace(self, t_s: float) -> float:
        """Return until when to go on, in simulated seconds; return late to slow the replication down."""

    def ends(self, t_s: float) -> None:
        """Hear that it has ended, and when, in simulated seconds."""


class Replicated(NamedTuple):
    """What is kept of a replication in memory; its tables lie on disk."""

    number: int
    figures: dict[str, float]
    by_group: dict[str, dict[str, float]]
    """Agent or group that a service level names -> its own figures."""
    random: bool
    little: tuple[float, float]
    digests: dict[str, str]
    cost_parts_usd: dict[str, float]
    """Part of the bill -> US dollars; they add up to the cost."""
    servers: dict[str, dict[str, float]]
    """Model server -> what it has done."""
    cpu_s: float


def journal_path(folder: Path, number: int) -> Path:
    """Return where the journal of a replication lies in a run's folder."""
    return folder / f"journal-{number}.glow"


@contextmanager
def rare_collections() -> Iterator[None]:
    """Have the garbage collector look rarely: a simulation makes many objects and hardly any cycles."""
    threshold = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)
    try:
        yield
    finally:
        gc.set_threshold(*threshold)
        gc.collect()  # what was made meanwhile, and not every module that was there before
        gc.unfreeze()


def replicate(
    scenario: Scenario, number: int, folder: Path, *, data: Path | None = None, allow_plugins: bool = False,
    progress: Progress | None = None, watcher: Watcher | None = None,
) -> Replicated:  # fmt: skip
    """Run one replication; write its journal and its part of every table into ``folder``.

    Parameters
    ----------
    scenario
        What to run.
    number
        Which replication, from 0.
    folder
        The run's folder; it must exist.
    data
        The folder of recorded traces.
    allow_plugins
        Whether controllers may be code beside the scenario.
    progress
        Told the simulated time now and then.
    watcher
        Who looks at it; None: nobody.
    """
    with rare_collections():
        return _replicate(scenario, number, folder, data, allow_plugins, progress, watcher)


def _replicate(
    scenario: Scenario, number: int, folder: Path, data: Path | None, allow_plugins: bool,
    progress: Progress | None, watcher: Watcher | None,
) -> Replicated:  # fmt: skip
    begun_s = time.process_time()
    path = journal_path(folder, number)
    watch, pace = (None, None) if watcher is None else (watcher.begins, watcher.pace)
    built = build.replication(
        scenario, number, journal_path=path, data=data, allow_plugins=allow_plugins, watch=watch
    )
    try:
        built.world.start()
        built.world.run(scenario.duration_s + scenario.drain_s, progress, pace)
        if watcher is not None:
            watcher.ends(built.world.environment.now)
    except (ControllerError, WorldError) as error:
        built.journal.close()
        error.add_note(f"the journal up to there is {path}")
        raise
    recording = journal.read(path)
    answers = built.world.answers
    tables = results.fold(recording, scenario, None if answers is None else answers.failures)
    did = {name: each.figures() for name, each in zip(scenario.servers, built.world.servers, strict=True)}
    kept = keep(scenario, number, folder, recording.header, tables, random=built.random, servers=did)
    return kept._replace(cpu_s=time.process_time() - begun_s)


def keep(
    scenario: Scenario, number: int, folder: Path, header: Mapping[str, Any], tables: results.Tables, *,
    random: bool, servers: dict[str, dict[str, float]], unknown: Collection[str] = (),
) -> Replicated:  # fmt: skip
    """Write a replication's part of every table into ``folder``; return what is kept of it in memory.

    Parameters
    ----------
    scenario
        What was run.
    number
        Which replication, from 0.
    folder
        The run's folder; it must exist.
    header
        A journal's: the names that stand for numbers.
    tables
        Of this replication.
    random
        Whether another replication could come out differently.
    servers
        Model server -> what it has done.
    unknown
        Figures that nobody knows of this replication: they are nan.
    """
    write_parts(folder, number, tables, header)
    numbers = {agent: at for at, agent in enumerate(scenario.agents())}
    groups = {slo.agent for slo in scenario.slos if slo.agent is not None} | set(numbers)
    hidden = dict.fromkeys(unknown, nan)
    found = results.figures_by(
        tables,
        scenario.warmup_s,
        {group: [numbers[member] for member in scenario.members(group)] for group in sorted(groups)},
    )
    by_group = {group: figures | hidden for group, figures in found.items()}
    return Replicated(
        number,
        results.figures(tables, scenario.warmup_s) | hidden,
        by_group,
        random,
        results.little(tables),
        results.digests(tables),
        ledger(tables, scenario, scenario.warmup_s).totals_usd,
        servers,
        0.0,
    )
