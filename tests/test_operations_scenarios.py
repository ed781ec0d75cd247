"""The scenarios of the operations controllers: what each claims happens, and does not with the controller off."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest

from glowsim import results
from glowsim.core import journal
from glowsim.experiment.judgement import summarise
from glowsim.experiment.replicate import journal_path, replicate
from glowsim.experiment.run import run
from glowsim.ledger import Ledger, ledger
from glowsim.resources import resource
from glowsim.results import ENDINGS
from glowsim.scenario import load

NO_SCALER = "controllers.scaler=null"
NO_BUDGET = "controllers.retrier.budget_ratio=null"
ONLY_PROBES = "controllers.breaker={use: probes}"
TWO_ALWAYS = "controllers.scaler.min_instances=2"
NO_BLIP = "faults.0.lasts=1ms"
SPIKE_S = 60.0
ANSWERED = ENDINGS.index("answered")
SHORT = {
    "phase5_burst": (
        "workload.0.steps=[{at: 0s, rate: 50/s}, {at: 60s, rate: 500/s}]",
        "duration=150s",
    ),
    "phase5_soak": ("duration=5m",),
    "retry_storm": ("duration=5m",),
    "black_hole": ("duration=5m", "faults.0.lasts=150s"),
    "quiet_fleet": ("duration=5d",),
}
"""What makes a scenario quick and leaves its claim."""


class Ran(NamedTuple):
    summary: dict[str, Any]
    requests: pd.DataFrame
    attempts: pd.DataFrame
    ledger: Ledger
    """Of replication 0, like the tables."""

    def value(self, metric: str) -> float:
        found: float = self.summary["metrics"][metric]["value"]
        return found

    def failed(self) -> pd.DataFrame:
        return self.requests[self.requests["ending"] != ANSWERED]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a scenario's runs, cut short, each made once."""
    made: dict[tuple[str, ...], Ran] = {}

    def of(name: str, *overrides: str) -> Ran:
        if (name, *overrides) not in made:
            folder = tmp_path_factory.mktemp(name)
            made[name, *overrides] = _run(folder, name, overrides)
        return made[name, *overrides]

    return of


def _run(folder: Path, name: str, overrides: tuple[str, ...]) -> Ran:
    scenario = load(resource("scenarios", f"{name}.yaml"), [*SHORT[name], *overrides])
    done = [replicate(scenario, number, folder) for number in range(1 if overrides else 2)]
    tables = results.fold(journal.read(journal_path(folder, 0)), scenario)
    return Ran(
        summarise(name, scenario, done, deterministic=False),
        pd.DataFrame(tables.requests),
        pd.DataFrame(tables.attempts),
        ledger(tables, scenario),
    )


def test_every_operations_scenario_is_here() -> None:
    elsewhere = {"azure_code", "phase5_load_test", "phase5_load_test_open"}  # by test_bundled_scenarios
    elsewhere |= {
        "shared_servers",
        "region_loss",
        "prisma_glow_before",
        "prisma_glow_after",
    }  # by tests of their own
    assert {path.stem for path in resource("scenarios").glob("*.yaml")} == elsewhere | set(SHORT)


@pytest.mark.parametrize("name", SHORT)
def test_what_is_expected_happens_and_every_level_is_met(name: str, ran: Any) -> None:
    summary = ran(name).summary
    assert [each for each in summary["expectations"] if not each["held"]] == []
    assert summary["verdict"] == "met"


@pytest.mark.parametrize(
    ("name", "off"),
    [("phase5_burst", NO_SCALER), ("retry_storm", NO_BUDGET), ("black_hole", ONLY_PROBES)],
)
def test_with_the_controller_off_it_does_not(name: str, off: str, ran: Any) -> None:
    summary = ran(name, off).summary
    assert not all(each["held"] for each in summary["expectations"])
    assert not any(slo["verdict"] == "met" for slo in summary["slos"])


# --- phase5_burst ---------------------------------------------------------------------------------------


