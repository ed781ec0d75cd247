"""A service level is met, not met, or undecided: the interval says which."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from glowsim.stats.intervals import Interval, t_interval, wilson

__all__ = ["Verdict", "judge", "judge_proportion", "overall"]

Answer = Literal["met", "not met", "undecided"]


class Verdict(NamedTuple):
    """What a service level came to: the estimate, its interval, the answer, and one line that says why.

    >>> judge([1.0, 1.2, 1.1], high=2.0).verdict
    'met'
    """

    value: float
    low: float
    high: float
    verdict: Answer
    why: str


def judge(
    values: ArrayLike,
    *,
    low: float | None = None,
    high: float | None = None,
    confidence: float = 0.95,
    deterministic: bool = False,
) -> Verdict:
    """Decide whether the mean over replications lies within its bounds.

    ``values`` holds one number per replication, shape (n,), n >= 1; NaN where the metric does not exist, such
    as a latency when nothing finished. ``low`` and ``high`` are the bounds, either or both, themselves
    allowed. Met: the whole t interval is within. Not met: the whole of it is beyond one bound. Otherwise, or
    where a value is missing, undecided. One replication is undecided unless ``deterministic`` says that no
    randomness is left, and then equal values are taken as exact.

    At a true mean exactly on a bound, each wrong answer has a chance of (1 - ``confidence``) / 2 at most
    where replications are about normal. Averages and percentiles of many requests are; shares of rare
    failures are not, and have ``judge_proportion``.

    Raises ``ValueError`` without a bound, with bounds crossed, for an infinite value, and for replications
    that differ though ``deterministic``.

    >>> judge([1.85, 1.95, 1.9], high=2.0).why
    'the 95 % interval [1.77579, 2.02421] contains the bound 2'
    >>> judge([1.9], high=2.0).verdict, judge([1.9], high=2.0, deterministic=True).verdict
    ('undecided', 'met')

    Source: the duality of two-sided intervals and tests, Lehmann and Romano, Testing Statistical Hypotheses,
    section 3.5.
    """
    _check_bounds(low, high)
    sample = np.asarray(values, dtype=np.float64)
    missing = int(np.isnan(sample).sum())
    if missing:
        return _unknown(f"{missing} of {sample.size} replications have no value")
    if deterministic:
        return _decide(_exact(sample), low, high, "the exact value")
    interval = t_interval(sample, confidence)
    if interval.n == 1:
        return _single(interval.mean)
    return _decide(interval, low, high, _name(confidence))


def judge_proportion(
    successes: Sequence[int],
    trials: Sequence[int],
    *,
    low: float | None = None,
    high: float | None = None,
    confidence: float = 0.95,
    deterministic: bool = False,
) -> Verdict:
    """Decide whether a share, such as the success rate, lies within its bounds.

    ``successes[i]`` of ``trials[i]`` count in replication i. The value is the pooled share. Its interval
    spans two, and so errs on the side of undecided: the t interval over replications, which sees that
    failures come together (an outage takes a whole run), and the Wilson interval of the pooled counts, which
    knows that few failures, or none, prove little. Five runs without a failure give a t interval of no width;
    with one failure a run it alone was measured to say "met", for a share exactly at the bound, 4 to 7 times
    in a hundred where 2.5 are promised. The span of both stayed below 2.5 %. Failures that come together and
    were never seen remain invisible to it.

    Parameters, bounds and answers are otherwise those of ``judge``; a replication without trials leaves it
    undecided. Raises ``ValueError`` also for counts that do not match or are impossible.

    >>> judge_proportion([100] * 5, [100] * 5, low=0.999).why
    'the 95 % interval [0.992376, 1] contains the bound 0.999'
    >>> judge_proportion([1000] * 5, [1000] * 5, low=0.999).verdict
    'met'

    Source: Brown, Cai, DasGupta (2001), Statistical Science 16; for zero failures Hanley and Lippman-Hand
    (1983), J. Am. Med. Assoc. 249.
    """
    _check_bounds(low, high)
    if len(successes) != len(trials) or not trials:
        raise ValueError(
            f"judge_proportion: {len(successes)} counts of successes, {len(trials)} of trials; "
            "give one of each per replication, at least one"
        )
    for i, (good, of) in enumerate(zip(successes, trials, strict=True)):
        if not 0 <= good <= of:
            raise ValueError(f"judge_proportion: replication {i} has {good} successes in {of} trials")
    empty = sum(of == 0 for of in trials)
    if empty:
        return _unknown(f"{empty} of {len(trials)} replications have no trials")
    shares = [good / of for good, of in zip(successes, trials, strict=True)]
    if deterministic:
        return _decide(_exact(shares), low, high, "the exact value")
    over_runs = t_interval(shares, confidence)
    pooled = wilson(sum(successes), sum(trials), confidence)
    if over_runs.n == 1:
        return _single(pooled.mean)
    span = Interval(
        pooled.mean,
        max(0.0, min(over_runs.low, pooled.low)),
        min(1.0, max(over_runs.high, pooled.high)),
        over_runs.n,
    )
    return _decide(span, low, high, _name(confidence))


def overall(verdicts: Iterable[Verdict]) -> int:
    """Give the exit code of a run: 0 all met (or none asked for), 1 any not met, 3 otherwise undecided.

    Each verdict keeps its own confidence; among k of them the chance that at least one is wrong is up to
    k times as large.

    >>> overall([judge([1.0, 1.1], high=5.0), judge([1.0], high=5.0)])
    3
    """
    answers = {verdict.verdict for verdict in verdicts}
    if "not met" in answers:
        return 1
    return 3 if "undecided" in answers else 0


def _decide(interval: Interval, low: float | None, high: float | None, name: str) -> Verdict:
    floor = -math.inf if low is None else low
    ceiling = math.inf if high is None else high
    ends = f"[{interval.low:.6g}, {interval.high:.6g}]" if interval.half_width else f"{interval.mean:.6g}"
    answer: Answer = "undecided"
    if interval.high < floor:
        answer, where = "not met", f"lies below {floor:.6g}"
    elif interval.low > ceiling:
        answer, where = "not met", f"lies above {ceiling:.6g}"
    elif interval.low < floor:
        where = f"contains the bound {floor:.6g}"
    elif interval.high > ceiling:
        where = f"contains the bound {ceiling:.6g}"
    else:
        limits = [f"at least {low:.6g}"] if low is not None else []
        limits += [f"at most {high:.6g}"] if high is not None else []
        answer, where = "met", f"is {' and '.join(limits)}"
    return Verdict(interval.mean, interval.low, interval.high, answer, f"{name} {ends} {where}")


def _single(value: float) -> Verdict:
    why = "one replication has no interval; run at least 2"
    return Verdict(value, -math.inf, math.inf, "undecided", why)


def _unknown(why: str) -> Verdict:
    return Verdict(math.nan, -math.inf, math.inf, "undecided", why)


def _exact(values: ArrayLike) -> Interval:
    exact = t_interval(values)
    if exact.n > 1 and exact.half_width > 0.0:
        raise ValueError("deterministic=True, but the replications differ; leave it out, or fix what varies")
    return Interval(exact.mean, exact.mean, exact.mean, exact.n)


def _name(confidence: float) -> str:
    return f"the {100.0 * confidence:.4g} % interval"


def _check_bounds(low: float | None, high: float | None) -> None:
    given = [bound for bound in (low, high) if bound is not None]
    if not given or any(math.isnan(bound) for bound in given) or given != sorted(given):
        raise ValueError(f"bounds low={low}, high={high}; give at least one, and low <= high")
