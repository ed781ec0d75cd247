"""Step times of model servers: physics that no row may beat, and numbers that others have printed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from glowsim.presets import PresetError, names, read
from glowsim.presets.serving import Coefficients, check, derive, outside, parse, serving

ALL = names("serving")
US = 1e-6


def changed(name: str, **keys: Any) -> dict[str, Any]:
    return {**read("serving", name), **keys}


@pytest.mark.parametrize("name", ALL)
def test_every_preset_is_possible_and_says_where_it_comes_from(name: str) -> None:
    preset = serving(name)
    assert check(preset) == []
    assert preset.origin in ("measured", "published", "fitted", "assumed")
    assert preset.source
    assert preset.engine
    assert preset.valid_source.split(":")[0] in ("measured", "published", "fitted", "assumed")
    assert preset.model.active_weight_bytes <= preset.model.weight_bytes
    assert preset.model.active_parameters <= preset.model.parameters
    assert name.startswith(f"{preset.model.name}-{preset.accelerator.name}-tp{preset.tensor_parallel}")


def test_the_row_that_beats_physics_is_refused_with_the_arithmetic() -> None:
    """Llama 3.3 70B on eight H100, as published: 10.03 us a token, where the peak of eight takes 17.29 us."""
    published = changed(
        "llama-3.3-70b-h100-tp8",
        engine="vLLM 0.8.4",
        coefficients_us={"b0": 14140.8, "b1": 10.03, "b2": 19.40, "b3": 0.0},
    )
    with pytest.raises(
        PresetError, match=r"b1 is 10\.03 us .* 2 x 6\.845e\+10 active parameters .* takes 17\.29 us"
    ):
        parse("llama-3.3-70b-h100-tp8-vllm-0.8.4", published)


def test_a_step_that_does_not_read_the_weights_is_refused() -> None:
    """Qwen2.5 7B on one H100 under vLLM 0.8.4: 1,602 us a step, where 14.1 GB at 3.35 TB/s take 4,221 us."""
    published = changed(
        "qwen2.5-7b-h100-tp1", coefficients_us={"b0": 1602.2, "b1": 19.87, "b2": 452.9, "b3": 0.0}
    )
    with pytest.raises(PresetError, match=r"b0 is 1602\.2 us .* takes 4221\.07 us"):
        parse("qwen2.5-7b-h100-tp1-vllm-0.8.4", published)


def test_the_gate_stands_exactly_at_the_arithmetic() -> None:
    preset = serving("llama-3.1-8b-h100-tp1")
    b1 = 2 * 6_979_321_856 / 989.5e12
    b0 = 15_009_316_864 / 3.35e12
    assert check(replace(preset, coefficients=Coefficients(b0, b1, 0.0, 0.0, 0.0))) == []
    for wrong in ((b0 * 0.999, b1), (b0, b1 * 0.999), (float("nan"), b1), (b0, float("nan"))):
        assert len(check(replace(preset, coefficients=Coefficients(*wrong, 0.0, 0.0, 0.0)))) == 1
    assert len(check(replace(preset, coefficients=Coefficients(b0, b1, -1.0, -1.0, -1.0)))) == 3


def test_weights_that_do_not_fit_are_refused() -> None:
    assert "do not fit" in check(replace(serving("llama-3.3-70b-h100-tp4"), tensor_parallel=1))[-1]


def test_twice_the_accelerators_halve_what_each_must_read() -> None:
    """The gate is by accelerator: coefficients that one of them could not reach, two may."""
    preset = serving("llama-3.1-8b-h100-tp2")
    assert check(preset) == []
    (wrong,) = check(replace(preset, tensor_parallel=1))
    assert wrong.startswith("b0 is 4419.08 us")


# --- published numbers --------------------------------------------------------------------------------

DERIVED = {  # b0 and b3 in us, of the trained physics, printed by its users
    ("qwen2.5-7b", "h100", 1): (7207, 0.0333), ("qwen2.5-7b", "a100", 1): (11182, 0.0548),
    ("qwen3-14b", "h100", 1): (13449, 0.0952), ("qwen3-14b", "a100", 1): (21190, 0.1565),
    ("llama-3.1-8b", "h100", 1): (7685, 0.0762), ("llama-3.1-8b", "a100", 1): (11885, 0.1252),
    ("llama-3.3-70b", "h100", 4): (17051, 0.0476), ("llama-3.3-70b", "a100", 4): (26282, 0.0782),
    ("llama-3.3-70b", "h100", 8): (9872, 0.0238), ("llama-3.3-70b", "a100", 8): (14488, 0.0391),
}  # fmt: skip


@pytest.mark.parametrize(("key", "printed"), DERIVED.items(), ids=lambda each: "-".join(map(str, each)))
def test_the_law_gives_the_printed_numbers(key: tuple[str, str, int], printed: tuple[float, float]) -> None:
    found = derive(*key)
    assert found.b0_s / US == pytest.approx(printed[0], rel=0.003)
    assert found.b3_s / US == pytest.approx(printed[1], abs=6e-5)
    assert found.b2_s / US == pytest.approx(4.417, abs=1e-3)


@pytest.mark.parametrize("key", DERIVED, ids=lambda key: "-".join(map(str, key)))
def test_a_derived_preset_is_what_the_law_derives(key: tuple[str, str, int]) -> None:
    found = serving("{}-{}-tp{}".format(*key)).coefficients
    expected = derive(*key)
    for name in ("b0_s", "b1_s", "b2_s", "b3_s", "b4_s"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=1e-5)


def test_the_law_meets_the_regressions_as_far_as_it_is_said_to() -> None:
    """b0: 2 % off for Qwen2.5 7B, 1 % for Qwen3 14B, 19 % for Llama 3.1 8B; b1 of the 70B within 1 %."""

    def ratio(model: str, tp: int, version: str, name: str) -> float:
        fitted = serving(f"{model}-h100-tp{tp}-vllm-{version}").coefficients
        return float(getattr(derive(model, "h100", tp), name) / getattr(fitted, name))

    assert ratio("qwen2.5-7b", 1, "0.11.0", "b0_s") == pytest.approx(1.02, abs=0.01)
    assert ratio("qwen3-14b", 1, "0.11.0", "b0_s") == pytest.approx(0.99, abs=0.01)
    assert ratio("llama-3.1-8b", 1, "0.11.0", "b0_s") == pytest.approx(1.19, abs=0.01)
    assert ratio("llama-3.3-70b", 4, "0.8.4", "b1_s") == pytest.approx(1.0, abs=0.01)


def test_without_prefill_attention_long_prompts_are_much_too_quick() -> None:
    """100,000 tokens at once: about 160 % more on the 8B, about 94 % on the 70B, from b4 alone."""
    for name, printed in (("llama-3.1-8b-h100-tp1", 1.6), ("llama-3.3-70b-h100-tp4", 0.94)):
        b = serving(name).coefficients
        all_parameters = serving(name).model.parameters / serving(name).model.active_parameters
        tokens = 100_000
        assert b.b4_s * tokens**2 / 2 / (b.b1_s * tokens * all_parameters) == pytest.approx(printed, rel=0.03)


def test_the_memory_is_that_of_the_engine() -> None:
    """29,205 blocks of 16 tokens for Llama 3.1 8B on one accelerator of 80 GiB, as the source's own table has it."""
    assert serving("llama-3.1-8b-h100-tp1").kv_tokens // 16 in (29205, 29206)
    assert serving("llama-3.1-8b-a100-tp1").kv_tokens == serving("llama-3.1-8b-h100-tp1").kv_tokens


