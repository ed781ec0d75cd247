"""What calibration found, in words and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any

from glowsim.oc.drift.calibrate import At, Calibrated, Delay
from glowsim.oc.drift.regimes import Regime
from glowsim.stats.intervals import Interval

__all__ = ["as_json", "text"]


def text(
    found: Sequence[Calibrated],
    chance: Sequence[Delay],
    regimes: Sequence[Regime],
    budget: float,
    streams: int,
) -> str:
    """Return what is printed: the answer, and a table for the plain regime and one for all of them.

    Parameters
    ----------
    found
        At least one detector.
    chance
        Delays of the detector that alarms at random.
    regimes
        In which they were calibrated, the plain one first.
    budget
        Values between false alarms.
    streams
        In each regime.
    """
    plain, *others = regimes
    lines = [_answer(found, budget, plain), ""]
    lines += _table(f"{plain.name}: a false alarm once in {budget:,.0f} values or more rarely", [
        (each.name, each.parameter, each.plain) for each in found
    ], chance, regimes)  # fmt: skip
    if others:
        lines += ["", *_table("the same also where the mean moves though nothing is wrong: (2) and on", [
            (each.name, each.parameter, each.everywhere) for each in found
        ], chance, regimes)]  # fmt: skip
    lines += ["", *(f"({i}) {each.name}" for i, each in enumerate(regimes, 1))]
    lines.append("run length: mean values to an alarm, and the interval of 95 %; >: no alarm was seen")
    lines.append(
        f"delay: values from the change to the alarm, median / 95th percentile of {streams} streams; in brackets the "
        "share that was not told within 10,000 values"
    )
    return "\n".join(lines)


def _answer(found: Sequence[Calibrated], budget: float, plain: Regime) -> str:
    told = [(each.plain.delays[0].median, each) for each in found if each.plain is not None]
    if not told:
        return f"no detector keeps a run length of {budget:,.0f} values in {plain.name}"
    median, best = min(told, key=lambda one: one[0])
    assert best.plain is not None
    shift = best.plain.delays[0].shift
    lost = [each.name for each in found if each.everywhere is None]
    answer = (
        f"{best.name} with {best.parameter} {best.plain.setting:.4g} is the first to tell a change of {shift:+.3g}: "
        f"after {_count(median)} values at the median"
    )
    if lost:
        answer += (
            f"\nno threshold keeps the budget where the mean moves though nothing is wrong: {', '.join(lost)}"
        )
    return answer


def _table(
    title: str, rows: Sequence[tuple[str, str, At | None]], chance: Sequence[Delay], regimes: Sequence[Regime]
) -> list[str]:
    heads = ["detector", "setting", *(f"run length ({i})" for i in range(1, len(regimes) + 1))]
    heads += [f"delay at {each.shift:+.3g}" for each in chance]
    cells = [heads]
    for name, parameter, at in rows:
        if at is None:
            cells.append([name, f"no {parameter}", *[""] * (len(heads) - 2)])
            continue
        cells.append([
            name, f"{parameter} {at.setting:.4g}", *map(_length, at.run_lengths), *map(_delay, at.delays),
        ])  # fmt: skip
    cells.append(["at random", "", *[""] * len(regimes), *map(_delay, chance)])
    widths = [max(len(row[i]) for row in cells) for i in range(len(heads))]
    return [
        title,
        *("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells),
    ]


def _length(length: Interval) -> str:
    if not isfinite(length.mean):
        return f"> {_short(length.low)}"
    return f"{_short(length.mean)} ({_short(length.low)}..{_short(length.high)})"


def _short(values: float) -> str:
    """Return a run length as it is read: 812, 51k, 2.1M."""
    if values < 9995.0:
        return f"{values:,.0f}"
    return f"{values / 1e3:,.0f}k" if values < 999_500.0 else f"{values / 1e6:,.1f}M"


def _delay(delay: Delay) -> str:
    missed = f" ({delay.missed.mean:.0%})" if delay.missed.mean > 0.0 else ""
    return f"{_count(delay.median)} / {_count(delay.p95)}{missed}"


def _count(values: float) -> str:
    return f"{values:,.0f}" if isfinite(values) else "never"


def as_json(
    found: Sequence[Calibrated], chance: Sequence[Delay], regimes: Sequence[Regime], budget: float, streams: int,
    seed: int,
) -> dict[str, Any]:  # fmt: skip
    """Return the same as plain data; what is infinite is null."""
    return {
        "run_length": budget,
        "streams": streams,
        "seed": seed,
        "regimes": [{"name": each.name, "must_not_alarm": each.must_not_alarm} for each in regimes],
        "detectors": [
            {
                "name": each.name,
                "parameter": each.parameter,
                "plain": _at(each.plain),
                "everywhere": _at(each.everywhere),
            }
            for each in found
        ],
        "at_random": [_plain(each) for each in chance],
    }


def _at(at: At | None) -> dict[str, Any] | None:
    if at is None:
        return None
    return {
        "setting": at.setting,
        "run_lengths": [_interval(each) for each in at.run_lengths],
        "delays": [_plain(each) for each in at.delays],
    }


def _plain(delay: Delay) -> dict[str, Any]:
    return {
        "shift": delay.shift,
        "median": _finite(delay.median),
        "p95": _finite(delay.p95),
        "missed": _interval(delay.missed),
    }


def _interval(interval: Interval) -> dict[str, Any]:
    return {
        "mean": _finite(interval.mean),
        "low": _finite(interval.low),
        "high": _finite(interval.high),
        "n": interval.n,
    }


def _finite(value: float) -> float | None:
    return value if isfinite(value) else None
