"""The checker, invariant by invariant: a few records that break one, and their like that break none."""

from __future__ import annotations

from math import inf

import pytest

from glowsim import build
from glowsim.core.checker import Checker, Facts, check, ledger, repeats, replays, restores, wakes
from glowsim.core.journal import Effected, Journal
from glowsim.core.price import Price
from glowsim.core.streams import Streams
from glowsim.core.types import (
    Abandoned,
    Answer,
    Arrived,
    Cancel,
    Code,
    Dispatch,
    Effect,
    Fail,
    Finished,
    FirstToken,
    Forget,
    InstanceChanged,
    Outcome,
    Plan,
    Reason,
    Reject,
    Request,
    Scale,
    State,
    Usage,
    Woke,
)
from glowsim.scenario import Scenario

FACTS = Facts(slots=1, timeout_s=10.0, cancel_grace_s=5.0, follower_limit=2, queue_limit=3)

USED = Usage(100, 0, 7)


def ready(t_s, *numbers):
    return [InstanceChanged(t_s, 0, number, State.READY) for number in numbers]


def arrive(t_s, number, **more):
    return Arrived(t_s, Request(number, 0, 100, 50, **more))


def dispatch(attempt, request_id, instance=0, code=Code.ARRIVED):
    return Dispatch(attempt, request_id, instance, Plan(0, 0, 100, 50), Reason(code))


def finish(t_s, attempt, outcome=Outcome.OK, usage=USED):
    return Finished(t_s, attempt, outcome, usage)


def cancel(attempt):
    return Cancel(attempt, Reason(Code.TIMED_OUT))


def answer(request_id, source, code=Code.OWN, keep=False):
    return Answer(request_id, source, Reason(code), keep)


def reject(request_id):
    return Reject(request_id, 0.0, Reason(Code.QUEUE_FULL))


def fail(request_id, outcome=Outcome.ERROR):
    return Fail(request_id, outcome, Reason(Code.EXHAUSTED))


def scale(want, victims=(), code=Code.LOAD_LOW):
    return Scale(0, 0, 0, want, tuple(victims), Reason(code))


def held(records, end_s=None, **facts):
    """Return what is wrong with records; each command is done at once, unless effects are among them."""
    checker = Checker([FACTS._replace(**facts)])
    commands, now_s, settled = 0, 0.0, any(isinstance(record, Effected) for record in records)
    for record in records:
        if isinstance(record, Effected):
            checker.effect(record)
        elif hasattr(record, "t_s"):
            now_s = max(now_s, record.t_s)
            checker.event(record)
        else:
            checker.command(record, commands)
            commands += 1
    if commands and not settled:
        checker.effect(Effected(now_s, 0, commands, Effect.DONE))
    checker.end(now_s if end_s is None else end_s)
    return [(each.invariant, each.number) for each in checker.violations]


ONE = [*ready(0.0, 0), arrive(1.0, 1), dispatch(1, 1)]
DONE = [*ONE, finish(2.0, 1), answer(1, 1)]
FULL = [*ONE, arrive(2.0, 2)]
LATE = [*ONE, Woke(11.0), cancel(1), fail(1, Outcome.TIMEOUT)]
LED = [*ready(0.0, 0), arrive(1.0, 1, cache_key=9), dispatch(1, 1), arrive(1.5, 2, cache_key=9)]
SESSION = [*ready(0.0, 0, 1), arrive(1.0, 1, session=5), dispatch(1, 1, 0), finish(2.0, 1), answer(1, 1)]


