"""The HTTP faces of the daemon: the data plane, where clients ask, and the admin's side, where people look.

Who calls is known by a key, which binds user and tenant; a caller may name a session, never somebody else.
Contents pass through and are not written down: the control plane sees counts and keyed hashes.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from hashlib import blake2b
from math import ceil, isfinite
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from glowsim.core.reasons import Code
from glowsim.core.types import Outcome, Request
from glowsim.live.calls import Answered, Closed, Failed, Rejected
from glowsim.live.driver import Driver
from glowsim.live.settings import Caller, Settings
from glowsim.live.telemetry import Telemetry

__all__ = ["Gateway", "Task", "tokens_of"]

_T = TypeVar("_T")
_BYTES_PER_TOKEN = 4
_CLIENT_GONE = 499
_REJECTED = {
    Code.LIMITED: 429,
    Code.TOO_LARGE: 413,
    Code.KEY_REUSED: 409,
    Code.WAITED_TOO_LONG: 504,
}
_FAILED = {Outcome.INVALID: 422, Outcome.TIMEOUT: 504, Outcome.THROTTLED: 503}
_COME_BACK = frozenset({429, 503})


class Task(BaseModel):
    """The body of a task.

    >>> Task.model_validate_json('{"input": "What is due in May?"}').stream
    False
    """

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    input: str | Annotated[list[Any], Field(min_length=1)]
    """A text, or a list of messages."""
    max_tokens_out: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    stream: bool = False
    session: Annotated[str, Field(max_length=200)] | None = None
    priority: Annotated[int, Field(ge=0, le=9)] = 1
    idempotency_key: Annotated[str, Field(max_length=200)] | None = None
    cache: bool = False
    """Whether an answer to the same input of the same tenant may be given again."""


def tokens_of(task: str | list[Any]) -> int:
    """Return about how many tokens an input is: a quarter of its bytes, and at least one.

    >>> tokens_of("What is due in May?")
    5
    """
    text = task if isinstance(task, str) else json.dumps(task, ensure_ascii=False)
    return max(ceil(len(text.encode()) / _BYTES_PER_TOKEN), 1)


@dataclass(frozen=True)
class Gateway:
    """What both faces share."""

    driver: Driver
    telemetry: Telemetry
    settings: Settings
    agents: Mapping[str, int]
    """Name -> number."""
    models: Mapping[str, str]
    """Agent -> its model."""
    regions: Mapping[str, int]
    """Agent -> number of its region."""
    emulated: frozenset[str]
    hash_key: bytes
    """Of the keyed hashes; they cannot be linked to names without it."""

    def data_app(self) -> Starlette:
        """Return the data plane."""
        return self._app(
            Route("/v1/agents/{agent}/tasks", self._task, methods=["POST"]),
            Route("/v1/agents", self._agents),
            Route("/healthz", self._healthy),
            Route("/readyz", self._ready),
        )

    def admin_app(self) -> Starlette:
        """Return the admin's side."""
        return self._app(
            Route("/metrics", self._metrics),
            Route("/state", self._state),
            Route("/journal", self._journal),
            Route("/healthz", self._healthy),
        )

    def _app(self, *routes: Route) -> Starlette:
        bounded = Middleware(_BoundedHeaders, most=self.settings.max_header_bytes)
        handlers: Any = {HTTPException: _as_json, Exception: _as_json, ClientDisconnect: _gone}
        return Starlette(routes=routes, middleware=[bounded], exception_handlers=handlers)

    # --- the data plane -------------------------------------------------------------------------------

    async def _task(self, http: HttpRequest) -> Response:
        caller = self._caller(http)
        agent = http.path_params["agent"]
        if agent not in self.agents:
            raise HTTPException(404, f"there is no agent {agent!r}; GET /v1/agents lists them")
        task = await self._body(http)
        asked = self._asked(http, caller, agent, task)
        begun_s = self.driver.now_s()
        try:
            if task.stream:
                said = self.driver.stream(asked, task.input)
                first = await _while_there(http, anext(said))
                events = self._events(first, said, agent, begun_s)
                return StreamingResponse(events, media_type="text/event-stream")
            answered = await _while_there(http, self.driver.request(asked, task.input))
        except (Rejected, Failed, Closed) as error:
            return _refusal(error)
        except ClientDisconnect:
            return Response(status_code=_CLIENT_GONE)
        return JSONResponse({**self._summary(answered, agent, begun_s), "output": answered.content})

    def _summary(self, answered: Answered, agent: str, begun_s: float) -> dict[str, Any]:
        usage = answered.usage
        return {
            "id": answered.request_id,
            "agent": agent,
            "emulated": agent in self.emulated,
            "answered": answered.how.name.lower(),
            "latency_s": self.driver.now_s() - begun_s,
            "usage": {
                "tokens_in": usage.tokens_in,
                "tokens_cached": usage.tokens_cached,
                "tokens_out": usage.tokens_out,
            },
        }

    async def _events(
        self, first: str | Answered, said: AsyncIterator[str | Answered], agent: str, begun_s: float
    ) -> AsyncIterator[str]:
        """Yield server-sent events: pieces as they come, then the summary; or what broke the stream."""
        async with aclosing(said):  # type: ignore[type-var]  # the driver's generator
            try:
                yield self._event(first, agent, begun_s)
                async for each in said:
                    yield self._event(each, agent, begun_s)
            except (Failed, Closed) as error:
                yield _sse({"error": _description(error)})

    def _event(self, said: str | Answered, agent: str, begun_s: float) -> str:
        if isinstance(said, Answered):
            return _sse({"done": True, **self._summary(said, agent, begun_s)})
        return _sse({"delta": said})

    def _caller(self, http: HttpRequest) -> Caller:
        if not self.settings.keys:
            return Caller("local", "local")
        scheme, _, secret = http.headers.get("authorization", "").partition(" ")
        caller = self.settings.caller(secret.strip()) if scheme.lower() == "bearer" else None
        if caller is None:
            raise HTTPException(
                401, "send a valid key as 'Authorization: Bearer KEY'", {"WWW-Authenticate": "Bearer"}
            )
        return caller

    async def _body(self, http: HttpRequest) -> Task:
        if http.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            raise HTTPException(415, "send the task as 'Content-Type: application/json'")
        most = self.settings.max_body_bytes
        too_large = HTTPException(413, f"the body is larger than {most} bytes", {"Connection": "close"})
        stated = http.headers.get("content-length", "0")
        if stated.isdecimal() and int(stated) > most:
            raise too_large
        body = bytearray()
        try:
            async with asyncio.timeout(self.settings.body_timeout_s):
                async for chunk in http.stream():
                    body += chunk
                    if len(body) > most:
                        raise too_large
        except TimeoutError:
            slow = f"the body did not come within {self.settings.body_timeout_s:g} s"
            raise HTTPException(408, slow, {"Connection": "close"}) from None
        try:
            return Task.model_validate_json(bytes(body))
        except ValidationError as error:
            found = error.errors(include_input=False, include_url=False)
            where = "; ".join(f"{'.'.join(map(str, each['loc'])) or 'body'}: {each['msg']}" for each in found)
            raise HTTPException(400, where) from None

    def _asked(self, http: HttpRequest, caller: Caller, agent: str, task: Task) -> Request:
        """Return what the control plane may know of a task: counts and keyed hashes, bound to the caller."""
        max_tokens_out = task.max_tokens_out or self.settings.max_tokens_out
        repeat = task.idempotency_key or http.headers.get("idempotency-key")
        payload = self._hash("payload", task.input, max_tokens_out)
        tenant = self._hash("tenant", caller.tenant)
        return Request(
            request_id=0,
            agent=self.agents[agent],
            tokens_in=tokens_of(task.input),
            max_tokens_out=max_tokens_out,
            priority=task.priority,
            region=self.regions[agent],
            session=self._hash("session", *caller, task.session) if task.session else 0,
            user=self._hash("user", *caller),
            tenant=tenant,
            cache_key=self._hash("cache", tenant, agent, payload) if task.cache else 0,
            idempotency_key=self._hash("idempotency", *caller, agent, repeat) if repeat else 0,
            payload=payload,
        )

    def _hash(self, *parts: Any) -> int:
        """Return a keyed 64-bit hash, never 0."""
        text = json.dumps(parts, ensure_ascii=False).encode()
        return int.from_bytes(blake2b(text, digest_size=8, key=self.hash_key).digest(), "little") or 1

    async def _agents(self, http: HttpRequest) -> Response:
        self._caller(http)
        return JSONResponse(
            {
                "agents": [
                    {"name": name, "model": self.models[name], "emulated": name in self.emulated}
                    for name in self.agents
                ]
            }
        )

    async def _healthy(self, http: HttpRequest) -> Response:
        return JSONResponse({"healthy": True})

    async def _ready(self, http: HttpRequest) -> Response:
        ready = self.driver.admitting
        return JSONResponse({"ready": ready}, 200 if ready else 503)

    # --- the admin's side -----------------------------------------------------------------------------

    def _admin(self, http: HttpRequest) -> None:
        scheme, _, token = http.headers.get("authorization", "").partition(" ")
        if not self.settings.is_admin(token.strip() if scheme.lower() == "bearer" else ""):
            raise HTTPException(
                401, "send the admin token as 'Authorization: Bearer TOKEN'", {"WWW-Authenticate": "Bearer"}
            )

    async def _metrics(self, http: HttpRequest) -> Response:
        self._admin(http)
        text = self.telemetry.metrics(self.driver.now_s())
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")

    async def _state(self, http: HttpRequest) -> Response:
        self._admin(http)
        state = self.telemetry.state(self.driver.now_s())
        for name, agent in state["agents"].items():
            agent["emulated"] = name in self.emulated
        return JSONResponse({"admitting": self.driver.admitting, **state})

    async def _journal(self, http: HttpRequest) -> Response:
        """Say where the journal is; what happened before the question is in it."""
        self._admin(http)
        self.driver.flush()
        path = self.settings.journal_path
        return JSONResponse({"path": str(path), "bytes": path.stat().st_size})


