"""What a configuration does not say and a person has to: what its metrics measure, who resumes, which share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Final

from glowsim.core.errors import GlowsimError
from glowsim.oc.foreign.documents import refuse
from glowsim.oc.foreign.readings import SPELLINGS, Reading
from glowsim.scenario.quantities import format_duration
from glowsim.scenario.source import Mark

__all__ = ["Answers"]

_WELL: Final = frozenset({"successrate", "requestsuccessrate", "httpsuccessrate"})
_ILL: Final = frozenset({"errorrate", "requesterrorrate", "httperrorrate", "failurerate"})


@dataclass(slots=True)
class Answers:
    """What a person said beside the configuration, and which of it was needed.

    Args:
        metrics: metric's name -> what it measures, one of ``readings.SPELLINGS``.
        weight: the share of the requests that the new version gets, above 0 and below 1; for a configuration that
            does not say it. None: not said.
        pause_s: seconds after which a person resumes an indefinite pause, > 0. None: not said.

    Raises:
        GlowsimError: an answer is out of range or none that is understood.
    """

    metrics: Mapping[str, str] = field(default_factory=dict)
    weight: float | None = None
    pause_s: float | None = None
    notes: list[str] = field(default_factory=list)
    _readings: dict[str, Reading | None] = field(init=False)
    _asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        try:
            self._readings = {name: Reading.parse(text) for name, text in self.metrics.items()}
        except ValueError as error:
            raise GlowsimError(f"--metric: {error}") from None
        if self.weight is not None and not 0.0 < self.weight < 1.0:
            raise GlowsimError(
                f"the share of the new version is {self.weight:g}: it has to be above 0 and below 1"
            )
        if self.pause_s is not None and not 0.0 < self.pause_s < 1e9:
            raise GlowsimError(f"a pause of {self.pause_s:g} s: it has to be above 0")

    def reading(self, name: str, largest: float, window_s: float, mark: Mark, path: str) -> Reading | None:
        """Return what a metric measures, None if it is to be ignored, and note it.

        Args:
            name: the metric.
            largest: the largest number that it is compared with: above 1, a share is meant in per cent.
            window_s: seconds that it looks back, for the note.
            mark: where it stands.
            path: what messages call it.

        Raises:
            ScenarioError: nobody said it, and its name does not either.
        """
        self._asked.append(name)
        percent = "_percent" if largest > 1.0 else ""
        plain = "".join(letter for letter in name.lower() if letter.isalnum())
        if name in self._readings:
            found, spelling = self._readings[name], self.metrics[name]
        elif plain in _WELL:
            spelling = f"success{percent}"
            found = Reading.parse(spelling)
        elif plain in _ILL:
            spelling = f"errors{percent}"
            found = Reading.parse(spelling)
        else:
            message = (
                f"what does the metric {name!r} measure? say it by --metric '{name}=...', one of {SPELLINGS}"
            )
            refuse(mark, message, path)
        if found is None:
            self.notes.append(f"the metric {name!r} is ignored, as you said")
        else:
            self.notes.append(f"the metric {name!r} is read as {spelling} over {format_duration(window_s)}")
        return found

    def check_all_used(self) -> None:
        """Refuse answers about metrics that there are not.

        Raises:
            GlowsimError: one was not asked for.
        """
        for name in self.metrics:
            if name not in self._asked:
                near = get_close_matches(name, self._asked, n=1)
                there = (
                    f"did you mean {near[0]!r}?" if near else f"there is {', '.join(self._asked) or 'none'}"
                )
                raise GlowsimError(f"--metric: the configuration has no metric {name!r}; {there}")
