"""The cheap model first, the expensive one where the answer does not convince."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from controllers.routing.allowance import Allowance
from controllers.routing.models import numbers
from glowsim.core.parameters import Count, Fraction
from glowsim.core.snapshot import Stateful
from glowsim.core.types import Plan, Request

__all__ = ["CheapFirst"]

_new = tuple.__new__


class CheapFirst(Stateful):
    """Decides that the cheap model answers, and the strong one again where the answer scores below a threshold.

    The score is what can be seen of an answer: a cheap judge's mark, a probability that the model gives itself, a
    check of the result. Each request is escalated once at most. With a share e of escalations a request costs
    cheap + e * strong, in place of strong: there is nothing to save above e = 1 - cheap / strong.

    Parameters
    ----------
    models
        Names of the models, in the order of their numbers.
    cheap
        Name of the model that answers first.
    strong
        Name of the model that answers where the first does not convince.
    threshold
        Score below which an answer does not convince, 0 to 1. 0: all convince.
    unscored
        What becomes of an answer that has no score: it is escalated, or taken.
    most
        Escalations as a share of the requests that may not be exceeded, 0 to 1, but for ``burst`` ones.
        None: no cap.
    burst
        Escalations that may be saved up under the cap, at least 1.

    Raises
    ------
    ValueError
        A model that there is not, or the same one twice.

    Notes
    -----
    Source: Chen, Zaharia and Zou, "FrugalGPT", arXiv 2305.05176, 2023, reduced to two models and one score.

    Known weakness: what the judge and the cheap model both get wrong is never escalated; where the score is
    worth little (AUC near 0.5) this is a coin, paid for twice.

    >>> router = CheapFirst(["large", "small"], cheap="small", strong="large", threshold=0.6)
    >>> plan = router.plan(0.0, Request(1, 0, 900, 100), Plan(0, 0, 900, 100)); plan.model
    1
    >>> router.escalate(0.0, Request(1, 0, 900, 100), plan, score=0.55).model
    0
    >>> router.escalate(0.0, Request(1, 0, 900, 100), plan, score=0.65) is None
    True
    """

    state = ("_allowance",)

    def __init__(
        self,
        models: Sequence[str],
        *,
        cheap: str,
        strong: str,
        threshold: Fraction = 0.5,
        unscored: Literal["escalate", "take"] = "escalate",
        most: Fraction | None = None,
        burst: Count = 10,
    ) -> None:
        self._cheap, self._strong = numbers(models, cheap, strong)
        self._threshold = threshold
        self._escalates_unscored = unscored == "escalate"
        self._capped = most is not None
        self._allowance = Allowance(1.0 if most is None else most, burst)

    def plan(self, t_s: float, request: Request, plan: Plan) -> Plan:
        """Return the plan with the cheap model."""
        self._allowance.earn()
        return _on(self._cheap, plan)

    def escalate(self, t_s: float, request: Request, plan: Plan, score: float) -> Plan | None:
        """Return the plan of another attempt in place of this answer, or None: it is good enough."""
        if plan[0] != self._cheap:
            return None
        unscored = score != score
        if self._escalates_unscored if unscored else score < self._threshold:
            if self._capped and not self._allowance.spend():
                return None
            return _on(self._strong, plan)
        return None


def _on(model: int, plan: Plan) -> Plan:
    """Return the plan with another model: a quarter of the price of `_replace`, for every request."""
    return _new(Plan, (model, *plan[1:]))
