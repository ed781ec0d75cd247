"""Fallbacks keep the gateway standing; shadows record and change nothing."""

from __future__ import annotations

import json
from collections import Counter
from math import inf, isnan

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from controllers.balancing.round_robin import RoundRobin
from controllers.queueing.fifo import FifoQueue
from controllers.rollout.canary import Canary
from glowsim.core.control_plane import Notes
from glowsim.core.instance import Instance
from glowsim.core.protocols import Gate, Wanted
from glowsim.core.snapshot import Stateful
from glowsim.core.together import Limiters
from glowsim.core.types import (
    Change,
    ChangeKind,
    Code,
    Outcome,
    Raise,
    Reason,
    Severity,
    Shadowed,
    Status,
)
from glowsim.core.wrappers import FAMILIES, fallback, inside, shadow


def failing(base, *methods):
    """Return a class whose methods raise; the rest works."""

    def no(self, *arguments):
        raise ZeroDivisionError("no")

    return type("Failing", (base,), dict.fromkeys(methods, no))


def guarded(family, controller, agent, notes):
    return fallback(family, controller, agent, notes, queue_limit=2)


@pytest.fixture(scope="session")
def families(tiny):
    return {
        "guard": tiny.Sized,
        "limiter": tiny.Counted,
        "splitter": tiny.Halves,
        "cache": tiny.Keeper,
        "planner": tiny.Capped,
        "balancer": RoundRobin,
        "breaker": tiny.Fuse,
        "retrier": tiny.Again,
        "scaler": tiny.Sizing,
    }


AN_INSTANCE = Instance(2, 0, 1)
TOLD = {
    "joined": (1.0, AN_INSTANCE),
    "left": (2.0, 2),
    "moved": (AN_INSTANCE,),
    "ended": (3.0, AN_INSTANCE, Outcome.OK, 0.5),
    "probed": (4.0, 2, True),
}
FOLLOWS = {"balancer": ("joined", "left", "moved", "ended"), "breaker": ("joined", "left", "ended", "probed")}


@pytest.mark.parametrize("family", FOLLOWS)
@pytest.mark.parametrize("wrapped", ["fallback", "live", "candidate"])
def test_a_follower_within_a_wrapper_hears_what_it_would_hear_alone(family, wrapped, families):
    def hears(name):
        return lambda self, *arguments: heard.append((name, *arguments))

    heard, base = [], families[family]
    methods = {name: hears(name) for name in FOLLOWS[family]}
    follower = type("Follower", (base,), methods | {"when_all_open": "fail"})()
    if wrapped == "fallback":
        one = guarded(family, follower, 0, Notes())
    elif wrapped == "live":
        one = shadow(family, follower, base(), 0, Notes())
    else:
        one = shadow(family, base(), follower, 0, Notes())
    for name in FOLLOWS[family]:
        getattr(one, name)(*TOLD[name])
    assert heard == [(name, *TOLD[name]) for name in FOLLOWS[family]]
    if family == "breaker":
        assert one.when_all_open == ("wait" if wrapped == "candidate" else "fail")


# --- fallbacks ---------------------------------------------------------------------------------------


def test_a_gateway_whose_every_controller_fails_still_answers(talk_to, tiny, families):
    broken = {
        family: failing(base, *(name for name in FAMILIES[family] if hasattr(base, name)))
        for family, base in families.items()
    }
    broken["queue"] = failing(FifoQueue, "push", "pop", "remove")
    talk = talk_to(wrap=guarded, **broken)
    talk.ready(0.0, 0)
    assert talk.arrives(1.0, 1, tokens_in=5000, cache_key=5)[0] == "dispatch 1: request 1 to 0, ARRIVED"
    assert talk.arrives(2.0, 2)[0] == "alert queue.push raised ZeroDivisionError: no, CONTROLLER_FAILED"
    assert talk.arrives(2.0, 3) == []
    assert talk.arrives(2.0, 4) == ["reject 4, QUEUE_FULL"]
    said = talk.finishes(3.0, 1)
    assert said[:2] == ["answer 1 from 1, OWN", "dispatch 2: request 2 to 0, QUEUED"]
    assert talk.finishes(4.0, 2, Outcome.ERROR)[0] == "fail 2 ERROR, EXHAUSTED"
    assert talk.passes(200.0)[0] == "cancel 3, TIMED_OUT"


