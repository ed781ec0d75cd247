"""The generator on a clock that jumps: when it sends what, and what it makes of the target's behaviour."""

from __future__ import annotations

import asyncio
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glowsim import build
from glowsim.core.reasons import Code
from glowsim.core.types import Outcome, Usage
from glowsim.load.generator import Heard, TargetError
from glowsim.results import ENDINGS

SIZES = "tokens_in: {law: lognormal, median: 300, sigma: 1}, tokens_out: 20"
WORKLOADS = {
    "poisson": f"{{kind: poisson, rate: 5/s, {SIZES}}}",
    "piecewise": f"{{kind: piecewise, steps: [{{at: 0s, rate: 1/s}}, {{at: 20s, rate: 8/s}}], {SIZES}}}",
    "diurnal": f"{{kind: diurnal, mean: 3/s, amplitude: 80%, period: 40s, {SIZES}}}",
    "bursts": f"{{kind: bursts, base: 1/s, burst: 9/s, every: 20s, lasts: 4s, {SIZES}}}",
    "weekly": f"{{kind: weekly, mean: 3/s, hours: {[1] * 24}, days: {[1] * 7}, {SIZES}}}",
    "preset": "{kind: preset, preset: azure_conv, rate: 4/s}",
    "cacheable": f"{{kind: poisson, rate: 5/s, {SIZES}, cacheable: {{share: 50%, keys: 5}}, agents: law}}",
    "deadline": f"{{kind: poisson, rate: 5/s, {SIZES}, deadline: 9s, users: 7, tenants: 3, priority: 2}}",
    "tasks": f"{{kind: poisson, rate: 5/s, {SIZES}, tasks: 12}}",
    "closed": f"{{kind: closed, users: 6, think: {{law: exponential, mean: 3s}}, {SIZES}}}",
    "sessions": (
        f"{{kind: sessions, arrivals: {{kind: poisson, rate: 1/s}}, turns: {{law: uniform, low: 1, high: 5}}, "
        f"think: {{law: exponential, mean: 2s}}, {SIZES}}}"
    ),
}


def rows_of(made, ending):
    return made.records.rows[made.records.rows["ending"] == ENDINGS.index(ending)]


@pytest.mark.parametrize(
    "kinds", [*([kind] for kind in WORKLOADS), ["poisson", "closed", "sessions"]], ids="+".join
)
def test_the_simulators_requests_are_sent_when_the_simulator_sends_them(stage, kinds):
    """Behind instances that all take 200 ms, closed loops included."""
    scenario = stage.fleet(*(WORKLOADS[kind] for kind in kinds))
    _, expected = stage.simulated(scenario)
    asked = []

    async def ask(call):
        asked.append((asyncio.get_running_loop().time(), call.agent, call.request))
        await asyncio.sleep(0.2)
        return stage.fine

    made = stage.sent(scenario, ask)
    names = list(scenario.agents())
    assert len(asked) > 10
    assert [request for _, _, request in asked] == [
        request._replace(deadline_s=pytest.approx(request.deadline_s)) for _, request, _ in expected
    ]
    assert [agent for _, agent, _ in asked] == [names[request.agent] for _, request, _ in expected]
    assert [t_s for t_s, _, _ in asked] == pytest.approx([t_s for t_s, _, _ in expected])
    rows = made.records.rows
    assert rows["t_arrive_s"].tolist() == pytest.approx([t_s for t_s, _, _ in expected])
    assert np.allclose(rows["t_sent_s"], rows["t_arrive_s"])
    assert len(rows_of(made, "answered")) == len(rows)


def test_another_replication_is_the_simulators_other_one(stage):
    scenario = stage.fleet(WORKLOADS["poisson"])

    async def ask(call):
        return stage.fine

    first, second = (stage.sent(scenario, ask, number=number).records.rows for number in (0, 1))
    assert first["t_arrive_s"][:20].tolist() != second["t_arrive_s"][:20].tolist()
    world = build.replication(scenario, 1).world
    times, arrive = [], world.arrive
    world.arrive = lambda request, truth: (times.append(world.environment.now), arrive(request, truth))
    world.start()
    world.run(90.0)
    assert second["t_arrive_s"].tolist() == pytest.approx(times)


def test_a_target_that_stalls_hides_nothing(stage):
    """Coordinated omission: who was due during the stall has waited from then on."""

    async def ask(call):
        now_s = asyncio.get_running_loop().time()
        await asyncio.sleep(max(30.0 - now_s, 0.0) if now_s >= 20.0 else 0.0)
        return stage.fine

    scenario = stage.fleet(WORKLOADS["poisson"])
    rows = stage.sent(scenario, ask).records.rows
    due_s, latency_s = rows["t_arrive_s"], rows["t_end_s"] - rows["t_arrive_s"]
    stalled = (due_s >= 20.0) & (due_s < 30.0)
    assert stalled.sum() > 20
    assert latency_s[stalled] == pytest.approx(30.0 - due_s[stalled])
    assert latency_s[~stalled] == pytest.approx(np.zeros((~stalled).sum()))


