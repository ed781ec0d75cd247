"""Agents on the same model servers: the burst of one slows the other, unless something keeps it from that."""

from __future__ import annotations

from pathlib import Path

import pytest

from glowsim.experiment.run import run
from glowsim.report.servers import model_servers
from glowsim.resources import resource
from glowsim.scenario import load
from glowsim.summary import render

AT_ONCE = ("fleet.audit.concurrency=200", "fleet.audit.slots=200")
NO_BATCH = ("workload.1.steps.1.rate=0/s",)
OWN_SERVERS = (
    "servers.other={engine: batch, preset: llama-3.1-8b-h100-tp1, replicas: 2}",
    "models.other={input: $0/1M, output: $0/1M, server: other}",
    "fleet.audit.model=other",
)

FLOOD = (
    *AT_ONCE,
    "duration=4m",
    "drain=5m",
    "workload.1.steps.1={at: 1s, rate: 4/s}",
    "workload.1.steps.2.at=239s",
)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    done = {}

    def once(*overrides):
        if overrides not in done:
            scenario = load(resource("scenarios", "shared_servers.yaml"), overrides)
            folder = tmp_path_factory.mktemp("shared") / "run"
            done[overrides] = run(scenario, "shared_servers", folder, replications=1).summary
        return done[overrides]

    return once


def p95_s(summary):
    return summary["agents"]["tax"]["latency_s_p95"]


def test_the_batch_slows_whom_it_has_nothing_to_do_with(ran):
    assert p95_s(ran()) < 7.0
    assert p95_s(ran(*AT_ONCE)) > 3.0 * p95_s(ran())


def test_on_servers_of_its_own_it_slows_nobody(ran):
    assert p95_s(ran(*OWN_SERVERS, *AT_ONCE)) == p95_s(ran(*NO_BATCH)) < p95_s(ran())


def test_the_servers_did_what_the_agents_were_billed_for(ran):
    did = ran()["servers"]["llama"]
    metrics = ran()["metrics"]
    assert did["failed"] == 0
    assert did["tokens_cached"] > 0.5 * did["tokens_in"], "sessions find what they said before"
    parts = ran()["cost_parts_usd"]
    assert parts["servers"] == pytest.approx(metrics["cost_usd"]["value"], rel=1e-9)
    hours = metrics["cost_usd"]["value"] / (2 * 4.02)
    assert 25 / 60 <= hours <= 30 / 60, "two replicas, from the start to the last answer"


def test_a_formula_says_whether_the_replicas_keep_up_with_what_they_are_offered(ran):
    calm = ran()["servers"]["llama"]
    assert calm["load"] == "keeps up"
    assert calm["offered_per_s"] == pytest.approx(calm["calls"] / 1500.0)
    flood = ran(*FLOOD)["servers"]["llama"]
    assert flood["load"] == "saturated"
    assert flood["offered_per_s"] > 1.07 * flood["sustainable_per_s"]


def test_the_run_and_its_report_say_when_servers_are_saturated(ran):
    summary = ran(*FLOOD)
    (line,) = (line for line in render(summary, Path("run"), 1.0).splitlines() if "sustainable" in line)
    assert line.split()[0] == "llama"
    assert "saturated" in line
    assert "sustainable" not in render(ran(), Path("run"), 1.0)
    (shown,) = model_servers(load(resource("scenarios", "shared_servers.yaml"), FLOOD), summary)
    assert "'saturated'" in repr(shown)
