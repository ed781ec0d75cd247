"""Evidence that a variant does harm, valid however often one looks: an e-process on bad outcomes.

Of every bad outcome it is asked which variant it came from. If the canary's risk is r times the baseline's
and it had the share w of the requests, that was the canary with probability w r / (w r + 1 - w): how many
requests and bad outcomes there are does not matter, nor what raises the risk of both alike.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import exp, fsum, inf, log, log1p, sqrt
from statistics import NormalDist
from typing import Final

from glowsim.core.snapshot import Stateful

__all__ = ["HARMS", "HarmEvidence", "increments", "spread_of"]

HARMS: Final = (1.25, 1.5, 2.0, 3.0, 5.0)
"""Multiples of the tolerated risk ratio that are tested against it, with equal weights."""
_PLANNED: Final = 0.9
"""Part of the start times' weight that is given to the planned hours; the rest is kept for later ones."""
_STEP: Final = 0.05
_NULLS: Final = tuple(_STEP * i for i in range(31))
"""Logarithms of the risk ratios that chance gives to few units."""


def increments(
    share: float, canary: int, baseline: int, risk_ratio: float = 1.0, harms: Iterable[float] = HARMS
) -> tuple[float, ...]:
    """Return the logarithm of the likelihood ratio of bad outcomes, for each harm against none.

    Args:
        share: the canary's share of the requests when these were assigned, 0 to 1.
        canary: bad outcomes of the canary.
        baseline: bad outcomes of the baseline.
        risk_ratio: the canary's risk over the baseline's that is tolerated, above 0.
        harms: multiples of it.

    >>> [round(exp(each), 3) for each in increments(0.5, canary=1, baseline=0)]
    [1.111, 1.2, 1.333, 1.5, 1.667]
    >>> increments(1.0, 9, 0)  # only one of them could have done wrong
    (0.0, 0.0, 0.0, 0.0, 0.0)
    """
    harms = tuple(harms)
    if not 0.0 < share < 1.0:
        return (0.0,) * len(harms)
    odds, bad = risk_ratio * share / (1.0 - share), canary + baseline
    return tuple(bad * log((1.0 + odds) / (1.0 + odds * harm)) + canary * log(harm) for harm in harms)


def spread_of(correlation: float, risk: float, fewness: float) -> float:
    """Return the standard deviation of the log risk ratio between two healthy arms made of few units.

    A unit's own risk varies about ``risk`` with the variance ``correlation * risk * (1 - risk)``, and an arm's is
    the mean of its units'.

    Args:
        correlation: intra-class correlation of bad outcomes within a unit, 0 to 1.
        risk: probability of a bad outcome, above 0 and up to 1.
        fewness: square root of 1 / units of the canary + 1 / units of the baseline, where units count by
            (sum of n)^2 / sum of n^2 over their requests n.

    >>> round(spread_of(0.01, 0.05, fewness=sqrt(1 / 10 + 1 / 190)), 3)
    0.141
    """
    return sqrt(log1p(correlation * (1.0 - risk) / risk * fewness**2))


