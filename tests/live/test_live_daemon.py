"""The daemon over real sockets on loopback: what clients, admins, instances and operators see."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from loopback import answering

from glowsim import build
from glowsim.core.errors import JournalError
from glowsim.core.journal import Journal, files_of, first_difference, read
from glowsim.core.streams import Streams
from glowsim.core.types import Abandoned, Answer, Arrived, Dispatch, Finished, Outcome, Probed
from glowsim.emulation import Drawn
from glowsim.scenario import load

pytestmark = pytest.mark.usefixtures("_serving")

TEXT = """
title: A small fleet
question: Does the daemon serve?
seed: 1
duration: 10s
models:
  m: {input: $1/1M, output: $2/1M}
fleet:
  - agent: tax
    model: m
    instances: 2
    concurrency: 4
    timeout: 5s
    service: {law: tokens, base: 2ms, input: 1us/token, output: 500us/token, slowdown: 0.1}
  - agent: slow
    model: m
    instances: 1
    concurrency: 1
    timeout: 20s
    service: {law: time, time: 600ms}
  - agent: limited
    model: m
    instances: 1
    concurrency: 1
    service: {law: time, time: 1ms}
    controllers:
      limiter: {use: token_bucket, rate: 1/h, burst: 1}
  - agent: watched
    model: m
    instances: 1
    concurrency: 1
    idle_timeout: 200ms
    health_check: 50ms
    service: {law: time, time: 1ms}
    controllers:
      retrier: {use: backoff, attempts: 1}
  - agent: sorry
    model: m
    instances: 1
    concurrency: 1
    service: {law: time, time: 1ms}
    failures: {error: 100%}
    controllers:
      retrier: {use: backoff, attempts: 1}
      ladder: {use: ladder, steps: [apology]}
workload:
  - {kind: poisson, rate: 1/s, agents: all, tokens_in: 100, tokens_out: 20}
controllers:
  cache: {use: lru, entries: 10, ttl: 60s}
  retrier: {use: backoff, base: 1ms}
"""
KEY, OTHER, TOKEN = "ann-key-0123456789", "bob-key-0123456789", "admin-0123456789abc"
DEADLINE_S = 20.0


def scenario():
    return load(TEXT)


class Client:
    """Asks a daemon, and fails rather than wait for ever."""

    def __init__(self, daemon, session):
        self.daemon = daemon
        self.session = session

    def post(self, agent="tax", body=None, key=None, **given):
        headers = given.pop("headers", {}) | ({"Authorization": f"Bearer {key}"} if key else {})
        if "data" not in given:
            given["json"] = {"input": "What is due in May?"} | (body or {})
        url = f"{self.daemon.address}/v1/agents/{agent}/tasks"
        return self.session.post(url, headers=headers, **given)

    async def ask(self, *args, **given):
        async with self.post(*args, **given) as response:
            return response.status, await response.json(), response.headers

    async def events(self, *args, body=None, **given):
        async with self.post(*args, body={"stream": True, **(body or {})}, **given) as response:
            assert response.content_type == "text/event-stream", await response.text()
            return [json.loads(line[5:]) async for line in response.content if line.startswith(b"data:")]

    async def get(self, path, admin=False, **headers):
        where = self.daemon.admin_address if admin else self.daemon.address
        async with self.session.get(where + path, headers=headers) as response:
            return response.status, await response.text()

    async def state(self):
        return json.loads((await self.get("/state", admin=True))[1])


def serve(test, journal_path, environment=None, **given):
    """Run a test against a daemon on this thread's event loop; check the journal it leaves."""
    import aiohttp

    from glowsim.live.daemon import serving
    from glowsim.live.settings import settings

    chosen = settings(
        environment=environment or {}, journal_path=journal_path, port=0, admin_port=0, grace_s=4.0, **given
    )

    async def main():
        async with (
            asyncio.timeout(DEADLINE_S),
            serving(scenario(), chosen) as daemon,
            aiohttp.ClientSession() as session,
        ):
            await test(Client(daemon, session))

    asyncio.run(main())
    recording = read(journal_path)
    assert not recording.torn
    replays(recording)
    return recording


def replays(recording):
    streams = Streams(scenario().seed)
    assert first_difference(recording, build.control_plane(scenario(), streams, fall_back=True)) is None


