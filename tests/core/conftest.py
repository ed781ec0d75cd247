"""Conversations with the control plane: what is said to it, in short, and a witness who counts along.

``talk_to(...)`` builds a control plane for one agent; each of its controllers is given as a factory. Every
conversation is held twice: plainly, and with a crash after each event, where the state goes through JSON
into a fresh control plane that must answer as the one that never stopped.
"""

from __future__ import annotations

import json
from collections import Counter, OrderedDict
from heapq import heapify, heappop, heappush
from math import inf, nan
from types import SimpleNamespace

import pytest

from controllers.balancing.round_robin import RoundRobin
from controllers.queueing.fifo import FifoQueue
from glowsim.core.control_plane import ControlPlane, Notes
from glowsim.core.instance import UNLIMITED
from glowsim.core.pool import Controllers, PoolSpec
from glowsim.core.protocols import HOLD, Gate, Stored, Wanted
from glowsim.core.snapshot import Stateful
from glowsim.core.types import (
    Abandoned,
    Advance,
    Alert,
    Answer,
    Arrived,
    Ask,
    Cancel,
    Changed,
    ChangeKind,
    Code,
    Dispatch,
    Fail,
    Finished,
    FirstToken,
    Forget,
    InstanceChanged,
    Keep,
    Outcome,
    Raise,
    Reason,
    Reject,
    Request,
    Scale,
    Severity,
    Shadowed,
    State,
    Status,
    Told,
    Usage,
    Woke,
)

# --- small real controllers, one of each family ------------------------------------------------------


class Sized(Stateful):
    """Guard: nothing above a size."""

    def __init__(self, largest=1000):
        self.largest = largest

    def check(self, t_s, request):
        if request.tokens_in > self.largest:
            return Reason(Code.TOO_LARGE, a=request.tokens_in, b=self.largest)
        return None


class Counted(Stateful):
    """Limiter: so many at once; whoever is too many comes back in five seconds."""

    state = ("used", "spent")

    def __init__(self, most=1):
        self.most = most
        self.used = 0
        self.spent = 0

    def admit(self, t_s, request):
        if self.used == self.most:
            return 5.0
        self.used += 1
        return 0.0

    def settle(self, t_s, request, usage):
        self.used -= 1
        self.spent += usage.tokens_in + usage.tokens_out


class Leased(Stateful):
    """Limiter: spends a grant that it asks for; without word it admits or rejects, as it was told to."""

    state = ("left", "asking", "wanted", "refused", "settled")

    def __init__(self, amount=2.0, timeout_s=1.0, admit_unknown=False):
        self.amount = amount
        self.timeout_s = timeout_s
        self.admit_unknown = admit_unknown
        self.left = 0.0
        self.asking = False
        self.wanted = False
        self.refused = -1.0
        self.settled = 0

    def admit(self, t_s, request):
        if self.refused >= 0.0:
            return self.refused
        if self.left >= 1.0:
            self.left -= 1.0
            return 0.0
        self.wanted = True
        return HOLD

    def settle(self, t_s, request, usage):
        self.settled += 1

    def to_ask(self, t_s, ask_id):
        self.refused = -1.0
        if not self.wanted or self.asking:
            return None
        self.asking = True
        return Ask(ask_id, "lease", 7, self.amount, self.timeout_s)

    def told(self, t_s, told):
        self.asking = self.wanted = False
        if told.status == Status.GRANTED:
            self.left += told.value
        elif told.status == Status.UNKNOWN and self.admit_unknown:
            self.refused = 0.0
        else:
            self.refused = 3.0


class Halves(Stateful):
    """Splitter: odd users get the candidate from the second stage on; two failures roll it back."""

    state = ("stage", "failures", "due_s", "labels")

    def __init__(self, first_s=0.0):
        self.stage = 0
        self.failures = 0
        self.due_s = first_s
        self.labels = 0

    def assign(self, t_s, request):
        return request.user % 2 if self.stage else 0

    def propensity(self, assigned_s, variant):
        return 0.5

    def finished(self, t_s, assigned_s, variant, request, ok, latency_s, cost_usd):
        if variant == 1 and not ok:
            self.failures += 1
            if self.failures == 2:
                return self.ordered(t_s, ChangeKind.ROLL_BACK)
        return None

    def observed(self, t_s, observed):
        self.labels += 1
        return (
            self.ordered(t_s, ChangeKind.ROLL_BACK)
            if observed.variant == 1 and observed.value < 0.0
            else None
        )

    def wake(self, t_s):
        self.stage, self.due_s = 1, inf
        return Advance(0, 1, 0.5, Reason(Code.STARTED))

    def wake_s(self):
        return self.due_s

    def ordered(self, t_s, kind):
        self.stage, self.due_s = 0, inf
        return Advance(0, 0, 0.0, Reason(Code.EVIDENCE_OF_HARM))


