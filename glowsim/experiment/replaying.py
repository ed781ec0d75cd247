"""Replaying journals: the same events through fresh controllers must give the same commands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from glowsim import build
from glowsim.core import journal
from glowsim.core.journal import Recording
from glowsim.core.streams import Streams
from glowsim.recordings import recordings, scenario_of
from glowsim.scenario import Scenario

__all__ = ["Replayed", "replay"]


class Replayed(NamedTuple):
    """What replaying one journal showed."""

    different: bool
    text: str


def replay(source: Path, scenario: Scenario | None, *, allow_plugins: bool = False) -> Iterator[Replayed]:
    """Yield what replaying each journal of a run, or one journal, showed.

    Parameters
    ----------
    source
        The folder of a finished run, or a journal's file.
    scenario
        For a journal by itself: what it was made with. A run brings its own.
    allow_plugins
        Whether controllers may be code beside the scenario.

    Raises
    ------
    GlowsimError
        Not a run or journal, or one that was made with another scenario.
    """
    scenario = scenario_of(source, scenario)
    for path, recording in recordings(source, scenario):
        yield _one(path, recording, scenario, allow_plugins)


def _one(path: Path, recording: Recording, scenario: Scenario, allow_plugins: bool) -> Replayed:
    header = recording.header
    plane = build.control_plane(
        scenario,
        Streams(header["seed"], header["replication"]),
        allow_plugins=allow_plugins,
        fall_back=header["on_error"] == "fall back",
    )
    difference = journal.first_difference(recording, plane)
    torn = " (a torn last frame was left out)" if recording.torn else ""
    if difference is None:
        return Replayed(False, f"{path}: {len(recording):,} records, every command equal{torn}")
    if difference.state:
        text = f"{path}: after event {difference.number:,} a segment begins with another state than the one before ends"
        return Replayed(True, text + torn)
    lines = [
        f"{path}: commands differ at event {difference.number:,}{torn}",
        f"  event:    {difference.event}",
        *(f"  recorded: {command}" for command in difference.recorded or ("nothing",)),
        *(f"  replayed: {command}" for command in difference.replayed or ("nothing",)),
    ]
    return Replayed(True, "\n".join(lines))
