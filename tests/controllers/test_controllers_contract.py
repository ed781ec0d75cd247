"""What every controller owes: its protocol, its state, honest parameters, and no clock of its own."""

from __future__ import annotations

import ast
import inspect
import json
import random
from collections.abc import Callable, Iterator
from math import inf, nan
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import pytest

import controllers
from controllers.admission.budget import Budget
from controllers.admission.concurrency import ConcurrencyLimiter
from controllers.admission.gcra import Gcra
from controllers.admission.leased import LeasedLimiter
from controllers.admission.token_bucket import TokenBucket
from controllers.balancing.adaptive import Adaptive
from controllers.balancing.affinity import Affinity
from controllers.balancing.consistent_hash import ConsistentHash
from controllers.balancing.ip_hash import IpHash
from controllers.balancing.least_connections import LeastConnections
from controllers.balancing.peak_ewma import PeakEwma
from controllers.balancing.power_of_two import PowerOfTwo
from controllers.balancing.round_robin import RoundRobin
from controllers.balancing.weighted import Weighted
from controllers.caching.lfu import LfuCache
from controllers.caching.lru import LruCache
from controllers.caching.s3_fifo import S3FifoCache
from controllers.drift.adwin import Adwin
from controllers.drift.cusum import Cusum
from controllers.drift.ks import KolmogorovSmirnov
from controllers.drift.page_hinkley import PageHinkley
from controllers.drift.psi import PopulationStability
from controllers.drift.shiryaev_roberts import ShiryaevRoberts
from controllers.guards.size import SizeGuard
from controllers.monitoring.burn_rate import BurnRate
from controllers.queueing.adaptive_lifo import AdaptiveLifoQueue
from controllers.queueing.deadline import DeadlineQueue
from controllers.queueing.fair import FairQueue
from controllers.queueing.fifo import FifoQueue
from controllers.queueing.priority import PriorityQueue
from controllers.resilience.backoff import BackoffRetrier
from controllers.resilience.breaker import ConsecutiveBreaker
from controllers.resilience.failure_rate import FailureRateBreaker
from controllers.resilience.outlier import OutlierBreaker
from controllers.resilience.probes import ProbesBreaker
from controllers.rollout.ab_test import ABTest
from controllers.rollout.bandit import Bandit
from controllers.rollout.canary import Canary
from controllers.rollout.improvement import ImprovementRollout
from controllers.routing.cheap_first import CheapFirst
from controllers.routing.predictive import Predictive
from controllers.scaling.agent_scaler import AgentScaler
from controllers.scaling.hpa import HpaScaler
from controllers.scaling.queueing import QueueingScaler
from controllers.tokens.cap import TokenCap
from glowsim.core import protocols
from glowsim.core.instance import UNLIMITED, Eligible, Instance
from glowsim.core.parameters import Bound
from glowsim.core.price import Price
from glowsim.core.snapshot import Stateful
from glowsim.core.streams import Stream
from glowsim.core.types import ChangeKind, Observed, Outcome, Plan, Request, State, Status, Told, Usage