@pytest.mark.parametrize(
    ("records", "facts"),
    [
        (DONE, {}),
        (FULL, {}),
        ([*FULL, finish(3.0, 1), answer(1, 1), dispatch(2, 2, code=Code.QUEUED)], {}),
        ([*LATE, finish(12.0, 1, Outcome.CANCELLED)], {}),
        ([*LATE, arrive(17.0, 2), dispatch(2, 2), finish(18.0, 1, Outcome.CANCELLED)], {}),  # the lease is over
        ([*ONE, finish(2.0, 1, Outcome.ERROR), Woke(3.0), dispatch(2, 1, code=Code.RETRIED)], {}),
        ([*ready(0.0, 0, 1), arrive(1.0, 1), dispatch(1, 1), Woke(2.0), dispatch(2, 1, 1)], {"hedges": 1}),
        ([*LED, finish(2.0, 1), answer(1, 1, keep=True), answer(2, 1, Code.JOINED, keep=True), Woke(3.0), Forget(1)],
         {"caches": True}),
        ([*ready(0.0, 0, 1), *LED[1:]], {"caches": True}),  # room, and it has joined
        ([*ready(0.0, 0), arrive(1.0, 1)], {"hold_limit": 1}),  # room, and it is held
        ([*ONE, Abandoned(2.0, 1), cancel(1), arrive(3.0, 2), finish(4.0, 1, Outcome.CANCELLED), dispatch(2, 2)], {}),
        ([*ready(0.0, 0, 1), Woke(1.0), scale(1, [1]), InstanceChanged(1.0, 0, 1, State.GONE)], {"min_instances": 1}),
        ([*ready(0.0, 0), arrive(1.0, 1), dispatch(1, 1), InstanceChanged(1.0, 0, 0, State.FAILED)], {}),
        # a timer that was due before the failure may still have used the instance
        ([*ready(0.0, 0, 1), InstanceChanged(1.0, 0, 0, State.FAILED), *ready(1.0, 0), arrive(2.0, 1), dispatch(1, 1)],
         {}),
        ([*ONE, finish(2.0, 1, usage=Usage()), answer(1, 1)], {"metered": False}),
        (SESSION, {"affinity": True}),
        ([*SESSION, arrive(3.0, 2, session=5), dispatch(2, 2, 0), arrive(4.0, 3, session=5), dispatch(3, 3, 1)],
         {"affinity": True}),  # its home was full
    ],
)  # fmt: skip
def test_what_may_be_is_not_held_against_anybody(records, facts):
    assert held(records, **facts) == []


