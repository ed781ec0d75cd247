"""The document that the dashboard's page lives from: plain JSON data, made of telemetry alone.

A daemon and a simulation in progress make the same document; where time has no calendar, ``at_unix_s`` is null, and
``simulation`` says how far it is and how fast (`glowsim.live.dashboard.simulation`). Its
`VERSION` changes when a field goes or means something else; new fields may come without.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from math import log10
from typing import Any, Final

from glowsim.core.instance import UNLIMITED, Instance
from glowsim.core.pool import Pool
from glowsim.core.reasons import sentence
from glowsim.core.types import Severity, State
from glowsim.live.dashboard.judging import Situation, at_least, judged, limits_of
from glowsim.live.telemetry import AgentFigures, OpenAlert, Scaled, Staged, Telemetry
from glowsim.live.windows import SLICE_S, TREND, WINDOWS, Tally, Window, Windows, quantiles_s
from glowsim.scenario import Scenario

__all__ = ["VERSION", "Document"]

VERSION: Final = 1
_PS = (0.5, 0.95, 0.99)
_DAYS = 30.0
_DAY_S = 86_400.0
_PROJECTED_FROM_S = 600.0
"""Shorter than this, a fleet's cost says nothing about its month."""
_TOP = 3
_TOGETHER: Final = 3
"""Slices of an agent's trend that make one point: there are many agents."""
_ENOUGH = 20
_ALERTS = 20
_INSTANCES = 64
"""Of an agent, listed one by one."""
_LONGEST = 300
"""Characters of a text that comes from elsewhere, such as a controller's error."""
_LABEL = "rating"
"""The feedback that is satisfaction: marks from 1 to 5."""


