"""The invariants over journals that exist: those of a run, or one by itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from glowsim.core.checker import Violation, check
from glowsim.core.errors import GlowsimError
from glowsim.fuzz.facts import facts_of
from glowsim.recordings import recordings
from glowsim.scenario import Scenario

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
        For a journal by itself: what it was made with; a run and a daemon's journal bring their own.
    allow_plugins
        Whether controllers may be code beside the scenario.

    Raises
    ------
    GlowsimError
        Not a run or journal, one that was made with another scenario, one whose beginning is gone, or of advice.
    """
    for path, recording, made_with in recordings(source, scenario):
        if "state" in recording.header:
            raise GlowsimError(
                f"{path} begins with segment {recording.header['segment']}: the invariants are counted from the "
                "first; glowsim replay needs no more than is here"
            )
        if "advice" in recording.header:
            raise GlowsimError(
                f"{path} is a journal of advice: others served its requests, so a gateway's invariants are not theirs; "
                "'glowsim replay' proves what was recommended"
            )
        facts = facts_of(made_with, allow_plugins=allow_plugins)
        yield Checked(path, len(recording), recording.torn, check(recording, facts))