def told(recording, kind):
    return [record for record in recording.records() if isinstance(record, kind)]


def serve_upstreams(test, journal_path, *handlers, path="/", agent="tax", **given):
    """Run a test against a daemon of which one agent is the given handlers, an instance each."""
    import aiohttp

    from glowsim.live.daemon import serving
    from glowsim.live.settings import settings

    async def main(urls=()):
        if len(urls) < len(handlers):
            async with answering(handlers[len(urls)]) as url:
                return await main((*urls, url + path))
        chosen = settings(
            environment={},
            journal_path=journal_path,
            port=0,
            admin_port=0,
            grace_s=4.0,
            upstreams={agent: urls},
            **given,
        )
        async with (
            asyncio.timeout(DEADLINE_S),
            serving(scenario(), chosen) as daemon,
            aiohttp.ClientSession() as session,
        ):
            await test(Client(daemon, session))
        return None

    asyncio.run(main())
    recording = read(journal_path)
    replays(recording)
    return recording


@pytest.fixture
def path(tmp_path):
    return tmp_path / "fleet.journal"


# --- the data plane, emulated -----------------------------------------------------------------------


def test_a_task_is_answered_and_says_that_it_is_emulated(path):
    async def test(client):
        status, answer, _ = await client.ask(body={"max_tokens_out": 7})
        assert status == 200
        assert answer["emulated"] is True
        assert answer["usage"] == {"tokens_in": 5, "tokens_cached": 0, "tokens_out": 7}
        assert answer["output"].split() == ["emulated"] * 7
        assert answer["latency_s"] >= 0.002 + 5e-6 + 7 * 0.0005

    recording = serve(test, path)
    (arrived,) = told(recording, Arrived)
    assert arrived.request.max_tokens_out == 7
    assert b"due in May" not in files_of(path)[0].read_bytes(), "contents are not written down"


def test_a_stream_comes_in_pieces_and_ends_with_the_summary(path):
    async def test(client):
        events = await client.events()
        *pieces, last = events
        assert "".join(piece["delta"] for piece in pieces).split() == ["emulated"] * 20
        assert len(pieces) == 2
        assert last["done"] is True
        assert last["usage"]["tokens_out"] == 20

    serve(test, path)


def test_a_list_of_messages_is_a_task_too(path):
    async def test(client):
        status, answer, _ = await client.ask(body={"input": [{"role": "user", "content": "x" * 400}]})
        assert status == 200
        assert 100 <= answer["usage"]["tokens_in"] <= 115

    serve(test, path)


def test_a_hundred_clients_at_once(path):
    async def test(client):
        answers = await asyncio.gather(*(client.ask() for _ in range(100)))
        assert {status for status, _, _ in answers} == {200}
        assert len({answer["id"] for _, answer, _ in answers}) == 100
        state = (await client.state())["agents"]["tax"]
        assert state["outcomes"] == {"answered": 100}
        assert (state["open"], state["waiting"], state["in_flight"]) == (0, 0, 0)
        assert state["latency_s"]["n"] == 100
        assert 0.0 < state["latency_s"]["p50"] <= state["latency_s"]["p95"] < DEADLINE_S
        assert state["cost_usd"] == pytest.approx(100 * (5 * 1e-6 + 20 * 2e-6))

    assert len(told(serve(test, path), Answer)) == 100


def test_the_cache_is_asked_for_and_belongs_to_a_tenant(path):
    keys = {"GLOWSIM_KEYS": f"ann@acme:{KEY},bob@beta:{OTHER}"}

    async def test(client):
        told = [
            (await client.ask(body={"cache": cache}, key=key))[1]["answered"]
            for cache, key in [(True, KEY), (True, KEY), (False, KEY), (True, OTHER)]
        ]
        assert told == ["own", "cached", "own", "own"]

    serve(test, path, keys)


