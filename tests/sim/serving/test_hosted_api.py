"""A hosted API as its callers see it: latencies, limits of rate, errors, cached prompts, outages."""

from __future__ import annotations

from itertools import pairwise
from math import inf
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glowsim.core.errors import WorldError
from glowsim.core.streams import uniform_at
from glowsim.core.types import Outcome
from glowsim.presets.hosted import hosted
from glowsim.sim.environment import Environment
from glowsim.sim.laws import Constant, LogNormal, Quantiles, Uniform
from glowsim.sim.serving.call import Call
from glowsim.sim.serving.hosted import HostedApi, HostedSpec, PromptCache
from glowsim.sim.serving.outages import Outage, Timetable

EVEN = HostedSpec(Constant(0.5), Constant(0.01))


class Bench:
    """An API, and what its calls came to."""

    def __init__(self, spec: HostedSpec = EVEN, key: int = 1, timetable: Timetable | None = None) -> None:
        self.environment = Environment()
        self.ended: dict[int, float] = {}
        self.streamed: dict[int, float] = {}
        self.busy = False
        self.api = HostedApi(self.environment, spec, key, self.done, self.first_token, timetable)

    def done(self, call: Call) -> None:
        assert not self.busy, "called back while it was being called"
        assert call.number not in self.ended
        self.ended[call.number] = self.environment.now

    def first_token(self, call: Call) -> None:
        assert not self.busy
        self.streamed[call.number] = self.environment.now

    def start(self, at_s: float, call: Call) -> Call:
        def begin(_: Any) -> None:
            self.busy = True
            self.api.start(call)
            self.busy = False

        self.environment.call_at(at_s, begin, None)
        return call

    def cancel(self, at_s: float, call: Call) -> None:
        self.environment.call_at(at_s, self.api.cancel, call)

    def run(self) -> dict[int, float]:
        self.environment.run()
        assert len(self.api) == 0
        return self.ended


# --- latency ------------------------------------------------------------------------------------------


def test_a_call_takes_its_first_token_and_a_time_for_each_further_one() -> None:
    bench = Bench()
    call = bench.start(2.0, Call(1, 900, 101, stream=True))
    assert bench.run() == pytest.approx({1: 2.0 + 0.5 + 1.0})
    assert bench.streamed == {1: 2.5}
    assert (call.first_token_s, call.written, call.outcome) == (2.5, 101, Outcome.OK)


def test_its_luck_is_a_function_of_the_key_and_its_number_and_of_nothing_else() -> None:
    """The very numbers of `uniform_at`, in whatever order the calls come, and whoever else calls."""
    spec = HostedSpec(Uniform(0.0, 1.0), Uniform(0.0, 0.1))
    numbers = [7, 500, 3, 64, 63, 100_000, 2**40, 8]
    for order in (numbers, numbers[::-1], [64]):
        bench = Bench(spec, key=99)
        calls = {number: bench.start(0.0, Call(number, 10, 11)) for number in order}
        ended = bench.run()
        for number, call in calls.items():
            assert call.first_token_s == pytest.approx(uniform_at(99, number, 0), abs=1e-15)
            assert ended[number] == pytest.approx(call.first_token_s + uniform_at(99, number, 1))
    assert uniform_at(99, 7, 0) != uniform_at(98, 7, 0)


def test_a_measured_provider_comes_back_from_its_preset() -> None:
    preset = hosted("bad")
    spec = HostedSpec(
        Quantiles(preset.quantiles, preset.first_token_s), Quantiles(preset.quantiles, preset.per_token_s)
    )
    bench = Bench(spec)
    calls = [bench.start(float(i), Call(i, 550, 128)) for i in range(20_000)]
    ended = bench.run()
    first_s = np.array([call.first_token_s - i for i, call in enumerate(calls)])
    rest_s = np.array([ended[i] - call.first_token_s for i, call in enumerate(calls)]) / 127
    for p in (0.1, 0.5, 0.9, 0.99):
        at = preset.quantiles.index(p)
        assert np.quantile(first_s, p) == pytest.approx(preset.first_token_s[at], rel=0.06)
        assert np.quantile(rest_s, p) == pytest.approx(preset.per_token_s[at], rel=0.02)
    assert abs(np.corrcoef(first_s, rest_s)[0, 1]) < 0.03


