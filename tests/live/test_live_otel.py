"""Traces and metrics of a daemon that serves, as a real receiver of OTLP over HTTP decodes them."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import logging
import os
import subprocess
import sys

import pytest
from loopback import answering

from glowsim.scenario import load

pytestmark = pytest.mark.usefixtures("_serving", "_otel")

TEXT = """
title: A small fleet
question: What does a collector hear?
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
  - agent: limited
    model: m
    instances: 1
    concurrency: 1
    service: {law: time, time: 1ms}
    controllers:
      limiter: {use: token_bucket, rate: 1/h, burst: 1}
workload:
  - {kind: poisson, rate: 1/s, agents: all, tokens_in: 100, tokens_out: 20}
controllers:
  cache: {use: lru, entries: 10, ttl: 60s}
  retrier: {use: backoff, attempts: 3, base: 1ms}
live:
  otel: true
"""
ASKED = "What is due in May?"
ANSWERED = "The return for April."
TRACE_ID, PARENT_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE_ID}-{PARENT_ID}-01"
ANSWER = {
    "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": ANSWERED}, "finish_reason": "length"}],
    "usage": {"prompt_tokens": 24, "completion_tokens": 6, "total_tokens": 30,
              "prompt_tokens_details": {"cached_tokens": 8}},
}  # fmt: skip
DURATIONS = [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92]
DEADLINE_S = 60.0


@pytest.fixture(scope="module")
def _otel():
    if importlib.util.find_spec("opentelemetry.sdk") is None:
        message = "OpenTelemetry is missing: install glowsim[otel]"
        if os.environ.get("GLOWSIM_CI") == "1":
            pytest.fail(message)
        pytest.skip(message)


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    """Have everything sent soon, and nothing of this machine's own settings."""
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "50")
    levels = {name: logging.getLogger(name).level for name in logging.root.manager.loggerDict}
    yield
    for name in logging.root.manager.loggerDict:
        logging.getLogger(name).setLevel(levels.get(name, logging.NOTSET))


class Collector:
    """What was received."""

    def __init__(self):
        self.spans = []
        self.resources = []
        self.metrics = {}
        """Name -> the newest."""
        self.raw = b""
        self.news = asyncio.Condition()

    async def traces(self, request):
        from aiohttp import web
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        body = await request.read()
        said = ExportTraceServiceRequest.FromString(body)
        async with self.news:
            self.raw += body
            for each in said.resource_spans:
                self.resources.append(plain(each.resource.attributes))
                self.spans += [span for scope in each.scope_spans for span in scope.spans]
            self.news.notify_all()
        return web.Response(content_type="application/x-protobuf")

    async def measured(self, request):
        from aiohttp import web
        from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

        body = await request.read()
        said = ExportMetricsServiceRequest.FromString(body)
        async with self.news:
            self.raw += body
            for each in said.resource_metrics:
                self.metrics |= {
                    metric.name: metric for scope in each.scope_metrics for metric in scope.metrics
                }
            self.news.notify_all()
        return web.Response(content_type="application/x-protobuf")

    async def until(self, there):
        async with self.news:
            await self.news.wait_for(lambda: there(self))

    async def spans_of(self, count):
        """Return the server's spans and the attempts', in order of their beginning, once there are so many."""
        await self.until(lambda self: len(self.spans) >= count)
        assert len(self.spans) == count
        spans = sorted(self.spans, key=lambda span: span.start_time_unix_nano)
        return [span for span in spans if span.kind == 2], [span for span in spans if span.kind != 2]

    def points(self, name):
        """Return (attributes, count, sum) of a histogram's series."""
        return [(plain(p.attributes), p.count, p.sum) for p in self.metrics[name].histogram.data_points]


def plain(attributes):
    def value(each):
        kind = each.WhichOneof("value")
        return [value(v) for v in each.array_value.values] if kind == "array_value" else getattr(each, kind)

    return {each.key: value(each.value) for each in attributes}