def test_a_bound_on_calls_in_flight_holds_is_counted_and_hides_no_waiting(stage):
    open_now, most = [0], [0]

    async def ask(call):
        open_now[0] += 1
        most[0] = max(most[0], open_now[0])
        await asyncio.sleep(1.0)
        open_now[0] -= 1
        return stage.fine

    scenario = stage.fleet(WORKLOADS["poisson"], timeout="1h")
    made = stage.sent(scenario, ask, most_in_flight=4, drain_s=3600.0)
    rows = made.records.rows
    assert most[0] == made.peak_in_flight == 4
    late = rows["t_sent_s"] > rows["t_arrive_s"] + 1e-9
    assert made.held == late.sum() > 50
    # a queue of four servers that take a second each, first come first served: Lindley by hand
    free, ends = [0.0] * 4, []
    for due_s in rows["t_arrive_s"].tolist():
        i = free.index(min(free))
        free[i] = max(free[i], due_s) + 1.0
        ends.append(free[i])
    assert rows["t_end_s"] == pytest.approx(ends)


@settings(max_examples=25)
@given(users=st.integers(1, 12), answer_s=st.floats(0.0, 5.0), think_s=st.floats(0.1, 5.0))
def test_users_of_a_closed_loop_each_wait_for_their_answer(stage, users, answer_s, think_s):
    work = f"{{kind: closed, users: {users}, think: {think_s:.3f}s, {SIZES}}}"
    inside, most = Counter(), [0]

    async def ask(call):
        inside[call.request.user] += 1
        most[0] = max(most[0], inside.total())
        assert inside[call.request.user] == 1
        await asyncio.sleep(answer_s)
        inside[call.request.user] -= 1
        return stage.fine

    rows = stage.sent(stage.fleet(work), ask).records.rows
    assert most[0] <= users
    of_user = [np.sort(rows["t_arrive_s"][rows["user"] == user]) for user in np.unique(rows["user"])]
    assert len(of_user) == users
    for t_s in of_user:
        assert np.allclose(np.diff(t_s), answer_s + float(f"{think_s:.3f}"))


def test_users_give_up_when_the_scenario_says(stage):
    """By the agent's timeout, or by their own deadline where that is sooner: as in the simulator, both are failures."""

    async def ask(call):
        await asyncio.Event().wait()

    timed_out = stage.sent(stage.fleet(WORKLOADS["poisson"], timeout="5s"), ask)
    rows = rows_of(timed_out, "failed")
    assert len(rows) == len(timed_out.records.rows) > 100
    assert rows["t_end_s"] - rows["t_arrive_s"] == pytest.approx(np.full(len(rows), 5.0))
    assert set(rows["how"]) == {Code.TIMED_OUT}
    assert set(rows["outcome"]) == {Outcome.TIMEOUT}
    left = stage.sent(stage.fleet(WORKLOADS["deadline"]), ask)
    rows = rows_of(left, "failed")
    assert len(rows) == len(left.records.rows)
    assert rows["t_end_s"] - rows["t_arrive_s"] == pytest.approx(np.full(len(rows), 9.0))

    async def blocks(call):
        """Keep the whole loop from noticing: a generator that is too slow itself."""
        loop = asyncio.get_running_loop()
        loop._now_s += 6.0
        return Heard(Outcome.OK, Code.OWN, Usage(9, 0, 3))

    noticed = stage.sent(stage.fleet(WORKLOADS["tasks"], timeout="5s"), blocks)
    assert set(noticed.records.rows["how"]) == {Code.TIMED_OUT}, "an answer that is seen too late is none"
    assert noticed.records.rows["used_out"].max() == 3, "but it is paid for"
    held = stage.sent(stage.fleet(WORKLOADS["poisson"], WORKLOADS["deadline"]), ask, most_in_flight=1)
    never = held.records.rows[np.isnan(held.records.rows["t_sent_s"])]
    given_up = never["ending"] == ENDINGS.index("failed")
    assert given_up.any(), "its user had given up before it could be sent"
    assert set(never["how"][given_up]) == {Code.TIMED_OUT}


