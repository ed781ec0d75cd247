"""Operating characteristics of a policy, and whether it keeps its budget: figures with Wilson intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan
from typing import Final, NamedTuple

import numpy as np

from glowsim.oc.campaigns import Campaigns, simulate
from glowsim.oc.rules import Bools, Floats, Rule, Status
from glowsim.oc.traffic import Traffic
from glowsim.stats.intervals import Interval, wilson

__all__ = [
    "KEPT",
    "NOT_KEPT",
    "UNDECIDED",
    "Budget",
    "Characteristics",
    "Line",
    "Promise",
    "characterise",
    "line_of",
    "points",
    "promises",
    "verdict",
]

KEPT: Final = "kept"
NOT_KEPT: Final = "not kept"
UNDECIDED: Final = "undecided"


@dataclass(frozen=True)
class Budget:
    """What a policy must keep to be trusted.

    Parameters
    ----------
    false_rollback
        Most of the healthy versions that it may roll back.
    margin
        Difference in the share of bad outcomes at which a version may hardly ever be promoted.
    false_promotion
        Most of the versions worse by the margin that it may promote.
    smallest
        Smallest effect that it should find.
    power
        Least share of the versions with that effect that it rolls back, or rather does not promote nor hold.
    promotion
        Least share of the versions that are no worse that it promotes.
    """

    false_rollback: float = 0.01
    margin: float = 0.01
    false_promotion: float = 0.025
    smallest: float = 0.05
    power: float = 0.95
    promotion: float = 0.8


class Line(NamedTuple):
    """The figures of one effect.

    Parameters
    ----------
    effect
        Added to the share of bad outcomes of the new version.
    rolled_back, promoted, held
        How campaigns end, as shares.
    delay_requests, delay_s
        Median and 95th percentile of what passes from the onset until the rollback, in requests of the new version
        and in seconds; nan where nothing was rolled back.
    bad
        Bad outcomes of the new version until the decision, on average.
    harmed
        Of them those that the effect alone has added, on average.
    full_s
        Median and 95th percentile of the time to full traffic, of campaigns that were promoted; nan without any.
    """

    effect: float
    rolled_back: Interval
    promoted: Interval
    held: Interval
    delay_requests: tuple[float, float]
    delay_s: tuple[float, float]
    bad: float
    harmed: float
    full_s: tuple[float, float]


class Promise(NamedTuple):
    """One part of the budget, and whether it is kept.

    Parameters
    ----------
    what
        In words.
    figure
        What was found.
    bound
        What it may be.
    at_most
        Whether the bound is an upper one.
    verdict
        ``KEPT`` where the estimate keeps it, ``NOT_KEPT`` where its whole interval does not, else ``UNDECIDED``.
    """

    what: str
    figure: Interval
    bound: float
    at_most: bool
    verdict: str


class Characteristics(NamedTuple):
    """What was found for one policy at one traffic."""

    rule: Rule
    traffic: Traffic
    budget: Budget
    lines: tuple[Line, ...]
    promises: tuple[Promise, ...]

    @property
    def verdict(self) -> str:
        """``NOT_KEPT`` if one promise is not, else ``UNDECIDED`` if one is that, else ``KEPT``."""
        return verdict(self.promises)

    def line(self, effect: float) -> Line:
        """Return the figures of an effect that was simulated."""
        return next(each for each in self.lines if each.effect == effect)


def verdict(promises: Sequence[Promise]) -> str:
    """Return what several promises come to together."""
    words = [each.verdict for each in promises]
    return next((word for word in (NOT_KEPT, UNDECIDED) if word in words), KEPT)


def characterise(
    rule: Rule,
    traffic: Traffic,
    budget: Budget,
    effects: Sequence[float] = (),
    campaigns: int = 2000,
    seed: int = 0,
) -> Characteristics:
    """Simulate a policy at a traffic, and hold it against a budget.

    Parameters
    ----------
    rule
        The policy.
    traffic
        What comes in.
    budget
        What it must keep; its margin and its smallest effect are simulated besides ``effects`` and 0.
    effects
        Added to the share of bad outcomes of the new version, each 0 or more.
    campaigns
        How many of each, at least 1.
    seed
        Equal seeds give equal figures.
    """
    wanted = sorted({0.0, budget.margin, budget.smallest, *effects})
    lines = tuple(line_of(each, traffic) for each in simulate(rule, traffic, wanted, campaigns, seed))
    return Characteristics(
        rule, traffic, budget, lines, promises(budget, {each.effect: each for each in lines})
    )


def promises(budget: Budget, at: Mapping[float, Line]) -> tuple[Promise, Promise, Promise, Promise]:
    """Return what is promised of a healthy version, one at the margin, one that must be found, and a healthy one again.

    Parameters
    ----------
    budget
        What must be kept.
    at
        Effect -> its figures: of 0, the budget's margin and its smallest effect.
    """
    return (
        _promise("a healthy version is rolled back", at[0.0].rolled_back, budget.false_rollback, at_most=True),
        _promise(
            f"a version worse by {points(budget.margin)} is promoted", at[budget.margin].promoted,
            budget.false_promotion, at_most=True,
        ),
        _promise(
            f"a version worse by {points(budget.smallest)} is rolled back", at[budget.smallest].rolled_back,
            budget.power, at_most=False,
        ),
        _promise("a version that is no worse is promoted", at[0.0].promoted, budget.promotion, at_most=False),
    )  # fmt: skip


def points(share: float) -> str:
    """Return a difference of shares for reading.

    >>> points(0.01), points(0.05), points(0.0025)
    ('1 point', '5 points', '0.25 points')
    """
    return f"{100 * share:.4g} point{'' if share == 0.01 else 's'}"


def _promise(what: str, figure: Interval, bound: float, *, at_most: bool) -> Promise:
    kept = figure.mean <= bound if at_most else figure.mean >= bound
    broken = figure.low > bound if at_most else figure.high < bound
    return Promise(what, figure, bound, at_most, KEPT if kept else NOT_KEPT if broken else UNDECIDED)


def line_of(ended: Campaigns, traffic: Traffic) -> Line:
    """Return the figures of campaigns that met one traffic with one effect."""
    onset_s = traffic.onset_s
    back, promoted = ended.ended(Status.ROLLED_BACK), ended.ended(Status.PROMOTED)
    late = back & (ended.end_s > onset_s)
    return Line(
        ended.effect,
        _share(back),
        _share(promoted),
        _share(ended.ended(Status.HELD)),
        _spread(ended.requests[late].astype(np.float64)),
        _spread(ended.end_s[late] - onset_s),
        float(ended.bad.mean()),
        ended.effect * float(ended.requests.mean()),
        _spread(ended.end_s[promoted]),
    )


def _share(which: Bools) -> Interval:
    return wilson(int(which.sum()), len(which))


def _spread(values: Floats) -> tuple[float, float]:
    if not len(values):
        return nan, nan
    middle, high = np.quantile(values, [0.5, 0.95])
    return float(middle), float(high)
