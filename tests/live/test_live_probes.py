"""Health checks by the asyncio driver: of callables on a clock that jumps, of upstreams over real sockets."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from controllers.resilience.probes import ProbesBreaker
from glowsim.core.journal import Effected
from glowsim.core.protocols import Wanted
from glowsim.core.snapshot import Stateful
from glowsim.core.types import (
    Code,
    Command,
    Dispatch,
    Effect,
    Finished,
    InstanceChanged,
    Probe,
    Probed,
    Reason,
    State,
)
from glowsim.live.calls import Checked

EVERY_S = 10.0


def checked(serve, healthy):
    async def asked():
        return healthy() if callable(healthy) else healthy

    return Checked(serve, asked)


def results(stage):
    return [(each.t_s, dict(each.results)) for each in stage.said(Probed)]


def effects(recording):
    """Return what became of every probe, in order; late is not yet an end."""
    records = list(recording.records())
    probes = [
        i for i, each in enumerate(r for r in records if isinstance(r, Command)) if isinstance(each, Probe)
    ]
    ends = {
        number: each.status
        for each in records
        if isinstance(each, Effected) and each.status != Effect.LATE
        for number in range(each.first, each.first + each.n)
    }
    return [ends[number] for number in probes]


def test_every_ready_instance_that_can_be_asked_is_asked_and_what_it_says_is_told(live):
    async def main():
        stage = live.Stage(probe_every_s=EVERY_S, timeout_s=1000.0)
        for healthy in (True, False, lambda: stage.driver.now_s() > 15.0):
            stage.driver.add(0, checked(live.takes(1.0), healthy))
        stage.driver.add(0, live.takes(1.0))
        await stage.ask()
        await asyncio.sleep(20.5)
        assert results(stage) == [(10.0, {0: True, 1: False, 2: False}), (20.0, {0: True, 1: False, 2: True})]
        await stage.close()
        assert effects(stage.journal.recording()) == [Effect.DONE, Effect.DONE]

    live.jump(main)


def test_who_does_not_say_in_time_or_raises_or_says_something_else_is_not_well(live):
    async def slow():
        await asyncio.sleep(1000.0)
        return True

    async def raises():
        raise ConnectionRefusedError

    async def talks():
        return "fine"

    def is_no_coroutine():
        raise OSError

    async def main():
        stage = live.Stage(probe_every_s=EVERY_S, timeout_s=1000.0)
        stage.driver.add(0, checked(live.takes(1.0), True))
        for healthy in (slow, raises, talks, is_no_coroutine):
            stage.driver.add(0, Checked(live.takes(1.0), healthy))
        await stage.ask()
        await asyncio.sleep(18.0)
        assert results(stage) == [(15.0, {0: True, 1: False, 2: False, 3: False, 4: False})]
        await stage.close()

    live.jump(main)


def test_where_nobody_can_be_asked_the_probe_is_refused(live):
    async def main():
        stage = live.Stage(probe_every_s=EVERY_S)
        stage.driver.add(0, live.takes(1.0))
        await stage.ask()
        await asyncio.sleep(11.0)
        assert not stage.said(Probed)
        await stage.close()
        assert effects(stage.journal.recording()) == [Effect.REFUSED]

    live.jump(main)


def test_an_instance_that_goes_while_it_is_asked_does_no_harm_nor_does_the_end(live):
    gone = asyncio.Event()

    async def slow():
        await gone.wait()
        return True

    async def main():
        stage = live.Stage(probe_every_s=EVERY_S)
        stage.driver.add(0, Checked(live.takes(1.0), slow))
        await stage.ask()
        await asyncio.sleep(9.5)
        stage.driver._changed(stage.driver._instances[0], State.FAILED)
        stage.driver.add(0, Checked(live.takes(1.0), slow))
        await asyncio.sleep(1.0)
        await stage.close()
        assert effects(stage.journal.recording()) == [Effect.REFUSED], "closed before it was answered"

    live.jump(main)


class Shrinks(Stateful):
    """Scaler: one instance is enough after five seconds."""

    def decide(self, t_s, load):
        return Wanted(1 if t_s >= 5.0 else 2, Reason(Code.LOAD_LOW), t_s + 5.0)


class Stops:
    async def stop(self, instance):
        pass


def test_an_instance_that_drains_is_asked_no_more(live):
    async def main():
        stage = live.Stage(
            probe_every_s=EVERY_S - 1.0, scaler=Shrinks, scalers={0: Stops()}, timeout_s=1000.0
        )
        for _ in range(2):
            stage.driver.add(0, checked(live.takes(15.0), True))
        await asyncio.gather(stage.ask(), stage.ask())
        (drains,) = [each.instance for each in stage.said(InstanceChanged) if each.state == State.DRAINING]
        assert results(stage) == [(9.0, {1 - drains: True})]
        await stage.close()

    live.jump(main)


def test_an_instance_that_fails_its_checks_gets_no_work_until_it_passes_them(live):
    async def main():
        stage = live.Stage(
            probe_every_s=EVERY_S, breaker=lambda: ProbesBreaker(unhealthy=2, healthy=1), timeout_s=1000.0
        )
        ill = lambda: not 5.0 < stage.driver.now_s() < 45.0  # noqa: E731
        stage.driver.add(0, checked(live.takes(0.1), ill))
        stage.driver.add(0, checked(live.takes(0.1), True))
        for _ in range(70):
            await stage.ask()
            await asyncio.sleep(0.9)
        chosen, begun_s = (
            [each.instance for each in stage.said(Dispatch)],
            [each.t_s - 0.1 for each in stage.said(Finished)],
        )
        out = {t_s for t_s, instance in zip(begun_s, chosen, strict=True) if instance == 0}
        assert not [t_s for t_s in out if 20.0 < t_s < 50.0], (
            "two failed, at 10 and 20 s; one passed, at 50 s"
        )
        assert [t_s for t_s in out if 10.0 < t_s < 20.0]
        assert [t_s for t_s in out if t_s > 50.0]
        await stage.close()

    live.jump(main)


# --- upstreams ------------------------------------------------------------------------------------------


@asynccontextmanager
async def upstream(**answers):
    """Serve over a real socket, at a port that the system gives: path -> status, or None for no answer."""
    from aiohttp import ClientSession, web
    from aiohttp.test_utils import TestServer

    asked, gone = [], asyncio.Event()

    async def handle(request):
        asked.append(request.path_qs)
        status = answers[request.path.strip("/")]
        if status is None:
            await gone.wait()
        return web.Response(status=status or 200, headers={"Location": "/elsewhere"})

    app = web.Application()
    app.router.add_get("/{path:.*}", handle)
    async with TestServer(app, host="127.0.0.1") as server, ClientSession() as session:
        server.asked = asked
        try:
            yield server, session
        finally:
            gone.set()


def instance(session, url, health_path=None):
    from glowsim.live.adapters import Reach, of_urls

    reach = Reach(of_urls([str(url)], health_path), {}, timeout_s=5.0, models=["m"])
    return reach.at(reach.urls[0], session)


@pytest.mark.usefixtures("_serving")
@pytest.mark.parametrize(
    ("status", "well"), [(200, True), (204, True), (302, True), (404, False), (429, False), (503, False)]
)
def test_an_upstream_is_well_if_its_path_answers_below_400(status, well):
    async def main():
        async with upstream(health=status) as (server, session):
            one = instance(session, server.make_url("/v1/chat/completions"), health_path="/health?deep=1")
            assert await one.healthy() is well
            assert server.asked == ["/health?deep=1"], (
                "asked once, beside the tasks' path, and no redirect followed"
            )

    asyncio.run(main())


@pytest.mark.usefixtures("_serving")
def test_without_a_path_an_upstream_is_well_if_it_takes_a_connection(unused_port):
    async def main():
        async with upstream() as (server, session):
            assert await instance(session, server.make_url("/run")).healthy() is True
            assert server.asked == []
            with pytest.raises(OSError, match=str(unused_port)):
                await instance(session, f"http://127.0.0.1:{unused_port}/run").healthy()

    asyncio.run(main())


@pytest.mark.usefixtures("_serving")
def test_the_driver_tells_how_real_upstreams_are(live, unused_port):
    patience_s = 1000.0  # no machine is so busy, and nobody waits: the clock is put forward
    said, told = asyncio.Queue(), asyncio.Event()

    def watch(event, commands):
        if isinstance(event, Probed):
            told.set()

    def heard(one):
        async def healthy():
            try:
                return await one.healthy()
            finally:
                said.put_nowait(one)

        return Checked(one.serve, healthy)

    async def main():
        loop = asyncio.get_running_loop()
        async with upstream(up=200, down=500, hangs=None) as (server, session):
            stage = live.Stage(
                probe_every_s=EVERY_S, probe_timeout_s=patience_s, timeout_s=10.0 * patience_s, watch=watch
            )
            url, dead = server.make_url("/run"), f"http://127.0.0.1:{unused_port}/run"
            for where, path in [
                (url, "/up"),
                (url, "/down"),
                (url, "/hangs"),
                (dead, "/up"),
                (dead, None),
                (url, None),
            ]:
                stage.driver.add(0, heard(instance(session, where, health_path=path)))
            gone = stage.start()
            await asyncio.sleep(0)
            loop.ahead_s += EVERY_S
            for _ in range(5):
                await said.get()
            assert not told.is_set(), "one has not said anything, and has time left"
            loop.ahead_s += patience_s
            await told.wait()
            gone.cancel()
            await asyncio.wait((gone,))
            await stage.close(1.0)
        assert results(stage)[0][1] == {0: True, 1: False, 2: False, 3: False, 4: False, 5: True}

    with asyncio.Runner(loop_factory=live.WoundLoop) as runner:
        runner.run(asyncio.wait_for(main(), EVERY_S + patience_s + 300.0))
