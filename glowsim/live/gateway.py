"""The data plane: where clients ask, in the protocols they know, over raw ASGI.

Who calls is known by a key or a signed token, which binds user and tenant; headers may narrow that (a session, a
priority, a deadline, a region), never assert somebody else. Contents pass through and are not written down: the control
plane sees counts and keyed hashes.
"""

from __future__ import annotations

import json
import logging
import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from math import ceil, inf, isfinite
from typing import Any

from starlette.types import Receive, Scope, Send

import glowsim
from glowsim.core.reasons import Code
from glowsim.core.types import Outcome, Request
from glowsim.live.calls import Answered, Closed, Failed, InvalidTask, Rejected
from glowsim.live.content import Content
from glowsim.live.data_shapes import LONGEST_TAG, OPERATIONS, Task
from glowsim.live.driver import Driver
from glowsim.live.faults import trace_of
from glowsim.live.front_door import FrontDoor
from glowsim.live.identity import Identity, UnknownKey
from glowsim.live.openapi import document
from glowsim.live.outbox import Feedback, KeyReused, Outbox, Taken, TooMuch, Unknown
from glowsim.live.protocols import PATHS, BadBody, Protocol
from glowsim.live.protocols.events import json_text, sse
from glowsim.live.settings import Caller, Settings
from glowsim.live.shapes import read_as
from glowsim.live.store import StoreError
from glowsim.live.web import ClientGone, Exchange, Refusal, check_media, ours

__all__ = ["Fleet", "Gateway", "Task", "take_feedback", "tokens_of"]

_log = logging.getLogger(__name__)
_BYTES_PER_TOKEN = 4
_REJECTED = {
    Code.LIMITED: 429,
    Code.TOO_LARGE: 413,
    Code.KEY_REUSED: 409,
    Code.WAITED_TOO_LONG: 504,
}
_FAILED = {Outcome.INVALID: 422, Outcome.TIMEOUT: 504, Outcome.THROTTLED: 503}
_NOT_TAKEN: dict[type, int] = {Unknown: 404, KeyReused: 409, TooMuch: 429}
_COME_BACK = frozenset({429, 503})
_CALLERS = 10_000
_TASKS = "/v1/agents/"
_FEEDBACK = "/v1/feedback"


def tokens_of(task: str | list[Any]) -> int:
    """Return about how many tokens an input is: a quarter of its bytes, and at least one.

    >>> tokens_of("What is due in May?")
    5
    """
    text = task if isinstance(task, str) else json.dumps(task, ensure_ascii=False)
    return max(ceil(len(text.encode()) / _BYTES_PER_TOKEN), 1)


@dataclass(frozen=True)
class Fleet:
    """What a gateway knows of the agents."""

    agents: Mapping[str, int]
    """Name -> number."""
    models: Mapping[str, str]
    """Agent -> its model."""
    emulated: frozenset[str]
    regions: Mapping[str, int]
    """Region -> number."""
    region_of: Sequence[int]
    """Of each agent, by number."""
    front_door: FrontDoor
    """Where the users of services go."""

    def agent(self, name: str, region: int) -> int | None:
        """Return the number of the agent that a name means to users of a region; None if it means none.

        Of a service it is the one that its front door sends them to.

        Raises
        ------
        Refusal
            451: no agent of the service may serve users of that region.
        """
        if name in self.agents:
            return self.agents[name]
        if name not in self.front_door.services:
            return None
        agent = self.front_door.agent(name, region)
        if agent is None:
            raise Refusal(451, f"no agent of {name} may serve users of this region")
        return agent