def test_a_repeat_is_answered_once_and_a_reused_key_refused(path):
    keys = {"GLOWSIM_KEYS": f"ann:{KEY},bob:{OTHER}"}
    header = {"Idempotency-Key": "order-7"}

    async def test(client):
        first = await client.ask(key=KEY, headers=header)
        again = await client.ask(key=KEY, body={"idempotency_key": "order-7"})
        assert (first[1]["answered"], again[1]["answered"]) == ("own", "repeated")
        other = await client.ask(key=OTHER, headers=header)
        assert other[1]["answered"] == "own", "somebody else's key is another key"
        status, answer, _ = await client.ask(key=KEY, body={"input": "pay more"}, headers=header)
        assert (status, answer["error"]["code"]) == (409, "key_reused")

    serve(test, path, keys)


# --- what is refused --------------------------------------------------------------------------------


def test_without_a_valid_key_nothing_is_served_or_told(path):
    async def test(client):
        for key in (None, "wrong-key-0123456789", OTHER[:-1]):
            status, _, headers = await client.ask(key=key)
            assert status == 401
            assert "Bearer" in headers["WWW-Authenticate"]
            assert (await client.get("/v1/agents"))[0] == 401
        assert (await client.ask(key=OTHER))[0] == 200
        assert (await client.get("/healthz"))[0] == 200

    recording = serve(test, path, {"GLOWSIM_KEYS": f"ann:{KEY},bob:{OTHER}"})
    assert len(told(recording, Arrived)) == 1
    assert OTHER.encode() not in files_of(path)[0].read_bytes()


def test_the_admins_side_has_its_own_token(path):
    async def test(client):
        for page in ("/state", "/metrics", "/journal"):
            assert (await client.get(page, admin=True))[0] == 401
            assert (await client.get(page, admin=True, Authorization=f"Bearer {KEY}"))[0] == 401
            assert (await client.get(page, admin=True, Authorization=f"Bearer {TOKEN}"))[0] == 200
            assert (await client.get(page))[0] == 404, "not on the data plane"

    serve(test, path, {"GLOWSIM_KEYS": f"ann:{KEY}", "GLOWSIM_ADMIN_TOKEN": TOKEN})


JSON = {"Content-Type": "application/json"}


def test_what_is_no_task_is_refused_in_json(path):
    async def chunks():
        for _ in range(3):
            yield b"x" * 500

    async def test(client):
        cases = [
            (413, {"data": b"x" * 2000, "headers": JSON}, "larger than 1000 bytes"),
            (413, {"data": chunks(), "headers": JSON}, "larger than 1000 bytes"),
            (400, {"data": b"{", "headers": JSON}, "body"),
            (400, {"data": b"[" * 900, "headers": JSON}, "body"),
            (400, {"body": {"colour": "red"}}, "colour"),
            (400, {"body": {"priority": 10}}, "priority"),
            (400, {"body": {"input": []}}, "input"),
            (415, {"data": b"{}", "headers": {"Content-Type": "text/plain"}}, "application/json"),
            (404, {"agent": "nobody"}, "there is no agent 'nobody'"),
            (431, {"headers": {"X-Large": "x" * 5000}}, "headers"),
        ]
        for expected, given, said in cases:
            status, answer, _ = await client.ask(**given)
            assert (status, said in answer["error"]["message"]) == (expected, True), (given, answer)
        async with client.session.get(f"{client.daemon.address}/v1/agents/tax/tasks") as response:
            assert response.status == 405
            assert "error" in await response.json()
        assert (await client.ask())[0] == 200

    recording = serve(test, path, max_body_bytes=1000, max_header_bytes=4096)
    assert len(told(recording, Arrived)) == 1


def test_a_body_that_does_not_come_is_not_waited_for(path):
    async def test(client):
        async def stalls():
            yield b'{"input":'
            await asyncio.Event().wait()

        status, answer, _ = await client.ask(data=stalls(), headers=JSON)
        assert (status, "within 0.2 s" in answer["error"]["message"]) == (408, True)

    serve(test, path, body_timeout_s=0.2)


def test_a_body_that_says_it_is_too_large_is_not_read(path):
    async def test(client):
        async def stalls():
            yield b"{"
            await asyncio.Event().wait()

        status, _, _ = await client.ask(data=stalls(), headers=JSON | {"Content-Length": "20000000"})
        assert status == 413

    serve(test, path, body_timeout_s=3600.0)


