"""What another policy would have got, from what this one logged; and when the log cannot tell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from glowsim.stats.experiments.comparison import Better, check_alpha

__all__ = ["Estimate", "Log", "OffPolicy", "always", "off_policy", "uniform"]

Floats = NDArray[np.float64]

_FOLDS = 5
_RIDGE = 1.0
_LARGEST = 0.1
"""Part of all weight that a single row, or unit, may have: beyond it an interval is that row's."""
_OFF = 4.0
"""Standard errors by which the mean weight may miss 1."""


class Log(NamedTuple):
    """What was done and what came of it, a row each."""

    actions: tuple[str, ...]
    """The names of the actions, those that only the other policy takes included."""
    taken: NDArray[np.intp]
    """Which one was taken, shape (n,)."""
    propensities: Floats
    """The probability with which it was taken there, above 0 and up to 1, shape (n,)."""
    rewards: Floats
    features: Floats
    """What was known before the action was taken, shape (n, d); d may be 0."""
    units: NDArray[np.intp] | None = None
    """Which unit a row belongs to, 0 to n - 1; None: each row is one."""


class Estimate(NamedTuple):
    """A mean reward with its interval."""

    value: float
    low: float
    high: float


class OffPolicy(NamedTuple):
    """What a policy would have got by three estimators, how far the log supports it, and the verdict."""

    logged: Estimate
    """What the policy that wrote the log got."""
    ips: Estimate
    """Inverse propensity scores: no bias, much noise."""
    snips: Estimate
    """Self-normalised: less noise, a bias that goes away with more rows."""
    doubly_robust: Estimate
    """Right if the propensities are, sharper the better the rewards can be predicted."""
    gain: Estimate
    """Doubly robust, less what was logged, row by row."""
    effective: float
    """Rows that a log of the policy itself would need to be as sharp."""
    overlap: float
    """Part of the rows in which the policy could have done what was done."""
    mean_weight: float
    """1 where the propensities are right and the policy does nothing that was not done."""
    verdict: Literal["better", "worse", "undecided", "cannot tell"]
    why: str


def always(log: Log, action: str) -> Floats:
    """Return the probabilities of a policy that always takes one action, shape (n, actions)."""
    return np.tile(np.asarray([float(name == action) for name in log.actions]), (log.taken.size, 1))


def uniform(log: Log) -> Floats:
    """Return the probabilities of a policy that takes each action that was ever taken alike often."""
    seen = np.bincount(log.taken, minlength=len(log.actions)) > 0
    return np.tile(seen / seen.sum(), (log.taken.size, 1))


def off_policy(
    log: Log, target: Floats, *, alpha: float = 0.05, better: Better = "higher", within: float = math.inf,
    least: float = 100.0,
) -> OffPolicy:  # fmt: skip
    """Estimate what another policy would have got, or say that the log cannot tell.

    It cannot where the policy takes an action that was never taken; where the mean weight is not 1, since propensities
    are wrong, rows are missing (a failure that nobody rates), or the policy acts where its action could not be taken;
    where fewer than ``least`` effective rows are left or a tenth of the weight is a single row's; and where the
    interval is wider than the question.

    Rewards are predicted for the doubly robust estimate by a ridge regression for each action on the features, in five
    folds, so that no row is predicted by itself. What differs between rows but is not in the features and moved the
    logging policy is in its propensities, or the estimate is biased.

    Parameters
    ----------
    log
        The log.
    target
        With what probability the other policy takes each action in each row, shape (n, actions); rows add up to 1.
    alpha
        One less the confidence of the intervals.
    better
        Which of two rewards is better.
    within
        Half width of the doubly robust interval that the question needs, in the reward's unit.
    least
        Effective rows below which the log cannot tell.

    Raises
    ------
    ValueError
        Shapes that do not fit, propensities that are none, or numbers that are not finite.

    Source: Horvitz & Thompson, 1952; Swaminathan & Joachims, "The self-normalized estimator for counterfactual
    learning", NIPS 2015; Dudik, Langford & Li, "Doubly robust policy evaluation and learning", ICML 2011;
    Chernozhukov et al., "Double/debiased machine learning", 2018, for the folds; Kong, 1992, for the effective rows.

    >>> draws = np.random.default_rng(1)
    >>> taken = (draws.random(4000) < 0.5).astype(np.intp)
    >>> rewards = (draws.random(4000) < 0.3 + 0.2 * taken).astype(float)
    >>> log = Log(("a", "b"), taken, np.full(4000, 0.5), rewards, np.empty((4000, 0)))
    >>> found = off_policy(log, always(log, "b"))
    >>> found.verdict, round(found.effective), abs(found.doubly_robust.value - 0.5) < 0.03
    ('better', 2015, True)
    """
    _check(log, target, alpha)
    n = log.taken.size
    rows = np.arange(n)
    weights = target[rows, log.taken] / log.propensities
    total = float(weights.sum())
    spread = _Spread(log.units, n, alpha)
    logged = spread.around(float(log.rewards.mean()), log.rewards - log.rewards.mean())
    weighted = weights * log.rewards
    ips = spread.around(float(weighted.mean()), weighted - weighted.mean())
    snips_value = float(weighted.sum()) / total if total else math.nan
    snips = spread.around(
        snips_value, weights * (log.rewards - snips_value) * (n / total if total else math.nan)
    )
    predicted = _predict(log)
    robust = (target * predicted).sum(axis=1) + weights * (log.rewards - predicted[rows, log.taken])
    doubly = spread.around(float(robust.mean()), robust - robust.mean())
    gained = robust - log.rewards
    gain = spread.around(float(gained.mean()), gained - gained.mean())
    per_unit: Floats = (
        weights if log.units is None else np.bincount(log.units, weights=weights).astype(np.float64)
    )
    effective = total * total / float(np.square(per_unit).sum()) if total else 0.0
    mean_weight = spread.around(total / n, weights - total / n)
    verdict, why = _judge(
        log, target, per_unit, effective, mean_weight, spread, doubly, gain, within, least, better
    )
    overlap = float(np.mean(weights > 0.0))
    return OffPolicy(logged, ips, snips, doubly, gain, effective, overlap, mean_weight.value, verdict, why)


