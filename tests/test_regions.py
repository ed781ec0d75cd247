"""Regions in a scenario and in its report, and what the bundled scenario of a lost region claims."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from glowsim.build_regions import front_door, round_trips
from glowsim.core.types import Request
from glowsim.experiment.run import Finished, run
from glowsim.report.reading import read_first
from glowsim.report.regions import regions
from glowsim.report.world import unknown_parts
from glowsim.resources import resource
from glowsim.scenario import Scenario, ScenarioError, load
from glowsim.scenario.checks import cross_checks
from glowsim.scenario.regions import round_trip_s

TEXT = """\
title: Regions
question: Where to?
seed: 1
duration: 60s
regions: [eu, us, apac]
latency: {eu: {us: 90ms}, us: {apac: 160ms}}
residency: {eu: [eu, apac]}
servers:
  gpu: {engine: hosted, first_token: 1s, per_token: 1ms, region: us}
models:
  m: {input: $1/1M, output: $2/1M}
  own: {input: $0/1M, output: $0/1M, server: gpu}
fleet:
  - {agent: tax-eu, region: eu, model: m, instances: 1, concurrency: 1, service: {law: time, time: 1s}}
  - {agent: tax-us, region: us, model: m, instances: 1, concurrency: 1, service: {law: time, time: 1s}}
  - {agent: old, region: us, model: m, instances: 1, concurrency: 1, service: {law: time, time: 2s}}
  - {agent: steps, region: eu, model: own, instances: 1, concurrency: 1, service: {law: steps, steps: [{step: answer}]}}
  - {agent: many, count: 2, region: apac, model: m, instances: 1, concurrency: 1, service: {law: time, time: 1s}}
services:
  tax: {agents: [tax-eu, tax-us], failover: 60s}
workload:
  - {kind: poisson, rate: 1/s, agents: tax, users_from: {eu: 70%, us: 30%}, tokens_in: 9, tokens_out: 9}
faults:
  - {kind: region_loss, region: eu, at: 10s, lasts: 5s}