class Document:
    """Makes the dashboard's document.

    Parameters
    ----------
    scenario
        What the fleet is: names, domains, service levels.
    telemetry
        What was seen of it.
    source
        ``live``, ``advice`` or ``simulation``.
    emulated
        Agents without real instances.
    certificate
        Says whether the controllers are certified: ``status`` is ``none``, ``valid`` or ``lapsed``, with the ``lapse``.
    recommendations
        Returns those that stand (`glowsim.live.advice`); None: nobody recommends.
    """

    def __init__(
        self,
        scenario: Scenario,
        telemetry: Telemetry,
        *,
        source: str,
        emulated: Iterable[str] = (),
        certificate: Callable[[], dict[str, Any]] = lambda: {"status": "none"},
        recommendations: Callable[[], list[dict[str, Any]]] | None = None,
    ) -> None:
        written = scenario.agents()
        self.telemetry = telemetry
        self._source = source
        self._certificate = certificate
        self._recommendations = recommendations
        self._title = scenario.title
        self._fixed = [
            {
                "name": name,
                "domain": agent.domain,
                "model": agent.model,
                "region": agent.region,
                "emulated": name in set(emulated),
            }
            for name, agent in written.items()
        ]
        self._limits = limits_of(scenario)
        families = [scenario.controllers_of(agent) for agent in written.values()]
        self._rolling = [bool(each.get("splitter")) for each in families]
        self._has = {
            family: any(each.get(family) for each in families)
            for family in ("breaker", "scaler", "splitter", "cache", "detector")
        }

    def made(self, t_s: float, *, admitting: bool = True) -> dict[str, Any]:
        """Return the document at a moment, not earlier than the last event."""
        steps = self.steps(t_s, admitting=admitting)
        for step in steps:
            if step is not None:
                return step
        raise AssertionError("the last step is the document")

    def steps(self, t_s: float, *, admitting: bool = True) -> Iterator[dict[str, Any] | None]:
        """Make the document in steps, of an agent each, so that a server can do something else between them.

        All steps but the last yield None. What happens meanwhile is in some agents' figures and not yet in others'.
        """
        telemetry = self.telemetry
        telemetry.catch_up(t_s)
        alerts = telemetry.open_alerts(t_s)
        agents, windows = [], []
        for number in range(len(telemetry.names)):
            read = telemetry.agents[number].windows.read(t_s)
            windows.append(read)
            agents.append(
                self._agent(number, t_s, read, [each for each in alerts if each.alert.agent == number])
            )
            yield None
        fleet, trend = telemetry.fleet(t_s)
        began_s = telemetry.began_s or 0.0
        epoch = telemetry.epoch_unix_s
        yield {
            "version": VERSION,
            "source": self._source,
            "title": self._title,
            "t_s": round(t_s, 3),
            "at_unix_s": None if epoch is None else round(epoch + t_s, 3),
            "began_s": round(began_s, 3),
            "admitting": admitting,
            "certificate": self._certificate(),
            "windows": [
                {"name": width.name, "since_s": round(window.since_s, 3)}
                for width, window in zip(WINDOWS, fleet, strict=True)
            ],
            "trend": {"slice_s": SLICE_S, "slices": TREND, "together": _TOGETHER},
            "controls": self._has,
            "fleet": {
                "agents": len(agents),
                "active": sum(read[-1].tally.arrived > 0 for read in windows),
                "statuses": {
                    status: sum(agent["status"] == status for agent in agents)
                    for status in ("critical", "attention", "ok", "idle")
                },
                **{
                    name: sum(agent[name] for agent in agents)
                    for name in ("open", "waiting", "in_flight", "slots")
                },
                "instances": _added(agent["instances"] for agent in agents),
                "windows": [_window(window.tally) for window in fleet],
                "trend": {**_trend(trend, t_s), "p95_s": _slow_trend(trend, t_s)},
                "cost_usd": _cost(telemetry.agents, fleet[-1], t_s),
                "feedback": _feedback(telemetry.agents),
            },
            "agents": agents,
            "top": _top(agents, windows),
            "attention": [
                {"agent": agent["name"], "status": agent["status"], "why": agent["why"]}
                for agent in sorted(agents, key=lambda each: each["status"] != "critical")
                if agent["status"] in ("critical", "attention")
            ],
            "alerts": {
                "open": [self._alert(each) for each in reversed(alerts)],
                "recent": [self._alert(each) for each in list(telemetry.alerts)[: -_ALERTS - 1 : -1]],
            },
            "decisions": [self._decision(each) for each in reversed(telemetry.decisions)],
            "breakers": self._breakers(),
            "rollouts": [
                self._rollout(number, agent)
                for number, agent in enumerate(telemetry.agents)
                if self._rolling[number]
            ],
            "domains": self._domains(windows, t_s),
            **({} if self._recommendations is None else {"recommendations": self._recommendations()}),
        }

    def _agent(
        self, number: int, t_s: float, windows: Sequence[Window], alerts: Sequence[OpenAlert]
    ) -> dict[str, Any]:
        telemetry = self.telemetry
        figures, pool = telemetry.agents[number], telemetry.plane.pools[number]
        load = telemetry.load(number, t_s)
        gated = sum(
            each.gate_cap < UNLIMITED for each in pool.instances.values() if each.state is State.READY
        )
        status, why = judged(
            Situation(
                load.ready, load.starting, figures.wanted, load.queued, gated,
                [each.alert.severity for each in alerts],
                [(width.name, window.tally) for width, window in zip(WINDOWS, windows, strict=True)],
            ),
            self._limits[number],
        )  # fmt: skip
        return {
            **self._fixed[number],
            "status": status,
            "why": why,
            "open": figures.open,
            "waiting": load.queued,
            "in_flight": load.in_flight,
            "slots": load.slots * load.ready,
            "instances": {
                "ready": load.ready, "starting": load.starting, "draining": load.draining, "wanted": figures.wanted,
            },
            "replicas": [_instance(each) for each in list(pool.instances.values())[:_INSTANCES]],
            "scaling_paused": figures.paused,
            "windows": [_window(window.tally) for window in windows],
            "trend": _trend(figures.windows, t_s, _TOGETHER),
            "outcomes": figures.outcomes,
            "cost_usd": _cost([figures], windows[-1], t_s),
            "feedback": _feedback([figures]),
            "decisions": [self._decision(each) for each in reversed(figures.decisions)],
            "alerts": len(alerts),
        }  # fmt: skip

    def _alert(self, raised: OpenAlert) -> dict[str, Any]:
        alert = raised.alert
        return {
            "t_s": round(raised.t_s, 3),
            "agent": self.telemetry.names[alert.agent],
            "subject": alert.subject[:_LONGEST],
            "severity": Severity(alert.severity).name.lower(),
            "why": sentence(alert.reason),
        }

    def _decision(self, decided: Scaled) -> dict[str, Any]:
        return {
            "t_s": round(decided.t_s, 3),
            "agent": self.telemetry.names[decided.agent],
            "before": decided.before,
            "want": decided.want,
            "why": sentence(decided.reason),
        }

    def _breakers(self) -> list[dict[str, Any]]:
        telemetry = self.telemetry
        for key in [key for key in telemetry.opened if not _gated(telemetry.plane.pools, *key)]:
            del telemetry.opened[key]
        return [
            {
                "agent": telemetry.names[number],
                "instance": instance.number,
                "state": "open" if instance.gate_cap == 0 else "half-open",
                "since_s": telemetry.opened.get((number, instance.number)),
                "again_s": instance.gate_until_s if instance.gate_until_s < 1e300 else None,
            }
            for number, pool in enumerate(telemetry.plane.pools)
            for instance in pool.instances.values()
            if instance.gate_cap < UNLIMITED
        ]

    def _rollout(self, number: int, figures: AgentFigures) -> dict[str, Any]:
        variants = []
        whole = sum(each.ended for each in figures.variants)
        for each in figures.variants:
            p50, p95 = quantiles_s([each.latencies], (0.5, 0.95))
            variants.append(
                {
                    "name": each.name,
                    "ended": each.ended,
                    "share": _short(each.ended / whole) if whole else None,
                    "error_share": _short(each.bad / each.ended) if each.ended else None,
                    "p50_s": _short(p50),
                    "p95_s": _short(p95),
                }
            )
        return {
            "agent": self.telemetry.names[number],
            "weight": figures.weight,
            "stages": [_stage(each) for each in reversed(figures.stages)],
            "variants": variants,
        }

    def _domains(self, windows: Sequence[Sequence[Window]], t_s: float) -> list[dict[str, Any]]:
        members: dict[str | None, list[int]] = {}
        for number, fixed in enumerate(self._fixed):
            domain = fixed["domain"]
            members.setdefault(domain if isinstance(domain, str) else None, []).append(number)
        return [
            {
                "domain": domain,
                "agents": len(numbers),
                "arrived": sum(windows[number][-1].tally.arrived for number in numbers),
                "cost_usd": _cost(
                    [self.telemetry.agents[number] for number in numbers],
                    windows[numbers[0]][-1],
                    t_s,
                    usd=sum(_usd(windows[number][-1]) for number in numbers),
                ),
            }
            for domain, numbers in members.items()
        ]