def _judge(
    log: Log, target: Floats, per_unit: Floats, effective: float, mean_weight: Estimate, spread: _Spread,
    doubly: Estimate, gain: Estimate, within: float, least: float, better: Better,
) -> tuple[Literal["better", "worse", "undecided", "cannot tell"], str]:  # fmt: skip
    counts = np.bincount(log.taken, minlength=len(log.actions))
    never = [
        name
        for name, count, mass in zip(log.actions, counts, target.sum(axis=0), strict=True)
        if mass and not count
    ]
    if never:
        mass = float(target[:, counts == 0].sum()) / log.taken.size
        return (
            "cannot tell",
            f"it takes {', '.join(never)} in {100 * mass:.3g} % of the rows, which the log never did",
        )
    if effective < least:
        return (
            "cannot tell",
            f"the log is worth {effective:.0f} rows of this policy, and {least:.0f} are the least",
        )
    largest = float(per_unit.max()) / float(per_unit.sum())
    if largest > _LARGEST:
        return (
            "cannot tell",
            f"a single {'row' if log.units is None else 'unit'} has {100 * largest:.0f} % of the weight",
        )
    error = (mean_weight.high - mean_weight.value) / spread.z
    if abs(mean_weight.value - 1.0) > _OFF * error + 1e-9:
        return "cannot tell", (
            f"the mean weight is {mean_weight.value:.3g}, not 1: propensities are wrong, rows are missing more often "
            "after one action than another, or it acts where its action could not be taken"
        )
    half = (doubly.high - doubly.low) / 2.0
    if half > within:
        return "cannot tell", f"the interval is {half:.3g} to each side, and the question needs {within:g}"
    if gain.low <= 0.0 <= gain.high:
        return "undecided", f"the gain over the log may be anything from {gain.low:.4g} to {gain.high:.4g}"
    gains = (gain.value > 0.0) == (better == "higher")
    return (
        "better" if gains else "worse",
        f"the gain over the log is between {gain.low:.4g} and {gain.high:.4g}",
    )


class _Spread:
    """Turns the influence of rows into intervals; rows of one unit move together."""

    def __init__(self, units: NDArray[np.intp] | None, n: int, alpha: float) -> None:
        from scipy.special import stdtrit

        self._units = units
        self._n = n
        self._many = n if units is None else int(units.max()) + 1
        self.z = float(stdtrit(self._many - 1, 1.0 - alpha / 2.0)) if self._many > 1 else math.inf

    def around(self, value: float, influence: Floats) -> Estimate:
        of_unit = influence if self._units is None else np.bincount(self._units, weights=influence)
        correction = self._many / (self._many - 1) if self._many > 1 else math.inf
        error = math.sqrt(float(np.square(of_unit).sum()) * correction) / self._n
        return Estimate(value, value - self.z * error, value + self.z * error)


def _predict(log: Log) -> Floats:
    """Return the predicted reward of each action in each row, by rows of other folds."""
    n, folds = log.taken.size, np.arange(log.taken.size) % _FOLDS
    if log.units is not None:
        folds = log.units % _FOLDS
    features = _standard(log.features)
    predicted = np.empty((n, len(log.actions)))
    for fold in range(_FOLDS):
        held, rest = folds == fold, folds != fold
        rest_mean = float(log.rewards[rest].mean()) if rest.any() else 0.0
        for action in range(len(log.actions)):
            used = rest & (log.taken == action)
            if not used.any():
                predicted[held, action] = rest_mean
                continue
            x, y = features[used], log.rewards[used]
            centre, mean = x.mean(axis=0), float(y.mean())
            x = x - centre
            slopes = np.linalg.solve(x.T @ x + _RIDGE * np.eye(x.shape[1]), x.T @ (y - mean))
            predicted[held, action] = mean + (features[held] - centre) @ slopes
    return predicted


def _standard(features: Floats) -> Floats:
    spread = features.std(axis=0)
    return np.asarray((features - features.mean(axis=0)) / np.where(spread > 0.0, spread, 1.0))


def _check(log: Log, target: Floats, alpha: float) -> None:
    check_alpha(alpha)
    n = log.taken.size
    shapes: Sequence[tuple[int, ...]] = (log.propensities.shape, log.rewards.shape)
    if n < 2 or any(shape != (n,) for shape in shapes) or log.features.shape[:1] != (n,):
        raise ValueError(
            f"{n} actions, propensities and rewards {list(shapes)}: give one of each a row, 2 rows or more"
        )
    if (
        target.shape != (n, len(log.actions))
        or not np.allclose(target.sum(axis=1), 1.0)
        or target.min() < 0.0
    ):
        raise ValueError(
            f"a policy of shape {target.shape}: give a probability of each action for each row, 1 in all"
        )
    wrong = np.flatnonzero(~((log.propensities > 0.0) & (log.propensities <= 1.0)))
    if wrong.size:
        raise ValueError(
            f"row {int(wrong[0])} has the propensity {log.propensities[wrong[0]]:g}: what was done had a probability "
            "above 0 and up to 1"
        )
    if not (np.all(np.isfinite(log.rewards)) and np.all(np.isfinite(log.features))):
        raise ValueError("a reward or feature is not finite: leave its row out, or find the cause")
