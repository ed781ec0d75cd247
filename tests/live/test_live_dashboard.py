"""The dashboard over HTTP, and its stream: one document a tick, however many watch."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import glowsim.live.dashboard.stream as streaming
from glowsim.live.dashboard.stream import Ticks, TooManyViewers
from glowsim.scenario import load

pytestmark = pytest.mark.usefixtures("_serving")

TEXT = """
title: A small fleet
question: What does it look like?
seed: 1
duration: 10s
models:
  m: {input: $1/1M, output: $2/1M}
fleet:
  - {agent: tax, domain: tax, model: m, instances: 2, concurrency: 4, service: {law: time, time: 2ms}}
  - {agent: audit, model: m, instances: 1, concurrency: 1, service: {law: time, time: 1ms}}
workload:
  - {kind: poisson, rate: 1/s, agents: all, tokens_in: 100, tokens_out: 20}
"""
TOKEN, DEADLINE_S = "admin-0123456789abc", 30.0


# --- the stream, on a clock that jumps ---------------------------------------------------------------


class Maker:
    """Makes small documents in three steps and counts them."""

    def __init__(self):
        self.begun = 0
        self.news = 0

    def __call__(self):
        self.begun += 1
        yield None
        yield None
        yield {"n": self.begun}

    def read(self):
        return self.news


def ticks_of(maker, **given):
    return Ticks(maker, maker.read, **given)


def data_of(event):
    found = re.fullmatch(rb"id: (\d+)\nevent: snapshot\ndata: (.*)\n\n", event)
    return found and (int(found[1]), json.loads(found[2]))


async def read(viewer, seconds):
    """Return what a viewer that reads at once gets within a time."""
    got = []
    try:
        async with asyncio.timeout(seconds):
            while (event := await viewer.fetch()) is not None:
                got.append(event)
    except TimeoutError:
        pass
    return got


@pytest.mark.parametrize("viewers", [1, 2, 30])
def test_a_document_is_made_and_serialised_once_a_tick_however_many_watch(live, monkeypatch, viewers):
    dumped = []
    monkeypatch.setattr(streaming.json, "dumps", lambda *a, **k: dumped.append(1) or "{}")

    async def main():
        maker = Maker()
        maker.read = lambda: object()  # always news
        ticks = ticks_of(maker)
        watching = [ticks.join() for _ in range(viewers)]
        got = await asyncio.gather(*(read(viewer, 9.5) for viewer in watching))
        ticks.close()
        assert maker.begun == ticks.made == len(dumped) == 10
        assert all(each == got[0] for each in got)
        assert len(got[0]) == 10

    live.jump(main)


def test_who_reads_too_slowly_skips_ticks_and_nobody_waits_for_him(live):
    async def main():
        maker = Maker()
        maker.read = lambda: object()
        ticks = ticks_of(maker)
        slow, quick = ticks.join(), ticks.join()
        got = await read(quick, 20.5)
        assert len(got) == 21
        assert data_of(await slow.fetch()) == data_of(got[-1]), "the newest, and no other was kept for him"
        assert data_of(await slow.fetch())[0] == 22
        ticks.close()

    live.jump(main)


def test_a_quiet_fleet_costs_a_comment_a_tick_and_a_document_every_ten_seconds(live):
    async def main():
        maker = Maker()
        ticks = ticks_of(maker)
        viewer = ticks.join()
        got = await read(viewer, 30.5)
        ticks.close()
        assert len(got) == 31, "a heart-beat every second"
        assert [place for place, event in enumerate(got) if data_of(event)] == [0, 10, 20, 30]
        assert all(event.startswith(b": ") for place, event in enumerate(got) if place % 10)

    live.jump(main)


def test_news_is_told_within_a_tick(live):
    async def main():
        maker = Maker()
        ticks = ticks_of(maker)
        viewer = ticks.join()
        await read(viewer, 3.5)
        maker.news += 1
        (event,) = await read(viewer, 1.0)
        assert data_of(event) == (2, {"n": 2})
        ticks.close()

    live.jump(main)


def test_a_heart_beat_does_not_take_the_place_of_news_that_were_not_read(live):
    async def main():
        maker = Maker()
        ticks = ticks_of(maker)
        slow = ticks.join()
        await asyncio.sleep(3.5)
        assert data_of(await slow.fetch()) == (1, {"n": 1})
        ticks.close()

    live.jump(main)


def test_who_comes_later_gets_a_whole_document_at_once(live):
    async def main():
        maker = Maker()
        ticks = ticks_of(maker)
        ticks.join()
        await asyncio.sleep(4.5)
        late = ticks.join()
        async with asyncio.timeout(0.1):
            assert data_of(await late.fetch()) == (1, {"n": 1})
        ticks.close()

    live.jump(main)


def test_nothing_is_made_while_nobody_watches(live):
    async def main():
        maker = Maker()
        ticks = ticks_of(maker)
        for round_ in range(1, 4):
            viewer = ticks.join()
            assert data_of(await viewer.fetch()) == (round_, {"n": round_})
            ticks.leave(viewer)
            assert await viewer.fetch() is None
            await asyncio.sleep(100.0)
            assert (maker.begun, ticks.watching) == (round_, 0)

    live.jump(main)


def test_one_who_comes_while_the_last_one_goes_is_served(live):
    async def main():
        maker = Maker()
        ticks = ticks_of(maker)
        for turns in range(50):  # at every turn of the loop around the end of the ticking
            viewer = ticks.join()
            await viewer.fetch()
            ticks.leave(viewer)
            for _ in range(turns % 7):
                await asyncio.sleep(0)
            other = ticks.join()
            async with asyncio.timeout(2.0):
                assert data_of(await other.fetch())
            ticks.leave(other)
            await asyncio.sleep(1.0)
        ticks.close()

    live.jump(main)


def test_as_many_watch_as_may(live):
    async def main():
        ticks = ticks_of(Maker(), viewers=2)
        first, _ = ticks.join(), ticks.join()
        with pytest.raises(TooManyViewers, match="2 watch already"):
            ticks.join()
        ticks.leave(first)
        ticks.leave(first)
        ticks.join()
        ticks.close()
        with pytest.raises(TooManyViewers):
            ticks.join()

    live.jump(main)


def test_a_document_that_cannot_be_made_ends_the_streams_and_is_told(live):
    async def main():
        def broken():
            yield None
            raise ValueError("planted")

        told = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))
        ticks = Ticks(broken, lambda: 0)
        viewer = ticks.join()
        assert await viewer.fetch() is None
        assert [str(context["exception"]) for context in told] == ["planted"]
        assert ticks.watching == 0

    live.jump(main)


# --- over sockets -----------------------------------------------------------------------------------


@asynccontextmanager
async def served(path, environment=None, **given):
    """Yield a daemon and an HTTP client of it."""
    import aiohttp

    from glowsim.live.daemon import serving
    from glowsim.live.settings import settings

    chosen = settings(
        environment=environment or {}, journal_path=path / "fleet.journal", port=0, admin_port=0, grace_s=4.0,
        **given,
    )  # fmt: skip
    async with (
        asyncio.timeout(DEADLINE_S),
        serving(load(TEXT), chosen) as daemon,
        aiohttp.ClientSession() as session,
    ):
        yield daemon, session


async def events_of(response):
    """Yield the documents of a stream."""
    async for line in response.content:
        if line.startswith(b"data: "):
            yield json.loads(line[6:])


def test_the_document_says_what_the_fleet_does(tmp_path):
    async def main():
        async with served(tmp_path) as (daemon, session):
            for _ in range(5):
                async with session.post(
                    daemon.address + "/v1/agents/tax/tasks", json={"input": "hello"}
                ) as answer:
                    assert answer.status == 200
            async with session.get(daemon.admin_address + "/v1/dashboard") as response:
                assert response.headers["Cache-Control"] == "no-store"
                assert response.headers["X-Content-Type-Options"] == "nosniff"
                document = await response.json()
        tax, audit = document["agents"]
        assert (document["source"], document["title"], document["admitting"]) == (
            "live",
            "A small fleet",
            True,
        )
        assert (tax["status"], audit["status"]) == ("ok", "idle")
        assert [window["answered"] for window in tax["windows"]] == [5, 5, 5]
        assert tax["windows"][0]["p50_s"] >= 0.002 / 1.01
        assert (tax["instances"]["ready"], tax["slots"], tax["emulated"]) == (2, 8, True)
        assert document["fleet"]["active"] == 1
        assert document["fleet"]["cost_usd"]["month"] is None, "a few seconds say nothing about a month"
        assert {each["domain"] for each in document["domains"]} == {"tax", None}
        assert abs(document["at_unix_s"] - document["t_s"]) > 1e9

    asyncio.run(main())


def test_data_take_the_admins_token_and_the_page_does_not(tmp_path):
    async def main():
        async with served(tmp_path, {"GLOWSIM_ADMIN_TOKEN": TOKEN}) as (daemon, session):
            for path in ("/v1/dashboard", "/v1/dashboard/events"):
                for token in (None, "wrong", TOKEN[:-1]):
                    headers = {"Authorization": f"Bearer {token}"} if token else {}
                    async with session.get(daemon.admin_address + path, headers=headers) as response:
                        assert response.status == 401
                        assert "Bearer" in response.headers["WWW-Authenticate"]
                headers = {"Authorization": f"Bearer {TOKEN}"}
                async with session.get(daemon.admin_address + path, headers=headers) as response:
                    assert response.status == 200
                async with session.get(daemon.address + path, headers=headers) as response:
                    assert response.status == 404, "not on the data plane"
            for path, kind in (
                ("/", "text/html"),
                ("/page.js", "text/javascript"),
                ("/page.css", "text/css"),
            ):
                async with session.get(daemon.admin_address + path) as response:
                    assert (response.status, response.content_type) == (200, kind)
                    assert TOKEN not in await response.text()

    asyncio.run(main())


def test_without_a_token_only_this_machines_names_are_answered_to(tmp_path):
    async def main():
        async with served(tmp_path) as (daemon, session):
            for path in ("/v1/dashboard", "/v1/dashboard/events", "/state"):
                for host, status in (("evil.example", 403), ("localhost:1", 200), ("[::1]:1", 200)):
                    url = daemon.admin_address + path
                    async with session.get(url, headers={"Host": host}) as response:
                        assert response.status == status

    asyncio.run(main())


def test_every_page_has_a_strict_policy(tmp_path):
    async def main():
        async with served(tmp_path) as (daemon, session):
            for path in ("/", "/page.js", "/page.css", "/v1/dashboard", "/v1/dashboard/events"):
                async with session.get(daemon.admin_address + path) as response:
                    policy = response.headers["Content-Security-Policy"]
                    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
                    assert "unsafe" not in policy
                    assert "frame-ancestors 'none'" in policy
                    assert response.headers["X-Content-Type-Options"] == "nosniff"
                    assert response.headers["Referrer-Policy"] == "no-referrer"

    asyncio.run(main())


def test_two_viewers_get_the_same_ticks_and_hear_of_news(tmp_path):
    async def main():
        async with served(tmp_path) as (daemon, session):
            url = daemon.admin_address + "/v1/dashboard/events"
            async with session.get(url) as one, session.get(url) as other:
                assert one.content_type == "text/event-stream"
                assert "Content-Length" not in one.headers
                first, second = events_of(one), events_of(other)
                assert await anext(first) == await anext(second)
                async with session.post(
                    daemon.address + "/v1/agents/tax/tasks", json={"input": "hello"}
                ) as answer:
                    assert answer.status == 200
                news = await anext(first)
                assert news == await anext(second)
                assert news["agents"][0]["windows"][0]["arrived"] == 1
                await first.aclose()
                await second.aclose()

    asyncio.run(main())


def test_one_viewer_too_many_is_told_so_and_a_place_comes_free(tmp_path, monkeypatch):
    from glowsim.live.dashboard import routes

    monkeypatch.setattr(routes.Dashboard.__init__, "__kwdefaults__", {"viewers": 1, "every_s": 1.0})

    async def main():
        async with served(tmp_path) as (daemon, session):
            url = daemon.admin_address + "/v1/dashboard/events"
            async with session.get(url) as one:
                assert one.status == 200
                async with session.get(url) as other:
                    assert other.status == 503
                    assert other.headers["Retry-After"] == "10"
                    assert "1 watch already" in (await other.json())["error"]["message"]
            while True:  # until the daemon has seen that the first one is gone
                async with session.get(url) as again:
                    if again.status == 200:
                        break

    asyncio.run(main())


def test_who_takes_in_nothing_for_too_long_gives_his_place_up(tmp_path, monkeypatch):
    from glowsim.live.dashboard import routes

    monkeypatch.setattr(routes, "_PATIENCE_S", 0.01)

    async def main():
        ticks = ticks_of(Maker())
        sent, stuck = [], asyncio.Event()

        async def send(message):
            sent.append(message)
            if message.get("more_body"):
                await stuck.wait()

        response = routes._Events(ticks, ticks.join())
        await response({}, asyncio.Event().wait, send)
        assert [message["type"] for message in sent] == [
            "http.response.start", "http.response.body", "http.response.body",
        ]  # fmt: skip
        assert sent[-1]["more_body"] is False
        assert ticks.watching == 0
        ticks.close()

    asyncio.run(main())


def test_a_daemon_that_stops_ends_its_streams_without_a_fuss(tmp_path, caplog):
    async def main():
        import aiohttp

        async with aiohttp.ClientSession() as session:
            async with served(tmp_path) as (daemon, _):
                response = await session.get(daemon.admin_address + "/v1/dashboard/events")
                events = events_of(response)
                assert (await anext(events))["admitting"] is True
            assert [event["admitting"] async for event in events] in ([], [False])

    with caplog.at_level(logging.WARNING):
        asyncio.run(main())
    assert caplog.records == []


# --- the page's text --------------------------------------------------------------------------------

PAGE = Path(streaming.__file__).parent


def test_the_page_never_makes_markup_of_text_and_loads_nothing_from_elsewhere():
    script, page, style = ((PAGE / name).read_text() for name in ("page.js", "index.html", "page.css"))
    for forbidden in (
        "innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "DOMParser",
        "cookie", "localStorage", "http://localhost", "https://",
    ):  # fmt: skip
        assert forbidden not in script
    assert set(re.findall(r"https?://[^\s\"')]+", script)) == {"http://www.w3.org/2000/svg"}
    assert "url(" not in style
    assert "@import" not in style
    assert " style=" not in page
    assert not re.search(r"\son[a-z]+=", page.split("<body>")[1])
    assert re.findall(r"<script[^>]*>", page) == ['<script type="module" src="page.js">']
    assert re.findall(r'(?:src|href)="(?!#|data:)([^"]+)"', page) == ["page.css", "page.js"]
