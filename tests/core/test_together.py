"""Several limiters as one and several breakers as one, alone, in a conversation, and spanning a fleet."""

from __future__ import annotations

import json
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.admission.budget import Budget
from controllers.admission.concurrency import ConcurrencyLimiter
from controllers.admission.gcra import Gcra
from controllers.admission.leased import LeasedLimiter
from controllers.admission.token_bucket import TokenBucket
from controllers.resilience.breaker import ConsecutiveBreaker
from glowsim import build
from glowsim.core.control_plane import Notes
from glowsim.core.errors import ControllerError
from glowsim.core.instance import UNLIMITED, Instance
from glowsim.core.journal import first_difference
from glowsim.core.protocols import HOLD, Gate
from glowsim.core.snapshot import Stateful
from glowsim.core.streams import Streams
from glowsim.core.together import Breakers, Limiters
from glowsim.core.types import Arrived, Command, Outcome, Reject, Request, Shadowed, Status, Told, Usage
from glowsim.core.wrappers import fallback, shadow
from glowsim.scenario import Scenario, ScenarioError, load


def saved(controller):
    return json.loads(json.dumps(controller.snapshot(), allow_nan=False))


# --- limiters ----------------------------------------------------------------------------------------


def limiters(*, wrap=lambda one: one):
    return [
        wrap(one)
        for one in (
            TokenBucket((), rate_per_s=1, burst=3),
            Gcra((), rate_per_s=60, tolerance_s=4, of="tokens", per="user"),
            Budget((), limit=500, of="tokens", every_s=10, per="user"),
            ConcurrencyLimiter(limit=2, retry_s=0.5),
        )
    ]


moves = st.lists(
    st.tuples(st.integers(0, 12), st.integers(1, 2), st.integers(1, 200), st.booleans(), st.integers(0, 20)),
    max_size=60,
)


@settings(max_examples=60, deadline=None)
@given(moves)
def test_all_must_admit_and_a_refusal_leaves_nothing_anywhere(plan):
    together, apart = Limiters(limiters()), limiters()
    now_open, t_s = [], 0.0
    for number, (gap, user, tokens, settles, used) in enumerate(plan):
        t_s += gap / 8
        if settles and now_open:
            done = now_open.pop(0)
            for one in (together, *apart):
                one.settle(t_s, done, Usage(used, 0, 0))
            continue
        request = Request(number, 0, tokens, 0, user=user)
        waits = []
        for i, one in enumerate(apart):  # each by itself, in a copy that is thrown away
            copy = limiters()[i]
            copy.restore(saved(one))
            waits.append(copy.admit(t_s, request))
        assert together.admit(t_s, request) == pytest.approx(max(waits), abs=1e-9)
        if max(waits) == 0.0:
            for one in apart:
                one.admit(t_s, request)
            now_open.append(request)
        elif max(waits[:3]) < inf and not waits[3]:
            later = Limiters(limiters())
            later.restore(saved(together))
            assert later.admit(t_s + max(waits), request) == 0.0


def fallen_back(one):
    return fallback("limiter", one, 0, Notes(), queue_limit=1)


def shadowed(one):
    candidate = TokenBucket((), rate_per_s=1, burst=2)
    return fallen_back(shadow("limiter", one, candidate, 0, Notes()))


@pytest.mark.parametrize("wrap", [lambda one: one, fallen_back, shadowed], ids=["bare", "fallback", "shadow"])
@pytest.mark.parametrize("first", ["bucket", "places"])
def test_one_that_refuses_gives_back_what_the_others_took_even_a_request(wrap, first):
    parts = [wrap(TokenBucket((), rate_per_s=1, burst=2)), wrap(ConcurrencyLimiter(limit=1))]
    both = Limiters(parts if first == "bucket" else parts[::-1])
    assert both.admit(0.0, Request(1, 0, 1, 1)) == 0.0
    assert [both.admit(0.0, Request(number, 0, 1, 1)) for number in range(2, 9)] == [1.0] * 7
    both.settle(0.0, Request(1, 0, 1, 1), Usage())
    assert both.admit(0.0, Request(9, 0, 1, 1)) == 0.0, "one of the bucket's two is left"
    assert both.admit(0.0, Request(10, 0, 1, 1)) == 1.0