def test_over_the_limit_says_when_to_come_back(path):
    async def test(client):
        assert (await client.ask("limited"))[0] == 200
        status, answer, headers = await client.ask("limited")
        assert (status, answer["error"]["code"]) == (429, "limited")
        assert 3000 <= int(headers["Retry-After"]) <= 3600

    serve(test, path)


# --- instances behind URLs --------------------------------------------------------------------------


def answers(output="fine", status=200, seen=None, headers=None, **more):
    async def handler(request):
        from aiohttp import web

        if seen is not None:
            seen.append(await request.json())
        usage = {"tokens_in": 11, "tokens_cached": 3, "tokens_out": 2}
        return web.json_response({"output": output, "usage": usage, **more}, status=status, headers=headers)

    return handler


def test_an_instance_behind_a_url_is_asked_and_is_not_emulated(path):
    seen = []

    async def test(client):
        status, answer, _ = await client.ask(body={"max_tokens_out": 9})
        assert (status, answer["output"], answer["emulated"]) == (200, "fine", False)
        assert answer["usage"] == {"tokens_in": 11, "tokens_cached": 3, "tokens_out": 2}
        agents = json.loads((await client.get("/v1/agents"))[1])["agents"]
        assert {each["name"]: each["emulated"] for each in agents} == {
            "tax": False,
            "slow": True,
            "limited": True,
            "watched": True,
            "sorry": True,
        }
        assert (await client.state())["agents"]["tax"]["emulated"] is False

    serve_upstreams(test, path, answers(seen=seen))
    assert seen == [{"input": "What is due in May?", "max_tokens_out": 9, "stream": False}]


def test_the_score_that_an_agent_gives_its_answer_reaches_the_controllers(path):
    async def test(client):
        assert (await client.ask())[0] == 200

    recording = serve_upstreams(test, path, answers(score=0.25))
    assert [each.usage.score for each in told(recording, Finished)] == [0.25]


@pytest.mark.parametrize("score", [1.1, -0.1, "0.9", True, [1]])
def test_a_score_that_is_no_share_is_an_error_of_the_instance(path, score):
    async def test(client):
        assert (await client.ask())[0] == 502

    recording = serve_upstreams(test, path, answers(score=score))
    assert {each.outcome for each in told(recording, Finished)} == {Outcome.ERROR}


def test_an_instance_that_fails_is_left_for_the_other_one(path):
    async def test(client):
        statuses = [(await client.ask())[0] for _ in range(6)]
        assert statuses == [200] * 6

    recording = serve_upstreams(test, path, answers(status=500), answers())
    finished = told(recording, Finished)
    assert Outcome.ERROR in {each.outcome for each in finished}
    place = {each.attempt: (each.request_id, each.instance) for each in told(recording, Dispatch)}
    for each in finished:
        if each.outcome == Outcome.ERROR:
            request_id, instance = place[each.attempt]
            assert instance == 0
            assert (request_id, 1) in place.values(), "tried again on the other"


@pytest.mark.parametrize(
    ("status", "outcome", "shown", "attempts"),
    [(400, Outcome.INVALID, 422, 1), (500, Outcome.ERROR, 502, 3), (302, Outcome.ERROR, 502, 3)],
)
def test_what_an_instance_answers_becomes_what_the_client_gets(path, status, outcome, shown, attempts):
    async def test(client):
        assert (await client.ask())[0] == shown

    headers = {"Location": "http://127.0.0.1:1/"} if status == 302 else None
    recording = serve_upstreams(test, path, answers(status=status, headers=headers))
    assert [each.outcome for each in told(recording, Finished)] == [outcome] * attempts


def test_an_instance_that_goes_is_unreachable(path):
    async def gone(request):
        request.transport.abort()

    async def test(client):
        assert (await client.ask())[0] == 502

    recording = serve_upstreams(test, path, gone)
    assert {each.outcome for each in told(recording, Finished)} == {Outcome.UNREACHABLE}


def test_an_answer_that_cannot_be_read_is_an_error(path):
    async def garbled(request):
        from aiohttp import web

        return web.Response(text="{", content_type="application/json")

    async def test(client):
        assert (await client.ask())[0] == 502

    serve_upstreams(test, path, garbled)


