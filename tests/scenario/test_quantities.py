import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from glowsim.scenario import quantities as q
from glowsim.scenario.metrics import METRICS, quantity_of


@pytest.mark.parametrize(
    ("quantity", "text", "value"),
    [
        (q.DURATION, "300ms", 0.3),
        (q.DURATION, "40us", 40e-6),
        (q.DURATION, "2s", 2.0),
        (q.DURATION, "1.5m", 90.0),
        (q.DURATION, "1.5min", 90.0),
        (q.DURATION, "2h", 7200.0),
        (q.DURATION, "7d", 604800.0),
        (q.DURATION, 0, 0.0),
        (q.RATE, "167/s", 167.0),
        (q.RATE, "10/min", 10 / 60),
        (q.RATE, "500/h", 500 / 3600),
        (q.RATE, "31/d", 31 / 86400),
        (q.MONEY, "$12.50", 12.5),
        (q.PRICE_PER_HOUR, "$0.40/h", 0.4),
        (q.PRICE_PER_HOUR, "$9.60/d", 0.4),
        (q.PRICE_PER_HOUR, "$0.01/min", 0.6),
        (q.PRICE_PER_TOKEN, "$0.15/1M", 0.15e-6),
        (q.PRICE_PER_TOKEN, "$0.15/1K", 0.15e-3),
        (q.PRICE_PER_TOKEN, "$1e-7/token", 1e-7),
        (q.TIME_PER_TOKEN, "8ms/token", 0.008),
        (q.FRACTION, "5%", 0.05),
        (q.FRACTION, "0.13%", 0.0013),
        (q.FRACTION, 0.05, 0.05),
        (q.NUMBER, 3, 3.0),
    ],
)
def test_reads_what_a_person_writes(quantity, text, value):
    assert quantity.read(text) == value


@pytest.mark.parametrize(
    ("quantity", "value", "message"),
    [
        (q.DURATION, 300, "300 has no unit: write 300s or 300ms"),
        (q.DURATION, "300", "must be a duration such as 300ms, 2s, 1.5m, 2h, 7d, got '300'"),
        (q.DURATION, "2 parsecs", "got '2 parsecs'"),
        (q.DURATION, "300ms\n", "must be a duration"),
        (q.DURATION, True, "got True"),
        (q.DURATION, None, "got None"),
        (q.DURATION, [1], "got a list"),
        (q.DURATION, float("nan"), "must be a finite number"),
        (q.DURATION, "1e999s", "is too large"),
        (q.DURATION, "1e9999999s", "must be a duration"),
        (q.RATE, 167, "167 has no unit: write 167/s or 167/min"),
        (q.MONEY, 12.5, "12.5 has no unit: write $12.50"),
        (q.PRICE_PER_TOKEN, "0.15/1M", "such as $0.15/1M"),
    ],
)
def test_says_what_to_write_instead(quantity, value, message):
    with pytest.raises(q.QuantityError) as caught:
        quantity.read(value)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "quantity", [q.DURATION, q.RATE, q.PRICE_PER_HOUR, q.PRICE_PER_TOKEN, q.MONEY, q.NUMBER]
)
@given(value=st.floats(min_value=0, max_value=1e12))
def test_writing_and_reading_gives_the_same_float(quantity, value):
    assert quantity.read(quantity.write(value)) == value


@pytest.mark.parametrize("text", ["300ms", "2s", "7d", "40us", "120ms", "5s"])
def test_common_durations_are_written_as_people_do(text):
    assert q.DURATION.write(q.DURATION.read(text)) == text


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        (q.PositiveDuration, "0s", "must be above 0s, got 0s"),
        (q.Duration, "-2s", "must be at least 0s, got -2s"),
        (q.Duration, "20000d", "must be at most"),
        (q.Share, "101%", "must be at most 1, got 101%"),
        (q.Number, "5", "without quotes"),
        (q.TokenCount, -1, "must be at least 0, got -1"),
    ],
)
def test_bounds_are_in_the_unit_of_the_quantity(kind, value, message):
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(kind).validate_python(value)
    assert message in caught.value.errors()[0]["msg"]


@given(st.floats(min_value=1e-5, max_value=1e7))
def test_a_formatted_duration_is_within_half_a_percent(seconds):
    assert q.DURATION.read(q.format_duration(seconds)) == pytest.approx(seconds, rel=0.0051, abs=1e-8)


@given(st.floats(min_value=1e-3, max_value=1e5))
def test_a_formatted_rate_is_within_half_a_percent(rate):
    assert q.RATE.read(q.format_rate(rate)) == pytest.approx(rate, rel=0.0051)


def test_every_metric_has_the_unit_that_its_name_ends_with():
    for metric in METRICS:
        name = quantity_of(metric).name
        assert (name == "a duration") == ("_s_" in metric)
        assert (name == "an amount of money") == metric.startswith("cost_usd")