class Keeper(Stateful):
    """Cache: the newest answers, for a while."""

    state = ("kept",)

    def __init__(self, entries=2, ttl_s=100.0):
        self.entries = entries
        self.ttl_s = ttl_s
        self.kept = OrderedDict()

    def get(self, t_s, key):
        source, until_s = self.kept.get(key, (0, -inf))
        return source if until_s > t_s else 0

    def put(self, t_s, key, source, usage):
        evicted = [self.kept.pop(key)[0]] if key in self.kept else []
        self.kept[key] = (source, t_s + self.ttl_s)
        while len(self.kept) > self.entries:
            evicted.append(self.kept.popitem(last=False)[1][0])
        return Stored(True, tuple(evicted))


class Capped(Stateful):
    """Planner: short answers only."""

    def plan(self, t_s, request, plan):
        return plan._replace(max_tokens_out=min(plan.max_tokens_out, 64))


class Urgent(Stateful):
    """Queue: by priority, then by arrival."""

    state = ("heap", "came")

    def __init__(self, limit=100):
        self.limit = limit
        self.heap = []
        self.came = 0

    def push(self, t_s, request):
        if len(self.heap) == self.limit:
            return request.request_id
        heappush(self.heap, (request.priority, self.came, request.request_id))
        self.came += 1
        return 0

    def pop(self, t_s):
        return heappop(self.heap)[2]

    def remove(self, t_s, request):
        self.heap = [each for each in self.heap if each[2] != request.request_id]
        heapify(self.heap)

    def __len__(self):
        return len(self.heap)


class Again(Stateful):
    """Retrier: a fixed wait, or what the instance asks for; so many attempts in all."""

    state = ("successes",)

    def __init__(self, attempts=2, wait_s=1.0):
        self.attempts = attempts
        self.wait_s = wait_s
        self.successes = 0

    def after(self, t_s, request, attempts, outcome, retry_after_s):
        return max(self.wait_s, retry_after_s) if attempts < self.attempts else inf

    def succeeded(self, t_s, request):
        self.successes += 1


class Fuse(Stateful):
    """Breaker: opens after failures in a row, lets one try after ten seconds, closes when it succeeds."""

    state = ("failed", "half_open")

    def __init__(self, failures=2):
        self.failures = failures
        self.failed = {}
        self.half_open = set()

    def record(self, t_s, instance, outcome, duration_s):
        if outcome == Outcome.OK:
            self.failed[instance] = 0
            if instance in self.half_open:
                self.half_open.remove(instance)
                return Gate(UNLIMITED, inf)
            return None
        self.failed[instance] = self.failed.get(instance, 0) + 1
        if self.failed[instance] >= self.failures:
            self.half_open.discard(instance)
            return Gate(0, t_s + 10.0)
        return None

    def wake(self, t_s, instance):
        self.half_open.add(instance)
        return Gate(1, t_s + 10.0)

    def forget(self, instance):
        self.failed.pop(instance, None)
        self.half_open.discard(instance)


class Sizing(Stateful):
    """Scaler: an instance for each request, up to three; looks every ten seconds, asleep when idle."""

    state = ("looks",)

    def __init__(self, least=0):
        self.least = least
        self.looks = []

    def decide(self, t_s, load):
        self.looks.append((t_s, load.mean_in_system))
        want = max(self.least, min(3, load.in_flight + load.queued))
        return Wanted(want, Reason(Code.LOAD_HIGH, c=want), inf if want == self.least else t_s + 10.0)


class Above(Stateful):
    """Detector: alerts on every value above a threshold."""

    state = ("seen",)

    def __init__(self, metric="latency_s", threshold=5.0):
        self.metric = metric
        self.threshold = threshold
        self.seen = []

    def observe(self, t_s, value):
        self.seen.append(value)
        if value > self.threshold:
            return Alert(-1, self.metric, Severity.WARNING, Reason(Code.DRIFT_UP, a=value))
        return None


# --- what was said -----------------------------------------------------------------------------------