def test_a_lognormal_keeps_its_tail() -> None:
    bench = Bench(HostedSpec(LogNormal(0.5, 1.0), Constant(0.0)))
    calls = [bench.start(0.0, Call(i, 10, 1)) for i in range(20_000)]
    bench.run()
    z = np.log([call.first_token_s / 0.5 for call in calls])
    assert (z.mean(), z.std()) == (pytest.approx(0.0, abs=0.02), pytest.approx(1.0, abs=0.02))
    assert np.quantile(z, 0.999) == pytest.approx(3.09, abs=0.25)


def test_at_half_the_speed_later_calls_take_twice_as_long() -> None:
    bench = Bench()
    bench.start(0.0, Call(1, 10, 101))
    bench.environment.call_at(0.1, bench.api.set_speed, 0.5)
    bench.start(0.2, Call(2, 10, 101))
    assert bench.run() == pytest.approx({1: 1.5, 2: 0.2 + 3.0})


# --- limits of rate -----------------------------------------------------------------------------------


def limited(**keys: Any) -> HostedSpec:
    return HostedSpec(Constant(0.5), Constant(0.0), **keys)


def test_beyond_the_bucket_of_requests_a_call_is_throttled_at_once_and_told_when_to_come() -> None:
    """60 a minute, 3 at once: the fourth waits a second, and half a second later only half of one."""
    bench = Bench(limited(requests_per_min=60.0, burst_s=3.0))
    calls = [bench.start(0.0, Call(i, 10, 1)) for i in range(4)]
    later = bench.start(0.5, Call(4, 10, 1))
    again = bench.start(1.0, Call(5, 10, 1))
    ended = bench.run()
    assert [call.outcome for call in calls] == [Outcome.OK] * 3 + [Outcome.THROTTLED]
    assert (ended[3], calls[3].retry_after_s) == (0.0, pytest.approx(1.0))
    assert (later.outcome, later.retry_after_s) == (Outcome.THROTTLED, pytest.approx(0.5))
    assert again.outcome is Outcome.OK
    assert (calls[3].written, calls[3].first_token_s) == (0, -1.0)


def test_who_comes_when_he_was_told_to_gets_in() -> None:
    bench = Bench(limited(requests_per_min=70.0, tokens_per_min=9_000.0, burst_s=7.0))
    told: list[tuple[float, Call]] = []
    for i in range(300):
        told.append((i * 0.01, bench.start(i * 0.01, Call(i, 100 + i, 1))))
    bench.run()
    throttled = [(t_s, call) for t_s, call in told if call.outcome is Outcome.THROTTLED]
    assert len(throttled) > 100
    t_s, call = throttled[-1]
    again = Bench(limited(requests_per_min=70.0, tokens_per_min=9_000.0, burst_s=7.0))
    for at_s, earlier in told:
        again.start(at_s, Call(earlier.number, earlier.tokens_in, 1))
    on_time = again.start(t_s + call.retry_after_s + 1e-6, Call(1000, call.tokens_in, 1))
    too_early = again.start(t_s + call.retry_after_s - 0.01, Call(1001, call.tokens_in, 1))
    again.run()
    assert (on_time.outcome, too_early.outcome) == (Outcome.OK, Outcome.THROTTLED)


def test_tokens_are_reserved_for_the_answer_and_settled_when_it_is_out() -> None:
    """1,000 in the bucket, 100 + 400 reserved each: two get in; the answers take 50 each, so 700 come back."""
    spec = limited(tokens_per_min=1e-3, burst_s=60e6, reserved_out=400)
    bench = Bench(spec)
    calls = [bench.start(0.0, Call(i, 100, 50)) for i in range(3)]
    after = [bench.start(1.0, Call(10 + i, 100, 50)) for i in range(2)]
    bench.run()
    assert [call.outcome.name for call in calls] == ["OK", "OK", "THROTTLED"]
    assert [call.outcome.name for call in after] == ["OK", "THROTTLED"]


