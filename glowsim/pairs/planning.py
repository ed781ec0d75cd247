"""How many recorded tasks it takes, before any money is spent."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from statistics import NormalDist
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import binom

from glowsim.pairs.sequential import STAKES, PairedEvidence
from glowsim.pairs.verdict import Rules

__all__ = [
    "Campaigns", "Discordance", "connor_pairs", "decided", "discordance", "largest_correlation", "mcnemar_power",
    "non_inferior_pairs", "pairs_needed", "sequential",
]  # fmt: skip

Floats = npt.NDArray[np.float64]
_normal = NormalDist()
_MOST_PAIRS: Final = 1_000_000
_CAMPAIGNS: Final = 2000


class Discordance(NamedTuple):
    """How often just one of the two variants fails at a task."""

    lost: float
    """Share of the tasks at which only the variant fails."""
    won: float
    """Share of the tasks at which only the baseline fails."""

    @property
    def total(self) -> float:
        """Share of the tasks that tell anything."""
        return self.lost + self.won

    @property
    def effect(self) -> float:
        """By how much the variant's share of failures is the larger one."""
        return self.lost - self.won


def largest_correlation(base_error: float, effect: float) -> float:
    """Return the largest correlation of failures that two rates allow: 1 only where they are equal.

    >>> round(largest_correlation(0.05, 0.05), 3), largest_correlation(0.05, 0.0)
    (0.688, 1.0)
    """
    low, high = sorted((base_error, base_error + effect))
    return 1.0 if low == high else math.sqrt(low * (1.0 - high) / (high * (1.0 - low)))


def discordance(base_error: float, effect: float, correlation: float) -> Discordance:
    """Return how often two variants differ at a task.

    Parameters
    ----------
    base_error
        The baseline's share of failures, above 0 and below 1.
    effect
        What the variant adds to it; negative: it fails less. Both rates are above 0 and below 1.
    correlation
        Of the two failures at one task (phi): 0, tasks are equally hard; at most `largest_correlation`.

    Raises
    ------
    ValueError
        A rate is out of its bounds, or the rates do not allow the correlation.

    >>> lost, won = discordance(0.05, 0.05, 0.5)
    >>> round(lost, 4), round(won, 4)
    (0.0623, 0.0123)
    """
    changed = base_error + effect
    if not 0.0 < base_error < 1.0 or not 0.0 < changed < 1.0:
        raise ValueError(f"error rates must be above 0 and below 1, got {base_error:g} and {changed:g}")
    both = base_error * changed
    both += correlation * math.sqrt(base_error * (1.0 - base_error) * changed * (1.0 - changed))
    largest = largest_correlation(base_error, effect)
    lost, won = changed - both, base_error - both
    rounding = 1e-12
    if min(lost, won, both, 1.0 - changed - won) < -rounding or correlation > largest + rounding:
        raise ValueError(
            f"failures at {base_error:.3g} and {changed:.3g} of the tasks cannot have the correlation "
            f"{correlation:g}: give 0 to {math.floor(largest * 1000) / 1000:g}"
        )
    return Discordance(max(lost, 0.0), max(won, 0.0))


def connor_pairs(differ: Discordance, alpha: float, power: float) -> int:
    """Return about how many pairs McNemar's one-sided test needs, by the normal approximation.

    >>> connor_pairs(Discordance(0.45, 0.05), alpha=0.05, power=0.9)
    23

    Source: Connor (1987), Biometrics 43:207-211; Miettinen (1968), Biometrics 24.
    """
    _check_levels(alpha, power)
    effect = differ.effect
    if effect == 0.0:
        raise ValueError("an effect of 0 is not found by any number of pairs")
    z_alpha, z_power = _normal.inv_cdf(1.0 - alpha), _normal.inv_cdf(power)
    spread = z_alpha * math.sqrt(differ.total) + z_power * math.sqrt(differ.total - effect**2)
    return math.ceil((spread / effect) ** 2)


def mcnemar_power(pairs: int, differ: Discordance, alpha: float) -> float:
    """Return the chance that the exact one-sided test at ``alpha`` finds the variant worse, by enumeration.

    >>> round(mcnemar_power(400, Discordance(0.0623, 0.0123), 0.01), 3)
    0.918
    """
    rejects = _rejection(differ, alpha, _most_discordant(pairs, differ.total))
    return float(binom.pmf(np.arange(len(rejects)), pairs, differ.total) @ rejects)


