"""Two shares compared at one look: the score test, and the interval that is its inverse."""

from __future__ import annotations

import math

from glowsim.stats.experiments.comparison import Better, Comparison, check_alpha, decide

__all__ = ["proportions", "score_z"]


def proportions(
    a: tuple[int, int],
    b: tuple[int, int],
    *,
    alpha: float = 0.05,
    better: Better = "higher",
    matters: float = 0.0,
) -> Comparison:
    """Compare two shares, at one look at a size that was fixed beforehand.

    The interval holds just those differences that the score test does not reject, so it and the p-value never
    disagree; it stays within [-1, 1] and keeps a width where nothing, or everything, succeeded.

    Parameters
    ----------
    a, b
        (successes, trials) of the arms, over independent units, at least one trial in each.
    alpha, better, matters
        See `decide`.

    Raises
    ------
    ValueError
        Impossible counts.

    Source: Mee, "Confidence bounds for the difference between two probabilities", Biometrics 40, 1984; Miettinen &
    Nurminen, "Comparative analysis of two rates", Statistics in Medicine 4, 1985.

    >>> found = proportions((56, 70), (48, 80))
    >>> round(found.p, 4), round(found.low, 3), round(found.high, 3)
    (0.008, -0.338, -0.053)
    """
    from scipy.special import ndtr, ndtri

    check_alpha(alpha)
    for name, (good, of) in (("a", a), ("b", b)):
        if of < 1 or not 0 <= good <= of:
            raise ValueError(
                f"arm {name} has {good} successes in {of} trials: give 0 <= successes <= trials, trials >= 1"
            )
    z = float(ndtri(1.0 - alpha / 2.0))
    share_a, share_b = a[0] / a[1], b[0] / b[1]
    difference = share_b - share_a
    p = float(2.0 * ndtr(-abs(score_z(a, b, 0.0))))
    low = _end(a, b, z, -1.0, difference)
    high = _end(a, b, -z, difference, 1.0)
    return decide(
        "proportions", (share_a, a[1]), (share_b, b[1]), (difference, low, high),
        p=p, alpha=alpha, better=better, matters=matters,
    )  # fmt: skip


def score_z(a: tuple[int, int], b: tuple[int, int], margin: float) -> float:
    """Return how many standard errors b less a lies above ``margin``, the errors as they are where that is true.

    Parameters
    ----------
    a, b
        (successes, trials) of the arms.
    margin
        Difference of the shares, within [-1, 1].

    Source: Farrington & Manning, "Test statistics and sample size formulae for comparative binomial trials with null
    hypothesis of non-zero risk difference or non-unity relative risk", Statistics in Medicine 9, 1990.

    >>> round(score_z((56, 70), (48, 80), 0.0), 3)
    -2.65
    """
    off = b[0] / b[1] - a[0] / a[1] - margin
    share_a, share_b = _constrained(a, b, margin)
    error = math.sqrt(max(0.0, share_a * (1.0 - share_a) / a[1] + share_b * (1.0 - share_b) / b[1]))
    if error == 0.0:
        return 0.0 if abs(off) < 1e-12 else math.copysign(math.inf, off)
    return off / error


def _constrained(a: tuple[int, int], b: tuple[int, int], margin: float) -> tuple[float, float]:
    """Return the most likely shares among those that differ by the margin: the root of a cubic."""
    (x0, n0), (_, n1) = a, b
    n, x = n0 + n1, x0 + b[0]
    if margin == 0.0:
        return x / n, x / n
    l2 = (n1 + 2 * n0) * margin - n - x
    l1 = (n0 * margin - n - 2 * x0) * margin + x
    l0 = x0 * margin * (1.0 - margin)
    q = l2**3 / (3.0 * n) ** 3 - l1 * l2 / (6.0 * n * n) + l0 / (2.0 * n)
    root = math.copysign(math.sqrt(max(0.0, l2 * l2 / (3.0 * n) ** 2 - l1 / (3.0 * n))), q)
    if root == 0.0:
        share = -l2 / (3.0 * n)
    else:
        angle = (math.pi + math.acos(max(-1.0, min(1.0, q / root**3)))) / 3.0
        share = 2.0 * root * math.cos(angle) - l2 / (3.0 * n)
    share = min(1.0, 1.0 - margin, max(0.0, -margin, share))
    return share, min(1.0, max(0.0, share + margin))


def _end(a: tuple[int, int], b: tuple[int, int], z: float, low: float, high: float) -> float:
    """Return the margin between two at which the score statistic is ``z``; it falls with the margin."""
    for _ in range(60):
        middle = (low + high) / 2.0
        if score_z(a, b, middle) > z:
            low = middle
        else:
            high = middle
    return (low + high) / 2.0
