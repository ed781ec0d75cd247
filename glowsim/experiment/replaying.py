"""Replaying journals: the same events through fresh controllers must give the same commands."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from glowsim import build
from glowsim.core import journal
from glowsim.core.control_plane import ControlPlane
from glowsim.core.journal import Recording
from glowsim.core.streams import Streams
from glowsim.recordings import Recorded, recordings
from glowsim.reload import carried, differences
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
        For a journal by itself: what it was made with; a run and a daemon's journal bring their own.
    allow_plugins
        Whether controllers may be code beside the scenario.

    Raises
    ------
    GlowsimError
        Not a run or journal, or one that was made with another scenario.
    """
    before: tuple[Recorded, ControlPlane] | None = None
    for recorded in recordings(source, scenario):
        replayed, plane = _one(*recorded, allow_plugins)
        yield replayed
        if before is not None and recorded.path == before[0].path:
            yield _change(*before, recorded, allow_plugins)
        before = recorded, plane


def _change(before: Recorded, plane: ControlPlane, after: Recorded, allow_plugins: bool) -> Replayed:
    """Say whether another configuration began with the state that the one before led to."""
    moved = carried(before.scenario, after.scenario, plane, allow_plugins=allow_plugins)
    head = after.recording.header
    place = f"{after.path}: segment {head['segment']}, another configuration"
    if json.dumps(moved.plane.snapshot(), sort_keys=True) != json.dumps(head["state"], sort_keys=True):
        return Replayed(True, f"{place}, begins with another state than the one before leads to")
    lines = [str(each) for each in differences(before.scenario, after.scenario)]
    return Replayed(
        False, "\n".join([f"{place}, begins with the state that the one before leads to", *lines])
    )


def _one(
    path: Path, recording: Recording, scenario: Scenario, allow_plugins: bool
) -> tuple[Replayed, ControlPlane]:
    header = recording.header
    plane = build.control_plane(
        scenario,
        Streams(header["seed"], header["replication"]),
        allow_plugins=allow_plugins,
        fall_back=header["on_error"] == "fall back",
        advise="advice" in header,
    )
    difference = journal.first_difference(recording, plane)
    torn = " (a torn last frame was left out)" if recording.torn else ""
    if difference is None:
        return Replayed(False, f"{path}: {len(recording):,} records, every command equal{torn}"), plane
    if difference.state:
        text = f"{path}: after event {difference.number:,} a segment begins with another state than the one before ends"
        return Replayed(True, text + torn), plane
    lines = [
        f"{path}: commands differ at event {difference.number:,}{torn}",
        f"  event:    {difference.event}",
        *(f"  recorded: {command}" for command in difference.recorded or ("nothing",)),
        *(f"  replayed: {command}" for command in difference.replayed or ("nothing",)),
    ]
    return Replayed(True, "\n".join(lines)), plane