MODELS = ("small", "large")
PRICES = (Price(2e-6, 1e-6, 8e-6),) * 4
Make = Callable[[], Any]
MAKERS: dict[str, tuple[type, Make]] = {
    "size": (protocols.Guard, lambda: SizeGuard(max_tokens_in=800)),
    "bucket": (protocols.Limiter, lambda: TokenBucket((), rate_per_s=2, burst=3, per="user", keys=3)),
    "token bucket": (protocols.Limiter, lambda: TokenBucket((), rate_per_s=900, burst=4000, of="tokens")),
    "usd bucket": (
        protocols.Limiter,
        lambda: TokenBucket(PRICES, rate_per_s=0.01, burst=0.02, of="usd", per="user", keys=3),
    ),
    "gcra": (protocols.Limiter, lambda: Gcra((), rate_per_s=0.9, tolerance_s=3, per="user", keys=3)),
    "usd gcra": (protocols.Limiter, lambda: Gcra(PRICES, rate_per_s=0.01, of="usd")),
    "concurrency": (protocols.Limiter, lambda: ConcurrencyLimiter(limit=2, per="user")),
    "budget": (
        protocols.Limiter,
        lambda: Budget(PRICES, limit=0.03, every_s=20, per="user", attempts=2, keys=3),
    ),
    "token budget": (protocols.Limiter, lambda: Budget((), limit=9000, of="tokens", every_s=30)),
    "leased": (protocols.Limiter, lambda: LeasedLimiter(3, grant=4)),
    "leased asker": (protocols.Asker, lambda: LeasedLimiter(3, grant=4, when_unknown="admit")),
    "canary": (
        protocols.Splitter,
        lambda: Canary(salt="a", weight=0.3, then=(0.6, 1.0), hold_s=40, minimum=5),
    ),
    "ab test": (
        protocols.Splitter,
        lambda: ABTest(salt="a", sample_size=40, look_s=10, maturity_s=9, test="sequential"),
    ),
    "ab test of labels": (
        protocols.Splitter,
        lambda: ABTest(salt="a", metric="observed", label="error", unit="user", sample_size=90, maturity_s=9),
    ),
    "bandit": (protocols.Splitter, lambda: Bandit(Stream(9), 2, look_s=10)),
    "bandit of labels": (
        protocols.Splitter,
        lambda: Bandit(Stream(9), 2, rule="ucb1", metric="observed", label="error", unit="user"),
    ),
    "labels": (
        protocols.Splitter,
        lambda: Canary(salt="a", weight=0.3, then=(), outcome="observed", unit="user"),
    ),
    "improvement rollout": (
        protocols.Splitter,
        lambda: ImprovementRollout(
            salt="a",
            strategy="stages",
            weights=(0.3, 0.6),
            holds_s=(40,),
            look_s=2.0,
            maturity_s=6.0,
            minimum=5,
            latency_above_s=6.0,
            cost_above_usd=0.05,
            quality_metric="error",
            quality_below=0.5,
            gates=3,
            alpha=0.5,
        ),
    ),
    "improvement rollout by user": (
        protocols.Splitter,
        lambda: ImprovementRollout(
            salt="a",
            strategy="stages",
            weights=(0.3, 0.6),
            holds_s=(40,),
            look_s=2.0,
            maturity_s=6.0,
            unit="user",
            correlation=0.1,
            minimum=5,
            margin=0.5,
        ),
    ),
    "lru": (protocols.Cache, lambda: LruCache(entries=5, ttl_s=20)),
    "lru by tokens": (protocols.Cache, lambda: LruCache(entries=7, tokens=900, ttl_s=20, stale_s=10)),
    "lfu": (protocols.Cache, lambda: LfuCache(entries=5, ttl_s=20)),
    "lfu by tokens": (
        protocols.Cache,
        lambda: LfuCache(entries=7, tokens=900, ttl_s=20, stale_s=10, saves="tokens"),
    ),
    "s3 fifo": (protocols.Cache, lambda: S3FifoCache(entries=5, ttl_s=20, stale_s=10)),
    "stale": (protocols.Stale, lambda: LruCache(entries=5, ttl_s=20, stale_s=10)),
    "cap": (protocols.Planner, lambda: TokenCap(max_tokens_out=100, max_tokens_in=700)),
    "cheap first": (
        protocols.Escalating,
        lambda: CheapFirst(MODELS, cheap="small", strong="large", threshold=0.6, most=0.3, burst=2),
    ),
    "predictive": (
        protocols.Planner,
        lambda: Predictive(
            Stream(8), MODELS, cheap="small", strong="large", gain_per_log_token=0.1, window=9, burst=2
        ),
    ),
    "fifo": (protocols.Queue, lambda: FifoQueue(limit=8)),
    "priority": (protocols.Queue, lambda: PriorityQueue(limit=8, ageing_s=5)),
    "strict": (protocols.Queue, lambda: PriorityQueue(limit=8, ageing_s=None)),
    "deadline": (protocols.Queue, lambda: DeadlineQueue(limit=8, service_s=2, patience_s=6)),
    "fair": (protocols.Queue, lambda: FairQueue(limit=8, per="user", flows=3, weights=(4, 1))),
    "adaptive lifo": (protocols.Queue, lambda: AdaptiveLifoQueue(limit=8, overload_s=3)),
    "round robin": (protocols.Balancer, RoundRobin),
    "least connections": (protocols.Balancer, LeastConnections),
    "power of two": (protocols.Balancer, lambda: PowerOfTwo(Stream(5))),
    "weighted": (protocols.Balancer, lambda: Weighted(weights=(3, 1), load_bias=1, slow_start_s=20)),
    "adaptive": (protocols.Balancer, lambda: Adaptive(memory=3, per="region", slow_start_s=20)),
    "peak ewma": (protocols.Balancer, lambda: PeakEwma(Stream(7), decay_s=9)),
    "ip hash": (protocols.Balancer, IpHash),
    "consistent hash": (protocols.Balancer, lambda: ConsistentHash(key="user", points=9)),
    "affinity": (protocols.Balancer, lambda: Affinity(sessions=3)),
    "breaker": (protocols.Breaker, lambda: ConsecutiveBreaker(failures=2, open_s=3, longest_open_s=10)),
    "failure rate": (
        protocols.Breaker,
        lambda: FailureRateBreaker(minimum=3, calls=6, window_s=20, slow_s=1, open_s=2, longest_open_s=9),
    ),
    "outlier": (
        protocols.Breaker,
        lambda: OutlierBreaker(
            failures=2,
            eject_s=3,
            interval_s=6,
            max_ejected=0.5,
            deviations=1,
            minimum_instances=3,
            minimum_attempts=1,
        ),
    ),
    "probes": (protocols.Breaker, lambda: ProbesBreaker(unhealthy=2, lapse_s=9)),
    "backoff": (protocols.Retrier, lambda: BackoffRetrier(Stream(6), attempts=4, budget_min_per_s=0.2)),
    "no budget": (protocols.Retrier, lambda: BackoffRetrier(Stream(6), attempts=4, budget_ratio=None)),
    "agent scaler": (protocols.Scaler, lambda: AgentScaler(cooldown_up_s=4, cooldown_down_s=3, look_s=2)),
    "to zero": (
        protocols.Scaler,
        lambda: AgentScaler(min_instances=0, cooldown_s=0, idle_s=1, max_step=2, look_s=2),
    ),
    "hpa": (protocols.Scaler, lambda: HpaScaler(stabilise_up_s=2, stabilise_down_s=9, sync_s=2)),
    "queueing scaler": (
        protocols.Scaler,
        lambda: QueueingScaler(min_instances=0, service_s=1, memory_s=3, hold_s=5, look_s=2),
    ),
    "page hinkley": (
        protocols.Detector,
        lambda: PageHinkley(metric="error", delta=0.01, threshold=2, minimum=5, quiet_s=9),
    ),
    "adwin": (protocols.Detector, lambda: Adwin(metric="error", delta=0.9, clock=4, quiet_s=9)),
    "cusum": (protocols.Detector, lambda: Cusum(metric="cost_usd", threshold=3, baseline=40, margin=0.5)),
    "ks": (protocols.Detector, lambda: KolmogorovSmirnov(metric="error", window=50, run_length=60)),
    "psi": (protocols.Detector, lambda: PopulationStability(metric="error", window=60, run_length=70)),
    "shiryaev roberts": (
        protocols.Detector,
        lambda: ShiryaevRoberts(metric="error", run_length=2, baseline=50),
    ),
    "burn rate": (
        protocols.Detector,
        lambda: BurnRate(metric="latency_s", threshold=1, objective=0.7, burn=1.5, window_s=40, short_s=6),
    ),
}
CLASSES = sorted({type(make()) for _, make in MAKERS.values()}, key=lambda each: each.__name__)
FOLDER = Path(controllers.__file__).parent


