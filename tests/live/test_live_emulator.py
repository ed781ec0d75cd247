"""An emulated fleet behind real sockets: what its instances answer, and the daemon in front of it."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager

import pytest

from glowsim.core.journal import read
from glowsim.core.types import Dispatch, Finished, Outcome
from glowsim.scenario import load

pytestmark = pytest.mark.usefixtures("_serving")

TEXT = """
title: Emulated
question: Does it answer?
seed: 1
duration: 10s
models:
  m: {input: $1/1M, output: $2/1M}
fleet:
  - agent: tax
    model: m
    instances: 2
    concurrency: 2
    service: {law: tokens, base: 2ms, input: 1us/token, output: 500us/token, slowdown: 0.1}
  - agent: plain
    model: m
    instances: 1
    concurrency: 1
    service: {law: time, time: 2ms}
  - agent: failing
    model: m
    instances: 1
    concurrency: 1
    failures: {error: 100%}
    service: {law: time, time: 1ms}
  - agent: slow
    model: m
    instances: 1
    concurrency: 1
    service: {law: time, time: 60s}
workload:
  - {kind: poisson, rate: 1/s, agents: all, tokens_in: 100, tokens_out: 20}
"""
ASKED = {"model": "any", "messages": [{"role": "user", "content": "What is due in May?"}], "max_tokens": 7}
CHAT = "/v1/chat/completions"


@asynccontextmanager
async def emulated(agent=None):
    import aiohttp

    from glowsim.live.emulator import emulating

    async with (
        asyncio.timeout(20.0),
        emulating(load(TEXT), agent=agent) as (address, emulator),
        aiohttp.ClientSession(address) as session,
    ):
        yield session, emulator, address


def run(test, agent=None):
    async def main():
        async with emulated(agent) as found:
            await test(*found)

    asyncio.run(main())


async def post(session, path, body):
    async with session.post(path, json=body) as response:
        return response.status, await response.text()


def test_every_instance_has_an_address_of_its_own():
    async def test(session, emulator, address):
        assert emulator.prefixes() == ["/tax/0", "/tax/1", "/plain/0", "/failing/0", "/slow/0"]
        for prefix in emulator.prefixes()[:3]:
            status, said = await post(session, prefix + CHAT, ASKED)
            assert status == 200
            assert len(json.loads(said)["choices"][0]["message"]["content"].split()) == 7
            async with session.get(prefix + "/health") as response:
                assert response.status == 200
        assert (await post(session, "/tax/2" + CHAT, ASKED))[0] == 404
        assert (await post(session, CHAT, ASKED))[0] == 404
        assert (await post(session, "/tax/0/v1/nothing", ASKED))[0] == 404
        async with session.get("/tax/0" + CHAT) as response:
            assert response.status == 405

    run(test)


def test_one_agent_alone_is_a_worker_at_the_root():
    async def test(session, emulator, address):
        assert (await post(session, CHAT, ASKED))[0] == 200
        assert (await post(session, "/run", {"input": "hi"}))[0] == 200

    run(test, agent="tax")
    from glowsim.live.settings import SettingsError

    with pytest.raises(SettingsError, match="there is no agent 'tex'"):
        run(test, agent="tex")


@pytest.mark.parametrize("agent", ["tax", "plain"])
def test_streams_are_whole_in_either_form(agent):
    async def test(session, emulator, address):
        _, said = await post(session, f"/{agent}/0{CHAT}", ASKED | {"stream": True})
        events = [line[6:] for line in said.splitlines() if line.startswith("data: ")]
        assert events[-1] == "[DONE]"
        deltas = [json.loads(each)["choices"] for each in events[:-1]]
        text = "".join(choices[0]["delta"].get("content", "") for choices in deltas if choices)
        assert len(text.split()) == 7
        _, said = await post(session, f"/{agent}/0/run", {"input": "hi", "max_tokens_out": 3, "stream": True})
        *pieces, last = [json.loads(line[6:]) for line in said.splitlines() if line.startswith("data: ")]
        assert len("".join(piece["delta"] for piece in pieces).split()) == 3
        assert last == {"done": True, "usage": {"tokens_in": 1, "tokens_cached": 0, "tokens_out": 3}}

    run(test)


def test_failures_are_the_scenarios_and_bad_bodies_the_clients():
    async def test(session, emulator, address):
        status, said = await post(session, "/failing/0" + CHAT, ASKED)
        assert (status, "as the scenario's failures have it" in said) == (500, True)
        assert (await post(session, "/failing/0/run", {"input": "hi"}))[0] == 500
        assert (await post(session, "/tax/0" + CHAT, {"model": "any"}))[0] == 400
        assert (await post(session, "/tax/0/run", {"output": "hi"}))[0] == 400

    run(test)


def test_its_metrics_are_named_as_vllms_and_say_what_is_inside():
    async def test(session, emulator, address):
        asking = [asyncio.create_task(post(session, "/slow/0/run", {"input": "hi"})) for _ in range(3)]
        for _ in range(1000):
            async with session.get("/slow/0/metrics") as response:
                lines = (await response.text()).splitlines()
            if lines[3].endswith(" 2"):
                break
        assert [line for line in lines if not line.startswith("#")] == [
            'vllm:num_requests_running{model_name="emulated"} 1',
            'vllm:num_requests_waiting{model_name="emulated"} 2',
        ]
        for each in asking:
            each.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        for _ in range(1000):
            async with session.get("/slow/0/metrics") as response:
                if 'running{model_name="emulated"} 0' in await response.text():
                    return
        pytest.fail("who left is still inside")

    run(test)


def test_the_daemon_serves_in_front_of_it_by_the_block_that_it_prints(tmp_path):
    import aiohttp

    from glowsim.live.daemon import serving
    from glowsim.live.emulator import live_block
    from glowsim.live.settings import settings

    async def test(session, emulator, address):
        scenario = load(TEXT + live_block(address, emulator) + "\n")
        path = tmp_path / "fleet.journal"
        chosen = settings(environment={}, journal_path=path, port=0, admin_port=0, grace_s=4.0)
        async with serving(scenario, chosen) as daemon, aiohttp.ClientSession(daemon.address) as front:
            asked = [ASKED | {"model": agent} for agent in ("tax", "tax", "plain")]
            answers = [await post(front, CHAT, each) for each in asked]
            assert [status for status, _ in answers] == [200] * 3
            async with front.get("/v1/agents") as response:
                agents = (await response.json())["agents"]
            assert not any(agent["emulated"] for agent in agents)
        recording = read(path)
        outcomes = {each.outcome for each in recording.records() if isinstance(each, Finished)}
        assert outcomes == {Outcome.OK}
        assert len({each.instance for each in recording.records() if isinstance(each, Dispatch)}) == 3

    run(test)
