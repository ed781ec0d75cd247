"""The admin's API: what the fleet does, and orders to it; every order is in the audit before it is acknowledged."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

import glowsim
from glowsim.core.journal import files_of
from glowsim.core.pool import Pool
from glowsim.core.protocols import Spending
from glowsim.core.reasons import sentence
from glowsim.core.types import Change, ChangeKind, State
from glowsim.core.wrappers import inside
from glowsim.live.admin_shapes import (
    OPERATIONS,
    AgentDetail,
    AgentState,
    Audit,
    Budgets,
    BudgetState,
    Configuration,
    Differs,
    FeedbackRows,
    FeedbackTaken,
    Fleet,
    History,
    InstanceState,
    Page,
    Readiness,
    Rollout,
    RolloutOrder,
    RolloutOrdered,
    Rollouts,
    Scaling,
    ScalingOrder,
    ScalingOrdered,
    Span,
    Spender,
)
from glowsim.live.driver import Driver
from glowsim.live.gateway import take_feedback
from glowsim.live.openapi import document
from glowsim.live.orders import order_of
from glowsim.live.outbox import Feedback, KeyReused, Outbox, Taken
from glowsim.live.reloading import Compared, Reloading
from glowsim.live.settings import Settings
from glowsim.live.shapes import what_is_wrong
from glowsim.live.store import Store, StoreError
from glowsim.live.store.reading import audit_rows, feedback_rows
from glowsim.live.store.rollups import history
from glowsim.live.telemetry import Telemetry
from glowsim.live.web import Refusal
from glowsim.reload import ReloadError

__all__ = ["AdminApi"]

_B = TypeVar("_B", bound=BaseModel)
_MOST_KEY = 200
_CHUNK_BYTES = 256 * 1024
_MOST_SPENDERS = 100
_ROLLOUT_ORDERS = {
    "roll_back": ChangeKind.ROLL_BACK,
    "pause": ChangeKind.PAUSE_ROLLOUT,
    "resume": ChangeKind.RESUME_ROLLOUT,
    "promote": ChangeKind.PROMOTE,
}


@dataclass(frozen=True)
class AdminApi:
    """The admin's API.

    Parameters
    ----------
    driver, telemetry, store, outbox, reloading, settings
        What it reads, and what takes its orders.
    agents
        Name -> number.
    emulated
        Those without real instances.
    check
        Raises an `HTTPException` unless the caller is an admin.
    """

    driver: Driver
    telemetry: Telemetry
    store: Store
    outbox: Outbox
    reloading: Reloading
    settings: Settings
    agents: dict[str, int]
    emulated: frozenset[str]
    check: Callable[[HttpRequest], None]

    def routes(self) -> list[Route]:
        """Return the routes of all operations but those that the admin's pages serve."""
        handlers: dict[tuple[str, str], Callable[[HttpRequest], Awaitable[Response]]] = {
            ("GET", "/v1/agents"): self._fleet,
            ("GET", "/v1/agents/{agent}"): self._agent,
            ("GET", "/v1/agents/{agent}/history"): self._history,
            ("GET", "/v1/agents/{agent}/scaling"): self._get_scaling,
            ("PUT", "/v1/agents/{agent}/scaling"): self._put_scaling,
            ("GET", "/v1/rollouts"): self._rollouts,
            ("POST", "/v1/rollouts/{agent}"): self._post_rollout,
            ("GET", "/v1/budgets"): self._budgets,
            ("POST", "/v1/feedback"): self._post_feedback,
            ("GET", "/v1/feedback"): self._get_feedback,
            ("GET", "/v1/configuration"): self._get_configuration,
            ("POST", "/v1/configuration"): self._post_configuration,
            ("GET", "/v1/journal"): self._journal,
            ("GET", "/v1/audit"): self._audit,
            ("GET", "/readyz"): self._ready,
            ("GET", "/openapi.json"): self._openapi,
        }
        paths = dict.fromkeys(path for _, path in handlers)
        open_to_all = {one.path for one in OPERATIONS if one.open}
        return [
            Route(
                path,
                self._serve(
                    {method: handler for (method, at), handler in handlers.items() if at == path},
                    path in open_to_all,
                ),
                methods=[method for method, at in handlers if at == path],
            )
            for path in paths
        ]

    def _serve(
        self, by_method: dict[str, Callable[[HttpRequest], Awaitable[Response]]], open_to_all: bool
    ) -> Callable[[HttpRequest], Awaitable[Response]]:
        async def serve(http: HttpRequest) -> Response:
            if not open_to_all:
                self.check(http)
            try:
                return await by_method["GET" if http.method == "HEAD" else http.method](http)
            except Refusal as error:
                raise HTTPException(error.status, error.message, error.headers) from None
            except StoreError as error:
                raise HTTPException(503, str(error), {"Retry-After": "1"}) from None

        return serve

    # --- what the fleet does --------------------------------------------------------------------------

    async def _fleet(self, http: HttpRequest) -> Response:
        agents = {name: self._state(name, each) for name, each in self._states().items()}
        return _said(
            Fleet(
                admitting=self.driver.admitting,
                ready=sum(each.ready for each in agents.values()),
                open=sum(each.open for each in agents.values()),
                in_flight=sum(each.in_flight for each in agents.values()),
                cost_usd=sum(each.cost_usd for each in agents.values()),
                agents=agents,
            )
        )

    async def _agent(self, http: HttpRequest) -> Response:
        name, pool = self._named(http)
        instances = [
            InstanceState.model_validate(
                {
                    "instance": each.number,
                    "state": State(each.state).name.lower(),
                    "region": each.region,
                    "in_flight": each.in_flight,
                    "slots": each.slots,
                    "cap": each.cap,
                }
            )
            for each in pool.instances.values()
        ]
        state = self._state(name, self._states()[name])
        return _said(AgentDetail(**state.model_dump(), instances=instances))

    def _states(self) -> dict[str, dict[str, Any]]:
        states: dict[str, dict[str, Any]] = self.telemetry.state(self.driver.now_s())["agents"]
        return states

    def _state(self, name: str, told: dict[str, Any]) -> AgentState:
        return AgentState(**told | {"emulated": name in self.emulated})

    async def _history(self, http: HttpRequest) -> Response:
        name, _ = self._named(http)
        span = _query(http, Span)
        since = int(time.time() // 60) - span.minutes
        rows = await self.store.read(history(name, since))
        return _said(History.model_validate({"minutes": rows}))

    # --- scaling --------------------------------------------------------------------------------------

    async def _get_scaling(self, http: HttpRequest) -> Response:
        return _said(self._scaling(*self._named(http)))

    async def _put_scaling(self, http: HttpRequest) -> Response:
        name, pool = self._named(http)
        order = await self._body(http, ScalingOrder)
        now = self._scaling(name, pool)
        number = pool.spec.agent
        refused = None
        if order.instances is not None and not now.scalable:
            refused = f"the instances of {name} are at fixed addresses: they cannot be started or stopped"
        changes = []
        if order.paused is not None:
            kind = ChangeKind.PAUSE_SCALING if order.paused else ChangeKind.RESUME_SCALING
            changes.append(Change(kind, number))
        if order.instances is not None:
            changes.append(Change(ChangeKind.SET_INSTANCES, number, float(order.instances)))
        before = {"instances": now.ready + now.starting, "paused": now.paused}
        taken = await self._order(
            http, f"scaling of {name}", before, order.model_dump(exclude_none=True), changes, refused
        )
        return _said(
            ScalingOrdered(audit_id=taken.number, repeated=taken.again, scaling=self._scaling(name, pool))
        )

    def _scaling(self, name: str, pool: Pool) -> Scaling:
        load = pool.sizing.load(self.driver.now_s())
        return Scaling(
            agent=name,
            ready=load.ready,
            starting=load.starting,
            draining=load.draining,
            paused=pool.sizing.paused,
            scaler=pool.controllers.scaler is not None,
            scalable=pool.spec.agent in self.driver.scalers,
        )

    # --- rollouts and budgets -------------------------------------------------------------------------

    async def _rollouts(self, http: HttpRequest) -> Response:
        self.driver.flush()  # what is shown is not lost
        rollouts = [
            self._rollout(name, self.driver.plane.pools[number])
            for name, number in self.agents.items()
            if self.driver.plane.pools[number].stages is not None
        ]
        return _said(Rollouts(rollouts=rollouts))

    async def _post_rollout(self, http: HttpRequest) -> Response:
        name, pool = self._named(http)
        order = await self._body(http, RolloutOrder)
        refused = None if pool.stages is not None else f"{name} has no rollout"
        before = {} if refused else self._rollout(name, pool).model_dump(include={"stage", "weight"})
        change = Change(_ROLLOUT_ORDERS[order.action], pool.spec.agent)
        taken = await self._order(http, f"rollout of {name}", before, order.model_dump(), [change], refused)
        rollout = self._rollout(name, pool)
        return _said(RolloutOrdered(audit_id=taken.number, repeated=taken.again, rollout=rollout))

    def _rollout(self, name: str, pool: Pool) -> Rollout:
        assert pool.stages is not None
        advance = self.driver.advances.get(pool.spec.agent)
        if advance is None:
            return Rollout(agent=name, stage=None, weight=pool.stages.first_weight, why=None)
        return Rollout(agent=name, stage=advance.stage, weight=advance.weight, why=sentence(advance.reason))

    async def _budgets(self, http: HttpRequest) -> Response:
        self.driver.flush()  # what is shown is not lost
        now_s, found = self.driver.now_s(), list[tuple[Any, list[str]]]()
        for name, number in self.agents.items():
            for limiter in inside(self.driver.plane.pools[number].controllers.limiter):
                if hasattr(limiter, "spending"):
                    sharing = next((names for known, names in found if known is limiter), None)
                    if sharing is None:
                        found.append((limiter, [name]))
                    else:
                        sharing.append(name)
        budgets = [_budget(names, limiter.spending(now_s)) for limiter, names in found]
        return _said(Budgets(budgets=budgets))

    # --- feedback, journal, audit ---------------------------------------------------------------------

    async def _post_feedback(self, http: HttpRequest) -> Response:
        given = await self._body(http, Feedback)
        key = http.headers.get("idempotency-key")
        taken = await take_feedback(self.outbox, given, key=key, scope=0, tenant=None)
        return _said(FeedbackTaken(id=taken.number, repeated=taken.again), 200 if taken.again else 201)

    async def _get_feedback(self, http: HttpRequest) -> Response:
        page = _query(http, Page)
        names = {number: name for name, number in self.agents.items()}
        rows = await self.store.read(feedback_rows(self.store.journal, page.after, page.limit))
        said = [row | {"agent": names[row["agent"]]} for row in rows]
        return _said(FeedbackRows.model_validate({"feedback": said}))

    async def _audit(self, http: HttpRequest) -> Response:
        page = _query(http, Page)
        rows = await self.store.read(audit_rows(page.after, page.limit))
        return _said(Audit.model_validate({"audit": rows}))

    async def _journal(self, http: HttpRequest) -> Response:
        self.driver.flush()
        sizes = {path: path.stat().st_size for path in files_of(self.settings.journal_path)}
        headers = {
            "Content-Length": str(sum(sizes.values())),
            "Content-Disposition": 'attachment; filename="journal.glow"',
        }

        async def pieces() -> AsyncIterator[bytes]:
            """Yield what was there when it was asked for: whole frames, while more are being written.

            It breaks off if a segment is deleted meanwhile.
            """
            for path, left in sizes.items():
                with path.open("rb") as file:
                    while left:
                        piece = await asyncio.to_thread(file.read, min(left, _CHUNK_BYTES))
                        left -= len(piece)
                        yield piece

        return StreamingResponse(pieces(), headers=headers, media_type="application/octet-stream")

    # --- the configuration ----------------------------------------------------------------------------

    async def _get_configuration(self, http: HttpRequest) -> Response:
        return _said(_configuration(await self.reloading.compared()))

    async def _post_configuration(self, http: HttpRequest) -> Response:
        try:
            return _said(_configuration(await self.reloading.reload("admin")))
        except ReloadError as error:
            raise HTTPException(409, str(error)) from None

    # --- the daemon itself ----------------------------------------------------------------------------

    async def _ready(self, http: HttpRequest) -> Response:
        why = self.driver.unready()
        if not why:
            await self.store.read(lambda database: database.execute("SELECT 1").fetchone())
        return _said(Readiness(ready=not why, reason=why), 503 if why else 200)

    async def _openapi(self, http: HttpRequest) -> Response:
        return JSONResponse(document("glowsim admin API", glowsim.__version__, OPERATIONS))

    # --- what they share ------------------------------------------------------------------------------

    def _named(self, http: HttpRequest) -> tuple[str, Pool]:
        name = http.path_params["agent"]
        if name not in self.agents:
            raise HTTPException(404, f"there is no agent {name[:200]!r}; GET /v1/agents lists them")
        return name, self.driver.plane.pools[self.agents[name]]

    async def _body(self, http: HttpRequest, model: type[_B]) -> _B:
        return await order_of(http, model, within_s=self.settings.body_timeout_s)

    async def _order(
        self, http: HttpRequest, what: str, before: dict[str, Any], after: dict[str, Any], changes: list[Change],
        refused: str | None,
    ) -> Taken:  # fmt: skip
        """Have an order written down and obeyed; one that cannot be is written down too."""
        if not self.driver.admitting:
            raise HTTPException(503, "the daemon is closing: nothing is changed any more")
        key = http.headers.get("idempotency-key")
        if key is not None and not 0 < len(key) <= _MOST_KEY:
            raise HTTPException(400, f"Idempotency-Key: give 1 to {_MOST_KEY} characters")
        who = "local" if self.settings.admin_token is None else "admin"
        try:
            if refused is not None:
                await self.outbox.order(
                    who=who, what=what, before=before, after=after, outcome=f"refused: {refused}"
                )
                raise HTTPException(409, refused)
            return await self.outbox.order(
                who=who, what=what, before=before, after=after, changes=changes, key=key
            )
        except KeyReused as error:
            raise HTTPException(409, str(error)) from None


def _said(model: BaseModel, status: int = 200) -> Response:
    return JSONResponse(model.model_dump(mode="json"), status)


def _query(http: HttpRequest, model: type[_B]) -> _B:
    try:
        return model.model_validate(dict(http.query_params))
    except ValidationError as error:
        raise HTTPException(400, what_is_wrong(error)) from None


def _budget(names: list[str], spending: Spending) -> BudgetState:
    most = sorted(spending.spent, key=lambda each: (-each[1], each[0]))[:_MOST_SPENDERS]
    return BudgetState(
        agents=names,
        of=spending.of,
        per=spending.per,
        limit=spending.limit,
        every_s=spending.every_s,
        keys=len(spending.spent),
        most=[Spender(key=f"{key:016x}", spent=spent) for key, spent in most],
    )


def _configuration(compared: Compared) -> Configuration:
    differences = [
        Differs(place=each.place, before=each.before, after=each.after, needs=each.needs)
        for each in compared.differences
    ]
    return Configuration(digest=compared.digest, differences=differences, refused=compared.refused)