def request(rng: random.Random, number: int) -> Request:
    user, tokens_in = rng.randrange(1, 6), rng.randrange(1, 1000)
    return Request(number, 3, tokens_in, rng.randrange(1, 500), priority=rng.randrange(10), user=user)


def usage(rng: random.Random) -> Usage:
    return Usage(rng.randrange(1000), 0, rng.randrange(500))


class Fleet:
    """A pool's instances. They change before a balancer is told, so that two can be told the same."""

    def __init__(self) -> None:
        self.eligible = Eligible()
        self.instances = self.eligible.instances
        self.busy: list[Instance] = []
        self.picked: Instance | None = None
        """By the last step, and not dispatched to yet."""

    def change(self, rng: random.Random) -> Iterator[tuple[Any, ...]]:
        """Yield what is to be told of a dispatch to the picked one and of one more change."""
        if self.picked is not None:
            self.picked.in_flight += 1
            self.busy.append(self.picked)
            yield self.refreshed(self.picked)
            self.picked = None
        draw, numbers = rng.random(), sorted(self.instances)
        if len(numbers) < 4 or draw < 0.05:
            number = max(numbers, default=-1) + 1
            one = self.instances[number] = Instance(number, number % 2, 3)
            one.state = State.READY
            yield "joined", one
            yield self.refreshed(one)
        elif draw < 0.5 and self.busy:
            one = self.busy.pop(rng.randrange(len(self.busy)))
            one.in_flight -= 1
            yield self.refreshed(one)
            yield "ended", one, rng.choice(list(Outcome)), rng.random() * 9
        elif draw < 0.55:
            one = self.instances[rng.choice(numbers)]
            one.state = State.DRAINING
            yield self.refreshed(one)
            yield "left", one.number
            del self.instances[one.number]
        elif draw < 0.65:
            one = self.instances[rng.choice(numbers)]
            one.set_gate(rng.choice([0, 1, UNLIMITED]), inf)
            yield self.refreshed(one)

    def refreshed(self, instance: Instance) -> tuple[str, Instance]:
        self.eligible.refresh(instance)
        return "moved", instance