def test_a_shadow_follows_what_is_withdrawn_from_the_one_that_decides():
    notes = Notes()
    bucket, candidate = (TokenBucket((), rate_per_s=1, burst=2) for _ in range(2))
    both = Limiters([shadow("limiter", bucket, candidate, 0, notes), ConcurrencyLimiter(limit=1)])
    for number in range(1, 9):
        both.admit(0.0, Request(number, 0, 1, 1))
    assert [(note.live, note.candidate) for note in notes] == [(0.0, 0.0)] * 8
    assert saved(candidate) == saved(bucket)


def leased():
    return LeasedLimiter(0, grant=2, low_water=0.0, timeout_s=1.0)


def test_the_one_that_asks_is_asked_last_and_spends_only_for_whom_the_others_admit():
    both = Limiters([leased(), ConcurrencyLimiter(limit=1)])
    first, second = Request(1, 0, 1, 1), Request(2, 0, 1, 1)
    assert both.admit(0.0, first) == HOLD
    ask = both.to_ask(0.0, 1)
    assert (ask.ask_id, ask.amount) == (1, 2)
    both.told(0.1, Told(0.1, 1, Status.GRANTED, 2, 60.0))
    assert both.admit(0.1, first) == 0.0, "its place was given back while it was held"
    assert both.admit(0.2, second) == 1.0
    both.settle(0.3, first, Usage())
    assert both.admit(0.3, second) == 0.0
    assert both.admit(0.3, Request(3, 0, 1, 1)) == 1.0


def test_without_one_that_asks_nobody_is_asked():
    assert not hasattr(Limiters(limiters()), "to_ask")
    with pytest.raises(ValueError, match="2 of them ask the outside world"):
        Limiters([leased(), leased()])
    with pytest.raises(ValueError, match="at least one"):
        Limiters([])


@pytest.mark.parametrize("answer", [float("nan"), HOLD, -3.0])
def test_an_answer_that_no_limiter_may_give_is_an_error(answer):
    class Odd:
        def admit(self, t_s, request):
            return answer

        def settle(self, t_s, request, usage):
            pass

    with pytest.raises(ControllerError, match="limiter 1 of 2 answered"):
        Limiters([ConcurrencyLimiter(limit=1), Odd()]).admit(0.0, Request(1, 0, 1, 1))


def test_a_held_request_waits_for_word_and_then_for_all(talk_to):
    talk = talk_to(limiter=lambda: Limiters([ConcurrencyLimiter(limit=1, retry_s=4.0), leased()]), slots=4)
    talk.ready(0.0, 0)
    assert talk.arrives(1.0, 1) == ["ask 1 limit 2"]
    assert talk.arrives(1.1, 2) == []
    assert talk.told(1.5, 1, Status.GRANTED, 2.0) == [
        "dispatch 1: request 1 to 0, ARRIVED",
        "reject 2, LIMITED, retry after 4",
    ]
    talk.finishes(2.0, 1)
    assert talk.arrives(2.5, 3)[-1] == "dispatch 2: request 3 to 0, ARRIVED"


def test_wrapped_one_by_one_they_decide_the_same_and_shadows_keep_up():
    notes = Notes()
    plain = Limiters(limiters())
    wrapped = Limiters(
        [
            fallback("limiter", shadow("limiter", one, candidate, 0, notes), 0, notes, queue_limit=1)
            for one, candidate in zip(limiters(), limiters(), strict=True)
        ]
    )
    now_open = []
    for number in range(200):
        t_s, request = number / 4, Request(number, 0, 20 + number * 37 % 150, 0, user=1 + number % 2)
        answer = plain.admit(t_s, request)
        assert wrapped.admit(t_s, request) == pytest.approx(answer)
        if answer == 0.0:
            now_open.append(request)
        if number % 3 == 0 and now_open:
            done = now_open.pop(0)
            for one in (plain, wrapped):
                one.settle(t_s, done, Usage(10, 0, 0))
    answers = [note for note in notes if type(note) is Shadowed]
    assert len(answers) == len(notes) > 200
    assert all(note.live == pytest.approx(note.candidate, abs=1e-6) for note in answers)
    again = Limiters(limiters())
    again.restore(saved(plain))
    assert saved(again) == saved(plain)


