"""How a target is spoken to: what is posted where, and what its answers say. No I/O.

``chat`` is OpenAI's chat completions, which most servers of models and many agents speak; ``tasks`` is the
gateway's own face. What neither has words for goes in the gateway's headers, which other targets pass over.
"""

from __future__ import annotations

import json
import re
from math import inf
from typing import Any, Final, NamedTuple, Protocol
from urllib.parse import quote

from glowsim.core.errors import GlowsimError
from glowsim.core.reasons import Code
from glowsim.core.types import Outcome, Request, Usage

__all__ = [
    "FACES", "ChatFace", "Face", "Said", "TasksFace", "Unreadable", "headers_of", "is_rejection", "refusal",
    "source_of",
]  # fmt: skip

_REJECTIONS: Final = frozenset(
    {
        Code.TOO_LARGE, Code.LIMITED, Code.QUEUE_FULL, Code.KEY_REUSED, Code.LIMIT_UNKNOWN, Code.SHED,
        Code.ALL_OPEN,
    }
)  # fmt: skip
"""Codes that say no before any work is spent; the others that a gateway gives stand for failures."""
_FAILURES: Final = frozenset(
    {
        Code.EXHAUSTED, Code.NOT_RETRYABLE, Code.TIMED_OUT, Code.WAITED_TOO_LONG, Code.BROKEN_STREAM,
        Code.NO_TIME_TO_RETRY,
    }
)  # fmt: skip
_SOURCES: Final = frozenset(
    {Code.OWN, Code.CACHED, Code.JOINED, Code.REPEATED, Code.STALE, Code.DOUBTFUL, Code.APOLOGY}
)
_OF_STATUS: Final = {
    400: (Outcome.INVALID, Code.NOT_RETRYABLE),
    408: (Outcome.TIMEOUT, Code.TIMED_OUT),
    413: (Outcome.INVALID, Code.TOO_LARGE),
    422: (Outcome.INVALID, Code.NOT_RETRYABLE),
    429: (Outcome.THROTTLED, Code.LIMITED),
    451: (Outcome.INVALID, Code.NOT_RETRYABLE),
    504: (Outcome.TIMEOUT, Code.TIMED_OUT),
}
"""Status -> what it means of a target that gives no code of its own; others are errors."""
_TELLING: Final = re.compile(rb'"usage"|"error"|"done"|"finish_reason" *: *"')
_MOST_TOKENS: Final = 2**31


class Unreadable(GlowsimError):
    """An answer is not what its face promises."""


class Said(NamedTuple):
    """What an answer, or an event of a stream, says.

    >>> Said(content=True).done
    False
    """

    content: bool = False
    """Whether it carries some of the answer itself."""
    done: bool = False
    """Whether nothing follows."""
    usage: Usage | None = None
    source: Code | None = None
    """Where the answer came from, where the target says so."""
    error: tuple[Outcome, Code] | None = None
    """What broke a stream off."""
    finished: bool = False
    """Whether the answer is whole, though more may follow: a stream that ends cleanly after it has not been cut."""


class Face(Protocol):
    """One way to speak to a target."""

    name: str

    def path(self, agent: str) -> str:
        """Return where the requests for an agent are posted."""

    def body(self, agent: str, request: Request, text: str) -> bytes:
        """Return what is posted."""

    def answer(self, raw: bytes) -> Said:
        """Return what a whole answer says, or raise `Unreadable`."""

    def event(self, data: bytes, *, begun: bool) -> Said:
        """Return what an event of a stream says, or raise `Unreadable`; once ``begun``, content is not looked for."""


class ChatFace:
    """OpenAI's chat completions; the model is the agent's name.

    >>> ChatFace().event(b'{"choices": [{"delta": {"content": "fi"}}]}', begun=False).content
    True

    Source: the API reference of OpenAI, "Create chat completion" and "Streaming".
    """

    name = "chat"

    def path(self, agent: str) -> str:
        """Return the one path that all agents share."""
        return "/v1/chat/completions"

    def body(self, agent: str, request: Request, text: str) -> bytes:
        """Return the text as one message of the user."""
        asked: dict[str, Any] = {
            "model": agent,
            "messages": [{"role": "user", "content": text}],
            "max_tokens": request.max_tokens_out,
            "stream": request.stream,
        }
        if request.stream:
            asked["stream_options"] = {"include_usage": True}
        return json.dumps(asked).encode()

    def answer(self, raw: bytes) -> Said:
        """Read a whole answer."""
        match _object(raw):
            case {"choices": [{"message": dict()}, *_], **more}:
                return Said(content=True, done=True, usage=self._usage(more.get("usage")))
        raise Unreadable("the answer has no 'choices' with a message")

    def event(self, data: bytes, *, begun: bool) -> Said:
        """Read an event of a stream."""
        if data == b"[DONE]":
            return Said(done=True)
        if begun and _TELLING.search(data) is None:
            return Said(content=True)
        said = _object(data)
        if said.get("error"):
            return Said(error=_broken(said["error"]))
        content = finished = False
        match said:
            case {"choices": [{"delta": dict() as delta, **more}, *_]}:
                content = any(value for key, value in delta.items() if key != "role")
                finished = isinstance(more.get("finish_reason"), str)
        return Said(content=content, usage=self._usage(said.get("usage")), finished=finished)

    @staticmethod
    def _usage(usage: Any) -> Usage | None:
        match usage:
            case None:
                return None
            case {"prompt_tokens": tokens_in, **more}:
                details = more.get("prompt_tokens_details") or {}
                cached = details.get("cached_tokens") if isinstance(details, dict) else 0
                return _counted(tokens_in, cached or 0, more.get("completion_tokens", 0))
        raise Unreadable("the answer's 'usage' has no 'prompt_tokens'")