"""

TAX = "agents: tax, users_from: {eu: 70%, us: 30%}"
# (written, instead, path, part of the message, suggestion): each alone in the text
MISTAKES = [
    ("{us: 90ms}", "{uk: 90ms}", "latency.eu.uk", "unknown region 'uk'", None),
    ("latency: {eu:", "latency: {ue:", "latency.ue", "unknown region 'ue'", None),
    ("{us: 90ms}", "{eu: 90ms}", "latency.eu.eu", "no round trip away from itself", None),
    ("us: {apac: 160ms}", "us: {eu: 80ms}", "latency.us.eu", "latency.eu.us says it already", None),
    ("{us: 90ms}", "{us: 90}", "latency.eu.us", "has no unit", None),
    ("residency: {eu:", "residency: {ue:", "residency.ue", "unknown region 'ue'", None),
    ("[eu, apac]", "[eu, mars]", "residency.eu", "unknown region 'mars'", None),
    ("[eu, apac]", "[]", "residency.eu", "at least 1", None),
    ("region: us}\nmodels", "region: uss}\nmodels", "servers.gpu.region", "unknown region 'uss'", "us"),
    ("region_loss, region: eu", "region_loss, region: eus", "faults.0.region", "unknown region 'eus'", "us"),
    ("{eu: 70%, us: 30%}", "{eu: 70%, uss: 30%}", "workload.0.users_from.uss", "unknown region 'uss'", "us"),
    ("us: 30%", "us: 20%", "workload.0.users_from", "the shares add up to 90", None),
    ("us: 30%", "us: 0%", "workload.0.users_from.us", "above", None),
    (TAX, "agents: tax", "workload.0.users_from", "the service 'tax' does not say where its users are", None),
    ("agents: [tax-eu, tax-us]", "agents: [tax-eu, tax-uk]", "services.tax.agents.1", "unknown agent", "tax-us"),
    ("agents: [tax-eu, tax-us]", "agents: [tax-eu, many]", "services.tax.agents.1", "unknown agent 'many'", None),
    ("[tax-eu, tax-us]", "[tax-eu, tax-us, old]", "services.tax.agents.2", "tax-us is in 'us' already", None),
    ("agents: [tax-eu, tax-us]", "agents: [tax-eu, old]", "services.tax.agents.1", "same 'service' as tax-eu", None),
    ("  tax: {agents", "  many-001: {agents", "services.many-001", "means agents already", None),
    ("agents: [tax-eu, tax-us]", "agents: [tax-us]", "workload.0.agents", "but tax would do it in us", None),
    (TAX, "agents: tax-us, users_from: {eu: 100%}", "workload.0.agents", "'eu' may be served only in eu, apac", None),
    (TAX, "agents: steps", "workload.0.agents", "but steps would do it in us", None),
    ("agents: tax,", "agents: taxi,", "workload.0.agents", "unknown agent 'taxi'", "tax"),
]  # fmt: skip


@pytest.mark.parametrize(("written", "instead", "path", "message", "suggestion"), MISTAKES)
def test_a_mistake_about_regions_is_one_problem_that_says_where_and_what(
    written: str, instead: str, path: str, message: str, suggestion: str | None
) -> None:
    assert TEXT.count(written) == 1, "the mistake is at one place"
    with pytest.raises(ScenarioError) as caught:
        load(TEXT.replace(written, instead))
    said = {problem.path: problem for problem in caught.value.problems}
    assert path in said, said
    assert message in said[path].message
    assert suggestion is None or said[path].suggestion == suggestion


@pytest.mark.parametrize(
    "instead",
    [
        "agents: tax-us, users_from: {us: 1}",
        "agents: [many, tax-eu], users_from: {eu: 1}",
        "agents: [tax, tax-us], users_from: {us: 1}",
        "agents: old",
    ],
)
def test_what_keeps_to_residency_is_allowed(instead: str) -> None:
    load(TEXT.replace(TAX, instead))


def test_a_session_that_is_handed_to_where_it_may_not_be_is_refused() -> None:
    sessions = (
        "kind: sessions, arrivals: {kind: poisson, rate: 1/s}, turns: 2, think: 1s, "
        "agents: tax-eu, users_from: {eu: 1}, hand_over: {tax-eu: {%s: 1}}"
    )
    load(TEXT.replace(f"kind: poisson, rate: 1/s, {TAX}", sessions % "many-001"))
    with pytest.raises(ScenarioError, match="but old would do it in us"):
        load(TEXT.replace(f"kind: poisson, rate: 1/s, {TAX}", sessions % "old"))


def test_a_scenario_with_regions_is_equal_to_its_dump() -> None:
    scenario = load(TEXT)
    assert Scenario.model_validate(scenario.dump()) == scenario
    assert scenario.shares(scenario.workload[0]) == {"tax": 1.0}


PIECES: list[Any] = [
    None,
    3,
    1.5,
    True,
    "eu",
    "mars",
    [],
    [3, "eu"],
    {},
    {"eu": 3},
    {"eu": {"us": []}},
]
PLACES: list[tuple[Any, ...]] = [
    ("regions",), ("latency",), ("latency", "eu"), ("residency",), ("residency", "eu"), ("services",),
    ("services", "tax"), ("services", "tax", "agents"), ("fleet",), ("fleet", 0, "region"), ("fleet", 3, "model"),
    ("fleet", 0, "agent"), ("fleet", 0, "service"), ("models",), ("models", "own"), ("models", "own", "server"),
    ("servers",), ("servers", "gpu"), ("servers", "gpu", "region"), ("workload", 0, "users_from"),
    ("workload", 0, "agents"), ("workload", 0, "hand_over"), ("faults", 0, "region"), ("faults",),
]  # fmt: skip


@settings(max_examples=300)
@given(st.lists(st.tuples(st.sampled_from(PLACES), st.sampled_from(PIECES)), min_size=1, max_size=3))
def test_whatever_stands_anywhere_is_a_scenario_or_a_list_of_findings(changes: list[tuple[Any, Any]]) -> None:
    data = copy.deepcopy(PLAIN)
    for path, piece in changes:
        at: Any = data
        for step in path[:-1]:
            inside = step in at if isinstance(at, dict) else isinstance(at, list) and step in range(len(at))
            at = at[step] if inside else None
        if isinstance(at, dict):
            at[path[-1]] = copy.deepcopy(piece)
    found = cross_checks(data)
    try:
        Scenario.model_validate(data)
    except ValidationError:
        return
    assert found == []


PLAIN = load(TEXT).dump()

# --- round trips and the order of agents ------------------------------------------------------------------


def test_round_trips_are_symmetric_and_nothing_where_nothing_is_said() -> None:
    scenario = load(TEXT)
    trips = round_trips(scenario)
    assert trips == [[0.0, 0.09, 0.0], [0.09, 0.0, 0.16], [0.0, 0.16, 0.0]]
    assert [list(row) for row in zip(*trips, strict=True)] == trips
    assert round_trip_s(scenario.latency, "apac", "us") == 0.16


def asked(scenario: Scenario, users: str) -> str:
    door = front_door(scenario)
    assert door is not None
    names = list(scenario.agents())
    request = Request(
        1, agent=len(names), tokens_in=1, max_tokens_out=1, region=scenario.regions.index(users)
    )
    return names[door.admit(request).agent]


def test_the_own_region_comes_first_where_round_trips_are_equal() -> None:
    scenario = load(TEXT.replace("latency: {eu: {us: 90ms}, us: {apac: 160ms}}\n", ""))
    assert [asked(scenario, users) for users in ("eu", "us", "apac")] == ["tax-eu", "tax-us", "tax-eu"]


def test_residency_leaves_out_the_nearest_and_what_calls_a_server_elsewhere() -> None:
    scenario = load(TEXT, ["latency.apac={eu: 250ms}"])
    assert asked(scenario, "apac") == "tax-us"
    assert asked(load(TEXT, ["latency.apac={eu: 250ms}", "residency.apac=[eu]"]), "apac") == "tax-eu"
    steps = "{law: steps, steps: [{step: answer}]}"
    calling = [
        f"fleet.{agent}.{part}"
        for agent in ("tax-eu", "tax-us")
        for part in (f"service={steps}", "model=own")
    ]
    with pytest.raises(ScenarioError, match="but tax would do it in us"):
        load(TEXT, calling)
    assert asked(load(TEXT, [*calling, "servers.gpu.region=eu"]), "eu") == "tax-eu"


def test_without_services_there_is_no_front_door() -> None:
    assert front_door(load(TEXT.replace(TAX, "agents: old"), ["services={}"])) is None


# --- the report -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Scenario]:
    scenario = load(
        TEXT, ["duration=5m", "warmup=30s", "fleet.tax-eu.concurrency=9", "fleet.tax-us.concurrency=9"]
    )
    folder = tmp_path_factory.mktemp("regions") / "run"
    run(scenario, "small", folder, replications=2)
    return folder, scenario


def test_the_report_counts_users_by_where_they_are_and_where_they_were_served(
    small: tuple[Path, Scenario],
) -> None:
    folder, scenario = small
    (section,) = regions(read_first(folder), scenario)
    found = pq.read_table(folder / "requests.parquet").to_pandas()
    found = found[(found["replication"] == 0) & (found["t_arrive_s"] >= 30.0)]
    found["served"] = found["agent"].astype(str).str[-2:]
    counts = found.groupby([found["region"].astype(str), "served"]).size()
    rows = section["blocks"][0]["rows"]
    assert {(row[0], row[1]): int(row[2]) for row in rows} == counts.to_dict()
    assert [row[:2] for row in rows] == [["eu", "eu"], ["us", "us"]]
    assert [row[3:] for row in rows] == [["100 %", "1.00 s", "1.00 s"]] * 2
    rules = dict(section["blocks"][1]["rows"])
    assert rules["round trips"] == "eu to us 90 ms, us to apac 160 ms"
    assert rules["residency"] == "eu only in eu, apac"
    assert rules["service tax"] == "tax-eu, tax-us; failover after 60 s"
    html = (folder / "report.html").read_text(encoding="utf-8")
    assert "users in" in html
    assert "lost region: every instance and model server in eu is gone, at 10 s for 5 s" in html


def test_where_one_region_is_used_there_is_no_such_table(tmp_path: Path) -> None:
    scenario = load(TEXT.replace(TAX, "agents: old"), ["duration=20s"])
    run(scenario, "one", tmp_path / "run", replications=1)
    assert list(regions(read_first(tmp_path / "run"), scenario)) == []


def test_round_trips_and_failover_are_assumed_unless_somebody_vouches_for_them() -> None:
    data = {"models": {}, "fleet": [], "workload": [], "latency": {"eu": {"us": "9ms"}}}
    data |= {"services": {"tax": {"agents": ["a"], "failover": "60s"}}}
    assert [path for path, _ in unknown_parts(data, set())] == [("latency",), ("services", "tax", "failover")]
    assert [path for path, _ in unknown_parts(data, {("latency",)})] == [("services", "tax", "failover")]


# --- region_loss ------------------------------------------------------------------------------------------

NO_FAILOVER = "services.tax.failover=1d"
EU_STAYS = "residency={eu: [eu]}"
SHORT = ("duration=20m", "faults.0.at=5m", "faults.0.lasts=10m")


class Lost:
    """Runs of the scenario, cut short, each made once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._done: dict[tuple[str, ...], Finished] = {}

    def __call__(self, *overrides: str) -> Finished:
        if overrides not in self._done:
            scenario = load(resource("scenarios", "region_loss.yaml"), [*SHORT, *overrides])
            folder = self._folder / str(len(self._done))
            self._done[overrides] = run(scenario, "region_loss", folder, replications=2)
        return self._done[overrides]

    def requests(self, *overrides: str) -> pd.DataFrame:
        """Return the requests of replication 0, with ``ok``."""
        found = pq.read_table(self(*overrides).folder / "requests.parquet").to_pandas()
        found = found[found["replication"] == 0]
        return found.assign(ok=found["ending"] == "answered")