def brief(command):
    """Return a command in a few words."""
    match command:
        case Dispatch(attempt, request_id, instance, _, reason):
            return f"dispatch {attempt}: request {request_id} to {instance}, {reason.code.name}"
        case Cancel(attempt, reason):
            return f"cancel {attempt}, {reason.code.name}"
        case Answer(request_id, source, reason, keep):
            return f"answer {request_id} from {source}, {reason.code.name}{', keep' if keep else ''}"
        case Keep(source):
            return f"keep {source}"
        case Forget(source):
            return f"forget {source}"
        case Reject(request_id, retry_after_s, reason):
            return f"reject {request_id}, {reason.code.name}" + (
                f", retry after {retry_after_s:g}" if retry_after_s else ""
            )
        case Fail(request_id, outcome, reason):
            return f"fail {request_id} {outcome.name}, {reason.code.name}"
        case Scale(_, _, _, want, victims, reason):
            return f"scale to {want} without {list(victims)}, {reason.code.name}"
        case Ask(ask_id, kind, _, amount, _):
            return f"ask {ask_id} {kind} {amount:g}"
        case Raise(alert):
            return f"alert {alert.subject}, {alert.reason.code.name}"
        case Advance(_, stage, weight, reason):
            return f"advance to {stage} at {weight:g}, {reason.code.name}"
        case Shadowed(_, family, live, candidate):
            return f"shadowed {family} {live:g} {candidate:g}"
    return type(command).__name__.lower()


class Witness:
    """Counts along from events and commands alone, and checks the invariants after each event."""

    def __init__(self, plane):
        self.plane = plane
        self.now_s = -inf
        self.counts = Counter()
        self.open = set()
        self.attempts = {}
        self.cancelled = set()
        self.ready = {}
        self.victims = set()
        self.lives = Counter()
        self.crossed = 0

    def saw(self, event, commands):
        assert event.t_s >= self.now_s, "I2"
        self.now_s = event.t_s
        match event:
            case Arrived(_, request):
                self.counts["arrived"] += 1
                self.open.add(request.request_id)
            case Finished(_, attempt):
                self.attempts.pop(attempt, None)
                self.crossed = attempt
            case InstanceChanged(_, agent, instance, State.READY):
                self.ready[agent, instance] = (agent, instance) not in self.victims
        for command in commands:
            self._obey(command)
        match event:  # timers that were due before may still have sent work, or ended the request
            case Abandoned(_, request_id) if request_id in self.open:
                self._end(request_id, "abandoned")
            case InstanceChanged(_, agent, instance, state) if state != State.READY:
                self.ready[agent, instance] = False
                if state >= State.GONE:
                    self.victims.discard((agent, instance))
                    self.lives[agent, instance] += 1
        self._check()

    def _obey(self, command):
        match command:
            case Dispatch(attempt, request_id, instance):
                agent = command.plan.model // 10
                assert request_id in self.open, "only open requests are dispatched"
                others = {a for a, (r, _) in self.attempts.items() if r == request_id}
                assert others <= self.cancelled, "I3"
                assert self.ready[agent, instance], "I6"
                self.attempts[attempt] = (request_id, (agent, instance, self.lives[agent, instance]))
            case Cancel(attempt):
                assert attempt in self.attempts or attempt == self.crossed, "only open attempts are cancelled"
                assert attempt not in self.cancelled, "once"
                self.cancelled.add(attempt)
            case Answer(request_id):
                self._end(request_id, "answered")
            case Reject(request_id):
                self._end(request_id, "rejected")
            case Fail(request_id):
                self._end(request_id, "failed")
            case Scale(agent, victims=victims):
                for victim in victims:
                    self.ready[agent, victim] = False
                    self.victims.add((agent, victim))

    def _end(self, request_id, how):
        assert request_id in self.open, f"{request_id} was {how}, but it has ended before"
        self.open.remove(request_id)
        self.counts[how] += 1

    def _check(self):
        counts = self.counts
        ended = counts["answered"] + counts["rejected"] + counts["failed"] + counts["abandoned"]
        assert counts["arrived"] == ended + len(self.open), "I1"
        assert len(self.plane._books.open) == len(self.open), "I1"
        for pool in self.plane.pools:
            free = False
            for number, instance in pool.instances.items():
                assert 0 <= instance.in_flight <= instance.slots, "I5"
                here = (pool.spec.agent, number, self.lives[pool.spec.agent, number])
                held = [attempt for attempt, (_, where) in self.attempts.items() if where == here]
                assert instance.in_flight <= len(held), "a slot is held by an open attempt"
                assert instance.in_flight >= len(set(held) - self.cancelled), "an open attempt holds a slot"
                free = free or (instance.state == State.READY and instance.in_flight < instance.cap)
            load = pool.sizing.load(self.now_s)
            assert not (free and load.queued), "I4"
            assert load.queued == len(pool.controllers.queue)


