"""From tables of who was right to the correlations of the latent ability that `glowsim.sim.quality` draws from.

A preset of quality is a file of ``quality/`` with four parts: ``title``; ``origins`` (dotted path -> how it is known,
and by whom); ``measured``, the counts that it was fitted to; and ``quality``, a block as a scenario writes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, fsum, log, pi, sqrt
from typing import NamedTuple

from glowsim.presets import PresetError

__all__ = ["Table", "all_right", "correlation", "pooled_correlation"]

_SURE = 0.9999
"""Largest correlation that is looked for: beyond it the integrand is a step."""


class Table(NamedTuple):
    """How many tasks two models, or two attempts, got right.

    >>> Table(8818, 742, 2497, 1985).shares
    (0.6808146987608603, 0.8057968950291982, 0.6279732231875801)
    """

    both: int
    first_only: int
    second_only: int
    neither: int

    @property
    def shares(self) -> tuple[float, float, float]:
        """What the first got right, the second, and both, as shares."""
        n = self.both + self.first_only + self.second_only + self.neither
        return (self.both + self.first_only) / n, (self.both + self.second_only) / n, self.both / n


def all_right(accuracies: Sequence[float], correlation: float) -> float:
    """Return the chance that attempts of these accuracies at one task are all correct.

    With c the latent correlation of any two and q the normal quantile, it is the mean over a standard normal z of the
    product of Phi((q(p) - sqrt(c) z) / sqrt(1 - c)): for two accuracies a fourfold table, for k equal ones pass^k.

    Parameters
    ----------
    accuracies
        Each above 0 and below 1.
    correlation
        0 or more, below 1.

    >>> round(all_right((0.5, 0.5), 0.5), 6)  # 1/4 + asin(1/2) / (2 pi)
    0.333333
    """
    from scipy.integrate import quad
    from scipy.special import ndtr, ndtri

    quantiles = [float(ndtri(accuracy)) for accuracy in accuracies]
    pull, own = sqrt(correlation), sqrt(1.0 - correlation)

    def weighed(z: float) -> float:
        chance = exp(-z * z / 2.0) / sqrt(2.0 * pi)
        for quantile in quantiles:
            chance *= float(ndtr((quantile - pull * z) / own))
        return chance

    # Where one attempt turns from sure to hopeless the integrand is steep: the places are named.
    steep = [quantile / pull for quantile in quantiles if pull and abs(quantile / pull) < 9.0]
    chance, _ = quad(weighed, -9.0, 9.0, points=steep or None, limit=200)
    return float(chance)


def correlation(first: float, second: float, both: float) -> float:
    """Return the latent correlation at which two attempts are both right that often (Pearson's tetrachoric one).

    For two attempts of one model ``first`` and ``second`` are pass^1 and ``both`` is pass^2.

    Parameters
    ----------
    first, second, both
        Shares of the tasks, above 0 and below 1.

    Raises
    ------
    PresetError
        They are right together more rarely than independent ones would be, or more often than either alone.

    Notes
    -----
    Source: Pearson, "On the correlation of characters not quantitatively measurable", Philosophical Transactions of
    the Royal Society A 195, 1900.

    >>> round(correlation(0.5, 0.5, 1 / 3), 6)
    0.5
    """
    from scipy.optimize import brentq

    if not first * second <= both <= all_right((first, second), _SURE):
        raise PresetError(
            f"no correlation from 0 to 1 makes {first:g} and {second:g} right together in {both:g} of the tasks: "
            f"give at least {first * second:g} and less than {min(first, second):g}"
        )
    if both - first * second < 1e-12:
        return 0.0
    return float(brentq(lambda c: all_right((first, second), c) - both, 0.0, _SURE, xtol=1e-10))


def pooled_correlation(tables: Sequence[Table]) -> float:
    """Return the one latent correlation under which the tables are most likely, each with accuracies of its own.

    Parameters
    ----------
    tables
        One for each kind of task; half a task is added to each field, so that none is empty.

    >>> round(pooled_correlation([Table(3333, 1667, 1667, 3333)]), 3)
    0.5
    """
    from scipy.optimize import minimize_scalar

    filled = [tuple(count + 0.5 for count in table) for table in tables]

    def surprise(correlation: float) -> float:
        terms = []
        for both, first_only, second_only, neither in filled:
            n = both + first_only + second_only + neither
            first, second = (both + first_only) / n, (both + second_only) / n
            right = all_right((first, second), correlation)
            chances = (right, first - right, second - right, 1.0 - first - second + right)
            terms += [
                -count * log(chance)
                for count, chance in zip((both, first_only, second_only, neither), chances, strict=True)
            ]
        return fsum(terms)

    return float(minimize_scalar(surprise, bounds=(0.0, 0.99), method="bounded", options={"xatol": 1e-5}).x)
