"""The fast engine against the specification, and both against what can be computed by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_batching import NaiveEngine
from twins import Ask, Told, assert_same, play
from workloads import DYADIC, workload

from glowsim.core.errors import WorldError
from glowsim.core.types import Outcome
from glowsim.sim.environment import Environment
from glowsim.sim.serving.batching import BatchEngine
from glowsim.sim.serving.call import Call
from glowsim.sim.serving.loads import LOADS, batching_requests
from glowsim.sim.serving.steps import BatchSpec, StepTime, check_call

ENGINES = pytest.mark.parametrize("build", [NaiveEngine, BatchEngine])
Build = Callable[..., Any]
RARE = (1364, 2701, 3876, 6592, 2_004_372)
"""Where a block given back or filled up admits a call in mid-jump, and where what was foreseen differs by rounding."""


def both(seed: int) -> Told:
    spec, asks, speeds = workload(seed)
    naive = play(NaiveEngine, spec, asks, speeds)
    assert_same(play(BatchEngine, spec, asks, speeds), naive)
    return naive


def test_every_time_of_many_workloads_is_that_of_the_specification() -> None:
    counters = [both(seed).counters for seed in (*range(400), *RARE)]
    assert sum(each[1] for each in counters) > 200, "they preempt"
    assert sum(each[3] > 0 for each in counters) > 200, "they hit"


@pytest.mark.campaign
def test_every_time_of_very_many_workloads_is_that_of_the_specification() -> None:
    for seed in range(1_000_000, 1_020_000):
        both(seed)


@settings(max_examples=100)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 40), st.integers(1, 30), st.integers(1, 20), st.integers(0, 2), st.integers(0, 30),
            st.integers(0, 2), st.integers(-1, 60), st.integers(0, 2), st.booleans(),
        ),
        min_size=1, max_size=8,
    ),
    st.integers(12, 40), st.integers(1, 4), st.integers(0, 20), st.integers(0, 5), st.booleans(), st.booleans(),
)  # fmt: skip
def test_every_time_of_the_worst_workloads_found_is_that_of_the_specification(
    calls: list[tuple[Any, ...]],
    blocks: int,
    seqs: int,
    more: int,
    threshold: int,
    caching: bool,
    priority: bool,
) -> None:
    spec = BatchSpec(DYADIC, seqs, seqs + more, blocks, 4, threshold, 0, caching, priority)
    asks = [
        Ask(
            at / 16, tokens_in, tokens_out,
            {
                "shared_key": min(shared, 1), "shared_tokens": min(shared, tokens_in), "own_key": own, "stream": stream,
                "priority": urgency,
            },
            cancel / 16 if cancel >= 0 else -1.0, then,
        )
        for at, tokens_in, tokens_out, own, shared, then, cancel, urgency, stream in calls
    ]  # fmt: skip
    assert_same(play(BatchEngine, spec, asks), play(NaiveEngine, spec, asks))


@pytest.mark.parametrize("kind", sorted(LOADS))
def test_the_standard_loads_are_served_as_by_the_specification(kind: str) -> None:
    naive = batching_requests(kind, 300, NaiveEngine)
    assert batching_requests(kind, 300) == pytest.approx(naive, rel=1e-9)


def test_a_cache_too_small_preempts_thousands_of_times_alike() -> None:
    spec = BatchSpec(StepTime(0.007, 2e-5, 2.5e-5, 3e-8), 64, 512, 200)
    asks = [Ask(0.01 * i, 40 + 7 * (i % 23), 60 + 11 * (i % 17)) for i in range(1200)]
    naive = play(NaiveEngine, spec, asks)
    assert naive.counters[1] > 1000, "it thrashes"
    assert_same(play(BatchEngine, spec, asks), naive)


def test_a_call_that_drives_another_out_lets_a_third_end_sooner_than_was_foreseen() -> None:
    spec = BatchSpec(StepTime(0.007, 0.0, 2e-5, 1e-4), 8, 508, 12, 4, priority_order=True)
    urgent, other = {"priority": 0}, {"priority": 1}
    asks = [
        Ask(0.061, 26, 9, urgent),
        Ask(0.084, 5, 2, other),
        Ask(0.055, 1, 11, other),
        Ask(0.111, 1, 9, urgent),
    ]
    naive = play(NaiveEngine, spec, asks)
    assert naive.counters[1] > 0
    assert_same(play(BatchEngine, spec, asks), naive)


@ENGINES
def test_a_call_alone_takes_its_prefill_and_its_decodes(build: Build) -> None:
    step = StepTime(0.01, 1e-4, 1e-3, 1e-6, 1e-8)
    told = play(build, BatchSpec(step, 8, 64, 100), [Ask(1.0, 100, 4)])
    prefill_s = step.step_s(64, 0, 0, 64 * 32) + step.step_s(36, 0, 64, 36 * (64 + 18))
    decode_s = step.step_s(0, 1, 100, 0) + step.step_s(0, 1, 101, 0) + step.step_s(0, 1, 102, 0)
    assert told.calls[0].first_token_s == pytest.approx(1.0 + prefill_s, rel=1e-12)
    assert told.ends[0][1] == pytest.approx(1.0 + prefill_s + decode_s, rel=1e-12)
    assert told.counters == (5, 0, 100, 0)


@ENGINES
def test_a_call_that_comes_in_mid_step_waits_for_the_boundary(build: Build) -> None:
    spec = BatchSpec(DYADIC, 8, 64, 100)
    told = play(build, spec, [Ask(0.0, 2, 3), Ask(0.5, 2, 1), Ask(0.625, 2, 1)])
    # prefill until 0.5, where the second is seen at once; its step lasts until 1.0625 and the third waits for that
    assert [end[:2] for end in told.ends] == [(2, 1.0625), (1, 1.625), (3, 1.625)]


@ENGINES
def test_the_last_admitted_is_preempted_and_keeps_what_it_wrote(build: Build) -> None:
    spec = BatchSpec(DYADIC, 8, 64, 4, 4, prefix_caching=False)
    told = play(build, spec, [Ask(0.0, 7, 6, {"stream": True}), Ask(0.0, 7, 4, {"stream": True})])
    # both hold 2 blocks; at 8 tokens each wants a third: the second goes, and later computes 7 + 2 tokens again
    assert told.counters[1:3] == (1, 7 + 7 + 9)
    assert [number for number, *_ in told.ends] == [1, 2]
    assert told.streamed == [(1, 2.0), (2, 2.0)], "its first token is not told again"


@ENGINES
def test_the_next_turn_hits_the_prompt_and_the_answer(build: Build) -> None:
    spec = BatchSpec(DYADIC, 8, 64, 100, 4)
    told = play(build, spec, [Ask(0.0, 10, 7, {"own_key": 9}, then=1)])
    assert [call.tokens_cached for call in told.calls] == [0, 16], (
        "the last token of an answer is never stored"
    )


@ENGINES
def test_a_shared_head_is_hit_in_the_very_step_that_computes_it(build: Build) -> None:
    spec = BatchSpec(DYADIC, 8, 64, 100, 4)
    keys = {"shared_key": 5, "shared_tokens": 9}
    told = play(
        build, spec, [Ask(0.0, 12, 1, keys), Ask(0.0, 12, 1, keys), Ask(0.0, 12, 1, keys | {"shared_key": 6})]
    )
    assert [call.tokens_cached for call in told.calls] == [0, 8, 0]


@ENGINES
def test_a_prompt_known_in_full_computes_its_last_block(build: Build) -> None:
    spec = BatchSpec(DYADIC, 8, 64, 100, 4)
    told = play(build, spec, [Ask(0.0, 12, 1, {"blocks": (7, 8, 9)}), Ask(5.0, 12, 1, {"blocks": (7, 8, 9)})])
    assert [call.tokens_cached for call in told.calls] == [0, 8]


@ENGINES
def test_a_call_that_never_fits_ends_at_its_turn(build: Build) -> None:
    spec = BatchSpec(DYADIC, 1, 64, 4, 4)
    told = play(build, spec, [Ask(0.0, 4, 2), Ask(0.0, 10, 8), Ask(0.0, 4, 1)])
    assert [(number, outcome) for number, _, outcome in told.ends] == [
        (1, Outcome.OK), (2, Outcome.INVALID), (3, Outcome.OK),
    ]  # fmt: skip
    assert told.ends[1][1] == told.ends[0][1]


@ENGINES
def test_the_step_in_progress_keeps_its_speed(build: Build) -> None:
    told = play(build, BatchSpec(DYADIC, 8, 64, 100), [Ask(0.0, 2, 3)], [(0.6, 0.5)])
    assert told.ends[0][1] == 0.5 + 0.3125 + 0.625


@ENGINES
def test_a_cancelled_call_says_what_it_wrote_and_leaves_its_blocks_to_be_hit(build: Build) -> None:
    spec = BatchSpec(DYADIC, 8, 64, 100, 4)
    told = play(build, spec, [Ask(0.0, 8, 9, {"own_key": 3}, 1.9), Ask(5.0, 13, 1, {"own_key": 3})])
    # prefill until 1.25, a decode until 1.5625, another until 1.875
    assert (told.calls[0].written, told.calls[1].tokens_cached) == (3, 8)
    assert [number for number, *_ in told.ends] == [2]


@ENGINES
def test_the_urgent_are_served_first(build: Build) -> None:
    spec = BatchSpec(DYADIC, 1, 64, 100, priority_order=True)
    asks = [Ask(0.0, 2, 2), *(Ask(0.1, 2, 1, {"priority": priority}) for priority in (2, 0, 1))]
    assert [number for number, *_ in play(build, spec, asks).ends] == [1, 3, 4, 2]


def test_looking_changes_nothing_and_few_events_are_asked_for() -> None:
    spec, asks = (
        BatchSpec(StepTime(0.007, 2e-5, 2.5e-5), 64, 2048, 10_000),
        [Ask(i / 8, 256, 256) for i in range(60)],
    )
    quiet = play(BatchEngine, spec, asks)

    class Looked(BatchEngine):
        def __init__(self, environment: Environment, *rest: Any) -> None:
            super().__init__(environment, *rest)
            self.seen = [
                environment.call_at(i / 3, lambda _: self.seen.append(self.look()), None) for i in range(20)
            ]

    assert_same(play(Looked, spec, asks), quiet)
    environment = Environment()
    engine = BatchEngine(environment, spec, lambda _: None, lambda _: None)
    for ask in asks:
        environment.call_at(ask.t_s, lambda each: engine.start(Call(0, each.tokens_in, each.tokens_out)), ask)
    environment.run()
    assert engine.look().steps > 1000
    assert next(environment._eid) < 5 * len(asks)


def test_what_is_seen_adds_up() -> None:
    environment = Environment()
    engine = BatchEngine(environment, BatchSpec(DYADIC, 1, 64, 100, 4), lambda _: None, lambda _: None)
    for number in (1, 2):
        engine.start(Call(number, 7, 9))
    environment.run(until=2.0)
    look = engine.look()
    assert (len(engine), look.running, look.waiting, look.blocks_used) == (2, 1, 1, 3)
    environment.run()
    assert engine.look().blocks_used == 0
    assert engine.look().busy_s == environment.now


def test_bad_input_is_refused_with_a_remedy() -> None:
    engine = BatchEngine(Environment(), BatchSpec(DYADIC, 1, 64, 100, 4), lambda _: None, lambda _: None)
    with pytest.raises(WorldError, match="call 3: 0 tokens in and 5 out; give at least 1"):
        engine.start(Call(3, 0, 5))
    with pytest.raises(WorldError, match="9 shared tokens of 8"):
        engine.start(Call(3, 8, 5, shared_key=1, shared_tokens=9))
    with pytest.raises(WorldError, match="1 blocks for 8 tokens; give a hash for each 4"):
        check_call(Call(3, 8, 5, blocks=(1,)), 4)
    with pytest.raises(WorldError, match=r"speed: 0\.0 cannot be"):
        engine.set_speed(0.0)
    with pytest.raises(WorldError, match="call 4 is not inside"):
        engine.cancel(Call(4, 1, 1))
    with pytest.raises(WorldError, match=r"b1_s: -1\.0 cannot be"):
        BatchSpec(StepTime(0.1, -1.0, 0.0), 1, 1, 1)
    with pytest.raises(
        WorldError, match="kv_blocks: 3 cannot be; give at least 1 more than watermark_blocks"
    ):
        BatchSpec(DYADIC, 1, 1, 3, watermark_blocks=3)
