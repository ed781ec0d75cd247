"""What the protocols share: the shape of each, how a body is read and what is kept of it.

Everything here is a pure function of its arguments: no I/O, no clock, no randomness; ids and times are handed in.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from math import ceil, isfinite
from typing import Any, ClassVar, NamedTuple

from glowsim.core.errors import GlowsimError
from glowsim.core.types import Usage
from glowsim.live.calls import InstanceError

__all__ = [
    "Asked", "BadBody", "Frame", "Protocol", "StreamReader", "StreamWriter", "event_of", "flag", "items",
    "json_text", "read_json", "sse", "stated_usage", "tag_of", "text", "text_bytes", "token_limit",
]  # fmt: skip

_BYTES_PER_TOKEN = 4
_MOST_TOKENS = 10_000_000
_LONGEST_NAME = 1_000
_DEEPEST = 100
_LONGEST_QUOTE = 500
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_MEDIA = frozenset(
    {"image", "image_url", "input_image", "computer_screenshot", "audio", "input_audio", "file", "input_file",
     "image_generation_call", "redacted_thinking"}
)  # fmt: skip
_NO_TEXT = frozenset(
    {"type", "role", "id", "call_id", "tool_call_id", "tool_use_id", "status", "cache_control", "signature",
     "encrypted_content"}
)  # fmt: skip


class BadBody(GlowsimError):
    """A client's body cannot be served; the message names the place and the remedy.

    >>> BadBody("say which model", "model").param
    'model'
    """

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        """The field that is wrong; None where it is the body itself."""


class Asked(NamedTuple):
    """What a client asks for, in whichever protocol.

    >>> Asked("chat", {"model": "m"}, "m", 5, None, False, None).tokens_in
    5
    """

    protocol: str
    """``chat``, ``responses``, ``messages`` or ``embeddings``."""
    body: dict[str, Any]
    """As it came; only what is used was checked. Nothing may change it."""
    model: str
    tokens_in: int
    """About how many tokens the input has: a quarter of the bytes of its texts and tools, at least 1."""
    max_tokens_out: int | None
    stream: bool
    tag: str | None
    """Whom the client says that it acts for; it may narrow who calls, never assert it."""


class Frame(NamedTuple):
    r"""What one event of an upstream's stream means.

    >>> Frame("data: [DONE]\n\n", False, True, None, None).done
    True
    """

    text: str
    """The server-sent event to pass on; empty if it is to be dropped."""
    content: bool
    """Whether it carries some of the answer (text, tool call, refusal, reasoning): the first one commits."""
    done: bool
    """Whether the stream is complete with it."""
    usage: Usage | None
    """What was used so far, where the event says so."""
    chunk: dict[str, Any] | None
    """The chat chunk, for a writer of another protocol; None for other protocols."""


class StreamReader(ABC):
    """Reads one stream of an upstream, event by event."""

    @abstractmethod
    def feed(self, event: str | None, data: str) -> Frame:
        """Return what an event means.

        Raises
        ------
        InstanceError
            It is an error, or cannot be read.
        """


class StreamWriter(ABC):
    """Writes one stream for a client, out of chat chunks."""

    @abstractmethod
    def feed(self, chunk: dict[str, Any]) -> str:
        """Return the events that a chunk becomes; empty if there is nothing to say yet.

        Raises
        ------
        InstanceError
            The chunk cannot be read.
        """

    @abstractmethod
    def end(self) -> str:
        """Return the last events.

        Raises
        ------
        InstanceError
            The chunks were not a whole answer: no finish reason came.
        """


class Protocol(ABC):
    """One way of asking a model, as a client speaks it and as an upstream speaks it."""

    name: ClassVar[str]
    path: ClassVar[str]

    @abstractmethod
    def read(self, raw: bytes) -> Asked:
        """Return what a body asks for.

        Raises
        ------
        BadBody
            It is not JSON, or a field that is needed here is missing or wrong.
        """

    @abstractmethod
    def body_for(self, asked: Asked, *, model: str, max_tokens_out: int) -> dict[str, Any]:
        """Return the body for an upstream of the same protocol: the client's, with model and limit replaced.

        The copy is shallow: what is inside is the client's own.
        """

    @abstractmethod
    def usage_of(self, answer: dict[str, Any], tokens_in: int) -> Usage:
        """Return what a whole answer says was used; `tokens_in` where it says nothing.

        Raises
        ------
        InstanceError
            The answer is an error, or its usage is not made of token counts.
        """

    @abstractmethod
    def reader(self, asked: Asked, tokens_in: int) -> StreamReader:
        """Return a reader of an upstream's stream in this protocol; `tokens_in` as in `usage_of`."""

    @abstractmethod
    def error(
        self, status: int, message: str, *, code: str | None = None, param: str | None = None
    ) -> dict[str, Any]:
        """Return the body of an answer with an HTTP status of 400 or more."""

    @abstractmethod
    def error_frame(self, status: int, message: str, *, code: str | None = None) -> str:
        """Return the last event of a stream that broke."""

    @abstractmethod
    def to_chat(self, asked: Asked) -> dict[str, Any]:
        """Return the body as chat completions would have it.

        Raises
        ------
        BadBody
            Chat completions cannot express it.
        """

    @abstractmethod
    def from_chat(
        self, answer: dict[str, Any], asked: Asked, *, answer_id: str, created: int
    ) -> dict[str, Any]:
        """Return a whole chat answer as this protocol would have it.

        Parameters
        ----------
        answer
            From an upstream, or of `chat_answer`.
        asked
            What it answers.
        answer_id
            Unique; the protocol's prefix is put before it where it has one.
        created
            Seconds since 1970.

        Raises
        ------
        InstanceError
            The answer cannot be read.
        """

    @abstractmethod
    def writer(self, asked: Asked, *, answer_id: str, created: int) -> StreamWriter:
        """Return a writer of this protocol's stream; the parameters are those of `from_chat`."""


