"""The daemon beside the traffic: its pages, its envelope, its command, and that it has no data plane."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest
from typer.testing import CliRunner

import glowsim
from glowsim.certification.certificate import Certificate, blocks, write
from glowsim.certification.certificate import read as read_certificate
from glowsim.cli import app
from glowsim.live.advice import daemon as module
from glowsim.live.settings import settings

CONTROLLERS = {
    "limiter": {"use": "token_bucket", "rate": "1/s", "burst": 1},
    "queue": {"use": "fifo"},
    "balancer": {"use": "round_robin"},
}


def fetched(here, *paths, method="GET", headers=None, **given):
    """Return (status, body) of each path, when the log as it stands was read."""

    async def main():
        here.now_s = 200.0
        async with here.advisor(**given) as advice, aiohttp.ClientSession() as session:
            advice.listener.look()
            found = []
            for path in paths:
                async with session.request(method, advice.admin_address + path, headers=headers) as answer:
                    found.append((answer.status, await answer.text()))
            return found

    return asyncio.run(main())


@pytest.fixture
def over_limit(beside):
    here = beside.place(beside.fleet(CONTROLLERS))
    here.write(*beside.steady(2.0, 0.5, until_s=10.0))
    return here


def test_recommendations_are_shown_with_reason_time_and_evidence(over_limit):
    (status, body), *_ = fetched(over_limit, "/v1/recommendations")
    said = json.loads(body)
    (only,) = said["recommendations"]
    assert status == 200
    assert (only["agent"], only["kind"], only["advice"], only["over"]) == (
        "tax",
        "refuse",
        "turn requests away",
        None,
    )
    assert only["since"] == "2026-11-22T12:00:00Z"
    assert only["times"] > 5
    assert only["why"].startswith("over its limit")
    assert only["evidence"]["tokens_in"] == 100
    heard = said["heard"]
    assert (heard["rows"]["calls"], heard["rows"]["told"], heard["format"]) == (20, 20, "csv")
    assert heard["not_advised"] == ["balancer", "queue"]


def test_metrics_count_recommendations_and_rows(over_limit):
    (_, body), *_ = fetched(over_limit, "/metrics")
    for line in (
        'glowsim_recommendations_total{agent="tax",kind="refuse"} 1',
        'glowsim_recommendations_standing{agent="tax",kind="refuse"} 1',
        'glowsim_advice_rows_total{result="told"} 20',
        'glowsim_requests_total{agent="tax",model="small",outcome="answered"} 20',
        'glowsim_ready_replicas{agent="tax"} 2',
        "glowsim_advice_behind_seconds 60.0",
    ):
        assert line in body.splitlines()
    names = [line.split()[2] for line in body.splitlines() if line.startswith("# TYPE")]
    assert len(names) == len(set(names))


def test_the_wanted_size_is_a_metric(beside):
    here = beside.place(beside.fleet({"scaler": {"use": "hpa", "min_instances": 1, "max_instances": 9}}))
    here.write(*beside.steady(10.0, 2.0, until_s=130.0))
    (_, body), (_, page) = fetched(here, "/metrics", "/v1/dashboard")
    # 20 in 8 places ask for 8, and it never more than adds four to two at once
    assert 'glowsim_desired_replicas{agent="tax"} 6' in body.splitlines()
    document = json.loads(page)
    assert document["source"] == "advice"
    assert document["decisions"][0]["before"] == 2
    tax = next(each for each in document["agents"] if each["name"] == "tax")
    assert tax["instances"]["ready"] == 2


def test_pages_are_read_only_and_there_is_no_data_plane(over_limit, monkeypatch):
    listened = []
    real = module.listening
    monkeypatch.setattr(module, "listening", lambda *where: listened.append(where) or real(*where))
    paths = ("/v1/recommendations", "/metrics", "/state", "/v1/dashboard")
    for method in ("POST", "PUT", "DELETE"):
        assert {status for status, _ in fetched(over_limit, *paths, method=method)} == {405}
    found = fetched(
        over_limit, "/v1/chat/completions", "/v1/agents", "/v1/agents/tax/scaling", "/v1/feedback"
    )
    assert {status for status, _ in found} == {404}
    assert listened == [("127.0.0.1", 0)] * 4  # the admin's port, of four daemons


def test_the_admin_is_asked_for_the_token(over_limit):
    token = "0123456789abcdef"
    given = settings(
        admin_port=0, journal_path=over_limit.journal, tokens=True, environment={"GLOWSIM_ADMIN_TOKEN": token}
    )
    paths = ("/v1/recommendations", "/metrics", "/state", "/v1/dashboard")
    assert {status for status, _ in fetched(over_limit, *paths, chosen=given)} == {401}
    shown = fetched(over_limit, *paths, chosen=given, headers={"Authorization": f"Bearer {token}"})
    assert {status for status, _ in shown} == {200}
    rebound = fetched(over_limit, *paths, headers={"Host": "evil.example"})
    assert {status for status, _ in rebound} == {403}


@pytest.mark.parametrize("limit", ["0", "-1", "x", "10000", "9" * 50])
def test_a_limit_out_of_bounds_is_refused(over_limit, limit):
    ((status, body),) = fetched(over_limit, f"/v1/recommendations?limit={limit}")
    assert status == 400
    assert "1 to 1000" in body


def certificate_for(here, path, **envelope):
    """Write a certificate for a scenario's controllers as they are, earned on the given envelope."""
    made = Certificate.model_construct(
        glowsim_certificate=1, made="2026-11-01T00:00:00+00:00", version=glowsim.__version__, scenario="fleet",
        digest="0" * 32, seed=1, replications=20, verdict="met", levels=(), blocks=blocks(here.scenario),
        envelope=envelope, lapse=None,
    )  # fmt: skip
    write(made, path)


