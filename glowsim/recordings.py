"""The journals of a run, or one by itself, each with the scenario that it was made with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from glowsim.core.errors import GlowsimError
from glowsim.core.journal import Recording, files_of, journals, read
from glowsim.results import read_manifest
from glowsim.scenario import Scenario, digest

__all__ = ["Recorded", "recordings"]


class Recorded(NamedTuple):
    """A journal, and what it was made with."""

    path: Path
    recording: Recording
    scenario: Scenario


def recordings(source: Path, given: Scenario | None) -> Iterator[Recorded]:
    """Yield each journal of a run's folder, or of one by itself every configuration's, in order.

    Parameters
    ----------
    source
        The folder of a finished run, or a journal: a file or its folder.
    given
        For a journal by itself: what it was made with; of several configurations only this one's is yielded. A run
        brings its own, and so does a daemon's journal.

    Raises
    ------
    GlowsimError
        Not a run or journal, one that was made with another scenario, or one that does not say with which.
    """
    if source.is_dir() and not files_of(source):
        yield from _of_run(source)
        return
    if not source.exists():
        raise GlowsimError(f"there is no run and no journal {source}")
    found = journals(source)
    wanted = None if given is None else digest(given)
    if wanted is not None and wanted not in [recording.header["digest"] for recording in found]:
        raise GlowsimError(
            f"{source} was made with another scenario than the one given: their digests differ"
        )
    for recording in found:
        if wanted is None:
            if "configuration" not in recording.header:
                raise GlowsimError(f"{source} is a journal by itself: name its scenario with --scenario")
            yield Recorded(source, recording, Scenario.model_validate(recording.header["configuration"]))
        elif given is not None and recording.header["digest"] == wanted:
            yield Recorded(source, recording, given)


def _of_run(folder: Path) -> Iterator[Recorded]:
    manifest = read_manifest(folder)
    if "measured" in manifest:
        raise GlowsimError(f"{folder} was measured at a real target: it has no journal of decisions")
    scenario = Scenario.model_validate(json.loads((folder / "scenario.json").read_text(encoding="utf-8")))
    for number in range(manifest["replications"]):
        path = folder / f"journal-{number}.glow"
        recording = read(path)
        if recording.header["digest"] != digest(scenario):
            raise GlowsimError(
                f"{path} was made with another scenario than the one beside it: their digests differ"
            )
        yield Recorded(path, recording, scenario)
