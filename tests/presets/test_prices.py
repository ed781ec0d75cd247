"""Prices of models: what a map says is read, what it does not say has no price, and nothing is dropped."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from glowsim.presets.prices import ModelPrices, PriceError, PriceMap, Rates, as_scenario, load
from glowsim.scenario.fleet import Prices

MAP = "prices/tokencost_model_prices.json.gz"


@pytest.fixture(scope="module")
def recorded(data_file) -> PriceMap:
    return load(data_file(MAP))


def given(tmp_path: Path, **entries: Any) -> PriceMap:
    path = tmp_path / "prices.json"
    path.write_text(json.dumps(entries))
    return load(path)


CLAUDE = {
    "litellm_provider": "anthropic", "mode": "chat",
    "input_cost_per_token": 3e-06, "output_cost_per_token": 1.5e-05, "cache_read_input_token_cost": 3e-07,
    "cache_creation_input_token_cost": 3.75e-06, "cache_creation_input_token_cost_above_1hr": 6e-06,
    "input_cost_per_token_above_200k_tokens": 6e-06, "output_cost_per_token_above_200k_tokens": 2.25e-05,
    "cache_read_input_token_cost_above_200k_tokens": 6e-07,
    "cache_creation_input_token_cost_above_200k_tokens": 7.5e-06,
    "input_cost_per_token_batches": 1.5e-06, "output_cost_per_token_batches": 7.5e-06,
    "search_context_cost_per_query": {"search_context_size_low": 0.01}, "max_input_tokens": 200000,
}  # fmt: skip


# --- reading ------------------------------------------------------------------------------------------


def test_every_price_of_an_entry_is_read_or_named(tmp_path: Path) -> None:
    model = given(tmp_path, claude=CLAUDE)["claude"]
    assert model == ModelPrices(
        "claude", "anthropic", "chat",
        {
            ("batches", 0): Rates(1.5e-6, 7.5e-6),
            ("standard", 0): Rates(3e-6, 1.5e-5, 3e-7, 3.75e-6, 6e-6),
            ("standard", 200_000): Rates(6e-6, 2.25e-5, 6e-7, 7.5e-6),
        },
        ("search_context_cost_per_query",),
    )  # fmt: skip


def test_a_long_prompt_costs_more_for_all_of_its_tokens(tmp_path: Path) -> None:
    model = given(tmp_path, claude=CLAUDE)["claude"]
    assert model.at(200_000).input_usd == 3e-6
    assert model.at(200_001) == Rates(6e-6, 2.25e-5, 6e-7, 7.5e-6, 6e-6)
    short, long = model.cost_usd(fresh=200_000, output=10), model.cost_usd(fresh=200_001, output=10)
    assert short == pytest.approx(200_000 * 3e-6 + 10 * 1.5e-5)
    assert long == pytest.approx(200_001 * 6e-6 + 10 * 2.25e-5)


def test_the_threshold_is_of_the_whole_prompt_with_what_is_cached(tmp_path: Path) -> None:
    model = given(tmp_path, claude=CLAUDE)["claude"]
    cost = model.cost_usd(fresh=1_000, cached=199_000, written=1_000, output=1)
    assert cost == pytest.approx(1_000 * 6e-6 + 199_000 * 6e-7 + 1_000 * 7.5e-6 + 2.25e-5)


def test_services_have_prices_of_their_own_or_none(tmp_path: Path) -> None:
    model = given(tmp_path, claude=CLAUDE)["claude"]
    assert model.services == ("batches", "standard")
    assert model.cost_usd(fresh=100, output=10, service="batches") == pytest.approx(
        100 * 1.5e-6 + 10 * 7.5e-6
    )
    with pytest.raises(PriceError, match="claude has no price for 'flex', only for batches, standard"):
        model.at(0, "flex")
    with pytest.raises(PriceError, match=r"no price for cached input \(batches\)"):
        model.cost_usd(cached=1, service="batches")


def test_tokens_without_a_price_are_an_error_and_not_free(tmp_path: Path) -> None:
    plain = {"mode": "chat", "input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6}
    model = given(tmp_path, plain=plain)["plain"]
    assert model.cost_usd(fresh=10, output=10, reasoning=5) == pytest.approx(10e-6 + 15 * 2e-6)
    for kind in ("cached", "written", "written_1h"):
        with pytest.raises(PriceError, match=r"plain has no price for .*add it to the map"):
            model.cost_usd(**{kind: 1})


def test_other_spellings_of_the_same_prices(tmp_path: Path) -> None:
    """A cache hit of DeepSeek, ranges of Qwen, priority beyond a threshold, and the price of reasoning."""
    prices = given(
        tmp_path,
        deepseek={"input_cost_per_token": 2.7e-7, "input_cost_per_token_cache_hit": 7e-8},
        qwen={
            "tiered_pricing": [
                {"range": [0, 32000.0], "input_cost_per_token": 1e-6, "output_cost_per_token": 5e-6},
                {"range": [32000.0, 128000.0], "input_cost_per_token": 1.8e-6, "output_cost_per_token": 9e-6},
            ]
        },
        gpt={
            "input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6, "input_cost_per_token_priority": 2e-6,
            "output_cost_per_token_priority": 4e-6, "cache_read_input_token_cost_above_272k_tokens_priority": 4e-7,
            "output_cost_per_reasoning_token": 3e-6,
        },
    )  # fmt: skip
    assert prices["deepseek"].at(0).cached_usd == 7e-8
    assert prices["qwen"].at(32_000).input_usd == 1e-6
    assert prices["qwen"].at(32_001).output_usd == 9e-6
    assert prices["gpt"].at(300_000, "priority") == Rates(2e-6, 4e-6, 4e-7)
    assert prices["gpt"].cost_usd(output=10, reasoning=10) == pytest.approx(10 * 2e-6 + 10 * 3e-6)
    assert not prices.refused


def test_what_is_priced_otherwise_is_named_with_its_fields(tmp_path: Path) -> None:
    prices = given(
        tmp_path,
        whisper={
            "mode": "audio_transcription",
            "input_cost_per_second": 1e-4,
            "output_cost_per_second": 1e-4,
        },
        dalle={"mode": "image_generation", "input_cost_per_pixel": 1e-8, "output_cost_per_token": 0.0},
        free={"mode": "chat", "input_cost_per_token": 0, "output_cost_per_token": 0},
        unknown={"mode": "chat", "max_tokens": 8192},
        sample_spec={"input_cost_per_token": "dollars"},
    )
    assert list(prices) == ["free"]
    assert prices.not_token_priced == {
        "whisper": ("input_cost_per_second", "output_cost_per_second"),
        "dalle": ("input_cost_per_pixel",),
    }
    assert prices.unpriced == ("unknown",)
    assert prices.fields_not_read == {
        "input_cost_per_second": 1,
        "output_cost_per_second": 1,
        "input_cost_per_pixel": 1,
    }
    assert "2 priced by something else: whisper, dalle" in prices.text()
    assert "1 without a price: unknown" in prices.text()


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ({"input_cost_per_token": "1e-6"}, "input_cost_per_token must be US dollars, 0 or more, got '1e-6'"),
        ({"input_cost_per_token": -1e-6}, "must be US dollars, 0 or more, got -1e-06"),
        ({"input_cost_per_token": True}, "must be US dollars, 0 or more, got True"),
        ({"output_cost_per_token": float("nan")}, "must be US dollars, 0 or more, got nan"),
        ({"output_cost_per_token_above_1hr": 1e-6}, "is a price that nobody knows"),
        ({"tiered_pricing": [{"input_cost_per_token": 1e-6}]}, "tiered_pricing must be a list of ranges"),
        ({"tiered_pricing": 5}, "tiered_pricing must be a list of ranges"),
        ({"tiered_pricing": [{"range": ["few", "many"]}]}, "tiered_pricing must be a list of ranges"),
        (["a list"], "must be a map of fields"),
    ],
)
def test_an_entry_that_cannot_be_read_is_refused_and_the_others_are_not(
    tmp_path: Path, entry: Any, why: str
) -> None:
    prices = given(tmp_path, bad=entry, good={"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6})
    assert list(prices) == ["good"]
    assert why in prices.refused["bad"]
    assert f"refused bad: {prices.refused['bad']}" in prices.text()


def test_a_model_that_stands_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "prices.json"
    path.write_text('{"m": {"input_cost_per_token": 1e-6}, "m": {"input_cost_per_token": 2e-6}}')
    prices = load(path)
    assert prices.refused == {"m": "stands twice in the file"}
    assert len(prices) == 0


@pytest.mark.parametrize(
    ("content", "message"), [(b"{", "Expecting"), (b"[]", "not a map"), (b"\x1f\x8b\x00", "LiteLLM")]
)
def test_a_file_that_is_no_map_says_what_to_give(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "prices.json"
    path.write_bytes(content)
    with pytest.raises(PriceError, match=message):
        load(path)
    with pytest.raises(PriceError, match=r"nowhere\.json.*give LiteLLM's"):
        load(tmp_path / "nowhere.json")


def test_gzipped_or_not_it_is_the_same_map(tmp_path: Path) -> None:
    plain = given(tmp_path, claude=CLAUDE)
    packed = tmp_path / "prices.json.gz"
    packed.write_bytes(gzip.compress((tmp_path / "prices.json").read_bytes()))
    assert dict(load(packed)) == dict(plain)


# --- into a scenario ----------------------------------------------------------------------------------


def test_a_scenario_reads_back_the_very_same_prices(tmp_path: Path) -> None:
    model = given(tmp_path, claude=CLAUDE)["claude"]
    spelled = as_scenario(model)
    assert spelled == {"input": "$3/1M", "cached_input": "$0.3/1M", "output": "$15/1M"}
    read = Prices.model_validate(spelled)
    assert (read.input_usd_per_token, read.cached_input_usd_per_token, read.output_usd_per_token) == (
        3e-6,
        3e-7,
        1.5e-5,
    )


def test_a_model_without_a_price_for_its_output_has_no_place_in_a_scenario() -> None:
    with pytest.raises(PriceError, match="e has no price for output"):
        as_scenario(ModelPrices("e", "p", "embedding", {("standard", 0): Rates(1e-7)}))


# --- the recorded map ---------------------------------------------------------------------------------


def test_all_entries_of_the_recorded_map_are_accounted_for(recorded: PriceMap) -> None:
    assert (
        len(recorded) + len(recorded.not_token_priced) + len(recorded.unpriced) + len(recorded.refused)
        == 1701
    )
    assert (len(recorded), len(recorded.not_token_priced), len(recorded.unpriced)) == (1441, 217, 43)
    assert not recorded.refused


def test_prices_that_everybody_knows(recorded: PriceMap) -> None:
    assert recorded["gpt-4o"].at(1000) == Rates(2.5e-6, 1e-5, 1.25e-6)
    assert recorded["gpt-4o"].at(1000, "batches") == Rates(1.25e-6, 5e-6)
    assert recorded["gemini-2.5-pro"].at(200_001).input_usd == 2.5e-6
    assert "whisper-1" in recorded.not_token_priced


def test_discounts_differ_from_model_to_model(recorded: PriceMap) -> None:
    """Reading from a cache costs a tenth, a quarter or half of input, and none of them is the rule."""
    shares = {
        round(rates.cached_usd / rates.input_usd, 3)
        for model in recorded.values()
        for rates in [model.at(0)]
        if rates.cached_usd and rates.input_usd
    }
    assert {0.1, 0.25, 0.5} <= shares
    batches = {
        round(half.input_usd / full.input_usd, 2)
        for model in recorded.values()
        if "batches" in model.services
        for full, half in [(model.at(0), model.at(0, "batches"))]
        if full.input_usd and half.input_usd
    }
    assert 0.5 in batches


def test_every_recorded_chat_model_goes_into_a_scenario_and_back(recorded: PriceMap) -> None:
    spelled = 0
    for model in recorded.values():
        rates = model.at(0) if "standard" in model.services else Rates()
        if rates.input_usd is None or rates.output_usd is None:
            continue
        read = Prices.model_validate(as_scenario(model))
        assert (read.input_usd_per_token, read.output_usd_per_token) == (rates.input_usd, rates.output_usd)
        if rates.cached_usd is not None:
            assert read.cached_input_usd_per_token == rates.cached_usd
        spelled += 1
    assert spelled == 1440
