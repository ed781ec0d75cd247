"""OpenTelemetry: a server span for each request, a span for each attempt beneath it, and metrics; the extra ``otel``.

Names are those of the semantic conventions for generative AI (open-telemetry/semantic-conventions-genai, all of them
still in development) and of the stable ones for HTTP and errors. Contents of messages are never read.

A span of a request begins and ends around the gateway, as ASGI middleware; one of an attempt is the driver's: it begins
when an instance is called (`Tracing.calling`) and ends with its `Finished` (`Tracing.saw`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from math import isnan
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from opentelemetry.metrics import Histogram
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from glowsim.core.types import (
    Abandoned,
    Answer,
    Command,
    Event,
    Fail,
    Finished,
    InstanceChanged,
    Outcome,
    Reject,
    State,
    Usage,
)
from glowsim.live.calls import Call
from glowsim.live.content import Content
from glowsim.live.otel_export import Export
from glowsim.live.protocols import EMBEDDINGS, PATHS
from glowsim.live.telemetry import BUCKETS_S

__all__ = ["Spoken", "Tracing"]

_TOKENS = tuple(4**power for power in range(14))
_FIRST_TOKEN_S = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
_TASKS = ("/v1/agents/", "/tasks")
_LONGEST = 200
"""Characters of a path, which comes from outside."""
_TASKS_ROUTE = "/v1/agents/{agent}/tasks"
_CONTEXT = (b"traceparent", b"tracestate")
_TRACE = TraceContextTextMapPropagator()
_ENDS = (Answer, Fail, Reject)


class Spoken(NamedTuple):
    """How an agent's instances are spoken to."""

    provider: str
    """Whose API they speak: ``openai``, or the adapter's name for one of their own."""
    model: str | None
    """What they call their model; None: by the plan's name."""


class _Exchange:
    """A request at the gateway, while it is served."""

    __slots__ = ("begun_s", "error", "first_s", "operation", "span", "status", "streams")

    def __init__(self, span: Span, operation: str) -> None:
        self.span = span
        self.operation = operation
        self.begun_s = time.perf_counter()
        self.first_s: float | None = None
        """When the first piece of a stream went out."""
        self.status = 0
        self.streams = False
        self.error: str | None = None


class _Attempt(NamedTuple):
    span: Span
    call: Call
    begun_s: float
    attributes: dict[str, Any]
    """Of its metrics."""


