"""Hosted APIs as measured: the quantiles are those of the recorded calls."""

from __future__ import annotations

import gzip
import json
from math import exp
from typing import Any

import numpy as np
import pytest

from glowsim.presets import PresetError, names, read
from glowsim.presets.hosted import hosted, incidents, parse

ENDPOINTS = {"good": "groq_70b", "average": "fireworks_70b", "bad": "replicate_70b"}
TOO_SHORT = -100
"""The benchmark's own mark of an answer shorter than it asked for: no failure of the provider."""


@pytest.fixture(scope="module")
def calls(data_file):
    def of(endpoint: str) -> list[dict[str, Any]]:
        path = data_file(f"llmperf/raw_data/individual/{endpoint}.json.gz")
        found: list[dict[str, Any]] = json.loads(gzip.decompress(path.read_bytes()))
        return found

    return of


@pytest.mark.parametrize("name", ENDPOINTS)
def test_the_quantiles_are_those_of_the_recorded_calls(name: str, calls) -> None:
    preset, found = hosted(name), calls(ENDPOINTS[name])
    answered = [each for each in found if each["error_code"] in (None, TOO_SHORT)]
    first_s = np.array([each["ttft_s"] for each in answered])
    further = np.array([each["number_output_tokens"] - 1 for each in answered])
    rest_s = np.array([each["end_to_end_latency_s"] for each in answered]) - first_s
    assert preset.first_token_s == pytest.approx(np.quantile(first_s, preset.quantiles), rel=1e-3)
    assert preset.per_token_s == pytest.approx(np.quantile(rest_s / further, preset.quantiles), rel=1e-3)
    assert preset.error == pytest.approx(1.0 - len(answered) / len(found), abs=1e-4)
    assert {each["number_input_tokens"] for each in answered} == {preset.valid_tokens_in}


def test_the_inter_token_latency_of_the_record_holds_the_first_token(calls) -> None:
    """It is the time end to end over all tokens, so it is not used as the time of a further one."""
    for each in calls("groq_70b"):
        whole_s = each["end_to_end_latency_s"] / each["number_output_tokens"]
        assert each["inter_token_latency_s"] == pytest.approx(whole_s, rel=0.02)


def test_good_average_and_bad_differ_where_users_feel_it() -> None:
    good, average, bad = (
        dict(zip(hosted(n).quantiles, hosted(n).first_token_s, strict=True)) for n in ENDPOINTS
    )
    assert good[0.5] < average[0.5] < bad[0.5]
    assert bad[0.99] / bad[0.5] > 50.0 > 5.0 > average[0.99] / average[0.5]


@pytest.mark.parametrize(("name", "availability"), [("openai", 0.9958), ("anthropic", 0.9972)])
def test_incidents_account_for_the_availability_that_was_published(name: str, availability: float) -> None:
    found = incidents(name)
    mean_s = found.repair_median_s * exp(found.repair_sigma**2 / 2.0)
    assert 1.0 - found.share * mean_s / found.mean_between_starts_s == pytest.approx(availability, abs=2e-5)
    assert found.weibull_shape < 1.0
    assert found.share_source.startswith("assumed: ")


@pytest.mark.parametrize("name", names("hosted"))
def test_every_preset_says_where_it_comes_from(name: str) -> None:
    preset = hosted(name)
    assert preset.origin == "measured"
    assert "llmperf" in preset.source
    assert preset.valid_concurrency == 5


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"quantiles": [0.0, 0.5]}, "quantiles: must increase from 0 to 1"),
        ({"quantiles": [0.0, 0.5, 0.5, 1.0]}, "quantiles: must increase from 0 to 1"),
        ({"first_token_s": [0.1, 0.2]}, "first_token_s: must be 11 numbers"),
        ({"per_token_s": [0.2] * 10 + [0.1]}, "per_token_s: must be 11 numbers that never decrease"),
        ({"per_token_s": [-0.1] + [0.1] * 10}, r"per_token_s\[0\]: must lie in 0 .. inf, got -0.1"),
        ({"first_token_s": "quick"}, "first_token_s: must be a list of numbers"),
        ({"error": 1.5}, "error: must lie in 0 .. 1"),
        ({"source": None, "origin": "rumour"}, "origin: must be one of"),
    ],
)
def test_a_file_that_cannot_be_read_says_where(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(PresetError, match=f"hosted preset 'mine'.*{message}"):
        parse("mine", {**read("hosted", "good"), **keys})