def test_kv_bytes_a_token_are_those_that_everybody_prints() -> None:
    assert serving("llama-3.1-8b-h100-tp1").model.kv_bytes_per_token == 128 * 1024
    assert serving("llama-3.3-70b-h100-tp4").model.kv_bytes_per_token == 320 * 1024


def test_an_instance_costs_as_much_as_its_accelerators_and_takes_their_limits() -> None:
    four, eight = serving("llama-3.3-70b-h100-tp4"), serving("llama-3.3-70b-a100-tp8")
    assert (four.hour_usd, eight.hour_usd) == pytest.approx((16.08, 17.68))
    assert (four.max_num_batched_tokens, four.max_num_seqs) == (8192, 1024)
    assert (eight.max_num_batched_tokens, eight.max_num_seqs) == (2048, 256)


def test_the_spread_over_sources_is_stated_and_is_that_of_the_presets() -> None:
    """Llama 70B on four H100: 12.6 to 28.8 ms a step, more than a factor of two."""
    spread = serving("llama-3.3-70b-h100-tp4").spread_b0_s
    assert max(spread.values()) / min(spread.values()) > 2.2
    for name in ("llama-3.3-70b-h100-tp4", "llama-3.3-70b-h100-tp4-vllm-0.8.4", "llama-2-70b-h100-tp4-2023"):
        b0_s = serving(name).coefficients.b0_s
        assert min(abs(b0_s / stated - 1.0) for stated in spread.values()) < 0.001


# --- range and messages -------------------------------------------------------------------------------


def test_a_run_inside_the_range_is_not_warned_of() -> None:
    preset = serving("llama-3.3-70b-h100-tp4-vllm-0.8.4")
    assert outside(preset, preset.valid_batch, preset.valid_context) == []


def test_a_run_outside_is_told_how_far_and_what_the_preset_holds() -> None:
    preset = serving("llama-2-70b-h100-tp8-2023")
    batch, context = outside(preset, 65, 8705)
    assert "65 sequences" in batch
    assert "holds up to 64" in batch
    assert "8705 tokens" in context
    assert "holds up to 8704" in context


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"origin": "heard"}, "origin: must be one of measured, published, fitted, assumed"),
        ({"model": "llama-9"}, "there is no serving/models preset 'llama-9': choose from .*llama-3.1-8b"),
        ({"tensor_parallel": 0}, "tensor_parallel: must be a whole number, at least 1, got 0"),
        ({"coefficients_us": {"b0": 1.0}}, "coefficients_us: b1: is missing"),
        ({"coefficients_us": 7}, "coefficients_us: must be a mapping, got int"),
        ({"valid": {"batch": 1, "context": 1, "source": "x"}}, "valid: origin: is missing"),
        ({"spread_b0_us": {"x": "long"}}, "spread_b0_us: x: must be a number, got 'long'"),
    ],
)
def test_a_file_that_cannot_be_read_says_where(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(PresetError, match=message):
        parse("mine", changed("llama-3.1-8b-h100-tp1", **keys))


def test_a_name_that_nobody_has_is_told_what_there_is() -> None:
    with pytest.raises(PresetError, match=r"choose from .*qwen3-14b-h100-tp1"):
        serving("qwen9")