def _window(tally: Tally) -> dict[str, Any]:
    p50, p95, p99 = quantiles_s([tally.latencies], _PS)
    return {
        "arrived": tally.arrived,
        "ended": tally.ended,
        "answered": tally.answered,
        "bad": tally.bad,
        "rejected": tally.rejected,
        "abandoned": tally.abandoned,
        "retries": tally.retries,
        "hits": tally.hits,
        "misses": tally.misses,
        "p50_s": _short(p50),
        "p95_s": _short(p95),
        "p99_s": _short(p99),
    }


def _trend(windows: Windows, t_s: float, together: int = 1) -> dict[str, list[int]]:
    """Return what arrived and what went wrong in the last 15 minutes, the oldest first.

    ``together`` slices make a point; the slice that still fills is left out.
    """
    arrived, bad = [0] * (TREND // together), [0] * (TREND // together)
    for ago, _, n, wrong, _ in _slices(windows, t_s):
        place = (TREND - ago) // together
        arrived[place] += n
        bad[place] += wrong
    return {"arrived": arrived, "bad": bad}


def _slow_trend(windows: Windows, t_s: float) -> list[float | None]:
    """Return the p95 of each slice, the oldest first; None where nothing was answered."""
    p95_s: list[float | None] = [None] * TREND
    for ago, _, _, _, slow_s in _slices(windows, t_s):
        p95_s[TREND - ago] = _short(slow_s)
    return p95_s


def _slices(windows: Windows, t_s: float) -> Iterator[tuple[int, float, int, int, float | None]]:
    newest = t_s // SLICE_S
    for kept in windows.trend:
        ago = int(newest - kept[0] // SLICE_S)
        if 0 < ago <= TREND:
            yield (ago, *kept)


def _usd(window: Window) -> float:
    return window.tally.token_usd + window.tally.instance_usd


def _cost(
    agents: Sequence[AgentFigures], window: Window, t_s: float, usd: float | None = None
) -> dict[str, float | None]:
    """Return what agents cost: so far, today (UTC), and 30 days at the pace of the longest window."""
    span_s = t_s - window.since_s
    of_late = _usd(window) if usd is None else usd
    return {
        "tokens": _short(sum(agent.token_usd for agent in agents), 6),
        "instances": _short(sum(agent.instance_usd for agent in agents), 6),
        "today": _short(sum(agent.usd - agent.day_usd for agent in agents), 6),
        "month": _short(of_late / span_s * _DAYS * _DAY_S, 6) if span_s >= _PROJECTED_FROM_S else None,
        "basis_s": round(span_s),
    }


def _feedback(agents: Sequence[AgentFigures]) -> dict[str, dict[str, float | None]]:
    """Return metric -> how many values came since the beginning, and their mean."""
    sums: dict[str, tuple[int, float]] = {}
    for agent in agents:
        for metric, (n, total) in agent.feedback.items():
            before = sums.get(metric, (0, 0.0))
            sums[metric] = (before[0] + n, before[1] + total)
    return {metric[:_LONGEST]: {"n": n, "mean": _short(total / n)} for metric, (n, total) in sums.items()}


def _top(agents: Sequence[dict[str, Any]], windows: Sequence[Sequence[Window]]) -> list[dict[str, Any]]:
    """Return those with the best share of answers in the longest window, by the lower end of its interval."""
    ranked = []
    for agent, read in zip(agents, windows, strict=True):
        tally = read[-1].tally
        if tally.ended >= _ENOUGH and agent["status"] != "critical":
            ranked.append(
                (-at_least(tally.answered, tally.ended), agent["windows"][-1]["p95_s"] or 0.0, agent)
            )
    ranked.sort(key=lambda each: each[:2])
    return [
        {
            "agent": agent["name"],
            "answered": agent["windows"][-1]["answered"],
            "ended": agent["windows"][-1]["ended"],
            "at_least": _short(-worst),
            "p95_s": agent["windows"][-1]["p95_s"],
            "satisfaction": agent["feedback"].get(_LABEL),
        }
        for worst, _, agent in ranked[:_TOP]
    ]


def _instance(instance: Instance) -> dict[str, Any]:
    return {
        "number": instance.number,
        "state": State(instance.state).name.lower(),
        "in_flight": instance.in_flight,
        "slots": instance.slots,
        "gate": None if instance.gate_cap >= UNLIMITED else instance.gate_cap,
    }


def _stage(staged: Staged) -> dict[str, Any]:
    return {
        "t_s": round(staged.t_s, 3),
        "stage": staged.stage,
        "weight": staged.weight,
        "why": sentence(staged.reason),
    }


def _gated(pools: Sequence[Pool], number: int, instance: int) -> bool:
    there = pools[number].instances.get(instance)
    return there is not None and there.gate_cap < UNLIMITED


def _added(parts: Iterable[dict[str, int]]) -> dict[str, int]:
    whole: dict[str, int] = {}
    for part in parts:
        for name, n in part.items():
            whole[name] = whole.get(name, 0) + n
    return whole


def _short(value: float | None, digits: int = 4) -> float | None:
    """Return a figure with as many digits as a page shows: the document crosses the network every second."""
    if value is None or value == 0.0:
        return value
    return round(value, digits - 1 - int(log10(abs(value)) // 1))
