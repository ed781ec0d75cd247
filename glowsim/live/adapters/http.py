"""What adapters over HTTP share: statuses and their meaning, bounded bodies, server-sent events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from functools import partial
from typing import Any
from urllib.parse import urljoin, urlsplit

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.http_exceptions import HttpProcessingError

from glowsim.core.types import Usage
from glowsim.live.calls import InstanceError, InvalidTask, Throttled

__all__ = ["Connections", "Posts", "bounded", "events", "parsed", "scored"]

_LONGEST_REPLY = 16 * 1024 * 1024
_LONGEST_STREAM = 4 * _LONGEST_REPLY
"""A stream says the same in more bytes: each token comes in an object of its own."""
_LONGEST_WHY = 2000
_INVALID = frozenset({400, 413, 422})
_JSON = {"Content-Type": "application/json"}


class _Handler(ResponseHandler):
    """Tells who reads a body that what came is no HTTP: aiohttp 3.14 closes the connection and lets them wait."""

    def set_exception(self, exc: Any, *cause: BaseException) -> None:
        payload = self._payload
        super().set_exception(exc, *cause)
        if isinstance(exc, HttpProcessingError) and payload is not None and not payload.is_eof():
            payload.set_exception(aiohttp.ClientError(f"the body is no HTTP: {exc.message}"))


class Connections(aiohttp.TCPConnector):
    """Connections that are kept for the next request, unless their instance spoke unasked meanwhile.

    What it said would be taken for the answer to whoever asks next. Such a connection is closed, and the request on
    it fails as on a broken one: an instance that does so is at fault.

    Parameters
    ----------
    limit
        Most connections at once; 0: no limit.
    """

    def __init__(self, *, limit: int) -> None:
        super().__init__(limit=limit)
        handler: type[ResponseHandler] = _Handler
        self._factory = partial(handler, loop=self._loop)

    async def connect(self, *given: Any, **named: Any) -> Connection:
        """Return a connection on which nothing waits to be read.

        Raises
        ------
        aiohttp.ClientConnectionError
            Something does.
        """
        connection = await super().connect(*given, **named)
        if connection.protocol is not None and connection.protocol.should_close:
            connection.close()
            raise aiohttp.ClientConnectionError("the instance spoke before it was asked")
        return connection


class Posts:
    """Posts bodies to one instance.

    Parameters
    ----------
    session
        Shared by all instances.
    base_url
        The instance.
    timeout_s
        Longest time for a call, above 0.
    key
        Sent as ``Authorization: Bearer``; None: nothing is sent.
    health_path
        Where it says how it is, ``/health`` on its host or ``health`` beneath its URL: it is well if a GET is answered
        with a status from 200 to 399. Without one, it is well if it takes a connection.
    """

    def __init__(
        self, session: aiohttp.ClientSession, base_url: str, *, timeout_s: float, key: str | None = None,
        health_path: str | None = None,
    ) -> None:  # fmt: skip
        self.base_url = base_url.rstrip("/")
        self._session = session
        self._key = key
        self._limits = aiohttp.ClientTimeout(total=timeout_s)
        self._headers = _JSON if key is None else {**_JSON, "Authorization": f"Bearer {key}"}
        self._health_path = health_path

    def post(self, path: str, body: dict[str, Any], passed_on: Mapping[str, str]) -> Any:
        """Return the context of a response; what goes wrong with the connection is an ``aiohttp.ClientError``."""
        headers = {**self._headers, **passed_on} if passed_on else self._headers
        data = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
        return self._session.post(
            self.base_url + path, data=data, headers=headers, timeout=self._limits, allow_redirects=False
        )

    def lost(self, error: aiohttp.ClientError) -> Exception:
        """Return what a broken connection is to the driver."""
        if isinstance(error, aiohttp.ClientConnectionError | aiohttp.ClientPayloadError):
            return ConnectionError(f"{self.base_url}: {error}")
        return InstanceError(f"{self.base_url}: {error}")

    async def check(self, response: aiohttp.ClientResponse) -> None:
        """Raise what a status of 300 or more means.

        Raises
        ------
        Throttled
            429, with the seconds of its ``Retry-After``.
        InvalidTask
            400, 413 or 422, with what the instance says of it, but for the key, should it repeat that.
        InstanceError
            Any other.
        """
        status = response.status
        if status < 300:
            return
        if status == 429:
            wait = response.headers.get("Retry-After", "")
            raise Throttled(float(wait) if wait.isdecimal() else 0.0)
        if status in _INVALID:
            why = _why(await _beginning(response, _LONGEST_REPLY // 256))
            if self._key is not None:
                why = why.replace(self._key, "[key]")
            why = f": {why[:_LONGEST_WHY]}" if why else ""
            raise InvalidTask(f"the instance turned the task down with status {status}{why}")
        raise InstanceError(f"the instance answered with status {status}")

    async def healthy(self) -> bool:
        """Return whether the instance is well."""
        if self._health_path is None:
            where = urlsplit(self.base_url)
            port = where.port or (443 if where.scheme == "https" else 80)
            _, writer = await asyncio.open_connection(where.hostname, port)
            writer.close()
            return True
        url = urljoin(self.base_url + "/", self._health_path)
        async with self._session.get(url, allow_redirects=False) as response:
            return 200 <= response.status < 400


async def _beginning(response: aiohttp.ClientResponse, most: int) -> bytes:
    """Return a body's first bytes, however many pieces they come in."""
    read = bytearray()
    while len(read) < most and (more := await response.content.read(most - len(read))):
        read += more
    return bytes(read)


