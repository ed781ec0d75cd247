"""Numbers as a person reads them: a fitting unit, and no more digits than the interval supports."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

__all__ = ["DASH", "NO_SPREAD", "Rounded", "Scale", "exact", "plain", "rounded", "scale_of"]

DASH: Final = "\u2013"
"""What stands for a figure that does not exist."""

NO_SPREAD: Final = "no spread"
"""What stands for the interval of a figure that is the same in all replications."""

_MOST_DECIMALS: Final = 9


class Scale(NamedTuple):
    """A unit to write in: its size in the base unit, and what stands before and after the number."""

    factor: float
    before: str
    after: str

    def write(self, value: float, decimals: int) -> str:
        """Return a value, given in the base unit, with so many decimals; negative: rounded to tens.

        >>> Scale(1e-3, "", " ms").write(0.32, 0)
        '320 ms'
        """
        return f"{self.before}{self.number(value, decimals)}{self.after}"

    def number(self, value: float, decimals: int) -> str:
        """Return the number alone, as ``write`` rounds it.

        >>> Scale(1.0, "", "").number(10_127, -1)
        '10,130'
        """
        scaled = round(value / self.factor, decimals) + 0.0
        return f"{scaled:,.{max(decimals, 0)}f}"


class Rounded(NamedTuple):
    """A figure and its interval as text; a dash for what does not exist."""

    value: str
    span: str


_DURATIONS: Final = (
    (172_800.0, Scale(86_400.0, "", " d")),
    (7_200.0, Scale(3_600.0, "", " h")),
    (120.0, Scale(60.0, "", " min")),
    (1.0, Scale(1.0, "", " s")),
    (1e-3, Scale(1e-3, "", " ms")),
    (0.0, Scale(1e-6, "", " µs")),
)
_RATES: Final = (
    (1.0, Scale(1.0, "", "/s")),
    (1 / 60, Scale(1 / 60, "", "/min")),
    (1 / 3600, Scale(1 / 3600, "", "/h")),
    (0.0, Scale(1 / 86_400, "", "/d")),
)
_FIXED: Final = {
    "fraction": Scale(0.01, "", " %"),
    "money": Scale(1.0, "$", ""),
    "count": Scale(1.0, "", ""),
}


def scale_of(unit: str, value: float) -> Scale:
    """Return the unit in which values about as large as this one are written.

    Parameters
    ----------
    unit
        duration, rate, fraction, money or count: the words of ``glowsim.scenario.METRICS``.
    value
        In the base unit.

    Raises
    ------
    KeyError
        Not one of these units.

    >>> scale_of("duration", 0.32).after, scale_of("rate", 0.5).after, scale_of("duration", 7 * 86_400).after
    (' ms', '/min', ' d')
    """
    if unit not in ("duration", "rate"):
        return _FIXED[unit]
    steps = _DURATIONS if unit == "duration" else _RATES
    if value == 0:
        return next(scale for _, scale in steps if scale.factor == 1.0)
    return next(scale for least, scale in steps if abs(value) >= least)


def exact(value: float | None, unit: str) -> str:
    """Return a number that somebody wrote, such as a target: all its digits, up to six.

    >>> exact(2.0, "duration"), exact(0.998, "fraction"), exact(0.01, "money")
    ('2 s', '99.8 %', '$0.01')
    """
    if value is None:
        return DASH
    scale = scale_of(unit, value)
    scaled = value / scale.factor
    decimals = next(d for d in range(13) if math.isclose(round(scaled, d), scaled, rel_tol=5e-7) or d == 12)
    return scale.write(value, decimals)


def plain(value: float | None, unit: str) -> str:
    """Return a number that has no interval: three significant digits, counts in full.

    A share keeps two digits of its distance from 0 or 1, so that 99.87 % does not become 100 %.

    >>> [plain(1.8537, "duration"), plain(0.3204, "duration"), plain(0.998691, "fraction")]
    ['1.85 s', '320 ms', '99.87 %']
    >>> plain(0.000521, "money"), plain(10_127, "count"), plain(22.74, "money")
    ('$0.000521', '10,127', '$22.74')
    """
    if value is None or math.isnan(value):
        return DASH
    scale = scale_of(unit, value)
    return scale.write(value, _decimals_without_interval(value, unit, scale))


def rounded(
    value: float | None, low: float | None, high: float | None, unit: str, targets: Sequence[float] = ()
) -> Rounded:
    """Return a figure and its interval, rounded to what half the interval's width supports.

    One digit of the half-width is kept, or two where it begins with 1 or 2. Rounding never moves a number
    across a target. A quantity that cannot be negative, or a share above one, is not shown as such.

    Parameters
    ----------
    value, low, high
        In the base unit; None or NaN where there is none.
    unit
        As in ``scale_of``.
    targets
        Numbers that the reader compares with.

    >>> rounded(1.85371, 1.8171, 1.8903, "duration")
    Rounded(value='1.85 s', span='1.82 to 1.89 s')
    >>> rounded(0.0009165, 0.0009014, 0.0009316, "money").span
    '$0.000901 to $0.000932'
    >>> rounded(1.9982, 1.9781, 2.0183, "duration", [2.0]).value
    '1.998 s'
    >>> rounded(3.0, None, None, "count").value
    '3'
    """
    if value is None or math.isnan(value):
        return Rounded(DASH, DASH)
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return Rounded(plain(value, unit), DASH)
    low, high = max(low, 0.0), min(high, 1.0) if unit == "fraction" else high
    scale = scale_of(unit, value)
    half_width = (high - low) / 2 / scale.factor
    if half_width <= 1e-12 * abs(value / scale.factor):
        text = scale.write(value, _decimals_without_interval(value, unit, scale))
        return Rounded(text, NO_SPREAD)
    decimals = _pennies(_decimals_of(half_width), unit)
    numbers = (value, low, high)
    while decimals < _MOST_DECIMALS and not all(
        _same_side(number, target, scale, decimals) for number in numbers for target in targets
    ):
        decimals += 1

    def kept(number: float) -> int:  # none and all are exact: 0 %, 100 %
        return 0 if number == 0 or (unit == "fraction" and number == 1) else decimals

    first = scale.before + scale.number(low, kept(low))
    return Rounded(scale.write(value, kept(value)), f"{first} to {scale.write(high, kept(high))}")


def _decimals_of(half_width: float) -> int:
    place = math.floor(math.log10(half_width))
    return min((1 if half_width < 3 * 10.0**place else 0) - place, _MOST_DECIMALS)


def _decimals_without_interval(value: float, unit: str, scale: Scale) -> int:
    if value == 0 or (unit == "fraction" and value == 1):
        return 0
    if unit == "fraction":
        distance = round(100 * min(value, abs(1 - value)), 12)
        return min(max(1 - math.floor(math.log10(distance)), 1), 6)
    significant = 3 - 1 - math.floor(math.log10(abs(value / scale.factor)))
    if unit == "count":
        return 0 if float(value).is_integer() else min(max(significant, 1), _MOST_DECIMALS)
    return _pennies(min(max(significant, 0), _MOST_DECIMALS), unit)


def _pennies(decimals: int, unit: str) -> int:
    return 2 if unit == "money" and decimals == 1 else decimals


def _same_side(number: float, target: float, scale: Scale, decimals: int) -> bool:
    shown, wanted = (
        round(number / scale.factor, decimals),
        round(target / scale.factor, _MOST_DECIMALS),
    )
    return (shown > wanted) == (number > target) and (shown < wanted) == (number < target)