@pytest.mark.parametrize(
    ("family", "method", "said"),
    [
        ("guard", "check", "dispatch 1: request 1 to 0, ARRIVED"),
        ("limiter", "admit", "dispatch 1: request 1 to 0, ARRIVED"),
        ("splitter", "assign", "advance to 1 at 0.5, STARTED"),
        ("cache", "get", "dispatch 1: request 1 to 0, ARRIVED"),
        ("planner", "plan", "dispatch 1: request 1 to 0, ARRIVED"),
        ("balancer", "pick", "dispatch 1: request 1 to 0, ARRIVED"),
    ],
)
def test_on_the_way_in_a_failure_decides_for_the_client(talk_to, families, family, method, said):
    talk = talk_to(wrap=guarded, **{family: failing(families[family], method)})
    talk.ready(0.0, 0)
    heard = talk.arrives(1.0, 1, cache_key=5)
    assert heard[0] == said
    assert heard[-1] == f"alert {family}.{method} raised ZeroDivisionError: no, CONTROLLER_FAILED"


def test_a_person_is_told_once_a_minute_and_at_once(talk_to, tiny):
    talk = talk_to(wrap=guarded, guard=failing(tiny.Sized, "check"), slots=9)
    talk.ready(0.0, 0)
    alerts = []
    for number, t_s in enumerate((1.0, 1.5, 60.9, 61.0, 120.0, 121.0), 1):
        alerts.append(any(said.startswith("alert") for said in talk.arrives(t_s, number)))
    assert alerts == [True, False, False, True, False, True]
    alert = next(command.alert for command in talk.commands if type(command) is Raise)
    assert (alert.agent, alert.severity, alert.reason) == (
        0,
        Severity.CRITICAL,
        Reason(Code.CONTROLLER_FAILED),
    )


def test_a_scaler_that_fails_holds_the_size_and_is_asked_again(talk_to, tiny):
    talk = talk_to(wrap=guarded, scaler=failing(tiny.Sizing, "decide"))
    talk.ready(0.0, 0)
    talk.instance(0.0, 1, 0)
    assert talk.arrives(1.0, 1)[0] == "dispatch 1: request 1 to 0, ARRIVED"
    assert talk.plane.next_wake_s() == 31.0
    talk.finishes(2.0, 1)
    assert talk.plane.next_wake_s() == 61.0
    assert talk.passes(61.0) == ["alert scaler.decide raised ZeroDivisionError: no, CONTROLLER_FAILED"]


def test_a_splitter_that_cannot_be_woken_stays_where_it_is(talk_to, tiny):
    talk = talk_to(wrap=guarded, splitter=lambda: failing(tiny.Halves, "wake")(first_s=5.0))
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1, user=1)
    talk.finishes(2.0, 1)
    assert talk.passes(5.0) == ["alert splitter.wake raised ZeroDivisionError: no, CONTROLLER_FAILED"]
    assert talk.plane.next_wake_s() == inf


def test_a_breaker_that_cannot_be_woken_lets_work_through(talk_to, tiny):
    talk = talk_to(wrap=guarded, breaker=lambda: failing(tiny.Fuse, "wake", "forget")(failures=1))
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1)
    talk.finishes(2.0, 1, Outcome.ERROR)
    assert talk.arrives(3.0, 2) == []
    assert talk.passes(12.0)[0] == "dispatch 2: request 2 to 0, QUEUED"
    assert talk.instance(13.0, 0, 4) == []


@pytest.mark.parametrize(
    ("family", "method", "answer"),
    [
        ("balancer", "pick", Instance(77, 0, 1)),
        ("scaler", "decide", Wanted(-1, Reason(Code.HELD), inf)),
        ("scaler", "decide", Wanted(1, Reason(Code.HELD), 0.5)),
        ("limiter", "admit", float("nan")),
        ("retrier", "after", -1.0),
        ("breaker", "record", Gate(0, 0.5)),
    ],
)
def test_an_answer_that_is_not_allowed_is_a_failure_too(talk_to, families, family, method, answer):
    broken = type("Broken", (families[family],), {method: lambda self, *_: answer})
    talk = talk_to(wrap=guarded, **{family: broken})
    talk.ready(0.0, 0)
    said = talk.arrives(1.0, 1) + talk.finishes(2.0, 1, Outcome.ERROR)
    assert said[0] == "dispatch 1: request 1 to 0, ARRIVED"
    assert sum("is not allowed" in each for each in said) == 1
    assert "fail 1 ERROR, EXHAUSTED" in said


