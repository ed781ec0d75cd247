"""An experiment's rows, judged: units made of rows, the split checked, each metric tested, all p-values together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from glowsim.stats.experiments.always_valid import any_look, rates
from glowsim.stats.experiments.comparison import Better, Comparison
from glowsim.stats.experiments.group_sequential import Spending, at_look, crossing
from glowsim.stats.experiments.means import cuped, welch
from glowsim.stats.experiments.moments import Moments
from glowsim.stats.experiments.multiple import holm
from glowsim.stats.experiments.proportions import proportions
from glowsim.stats.experiments.ranks import mann_whitney
from glowsim.stats.experiments.sample_ratio import SampleRatio, sample_ratio

__all__ = ["Evaluation", "How", "Judged", "Test", "Units", "evaluate", "units_of"]

Test = Literal["auto", "welch", "proportions", "mann-whitney", "sequential", "group-sequential"]

_FIXED = ("welch", "proportions", "mann-whitney")
_TUNED_FOR = 10_000


class How(NamedTuple):
    """How an experiment is to be judged."""

    test: Test = "auto"
    """``auto``: proportions where every unit has 0 or 1, else Welch."""
    alpha: float = 0.05
    better: Better = "higher"
    matters: float = 0.0
    """Smallest difference that matters, in the metric's unit."""
    looks: int = 1
    """How often the data were looked at, this time included."""
    planned: int | None = None
    """Units of both arms at which the experiment was to end, fixed beforehand."""
    earlier: tuple[int, ...] = ()
    """Units at the earlier looks of a group-sequential test."""
    spending: Spending = "obrien-fleming"


class Units(NamedTuple):
    """One number of each metric for each unit."""

    variants: NDArray[np.str_]
    metrics: dict[str, NDArray[np.float64]]
    covariate: NDArray[np.float64] | None


class Judged(NamedTuple):
    """A metric of a variant, against the baseline."""

    metric: str
    variant: str
    found: Comparison
    adjusted_p: float
    """By Holm, over all metrics and variants."""
    removed: float
    """Part of the variance that the covariate took away."""


class Evaluation(NamedTuple):
    """What an experiment came to."""

    baseline: str
    judged: tuple[Judged, ...]
    split: SampleRatio
    units: dict[str, int]
    remarks: tuple[str, ...]


def units_of(
    variants: Sequence[str], metrics: Mapping[str, Sequence[float]], units: Sequence[str] | None,
    covariate: Sequence[float] | None = None,
) -> tuple[Units, list[tuple[int, str]]]:  # fmt: skip
    """Return one value for each unit, the mean of its rows, and the rows whose unit was in another variant before.

    Parameters
    ----------
    variants
        The variant of each row.
    metrics, covariate
        Their values, one for each row.
    units
        Which unit each row belongs to; None: each row is one.

    >>> found, wrong = units_of(["a", "b", "b"], {"cost": [1.0, 2.0, 4.0]}, ["u", "v", "v"])
    >>> found.metrics["cost"].tolist(), wrong
    ([1.0, 3.0], [])
    """
    columns = {name: np.asarray(values, dtype=np.float64) for name, values in metrics.items()}
    before = None if covariate is None else np.asarray(covariate, dtype=np.float64)
    if units is None:
        return Units(np.asarray(variants, dtype=np.str_), columns, before), []
    first: dict[str, int] = {}
    wrong = []
    places = np.empty(len(units), dtype=np.intp)
    of_unit: list[str] = []
    for row, (unit, variant) in enumerate(zip(units, variants, strict=True)):
        place = first.setdefault(unit, len(of_unit))
        if place == len(of_unit):
            of_unit.append(variant)
        elif of_unit[place] != variant:
            wrong.append(
                (row, f"unit {unit[:40]!r} is in variant {variant!r} here, and in {of_unit[place]!r} before")
            )
        places[row] = place
    counts = np.bincount(places, minlength=len(of_unit))

    def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.bincount(places, weights=values, minlength=len(of_unit)) / counts

    means = {name: mean(values) for name, values in columns.items()}
    return Units(np.asarray(of_unit, dtype=np.str_), means, None if before is None else mean(before)), wrong


def evaluate(units: Units, baseline: str, weights: Mapping[str, float], how: How) -> Evaluation:
    """Judge every metric of every variant against the baseline.

    Parameters
    ----------
    units
        One number of each metric for each unit.
    baseline
        Its variant.
    weights
        Part of the units that each variant was to get; they are the variants, in their order.
    how
        The test, and what it needs.

    Raises
    ------
    ValueError
        The test does not suit the metric or the options; the message says what does.
    """
    names = list(weights)
    if len(names) < 2 or baseline not in weights:
        raise ValueError(
            f"variants {names}, baseline {baseline!r}: give the baseline, and at least one other variant"
        )
    arms = {name: np.flatnonzero(units.variants == name) for name in names}
    counts = {name: int(places.size) for name, places in arms.items()}
    empty = [name for name, n in counts.items() if not n]
    if empty:
        raise ValueError(f"variant {empty[0]!r} has no units")
    split = sample_ratio(list(counts.values()), [weights[name] for name in names])
    remarks = _remarks(how)
    found: list[tuple[str, str, Comparison, float]] = []
    for metric, values in units.metrics.items():
        for name in names:
            if name != baseline:
                pair = weights[name] / (weights[name] + weights[baseline])
                chosen = arms[baseline], arms[name]
                found.append((metric, name, *_compare(values, units.covariate, chosen, pair, how)))
    adjusted = holm([each.p for _, _, each, _ in found])
    veto = _veto(how, sum(counts.values()), split)
    judged = tuple(
        Judged(metric, name, _settle(each, p, veto), p, removed)
        for (metric, name, each, removed), p in zip(found, adjusted, strict=True)
    )
    if split.broken:
        remarks.append(
            f"the split is not the one that was ordered (p = {split.p:.2g}): find out why before anything else"
        )
    return Evaluation(baseline, judged, split, counts, tuple(remarks))


