"""Commands with commands of their own: `glowsim workload` and `glowsim report`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from glowsim.cli import app
from glowsim.core.errors import GlowsimError
from glowsim.scenario import load
from glowsim.traces.log import LogError


def ran(*arguments, code=0):
    done = CliRunner().invoke(app, [str(each) for each in arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == code, done.output
    return done.stdout


@pytest.fixture
def azure(tmp_path) -> Path:
    path = tmp_path / "trace.csv"
    rows = [f"2023-11-16 18:17:{i % 60:02}.{i // 60:03}0000,{200 + i},{20 + i % 9}" for i in range(400)]
    path.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n" + "\n".join(rows) + "\nbroken,1,2\n")
    return path


def test_a_log_is_described_with_what_could_not_be_read(azure):
    said = ran("workload", "describe", azure)
    assert "400 requests" in said
    assert "1 of them refused" in said
    found = json.loads(ran("workload", "describe", azure, "--json"))
    assert found["reading"] | {"first_refused": None, "remarks": None} == {
        "rows": 401, "refused": 1, "first_refused": None, "unknown_fields": {}, "remarks": None,
    }  # fmt: skip
    assert found["reading"]["first_refused"][0]["line"] == 402


def test_a_log_that_is_none_is_an_error(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(LogError):
        ran("workload", "describe", path)


def test_a_fitted_workload_runs_in_a_scenario(azure, tmp_path):
    ran("workload", "fit", azure, "-o", tmp_path / "mine.yaml")
    scenario = load(
        "title: t\nquestion: q\nseed: 1\nduration: 5m\nmodels: {m: {input: $1/1M, output: $1/1M}}\n"
        "fleet: [{agent: a, model: m, instances: 2, concurrency: 4, service: {law: time, time: 100ms}}]\n"
        "workload: [{kind: fitted, file: mine.yaml}]\n"
    )
    from glowsim.build import replication

    world = replication(scenario, 0, data=tmp_path).world
    world.start()
    world.run(600.0)
    assert world.stopped
    with pytest.raises(GlowsimError, match="exists"):
        ran("workload", "fit", azure, "-o", tmp_path / "mine.yaml")
    with pytest.raises(GlowsimError, match="stochastic or recorded"):
        ran("workload", "fit", azure, "-o", tmp_path / "new.yaml", "--envelope", "stoch")


def test_claims_that_cannot_all_be_true_exit_with_1(tmp_path):
    found = json.loads(ran("report", "claims", "--no-simulate", "--out", tmp_path / "c", "--json", code=1))
    assert found["claims"]["load_users"]["verdict"] == "inconsistent"
    assert Path(found["html"]).is_file()


def test_claims_of_ones_own_that_agree_exit_with_0(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "title: t\nsource: s\nclaims:\n"
        "  a: {value: 2, says: two, where: here}\n  b: {value: 4, says: four, where: here}\n"
        "relations:\n  - {name: twice, left: 2 * a, right: b, why: it must}\n"
    )
    assert "2 consistent" in ran("report", "claims", path, "--out", tmp_path / "c")


# --- import and backtest ----------------------------------------------------------------------------------


@pytest.fixture
def spend(tmp_path) -> Path:
    path = tmp_path / "spend.jsonl"
    rows = [
        {
            "request_id": f"r{i}", "startTime": f"2026-03-02T{i // 60:02}:{i % 60:02}:00+00:00",
            "completionStartTime": f"2026-03-02T{i // 60:02}:{i % 60:02}:00.{300 + i % 50}000+00:00",
            "endTime": f"2026-03-02T{i // 60:02}:{i % 60:02}:0{2 + i % 3}.000000+00:00",
            "prompt_tokens": 400 + 7 * (i % 31), "completion_tokens": 100 + i % 13,
            "spend": 2.5e-6 * (400 + 7 * (i % 31)) + 1e-5 * (100 + i % 13), "model": "gpt-4o", "status": "success",
        }
        for i in range(480)
    ]  # fmt: skip
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def test_a_log_becomes_a_scenario_that_loads_and_runs(spend, tmp_path):
    out = tmp_path / "mine.yaml"
    assert "1 agents, 1 models" in ran("import", spend, "-o", out)
    said = ran("run", out, "--data", tmp_path, "--out", tmp_path / "run", "--replications", "2")
    assert "launched ............. 480" in said
    with pytest.raises(GlowsimError, match="exists"):
        ran("import", spend, "-o", out)
    with pytest.raises(GlowsimError, match="choose from replay"):
        ran("import", spend, "-o", tmp_path / "b.yaml", "--how", "rply")


def test_a_backtest_says_how_far_off_it_was(spend, tmp_path):
    found = json.loads(ran("backtest", spend, "--out", tmp_path / "b", "--replications", "2", "--json"))
    costs = [line for line in found["figures"] if line["figure"].startswith("cost")]
    assert {line["word"] for line in costs} == {"within 1 %"}
    assert (tmp_path / "b" / "backtest.html").is_file()