def test_instances_take_turns_where_the_balancer_fails(talk_to):
    talk = talk_to(wrap=guarded, balancer=failing(RoundRobin, "pick"), slots=9)
    talk.ready(0.0, 2, 0, 1)
    for number in range(3, 9):
        talk.arrives(1.0, number)
    chosen = [command.instance for command in talk.commands if type(command).__name__ == "Dispatch"]
    assert chosen == [0, 1, 2, 0, 1, 2]


def test_a_queue_that_fails_goes_on_first_come_first_served(talk_to, tiny):
    talk = talk_to(wrap=guarded, queue=failing(tiny.Urgent, "pop"))
    talk.ready(0.0, 0)
    for number, priority in ((1, 1), (2, 9), (3, 0), (4, 5)):
        talk.arrives(1.0, number, priority=priority)
    talk.leaves(1.5, 3)
    said = talk.finishes(2.0, 1)
    assert said[1:] == [
        "dispatch 2: request 2 to 0, QUEUED",
        "alert queue.pop raised ZeroDivisionError: no, CONTROLLER_FAILED",
    ]
    assert talk.finishes(3.0, 2)[1:] == ["dispatch 3: request 4 to 0, QUEUED"]


def test_a_queue_that_failed_once_is_not_asked_again(talk_to, tiny):
    class Once(tiny.Urgent):
        state = (*tiny.Urgent.state, "failed")
        failed = False

        def pop(self, t_s):
            if not self.failed:
                self.failed = True
                raise ZeroDivisionError
            return super().pop(t_s)

    talk = talk_to(wrap=guarded, queue=Once)
    talk.ready(0.0, 0)
    for number, priority in ((1, 1), (2, 9), (3, 5), (4, 0)):
        talk.arrives(1.0, number, priority=priority)
    order = [talk.finishes(1.0 + number, number)[1] for number in (1, 2, 3)]
    assert [said.split()[3] for said in order] == ["2", "3", "4"]


def test_a_queue_that_gives_what_it_does_not_have_is_out(talk_to, tiny):
    class Inventive(tiny.Urgent):
        def pop(self, t_s):
            return super().pop(t_s) + 100

    talk = talk_to(wrap=guarded, queue=Inventive)
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1)
    talk.arrives(1.0, 2)
    assert talk.finishes(2.0, 1)[1] == "dispatch 2: request 2 to 0, QUEUED"


def test_a_working_controller_is_left_alone(talk_to, tiny, families):
    def held(wrap):
        talk = talk_to(wrap=wrap, **families, queue=tiny.Urgent, slots=2)
        talk.ready(0.0, 0, 1)
        for number in range(1, 9):
            talk.arrives(number / 4, number, cache_key=number % 3, user=number)
        for attempt in list(talk.plane._books.attempts):
            talk.finishes(4.0, attempt, Outcome.OK if attempt % 2 else Outcome.ERROR)
        talk.ordered(8.0, Change(ChangeKind.ROLL_BACK, 0))
        talk.passes(90.0)
        return talk.commands

    assert held(guarded) == held(None)


def test_a_leased_limiter_keeps_asking_behind_its_fallback(talk_to, tiny):
    talk = talk_to(wrap=guarded, limiter=tiny.Leased)
    talk.ready(0.0, 0)
    assert talk.arrives(1.0, 1) == ["ask 1 lease 2"]
    assert talk.told(1.5, 1, Status.GRANTED, 2.0) == ["dispatch 1: request 1 to 0, ARRIVED"]


def test_what_stands_around_a_controller_shows_what_is_inside():
    class Free(Stateful):
        def admit(self, t_s, request):
            return 0.0

        def settle(self, t_s, request, usage):
            pass

    notes, one, two, candidate = Notes(), Free(), Free(), Free()
    split, other = (Canary(salt=name, weight=0.5, then=(1.0,)) for name in "ab")
    shadowed = shadow("limiter", two, candidate, 0, notes)
    several = Limiters([fallback("limiter", one, 0, notes, queue_limit=1), shadowed])
    assert list(inside(fallback("limiter", several, 0, notes, queue_limit=1))) == [one, two]
    assert list(inside(None)) == [None]
    for wrapped in (
        fallback("splitter", split, 0, notes, queue_limit=1),
        shadow("splitter", split, other, 0, notes),
    ):
        assert wrapped.first_weight == 0.5