def test_without_a_reserve_answers_are_paid_for_afterwards() -> None:
    """1,000 a minute: a call of 100 that writes 2,000 leaves 1,100 below 0, more than a minute's worth."""
    bench = Bench(limited(tokens_per_min=1000.0))
    bench.start(0.0, Call(1, 100, 2000))
    told = bench.start(0.5, Call(2, 10, 1))
    bench.run()
    assert told.outcome is Outcome.OK  # it came before the answer was out
    bench = Bench(limited(tokens_per_min=1000.0))
    bench.start(0.0, Call(1, 100, 2000))
    told = bench.start(0.6, Call(2, 10, 1))
    bench.run()
    assert told.outcome is Outcome.THROTTLED
    assert told.retry_after_s == pytest.approx((1110 - 10) / 1000 * 60, rel=0.01)


def test_a_prompt_that_no_full_bucket_pays_for_is_invalid() -> None:
    bench = Bench(limited(tokens_per_min=1000.0, burst_s=60.0))
    never, just = bench.start(0.0, Call(1, 1001, 1)), bench.start(0.0, Call(2, 1000, 1))
    bench.run()
    assert (never.outcome, never.retry_after_s) == (Outcome.INVALID, 0.0)
    assert just.outcome is Outcome.OK


def test_what_is_beyond_the_calls_at_once_is_told_to_come_later() -> None:
    bench = Bench(limited(concurrency=2, busy_retry_after_s=3.0))
    calls = [bench.start(0.0, Call(i, 10, 1)) for i in range(4)]
    later = bench.start(0.6, Call(9, 10, 1))
    bench.run()
    assert [call.outcome.name for call in calls] == ["OK", "OK", "THROTTLED", "THROTTLED"]
    assert calls[2].retry_after_s == 3.0
    assert later.outcome is Outcome.OK


def test_all_callers_share_the_limits() -> None:
    """Two agents at 40 calls a minute each against 60 a minute: a quarter of all is throttled."""
    bench = Bench(limited(requests_per_min=60.0, burst_s=10.0))
    calls = [bench.start(i * 0.75, Call(i, 10, 1)) for i in range(4000)]
    bench.run()
    throttled = sum(call.outcome is Outcome.THROTTLED for call in calls)
    assert throttled / 4000 == pytest.approx(0.25, abs=0.01)


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.floats(0.0, 120.0), st.integers(1, 400), st.integers(1, 300)), min_size=1, max_size=60),
    st.floats(10.0, 200.0),
    st.floats(500.0, 5000.0),
    st.floats(6.0, 60.0),
)  # fmt: skip
def test_no_window_lets_in_more_than_its_bucket_and_its_refill(
    rows: list[tuple[float, int, int]], requests: float, tokens: float, burst_s: float
) -> None:
    bench = Bench(limited(requests_per_min=requests, tokens_per_min=tokens, burst_s=burst_s))
    rows = sorted(rows)
    calls = [bench.start(at_s, Call(i, tokens_in, out)) for i, (at_s, tokens_in, out) in enumerate(rows)]
    bench.run()
    let_in = [
        (at_s, tokens_in)
        for (at_s, tokens_in, _), call in zip(rows, calls, strict=True)
        if call.outcome is Outcome.OK
    ]
    for i in range(len(let_in)):
        for j in range(i, len(let_in)):
            window_s = let_in[j][0] - let_in[i][0] + burst_s
            assert j - i + 1 <= requests / 60.0 * window_s * (1 + 1e-6)
            assert sum(tokens_in for _, tokens_in in let_in[i : j + 1]) <= tokens / 60.0 * window_s * (
                1 + 1e-6
            )
    for call in calls:
        assert (call.retry_after_s > 0.0) is (call.outcome is Outcome.THROTTLED)


# --- errors, cancels ----------------------------------------------------------------------------------


def test_the_share_of_errors_is_as_stated_and_each_comes_in_place_of_the_first_token() -> None:
    bench = Bench(HostedSpec(Constant(0.5), Constant(0.01), error=0.2))
    calls = [bench.start(float(i), Call(i, 10, 101, stream=True)) for i in range(10_000)]
    ended = bench.run()
    failed = [i for i, call in enumerate(calls) if call.outcome is Outcome.ERROR]
    assert len(failed) / 10_000 == pytest.approx(0.2, abs=0.015)
    assert all(ended[i] == i + 0.5 and calls[i].written == 0 and i not in bench.streamed for i in failed)
    assert len(bench.streamed) == 10_000 - len(failed)


