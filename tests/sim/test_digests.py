"""Same seed, same numpy, same processor: the same columns, whatever the Python version or the hash seed.

`GLOWSIM_DIGESTS` names a file that one Python writes and the next compares with.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from glowsim import build, results
from glowsim.core import journal
from glowsim.core.streams import Streams
from glowsim.scenario import Scenario

EVERYTHING: dict[str, Any] = {
    "title": "everything at once",
    "question": "Does every part of it come out the same?",
    "seed": 11,
    "duration": "200s",
    "models": {"m": {"input": "$1/1M", "output": "$3/1M"}},
    "fleet": [
        {
            "agent": "tax", "count": 3, "model": "m", "instances": 3, "concurrency": 4,
            "startup": {"law": "gamma", "mean": "9s", "cv": 0.5},
            "timeout": "20s", "first_token_timeout": "8s",
            "service": {"law": "tokens", "base": "100ms", "input": "40us/token", "output": "9ms/token",
                        "slowdown": "5%", "noise": {"law": "gamma", "mean": 1, "cv": 0.3}},
            "failures": {"invalid": "1%", "error": "5%"}, "variants": {"next": {"slowdown": 1.2, "error": "20%"}},
            "controllers": {"splitter": {"use": "canary", "salt": "s", "weight": "20%", "then": [0.5, 1.0],
                                         "hold": "60s", "step": "30s", "minimum": 20}},
        },
        {
            "agent": "audit", "model": "m", "instances": 4, "concurrency": 2, "queue": "instance",
            "service": {"law": "time", "time": {"law": "lognormal", "median": "700ms", "sigma": 0.8}},
            "controllers": {"balancer": {"use": "power_of_two"}},
        },
    ],
    "workload": [
        {"kind": "bursts", "base": "4/s", "burst": "40/s", "every": "60s", "lasts": "10s",
         "agents": {"tax": 3, "audit": 2}, "tokens_in": {"law": "lognormal", "median": 900, "sigma": 0.7},
         "tokens_out": {"law": "gamma", "mean": 80, "cv": 0.6}, "stream": True, "users": 50, "tenants": 5},
        {"kind": "closed", "users": 40, "think": {"law": "exponential", "mean": "5s"}, "agents": "tax",
         "tokens_in": {"law": "uniform", "low": 100, "high": 2000}, "tokens_out": 60,
         "cacheable": {"share": "50%", "keys": 30, "zipf": 1.0}},
    ],
    "faults": [
        {"kind": "crash", "agent": "tax", "at": "50s", "lasts": "30s", "instances": 1},
        {"kind": "slow", "agent": "audit", "at": "70s", "lasts": "40s", "instances": 2, "factor": 4},
        {"kind": "errors", "agent": "tax", "at": "120s", "lasts": "20s", "error": "60%"},
    ],
    "controllers": {
        "guard": {"use": "size", "max_tokens_in": 5000},
        "limiter": {"use": "token_bucket", "rate": "2/s", "burst": 20, "per": "user"},
        "cache": {"use": "lru", "entries": 20, "ttl": "60s"},
        "planner": {"use": "cap", "max_tokens_out": 200},
        "queue": {"use": "priority", "limit": 200},
        "balancer": {"use": "least_connections", "shadow": {"use": "power_of_two"}},
        "breaker": {"use": "consecutive", "failures": 3, "open": "10s"},
        "retrier": {"use": "backoff", "attempts": 3},
        "scaler": {"use": "agent_scaler", "min_instances": 2, "max_instances": 6, "cooldown_up": "10s",
                   "cooldown_down": "30s", "look": "5s"},
        "detector": [{"use": "page_hinkley", "metric": "error", "threshold": 5, "delta": 0.02}],
    },
}  # fmt: skip


def everything(replication: int = 0) -> tuple[Scenario, journal.Recording, results.Tables]:
    scenario = Scenario.model_validate(EVERYTHING)
    built = build.replication(scenario, replication)
    built.world.start()
    built.world.run(scenario.duration_s + scenario.drain_s)
    recording = built.journal.recording()
    return scenario, recording, results.fold(recording, scenario)


def test_the_scenario_does_exercise_everything() -> None:
    _, _, tables = everything()
    assert set(tables.decisions["kind"]) == {"scale", "alert", "rollout", "shadow"}
    assert set(tables.requests["ending"]) >= {1, 2, 3}
    assert {"cached", "joined", "own"} <= {
        results._ANSWERED.get(int(how)) for how in set(tables.requests["how"])
    }
    assert tables.requests["attempts"].max() > 1
    assert set(tables.instances["state"]) >= {0, 1, 2, 3, 4}
    assert set(tables.requests["variant"]) == {0, 1}


def test_the_journal_replays_to_equal_commands() -> None:
    scenario, recording, _ = everything()
    assert (
        journal.first_difference(recording, build.control_plane(scenario, Streams(scenario.seed, 0))) is None
    )


def test_another_seed_of_the_controllers_is_noticed() -> None:
    """The negative control: power of two choices draws from a stream, so a wrong stream must show."""
    scenario, recording, _ = everything()
    difference = journal.first_difference(recording, build.control_plane(scenario, Streams(scenario.seed, 1)))
    assert difference is not None


def test_two_hash_seeds_and_two_runs_give_equal_columns() -> None:
    code = (
        f"import sys, json; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import test_digests\nfrom glowsim import results\n"
        "print(json.dumps(results.digests(test_digests.everything()[2])))"
    )
    outputs = [
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    ]  # fmt: skip
    assert json.loads(outputs[0]) == json.loads(outputs[1]) == results.digests(everything()[2])


def test_two_pythons_give_equal_columns() -> None:
    name = os.environ.get("GLOWSIM_DIGESTS")
    if name is None:
        pytest.skip("GLOWSIM_DIGESTS names no file to compare with: .ci/run does this over two Pythons")
    found = {"numpy": np.__version__, "digests": results.digests(everything()[2])}
    path = Path(name)
    if not path.exists():
        path.write_text(json.dumps(found))
    written = json.loads(path.read_text())
    if written["numpy"] != np.__version__:
        pytest.skip(f"written with numpy {written['numpy']}, this is {np.__version__}")
    assert written["digests"] == found["digests"]


def test_a_policy_does_not_move_the_world() -> None:
    """Common random numbers: another balancer meets the same arrivals, tokens and users."""
    other = EVERYTHING | {"controllers": EVERYTHING["controllers"] | {"balancer": {"use": "round_robin"}}}
    scenario = Scenario.model_validate(other | {"workload": EVERYTHING["workload"][:1]})
    base = Scenario.model_validate(EVERYTHING | {"workload": EVERYTHING["workload"][:1]})
    columns = []
    for each in (scenario, base):
        built = build.replication(each, 0)
        built.world.start()
        built.world.run(600.0)
        requests = results.fold(built.journal.recording(), each).requests
        columns.append(
            [requests[name].tolist() for name in ("request_id", "t_arrive_s", "agent", "user", "tokens_in")]
        )
    assert columns[0] == columns[1]