def at_port(**routes):
    """An HTTP server on loopback: path (slashes as underscores) -> handler."""

    async def routed(request):
        return await routes[request.path.strip("/").replace("/", "__")](request)

    return answering(routed)


def serve(test, path, monkeypatch, instance=None, overrides=(), endpoint=None):
    """Run a test against a daemon that reports to a collector; with an instance, agent tax is real."""
    import aiohttp

    from glowsim.live.daemon import serving
    from glowsim.live.settings import settings

    async def main():
        collector = Collector()
        async with (
            asyncio.timeout(DEADLINE_S),
            at_port(v1__traces=collector.traces, v1__metrics=collector.measured) as where,
            at_port(v1__chat__completions=instance or collector.traces) as url,
        ):
            monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint or where)
            upstreams = {"tax": [f"{url}/v1/chat/completions"] * 2} if instance else {}
            chosen = settings(
                environment={},
                journal_path=path / "j",
                port=0,
                admin_port=0,
                grace_s=4.0,
                upstreams=upstreams,
            )
            async with serving(load(TEXT, overrides), chosen) as daemon, aiohttp.ClientSession() as session:

                async def ask(model="tax", headers=None, **given):
                    body = {"model": model, "messages": [{"role": "user", "content": ASKED}], "max_tokens": 9}
                    async with session.post(
                        f"{daemon.address}/v1/chat/completions", json=body | given, headers=headers
                    ) as response:
                        return response.status, await response.text()

                ask.daemon, ask.session, ask.url = daemon, session, url
                await test(ask, collector)
        return collector

    return asyncio.run(main())


def test_a_request_is_a_trace_with_a_span_for_every_attempt(tmp_path, monkeypatch):
    heard = []

    async def instance(request):
        from aiohttp import web

        heard.append(dict(request.headers))
        return (
            web.json_response({"error": {"message": "busy"}}, status=500)
            if len(heard) == 1
            else web.json_response(ANSWER)
        )

    async def test(ask, collector):
        status, text = await ask(headers={
            "traceparent": TRACEPARENT, "tracestate": "vendor=1", "baggage": "team=tax", "X-Glowsim-Session": "s-1",
        })  # fmt: skip
        assert (status, json.loads(text)["choices"][0]["message"]["content"]) == (200, ANSWERED)
        (server,), attempts = await collector.spans_of(3)
        assert (server.trace_id.hex(), server.parent_span_id.hex()) == (TRACE_ID, PARENT_ID)
        assert server.name == "POST /v1/chat/completions"
        said = plain(server.attributes)
        assert said.pop("url.path") == said.pop("http.route") == "/v1/chat/completions"
        assert said == {
            "http.request.method": "POST", "url.scheme": "http", "http.response.status_code": 200,
            "gen_ai.operation.name": "chat", "gen_ai.request.model": "tax", "gen_ai.agent.name": "tax",
            "glowsim.answered": "own",
        }  # fmt: skip
        assert server.status.code == 0
        first, second = attempts
        port = int(ask.url.rpartition(":")[2])
        session = plain(first.attributes)["gen_ai.conversation.id"]
        assert len(session) == 16, "a keyed hash"
        for number, span in enumerate(attempts, 1):
            assert (span.trace_id, span.parent_span_id) == (server.trace_id, server.span_id)
            assert (span.name, span.kind) == ("chat m", 3)
            about = {
                "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "m",
                "gen_ai.agent.name": "tax", "gen_ai.request.max_tokens": 9, "server.address": "127.0.0.1",
                "server.port": port, "glowsim.attempt": number, "gen_ai.conversation.id": session,
            }  # fmt: skip
            assert plain(span.attributes).items() >= about.items()
            assert server.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
            assert span.end_time_unix_nano <= server.end_time_unix_nano
        assert (plain(first.attributes)["error.type"], first.status.code) == ("error", 2)
        assert "gen_ai.usage.input_tokens" not in plain(first.attributes)
        used = plain(second.attributes)
        assert "error.type" not in used
        assert used["gen_ai.response.finish_reasons"] == ["length"]
        assert [used[f"gen_ai.usage.{each}"] for each in ("input_tokens", "output_tokens")] == [24, 6]
        assert used["gen_ai.usage.cache_read.input_tokens"] == 8
        for span, headers in zip(attempts, heard, strict=True):
            assert headers["traceparent"] == f"00-{TRACE_ID}-{span.span_id.hex()}-01"
            assert (headers["tracestate"], headers["baggage"]) == ("vendor=1", "team=tax")
        resource = collector.resources[0]
        assert resource["service.name"] == "glowsim"

    collector = serve(test, tmp_path, monkeypatch, instance)
    for secret in (ASKED, ANSWERED, "s-1", "busy"):
        assert secret.encode() not in collector.raw