def test_openai_style_instances_are_understood(path):
    seen = []

    async def openai(request):
        from aiohttp import web

        asked = await request.json()
        seen.append(asked)
        usage = {"prompt_tokens": 11, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}}
        if not asked.get("stream"):
            choices = [{"message": {"role": "assistant", "content": "fine"}}]
            return web.json_response({"choices": choices, "usage": usage})
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for text in ("fi", "ne"):
            event = {"choices": [{"delta": {"content": text}}]}
            await response.write(f"data: {json.dumps(event)}\n\n".encode())
        await response.write(
            f"data: {json.dumps({'choices': [], 'usage': usage})}\n\ndata: [DONE]\n\n".encode()
        )
        return response

    async def test(client):
        expected = {"tokens_in": 11, "tokens_cached": 4, "tokens_out": 2}
        _, answer, _ = await client.ask()
        assert (answer["output"], answer["usage"]) == ("fine", expected)
        *pieces, last = await client.events()
        assert [piece["delta"] for piece in pieces] == ["fi", "ne"]
        assert last["usage"] == expected

    serve_upstreams(test, path, openai, path="/v1/chat/completions")
    plain, streamed = seen
    assert plain == {
        "model": "m",
        "messages": [{"role": "user", "content": "What is due in May?"}],
        "max_tokens": 4096,
    }
    assert streamed["stream"] is True


@pytest.mark.parametrize("how", ["abort", "stops"])
def test_an_instance_that_dies_in_mid_stream_breaks_the_stream_and_is_not_asked_again(path, how):
    asked = []

    async def dies(request):
        from aiohttp import web

        asked.append(1)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b'data: {"delta": "half an ans"}\n\n')
        if how == "abort":
            request.transport.abort()
        return response

    async def test(client):
        events = await client.events()
        assert events[0] == {"delta": "half an ans"}
        assert [event["error"]["code"] for event in events[1:]] == ["broken_stream"]

    recording = serve_upstreams(test, path, dies, dies)
    assert len(asked) == len(told(recording, Dispatch)) == 1
    assert [each.outcome for each in told(recording, Finished)] == [Outcome.UNREACHABLE]


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_disconnects_takes_the_instances_work_with_it(path, stream):
    begun, gone = [], []

    async def forever(request):
        from aiohttp import web

        try:
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            if stream:
                await response.prepare(request)
                await response.write(b'data: {"delta": "a"}\n\n')
            begun[0].set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            gone[0].set()
            raise

    async def test(client):
        begun.append(asyncio.Event())
        gone.append(asyncio.Event())
        asking = asyncio.create_task(client.ask(body={"stream": stream}))
        await begun[0].wait()
        asking.cancel()
        await gone[0].wait()

    recording = serve_upstreams(test, path, forever)
    assert len(told(recording, Abandoned)) == 1
    assert [each.outcome for each in told(recording, Finished)] == [Outcome.CANCELLED]


def test_an_instance_is_asked_how_it_is_and_given_up_when_it_says_nothing(path):
    asked = []

    async def silent(request):
        asked.append((request.method, request.path))
        if request.method == "POST":
            await asyncio.Event().wait()
        from aiohttp import web

        return web.Response()

    async def test(client):
        status, answer, _ = await client.ask("watched")
        assert (status, "TIMEOUT" in json.dumps(answer)) == (504, True)

    recording = serve_upstreams(test, path, silent, path="/run", agent="watched", health_path="/health")
    assert {each.outcome for each in told(recording, Finished)} == {Outcome.TIMEOUT}
    probed = told(recording, Probed)
    assert probed
    assert {well for each in probed for _, well in each.results} == {True}
    assert ("GET", "/health") in asked


def test_a_path_of_health_checks_begins_with_a_slash(path):
    from glowsim.live.settings import SettingsError

    with pytest.raises(SettingsError, match="health_path"):
        serve(None, path, upstreams={"tax": ["http://127.0.0.1:1/"]}, health_path="health")


# --- the admin's side -------------------------------------------------------------------------------