@pytest.mark.parametrize(
    ("records", "facts", "broken"),
    [
        ([*DONE, Woke(3.0), answer(1, 1, Code.CACHED)], {}, {"I1", "I14"}),  # twice, and from nothing
        ([*DONE, Woke(3.0), fail(1)], {}, {"I1"}),
        ([*ONE, Woke(2.0), reject(1)], {}, {"I1", "I3"}),
        ([*FULL, arrive(3.0, 2)], {}, {"I1"}),
        ([*ready(0.0, 0), Woke(1.0), dispatch(1, 7)], {}, {"I1"}),
        ([*ONE, finish(2.0, 1), Woke(3.0)], {}, {"I1"}),
        ([*FULL, Woke(12.5)], {}, {"I1"}),
        ([*ready(0.0, 0), arrive(1.0, 1, deadline_s=2.0), dispatch(1, 1), Woke(3.0)], {}, {"I1"}),
        ([*ONE, Woke(0.5)], {}, {"I2"}),
        ([*ready(0.0, 0, 1), arrive(1.0, 1), dispatch(1, 1), Woke(2.0), dispatch(2, 1, 1)], {}, {"I3"}),
        ([*ONE, FirstToken(2.0, 1), finish(3.0, 1, Outcome.ERROR), Woke(4.0), dispatch(2, 1)], {}, {"I3"}),
        ([*ONE, Abandoned(2.0, 1)], {}, {"I3"}),
        ([*ready(0.0, 0), arrive(1.0, 1)], {}, {"I4"}),
        ([*FULL, finish(3.0, 1), answer(1, 1)], {}, {"I4"}),
        ([*FULL, *ready(3.0, 1)], {}, {"I4"}),
        ([*LED, finish(2.0, 1), answer(1, 1)], {"caches": True}, {"I4"}),  # a joiner left behind
        ([*ready(0.0, 0), arrive(1.0, 1), Woke(1.5), arrive(9.0, 2)], {"gate_s": 5.0}, {"I4"}),
        ([*LATE, arrive(16.5, 2)], {}, {"I4", "I14"}),  # the lease is over, and nobody says what became of it
        ([*FULL, dispatch(2, 2)], {}, {"I5"}),
        ([*LATE, arrive(12.0, 2), dispatch(2, 2)], {}, {"I5"}),
        ([*ready(0.0, 0, 1), Woke(1.0), scale(1, [1]), arrive(2.0, 1), dispatch(1, 1, 1)], {}, {"I6", "I14"}),
        ([*ready(0.0, 0), arrive(1.0, 1), dispatch(1, 1, 3)], {}, {"I6"}),
        ([InstanceChanged(0.0, 0, 0, State.STARTING), arrive(1.0, 1), dispatch(1, 1)], {}, {"I6"}),
        ([*ready(0.0, 0), InstanceChanged(1.0, 0, 0, State.DRAINING), *ready(2.0, 0), arrive(3.0, 1), dispatch(1, 1)],
         {}, {"I6"}),
        ([*ONE, finish(2.0, 1, usage=Usage()), answer(1, 1)], {}, {"I7"}),
        ([*ONE, finish(2.0, 1, usage=Usage(100, 101, 7)), answer(1, 1)], {}, {"I7"}),
        ([*ONE, *(arrive(2.0, number) for number in range(2, 7))], {}, {"I10"}),
        ([*LED, arrive(1.6, 3, cache_key=9), finish(2.0, 1), answer(1, 1), answer(2, 1, Code.JOINED),
          answer(3, 1, Code.JOINED)], {"caches": True, "follower_limit": 1}, {"I10"}),
        ([*(arrive(0.1 * number, number) for number in range(1, 4))], {"rate_per_s": 1.0, "burst": 2.0}, {"I10"}),
        ([*ready(0.0, 0), Woke(1.0), scale(5, code=Code.LOAD_HIGH)], {"max_instances": 4}, {"I11"}),
        ([*ready(0.0, 0), Woke(1.0), scale(0, [0]), InstanceChanged(1.0, 0, 0, State.GONE)], {"min_instances": 1},
         {"I11"}),
        ([*ready(0.0, 0), Woke(1.0), scale(2, code=Code.LOAD_HIGH), *ready(2.0, 1), Woke(6.0),
          scale(3, code=Code.LOAD_HIGH)], {"cooldown_up_s": 9.0}, {"I11"}),
        ([*ready(0.0, 0, 1), Woke(1.0), scale(1, [7])], {}, {"I11"}),
        ([*ready(0.0, 0, 1), arrive(1.0, 1), dispatch(1, 1), Woke(1.0), scale(1, [0]),
          InstanceChanged(1.0, 0, 0, State.DRAINING)], {}, {"I11"}),
        ([*SESSION, arrive(3.0, 2, session=5), dispatch(2, 2, 1)], {"affinity": True}, {"I12"}),
        ([*DONE, finish(3.0, 1)], {}, {"I14"}),
        ([*ONE, finish(2.0, 1, Outcome.CANCELLED), fail(1)], {}, {"I14"}),
        ([*DONE, Woke(3.0), cancel(1)], {}, {"I14"}),
        ([*LATE, Woke(12.0), cancel(1)], {}, {"I14"}),
        ([*DONE, Woke(3.0), Forget(1)], {}, {"I14"}),
        ([*ready(0.0, 0, 1), Woke(1.0), scale(1, [1])], {}, {"I14"}),
        ([*DONE, Effected(2.0, 0, 1, Effect.DONE)], {}, {"I14"}),
        ([*DONE, Effected(2.0, 0, 2, Effect.DONE), Effected(2.0, 1, 1, Effect.REFUSED)], {}, {"I14"}),
        ([*DONE, Effected(2.0, 0, 3, Effect.DONE)], {}, {"I14"}),
    ],
)  # fmt: skip
def test_what_may_not_be_is_named(records, facts, broken):
    assert {invariant for invariant, _ in held(records, **facts)} == broken


