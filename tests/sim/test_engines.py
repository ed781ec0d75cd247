"""What an instance does with its work: who is served when, what a cancel and a change of speed leave behind."""

from __future__ import annotations

from collections.abc import Callable
from math import fsum

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glowsim.core.types import Outcome
from glowsim.sim.environment import Environment
from glowsim.sim.serving.engine import Engine, Job
from glowsim.sim.serving.fcfs import FcfsEngine
from glowsim.sim.serving.shared import SharedEngine

HAIR = 1e-9


class Bench:
    """An engine, and when its jobs ended and began to stream."""

    def __init__(self, concurrency: int, slowdown: float | None = None, at_s: float = 0.0) -> None:
        self.environment = Environment(at_s)
        self.ended: list[tuple[int, float]] = []
        self.streaming: list[tuple[int, float]] = []
        self.jobs: list[Job] = []
        self.engine: Engine
        if slowdown is None:
            self.engine = FcfsEngine(self.environment, concurrency, self.done)
        else:
            self.engine = SharedEngine(self.environment, concurrency, slowdown, self.done, self.first_token)

    def done(self, job: Job) -> None:
        self.jobs.remove(job)
        self.ended.append((job.attempt, self.environment.now))

    def first_token(self, job: Job) -> None:
        self.streaming.append((job.attempt, self.environment.now))

    def job(self, attempt: int, work_s: float, prefill_s: float = 0.0, *, stream: bool = False) -> Job:
        return Job(attempt, attempt, 0, work_s, prefill_s, 900, 40, Outcome.OK, stream)

    def start(self, at_s: float, job: Job) -> Job:
        def begin(_: None) -> None:
            self.jobs.append(job)
            self.engine.start(job)

        self.environment.call_at(at_s, begin, None)
        return job

    def cancel(self, at_s: float, job: Job) -> None:
        def drop(_: None) -> None:
            self.jobs.remove(job)
            self.engine.cancel(job)

        self.environment.call_at(at_s, drop, None)

    def speed(self, at_s: float, speed: float) -> None:
        self.environment.call_at(at_s, lambda _: self.engine.set_speed(speed, list(self.jobs)), None)

    def run(self) -> dict[int, float]:
        self.environment.run()
        assert len(self.engine) == 0
        return dict(self.ended)


def both(concurrency: int) -> list[Bench]:
    """Return a station and a shared instance that does not slow down: with equal jobs they are one and the same."""
    return [Bench(concurrency), Bench(concurrency, 0.0)]


# --- order and pace -----------------------------------------------------------------------------------


@pytest.mark.parametrize("bench", both(2))
def test_the_third_job_waits_for_the_first_to_end(bench: Bench) -> None:
    for attempt, work_s in ((1, 2.0), (2, 5.0), (3, 1.0), (4, 1.0)):
        bench.start(0.0, bench.job(attempt, work_s))
    assert bench.run() == {1: 2.0, 3: 3.0, 4: 4.0, 2: 5.0}


def test_shared_jobs_slow_each_other_while_they_overlap() -> None:
    """With slowdown 1 two jobs run at half speed: the first has 1 s alone, then its second one takes 2 s."""
    bench = Bench(2, 1.0)
    bench.start(0.0, bench.job(1, 2.0))
    bench.start(1.0, bench.job(2, 2.0))
    assert bench.run() == pytest.approx({1: 3.0, 2: 4.0})


def test_a_streaming_job_tells_when_its_prefill_is_done() -> None:
    bench = Bench(2, 1.0)
    bench.start(0.0, bench.job(1, 4.0, 1.0, stream=True))
    bench.start(0.0, bench.job(2, 4.0, 1.0))
    bench.start(0.5, bench.job(3, 2.0, 0.5, stream=True))
    assert bench.run() == pytest.approx({1: 8.0, 2: 8.0, 3: 10.0})
    assert bench.streaming == [(1, pytest.approx(2.0)), (3, pytest.approx(8.5))]


def test_a_prefill_that_is_the_whole_work_streams_before_it_ends() -> None:
    bench = Bench(1, 0.0)
    order: list[str] = []
    bench.engine = SharedEngine(
        bench.environment, 1, 0.0, lambda job: order.append("end"), lambda job: order.append("first token")
    )
    bench.engine.start(bench.job(1, 2.0, 2.0, stream=True))
    bench.environment.run()
    assert order == ["first token", "end"]