# --- breakers ----------------------------------------------------------------------------------------


class Trip(Stateful):
    """Opens after failures in a row, is half-open after a while and again and again, closes at a success."""

    state = ("failed",)

    def __init__(self, failures=1, open_s=5.0, probes=1):
        self.failures, self.open_s, self.probes = failures, open_s, probes
        self.failed = {}

    def record(self, t_s, instance, outcome, duration_s):
        if outcome == Outcome.OK:
            return Gate(UNLIMITED, inf) if self.failed.pop(instance, 0) >= self.failures else None
        failed = self.failed[instance] = self.failed.get(instance, 0) + 1
        return Gate(0, t_s + self.open_s) if failed >= self.failures else None

    def wake(self, t_s, instance):
        return Gate(self.probes, t_s + self.open_s)

    def forget(self, instance):
        self.failed.pop(instance, None)


def test_the_gate_is_the_smallest_cap_until_the_earliest_moment():
    both = Breakers([Trip(failures=1, open_s=5), Trip(failures=2, open_s=30, probes=3)])
    assert both.record(0.0, 7, Outcome.OK, 1.0) is None
    assert both.record(0.0, 7, Outcome.ERROR, 1.0) == Gate(0, 5.0)
    assert both.wake(5.0, 7) == Gate(1, 10.0), "the quick one is half-open, the other has nothing against it"
    assert both.record(6.0, 7, Outcome.ERROR, 1.0) == Gate(0, 11.0)
    assert both.wake(11.0, 7) == Gate(0, 16.0), (
        "the quick one would let a probe through, the slow one not yet"
    )
    assert both.wake(36.0, 7) == Gate(1, 41.0), "both were due"
    assert both.record(37.0, 7, Outcome.OK, 1.0) == Gate(UNLIMITED, inf)
    assert both.wake(66.0, 7) is None
    assert saved(both)["gates"] == saved(Breakers([Trip()]))["gates"], "nothing is kept of who is well"


def test_a_breaker_that_stays_as_it_is_when_woken_is_not_woken_again():
    class Stays(Trip):
        def wake(self, t_s, instance):
            return None

    both = Breakers([Stays(failures=1, open_s=5), Trip(failures=1, open_s=30)])
    assert both.record(0.0, 7, Outcome.ERROR, 1.0) == Gate(0, 5.0)
    assert both.wake(5.0, 7) == Gate(0, 30.0)
    assert both.wake(30.0, 7) == Gate(0, 60.0)


def test_a_fleet_with_two_breakers_opens_with_either(talk_to, tiny):
    talk = talk_to(breaker=lambda: Breakers([tiny.Fuse(failures=1), tiny.Fuse(failures=2)]), slots=2)
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1)
    talk.finishes(2.0, 1, Outcome.ERROR)
    assert talk.arrives(3.0, 2) == []
    assert talk.passes(12.0)[0] == "dispatch 2: request 2 to 0, QUEUED"
    talk.finishes(12.5, 2, Outcome.ERROR)
    assert talk.arrives(13.0, 3) == []
    assert talk.passes(22.5)[0] == "dispatch 3: request 3 to 0, QUEUED", "both wake, and both let one through"
    talk.finishes(23.0, 3)
    talk.arrives(24.0, 4)
    assert talk.arrives(24.0, 5) == ["dispatch 5: request 5 to 0, ARRIVED"]


happenings = st.lists(
    st.tuples(st.integers(0, 8), st.integers(0, 1), st.sampled_from([Outcome.OK, Outcome.ERROR])), max_size=60
)