def test_traffic_that_leaves_the_envelope_is_said_and_the_certificate_left_alone(beside, standing):
    here = beside.place(beside.fleet())
    path = here.folder / "fleet.certificate.json"
    certificate_for(here, path, tokens_in=(90.0, 110.0), latency_s_p95=(0.0, 1.0))
    before = path.read_bytes()
    read_certificate(path)
    here.write(*beside.steady(10.0, 2.0, until_s=30.0))
    found = here.advise(until_s=200.0, certificate=path)
    assert [(each.kind, each.times, each.why) for each in found] == [
        ("envelope", 3, "2 in a block of 100 requests, certified on 0 to 1")
    ]
    assert path.read_bytes() == before


def test_nobody_needs_to_read_the_lines(over_limit, monkeypatch):
    def gone(*said, **given):
        raise BrokenPipeError("nobody reads")

    monkeypatch.setattr(module, "print", gone, raising=False)
    (found,) = over_limit.advise(until_s=200.0)
    assert found.times > 5


def test_a_certificate_for_other_controllers_is_no_measure(beside):
    here = beside.place(beside.fleet(CONTROLLERS))
    path = here.folder / "fleet.certificate.json"
    certificate_for(beside.place(beside.fleet()), path, tokens_in=(1.0, 2.0))
    here.write(*beside.steady(10.0, 2.0, until_s=30.0))
    ((_, body),) = fetched(here, "/v1/recommendations", certificate=path)
    said = json.loads(body)
    assert "not for the controllers" in said["heard"]["envelope"]
    assert {each["kind"] for each in said["recommendations"]} == {"refuse"}


SCENARIO = """
title: Beside
question: What would its controllers do?
seed: 1
duration: 60s
models: {small: {input: $1/1M, output: $2/1M}}
fleet: [{agent: tax, model: small, instances: 2, concurrency: 4, service: {law: time, time: 1s}}]
controllers: {limiter: {use: token_bucket, rate: 1/s, burst: 1}}
workload: [{kind: poisson, agents: tax, rate: 1/s, tokens_in: 9, tokens_out: 9, max_tokens_out: 9}]
"""


def test_the_command_prints_recommendations_and_its_journal_replays(tmp_path, beside):
    scenario, log, journal = tmp_path / "fleet.yaml", tmp_path / "log.jsonl", tmp_path / "advise.glow"
    scenario.write_text(SCENARIO)
    written = "".join(beside.steady(2.0, 0.5, since_s=-1e6, until_s=-1e6 + 10.0))
    log.write_text(written)
    command = [sys.executable, "-m", "glowsim", "serve", str(scenario), "--advise", "--log", str(log),
               "--journal", str(journal), "--admin-port", "0"]  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GLOWSIM_")}
    daemon = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert daemon.stdout is not None
        lines = [daemon.stdout.readline() for _ in range(2)]
        daemon.send_signal(signal.SIGTERM)
        rest = daemon.communicate(timeout=60)[0]
    finally:
        daemon.kill()
        daemon.wait()
    assert daemon.returncode == 0
    text = "".join([*lines, rest])
    assert re.search(r"^glowsim advises \(admin http://127\.0\.0\.1:\d+\)$", text, re.MULTILINE)
    assert re.search(r"^\S+Z tax: turn requests away: over its limit", text, re.MULTILINE)
    replayed = CliRunner().invoke(app, ["replay", str(journal), "--scenario", str(scenario)])
    assert replayed.exit_code == 0, replayed.output
    assert "every command equal" in replayed.output
    left = {"fleet.yaml", "log.jsonl", "advise.glow", "advise.glow.db", "advise.glow.db.lock"}
    assert {path.name for path in tmp_path.iterdir()} == left
    assert log.read_text() == written


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--advise"], "nothing to listen to"),
        (["--advise", "--log", "nothing.jsonl"], "cannot be read"),
        (["--advise", "--metrics", "http://a/metrics"], "write AGENT=URL"),
        (["--advise", "--log", "x", "--upstream", "tax=http://a"], "carries no traffic"),
        (["--log", "x"], "are for --advise"),
    ],
)
def test_what_does_not_go_together_is_said(tmp_path, options, why, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("fleet.yaml").write_text(SCENARIO)
    done = CliRunner().invoke(app, ["serve", "fleet.yaml", "--admin-port", "0", *options])
    assert done.exit_code != 0
    assert why in f"{done.output} {done.exception}"
    assert not list(tmp_path.glob("*.glow"))
