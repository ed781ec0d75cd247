"""What calibration found, in words and as JSON."""

from __future__ import annotations

from math import isfinite
from typing import Any, NamedTuple

from glowsim.oc.drift.calibrate import At, Calibrated, Delay
from glowsim.oc.drift.regimes import Regime
from glowsim.stats.intervals import Interval

__all__ = ["Found", "answer", "as_json", "cells", "text"]


class Found(NamedTuple):
    """Detectors at the thresholds that keep a run length."""

    detectors: tuple[Calibrated, ...]
    chance: tuple[Delay, ...]
    """Delays of the detector that alarms at random."""
    regimes: tuple[Regime, ...]
    """In which they were calibrated, the plain one first."""
    budget: float
    """Values between false alarms."""
    streams: int
    """In each regime."""
    seed: int

    @property
    def kept(self) -> bool:
        """Whether every detector has a threshold that keeps the budget in the plain regime."""
        return all(each.plain is not None for each in self.detectors)

    @property
    def titles(self) -> tuple[str, ...]:
        """What each table is of: the plain regime, and all of them if there are others."""
        plain = f"{self.regimes[0].name}: a false alarm once in {self.budget:,.0f} values or more rarely"
        return (plain, "the same also where the mean moves though nothing is wrong: (2) and on")[
            : len(self.regimes)
        ]

    @property
    def legend(self) -> str:
        """How the tables are read."""
        return (
            "Run length: mean values to an alarm, and the interval of 95 %; >: no alarm was seen. Delay: values from "
            f"the change to the alarm, median / 95th percentile of {self.streams} streams; in brackets the share that "
            "was not told within 10,000 values."
        )


def text(found: Found) -> str:
    """Return what is printed: the answer, and a table for the plain regime and one for all of them."""
    lines = [answer(found)]
    for place, title in enumerate(found.titles):
        rows = cells(found, everywhere=place == 1)
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines += ["", title]
        lines += [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
    lines += ["", *(f"({i}) {each.name}" for i, each in enumerate(found.regimes, 1)), found.legend]
    return "\n".join(lines)


def answer(found: Found) -> str:
    """Return what is said first: who is the first to tell the first shift, and who cannot keep the budget."""
    told = [(each.plain.delays[0].median, each) for each in found.detectors if each.plain is not None]
    if not told:
        return f"no detector keeps a run length of {found.budget:,.0f} values in {found.regimes[0].name}"
    median, best = min(told, key=lambda one: one[0])
    assert best.plain is not None
    shift = best.plain.delays[0].shift
    first = (
        f"{best.name} with {best.parameter} {best.plain.setting:.4g} is the first to tell a change of {shift:+.3g}: "
        f"after {_count(median)} values at the median"
    )
    lost = [each.name for each in found.detectors if each.everywhere is None]
    if lost:
        first += (
            f"\nno threshold keeps the budget where the mean moves though nothing is wrong: {', '.join(lost)}"
        )
    return first


def cells(found: Found, *, everywhere: bool) -> list[list[str]]:
    """Return the table of the plain regime, or of all of them: headings, a row for each detector, chance."""
    regimes, chance = found.regimes, found.chance
    heads = ["detector", "setting", *(f"run length ({i})" for i in range(1, len(regimes) + 1))]
    heads += [f"delay at {each.shift:+.3g}" for each in chance]
    rows = [heads]
    for each in found.detectors:
        at = each.everywhere if everywhere else each.plain
        if at is None:
            rows.append([each.name, f"no {each.parameter}", *[""] * (len(heads) - 2)])
            continue
        lengths, delays = map(_length, at.run_lengths), map(_delay, at.delays)
        rows.append([each.name, f"{each.parameter} {at.setting:.4g}", *lengths, *delays])
    rows.append(["at random", "", *[""] * len(regimes), *map(_delay, chance)])
    return rows


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


def as_json(found: Found) -> dict[str, Any]:
    """Return the same as plain data; what is infinite is null."""
    return {
        "run_length": found.budget,
        "streams": found.streams,
        "seed": found.seed,
        "kept": found.kept,
        "regimes": [{"name": each.name, "must_not_alarm": each.must_not_alarm} for each in found.regimes],
        "detectors": [
            {
                "name": each.name,
                "parameter": each.parameter,
                "plain": _at(each.plain),
                "everywhere": _at(each.everywhere),
            }
            for each in found.detectors
        ],
        "at_random": [_plain(each) for each in found.chance],
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
