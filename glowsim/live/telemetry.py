"""What a fleet does, folded from events and commands as they pass, in bounded memory.

It reads no clock and knows no world: the live driver calls `Telemetry.saw`, and so does a replay of a journal.
``/metrics`` (`glowsim.live.exposition`), ``/state`` and the dashboard's document are made from it when somebody asks.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Sequence
from math import isfinite
from typing import Any, NamedTuple

from glowsim.core.control_plane import ControlPlane
from glowsim.core.instance import UNLIMITED
from glowsim.core.protocols import Load
from glowsim.core.reasons import Code, Reason, sentence
from glowsim.core.types import (
    Abandoned,
    Advance,
    Alert,
    Answer,
    Arrived,
    Changed,
    ChangeKind,
    Command,
    Dispatch,
    Event,
    Fail,
    Finished,
    FirstToken,
    InstanceChanged,
    Observed,
    Outcome,
    Probed,
    Raise,
    Reject,
    Scale,
    State,
)
from glowsim.live.windows import SLICE_S, Tally, Window, Windows, bucket_of, quantiles_s
from glowsim.scenario import Scenario
from glowsim.scenario.fleet import Agent as Written

__all__ = [
    "BUCKETS_S",
    "AgentFigures",
    "Histogram",
    "OpenAlert",
    "Scaled",
    "Staged",
    "Telemetry",
    "VariantFigures",
]

BUCKETS_S = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
"""Upper bounds of the buckets of a duration: those of OpenTelemetry's conventions for generative AI."""
_STATE_WINDOW = 1
"""Of `glowsim.live.windows.WINDOWS`: 15 minutes."""
_ALERTS = 100
_DECISIONS = 50
_METRICS = 16
"""Names of feedback that are told apart; values of others are counted as ``other``."""
_ALERT_LASTS_S = 900.0
"""How long an alert that nothing takes back counts as open."""
_DAY_S = 86_400.0


_CACHE_RESULTS = {Code.CACHED: "hit", Code.STALE: "stale", Code.JOINED: "joined", Code.OWN: "miss"}
_RETRY_REASONS = {Outcome.OK: "doubtful", Outcome.CANCELLED: "timeout"}
"""Those of `Outcome` that have another name as what led to another attempt: what is cancelled and yet tried again had
no first token in time."""


