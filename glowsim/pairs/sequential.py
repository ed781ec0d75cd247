"""Evidence from pairs that may be looked at after every one of them: exact at any moment of stopping.

A task's difference x is the variant's share of failures minus the baseline's: -1, 0 or 1 where each was asked once,
in between where a task was repeated. Against "x is at most m on average" a gambler who stakes a share l of his money
on every pair has, per dollar, after n of them

    prod (1 + l * (x_i - m)),

which is a test martingale under the boundary and a supermartingale beyond it, so the chance that it ever reaches
1/alpha is at most alpha (Ville). The stakes are a mixture fixed beforehand. For m = 0 and x in {-1, 0, 1} this is the
mixture of binomial likelihoods with chances (1 + l)/2 of a loss against 1/2: ties change nothing.

Sources: Waudby-Smith and Ramdas (2024), "Estimating means of bounded random variables by betting", JRSS B 86;
Ville (1939).
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq

from glowsim.stats.intervals import Interval

__all__ = ["STAKES", "PairedEvidence", "fewest_to_pass", "interval_at_any_time"]

Floats = npt.NDArray[np.float64]
STAKES: Final[Floats] = np.linspace(0.025, 0.975, 20)
"""Shares of the largest stake that cannot ruin; equal weights."""
_MOST_PAIRS: Final = 1 << 30


class PairedEvidence:
    """Weighs paired differences against one hypothesis, pair after pair.

    The evidence is an e-value: expected to be at most 1 where the hypothesis holds, whenever one stops. Pairs must
    be told in an order that does not depend on their outcomes: as they were drawn, not as they were answered.

    Parameters
    ----------
    against
        ``not worse``: the hypothesis is "the differences average at most ``margin``", and evidence says that the
        variant is worse. ``worse``: it is "they average at least ``margin``", and evidence says that it is not.
    margin
        Difference in the share of failures, above -1 and below 1.

    Raises
    ------
    ValueError
        The margin, or a difference, is out of its bounds.

    >>> worse = PairedEvidence("not worse")
    >>> for lost in [1, 1, 0, 1, -1, *[1] * 9]:
    ...     worse.tell(lost)
    >>> round(worse.e, 1), worse.e >= 1 / 0.05
    (90.4, True)
    """

    def __init__(self, against: Literal["not worse", "worse"], margin: float = 0.0) -> None:
        if not -1.0 < margin < 1.0:
            raise ValueError(f"margin must be above -1 and below 1, got {margin}")
        self._sign = 1.0 if against == "not worse" else -1.0
        self._margin = margin
        self._stakes = STAKES / (1.0 + self._sign * margin)
        self._logs = np.zeros(len(STAKES))

    def tell(self, difference: float) -> None:
        """Take in the next task's difference, -1 to 1."""
        self._logs += self.gains(np.array([difference]))[0]

    def gains(self, differences: Floats) -> Floats:
        """Return what differences add to the logarithm of the money, by stake: shape (differences, stakes)."""
        if not np.all(np.abs(differences) <= 1.0):
            raise ValueError(f"differences must be from -1 to 1, got {differences}")
        gained: Floats = np.log1p(
            self._sign * (differences[:, np.newaxis] - self._margin) * self._stakes[np.newaxis, :]
        )
        return gained

    def after(self, gained: Floats) -> Floats:
        """Return log e after more gains, by stake in the last axis; zeros: as it is now."""
        logs: Floats = np.logaddexp.reduce(self._logs + gained, axis=-1) - math.log(len(STAKES))
        return logs

    @property
    def log_e(self) -> float:
        """The natural logarithm of the evidence: it may be too large for a float."""
        return float(self.after(np.zeros(len(STAKES))))

    @property
    def e(self) -> float:
        """The evidence; inf where it is too large for a float."""
        log_e = self.log_e
        return math.exp(log_e) if log_e < 709.0 else math.inf


def interval_at_any_time(differences: Sequence[float], confidence: float = 0.95) -> Interval:
    """Return the mean difference and an interval that holds at any moment of stopping, over all moments at once.

    The margins that the evidence has not refuted: wider than an interval for a number of pairs fixed beforehand.

    Parameters
    ----------
    differences
        Of the tasks told so far, -1 to 1; none: the interval is everything.
    confidence
        Above 0 and below 1.

    >>> found = interval_at_any_time([1.0] * 8 + [0.0] * 92)
    >>> round(found.mean, 2), round(found.low, 3), round(found.high, 3)
    (0.08, 0.004, 0.189)
    """
    if not differences:
        return Interval(math.nan, -1.0, 1.0, 0)
    values, counts = np.unique(np.array(differences), return_counts=True)
    mean = float(np.average(values, weights=counts))
    bar = math.log(2.0 / (1.0 - confidence))

    def beyond(margin: float, against: Literal["not worse", "worse"]) -> float:
        evidence = PairedEvidence(against, margin)
        return float(evidence.after(counts @ evidence.gains(values))) - bar

    edge = 1.0 - 1e-9
    low, high = -1.0, 1.0
    if mean > -edge and beyond(-edge, "not worse") > 0.0:
        low = brentq(beyond, -edge, min(mean, edge), args=("not worse",))
    if mean < edge and beyond(edge, "worse") > 0.0:
        high = brentq(beyond, max(mean, -edge), edge, args=("worse",))
    return Interval(mean, float(low), float(high), len(differences))


def fewest_to_pass(margin: float, alpha: float) -> int | None:
    """Return how many pairs show that the variant is not worse by a margin if not one of them differs: no fewer do.

    None: no number does, as with a margin of 0.

    >>> fewest_to_pass(0.03, 0.025), fewest_to_pass(0.01, 0.025), fewest_to_pass(0.0, 0.025)
    (177, 535, None)
    """
    evidence = PairedEvidence("worse", margin)
    tie = evidence.gains(np.zeros(1))[0]
    bar = -math.log(alpha)
    high = 1
    while float(evidence.after(high * tie)) < bar:
        high *= 2
        if high > _MOST_PAIRS:
            return None
    return bisect.bisect_left(range(high), bar, key=lambda pairs: float(evidence.after(pairs * tie)))
