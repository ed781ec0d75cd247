"""What a scenario says about its agents that a journal does not: the checker's facts."""

from __future__ import annotations

from typing import Any

from glowsim import build, registry
from glowsim.core.checker import Facts
from glowsim.core.pool import Pool
from glowsim.core.streams import Streams
from glowsim.scenario import Scenario
from glowsim.scenario.controllers import Controller

__all__ = ["facts_of"]

_MANY_SESSIONS = 10_000


def facts_of(scenario: Scenario, *, allow_plugins: bool = False) -> list[Facts]:
    """Return the facts of every agent, in the order of their numbers.

    What a controller promises is read off its parameters by their names: ``limit`` of a queue,
    ``min_instances``, ``max_instances`` and the cooldowns of a scaler, ``rate_per_s`` and ``burst`` of a
    limiter of an agent's requests. A controller without them promises nothing that could be checked.

    Parameters
    ----------
    scenario
        What the journal was made with.
    allow_plugins
        Whether controllers may be code beside the scenario.
    """
    plane = build.control_plane(scenario, Streams(scenario.seed), allow_plugins=allow_plugins)
    agents = scenario.agents().values()
    return [
        _facts(pool, scenario.controllers_of(agent), allow_plugins)
        for pool, agent in zip(plane.pools, agents, strict=True)
    ]


def _facts(pool: Pool, chosen: dict[str, tuple[Controller, ...]], allow_plugins: bool) -> Facts:
    known: dict[str, Any] = {}
    for family, ones in chosen.items():
        for one in ones:
            known |= _promises(family, one, _arguments(family, one, allow_plugins))
    if hasattr(pool.controllers.limiter, "to_ask"):  # when one that was held came in is not in the journal
        known.pop("rate_per_s", None)
    return Facts.of(pool.spec, pool.controllers, **known)


def _arguments(family: str, controller: Controller, allow_plugins: bool) -> dict[str, Any]:
    kind = registry.find(family, controller.use, allow_plugins=allow_plugins)
    given, _ = registry.check(kind, controller.settings)
    return {each.name: each.default for each in registry.parameters(kind)} | given


def _promises(family: str, controller: Controller, arguments: dict[str, Any]) -> dict[str, Any]:
    match family:
        case "queue":
            return {"queue_limit": arguments.get("limit")}
        case "scaler":
            cooldown_s = arguments.get("cooldown_s")
            sizes = {name: arguments.get(name) for name in ("min_instances", "max_instances")}
            own = {name: arguments.get(name) for name in ("cooldown_up_s", "cooldown_down_s")}
            cooldowns = {name: cooldown_s if one_s is None else one_s for name, one_s in own.items()}
            return sizes | cooldowns
        case "balancer":
            return {"affinity": controller.use == "affinity" and arguments["sessions"] >= _MANY_SESSIONS}
        case "limiter" if (arguments.get("of"), arguments.get("per")) == ("requests", "agent"):
            return {name: arguments[name] for name in ("rate_per_s", "burst") if "burst" in arguments}
    return {}
