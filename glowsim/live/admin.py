"""The admin's side, where people and monitoring look, on a port and with a token of its own."""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from glowsim.core.journal import files_of
from glowsim.live.admin_api import AdminApi
from glowsim.live.application import application
from glowsim.live.dashboard.routes import Dashboard
from glowsim.live.driver import Driver
from glowsim.live.exposition import exposition
from glowsim.live.key_set import KeySet
from glowsim.live.outbox import Outbox
from glowsim.live.reloading import Reloading
from glowsim.live.settings import Settings
from glowsim.live.store import Store
from glowsim.live.telemetry import Telemetry
from glowsim.live.validity import Validity
from glowsim.live.web import Refusal, ours

__all__ = ["Admin", "only_admin"]


def only_admin(settings: Settings, http: HttpRequest) -> None:
    """Refuse who is not the admin, with an `HTTPException`."""
    if settings.admin_token is None:
        try:
            ours(http.headers.get("host", "").encode("latin-1"))
        except Refusal as error:
            raise HTTPException(error.status, error.message) from None
    scheme, _, token = http.headers.get("authorization", "").partition(" ")
    if not settings.is_admin(token.strip() if scheme.lower() == "bearer" else ""):
        raise HTTPException(
            401, "send the admin token as 'Authorization: Bearer TOKEN'", {"WWW-Authenticate": "Bearer"}
        )


_PROCESS = CollectorRegistry()
"""When the process began, from which all counters count, its CPU and memory."""
ProcessCollector(registry=_PROCESS)


@dataclass(frozen=True)
class Admin:
    """The pages of the admin's side."""

    driver: Driver
    telemetry: Telemetry
    settings: Settings
    emulated: frozenset[str]
    validity: Validity
    dashboard: Dashboard
    store: Store
    outbox: Outbox
    reloading: Reloading
    agents: dict[str, int]
    """Name -> number."""
    key_set: KeySet | None = None
    """Whose fetches ``/metrics`` tells of."""

    def app(self) -> Starlette:
        """Return them as an ASGI application."""
        api = AdminApi(
            self.driver, self.telemetry, self.store, self.outbox, self.reloading, self.settings, self.agents,
            self.emulated, self._admin,
        )  # fmt: skip
        routes = [
            *api.routes(),
            Route("/metrics", self._metrics),
            Route("/state", self._state),
            Route("/journal", self._journal),
            Route("/healthz", self._healthy),
            *self.dashboard.routes(self._admin),
        ]
        return application(routes)

    def _admin(self, http: HttpRequest) -> None:
        only_admin(self.settings, http)

    async def _metrics(self, http: HttpRequest) -> Response:
        self._admin(http)
        text = exposition(self.telemetry, self.driver.now_s()) + generate_latest(_PROCESS).decode()
        if self.key_set is not None:
            text += self.key_set.metrics()
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")

    async def _state(self, http: HttpRequest) -> Response:
        self._admin(http)
        state = self.telemetry.state(self.driver.now_s())
        for name, agent in state["agents"].items():
            agent["emulated"] = name in self.emulated
        return JSONResponse(
            {"admitting": self.driver.admitting, "certificate": self.validity.state(), **state}
        )

    async def _journal(self, http: HttpRequest) -> Response:
        """Say where the journal is; what happened before the question is in it."""
        self._admin(http)
        self.driver.flush()
        folder = self.settings.journal_path
        size = sum(path.stat().st_size for path in files_of(folder))
        return JSONResponse({"path": str(folder), "bytes": size})

    async def _healthy(self, http: HttpRequest) -> Response:
        return JSONResponse({"healthy": True})