class Talk:
    """A conversation with a control plane, or with one that crashes after every event."""

    def __init__(self, build, crashing):
        self._build = build
        self._crashing = crashing
        self.plane = build()
        self.other = build() if crashing else None
        self.witness = Witness(self.plane)
        self.events = []
        self.commands = []

    def __call__(self, event):
        commands = list(self.plane.handle(event))
        if self._crashing:
            assert list(self.other.handle(event)) == commands
            saved = json.loads(json.dumps(self.plane.snapshot()))
            assert json.loads(json.dumps(self.other.snapshot())) == saved
            self.other = self._build()
            self.other.restore(saved)
            assert json.loads(json.dumps(self.other.snapshot())) == saved
            assert self.other.next_wake_s() == self.plane.next_wake_s()
        self.witness.saw(event, commands)
        self.events.append(event)
        self.commands += commands
        return [brief(command) for command in commands]

    def ready(self, t_s, *numbers):
        return [said for number in numbers for said in self(InstanceChanged(t_s, 0, number, State.READY))]

    def instance(self, t_s, number, state):
        return self(InstanceChanged(t_s, 0, number, state))

    def arrives(self, t_s, number, **more):
        fields = {"agent": 0, "tokens_in": 900, "max_tokens_out": 100} | more
        return self(Arrived(t_s, Request(number, **fields)))

    def finishes(self, t_s, attempt, outcome=Outcome.OK, tokens_out=40, retry_after_s=0.0, score=nan):
        return self(Finished(t_s, attempt, outcome, Usage(900, 0, tokens_out, score=score), retry_after_s))

    def streams(self, t_s, attempt):
        return self(FirstToken(t_s, attempt))

    def leaves(self, t_s, number):
        return self(Abandoned(t_s, number))

    def told(self, t_s, ask_id, status, value=0.0):
        return self(Told(t_s, ask_id, status, value))

    def ordered(self, t_s, change):
        return self(Changed(t_s, change))

    def passes(self, t_s):
        return self(Woke(t_s))

    def wakes(self):
        """Pass the time to the next timer."""
        return self(Woke(self.plane.next_wake_s()))


def build(agents=1, notes=None, wrap=None, **given):
    """Return a control plane; spec fields are values, controllers are factories."""
    spec = {
        "slots": 1,
        "concurrency": 1,
        "timeout_s": 30.0,
        "first_token_timeout_s": inf,
        "cancel_grace_s": 5.0,
        "hold_limit": 10,
        "follower_limit": 10,
        "memory": 10,
        "probe_every_s": inf,
        "prices": (),
    }
    families = {"queue": FifoQueue, "balancer": RoundRobin}
    for name, value in given.items():
        (spec if name in spec else families)[name] = value
    notes = Notes() if notes is None else notes
    pools = []
    for agent in range(agents):
        made = {name: factory() for name, factory in families.items() if name != "detectors"}
        if wrap is not None:
            made = {name: wrap(name, each, agent, notes) for name, each in made.items()}
        detectors = tuple(factory() for factory in families.get("detectors", ()))
        models = (10 * agent, 10 * agent + 1)
        pools.append((PoolSpec(agent=agent, models=models, **spec), Controllers(**made, detectors=detectors)))
    return ControlPlane(pools, notes)


@pytest.fixture(params=["plain", "crashing"])
def talk_to(request):
    """Start a conversation with a control plane for one agent."""

    def start(**given):
        return Talk(lambda: build(**given), request.param == "crashing")

    return start


@pytest.fixture(scope="session")
def tiny():
    """Small real controllers, a witness and a builder, by name."""
    return SimpleNamespace(
        Sized=Sized,
        Counted=Counted,
        Leased=Leased,
        Halves=Halves,
        Keeper=Keeper,
        Capped=Capped,
        Urgent=Urgent,
        Again=Again,
        Fuse=Fuse,
        Sizing=Sizing,
        Above=Above,
        Witness=Witness,
        Talk=Talk,
        brief=brief,
        build=build,
    )
