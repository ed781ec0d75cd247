"""OpenTelemetry spans of model calls: OTLP as JSON, a document or one export request a line.

Attributes: open-telemetry/semantic-conventions 1.28 to 1.41 and semantic-conventions-genai (main, 2026), whose
docs/gen-ai/non-normative/migration.md lists what was renamed; encoding: the OTLP specification, where 64-bit
integers are written as text. ``gen_ai.usage.input_tokens`` should include cached tokens; instrumentations that leave
them out show themselves by an input smaller than its parts. The conventions have no cost: ``gen_ai.usage.cost``
is what some exporters add. The agent is ``gen_ai.agent.name``, or else the service.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Final

from glowsim.traces.formats.base import Format, LeftOut, Request
from glowsim.traces.formats.usage import inclusive
from glowsim.traces.values import Instant, Row, Unreadable, duration_s, failure, number, text, whole

__all__ = ["OTel"]

_CALLS: Final = ("chat", "text_completion", "completion", "generate_content", "embeddings")
_OTHERS: Final = (
    "create_agent", "invoke_agent", "invoke_workflow", "execute_tool", "retrieval", "evaluate",
)  # fmt: skip
_USAGE: Final = "gen_ai.usage."
_IN: Final = (f"{_USAGE}input_tokens", f"{_USAGE}prompt_tokens", "llm.usage.prompt_tokens")
_OUT: Final = (f"{_USAGE}output_tokens", f"{_USAGE}completion_tokens", "llm.usage.completion_tokens")
_CACHED: Final = (
    f"{_USAGE}cache_read.input_tokens", f"{_USAGE}cache_read_input_tokens", f"{_USAGE}input_tokens.cached",
    f"{_USAGE}cached_tokens", f"{_USAGE}input_cached_tokens",
)  # fmt: skip
_WRITTEN: Final = (
    f"{_USAGE}cache_write.input_tokens", f"{_USAGE}cache_creation.input_tokens",
    f"{_USAGE}cache_creation_input_tokens",
)  # fmt: skip
_REASONING: Final = (f"{_USAGE}reasoning.output_tokens", f"{_USAGE}output_tokens.reasoning")
_FIRST: Final = ("gen_ai.response.time_to_first_chunk", "gen_ai.response.time_to_first_token")
_MODEL: Final = ("gen_ai.response.model", "gen_ai.request.model")
_OPERATION: Final = ("gen_ai.operation.name", "llm.request.type")
_SESSION: Final = ("gen_ai.conversation.id", "session.id")
_USER: Final = ("user.id", "enduser.id")
_AGENT: Final = ("gen_ai.agent.name", "service.name")
_TEXT: Final = (
    "gen_ai.prompt", "gen_ai.completion", "gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.tool.",
    "gen_ai.system_instructions", "gen_ai.request.instructions", "llm.prompts", "llm.completions",
)  # fmt: skip
_SPAN: Final = ("traceId", "spanId", "startTimeUnixNano", "endTimeUnixNano", "status")


class OTel(Format):
    """``{"resourceSpans": [{"scopeSpans": [{"spans": [..]}]}]}``; spans that call no model are left out."""

    name: ClassVar[str] = "otel"
    fields = frozenset({
        *_IN, *_OUT, *_CACHED, *_WRITTEN, *_REASONING, *_FIRST, *_MODEL, *_OPERATION, *_SESSION, *_USER, *_AGENT,
        *_SPAN, "server.address", "server.port", "error.type",
        "gen_ai.usage.cost", "gen_ai.usage.total_tokens", "llm.usage.total_tokens",
    })  # fmt: skip
    marks = (("resourceSpans",),)

    def rows(self, found: Row) -> Iterator[Row]:
        """Yield each span as one row: its attributes and what else is read of it."""
        for resource in _objects(found, "resourceSpans"):
            service = _attributes(resource.get("resource") or {}, "its resource").get("service.name")
            for scope in (
                *_objects(resource, "scopeSpans"),
                *_objects(resource, "instrumentationLibrarySpans"),
            ):
                for span in _objects(scope, "spans"):
                    row = {} if service is None else {"service.name": service}
                    row |= _attributes(span, "a span")
                    yield row | {name: span[name] for name in _SPAN if name in span}

    def request(self, row: Row) -> Request:
        """Return the request of a span."""
        operation = text(row, *_OPERATION)
        if operation in _OTHERS or (operation not in _CALLS and text(row, *_MODEL) is None):
            raise LeftOut(f"span {operation}" if operation else "span without a model")
        start, end = _nano(row, "startTimeUnixNano"), _nano(row, "endTimeUnixNano")
        if start is None:
            raise Unreadable("startTimeUnixNano is missing: when it arrived is not known")
        cached, written = whole(row, *_CACHED), whole(row, *_WRITTEN)
        tokens_in, added = inclusive(whole(row, *_IN), cached, written)
        trace, span = text(row, "traceId"), text(row, "spanId")
        return Request(
            start,
            {
                "tokens_in": tokens_in,
                "tokens_cached": cached,
                "tokens_cache_write": written,
                "tokens_out": whole(row, *_OUT),
                "tokens_reasoning": whole(row, *_REASONING),
                "latency_s": duration_s(start, end, "endTimeUnixNano"),
                "first_token_s": number(row, *_FIRST),
                "cost_usd": number(row, "gen_ai.usage.cost"),
            },
            {
                "model": text(row, *_MODEL),
                "agent": text(row, *_AGENT),
                "session": text(row, *_SESSION),
                "user": text(row, *_USER),
                "status": _status(row),
                "instance": _server(row),
            },
            key=f"{trace}/{span}" if trace and span else None,
            notes=added,
        )

    def ignores(self, field: str) -> bool:
        """Return whether it is the text of prompts, answers or tools."""
        return field.startswith(_TEXT)


def _objects(found: Row, name: str) -> list[dict[str, Any]]:
    inside = found.get(name) or []
    if not isinstance(inside, list) or not all(isinstance(each, dict) for each in inside):
        raise Unreadable(f"{name} must be a list of objects")
    return inside


def _attributes(found: Any, whose: str) -> dict[str, Any]:
    """Return attributes by name: ``[{"key": .., "value": {"intValue": ..}}, ..]``."""
    if not isinstance(found, dict):
        raise Unreadable(f"{whose} must be an object")
    row: dict[str, Any] = {}
    for attribute in _objects(found, "attributes"):
        name, value = attribute.get("key"), attribute.get("value")
        if not isinstance(name, str) or not isinstance(value, dict):
            raise Unreadable(f"the attributes of {whose} must be objects with a key and a value")
        row[name] = next(iter(value.values()), None)
    return row


def _nano(row: Row, name: str) -> Instant | None:
    value = row.get(name)
    try:
        ns = int(value) if isinstance(value, str | int) and not isinstance(value, bool) else 0
    except ValueError as error:
        raise Unreadable(f"{name} must be a whole number of nanoseconds") from error
    if not 0 <= ns < 2**63:
        raise Unreadable(f"{name} must be nanoseconds since 1970")
    return Instant(ns, True) if ns else None


def _server(row: Row) -> str | None:
    address, port = text(row, "server.address"), whole(row, "server.port")
    return address if address is None or port is None else f"{address}:{port:.0f}"


def _status(row: Row) -> str:
    status = row.get("status")
    code = status.get("code") if isinstance(status, dict) else None
    kind = text(row, "error.type")
    return failure(kind) if kind is not None or code in (2, "STATUS_CODE_ERROR") else "ok"
