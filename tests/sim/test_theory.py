"""The simulated world against queueing theory, through the whole control plane and by the bare station.

Seeds are fixed. The quick tests accept a value inside a 99.99 % t interval over replications, so a fresh set
of seeds would fail one of ten such tests once in a thousand times. The campaign narrows the same cases to a
half-width of 2 % at 99 %.
"""

from __future__ import annotations

from math import exp, inf
from statistics import mean
from typing import Any

import pytest

from glowsim import build, results
from glowsim.bench import mmc_world
from glowsim.scenario import Scenario
from glowsim.stats.intervals import t_interval
from glowsim.validation import worlds

Settings = dict[str, Any]


def station(rate: float, tasks: int, **changes: Any) -> Scenario:
    """Return the station that the validation measures, under a seed of these tests' own."""
    return worlds.station(rate, tasks, **{"seed": 7} | changes)


def measured(scenario: Scenario, replications: int, metric: str) -> list[float]:
    found = []
    for number in range(replications):
        built = build.replication(scenario, number)
        built.world.start()
        built.world.run(inf)
        tables = results.fold(built.journal.recording(), scenario)
        mean_open, rate_times_time = results.little(tables)
        assert mean_open == pytest.approx(rate_times_time, rel=1e-9), "Little's law"
        found.append(results.figures(tables, scenario.warmup_s)[metric])
    return found


def agrees(values: list[float], exact: float, within: float) -> None:
    interval = t_interval(values, 0.9999)
    assert interval.low <= exact <= interval.high
    assert interval.mean == pytest.approx(exact, rel=within)


LOGNORMAL = {"law": "time", "time": {"law": "lognormal", "median": f"{exp(-0.5)!r}s", "sigma": 1.0}}
TEN = {"instances": 10}
ONE_OF_TEN = {"instances": 1, "concurrency": 10}


@pytest.mark.parametrize(
    ("scenario", "metric", "exact", "within"),
    [
        (station(0.8, 20_000, warmup="1000s"), "wait_s_mean", 4.0, 0.25),
        (station(8, 20_000, agent=TEN, warmup="100s"), "wait_s_mean", 0.204590, 0.15),
        (station(0.8, 20_000, agent={"service": LOGNORMAL}, warmup="1000s"), "wait_s_mean", 5.436564, 0.35),
        (station(0.8, 20_000, warmup="1000s"), "latency_s_p95", 14.978661, 0.25),
    ],
    ids=["M/M/1", "M/M/10", "M/G/1 lognormal", "M/M/1 p95 of the time in system"],
)
def test_waits(scenario: Scenario, metric: str, exact: float, within: float) -> None:
    agrees(measured(scenario, 8, metric), exact, within)


def test_ten_servers_in_one_instance_wait_as_ten_instances_do() -> None:
    """The backlog behind an instance's servers and the queue at the gateway are the same M/M/10."""
    scenario = station(8, 20_000, agent=ONE_OF_TEN, warmup="100s")
    agrees(measured(scenario, 8, "latency_s_mean"), 1.204590, 0.03)


def hundred(load: float, tasks: int) -> Scenario:
    return station(
        load * 100, tasks, agent={"instances": 100, "queue": "instance", "slots": 1000},
        controllers={"balancer": {"use": "power_of_two"}}, warmup="100s",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("load", "exact", "tasks", "runs"),
    [(0.5, 1.266, 40_000, 1), (0.9, 2.646, 120_000, 1)],
)
def test_two_choices_among_a_hundred(load: float, exact: float, tasks: int, runs: int) -> None:
    """The supermarket model with n = 100 without replacement: recomputed means, within 2 %."""
    assert mean(measured(hundred(load, tasks), runs, "latency_s_mean")) == pytest.approx(exact, rel=0.02)


def test_one_choice_is_much_worse() -> None:
    """The negative control: without the second choice the same hundred are M/M/1 queues, mean time 10."""
    scenario = station(
        90, 60_000, agent={"instances": 100, "queue": "instance", "slots": 1000},
        controllers={"balancer": {"use": "round_robin"}}, warmup="100s",
    )  # fmt: skip
    assert measured(scenario, 1, "latency_s_mean")[0] > 1.5 * 2.646


def test_closed_users_are_the_repairman() -> None:
    """Case 8: 50 users, thinking 10 s, five servers of 1 s: 4.327 requests/s, 1.555 s each."""
    users = {
        "kind": "closed", "users": 50, "think": {"law": "exponential", "mean": "10s"}, "tokens_in": 1,
        "tokens_out": 1, "tasks": 20_000,
    }  # fmt: skip
    scenario = station(1, 1, agent={"instances": 5}, workload=[users], warmup="100s")
    agrees(measured(scenario, 8, "latency_s_mean"), 1.554913, 0.03)


def test_the_bare_station_agrees_too() -> None:
    agrees([mmc_world(50_000, seed) for seed in range(20)], 0.204590, 0.05)


@pytest.mark.campaign
@pytest.mark.parametrize(
    ("servers", "rate", "exact", "requests", "runs"),
    [(1, 0.8, 4.0, 1_000_000, 60), (10, 8.0, 0.204590, 1_000_000, 20)],
    ids=["M/M/1", "M/M/10"],
)
def test_campaign_bare_station(servers: int, rate: float, exact: float, requests: int, runs: int) -> None:
    interval = t_interval([mmc_world(requests, seed, servers, rate) for seed in range(runs)], 0.99)
    assert interval.low <= exact <= interval.high
    assert (interval.high - interval.low) / 2 <= 0.02 * exact


@pytest.mark.campaign
@pytest.mark.parametrize(
    ("scenario", "metric", "exact", "runs"),
    [
        (station(0.8, 200_000, warmup="2000s"), "wait_s_mean", 4.0, 40),
        (station(8, 200_000, agent=TEN, warmup="100s"), "wait_s_mean", 0.204590, 40),
        (station(0.8, 200_000, agent={"service": LOGNORMAL}, warmup="2000s"), "wait_s_mean", 5.436564, 100),
    ],
    ids=["M/M/1", "M/M/10", "M/G/1 lognormal"],
)
def test_campaign_whole_stack(scenario: Scenario, metric: str, exact: float, runs: int) -> None:
    interval = t_interval(measured(scenario, runs, metric), 0.99)
    assert interval.low <= exact <= interval.high
    assert (interval.high - interval.low) / 2 <= 0.02 * exact


@pytest.mark.campaign
@pytest.mark.parametrize(("load", "exact"), [(0.5, 1.266), (0.9, 2.646), (0.95, 3.464)])
def test_campaign_two_choices(load: float, exact: float) -> None:
    interval = t_interval(measured(hundred(load, 400_000), 20, "latency_s_mean"), 0.99)
    assert interval.mean == pytest.approx(exact, rel=0.02)
    assert (interval.high - interval.low) / 2 <= 0.02 * exact
