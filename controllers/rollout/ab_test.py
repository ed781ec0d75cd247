"""An A/B test that ends by itself: at its sample size, or as soon as the evidence is there."""

from __future__ import annotations

from collections.abc import Iterable
from math import fsum, log, sqrt
from operator import itemgetter
from typing import Any, Literal

from glowsim.core.parameters import Count, Fraction, Positive, PositiveSeconds, Seconds
from glowsim.core.snapshot import Stateful
from glowsim.core.streams import key_of, mix
from glowsim.core.types import Advance, ChangeKind, Code, Constraint, Observed, Reason, Request
from glowsim.stats.experiments.always_valid import any_look, log_evidence_of_split, rates
from glowsim.stats.experiments.comparison import Comparison
from glowsim.stats.experiments.means import welch
from glowsim.stats.experiments.moments import Moments
from glowsim.stats.experiments.power import size_for_means, size_for_proportions
from glowsim.stats.experiments.proportions import proportions

__all__ = ["ABTest"]

_GROUPS = 100
"""Random groups of sticky units: their means vary as the units do, however much a unit's requests are alike."""
_FEWEST_GROUPS = 20
_MOST_PENDING = 200
"""Looks that may be pending at once: each keeps sums of its own."""
_SPLIT_CONCENTRATION = 1000.0
_SPLIT_BROKEN = log(1000.0)

_Sums = tuple[int, float, float]
"""Count, mean and squared deviations: a `Moments` as plain data."""


