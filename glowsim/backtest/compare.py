"""Modelled against recorded: cost, latency, errors and tokens, by model and in all, each with its verdict."""

from __future__ import annotations

from collections.abc import Sequence
from math import fsum, hypot, inf, isfinite
from typing import Final, NamedTuple

import numpy as np

from glowsim.backtest.differences import Difference
from glowsim.backtest.modelled import Calls, Replayed
from glowsim.backtest.split import LEAST_JUDGED
from glowsim.importing.part import answered, column
from glowsim.stats.intervals import Interval, t_interval, wilson
from glowsim.summary import shown
from glowsim.traces.log import Log

__all__ = ["ALL", "FIGURES", "OFF", "WITHIN", "BY_CHANCE", "Line", "compare", "recorded_calls"]

ALL: Final = "all models"
TOLERANCE: Final = 0.01
WITHIN, BY_CHANCE, OFF = "within 1 %", "by chance", "off"
FIGURES: Final = {
    "cost_usd": "money", "requests": "count", "error_share": "fraction", "tokens_in": "count", "tokens_out": "count",
    "latency_s_p50": "duration", "latency_s_p95": "duration", "first_token_s_p50": "duration",
    "first_token_s_p95": "duration",
}  # fmt: skip
"""Figure -> what kind of quantity it is."""
_NAMED: Final = 4
"""Differences of the cost that a verdict names, and the share of it below which they are not worth it."""
_SMALL: Final = 1e-3
_OF_ALL_CALLS: Final = ("requests", "error_share")
"""Figures of all calls; the others are of answers."""


class Line(NamedTuple):
    """A figure of a model, or of all, recorded and modelled."""

    model: str
    figure: str
    recorded: Interval
    """Its interval is of the law behind the rows: a quantile of few is not known well."""
    modelled: Interval
    """Its interval is over the replications."""
    off: float
    """Modelled over recorded, less 1; of a share of errors the difference."""
    word: str
    """``within 1 %``, ``by chance`` (no more than both parts' figures and the model's are uncertain by), or ``off``."""
    because: str

    @property
    def verdict(self) -> str:
        """The verdict in words."""
        if self.word == WITHIN:
            return WITHIN
        unit = " points" if self.figure == "error_share" else " %"
        size = f"{100 * abs(self.off):.3g}{unit}" if isfinite(self.off) else "no matter how much"
        return f"off by {size}: {self.because}"


def recorded_calls(log: Log, model: np.ndarray) -> Calls:
    """Return a log's rows as calls; ``model`` is each one's place among the scenario's models."""
    return Calls(
        model, answered(log), column(log, "latency_s"), column(log, "first_token_s"), column(log, "tokens_in"),
        column(log, "tokens_out"), column(log, "cost_usd"),
    )  # fmt: skip


def compare(
    recorded: Calls, before: Calls, replayed: Replayed, found: Sequence[Difference], *, statuses: bool
) -> list[Line]:
    """Return the figures of all models together, then of each model that was replayed.

    A figure is left out where the log does not have it, or fewer than 20 answers do.

    Parameters
    ----------
    recorded
        The judged part.
    before
        The fitted part: it says whether the recorded figures moved.
    replayed
        The judged part as modelled.
    found
        The differences of the cost.
    statuses
        Whether the log says which calls failed.
    """
    lines = []
    for place, model in ((None, ALL), *enumerate(replayed.models)):
        then, now = _of(before, place), _of(recorded, place)
        mine = [each for each in found if model in (ALL, each.model)]
        for figure in FIGURES:
            truth = _recorded(now, figure)
            if truth is None or (figure == "error_share" and not statuses):
                continue
            source = replayed.calls if figure in _OF_ALL_CALLS else replayed.answers
            runs = [_of(calls, place) for calls in source]
            if not len(runs[0].answered):
                continue
            modelled = t_interval([_value(run, figure) for run in runs])
            fewer = len(now.answered) - len(runs[0].answered)
            lines.append(_line(model, figure, truth, modelled, _recorded(then, figure), mine, fewer))
    return lines


def _line(
    model: str, figure: str, truth: Interval, modelled: Interval, before: Interval | None, found: Sequence[Difference],
    fewer: int,
) -> Line:  # fmt: skip
    off = _off(figure, modelled.mean, truth.mean)
    if abs(off) <= TOLERANCE:
        return Line(model, figure, truth, modelled, off, WITHIN, "")
    low, high = _chance(truth, before, modelled)
    if low < high and low <= modelled.mean <= high:
        kind = FIGURES[figure]
        because = f"so few calls tell no more than {shown(low, kind)} to {shown(high, kind)}"
        return Line(model, figure, truth, modelled, off, BY_CHANCE, because)
    because = _because(figure, truth, modelled, before, off, found, fewer)
    return Line(model, figure, truth, modelled, off, OFF, because)