def test_effects_may_come_late_and_in_any_order():
    records = [*DONE, Effected(2.0, 1, 1, Effect.DONE), Effected(9.0, 0, 1, Effect.LATE)]
    assert held(records) == []


def test_a_victim_that_the_world_refuses_to_drain_is_its_right():
    records = [*ready(0.0, 0, 1), Woke(1.0), scale(1, [1])]
    assert held([*records, Effected(1.0, 0, 1, Effect.REFUSED)]) == []
    assert held([*records, Effected(1.0, 0, 1, Effect.DONE)]) == [("I14", 4)]


def test_an_operator_may_leave_the_limits_and_a_first_instance_waits_for_no_cooldown():
    assert held([*ready(0.0, 0), Woke(1.0), scale(9, code=Code.OPERATOR)], max_instances=4) == []
    woken = [Woke(1.0), scale(1, code=Code.LOAD_HIGH)]
    assert held([*woken, Woke(2.0), scale(1, code=Code.LOAD_HIGH)], cooldown_up_s=60.0) == []


def test_the_last_instance_goes_and_one_that_failed_is_replaced_without_a_cooldown():
    waits = {"cooldown_up_s": 60.0, "cooldown_down_s": 60.0}
    one = [*ready(0.0, 0, 1), Woke(1.0), scale(1, [1]), InstanceChanged(1.0, 0, 1, State.GONE)]
    to_none = [*one, Woke(2.0), scale(0, [0]), InstanceChanged(2.0, 0, 0, State.GONE)]
    assert held(to_none, **waits) == []
    failed = InstanceChanged(2.0, 0, 0, State.FAILED)
    assert held([*one, failed, scale(3, code=Code.LOAD_HIGH)], **waits) == []
    two = [*ready(0.0, 0, 1, 2), Woke(1.0), scale(2, [2]), InstanceChanged(1.0, 0, 2, State.GONE)]
    up_by_one = [*two, failed, scale(2, code=Code.LOAD_HIGH)]
    assert held(up_by_one, cooldown_up_s=0.0, cooldown_down_s=60.0) == []
    assert held(up_by_one, **waits) == [("I11", 7)]


def test_a_gap_in_the_commands_numbers_shows():
    checker = Checker([FACTS])
    for event in (*ready(0.0, 0), arrive(1.0, 1)):
        checker.event(event)
    checker.command(dispatch(1, 1), 1)
    assert [(each.invariant, each.number) for each in checker.violations] == [("I14", 2)]


def test_a_flood_of_violations_is_counted_not_kept():
    checker = Checker([FACTS])
    for number in range(300):
        checker.event(finish(1.0, number))
    assert (len(checker.violations), checker.further) == (100, 200)


def test_facts_must_be_given_of_every_agent():
    with pytest.raises(ValueError, match="tells of agent 1, the facts of 1 agents"):
        Checker([FACTS]).event(Arrived(0.0, Request(1, 1, 100, 50)))


# --- over whole runs -----------------------------------------------------------------------------------

ROUGH = {
    "title": "rough", "question": "Does anything break?", "seed": 3, "duration": "60s",
    "models": {"m": {"input": "$1/1M", "output": "$3/1M"}},
    "fleet": [{
        "agent": "tax", "count": 2, "model": "m", "instances": 3, "concurrency": 2, "timeout": "6s",
        "first_token_timeout": "2s", "failures": {"error": "8%"},
        "service": {"law": "tokens", "base": "200ms", "input": "40us/token", "output": "9ms/token", "slowdown": "8%"},
    }],
    "workload": [{
        "kind": "bursts", "base": "4/s", "burst": "30/s", "every": "20s", "lasts": "5s", "stream": True,
        "tokens_in": 900, "tokens_out": {"law": "gamma", "mean": 80, "cv": 0.6},
        "cacheable": {"share": "40%", "keys": 20},
    }],
    "faults": [{"kind": "crash", "agent": "tax", "at": "22s", "lasts": "10s", "instances": 2}],
    "controllers": {"cache": {"use": "lru"}, "queue": {"use": "fifo", "limit": 40}, "retrier": {"use": "backoff"}},
}  # fmt: skip


