"""TraceLab: the model calls of Claude Code and Codex sessions, as their own session files recorded them.

Schema: uw-syfi/TraceLab, README.md and docs/prompt_cache_accounting.md: one row a call, with
``input_tokens_total = prefix_tokens + newly_append_tokens``, where the prefix was read from the prompt cache;
only Claude reports what it wrote there, only Codex what it spent on reasoning.
"""

from __future__ import annotations

from typing import ClassVar, Final

from glowsim.traces.formats.base import Format, Request
from glowsim.traces.values import Instant, Row, Unreadable, duration_s, instant, text, whole

__all__ = ["TraceLab"]

_INPUT: Final = ("user_message", "tool_result")
_OUTPUT: Final = ("reasoning", "text", "tool_call")


class TraceLab(Format):
    """One JSON object a model call.

    A call arrives with the last user message or tool result before its first output, and ends with its last
    output; an output is logged when it is complete, so the time of a first token is not known.
    """

    name: ClassVar[str] = "tracelab"
    fields = frozenset({
        "provider", "session_id", "user", "round_index", "round_id", "trace_key", "model", "input_tokens_total",
        "prefix_tokens", "newly_append_tokens", "output_tokens", "reasoning_output_tokens", "timing_events", "tools",
        "claude_uncached_input_tokens", "claude_cache_creation_input_tokens", "claude_cache_read_input_tokens",
        "store", "project", "session_file", "home", "cwd", "workdir", "turn_id", "first_input_event_type",
        "current_input_event_count", "current_user_message_count", "current_tool_result_count",
        "current_user_message_chars", "current_tool_result_chars", "current_input_chars",
    })  # fmt: skip
    marks = (("session_id",), ("round_index",), ("input_tokens_total",), ("timing_events",))
    remarks = (
        "latency is from the last input to the last output that the session file saw, no first token in it",
    )

    def request(self, row: Row) -> Request:
        """Return the request of a row."""
        at, end = _moments(row)
        session, turn = text(row, "session_id"), whole(row, "round_index", required=True)
        tokens_in, cached = whole(row, "input_tokens_total", required=True), whole(row, "prefix_tokens")
        appended = whole(row, "newly_append_tokens")
        if (
            tokens_in is not None
            and None not in (cached, appended)
            and tokens_in != (cached or 0) + (appended or 0)
        ):
            raise Unreadable("input_tokens_total must be prefix_tokens + newly_append_tokens")
        return Request(
            at,
            {
                "tokens_in": tokens_in,
                "tokens_cached": cached,
                "tokens_cache_write": whole(row, "claude_cache_creation_input_tokens"),
                "tokens_out": whole(row, "output_tokens"),
                "tokens_reasoning": whole(row, "reasoning_output_tokens"),
                "latency_s": duration_s(at, end, "the last output"),
                "turn": turn,
            },
            {
                "agent": text(row, "provider"),
                "model": text(row, "model"),
                "session": session,
                "user": text(row, "user"),
            },
            key=text(row, "trace_key") or f"{session}:{text(row, 'round_id') or turn}",
        )


def _moments(row: Row) -> tuple[Instant, Instant | None]:
    """Return when the call's input was complete, and when its output was."""
    events = row.get("timing_events")
    if not isinstance(events, list):
        raise Unreadable("timing_events must be a list")
    asked: Instant | None = None
    answered: Instant | None = None
    for event in events:
        if not isinstance(event, dict):
            raise Unreadable("timing_events must be a list of objects")
        kind = event.get("event_type")
        if kind in _OUTPUT:
            answered = instant(event, "timestamp") or answered
        elif kind in _INPUT and answered is None:
            asked = instant(event, "timestamp") or asked
    if asked is None:
        raise Unreadable(
            "timing_events has no user message or tool result before the output: it is not known when"
        )
    return asked, answered
