"""Code parity for every built-in: one conversation in the simulator and behind the asyncio driver.

The controllers come from the registry, with the parameters that `glowsim controllers show` writes down; those in
`BITING` are set so that there is something to decide, and what a family is for must have happened. A new built-in
is held to all of it without a line here, unless its defaults let everything pass.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from itertools import groupby
from math import isnan, nan
from typing import Any, Final

import pytest
from ruamel.yaml import YAML

from glowsim import build, registry, showing
from glowsim.core.errors import GlowsimError
from glowsim.core.journal import Recording, first_difference, journals
from glowsim.core.pool import Pool
from glowsim.core.streams import Streams
from glowsim.core.types import (
    Arrived,
    Ask,
    Code,
    Command,
    Dispatch,
    Event,
    Finished,
    InstanceChanged,
    Probe,
    Probed,
    Raise,
    Reject,
    Scale,
    State,
    Woke,
)
from glowsim.experiment.replaying import replay
from glowsim.live.calls import Answered, Checked, Failed, Rejected, Reply
from glowsim.live.reloading import idle_timeouts, in_header
from glowsim.live.segments import Segments
from glowsim.reload import carried, differences
from glowsim.scenario import Scenario

REFUSING_S: Final = (25.0, 45.0)
"""From when to when the first instance refuses connections, where breakers are tried."""
FLEET: Final = {
    "title": "Every controller, both drivers",
    "question": "Do the simulator and the asyncio driver hold the same conversation?",
    "seed": 3,
    "duration": "60s",
    "drain": "10m",
    "models": {"m": {"input": "$1/1M", "output": "$2/1M"}, "small": {"input": "$0.1/1M", "output": "$0.2/1M"}},
    "fleet": [
        {
            "agent": "tax", "model": "m", "instances": 3, "concurrency": 2, "timeout": "9s",
            "idle_timeout": "1.9s", "health_check": "3.1s", "variants": {"next": {"error": "25%"}},
            "startup": {"law": "exponential", "mean": "3s"}, "failures": {"invalid": "2%", "error": "15%"},
            "service": {"law": "tokens", "base": "100ms", "input": "100us/token", "output": "10ms/token",
                        "slowdown": 0.3, "noise": {"law": "gamma", "mean": 1, "cv": 0.1}},
        },
        {
            "agent": "audit", "model": "m", "instances": 2, "concurrency": 2, "queue": "instance", "slots": 3,
            "timeout": "7s", "first_token_timeout": "3s", "failures": {"error": "15%"},
            "variants": {"next": {"slowdown": 1.5}}, "startup": {"law": "exponential", "mean": "3s"},
            "service": {"law": "time", "time": {"law": "exponential", "mean": "1300ms"}},
        },
    ],
    "workload": [
        {
            "kind": "bursts", "base": "1/s", "burst": "12/s", "every": "20s", "lasts": "6s", "stream": True,
            "tokens_in": {"law": "exponential", "mean": 900}, "tokens_out": {"law": "exponential", "mean": 100},
            "max_tokens_out": 300, "users": 12, "tenants": 3, "cacheable": {"share": "40%", "keys": 12},
        },
        {
            "kind": "closed", "users": 5, "think": {"law": "exponential", "mean": "2s"}, "priority": 6,
            "deadline": "5s", "tokens_in": 500, "tokens_out": {"law": "exponential", "mean": 80},
        },
    ],
}  # fmt: skip
"""Noise, so that no two works end at one moment, where either order would be right."""
BITING: Final[dict[str, dict[str, Any]]] = {
    "guard": {"max_tokens_in": 2000},
    "limiter": {"rate": "1/s", "burst": 3, "limit": 1, "grant": 5, "timeout": "700ms", "when_unknown": "admit"},
    "limiter/budget": {"limit": 0.005, "every": "13s"},
    "splitter": {"weight": "30%", "then": [0.6, 1], "hold": "11s", "step": "7s", "minimum": 1},
    "splitter/ab_test": {"weight": "30%", "sample_size": 25, "look": "5s", "maturity": "9s", "then": "winner"},
    "splitter/bandit": {"look": "3s"},
    "cache": {"entries": 6, "ttl": "17s", "stale": "19s"},
    "planner": {"max_tokens_out": 60, "cheap": "small", "strong": "m"},
    "queue": {"limit": 6, "ageing": "3s", "patience": "3s", "overload": "1s"},
    "balancer": {"weights": [1, 2, 3], "sessions": 5, "decay": "5s", "slow_start": "3s", "load_bias": 1},
    "breaker": {
        "failures": 2, "failure_share": 0.4, "minimum": 5, "window": "20s", "open": "3.3s", "connect_failures": 2,
        "eject": "3.3s", "unhealthy": 2, "lapse": "11s", "max_ejected": 0.5,
    },
    "retrier": {"attempts": 2},
    "ladder": {"steps": ["model small", "stale", "apology"]},
    "scaler": {
        "min_instances": 1, "max_instances": 6, "cooldown": "4.7s", "look": "2.3s", "sync": "2.3s", "hold": "6.1s",
        "stabilise_down": "6.1s", "idle": "9s", "service": "1s",
    },
    "detector": {"minimum": 5, "threshold": 1, "objective": 0.9, "burn": 2, "window": "30s", "quiet": "10s"},
    "detector/adwin": {"delta": 0.9, "clock": 2},
    "detector/cusum": {"baseline": 20, "allowance": 0},
    "detector/ks": {"window": 50, "run_length": 60},
    "detector/psi": {"window": 50, "run_length": 60},
    "detector/shiryaev_roberts": {"run_length": 2, "baseline": 50},
}  # fmt: skip
"""Family, or family and name -> settings, of which each controller takes those that it knows."""
BESIDE: Final[dict[str, dict[str, Any]]] = {
    "breaker": {"retrier": {"use": "backoff"}},
    "ladder": {"cache": {"use": "lru", "ttl": "2s", "stale": "60s"}},
    "retrier": {"balancer": {"use": "power_of_two"}},
}
"""Family -> what stands beside its controllers, where they need company."""
ABLE: Final = {"hallucination": 0.3, "format": 0.1, "refusal": 0.1}
QUALITY: Final = {
    "kinds": {"any": {"shared": 0.4, "repeat": 0.8}},
    "context_loss": 0.3,
    "confidence": 0.8,
    "models": {"small": {"accuracy": 0.6, **ABLE}, "m": {"accuracy": 0.8, **ABLE}},
}
"""Where planners are tried: how good answers are, of which a score is seen."""
ASIDE: Final = (Woke, Probe, Probed, Scale, InstanceChanged)
"""What goes on when nobody waits for anything any more; each driver stops at its own time."""
EVERY: Final = [(family, name) for family in registry.FAMILIES for name in registry.BUILT_INS[family]]


# --- what must have happened ------------------------------------------------------------------------------


class Told:
    """A conversation, by what can be asked of it."""

    def __init__(self, records: list[Any], gates: int) -> None:
        self.records = records
        self.gates = gates
        self.requests = {each.request.request_id: each.request for each in self.of(Arrived)}
        self.instances: dict[int, set[int]] = {0: set(), 1: set()}
        for each in self.of(Dispatch):
            self.instances[self.requests[each.request_id].agent].add(each.instance)

    def of(self, kind: Any) -> list[Any]:
        return [each for each in self.records if isinstance(each, kind)]

    def codes(self) -> set[Code]:
        return {each.reason.code for each in self.of(Command) if hasattr(each, "reason")}

    def replanned(self) -> bool:
        plans = [(each.plan, self.requests[each.request_id]) for each in self.of(Dispatch)]
        return any(plan.max_tokens_out != request.max_tokens_out for plan, request in plans)


LIMITED: Final = {Code.LIMITED, Code.LIMIT_UNKNOWN}
FULL: Final = {Code.QUEUE_FULL, Code.SHED}
DECIDED: Final[dict[str, Callable[[Told], Any]]] = {
    "guard": lambda told: told.of(Reject),
    "limiter": lambda told: LIMITED & told.codes() or told.of(Ask),
    "splitter": lambda told: {each.plan.variant for each in told.of(Dispatch)} == {0, 1},
    "cache": lambda told: {Code.CACHED, Code.JOINED} <= told.codes(),
    "planner": lambda told: told.replanned() or len({each.plan.model for each in told.of(Dispatch)}) == 2,
    "planner/cheap_first": lambda told: {Code.ESCALATED, Code.DOUBTFUL} <= told.codes(),
    "queue": lambda told: Code.QUEUED in told.codes() and FULL & told.codes(),
    "balancer": lambda told: all(len(chosen) >= 2 for chosen in told.instances.values()),
    "breaker": lambda told: told.gates > 5,
    "retrier": lambda told: {Code.RETRIED, Code.EXHAUSTED} <= told.codes(),
    "ladder": lambda told: {Code.OTHER_MODEL, Code.STALE, Code.APOLOGY} & told.codes(),
    "scaler": lambda told: {State.STARTING, State.GONE} <= {each.state for each in told.of(InstanceChanged)},
    "detector": lambda told: told.of(Raise),
}
"""Family, or family and name -> whether a controller of it had its say."""


# --- the conversations ------------------------------------------------------------------------------------


def scenario_with(family: str, name: str) -> Scenario:
    block = YAML(typ="safe").load(showing.show(f"{family}/{name}").yaml)["controllers"][family]
    one = block[0] if isinstance(block, list) else block
    known = {each.key for each in registry.parameters(registry.find(family, name))}
    biting = BITING.get(family, {}) | BITING.get(f"{family}/{name}", {})
    one |= {key: value for key, value in biting.items() if key in known}
    data: dict[str, Any] = FLEET | {"controllers": BESIDE.get(family, {}) | {family: block}}
    if family == "planner":
        data["quality"] = QUALITY
    if family == "breaker":
        begins_s, ends_s = REFUSING_S
        data["faults"] = [
            {"agent": "tax", "kind": "refuse", "at": f"{begins_s}s", "lasts": f"{ends_s - begins_s}s", "after": "50ms"}
        ]  # fmt: skip
    return Scenario.model_validate(data)


def refusing(driver: Any, instance: int, serve: Checked) -> Checked:
    """Have the first instance refuse connections for a while, as the simulator's fault has it."""

    def struck() -> bool:
        return instance == 0 and REFUSING_S[0] <= driver.now_s() < REFUSING_S[1]

    async def refused() -> Any:
        await asyncio.sleep(0.05)
        raise ConnectionRefusedError

    async def healthy() -> bool:
        return not struck()

    return Checked(lambda call: refused() if struck() else serve(call), healthy)