@pytest.fixture(scope="module")
def lost(tmp_path_factory: pytest.TempPathFactory) -> Lost:
    return Lost(tmp_path_factory.mktemp("region_loss"))


def test_with_failover_its_level_is_met_and_what_is_expected_happens(lost: Lost) -> None:
    summary = lost().summary
    assert summary["verdict"] == "met"
    assert [each for each in summary["expectations"] if not each["held"]] == []


@pytest.mark.parametrize("off", [NO_FAILOVER, EU_STAYS])
def test_without_it_the_users_of_the_region_fail_and_nobody_else(off: str, lost: Lost) -> None:
    summary, requests = lost(off).summary, lost.requests(off)
    assert summary["verdict"] == "not met"
    assert not all(each["held"] for each in summary["expectations"])
    during = requests[requests["t_arrive_s"].between(301, 860)]
    assert not during["ok"][during["region"] == "eu"].any()
    assert during["ok"][during["region"] != "eu"].all()


def test_the_failover_costs_its_minute(lost: Lost) -> None:
    requests = lost.requests()
    failed = requests[~requests["ok"]]
    assert failed["t_arrive_s"].max() < 300 + 60
    assert failed["t_arrive_s"].min() > 300 - 10, "what was under way died with the region"
    assert (failed["region"] == "eu").all()
    assert len(failed) == pytest.approx(60 * 5.5, rel=0.15)


def test_after_it_users_there_wait_for_the_round_trip(lost: Lost) -> None:
    requests = lost.requests()
    eu = requests[(requests["region"] == "eu") & requests["ok"]]
    before, away = eu[eu["t_arrive_s"] < 300], eu[eu["t_arrive_s"].between(420, 900)]
    assert set(before["agent"]) == {"tax-eu"}
    assert set(away["agent"]) == {"tax-us"}
    assert away["latency_s"].median() - before["latency_s"].median() == pytest.approx(0.09, abs=0.06)


def test_the_rule_costs_exactly_what_no_failover_costs(lost: Lost) -> None:
    rule, never = (lost(each).summary["metrics"]["success_rate"]["value"] for each in (EU_STAYS, NO_FAILOVER))
    assert rule == never
