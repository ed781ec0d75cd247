"""An instance that falls silent: before its answer it is given up, within a stream the stream is broken."""

from __future__ import annotations

import asyncio
from math import isnan

import pytest

from controllers.resilience.backoff import BackoffRetrier
from glowsim.core.streams import Stream
from glowsim.core.types import Cancel, Code, Dispatch, Finished, FirstToken, Outcome, Plan, Usage
from glowsim.live.calls import Call, Failed, Reply


def again():
    return BackoffRetrier(Stream(1), attempts=2, budget_ratio=None)


def pieces(*waits_s, text="a"):
    """Return an instance that streams a piece after each wait."""

    async def serve(call):
        call.usage = Usage(call.plan.tokens_in)
        for wait_s in waits_s:
            await asyncio.sleep(wait_s)
            yield text

    return serve


async def never(call):
    await asyncio.Event().wait()


async def deaf(call):
    try:
        await asyncio.sleep(1000.0)
    except asyncio.CancelledError:
        yield "too late"


def ends(stage):
    return [(each.t_s, each.outcome) for each in stage.said(Finished)]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("silent", [never, pieces(1000.0), deaf], ids=["plain", "streams", "deaf"])
def test_who_says_nothing_is_given_up_and_another_is_tried(live, silent, stream):
    async def main():
        stage = live.Stage(idle_timeouts={0: 5.0}, retrier=again)
        stage.driver.add(0, silent)
        stage.driver.add(0, live.takes(1.0))
        if stream:
            assert [each async for each in stage.stream()][-1].content == "HELLO"
        else:
            assert (await stage.ask()).content == "HELLO"
        (given_up_s, outcome), (_, then) = ends(stage)
        assert (given_up_s, outcome, then) == (5.0, Outcome.TIMEOUT, Outcome.OK)
        assert not stage.said(FirstToken, Cancel), "nobody told it to, and nothing of it was heard"
        await stage.close()

    live.jump(main)


def test_a_stream_that_falls_silent_is_broken_and_counts_what_it_used(live):
    async def main():
        stage = live.Stage(idle_timeouts={0: 5.0}, retrier=again)
        stage.driver.add(0, pieces(4.0, 4.0, 1000.0))
        stream = stage.stream()
        assert [await anext(stream), await anext(stream)] == ["a", "a"]
        with pytest.raises(Failed) as failed:
            await anext(stream)
        assert (failed.value.outcome, failed.value.reason.code) == (Outcome.TIMEOUT, Code.BROKEN_STREAM)
        assert ends(stage) == [(13.0, Outcome.TIMEOUT)]
        assert stage.said(Finished)[0].usage[:4] == (9, 0, 0, 4.0)
        assert len(stage.said(Dispatch)) == 1
        await stage.close()

    live.jump(main)


def test_a_stream_may_take_long_as_long_as_it_flows(live):
    async def main():
        stage = live.Stage(idle_timeouts={0: 5.0}, timeout_s=1000.0)
        stage.driver.add(0, pieces(*[4.9] * 20))
        assert [each async for each in stage.stream()][-1].content == "a" * 20
        assert ends(stage) == [(pytest.approx(98.0), Outcome.OK)]
        await stage.close()

    live.jump(main)


def test_an_empty_piece_is_a_sign_of_life_and_commits_to_nothing(live):
    async def main():
        stage = live.Stage(idle_timeouts={0: 5.0}, retrier=again)
        stage.driver.add(0, pieces(4.0, 4.0, 1000.0, text=""))
        stage.driver.add(0, live.takes(1.0))
        got = [each async for each in stage.stream()]
        assert [got[0], got[1].content] == ["HELLO", "HELLO"]
        assert ends(stage)[0] == (13.0, Outcome.TIMEOUT)
        assert isnan(stage.said(Finished)[0].usage.first_token_s)
        await stage.close()

    live.jump(main)


def test_each_agent_has_its_own_patience_and_the_slot_is_free_again(live):
    async def main():
        stage = live.Stage(agents=2, idle_timeouts={1: 2.0}, timeout_s=60.0)
        for agent in (0, 1):
            stage.driver.add(agent, live.takes(3.0))
        patient, first, second = (stage.start(agent=agent) for agent in (0, 1, 1))
        assert (await patient).content == "HELLO"
        for hasty in (first, second):
            with pytest.raises(Failed, match="TIMEOUT"):
                await hasty
        assert ends(stage) == [(2.0, Outcome.TIMEOUT), (3.0, Outcome.OK), (4.0, Outcome.TIMEOUT)]
        await stage.close()

    live.jump(main)


def test_an_answer_that_comes_although_its_time_is_over_is_taken(live):
    async def stubborn(call):
        try:
            await asyncio.sleep(1000.0)
        except asyncio.CancelledError:
            return Reply("all the same", Usage())

    async def main():
        stage = live.Stage(idle_timeouts={0: 5.0})
        stage.driver.add(0, stubborn)
        assert (await stage.ask()).content == "all the same"
        await stage.close()

    live.jump(main)


def test_a_client_that_leaves_at_the_same_moment_is_the_one_who_ended_it(live):
    async def main():
        stage = live.Stage(idle_timeouts={0: 5.0})
        stage.driver.add(0, never)
        client = stage.start()
        await asyncio.sleep(4.0)
        client.cancel()
        await asyncio.sleep(0.0)
        await stage.close()
        assert ends(stage) == [(4.0, Outcome.CANCELLED)]

    live.jump(main)


@pytest.mark.usefixtures("_serving")
def test_an_event_without_text_is_an_empty_piece_and_a_comment_is_none(live):
    """Reasoning models send events long before text; what keeps a connection alive says nothing about the answer."""
    from aiohttp import ClientSession, web
    from aiohttp.test_utils import TestServer

    from glowsim.live.adapters import Reach, of_urls

    said = [
        b'data: {"choices": [{"delta": {"role": "assistant"}}]}',
        b": ping",
        b'data: {"delta": "a"}',
        b"data: [DONE]",
    ]

    async def handle(request):
        return web.Response(body=b"\n\n".join(said) + b"\n\n", content_type="text/event-stream")

    async def main():
        app = web.Application()
        app.router.add_post("/run", handle)
        async with TestServer(app, host="127.0.0.1") as server, ClientSession() as session:
            url = str(server.make_url("/run"))
            serve = Reach(of_urls([url], None), {}, timeout_s=5.0, models=["m"]).at(url, session)
            call = Call(1, 0, live.asked(stream=True), Plan(0, 0, 9, 100), "hello")
            assert [piece async for piece in serve(call)] == ["", "a", ""]

    asyncio.run(main())