def pairs_needed(
    base_error: float, effect: float, correlation: float = 0.5, alpha: float = 0.01, power: float = 0.8
) -> int:
    """Return how many recorded tasks, each sent to both variants, find an effect: exact, by enumeration.

    Parameters
    ----------
    base_error
        The baseline's share of failures, above 0 and below 1.
    effect
        What the variant adds to it, above 0.
    correlation
        Of the two failures at one task: see `discordance`.
    alpha
        Chance of calling an equal variant worse, one-sided, above 0 and below 0.5.
    power
        Chance of finding the effect, above ``alpha`` and below 1. The exact test's power has saw teeth: from the
        number returned on it stays at least this.

    Raises
    ------
    ValueError
        A number is out of its bounds, or more than a million tasks are needed.

    >>> pairs_needed(0.05, 0.05, correlation=0.5, alpha=0.01, power=0.8)
    303
    """
    if effect <= 0.0:
        raise ValueError(
            f"effect must be above 0, got {effect:g}: what the variant adds to the share of failures"
        )
    differ = discordance(base_error, effect, correlation)
    about = connor_pairs(differ, alpha, power)
    if about > _MOST_PAIRS:
        raise ValueError(f"about {about:,} tasks are needed: ask for a larger effect")
    return _from_which_on(
        lambda pairs: mcnemar_power(pairs, differ, alpha) >= power, about, 4.0 / differ.total
    )


def non_inferior_pairs(
    base_error: float, margin: float, correlation: float, alpha: float, power: float, effect: float = 0.0
) -> int:
    """Return about how many tasks show that the variant is not worse by a margin, by the normal approximation.

    Parameters
    ----------
    base_error, correlation
        See `discordance`.
    margin
        The share of failures that it may add, above ``effect``.
    alpha
        Chance of passing a variant that is worse by just the margin, one-sided.
    power
        Chance of passing one that adds ``effect``.
    effect
        What it adds in truth; 0: it is equal.

    Raises
    ------
    ValueError
        A number is out of its bounds.

    >>> non_inferior_pairs(0.05, 0.03, correlation=0.5, alpha=0.025, power=0.9)
    645

    Source: Nam (1997), Biometrics 53:1422-1430, and Tango (1998), with the variance of the restricted estimates at the
    margin.
    """
    _check_levels(alpha, power)
    if not effect < margin < 1.0:
        raise ValueError(f"margin must be above the effect ({effect:g}) and below 1, got {margin:g}")
    differ = discordance(base_error, effect, correlation)
    at_margin = _restricted_total(differ, margin) - margin**2
    z_alpha, z_power = _normal.inv_cdf(1.0 - alpha), _normal.inv_cdf(power)
    spread = z_alpha * math.sqrt(at_margin) + z_power * math.sqrt(differ.total - effect**2)
    return math.ceil((spread / (margin - effect)) ** 2)


class Campaigns(NamedTuple):
    """What becomes of many replays that are looked at after every pair."""

    verdicts: npt.NDArray[np.int8]
    """By campaign: 1 the variant is worse, 2 it is not worse by the margin, 0 neither."""
    ended: npt.NDArray[np.int64]
    """By campaign: pairs sent until then, or all of them."""

    @property
    def worse(self) -> float:
        """Share that end with "the variant is worse"."""
        return float(np.mean(self.verdicts == 1))

    @property
    def not_worse(self) -> float:
        """Share that end with "it is not worse by the margin"."""
        return float(np.mean(self.verdicts == 2))

    @property
    def undecided(self) -> float:
        """Share that end with neither."""
        return float(np.mean(self.verdicts == 0))

    def tasks_for(self, verdict: int, power: float) -> int | None:
        """Return within how many pairs this share of the campaigns comes to a verdict; None: it does not."""
        within = np.sort(np.where(self.verdicts == verdict, self.ended, np.iinfo(np.int64).max))
        at = int(within[math.ceil(power * len(within)) - 1])
        return at if at < np.iinfo(np.int64).max else None