def scoring(scores: dict[int, float]) -> Callable[..., Any]:
    """Return what has an instance's adapter give each answer the score that the simulator gave it."""

    def around(driver: Any, instance: int, serve: Checked) -> Checked:
        async def answered(call: Any, answer: Any) -> Reply:
            content, usage = await answer
            return Reply(content, usage._replace(score=scores.get(call.attempt, nan)))

        async def streamed(call: Any, pieces: Any) -> Any:
            async for piece in pieces:
                yield piece
            call.usage = call.usage._replace(score=scores.get(call.attempt, nan))

        def scored(call: Any) -> Any:
            begun = serve(call)
            return streamed(call, begun) if hasattr(begun, "__aiter__") else answered(call, begun)

        return Checked(scored, serve.healthy)

    return around


def plain(record: Any) -> Any:
    """Return a record so that equal ones compare equal: nan is no number, and only one world foretells a start."""
    if isinstance(record, InstanceChanged):
        return record._replace(eta_s=0.0)
    if isinstance(record, Finished):
        unknown = {name: -1.0 for name in ("first_token_s", "score") if isnan(getattr(record.usage, name))}
        return record._replace(usage=record.usage._replace(**unknown))
    return record


def conversation(recording: Recording) -> list[Any]:
    """Return events and commands; instances that change at one moment by number, as stopping one takes a real
    driver a turn of its loop and the simulator none."""
    told = [plain(record) for record in recording.records() if isinstance(record, Event | Command)]
    moments = groupby(told, lambda each: each.t_s if isinstance(each, InstanceChanged) else None)
    return [
        each
        for moment, run in moments
        for each in (run if moment is None else sorted(run, key=lambda changed: changed.instance))
    ]