@settings(max_examples=60, deadline=None)
@given(happenings)
def test_it_lets_through_what_each_breaker_alone_would(plan):
    def make():
        return [
            ConsecutiveBreaker(failures=1, open_s=2),
            ConsecutiveBreaker(failures=3, open_s=7, probes=2),
            ConsecutiveBreaker(failures=2, open_s=3, probes=4, longest_open_s=6),
        ]

    class Told:
        """A breaker, the gates that it gave, and their moments kept as a pool does."""

        def __init__(self, breaker):
            self.breaker, self.gates = breaker, {}

        def passes(self, t_s):
            while due := [(gate.until_s, i) for i, gate in self.gates.items() if gate.until_s <= t_s]:
                due_s, instance = min(due)
                self.gates[instance] = Gate(self.gates[instance].cap, inf)
                self.takes(instance, self.breaker.wake(due_s, instance))

        def takes(self, instance, gate):
            if gate is not None:
                self.gates[instance] = gate

        def cap(self, instance):
            return self.gates[instance].cap if instance in self.gates else UNLIMITED

    together, apart, t_s = Told(Breakers(make())), [Told(one) for one in make()], 0.0
    for gap, instance, outcome in plan:
        t_s += gap / 2
        restored = Breakers(make())
        restored.restore(saved(together.breaker))
        together.breaker = restored
        for one in (together, *apart):
            one.passes(t_s)
            one.takes(instance, one.breaker.record(t_s, instance, outcome, 1.0))
        for each in (0, 1):
            assert together.cap(each) == min(one.cap(each) for one in apart)


def test_what_some_follow_reaches_those_and_probes_reach_all():
    class Follows(Trip):
        def __init__(self):
            super().__init__()
            self.heard = []

        def joined(self, t_s, instance):
            self.heard.append(("joined", t_s, instance.number))

        def probed(self, t_s, instance, healthy):
            self.heard.append(("probed", t_s, instance, healthy))
            return None if healthy else Gate(0, t_s + 1.0)

    follows, plain = Follows(), Trip(open_s=9)
    both = Breakers([plain, follows])
    assert not hasattr(both, "left")
    assert not hasattr(Breakers([plain]), "probed")
    both.joined(1.0, Instance(4, 0, 1))
    assert both.probed(2.0, 4, True) is None
    assert both.probed(3.0, 4, False) == Gate(0, 4.0)
    assert both.wake(4.0, 4) == Gate(0, 9.0), "a probe is an attempt to the one that does not follow probes"
    assert follows.heard == [("joined", 1.0, 4), ("probed", 2.0, 4, True), ("probed", 3.0, 4, False)]
    both.forget(4)
    assert saved(both)["gates"] == saved(Breakers([plain]))["gates"]
    assert saved(plain) == saved(Trip())


# --- in a scenario, and spanning the fleet ---------------------------------------------------------------


FLEET = """\
title: a fleet under one budget
question: does it hold?
seed: 4
duration: 100s
models: {small: {input: $1/1M, output: $3/1M}, large: {input: $5/1M, output: $20/1M}}
fleet:
  - {agent: tax, count: 2, model: small, instances: 1, concurrency: 2, service: {law: time, time: 300ms}}
  - agent: law
    model: large
    instances: 1
    concurrency: 2
    service: {law: time, time: 300ms}
    controllers:
      limiter: {use: concurrency, limit: 2, per: agent}
workload:
  - {kind: poisson, rate: 6/s, tokens_in: 400, tokens_out: 20, max_tokens_out: 40, tenants: 2}
controllers:
  limiter:
    - {use: token_bucket, rate: 5/s, burst: 5}
    - {use: budget, limit: 0.02, every: 10s, per: tenant, scope: fleet}
  breaker: [{use: consecutive}, {use: consecutive, failures: 2}]
"""


