"""Two arms compared at any look, as often as one likes: the chance of ever being wrong stays below alpha.

Two methods, with different guarantees:

- `rates` counts events (errors, conversions) and asks of each which arm it came from. Exact: for arms that are equal
  the chance of ever naming a winner is at most alpha, at any size, whatever moves the rate of both arms alike.
- `any_look` compares means with the spread that was seen. Asymptotic: it holds as samples grow, and nothing is said
  below ``least`` units an arm.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from glowsim.stats.experiments.comparison import Better, Comparison, check_alpha, decide

__all__ = ["any_look", "log_evidence_of_shift", "log_evidence_of_split", "rates"]

CONCENTRATION = 20.0
"""Of the prior of `rates`: with equal weights it thinks of one arm having about 1.5 times the events of the other."""


def any_look(
    a: tuple[float, int], b: tuple[float, int], error: float, *, tuned_for: int, alpha: float = 0.05, least: int = 50,
    better: Better = "higher", matters: float = 0.0,
) -> Comparison:  # fmt: skip
    """Compare two means at any look.

    Parameters
    ----------
    a, b
        (mean, number of units) of each arm.
    error
        Standard error of the difference as it stands, above 0: for independent units the root of the sum of
        variance / n over the arms.
    tuned_for
        Units of both arms at which the interval is narrowest, at least 1, chosen beforehand; it costs little elsewhere.
    alpha, better, matters
        See `decide`.
    least
        Units in each arm below which nothing is said.

    Raises
    ------
    ValueError
        A number is out of its bounds.

    Source: Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas, "Time-uniform central limit theory and asymptotic confidence
    sequences", Annals of Statistics 52, 2024 (arXiv 2103.06476), equations 9 and 10; the normal mixture is that of
    Robbins, Annals of Mathematical Statistics 41, 1970, and of the mSPRT of Johari, Koomen, Pekelis & Walsh, 2017.

    >>> found = any_look((10.0, 500), (10.4, 500), 0.1, tuned_for=1000)
    >>> round(found.low, 2), round(found.high, 2), found.winner
    (0.1, 0.7, 'b')
    """
    check_alpha(alpha)
    if not error > 0.0 or tuned_for < 1:
        raise ValueError(f"error {error}, tuned_for {tuned_for}: give an error above 0 and at least 1 unit")
    n = a[1] + b[1]
    difference = b[0] - a[0]
    if min(a[1], b[1]) < least:
        why = f"{a[1]} and {b[1]} units, and nothing is said below {least} in each arm"
        return Comparison(
            "sequential",
            a[0],
            b[0],
            a[1],
            b[1],
            difference,
            -math.inf,
            math.inf,
            1.0,
            alpha,
            "undecided",
            why,
        )
    rho2 = _rho2(tuned_for, alpha)
    log_e = log_evidence_of_shift(difference / error, n, rho2)
    reach = error * math.sqrt(
        2.0 * (n * rho2 + 1.0) / (n * rho2) * (0.5 * math.log1p(n * rho2) - math.log(alpha))
    )
    interval = (difference, difference - reach, difference + reach)
    p = min(1.0, math.exp(-max(0.0, log_e)))
    return decide("sequential", a, b, interval, p=p, alpha=alpha, better=better, matters=matters)


def log_evidence_of_shift(z: float, n: int, rho2: float) -> float:
    """Return the logarithm of the mixture likelihood ratio of a shifted mean against none.

    ``z`` is the difference in standard errors, ``n`` the number of units, ``rho2`` the variance of the shifts that are
    thought of, in units of the variance of one.

    >>> log_evidence_of_shift(0.0, 3, 1.0) == -math.log(2.0)
    True
    """
    information = n * rho2
    return 0.5 * z * z * information / (information + 1.0) - 0.5 * math.log1p(information)


def _rho2(tuned_for: int, alpha: float) -> float:
    """Return the variance of shifts that makes the interval narrowest at a size: appendix B.2 of the paper."""
    bits = -2.0 * math.log(alpha)
    return (bits + math.log(bits + 1.0)) / tuned_for


def rates(
    a: tuple[int, int], b: tuple[int, int], weight: float, *, alpha: float = 0.05, better: Better = "lower",
    matters: float = 0.0,
) -> Comparison:  # fmt: skip
    """Compare how often something happens in two arms, at any look, exactly.

    If the arms are equal, each event came from arm b with probability ``weight``, whatever happened before: a
    likelihood ratio against that, averaged over other ratios, reaches 1 / alpha with a chance of at most alpha (Ville).
    So does that of what did not happen, and the mean of both, which is what is taken: whichever is rarer tells more.
    The interval inverts both, each at alpha / 2: it covers the ratio of the rates at all looks together, with a chance
    of at least 1 - alpha, and is given as a difference at arm a's rate of now.

    Conditions: each unit is assigned by itself, with the same ``weight`` throughout, and has at most one event.

    Parameters
    ----------
    a, b
        (events, units) of each arm.
    weight
        Part of the units that gets b, between 0 and 1.
    alpha, better, matters
        See `decide`; ``matters`` is a difference of rates.

    Raises
    ------
    ValueError
        Impossible counts, or a number out of its bounds.

    Source: Lindon & Malek, "Anytime-valid inference for multinomial count data", NeurIPS 2022, for two arms; Robbins,
    1970, for the beta mixture; Ville, 1939.

    >>> found = rates((20, 400), (60, 400), 0.5)
    >>> found.p < 0.01, found.winner
    (True, 'a')
    """
    check_alpha(alpha)
    if not 0.0 < weight < 1.0:
        raise ValueError(f"weight: {weight}; give the part of the units that gets b, between 0 and 1")
    for name, (events, units) in (("a", a), ("b", b)):
        if not 0 <= events <= units:
            raise ValueError(f"arm {name} has {events} events in {units} units: at most one a unit")
    did, did_not = (a[0], b[0]), (a[1] - a[0], b[1] - b[0])
    evidence = [log_evidence_of_split(*counts, weight) for counts in (did, did_not)]
    log_e = max(evidence) + math.log1p(math.exp(min(evidence) - max(evidence))) - math.log(2.0)
    p = min(1.0, math.exp(-max(0.0, log_e)))
    rate_a, rate_b = (events / units if units else 0.0 for events, units in (a, b))
    least, most = _ratios(*did, weight, alpha / 2.0)
    least_not, most_not = _ratios(*did_not, weight, alpha / 2.0)
    low = max(_off(rate_a, least, -1.0), -_off(1.0 - rate_a, most_not, 1.0))
    high = min(_off(rate_a, most, 1.0), -_off(1.0 - rate_a, least_not, -1.0))
    return decide(
        "sequential", (rate_a, a[1]), (rate_b, b[1]), (rate_b - rate_a, low, high),
        p=p, alpha=alpha, better=better, matters=matters,
    )  # fmt: skip


def _off(rate: float, ratio: float, unknown: float) -> float:
    """Return the difference that a ratio makes at a rate; where nothing was seen of it, any is possible."""
    return max(-1.0, min(1.0, rate * (ratio - 1.0))) if rate else unknown


def log_evidence_of_split(a: int, b: int, weight: float, concentration: float = CONCENTRATION) -> float:
    """Return the logarithm of the evidence that things fall to b with another probability than ``weight``.

    ``a`` and ``b`` are how many fell to each. A beta prior of ``concentration``, centred on ``weight``, against
    ``weight`` itself; it reaches 1 / alpha with a chance of at most alpha where ``weight`` is right, at any look.

    >>> log_evidence_of_split(0, 0, 0.5)
    0.0
    """
    prior_b, prior_a = concentration * weight, concentration * (1.0 - weight)
    mixture = _log_beta(prior_b + b, prior_a + a) - _log_beta(prior_b, prior_a)
    return mixture - b * math.log(weight) - a * math.log1p(-weight)


def _log_beta(x: float, y: float) -> float:
    return math.lgamma(x) + math.lgamma(y) - math.lgamma(x + y)


def _ratios(a: int, b: int, weight: float, alpha: float) -> tuple[float, float]:
    """Return the ends of the ratio of rates, b to a, given how many events each had."""
    prior_b, prior_a = CONCENTRATION * weight, CONCENTRATION * (1.0 - weight)
    mixture = _log_beta(prior_b + b, prior_a + a) - _log_beta(prior_b, prior_a)
    bar = mixture + math.log(alpha)  # a probability stays in the interval while its likelihood is above this

    def likelihood(q: float) -> float:
        return (b * math.log(q) if b else 0.0) + (a * math.log1p(-q) if a else 0.0)

    peak = b / (a + b) if a + b else 0.5
    low = 0.0 if not b else _cross(likelihood, bar, 0.0, peak)
    high = 1.0 if not a else _cross(likelihood, bar, 1.0, peak)
    odds = (1.0 - weight) / weight
    return low / (1.0 - low) * odds, high / (1.0 - high) * odds if high < 1.0 else math.inf


def _cross(likelihood: Callable[[float], float], bar: float, outside: float, inside: float) -> float:
    for _ in range(100):
        middle = (outside + inside) / 2.0
        if not min(outside, inside) < middle < max(outside, inside):
            break
        if likelihood(middle) >= bar:
            inside = middle
        else:
            outside = middle
    return outside
