"""LiteLLM spend logs: rows of the table ``LiteLLM_SpendLogs``, exported as CSV, JSON or JSON lines.

Fields: BerriAI/litellm, schema.prisma (model LiteLLM_SpendLogs) and proxy/spend_tracking/spend_tracking_utils.py,
read in 2026. What they mean, and is not plain:

- ``prompt_tokens`` includes tokens read from and written to a prompt cache, except in some rows of Anthropic
  models (issue 15056), which show themselves by a prompt smaller than its parts: there the parts are added.
- The split of tokens stands in ``metadata.usage_object``, in older rows in ``metadata.additional_usage_values``.
- ``completionStartTime`` is the end itself where nothing was streamed: then there is no first token.
- ``cache_hit`` is LiteLLM's response cache, not the provider's prompt cache.
- ``session_id`` is made up for each request where the caller gave none.
"""

from __future__ import annotations

from typing import ClassVar, Final

from glowsim.traces.formats.base import Format, LeftOut, Request, arrival
from glowsim.traces.formats.usage import first_token, inclusive
from glowsim.traces.values import Row, duration_s, failure, instant, nested, number, text, whole

__all__ = ["LiteLLM"]

_CACHE_HIT: Final = "answered from the gateway's response cache"


class LiteLLM(Format):
    """A row of ``LiteLLM_SpendLogs``: the tenant is the team, the user the end user or else the key's owner."""

    name: ClassVar[str] = "litellm"
    fields = frozenset({
        "request_id", "call_type", "spend", "total_tokens", "prompt_tokens", "completion_tokens", "startTime",
        "endTime", "completionStartTime", "request_duration_ms", "model", "model_group", "metadata", "cache_hit",
        "user", "end_user", "team_id", "session_id", "status", "agent_id",
        "api_key", "messages", "response", "proxy_server_request", "requester_ip_address", "cache_key", "api_base",
    })  # fmt: skip
    marks = (("request_id",), ("startTime",), ("prompt_tokens",), ("completion_tokens",))

    def request(self, row: Row) -> Request:
        """Return the request of a row."""
        if "mcp" in (call := text(row, "call_type") or ""):
            raise LeftOut(call)
        start = arrival(instant(row, "startTime"), "startTime")
        end = instant(row, "endTime")
        latency_s = duration_s(start, end, "endTime")
        first = instant(row, "completionStartTime")
        first_token_s, late = first_token(start, None if first == end else first, latency_s)
        metadata = nested(row, "metadata")
        usage = nested(metadata, "usage_object", "additional_usage_values")
        prompt = nested(usage, "prompt_tokens_details")
        cached = whole({**prompt, **usage}, "cache_read_input_tokens", "cached_tokens")
        written = whole({**prompt, **usage}, "cache_creation_input_tokens", "cache_creation_tokens")
        tokens_in, added = inclusive(whole(row, "prompt_tokens"), cached, written)
        status = _status(row, metadata)
        from_cache = str(row.get("cache_hit")).lower() == "true"
        return Request(
            start,
            {
                "tokens_in": tokens_in,
                "tokens_cached": cached,
                "tokens_cache_write": written,
                "tokens_out": whole(row, "completion_tokens"),
                "tokens_reasoning": whole(nested(usage, "completion_tokens_details"), "reasoning_tokens"),
                "latency_s": latency_s,
                "first_token_s": first_token_s,
                "cost_usd": number(row, "spend"),
            },
            {
                "model": text(row, "model", "model_group"),
                "agent": text(row, "agent_id"),
                "session": text(row, "session_id"),
                "user": text(row, "end_user", "user"),
                "tenant": text(row, "team_id"),
                "status": status,
                "instance": text(row, "api_base"),
            },
            key=text(row, "request_id"),
            notes=(*late, *added, *((_CACHE_HIT,) if from_cache else ())),
        )


def _status(row: Row, metadata: Row) -> str | None:
    said = text(row, "status") or text(metadata, "status")
    if said == "failure":
        told = nested(metadata, "error_information")
        return failure(text(told, "error_code"), text(told, "error_class"))
    return "ok" if said == "success" else None