@pytest.fixture(scope="module")
def rough():
    scenario = Scenario.model_validate(ROUGH)
    built = build.replication(scenario, 0)
    built.world.start()
    built.world.run(200.0)
    return scenario, built.journal.recording()


def fresh(scenario):
    return lambda: build.control_plane(scenario, Streams(scenario.seed, 0))


def test_the_simulated_world_breaks_nothing(rough):
    scenario, recording = rough
    facts = [Facts.of(pool.spec, pool.controllers, queue_limit=40) for pool in fresh(scenario)().pools]
    assert {Cancel, Fail, FirstToken} <= {type(record) for record in recording.records()}
    assert check(recording, facts) == []
    assert replays(recording, fresh(scenario)) == []
    assert wakes(recording, fresh(scenario)) == []
    assert [
        each for k in range(4) for each in restores(recording, fresh(scenario), len(recording) * k // 4)
    ] == []
    assert check(recording, [each._replace(slots=1) for each in facts])[0].invariant == "I5"
    assert check(recording, [each._replace(queue_limit=5) for each in facts])[0].invariant == "I10"


def test_the_bill_is_compared_by_agent(rough):
    _, recording = rough
    usages = {0: [], 1: []}
    agents, at = {}, {}
    for record in recording.records():
        match record:
            case Arrived(_, request):
                agents[request.request_id] = request.agent
            case Dispatch(attempt, request_id):
                at[attempt] = agents[request_id]
            case Finished(_, attempt, _, usage):
                usages[at[attempt]].append(usage.tokens_in * 1e-6 + usage.tokens_out * 3e-6)
    billed = {agent: sum(each) for agent, each in usages.items()}
    prices = {0: Price(1e-6, 1e-6, 3e-6)}
    assert ledger(recording, prices, billed) == []
    broken = ledger(recording, prices, billed | {1: billed[1] * (1.0 + 1e-6)})
    assert [each.invariant for each in broken] == ["I7"]
    assert "agent 1" in broken[0].message
    assert len(ledger(recording, prices, {0: billed[0]})) == 1


def test_a_difference_is_found_where_it_stands():
    def recording(*records):
        journal = Journal({})
        for record in records:
            journal.event(record) if hasattr(record, "t_s") else journal.command(record)
        return journal.recording()

    assert repeats(recording(*DONE), recording(*DONE)) == []
    other = [*DONE[:-2], finish(2.0, 1, usage=Usage(100, 0, 8)), DONE[-1]]
    assert [(each.invariant, each.number) for each in repeats(recording(*DONE), recording(*other))] == [
        ("I8", 3)
    ]
    assert [each.number for each in repeats(recording(*DONE), recording(*DONE[:-1]))] == [4]


def test_a_replay_and_a_wake_name_their_record(rough):
    _, recording = rough
    chosen = {family: each for family, each in ROUGH["controllers"].items() if family != "retrier"}
    otherwise = Scenario.model_validate(ROUGH | {"controllers": chosen})
    assert [each.invariant for each in replays(recording, fresh(otherwise))] == ["I9"]
    number = replays(recording, fresh(otherwise))[0].number
    assert isinstance(list(recording.records())[number], Finished)


def test_of_derives_what_a_pool_says(tiny):
    pool = tiny.build(limiter=tiny.Leased, cache=tiny.Keeper, breaker=tiny.Fuse).pools[0]
    facts = Facts.of(pool.spec, pool.controllers, queue_limit=7)
    assert (facts.hold_limit, facts.caches, facts.gate_s, facts.queue_limit) == (10, True, inf, 7)
    plain = tiny.build(limiter=tiny.Counted).pools[0]
    assert Facts.of(plain.spec, plain.controllers)[4:8] == (0, None, False, 0)