def test_a_detector_keeps_its_metric(tiny):
    notes = Notes()
    broken = failing(tiny.Above, "observe")("thumb", 1.0)
    wrapped = fallback("detector", broken, 3, notes, queue_limit=1)
    assert wrapped.metric == "thumb"
    assert wrapped.observe(1.0, 9.0) is None
    assert notes[0].alert.agent == 3
    assert shadow("detector", broken, broken, 3, notes).metric == "thumb"


@pytest.mark.parametrize(
    "wrap", [guarded, lambda family, each, agent, notes: shadow(family, each, each, agent, notes)]
)
def test_an_unknown_family_is_named_with_those_there_are(wrap):
    with pytest.raises(ValueError, match="there is no family 'barber' to wrap: choose from guard, limiter"):
        wrap("barber", object(), 0, Notes())


# --- shadows -----------------------------------------------------------------------------------------


def beside(candidates):
    """Return a wrap that shadows every family of ``candidates``."""

    def wrap(family, live, agent, notes):
        return shadow(family, live, candidates[family](), agent, notes) if family in candidates else live

    return wrap


def other(tiny):
    """Return candidates that decide otherwise wherever they can."""

    class Last(RoundRobin):
        def pick(self, t_s, request, allowed):
            return max(allowed, key=lambda each: each.number)

    return {
        "guard": lambda: tiny.Sized(largest=500),
        "limiter": lambda: tiny.Counted(most=1),
        "splitter": lambda: tiny.Halves(first_s=2.0),
        "cache": lambda: tiny.Keeper(entries=1, ttl_s=3.0),
        "planner": tiny.Capped,
        "balancer": Last,
        "breaker": lambda: tiny.Fuse(failures=1),
        "retrier": lambda: tiny.Again(attempts=3, wait_s=0.5),
        "scaler": lambda: tiny.Sizing(least=1),
    }


ORDERS = st.lists(
    st.tuples(
        st.sampled_from((0.0, 0.1, 1.0, 4.0)),
        st.sampled_from(("arrive", "arrive", "arrive", "finish", "finish", "fail", "leave", "instance")),
        st.integers(0, 99),
    ),
    min_size=25,
    max_size=50,
)


def follow(talk, orders):
    """Say the same to any control plane, guided only by what it dispatched."""
    t_s, requests = 0.0, 0
    talk.ready(0.0, 0, 1)
    done = 0
    for gap_s, kind, pick in orders:
        t_s += gap_s
        open_ = list(talk.plane._books.attempts)
        if kind == "arrive":
            requests += 1
            talk.arrives(t_s, requests, tokens_in=100 * (pick % 12), cache_key=pick % 4, user=pick)
        elif kind in ("finish", "fail") and open_:
            talk.finishes(t_s, open_[pick % len(open_)], Outcome.OK if kind == "finish" else Outcome.ERROR)
            done += 1
        elif kind == "leave" and requests:
            talk.leaves(t_s, 1 + pick % requests)
        elif kind == "instance":
            talk.ready(t_s, 2 + pick % 2)
        else:
            talk.passes(t_s)
    talk.passes(t_s + 100.0)
    return talk


def unshadowed(commands):
    return [command for command in commands if type(command) is not Shadowed]


def as_live(tiny):
    return {
        "guard": lambda: tiny.Sized(largest=1000),
        "limiter": lambda: tiny.Counted(most=4),
        "splitter": tiny.Halves,
        "cache": tiny.Keeper,
        "planner": tiny.Capped,
        "breaker": tiny.Fuse,
        "retrier": tiny.Again,
        "scaler": lambda: tiny.Sizing(least=2),
        "slots": 2,
        "timeout_s": 20.0,
    }


