import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowsim.report.numbers import DASH, NO_SPREAD, exact, plain, rounded, scale_of

UNITS = st.sampled_from(["duration", "rate", "fraction", "money", "count"])
POSITIVE = st.floats(1e-6, 1e6)


def number_in(text: str, unit: str, like: float) -> float:
    """Read a shown number back, in the base unit, given a value of its size."""
    scale = scale_of(unit, like)
    assert text.startswith(scale.before), text
    assert text.endswith(scale.after), text
    return float(re.sub(r"[^0-9.]", "", text)) * scale.factor


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (1.8537, "duration", "1.85 s"),
        (0.3204, "duration", "320 ms"),
        (0.00004, "duration", "40.0 µs"),
        (150.0, "duration", "2.50 min"),
        (0.998691, "fraction", "99.87 %"),
        (0.9999, "fraction", "99.990 %"),
        (1.0, "fraction", "100 %"),
        (0.163, "fraction", "16.3 %"),
        (0.000521, "money", "$0.000521"),
        (12.345, "money", "$12.35"),
        (1234.5, "money", "$1,234"),
        (10127, "count", "10,127"),
        (166.8, "rate", "167/s"),
        (31 / 86400, "rate", "1.29/h"),
        (0.0, "duration", "0 s"),
        (None, "duration", DASH),
        (math.nan, "count", DASH),
    ],
)
def test_a_number_without_an_interval(value, unit, shown):
    assert plain(value, unit) == shown


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (2.0, "duration", "2 s"),
        (1.757, "duration", "1.757 s"),
        (0.9985, "fraction", "99.85 %"),
        (1e-5, "money", "$0.00001"),
    ],
)
def test_a_target_keeps_its_digits(value, unit, shown):
    assert exact(value, unit) == shown


@given(POSITIVE, st.floats(1e-4, 0.9), st.sampled_from(["duration", "rate", "money", "count"]))
def test_an_interval_shows_the_digits_that_it_supports(value, share, unit):
    half = value * share
    shown = rounded(value, value - half, value + half, unit)
    scale = scale_of(unit, value)
    assert abs(number_in(shown.value, unit, value) - value) <= 0.25 * half + 1e-9 * scale.factor
    low, high = shown.span.split(" to ")
    assert (
        abs(number_in(low + scale.after, unit, value) - (value - half)) <= 0.25 * half + 1e-9 * scale.factor
    )
    assert abs(number_in(high, unit, value) - (value + half)) <= 0.25 * half + 1e-9 * scale.factor
    digits = len(re.sub(r"^0*", "", re.sub(r"[^0-9]", "", shown.value)).rstrip("0"))
    assert digits <= math.ceil(-math.log10(share)) + 3


@given(st.floats(0.5, 20.0), st.floats(0.001, 2.0), st.floats(0.5, 20.0))
def test_rounding_never_crosses_the_target(value, half, target):
    low, high = max(value - half, 0.0), value + half
    shown = rounded(value, low, high, "duration", [target])
    scale = scale_of("duration", value)
    ends = shown.span.split(" to ")
    for text, number in ((shown.value, value), (ends[0] + scale.after, low), (ends[1], high)):
        if abs(number - target) > 1e-6:
            assert (number_in(text, "duration", value) > target) == (number > target)


def test_an_interval_that_hugs_its_target_gets_more_digits():
    assert rounded(2.02, 2.001, 2.039, "duration", [2.0]).span == "2.001 to 2.039 s"
    assert rounded(2.04, 2.001, 2.079, "duration").span == "2.00 to 2.08 s"
    assert rounded(2.04, 2.001, 2.079, "duration", [2.0]).span == "2.001 to 2.079 s"


def test_what_cannot_be_is_not_shown():
    assert rounded(2.36, -0.13, 4.86, "duration").span == "0 to 4.9 s"
    assert rounded(0.998, 0.99, 1.006, "fraction").span.endswith(" to 100 %")
    assert rounded(1.0, 0.99993, 1.0, "fraction") == ("100 %", "99.993 to 100 %")
    assert rounded(0.0, 0.0, 0.00007, "fraction") == ("0 %", "0 to 0.007 %")


def test_missing_parts_are_dashes():
    assert rounded(None, None, None, "money") == (DASH, DASH)
    assert rounded(1.5, None, None, "duration") == ("1.50 s", DASH)
    assert rounded(3, 3, 3, "count") == ("3", NO_SPREAD)


@given(st.one_of(st.just(0.0), POSITIVE), UNITS)
def test_every_number_can_be_shown(value, unit):
    bounded = min(value, 1.0) if unit == "fraction" else value
    for text in (plain(bounded, unit), exact(bounded, unit)):
        assert number_in(text, unit, bounded) == pytest.approx(bounded, rel=0.06)