def test_metrics_are_well_formed_and_count_what_happened(path):
    async def test(client):
        from prometheus_client.parser import text_string_to_metric_families

        for _ in range(3):
            await client.ask(body={"cache": True})
        await client.events()
        await client.ask("limited")
        await client.ask("limited")
        status, said, _ = await client.ask("sorry")
        assert (status, said["answered"]) == (200, "apology")
        assert said["output"].startswith("I am sorry")
        status, text = await client.get("/metrics", admin=True)
        assert status == 200
        value = {
            (sample.name, *sample.labels.values()): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }
        assert value["glowsim_requests_total", "sorry", "m", "apologised"] == 1
        assert value["glowsim_request_duration_seconds_count", "sorry"] == 0
        assert value["glowsim_requests_total", "tax", "m", "answered"] == 2
        assert value["glowsim_requests_total", "tax", "", "answered"] == 2, "by the cache, by no model"
        assert value["glowsim_requests_total", "limited", "", "rejected"] == 1
        assert value["glowsim_ratelimited_total", "limited", "agent"] == 1
        assert value["glowsim_cache_requests_total", "tax", "hit"] == 2
        assert value["glowsim_cache_requests_total", "tax", "miss"] == 1
        assert value["glowsim_request_duration_seconds_count", "tax"] == 4
        assert value["glowsim_request_duration_seconds_bucket", "tax", "+Inf"] == 4
        assert value["glowsim_time_to_first_token_seconds_count", "tax"] == 1
        assert value["glowsim_ready_replicas", "tax"] == 2
        assert value["glowsim_agent_up", "slow"] == 1
        began_s = value["process_start_time_seconds",]
        assert 0.0 < began_s <= time.time(), "from which counters count"

    serve(test, path)


def test_the_journal_that_is_shown_holds_what_happened_before(path):
    async def test(client):
        await client.ask()
        shown = json.loads((await client.get("/journal", admin=True))[1])
        assert Path(shown["path"]) == path
        assert shown["bytes"] == sum(each.stat().st_size for each in files_of(path))
        assert len(told(read(path), Answer)) == 1

    serve(test, path)


# --- beginnings and ends ----------------------------------------------------------------------------


def test_a_daemon_goes_on_with_its_journal(path):
    async def test(client):
        _, answer, _ = await client.ask(body={"cache": True})
        ids.append(answer["id"])

    ids = []
    serve(test, path)
    recording = serve(test, path)
    assert ids[0] == 1
    assert ids[1] > 1
    assert [each.name for each in path.iterdir()] == ["00000001.glow", "00000002.glow"]
    assert len(told(recording, Answer)) >= 2


def begin(path, text=TEXT, **given):
    """Begin to serve and stop at once: a refusal that does not come ends, too."""
    from glowsim.live.daemon import serving
    from glowsim.live.settings import settings

    async def main():
        some = {"port": 0, "admin_port": 0, "journal_path": path, "environment": {}} | given
        async with serving(load(text), settings(**some)):
            pass

    asyncio.run(main())


def test_what_cannot_be_served_is_refused_before_anything_is_written(path):
    from glowsim.live.settings import SettingsError

    with pytest.raises(SettingsError, match="did you mean tax"):
        begin(path, upstreams={"tex": ["http://127.0.0.1:1/"]})
    with pytest.raises(SettingsError, match="set GLOWSIM_KEYS"):
        begin(path, host="0.0.0.0")
    assert not path.exists()


def test_a_journal_of_something_else_is_left_alone(path):
    path.write_bytes(b"a diary")
    with pytest.raises(JournalError, match="not a glowsim journal"):
        begin(path)
    assert path.read_bytes() == b"a diary"
    path.unlink()
    Journal(build.header(load(TEXT, ["seed=2"]), 0), path).close()
    with pytest.raises(JournalError, match="of another scenario"):
        begin(path)


def test_a_port_in_use_is_said(path):
    from glowsim.live.settings import SettingsError

    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(SettingsError, match="cannot listen"):
        begin(path, port=taken.getsockname()[1])


def test_an_agent_whose_answers_have_no_length_cannot_be_emulated(path):
    trace = "  - {kind: trace, format: azure_llm, file: some.csv, agents: all}"
    with pytest.raises(build.BuildError, match="give it an --upstream"):
        begin(path, re.sub(r"  - \{kind: poisson.*", trace, TEXT))