def test_the_queue_bears_the_spike_until_the_instances_are_there(ran: Any) -> None:
    burst = ran("phase5_burst")
    assert len(burst.failed()) == 0
    spike = burst.requests[burst.requests["t_arrive_s"] >= SPIKE_S]
    assert spike.groupby(spike["t_arrive_s"] // 1).size().mean() == pytest.approx(500, rel=0.02)
    slowest_s = spike["latency_s"].max()
    assert 18 < slowest_s < 25, "about one start of 20 s"
    later = spike[spike["t_arrive_s"] > SPIKE_S + 60]
    assert later["latency_s"].quantile(0.95) == pytest.approx(1.81, abs=0.1), "as at the base rate"


def test_without_the_scaler_the_spike_fails(ran: Any) -> None:
    control = ran("phase5_burst", NO_SCALER)
    late = control.requests[control.requests["t_arrive_s"] >= SPIKE_S + 30]
    assert (late["ending"] != ANSWERED).mean() > 0.95


# --- retry_storm ----------------------------------------------------------------------------------------


def per_second(attempts: pd.DataFrame, begin_s: float, end_s: float) -> float:
    return float(attempts["t_dispatch_s"].between(begin_s, end_s).sum()) / (end_s - begin_s)


def test_with_a_budget_the_fleet_is_back_within_half_a_minute(ran: Any) -> None:
    storm = ran("retry_storm")
    failed_s = storm.failed()["t_arrive_s"]
    assert failed_s.min() > 58, "nothing was wrong before"
    assert len(failed_s) > 8 * 60, "the blip was one"
    assert failed_s.max() < 68 + 30
    assert per_second(storm.attempts, 68, 300) < 77, "70/s and a budget of 10 %"
    latency_s, arrived_s = storm.requests["latency_s"], storm.requests["t_arrive_s"]
    before, after = latency_s[arrived_s < 55], latency_s[arrived_s > 120]
    assert after.quantile(0.95) == pytest.approx(before.quantile(0.95), rel=0.15)


def test_without_a_budget_it_is_still_down_in_the_last_minute(ran: Any) -> None:
    storm = ran("retry_storm", NO_BUDGET)
    last = storm.requests[storm.requests["t_arrive_s"].between(240, 300)]
    assert len(last) == pytest.approx(60 * 70, rel=0.05), "no more arrive than the fleet can serve"
    assert (last["ending"] != ANSWERED).all()
    assert per_second(storm.attempts, 240, 300) == pytest.approx(4 * 70, rel=0.05)


def test_the_storm_needs_its_blip(ran: Any) -> None:
    calm = ran("retry_storm", NO_BUDGET, NO_BLIP)
    assert calm.value("success_rate") > 0.999


# --- black_hole -----------------------------------------------------------------------------------------


def test_ejection_closes_the_hole_within_attempts(ran: Any) -> None:
    hole = ran("black_hole")
    refused = hole.failed()["t_arrive_s"]
    assert 3 <= (refused < 102).sum() <= 5, (
        "three refusals in a row; what began before the fault still succeeds"
    )
    assert 3 < len(refused) <= 10
    assert refused.max() < 132, "once more when it is let in again after 30 s"


def test_probes_alone_leave_it_open_for_longer_than_a_minute(ran: Any) -> None:
    hole = ran("black_hole", ONLY_PROBES)
    failed_s = hole.failed()["t_arrive_s"]
    assert failed_s.min() == pytest.approx(100, abs=1)
    assert failed_s.max() == pytest.approx(180, abs=1), "probes at 120, 150 and 180 s"
    during = hole.requests["t_arrive_s"].between(100, 180)
    share = (hole.requests["ending"][during] != ANSWERED).mean()
    assert 0.65 < share < 0.85, "one of ten draws three of four"


# --- quiet_fleet ----------------------------------------------------------------------------------------


def test_scaling_to_zero_saves_nine_tenths_of_the_instances(ran: Any) -> None:
    quiet, two = ran("quiet_fleet"), ran("quiet_fleet", TWO_ALWAYS)
    assert two.value("cost_instances_usd") == pytest.approx(51 * 2 * 5 * 24 * 0.05, rel=0.02), (
        "from the first task on"
    )
    assert quiet.value("cost_instances_usd") / two.value("cost_instances_usd") == pytest.approx(
        0.11, abs=0.02
    )
    for each in (quiet, two):
        assert each.ledger.totals_usd["idle"] > 0.99 * (
            each.ledger.totals_usd["idle"] + each.ledger.totals_usd["busy"]
        )


def test_its_users_pay_with_a_start(ran: Any) -> None:
    quiet, two = ran("quiet_fleet"), ran("quiet_fleet", TWO_ALWAYS)
    assert two.value("latency_s_p95") < 5
    assert 35 < quiet.value("latency_s_p95") < 60
    cold = (quiet.requests["wait_s"] > 1).mean()
    assert cold == pytest.approx(0.75, abs=0.03)
    assert not (two.requests["wait_s"] > 1).any()


# --- phase5_soak ----------------------------------------------------------------------------------------

WORLD = """
import sys
from pathlib import Path
from glowsim import build
from glowsim.resources import resource
from glowsim.scenario import load
scenario = load(resource("scenarios", "phase5_soak.yaml"), [f"duration={sys.argv[1]}"])
built = build.replication(scenario, 0, journal_path=Path(sys.argv[2]))
built.world.start()
built.world.run(scenario.duration_s + scenario.drain_s)
built.journal.close()
"""
WHOLE = """
import sys
from pathlib import Path
from glowsim.experiment.replicate import replicate
from glowsim.resources import resource
from glowsim.scenario import load
replicate(load(resource("scenarios", "phase5_soak.yaml")), 0, Path(sys.argv[1]))
"""


def used(code: str, *arguments: str) -> tuple[float, float]:
    """Return the CPU seconds and the largest resident megabytes of a process of its own."""
    process = subprocess.Popen([sys.executable, "-c", code, *arguments])
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def test_the_memory_of_the_simulation_does_not_grow_with_simulated_time(tmp_path: Path) -> None:
    _, short_mb = used(WORLD, "2m", str(tmp_path / "short.glow"))
    _, long_mb = used(WORLD, "10m", str(tmp_path / "long.glow"))
    assert long_mb - short_mb < 6, "96,000 requests more; their journal alone has 18 MB"
    assert (tmp_path / "long.glow").stat().st_size > 4 * (tmp_path / "short.glow").stat().st_size


@pytest.mark.campaign
def test_two_hours_at_200_requests_a_second_fit_into_a_minute_and_two_gigabytes(tmp_path: Path) -> None:
    cpu_s, most_mb = used(WHOLE, str(tmp_path))
    assert cpu_s <= 60
    assert most_mb <= 2048
    requests = pd.read_feather(tmp_path / "parts" / "requests-0.arrow", columns=["t_arrive_s", "latency_s"])
    halves = np.floor(requests["t_arrive_s"] / 1800)
    p95_s = requests.groupby(halves)["latency_s"].quantile(0.95)
    assert len(p95_s) == 4
    assert p95_s.max() - p95_s.min() < 0.03, "the last half hour like the first"


# --- the figures that the descriptions and the README quote -----------------------------------------------

QUOTED = {
    ("phase5_burst",): {"latency_s_p95": 14.9, "latency_s_max": 21.4, "cost_instances_usd": 1.05},
    ("phase5_burst", NO_SCALER): {"error_rate": 0.82},
    ("phase5_burst", NO_SCALER, "controllers.queue.use=adaptive_lifo"): {"error_rate": 0.69},
    ("phase5_soak",): {"latency_s_p95": 1.81, "error_rate": 0.0013},
    ("retry_storm",): {"latency_s_p95": 0.474},
    ("retry_storm", NO_BUDGET): {"success_rate": 0.0},
    ("black_hole",): {"failed": 6.4},
    ("black_hole", ONLY_PROBES): {"error_rate": 0.099, "failed": 2380},
    ("black_hole", "controllers.breaker=null"): {"error_rate": 0.30},
    ("quiet_fleet",): {"cost_instances_usd": 370, "latency_s_p50": 23.9, "latency_s_p95": 41.2},
    ("quiet_fleet", "controllers.scaler.min_instances=1"): {"cost_instances_usd": 1836, "latency_s_p95": 3.6},
    ("quiet_fleet", TWO_ALWAYS): {"cost_instances_usd": 3665, "latency_s_p50": 1.8, "latency_s_p95": 3.6},
}


@pytest.mark.campaign
@pytest.mark.parametrize("asked", QUOTED, ids=" ".join)
def test_the_whole_scenario_gives_the_figures_that_are_quoted(asked: tuple[str, ...], tmp_path: Path) -> None:
    name, *overrides = asked
    finished = run(load(resource("scenarios", f"{name}.yaml"), overrides), name, tmp_path / "run")
    for metric, quoted in QUOTED[asked].items():
        assert finished.summary["metrics"][metric]["value"] == pytest.approx(quoted, rel=0.03), metric
    if not overrides:
        assert [each for each in finished.summary["expectations"] if not each["held"]] == []
        assert finished.summary["verdict"] == "met"