def test_it_ends_when_nothing_can_come_any_more_and_else_after_the_drain(stage):
    async def ask(call):
        await asyncio.sleep(0.5)
        return stage.fine

    async def never(call):
        await asyncio.Event().wait()

    soon = stage.sent(stage.fleet(WORKLOADS["tasks"]), ask)
    assert len(soon.records.rows) == 12
    assert soon.took_s == pytest.approx(soon.records.rows["t_end_s"].max())
    closed = stage.sent(stage.fleet(WORKLOADS["closed"]), ask)
    assert 60.0 <= closed.took_s < 61.0
    late = stage.sent(stage.fleet(WORKLOADS["poisson"], timeout="1h"), never)
    assert late.took_s == pytest.approx(90.0)
    assert len(rows_of(late, "open")) == len(late.records.rows)
    cut = stage.sent(stage.fleet(WORKLOADS["poisson"]), ask, until_s=10.0)
    whole = stage.sent(stage.fleet(WORKLOADS["poisson"]), ask)
    n = len(cut.records.rows)
    assert cut.records.rows["t_arrive_s"].tolist() == whole.records.rows["t_arrive_s"][:n].tolist()
    assert whole.records.rows["t_arrive_s"][n] > 10.0
    assert cut.took_s < 11.0


def test_stopping_keeps_what_was_measured(stage):
    scenario = stage.fleet(WORKLOADS["poisson"])

    async def ask(call):
        await asyncio.sleep(1.0)
        return stage.fine

    async def main():
        made = stage.generator(scenario, ask)
        asyncio.get_running_loop().call_at(20.0, made.stop)
        return await made.run(), made

    took_s, made = stage.jump(main)
    assert took_s == pytest.approx(20.0)
    assert made.interrupted
    due_s = made.records.rows["t_arrive_s"]
    assert due_s.max() <= 20.0
    assert len(rows_of(made, "open")) == (due_s > 19.0).sum() > 0
    assert len(rows_of(made, "answered")) == (due_s <= 19.0).sum() > 0


def test_a_target_that_can_answer_nobody_ends_it_but_not_once_it_has_answered(stage):
    scenario = stage.fleet(WORKLOADS["poisson"])

    async def refuses(call):
        raise TargetError("it wants a key")

    with pytest.raises(TargetError, match="wants a key"):
        stage.sent(scenario, refuses)

    async def later(call):
        if asyncio.get_running_loop().time() > 30.0:
            raise TargetError("it wants a key")
        return stage.fine

    made = stage.sent(scenario, later)
    failed = rows_of(made, "failed")
    assert len(failed) == (made.records.rows["t_arrive_s"] > 30.0).sum() == made.said["it wants a key"]
    assert set(failed["outcome"]) == {Outcome.INVALID}


def test_a_mistake_of_our_own_is_raised(stage):
    async def ask(call):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        stage.sent(stage.fleet(WORKLOADS["poisson"]), ask)


def test_contexts_of_sessions_grow_by_what_the_target_wrote(stage):
    work = "{kind: sessions, arrivals: {kind: poisson, rate: 1/s}, turns: 3, think: 1s, tokens_in: 100, tokens_out: 20}"
    asked = {}

    async def ask(call):
        asked.setdefault(call.request.session, []).append(call)
        return Heard(Outcome.OK, Code.OWN, Usage(call.request.tokens_in, 0, 7))

    stage.sent(stage.fleet(work), ask)
    whole = [calls for calls in asked.values() if len(calls) == 3]
    assert len(whole) > 20
    for calls in whole:
        assert [call.request.tokens_in for call in calls] == [100, 207, 314]
        assert calls[2].text.startswith(calls[1].text)
        assert calls[1].text.startswith(calls[0].text)
    assert len({calls[0].text for calls in whole}) == len(whole)


@pytest.mark.parametrize(
    ("heard", "ending", "outcome", "used"),
    [
        (Heard(Outcome.OK, Code.OWN, Usage(9, 4, 3)), "answered", Outcome.OK, 3),
        (Heard(Outcome.OK, Code.APOLOGY, Usage(9, 0, 3)), "failed", Outcome.ERROR, 3),
        (Heard(Outcome.THROTTLED, Code.LIMITED), "rejected", Outcome.THROTTLED, 0),
        (Heard(Outcome.ERROR, Code.QUEUE_FULL), "rejected", Outcome.ERROR, 0),
        (Heard(Outcome.ERROR, Code.EXHAUSTED), "failed", Outcome.ERROR, 0),
        (Heard(Outcome.UNREACHABLE, Code.BROKEN_STREAM, Usage(9, 0, 1)), "failed", Outcome.UNREACHABLE, 1),
    ],
)
def test_endings(stage, heard, ending, outcome, used):
    async def ask(call):
        return heard

    made = stage.sent(stage.fleet(WORKLOADS["tasks"]), ask)
    rows = rows_of(made, ending)
    assert len(rows) == 12
    assert set(rows["outcome"]) == {outcome}
    assert set(rows["how"]) == {heard.how}
    assert set(rows["used_out"]) == {used}
