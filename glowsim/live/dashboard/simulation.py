"""The dashboard's page over a simulation in progress.

The simulation has its own thread and does not wait for the page: every half second, and when somebody has changed its
pace, it leaves a document behind. The page is served by another thread, which reads those documents and nothing else.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from math import inf
from threading import Event as Signal
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from glowsim.core.control_plane import ControlPlane
from glowsim.core.types import Command, Event
from glowsim.live.application import application
from glowsim.live.dashboard.document import Document
from glowsim.live.dashboard.pace import Pace
from glowsim.live.dashboard.routes import page_routes
from glowsim.live.dashboard.stream import Ticks
from glowsim.live.orders import order_of
from glowsim.live.server import Server
from glowsim.live.telemetry import Telemetry
from glowsim.live.web import Refusal, ours
from glowsim.scenario import Scenario

__all__ = ["Order", "Simulation"]

_EVERY_S = 0.5
_TICK_S = 0.25
_LOOK_S = 0.1
_BODY_WITHIN_S = 10.0
_MAX_HEADER_BYTES = 65_536
_CONNECTIONS = 128


class Order(BaseModel):
    """What a viewer wishes; what is left out stays as it is.

    >>> Order.model_validate_json('{"speed": "max", "paused": false}')
    Order(speed='max', paused=False)
    """

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    speed: Annotated[float, Field(gt=0.0, le=1e12, allow_inf_nan=False)] | Literal["max"] | None = None
    """Simulated seconds a real second."""
    paused: bool | None = None


class Simulation:
    """Watches one replication, keeps its pace, and serves the dashboard's page over it.

    Parameters
    ----------
    scenario
        What is simulated.
    where
        A socket that listens on loopback; it is closed in the end.
    speed
        Simulated seconds a real second, above 0; infinity: as fast as it goes.

    Notes
    -----
    There is no token: whoever is on this machine may look, and change the pace, which changes no figure.
    """

    _document: Document
    _serving: Future[None]

    def __init__(self, scenario: Scenario, where: socket.socket, *, speed: float) -> None:
        self._scenario = scenario
        self._where = where
        self._pace = Pace(speed)
        self._wished = Signal()
        self._ended = False
        self._verdict: str | None = None
        self._latest: dict[str, Any] = {}
        self._number = 0
        self._told_s = -inf
        self._before: tuple[float, float] | None = None
        """Real and simulated time of the previous document; None if it was not running then."""
        self._ticks = Ticks(self._steps, lambda: self._number, every_s=_TICK_S)
        routes = [
            Route("/v1/simulation", self._order, methods=["POST"]),
            *page_routes(self._ticks, lambda: self._latest, _local),
        ]
        app = application(routes)
        self._server = Server(app, max_header_bytes=_MAX_HEADER_BYTES, connections=_CONNECTIONS)
        self._thread = ThreadPoolExecutor(1, "glowsim-page")

    # --- by the thread that simulates -------------------------------------------------------------------

    def begins(self, plane: ControlPlane) -> Callable[[Event, Sequence[Command]], None]:
        """Begin to serve the page; return who is told every event and what was answered to it."""
        instances = [agent.instances for agent in self._scenario.agents().values()]
        telemetry = Telemetry(self._scenario, plane, instances)
        self._document = Document(self._scenario, telemetry, source="simulation")
        self._tell(0.0)
        self._serving = self._thread.submit(asyncio.run, self._serve())
        return telemetry.saw

    def pace(self, t_s: float) -> float:
        """Return until when to simulate next, in simulated seconds, when it is time for it."""
        while True:
            wished = self._wished.is_set()
            self._wished.clear()
            now_s = time.monotonic()
            if wished or now_s >= self._told_s + _EVERY_S:
                self._tell(t_s)
            to_s, wait_s = self._pace.step(t_s, now_s=now_s)
            if to_s is not None:
                return to_s
            self._wished.wait(wait_s)

    def ends(self, t_s: float) -> None:
        """Hear that everything has been simulated."""
        self._ended = True
        self._tell(t_s)

    def judged(self, verdict: str) -> None:
        """Hear whether the service levels are met."""
        self._verdict = verdict
        self._tell(self._latest["t_s"])

    def wish(self, *, speed: float | None = None, paused: bool | None = None) -> None:
        """Change the pace, from any thread; None: it stays as it is."""
        if speed is not None:
            self._pace.speed = speed
        if paused is not None:
            self._pace.paused = paused
        self._wished.set()

    def close(self) -> None:
        """End all streams and close the socket; raises what the serving thread raised."""
        self._server.should_exit = True
        self._thread.shutdown()
        self._where.close()
        if hasattr(self, "_serving"):
            self._serving.result()

    def _tell(self, t_s: float) -> None:
        """Leave a document behind."""
        now_s = time.monotonic()
        running = not (self._ended or self._pace.paused)
        speed = None
        if running and self._before is not None and now_s > self._before[0]:
            speed = (t_s - self._before[1]) / (now_s - self._before[0])
        self._before = (now_s, t_s) if running else None
        self._told_s = now_s
        simulation = {
            "state": "ended" if self._ended else "running" if running else "paused",
            "duration_s": self._scenario.duration_s,
            "wished": "max" if self._pace.speed == inf else self._pace.speed,
            "speed": speed,
            "verdict": self._verdict,
        }
        self._latest = self._document.made(t_s) | {"simulation": simulation}
        self._number += 1

    # --- by the thread that serves ----------------------------------------------------------------------

    def _steps(self) -> Iterator[dict[str, Any]]:
        yield self._latest

    async def _serve(self) -> None:
        serving = asyncio.create_task(self._server.serve([self._where]))
        while not (self._server.should_exit or serving.done()):
            await asyncio.sleep(_LOOK_S)
        self._ticks.close()
        await serving

    async def _order(self, http: HttpRequest) -> Response:
        _local(http)
        order = await order_of(http, Order, within_s=_BODY_WITHIN_S)
        if self._ended:
            raise HTTPException(409, "the simulation has ended")
        self.wish(speed=inf if order.speed == "max" else order.speed, paused=order.paused)
        return Response(status_code=204)


def _local(http: HttpRequest) -> None:
    try:
        ours(http.headers.get("host", "").encode("latin-1"))
    except Refusal:
        raise HTTPException(403, "only localhost is answered: ask 127.0.0.1") from None