# --- cancel -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bench", both(1))
def test_cancelled_in_service_a_job_leaves_its_place_to_the_next(bench: Bench) -> None:
    gone = bench.start(0.0, bench.job(1, 4.0))
    bench.start(0.0, bench.job(2, 2.0))
    bench.cancel(1.0, gone)
    assert bench.run() == {2: 3.0}
    assert gone.progress == pytest.approx(0.25)


@pytest.mark.parametrize("bench", both(1))
def test_cancelled_in_the_backlog_a_job_was_never_there(bench: Bench) -> None:
    bench.start(0.0, bench.job(1, 4.0))
    gone = bench.job(2, 2.0)
    gone.progress = 0.0
    bench.start(0.0, gone)
    bench.start(0.0, bench.job(3, 1.0))
    bench.cancel(1.0, gone)
    assert bench.run() == {1: 4.0, 3: 5.0}
    assert gone.progress == 0.0


def test_a_cancel_gives_the_others_their_speed_back() -> None:
    bench = Bench(2, 1.0)
    bench.start(0.0, bench.job(1, 2.0))
    gone = bench.start(0.0, bench.job(2, 9.0, 8.0, stream=True))
    bench.cancel(2.0, gone)
    assert bench.run() == pytest.approx({1: 3.0})
    assert gone.progress == pytest.approx(1 / 9)
    assert bench.streaming == []


@pytest.mark.parametrize("bench", both(2))
def test_an_instance_that_lost_everything_works_as_if_new(bench: Bench) -> None:
    """A crash cancels all, the last first; what comes later knows nothing of it."""
    lost = [bench.start(0.0, bench.job(attempt, 5.0)) for attempt in (1, 2, 3)]
    lost[2].progress = 0.0
    for job in reversed(lost):
        bench.cancel(1.0, job)
    bench.start(10.0, bench.job(4, 2.0))
    bench.start(10.0, bench.job(5, 3.0))
    bench.start(11.0, bench.job(6, 3.0))
    assert bench.run() == {4: 12.0, 5: 13.0, 6: 15.0}
    assert [job.progress for job in lost] == pytest.approx([0.2, 0.2, 0.0])


# --- speed --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bench", both(1))
def test_a_slower_instance_stretches_what_is_left_and_a_restored_one_shrinks_it(bench: Bench) -> None:
    """Half a second of work at full speed, 1 s of work in 4 s at a quarter, the last half second at full."""
    bench.start(0.0, bench.job(1, 2.0))
    bench.speed(0.5, 0.25)
    bench.start(1.0, bench.job(2, 1.0))
    bench.speed(4.5, 1.0)
    assert bench.run() == pytest.approx({1: 5.0, 2: 6.0})


@pytest.mark.parametrize("bench", both(1))
def test_a_job_that_begins_while_it_is_slow_is_slow(bench: Bench) -> None:
    bench.speed(0.0, 0.5)
    bench.start(1.0, bench.job(1, 2.0))
    bench.start(1.0, bench.job(2, 1.0))
    assert bench.run() == pytest.approx({1: 5.0, 2: 7.0})


# --- invariants ---------------------------------------------------------------------------------------

arrivals = st.lists(
    st.tuples(st.floats(0.0, 20.0), st.floats(0.01, 5.0)), min_size=1, max_size=25
).map(sorted)  # fmt: skip


def finish_by_steps(
    jobs: list[tuple[float, float]], concurrency: int, rate: Callable[[int], float]
) -> dict[int, float]:
    """Return when each job ends, by walking from change to change: the specification of both engines."""
    left: dict[int, float] = {}
    waiting: list[int] = []
    ended: dict[int, float] = {}
    now_s, coming = 0.0, 0
    while len(ended) < len(jobs):
        pace = rate(len(left)) if left else 1.0
        next_end_s = min((now_s + work_s / pace for work_s in left.values()), default=float("inf"))
        next_s = min(next_end_s, jobs[coming][0]) if coming < len(jobs) else next_end_s
        left = {i: work_s - (next_s - now_s) * pace for i, work_s in left.items()}
        now_s = next_s
        for i in [i for i, work_s in left.items() if work_s <= HAIR]:
            ended[i] = now_s
            del left[i]
        while coming < len(jobs) and jobs[coming][0] <= now_s:
            waiting.append(coming)
            coming += 1
        while waiting and len(left) < concurrency:
            i = waiting.pop(0)
            left[i] = jobs[i][1]
    return ended


