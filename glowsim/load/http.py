"""A target behind a URL: carries calls over HTTP and says how each ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import urlsplit

import aiohttp

from glowsim.core.reasons import Code
from glowsim.core.types import Outcome
from glowsim.load.faces import Face, Said, Unreadable, headers_of, refusal, source_of
from glowsim.load.generator import Call, Heard, TargetError
from glowsim.load.sending import silent

__all__ = ["HttpTarget", "address_of", "opened"]

_LONGEST_ANSWER: Final = 16 * 1024 * 1024
_KEEP_ALIVE_S: Final = 4.0
"""Below the 5 s after which common servers, such as uvicorn, close an idle connection: a request that meets the
closing one would be lost, and the target blamed."""
_HOPELESS: Final = {
    401: "it wants a valid key: name the variable that holds it with --key-env",
    403: "it does not let this key in: name another with --key-env",
    404: "it does not know the agent, or does not speak this --api",
    405: "it does not speak this --api",
}
"""Status that no other request of the kind would fare better than -> what to do."""


def address_of(url: str) -> str:
    """Return a target's URL without a slash at its end.

    Raises
    ------
    TargetError
        It is not plain ``http://HOST[:PORT][/PATH]`` or https.

    >>> address_of("http://127.0.0.1:8080/")
    'http://127.0.0.1:8080'
    """
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = 0
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise TargetError(
            f"--target {parts.scheme}://{parts.hostname}: write http://HOST:PORT or https://HOST"
        )
    if parts.username is not None or parts.password is not None:
        raise TargetError(
            "--target: leave the key out of the URL; name the variable that holds it with --key-env"
        )
    if parts.query or parts.fragment:
        raise TargetError("--target: leave out what follows ? or #")
    return url.rstrip("/")


@asynccontextmanager
async def opened(
    address: str, face: Face, key: str | None, regions: Sequence[str] = ()
) -> AsyncIterator[HttpTarget]:
    """Give a target that takes connections, while the block lasts.

    Parameters
    ----------
    address
        As `address_of` returns it.
    face
        How it is spoken to.
    key
        Sent as a bearer token; None: none is.
    regions
        Their names, by number.

    Raises
    ------
    TargetError
        Nobody takes connections there.
    """
    why = await silent(address)
    if why:
        raise TargetError(f"--target {address}: nobody takes connections there ({why})")
    headers = {"Content-Type": "application/json"} | (
        {} if key is None else {"Authorization": f"Bearer {key}"}
    )
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE_S),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers=headers,
    ) as session:
        yield HttpTarget(session, address, face, regions)


class HttpTarget:
    """Posts calls; what the generator asks.

    Parameters
    ----------
    session
        Bounds nothing by itself: the generator does.
    address
        Of the target.
    face
        How it is spoken to.
    regions
        Their names, by number; where there are several, requests say where their users are.
    """

    def __init__(
        self, session: aiohttp.ClientSession, address: str, face: Face, regions: Sequence[str] = ()
    ) -> None:
        self._session = session
        self._address = address
        self._face = face
        self._regions = regions

    async def __call__(self, call: Call) -> Heard:
        """Return how a call ended; raises `TargetError` for a status that speaks of the whole kind."""
        url = self._address + self._face.path(call.agent)
        body = self._face.body(call.agent, call.request, call.text)
        region = self._regions[call.request.region] if len(self._regions) > 1 else None
        headers = headers_of(call.request, call.left_s, region)
        try:
            async with self._session.post(url, data=body, headers=headers, allow_redirects=False) as response:
                return await self._read(call, response)
        except Unreadable as error:
            return Heard(Outcome.ERROR, Code.EXHAUSTED, said=str(error))
        except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError) as error:
            return _lost(call, _named(error))
        except aiohttp.ClientError as error:
            return Heard(Outcome.ERROR, Code.EXHAUSTED, said=type(error).__name__)

    async def _read(self, call: Call, response: aiohttp.ClientResponse) -> Heard:
        status = response.status
        if status in _HOPELESS:
            raise TargetError(
                f"{self._address} answers {call.agent!r} with status {status}: {_HOPELESS[status]}"
            )
        if status >= 300:
            return Heard(*refusal(status, await _bounded(response)), said=f"status {status}")
        if call.request.stream and response.content_type == "text/event-stream":
            return await self._streamed(call, response)
        return _answered(response, self._face.answer(await _bounded(response)))

    async def _streamed(self, call: Call, response: aiohttp.ClientResponse) -> Heard:
        loop, usage, begun, finished = asyncio.get_running_loop(), None, False, False
        async for data in _events(response):
            said = self._face.event(data, begun=begun)
            if said.content and not begun:
                begun = True
                call.first_token_at = loop.time()
            finished = finished or said.finished
            if said.usage is not None:
                usage = said.usage
            if said.error is not None:
                return Heard(*said.error, usage, said="the target broke a stream off")
            if said.done:
                return _answered(response, said._replace(usage=usage))
        if finished:  # transformers serve ends so, without [DONE]; a cut raises before
            return _answered(response, Said(done=True, usage=usage))
        return _lost(call, "a stream stopped before it was complete")._replace(usage=usage)


def _answered(response: aiohttp.ClientResponse, said: Said) -> Heard:
    source = said.source or source_of(response.headers.get("X-Glowsim-Answered"))
    return Heard(Outcome.OK, source or Code.OWN, said.usage, told=source is not None)


def _lost(call: Call, said: str) -> Heard:
    begun = call.first_token_at == call.first_token_at
    return Heard(Outcome.UNREACHABLE, Code.BROKEN_STREAM if begun else Code.EXHAUSTED, said=said)


def _named(error: aiohttp.ClientError) -> str:
    """Return the kind of an error of connections, and the system's word for it where there is one."""
    said = error.strerror if isinstance(error, OSError) else None
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    read = bytearray()
    async for chunk in response.content.iter_any():
        read += chunk
        if len(read) > _LONGEST_ANSWER:
            raise Unreadable(f"the answer is longer than {_LONGEST_ANSWER} bytes")
    return bytes(read)


async def _events(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Yield the data of server-sent events, one line of data each."""
    waiting = b""
    async for chunk in response.content.iter_any():
        *lines, waiting = (waiting + chunk).split(b"\n")
        if len(waiting) > _LONGEST_ANSWER:
            raise Unreadable(f"a line of the stream is longer than {_LONGEST_ANSWER} bytes")
        for line in lines:
            if line.startswith(b"data:"):
                yield line[5:].strip()