class TasksFace:
    """The gateway's own face: ``POST /v1/agents/AGENT/tasks``.

    >>> TasksFace().path("tax/eu")
    '/v1/agents/tax%2Feu/tasks'
    """

    name = "tasks"

    def path(self, agent: str) -> str:
        """Return an agent's own path."""
        return f"/v1/agents/{quote(agent, safe='')}/tasks"

    def body(self, agent: str, request: Request, text: str) -> bytes:
        """Return a task."""
        asked = {"input": text, "max_tokens_out": request.max_tokens_out, "stream": request.stream}
        return json.dumps(asked).encode()

    def answer(self, raw: bytes) -> Said:
        """Read a whole answer."""
        said = _object(raw)
        if "output" not in said:
            raise Unreadable("the answer has no 'output'")
        return self._summary(said)._replace(content=True)

    def event(self, data: bytes, *, begun: bool) -> Said:
        """Read an event of a stream."""
        if begun and _TELLING.search(data) is None:
            return Said(content=True)
        said = _object(data)
        if said.get("error"):
            return Said(error=_broken(said["error"]))
        if said.get("done"):
            return self._summary(said)
        return Said(content=bool(said.get("delta")))

    @staticmethod
    def _summary(said: dict[str, Any]) -> Said:
        usage, name = said.get("usage"), said.get("answered")
        counted = None
        if usage is not None:
            if not isinstance(usage, dict) or "tokens_in" not in usage:
                raise Unreadable("the answer's 'usage' has no 'tokens_in'")
            counted = _counted(usage["tokens_in"], usage.get("tokens_cached", 0), usage.get("tokens_out", 0))
        return Said(done=True, usage=counted, source=source_of(name))


FACES: Final[dict[str, Face]] = {face.name: face for face in (ChatFace(), TasksFace())}
"""Name of an API -> how it is spoken."""


def headers_of(request: Request, left_s: float, region: str | None) -> dict[str, str]:
    """Return what of a request goes in the gateway's headers.

    Parameters
    ----------
    request
        Its priority where that is not the usual one, its session, and whether its answer may be shared.
    left_s
        Its user goes away after so many seconds; inf: never.
    region
        Where its user is; None: where the agent is.

    >>> headers_of(Request(1, 0, 9, 9, priority=0, cache_key=7), left_s=2.5, region=None)
    {'X-Glowsim-Priority': '0', 'X-Glowsim-Cache': 'true', 'X-Glowsim-Deadline': '2.5'}
    """
    headers = {}
    if request.priority != 1:
        headers["X-Glowsim-Priority"] = str(request.priority)
    if request.session:
        headers["X-Glowsim-Session"] = f"{request.session:x}"
    if request.cache_key:
        headers["X-Glowsim-Cache"] = "true"
    if left_s < inf:
        headers["X-Glowsim-Deadline"] = f"{left_s:.6g}"
    if region is not None:
        headers["X-Glowsim-Region"] = region
    return headers


def source_of(name: Any) -> Code | None:
    """Return where an answer came from, by the gateway's word for it; None: it does not say.

    >>> source_of("cached").name, source_of("shed"), source_of(None)
    ('CACHED', None, None)
    """
    code = _code(name)
    return code if code in _SOURCES else None


def refusal(status: int, raw: bytes) -> tuple[Outcome, Code]:
    """Return how an attempt ended that was answered with a status of 300 or more, and why.

    A gateway of glowsim names its reason, which is taken over; of any other target the status speaks.

    >>> [each.name for each in refusal(429, b"slow down")]
    ['THROTTLED', 'LIMITED']
    >>> [each.name for each in refusal(503, b'{"error": {"code": "queue_full"}}')]
    ['ERROR', 'QUEUE_FULL']
    """
    outcome, code = _OF_STATUS.get(status, (Outcome.ERROR, Code.EXHAUSTED))
    try:
        said = _object(raw).get("error")
    except Unreadable:
        return outcome, code  # an error's text is for people: the status has said enough
    named = _code(said.get("code")) if isinstance(said, dict) else None
    return outcome, named if named in _REJECTIONS | _FAILURES and named is not None else code


def is_rejection(code: Code) -> bool:
    """Return whether a code says no before any work is spent."""
    return code in _REJECTIONS


def _broken(error: Any) -> tuple[Outcome, Code]:
    """Return what broke a stream off: the gateway's code, else an error of the target."""
    code = _code(error.get("code")) if isinstance(error, dict) else None
    outcome = Outcome.TIMEOUT if code == Code.TIMED_OUT else Outcome.ERROR
    return outcome, code if code in _FAILURES and code is not None else Code.BROKEN_STREAM


def _code(name: Any) -> Code | None:
    return Code.__members__.get(name.upper()) if isinstance(name, str) else None


def _object(raw: bytes) -> dict[str, Any]:
    try:
        said = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise Unreadable("the answer is not JSON") from error
    if not isinstance(said, dict):
        raise Unreadable("the answer is not a JSON object")
    return said


def _counted(*counts: Any) -> Usage:
    whole = all(type(count) is int and 0 <= count < _MOST_TOKENS for count in counts)
    if not whole or counts[1] > counts[0]:
        raise Unreadable("the answer's usage is not made of token counts")
    return Usage(*counts)