def test_a_limit_of_the_fleet_holds_over_all_agents_and_through_restarts():
    scenario = load(FLEET)
    made = build.replication(scenario, 0)
    made.world.start()
    made.world.run(200.0)
    recording = made.journal.recording()

    def plane():
        return build.control_plane(scenario, Streams(scenario.seed, 0))

    assert first_difference(recording, plane()) is None
    live, twin = plane(), plane()
    limited = [pool.controllers.limiter for pool in live.pools]
    assert (
        len({id(one._parts[0]) for one in (limited[2], *limited[:2]) if type(one._parts[0]) is Budget}) == 1
    )
    refused, at_s, spent = set(), {}, {}
    events = [record for record in recording.records() if not isinstance(record, Command)]
    for number, event in enumerate(event for event in events if hasattr(event, "t_s")):
        if type(event).__name__ == "Effected":
            continue
        if number % 200 == 0:
            text = json.dumps(live.snapshot(), allow_nan=False)
            twin = plane()
            twin.restore(json.loads(text))
            assert json.dumps(twin.snapshot(), allow_nan=False) == text
        commands = live.handle(event)
        assert list(twin.handle(event)) == list(commands)
        refused |= {command.request_id for command in commands if type(command) is Reject}
        if type(event) is Arrived:
            at_s[event.request.request_id] = event
    assert refused
    for number, event in at_s.items():
        request = event.request
        price = (1e-6, 3e-6) if request.agent < 2 else (5e-6, 20e-6)
        cost_usd = request.tokens_in * price[0] + 20 * price[1]
        if number not in refused:
            spent.setdefault(request.tenant, []).append((event.t_s, cost_usd))
    for costs in spent.values():
        for start_s, _ in costs:
            window = [usd for t_s, usd in costs if start_s <= t_s < start_s + 10.0]
            assert sum(window) <= 0.02


def test_an_agents_own_limits_come_after_the_fleets():
    scenario = load(FLEET)
    tax, law = (scenario.controllers_of(agent) for agent in scenario.fleet)
    assert [one.use for one in tax["limiter"]] == ["token_bucket", "budget"]
    assert [one.use for one in law["limiter"]] == ["budget", "concurrency"]
    assert Scenario.model_validate(scenario.dump()) == scenario


@pytest.mark.parametrize(
    ("written", "instead", "place", "message"),
    [
        ("per: agent}", "per: agent, scope: fleet}", "14:7: fleet.1.controllers.limiter", "move it to the scenario's"),
        ("burst: 5}", "burst: 5, scope: flet}", "19:", "controllers.limiter.0.scope"),
        ("scope: fleet}", "scope: fleet, shadow: {use: gcra, rate: 1/s}}", "20:", "must be 'fleet', the scope of"),
        ("use: consecutive, failures", "use: consecutive, scope: fleet, failures", "21:", "unknown key"),
        ("use: token_bucket, rate: 5/s, burst: 5}", "use: leased, grant: 5, scope: fleet}", "19:",
         "leased decides for one agent"),
        ("limit: 0.02", "limit: 0", "20:", "must be above 0"),
        ("burst: 5}", "burst: 0.5}", "19:", "lets none in"),
        ("[{use: consecutive}, {use: consecutive, failures: 2}]", "[]", "21:", "at least 1 entry"),
    ],
)  # fmt: skip
def test_scopes_that_contradict_and_limits_that_cannot_be_are_shown_in_their_line(
    written, instead, place, message
):
    assert written in FLEET
    with pytest.raises(ScenarioError) as caught:
        load(FLEET.replace(written, instead, 1))
    (problem,) = caught.value.problems
    assert place in problem.render()
    assert message in problem.render()


def test_two_limits_that_ask_are_refused_by_agent_and_place():
    text = FLEET.replace(
        "{use: token_bucket, rate: 5/s, burst: 5}", "{use: leased, grant: 5}\n    - {use: leased, grant: 5}"
    )
    with pytest.raises(build.BuildError, match=r"tax-001: .* ask the outside world"):
        build.control_plane(load(text), Streams(1, 0))