def test_metrics_have_the_names_units_and_buckets_of_the_conventions(tmp_path, monkeypatch):
    from aiohttp import web

    async def instance(request):
        if not (await request.json()).get("stream"):
            return web.json_response(ANSWER)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for delta, finish in (({"role": "assistant", "content": ANSWERED}, None), ({}, "stop")):
            chunk = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m",
                     "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
                     "usage": {"prompt_tokens": 24, "completion_tokens": 6} if finish else None}  # fmt: skip
            await response.write(f"data: {json.dumps(chunk)}\n\n".encode())
        await response.write(b"data: [DONE]\n\n")
        return response

    async def test(ask, collector):
        assert (await ask())[0] == (await ask())[0] == 200
        status, text = await ask(stream=True, stream_options={"include_usage": True})
        assert status == 200
        assert ANSWERED in text
        servers, attempts = await collector.spans_of(6)
        streamed = plain(attempts[2].attributes)
        assert (
            streamed["gen_ai.request.stream"] is plain(servers[2].attributes)["gen_ai.request.stream"] is True
        )
        assert streamed["gen_ai.response.finish_reasons"] == ["stop"]
        name = "gen_ai.server.request.duration"
        await collector.until(lambda self: name in self.metrics and sum(p[1] for p in self.points(name)) == 3)
        about = {"gen_ai.operation.name": "chat", "gen_ai.agent.name": "tax"}
        client = about | {"gen_ai.provider.name": "openai", "gen_ai.request.model": "m"}
        server = about | {"gen_ai.provider.name": "glowsim", "gen_ai.request.model": "tax"}
        for name, unit, bounds, points in (
            ("gen_ai.client.operation.duration", "s", DURATIONS, [(client, 3)]),
            ("gen_ai.client.operation.time_to_first_chunk", "s", DURATIONS, [(client, 1)]),
            ("gen_ai.client.token.usage", "{token}", [4**n for n in range(14)],
             [(client | {"gen_ai.token.type": "input"}, 3), (client | {"gen_ai.token.type": "output"}, 3)]),
            ("gen_ai.server.request.duration", "s", DURATIONS, [(server, 3)]),
            ("gen_ai.server.time_to_first_token", "s", FIRST_TOKEN, [(server, 1)]),
        ):  # fmt: skip
            metric = collector.metrics[name]
            assert metric.unit == unit
            assert list(metric.histogram.data_points[0].explicit_bounds) == bounds
            assert [(attributes, count) for attributes, count, _ in collector.points(name)] == points
        assert [total for _, _, total in collector.points("gen_ai.client.token.usage")] == [3 * 24, 3 * 6]
        first_s = streamed["gen_ai.response.time_to_first_chunk"]
        ((_, _, total),) = collector.points("gen_ai.client.operation.time_to_first_chunk")
        assert total == first_s > 0.0

    serve(test, tmp_path, monkeypatch, instance)


FIRST_TOKEN = [0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0]


