"""Instances at fixed URLs that are not there when the daemon comes up: asked until they are, then given work."""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import asynccontextmanager

import pytest
from loopback import answering

from glowsim import build
from glowsim.core.journal import first_difference, read
from glowsim.core.streams import Streams
from glowsim.core.types import Dispatch, InstanceChanged, State
from glowsim.scenario import ScenarioError, load

pytestmark = pytest.mark.usefixtures("_serving")

TEXT = """
title: A fleet that is not there yet
question: Does it take part when it is?
seed: 1
duration: 10s
models:
  m: {{input: $1/1M, output: $2/1M}}
fleet:
  - agent: tax
    model: m
    instances: {instances}
    concurrency: 4
    timeout: 60s
    service: {{law: time, time: 1ms}}
workload:
  - {{kind: poisson, rate: 1/s, agents: all, tokens_in: 100, tokens_out: 20}}
live: {live}
"""
DEADLINE_S = 40.0


def text(**tax):
    return TEXT.format(
        instances=len(tax["urls"]),
        live=json.dumps(
            {
                "probe_timeout": tax.pop("probe_timeout", "5s"),
                "agents": {"tax": {"adapter": "http_json", **tax}},
            }
        ),
    )


@asynccontextmanager
async def daemon(path, scenario):
    """Yield what asks agent tax, and what gets a page of the admin's side."""
    import aiohttp

    from glowsim.live.daemon import serving
    from glowsim.live.settings import settings

    chosen = settings(environment={}, journal_path=path, port=0, admin_port=0, grace_s=2.0)
    async with (
        asyncio.timeout(DEADLINE_S),
        serving(scenario, chosen) as served,
        aiohttp.ClientSession() as session,
    ):

        async def ask():
            async with session.post(
                f"{served.address}/v1/agents/tax/tasks", json={"input": "hello"}
            ) as response:
                return response.status

        async def instances():
            async with session.get(f"{served.admin_address}/v1/agents/tax") as response:
                return [each["state"] for each in (await response.json())["instances"]]

        yield ask, instances


def told(path, scenario, kind):
    recording = read(path)
    fresh = build.control_plane(scenario, Streams(scenario.seed), fall_back=True)
    assert first_difference(recording, fresh) is None
    return [record for record in recording.records() if isinstance(record, kind)]


async def fine(request):
    from aiohttp import web

    return web.json_response({"output": "fine"})


async def until(instances, states):
    while await instances() != states:
        await asyncio.sleep(0)


def test_a_server_that_starts_late_is_taken_in_and_what_waited_is_answered(tmp_path, unused_port, caplog):
    caplog.set_level(logging.WARNING, "glowsim.live.places")
    scenario = load(text(urls=[f"http://user:secret-of-ours@127.0.0.1:{unused_port}"]))

    async def main():
        async with daemon(tmp_path / "j", scenario) as (ask, instances):
            assert await instances() == ["starting"]
            waiting = asyncio.create_task(ask())
            async with answering(fine, port=unused_port):
                assert await waiting == 200
                assert await instances() == ["ready"]
                assert await ask() == 200

    asyncio.run(main())
    states = [each.state for each in told(tmp_path / "j", scenario, InstanceChanged)]
    assert states == [State.STARTING, State.READY]
    gone, there = [record.getMessage() for record in caplog.records]
    assert gone.startswith(f"agent tax: instance 0 at 127.0.0.1:{unused_port} is not there (")
    assert there.startswith(f"agent tax: instance 0 at 127.0.0.1:{unused_port} is there, after ")
    assert "secret" not in gone + there


def test_one_that_is_not_there_gets_none_of_the_others_work(tmp_path, unused_port):
    async def main():
        async with answering(fine) as url:
            scenario = load(text(urls=[f"http://127.0.0.1:{unused_port}", url]))
            async with daemon(tmp_path / "j", scenario) as (ask, instances):
                await until(instances, ["starting", "ready"])
                assert [await ask() for _ in range(10)] == [200] * 10
            return scenario

    scenario = asyncio.run(main())
    assert [each.instance for each in told(tmp_path / "j", scenario, Dispatch)] == [1] * 10


def test_one_whose_health_page_says_no_or_nothing_is_not_there(tmp_path, caplog):
    caplog.set_level(logging.WARNING, "glowsim.live.places")
    well = asyncio.Event()

    async def says_no(request):
        from aiohttp import web

        return web.Response(status=200 if well.is_set() else 503)

    async def says_nothing(request):
        if not well.is_set():
            await asyncio.Event().wait()
        return await fine(request)

    async def main():
        async with answering(says_no) as no, answering(says_nothing) as nothing:
            scenario = load(text(urls=[no, nothing], health="/health", probe_timeout="50ms"))
            async with daemon(tmp_path / "j", scenario) as (_, instances):
                assert await instances() == ["starting", "starting"]
                well.set()
                await until(instances, ["ready", "ready"])

    asyncio.run(main())
    said = [record.getMessage() for record in caplog.records]
    assert sum("(its health page says that it is not well)" in each for each in said) == 1
    assert sum("(it said nothing within 0.05 s)" in each for each in said) == 1


def test_a_daemon_that_stops_before_they_are_there_leaves_nothing_behind(tmp_path, unused_port):
    scenario = load(text(urls=[f"http://127.0.0.1:{unused_port}"]))

    async def main():
        async with daemon(tmp_path / "j", scenario):
            pass
        left = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.sleep(0)
        assert not [task for task in left if not task.done()]

    asyncio.run(main())
    assert [each.state for each in told(tmp_path / "j", scenario, InstanceChanged)] == [State.STARTING]


@pytest.mark.parametrize("said", ["9ms", "301s", "0s", "-1s"])
def test_a_probe_timeout_out_of_bounds_is_refused_where_it_stands(said):
    with pytest.raises(ScenarioError, match=r"live\.probe_timeout"):
        load(text(urls=["http://127.0.0.1:9"], probe_timeout=said))
    assert load(text(urls=["http://127.0.0.1:9"])).live.probe_timeout_s == 5.0
