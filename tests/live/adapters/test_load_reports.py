"""Load reports: what instances say of themselves, and what is told of those that say nothing or lie."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from math import isnan, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowsim.core.types import Reported, Signal
from glowsim.live.calls import InstanceError

pytestmark = pytest.mark.usefixtures("_serving")

# As a vLLM server prints them, with what else stands around.
VLLM = b"""\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="meta/llama \\"8B\\" } x"} 3.0
vllm:num_requests_running{engine="1",model_name="meta/llama \\"8B\\" } x"} 4.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="m"} 0.0
vllm:num_requests_waiting{engine="1",model_name="m"} 12.0 1727280000000
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.5
vllm:kv_cache_usage_perc{engine="1",model_name="m"} 2.5e-01
vllm:num_requests_running_by_reason{reason="x"} what is this
vllm:e2e_request_latency_seconds_bucket{le="+Inf",model_name="m"} 17.0
process_resident_memory_bytes NaN
"""
READ = {Signal.RUNNING: (7.0, 2), Signal.WAITING: (12.0, 2), Signal.CACHE_USED: (0.375, 2)}


def signals_in(text):
    from glowsim.live.adapters.load_reports import signals_in

    return signals_in(text)


def test_series_of_engines_are_summed_and_their_caches_averaged():
    assert signals_in(VLLM) == READ
    assert signals_in(VLLM.replace(b"\n", b"\r\n")) == READ


def test_the_older_name_of_the_cache_is_read_where_the_newer_is_not():
    older = b"vllm:gpu_cache_usage_perc 0.75\n"
    assert signals_in(older) == {Signal.CACHE_USED: (0.75, 1)}
    assert signals_in(older + VLLM) == READ
    assert signals_in(VLLM + older) == READ


def test_other_texts_hold_nothing():
    assert signals_in(b"") == signals_in(b"<html>\xff\x00</html>") == signals_in(b"go_goroutines 7\n") == {}


@pytest.mark.parametrize(
    "rest",
    [
        b" ", b" NaN", b" +Inf", b" -1", b" 1_0", b" 0x10", b" 1 2 3", b" 1e400", b' {a="b"} 1', b'{a="b"}1',
        b"{a=b} 1", b'{a="b} 1', b'{a="b"} 1 # {t="u"} 2', b'{a="b" c="d"} 1', b"{" * 9 + b" 1",
        b'{a="' + b"x" * 20_000 + b'"} 1',
    ],
)  # fmt: skip
def test_a_line_that_is_no_sample_is_refused(rest):
    with pytest.raises(InstanceError, match="hold a line that is no sample"):
        signals_in(b"vllm:num_requests_running" + rest)
    with pytest.raises(InstanceError, match="hold a line that is no sample"):
        signals_in(b"vllm:kv_cache_usage_perc 1.01")


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=40),
            st.sampled_from(
                [*VLLM.splitlines(), b"vllm:num_requests_running", b'{a="', b'"}', b"\n", b" 1", b"\\"]
            ),
        ),
        max_size=20,
    )
)
def test_no_text_raises_anything_else_or_gives_anything_else(parts):
    try:
        found = signals_in(b"".join(parts))
    except InstanceError:
        return
    for signal, (value, n) in found.items():
        assert n >= 1
        assert 0.0 <= value <= (1.0 if signal == Signal.CACHE_USED else 1e9 * n)


# --- polls ------------------------------------------------------------------------------------------


class Server:
    """Answers ``/N/metrics`` with what it was given for N: a text, a status, or good metrics after an event."""

    def __init__(self):
        self.says = {}
        self.asked = []
        self.inside = self.most_inside = 0

    async def handle(self, request):
        from aiohttp import web

        number = int(request.match_info["number"])
        self.asked.append(number)
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        try:
            said = self.says[number]
            if isinstance(said, asyncio.Event):
                await said.wait()
                said = VLLM
            if isinstance(said, int):
                return web.Response(status=said, headers={"Location": "/0/metrics"})
            return web.Response(body=said)
        finally:
            self.inside -= 1


@asynccontextmanager
async def reporting(**given):
    """Yield a server, load reports of its instances, and what they tell."""
    import aiohttp
    from aiohttp import web
    from aiohttp.test_utils import TestServer

    from glowsim.live.adapters.load_reports import LoadReports, Metered

    server, told, times = Server(), [], iter(range(10**6))
    app = web.Application()
    app.router.add_get("/{number}/metrics", server.handle)
    at = TestServer(app, host="127.0.0.1")
    await at.start_server(shutdown_timeout=0.1)
    given = {"tell": told.append, "report_every_s": 60.0} | given
    try:
        async with asyncio.timeout(60.0), aiohttp.ClientSession() as session:
            reports = LoadReports(
                session,
                instances=lambda: {
                    n: Metered(n // 10, str(at.make_url(f"/{n}/metrics"))) for n in server.says
                },
                now_s=lambda: float(next(times)),
                **given,
            )
            yield server, reports, told
    finally:
        await at.close()


def run(main):
    asyncio.run(main())


def plain(told):
    """Return (instance, signal, value or None, series) of each."""
    return [(e.instance, Signal(e.signal).name, None if isnan(e.value) else e.value, e.n) for e in told]


def test_reports_name_agent_and_instance_and_are_as_old_as_they_say():
    async def main():
        async with reporting() as (server, reports, told):
            server.says = {12: VLLM}
            await reports.poll()
            assert [(e.agent, e.instance, e.sampled_at_s, e.n) for e in told] == [(1, 12, 0.0, 2)] * 3
            assert [e.t_s for e in told] == [1.0, 2.0, 3.0]
            assert {e.signal: e.value for e in told} == {signal: value for signal, (value, _) in READ.items()}
            assert reports.errors == 0

    run(main)


def test_what_is_missing_is_told_once_until_it_is_back(caplog):
    async def main():
        async with reporting() as (server, reports, told):
            server.says = {0: b"vllm:num_requests_running 1\n"}
            for _ in range(2):
                await reports.poll()
            one = [(0, "RUNNING", 1.0, 1)]
            assert plain(told) == [*one, (0, "WAITING", None, 0), (0, "CACHE_USED", None, 0), *one]
            told.clear()
            server.says[0] = 500
            for _ in range(3):
                await reports.poll()
            assert plain(told) == [(0, "RUNNING", None, 0)]
            assert reports.errors == 3
            told.clear()
            server.says[0] = VLLM
            await reports.poll()
            assert [name for _, name, value, _ in plain(told) if value is not None] == [
                s.name for s in Signal
            ]

    with caplog.at_level(logging.WARNING, "glowsim"):
        run(main)
    (said,) = caplog.messages
    assert said.startswith("instance 0 gave no load report: InstanceError(")
    assert "status 500" in said


@pytest.mark.parametrize(
    "said", [302, 404, b"vllm:num_requests_waiting oops\n", b"x" * (5 * 1024 * 1024), "never"]
)
def test_an_instance_that_gives_no_good_answer_is_missing_and_harms_no_other(said):
    async def main():
        async with reporting(timeout_s=0.2) as (server, reports, told):
            server.says = {0: asyncio.Event() if said == "never" else said, 1: VLLM}
            await reports.poll()
            assert sorted(n for n, _, value, _ in plain(told) if value is None) == [0, 0, 0]
            assert sorted(n for n, _, value, _ in plain(told) if value is not None) == [1, 1, 1]
            assert reports.errors == 1

    run(main)


def test_an_instance_that_is_gone_is_not_told_of_and_forgotten():
    async def main():
        async with reporting() as (server, reports, told):
            server.says = {0: 404, 1: VLLM}
            await reports.poll()
            told.clear()
            held = server.says[1] = asyncio.Event()
            poll = asyncio.ensure_future(reports.poll())
            while not server.inside or server.asked[-1] != 1:
                await asyncio.sleep(0)
            server.says.clear()
            held.set()
            await poll
            await reports.poll()
            assert told == []
            server.says = {0: 404}
            await reports.poll()
            assert len(told) == 3, "a new one with its number is missing anew"

    run(main)


def test_polls_do_not_pile_up_and_go_on_after_bad_ones():
    async def main():
        async with reporting(report_every_s=0.03, timeout_s=10.0) as (server, reports, told):
            server.says = {0: asyncio.Event()}
            polling = asyncio.ensure_future(reports.run())
            while reports.errors < 3:
                await asyncio.sleep(0)
            assert server.most_inside == 1
            server.says = {0: VLLM}
            while not told or isnan(told[-1].value):
                await asyncio.sleep(0)
            polling.cancel()
            await asyncio.wait((polling,))
            assert polling.cancelled()

    run(main)


def test_many_instances_are_asked_64_at_a_time():
    async def main():
        async with reporting() as (server, reports, told):
            server.says = dict.fromkeys(range(150), VLLM)
            await reports.poll()
            assert len(told) == 3 * 150
            assert server.most_inside <= 64

    run(main)


def test_what_the_driver_is_told_stands_in_its_journal_and_replays(live):
    async def main():
        stage = live.Stage()
        stage.driver.add(0, live.takes(0.0))
        async with reporting(tell=stage.driver.tell) as (server, reports, _):
            reports._now_s = stage.driver.now_s
            server.says = {0: b"vllm:num_requests_waiting 5\n"}
            await reports.poll()
        assert plain(stage.said(Reported)) == [
            (0, "RUNNING", None, 0), (0, "WAITING", 5.0, 1), (0, "CACHE_USED", None, 0)
        ]  # fmt: skip
        await stage.close()

    run(main)


@pytest.mark.parametrize("given", [{"report_every_s": 0.0}, {"timeout_s": nan}, {"timeout_s": -1.0}])
def test_seconds_must_be_above_0(given):
    from glowsim.live.adapters.load_reports import LoadReports

    with pytest.raises(ValueError, match="is not a number of seconds above 0"):
        LoadReports(None, instances=dict, tell=print, now_s=float, **given)