def test_an_agent_that_works_in_steps_cannot_be_emulated_either():
    text = (
        "title: t\nquestion: q\nseed: 1\nduration: 5m\nservers: {s: {engine: hosted, preset: good}}\n"
        "models: {m: {input: $1/1M, output: $1/1M, server: s}}\n"
        "fleet: [{agent: a, model: m, instances: 1, concurrency: 1, service: {law: steps, steps: [{step: answer}]}}]\n"
        "workload: [{kind: poisson, rate: 1/s, tokens_in: 9, tokens_out: 9}]\n"
    )
    with pytest.raises(build.BuildError, match="a cannot be emulated: it works in steps"):
        Drawn(load(text), "a", Streams(1))


PROCESS = """
import sys
from pathlib import Path
from glowsim.live.daemon import run_daemon
from glowsim.scenario import load
scenario, journal = Path(sys.argv[1]), Path(sys.argv[2])
sys.exit(run_daemon(load(scenario), port=0, admin_port=0, journal_path=journal, grace_s=5.0))
"""


@asynccontextmanager
async def process(path):
    """A daemon in a process of its own, and a client of it; it is killed at the end, whatever happens."""
    import aiohttp

    from glowsim.live.daemon import Daemon

    file = path.with_name("scenario.yaml")
    file.write_text(TEXT)
    root = Path(__file__).parents[2]
    running = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROCESS, file, path, stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(root)},
    )  # fmt: skip
    try:
        async with asyncio.timeout(DEADLINE_S), aiohttp.ClientSession() as session:
            line = (await running.stdout.readline()).decode()
            address, admin = re.findall(r"http://[0-9.:]+", line)
            yield running, Client(Daemon(None, address, admin, None), session)
            assert await running.stdout.read() == b"", "one line and no more"
    finally:
        if running.returncode is None:
            running.kill()
            await running.wait()


def test_sigterm_lets_open_work_finish_and_exits_with_zero(path):
    async def main():
        async with process(path) as (running, client):
            await client.ask()
            working = [asyncio.create_task(client.ask("slow")) for _ in range(2)]
            while (await client.state())["agents"]["slow"]["open"] < 2:
                pass
            running.send_signal(signal.SIGTERM)
            answered = await asyncio.gather(*working)
            assert [status for status, _, _ in answered] == [200, 200]
            assert await running.wait() == 0

    asyncio.run(main())
    recording = read(path)
    assert not recording.torn
    assert len(told(recording, Answer)) == 3
    replays(recording)


def test_a_daemon_that_drains_turns_new_work_away(path):
    async def test(client):
        working = asyncio.create_task(client.ask("slow"))
        while not (await client.state())["agents"]["slow"]["open"]:
            pass
        closing = asyncio.create_task(client.daemon.driver.close(3.0))
        await asyncio.sleep(0)
        status, answer, headers = await client.ask()
        assert (status, answer["error"]["code"], headers["Retry-After"]) == (503, "closing", "1")
        assert (await client.get("/readyz"))[0] == 503
        assert (await working)[0] == 200
        await closing

    serve(test, path)


def test_kill_9_leaves_a_journal_that_reads_replays_and_is_gone_on_with(path):
    async def main():
        async with process(path) as (running, client):
            await asyncio.gather(*(client.ask(body={"cache": True, "input": f"{i % 9}"}) for i in range(60)))
            await client.get("/journal", admin=True)  # what was before is in the file now
            left = [asyncio.create_task(client.ask("slow")) for _ in range(3)]
            left += [asyncio.create_task(client.events()) for _ in range(20)]
            while (await client.state())["agents"]["slow"]["open"] < 3:
                pass
            await client.get("/journal", admin=True)
            running.kill()
            assert await running.wait() == -signal.SIGKILL
            await asyncio.gather(*left, return_exceptions=True)

    asyncio.run(main())
    recording = read(path)
    assert len(told(recording, Answer)) >= 60
    replays(recording)
    open_attempts = {r.attempt for r in told(recording, Dispatch)} - {
        r.attempt for r in told(recording, Finished)
    }
    assert open_attempts, "it was killed at work"

    async def test(client):
        assert (await client.ask())[0] == 200

    whole = serve(test, path)
    lost = {each.attempt for each in told(whole, Finished) if each.outcome == Outcome.LOST}
    assert lost == open_attempts
    assert told(whole, Abandoned), "their clients are let go of"