class Histogram:
    """Durations, counted by `BUCKETS_S`.

    >>> histogram = Histogram()
    >>> histogram.add(0.02); histogram.counts[:3], histogram.total_s
    ([0, 1, 0], 0.02)
    """

    __slots__ = ("counts", "total_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS_S) + 1)
        """How many were within each bucket; the last is for what is above all bounds."""
        self.total_s = 0.0

    def add(self, value_s: float) -> None:
        """Count a duration."""
        self.counts[bisect_left(BUCKETS_S, value_s)] += 1
        self.total_s += value_s


class Scaled(NamedTuple):
    """A decision on an agent's size."""

    t_s: float
    agent: int
    before: int
    want: int
    reason: Reason


class Staged(NamedTuple):
    """A rollout moved to a stage."""

    t_s: float
    stage: int
    weight: float
    reason: Reason


class OpenAlert(NamedTuple):
    """An alert and when it was raised last."""

    t_s: float
    alert: Alert


class VariantFigures:
    """What became of the requests that got one variant, since the beginning."""

    __slots__ = ("bad", "ended", "latencies", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.ended = 0
        self.bad = 0
        self.latencies: dict[int, int] = {}
        """Bucket (`glowsim.live.windows.bucket_of`) -> answers."""


class AgentFigures:
    """What is known of one agent; counts are since the beginning, `windows` are of late."""

    __slots__ = (
        "alive", "cache", "day_usd", "decisions", "duration", "ended", "feedback", "first_token", "instance_usd",
        "instance_usd_per_s", "limited", "number", "open", "paid_until_s", "paused", "retries", "stages", "token_usd",
        "variants", "waits", "wanted", "weight", "windows",
    )  # fmt: skip

    def __init__(self, number: int, written: Written, instances: int) -> None:
        self.number = number
        self.open = 0
        self.wanted = instances
        self.weight: float | None = None
        """The share of a rollout's new variant; None before it first moved."""
        self.ended: Counter[tuple[int, str]] = Counter()
        """(model of the last attempt, or -1 where none was made; what became of the request) -> how many."""
        self.cache: Counter[str] = Counter()
        self.retries: Counter[str] = Counter()
        """How the attempt before ended -> further attempts."""
        self.limited = 0
        self.token_usd = 0.0
        self.instance_usd = 0.0
        self.instance_usd_per_s = written.instance_usd_per_hour / 3600.0
        self.day_usd = 0.0
        """What it had cost when this day began."""
        self.alive: set[int] = set()
        """Instances that cost: starting, ready or draining."""
        self.paid_until_s = 0.0
        self.paused = False
        """Whether an operator paused its scaling."""
        self.duration = Histogram()
        self.first_token = Histogram()
        """From a request's arrival, as the tables of a run have it."""
        self.waits = Histogram()
        """In the queue, before each attempt."""
        self.windows = Windows(0.0)
        self.decisions: deque[Scaled] = deque(maxlen=5)
        self.stages: deque[Staged] = deque(maxlen=10)
        self.variants = [VariantFigures(name) for name in ("baseline", *written.variants)]
        """By number, the baseline first."""
        self.feedback: dict[str, tuple[int, float]] = {}
        """Metric -> how many values, and their sum."""

    @property
    def outcomes(self) -> dict[str, int]:
        """What became of requests -> how many."""
        found: Counter[str] = Counter()
        for (_, outcome), count in self.ended.items():
            found[outcome] += count
        return dict(found)

    @property
    def usd(self) -> float:
        """What it has cost: tokens and instances."""
        return self.token_usd + self.instance_usd


class _Open:
    """An open request, and what is remembered of it while its last attempt is under way."""

    __slots__ = ("agent", "arrived_s", "attempt", "cacheable", "model", "tried")

    def __init__(self, arrived_s: float, agent: AgentFigures, cacheable: bool) -> None:
        self.arrived_s = arrived_s
        self.agent = agent
        self.cacheable = cacheable
        self.attempt = 0
        """The last one; 0 before the first."""
        self.model = -1
        self.tried: Outcome | None = None
        """How that one ended; None while it has not."""


class Telemetry:
    """What ``/metrics``, ``/state`` and the dashboard show; `saw` is the driver's ``watch``.

    Parameters
    ----------
    scenario
        Names, prices, variants.
    plane
        The control plane, read for its load and its breakers, and never changed.
    instances
        How many instances every agent starts with.

    Notes
    -----
    It begins with this process: what an earlier one saw is in the journal. An event costs a few microseconds, and
    memory grows with agents and open requests only.
    """

    def __init__(self, scenario: Scenario, plane: ControlPlane, instances: Sequence[int]) -> None:
        written = scenario.agents()
        self.scenario = scenario
        self.names = list(written)
        self.agents = [
            AgentFigures(number, *each)
            for number, each in enumerate(zip(written.values(), instances, strict=True))
        ]
        self.plane = plane
        self.epoch_unix_s: float | None = None
        """When the time began, in seconds since 1970 UTC; None where there is no such moment: a simulation."""
        self.began_s: float | None = None
        """When the first event was seen."""
        self.seen = 0
        """Events so far: while it stands, nothing has happened."""
        self.decisions: deque[Scaled] = deque(maxlen=_DECISIONS)
        self.alerts: deque[OpenAlert] = deque(maxlen=_ALERTS)
        """The last ones raised, over or not."""
        self.opened: dict[tuple[int, int], float] = {}
        """(agent, instance) whose breaker was seen to be open -> since when."""
        self._prices = [model.price for model in scenario.models.values()]
        self._fleet = Windows(0.0)
        self._arrived: dict[int, _Open] = {}
        self._attempts: dict[int, tuple[_Open, int, int]] = {}
        """Attempt -> (its request, model, instance)."""
        self._variants: dict[int, VariantFigures] = {}
        """Open request of an agent with a rollout -> its variant."""
        self._burning: OrderedDict[tuple[int, str, float], OpenAlert] = OrderedDict()
        self._turns_s = 0.0
        self._day = -1.0
        self._heard: dict[type, Callable[[Any], None]] = {
            FirstToken: self._first_token,
            InstanceChanged: self._instance_changed,
            Observed: self._observed,
            Probed: self._probed,
            Changed: self._changed,
        }
        self._done: dict[type, Callable[[float, Any], None]] = {
            Fail: self._failed,
            Reject: self._rejected,
            Scale: self._scaled,
            Advance: self._advanced,
            Raise: self._raised,
        }

    # --- the fold -------------------------------------------------------------------------------------

    def saw(self, event: Event, commands: Sequence[Command]) -> None:
        """Count an event and what was answered to it."""
        t_s = event[0]
        if t_s >= self._turns_s:
            self._turn(t_s)
        self.seen += 1
        if type(event) is Arrived:
            request = event.request
            agent = self.agents[request[1]]
            agent.open += 1
            agent.windows.now.arrived += 1
            self._arrived[request[0]] = _Open(t_s, agent, bool(request.cache_key))
        elif type(event) is Finished:
            self._finished(event)
        elif type(event) in self._heard:
            self._heard[type(event)](event)
        for command in commands:
            if type(command) is Dispatch:
                self._dispatched(t_s, command)
            elif type(command) is Answer:
                self._answered(t_s, command)
            elif type(command) in self._done:
                self._done[type(command)](t_s, command)
        if type(event) is Abandoned:
            self._end(t_s, event.request_id, "abandoned")

    def _dispatched(self, t_s: float, command: Dispatch) -> None:
        attempt, request_id, instance, plan, reason = command
        opened = self._arrived.get(request_id)
        if opened is None:
            return  # it came before this fold began
        agent = opened.agent
        if opened.attempt:
            tried = Outcome.LOST if opened.tried is None else opened.tried
            agent.retries[_RETRY_REASONS.get(tried) or tried.name.lower()] += 1
            agent.windows.now.retries += 1
        opened.attempt, opened.model, opened.tried = attempt, plan[0], None
        self._attempts[attempt] = (opened, plan[0], instance)
        agent.waits.add(reason[2] if reason[0] == Code.QUEUED else 0.0)
        if len(agent.variants) > 1 and plan[1] < len(agent.variants):
            self._variants[request_id] = agent.variants[plan[1]]

    def _first_token(self, event: FirstToken) -> None:
        begun = self._attempts.get(event.attempt)
        if begun is not None:
            begun[0].agent.first_token.add(event.t_s - begun[0].arrived_s)

    def _finished(self, event: Finished) -> None:
        t_s, attempt, outcome, usage, _ = event
        begun = self._attempts.pop(attempt, None)
        if begun is None:
            return
        opened, model, instance = begun
        if opened.attempt == attempt:
            opened.tried = outcome
        agent = opened.agent
        usd = self._prices[model].cost_usd(usage[0], usage[1], usage[2])
        agent.token_usd += usd
        agent.windows.now.token_usd += usd
        if outcome is not Outcome.OK or self.opened:
            self._look_at_breaker(t_s, agent.number, instance)

    def _answered(self, t_s: float, command: Answer) -> None:
        request_id, _, reason, _ = command
        if reason[0] == Code.APOLOGY:
            self._end(t_s, request_id, "apologised")
            return
        ended = self._end(t_s, request_id, "answered")
        if ended is None:
            return
        agent = ended.agent
        latency_s = t_s - ended.arrived_s
        bucket = bucket_of(latency_s)
        now = agent.windows.now
        now.latencies[bucket] = now.latencies.get(bucket, 0) + 1
        agent.duration.add(latency_s)
        if ended.cacheable:
            if reason[0] == Code.CACHED:
                now.hits += 1
            else:
                now.misses += 1
            result = _CACHE_RESULTS.get(reason[0])
            if result is not None:
                agent.cache[result] += 1
        variant = self._variants.pop(request_id, None)
        if variant is not None:
            variant.ended += 1
            variant.latencies[bucket] = variant.latencies.get(bucket, 0) + 1

    def _failed(self, t_s: float, command: Fail) -> None:
        self._end(t_s, command.request_id, command.outcome.name.lower(), "failed")

    def _rejected(self, t_s: float, command: Reject) -> None:
        opened = self._arrived.get(command.request_id)
        if opened is not None and command.reason.code in (Code.LIMITED, Code.LIMIT_UNKNOWN):
            opened.agent.limited += 1
            opened.agent.windows.now.limited += 1
        self._end(t_s, command.request_id, "rejected")

    def _end(self, t_s: float, request_id: int, outcome: str, counted: str | None = None) -> _Open | None:
        """Close a request; None if it had ended when its client left."""
        opened = self._arrived.pop(request_id, None)
        if opened is None:
            return None
        agent = opened.agent
        agent.open -= 1
        agent.ended[opened.model, outcome] += 1
        now = agent.windows.now
        if outcome == "answered":
            now.answered += 1
            return opened
        counted = counted or outcome
        setattr(now, counted, getattr(now, counted) + 1)
        variant = self._variants.pop(request_id, None)
        if variant is not None and outcome != "abandoned":
            variant.ended += 1
            variant.bad += 1
        return opened

    def _scaled(self, t_s: float, command: Scale) -> None:
        agent = self.agents[command.agent]
        decided = Scaled(t_s, command.agent, agent.wanted, command.want, command.reason)
        agent.wanted = command.want
        agent.decisions.append(decided)
        self.decisions.append(decided)

    def _advanced(self, t_s: float, command: Advance) -> None:
        agent = self.agents[command.agent]
        agent.weight = command.weight
        agent.stages.append(Staged(t_s, command.stage, command.weight, command.reason))

    def _raised(self, t_s: float, command: Raise) -> None:
        alert = command.alert
        raised = OpenAlert(t_s, alert)
        self.alerts.append(raised)
        if alert.reason.code == Code.RECOVERED:
            self._recovered(alert)
            return
        burn = alert.reason.c if alert.reason.code == Code.BURNING else 0.0
        key = (alert.agent, alert.subject, burn)
        self._burning.pop(key, None)
        self._burning[key] = raised
        if len(self._burning) > _ALERTS:
            self._burning.popitem(last=False)

    def _recovered(self, alert: Alert) -> None:
        """Take back an alert: of those of the same metric the one with the lowest burn rate that was recovered from.

        Detectors of one metric differ by the burn rate that they alert at, and it is over below a share of that.
        """
        same = [
            key
            for key in self._burning
            if key[:2] == (alert.agent, alert.subject) and key[2] >= alert.reason.b
        ]
        if same:
            del self._burning[min(same)]

    def _instance_changed(self, event: InstanceChanged) -> None:
        agent = self.agents[event.agent]
        self._pay(agent, event.t_s)
        if event.state in (State.GONE, State.FAILED):
            agent.alive.discard(event.instance)
            self.opened.pop((event.agent, event.instance), None)
        else:
            agent.alive.add(event.instance)

    def _probed(self, event: Probed) -> None:
        for instance, well in event.results:
            if not well:
                self._look_at_breaker(event.t_s, event.agent, instance)

    def _look_at_breaker(self, t_s: float, number: int, instance: int) -> None:
        """Note since when a breaker is open.

        No event tells of it; but what opens one is an attempt or a probe that ended badly, and what closes it is an
        attempt, too.
        """
        there = self.plane.pools[number].instances.get(instance)
        if there is not None and there.gate_cap < UNLIMITED:
            self.opened.setdefault((number, instance), t_s)
        elif self.opened:
            self.opened.pop((number, instance), None)

    def _observed(self, event: Observed) -> None:
        if not isfinite(event.value):
            return  # no mean could be shown any more
        feedback = self.agents[event.agent].feedback
        metric = event.metric
        if metric not in feedback and len(feedback) >= _METRICS:
            metric = "other"
        n, total = feedback.get(metric, (0, 0.0))
        feedback[metric] = (n + 1, total + event.value)

    def _changed(self, event: Changed) -> None:
        kind, agent = event.change[:2]
        if kind in (ChangeKind.PAUSE_SCALING, ChangeKind.RESUME_SCALING):
            self.agents[agent].paused = kind == ChangeKind.PAUSE_SCALING

    # --- time -----------------------------------------------------------------------------------------

    def _turn(self, t_s: float) -> None:
        """Close the slice that is over, for every agent and for the fleet."""
        if self.began_s is None:
            self.began_s = t_s
            self._fleet = Windows(t_s)
            for agent in self.agents:
                agent.windows = Windows(t_s)
                agent.paid_until_s = t_s
        fleet = self._fleet
        for agent in self.agents:
            self._pay(agent, t_s)
            fleet.now.add(agent.windows.now)
            agent.windows.turn(t_s)
        fleet.turn(t_s)
        self._turns_s = (t_s // SLICE_S + 1.0) * SLICE_S
        day = ((self.epoch_unix_s or 0.0) + t_s) // _DAY_S
        if day != self._day:
            self._day = day
            for agent in self.agents:
                agent.day_usd = agent.usd

    def _pay(self, agent: AgentFigures, t_s: float) -> None:
        """Charge for the instances up to now."""
        if agent.instance_usd_per_s:
            usd = len(agent.alive) * (t_s - agent.paid_until_s) * agent.instance_usd_per_s
            agent.instance_usd += usd
            agent.windows.now.instance_usd += usd
        agent.paid_until_s = t_s

    def catch_up(self, t_s: float) -> None:
        """Take in that it is ``t_s``, before anything is read; not earlier than the last event."""
        if t_s >= self._turns_s:
            self._turn(t_s)
        for agent in self.agents:
            self._pay(agent, t_s)

    # --- reading --------------------------------------------------------------------------------------

    def load(self, number: int, t_s: float) -> Load:
        """Return the load of an agent at a moment."""
        return self.plane.pools[number].sizing.load(t_s)

    def fleet(self, t_s: float) -> tuple[list[Window], Windows]:
        """Return the fleet's windows at a moment, and what its trend is kept in."""
        newest = Tally()
        for agent in self.agents:
            newest.add(agent.windows.now)
        windows = self._fleet.read(t_s)
        for window in windows:
            window.tally.add(newest)
        return windows, self._fleet

    def open_alerts(self, t_s: float) -> list[OpenAlert]:
        """Return the alerts that nothing took back: those that can be, and others of the last 15 minutes."""
        return [
            raised
            for (_, _, burn), raised in self._burning.items()
            if burn or raised.t_s >= t_s - _ALERT_LASTS_S
        ]

    def state(self, t_s: float) -> dict[str, Any]:
        """Return the fleet at a moment, as plain JSON data; latencies are of the last fifteen minutes."""
        self.catch_up(t_s)
        agents = {}
        for name, agent in zip(self.names, self.agents, strict=True):
            load = self.load(agent.number, t_s)
            latencies = agent.windows.read(t_s)[_STATE_WINDOW].tally.latencies
            p50, p95 = quantiles_s([latencies], (0.50, 0.95))
            agents[name] = {
                "open": agent.open,
                "waiting": load.queued,
                "in_flight": load.in_flight,
                "ready": load.ready,
                "starting": load.starting,
                "draining": load.draining,
                "wanted": agent.wanted,
                "latency_s": {"n": sum(latencies.values()), "p50": p50, "p95": p95},
                "outcomes": agent.outcomes,
                "cost_usd": agent.token_usd,
            }
        alerts = [
            {
                "t_s": when_s,
                "agent": self.names[alert.agent],
                "subject": alert.subject,
                "why": sentence(alert.reason),
            }
            for when_s, alert in self.alerts
        ]
        return {"t_s": t_s, "agents": agents, "alerts": alerts}