@pytest.mark.parametrize(("family", "name"), EVERY, ids=["/".join(each) for each in EVERY])
def test_a_controller_runs_in_both_drivers_unchanged(live, monkeypatch, family, name):
    gates, gate = [], Pool.gate
    monkeypatch.setattr(Pool, "gate", lambda *given: gates.append(given[1]) or gate(*given))
    scenario = scenario_with(family, name)
    journal, sent = live.simulated(scenario)
    gates_there = list(gates)
    gates.clear()
    around = {"around": refusing} if family == "breaker" else {}
    if family == "planner":
        ended = [each for each in journal.recording().records() if isinstance(each, Finished)]
        around = {"around": scoring({each.attempt: each.usage.score for each in ended})}
    live_journal, ends = live.jump(lambda: live.lived(scenario, sent, **around))
    recordings = journal.recording(), live_journal.recording()
    there, here = map(conversation, recordings)
    both = min(len(there), len(here))
    assert here[:both] == there[:both]
    assert not [each for each in (*there[both:], *here[both:]) if not isinstance(each, ASIDE)]
    told = Told(there, min(len(gates), len(gates_there)))
    assert gates[: told.gates] == gates_there[: told.gates]
    assert len(ends) == len(sent) > 200
    decided = DECIDED.get(f"{family}/{name}", DECIDED[family])
    assert decided(told), f"{name} had nothing to decide: give it settings in BITING that bite"
    for recording in recordings:
        assert first_difference(recording, build.control_plane(scenario, Streams(scenario.seed, 0))) is None


