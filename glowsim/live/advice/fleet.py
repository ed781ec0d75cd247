"""Who is meant: the agents and instances of a scenario, as a log and load reports name them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import urlsplit

from glowsim.live.advice.rows import Call
from glowsim.scenario import Scenario

__all__ = ["Agents", "Instances", "place_of"]

_MOST_INSTANCES: Final = 1000
_STRANGERS: Final = 100
_LONGEST: Final = 200
_PORTS: Final = {"http": 80, "https": 443}


def place_of(url: str) -> str:
    """Return host and port of a URL, or what else names an instance, in one spelling.

    >>> place_of("http://10.0.0.5:8000/v1"), place_of("10.0.0.5:8000"), place_of("https://api.example/v1")
    ('10.0.0.5:8000', '10.0.0.5:8000', 'api.example:443')
    """
    try:
        parts = urlsplit(url if "//" in url else f"//{url}")
        port = parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        return url
    host = parts.hostname or url
    return host if port is None else f"{host}:{port}"


def _slug(*names: str | None) -> str:
    """Return how ``glowsim import`` names an agent."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(name for name in names if name).lower()).strip("-")


class Agents:
    """Which agent of a scenario a call is of.

    It is the one that the row names, spelled as ``glowsim import`` spells it, or agent and model where that made an
    agent for each; or else the only one with the row's model; or the fleet's only one, if the row names none.
    """

    def __init__(self, scenario: Scenario) -> None:
        agents = scenario.agents()
        self.names = list(agents)
        self._by_name = {name: number for number, name in enumerate(agents)}
        self._by_slug = {_slug(name): number for number, name in enumerate(agents)}
        models = Counter(_slug(agent.model) for agent in agents.values())
        self._by_model = {
            _slug(agent.model): number
            for number, agent in enumerate(agents.values())
            if models[_slug(agent.model)] == 1
        }
        self.strangers: Counter[str] = Counter()
        """Agent and model of calls that are nobody's, the first hundred -> how many."""

    def of(self, call: Call) -> int | None:
        """Return the number of a call's agent; None: it is none of the scenario's, which is counted."""
        agent, model = call.agent, call.model
        tries = (
            None if agent is None else self._by_name.get(agent),
            self._by_slug.get(_slug(agent, model)),
            None if agent is None else self._by_slug.get(_slug(agent)),
            self._by_slug.get(_slug(model)),
            self._by_model.get(_slug(model)),
            0 if agent is None and len(self.names) == 1 else None,
        )
        found = next((number for number in tries if number is not None), None)
        if found is None:
            name = f"{agent or '(no agent)'} / {model or '(no model)'}"
            self.strangers[
                name if name in self.strangers or len(self.strangers) < _STRANGERS else "(others)"
            ] += 1
        return found


class Instances:
    """The numbers of instances: those below the number of agents stand for whichever it was (`core.advice`).

    Parameters
    ----------
    agents
        How many.
    first
        The first number that is free, at least ``agents``.
    """

    def __init__(self, agents: int, first: int) -> None:
        self.next = max(agents, first)
        """The number of the next that comes."""
        self._places: list[dict[str, int]] = [{} for _ in range(agents)]
        self._nameless: list[list[int]] = [[] for _ in range(agents)]
        self._called: dict[int, str] = {}
        self._settled: set[int] = set()
        """Agents all of whose instances are known."""

    def add(self, agent: int, place: str | None) -> int:
        """Return the number of another instance, at a place or at one that is not known."""
        number, self.next = self.next, self.next + 1
        if place is None:
            self._nameless[agent].append(number)
        else:
            self._places[agent][place] = number
            self._called[number] = place
        return number

    def settle(self, agent: int) -> None:
        """Take it that an agent has no instances but those that were added."""
        self._settled.add(agent)

    def find(self, agent: int, name: str | None) -> tuple[int | None, bool]:
        """Return the number of the instance that a row names, and whether it is a new one.

        Where all places are known, only those count. Otherwise a name that is not known belongs to one of those
        without a name, or else to one more. Where there is only one instance, a row need not name it. None: it is not
        known which, or there are too many.
        """
        places, nameless = self._places[agent], self._nameless[agent]
        if name is None:
            alone = [*places.values(), *nameless]
            return (alone[0] if len(alone) == 1 else None), False
        place = place_of(name)
        known = places.get(place)
        if known is not None or agent in self._settled or len(places) >= _MOST_INSTANCES:
            return known, False
        if nameless:
            number = places[place] = nameless.pop(0)
            self._called[number] = place
            return number, False
        return self.add(agent, place), True

    def called(self, number: int) -> str:
        """Return what an instance is called; the name comes from elsewhere, so it is made fit to print."""
        name = self._called.get(number, f"instance {number}")
        return "".join(each if each.isprintable() else "\ufffd" for each in name[:_LONGEST])

    def of(self, agent: int) -> Mapping[str, int]:
        """Return place -> number of an agent's instances that are known by place."""
        return self._places[agent]

    def all(self) -> Sequence[tuple[int, int]]:
        """Return (agent, number) of every instance."""
        return [
            (agent, number)
            for agent, (places, nameless) in enumerate(zip(self._places, self._nameless, strict=True))
            for number in (*places.values(), *nameless)
        ]
