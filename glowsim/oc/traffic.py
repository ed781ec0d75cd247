"""Requests and bad outcomes of both versions, bucket by bucket, over many campaigns at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil, pi
from typing import Final

import numpy as np

from glowsim.core.errors import GlowsimError
from glowsim.oc.rules import CANARY, Floats, Ints, Known, Rows, Rule

__all__ = ["Draws", "Traffic", "looks"]

_DAY_S: Final = 86_400.0
_SWING: Final = 0.6
"""Of the daily rhythm's rate about its mean: four times as much at noon as at night."""
_ERROR_SWING: Final = 0.3
"""Of the daily rhythm's bad outcomes, at other hours than the rate's."""
INCIDENT_EVERY_S: Final = 8 * 3600.0
INCIDENT_LASTS_S: Final = 1200.0
INCIDENT_TIMES: Final = 6.0
"""An incident multiplies the bad outcomes of both versions by this."""


@dataclass(frozen=True)
class Traffic:
    """What comes in, and how often it ends badly.

    Parameters
    ----------
    rate_per_s
        Requests a second, on average, above 0.
    base
        Guardrail -> share of the baseline's requests that end badly by it, 0 to 1.
    onset_s
        When the new version gets worse, in seconds since the rollout began.
    daily
        Rate and bad outcomes have a daily rhythm, each campaign from an hour of its own.
    incidents
        Now and then bad outcomes of both versions are multiplied alike.
    label_delay_s
        Seconds from a request to its outcome.
    tenants
        How many there are; each is with one version, as its hash says. 0: requests are assigned one by one.
    correlation
        Of two outcomes of one tenant, 0 to below 1 (the beta-binomial's).
    zipf
        Exponent of the tenants' shares of the traffic; 0: all are alike.

    Raises
    ------
    GlowsimError
        A figure is out of its bounds.
    """

    rate_per_s: float
    base: Mapping[str, float] = field(default_factory=lambda: {"errors": 0.05})
    onset_s: float = 0.0
    daily: bool = False
    incidents: bool = False
    label_delay_s: float = 0.0
    tenants: int = 0
    correlation: float = 0.0
    zipf: float = 0.0

    def __post_init__(self) -> None:
        if not self.rate_per_s > 0.0:
            raise GlowsimError("the rate of requests must be above 0, such as 2/s or 31/d")
        for name, share in self.base.items():
            if not 0.0 <= share < 1.0:
                raise GlowsimError(f"{name}: a base of {share:g} is no share below 1, such as 5%")
        if not 0.0 <= self.correlation < 1.0:
            raise GlowsimError(f"a correlation of {self.correlation:g} is not from 0 to below 1")
        if self.correlation and not self.tenants:
            raise GlowsimError(
                "a correlation is of the requests of one tenant: say how many tenants there are"
            )

    def base_of(self, guardrail: str) -> float:
        """Return the share of bad outcomes of the baseline; raise ``GlowsimError`` where nobody gave it."""
        if guardrail not in self.base:
            raise GlowsimError(
                f"the policy looks at {guardrail}: say what share of the baseline's requests is bad by it "
                f"(--base {guardrail}=5%), or give a scenario to measure it in"
            )
        return self.base[guardrail]


def looks(seconds: float, look_s: float) -> int:
    """Return how many whole looks cover a time.

    >>> looks(600.0, 60.0), looks(601.0, 60.0), looks(0.0, 60.0)
    (10, 11, 0)
    """
    return ceil(seconds / look_s - 1e-9)


