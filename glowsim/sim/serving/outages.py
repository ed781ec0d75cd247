"""When a provider is down: outages that cluster and last for widely different times.

Measured incidents of LLM providers do not come like a Poisson process: the time between their starts follows
a Weibull law of shape below 1, and how long one lasts a lognormal one. `glowsim.presets.hosted.incidents` has
the numbers.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import exp, gamma, inf, log1p
from statistics import NormalDist
from typing import NamedTuple

from glowsim.core.errors import WorldError
from glowsim.core.streams import Stream

__all__ = ["Gaps", "Outage", "Repairs", "Timetable", "outages"]

_SMALLEST = 2.0**-54


class Outage(NamedTuple):
    """A time in which calls fail."""

    at_s: float
    lasts_s: float
    share: float
    """Calls that fail, from 0 to 1."""


@dataclass(frozen=True)
class Gaps:
    """Weibull law of the time from one start to the next.

    P(gap > t) = exp(-(t / scale)^shape), scale = mean / Gamma(1 + 1 / shape).

    Parameters
    ----------
    shape
        Above 0; below 1 outages cluster.
    mean_s
        Above 0.

    >>> round(Gaps(1.0, 100.0).gap_s(0.5), 1)
    69.3
    """

    shape: float
    mean_s: float

    def __post_init__(self) -> None:
        if not (self.shape > 0.0 and self.mean_s > 0.0):
            raise WorldError(f"{self} cannot be: give a shape and a mean above 0")

    @property
    def scale_s(self) -> float:
        """The scale of the law."""
        return self.mean_s / gamma(1.0 + 1.0 / self.shape)

    def gap_s(self, u: float) -> float:
        """Return the gap that belongs to a uniform number in [0, 1)."""
        return float(self.scale_s * (-log1p(-u)) ** (1.0 / self.shape))

    def until_first_s(self, u: float, v: float) -> float:
        """Return the time from a moment that nobody chose to the next start, for two uniform numbers.

        Such a moment lies in a long gap rather than in a short one, at no place in particular: the gap is
        drawn with its length as weight, (gap / scale)^shape being Gamma(1 + 1 / shape), and u says where.
        """
        from scipy.special import gammaincinv

        return float(u * self.scale_s * gammaincinv(1.0 + 1.0 / self.shape, v) ** (1.0 / self.shape))


@dataclass(frozen=True)
class Repairs:
    """Lognormal law of how long an outage lasts.

    Parameters
    ----------
    median_s
        Above 0.
    sigma
        Standard deviation of the logarithm, 0 or more.

    >>> Repairs(60.0, 1.0).lasts_s(0.5)
    60.0
    """

    median_s: float
    sigma: float

    def __post_init__(self) -> None:
        if not (self.median_s > 0.0 and self.sigma >= 0.0):
            raise WorldError(f"{self} cannot be: give a median above 0 and a sigma of 0 or more")

    def lasts_s(self, u: float) -> float:
        """Return how long one lasts that belongs to a uniform number in [0, 1)."""
        return self.median_s * exp(self.sigma * NormalDist().inv_cdf(max(u, _SMALLEST)))


def outages(stream: Stream, until_s: float, gaps: Gaps, repairs: Repairs, share: float) -> tuple[Outage, ...]:
    """Return the outages that start before a time, in order; the first comes as if they had gone on for ever.

    They may overlap. None is under way at 0 s.

    Parameters
    ----------
    stream
        Three numbers are drawn for the first of them, two for each further one.
    until_s
        Seconds up to which they start; 0 or more, and finite.
    gaps, repairs
        Laws of the time between starts, and of how long one lasts.
    share
        Calls that fail meanwhile, 0 to 1.

    Raises
    ------
    WorldError
        A number is out of its bounds.

    Notes
    -----
    Source: Chu et al., "An empirical characterization of outages and incidents in public services for large
    language models", ICPE 2025.

    >>> found = outages(Stream(1), 1e6, Gaps(0.64, 3e5), Repairs(4700.0, 1.2), 0.5)
    >>> all(0.0 <= outage.at_s < 1e6 and outage.lasts_s > 0.0 for outage in found)
    True
    """
    if not 0.0 <= until_s < inf or not 0.0 <= share <= 1.0:
        raise WorldError(
            f"outages until {until_s} s that strike {share} of the calls: give a time, and a share of 0 to 1"
        )
    return tuple(_drawn(stream, until_s, gaps, repairs, share))


def _drawn(stream: Stream, until_s: float, gaps: Gaps, repairs: Repairs, share: float) -> Iterator[Outage]:
    at_s = gaps.until_first_s(stream.uniform(), stream.uniform())
    while at_s < until_s:
        yield Outage(at_s, repairs.lasts_s(stream.uniform()), share)
        at_s += gaps.gap_s(stream.uniform())


class Timetable:
    """What share of the calls fails at a moment: where outages overlap, that of the worst.

    Parameters
    ----------
    found
        Outages, in any order.

    >>> timetable = Timetable([Outage(10.0, 5.0, 0.2), Outage(12.0, 1.0, 1.0)])
    >>> [timetable.share(t_s) for t_s in (9.9, 10.0, 12.5, 13.0, 15.0)]
    [0.0, 0.2, 1.0, 0.2, 0.0]
    """

    def __init__(self, found: Sequence[Outage]) -> None:
        moments = sorted({t_s for outage in found for t_s in (outage.at_s, outage.at_s + outage.lasts_s)})
        self._from_s: list[float] = []
        self._shares: list[float] = []
        active: list[Outage] = []
        coming = sorted(found, reverse=True)
        for t_s in moments:
            while coming and coming[-1].at_s <= t_s:
                active.append(coming.pop())
            active = [outage for outage in active if outage.at_s + outage.lasts_s > t_s]
            self._from_s.append(t_s)
            self._shares.append(max((outage.share for outage in active), default=0.0))

    def share(self, t_s: float) -> float:
        """Return the share of the calls that fails when they start at a moment."""
        i = bisect_right(self._from_s, t_s)
        return self._shares[i - 1] if i else 0.0
