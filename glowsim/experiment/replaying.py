"""Replaying journals: the same events through fresh controllers must give the same commands."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from glowsim import build
from glowsim.core import journal
from glowsim.core.errors import GlowsimError
from glowsim.core.journal import Recording
from glowsim.core.streams import Streams
from glowsim.results import read_manifest
from glowsim.scenario import Scenario, digest

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
    if source.is_dir():
        manifest = read_manifest(source)
        paths = [source / f"journal-{number}.glow" for number in range(manifest["replications"])]
        scenario = Scenario.model_validate(json.loads((source / "scenario.json").read_text()))
    elif scenario is None:
        raise GlowsimError(f"{source} is a journal by itself: name its scenario with --scenario")
    else:
        paths = [source]
    for path in paths:
        recording = journal.read(path)
        if recording.header["digest"] != digest(scenario):
            raise GlowsimError(
                f"{path} was made with another scenario than the one given: their digests differ"
            )
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
    lines = [
        f"{path}: commands differ at event {difference.number:,}{torn}",
        f"  event:    {difference.event}",
        *(f"  recorded: {command}" for command in difference.recorded or ("nothing",)),
        *(f"  replayed: {command}" for command in difference.replayed or ("nothing",)),
    ]
    return Replayed(True, "\n".join(lines))