@pytest.mark.parametrize(("at_s", "written"), [(0.3, 0), (0.5, 1), (0.7, 21), (1.49, 100)])
def test_cancelled_it_has_used_what_was_out(at_s: float, written: int) -> None:
    bench = Bench()
    call = bench.start(0.0, Call(1, 900, 101, stream=True))
    bench.cancel(at_s, call)
    assert bench.run() == {}
    assert call.written == written
    assert bench.streamed == ({1: 0.5} if at_s > 0.5 else bench.streamed)


def test_a_cancelled_call_gives_back_its_place_and_what_it_did_not_write() -> None:
    bench = Bench(
        HostedSpec(
            Constant(0.5), Constant(0.01), tokens_per_min=1e-3, burst_s=60e6, reserved_out=800, concurrency=1
        )
    )
    gone = bench.start(0.0, Call(1, 100, 800))
    bench.cancel(0.1, gone)
    after = bench.start(0.2, Call(2, 100, 1))
    bench.run()
    assert after.outcome is Outcome.OK


# --- prompt cache -------------------------------------------------------------------------------------

CACHED = HostedSpec(Constant(0.5), Constant(0.0), cache=PromptCache(300.0, 1024, 128))


@given(st.integers(0, 5000))
def test_what_is_billed_as_cached_goes_in_steps_beyond_the_least(common: int) -> None:
    billed = PromptCache(300.0, 1024, 128).billed(common)
    assert billed <= common
    assert (
        billed == 0
        if common < 1024
        else (billed >= 1024 and (billed - 1024) % 128 == 0 and common - billed < 128)
    )


def test_a_conversation_finds_its_earlier_prompt_while_the_cache_keeps_it() -> None:
    """2,000 tokens, then 2,600 that begin with them: 1,024 + 7 * 128 = 1,920 are billed as cached."""
    bench = Bench(CACHED)
    first = bench.start(0.0, Call(1, 2000, 100, own_key=7))
    second = bench.start(10.0, Call(2, 2600, 100, own_key=7))
    other = bench.start(11.0, Call(3, 2600, 100, own_key=8))
    kept = bench.start(310.0, Call(4, 2600, 100, own_key=7))
    lost = bench.start(620.0, Call(5, 2600, 100, own_key=7))
    bench.run()
    assert [call.tokens_cached for call in (first, second, other, kept, lost)] == [0, 1920, 0, 2560, 0]


def test_one_that_is_used_again_and_again_keeps_no_other() -> None:
    bench = Bench(CACHED)
    for i, t_s in enumerate((0.0, 200.0, 340.0)):
        bench.start(t_s, Call(i, 2000, 10, own_key=7))
    bench.start(10.0, Call(8, 2000, 10, own_key=8))
    lost = bench.start(350.0, Call(9, 2000, 10, own_key=8))
    bench.run()
    assert lost.tokens_cached == 0


def test_a_prefix_is_there_once_the_first_token_that_followed_it_is_out() -> None:
    bench = Bench(CACHED)
    calls = [bench.start(t_s, Call(i, 2000, 10, own_key=7)) for i, t_s in enumerate((0.0, 0.49, 0.51))]
    bench.run()
    assert [call.tokens_cached for call in calls] == [0, 0, 1920]


def test_everybody_shares_a_head_and_nobody_else_has_the_rest() -> None:
    bench = Bench(CACHED)
    calls = [
        bench.start(float(i), Call(i, 4000, 10, shared_key=5, shared_tokens=1500, own_key=i + 1))
        for i in range(3)
    ]
    calls.append(bench.start(9.0, Call(9, 4000, 10, shared_key=6, shared_tokens=1500, own_key=1)))
    short = bench.start(10.0, Call(10, 4000, 10, shared_key=5, shared_tokens=1000))
    bench.run()
    assert [call.tokens_cached for call in calls] == [0, 1408, 1408, 0]
    assert short.tokens_cached == 0


def test_recorded_prompts_find_the_blocks_that_lead_them() -> None:
    bench = Bench(HostedSpec(Constant(0.5), Constant(0.0), cache=PromptCache(300.0, 1024, 128, 512)))
    bench.start(0.0, Call(1, 2048, 10, blocks=(1, 2, 3, 4)))
    leading = bench.start(1.0, Call(2, 2048, 10, blocks=(1, 2, 3, 9)))
    elsewhere = bench.start(2.0, Call(3, 2048, 10, blocks=(8, 2, 3, 4)))
    bench.run()
    assert (leading.tokens_cached, elsewhere.tokens_cached) == (1536, 0)


