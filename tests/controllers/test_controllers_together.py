"""All of them in one control plane, against a small random world: they fit, and a restart changes nothing."""

from __future__ import annotations

import heapq
import json
import random
from math import inf

import pytest

from controllers.admission.leased import LeasedLimiter
from controllers.admission.token_bucket import TokenBucket
from controllers.balancing.least_connections import LeastConnections
from controllers.balancing.power_of_two import PowerOfTwo
from controllers.caching.lru import LruCache
from controllers.drift.page_hinkley import PageHinkley
from controllers.guards.size import SizeGuard
from controllers.queueing.fifo import FifoQueue
from controllers.queueing.priority import PriorityQueue
from controllers.resilience.backoff import BackoffRetrier
from controllers.resilience.breaker import ConsecutiveBreaker
from controllers.rollout.canary import Canary
from controllers.scaling.agent_scaler import AgentScaler
from controllers.tokens.cap import TokenCap
from glowsim.core.control_plane import ControlPlane
from glowsim.core.pool import Controllers, PoolSpec
from glowsim.core.streams import Stream
from glowsim.core.types import (
    Advance,
    Answer,
    Arrived,
    Ask,
    Command,
    Dispatch,
    Event,
    Fail,
    Finished,
    Forget,
    InstanceChanged,
    Outcome,
    Reject,
    Request,
    Scale,
    State,
    Status,
    Told,
    Usage,
    Woke,
)


def plane(leased: bool) -> ControlPlane:
    chosen = Controllers(
        queue=PriorityQueue(limit=20, ageing_s=5) if leased else FifoQueue(limit=20),
        balancer=LeastConnections() if leased else PowerOfTwo(Stream(1)),
        guard=SizeGuard(max_tokens_in=950),
        limiter=LeasedLimiter(0, grant=8)
        if leased
        else TokenBucket((), rate_per_s=6000, burst=9000, of="tokens", per="user"),
        splitter=Canary(salt="v2", weight=0.2, hold_s=60, then=(0.5, 1.0), step_s=30, minimum=10),
        cache=LruCache(entries=6, ttl_s=30),
        planner=TokenCap(max_tokens_out=200),
        breaker=ConsecutiveBreaker(failures=2, open_s=2),
        retrier=BackoffRetrier(Stream(2)),
        scaler=AgentScaler(max_instances=6, cooldown_up_s=5, cooldown_down_s=20, look_s=3),
        detectors=(PageHinkley(metric="error", delta=0.01, threshold=4),),
    )
    return ControlPlane([(PoolSpec(0, 3, 2, (0, 1), 20.0, inf, 5.0, 10, 5, 10), chosen)])


class World:
    """Instances that start late, serve and fail, the canary's more often; a shared limit that may answer."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.coming: list[tuple[float, int, Event]] = []
        self.put = 0
        self.instances = 0
        self.start(0.0, 2)
        t_s = 0.0
        for number in range(1, 900):
            t_s += self.rng.expovariate(6.0 if number < 700 else 0.5)
            self.expect(Arrived(t_s, self.request(number)))

    def request(self, number: int) -> Request:
        rng = self.rng
        return Request(
            number, 0, rng.randrange(1, 1000), 300, priority=rng.randrange(10), user=rng.randrange(1, 9),
            cache_key=rng.choice([0, rng.randrange(1, 20)]),
        )  # fmt: skip

    def expect(self, event: Event) -> None:
        self.put += 1
        heapq.heappush(self.coming, (event[0], self.put, event))

    def start(self, t_s: float, n: int) -> None:
        for number in range(self.instances, self.instances + n):
            self.expect(InstanceChanged(t_s, 0, number, State.STARTING))
            self.expect(InstanceChanged(t_s + 1.0, 0, number, State.READY))
        self.instances += n

    def obey(self, t_s: float, command: Command, have: int) -> None:
        rng = self.rng
        match command:
            case Dispatch(attempt=attempt, plan=plan):
                bad = rng.random() < (0.3 if plan.variant else 0.15)
                outcome = (
                    rng.choice([Outcome.ERROR, Outcome.THROTTLED, Outcome.INVALID]) if bad else Outcome.OK
                )
                usage = Usage(plan.tokens_in, 0, rng.randrange(plan.max_tokens_out))
                self.expect(Finished(t_s + rng.expovariate(2.0), attempt, outcome, usage))
            case Ask(ask_id=ask_id, amount=amount):
                if rng.random() < 0.8:
                    self.expect(
                        Told(
                            t_s + 0.1,
                            ask_id,
                            rng.choice([Status.GRANTED] * 8 + [Status.DENIED, Status.UNKNOWN]),
                            amount,
                            t_s + 5.0,
                        )
                    )
            case Scale(want=want, victims=victims):
                self.start(t_s, max(0, want - have))
                for victim in victims:
                    self.expect(InstanceChanged(t_s + 30.0, 0, victim, State.GONE))


@pytest.mark.parametrize("leased", [False, True])
@pytest.mark.parametrize("seed", range(2))
def test_they_work_together_and_survive_a_restart(leased: bool, seed: int) -> None:
    world, live, twin = World(seed), plane(leased), plane(leased)
    seen: set[type] = set()
    done: set[int] = set()
    events = 0
    while world.coming:
        t_s, _, event = heapq.heappop(world.coming)
        due_s = live.next_wake_s()
        if due_s <= t_s:
            heapq.heappush(world.coming, (t_s, 0, event))
            t_s, event = due_s, Woke(due_s)
        events += 1
        if events % 97 == 0:
            twin = plane(leased)
            twin.restore(json.loads(json.dumps(live.snapshot(), allow_nan=False)))
        have = live.pools[0].sizing.load(t_s)
        commands = live.handle(event)
        if events >= 97:
            assert list(twin.handle(event)) == list(commands)
        for command in commands:
            seen.add(type(command))
            world.obey(t_s, command, have.ready + have.starting)
            if isinstance(command, Answer | Reject | Fail):
                assert command.request_id not in done
                done.add(command.request_id)
    assert done == set(range(1, 900)), "every request comes to one end"
    assert {Dispatch, Answer, Reject, Fail, Forget, Scale, Advance} <= seen