class Tracing:
    """Makes spans and metrics, as the environment's ``OTEL_*`` variables say, and exports them by OTLP over HTTP.

    Parameters
    ----------
    agents
        Their names, by number.
    models
        Their names, by number.
    spoken
        How each agent's instances are spoken to, by its number.

    Raises
    ------
    SettingsError
        The environment asks for another exporter or protocol than OTLP over HTTP.
    """

    def __init__(self, agents: Sequence[str], models: Sequence[str], spoken: Sequence[Spoken]) -> None:
        self.export = Export()
        """Where they go; to be closed at the end."""
        self._agents = agents
        self._models = models
        self._spoken = spoken
        self.url_of: Callable[[int, int], str] = lambda agent, instance: ""
        """Returns the base URL of an agent's instance, empty where it has none; both by number."""
        self._open: dict[str, _Exchange] = {}
        """``traceparent`` of a request at the gateway -> the request."""
        self._asked: dict[int, _Exchange] = {}
        """Request of which an attempt was made -> itself at the gateway."""
        self._attempts: dict[int, _Attempt] = {}
        self._places: dict[int, dict[str, Any]] = {}
        """Instance -> its address, as attributes."""

        def histogram(name: str, unit: str, meaning: str, bounds: Sequence[float]) -> Histogram:
            return self.export.meter.create_histogram(
                name, unit, meaning, explicit_bucket_boundaries_advisory=bounds
            )

        self._duration = histogram(
            "gen_ai.client.operation.duration", "s", "How long an attempt took.", BUCKETS_S
        )
        self._tokens = histogram(
            "gen_ai.client.token.usage", "{token}", "Tokens that an attempt used.", _TOKENS
        )
        self._first_chunk = histogram(
            "gen_ai.client.operation.time_to_first_chunk", "s", "From an attempt's start.", BUCKETS_S
        )
        self._served = histogram("gen_ai.server.request.duration", "s", "How long a request took.", BUCKETS_S)
        self._first_token = histogram(
            "gen_ai.server.time_to_first_token", "s", "From a request's arrival.", _FIRST_TOKEN_S
        )

    # --- requests -------------------------------------------------------------------------------------

    def around(self, app: ASGIApp) -> ASGIApp:
        """Return the gateway with a span around every request to an agent; pages have none.

        The gateway, and so the instances, are given the span's own context in place of the client's.
        """

        async def traced(scope: Scope, receive: Receive, send: Send) -> None:
            route = _route(scope)
            if route is None:
                await app(scope, receive, send)
                return
            parent = {
                name.decode(): value.decode("latin-1") for name, value in scope["headers"] if name in _CONTEXT
            }
            operation = _operation_of(route)
            span = self.export.tracer.start_span(
                f"POST {route}", _TRACE.extract(parent), SpanKind.SERVER,
                {
                    "http.request.method": "POST", "http.route": route, "url.path": scope["path"][:_LONGEST],
                    "url.scheme": scope["scheme"], "gen_ai.operation.name": operation,
                },
            )  # fmt: skip
            exchange = _Exchange(span, operation)
            own = _context_of(span)
            others = [header for header in scope["headers"] if header[0] not in _CONTEXT]
            inner = {**scope, "headers": others + [(k.encode(), v.encode()) for k, v in own.items()]}
            self._open[own["traceparent"]] = exchange

            async def noting(message: Message) -> None:
                if message["type"] == "http.response.start":
                    self._begins(exchange, message)
                elif exchange.streams and exchange.first_s is None and message.get("body"):
                    exchange.first_s = time.perf_counter()
                await send(message)

            try:
                await app(inner, receive, noting)
            finally:
                del self._open[own["traceparent"]]
                self._ended(exchange, inner)

        return traced

    def _begins(self, exchange: _Exchange, message: Message) -> None:
        exchange.status = message["status"]
        for name, value in message["headers"]:
            if name == b"content-type":
                exchange.streams = value.startswith(b"text/event-stream")
            elif name == b"X-Glowsim-Answered":
                exchange.span.set_attribute("glowsim.answered", value.decode("latin-1"))

    def _ended(self, exchange: _Exchange, scope: Scope) -> None:
        now_s, span, status = time.perf_counter(), exchange.span, exchange.status
        attributes = {"gen_ai.operation.name": exchange.operation, "gen_ai.provider.name": "glowsim"}
        request = scope.get("glowsim.request")
        if request is not None:
            name = self._agents[request.agent]
            attributes |= {"gen_ai.request.model": name, "gen_ai.agent.name": name}
            span.set_attributes({"gen_ai.request.model": name, "gen_ai.agent.name": name})
        if status:
            span.set_attribute("http.response.status_code", status)
        error = exchange.error or (str(status) if status >= 500 else None if status else "client_gone")
        if exchange.streams:
            span.set_attribute("gen_ai.request.stream", True)
            if exchange.first_s is not None:
                self._first_token.record(exchange.first_s - exchange.begun_s, attributes)
        if error is not None:
            attributes["error.type"] = error
            span.set_attribute("error.type", error)
            if status:
                span.set_status(Status(StatusCode.ERROR))
        self._served.record(now_s - exchange.begun_s, attributes)
        span.end()

    # --- attempts -------------------------------------------------------------------------------------

    def calling(self, call: Call) -> None:
        """Begin the span of an attempt, and have its context go to the instance."""
        request, plan = call.request, call.plan
        spoken, agent = self._spoken[request.agent], self._agents[request.agent]
        exchange = self._open.get(call.passed_on.get("traceparent", ""))
        parent = _TRACE.extract(call.passed_on) if exchange is None else set_span_in_context(exchange.span)
        if exchange is not None:
            self._asked[request.request_id] = exchange
        model = spoken.model or self._models[plan.model]
        operation = _operation(call, spoken)
        place = self._place(request.agent, call.instance)
        about = {
            "gen_ai.operation.name": operation, "gen_ai.provider.name": spoken.provider,
            "gen_ai.request.model": model, "gen_ai.agent.name": agent,
        }  # fmt: skip
        span = self.export.tracer.start_span(
            f"{operation} {agent if operation == 'invoke_agent' else model}",
            parent,
            SpanKind.CLIENT if place else SpanKind.INTERNAL,
            {
                **about,
                **place,
                "gen_ai.request.max_tokens": plan.max_tokens_out,
                "glowsim.attempt": call.tries + 1,
            },
        )
        if span.is_recording():
            call.finish_reasons = []
            if request.stream:
                span.set_attribute("gen_ai.request.stream", True)
            if request.session:
                span.set_attribute("gen_ai.conversation.id", f"{request.session:016x}")
        call.passed_on = {
            **{name: value for name, value in call.passed_on.items() if name.encode() not in _CONTEXT},
            **_context_of(span),
        }
        self._attempts[call.attempt] = _Attempt(span, call, time.perf_counter(), about)

    def saw(self, event: Event, commands: Sequence[Command]) -> None:
        """End what an event ends."""
        if type(event) is Finished:
            self._finished(event)
        elif type(event) is Abandoned:
            self._asked.pop(event.request_id, None)
        elif type(event) is InstanceChanged and event.state >= State.GONE:
            self._places.pop(event.instance, None)
        for command in commands:
            if type(command) in _ENDS:
                exchange = self._asked.pop(command.request_id, None)  # type: ignore[union-attr]
                if exchange is not None and type(command) is Fail and command.outcome != Outcome.INVALID:
                    exchange.error = command.outcome.name.lower()

    def _finished(self, event: Finished) -> None:
        attempt = self._attempts.pop(event.attempt, None)
        if attempt is None:
            return
        now_s = time.perf_counter()
        span, call, begun_s, attributes = attempt
        outcome, usage = event.outcome, event.usage
        if outcome == Outcome.OK or usage.tokens_in:
            span.set_attributes(_used(usage))
            self._tokens.record(usage.tokens_in, {**attributes, "gen_ai.token.type": "input"})
            self._tokens.record(usage.tokens_out, {**attributes, "gen_ai.token.type": "output"})
        if call.request.stream and not isnan(usage.first_token_s):
            span.set_attribute("gen_ai.response.time_to_first_chunk", usage.first_token_s)
            self._first_chunk.record(usage.first_token_s, attributes)
        if call.finish_reasons:
            span.set_attribute("gen_ai.response.finish_reasons", call.finish_reasons)
        if outcome != Outcome.OK:
            error = outcome.name.lower()
            attributes["error.type"] = error
            span.set_attribute("error.type", error)
            if outcome != Outcome.CANCELLED:
                span.set_status(Status(StatusCode.ERROR))
        self._duration.record(now_s - begun_s, attributes)
        span.end()

    def _place(self, agent: int, instance: int) -> dict[str, Any]:
        place = self._places.get(instance)
        if place is None:
            url = urlsplit(self.url_of(agent, instance))
            if not url.hostname:
                return {}
            port = url.port or (443 if url.scheme == "https" else 80)
            place = self._places[instance] = {"server.address": url.hostname, "server.port": port}
        return place


def _route(scope: Scope) -> str | None:
    """Return the route of a request to an agent; None for anything else."""
    path: str = scope["path"]
    if scope["method"] != "POST":
        return None
    if path in PATHS:
        return path
    return _TASKS_ROUTE if path.startswith(_TASKS[0]) and path.endswith(_TASKS[1]) else None


def _operation_of(route: str) -> str:
    if route == _TASKS_ROUTE:
        return "invoke_agent"
    return "embeddings" if route == EMBEDDINGS.path else "chat"


def _operation(call: Call, spoken: Spoken) -> str:
    if isinstance(call.task, Content):
        return "embeddings" if call.task.protocol is EMBEDDINGS else "chat"
    return "chat" if spoken.provider == "openai" else "invoke_agent"


def _context_of(span: Span) -> dict[str, str]:
    carried: dict[str, str] = {}
    _TRACE.inject(carried, set_span_in_context(span))
    return carried


def _used(usage: Usage) -> dict[str, int]:
    used = {"gen_ai.usage.input_tokens": usage.tokens_in, "gen_ai.usage.output_tokens": usage.tokens_out}
    if usage.tokens_cached:
        used["gen_ai.usage.cache_read.input_tokens"] = usage.tokens_cached
    return used
