"""Certificates: what earns one, what the daemon asks of it, and when live traffic is no longer what earned it."""

from __future__ import annotations

import asyncio
import json
from math import inf

import numpy as np
import pytest
from loopback import answering
from typer.testing import CliRunner

from glowsim import build
from glowsim.certification.certificate import (
    Certificate,
    CertificateError,
    blocks,
    check,
    of_run,
    path_beside,
    read,
    write,
)  # fmt: skip
from glowsim.certification.envelope import BLOCK, FIGURES, Bounds, EnvelopeError, Watch, figures_of, widest
from glowsim.cli import app
from glowsim.core.types import Command
from glowsim.results import ENDINGS, fold
from glowsim.scenario import load

TEXT = """
title: A small fleet
question: Does it hold?
seed: 3
duration: 60s
models:
  m: {input: $1/1M, output: $2/1M}
fleet:
  - agent: tax
    model: m
    instances: 2
    concurrency: 4
    timeout: 1500ms
    service: {law: tokens, base: 50ms, input: 10us/token, output: 5ms/token, slowdown: 0.1}
    failures: {error: 5%}
  - agent: sorry
    model: m
    instances: 1
    concurrency: 2
    service: {law: time, time: 100ms}
    failures: {error: 50%}
    controllers: {ladder: {use: ladder, steps: [apology]}, retrier: {use: backoff, attempts: 1}}
workload:
  - {kind: poisson, rate: 20/s, agents: all, tokens_in: {law: exponential, mean: 300},
     tokens_out: {law: exponential, mean: 40}, users: 5, cacheable: {share: 30%, keys: 20}}
controllers:
  cache: {use: lru, entries: 100, ttl: 10s}
  limiter: {use: token_bucket, rate: 14/s, burst: 5}
slos:
  - {name: errors, metric: error_rate, max: 90%}
"""


def told(recording):
    """Yield every event of a journal with the commands that answered it."""
    event, commands = None, []
    for record in recording.records():
        if isinstance(record, Command):
            commands.append(record)
        elif type(record).__name__ != "Effected":
            if event is not None:
                yield event, commands
            event, commands = record, []
    yield event, commands


def seen(recording, envelope):
    """Return figure -> the values that a watch held against an envelope that nothing is within."""
    left = {name: [] for name in FIGURES}
    watch = Watch(envelope, lambda t_s, name, value, bounds: left[name].append(value))
    for event, commands in told(recording):
        watch.saw(event, commands)
    return left


def simulated(text=TEXT):
    scenario = load(text)
    ran = build.replication(scenario, 0)
    ran.world.start()
    ran.world.run(scenario.duration_s + scenario.drain_s)
    recording = ran.journal.recording()
    table = dict(fold(recording, scenario).requests)
    from glowsim.core.reasons import Code

    table["ending"] = np.array(ENDINGS)[table["ending"]]
    table["how"] = np.array([Code(i).name.lower() if i in list(Code) else "" for i in range(256)])[
        table["how"]
    ]
    return recording, table


def test_a_watch_sees_in_events_what_a_certificate_was_made_of_from_tables():
    recording, table = simulated()
    endings = set(table["ending"].tolist())
    assert {"answered", "rejected", "failed"} <= endings
    assert {"own", "cached", "apology"} <= set(table["how"].tolist())
    nothing = {name: Bounds(inf, -inf) for name in FIGURES}
    live, tables = seen(recording, nothing), figures_of(table)
    assert len(tables["rate_per_s"]) == len(table["t_arrive_s"]) // BLOCK > 5
    for name in FIGURES:
        assert live[name] == pytest.approx(tables[name][: len(live[name])], rel=1e-12), name
        assert len(live[name]) == len(tables[name]), name