def test_what_fails_or_is_refused_says_so(tmp_path, monkeypatch):
    from aiohttp import web

    async def instance(request):
        return web.json_response({"error": {"message": "no"}}, status=503)

    async def test(ask, collector):
        assert (await ask())[0] == 502
        servers, attempts = await collector.spans_of(4)
        assert [plain(span.attributes)["glowsim.attempt"] for span in attempts] == [1, 2, 3]
        said = plain(servers[0].attributes)
        assert (said["error.type"], said["http.response.status_code"]) == ("error", 502)
        assert servers[0].status.code == 2
        collector.spans.clear()
        assert [(await ask("limited"))[0] for _ in range(2)] == [200, 429]
        assert (await ask("nobody"))[0] == 404
        servers, (attempt,) = await collector.spans_of(4)
        assert [span.status.code for span in servers] == [0, 0, 0], (
            "what a client does wrong is no error here"
        )
        said = [plain(span.attributes) for span in servers]
        assert [each["http.response.status_code"] for each in said] == [200, 429, 404]
        assert [each.get("gen_ai.agent.name") for each in said] == ["limited", "limited", None]
        assert attempt.parent_span_id == servers[0].span_id
        assert (attempt.kind, plain(attempt.attributes)["gen_ai.provider.name"]) == (1, "emulated")
        assert "server.address" not in plain(attempt.attributes)
        name = "gen_ai.client.operation.duration"
        await collector.until(lambda self: sum(p[1] for p in self.points(name)) == 4)
        errors = {p[0].get("error.type"): p[1] for p in collector.points(name)}
        assert errors == {"error": 3, None: 1}

    serve(test, tmp_path, monkeypatch, instance)


def test_a_stream_that_breaks_is_an_error_though_its_status_was_200(tmp_path, monkeypatch):
    from aiohttp import web

    async def instance(request):
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        chunk = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m",
                 "choices": [{"index": 0, "delta": {"content": ANSWERED}, "finish_reason": None}]}  # fmt: skip
        await response.write(f"data: {json.dumps(chunk)}\n\n".encode())
        request.transport.close()
        return response

    async def test(ask, collector):
        status, text = await ask(stream=True)
        assert (status, ANSWERED in text) == (200, True)
        (server,), (attempt,) = await collector.spans_of(2)
        said = plain(server.attributes)
        assert (said["http.response.status_code"], said["error.type"]) == (200, "unreachable")
        assert plain(attempt.attributes)["error.type"] == "unreachable"
        assert server.status.code == attempt.status.code == 2

    serve(test, tmp_path, monkeypatch, instance)


def test_a_client_that_goes_away_leaves_whole_spans(tmp_path, monkeypatch):
    begun = asyncio.Event()

    async def instance(request):
        begun.set()
        await asyncio.Event().wait()

    async def test(ask, collector):
        asking = asyncio.create_task(ask())
        await begun.wait()
        asking.cancel()
        (server,), (attempt,) = await collector.spans_of(2)
        assert plain(server.attributes)["error.type"] == "client_gone"
        assert plain(attempt.attributes)["error.type"] == "cancelled"
        assert server.status.code == attempt.status.code == 0

    serve(test, tmp_path, monkeypatch, instance)


def test_tasks_invoke_an_agent_and_cached_answers_have_no_attempt(tmp_path, monkeypatch):
    async def test(ask, collector):
        for _ in range(2):
            url = f"{ask.daemon.address}/v1/agents/tax/tasks"
            async with ask.session.post(url, json={"input": ASKED, "cache": True}) as response:
                assert response.status == 200
        async with ask.session.get(f"{ask.daemon.address}/v1/agents") as response:
            assert response.status == 200
        servers, (attempt,) = await collector.spans_of(3)
        assert [span.name for span in servers] == ["POST /v1/agents/{agent}/tasks"] * 2, "pages have none"
        assert attempt.name == "invoke_agent tax"
        assert len({span.trace_id for span in servers}) == 2, "each began a trace of its own"

    serve(test, tmp_path, monkeypatch)


