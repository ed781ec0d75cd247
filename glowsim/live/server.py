"""The HTTP server: uvicorn on httptools, strict where that is lenient, with bounds on all that is not a body."""

from __future__ import annotations

import asyncio
import json
import socket
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from http import HTTPStatus
from typing import Any

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

__all__ = ["Server"]

_HEAD_WITHIN_S = 30.0
"""Longest time for a head to come in, and for the rest of a body that was answered before it was whole."""
_ONCE = frozenset({b"host", b"authorization", b"x-api-key", b"content-type", b"idempotency-key"})
"""Headers of which a second one would leave open which of them counts, here or at a proxy in front."""


class Server(uvicorn.Server):
    """A server without a hand on signals and logs.

    Parameters
    ----------
    app
        An ASGI application.
    max_header_bytes
        A request whose line and headers are longer is answered with 431 while they still come in.
    connections
        Most connections at once, at least 1; one more is answered with 503.
    """

    def __init__(self, app: Any, *, max_header_bytes: int, connections: int) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=partial(_Bounded, max_header_bytes),  # type: ignore[arg-type]  # called as the class would be
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="info",  # beneath that it writes down paths and queries, whatever the daemon's own level
                access_log=False,
                server_header=False,
                proxy_headers=False,
                limit_concurrency=connections,
                timeout_graceful_shutdown=1,
                backlog=4096,
            )
        )
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start and say so."""
        await super().startup(sockets)
        self.ready.set()

    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]
        """Leave the signals to the daemon."""
        return nullcontext()


class _Unreadable(Exception):
    """What comes in is refused by the protocol, before or beside the application."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class _Bounded(HttpToolsProtocol):
    """Bounds heads, chunks' frames and trailers, in bytes and in time, and keeps answers in step with requests.

    httptools keeps heads and trailers and waits for them without a limit, gives out trailers as if they were headers
    (RFC 9110, 6.5.1: they are not), and takes the body of a request that offers an upgrade for something else than
    HTTP; uvicorn answers what it cannot read even while an earlier request is being answered.
    """

    def __init__(self, most: int, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.access_log = (
            False  # uvicorn asks whether anybody listens to its log of queries, not what it was told
        )
        self._most = most
        self._beside_body = 0
        """Bytes that came in since the last one of a body."""
        self._in_head = True
        self._deaf = False
        """Whether what comes in is of no interest any more: it is out of step."""
        self._patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, error: Exception | None) -> None:
        self._wait_no_more()
        super().connection_lost(error)

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        self._unset_keepalive_if_required()
        self._beside_body += len(data)
        try:
            self._feed(data)
            if self._beside_body > self._most:
                raise self._too_long()
        except _Unreadable as error:
            self._refuse(error)
        else:
            if self._in_head and self._beside_body and self._patience is None:
                self._wait()

    def _feed(self, data: bytes) -> None:
        while data:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as stopped:
                data = self._head_without_upgrade() + data[stopped.args[0] :]
            except httptools.HttpParserError as error:
                if isinstance(error.__context__, _Unreadable):
                    raise error.__context__ from None
                raise _Unreadable(HTTPStatus.BAD_REQUEST, "this is no request in HTTP/1.1") from None
            else:
                return

    def _head_without_upgrade(self) -> bytes:
        """Return the head that was read last without its offer to speak something else: it is declined.

        Java's own client and ``curl --http2`` make that offer with every first request (RFC 9110, 7.8).
        """
        asked = [value for name, value in self.headers if name == b"connection"]
        kept = [each for each in b",".join(asked).split(b",") if each.strip().lower() != b"upgrade"]
        headers = [each for each in self.headers if each[0] not in (b"connection", b"upgrade")]
        lines = [
            b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode()),
            *(b"%s: %s" % each for each in (*headers, (b"connection", b",".join(kept)))),
        ]
        return b"\r\n".join(lines) + b"\r\n\r\n"

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                raise _Unreadable(HTTPStatus.BAD_REQUEST, "this is no proxy: there is no CONNECT")
            return  # the head is read again, without
        self._check_head()
        super().on_headers_complete()
        self._in_head = False
        self._beside_body = 0
        self._wait_no_more()

    def _check_head(self) -> None:
        size, once = len(self.url), set[bytes]()
        for name, value in self.headers:
            size += len(name) + len(value)
            if name in _ONCE:
                if name in once:
                    message = f"the header {name.decode()} is there twice: give it once"
                    raise _Unreadable(HTTPStatus.BAD_REQUEST, message)
                once.add(name)
        if size > self._most:
            raise self._too_long()
        if b"host" not in once and self.parser.get_http_version() == "1.1":
            raise _Unreadable(HTTPStatus.BAD_REQUEST, "the header host is missing")

    def on_body(self, body: bytes) -> None:
        self._beside_body = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        self._in_head = True
        self._beside_body = 0
        self._wait_no_more()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle.response_complete and not self._in_head and self._patience is None:
            self._wait()

    def _wait(self) -> None:
        self._patience = self.loop.call_later(_HEAD_WITHIN_S, self.transport.close)

    def _wait_no_more(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _too_long(self) -> _Unreadable:
        message = f"the headers are larger than {self._most} bytes"
        return _Unreadable(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, message)

    def _refuse(self, error: _Unreadable) -> None:
        """Hang up, once what came before is answered: what follows on this connection cannot be told apart."""
        self._deaf = True
        self._wait_no_more()
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is not None and not cycle.response_complete and (self._in_head or self.pipeline):
            cycle.keep_alive = False
            return
        if self._in_head or cycle is None or not cycle.response_started:
            status = error.status
            said = json.dumps({"error": {"code": status.value, "message": error.message}}).encode()
            head = (
                f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: application/json\r\n"
                f"connection: close\r\ncontent-length: {len(said)}\r\n\r\n"
            )
            self.transport.write(head.encode() + said)
        self.transport.close()
