"""What people and monitoring see of an advisor: its recommendations, and the fleet as its log and reports show it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from glowsim.core.advice import observed_load
from glowsim.core.control_plane import ControlPlane
from glowsim.core.protocols import Load
from glowsim.core.reasons import Code, Reason
from glowsim.core.types import Advised, Command, Event
from glowsim.live.admin import only_admin
from glowsim.live.advice.recommendations import Recommendations
from glowsim.live.application import application
from glowsim.live.dashboard.routes import Dashboard
from glowsim.live.exposition import exposition
from glowsim.live.settings import Settings
from glowsim.live.telemetry import Scaled, Telemetry
from glowsim.scenario import Scenario

__all__ = ["Watched", "pages"]

_SHOWN: Final = 100
_MOST_SHOWN: Final = 1000


class Watched(Telemetry):
    """Telemetry of a fleet that somebody else runs: the sizes that are recommended count as wanted."""

    def __init__(self, scenario: Scenario, plane: ControlPlane, instances: Sequence[int]) -> None:
        super().__init__(scenario, plane, instances)
        self._slots = [agent.slots for agent in scenario.agents().values()]

    def load(self, number: int, t_s: float) -> Load:
        """Return the load of an agent at a moment, by the log."""
        return observed_load(super().load(number, t_s), self._slots[number])

    def saw(self, event: Event, commands: Sequence[Command]) -> None:
        """Count an event and what was answered to it."""
        super().saw(event, commands)
        for command in commands:
            if type(command) is Advised and command.family == "scaler":
                agent = self.agents[command.agent]
                reason = command.reason or Reason(Code.HELD)
                decided = Scaled(event[0], command.agent, int(command.present), int(command.wanted), reason)
                agent.wanted = decided.want
                agent.decisions.append(decided)
                self.decisions.append(decided)


def pages(
    settings: Settings, recommendations: Recommendations, telemetry: Watched, dashboard: Dashboard,
    now_s: Callable[[], float], heard: Callable[[], dict[str, Any]],
) -> Starlette:  # fmt: skip
    """Return the admin's side as an ASGI application: GET only.

    Parameters
    ----------
    settings
        Who is the admin.
    recommendations, telemetry, dashboard
        What is shown.
    now_s
        Returns the advisor's time.
    heard
        Returns what was heard of the log and the reports, as plain JSON data.
    """

    async def recommended(http: HttpRequest) -> Response:
        only_admin(settings, http)
        limit, open_only = _limit(http), http.query_params.get("standing") == "true"
        epoch = telemetry.epoch_unix_s or 0.0
        found = [each for each in recommendations.newest() if not open_only or each.over_s is None]
        return JSONResponse(
            {"recommendations": [each.as_json(epoch) for each in found[:limit]], "heard": heard()}
        )

    async def metrics(http: HttpRequest) -> Response:
        only_admin(settings, http)
        text = exposition(telemetry, now_s()) + _metrics(recommendations, heard())
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")

    async def state(http: HttpRequest) -> Response:
        only_admin(settings, http)
        return JSONResponse({"advice": True, "heard": heard(), **telemetry.state(now_s())})

    async def healthy(http: HttpRequest) -> Response:
        return JSONResponse({"healthy": True})

    def admin(http: HttpRequest) -> None:
        only_admin(settings, http)

    routes = [
        Route("/v1/recommendations", recommended, methods=["GET"]),
        Route("/metrics", metrics, methods=["GET"]),
        Route("/state", state, methods=["GET"]),
        Route("/healthz", healthy, methods=["GET"]),
        *dashboard.routes(admin),
    ]
    return application(routes)


def _limit(http: HttpRequest) -> int:
    said = http.query_params.get("limit", str(_SHOWN))
    if not (said.isascii() and said.isdigit() and 1 <= int(said[:9]) <= _MOST_SHOWN and len(said) < 9):
        raise HTTPException(400, f"limit must be a whole number from 1 to {_MOST_SHOWN}")
    return int(said)


def _metrics(recommendations: Recommendations, heard: dict[str, Any]) -> str:
    standing = recommendations.standing()
    lines = ["# TYPE glowsim_recommendations_total counter"]
    for (agent, kind), count in sorted(recommendations.counts.items()):
        lines.append(f'glowsim_recommendations_total{{agent="{agent}",kind="{kind}"}} {count}')
    lines.append("# TYPE glowsim_recommendations_standing gauge")
    for agent, kind in sorted(recommendations.counts):
        lines.append(
            f'glowsim_recommendations_standing{{agent="{agent}",kind="{kind}"}} {standing[agent, kind]}'
        )
    lines.append("# TYPE glowsim_advice_rows_total counter")
    lines += [
        f'glowsim_advice_rows_total{{result="{name}"}} {count}' for name, count in heard["rows"].items()
    ]
    lines += [
        "# TYPE glowsim_advice_behind_seconds gauge",
        f"glowsim_advice_behind_seconds {heard['behind_s']}",
        "# TYPE glowsim_advice_silent gauge",
        f"glowsim_advice_silent {int(heard['silent'] is not None)}",
        "# TYPE glowsim_load_report_errors_total counter",
        f"glowsim_load_report_errors_total {heard['reports']['errors']}",
    ]
    return "\n".join(lines) + "\n"