def _chance(truth: Interval, before: Interval | None, modelled: Interval) -> tuple[float, float]:
    """Return the recorded interval, widened by what else is uncertain: the fitted part's figure, and the model's."""
    if before is None or truth.low == truth.high:
        return truth.low, truth.high
    low = hypot(truth.mean - truth.low, before.high - before.mean, modelled.half_width)
    high = hypot(truth.high - truth.mean, before.mean - before.low, modelled.half_width)
    return max(truth.mean - low, 0.0), truth.mean + high


def _because(
    figure: str, truth: Interval, modelled: Interval, before: Interval | None, off: float, found: Sequence[Difference],
    fewer: int,
) -> str:  # fmt: skip
    if figure == "cost_usd":
        by_name: dict[str, list[Difference]] = {}
        for each in found:
            by_name.setdefault(each.name, []).append(each)
        sums = {name: fsum(each.usd for each in ones) for name, ones in by_name.items()}
        large = sorted(sums.items(), key=lambda one: -abs(one[1]))[:_NAMED]
        parts = [
            f"{name} ({_usd(usd)}, {', '.join(dict.fromkeys(each.model for each in by_name[name]))})"
            for name, usd in large
            if abs(usd) > _SMALL * truth.mean
        ]
        return "; ".join(parts) or "many small differences"
    if figure in ("requests", "tokens_in", "tokens_out"):
        return f"{fewer} calls cannot be replayed: their agents or models are new, or they have no tokens"
    if before is None:
        return "the fitted part does not have it"
    kind = FIGURES[figure]
    if abs(_off(figure, modelled.mean, before.mean)) <= abs(off) / 2:
        was, became = shown(before.mean, kind), shown(truth.mean, kind)
        return f"the log moved: {was} in the fitted part, {became} in the judged one"
    return (
        f"the fitted law does not give it, and recorded it was {shown(before.mean, kind)} in the fitted part"
    )


def _off(figure: str, modelled: float, recorded: float) -> float:
    if figure == "error_share":
        return modelled - recorded
    if recorded == 0.0:
        return 0.0 if modelled == 0.0 else inf
    return modelled / recorded - 1.0


def _of(calls: Calls, model: int | None) -> Calls:
    return calls if model is None else Calls(*(values[calls.model == model] for values in calls))


def _value(calls: Calls, figure: str) -> float:
    answers = calls.answered
    match figure:
        case "requests":
            return float(len(answers))
        case "error_share":
            return float(1.0 - answers.mean())
        case "cost_usd":
            return float(np.nansum(calls.cost_usd))
        case "tokens_in" | "tokens_out":
            return float(np.nansum(getattr(calls, figure)[answers]))
    name, _, quantile = figure.rpartition("_p")
    values = getattr(calls, name)[answers]
    values = values[np.isfinite(values)]
    return float(np.quantile(values, int(quantile) / 100)) if len(values) else float("nan")


def _recorded(calls: Calls, figure: str) -> Interval | None:
    """Return a recorded figure; None where the log does not have it."""
    n = len(calls.answered)
    if not n:
        return None
    if figure == "error_share":
        return wilson(int((~calls.answered).sum()), n)
    if figure == "cost_usd" and not np.isfinite(calls.cost_usd).any():
        return None
    if "_p" not in figure:
        value = _value(calls, figure)
        return Interval(value, value, value, n)
    name, _, quantile = figure.rpartition("_p")
    values = getattr(calls, name)[calls.answered]
    values = np.sort(values[np.isfinite(values)])
    if len(values) < LEAST_JUDGED:
        return None
    q = int(quantile) / 100
    return _order_statistics(values, q)


def _order_statistics(values: np.ndarray, q: float) -> Interval:
    """Return a quantile with the 95 % interval that order statistics give it, whatever the law."""
    from scipy.stats import binom

    n = len(values)
    low, high = (int(rank) for rank in binom.ppf((0.025, 0.975), n, q))
    ends = float(values[max(low - 1, 0)]), float(values[min(high, n - 1)])
    return Interval(float(np.quantile(values, q)), *ends, n)


def _usd(value: float) -> str:
    return f"{'-' if value < 0 else '+'}${abs(value):.4g}"