def test_traffic_like_that_of_the_replications_stays_within_and_other_traffic_leaves():
    envelope = widest(
        [figures_of(simulated(TEXT.replace("seed: 3", f"seed: {seed}"))[1]) for seed in range(5)]
    )
    same, _ = simulated(TEXT.replace("seed: 3", "seed: 99"))
    assert {name: values for name, values in seen(same, envelope).items() if values} == {}
    for change, figure in [
        (("rate: 20/s", "rate: 60/s"), "rate_per_s"),
        (("mean: 300", "mean: 900"), "tokens_in"),
        (("mean: 300", "mean: 100"), "tokens_in"),
        (("mean: 40", "mean: 100"), "tokens_out"),
        (("error: 50%", "error: 100%"), "error_share"),
        (("law: time, time: 100ms", "law: time, time: 800ms"), "latency_s_p95"),
    ]:
        assert change[0] in TEXT
        other, _ = simulated(TEXT.replace(*change))
        assert seen(other, envelope)[figure], change


def test_replications_without_a_block_are_one_and_those_without_requests_none():
    few = {
        "t_arrive_s": [0.0, 2.0], "t_end_s": [1.0, np.nan], "tokens_in": [10, 30], "tokens_out": [5, 0],
        "ending": ["answered", "open"], "how": ["own", "own"],
    }  # fmt: skip
    assert figures_of(few) == {
        "rate_per_s": [0.5], "tokens_in": [20.0], "tokens_out": [5.0], "latency_s_p95": [1.0], "error_share": [0.0],
    }  # fmt: skip
    with pytest.raises(EnvelopeError, match="fewer than two requests"):
        figures_of({name: column[:1] for name, column in few.items()})
    assert widest([{"error_share": [0.0]}]) == {"error_share": Bounds(0.0, 0.01)}


# --- what earns one, and what is asked of it ----------------------------------------------------------


def made(scenario, **changed):
    summary = {"name": "fleet", "replications": 5, "verdict": "met", "slos": [LEVEL]} | changed
    return of_run(scenario, summary, {"tokens_in": Bounds(90.0, 110.0)}, "2026-01-01T00:00:00+00:00")


LEVEL = {"name": "errors", "metric": "error_rate", "value": 0.0, "low": 0.0, "high": 0.1, "verdict": "met"}


def test_only_levels_that_are_met_earn_one():
    scenario = load(TEXT)
    with pytest.raises(CertificateError, match="no service levels"):
        made(scenario, slos=[])
    for verdict in ("not met", "undecided"):
        with pytest.raises(CertificateError, match=f"errors: {verdict}"):
            made(scenario, slos=[LEVEL | {"verdict": verdict}])
    assert made(scenario).blocks == blocks(scenario)


def test_it_is_for_controllers_as_they_are_written_whoever_they_decide_for():
    scenario = load(TEXT)
    certificate = made(scenario)
    check(certificate, scenario, ["tax", "sorry"])
    renamed = load(TEXT.replace("agent: tax", "agent: vat").replace("instances: 2", "instances: 7"))
    check(certificate, renamed, ["vat"])
    changed = load(TEXT.replace("burst: 5", "burst: 6"))
    with pytest.raises(CertificateError, match="not for the controllers of tax: they were changed"):
        check(certificate, changed, ["tax"])
    with pytest.raises(CertificateError, match="of tax, sorry"):
        check(certificate, changed, ["tax", "sorry"])


def test_another_version_and_a_lapse_ask_for_another():
    scenario = load(TEXT)
    certificate = made(scenario)
    with pytest.raises(CertificateError, match=r"by glowsim 0\.0\.1, and this is"):
        check(certificate.model_copy(update={"version": "0.0.1"}), scenario, ["tax"])
    lapse = {"when": "2026-02-01", "figure": "tokens_in", "value": 300.0, "low": 90.0, "high": 110.0}
    lapsed = Certificate.model_validate(certificate.model_dump() | {"lapse": lapse})
    with pytest.raises(CertificateError, match="lapsed on 2026-02-01: mean tokens of an input was 300"):
        check(lapsed, scenario, ["tax"])


def test_code_beside_the_scenario_is_part_of_what_is_certified(tmp_path, monkeypatch):
    source = tmp_path / "our_balancing.py"
    source.write_text("from controllers.balancing.round_robin import RoundRobin as Ours\n")
    monkeypatch.syspath_prepend(tmp_path)
    text = TEXT.replace(
        "controllers:\n  cache", "controllers:\n  balancer: {use: our_balancing:Ours}\n  cache"
    )
    scenario = load(text, allow_plugins=True)
    before = blocks(scenario)
    source.write_text(source.read_text() + "# changed\n")
    assert blocks(scenario)["tax"] != before["tax"]