def test_what_a_client_does_not_sample_is_passed_on_and_not_sent(tmp_path, monkeypatch):
    heard = []

    async def instance(request):
        from aiohttp import web

        heard.append(request.headers["traceparent"])
        return web.json_response(ANSWER)

    async def test(ask, collector):
        await ask(headers={"traceparent": TRACEPARENT[:-1] + "0"})
        await ask(headers={"traceparent": "00-rubbish", "tracestate": "vendor=1"})
        servers, _ = await collector.spans_of(2)
        trace, span, flags = heard[0].split("-")[1:]
        assert (trace, flags) == (TRACE_ID, "00")
        assert span != PARENT_ID
        assert heard[1].split("-")[1] == servers[0].trace_id.hex() != TRACE_ID
        assert servers[0].trace_state == ""

    serve(test, tmp_path, monkeypatch, instance)


def test_a_collector_that_is_not_there_is_said_once_and_stops_nothing(
    tmp_path, monkeypatch, unused_port, caplog
):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.1")
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "4")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "2")

    async def test(ask, collector):
        while len(said(caplog)) < 2:
            assert (await ask())[0] == 200
        for _ in range(30):
            assert (await ask())[0] == 200

    serve(test, tmp_path, monkeypatch, endpoint=f"http://user:password@127.0.0.1:{unused_port}")
    assert sorted(each for each in said(caplog) if "do not reach" in each) == [
        f"OpenTelemetry: {what} do not reach 127.0.0.1:{unused_port} and are dropped until they do"
        for what in ("metrics", "spans")
    ]
    assert not [each for each in caplog.records if each.name.startswith("opentelemetry")]


def said(caplog):
    return [each.getMessage() for each in caplog.records if each.name == "glowsim.live.otel_export"]


def test_a_collector_that_never_answers_holds_up_neither_answers_nor_the_end(tmp_path, monkeypatch):
    async def silent(request):
        await asyncio.Event().wait()

    async def test(ask, collector):
        assert {(await ask())[0] for _ in range(20)} == {200}

    async def main():
        async with at_port(v1__traces=silent, v1__metrics=silent) as where:
            await asyncio.to_thread(serve, test, tmp_path, monkeypatch, endpoint=where)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("OTEL_TRACES_EXPORTER", "zipkin", "give otlp or none"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "give http/protobuf"),
    ],
)
def test_what_is_not_offered_is_refused_at_once(tmp_path, monkeypatch, name, value, says):
    from glowsim.live.settings import SettingsError

    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=f"{name}.*{says}"):
        serve(None, tmp_path, monkeypatch)


def test_the_environment_may_forbid_it(tmp_path, monkeypatch):
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")

    async def test(ask, collector):
        assert (await ask())[0] == 200

    collector = serve(test, tmp_path, monkeypatch)
    assert not collector.raw


def test_metrics_alone_may_be_sent(tmp_path, monkeypatch):
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")

    async def test(ask, collector):
        await ask()
        await collector.until(lambda self: "gen_ai.server.request.duration" in self.metrics)

    assert not serve(test, tmp_path, monkeypatch).spans


def test_without_the_extra_it_says_what_to_install(tmp_path, monkeypatch):
    from glowsim.live.settings import SettingsError

    for name in ("glowsim.live.otel", "glowsim.live.otel_export"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.metric_exporter", None)
    with pytest.raises(SettingsError, match=r"pip install 'glowsim\[otel\]'"):
        serve(None, tmp_path, monkeypatch)


def test_off_nothing_of_it_is_imported(tmp_path):
    script = f"""
import asyncio, sys
from glowsim.live.daemon import serving
from glowsim.live.settings import settings
from glowsim.scenario import load

async def main():
    chosen = settings(environment={{}}, journal_path={str(tmp_path / "j")!r}, port=0, admin_port=0)
    async with serving(load({TEXT.replace("otel: true", "otel: false")!r}), chosen):
        pass

asyncio.run(main())
assert not [name for name in sys.modules if name.startswith(("opentelemetry", "google.protobuf", "requests"))]
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
