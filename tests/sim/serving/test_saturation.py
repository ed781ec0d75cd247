"""The sustainable rate by the formula, against the exact engine kept busy."""

from __future__ import annotations

import numpy as np
import pytest

from glowsim.core.errors import WorldError
from glowsim.sim.environment import Environment
from glowsim.sim.serving.batching import BatchEngine
from glowsim.sim.serving.call import Call
from glowsim.sim.serving.saturation import CLOSE, Verdict, saturation
from glowsim.sim.serving.steps import BatchSpec, StepTime

STEP = StepTime(0.007, 2e-5, 2.5e-5, 3e-8, 1e-10)


def throughput_per_s(spec: BatchSpec, tokens_in: list[int], tokens_out: list[int]) -> float:
    """Return calls a second while there is always somebody waiting."""
    environment, ends = Environment(), []
    coming = iter(range(len(tokens_in)))

    def feed() -> None:
        number = next(coming, None)
        if number is not None:
            engine.start(Call(number, tokens_in[number], tokens_out[number]))

    def done(_: Call) -> None:
        ends.append(environment.now)
        feed()

    engine = BatchEngine(environment, spec, done, done)
    for _ in range(2 * spec.max_num_seqs):
        feed()
    environment.run()
    first, last = len(ends) * 3 // 10, len(ends) * 8 // 10
    return (last - first) / (ends[last] - ends[first])


@pytest.mark.parametrize(
    ("tokens_in", "tokens_out", "budget", "blocks", "bound_by"),
    [
        (256, 256, 8192, 60_000, "max_num_seqs"),
        (900, 120, 8192, 60_000, "max_num_seqs"),
        (4096, 512, 2048, 20_000, "kv_blocks"),
        (256, 256, 8192, 6_000, "kv_blocks"),
        (4096, 64, 512, 60_000, "max_num_batched_tokens"),
    ],
)
def test_the_rate_is_that_of_the_exact_engine(
    tokens_in: int, tokens_out: int, budget: int, blocks: int, bound_by: str
) -> None:
    dice = np.random.default_rng(3)
    lengths = [
        np.ceil(dice.standard_exponential(4000) * mean).astype(int).tolist()
        for mean in (tokens_in, tokens_out)
    ]
    spec = BatchSpec(STEP, 256, budget, blocks)
    limit = saturation(spec, *lengths)
    assert limit.bound_by == bound_by
    assert throughput_per_s(spec, *lengths) == pytest.approx(limit.rate_per_s, rel=CLOSE)


def test_what_is_cached_need_not_be_computed() -> None:
    spec = BatchSpec(STEP, 256, 8192, 60_000)
    bare, cached = saturation(spec, [900], [120]), saturation(spec, [900], [120], [800])
    saved_s = 800 * STEP.b1_s + STEP.b4_s * (900**2 - (900**2 - 800**2)) / 2
    assert 1 / bare.rate_per_s - 1 / cached.rate_per_s == pytest.approx(saved_s)
    assert bare.verdict(bare.rate_per_s * 1.1) is Verdict.SATURATED


def test_samples_must_be_of_the_same_calls() -> None:
    with pytest.raises(WorldError, match="samples of 2, 1 and 2 calls"):
        saturation(BatchSpec(STEP, 1, 1, 9), [1, 2], [3])
