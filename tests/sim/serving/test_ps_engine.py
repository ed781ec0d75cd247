"""Processor sharing in token time against the step-by-step engine: equal where it should be, near elsewhere."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glowsim.core.errors import WorldError
from glowsim.core.types import Outcome
from glowsim.presets.serving import serving
from glowsim.sim.environment import Environment
from glowsim.sim.serving.call import Call
from glowsim.sim.serving.ps import PsEngine
from glowsim.sim.serving.steps import BatchSpec, StepTime


def exact_engine() -> Any:
    path = Path(__file__).with_name("naive_batching.py")
    spec = importlib.util.spec_from_file_location("naive_batching_for_ps", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.NaiveEngine


NaiveEngine = exact_engine()
PLAIN = BatchSpec(StepTime(0.01, 1e-5, 2e-4, 1e-7, 1e-9), 64, 8192, 1_500, prefix_caching=False)


class Bench:
    """An engine, and what its calls came to."""

    def __init__(
        self, make: Callable[..., Any] = PsEngine, spec: BatchSpec = PLAIN, at_s: float = 0.0
    ) -> None:
        self.environment = Environment(at_s)
        self.ended: dict[int, float] = {}
        self.streamed: dict[int, float] = {}
        self.engine = make(self.environment, spec, self.done, self.first_token)

    def done(self, call: Call) -> None:
        assert call.number not in self.ended
        self.ended[call.number] = self.environment.now

    def first_token(self, call: Call) -> None:
        assert call.first_token_s == self.environment.now
        assert call.number not in self.ended
        self.streamed[call.number] = self.environment.now

    def start(self, at_s: float, call: Call) -> Call:
        self.environment.call_at(at_s, self.engine.start, call)
        return call

    def cancel(self, at_s: float, call: Call) -> None:
        self.environment.call_at(at_s, self.engine.cancel, call)

    def speed(self, at_s: float, speed: float) -> None:
        self.environment.call_at(at_s, self.engine.set_speed, speed)

    def run(self) -> dict[int, float]:
        self.environment.run()
        assert len(self.engine) == 0
        return self.ended


# --- exact where it should be -------------------------------------------------------------------------


def test_a_call_alone_takes_its_prefill_and_a_step_for_each_further_token() -> None:
    """One step of 0.01 + 1e-5 * 1000 + 1e-9 * 500,000, then two with 1,000 and 1,001 tokens of context."""
    bench = Bench()
    call = bench.start(3.0, Call(1, 1000, 3))
    first_s = 3.0 + 0.01 + 0.01 + 0.0005
    assert bench.run() == pytest.approx({1: first_s + 2 * (0.01 + 2e-4) + 1e-7 * 2001})
    assert call.first_token_s == pytest.approx(first_s)
    assert (call.written, call.outcome) == (3, Outcome.OK)


# From 2 tokens on: the exact engine counts a prompt of one as a sequence that decodes.
lengths = st.lists(st.tuples(st.integers(2, 100), st.integers(1, 60)), min_size=1, max_size=40)


@settings(max_examples=40)
@given(lengths, st.sets(st.integers(0, 39)))
def test_those_that_come_together_end_when_the_exact_engine_ends_them(
    rows: list[tuple[int, int]], streaming: set[int]
) -> None:
    """Their prompts fill one step at most, so nothing is approximate: 1e-9, first tokens as well."""
    benches = [Bench(PsEngine), Bench(NaiveEngine)]
    calls = [
        [
            bench.start(1.0, Call(i, tokens_in, tokens_out, stream=i in streaming))
            for i, (tokens_in, tokens_out) in enumerate(rows)
        ]
        for bench in benches
    ]
    ps, exact = (bench.run() for bench in benches)
    assert ps == pytest.approx(exact, rel=1e-9)
    assert [call.first_token_s for call in calls[0]] == pytest.approx(
        [call.first_token_s for call in calls[1]]
    )
    assert benches[0].streamed.keys() == {i for i in streaming if i < len(rows)}
    assert benches[0].streamed == pytest.approx(benches[1].streamed, rel=1e-9)


GROWING = BatchSpec(StepTime(0.001, 1e-5, 2e-4, 1e-6, 1e-9), 64, 8192, 1_500, prefix_caching=False)
"""Steps that the context makes longer, from token to token."""


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.integers(2, 250), st.integers(1, 60), st.integers(0, 400)), min_size=1, max_size=30)
)
def test_arrivals_at_any_moment_end_when_the_exact_engine_ends_them(
    rows: list[tuple[int, int, int]],
) -> None:
    """Whoever comes within a step joins the next one in both, wherever in the step that is (but for ties to 1e-9)."""
    benches = [Bench(make, GROWING) for make in (PsEngine, NaiveEngine)]
    calls = [
        [bench.start(at * 0.0013579, Call(i, tokens_in, out)) for i, (tokens_in, out, at) in enumerate(rows)]
        for bench in benches
    ]
    ps, exact = (bench.run() for bench in benches)
    assert ps == pytest.approx(exact, rel=1e-9)
    assert [call.first_token_s for call in calls[0]] == pytest.approx(
        [call.first_token_s for call in calls[1]]
    )


def test_a_prompt_longer_than_a_step_takes_several_and_the_others_write_on() -> None:
    """20,000 tokens in steps of 8,192 less one that decodes: three steps, in each of which the other writes."""
    ps, exact = Bench(PsEngine), Bench(NaiveEngine)
    for bench in (ps, exact):
        bench.start(0.0, Call(1, 100, 50))
        bench.start(0.105, Call(2, 20_000, 2))
    assert ps.run() == pytest.approx(exact.run(), rel=0.02)
    prefill_s = 20_000 * 1e-5 + 1e-9 * 20_000**2 / 2
    assert prefill_s + 0.1 < ps.ended[2] < prefill_s + 0.2


def test_a_step_that_a_prompt_fills_to_the_last_token_takes_no_other() -> None:
    bench = Bench()
    bench.start(0.0, Call(1, 100, 50))
    fills = bench.start(0.001, Call(2, 16_384, 2))
    follows = bench.start(0.002, Call(3, 5000, 2))
    bench.run()
    assert follows.first_token_s - fills.first_token_s > 5000 * 1e-5


def test_at_a_million_seconds_time_does_not_stand_still() -> None:
    quick = BatchSpec(StepTime(1e-10, 0.0, 0.0), 64, 8192, 25_000)
    bench = Bench(spec=quick, at_s=1e6)
    for number in range(5):
        bench.start(1e6, Call(number, 10, 1 + number, stream=True))
    calls = 0
    while bench.environment._queue:
        bench.environment.step()
        calls += 1
        assert calls < 100, "the clock stands still"
    assert sorted(bench.ended) == sorted(bench.streamed) == list(range(5))


# --- near elsewhere -----------------------------------------------------------------------------------


class Errors(NamedTuple):
    """Relative, of means and 99th percentiles over the calls but the first tenth."""

    end: float
    end_p99: float
    first: float
    first_p99: float


def errors(preset: str, tokens_in: int, tokens_out: int, load: float, n: int) -> Errors:
    chosen = serving(preset)
    b, kv_tokens = chosen.coefficients, chosen.kv_tokens
    spec = BatchSpec(
        StepTime(b.b0_s, b.b1_s, b.b2_s, b.b3_s, b.b4_s), 256, 2048, kv_tokens // 16, prefix_caching=False
    )
    context = tokens_in + tokens_out / 2
    token_s = b.b0_s / min(256, kv_tokens / context) + b.b2_s + b.b3_s * context
    rate_per_s = load / (b.b1_s * tokens_in + b.b4_s * tokens_in**2 / 2 + tokens_out * token_s)
    generator = np.random.default_rng(1)
    at_s = np.cumsum(generator.exponential(1 / rate_per_s, n))
    prompts = np.maximum(1, generator.lognormal(np.log(tokens_in) - 0.18, 0.6, n)).astype(int)
    answers = np.maximum(1, generator.exponential(tokens_out, n)).astype(int)
    seen = []
    for make in (PsEngine, NaiveEngine):
        bench = Bench(make, spec)
        calls = [
            bench.start(t_s, Call(i, int(a), int(o)))
            for i, (t_s, a, o) in enumerate(zip(at_s, prompts, answers, strict=True))
        ]
        ended = bench.run()
        kept = range(n // 10, n)
        end_s = np.array([ended[i] - at_s[i] for i in kept])
        first_s = np.array([calls[i].first_token_s - at_s[i] for i in kept])
        seen.append([end_s.mean(), np.quantile(end_s, 0.99), first_s.mean(), np.quantile(first_s, 0.99)])
    return Errors(*(np.array(seen[0]) / np.array(seen[1]) - 1.0).tolist())


KINDS = {"chat": (256, 256), "agent": (900, 120), "summarising": (4096, 512)}
BANDS = {  # the table of the engine's docstring, as shares
    "chat": Errors(1e-4, 1e-4, 0.001, 0.002),
    "agent": Errors(0.001, 0.002, 0.012, 0.02),
    "summarising": Errors(0.005, 0.004, 0.004, 0.02),
}


@pytest.mark.campaign
@pytest.mark.parametrize("load", [0.3, 0.6, 0.85])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("preset", ["llama-3.3-70b-h100-tp4", "qwen2.5-7b-h100-tp1"])
def test_the_stated_errors(preset: str, kind: str, load: float) -> None:
    found = errors(preset, *KINDS[kind], load, 1500)
    for name, error, most in zip(Errors._fields, found, BANDS[kind], strict=True):
        assert abs(error) < most, f"{name}: {error:+.4%}"


@pytest.mark.parametrize("kind", KINDS)
def test_the_errors_in_short(kind: str) -> None:
    end, _, first, _ = errors("qwen2.5-7b-h100-tp1", *KINDS[kind], 0.6, 400)
    assert abs(end) < 0.005
    assert abs(first) < 0.02


# --- limits -------------------------------------------------------------------------------------------


def test_no_more_than_the_limit_are_inside_and_the_rest_come_in_order() -> None:
    one = BatchSpec(StepTime(0.01, 0.0, 0.0), 1, 8192, 25_000)
    bench = Bench(spec=one)
    for number, tokens_out in ((1, 5), (2, 3), (3, 1)):
        bench.start(0.0, Call(number, 10, tokens_out))
    assert bench.run() == pytest.approx({1: 0.05, 2: 0.08, 3: 0.09})


def test_a_prompt_waits_until_it_fits_beside_the_others() -> None:
    small = BatchSpec(StepTime(0.01, 0.0, 0.0), 64, 8192, 100)  # 1,600 tokens
    bench = Bench(spec=small)
    bench.start(0.0, Call(1, 1000, 10))
    bench.start(0.0, Call(2, 1000, 10))
    bench.start(0.0, Call(3, 100, 1))
    assert bench.run() == pytest.approx({1: 0.1, 2: 0.2, 3: 0.11})


def test_a_call_that_can_never_fit_is_invalid_and_holds_nobody_up() -> None:
    small = BatchSpec(StepTime(0.01, 0.0, 0.0), 64, 8192, 100)
    bench = Bench(spec=small)
    never = bench.start(0.0, Call(1, 1000, 602))
    just = bench.start(0.0, Call(2, 1000, 601))
    assert bench.run() == pytest.approx({1: 0.0, 2: 6.01})
    assert (never.outcome, never.written, never.first_token_s < 0.0) == (Outcome.INVALID, 0, True)
    assert just.outcome is Outcome.OK


def test_a_call_that_contradicts_itself_is_refused() -> None:
    with pytest.raises(WorldError, match="give at least 1 of each"):
        Bench().engine.start(Call(1, 0, 5))


# --- cancel and speed ---------------------------------------------------------------------------------


def test_cancelled_it_has_written_what_was_out_and_the_others_get_its_share() -> None:
    """Two decode at 0.02 s a step; one leaves within its third step, then 0.01 s."""
    shared = BatchSpec(StepTime(1e-9, 0.0, 0.01), 64, 8192, 25_000)
    bench = Bench(spec=shared)
    gone, stays = bench.start(0.0, Call(1, 10, 9)), bench.start(0.0, Call(2, 10, 5))
    bench.cancel(0.05, gone)  # two steps of 0.02 after the prefill, half of a third
    assert bench.run() == pytest.approx({2: 0.05 + 0.5 * 0.01 + 0.01}, rel=1e-6)
    assert (gone.written, stays.written) == (3, 5)


@pytest.mark.parametrize(("at_s", "written"), [(0.004, 0), (0.015, 1), (0.0499, 4)])
def test_what_a_cancelled_call_has_written(at_s: float, written: int) -> None:
    bench = Bench(spec=BatchSpec(StepTime(0.01, 0.0, 0.0), 64, 8192, 25_000))
    call = bench.start(0.0, Call(1, 10, 5))
    bench.cancel(at_s, call)
    assert bench.run() == {}
    assert call.written == written


def test_cancelled_while_it_waits_it_leaves_the_queue_to_the_next() -> None:
    bench = Bench(spec=BatchSpec(StepTime(0.01, 0.0, 0.0), 1, 8192, 25_000))
    bench.start(0.0, Call(1, 10, 5))
    waits = bench.start(0.0, Call(2, 10, 5))
    bench.start(0.0, Call(3, 10, 5))
    bench.cancel(0.01, waits)
    assert bench.run() == pytest.approx({1: 0.05, 3: 0.1})
    assert waits.written == 0


def test_cancelled_in_its_prefill_it_writes_nothing_and_does_not_stream() -> None:
    bench = Bench()
    gone = bench.start(0.0, Call(1, 8000, 50, stream=True))
    bench.start(0.001, Call(2, 100, 5, stream=True))
    bench.cancel(0.002, gone)
    assert list(bench.run()) == [2]
    assert list(bench.streamed) == [2]
    assert gone.written == 0


def test_one_that_leaves_in_its_prefill_does_not_count_among_those_that_write() -> None:
    """Steps take 0.01 s for each call that writes: nine of one, whatever the other had in mind."""
    bench = Bench(spec=BatchSpec(StepTime(1e-9, 0.0, 0.01), 64, 8192, 25_000))
    bench.start(0.0, Call(1, 10, 10))
    gone = bench.start(0.025, Call(2, 10, 50))
    bench.cancel(0.026, gone)
    assert bench.run() == pytest.approx({1: 0.09}, rel=1e-6)


def test_after_all_have_left_the_next_finds_an_idle_engine() -> None:
    bench = Bench()
    gone = bench.start(0.0, Call(1, 8000, 50))
    bench.cancel(0.002, gone)
    bench.start(1.0, Call(2, 1000, 1))
    assert bench.run() == pytest.approx({2: 1.0 + 0.01 + 0.01 + 0.0005})


def test_at_half_the_speed_what_is_left_takes_twice_as_long() -> None:
    bench = Bench(spec=BatchSpec(StepTime(0.01, 0.0, 0.0), 64, 8192, 25_000))
    bench.start(0.0, Call(1, 10, 10))
    bench.speed(0.05, 0.5)
    bench.speed(0.09, 1.0)
    assert bench.run() == pytest.approx({1: 0.05 + 0.04 + 0.03})


@settings(max_examples=80)
@given(
    st.lists(st.tuples(st.floats(0.0, 1.0), st.integers(1, 3000), st.integers(1, 40)), min_size=1, max_size=25),
    st.lists(st.tuples(st.floats(0.0, 1.5), st.integers(0, 24)), max_size=6),
    st.lists(st.tuples(st.floats(0.0, 1.5), st.sampled_from([0.25, 0.5, 1.0])), max_size=3),
)  # fmt: skip
def test_whatever_happens_each_call_ends_once_or_is_cancelled(
    rows: list[tuple[float, int, int]], cancels: list[tuple[float, int]], speeds: list[tuple[float, float]]
) -> None:
    tight = BatchSpec(StepTime(0.01, 1e-5, 2e-4, 1e-7, 1e-9), 8, 2048, 400)
    bench = Bench(spec=tight)
    calls = [bench.start(at_s, Call(i, a, o, stream=i % 2 == 0)) for i, (at_s, a, o) in enumerate(rows)]
    dropped: set[int] = set()

    def drop(i: int) -> None:
        if i < len(rows) and rows[i][0] < bench.environment.now and i not in bench.ended and i not in dropped:
            dropped.add(i)
            bench.engine.cancel(calls[i])

    for at_s, i in cancels:
        bench.environment.call_at(at_s, drop, i)
    for at_s, speed in speeds:
        bench.speed(at_s, speed)
    ended = bench.run()
    assert ended.keys() | dropped == set(range(len(rows)))
    assert not ended.keys() & dropped
    for i, t_s in ended.items():
        call = calls[i]
        assert (call.written == call.tokens_out) is (call.outcome is Outcome.OK)
        if call.outcome is Outcome.OK:
            assert rows[i][0] < call.first_token_s <= t_s
