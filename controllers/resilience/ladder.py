"""A fallback ladder."""

from __future__ import annotations

from collections.abc import Sequence

from glowsim.core.protocols import Resort, Rung
from glowsim.core.snapshot import Stateful
from glowsim.core.types import Outcome, Request

__all__ = ["FallbackLadder"]

_RESORTS = {"stale": Resort.STALE, "apology": Resort.APOLOGY}


class FallbackLadder(Stateful):
    """Decides what a request gets that would fail otherwise: another model, an old answer, an apology.

    It is asked when the retrier has given up, when the queue has no room, when every breaker is open and when
    time is up; the steps are gone down in their order, each once, and one that cannot be taken is passed
    over: a model where no instance is free or no time is left, a stale answer where the cache holds none.
    A task that the model itself rejects (INVALID) stays rejected: nothing below mends it.

    What it gives counts as a failure of the agent all the same: for detectors, rollouts and breakers, and an
    apology also for the service level.

    Parameters
    ----------
    models
        Names of the models, in the order of their numbers.
    steps
        ``model NAME``, ``stale``, ``apology``; at least one.

    Raises
    ------
    ValueError
        A step that is none of these, or a model that there is not.

    Notes
    -----
    Source: Nygard, "Release It!", 2nd edition, 2018, sections on failing fast and on bulkheads; the order
    (elsewhere, cheaper, older, sorry) is the one in which the answer loses worth.

    >>> ladder = FallbackLadder(["large", "small"], steps=("model small", "apology"))
    >>> request = Request(1, 0, 900, 100)
    >>> [ladder.instead(0.0, request, rung, Outcome.ERROR) for rung in range(3)]
    [Rung(kind=<Resort.MODEL: 0>, model=1), Rung(kind=<Resort.APOLOGY: 2>, model=0), None]
    """

    def __init__(self, models: Sequence[str], *, steps: tuple[str, ...] = ("stale", "apology")) -> None:
        if not steps:
            raise ValueError("steps: give at least one of 'model NAME', 'stale', 'apology'")
        self._rungs = [self._rung(list(models), step) for step in steps]

    @staticmethod
    def _rung(models: list[str], step: str) -> Rung:
        if step in _RESORTS:
            return Rung(_RESORTS[step])
        word, _, name = step.partition(" ")
        if word != "model":
            raise ValueError(f"steps: {step!r} is none of 'model NAME', 'stale', 'apology'")
        if name not in models:
            raise ValueError(f"steps: there is no model {name!r}; there are {', '.join(models)}")
        return Rung(Resort.MODEL, models.index(name))

    def instead(self, t_s: float, request: Request, rung: int, outcome: Outcome) -> Rung | None:
        """Return the next step, or None at the end of the ladder."""
        if outcome == Outcome.INVALID or rung >= len(self._rungs):
            return None
        return self._rungs[rung]
