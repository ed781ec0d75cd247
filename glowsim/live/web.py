"""One HTTP exchange over raw ASGI: what a gateway's hot path needs and no more."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Mapping
from functools import lru_cache
from ipaddress import ip_address
from typing import TypeVar

from starlette.types import Message, Receive, Scope, Send

from glowsim.core.errors import GlowsimError

__all__ = ["ClientGone", "Exchange", "Refusal", "check_media", "ours"]

_T = TypeVar("_T")


class Refusal(GlowsimError):
    """A request is refused before the control plane hears of it.

    >>> Refusal(404, "there is no such agent").status
    404
    """

    def __init__(
        self, status: int, message: str, *, param: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.headers = dict(headers or {})


@lru_cache(maxsize=128)
def ours(host: bytes) -> None:
    """Refuse what a page of the web sent to this machine under a name of its own (DNS rebinding).

    Where nobody needs a key, the address is the only lock, and a browser does not know whose page may turn it.

    Parameters
    ----------
    host
        The ``Host`` header.

    Raises
    ------
    Refusal
        403: it names neither localhost nor a loopback address.

    >>> ours(b"localhost:8080")
    >>> ours(b"evil.example")
    Traceback (most recent call last):
        ...
    glowsim.live.web.Refusal: without a key, only localhost is answered: set GLOWSIM_KEYS, or ask 127.0.0.1
    """
    name = host.decode("latin-1").lower()
    bracketed = re.fullmatch(r"\[([^]]*)\](:\d*)?", name)
    bare = bracketed[1] if bracketed else name.partition(":")[0]
    try:
        local = bare == "localhost" or ip_address(bare).is_loopback
    except ValueError:
        local = False
    if not local:
        raise Refusal(403, "without a key, only localhost is answered: set GLOWSIM_KEYS, or ask 127.0.0.1")


def check_media(content_type: str | None, content_encoding: str | None) -> None:
    """Refuse a body that is not sent as plain JSON.

    Parameters
    ----------
    content_type, content_encoding
        The headers of these names.

    Raises
    ------
    Refusal
        415: it is something else, or compressed.

    >>> check_media("application/json; charset=utf-8", None)
    """
    closing = {"Connection": "close"}  # the body is not read
    if (content_type or "").partition(";")[0].strip().lower() != "application/json":
        raise Refusal(415, "send the body as 'Content-Type: application/json'", headers=closing)
    if content_encoding is not None and content_encoding.strip().lower() != "identity":
        raise Refusal(415, "send the body as it is, without a 'Content-Encoding'", headers=closing)


class ClientGone(GlowsimError):
    """The client closed the connection before it was answered."""


class Exchange:
    """A request and its response.

    Parameters
    ----------
    scope, receive, send
        As ASGI gives them.
    """

    __slots__ = ("_receive", "_send", "begun", "headers", "method", "path", "scope")

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self.scope = scope
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        """By lower-case name; of equal names the last."""
        self.begun = False
        """Whether the response has begun."""

    def header(self, name: bytes) -> str | None:
        """Return a header's value, or None."""
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")

    async def body(self, most: int, within_s: float) -> bytes:
        """Return the request's body.

        Parameters
        ----------
        most
            Longest body in bytes.
        within_s
            Longest time for it to come in.

        Raises
        ------
        Refusal
            It is longer (413), or did not come in time (408).
        ClientGone
            The client left before it was complete.
        """
        stated = self.headers.get(b"content-length", b"").lstrip(
            b"0"
        )  # as many as it likes: no int() of that
        if stated and (len(stated) > len(str(most)) or int(stated) > most):
            raise _too_large(most)
        read = bytearray()
        try:
            async with asyncio.timeout(within_s):
                while True:
                    message = await self._receive()
                    if message["type"] == "http.disconnect":
                        raise ClientGone("the client left before its body was complete")
                    chunk: bytes = message.get("body", b"")
                    if len(read) + len(chunk) > most:
                        raise _too_large(most)
                    if not message.get("more_body", False):
                        return bytes(read + chunk) if read else chunk
                    read += chunk
        except TimeoutError:
            slow = f"the body did not come within {within_s:g} s"
            raise Refusal(408, slow, headers={"Connection": "close"}) from None

    async def while_there(self, work: Awaitable[_T]) -> _T:
        """Return what is worked out, or cancel it when the client disconnects.

        Raises
        ------
        ClientGone
            In the latter case.
        """
        me = asyncio.current_task()
        assert me is not None
        gone = False

        async def watch() -> None:
            nonlocal gone
            while (await self._receive())["type"] != "http.disconnect":
                pass
            gone = True
            me.cancel()

        watching = me.get_loop().create_task(watch())
        try:
            return await work
        except asyncio.CancelledError:
            if not gone:
                raise
            me.uncancel()
            raise ClientGone("the client left before it was answered") from None
        finally:
            watching.cancel()

    async def answer(
        self, status: int, body: bytes, headers: Mapping[str, str] | None = None,
        content_type: bytes = b"application/json",
    ) -> None:  # fmt: skip
        """Send a whole response."""
        said = [(b"content-type", content_type), (b"content-length", str(len(body)).encode())]
        if headers:
            said += [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        self.begun = True
        await self._send({"type": "http.response.start", "status": status, "headers": said})
        await self._send({"type": "http.response.body", "body": body})

    async def begin_events(self, headers: Mapping[str, str]) -> None:
        """Begin a response of server-sent events."""
        said = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store")]
        said += [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        self.begun = True
        await self._send({"type": "http.response.start", "status": 200, "headers": said})

    async def piece(self, text: str) -> None:
        """Send a piece of a response that has begun; waits while the client does not read."""
        await self._send(_body(text.encode(), more=True))

    async def end(self) -> None:
        """End a response that came in pieces."""
        await self._send(_body(b"", more=False))


def _body(data: bytes, *, more: bool) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}


def _too_large(most: int) -> Refusal:
    return Refusal(413, f"the body is larger than {most} bytes", headers={"Connection": "close"})
