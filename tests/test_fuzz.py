"""The fuzzer: it draws what may be written, judges honestly, shrinks, and says how to do it again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, get_args

import pytest
from typer.testing import CliRunner

from glowsim import build, registry
from glowsim.cli import app, main
from glowsim.core.errors import GlowsimError
from glowsim.core.types import Usage
from glowsim.fuzz import Failure, campaign, facts_of, judge, scenario_data, shrink
from glowsim.fuzz.dice import Dice, Scale, law, number, whole_number
from glowsim.fuzz.journals import check_journals
from glowsim.fuzz.parts import controllers
from glowsim.scenario import Scenario, digest, load
from glowsim.scenario.controllers import Controllers
from glowsim.scenario.fleet import Fault
from glowsim.scenario.quality import Feedback
from glowsim.scenario.quantities import DURATION, FRACTION, RATE, Within
from glowsim.scenario.servers import walk
from glowsim.sim.steps import TaskJob

SEEDS = 200 if os.environ.get("GLOWSIM_CI") else 40
SCALE = Scale(horizon_s=100.0, rate_per_s=5.0)
PLANTED = '''
from controllers.balancing.round_robin import RoundRobin
from controllers.queueing.fifo import FifoQueue
from glowsim.core.parameters import Count


class Overfull(FifoQueue):
    """Takes in twice what it promises."""

    def __init__(self, *, limit: Count = 3) -> None:
        super().__init__(limit=2 * limit)


class Forgetful(RoundRobin):
    """Has state that no snapshot holds."""

    def __init__(self):
        super().__init__()
        self._picks = 0

    def pick(self, t_s, request, allowed):
        self._picks += 1
        return min(allowed, key=lambda each: (each.number * 7 + self._picks) % 1009 % 5)


class Worn(RoundRobin):
    """Shares a count with every other of its kind, so that a second run is not the first."""

    picks = 0

    def pick(self, t_s, request, allowed):
        Worn.picks += 1
        return min(allowed, key=lambda each: (each.number * 7 + Worn.picks) % 1009 % 5)


class Angry(RoundRobin):
    """Raises."""

    def pick(self, t_s, request, allowed):
        raise ArithmeticError("no more")
'''


def drawn(seeds: range) -> Iterator[Scenario]:
    return (one(seed) for seed in seeds)


@cache
def one(seed: int) -> Scenario:
    return Scenario.model_validate(scenario_data(seed))


# --- what is drawn ----------------------------------------------------------------------------------------


def test_a_seed_is_a_scenario_for_good_and_another_seed_another() -> None:
    digests = [digest(scenario) for scenario in drawn(range(10))]
    one.cache_clear()
    assert digests == [digest(scenario) for scenario in drawn(range(10))]
    assert len(set(digests)) == 10


def test_a_seed_is_the_same_scenario_under_another_hash_seed() -> None:
    code = "from glowsim.fuzz import scenario_data; import json; print(json.dumps(scenario_data(11)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONHASHSEED": "99"},
    )  # fmt: skip
    assert json.loads(done.stdout) == scenario_data(11)


def test_every_built_in_and_every_fault_turns_up() -> None:
    used: dict[str, set[str]] = {family: set() for family in registry.FAMILIES}
    for seed in range(60):
        drawn_ones = controllers(Dice(seed), SCALE, 2.0, split=True, fleet=True)
        for family, ones in Controllers.model_validate(drawn_ones).chosen().items():
            used[family] |= {one.use for one in ones}
    assert used == {family: set(names) for family, names in registry.BUILT_INS.items()}
    scenarios = list(drawn(range(80)))
    kinds = {workload.kind for scenario in scenarios for workload in scenario.workload}
    faults = {type(fault) for scenario in scenarios for fault in scenario.faults}
    assert faults == set(get_args(get_args(Fault)[0]))
    assert kinds == {"poisson", "piecewise", "diurnal", "bursts", "sessions", "closed"}


def test_servers_steps_and_the_worth_of_answers_turn_up() -> None:
    scenarios = list(drawn(range(80)))
    servers = [server for scenario in scenarios for server in scenario.servers.values()]
    assert {server.engine for server in servers} == {"batch", "ps", "hosted"}
    hosted = [server for server in servers if server.engine == "hosted"]
    for limit in ("requests_per_min", "tokens_per_min", "cache", "error", "incidents"):
        assert {getattr(server, limit) is None for server in hosted} == {True, False}, limit
    services = [agent.service for scenario in scenarios for agent in scenario.fleet]
    in_steps = [service for service in services if service.law == "steps"]
    assert {step.step for service in in_steps for step in walk(service.steps)} == {
        "call", "tool", "loop", "together", "answer",
    }  # fmt: skip
    judged = [scenario.quality for scenario in scenarios if scenario.quality is not None]
    assert all(any(getattr(each.feedback, name) for each in judged) for name in Feedback.model_fields)
    assert any(each.drift for each in judged)
    assert any(each.variants for each in judged)


def run_of(seed: int) -> tuple[Scenario, build.Replication]:
    scenario = one(seed)
    made = build.replication(scenario, 0)
    made.world.start()
    made.world.run(scenario.duration_s + scenario.drain_s)
    return scenario, made


def test_what_is_rare_happens() -> None:
    """Answers are given again and users speak; model servers are called, throttle and fail."""
    seen: Counter[str] = Counter()
    for seed in range(30):
        scenario, made = run_of(seed)
        seen.update(type(record).__name__ for record in made.journal.recording().records())
        for name, server in zip(scenario.servers, made.world.servers, strict=True):
            engine = scenario.servers[name].engine
            seen[f"{engine} calls"] += server.calls
            seen[f"{engine} failed"] += server.failed
            seen["cached"] += server.tokens_cached
    assert min(seen[each] for each in ("Keep", "Observed", "cached", "hosted failed")) > 0
    assert min(seen[f"{engine} calls"] for engine in ("batch", "ps", "hosted")) > 100


def test_a_number_stays_within_its_bounds_and_often_at_their_edge() -> None:
    for within in (
        Within(FRACTION, 0.0, 1.0), Within(DURATION, 0.0, 1e9, above=True), Within(RATE, 2.0, 3.0, above=True),
    ):  # fmt: skip
        values = [number(Dice(seed), SCALE, within, None) for seed in range(300)]
        assert all(within.low <= value <= within.high for value in values)
        assert not (within.above and within.low in values)
        edges = [value for value in values if value in (within.low, within.high)]
        assert (len(edges) > 30) == (within.quantity is not DURATION)
    whole = [whole_number(Dice(seed), 1, 9, None) for seed in range(300)]
    assert set(whole) == set(range(1, 10))
    assert whole.count(1) > 60


def test_laws_are_drawn_in_the_size_that_was_asked_for() -> None:
    written = [law(Dice(seed), DURATION, 2.0) for seed in range(60)]
    assert {each["law"] if isinstance(each, dict) else "constant" for each in written} == {
        "constant", "exponential", "lognormal", "gamma", "uniform", "quantiles",
    }  # fmt: skip
    assert {"law": "exponential", "mean": "2s"} in written


# --- what is judged ---------------------------------------------------------------------------------------


FOUND = (1127, 1390)
"""Seeds that found something: steps to none, which keep no distance; a limit of less than a call a minute."""


@pytest.mark.parametrize("seed", [*range(SEEDS), *FOUND])
def test_everything_holds(seed: int) -> None:
    assert judge(scenario_data(seed)) is None


@pytest.fixture
def planted(tmp_path: Path) -> Iterator[None]:
    (tmp_path / "planted_for_fuzz.py").write_text(PLANTED)
    registry.add_plugin_folder(tmp_path)
    yield
    sys.path.remove(str(tmp_path))
    del sys.modules["planted_for_fuzz"]


def with_planted(family: str, name: str, **settings: Any) -> dict[str, Any]:
    """Return a busy random scenario in which one controller is of a planted class."""
    data = scenario_data(12)
    for agent in data["fleet"]:
        agent |= {"instances": 3, "controllers": {}, "queue": "central", "slots": agent["concurrency"]}
    data["controllers"] = {
        "guard": {"use": "size", "max_tokens_in": 1_000_000},
        "retrier": {"use": "backoff"},
        family: {"use": f"planted_for_fuzz:{name}", **settings},
    }
    data["workload"] = [
        {"kind": "poisson", "rate": "200/s", "tokens_in": 100, "tokens_out": 10, "tasks": 300, "priority": 4}
    ]
    return data


@pytest.mark.usefixtures("planted")
@pytest.mark.parametrize(
    ("family", "name", "kind"),
    [
        ("queue", "Overfull", "I10"),
        ("balancer", "Forgetful", "I13"),
        ("balancer", "Worn", "I9"),
        ("balancer", "Angry", "ArithmeticError in way.dispatch"),
    ],
)
def test_a_planted_fault_is_found_and_shrunk_to_what_it_needs(family: str, name: str, kind: str) -> None:
    data = with_planted(family, name)
    found = judge(data, allow_plugins=True)
    assert found is not None
    assert found.kind == kind

    def fails(smaller: dict[str, Any]) -> bool:
        again = judge(smaller, allow_plugins=True)
        return again is not None and again.kind == kind

    small = shrink(data, fails, runs=100)
    assert fails(small)
    assert small["controllers"] == {family: {"use": f"planted_for_fuzz:{name}"}}
    assert len(small["fleet"]) == len(small["workload"]) == 1
    assert "faults" not in small
    assert small["workload"][0]["tasks"] < 40


def test_an_honest_scenario_of_that_kind_has_no_fault() -> None:
    data = with_planted("queue", "Overfull", limit=3)
    data["controllers"]["queue"]["use"] = "fifo"
    assert judge(data) is None


def with_servers() -> dict[str, Any]:
    """Return a scenario whose agent calls a server that is not free."""
    return {
        "title": "servers",
        "question": "Is everything on the bill?",
        "seed": 1,
        "duration": "30s",
        "models": {"m": {"input": "$1/1M", "output": "$2/1M", "server": "own"}},
        "servers": {
            "own": {
                "engine": "ps", "step": {"base": "10ms", "prefill": "20us/token", "sequence": "100us"}, "price": "$9/h",
                "sequences": 8, "batched_tokens": 512, "cache_tokens": 20_000,
            },
        },
        "fleet": [
            {"agent": "a", "model": "m", "instances": 1, "concurrency": 4, "timeout": "2s",
             "service": {"law": "steps", "steps": [{"step": "answer"}]}},
        ],
        "workload": [{"kind": "poisson", "rate": "3/s", "tokens_in": 900, "tokens_out": 90}],
    }  # fmt: skip


def test_a_part_that_is_not_on_the_bill_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    assert judge(with_servers()) is None
    monkeypatch.setattr("glowsim.ledger._of_servers", lambda *given: iter(()))
    found = judge(with_servers())
    assert found is not None
    assert found.kind == "bill"


def test_what_servers_do_for_nobody_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def forgetful(job: TaskJob) -> Usage:
        return Usage()

    monkeypatch.setattr(TaskJob, "used_so_far", forgetful)  # of what is cancelled
    found = judge(with_servers())
    assert found is not None
    assert found.kind == "served"


def test_shrinking_tries_no_more_than_it_may_and_leaves_its_argument_alone() -> None:
    data, tried = scenario_data(5), []
    before = json.dumps(data)

    def fails(smaller: dict[str, Any]) -> bool:
        tried.append(json.dumps(smaller))
        return len(tried) % 2 == 0

    shrink(data, fails, runs=25)
    assert len(tried) == len(set(tried)) == 25
    assert json.dumps(data) == before


def test_facts_are_what_the_scenario_says() -> None:
    data = with_planted("queue", "unused")
    data["controllers"] = {
        "queue": {"use": "fifo", "limit": 7},
        "scaler": {"use": "agent_scaler", "min_instances": 1, "cooldown": "20s", "cooldown_down": "90s"},
        "limiter": {"use": "token_bucket", "rate": "3/s", "burst": 5},
        "balancer": {"use": "affinity"},
    }
    facts = facts_of(Scenario.model_validate(data))[0]
    assert (facts.queue_limit, facts.min_instances, facts.max_instances) == (7, 1, 10)
    assert (facts.cooldown_up_s, facts.cooldown_down_s) == (20.0, 90.0)
    assert (facts.rate_per_s, facts.burst, facts.affinity) == (3.0, 5.0, True)


# --- the command line -------------------------------------------------------------------------------------


def test_fuzz_exits_0_where_nothing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["fuzz", "--seeds", "2", "--first", "5", "--json"])
    assert (done.exit_code, json.loads(done.stdout)) == (0, {"first": 5, "seeds": 2, "failed": []})
    assert list(tmp_path.iterdir()) == []


def test_fuzz_writes_the_smallest_scenario_and_how_to_find_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dislikes_faults(data: dict[str, Any]) -> Failure | None:
        return Failure("I0", "there is a fault") if data.get("faults") else None

    monkeypatch.setattr(sys.modules["glowsim.fuzz.campaign"], "judge", dislikes_faults)
    monkeypatch.chdir(tmp_path)
    seed = next(seed for seed in range(50) if scenario_data(seed)["faults"])
    done = CliRunner().invoke(app, ["fuzz", "--seeds", "1", "--first", str(seed)])
    again = f"glowsim fuzz --first {seed} --seeds 1"
    assert done.exit_code == 1
    assert f"seed {seed}: I0: there is a fault" in done.stdout
    assert again in done.stdout
    path = tmp_path / f"fuzz-{seed}.yaml"
    assert path.read_text().startswith(f"# {again}\n# I0: there is a fault\n")
    small = load(path)
    assert (len(small.faults), len(small.fleet), small.controllers.chosen()) == (1, 1, {})


def test_processes_find_what_one_finds() -> None:
    alone, together = list(campaign(8, 2)), list(campaign(8, 2, jobs=2))
    assert alone == together == [(8, None), (9, None)]


@pytest.mark.usefixtures("planted")
def test_check_says_which_invariant_does_not_hold(tmp_path: Path) -> None:
    for use, code, said in (
        ("fifo", 0, "every invariant holds"),
        ("planted_for_fuzz:Overfull", 1, "I10 at "),
    ):
        data = with_planted("queue", "unused")
        data["controllers"] = {"queue": {"use": use, "limit": 3}}
        file, record = tmp_path / f"{code}.yaml", tmp_path / f"{code}.glow"
        file.write_text(json.dumps(data))
        made = build.replication(Scenario.model_validate(data), 0, journal_path=record, allow_plugins=True)
        made.world.start()
        made.world.run(400.0)
        done = CliRunner().invoke(app, ["check", str(record), "--scenario", str(file), "--allow-plugins"])
        assert (done.exit_code, said in done.stdout) == (code, True), done.output


def test_check_refuses_what_is_no_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    for name, message in (
        ("nowhere", "no run and no journal"),
        (".", "not a run"),
        ("notes.txt", "not a glowsim journal"),
    ):
        monkeypatch.setattr(sys, "argv", ["glowsim", "check", str(tmp_path / name)])
        with pytest.raises(SystemExit, match="2"):
            main()
        assert message in capsys.readouterr().err


def test_check_refuses_a_journal_of_another_scenario(tmp_path: Path) -> None:
    one, other = (Scenario.model_validate(scenario_data(seed)) for seed in (12, 13))
    made = build.replication(one, 0, journal_path=tmp_path / "one.glow")
    made.world.start()
    made.world.run(1.0)
    with pytest.raises(GlowsimError, match="digests differ"):
        list(check_journals(tmp_path / "one.glow", other))