def test_cached_tokens_count_against_the_limit_or_not() -> None:
    for counts, outcome in ((True, Outcome.THROTTLED), (False, Outcome.OK)):
        spec = HostedSpec(
            Constant(0.5), Constant(0.0), tokens_per_min=1e-3, burst_s=180e6, counts_cached=counts,
            cache=PromptCache(300.0, 1024, 128),
        )  # fmt: skip
        bench = Bench(spec)
        bench.start(0.0, Call(1, 2000, 1, own_key=7))
        again = bench.start(1.0, Call(2, 2000, 1, own_key=7))
        bench.run()
        assert again.outcome is outcome


def test_a_call_that_fails_leaves_nothing_in_the_cache() -> None:
    bench = Bench(HostedSpec(Constant(0.5), Constant(0.0), error=1.0, cache=PromptCache(300.0, 1024, 128)))
    bench.start(0.0, Call(1, 2000, 1, own_key=7))
    again = bench.start(1.0, Call(2, 2000, 1, own_key=7))
    bench.run()
    assert again.tokens_cached == 0


# --- outages ------------------------------------------------------------------------------------------


def test_an_outage_strikes_its_share_of_the_calls_that_begin_in_it() -> None:
    spec = HostedSpec(Constant(0.5), Constant(0.01), outage_after_s=0.05, requests_per_min=600.0)
    bench = Bench(spec, timetable=Timetable([Outage(100.0, 1000.0, 0.3)]))
    calls = [bench.start(i * 0.11, Call(i, 10, 101)) for i in range(20_000)]
    ended = bench.run()
    struck = [i for i, call in enumerate(calls) if call.outcome is Outcome.ERROR]
    assert all(100.0 <= i * 0.11 < 1100.0 for i in struck)
    assert len(struck) / (1000 / 0.11) == pytest.approx(0.3, abs=0.02)
    assert all(ended[i] == pytest.approx(i * 0.11 + 0.05) for i in struck)
    assert {call.outcome for call in calls} == {Outcome.OK, Outcome.ERROR}


def test_what_is_under_way_when_it_begins_goes_on() -> None:
    bench = Bench(timetable=Timetable([Outage(1.0, 10.0, 1.0)]))
    before, during, after = (bench.start(t_s, Call(i, 10, 201)) for i, t_s in enumerate((0.9, 1.0, 11.0)))
    bench.run()
    assert [call.outcome for call in (before, during, after)] == [Outcome.OK, Outcome.ERROR, Outcome.OK]


def test_more_outage_only_strikes_more_calls() -> None:
    """The luck of a call does not change with the share: paired runs differ by the outage alone."""
    struck = []
    for share in (0.1, 0.3, 0.9):
        bench = Bench(timetable=Timetable([Outage(0.0, inf, share)]))
        calls = [bench.start(0.0, Call(i, 10, 1)) for i in range(500)]
        bench.run()
        struck.append({call.number for call in calls if call.outcome is Outcome.ERROR})
    assert all(less < more for less, more in pairwise(struck))


# --- bounds -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"requests_per_min": 0.0}, "a limit must be above 0, or None"),
        ({"tokens_per_min": -1.0}, "a limit must be above 0, or None"),
        ({"concurrency": 0}, "a limit must be above 0, or None"),
        ({"burst_s": 0.0}, "a limit must be above 0, or None"),
        ({"error": 1.1}, "error is a share"),
        ({"reserved_out": -1}, "nothing is below 0"),
        ({"requests_per_min": 6.0, "burst_s": 5.0}, "never make one in 5.0 s: give a longer burst_s"),
    ],
)
def test_what_cannot_be_is_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(WorldError, match=message):
        limited(**keys)


def test_a_cache_that_cannot_be_is_refused() -> None:
    for row in ((0.0, 1024, 128), (1.0, 0, 128), (1.0, 1024, 0), (1.0, 1024, 128, 0)):
        with pytest.raises(WorldError, match="give a time above 0 and at least 1 token"):
            PromptCache(*row)
