"""A bandit: traffic moves to the variant that has earned more, a look at a time, with every chance on record."""

from __future__ import annotations

from bisect import bisect_right
from math import inf
from operator import itemgetter
from typing import Literal

from glowsim.core.errors import ControllerError
from glowsim.core.parameters import Fraction, PositiveSeconds
from glowsim.core.snapshot import Stateful
from glowsim.core.streams import Stream, uniform_at
from glowsim.core.types import Advance, ChangeKind, Code, Constraint, Observed, Reason, Request
from glowsim.stats.experiments.bandits import thompson_shares, ucb1_shares

__all__ = ["Bandit"]

_REMEMBERED = 1000
"""Changes of the shares that are known; a request is dispatched long before so many have passed."""
_WORTH_SAYING = 0.01


class Bandit(Stateful):
    """Decides which variant a request gets, more and more often the one with the better outcomes.

    The shares of the variants change at the first outcome after each look, and stay in between, so the probability of
    every assignment is known: `propensity` goes into late labels and logs, and off-policy estimates can use them. A
    unit's draw is a hash of it, keyed from the stream: as long as the shares stand, it stays with its variant.

    ``thompson`` gives each variant the probability that it is the best, from Beta(1, 1) priors; ``ucb1`` all to the one
    with the highest upper bound. Each keeps ``explore``: without it a variant that began badly is never seen again, and
    nothing can be estimated of what was never tried. It learns, it does not judge: to know whether B is better, take
    `ABTest`, for arms that get their traffic at different times meet different hours.

    Parameters
    ----------
    stream
        What its draws are keyed from.
    variants
        How many there are, with the baseline, at least 2.
    rule
        How the shares come about.
    metric
        The reward: 1 for a request that ended well and 0 for any other, or a late label from 0 to 1.
    label
        Name of the `Observed` metric, for ``observed``.
    unit
        What is assigned.
    explore
        Least share of each variant, up to 1 / variants.
    look_s
        Seconds between changes of the shares, above 0.

    Raises
    ------
    ValueError
        Fewer than 2 variants, more exploration than traffic, or a metric without its name.
    ControllerError
        A label below 0 or above 1.

    Notes
    -----
    Sources: see `glowsim.stats.experiments.bandits`.

    >>> bandit = Bandit(Stream(7), 2, look_s=60)
    >>> for number in range(100):
    ...     said = bandit.finished(60.0, 0.0, number % 2, Request(number, 0, 9, 9), number % 2 == 1, 1.0, 0.0)
    >>> round(bandit.finished(120.0, 0.0, 1, Request(100, 0, 9, 9), True, 1.0, 0.0).weight, 2)
    0.95
    >>> bandit.propensity(30.0, 1), round(bandit.propensity(130.0, 1), 2)
    (0.5, 0.95)
    """

    state = (
        "_stream",
        "_key",
        "_stage",
        "_paused",
        "_next_s",
        "_earned",
        "_pulls",
        "_since",
        "_shares",
        "_said",
    )

    def __init__(
        self,
        stream: Stream,
        variants: int,
        *,
        rule: Literal["thompson", "ucb1"] = "thompson",
        metric: Literal["errors", "observed"] = "errors",
        label: str = "",
        unit: Literal["request", "session", "user", "tenant"] = "request",
        explore: Fraction = 0.05,
        look_s: PositiveSeconds = 60.0,
    ) -> None:
        if variants < 2:
            raise ValueError(
                f"{variants} variant: there is nothing to choose from; give the agent 'variants'"
            )
        if explore * variants > 1.0:
            raise ValueError(
                f"explore: {explore:g} for each of {variants} variants is more than all; give less"
            )
        if (metric == "observed") != bool(label):
            raise ValueError("label: give the name of the late label with metric observed, and with no other")
        self.unit = unit
        self.first_weight = 1.0 - 1.0 / variants
        """Share of the traffic that is not on the baseline as it begins: all variants get the same."""
        self._stream = stream
        self._unit: itemgetter[int] = itemgetter(
            Request._fields.index("request_id" if unit == "request" else unit)
        )
        self._rule = thompson_shares if rule == "thompson" else ucb1_shares
        self._label = label
        self._explore = explore
        self._look_s = look_s
        self._key = 0
        """What the draws are keyed by; 0 until the first."""
        self._stage = 1
        self._paused = False
        self._next_s = look_s
        self._earned = [0.0] * variants
        self._pulls = [0] * variants
        self._since = [0.0]
        """When the shares changed; what they became stands beside it."""
        self._shares = [(1.0 / variants,) * variants]
        self._said = self.first_weight
        """The weight that was told last."""

    def assign(self, t_s: float, request: Request) -> int:
        """Return the variant, 0 for the baseline."""
        if not self._key:
            self._key = 1 + self._stream.below(1 << 53)
        left = uniform_at(self._key, self._unit(request) or request[0])
        shares = self._shares[-1]
        for variant, share in enumerate(shares):
            left -= share
            if left < 0.0:
                return variant
        return max(variant for variant, share in enumerate(shares) if share)  # rounding

    def propensity(self, assigned_s: float, variant: int) -> float:
        """Return the probability with which a request that was assigned at that moment got this variant."""
        place = bisect_right(self._since, assigned_s) - 1
        if place < 0:
            raise ControllerError(
                f"the shares at {assigned_s} s are forgotten: the last {_REMEMBERED} changes are known"
            )
        return self._shares[place][variant]

    def finished(
        self, t_s: float, assigned_s: float, variant: int, request: Request, ok: bool, latency_s: float,
        cost_usd: float,
    ) -> Advance | None:  # fmt: skip
        """Take in a request's one outcome; return a change of the shares, if it is time for one."""
        if not self._label:
            self._earned[variant] += 1.0 if ok else 0.0
            self._pulls[variant] += 1
        return self._look(t_s)

    def observed(self, t_s: float, observed: Observed) -> Advance | None:
        """Take in a late label; return a change of the shares, if it is time for one."""
        if not self._label or observed.metric != self._label:
            return None
        if not 0.0 <= observed.value <= 1.0:
            raise ControllerError(
                f"{self._label} of request {observed.request_id} is {observed.value}: a reward is 0 to 1"
            )
        self._earned[observed.variant] += observed.value
        self._pulls[observed.variant] += 1
        return self._look(t_s)

    def wake(self, t_s: float) -> Advance | None:
        """Do nothing: it looks when an outcome comes, so a quiet fleet costs nothing."""
        return None

    def wake_s(self) -> float:
        """Return inf: it need not be woken."""
        return inf

    def ordered(self, t_s: float, kind: ChangeKind) -> Advance | None:
        """Obey an operator: all to the baseline or to the best so far, for good; or leave the shares as they are."""
        if kind == ChangeKind.ROLL_BACK and self._stage:
            return self._settle(t_s, 0, 0, Reason(Code.OPERATOR))
        if kind == ChangeKind.PROMOTE and self._stage != 2:
            return self._settle(t_s, 2, self._best(), Reason(Code.OPERATOR))
        pauses = kind == ChangeKind.PAUSE_ROLLOUT
        if self._stage != 1 or pauses == self._paused or not (pauses or kind == ChangeKind.RESUME_ROLLOUT):
            return None
        self._paused = pauses
        return Advance(0, 1, self._weight(), Reason(Code.PAUSED if pauses else Code.RESUMED, a=1))

    def _look(self, t_s: float) -> Advance | None:
        if t_s < self._next_s or self._stage != 1 or self._paused:
            return None
        shares = self._rule(self._earned, self._pulls, self._explore)
        self._next_s = t_s + self._look_s
        self._remember(t_s, shares)
        weight = self._weight()
        if abs(weight - self._said) < _WORTH_SAYING:
            return None
        self._said = weight
        best = self._best()
        return Advance(0, 1, weight, Reason(Code.EXPLORED, Constraint.NONE, weight, best, self._mean(best)))

    def _settle(self, t_s: float, stage: int, variant: int, reason: Reason) -> Advance:
        self._stage = stage
        self._remember(t_s, tuple(float(each == variant) for each in range(len(self._pulls))))
        self._said = self._weight()
        return Advance(0, stage, self._said, reason)

    def _remember(self, t_s: float, shares: tuple[float, ...]) -> None:
        if shares == self._shares[-1]:
            return
        self._since.append(t_s)
        self._shares.append(shares)
        if len(self._since) > _REMEMBERED:
            del self._since[0], self._shares[0]

    def _weight(self) -> float:
        return 1.0 - self._shares[-1][0]

    def _mean(self, variant: int) -> float:
        return self._earned[variant] / self._pulls[variant] if self._pulls[variant] else 0.0

    def _best(self) -> int:
        return max(range(len(self._pulls)), key=self._mean)
