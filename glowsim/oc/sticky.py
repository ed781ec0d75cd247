"""Few units that send many requests each: the arms differ by chance, and harm has to beat what chance may give.

Where a tenant, user or session stays with one version, the null is no single risk ratio but a mixture over its
logarithm, normal about 0 and folded there. The null is the mean of two: one effect of chance for the whole rollout,
and one for each stage by itself, as units change arms between stages.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from scipy.special import ndtr

from glowsim.oc.rules import BASELINE, Floats, Ints, Known, Rows

__all__ = ["FewUnits", "gains"]

_STEP: Final = 0.05
NULLS: Final = _STEP * np.arange(31.0)
"""Logarithms of the risk ratios that chance may give."""


def gains(known: Known, ratios: Floats, risk_ratio: float) -> Floats:
    """Return what a bucket adds to the logarithms of likelihood ratios, shape (guardrails, ratios, campaigns).

    The share of the new version is the one that its requests had, not the one that was meant: with few units these
    differ much. A bucket in which one version had no request adds nothing.

    Parameters
    ----------
    known
        The bucket.
    ratios
        Risk ratios, over the tolerated one, shape (ratios,).
    risk_ratio
        The tolerated one.
    """
    base, new = known.requests
    odds = risk_ratio * new / np.maximum(base, 1)
    both = (new > 0) & (base > 0)
    per_bad = np.where(both, np.log1p(odds) - np.log1p(odds * ratios[:, None]), 0.0)
    per_new = np.where(both, np.log(ratios)[:, None], 0.0)
    bad, new_bad = known.bad[:, 0, None], known.bad[:, 1, None]
    found: Floats = new_bad * per_new + (bad + new_bad) * per_bad
    return found


class FewUnits(Rows):
    """What chance makes of the bad outcomes in two healthy arms of few units.

    Parameters
    ----------
    guardrails, campaigns
        How many.
    correlation
        Of two outcomes of one unit.
    risk_ratio
        The tolerated one.
    """

    def __init__(self, guardrails: int, campaigns: int, correlation: float, risk_ratio: float) -> None:
        self._correlation, self._risk_ratio = correlation, risk_ratio
        self.stage = np.zeros(campaigns, np.int64)
        self.whole, self.own = np.zeros((2, guardrails, len(NULLS), campaigns))
        self.closed = np.zeros((guardrails, campaigns))
        """Of the stages that are over: logarithm of the product of their own mixtures."""
        self.fewness = np.zeros(campaigns)
        """Square root of one over the units of the one arm and one over those of the other, in this stage."""
        self.spread = np.zeros((guardrails, campaigns))
        """Standard deviation of the log risk ratio between healthy arms, as of the last bad outcome."""
        self.requests = np.zeros(campaigns)
        self.bad = np.zeros((guardrails, campaigns))

    def take(self, known: Known, stage: Ints, now: Ints, effective: Floats) -> None:
        """Take in a mature bucket.

        Parameters
        ----------
        known
            The bucket.
        stage
            In which it was assigned, shape (campaigns,).
        now
            The stage that is on, shape (campaigns,).
        effective
            Of ``Course.effective``.
        """
        turned = np.flatnonzero(stage != self.stage)
        if len(turned):
            self.closed[:, turned] += self._mixture(self.own, turned)
            self.own[..., turned] = 0.0
            self.stage = stage.copy()
        some = (effective > 0.0).all(axis=0)
        fewness = np.where(some, np.sqrt((1.0 / np.maximum(effective, 1e-9)).sum(axis=0)), 0.0)
        self.fewness = np.where(stage == now, fewness, self.fewness)
        self.requests += known.requests[BASELINE]
        self.bad += known.bad[:, BASELINE]
        risk = self.risk()
        spread = np.sqrt(np.log1p(self._correlation * (1.0 - risk) / risk * self.fewness**2))
        self.spread = np.where(known.bad.any(axis=1), spread, self.spread)
        gained = gains(known, np.exp(NULLS), self._risk_ratio)
        self.whole += gained
        self.own += gained

    def risk(self) -> Floats:
        """Return the baseline's share of bad outcomes so far, shape (guardrails, campaigns)."""
        found: Floats = np.minimum((self.bad + 0.5) / (self.requests + 1.0), 1.0)
        return found

    def unit_variance(self) -> Floats:
        """Return the variance of the risk from unit to unit, shape (guardrails, campaigns)."""
        risk = self.risk()
        found: Floats = self._correlation * risk * (1.0 - risk)
        return found

    def log_null(self, rows: Ints | slice) -> Floats:
        """Return the logarithm of the null's likelihood ratio, shape (guardrails, rows); never below log(1 / 4)."""
        by_stage = self.closed[:, rows] + self._mixture(self.own, rows)
        found: Floats = np.logaddexp(self._mixture(self.whole, rows), by_stage) - np.log(2.0)
        return found

    def _mixture(self, logs: Floats, rows: Ints | slice) -> Floats:
        spread = np.maximum(self.spread[:, None, rows], 1e-9)
        edges = ndtr(np.append(NULLS[1:] - _STEP / 2.0, np.inf)[:, None] / spread)
        with np.errstate(divide="ignore"):
            weight = np.log(np.concatenate([edges[:, :1], np.diff(edges, axis=1)], axis=1))
        found: Floats = np.logaddexp.reduce(weight + logs[..., rows], axis=1)
        return found
