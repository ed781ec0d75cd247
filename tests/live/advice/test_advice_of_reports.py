"""Load reports beside the traffic: what they say to a scaler, who is gone, and that nothing but a GET is ever sent."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest
from aiohttp import web
from loopback import answering

SCALER = {"use": "agent_scaler", "min_instances": 1, "max_instances": 9, "look": "10s", "cooldown": "1m"}


class Instances:
    """Servers that say how much they have to do, and note who asks for what."""

    def __init__(self):
        self.asked = []
        self.running = 0
        self.waiting = 0
        self.down = set()

    async def start(self, stack, n):
        urls = [await stack.enter_async_context(answering(self._page(number))) for number in range(n)]
        return [f"{url}/metrics" for url in urls]

    def _page(self, number):
        async def page(http):
            self.asked.append((http.method, http.path, await http.read()))
            if number in self.down:
                return web.Response(status=503)
            return web.Response(
                text=f"vllm:num_requests_running {self.running}\nvllm:num_requests_waiting {self.waiting}\n"
            )

        return page


@pytest.fixture
def served(beside):
    """Run ``play(advice, instances, passes)`` beside two instances; ``passes(s)`` polls and looks every 5 s of time."""

    def run(scenario, play, *, log=False, n=2):
        here = beside.place(scenario)
        instances = Instances()

        async def main():
            async with AsyncExitStack() as stack:
                urls = await instances.start(stack, n)
                async with here.advisor(
                    metrics={"tax": urls}, log=log, report_every_s=3600.0, lag_s=0.0
                ) as advice:

                    async def passes(seconds):
                        for _ in range(int(seconds / 5)):
                            here.now_s += 5.0
                            await advice.reports.poll()
                            advice.listener.look()

                    await play(advice, instances, passes)
                    return list(advice.recommendations.newest())[::-1]

        return here, instances, asyncio.run(main())

    return run


def test_the_size_follows_what_instances_report(served, beside, standing):
    async def play(advice, instances, passes):
        instances.running, instances.waiting = 4, 6
        await passes(60)

    here, _, found = served(beside.fleet({"scaler": SCALER}), play)
    # 20 in two instances; 4 places in each, at the target of 0.7: 8 instances.
    assert standing(found) == [("tax", "scale", "have 8 instances, not 2")]
    assert found[0].evidence["load_from"] == "reports"
    assert (found[0].evidence["running"], found[0].evidence["waiting"]) == (8, 12)
    assert here.replayed().proved


def test_an_instance_that_no_longer_reports_is_gone_and_may_come_back(served, beside, standing):
    sizes = []

    async def play(advice, instances, passes):
        instances.running = 3
        for down in ((), (1,), ()):
            instances.down = set(down)
            await passes(60)
            sizes.append(advice.telemetry.load(0, advice.advisor.now_s).ready)

    _, _, found = served(beside.fleet({"scaler": SCALER}), play)
    assert sizes == [2, 1, 2]
    assert [each.kind for each in found] == []


def test_an_instance_that_never_reports_counts_as_there(served, beside):
    async def play(advice, instances, passes):
        instances.down = {0, 1}
        await passes(120)
        assert advice.telemetry.load(0, advice.advisor.now_s).ready == 2

    served(beside.fleet({"scaler": SCALER}), play)


def test_idle_instances_are_too_many(served, beside, standing):
    async def play(advice, instances, passes):
        await passes(10)
        instances.running = 1
        await passes(600)

    _, _, found = served(beside.fleet({"scaler": SCALER}, instances=4), play, n=4)
    assert standing(found) == [("tax", "scale", "have 2 instances, not 4")]  # 4 in 16 places; 4 / 4 / 0.7


def test_upstreams_see_nothing_but_gets_of_their_metrics(served, beside):
    controllers = {"scaler": SCALER, "breaker": {"use": "consecutive", "failures": 1}, "limiter": {
        "use": "token_bucket", "rate": "1/s", "burst": 1}}  # fmt: skip
    scenario = beside.fleet(controllers, health_check="1s", timeout="1s")

    here = beside.place(scenario)
    here.write(*[beside.row(i / 10, 20.0, status="error", user="ann") for i in range(300)])

    async def play(advice, instances, passes):
        instances.running = 9
        await passes(120)

    here, instances, found = served(scenario, play, log=True)
    assert {each.kind for each in found} >= {"scale", "refuse"}
    assert instances.asked
    assert set(instances.asked) == {("GET", "/metrics", b"")}


def test_rows_that_name_another_address_make_no_instance(served, beside):
    scenario = beside.fleet({"breaker": {"use": "consecutive", "failures": 1}})
    here = beside.place(scenario)
    here.write(*[beside.row(float(i), instance="balancer:80", status="error") for i in range(9)])

    async def play(advice, instances, passes):
        await passes(60)
        assert advice.telemetry.load(0, advice.advisor.now_s).ready == 2

    _, _, found = served(scenario, play, log=True)
    assert found == []