class HarmEvidence(Stateful):
    """The evidence of harm of one guardrail: 1 at the start, a rollback when it reaches 1 / alpha.

    Half of it is a single process from the beginning, quick where the harm is there from the beginning; half is
    a mixture over start times, quick where it comes later, because it has no old evidence to pay back. The
    mixture's weights are fixed beforehand and sum to 1: 0.9 over the planned starts, 0.1 over all that may follow.
    Under the null its expectation is at most 1 at any moment, so it ever reaches 1 / alpha with probability at
    most alpha (Ville).

    Where the assigned units are few and send many requests each, one arm is riskier by chance. Then the null is no
    single risk ratio but a mixture, of log ratios from a normal distribution whose standard deviation is the
    ``spread`` of `spread_of`, folded at 0 and rounded to steps of 0.05. As units change arms with a stage, half of it
    has one log ratio for all stages, and half one of each stage's own (`regroup`).

    The exactness hangs on four conditions, which the caller must keep: one outcome a request; the same maturity in
    both arms, in the order of assignment; the share at assignment; and starts that do not look at outcomes.

    Args:
        planned: how many starts are planned, at least 1.
        risk_ratio: the canary's risk over the baseline's that is tolerated, above 0.

    References:
        Ville, "Etude critique de la notion de collectif", 1939; Ramdas, Grunwald, Vovk & Shafer, "Game-theoretic
        statistics and safe anytime-valid inference", Statistical Science 38(4), 2023.

    >>> evidence = HarmEvidence(planned=30)
    >>> evidence.start()
    >>> for _ in range(4):
    ...     evidence.add(0.05, canary=1, baseline=0)
    >>> round(evidence.value, 1)
    39.3
    """

    state = ("_single", "_mixed", "_nulls", "_own_nulls", "_closed", "_own", "_null", "_started")

    def __init__(self, *, planned: int, risk_ratio: float = 1.0) -> None:
        if planned < 1:
            raise ValueError(f"planned: at least 1 start, got {planned}")
        self._planned = planned
        self._risk_ratio = risk_ratio
        self._single = [0.0] * len(HARMS)
        """Logarithms of the likelihood ratios since the beginning."""
        self._mixed = [-inf] * len(HARMS)
        """Logarithms of their weighted sums over the starts."""
        self._nulls = [0.0] * len(_NULLS)
        """Logarithms of the likelihood ratios of what chance may give; kept where there is a spread."""
        self._own_nulls = [0.0] * len(_NULLS)
        """The same since the arms were last made up anew."""
        self._own = 0.0
        """Logarithm of the mixture of these."""
        self._closed = 0.0
        """Logarithm of the product of such mixtures before."""
        self._null = 0.0
        """Logarithm of the null's likelihood ratio: what harm has to beat."""
        self._started = 0

    @property
    def log_value(self) -> float:
        """The natural logarithm of the evidence."""
        single = _log_mean(self._single) - self._null
        mixed = _log_sum([_log_mean(self._mixed) - self._null, log(self._unstarted())])
        return _log_mean([single, mixed])

    @property
    def value(self) -> float:
        """The evidence; inf where a float cannot hold it."""
        return exp(self.log_value) if self.log_value < 709.0 else inf

    def start(self) -> None:
        """Begin the next start time: harm that begins now counts from here."""
        weight = self._unstarted()
        self._started += 1
        weight -= self._unstarted()
        begun = log(weight) + self._null
        self._mixed = [_log_sum([each, begun]) for each in self._mixed]

    def add(self, share: float, canary: int, baseline: int, spread: float | None = None) -> None:
        """Take in bad outcomes of requests that were assigned at one share.

        Args:
            share: the canary's share of the requests, 0 to 1; at 0 and 1 nothing is compared.
            canary: bad outcomes of the canary.
            baseline: bad outcomes of the baseline.
            spread: standard deviation of the null's log risk ratio, for few units; none: they are independent.
        """
        ratio = self._risk_ratio
        if (canary or baseline) and 0.0 < share < 1.0:
            steps = increments(share, canary, baseline, ratio)
            self._single = [each + step for each, step in zip(self._single, steps, strict=True)]
            self._mixed = [each + step for each, step in zip(self._mixed, steps, strict=True)]
            if spread is not None:
                steps = increments(share, canary, baseline, ratio, _NULL_RATIOS)
                self._nulls = [each + step for each, step in zip(self._nulls, steps, strict=True)]
                self._own_nulls = [each + step for each, step in zip(self._own_nulls, steps, strict=True)]
        if spread is not None:
            weights = _null_weights(spread)
            self._own = _log_mixture(weights, self._own_nulls)
            self._null = _log_mean([_log_mixture(weights, self._nulls), self._closed + self._own])

    def regroup(self) -> None:
        """Take in that from here on other units make up the arms: a stage began."""
        self._closed += self._own
        self._own = 0.0
        self._own_nulls = [0.0] * len(_NULLS)

    def _unstarted(self) -> float:
        """Return the weight of all starts to come."""
        later = self._started - self._planned
        if later < 0:
            return 1.0 - _PLANNED * self._started / self._planned
        return (1.0 - _PLANNED) / (later + 1)


_NULL_RATIOS: Final = tuple(map(exp, _NULLS))
_NORMAL: Final = NormalDist()
_LEAST: Final = 1e-9
"""A spread that cannot be told from 0."""


def _null_weights(spread: float) -> list[float]:
    above = [_NORMAL.cdf(-(theta - _STEP / 2) / max(spread, _LEAST)) for theta in _NULLS[1:]]
    return [1.0 - above[0], *(high - low for high, low in zip(above, [*above[1:], 0.0], strict=True))]


def _log_mixture(weights: list[float], logs: list[float]) -> float:
    return _log_sum([log(weight) + each for weight, each in zip(weights, logs, strict=True) if weight > 0.0])


def _log_sum(logs: list[float]) -> float:
    most = max(logs)
    return most if most == -inf else most + log(fsum(exp(each - most) for each in logs))


def _log_mean(logs: list[float]) -> float:
    return _log_sum(logs) - log(len(logs))