@settings(max_examples=80, deadline=None, derandomize=True)
@given(arrivals, st.integers(1, 5), st.floats(0.0, 2.0))
def test_shared_service_is_what_a_walk_from_change_to_change_gives(
    jobs: list[tuple[float, float]], concurrency: int, slowdown: float
) -> None:
    bench = Bench(concurrency, slowdown)
    for i, (at_s, work_s) in enumerate(jobs):
        bench.start(at_s, bench.job(i, work_s))
    expected = finish_by_steps(jobs, concurrency, lambda n: 1.0 / (1.0 + slowdown * (n - 1)))
    assert bench.run() == pytest.approx(expected, rel=1e-6)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(arrivals, st.integers(1, 5))
def test_the_station_is_what_a_walk_from_change_to_change_gives(
    jobs: list[tuple[float, float]], concurrency: int
) -> None:
    bench = Bench(concurrency)
    for i, (at_s, work_s) in enumerate(jobs):
        bench.start(at_s, bench.job(i, work_s))
    assert bench.run() == pytest.approx(finish_by_steps(jobs, concurrency, lambda n: 1.0), rel=1e-6)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(arrivals, st.sampled_from([None, 0.0]), st.data())
def test_one_server_does_all_the_work_that_it_was_given_and_never_idles(
    jobs: list[tuple[float, float]], slowdown: float | None, data: st.DataObject
) -> None:
    """Work conservation, with a cancel and a slow spell: a single server is free exactly when there is nothing."""
    bench = Bench(1, slowdown)
    started = [bench.start(at_s, bench.job(i, work_s)) for i, (at_s, work_s) in enumerate(jobs)]
    for job in started:
        job.progress = 0.0
    last_s = jobs[-1][0]
    victim = started[data.draw(st.integers(0, len(jobs) - 1))]
    bench.environment.call_at(last_s, lambda _: victim in bench.jobs and _drop(bench, victim), None)
    ended = bench.run()
    served = [work_s for i, (_, work_s) in enumerate(jobs) if i in ended]
    given_up = 0.0 if victim.attempt in ended else victim.progress * victim.work_s
    busy_s, free_s = 0.0, 0.0
    for i, (at_s, work_s) in enumerate(jobs):
        work = given_up if i == victim.attempt and victim.attempt not in ended else work_s
        free_s = max(free_s, at_s) + work
        busy_s += work
    assert fsum(served) + given_up == pytest.approx(busy_s)
    if ended and max(ended.values()) > last_s:
        assert max(ended.values()) == pytest.approx(free_s, rel=1e-6)


def _drop(bench: Bench, job: Job) -> None:
    bench.jobs.remove(job)
    bench.engine.cancel(job)


@pytest.mark.parametrize("slowdown", [None, 0.3])
@pytest.mark.parametrize("work_s", [1e-10, 1e-12, 1e-15])
def test_time_does_not_stand_still_before_work_too_short_for_it(
    slowdown: float | None, work_s: float
) -> None:
    """At t = 1e6 s the clock's next number is 1e-10 s away: less work than that must end, not be planned forever."""
    bench = Bench(4, slowdown, at_s=1e6)
    for attempt in range(4):
        bench.start(1e6, bench.job(attempt, work_s * (1 + attempt / 3)))
    bench.start(1e6 + 1.0, bench.job(9, 1.0, work_s, stream=True))
    calls = 0
    while bench.environment._queue:
        bench.environment.step()
        calls += 1
        assert calls < 100, "the clock stands still"
    assert sorted(attempt for attempt, _ in bench.ended) == [0, 1, 2, 3, 9]
    assert dict(bench.ended)[9] == pytest.approx(1e6 + 2.0)


@pytest.mark.parametrize("slowdown", [None, 0.0])
def test_a_job_ends_once_though_its_end_was_set_twice_to_the_same_moment(slowdown: float | None) -> None:
    bench = Bench(1, slowdown)
    bench.start(0.0, bench.job(1, 2.0))
    bench.start(0.0, bench.job(2, 1.0))
    for speed in (0.5, 1.0, 1.0):
        bench.speed(1.0, speed)
    bench.environment.run()
    assert bench.ended == [(1, pytest.approx(2.0)), (2, pytest.approx(3.0))]
    assert len(bench.engine) == 0
