"""The command line as its users meet it: real processes, exit codes, files on disk."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from glowsim.core import journal
from glowsim.results import RunError, load

TINY = """
title: tiny
question: Does the command line work?
seed: 3
duration: 30s
models:
  m: {input: $1/1M, output: $2/1M}
fleet:
  - agent: tax
    model: m
    instances: 2
    concurrency: 2
    service: {law: time, time: {law: exponential, mean: 200ms}}
workload:
  - {kind: poisson, rate: 8/s, tokens_in: 100, tokens_out: 10, tasks: 200}
slos:
  - {name: fast enough, metric: latency_s_p95, max: 5s}
"""


def glowsim(*arguments: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "glowsim", *arguments], cwd=cwd, capture_output=True, text=True, check=False,
        env={**os.environ, **env}, timeout=120,
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    (folder / "tiny.yaml").write_text(TINY)
    return folder


@pytest.fixture(scope="module")
def run_dir(folder: Path) -> Path:
    done = glowsim("run", "tiny.yaml", "--replications", "2", "--out", "run", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "verdict: met" in done.stdout
    return folder / "run"


def test_a_run_writes_the_metrics_of_its_first_replication(folder: Path) -> None:
    done = glowsim(
        "run", "tiny.yaml", "--replications", "2", "--out", "measured", "--prometheus", "tiny.prom", cwd=folder
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    requests = load(folder / "measured").requests
    first = requests[requests["replication"] == 0]
    lines = (folder / "tiny.prom").read_text().splitlines()
    assert f'glowsim_requests_total{{agent="tax",model="m",outcome="answered"}} {len(first)}' in lines
    assert "# TYPE glowsim_request_duration_seconds histogram" in lines
    assert not [line for line in lines if "process_" in line]
    assert not list(folder.glob("*.partial"))


def test_metrics_that_cannot_be_written_stop_a_run_before_it_begins(folder: Path) -> None:
    done = glowsim("run", "tiny.yaml", "--out", "never", "--prometheus", "nowhere/tiny.prom", cwd=folder)
    assert done.returncode == 2
    assert "give a file in a folder that exists" in done.stderr
    assert not list(folder.glob("never*"))


def test_a_run_is_whole(run_dir: Path) -> None:
    names = {path.name for path in run_dir.iterdir()}
    tables = {
        f"{name}.parquet" for name in ("requests", "attempts", "instances", "samples", "decisions", "servers")
    }
    assert tables | {"summary.json", "manifest.json", "scenario.json", "report.html", "report.pdf"} <= names
    assert {"journal-0.glow", "journal-1.glow"} <= names
    assert not run_dir.with_name("run.partial").exists()
    run = load(run_dir)
    assert len(run.requests) == 400
    assert set(run.requests["agent"]) == {"tax"}
    assert run.requests["cost_usd"].sum() == pytest.approx(400 * (100 * 1e-6 + 10 * 2e-6))


def test_the_manifest_says_how_to_do_it_again(run_dir: Path) -> None:
    manifest = json.loads((run_dir / "manifest.json").read_text())
    assert manifest["seed"] == 3
    assert manifest["command"][:3] == ["glowsim", "run", "tiny.yaml"]
    assert {"numpy", "simpy"} <= set(manifest["packages"])


def test_json_has_the_promised_keys(folder: Path) -> None:
    done = glowsim("run", "tiny.yaml", "--json", "--out", "json", cwd=folder)
    found = json.loads(done.stdout)
    promised = {
        "scenario", "seed", "replications", "launched", "completed", "success_rate", "request_rate_per_s", "latency_s",
        "tokens_in", "tokens_out", "cost_usd", "cost_usd_per_task", "cache_hit_rate", "slos", "wall_s", "cpu_s",
        "run_dir",
    }  # fmt: skip
    assert promised <= set(found)
    assert set(found["latency_s"]) >= {"min", "p50", "p95", "p99", "max"}
    assert set(found["slos"][0]) >= {"name", "target", "value", "low", "high", "verdict"}
    assert found["replications"] == 5
    assert sum(found["cost_parts_usd"].values()) == pytest.approx(found["cost_usd"], rel=1e-9)
    assert found["launched"] == 200
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "code", "verdict"),
    [
        (["-s", "slos.0.max=5s"], 0, "met"),
        (["-s", "slos.0.max=10ms"], 1, "not met"),
        (["--replications", "1"], 3, "undecided"),
    ],
)
def test_the_exit_code_is_the_verdict(
    folder: Path, tmp_path: Path, arguments: list[str], code: int, verdict: str
) -> None:
    done = glowsim("run", "tiny.yaml", "--json", "--out", str(tmp_path / "run"), *arguments, cwd=folder)
    assert done.returncode == code
    assert json.loads(done.stdout)["verdict"] == verdict


def test_without_randomness_one_run_decides(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("t,i,o\n" + "".join(f"{i},100,10\n" for i in range(20)))
    text = TINY.replace("{law: exponential, mean: 200ms}", "200ms").replace(
        "{kind: poisson, rate: 8/s, tokens_in: 100, tokens_out: 10, tasks: 200}",
        "{kind: trace, format: csv, file: t.csv, columns: {time: t, tokens_in: i, tokens_out: o}}",
    )
    (tmp_path / "still.yaml").write_text(text)
    done = glowsim("run", "still.yaml", "--json", "--data", ".", cwd=tmp_path)
    found = json.loads(done.stdout)
    assert (done.returncode, found["replications"], found["slos"][0]["verdict"]) == (0, 1, "met")
    assert found["latency_s"]["max"] == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("seed: 3", "sed: 3"), "did you mean 'seed'?"),
        (("duration: 30s", "duration: 30"), "30s"),
        (("model: m\n", "model: n\n"), "allowed here: m"),
    ],
)
def test_bad_input_exits_2_and_leaves_nothing(tmp_path: Path, change: tuple[str, str], said: str) -> None:
    (tmp_path / "bad.yaml").write_text(TINY.replace(*change))
    done = glowsim("run", "bad.yaml", "--out", "run", cwd=tmp_path)
    assert done.returncode == 2
    assert "bad.yaml:" in done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.yaml"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "phase5_lod_test"], "did you mean 'phase5_load_test'?"),
        (["run", "nowhere.yaml"], "there is no file nowhere.yaml"),
        (["replay", "nowhere"], "nowhere"),
        (["run", "tiny.yaml", "-s", "fleet.tax.instnces=3"], "did you mean 'instances'?"),
    ],
)
def test_mistakes_on_the_command_line(folder: Path, arguments: list[str], said: str) -> None:
    done = glowsim(*arguments, cwd=folder)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_trace_says_where_it_is_published(tmp_path: Path) -> None:
    done = glowsim("run", "azure_code", "--out", "run", "--data", str(tmp_path), cwd=tmp_path)
    assert done.returncode == 2
    assert "github.com/Azure/AzurePublicDataset" in done.stderr
    assert "CC-BY-4.0" in done.stderr
    assert str(tmp_path) in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_not_overwritten(folder: Path, run_dir: Path) -> None:
    before = (run_dir / "summary.json").read_text()
    done = glowsim("run", "tiny.yaml", "--out", "run", cwd=folder)
    assert done.returncode == 2
    assert "exists" in done.stderr
    assert (run_dir / "summary.json").read_text() == before


def test_a_partial_run_does_not_load(folder: Path, run_dir: Path) -> None:
    partial = folder / "killed.partial"
    partial.mkdir()
    (partial / "summary.json").write_text((run_dir / "summary.json").read_text())
    with pytest.raises(RunError, match="interrupted"):
        load(partial)


def test_replay_proves_equal_commands_and_finds_the_first_difference(folder: Path, run_dir: Path) -> None:
    done = glowsim("replay", "run", cwd=folder)
    assert done.returncode == 0
    assert done.stdout.count("every command equal") == 2
    other = folder / "other"
    other.mkdir()
    for path in run_dir.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    scenario = json.loads((other / "scenario.json").read_text())
    scenario["controllers"] = {"balancer": {"use": "least_connections"}}
    (other / "scenario.json").write_text(json.dumps(scenario))
    done = glowsim("replay", "other", cwd=folder)
    assert done.returncode == 2, "another scenario is refused by its digest"
    assert "another scenario" in done.stderr


def test_list_schema_validate_init(folder: Path, tmp_path: Path) -> None:
    listed = glowsim("list", cwd=folder)
    assert {"phase5_load_test", "azure_code"} <= set(listed.stdout.split())
    assert json.loads(glowsim("schema", cwd=folder).stdout)["title"]
    assert glowsim("validate", "tiny.yaml", "phase5_load_test", cwd=folder).returncode == 0
    done = glowsim("init", "mine", cwd=tmp_path)
    assert done.returncode == 0
    assert (tmp_path / "mine" / "scenarios" / "phase5_load_test.yaml").is_file()
    assert (tmp_path / "mine" / "scenarios" / "scenario.schema.json").is_file()
    assert (tmp_path / "mine" / "scenarios" / "rollouts" / "argo.yaml").is_file()
    assert glowsim("init", "mine", cwd=tmp_path).returncode == 2


def test_bench_reports_the_rates_and_their_ratios(folder: Path) -> None:
    done = glowsim("bench", "--json", "--requests", "1000", "--rounds", "1", cwd=folder)
    found = json.loads(done.stdout)
    assert min(found[name] for name in ("bare_loop", "mmc_world", "full_stack", "full_stack_50")) > 0
    batching = {f"batching_{load}" for load in ("chat", "agent", "summarise", "thrash")}
    assert set(found["ratios"]) == batching | {
        "mmc_world", "full_stack", "full_stack_50", "operations", "shared_fleet",
        "quiet_fleet", "prisma_glow_before", "prisma_glow_after",
    }  # fmt: skip


@pytest.mark.parametrize(("how", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)])
def test_an_interrupted_run_leaves_nothing_that_loads(
    folder: Path, tmp_path: Path, how: int, code: int
) -> None:
    run = [
        sys.executable,
        "-m",
        "glowsim",
        "run",
        str(folder / "tiny.yaml"),
        "-s",
        "workload.0.tasks=10000000",
    ]
    process = subprocess.Popen(
        [*run, "-s", "duration=300d", "--out", str(tmp_path / "run")],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    written = tmp_path / "run.partial" / "journal-0.glow"
    for _ in range(600):
        if written.exists():
            break
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.1)
    assert written.exists()
    process.send_signal(how)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors.decode()
    assert not (tmp_path / "run").exists()
    if how == signal.SIGINT:
        assert list(tmp_path.iterdir()) == []
    else:
        with pytest.raises(RunError, match="interrupted"):
            load(tmp_path / "run.partial")


def test_a_controller_that_raises_stops_the_run_and_leaves_its_journal(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "class Moody:\n"
        "    def pick(self, t_s, request, allowed):\n"
        "        if t_s > 5: raise RuntimeError('not today')\n"
        "        return allowed[0]\n"
        "    def reported(self, t_s, reported): ...\n"
        "    def snapshot(self): return {}\n"
        "    def restore(self, saved): ...\n"
    )
    (tmp_path / "moody.yaml").write_text(TINY + "controllers:\n  balancer: {use: 'mine:Moody'}\n")
    refused = glowsim("run", "moody.yaml", "--out", "run", cwd=tmp_path)
    assert refused.returncode == 2
    assert "--allow-plugins" in refused.stderr
    done = glowsim("run", "moody.yaml", "--out", "run", "--allow-plugins", cwd=tmp_path)
    assert done.returncode == 2
    assert "RuntimeError: not today at Arrived(t_s=5." in done.stderr
    assert "run.partial/journal-0.glow" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()
    assert len(journal.read(tmp_path / "run.partial" / "journal-0.glow")) > 50
