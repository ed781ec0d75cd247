"""``glowsim load`` as its users meet it: exit codes, the folder on disk, the daemon behind it."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter

import numpy as np
import pytest

from glowsim import results
from glowsim.core.errors import GlowsimError
from glowsim.core.reasons import Code
from glowsim.scenario import load as load_scenario

TEXT = """
title: a load
question: Does it hold?
seed: 3
duration: 400ms
drain: 10s
models:
  m: {input: $1/1M, output: $2/1M}
fleet:
  - {agent: tax, model: m, instances: 4, concurrency: 8, timeout: 10s, service: {law: time, time: 1ms}}
  - {agent: law, model: m, instances: 4, concurrency: 8, timeout: 10s, service: {law: time, time: 1ms}}
workload:
  - {kind: poisson, rate: 60/s, tokens_in: 100, tokens_out: 10}
  - {kind: closed, users: 3, think: 50ms, tokens_in: 50, tokens_out: 10, stream: true}
slos:
  - {name: answered, metric: success_rate, min: 50%}
  - {name: fast, metric: latency_s_p95, max: 9s}
"""


@pytest.fixture
def scenario(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "tiny.yaml"
    path.write_text(TEXT)
    return path


@pytest.fixture
def command(monkeypatch, capsys, scenario):
    """Run ``glowsim load tiny.yaml ...`` in this process; return exit code, stdout, stderr."""
    from glowsim.cli import main

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["glowsim", "load", str(scenario), *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return ended.value.code, said.out, said.err

    return run


async def chats(request):
    """Answer as OpenAI does, usage included."""
    from aiohttp import web

    asked = await request.json()
    usage = {
        "prompt_tokens": len(asked["messages"][0]["content"]) // 4, "completion_tokens": 6,
        "prompt_tokens_details": {"cached_tokens": 20},
    }  # fmt: skip
    if not asked["stream"]:
        return web.json_response({"choices": [{"message": {"content": "fine"}}], "usage": usage})
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for event in ({"choices": [{"delta": {"content": "fine"}}]}, {"choices": [], "usage": usage}):
        await response.write(f"data: {json.dumps(event)}\n\n".encode())
    await response.write(b"data: [DONE]\n\n")
    return response


async def fails(request):
    from aiohttp import web

    return web.Response(status=500)


def test_levels_that_are_met_end_with_0_and_a_whole_run(http, command, tmp_path):
    with http.elsewhere(chats) as address:
        code, out, err = command("--target", address, "--replications", "2", "--out", "r")
    assert (code, err) == (0, "")
    assert f"measured at {address}, --api chat" in out
    assert "verdict: met" in out
    assert "sent late by" in out
    run = results.load("r")
    assert not (tmp_path / "r.partial").exists()
    assert (tmp_path / "r" / "report.html").is_file()
    assert set(run.requests["replication"]) == {0, 1}
    assert set(run.requests["agent"]) == {"tax", "law"}
    assert set(run.requests["outcome"]) == {"ok"}
    cached_usd = 20 * load_scenario(TEXT).models["m"].cached_input_usd_per_token
    fresh_usd = (run.attempts["tokens_in"] - 20) * 1e-6
    assert run.requests["cost_usd"].sum() == pytest.approx((fresh_usd + cached_usd + 6 * 2e-6).sum())
    streamed = run.requests["t_first_token_s"].notna()
    assert 0 < streamed.sum() < len(streamed)
    metrics = run.summary["metrics"]
    for unknown in ("wait_s_mean", "retries", "cache_hit_rate", "degraded_rate"):
        assert metrics[unknown]["value"] is None, "only the target could know"
    assert metrics["cost_usd"]["value"] * 2 == pytest.approx(run.requests["cost_usd"].sum())
    assert run.manifest["measured"] == {"target": address, "api": "chat"}


def test_levels_that_are_not_met_end_with_1(http, command):
    with http.elsewhere(fails) as address:
        code, out, _ = command("--target", address, "--replications", "2", "--out", "r", "--json")
    said = json.loads(out)
    assert (code, said["verdict"], said["success_rate"]) == (1, "not met", 0.0)
    assert said["measured"]["errors"] == {"status 500": said["measured"]["sent"]}


def test_one_run_alone_decides_nothing_and_ends_with_3(http, command):
    with http.elsewhere(chats) as address:
        code, out, _ = command(
            "--target", address, "--out", "r", "--json", "--duration", "200ms", "-s", "fleet=[]"
        )
        assert code == 2
        code, out, _ = command("--target", address, "--out", "r", "--json", "--duration", "200ms")
    said = json.loads(out)
    assert (code, said["verdict"], said["replications"]) == (3, "undecided", 1)
    assert any("sending stopped after" in note for note in said["measured"]["notes"])
    assert results.load("r").requests["t_arrive_s"].max() <= 0.2


def test_bad_input_ends_with_2_says_what_to_do_and_leaves_nothing(
    http, command, unused_port, tmp_path, monkeypatch
):
    target = f"http://127.0.0.1:{unused_port}"
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.setenv("LINE", "s3cret\nX: y")
    for arguments, said in (
        (["--target", target], "nobody takes connections"),
        (["--target", "nowhere"], "write http://HOST:PORT"),
        (["--target", target, "--api", "soap"], "choose chat or tasks"),
        (["--target", target, "--duration", "5"], "--duration"),
        (["--target", target, "--duration", "0s"], "more than 0s"),
        (["--target", target, "--duration", "200ms", "-s", "warmup=300ms"], "warm-up"),
        (["--target", target, "--duration", "99h"], "give no more, or --set duration=356400s"),
        (["--target", target, "--key-env", "NOT_THERE_AT_ALL"], "no such variable"),
        (["--target", target, "--key-env", "EMPTY"], "--key-env"),
        (["--target", target, "--key-env", "LINE"], "--key-env"),
    ):
        code, out, err = command(*arguments, "--out", "r")
        assert (code, out) == (2, "")
        assert said in err
        assert "s3cret" not in err
    assert not list(tmp_path.glob("r*"))


def test_a_key_is_sent_and_never_shown(http, command, tmp_path, monkeypatch):
    monkeypatch.setenv("GATE_KEY", "s3cret-key-0123456789")
    seen = set()

    async def locked(request):
        from aiohttp import web

        seen.add(request.headers["Authorization"])
        return web.Response(status=401)

    with http.elsewhere(locked) as address:
        code, _, err = command("--target", address, "--key-env", "GATE_KEY", "--out", "r")
        assert (code, "--key-env" in err) == (2, True)
        assert not list(tmp_path.glob("r*"))
    with http.elsewhere(chats) as address:
        code, out, more = command("--target", address, "--key-env", "GATE_KEY", "--out", "r")
    assert seen == {"Bearer s3cret-key-0123456789"}
    written = b"".join(path.read_bytes() for path in (tmp_path / "r").iterdir())
    assert b"s3cret" not in written + (out + err + more).encode()


def test_an_interrupted_run_keeps_what_was_measured_and_says_so(http, command):
    asked = []

    async def interrupts(request):
        asked.append(1)
        if len(asked) == 10:
            os.kill(os.getpid(), signal.SIGINT)
        return await chats(request)

    with http.elsewhere(interrupts) as address:
        code, out, _ = command("--target", address, "--out", "r", "-s", "duration=1h")
    assert code == 3
    assert "WARNING: interrupted after" in out
    run = results.load("r")
    assert run.summary["measured"]["interrupted"]
    assert (run.requests["ending"] == "answered").sum() >= 9


def test_a_target_that_goes_away_leaves_the_replications_before(http, command):
    asked, first = [], 6

    async def closes(request):
        from aiohttp import web

        asked.append(1)
        return await chats(request) if len(asked) <= first else web.Response(status=401)

    with http.elsewhere(closes) as address:
        sets = ("-s", "workload.1.users=1", "-s", "workload.0.tasks=5", "-s", "workload.1.tasks=1")
        code, out, _ = command("--target", address, "--replications", "2", "--out", "r", *sets)
    assert (code, "ended after 1 of 2 replications" in out, "--key-env" in out) == (3, True, True)
    assert len(results.load("r").requests) == first < len(asked)


def test_answers_without_usage_have_no_cost(http, command):
    async def silent(request):
        from aiohttp import web

        return web.json_response({"choices": [{"message": {"content": "fine"}}]})

    with http.elsewhere(silent) as address:
        _, out, _ = command("--target", address, "--out", "r", "--json")
    said = json.loads(out)
    assert said["cost_usd"] is None
    assert said["tokens_out"] is None
    assert any("did not say what they used" in note for note in said["measured"]["notes"])


def test_a_bound_that_is_hit_is_reported(http, command):
    with http.elsewhere(chats) as address:
        _, out, _ = command(
            "--target", address, "--out", "r", "--max-in-flight", "1", "-s", "workload.0.rate=1000/s",
            "-s", "workload.0.tasks=200",
        )  # fmt: skip
    assert "requests waited because 1 were in flight: raise --max-in-flight" in out
    run = results.load("r")
    assert run.summary["measured"]["peak_in_flight"] == 1
    assert run.summary["measured"]["held"] > 0


def test_a_service_is_refused_by_name(http, scenario):
    from glowsim.load.run import Load, load

    text = TEXT.replace(
        "workload:", "regions: [home]\nservices: {books: {agents: [tax], failover: 1m}}\nworkload:"
    )
    asked = load_scenario(
        text.replace("{kind: poisson,", "{kind: poisson, agents: books, users_from: {home: 100%},")
    )
    with pytest.raises(GlowsimError, match=r"workload\.0: books is a service.*name the agents \(tax\)"):
        load(asked, "t", scenario.parent / "r", Load("http://127.0.0.1:1"))


def test_a_measured_run_has_no_journal_to_replay(http, command, monkeypatch, capsys):
    from glowsim.cli import main

    with http.elsewhere(chats) as address:
        command("--target", address, "--out", "r")
    for each in ("replay", "check"):
        monkeypatch.setattr("sys.argv", ["glowsim", each, "r"])
        with pytest.raises(SystemExit) as ended:
            main()
        assert (ended.value.code, "no journal" in capsys.readouterr().err) == (2, True)


@pytest.mark.parametrize("api", ["tasks", "chat"])
def test_the_daemon_is_loaded_and_both_agree(http, command, tmp_path, api):
    """Emulated agents behind the gateway: what the client saw is what the gateway's journal says."""
    from glowsim.core.journal import read
    from glowsim.core.types import Answer, Arrived, Finished
    from glowsim.live.daemon import serving
    from glowsim.live.settings import settings

    journal = tmp_path / "serve.glow"
    chosen = settings(environment={}, journal_path=journal, port=0, admin_port=0, grace_s=4.0)
    changed = [
        "workload.0.priority=3",
        "workload.0.deadline=9s",
        "workload.0.cacheable={share: 50%, keys: 2}",
    ]
    loaded = load_scenario(TEXT, ["controllers={cache: {use: lru, entries: 10, ttl: 60s}}"])
    with http.in_thread(lambda: serving(loaded, chosen)) as daemon:
        sets = [part for each in changed for part in ("-s", each)]
        code, out, err = command(
            "--target", daemon.address, "--api", api, "--replications", "2", "--out", "r", *sets
        )
    assert (code, err) == (0, ""), out
    run, recording = results.load("r"), read(journal)
    arrived, finished, answered = (recording.table(kind) for kind in (Arrived, Finished, Answer))
    assert len(run.requests) == len(arrived) == len(answered)
    assert sorted(run.requests["tokens_in"]) == sorted(arrived["tokens_in"])
    assert Counter(run.requests["priority"].tolist()) == Counter(arrived["priority"].tolist())
    deadlines = np.isfinite(arrived["deadline_s"])
    assert deadlines.tolist() == (arrived["priority"] == 3).tolist()
    assert 0 < (arrived["cache_key"][deadlines] != 0).sum() < deadlines.sum()
    assert not arrived["cache_key"][~deadlines].any()
    kept = Counter(Code(code).name.lower() for code in answered["code"].tolist())
    assert kept["cached"] > 0
    if api == "tasks":
        assert Counter(run.requests["how"]) == kept
        assert run.attempts["tokens_out"].sum() == finished["tokens_out"].sum()
        rate = run.summary["metrics"]["cache_hit_rate"]["value"]
        assert 0.0 < rate < 1.0
    else:
        assert run.summary["metrics"]["cache_hit_rate"]["value"] is None, (
            "streams do not say where they came from"
        )
        assert (run.requests["how"] == "cached").sum() == kept["cached"]
    assert np.all(run.requests["latency_s"] >= 0.0)
