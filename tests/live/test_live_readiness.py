"""What `/readyz` says to a load balancer: no while no agent can be served, yes as soon as any can."""

from __future__ import annotations

import asyncio
import json

import pytest
from loopback import answering

from glowsim.core.protocols import Wanted
from glowsim.core.snapshot import Stateful
from glowsim.core.types import Code, InstanceChanged, Reason, State
from glowsim.scenario import load

DEADLINE_S = 40.0


def scenario(**urls):
    """Return agents, each of one instance at a URL."""
    fleet = [
        {
            "agent": name, "model": "m", "instances": 1, "concurrency": 1,
            "service": {"law": "time", "time": "1ms"},
        }
        for name in urls
    ]  # fmt: skip
    agents = {name: {"adapter": "http_json", "urls": [url]} for name, url in urls.items()}
    said = {
        "title": "t", "question": "q", "seed": 1, "duration": "10s", "fleet": fleet, "live": {"agents": agents},
        "models": {"m": {"input": "$1/1M", "output": "$2/1M"}},
        "workload": [{"kind": "poisson", "rate": "1/s", "agents": "all", "tokens_in": 10, "tokens_out": 5}],
    }  # fmt: skip
    return load(json.dumps(said, indent=1))


@pytest.mark.usefixtures("_serving")
def test_a_gateway_is_ready_when_the_first_agent_is_and_one_that_stays_dead_does_not_change_that(
    tmp_path, unused_port
):
    import aiohttp
    from aiohttp import web

    from glowsim.live.daemon import serving
    from glowsim.live.settings import settings

    async def fine(request):
        return web.json_response({"output": "fine"})

    async def main():
        chosen = settings(environment={}, journal_path=tmp_path / "j", port=0, admin_port=0, grace_s=2.0)
        fleet = scenario(late=f"http://127.0.0.1:{unused_port}", dead="http://127.0.0.1:1")
        async with (
            asyncio.timeout(DEADLINE_S),
            serving(fleet, chosen) as daemon,
            aiohttp.ClientSession(daemon.address) as session,
        ):

            async def ready():
                async with session.get("/readyz") as response:
                    return response.status, await response.json()

            assert await ready() == (
                503,
                {"ready": False, "reason": "no instance is ready of any of 2 agents"},
            )
            async with answering(fine, port=unused_port):
                while (await ready())[0] != 200:
                    await asyncio.sleep(0)
                assert (await ready())[1] == {"ready": True, "reason": ""}
            await daemon.driver.close(1.0)
            assert await ready() == (503, {"ready": False, "reason": "it is stopping"})

    asyncio.run(main())


class Wants(Stateful):
    """Scaler: none, until asked again."""

    def decide(self, t_s, load):
        return Wanted(0, Reason(Code.LOAD_LOW), t_s + 1e6)


class Starts:
    def __init__(self):
        self.up = asyncio.Event()

    async def start(self, instance):
        await self.up.wait()
        return lambda call: None

    async def stop(self, instance):
        pass


def test_an_agent_at_zero_is_served_if_its_scaler_can_start_one(live):
    async def main():
        starts = Starts()
        scaled, bare, fixed = (
            live.Stage(scaler=Wants, scalers={0: starts}),
            live.Stage(scalers={0: starts}),
            live.Stage(scaler=Wants),
        )
        assert [each.driver.servable(0) for each in (scaled, bare, fixed)] == [True, False, False]
        number = scaled.driver.start(0)
        assert not scaled.driver.servable(0), "its instance is starting"
        starts.up.set()
        await asyncio.sleep(1.0)
        assert [each.state for each in scaled.said(InstanceChanged)] == [State.STARTING, State.READY]
        assert scaled.driver.servable(0)
        scaled.driver.lost(number)
        assert scaled.driver.servable(0)
        scaled.driver.plane.pools[0].sizing.pause()
        assert not scaled.driver.servable(0), "an operator holds its size"

    live.jump(main)