@settings(deadline=None, derandomize=True, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(orders=ORDERS)
def test_shadows_of_everything_change_no_command(tiny, orders):
    plain = follow(tiny.Talk(lambda: tiny.build(**as_live(tiny)), crashing=False), orders)
    wrap = beside(other(tiny))
    shadowed = follow(tiny.Talk(lambda: tiny.build(wrap=wrap, **as_live(tiny)), crashing=True), orders)
    assert unshadowed(shadowed.commands) == plain.commands
    assert shadowed.plane.next_wake_s() == plain.plane.next_wake_s()


FAILS_AT_THE_MOMENT_OF_A_WAKING = [
    *[(0.0, "arrive", 0)] * 22, (0.0, "fail", 0), (1.0, "finish", 0), (4.0, "fail", 0), (4.0, "fail", 0),
]  # fmt: skip


@settings(deadline=None, derandomize=True, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@example(orders=FAILS_AT_THE_MOMENT_OF_A_WAKING)
@given(orders=ORDERS)
def test_a_candidate_equal_to_the_live_controller_always_agrees(tiny, orders):
    given_ = as_live(tiny)
    wrap = beside({name: given_[name] for name in FAMILIES if name in given_} | {"balancer": RoundRobin})
    talk = follow(tiny.Talk(lambda: tiny.build(wrap=wrap, **given_), crashing=False), orders)
    pairs = [(c.live, c.candidate) for c in talk.commands if type(c) is Shadowed]
    assume(pairs)  # a talk in which nothing was asked shows nothing
    assert all(live == candidate for live, candidate in pairs)


@settings(deadline=None, derandomize=True, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(orders=ORDERS)
def test_candidates_that_fail_at_everything_stop_nothing(tiny, families, orders):
    broken = {
        family: failing(base, *(name for name in FAMILIES[family] if hasattr(base, name)))
        for family, base in families.items()
    }
    plain = follow(tiny.Talk(lambda: tiny.build(**as_live(tiny)), crashing=False), orders)
    wrap = beside(broken)
    talk = follow(tiny.Talk(lambda: tiny.build(wrap=wrap, **as_live(tiny)), crashing=False), orders)
    assert [c for c in unshadowed(talk.commands) if type(c) is not Raise] == plain.commands
    for command in talk.commands:
        if type(command) is Shadowed:  # a candidate breaker without a gate is not asked about its moment
            assert isnan(command.candidate) or (command.family == "breaker" and command.candidate == -1.0)
    alerts = Counter(c.alert.subject.split(".")[0] for c in talk.commands if type(c) is Raise)
    assert all(count <= 1 + talk.events[-1].t_s / 60.0 for count in alerts.values())
    assert any(c.alert.severity == Severity.WARNING for c in talk.commands if type(c) is Raise)


def test_what_a_candidate_would_have_said_is_recorded_family_by_family(talk_to, tiny):
    talk = talk_to(wrap=beside(other(tiny)), **as_live(tiny))
    talk.ready(0.0, 0, 1)
    said = talk.arrives(1.0, 1, tokens_in=800, max_tokens_out=100, user=1, cache_key=5)
    assert [each for each in said if each.startswith("shadowed")] == [
        "shadowed splitter.stage 1 -1",
        "shadowed guard 0 1",
        "shadowed limiter 0 0",
        "shadowed splitter 1 0",
        "shadowed cache 0 0",
        "shadowed planner.model 1 1",
        "shadowed planner.tokens_in 800 800",
        "shadowed planner.max_tokens_out 64 64",
        "shadowed balancer 0 1",
        "shadowed scaler 2 1",
    ]
    said = talk.finishes(2.5, 1, Outcome.ERROR)
    assert said == ["shadowed breaker -1 0", "shadowed retrier 1 0.5"]


def test_a_candidate_splitter_is_woken_at_the_first_question_after_its_moment(talk_to, tiny):
    talk = talk_to(
        wrap=beside({"splitter": lambda: tiny.Halves(first_s=5.0)}),
        splitter=lambda: tiny.Halves(first_s=50.0),
        slots=9,
    )
    talk.ready(0.0, 0)
    assert talk.arrives(1.0, 1, user=1)[1:] == ["shadowed splitter 0 0"]
    talk.finishes(2.0, 1)
    assert talk.plane.next_wake_s() == 50.0
    assert talk.arrives(9.0, 2, user=1)[1:] == ["shadowed splitter.stage -1 1", "shadowed splitter 0 1"]


def test_a_candidate_breaker_half_opens_though_the_live_one_never_opened(talk_to, tiny):
    talk = talk_to(
        wrap=beside({"breaker": lambda: tiny.Fuse(failures=1)}), breaker=lambda: tiny.Fuse(failures=9)
    )
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1)
    assert talk.finishes(2.0, 1, Outcome.ERROR)[-1] == "shadowed breaker -1 0"
    talk.arrives(3.0, 2)
    assert talk.finishes(4.0, 2)[1:] == []
    talk.arrives(20.0, 3)
    said = talk.finishes(21.0, 3)
    assert said[-2:] == ["shadowed breaker -1 1", "shadowed breaker -1 1.07374e+09"]
    assert talk.instance(22.0, 0, 4) == []


def test_a_candidate_limiter_settles_only_what_it_admitted(talk_to, tiny):
    talk = talk_to(
        wrap=beside({"limiter": lambda: tiny.Counted(most=1)}), limiter=lambda: tiny.Counted(most=2), slots=9
    )
    talk.ready(0.0, 0)
    assert talk.arrives(1.0, 1)[-1] == "shadowed limiter 0 0"
    assert talk.arrives(1.0, 2)[-1] == "shadowed limiter 0 5"
    assert talk.arrives(1.0, 3)[-1] == "shadowed limiter 5 5"
    talk.finishes(2.0, 1)
    assert talk.arrives(2.5, 4)[-1] == "shadowed limiter 0 0"
    talk.finishes(3.0, 2)
    talk.finishes(3.0, 3)
    assert talk.arrives(4.0, 5)[-1] == "shadowed limiter 0 0"


def test_a_candidate_that_admits_what_the_live_one_rejects_holds_nothing(talk_to, tiny):
    talk = talk_to(
        wrap=beside({"limiter": lambda: tiny.Counted(most=3)}), limiter=lambda: tiny.Counted(most=1), slots=9
    )
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1)
    for number in range(2, 9):
        assert talk.arrives(1.0, number)[-1] == "shadowed limiter 5 0"


def test_a_live_limiter_goes_on_asking_beside_its_shadow(talk_to, tiny):
    talk = talk_to(wrap=beside({"limiter": lambda: tiny.Counted(most=1)}), limiter=tiny.Leased)
    talk.ready(0.0, 0)
    assert talk.arrives(1.0, 1) == ["ask 1 lease 2", "shadowed limiter -1 0"]
    assert talk.told(1.5, 1, Status.GRANTED, 2.0) == [
        "dispatch 1: request 1 to 0, ARRIVED",
        "shadowed limiter 0 0",
    ]


def test_a_candidate_must_not_touch_the_pools_own_list(talk_to):
    class Sorting(RoundRobin):
        def pick(self, t_s, request, allowed):
            allowed.sort(key=lambda each: -each.number)
            return allowed[0]

    talk = talk_to(wrap=beside({"balancer": Sorting}), slots=9)
    talk.ready(0.0, 0, 1)
    said = talk.arrives(1.0, 1)
    assert said[1].startswith("alert shadow balancer.pick raised AttributeError")
    assert said[2] == "shadowed balancer 0 nan"


def test_queues_and_askers_cannot_be_shadowed(tiny):
    with pytest.raises(ValueError, match="a queue cannot be shadowed"):
        shadow("queue", FifoQueue(), FifoQueue(), 0, Notes())
    with pytest.raises(ValueError, match="the candidate Leased asks the outside world"):
        shadow("limiter", tiny.Counted(), tiny.Leased(), 0, Notes())


def test_a_fallback_around_a_shadow_keeps_both_promises(talk_to, tiny):
    def both(family, live, agent, notes):
        inner = shadow(family, live, tiny.Sized(), agent, notes) if family == "guard" else live
        return fallback(family, inner, agent, notes, queue_limit=9)

    talk = talk_to(wrap=both, guard=lambda: tiny.Sized(largest=10_000))
    talk.ready(0.0, 0)
    said = talk.arrives(1.0, 1, tokens_in=5000)
    assert said == ["dispatch 1: request 1 to 0, ARRIVED", "shadowed guard 0 1"]
    assert json.dumps(talk.plane.snapshot())