class Draws(random.Random):
    """Also remembers which requests a limiter has admitted and not settled yet, and a balancer's instances."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.open: dict[int, Request] = {}
        self.fleet = Fleet()


Step = Callable[[Any, float, Request], Any]
"""A call drawn beforehand, so that two controllers can be asked the same."""


def limiter(rng: Draws) -> Step:
    used = usage(rng)
    if rng.random() < 0.4:
        admitted = rng.open.popitem()[1] if rng.open else None
        return lambda one, t_s, r: one.settle(t_s, admitted, used) if admitted else None

    def step(one: Any, t_s: float, r: Request) -> Any:
        answer = one.admit(t_s, r)
        if answer == 0.0:
            rng.open[r.request_id] = r
        return answer

    return step


def asker(rng: random.Random) -> Step:
    status, value, lasts_s = rng.choice(list(Status)), rng.randrange(5), rng.randrange(1, 9)

    def step(one: Any, t_s: float, r: Request) -> Any:
        answer = one.admit(t_s, r)
        ask = one.to_ask(t_s, r.request_id)
        if ask is not None and value:
            one.told(t_s, Told(t_s, ask.ask_id, status, value, t_s + lasts_s))
        return answer, ask

    return step


ROLLOUT_ORDERS = (
    ChangeKind.ROLL_BACK,
    ChangeKind.PAUSE_ROLLOUT,
    ChangeKind.RESUME_ROLLOUT,
    ChangeKind.PROMOTE,
)


def splitter(rng: random.Random) -> Step:
    variant, ok, ago_s, chance = rng.randrange(2), rng.random() < 0.7, rng.randrange(9), rng.random()
    order = rng.choice(ROLLOUT_ORDERS)

    def step(one: Any, t_s: float, r: Request) -> Any:
        assigned_s = max(0.0, t_s - ago_s)
        label = Observed(
            t_s,
            r.request_id,
            3,
            variant,
            r.user,
            0.3 if variant else 0.7,
            "error",
            float(not ok),
            0,
            assigned_s,
        )
        ordered = one.ordered(t_s, order) if chance < 0.04 else None
        finished = one.finished(t_s, assigned_s, variant, r, ok, float(ago_s), 0.01 * ago_s)
        return one.assign(t_s, r), finished, one.observed(t_s, label), one.wake(t_s), one.wake_s(), ordered

    return step


def cache(rng: random.Random) -> Step:
    key, puts, used = rng.randrange(9), rng.random() < 0.5, usage(rng)
    if puts:
        return lambda one, t_s, r: one.put(t_s, key, r.request_id, used)
    return lambda one, t_s, r: (one.get(t_s, key), one.stale(t_s, key))


def escalating(rng: random.Random) -> Step:
    score, model = rng.choice([rng.random(), nan]), rng.randrange(2)

    def step(one: Any, t_s: float, r: Request) -> Any:
        plan = one.plan(t_s, r, Plan(1, 0, r.tokens_in, 200))
        return plan, one.escalate(t_s, r, plan._replace(model=model), score)

    return step


def queue(rng: random.Random) -> Step:
    takes, removes = rng.random() < 0.4, rng.random() < 0.2
    lasts_s = rng.choice([1, 3, 9, inf])

    def step(one: Any, t_s: float, r: Request) -> Any:
        if takes and len(one):
            return one.pop(t_s)
        due = r._replace(deadline_s=t_s + lasts_s)
        pushed = one.push(t_s, due)
        if pushed != r.request_id and removes:
            one.remove(t_s, due)
        return pushed, len(one)

    return step


def balancer(rng: Draws) -> Step:
    fleet = rng.fleet
    news = list(fleet.change(rng))
    allowed: list[Instance] = fleet.eligible
    if len(allowed) > 1 and rng.random() < 0.2:  # another try, elsewhere
        allowed = allowed[1:]

    def step(one: Any, t_s: float, r: Request) -> Any:
        for method, *about in news:
            if hasattr(one, method):
                getattr(one, method)(*(about if method == "moved" else (t_s, *about)))
        if allowed:
            fleet.picked = one.pick(t_s, r._replace(session=r.user), allowed)
        return fleet.picked and fleet.picked.number

    return step


def breaker(rng: random.Random) -> Step:
    instance, outcome, draw = rng.randrange(3), rng.choice(list(Outcome)), rng.random()
    duration_s = rng.choice([0.0, 0.5, 4.0])
    if draw < 0.05:
        return lambda one, t_s, r: one.forget(instance)
    if draw < 0.3:
        return lambda one, t_s, r: one.wake(t_s, instance)
    if draw < 0.5:
        return lambda one, t_s, r: one.probed(t_s, instance, draw < 0.35)
    return lambda one, t_s, r: one.record(t_s, instance, outcome, duration_s)


def retrier(rng: random.Random) -> Step:
    attempts, wait_s = rng.randrange(1, 6), rng.choice([0.0, 0.0, 7.0])
    if rng.random() < 0.4:
        return lambda one, t_s, r: one.succeeded(t_s, r)
    return lambda one, t_s, r: one.after(t_s, r, attempts, Outcome.ERROR, wait_s)


def scaler(rng: random.Random) -> Step:
    ready, starting = rng.randrange(0, 9), rng.randrange(0, 4)
    busy = rng.choice([0, rng.randrange(60)])
    load = protocols.Load(busy, 0, busy * rng.random(), ready, starting, 0, 16, 8)
    return lambda one, t_s, r: one.decide(t_s, load)


def detector(rng: random.Random) -> Step:
    value = rng.random() * rng.choice([1, 5])
    return lambda one, t_s, r: one.observe(t_s, value)


STEPS: dict[type, Callable[[Draws], Step]] = {
    protocols.Guard: lambda rng: lambda one, t_s, r: one.check(t_s, r),
    protocols.Limiter: limiter,
    protocols.Asker: asker,
    protocols.Splitter: splitter,
    protocols.Cache: cache,
    protocols.Stale: cache,
    protocols.Planner: lambda rng: lambda one, t_s, r: one.plan(t_s, r, Plan(1, 0, r.tokens_in, 200)),
    protocols.Escalating: escalating,
    protocols.Queue: queue,
    protocols.Balancer: balancer,
    protocols.Breaker: breaker,
    protocols.Retrier: retrier,
    protocols.Scaler: scaler,
    protocols.Detector: detector,
}


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("seed", range(4))
def test_restored_from_json_it_goes_on_as_if_never_stopped(name: str, seed: int) -> None:
    family, make = MAKERS[name]
    rng = Draws(seed)
    one = make()
    t_s, answers = 0.0, set()
    for number in range(1, 400):
        if number % 23 == 0:
            text = json.dumps(one.snapshot(), allow_nan=False)
            twin = make()
            twin.restore(json.loads(text))
            assert json.dumps(twin.snapshot(), allow_nan=False) == text
        elif number < 23:
            twin = one
        t_s += rng.randrange(4) / 2
        step, asked = STEPS[family](rng), request(rng, number)
        answer = step(one, t_s, asked)
        answers.add(repr(answer))
        if twin is not one:
            assert step(twin, t_s, asked) == answer, f"call {number}"
    assert len(answers) > 1, "the calls never made it decide"


@pytest.mark.parametrize("name", MAKERS)
def test_it_has_the_methods_of_its_protocol(name: str) -> None:
    family, make = MAKERS[name]
    one = make()
    assert isinstance(one, Stateful)
    for method, told in vars(family).items():
        if inspect.isfunction(told) and (not method.startswith("_") or method == "__len__"):
            ours = inspect.signature(getattr(type(one), method))
            assert list(ours.parameters) == list(inspect.signature(told).parameters), method


@pytest.mark.parametrize("kind", CLASSES)
def test_its_parameters_are_keywords_with_types_and_bounds(kind: type) -> None:
    hints = get_type_hints(kind.__init__, include_extras=True)
    arguments = inspect.signature(kind).parameters.values()
    handed_in = [each for each in arguments if each.kind is each.POSITIONAL_OR_KEYWORD]
    assert all(each.default is each.empty for each in handed_in)
    for each in arguments:
        if each.kind is each.KEYWORD_ONLY:
            bounds = list(bounds_of(hints[each.name]))
            texts = [str, bool, *(hint for hint in [hints[each.name]] if "Literal" in str(hint))]
            assert bounds or hints[each.name] in texts, each.name
            values = each.default if isinstance(each.default, tuple) else (each.default,)
            for value in values:
                if isinstance(value, int | float) and bounds:
                    low, high, above = bounds[0]
                    assert low <= value <= high, each.name
                    assert not (above and value == low), each.name


def bounds_of(hint: Any) -> Iterator[Bound]:
    if get_origin(hint) is Annotated:
        yield from (extra for extra in hint.__metadata__ if isinstance(extra, Bound))
    for inner in get_args(hint):
        if get_origin(inner) is not None:
            yield from bounds_of(inner)


@pytest.mark.parametrize("kind", CLASSES)
def test_it_refuses_what_it_does_not_know(kind: type) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'taget'"):
        kind(taget=0.6)


def stages(**changed: Any) -> ImprovementRollout:
    return ImprovementRollout(
        **{"salt": "a", "strategy": "stages", "weights": (0.2, 0.5), "holds_s": (9,)} | changed
    )


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda: Weighted(weights=()), "weights"),
        (lambda: TokenBucket((), rate_per_s=1, burst=0.5), "burst"),
        (lambda: Canary(salt="a", weight=0.2), "weight"),
        (lambda: Canary(salt="a", weight=0.0), "weight"),
        (lambda: Canary(salt="a", then=(0.5, 0.25)), "then"),
        (lambda: Canary(salt="a", alpha=0.0), "alpha"),
        (lambda: ImprovementRollout(salt="a", strategy="stages"), "weights"),
        (lambda: ImprovementRollout(salt="a", weights=(0.5,)), "weights and holds_s"),
        (lambda: stages(weights=(0.5, 0.2)), "weights"),
        (lambda: stages(weights=(0.5, 1.0)), "weights"),
        (lambda: stages(holds_s=(9, 9, 9)), "holds_s"),
        (lambda: stages(alpha=1.0), "alpha"),
        (lambda: stages(promote_alpha=0.5), "promote_alpha"),
        (lambda: stages(margin=0.0), "margin"),
        (lambda: stages(quality_metric="rating"), "quality_metric and quality_below"),
        (lambda: stages(look_s=1, maturity_s=200_000), "maturity_s"),
        (lambda: stages(latency_above_s=300), "maturity_s"),
        (lambda: stages(errors=False), "errors"),
        (lambda: Adwin(metric="error", delta=1.0), "delta"),
        (lambda: Cusum(metric="error", threshold=5, baseline=1), "baseline"),
        (lambda: KolmogorovSmirnov(metric="error", window=200, run_length=200), "run_length"),
        (lambda: ShiryaevRoberts(metric="quality", low=0), "low and high"),
        (lambda: ShiryaevRoberts(metric="quality", low=1, high=0), "low"),
        (lambda: ShiryaevRoberts(metric="quality", baseline=49), "baseline"),
        (lambda: ShiryaevRoberts(metric="quality", confidence=1), "confidence"),
        (lambda: ConsecutiveBreaker(open_s=30, longest_open_s=20), "longest_open_s"),
        (lambda: FailureRateBreaker(failure_share=0.0), "failure_share"),
        (lambda: FailureRateBreaker(slow_share=0.0), "slow_share"),
        (lambda: FailureRateBreaker(minimum=20, calls=10), "minimum"),
        (lambda: FailureRateBreaker(open_s=30, longest_open_s=20), "longest_open_s"),
        (lambda: OutlierBreaker(eject_s=30, longest_eject_s=20), "longest_eject_s"),
        (lambda: OutlierBreaker(deviations=1.9, minimum_instances=4), "minimum_instances"),
        (lambda: OutlierBreaker(deviations=2.0, minimum_instances=5), "give at least 6, or fewer deviations"),
        (lambda: BackoffRetrier(Stream(1), base_s=2, longest_s=1), "longest_s"),
        (lambda: AgentScaler(min_instances=5, max_instances=4), "min_instances"),
        (lambda: AgentScaler(target=0.2), "target"),
        (lambda: AgentScaler(target=0.9), "target"),
        (lambda: HpaScaler(min_instances=5, max_instances=4), "min_instances"),
        (lambda: HpaScaler(target=0.0), "target"),
        (lambda: QueueingScaler(service_s=1, min_instances=5, max_instances=4), "min_instances"),
    ],
)
def test_parameters_that_contradict_each_other_are_refused_by_name(make: Make, names: str) -> None:
    with pytest.raises(ValueError, match=f"{names}\\b.*"):
        make()


ALLOWED = {
    "__future__",
    "abc",
    "bisect",
    "collections",
    "controllers",
    "glowsim",
    "heapq",
    "itertools",
    "math",
    "numpy",
    "operator",
}
ALLOWED |= {"scipy", "statistics", "typing"}
FORBIDDEN_CALLS = {"sum", "hash", "id", "open", "print", "input", "eval", "exec", "__import__"}


PURE = ("glowsim.core", "glowsim.stats.experiments")
"""What of glowsim a controller may use: numbers in, numbers out."""


def faults(source: str) -> list[str]:
    """Return the imports and calls that a controller may not have."""
    found = []
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        elif (
            isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in FORBIDDEN_CALLS
        ):
            found.append(node.func.id)
        for name in names:
            ours = name.split(".")[0] == "glowsim" and not name.startswith(PURE)
            if ours or name.split(".")[0] not in ALLOWED or name.startswith("numpy.random"):
                found.append(name)
        if isinstance(node, ast.Attribute) and node.attr in {"random", "default_rng"}:
            found.append(node.attr)
    return found


@pytest.mark.parametrize("path", sorted(FOLDER.rglob("*.py")), ids=lambda path: path.stem)
def test_it_has_no_clock_no_randomness_and_no_io_of_its_own(path: Path) -> None:
    assert faults(path.read_text()) == []


@pytest.mark.parametrize(
    "line",
    ["import time", "from random import random", "import asyncio", "x = sum([0.1])",
     "import glowsim.sim.world", "import datetime as d", "x = hash('a')", "open('a')",
     "import numpy as np\nx = np.random.normal()"],
)  # fmt: skip
def test_the_check_itself_catches(line: str) -> None:
    assert faults(line)
