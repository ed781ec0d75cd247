"""What every controller owes: its protocol, its state, honest parameters, and no clock of its own."""

from __future__ import annotations

import ast
import inspect
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import pytest

import controllers
from controllers.admission.leased import LeasedLimiter
from controllers.admission.token_bucket import TokenBucket
from controllers.balancing.least_connections import LeastConnections
from controllers.balancing.power_of_two import PowerOfTwo
from controllers.balancing.round_robin import RoundRobin
from controllers.caching.lru import LruCache
from controllers.drift.page_hinkley import PageHinkley
from controllers.guards.size import SizeGuard
from controllers.queueing.fifo import FifoQueue
from controllers.queueing.priority import PriorityQueue
from controllers.resilience.backoff import BackoffRetrier
from controllers.resilience.breaker import ConsecutiveBreaker
from controllers.rollout.canary import Canary
from controllers.scaling.threshold import ThresholdScaler
from controllers.tokens.cap import TokenCap
from glowsim.core import protocols
from glowsim.core.instance import Instance
from glowsim.core.parameters import Bound
from glowsim.core.snapshot import Stateful
from glowsim.core.streams import Stream
from glowsim.core.types import Observed, Outcome, Plan, Request, Status, Told, Usage

Make = Callable[[], Any]
MAKERS: dict[str, tuple[type, Make]] = {
    "size": (protocols.Guard, lambda: SizeGuard(max_tokens_in=800)),
    "bucket": (protocols.Limiter, lambda: TokenBucket(rate_per_s=2, burst=3, per="user", keys=3)),
    "token bucket": (protocols.Limiter, lambda: TokenBucket(rate_per_s=900, burst=4000, unit="tokens")),
    "leased": (protocols.Limiter, lambda: LeasedLimiter(3, grant=4)),
    "leased asker": (protocols.Asker, lambda: LeasedLimiter(3, grant=4, when_unknown="admit")),
    "canary": (
        protocols.Splitter,
        lambda: Canary(salt="a", weight=0.3, then=(0.6, 1.0), hold_s=40, minimum=5),
    ),
    "labels": (
        protocols.Splitter,
        lambda: Canary(salt="a", weight=0.3, then=(), outcome="observed", unit="user"),
    ),
    "lru": (protocols.Cache, lambda: LruCache(entries=5, ttl_s=20)),
    "cap": (protocols.Planner, lambda: TokenCap(max_tokens_out=100, max_tokens_in=700)),
    "fifo": (protocols.Queue, lambda: FifoQueue(limit=8)),
    "priority": (protocols.Queue, lambda: PriorityQueue(limit=8, ageing_s=5)),
    "strict": (protocols.Queue, lambda: PriorityQueue(limit=8, ageing_s=None)),
    "round robin": (protocols.Balancer, RoundRobin),
    "least connections": (protocols.Balancer, LeastConnections),
    "power of two": (protocols.Balancer, lambda: PowerOfTwo(Stream(5))),
    "breaker": (protocols.Breaker, lambda: ConsecutiveBreaker(failures=2, open_s=3, longest_open_s=10)),
    "backoff": (protocols.Retrier, lambda: BackoffRetrier(Stream(6), attempts=4, budget=0.5, budget_floor=2)),
    "threshold": (protocols.Scaler, lambda: ThresholdScaler(cooldown_up_s=4, cooldown_down_s=9, look_s=2)),
    "page hinkley": (
        protocols.Detector,
        lambda: PageHinkley(metric="error", delta=0.01, threshold=2, minimum=5, quiet_s=9),
    ),
}
CLASSES = sorted({type(make()) for _, make in MAKERS.values()}, key=lambda each: each.__name__)
FOLDER = Path(controllers.__file__).parent


def request(rng: random.Random, number: int) -> Request:
    user, tokens_in = rng.randrange(1, 6), rng.randrange(1, 1000)
    return Request(number, 3, tokens_in, rng.randrange(1, 500), priority=rng.randrange(10), user=user)


def usage(rng: random.Random) -> Usage:
    return Usage(rng.randrange(1000), 0, rng.randrange(500))


Step = Callable[[Any, float, Request], Any]
"""A call drawn beforehand, so that two controllers can be asked the same."""


def limiter(rng: random.Random) -> Step:
    used = usage(rng)
    if rng.random() < 0.6:
        return lambda one, t_s, r: one.admit(t_s, r)
    return lambda one, t_s, r: one.settle(t_s, r, used)


def asker(rng: random.Random) -> Step:
    status, value, lasts_s = rng.choice(list(Status)), rng.randrange(5), rng.randrange(1, 9)

    def step(one: Any, t_s: float, r: Request) -> Any:
        answer = one.admit(t_s, r)
        ask = one.to_ask(t_s, r.request_id)
        if ask is not None and value:
            one.told(t_s, Told(t_s, ask.ask_id, status, value, t_s + lasts_s))
        return answer, ask

    return step