def test_files_are_read_back_and_what_is_none_is_refused(tmp_path):
    path = path_beside(tmp_path / "fleet.yaml")
    certificate = made(load(TEXT))
    write(certificate, path)
    assert read(path) == certificate
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
    said = json.loads(path.read_text())
    for text, why in [
        ("{", "Invalid JSON"),
        ("[1]", "no certificate"),
        (json.dumps(said | {"glowsim_certificate": 2}), "glowsim_certificate"),
        (json.dumps(said | {"envelope": {"colour": [0, 1]}}), "colour"),
        ("x" * 2_000_000, "longer than"),
    ]:
        path.write_text(text)
        with pytest.raises(CertificateError, match=why):
            read(path)
    path.unlink()
    with pytest.raises(CertificateError, match="there is no certificate at"):
        read(path)


# --- by the command, and in front of real agents -------------------------------------------------------


def certify(tmp_path, text):
    file = tmp_path / "fleet.yaml"
    file.write_text(text)
    arguments = ["certify", str(file), "--replications", "3", "--run-dir", str(tmp_path / "run")]
    return file, CliRunner().invoke(app, arguments)


@pytest.mark.usefixtures("_serving")
def test_the_command_writes_what_the_daemon_asks_for_and_traffic_that_is_other_lapses_it(tmp_path):
    from aiohttp import ClientSession, web

    from glowsim.live.daemon import serving
    from glowsim.live.settings import settings

    file, ran = certify(tmp_path, TEXT)
    assert ran.exit_code == 0, ran.output
    assert "certified: " in ran.output
    certificate = path_beside(file)

    async def answer(request):
        return web.json_response({"output": "fine", "usage": {"tokens_in": 300, "tokens_out": 40}})

    async def main():
        async with answering(answer) as url:
            await goes_on(f"{url}/")

    async def goes_on(url):
        scenario = load(file)

        def serve(which, scenario=scenario):
            chosen = settings(
                environment={}, journal_path=tmp_path / "fleet.journal", port=0, admin_port=0, grace_s=2.0,
                upstreams={"tax": [url]},
            )  # fmt: skip
            return serving(scenario, chosen, certificate=which)

        async def status(daemon, session):
            async with session.get(f"{daemon.admin_address}/state") as response:
                return (await response.json())["certificate"]

        changed = load(TEXT.replace("burst: 5", "burst: 6"))
        with pytest.raises(CertificateError, match=r"(?s)not for the controllers of tax.*--unvalidated"):
            async with serve(certificate, changed):
                pass
        with pytest.raises(CertificateError, match="there is no certificate"):
            async with serve(tmp_path / "nowhere.json"):
                pass
        assert not (tmp_path / "fleet.journal").exists(), "nothing is begun"
        async with serve(certificate) as daemon, ClientSession() as session:
            assert (await status(daemon, session))["status"] == "valid"
            url_of_tasks = f"{daemon.address}/v1/agents/tax/tasks"
            for _ in range(BLOCK):  # inputs of one token: what was certified has about 300
                async with session.post(url_of_tasks, json={"input": "hi"}) as response:
                    await response.read()
            said = await status(daemon, session)
            assert (said["status"], said["lapse"]["figure"]) == ("lapsed", "tokens_in")
            async with session.get(f"{daemon.admin_address}/v1/dashboard") as response:
                assert (await response.json())["certificate"] == said
        with pytest.raises(CertificateError, match="the certificate lapsed on"):
            async with serve(certificate):
                pass
        async with serve(None) as daemon, ClientSession() as session:
            assert await status(daemon, session) == {"status": "none"}

    asyncio.run(main())


def test_a_level_that_is_not_met_leaves_no_certificate(tmp_path):
    file, ran = certify(tmp_path, TEXT.replace("max: 90%", "max: 1%"))
    assert ran.exit_code != 0
    assert isinstance(ran.exception, CertificateError)
    assert "errors: not met" in str(ran.exception)
    assert not path_beside(file).exists()
