"""Another configuration for a control plane that is at work: what is different, and what of its state goes along.

A controller whose place is taken by one of its own kind goes on with its state under its new parameters. One of
another kind begins afresh. What open work hangs on (a queue, a limit, a cache, a split, a balancer's picture of the
instances) changes its kind only while its agent has none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import inf
from typing import Any, Literal, NamedTuple

from glowsim import build
from glowsim.core.books import GATE, PROBE, SCALER, SPLITTER
from glowsim.core.control_plane import ControlPlane
from glowsim.core.errors import ControllerError, GlowsimError
from glowsim.core.instance import UNLIMITED
from glowsim.core.snapshot import pack, unpack
from glowsim.core.streams import Streams
from glowsim.core.types import InstanceChanged, State
from glowsim.scenario import Scenario

__all__ = ["Carried", "Difference", "ReloadError", "carried", "differences", "same_fleet"]

_OF_SIMULATIONS = frozenset(
    (
        "title", "question", "description", "seed", "duration", "drain", "warmup", "replications", "workload",
        "faults", "expectations", "origins", "quality", "servers", "latency", "service", "failures", "startup",
        "cancellable", "instance_price", "instances",
    )
)  # fmt: skip
"""Keys that say nothing to a daemon that is running."""
_AT_ONCE = frozenset(
    ("controllers", "slos", "timeout", "first_token_timeout", "idle_timeout", "health_check")
)
_WAITED_FOR = frozenset(("queue", "limiter", "cache", "splitter", "balancer", "health_check"))


class ReloadError(GlowsimError):
    """A configuration cannot take the place of the one that is in force; nothing was changed."""


class Difference(NamedTuple):
    """One value that differs; None: it is not there.

    >>> str(Difference(("fleet", "tax", "timeout"), "30s", "20s"))
    'fleet.tax.timeout: 30s -> 20s'
    """

    path: tuple[str, ...]
    before: Any
    after: Any

    @property
    def place(self) -> str:
        """Where it stands; agents by their names, everything else in lists by its place."""
        return ".".join(self.path)

    def __str__(self) -> str:
        """Return it as one line."""
        return f"{self.place}: {_short(self.before)} -> {_short(self.after)}"

    @property
    def needs(self) -> Literal["reload", "restart", "nothing"]:
        """What brings it into force: ``reload``, ``restart``, or ``nothing`` where it is of simulations only."""
        if self.path[0] in _OF_SIMULATIONS:
            return "nothing"
        key = self.path[2] if self.path[0] == "fleet" and len(self.path) > 2 else self.path[0]
        if key in _OF_SIMULATIONS:
            return "nothing"
        return "reload" if key in _AT_ONCE else "restart"


def differences(before: Scenario, after: Scenario) -> list[Difference]:
    """Return what differs between two configurations, defaults included, in the order of the first.

    Agents of a fleet are told apart by their names, everything else in lists by its place.
    """
    found: list[Difference] = []
    _compare((), before.dump(), after.dump(), found)
    return found


def _compare(path: tuple[str, ...], before: Any, after: Any, found: list[Difference]) -> None:
    if before == after:
        return
    if isinstance(before, list) and isinstance(after, list):
        before, after = _named(before), _named(after)
    if not (isinstance(before, dict) and isinstance(after, dict)):
        found.append(Difference(path, before, after))
        return
    for key in {**before, **after}:
        _compare((*path, str(key)), before.get(key), after.get(key), found)


def _named(several: list[Any]) -> dict[Any, Any]:
    if several and all(isinstance(each, dict) and "agent" in each for each in several):
        return {each["agent"]: each for each in several}
    return dict(enumerate(several))


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 100 else text[:97] + "..."


class Carried(NamedTuple):
    """What is at work under another configuration."""

    plane: ControlPlane
    afresh: frozenset[int]
    """Agents whose split of traffic begins afresh."""


def carried(
    before: Scenario, after: Scenario, plane: ControlPlane, *, allow_plugins: bool = False
) -> Carried:
    """Return a control plane of another configuration that goes on where one is; that one is not changed.

    Parameters
    ----------
    before, after
        The configuration in force, and that which is to be.
    plane
        The control plane at work, live: of ``before``, with fallbacks.
    allow_plugins
        Whether controllers may be code beside the scenario.

    Raises
    ------
    ReloadError
        The fleets differ in more than policies, or a controller that open work hangs on would change its kind.
    GlowsimError
        The controllers of ``after`` cannot be built.
    """
    same_fleet(before, after)
    fresh, blank = (
        build.control_plane(after, Streams(after.seed), allow_plugins=allow_plugins, fall_back=True)
        for _ in range(2)
    )
    state = plane.snapshot()
    books = unpack(state["books"])
    now_s, lanes = books["now_s"], books["timers"]
    busy = {entry["agent"] for entry in (*books["open"], *books["closing"])}
    for pool, instance, region in plane.under_way().instances:
        if plane.pools[pool].instances[instance].state == State.READY:
            blank.handle(InstanceChanged(now_s, pool, instance, State.READY, region))
    begun = blank.snapshot()["pools"]
    afresh = set()
    for number, (name, agent) in enumerate(after.agents().items()):
        was, saved, clean = before.agents()[name], state["pools"][number], begun[number]
        other = _other_kinds(before.controllers_of(was), after.controllers_of(agent))
        if was.health_check_s != agent.health_check_s:
            other.add("health_check")
        stopping = sorted(other & _WAITED_FOR)
        if stopping and number in busy:
            raise ReloadError(
                f"{name} has open requests, and its {' and '.join(stopping)} would be of another kind: reload when it "
                "has none, or start the daemon again, which goes on with the journal"
            )
        saved["controllers"] = {
            place: (clean if place.partition(".")[0] in other else saved)["controllers"][place]
            for place in clean["controllers"]
        }
        instances = unpack(saved["instances"])
        if stopping:  # the pool begins again, with its next request
            saved["plain"] = pack(unpack(saved["plain"]) | {"started": False})
            saved["sizing"] = pack(unpack(saved["sizing"]) | {"entered_s": 0.0})
            saved["stages"] = clean["stages"]
            lanes = _without(lanes, {(SPLITTER, number), (PROBE, number)})
        if "splitter" in other:
            afresh.add(number)
        if "cache" in other:
            saved["contents"] = clean["contents"]
        if "breaker" in other:
            open_to_all = [(*each[:3], UNLIMITED, inf, each[5]) for each in instances]
            saved["instances"] = pack(open_to_all)
            saved["eligible"] = pack(
                [each[0] for each in instances if each[2] == State.READY and each[5] < agent.slots]
            )
            lanes = _without(lanes, {(GATE, each[0]) for each in instances})
        if (
            before.controllers_of(was).get("scaler") != after.controllers_of(agent).get("scaler")
            and now_s > -inf
        ):
            saved["sizing"] = pack(unpack(saved["sizing"]) | {"_due_s": now_s})
            *constant, (kind, delay_s, single) = lanes
            lanes = [*constant, (kind, delay_s, sorted([*single, (now_s, SCALER, number)]))]
    state["books"] = pack(books | {"timers": lanes})
    try:
        fresh.restore(state)
    except (ControllerError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise ReloadError(
            f"what the controllers remember does not fit their new parameters ({type(error).__name__}: {error}): "
            "start the daemon again with a journal of its own (--journal)"
        ) from error
    return Carried(fresh, frozenset(afresh))


def _without(lanes: list[Any], gone: set[tuple[int, int]]) -> list[Any]:
    """Return lanes of timers without those of some kinds and numbers."""
    return [
        (kind, delay_s, [timer for timer in timers if timer[1:] not in gone])
        for kind, delay_s, timers in lanes
    ]


def _other_kinds(before: Mapping[str, Any], after: Mapping[str, Any]) -> set[str]:
    """Return the families whose controllers are not of the same kinds, in the same order."""

    def kinds(chosen: Mapping[str, Any], family: str) -> list[Any]:
        return [(each.use, getattr(each, "scope", None)) for each in chosen.get(family, ())]

    return {family for family in {*before, *after} if kinds(before, family) != kinds(after, family)}


def same_fleet(before: Scenario, after: Scenario) -> None:
    """Refuse a fleet of other agents, models or regions: state is kept by their numbers.

    Raises
    ------
    ReloadError
        They are others.
    """
    for what, old, new in (
        ("agents", list(before.agents()), list(after.agents())),
        ("models", list(before.models), list(after.models)),
        ("regions", list(before.regions), list(after.regions)),
    ):
        if old != new:
            raise ReloadError(
                f"the {what} are others: {_short(old)} -> {_short(new)}; state is kept by them, so this takes a "
                "journal of its own (--journal)"
            )