def _why(body: bytes) -> str:
    """Return what an error's body says, in whichever usual shape."""
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    match said:
        case (
            {"error": {"message": str(why)}}
            | {"error": str(why)}
            | {"message": str(why)}
            | {"detail": str(why)}
        ):
            return why
    return ""


async def bounded(response: aiohttp.ClientResponse) -> bytes:
    """Return a body that is not longer than it may be.

    Raises
    ------
    InstanceError
        It is.
    """
    stated = response.content_length
    if stated is not None and stated <= _LONGEST_REPLY and "Content-Encoding" not in response.headers:
        return await response.read()
    read = bytearray()
    async for chunk in response.content.iter_any():  # a compressed body states less than it becomes
        read += chunk
        if len(read) > _LONGEST_REPLY:
            raise InstanceError(f"the answer is longer than {_LONGEST_REPLY} bytes")
    return bytes(read)


def parsed(text: bytes | str) -> dict[str, Any]:
    """Return a JSON object.

    Raises
    ------
    InstanceError
        It is none.
    """
    try:
        said = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InstanceError(f"the answer is not JSON: {error}") from error
    if not isinstance(said, dict):
        raise InstanceError("the answer is not a JSON object")
    return said


def scored(score: Any, usage: Usage) -> Usage:
    """Return the usage with the score that an agent gives its own answer, if it gives one.

    Raises
    ------
    InstanceError
        It is no number from 0 to 1.

    >>> scored(0.5, Usage(9)).score
    0.5
    """
    if score is None:
        return usage
    if isinstance(score, bool) or not isinstance(score, int | float) or not 0.0 <= score <= 1.0:
        raise InstanceError(f"the answer's score {score!r} is no number from 0 to 1")
    return usage._replace(score=float(score))


async def events(response: aiohttp.ClientResponse) -> AsyncIterator[tuple[str | None, str]]:
    """Yield the server-sent events of a stream: (name or None, data). Comments are passed over.

    Raises
    ------
    InstanceError
        One is longer than an answer may be, or all together are than a stream may be.
    """
    waiting, name, data, size, total = bytearray(), None, [], 0, 0
    async for chunk in response.content.iter_any():
        total += len(chunk)
        if total > _LONGEST_STREAM:
            raise InstanceError(f"the stream is longer than {_LONGEST_STREAM} bytes")
        *lines, rest = chunk.split(b"\n")
        if not lines:
            waiting += rest
            if len(waiting) > _LONGEST_REPLY:
                raise InstanceError(f"a line of the stream is longer than {_LONGEST_REPLY} bytes")
            continue
        lines[0] = bytes(waiting + lines[0])
        waiting = bytearray(rest)
        for line in lines:
            line = line.rstrip(b"\r")
            if line.startswith(b"data:"):
                data.append(line[5:].strip().decode(errors="replace"))
                size += len(line)
                if size > _LONGEST_REPLY:
                    raise InstanceError(f"an event of the stream is longer than {_LONGEST_REPLY} bytes")
            elif line.startswith(b"event:"):
                name = line[6:].strip().decode(errors="replace")
            elif not line and data:
                yield name, "\n".join(data)
                name, data, size = None, [], 0
    if data:
        yield name, "\n".join(data)