class Gateway:
    """The data plane, as an ASGI application.

    ``POST /v1/chat/completions``, ``/v1/responses``, ``/v1/messages``, ``/v1/embeddings``: the ``model`` of the body is
    an agent or a service. ``POST /v1/agents/{agent}/tasks``: for agents that speak none of these.
    ``POST /v1/feedback``: what callers say of answers. ``GET /v1/models``, ``/v1/agents``, ``/healthz``, ``/readyz``;
    ``/openapi.json`` is the document of all this.

    Parameters
    ----------
    driver
        What asks the control plane.
    settings
        The limits.
    fleet
        The agents.
    identity
        Says who calls.
    hash_key
        Of the keyed hashes; they cannot be linked to names without it.
    outbox
        Takes in feedback.
    """

    def __init__(
        self, driver: Driver, settings: Settings, fleet: Fleet, identity: Identity, hash_key: bytes, outbox: Outbox
    ) -> None:  # fmt: skip
        self._outbox = outbox
        self._driver = driver
        self._settings = settings
        self._fleet = fleet
        self._identity = identity
        self._hash_key = hash_key
        self._names = {number: name for name, number in fleet.agents.items()}
        self._hashes: dict[Caller, tuple[int, int]] = {}
        """Caller -> hashes of user and tenant."""
        self._id_prefix = secrets.token_hex(6)
        self._asked = 0
        self._pages = {
            "/v1/models": self._models,
            "/v1/agents": self._agents,
            "/healthz": self._healthy,
            "/readyz": self._ready,
            "/openapi.json": self._openapi,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one exchange."""
        http = Exchange(scope, receive, send)
        protocol = PATHS.get(http.path)
        try:
            try:
                if protocol is not None:
                    await self._ask(http, protocol)
                elif http.path.startswith(_TASKS) and http.path.endswith("/tasks"):
                    await self._task(http, http.path[len(_TASKS) : -len("/tasks")])
                elif http.path == _FEEDBACK:
                    await self._feedback(http)
                else:
                    await self._page(http)
            except ClientGone:
                pass
            except Refusal as error:
                await _refuse(http, protocol, error.status, error.message, None, error.param, error.headers)
            except (Rejected, Failed, Closed) as error:
                status, code, message, headers = _turned_down(error, protocol is not None)
                await _refuse(http, protocol, status, message, code, None, headers)
        except Exception as error:
            _log.error("the gateway failed:\n%s", trace_of(error))
            if http.begun:
                raise
            await _refuse(http, protocol, 500, "the gateway failed; its log says why", None, None, {})

    # --- the protocols of models ----------------------------------------------------------------------

    async def _ask(self, http: Exchange, protocol: Protocol) -> None:
        caller = await self._caller(http, "POST")
        raw = await self._body(http)
        try:
            asked = protocol.read(raw)
        except BadBody as error:
            raise Refusal(400, error.message, param=error.param) from None
        region = self._region(http)
        agent = self._fleet.agent(asked.model, region or 0)
        if agent is None:
            message = f"there is no agent {asked.model!r} to be the 'model'; GET /v1/models lists them"
            raise Refusal(404, message, param="model")
        request = self._request(
            http, caller, agent, region, raw, asked.tokens_in, asked.max_tokens_out, protocol.name
        )
        self._asked += 1
        answer_id = f"{self._id_prefix}{self._asked:x}"
        content = Content(protocol, asked, answer_id, int(time.time()))
        if asked.stream:
            await self._stream(http, request, content)
            return
        answered = await http.while_there(self._answered(request, content, _trace(http)))
        await http.answer(200, answered.content.encode(), _about(answered))

    async def _answered(self, request: Request, content: Any, trace: Mapping[str, str]) -> Answered:
        """Return the answer once it is written down: what a client was given, its budget is charged for."""
        try:
            answered = await self._driver.request(request, content, trace)
        except Failed:
            await self._driver.written()
            raise
        await self._driver.written()
        return answered

    async def _stream(self, http: Exchange, request: Request, content: Content) -> None:
        about: dict[str, str] = {}

        def numbered(number: int) -> None:
            about["X-Request-Id"] = str(number)

        async def pass_on() -> None:
            pieces = self._driver.stream(request, content, _trace(http), numbered)
            async with aclosing(pieces) as said:  # type: ignore[type-var]
                try:
                    async for each in said:
                        if isinstance(each, Answered):
                            await self._driver.written()
                            if not http.begun:
                                await http.begin_events(_about(each))
                            break
                        if not http.begun:
                            await http.begin_events(about)
                        await http.piece(each)
                except (Failed, Closed) as error:
                    if not http.begun:
                        raise
                    status, code, message, _ = _turned_down(error, True)
                    await http.piece(content.protocol.error_frame(status, message, code=code))
            await http.end()

        await http.while_there(pass_on())

    # --- tasks ----------------------------------------------------------------------------------------

    async def _task(self, http: Exchange, name: str) -> None:
        caller = await self._caller(http, "POST")
        region = self._region(http)
        agent = self._fleet.agent(name, region or 0)
        if agent is None:
            raise Refusal(404, f"there is no agent {name!r}; GET /v1/agents lists them")
        raw = await self._body(http)
        task = read_as(raw, Task)
        payload = json.dumps([task.input, task.max_tokens_out], ensure_ascii=False).encode()
        request = self._request(
            http, caller, agent, region, payload, tokens_of(task.input), task.max_tokens_out, "task", task
        )
        begun_s = self._driver.now_s()
        if task.stream:
            await http.while_there(self._task_stream(http, request, task, begun_s))
            return
        answered = await http.while_there(self._answered(request, task.input, _trace(http)))
        said = {**self._summary(answered, agent, begun_s), "output": answered.content}
        await http.answer(200, json_text(said).encode())

    async def _task_stream(self, http: Exchange, request: Request, task: Task, begun_s: float) -> None:
        async with aclosing(self._driver.stream(request, task.input, _trace(http))) as said:  # type: ignore[type-var]
            try:
                async for each in said:
                    if not http.begun:
                        await http.begin_events({})
                    if isinstance(each, Answered):
                        await self._driver.written()
                        await http.piece(_sse({"done": True, **self._summary(each, request.agent, begun_s)}))
                        break
                    await http.piece(_sse({"delta": each}))
            except (Failed, Closed) as error:
                if not http.begun:
                    raise
                await http.piece(_sse({"error": _description(error)}))
        await http.end()

    def _summary(self, answered: Answered, agent: int, begun_s: float) -> dict[str, Any]:
        usage, name = answered.usage, self._names[agent]
        return {
            "id": answered.request_id,
            "agent": name,
            "emulated": name in self._fleet.emulated,
            "answered": answered.how.name.lower(),
            "latency_s": self._driver.now_s() - begun_s,
            "usage": {
                "tokens_in": usage.tokens_in,
                "tokens_cached": usage.tokens_cached,
                "tokens_out": usage.tokens_out,
            },
        }

    # --- feedback -------------------------------------------------------------------------------------

    async def _feedback(self, http: Exchange) -> None:
        caller = await self._caller(http, "POST")
        raw = await self._body(http)
        given = read_as(raw, Feedback)
        if given.kind == "label":
            raise Refusal(403, "a label is taken on the admin's side only")
        scope, tenant = self._hashes_of(caller)
        key = http.header(b"idempotency-key")
        taken = await take_feedback(self._outbox, given, key=key, scope=scope, tenant=tenant)
        await _json(http, {"id": taken.number, "repeated": taken.again}, 200 if taken.again else 201)

    # --- what the control plane may know --------------------------------------------------------------

    async def _caller(self, http: Exchange, method: str) -> Caller:
        _check_method(http, method)
        if self._identity.open and self._settings.loopback:
            ours(http.headers.get(b"host", b""))
        try:
            return self._identity.caller(http.headers)
        except UnknownKey:
            return await self._identity.look_again(http.headers)

    async def _body(self, http: Exchange) -> bytes:
        check_media(http.header(b"content-type"), http.header(b"content-encoding"))
        return await http.body(self._settings.max_body_bytes, self._settings.body_timeout_s)

    def _region(self, http: Exchange) -> int | None:
        name = http.header(b"x-glowsim-region")
        if name is None:
            return None
        number = self._fleet.regions.get(name)
        if number is None:
            raise Refusal(
                400, f"X-Glowsim-Region: there is no such region; there are {', '.join(self._fleet.regions)}"
            )
        return number

    def _request(
        self, http: Exchange, caller: Caller, agent: int, region: int | None, payload: bytes, tokens_in: int,
        max_tokens_out: int | None, kind: str, task: Task | None = None,
    ) -> Request:  # fmt: skip
        """Return what the control plane may know: counts and keyed hashes, bound to the caller."""
        user, tenant = self._hashes_of(caller)
        session, repeat = http.header(b"x-glowsim-session"), http.header(b"idempotency-key")
        priority, deadline_s = _priority(http), self._deadline(http)
        cache = _yes(http, b"x-glowsim-cache")
        if task is not None:
            session, repeat = task.session or session, task.idempotency_key or repeat
            priority, cache = priority if task.priority is None else task.priority, task.cache or cache
        hashed = self._digest(payload, kind)
        request = Request(
            request_id=0,
            agent=agent,
            tokens_in=tokens_in,
            max_tokens_out=max_tokens_out or self._settings.max_tokens_out,
            priority=priority,
            region=self._fleet.region_of[agent] if region is None else region,
            deadline_s=deadline_s,
            session=0
            if session is None
            else self._hash(b"session", *caller, _short("X-Glowsim-Session", session)),
            user=user,
            tenant=tenant,
            cache_key=self._hash(b"cache", str(tenant), str(agent), str(hashed)) if cache else 0,
            idempotency_key=0
            if repeat is None
            else self._hash(b"repeat", *caller, str(agent), _short("Idempotency-Key", repeat)),
            payload=hashed,
        )
        http.scope["glowsim.request"] = request  # for middleware, which cannot know it
        return request

    def _hashes_of(self, caller: Caller) -> tuple[int, int]:
        """Return the hashes of a caller's user and tenant."""
        hashes = self._hashes.get(caller)
        if hashes is None:
            if len(self._hashes) >= _CALLERS:
                self._hashes.clear()
            hashes = self._hash(b"user", *caller), self._hash(b"tenant", caller.tenant)
            self._hashes[caller] = hashes
        return hashes

    def _deadline(self, http: Exchange) -> float:
        stated = http.header(b"x-glowsim-deadline")
        if stated is None:
            return inf
        try:
            left_s = float(stated)
        except ValueError:
            left_s = 0.0
        if not 0.0 < left_s < inf:
            raise Refusal(400, "X-Glowsim-Deadline: give the seconds in which an answer is of use, above 0")
        return self._driver.now_s() + left_s

    def _hash(self, kind: bytes, *parts: str) -> int:
        return self._digest(json.dumps(parts).encode(), kind.decode())

    def _digest(self, data: bytes, kind: str) -> int:
        """Return a keyed 64-bit hash, never 0."""
        hashed = blake2b(data, digest_size=8, key=self._hash_key, person=kind.encode()).digest()
        return int.from_bytes(hashed, "little") or 1

    # --- pages ----------------------------------------------------------------------------------------

    async def _page(self, http: Exchange) -> None:
        page = self._pages.get(http.path)
        if page is None and http.path.startswith("/v1/models/"):
            await self._caller(http, "GET")
            name = http.path.removeprefix("/v1/models/")
            if name not in self._fleet.agents and name not in self._fleet.front_door.services:
                raise Refusal(404, f"there is no agent {name!r}; GET /v1/models lists them")
            await _json(http, _model(name))
        elif page is None:
            raise Refusal(404, f"there is nothing at {http.path[:200]}")
        else:
            _check_method(http, "GET")
            await page(http)

    async def _models(self, http: Exchange) -> None:
        await self._caller(http, "GET")
        models = [_model(name) for name in (*self._fleet.agents, *self._fleet.front_door.services)]
        await _json(
            http,
            {
                "object": "list", "data": models, "has_more": False,
                "first_id": models[0]["id"], "last_id": models[-1]["id"],
            },
        )  # fmt: skip

    async def _agents(self, http: Exchange) -> None:
        await self._caller(http, "GET")
        agents = [
            {"name": name, "model": self._fleet.models[name], "emulated": name in self._fleet.emulated}
            for name in self._fleet.agents
        ]
        await _json(http, {"agents": agents})

    async def _openapi(self, http: Exchange) -> None:
        await self._caller(http, "GET")
        await http.answer(200, _document())

    async def _healthy(self, http: Exchange) -> None:
        await _json(http, {"healthy": True})

    async def _ready(self, http: Exchange) -> None:
        """Say whether a load balancer may send requests here: whether any agent can be served, not whether all can."""
        why = self._driver.unready()
        await _json(http, {"ready": not why, "reason": why}, 503 if why else 200)


@cache
def _document() -> bytes:
    described = document("glowsim", glowsim.__version__, OPERATIONS, key_header="x-api-key")
    return json.dumps(described).encode()


def _check_method(http: Exchange, method: str) -> None:
    allowed = ("GET", "HEAD") if method == "GET" else (method,)
    if http.method not in allowed:
        raise Refusal(405, f"use {method} here", headers={"Allow": ", ".join(allowed)})


async def take_feedback(
    outbox: Outbox, given: Feedback, *, key: str | None, scope: int, tenant: int | None
) -> Taken:  # fmt: skip
    """Take in feedback.

    Parameters
    ----------
    outbox
        Who takes it in.
    given
        What was said.
    key
        The header ``Idempotency-Key``, where the body has none of its own.
    scope, tenant
        As of `Outbox.feedback`.

    Raises
    ------
    Refusal
        Why it was not taken, with the status that says so.
    """
    if key is not None:
        _short("Idempotency-Key", key)
        given = given.model_copy(update={"idempotency_key": given.idempotency_key or key})
    try:
        return await outbox.feedback(given, scope=scope, tenant=tenant)
    except ValueError as error:
        raise Refusal(400, str(error)) from None
    except (Unknown, KeyReused, TooMuch) as error:
        raise Refusal(_NOT_TAKEN[type(error)], str(error)) from None
    except StoreError as error:
        raise Refusal(503, str(error), headers={"Retry-After": "1"}) from None


def _model(name: str) -> dict[str, Any]:
    return {
        "id": name, "object": "model", "created": 0, "owned_by": "glowsim",
        "type": "model", "display_name": name, "created_at": "1970-01-01T00:00:00Z",
    }  # fmt: skip


async def _json(http: Exchange, said: dict[str, Any], status: int = 200) -> None:
    await http.answer(status, json_text(said).encode())


async def _refuse(
    http: Exchange, protocol: Protocol | None, status: int, message: str, code: str | None, param: str | None,
    headers: Mapping[str, str],
) -> None:  # fmt: skip
    if protocol is None:
        said: dict[str, Any] = {"error": {"code": code or status, "message": message}}
    else:
        said = protocol.error(status, message, code=code, param=param)
    await http.answer(status, json_text(said).encode(), headers)


def _turned_down(error: Rejected | Failed | Closed, of_model: bool) -> tuple[int, str, str, dict[str, str]]:
    """Return status, code, message and headers for a request that the control plane turned down or that failed."""
    wait_s, message = 1.0, str(error)
    if isinstance(error, Rejected):
        status = _REJECTED.get(error.reason.code, 503)
        wait_s = error.retry_after_s
    elif isinstance(error, Failed):
        status = _FAILED.get(error.outcome, 502)
        if error.outcome == Outcome.INVALID:
            status = 400 if of_model else status
            message = str(error.cause) if isinstance(error.cause, InvalidTask) else message
    else:
        status = 503
    come_back = status in _COME_BACK and isfinite(wait_s)  # never: what exceeds its limit by itself
    headers = {"Retry-After": str(max(ceil(wait_s), 1))} if come_back else {}
    return status, _description(error)["code"], message, headers


def _description(error: Rejected | Failed | Closed) -> dict[str, Any]:
    if isinstance(error, Closed):
        return {"code": "closing", "message": str(error)}
    return {"code": error.reason.code.name.lower(), "message": str(error), "id": error.request_id}


def _about(answered: Answered) -> dict[str, str]:
    return {"X-Request-Id": str(answered.request_id), "X-Glowsim-Answered": answered.how.name.lower()}


def _trace(http: Exchange) -> dict[str, str]:
    """Return the trace context (W3C), which goes with the request to the instance."""
    found = {}
    for name in (b"traceparent", b"tracestate", b"baggage"):
        value = http.headers.get(name)
        if value is not None:
            found[name.decode()] = value.decode("latin-1")
    return found


def _priority(http: Exchange) -> int:
    stated = http.headers.get(b"x-glowsim-priority")
    if stated is None:
        return 1
    if len(stated) != 1 or not stated.isdigit():
        raise Refusal(400, "X-Glowsim-Priority: give one digit, 0 (first) to 9")
    return int(stated)


def _yes(http: Exchange, name: bytes) -> bool:
    match http.headers.get(name):
        case None | b"false":
            return False
        case b"true":
            return True
    raise Refusal(400, f"{name.decode().title()}: give true or false")


def _short(name: str, value: str) -> str:
    if 0 < len(value) <= LONGEST_TAG:
        return value
    raise Refusal(400, f"{name}: give 1 to {LONGEST_TAG} characters")


def _sse(data: dict[str, Any]) -> str:
    return sse(json_text(data))
