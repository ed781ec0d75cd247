"""What serves pages and orders on the admin's side: errors are JSON, and nobody is sent elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

__all__ = ["application"]


def application(routes: Sequence[Route]) -> Starlette:
    """Return routes as an ASGI application."""
    app = Starlette(routes=routes, exception_handlers={HTTPException: _as_json, Exception: _as_json})
    app.router.redirect_slashes = False  # nobody is sent to the host that he named himself
    return app


async def _as_json(http: HttpRequest, error: Exception) -> Response:
    status, message, headers = 500, "the daemon failed; its log says why", None
    if isinstance(error, HTTPException):
        status, message, headers = error.status_code, error.detail, error.headers
    return JSONResponse({"error": {"code": status, "message": message}}, status, headers)
