"""The invariants over journals that exist: those of a run, or one by itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from glowsim.core import journal
from glowsim.core.checker import Violation, check
from glowsim.core.errors import GlowsimError
from glowsim.fuzz.facts import facts_of
from glowsim.results import read_manifest
from glowsim.scenario import Scenario, digest

__all__ = ["Checked", "check_journals"]


class Checked(NamedTuple):
    """What checking one journal showed."""

    path: Path
    records: int
    torn: bool
    """Whether a torn last frame was left out: then its last commands lack their effects."""
    violations: list[Violation]


def check_journals(
    source: Path, scenario: Scenario | None, *, allow_plugins: bool = False
) -> Iterator[Checked]:
    """Yield what checking each journal of a run, or one journal, showed.

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
        replications = read_manifest(source)["replications"]
        paths = [source / f"journal-{number}.glow" for number in range(replications)]
        scenario = Scenario.model_validate(json.loads((source / "scenario.json").read_text(encoding="utf-8")))
    elif not source.is_file():
        raise GlowsimError(f"there is no run and no journal {source}")
    elif scenario is None:
        raise GlowsimError(f"{source} is a journal by itself: name its scenario with --scenario")
    else:
        paths = [source]
    facts = facts_of(scenario, allow_plugins=allow_plugins)
    for path in paths:
        recording = journal.read(path)
        if recording.header["digest"] != digest(scenario):
            raise GlowsimError(
                f"{path} was made with another scenario than the one given: their digests differ"
            )
        yield Checked(path, len(recording), recording.torn, check(recording, facts))