def _compare(
    values: NDArray[np.float64], covariate: NDArray[np.float64] | None,
    arms: tuple[NDArray[np.intp], NDArray[np.intp]], weight: float, how: How,
) -> tuple[Comparison, float]:  # fmt: skip
    first, second = arms
    both = values[np.concatenate(arms)]
    binary = bool(np.all((both == 0.0) | (both == 1.0)))
    test = ("proportions" if binary and covariate is None else "welch") if how.test == "auto" else how.test
    removed = 0.0
    if covariate is not None:
        if test in ("proportions", "mann-whitney"):
            raise ValueError(
                f"a covariate is for tests of means: leave it out, or choose another test than {test}"
            )
        adjusted, _, removed = cuped(both, covariate[np.concatenate(arms)])
        a, b = adjusted[: first.size], adjusted[first.size :]
    else:
        a, b = values[first], values[second]
    alpha, better, matters = how.alpha, how.better, how.matters
    counted = (int(a.sum()), int(a.size)), (int(b.sum()), int(b.size))
    if test == "mann-whitney":
        return mann_whitney(a, b, alpha=alpha, better=better, matters=matters), removed
    if test == "proportions":
        if not binary:
            raise ValueError("test proportions is for units that have 0 or 1: choose welch for anything else")
        return proportions(*counted, alpha=alpha, better=better, matters=matters), removed
    if test == "sequential" and binary and covariate is None:
        return rates(*counted, weight, alpha=alpha, better=better, matters=matters), removed
    one, other = Moments.of(a), Moments.of(b)
    if test == "welch":
        return welch(one, other, alpha=alpha, better=better, matters=matters), removed
    error = (
        math.sqrt(one.variance / one.n + other.variance / other.n) if min(one.n, other.n) > 1 else math.nan
    )
    if not error > 0.0:
        raise ValueError("there is no spread to be seen: give at least 2 units in each arm that differ")
    means = (one.mean, one.n), (other.mean, other.n)
    if test == "sequential":
        tuned_for = how.planned or _TUNED_FOR
        return any_look(
            *means, error, tuned_for=tuned_for, alpha=alpha, better=better, matters=matters
        ), removed
    fractions = _fractions(how, one.n + other.n)
    return (
        at_look(*means, error, fractions, alpha=alpha, spending=how.spending, better=better, matters=matters),
        removed,
    )


def _fractions(how: How, now: int) -> list[float]:
    if how.planned is None:
        raise ValueError("a group-sequential test needs the planned number of units: --planned")
    return [*(each / how.planned for each in how.earlier), min(1.0, now / how.planned)]


def _veto(how: How, now: int, split: SampleRatio) -> str | None:
    """Return why nobody may win, whatever the numbers say."""
    if split.broken:
        return "the split is broken"
    if how.test not in _FIXED and how.test != "auto":
        return None
    if how.looks > 1:
        return f"a test for one look was looked at {how.looks} times"
    if how.planned is not None and now < how.planned:
        return f"{now} of {how.planned} planned units are in"
    return None


def _settle(found: Comparison, adjusted_p: float, veto: str | None) -> Comparison:
    if veto is not None:
        return found._replace(winner="undecided", why=veto)
    if found.winner in ("a", "b") and adjusted_p > found.alpha:
        why = f"p = {found.p:.3g} alone, {adjusted_p:.3g} among all that was tested (Holm)"
        return found._replace(winner="undecided", why=why)
    return found


def _remarks(how: How) -> list[str]:
    from scipy.special import ndtri

    if how.test not in _FIXED and how.test != "auto":
        return []
    bar = float(ndtri(1.0 - how.alpha / 2.0))
    looks = how.looks if how.looks > 1 else 5
    evenly = [i / looks for i in range(1, looks + 1)]
    said, is_so = 100 * how.alpha, 100 * crossing(evenly, [bar] * looks)[-1]
    if how.looks > 1:
        remark = (
            f"at {looks} looks this test names a winner where there is none with a chance of {is_so:.0f} %, not "
            f"{said:g} %: choose sequential, or group-sequential where the end is planned"
        )
    elif how.planned is None:
        remark = (
            f"taken as the only look, at a size that was fixed beforehand: at {looks} looks {said:g} % false alarms "
            f"become {is_so:.0f} %; say --planned, or choose sequential"
        )
    else:
        return []
    return [remark]
