"""A simulation in progress on the dashboard's page: nothing in it changes, and its pace is what was wished."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import signal
import subprocess
import sys
from math import inf
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from glowsim import build
from glowsim.cli import app
from glowsim.commands.watch import speed_of
from glowsim.experiment.replicate import replicate
from glowsim.live.dashboard.pace import FRAME_S, Pace
from glowsim.scenario import load

pytestmark = pytest.mark.usefixtures("_serving")

TEXT = """
title: Watched
question: Does it matter who looks?
seed: 5
duration: 10m
drain: 2m
models:
  m: {input: $1/1M, output: $2/1M}
fleet:
  - agent: tax
    model: m
    instances: 2
    concurrency: 2
    startup: {law: exponential, mean: 4s}
    health_check: 7s
    service: {law: time, time: {law: exponential, mean: 900ms}}
    failures: {error: 5%}
workload:
  - {kind: poisson, rate: 4/s, tokens_in: 100, tokens_out: 10}
faults:
  - {kind: crash, agent: tax, at: 100s, lasts: 30s}
controllers:
  scaler: {use: agent_scaler, min_instances: 1, max_instances: 5, look: 5s}
  breaker: {use: consecutive}
  retrier: {use: backoff}
"""
DEADLINE_S = 60.0


# --- the pace, on a clock of its own ----------------------------------------------------------------


def reached(pace, real_s, cost_s, t_s=0.0, now_s=0.0):
    """Return the simulated time after ``real_s`` more, if a simulated second costs ``cost_s``, and the end of that."""
    end_s = now_s + real_s
    while now_s < end_s:
        to_s, wait_s = pace.step(t_s, now_s=now_s)
        if to_s is None:
            assert wait_s > 0.0
            now_s += wait_s
        else:
            assert to_s > t_s
            now_s += max((to_s - t_s) * cost_s, 1e-5)
            t_s = to_s
    return t_s, now_s


@given(speed=st.floats(0.1, 1e5), cost_s=st.floats(1e-7, 1e-2))
@settings(max_examples=60)
def test_simulated_time_keeps_the_speed_that_is_wished_or_that_the_machine_has(speed, cost_s):
    t_s, real_s = reached(Pace(speed), 20.0, cost_s)
    most = min(speed, 1.0 / cost_s)
    assert t_s <= speed * (real_s + FRAME_S)
    # A stretch that costs as much as a frame leaves no time for another one until the next is due.
    assert t_s >= (0.95 if speed * cost_s < 0.4 or speed * cost_s > 2.5 else 0.6) * most * 19.0


def test_as_fast_as_it_goes_is_in_stretches_that_heed_a_wish_soon():
    pace, t_s, now_s, took = Pace(inf), 0.0, 0.0, []
    for _ in range(200):
        to_s, wait_s = pace.step(t_s, now_s=now_s)
        assert (to_s is not None, wait_s) == (True, 0.0)
        took.append((to_s - t_s) * 1e-4)
        now_s, t_s = now_s + took[-1], to_s
    assert max(took) <= 4.0 * FRAME_S
    assert min(took[50:]) >= FRAME_S / 4.0


def test_a_pause_holds_time_and_nothing_is_made_up_for_after_it():
    pace = Pace(10.0)
    t_s, now_s = reached(pace, 2.0, 1e-6)
    pace.paused = True
    held_s, now_s = reached(pace, 100.0, 1e-6, t_s, now_s)
    assert held_s == t_s
    pace.paused = False
    after_s, _ = reached(pace, 2.0, 1e-6, t_s, now_s)
    assert after_s - t_s == pytest.approx(20.0, abs=1.0)


def test_another_speed_holds_from_then_on():
    pace = Pace(10.0)
    t_s, now_s = reached(pace, 2.0, 1e-6)
    pace.speed = 1000.0
    after_s, _ = reached(pace, 2.0, 1e-6, t_s, now_s)
    assert after_s - t_s == pytest.approx(2000.0, abs=100.0)


def test_a_slow_stretch_is_not_made_up_for():
    pace = Pace(10.0)
    t_s, now_s = reached(pace, 2.0, 1e-6)
    t_s, now_s = reached(pace, 20.0, 1.0, t_s, now_s)  # a second a simulated second
    after_s, _ = reached(pace, 2.0, 1e-6, t_s, now_s)
    assert after_s - t_s <= 20.0 + 1.0


@pytest.mark.parametrize("text", ["", "x", "0", "0x", "-1x", "1e3x", "10 x", "fast", "nan", "inf", "1" * 400])
def test_a_speed_that_is_none_is_named_with_its_remedy(text, capsys):
    with pytest.raises(SystemExit) as stopped:
        speed_of(text, 60.0)
    assert stopped.value.code == 2
    assert "10x or 0.5x, or max" in capsys.readouterr().err


@given(st.floats(1e-3, 1e9))
def test_a_run_is_shown_in_about_a_minute_where_nobody_says_otherwise(duration_s):
    speed = speed_of(None, duration_s)
    assert speed >= 1.0
    assert duration_s / speed <= 60.0 * (1 + 1e-9)
    assert speed == 1.0 or duration_s / speed > 60.0 / 2.6


# --- what is simulated ------------------------------------------------------------------------------


@given(stretches=st.lists(st.floats(0.0, 200.0), min_size=1, max_size=8), looks=st.booleans())
@settings(max_examples=15)
def test_in_whatever_stretches_a_world_runs_its_journal_has_the_same_bytes(
    tmp_path_factory, stretches, looks
):
    scenario = load(TEXT, ["duration=60s"])
    folder, seen = tmp_path_factory.mktemp("paced"), []

    def pace(t_s):
        stretches.append(stretches.pop(0))
        return t_s + max(stretches[-1], 0.3)

    def journal(name, *given, watch=None):
        built = build.replication(scenario, 0, journal_path=folder / name, watch=watch)
        built.world.start()
        built.world.run(scenario.duration_s + scenario.drain_s, *given)
        return (folder / name).read_bytes()

    def watch(plane):
        return lambda event, commands: seen.append(plane.pools[0].sizing.load(event.t_s))

    assert journal("paced", None, pace, watch=watch if looks else None) == journal("plain")
    assert bool(seen) == looks


def glowsim(*arguments, cwd):
    return subprocess.Popen(
        [sys.executable, "-m", "glowsim", *arguments], cwd=cwd, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


async def until_judged(address):
    """Return the document with the verdict."""
    import aiohttp

    async with (
        asyncio.timeout(DEADLINE_S),
        aiohttp.ClientSession() as session,
        session.get(address + "/v1/dashboard/events") as response,
    ):
        async for line in response.content:
            if line.startswith(b"data: "):
                document = json.loads(line[6:])
                if document["simulation"]["verdict"] is not None:
                    return document
    raise AssertionError("the stream ended without a verdict")


def test_a_watched_run_is_the_run_and_its_page_stays_until_ctrl_c(tmp_path):
    text = TEXT + "slos:\n  - {name: some, metric: success_rate, min: 1%}\n"
    (tmp_path / "watched.yaml").write_text(text)
    watched = glowsim(
        "run", "watched.yaml", "--watch", "--port", "0", "--speed", "max", "--json", "--out", "watched", cwd=tmp_path
    )  # fmt: skip
    try:
        address = re.search(r"http://127\.0\.0\.1:\d+", watched.stderr.readline())[0]
        document = asyncio.run(until_judged(address))
        watched.send_signal(signal.SIGINT)
        out, err = watched.communicate(timeout=DEADLINE_S)
    finally:
        watched.kill()
        watched.communicate()
    assert watched.returncode == 3, err
    assert "Traceback" not in err
    assert document["source"] == "simulation"
    assert (document["simulation"]["state"], document["simulation"]["verdict"]) == ("ended", "undecided")
    summary = json.loads(out)
    assert (summary["replications"], summary["verdict"]) == (1, "undecided")
    assert document["fleet"]["windows"][2]["arrived"] == summary["launched"]
    (tmp_path / "plain").mkdir()
    plain = replicate(load(text), 0, tmp_path / "plain")
    assert (tmp_path / "watched" / "journal-0.glow").read_bytes() == (
        tmp_path / "plain" / "journal-0.glow"
    ).read_bytes()
    manifest = json.loads((tmp_path / "watched" / "manifest.json").read_text())
    assert manifest["column_digests"] == [plain.digests]


def test_a_run_that_is_interrupted_leaves_nothing(tmp_path):
    (tmp_path / "watched.yaml").write_text(TEXT)
    watched = glowsim("run", "watched.yaml", "--watch", "--port", "0", "--speed", "1x", cwd=tmp_path)
    try:
        address = re.search(r"http://127\.0\.0\.1:\d+", watched.stderr.readline())[0]
        asyncio.run(first_document(address))
        watched.send_signal(signal.SIGINT)
        out, err = watched.communicate(timeout=DEADLINE_S)
    finally:
        watched.kill()
        watched.communicate()
    assert (watched.returncode, out) == (130, "")
    assert "Traceback" not in err
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["watched.yaml"]


async def first_document(address):
    import aiohttp

    async with (
        asyncio.timeout(DEADLINE_S),
        aiohttp.ClientSession() as session,
        session.get(address + "/v1/dashboard") as response,
    ):
        return await response.json()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--speed", "10x"], "are for --watch"),
        (["--port", "0"], "are for --watch"),
        (["--watch", "--replications", "3"], "shows one replication"),
    ],
)
def test_options_that_do_not_go_together(tmp_path, options, said):
    (tmp_path / "watched.yaml").write_text(TEXT)
    done = CliRunner().invoke(
        app, ["run", str(tmp_path / "watched.yaml"), "--out", str(tmp_path / "run"), *options]
    )
    assert done.exit_code == 2
    assert said in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["watched.yaml"]


def test_a_port_that_is_taken_is_named(tmp_path):
    from glowsim.live.settings import SettingsError
    from glowsim.live.sockets import listening

    (tmp_path / "watched.yaml").write_text(TEXT)
    with contextlib.closing(listening("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = CliRunner().invoke(app, ["run", str(tmp_path / "watched.yaml"), "--watch", "--port", port])
    assert isinstance(done.exception, SettingsError)
    assert "give another port, or 0 for any" in str(done.exception)


# --- the pace over HTTP -----------------------------------------------------------------------------


def test_the_pace_is_changed_by_this_machine_only_and_only_while_it_runs(watched):
    async def main():
        import aiohttp

        async with watched(load(TEXT), speed=1.0) as shown, aiohttp.ClientSession() as session:
            url = shown.address + "/v1/simulation"

            async def said(status, **given):
                async with session.post(url, **given) as response:
                    assert response.status == status, await response.text()
                    return (await response.json())["error"]["message"] if status != 204 else None

            await said(403, json={"paused": True}, headers={"Host": "evil.example"})
            # What a page from elsewhere can send without asking first:
            await said(415, data='{"paused": true}', headers={"Content-Type": "text/plain"})
            assert "speed" in await said(400, json={"speed": 0})
            for speed in ("fast", -1, 1e300, [1]):
                await said(400, json={"speed": speed})
            assert "sped" in await said(400, json={"sped": 1})
            await said(413, data=b" " * 70_000, headers={"Content-Type": "application/json"})
            async with session.get(url) as response:
                assert response.status == 405
            for path in ("/v1/dashboard", "/v1/dashboard/events"):
                async with session.get(shown.address + path, headers={"Host": "evil.example"}) as response:
                    assert response.status == 403
            await said(204, json={"paused": True})
            document = await shown.once(lambda its: its["state"] == "paused")
            assert document["simulation"]["speed"] is None
            await said(204, json={"speed": 2.5})
            again = await shown.once(lambda its: its["wished"] == 2.5)
            assert (again["t_s"], again["simulation"]["state"]) == (document["t_s"], "paused")
            await said(204, json={"speed": "max", "paused": False})
            document = await shown.once(lambda its: its["state"] == "ended")
            assert document["t_s"] > 600.0 > again["t_s"]
            assert "has ended" in await said(409, json={"paused": True})

    asyncio.run(main())


def test_the_page_is_the_dashboards_own(watched):
    page = Path(build.__file__).parent / "live" / "dashboard"

    async def main():
        import aiohttp

        async with watched(load(TEXT), speed=1.0) as shown, aiohttp.ClientSession() as session:
            for path, name in (("/", "index.html"), ("/page.js", "page.js"), ("/page.css", "page.css")):
                async with session.get(shown.address + path) as response:
                    assert await response.text() == (page / name).read_text()
                    assert response.headers["Content-Security-Policy"].startswith("default-src 'none'")

    asyncio.run(main())