def splitter(rng: random.Random) -> Step:
    variant, ok, ago_s, chance = rng.randrange(2), rng.random() < 0.7, rng.randrange(9), rng.random()

    def step(one: Any, t_s: float, r: Request) -> Any:
        label = Observed(
            t_s, r.request_id, 3, variant, r.user, 0.3 if variant else 0.7, "error", float(not ok)
        )
        ordered = one.roll_back(t_s) if chance < 0.01 else None
        finished = one.finished(t_s, max(0.0, t_s - ago_s), variant, ok)
        return one.assign(t_s, r), finished, one.observed(t_s, label), one.wake(t_s), one.wake_s(), ordered

    return step


def cache(rng: random.Random) -> Step:
    key, puts = rng.randrange(9), rng.random() < 0.5
    if puts:
        return lambda one, t_s, r: one.put(t_s, key, r.request_id, Usage())
    return lambda one, t_s, r: one.get(t_s, key)


def queue(rng: random.Random) -> Step:
    takes, removes = rng.random() < 0.4, rng.random() < 0.4

    def step(one: Any, t_s: float, r: Request) -> Any:
        if takes and len(one):
            return one.pop(t_s)
        pushed = one.push(t_s, r)
        if pushed != r.request_id and removes:
            one.remove(t_s, r)
        return pushed, len(one)

    return step


def balancer(rng: random.Random) -> Step:
    instances = [Instance(number, 0, 4) for number in rng.sample(range(8), rng.randrange(1, 6))]
    for each in instances:
        each.in_flight = rng.randrange(3)
    return lambda one, t_s, r: one.pick(t_s, r, instances).number


def breaker(rng: random.Random) -> Step:
    instance, outcome, draw = rng.randrange(3), rng.choice(list(Outcome)), rng.random()
    if draw < 0.05:
        return lambda one, t_s, r: one.forget(instance)
    if draw < 0.3:
        return lambda one, t_s, r: one.wake(t_s, instance)
    return lambda one, t_s, r: one.record(t_s, instance, outcome, 1.0)


def retrier(rng: random.Random) -> Step:
    attempts, wait_s = rng.randrange(1, 6), rng.choice([0.0, 0.0, 7.0])
    if rng.random() < 0.4:
        return lambda one, t_s, r: one.succeeded(t_s, r)
    return lambda one, t_s, r: one.after(t_s, r, attempts, Outcome.ERROR, wait_s)


def scaler(rng: random.Random) -> Step:
    ready, starting = rng.randrange(0, 9), rng.randrange(0, 4)
    busy = rng.randrange(0, 60)
    load = protocols.Load(busy, 0, busy * rng.random(), ready, starting, 0, 16, 8)
    return lambda one, t_s, r: one.decide(t_s, load)


def detector(rng: random.Random) -> Step:
    value = rng.random() * rng.choice([1, 5])
    return lambda one, t_s, r: one.observe(t_s, value)


STEPS: dict[type, Callable[[random.Random], Step]] = {
    protocols.Guard: lambda rng: lambda one, t_s, r: one.check(t_s, r),
    protocols.Limiter: limiter,
    protocols.Asker: asker,
    protocols.Splitter: splitter,
    protocols.Cache: cache,
    protocols.Planner: lambda rng: lambda one, t_s, r: one.plan(t_s, r, Plan(1, 0, r.tokens_in, 200)),
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
    rng = random.Random(seed)
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
            texts = [str, *(hint for hint in [hints[each.name]] if "Literal" in str(hint))]
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


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda: TokenBucket(rate_per_s=1, burst=0.5), "burst"),
        (lambda: Canary(salt="a", weight=0.2), "weight"),
        (lambda: Canary(salt="a", weight=0.0), "weight"),
        (lambda: Canary(salt="a", then=(0.5, 0.25)), "then"),
        (lambda: Canary(salt="a", alpha=0.0), "alpha"),
        (lambda: ConsecutiveBreaker(open_s=30, longest_open_s=20), "longest_open_s"),
        (lambda: BackoffRetrier(Stream(1), base_s=2, longest_s=1), "longest_s"),
        (lambda: ThresholdScaler(min_instances=5, max_instances=4), "min_instances"),
        (lambda: ThresholdScaler(target=0.2), "target"),
        (lambda: ThresholdScaler(target=0.9), "target"),
    ],
)
def test_parameters_that_contradict_each_other_are_refused_by_name(make: Make, names: str) -> None:
    with pytest.raises(ValueError, match=f"{names}\\b.*"):
        make()


ALLOWED = {
    "__future__",
    "bisect",
    "collections",
    "glowsim",
    "heapq",
    "itertools",
    "math",
    "numpy",
    "operator",
}
ALLOWED |= {"scipy", "typing"}
FORBIDDEN_CALLS = {"sum", "hash", "id", "open", "print", "input", "eval", "exec", "__import__"}


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
            ours = name.split(".")[0] == "glowsim" and not name.startswith("glowsim.core")
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
