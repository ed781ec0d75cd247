"""The HTTP server: uvicorn on httptools, with bounds on what comes in before a request is complete."""

from __future__ import annotations

import asyncio
import socket
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["Server"]

_HEAD_WITHIN_S = 30.0


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


class _Bounded(HttpToolsProtocol):
    """Bounds a request's line and headers, in bytes and in time: httptools keeps them and waits without a limit."""

    def __init__(self, most: int, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._most = most
        self._head_bytes = 0
        self._in_head = True
        self._patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait_for_head()

    def connection_lost(self, error: Exception | None) -> None:
        self._have_head()
        super().connection_lost(error)

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes:
            if self._head_bytes > self._most:
                self._refuse()
            elif self._patience is None:
                self._wait_for_head()

    def on_headers_complete(self) -> None:
        self._have_head()
        if sum(len(name) + len(value) for name, value in self.headers) + len(self.url) > self._most:
            self._refuse()
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if self.cycle is not None:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_head = True
        if self.cycle is not None:
            super().on_message_complete()

    def _wait_for_head(self) -> None:
        self._patience = self.loop.call_later(_HEAD_WITHIN_S, self.transport.close)

    def _have_head(self) -> None:
        self._in_head = False
        self._head_bytes = 0
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _refuse(self) -> None:
        if self.transport.is_closing():
            return
        said = f'{{"error": {{"code": 431, "message": "the headers are larger than {self._most} bytes"}}}}'
        self.transport.write(
            b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: application/json\r\n"
            b"connection: close\r\ncontent-length: " + str(len(said)).encode() + b"\r\n\r\n" + said.encode()
        )
        self.transport.close()
