"""Reading what an upstream states, and writing server-sent events."""

from __future__ import annotations

import json
import re
from typing import Any

from glowsim.core.types import Usage
from glowsim.live.calls import InstanceError

__all__ = [
    "broken", "count", "details", "event_of", "json_text", "sse", "stated_usage", "typed_event", "usage_in",
]  # fmt: skip

_LONGEST_QUOTE = 500
_EVENT = re.compile(r"[A-Za-z0-9_.]{1,100}")


def event_of(data: str) -> dict[str, Any]:
    """Return the JSON object of an event's data."""
    try:
        said = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InstanceError(f"an event of the stream is not JSON: {error}") from error
    if isinstance(said, dict):
        return said
    raise InstanceError("an event of the stream is not a JSON object")


def typed_event(data: str) -> tuple[dict[str, Any], str]:
    """Return the object of an event's data and its type, which is also the event's name."""
    said = event_of(data)
    kind = said.get("type")
    if isinstance(kind, str) and _EVENT.fullmatch(kind):
        return said, kind
    raise InstanceError("an event of the stream has no type")


def broken(said: dict[str, Any]) -> InstanceError:
    """Return the error that an upstream stated."""
    error = said.get("error") or said
    message = error.get("message") if isinstance(error, dict) else None
    return InstanceError(f"the instance gave up: {str(message or error)[:_LONGEST_QUOTE]}")


def count(stated: Any) -> int:
    """Return a count of tokens that an upstream stated; null is 0."""
    if stated is None:
        return 0
    if type(stated) is int and 0 <= stated < 2**31:
        return stated
    raise InstanceError(f"the answer's usage {str(stated)[:50]!r} is no count of tokens")


def stated_usage(tokens_in: Any, tokens_cached: Any, tokens_out: Any) -> Usage:
    """Return a usage out of counts that an upstream stated.

    >>> stated_usage(900, None, 40)[:3]
    (900, 0, 40)
    """
    usage = Usage(count(tokens_in), count(tokens_cached), count(tokens_out))
    if usage.tokens_cached <= usage.tokens_in:
        return usage
    raise InstanceError(
        f"the answer states {usage.tokens_cached} cached of {usage.tokens_in} tokens of input"
    )


def details(usage: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the object under a name of a usage; an empty one where there is none."""
    found = usage.get(name)
    return found if isinstance(found, dict) else {}


def usage_in(answer: dict[str, Any]) -> dict[str, Any] | None:
    """Return the usage that an answer states; None where it states none.

    Raises
    ------
    InstanceError
        The answer is an error, or its usage is no object.
    """
    if answer.get("error"):
        raise broken(answer)
    usage = answer.get("usage")
    if usage is None or isinstance(usage, dict):
        return usage
    raise InstanceError("the answer's usage is not an object")


def json_text(value: Any) -> str:
    """Return compact JSON in ASCII, which half of a character, as models may stream it, cannot break."""
    return _ENCODER.encode(value)


_ENCODER = json.JSONEncoder(separators=(",", ":"))


def sse(data: str, event: str | None = None) -> str:
    r"""Return a server-sent event.

    >>> sse("{}", "ping")
    'event: ping\ndata: {}\n\n'
    """
    if "\n" in data or "\r" in data:  # JSON over several lines
        data = json_text(event_of(data))
    return f"data: {data}\n\n" if event is None else f"event: {event}\ndata: {data}\n\n"