class _BoundedHeaders:
    """Turns away requests whose headers are too large together."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app = app
        self._most = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        size = sum(len(name) + len(value) for name, value in scope.get("headers", ()))
        if size > self._most:
            message = f"the headers are larger than {self._most} bytes"
            await _error(431, message, {"Connection": "close"})(scope, receive, send)
        else:
            await self._app(scope, receive, send)


async def _while_there(http: HttpRequest, work: Awaitable[_T]) -> _T:
    """Return what is worked out, or cancel it when the client disconnects.

    Raises `ClientDisconnect` in the latter case.
    """

    async def left() -> None:
        while (await http.receive())["type"] != "http.disconnect":
            pass

    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(left())
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


def _description(error: Rejected | Failed | Closed) -> dict[str, Any]:
    if isinstance(error, Closed):
        return {"code": "closing", "message": str(error)}
    return {"code": error.reason.code.name.lower(), "message": str(error), "id": error.request_id}


def _refusal(error: Rejected | Failed | Closed) -> Response:
    wait_s = 1.0
    if isinstance(error, Rejected):
        status = _REJECTED.get(error.reason.code, 503)
        wait_s = error.retry_after_s
    else:
        status = _FAILED.get(error.outcome, 502) if isinstance(error, Failed) else 503
    come_back = status in _COME_BACK and isfinite(wait_s)  # never: what exceeds its limit by itself
    headers = {"Retry-After": str(max(ceil(wait_s), 1))} if come_back else None
    return JSONResponse({"error": _description(error)}, status, headers)


def _error(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse({"error": {"code": status, "message": message}}, status, headers)


async def _as_json(http: HttpRequest, error: Exception) -> Response:
    if isinstance(error, HTTPException):
        return _error(error.status_code, error.detail, error.headers)
    return _error(500, "the gateway failed; its log says why")


async def _gone(http: HttpRequest, error: Exception) -> Response:
    return Response(status_code=_CLIENT_GONE)


def _sse(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n"