class Draws(Rows):
    """Draws buckets of a traffic for a rule, one after the other.

    Requests are a Poisson process, so those of each arm, good and bad, are independent Poisson numbers.

    Parameters
    ----------
    traffic
        What comes in.
    rule
        Whose looks and guardrails.
    effect
        What the new version adds to the share of bad outcomes of the rule's first guardrail, shape (campaigns,).
    times
        How many times the traffic there is, shape (campaigns,).
    rng
        Where chance comes from.
    """

    def __init__(
        self, traffic: Traffic, rule: Rule, effect: Floats, times: Floats, rng: np.random.Generator
    ) -> None:
        campaigns = len(effect)
        self._traffic, self._rng = traffic, rng
        self._look_s = rule.look_s
        self._per_look = times * traffic.rate_per_s * rule.look_s
        self._base = [traffic.base_of(name) for name in rule.guardrails]
        self.effect = effect
        self._onset = looks(traffic.onset_s, rule.look_s)
        if traffic.daily:
            self._noon_s, self._worst_s = rng.uniform(0.0, _DAY_S, (2, campaigns))
        if traffic.incidents:
            self._left = np.zeros(campaigns, np.int64)
        self.sticky = traffic.tenants > 0 and getattr(rule, "unit", "request") != "request"
        """Whether tenants are with one version; else their differences average out in both."""
        if self.sticky:
            self._place(campaigns)

    def _place(self, campaigns: int) -> None:
        """Give every tenant its hash, its share and its own base of the first guardrail, in the order of hashes."""
        traffic, rng = self._traffic, self._rng
        size = np.arange(1.0, traffic.tenants + 1.0) ** -traffic.zipf
        size /= size.sum()
        share = rng.permuted(np.broadcast_to(size, (campaigns, traffic.tenants)), axis=1).T
        p = self._base[0]
        if traffic.correlation and p > 0.0:
            both = 1.0 / traffic.correlation - 1.0
            bad = rng.beta(p * both, (1.0 - p) * both, (traffic.tenants, campaigns))
        else:
            bad = np.full((traffic.tenants, campaigns), p)
        self.hashes = np.sort(rng.random((traffic.tenants, campaigns)), axis=0)
        none = np.zeros((1, campaigns))
        self.sizes = share
        self._share = np.concatenate([none, np.cumsum(share, axis=0)])
        self._bad = np.concatenate([none, np.cumsum(share * bad, axis=0)])
        self._of = np.full(campaigns, -1.0)
        self._canary = np.zeros((2, campaigns))
        self._since = np.zeros(campaigns)
        """Requests since the weight last changed, expected."""
        self._squares = np.zeros((2, campaigns))
        """Sum of the squares of the tenants' shares of the traffic, by arm."""
        self._new = np.zeros((2, campaigns), np.int64)

    def by_tenant(self, weight: Floats) -> tuple[Floats, Floats]:
        """Return the share of traffic, and of it the mean base, by arm, shape (2, campaigns)."""
        changed = weight != self._of
        self._new[:] = 0
        if changed.any():
            last = (self.hashes < weight).sum(axis=0)
            rows = np.arange(len(weight))
            self._canary = np.stack([self._share[last, rows], self._bad[last, rows]])
            self._new[:, changed] = np.stack([len(self.hashes) - last, last])[:, changed]
            squares = np.stack([self.hashes >= weight, self.hashes < weight]) * self.sizes**2
            self._squares = squares.sum(axis=1)
            self._since[changed] = 0.0
            self._of = weight.copy()
        share, bad = self._canary
        shares = np.stack([np.maximum(1.0 - share, 0.0), share])
        bad_of_all = np.stack([np.maximum(self._bad[-1] - bad, 0.0), bad])
        return shares, bad_of_all / np.maximum(shares, 1e-12)

    def effective(self) -> Floats:
        """Return how many tenants there are by arm, effectively and expected: see ``Course.effective``."""
        share = self._canary[0]
        requests = np.stack([np.maximum(1.0 - share, 0.0), share]) * self._since
        # a Poisson number's square is expected to be its mean squared, and its mean
        of_squares = self._squares * self._since**2 + requests
        found: Floats = requests**2 / np.maximum(of_squares, 1e-9)
        return found

    def units(self, known: Known) -> Ints:
        """Return what was newly assigned in the bucket that was drawn last: all tenants as a stage begins."""
        return self._new if self.sticky else known.requests

    def bucket(self, number: int, weight: Floats) -> Known:
        """Return requests and bad outcomes of a bucket, by arm, whatever is known of them when.

        Parameters
        ----------
        number
            Of the bucket: 0, 1, 2, ...; in order.
        weight
            Share of the new version, shape (campaigns,).
        """
        traffic, rng = self._traffic, self._rng
        first: Floats | float = self._base[0]
        shares = np.stack([1.0 - weight, weight])
        if self.sticky:
            shares, first = self.by_tenant(weight)
        times: Floats | float = 1.0
        rate = self._per_look
        if traffic.daily:
            t = 2.0 * pi * (number + 0.5) * self._look_s / _DAY_S
            rate = rate * (1.0 + _SWING * np.sin(t + 2.0 * pi * self._noon_s / _DAY_S))
            times = 1.0 + _ERROR_SWING * np.sin(t + 2.0 * pi * self._worst_s / _DAY_S)
        if traffic.incidents:
            begins = rng.random(len(weight)) < self._look_s / INCIDENT_EVERY_S
            self._left = np.where(begins, looks(INCIDENT_LASTS_S, self._look_s), self._left - 1)
            times = times * np.where(self._left > 0, INCIDENT_TIMES, 1.0)
        if self.sticky:
            self._since = self._since + rate
        bad_share = np.broadcast_to(first, shares.shape).copy()
        if number >= self._onset:
            bad_share[CANARY] += self.effect
        bad_share = np.clip(bad_share * times, 0.0, 1.0)
        expected = rate * shares
        bad = rng.poisson(expected * bad_share)
        requests = bad + rng.poisson(expected * (1.0 - bad_share))
        others = [
            rng.binomial(requests, np.clip(base * np.asarray(times), 0.0, 1.0)) for base in self._base[1:]
        ]
        return Known(requests, np.stack([bad, *others]))