# --- another configuration meanwhile ----------------------------------------------------------------------


@pytest.mark.parametrize(("family", "name"), EVERY, ids=["/".join(each) for each in EVERY])
def test_a_controller_goes_on_when_something_else_is_reloaded(live, family, name):
    """Carrying the state along, and changing nothing that decides, changes no decision."""
    scenario = scenario_with(family, name)
    renamed = scenario.model_copy(update={"title": "Another title"})
    events, expected = [], []
    journal, _ = live.simulated(scenario)
    for record in journal.recording().records():
        if isinstance(record, Event):
            events.append(record)
            expected.append([])
        elif isinstance(record, Command):
            expected[-1].append(record)
    plane = build.control_plane(scenario, Streams(scenario.seed, 0), fall_back=True)
    for number, (event, commands) in enumerate(zip(events, expected, strict=True)):
        if number % 97 == 50:
            plane = carried(scenario, renamed, plane).plane
        assert list(map(plain, plane.handle(event))) == list(map(plain, commands))


def otherwise(scenario: Scenario, family: str) -> Scenario:
    """Return it with every number in its controllers' settings another one, as far as that is allowed."""
    changed = 0
    data = scenario.dump()
    for controller in data["controllers"][family] if family == "detector" else [data["controllers"][family]]:
        for one in controller if isinstance(controller, list) else [controller]:
            for key, value in list(one.items()):
                for factor in (0.5, 1.5):
                    one[key] = scaled(value, factor)
                    try:
                        found = Scenario.model_validate(data)
                        build.control_plane(found, Streams(1))
                    except (ValueError, GlowsimError):
                        one[key] = value
                        continue
                    changed += one[key] != value
                    break
    found = Scenario.model_validate(data)
    assert bool(differences(scenario, found)) == bool(changed)
    return found


def scaled(value: Any, factor: float) -> Any:
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return max(1, int(value * factor))
    if isinstance(value, float):
        return value * factor
    number = re.match(r"^([0-9.]+)(.*)$", value) if isinstance(value, str) else None
    return value if number is None else f"{float(number[1]) * factor:g}{number[2]}"


@pytest.mark.parametrize(("family", "name"), EVERY, ids=["/".join(each) for each in EVERY])
def test_a_controller_takes_on_other_settings_in_the_middle_of_its_work(live, tmp_path, family, name):
    before = scenario_with(family, name)
    after = otherwise(before, family).model_copy(update={"title": "Otherwise"})
    _, sent = live.simulated(before)

    def reload(driver: Any) -> None:
        driver.reload(*carried(before, after, driver.plane), in_header(after), idle_timeouts(after))

    async def main() -> Any:
        journal = Segments(in_header(before), tmp_path / "journal", records=1 << 40, keep_bytes=1 << 40)
        journal.begin({})
        return await live.lived(before, sent, journal=journal, meanwhile=(30.0, reload))

    _, ends = live.jump(main)
    assert len(ends) == len(sent)
    assert all(isinstance(each, Answered | Failed | Rejected) for each in ends)
    for replayed in replay(tmp_path / "journal", None):
        assert replayed.proved, replayed.text
    first, second = journals(tmp_path / "journal")
    assert len(first) > 200 < len(second)
    raised = [each.alert for each in second.records() if isinstance(each, Raise)]
    assert not [each for each in raised if each.reason.code == Code.CONTROLLER_FAILED]


def test_without_controllers_nothing_of_it_happens(live):
    """The negative control: what tells that a controller had its say tells that none had."""
    journal, _ = live.simulated(Scenario.model_validate(FLEET))
    told = Told(conversation(journal.recording()), 0)
    assert {family for family, decided in DECIDED.items() if decided(told)} == {"balancer"}