class ABTest(Stateful):
    """Decides which of two variants a request gets, until one has won or the sample is full, and then who gets all.

    A unit gets variant 1 if the hash of (unit, salt) is below the weight. Outcomes are put together by the moment of
    assignment, in looks of ``look_s``; a look's outcomes count ``maturity_s`` after its end, whatever comes later is
    dropped, in both arms alike: else the slower arm would seem to have fewer slow requests. What is not known by then
    (a timeout longer than ``maturity_s``, a label that nobody gave) is missing in both.

    ``fixed`` asks once, when both arms have their sample; ``sequential`` asks at every look, and names a winner where
    there is none with a chance of at most ``alpha`` all the same. Counts of errors by request are tested exactly
    (`rates`) or by the score test (`proportions`); means by `any_look` or Welch. Units that send several requests are
    put into a hundred random groups, whose spread is the units' own: their requests are not taken for independent.

    Parameters
    ----------
    salt
        Name of the test: tests with different salts draw different units.
    weight
        Share of the units that gets variant 1, above 0 and below 1.
    unit
        What is assigned.
    metric
        What decides: requests that did not end well, mean latency of those that did, mean cost, or a late label.
    label
        Name of the `Observed` metric, for ``observed``; a request's first label counts.
    better
        Which of two values of the metric is better.
    sample_size
        Outcomes of each arm, at equal weights, at which the test ends; None: from the power.
    base
        For the power of ``errors``: the baseline's share of them.
    deviation
        For the power of the other metrics: the standard deviation between units, in the metric's unit.
    effect
        For the power: difference to be found, in the metric's unit.
    alpha
        Chance of a winner where there is no difference.
    power
        Chance of a winner where the difference is ``effect``, which the sample is made for.
    test
        When a winner may be named.
    then
        Who gets everything when variant 1 has won; where it has not, the baseline does.
    look_s
        Seconds of a look, above 0.
    maturity_s
        Seconds from the end of a look until its outcomes count: at least the longest time that an outcome takes.

    Raises
    ------
    ValueError
        No sample size and no deviation to have it from, an arm without traffic, a metric without its name, or looks too
        short for the maturity: more than 200 would be pending.

    Notes
    -----
    Sources: see `glowsim.stats.experiments`. Random groups: Wolter, Introduction to Variance Estimation, chapter 2.

    >>> test = ABTest(salt="v2", sample_size=2, maturity_s=0)
    >>> [test.assign(0.0, Request(number, 0, 900, 100)) for number in range(1, 7)]
    [1, 1, 0, 0, 0, 1]
    >>> for number, variant in ((1, 1), (2, 1), (3, 0), (4, 0)):
    ...     test.finished(1.0, 0.0, variant, Request(number, 0, 900, 100), True, 1.0, 0.01)
    >>> test.finished(60.0, 59.0, 1, Request(5, 0, 900, 100), True, 1.0, 0.01)[1:3]
    (0, 0.0)
    """

    state = ("_stage", "_weights", "_pending", "_taken", "_next_s", "_ended", "_arms")

    def __init__(
        self,
        *,
        salt: str,
        weight: Fraction = 0.5,
        unit: Literal["request", "session", "user", "tenant"] = "request",
        metric: Literal["errors", "latency", "cost", "observed"] = "errors",
        label: str = "",
        better: Literal["lower", "higher"] = "lower",
        sample_size: Count | None = None,
        base: Fraction = 0.05,
        deviation: Positive | None = None,
        effect: Positive = 0.01,
        alpha: Fraction = 0.05,
        power: Fraction = 0.8,
        test: Literal["fixed", "sequential"] = "fixed",
        then: Literal["winner", "keep"] = "winner",
        look_s: PositiveSeconds = 60.0,
        maturity_s: Seconds = 60.0,
    ) -> None:
        if not 0.0 < weight < 1.0:
            raise ValueError(
                f"weight: {weight} leaves an arm without traffic; give more than 0 and less than 1"
            )
        if not 0.0 < alpha < 1.0:
            raise ValueError(f"alpha: {alpha}; give more than 0 and less than 1, such as 0.05")
        if (metric == "observed") != bool(label):
            raise ValueError("label: give the name of the late label with metric observed, and with no other")
        if maturity_s > _MOST_PENDING * look_s:
            raise ValueError(
                f"look_s: outcomes of {maturity_s / look_s:.0f} looks would be pending at once; give a look of at "
                f"least {maturity_s / _MOST_PENDING:g} s, so that they are {_MOST_PENDING} at most"
            )
        self.first_weight = weight
        """Share of the units on variant 1 until the test ends."""
        self.unit = unit
        self.needs_cost = metric == "cost"
        self._weight = weight
        self._share = int(weight * 2.0**64)
        self._salt = key_of("ab_test", salt)
        self._unit: itemgetter[int] = itemgetter(
            Request._fields.index("request_id" if unit == "request" else unit)
        )
        self._metric = metric
        self._label = label
        self._better = better
        self._alpha = alpha
        self._sizes = _sizes(sample_size, metric, base, deviation, effect, alpha, power, weight)
        self._sequential = test == "sequential"
        self._goes_over = then == "winner"
        self._look_s = look_s
        self._maturity_s = maturity_s
        self._stage = 1
        self._weights = [(0.0, weight)]
        """(since when, weight), in order: two entries, and one more for each order of an operator."""
        self._pending: dict[int, Any] = {}
        """Look -> [ended, sums, requests with a label], by variant, until it is mature."""
        self._taken = 0
        """Looks before this one are in."""
        self._next_s = look_s + maturity_s
        self._ended = [0, 0]
        """Requests with an outcome, by variant."""
        self._arms: list[dict[int, _Sums]] = [{}, {}]
        """Group -> sums, by variant."""

    @property
    def found(self) -> Comparison | None:
        """How the arms compare by what is mature; None as long as nothing can be said."""
        return self._compare()

    def assign(self, t_s: float, request: Request) -> int:
        """Return 1 for the new variant, 0 for the baseline."""
        if self._stage != 1:
            return self._stage // 2
        unit = self._unit(request) or request[0]
        return 1 if mix(unit ^ self._salt) < self._share else 0

    def propensity(self, assigned_s: float, variant: int) -> float:
        """Return the probability with which a request that was assigned at that moment got this variant."""
        weight = next(weight for since_s, weight in reversed(self._weights) if since_s <= assigned_s)
        return weight if variant else 1.0 - weight

    def finished(
        self, t_s: float, assigned_s: float, variant: int, request: Request, ok: bool, latency_s: float,
        cost_usd: float,
    ) -> Advance | None:  # fmt: skip
        """Take in a request's one outcome; return the end of the test, if this is it."""
        if self._stage != 1:
            return None
        bucket = self._bucket(assigned_s)
        if bucket is not None:
            bucket[0][variant] += 1
            unit = self._unit(request) or request[0]
            if self._metric == "errors":
                self._count(bucket, variant, unit, 0.0 if ok else 1.0)
            elif self._metric == "cost":
                self._count(bucket, variant, unit, cost_usd)
            elif self._metric == "latency" and ok:
                self._count(bucket, variant, unit, latency_s)
        return self._look(t_s) if t_s >= self._next_s else None

    def observed(self, t_s: float, observed: Observed) -> Advance | None:
        """Take in a late label; return the end of the test, if this is it."""
        if self._stage != 1 or self._metric != "observed" or observed.metric != self._label:
            return None
        if observed.assigned_s is not None:
            bucket = self._bucket(observed.assigned_s)
            if bucket is not None and observed.request_id not in bucket[2]:
                bucket[2].add(observed.request_id)
                self._count(bucket, observed.variant, observed.unit, observed.value)
        return self._look(t_s) if t_s >= self._next_s else None

    def wake(self, t_s: float) -> Advance | None:
        """Do nothing: it looks when an outcome comes, so a quiet fleet costs nothing."""
        return None

    def wake_s(self) -> float:
        """Return inf: it need not be woken."""
        return float("inf")

    def ordered(self, t_s: float, kind: ChangeKind) -> Advance | None:
        """Obey an operator's order to go back to the baseline, or over to variant 1; it cannot wait."""
        stage = {ChangeKind.ROLL_BACK: 0, ChangeKind.PROMOTE: 2}.get(kind, self._stage)
        return None if stage == self._stage else self._turn(t_s, stage, Reason(Code.OPERATOR))

    def _bucket(self, assigned_s: float) -> Any:
        """Return where outcomes of that moment are put together; None: they are in, or it is too late."""
        look = int(assigned_s // self._look_s)
        if look < self._taken:
            return None
        bucket = self._pending.get(look)
        if bucket is None:
            bucket = self._pending[look] = [[0, 0], [{}, {}], set()]
        return bucket

    def _count(self, bucket: Any, variant: int, unit: int, value: float) -> None:
        group = 0 if self.unit == "request" else mix(unit ^ ~self._salt & (1 << 64) - 1) % _GROUPS
        sums = bucket[1][variant]
        sums[group] = _plain(Moments(*sums.get(group, ())).add(value))

    def _look(self, t_s: float) -> Advance | None:
        mature = int((t_s - self._maturity_s) // self._look_s)
        self._next_s = (mature + 1) * self._look_s + self._maturity_s
        self._taken = mature
        news = sorted(look for look in self._pending if look < mature)
        for look in news:
            ended, sums, _ = self._pending.pop(look)
            for variant in (0, 1):
                self._ended[variant] += ended[variant]
                arm = self._arms[variant]
                for group, more in sums[variant].items():
                    arm[group] = _plain(Moments(*arm.get(group, ())).merge(Moments(*more)))
        return self._judge(t_s) if news else None

    def _judge(self, t_s: float) -> Advance | None:
        counts = [_size(arm.values()) for arm in self._arms]
        full = counts[0] >= self._sizes[0] and counts[1] >= self._sizes[1]
        if not (full or self._sequential):
            return None
        found = self._compare()
        winner = "undecided" if found is None else found.winner
        if winner == "undecided" and not full:
            return None
        ended_a, ended_b = self._ended
        off = log_evidence_of_split(ended_a, ended_b, self._weight, _SPLIT_CONCENTRATION)
        if self.unit == "request" and off >= _SPLIT_BROKEN:
            return self._turn(t_s, 0, Reason(Code.SPLIT_BROKEN, Constraint.NONE, off, _SPLIT_BROKEN))
        code = {"a": Code.BASELINE_BETTER, "b": Code.VARIANT_BETTER}.get(winner, Code.NO_WINNER)
        numbers = (0.0, 1.0) if found is None else (found.difference, found.p)
        stage = 2 if winner == "b" and self._goes_over else 0
        return self._turn(t_s, stage, Reason(code, Constraint.NONE, *numbers, counts[0] + counts[1]))

    def _compare(self) -> Comparison | None:
        if self.unit != "request":
            return self._compare_groups()
        a, b = (Moments(*arm.get(0, ())) for arm in self._arms)
        if self._metric == "errors":
            counts = (round(a.mean * a.n), a.n), (round(b.mean * b.n), b.n)
            if not a.n or not b.n:
                return None
            if self._sequential:
                return rates(*counts, self._weight, alpha=self._alpha, better=self._better)
            return proportions(*counts, alpha=self._alpha, better=self._better)
        return self._compare_means(a, b, a.n, b.n)

    def _compare_groups(self) -> Comparison | None:
        if min(map(len, self._arms)) < _FEWEST_GROUPS:
            return None
        one, other = (_between_groups(list(arm.values())) for arm in self._arms)
        n_a, n_b = (_size(arm.values()) for arm in self._arms)
        return self._compare_means(one, other, n_a, n_b)

    def _compare_means(self, a: Moments, b: Moments, n_a: int, n_b: int) -> Comparison | None:
        if min(a.n, b.n) < 2 or a.squares + b.squares <= 0.0:
            return None
        if not self._sequential:
            return welch(a, b, alpha=self._alpha, better=self._better)._replace(n_a=n_a, n_b=n_b)
        error = sqrt(a.variance / a.n + b.variance / b.n)
        return any_look(
            (a.mean, n_a), (b.mean, n_b), error, tuned_for=self._sizes[0] + self._sizes[1], alpha=self._alpha,
            better=self._better,
        )  # fmt: skip

    def _turn(self, t_s: float, stage: int, reason: Reason) -> Advance:
        weight = stage / 2.0
        self._stage = stage
        self._weights.append((t_s, weight))
        self._pending.clear()
        return Advance(0, stage, weight, reason)


def _sizes(
    sample_size: int | None, metric: str, base: float, deviation: float | None, effect: float,
    alpha: float, power: float, weight: float,
) -> tuple[int, int]:  # fmt: skip
    """Return how many outcomes each arm needs."""
    if sample_size is not None:
        return max(1, round(2 * sample_size * (1.0 - weight))), max(1, round(2 * sample_size * weight))
    if metric == "errors":
        return size_for_proportions(base, effect, alpha=alpha, power=power, share=weight)
    if deviation is None:
        raise ValueError("sample_size: give it, or the deviation between units, to have it from the power")
    return size_for_means(effect, deviation, alpha=alpha, power=power, share=weight)


def _plain(moments: Moments) -> _Sums:
    return moments.n, moments.mean, moments.squares


def _size(groups: Iterable[_Sums]) -> int:
    return int(fsum(each[0] for each in groups))


def _between_groups(groups: list[_Sums]) -> Moments:
    """Return moments whose mean is the arm's, and whose standard error is that of a ratio over random groups."""
    n = _size(groups)
    mean = fsum(count * of_group for count, of_group, _ in groups) / n
    many = len(groups)
    squares = fsum((count * (of_group - mean)) ** 2 for count, of_group, _ in groups)
    return Moments(many, mean, squares * (many / n) ** 2)