# --- reading a client's body ---------------------------------------------------------------------------


def read_json(raw: bytes) -> dict[str, Any]:
    """Return the JSON object of a body: UTF-8, finite numbers, whole characters, at most 100 levels deep.

    >>> read_json(b'{"model": "tax"}')
    {'model': 'tax'}
    >>> read_json(b'[NaN]')
    Traceback (most recent call last):
    ...
    glowsim.live.protocols.shared.BadBody: the body is not JSON: NaN is not a JSON number
    """
    try:
        body = _DECODER.decode(raw.decode())
        if _SURROGATE.search(raw):
            json.dumps(body, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise BadBody(
            "a text of the body has half of a character (a lone surrogate): send it whole"
        ) from None
    except (ValueError, RecursionError) as error:
        raise BadBody(f"the body is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise BadBody("the body is not a JSON object: send one with 'model' and what is asked")
    if raw.count(b"{") + raw.count(b"[") > _DEEPEST:
        _check_depth(body)
    return body


def _refused(constant: str) -> Any:
    raise ValueError(f"{constant} is not a JSON number")


def _finite(digits: str) -> float:
    number = float(digits)
    if isfinite(number):
        return number
    raise ValueError(f"{digits[:30]} is too large a number")


_DECODER = json.JSONDecoder(parse_constant=_refused, parse_float=_finite)


def _check_depth(body: dict[str, Any]) -> None:
    level: list[Any] = [body]
    for _ in range(_DEEPEST):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if type(outer) is dict else outer)
            if type(inner) is dict or type(inner) is list
        ]
        if not level:
            return
    raise BadBody(f"the body is nested more than {_DEEPEST} levels deep")


def text(body: dict[str, Any], name: str) -> str:
    """Return a text that is needed, 1 to 1000 characters."""
    match body.get(name):
        case str(value) if 0 < len(value) <= _LONGEST_NAME:
            return value
        case None:
            raise BadBody(f"'{name}' is missing: give a text", name)
    raise BadBody(f"'{name}' must be a text of 1 to {_LONGEST_NAME} characters", name)


