"""The dashboard over HTTP: a static page that anybody may load, and data that take the admin's token.

The page sends the token as a header, with ``fetch``, and keeps it in the tab's session storage. A cookie would be sent
by itself, so it would take protection against forged requests; and cookies do not know ports, so that of the admin's
side would go to everything else on the same host, the agents included. Against scripts from elsewhere, which could read
the storage, stands the content policy: nothing runs, and nothing is connected to, but what comes from here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, Protocol

from starlette.exceptions import HTTPException
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from glowsim.live.dashboard.document import Document
from glowsim.live.dashboard.stream import Ticks, TooManyViewers, Viewer

__all__ = ["POLICY", "Dashboard", "Source", "page_routes"]


POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_SECURE: Final = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_STATIC: Final = _SECURE | {"Cache-Control": "no-cache", "Cross-Origin-Opener-Policy": "same-origin"}
_DATA: Final = _SECURE | {"Cache-Control": "no-store"}
_FILES: Final = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
}
_PATIENCE_S = 30.0
"""Longest time that a viewer may take in nothing."""


class Source(Protocol):
    """What a dashboard asks of a driver."""

    def now_s(self) -> float:
        """Return the journal's time."""

    @property
    def admitting(self) -> bool:
        """Whether requests are taken in."""


class Dashboard:
    """The dashboard of a daemon.

    Parameters
    ----------
    document
        Makes what is shown.
    driver
        Says what time it is, and whether requests are taken in.
    viewers
        How many may watch at once, at least 1.
    every_s
        Seconds between ticks, above 0.
    """

    def __init__(
        self, document: Document, driver: Source, *, viewers: int = 32, every_s: float = 1.0
    ) -> None:
        self.document = document
        self._driver = driver
        self.ticks = Ticks(self._steps, self._news, every_s=every_s, viewers=viewers)

    def routes(self, admin: Callable[[HttpRequest], None]) -> list[Route]:
        """Return the routes; ``admin`` raises an `HTTPException` for who is not the admin."""
        return page_routes(self.ticks, self._made, admin)

    def close(self) -> None:
        """End all streams."""
        self.ticks.close()

    def _made(self) -> dict[str, Any]:
        return self.document.made(self._driver.now_s(), admitting=self._driver.admitting)

    def _steps(self) -> Iterator[dict[str, Any] | None]:
        return self.document.steps(self._driver.now_s(), admitting=self._driver.admitting)

    def _news(self) -> object:
        return self.document.telemetry.seen, self._driver.admitting


def page_routes(
    ticks: Ticks, made: Callable[[], dict[str, Any]], admin: Callable[[HttpRequest], None]
) -> list[Route]:
    """Return the routes of a page and of what it draws.

    Parameters
    ----------
    ticks
        The stream of documents.
    made
        Returns the document as it is now.
    admin
        Raises an `HTTPException` for who may not see it.
    """

    async def data(http: HttpRequest) -> Response:
        admin(http)
        return JSONResponse(made(), headers=_DATA)

    async def events(http: HttpRequest) -> Response:
        admin(http)
        try:
            return _Events(ticks, ticks.join())
        except TooManyViewers as error:
            raise HTTPException(503, str(error), {"Retry-After": "10"}) from None

    return [
        *(_static(path, *file) for path, file in _FILES.items()),
        Route("/v1/dashboard", data, methods=["GET"]),
        Route("/v1/dashboard/events", events, methods=["GET"]),
    ]


class _Events(Response):
    """A response of server-sent events that ends when its client goes, is too slow, or the stream is over."""

    def __init__(self, ticks: Ticks, viewer: Viewer) -> None:
        super().__init__(headers=_DATA, media_type="text/event-stream")
        del self.headers["content-length"]
        self._ticks = ticks
        self._viewer = viewer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def until_gone() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            self._ticks.leave(self._viewer)

        listening = asyncio.get_running_loop().create_task(until_gone())
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            while (event := await self._viewer.fetch()) is not None:
                async with asyncio.timeout(_PATIENCE_S):
                    await send({"type": "http.response.body", "body": event, "more_body": True})
        except TimeoutError:
            self._ticks.leave(
                self._viewer
            )  # its place is free; the end below waits for it as long as it likes
        finally:
            self._ticks.leave(self._viewer)
            listening.cancel()
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _static(path: str, name: str, media_type: str) -> Route:
    content = (Path(__file__).parent / name).read_bytes()

    async def file(http: HttpRequest) -> Response:
        return Response(content, media_type=media_type, headers=_STATIC)

    return Route(path, file, methods=["GET"])