def sequential(
    pairs: int, differ: Discordance, rules: Rules, *, seed: int = 1, campaigns: int = _CAMPAIGNS
) -> Campaigns:
    """Return what the sequential replay of at most so many tasks comes to, simulated with a fixed seed.

    Parameters
    ----------
    pairs
        Tasks at most, at least 1.
    differ
        How the variants differ in truth.
    rules
        What is promised; no campaign ends for futility.
    seed, campaigns
        Of the simulation.

    >>> found = sequential(400, Discordance(0.0623, 0.0123), Rules(margin=0.01), campaigns=200)
    >>> 0.6 < found.worse < 0.9, found.not_worse, bool(found.ended.mean() < 350)
    (True, 0.0, True)
    """
    generator = np.random.default_rng(seed)
    chances = [differ.won, 1.0 - differ.total, differ.lost]
    drawn = (generator.choice(3, size=campaigns, p=chances).astype(np.int8) - 1 for _ in range(pairs))
    return decided(drawn, rules)


def decided(differences: Iterable[npt.NDArray[np.int8]], rules: Rules) -> Campaigns:
    """Return what campaigns come to that are looked at after every pair.

    Parameters
    ----------
    differences
        Pair after pair, at least one: for every campaign 1 where it is lost, -1 where it is won, else 0.
    rules
        What is promised; no campaign ends for futility.
    """
    worse, passes = PairedEvidence("not worse"), PairedEvidence("worse", rules.margin)
    outcomes = np.array([-1.0, 0.0, 1.0])
    gains = worse.gains(outcomes), passes.gains(outcomes)
    bars = (-math.log(rules.alpha), -math.log(rules.promote_alpha))
    logs: list[Floats] = []
    for n, column in enumerate(differences, 1):
        if n == 1:
            ended, verdict = np.zeros(len(column), dtype=np.int64), np.zeros(len(column), dtype=np.int8)
            going, logs = np.arange(len(column)), [np.zeros((len(column), len(STAKES))) for _ in gains]
        for log, gain in zip(logs, gains, strict=True):
            log += gain[column[going] + 1]
        ended[going] = n
        said = np.where(worse.after(logs[0]) >= bars[0], 1, np.where(passes.after(logs[1]) >= bars[1], 2, 0))
        if said.any():
            verdict[going] = said
            going, logs = going[said == 0], [log[said == 0] for log in logs]
            if not len(going):
                break
    return Campaigns(verdict, ended)


def _restricted_total(differ: Discordance, margin: float) -> float:
    """Return the total discordance that fits best, at large numbers, where the difference is the margin."""
    a = 2.0
    b = -differ.total + (2.0 - differ.effect) * margin
    c = -differ.won * margin * (1.0 - margin)
    won = (math.sqrt(max(b * b - 4.0 * a * c, 0.0)) - b) / (2.0 * a)
    return 2.0 * won + margin


def _check_levels(alpha: float, power: float) -> None:
    if not 0.0 < alpha < 0.5 or not alpha < power < 1.0:
        raise ValueError(
            f"alpha must be above 0 and below 0.5, and power between it and 1, got {alpha:g} and {power:g}"
        )


def _most_discordant(pairs: int, total: float) -> int:
    """Return a number of discordant pairs that is exceeded with a chance below 1e-12."""
    return min(pairs, int(binom.isf(1e-12, pairs, total)) + 1)


def _rejection(differ: Discordance, alpha: float, most: int) -> Floats:
    """Return the chance of rejection by number of discordant pairs, from 0 to ``most``."""
    pairs = np.arange(most + 1)
    below = binom.isf(alpha, pairs, 0.5)  # the largest number of losses that does not reject
    rejects: Floats = binom.sf(below, pairs, differ.lost / differ.total)
    rejects[0] = 0.0
    return rejects


def _from_which_on(good: Callable[[int], bool], about: int, tooth: float) -> int:
    """Return the number from which on it is good, though it may be bad again for a while after it first was."""
    high = max(about, 2)
    while not good(high):
        high *= 2
    low = 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if good(middle) else (middle + 1, high)
    last = next((n for n in range(low + math.ceil(tooth), low, -1) if not good(n)), low - 1)
    return last + 1