def flag(body: dict[str, Any], name: str) -> bool:
    """Return a yes or no; missing and null are no."""
    match body.get(name):
        case None:
            return False
        case bool(value):
            return value
    raise BadBody(f"'{name}' must be true or false", name)


def token_limit(body: dict[str, Any], name: str) -> int | None:
    """Return a limit of tokens, 1 to 10 million; None where there is none."""
    value = body.get(name)
    if value is None or (type(value) is int and 1 <= value <= _MOST_TOKENS):
        return value
    raise BadBody(f"'{name}' must be a whole number from 1 to {_MOST_TOKENS}", name)


def items(body: dict[str, Any], name: str, *, needed: bool = False) -> list[dict[str, Any]]:
    """Return a list of objects: one at least if it is needed, else an empty one where it is missing or null."""
    value = body.get(name)
    if value is None and not needed:
        return []
    if isinstance(value, list) and (value or not needed) and all(type(each) is dict for each in value):
        return value
    raise BadBody(f"'{name}' must be a list of objects{' with at least one' if needed else ''}", name)


def tag_of(body: dict[str, Any], *names: str) -> str | None:
    """Return the first of the named texts that is there."""
    for name in names:
        if body.get(name) is not None:
            return text(body, name)
    return None


def text_bytes(value: Any) -> int:
    """Return how many bytes of text some contents hold; images, audio and files hold none.

    >>> text_bytes([{"type": "text", "text": "four"}, {"type": "image_url", "image_url": {"url": "data:..."}}])
    4
    """
    if type(value) is str:
        return len(value) if value.isascii() else len(value.encode())
    if type(value) is list:
        return sum(map(text_bytes, value))
    if type(value) is not dict:
        return 0
    match value:
        case {"type": "document", "source": dict(source)}:
            plain = source.get("type") in ("text", "content")
            return text_bytes(source.get("data")) + text_bytes(source.get("content")) if plain else 0
        case {"type": str(kind)} if kind in _MEDIA:
            return 0
        case {"type": "tool_use", "input": given}:
            return text_bytes(value.get("name")) + len(json.dumps(given))
    return sum(text_bytes(inner) for key, inner in value.items() if key not in _NO_TEXT)


def tokens_of(tools: Any, *contents: Any) -> int:
    """Return about how many tokens an input has: a quarter of the bytes of its tools and texts, at least 1."""
    size = sum(map(text_bytes, contents))
    if tools:
        size += len(json.dumps(tools))
    return max(ceil(size / _BYTES_PER_TOKEN), 1)


# --- reading an upstream's answer ----------------------------------------------------------------------


def event_of(data: str) -> dict[str, Any]:
    """Return the JSON object of an event's data."""
    try:
        said = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InstanceError(f"an event of the stream is not JSON: {error}") from error
    if isinstance(said, dict):
        return said
    raise InstanceError("an event of the stream is not a JSON object")


def broken(said: dict[str, Any]) -> InstanceError:
    """Return the error that an upstream stated."""
    error = said.get("error") or said
    message = error.get("message") if isinstance(error, dict) else None
    return InstanceError(f"the instance gave up: {str(message or error)[:_LONGEST_QUOTE]}")


def stated_usage(tokens_in: Any, tokens_cached: Any, tokens_out: Any) -> Usage:
    """Return a usage out of counts that an upstream stated; null counts as 0.

    >>> stated_usage(900, None, 40)[:3]
    (900, 0, 40)
    """
    counts = [0 if count is None else count for count in (tokens_in, tokens_cached, tokens_out)]
    if all(type(count) is int and 0 <= count < 2**31 for count in counts) and counts[1] <= counts[0]:
        return Usage(*counts)
    raise InstanceError(f"the answer's usage {str(counts)[:_LONGEST_QUOTE]} is not made of token counts")


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


# --- writing -------------------------------------------------------------------------------------------


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
