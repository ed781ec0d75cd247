"""A canary with stages and a guardrail."""

from __future__ import annotations

from bisect import bisect_right
from itertools import pairwise
from math import exp, fsum, inf, log
from operator import itemgetter
from typing import Literal

from glowsim.core.parameters import Count, Fraction, Positive, PositiveSeconds
from glowsim.core.snapshot import Stateful
from glowsim.core.streams import key_of, mix
from glowsim.core.types import Advance, ChangeKind, Code, Constraint, Observed, Reason, Request

__all__ = ["Canary"]

_HARM = (1.25, 1.5, 2.0, 3.0, 5.0)
"""Multiples of the tolerated risk ratio that are tested against it, with equal weights."""


class Canary(Stateful):
    """Decides which share of the traffic gets the new variant, in stages, and takes it back on harm.

    A unit gets the canary if the hash of (unit, salt) is below the weight, so it stays with its variant, and
    raising the weight only adds units. A request that belongs to no session, user or tenant is a unit by
    itself. Stage 0 is all baseline (rolled back), stage 1 has ``weight`` and begins at the epoch, t = 0; the
    stages of ``then`` follow. A stage ends after its time, if at least ``minimum`` outcomes of the canary
    came in during it; else it goes on, and is looked at again after ``step_s``.

    The guardrail asks of every error which variant it came from. If the canary's risk is r times the
    baseline's, that is the canary with probability w r / (w r + 1 - w), where w is the weight at assignment;
    how many requests and errors there are does not matter. The evidence is the mean over r = 1.25, 1.5, 2,
    3, 5 times ``risk_ratio`` of the likelihood ratios against r = ``risk_ratio``. Rolled back, for good, when
    it reaches 1 / alpha: for a canary that is no worse this ever happens with probability at most ``alpha``
    (Ville), however often one looks, and whatever raises the errors of both variants alike.

    That holds under conditions which the world must keep: one outcome a request, after its retries; the
    same delay until an error is known in both variants; and units that are independent. With few units that
    send many requests each (``tenant``), false rollbacks are several times as frequent.

    Parameters
    ----------
    salt
        Name of the rollout: rollouts with different salts draw different units.
    weight
        Share of the units in stage 1, above 0.
    hold_s
        Seconds of stage 1, above 0.
    then
        Shares of the stages that follow, rising.
    step_s
        Seconds of each of these, and until a stage that has to go on is looked at again; above 0.
    unit
        What is assigned.
    outcome
        What counts: how requests finished, or late labels of the metric ``error`` (0: none).
    alpha
        Bound on the probability of a false rollback, above 0 and up to 1.
    risk_ratio
        The canary's error rate over the baseline's that is tolerated, above 0.
    minimum
        Canary outcomes without which no stage ends.

    Raises
    ------
    ValueError
        The weights do not rise, or ``alpha`` is 0.

    Notes
    -----
    Sources: Ville, "Etude critique de la notion de collectif", 1939; Ramdas, Grunwald, Vovk & Shafer,
    "Game-theoretic statistics and safe anytime-valid inference", Statistical Science 38(4), 2023.

    >>> canary = Canary(salt="v2", weight=0.5, hold_s=60, then=(1.0,), minimum=1)
    >>> [canary.assign(0.0, Request(number, 0, 900, 100)) for number in range(8)]
    [1, 0, 1, 0, 0, 0, 1, 0]
    >>> canary.finished(1.0, 0.0, 1, Request(2, 0, 900, 100), True, 1.0, 0.0)
    >>> canary.wake_s(), canary.wake(60.0)[1:3]
    (60, (2, 1.0))
    """

    state = ("_stage", "_share", "_weights", "_next_s", "_outcomes", "_logs")

    def __init__(
        self,
        *,
        salt: str,
        weight: Fraction = 0.05,
        hold_s: PositiveSeconds = 86_400.0,
        then: tuple[Fraction, ...] = (0.10, 0.25, 0.5, 1.0),
        step_s: PositiveSeconds = 7_200.0,
        unit: Literal["request", "session", "user", "tenant"] = "request",
        outcome: Literal["finished", "observed"] = "finished",
        alpha: Fraction = 0.01,
        risk_ratio: Positive = 1.0,
        minimum: Count = 100,
    ) -> None:
        stages = (0.0, weight, *then)
        if any(later <= earlier for earlier, later in pairwise(stages)):
            raise ValueError(
                f"then: 0, weight {weight} and then {list(then)} must rise, so that units only join"
            )
        if alpha <= 0.0:
            raise ValueError(f"alpha: {alpha} would never roll back; give more than 0, such as 0.01")
        self.first_weight = weight
        """Share of the units until the first change of stage."""
        self._stages = stages
        self._salt = key_of("canary", salt)
        self._step_s = step_s
        self.unit = unit
        self._unit: itemgetter[int] = itemgetter(
            Request._fields.index("request_id" if unit == "request" else unit)
        )
        self._labels = outcome == "observed"
        self._enough = 1.0 / alpha
        self._risk_ratio = risk_ratio
        self._minimum = minimum
        self._stage = 1
        self._share = _of_hashes(weight)
        self._weights = [(0.0, weight)]
        """(since when, weight), in order."""
        self._next_s = hold_s if then else inf
        self._outcomes = 0
        """Of the canary, in this stage."""
        self._logs = [0.0] * len(_HARM)
        """Logarithms of the likelihood ratios."""

    @property
    def evidence(self) -> float:
        """The evidence of harm so far: 1 at the start, a rollback at 1 / alpha."""
        return fsum(map(exp, self._logs)) / len(_HARM)

    def assign(self, t_s: float, request: Request) -> int:
        """Return 1 for the canary, 0 for the baseline."""
        unit_of = self._unit
        unit = unit_of(request) or request[0]
        return 1 if mix(unit ^ self._salt) < self._share else 0

    def propensity(self, assigned_s: float, variant: int) -> float:
        """Return the probability with which a request that was assigned at that moment got this variant."""
        weight = self._weight_at(assigned_s)
        return weight if variant else 1.0 - weight

    def finished(
        self, t_s: float, assigned_s: float, variant: int, request: Request, ok: bool, latency_s: float,
        cost_usd: float,
    ) -> Advance | None:  # fmt: skip
        """Take in a request's one outcome; return a rollback, if it comes to that."""
        if self._labels or not self._stage:
            return None
        if variant:
            self._outcomes += variant
        if ok:
            return None
        return self._error(t_s, self._weight_at(assigned_s), variant)

    def observed(self, t_s: float, observed: Observed) -> Advance | None:
        """Take in a late label; return a rollback, if it comes to that."""
        if not self._labels or not self._stage or observed.metric != "error":
            return None
        self._outcomes += observed.variant
        if observed.value == 0.0:
            return None
        weight = observed.propensity if observed.variant else 1.0 - observed.propensity
        return self._error(t_s, weight, observed.variant)

    def wake(self, t_s: float) -> Advance | None:
        """Go on to the next stage, if this one's time is over and enough of the canary was seen."""
        if t_s < self._next_s:
            return None
        if self._outcomes < self._minimum:
            self._next_s = t_s + self._step_s
            return None
        reason = Reason(Code.STAGE_DONE, a=self._stage, b=self._outcomes, c=self.evidence)
        return self._turn(t_s, self._stage + 1, reason)

    def wake_s(self) -> float:
        """Return when this stage may end, or inf after the last one."""
        return self._next_s

    def ordered(self, t_s: float, kind: ChangeKind) -> Advance | None:
        """Obey an operator's order to go back to the baseline; it knows no other."""
        if kind == ChangeKind.ROLL_BACK and self._stage:
            return self._turn(t_s, 0, Reason(Code.OPERATOR))
        return None

    def _weight_at(self, t_s: float) -> float:
        return self._weights[bisect_right(self._weights, (t_s, inf)) - 1][1]

    def _error(self, t_s: float, weight: float, variant: int) -> Advance | None:
        if not 0.0 < weight < 1.0:  # only one variant could have erred
            return None
        odds = self._risk_ratio * weight / (1.0 - weight)
        for i, harm in enumerate(_HARM):
            self._logs[i] += log((1.0 + odds) / (1.0 + odds * harm) * (harm if variant else 1.0))
        evidence = self.evidence
        if evidence < self._enough:
            return None
        return self._turn(t_s, 0, Reason(Code.EVIDENCE_OF_HARM, Constraint.NONE, evidence, self._enough))

    def _turn(self, t_s: float, stage: int, reason: Reason) -> Advance:
        weight = self._stages[stage]
        self._stage = stage
        self._share = _of_hashes(weight)
        self._weights.append((t_s, weight))
        self._next_s = t_s + self._step_s if 0 < stage < len(self._stages) - 1 else inf
        self._outcomes = 0
        return Advance(0, stage, weight, reason)


def _of_hashes(weight: float) -> int:
    return int(weight * 2.0**64)
