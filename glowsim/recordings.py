"""The journals of a run, or one by itself, with the scenario that they were made with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from glowsim.core import journal
from glowsim.core.errors import GlowsimError
from glowsim.core.journal import Recording, files_of
from glowsim.results import read_manifest
from glowsim.scenario import Scenario, digest

__all__ = ["recordings", "scenario_of"]


def scenario_of(source: Path, given: Scenario | None) -> Scenario:
    """Return the scenario of a run's folder, or the given one for a journal by itself, a file or its folder.

    Raises
    ------
    GlowsimError
        There is nothing at ``source``, or a journal by itself and no scenario given.
    """
    if source.is_dir() and not files_of(source):
        read_manifest(source)
        return Scenario.model_validate(json.loads((source / "scenario.json").read_text(encoding="utf-8")))
    if not source.exists():
        raise GlowsimError(f"there is no run and no journal {source}")
    if given is None:
        raise GlowsimError(f"{source} is a journal by itself: name its scenario with --scenario")
    return given


def recordings(source: Path, scenario: Scenario) -> Iterator[tuple[Path, Recording]]:
    """Yield each journal of a run's folder, or the one at a path.

    Raises
    ------
    GlowsimError
        Not a run or journal, or one that was made with another scenario.
    """
    paths = [source]
    if source.is_dir() and not files_of(source):
        paths = [source / f"journal-{number}.glow" for number in range(read_manifest(source)["replications"])]
        if "measured" in read_manifest(source):
            raise GlowsimError(f"{source} was measured at a real target: it has no journal of decisions")
    for path in paths:
        recording = journal.read(path)
        if recording.header["digest"] != digest(scenario):
            raise GlowsimError(
                f"{path} was made with another scenario than the one given: their digests differ"
            )
        yield path, recording
