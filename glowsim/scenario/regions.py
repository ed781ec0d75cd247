"""Regions: how far they are from each other, services with an agent in each, and where users may be served."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import Field

from glowsim.scenario.base import AgentName, Items, Model, Name
from glowsim.scenario.fleet import HOME, member_names
from glowsim.scenario.problems import Finding, did_you_mean
from glowsim.scenario.quantities import Duration, PositiveDuration
from glowsim.scenario.workload import ALL

__all__ = ["Latency", "RegionalService", "Residency", "places", "region_checks", "round_trip_s"]

Latency = dict[Name, dict[Name, Duration]]
"""Region -> other region -> round trip between them, each pair once; a pair that is not there takes no time."""
Residency = dict[Name, Annotated[Items[Name], Field(min_length=1, max_length=100)]]
"""Users' region -> the only regions in which they may be served; users of any other are served anywhere."""


class RegionalService(Model):
    """One service with an agent a region; its users are sent to the nearest one that is there."""

    agents: Items[AgentName] = Field(
        min_length=1, max_length=100, description="Its agents, each in another region."
    )
    failover_s: PositiveDuration = Field(
        alias="failover",
        description="How long a region must be lost until new requests go to the next nearest agent, and back "
        "until they return: what DNS or a front door's health checks take.",
    )


def round_trip_s(latency: Latency, a: str, b: str) -> float:
    """Return the round trip between two regions in seconds.

    Parameters
    ----------
    latency
        The scenario's: symmetric, each pair once, and 0 where it says nothing.
    a, b
        The regions.

    >>> round_trip_s({"eu": {"us": 0.09}}, "us", "eu"), round_trip_s({"eu": {"us": 0.09}}, "eu", "eu")
    (0.09, 0.0)
    """
    return latency.get(a, {}).get(b, latency.get(b, {}).get(a, 0.0))


def places(data: Mapping[str, Any], agent: Mapping[str, Any]) -> set[str]:
    """Return the regions that a request to an agent gets into: its own, and that of the server it calls.

    Parameters
    ----------
    data
        The scenario as plain data in YAML spelling.
    agent
        Its entry in the fleet.

    >>> data = {"models": {"m": {"server": "gpu"}}, "servers": {"gpu": {"region": "us"}}}
    >>> sorted(places(data, {"region": "eu", "model": "m", "service": {"law": "steps"}}))
    ['eu', 'us']
    """
    found = {_home(data, agent)}
    if _mapping(agent, "service").get("law") == "steps":
        model = _mapping(_mapping(data, "models"), agent.get("model"))
        server = _mapping(_mapping(data, "servers"), model.get("server"))
        found |= set(_names(server.get("region")))
    return found


def region_checks(data: dict[str, Any]) -> Iterator[Finding]:
    """Yield what is inconsistent about the regions in a scenario's plain data; malformed parts are passed over."""
    yield from _unknown_regions(data)
    yield from _pairs(data)
    yield from _services(data)
    for i, workload in _mappings(data, "workload"):
        yield from _users(data, i, workload)


def _mapping(data: Mapping[str, Any], key: Any) -> dict[str, Any]:
    found = data.get(key) if isinstance(key, str) else None
    return found if isinstance(found, dict) else {}


def _mappings(data: Mapping[str, Any], key: str) -> Iterator[tuple[int, dict[str, Any]]]:
    found = data.get(key)
    yield from (
        (i, each) for i, each in enumerate(found if isinstance(found, list) else ()) if isinstance(each, dict)
    )


def _names(said: Any) -> list[str]:
    """Return the names in a name, a list, or the keys of a mapping."""
    several = [said] if isinstance(said, str) else said if isinstance(said, list | dict) else []
    return [each for each in several if isinstance(each, str)]


def _regions(data: Mapping[str, Any]) -> list[str]:
    return _names(data.get("regions", [HOME])) or [HOME]


def _home(data: Mapping[str, Any], agent: Mapping[str, Any]) -> str:
    region = agent.get("region")
    return region if isinstance(region, str) else _regions(data)[0]


def _entries(data: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the name of an agent or a group -> its entry in the fleet."""
    found: dict[str, dict[str, Any]] = {}
    for _, agent in _mappings(data, "fleet"):
        for name in _names(agent.get("agent")):
            count = agent.get("count", 1)
            members = member_names(name, count if type(count) is int and 1 <= count <= 1000 else 1)
            found |= dict.fromkeys((name, *members), agent)
    return found


def _unknown_regions(data: dict[str, Any]) -> Iterator[Finding]:
    known, latency, residency = _regions(data), _mapping(data, "latency"), _mapping(data, "residency")
    named: list[tuple[tuple[str | int, ...], str]] = [(("latency", a), a) for a in _names(latency)]
    named += [(("latency", a, b), b) for a in _names(latency) for b in _names(latency[a])]
    named += [(("residency", users), users) for users in _names(residency)]
    for users in _names(residency):
        named += [(("residency", users), region) for region in _names(residency[users])]
    servers = _mapping(data, "servers")
    for name in _names(servers):
        named += [
            (("servers", name, "region"), each) for each in _names(_mapping(servers, name).get("region"))
        ]
    for i, fault in _mappings(data, "faults"):
        named += [(("faults", i, "region"), region) for region in _names(fault.get("region"))]
    for i, workload in _mappings(data, "workload"):
        from_ = _names(_mapping(workload, "users_from"))
        named += [(("workload", i, "users_from", region), region) for region in from_]
    for path, region in named:
        if region not in known:
            yield Finding(path, f"unknown region {region!r}", tuple(known), did_you_mean(region, known))


def _pairs(data: dict[str, Any]) -> Iterator[Finding]:
    latency = _mapping(data, "latency")
    for a in _names(latency):
        for b in _names(latency[a]):
            if a == b:
                yield Finding(("latency", a, b), "a region is no round trip away from itself: leave it out")
            elif a > b and a in _names(latency.get(b)):
                yield Finding(
                    ("latency", a, b), f"is the same both ways, and latency.{b}.{a} says it already"
                )


def _services(data: dict[str, Any]) -> Iterator[Finding]:
    entries = _entries(data)
    single = [name for name, agent in entries.items() if name != agent["agent"] or agent.get("count", 1) == 1]
    services = _mapping(data, "services")
    for service in _names(services):
        if service == ALL or service in entries:
            yield Finding(
                ("services", service), f"{service!r} means agents already: call the service otherwise"
            )
        there: dict[str, str] = {}
        agents = _mapping(services, service).get("agents")
        for i, name in enumerate(_names(agents)):
            path = ("services", service, "agents", i)
            if name not in single:
                yield Finding(path, f"unknown agent {name!r}", tuple(single), did_you_mean(name, single))
                continue
            region = _home(data, entries[name])
            if region in there:
                message = f"a service has one agent a region, and {there[region]} is in {region!r} already"
                yield Finding(path, message)
            there[region] = name
            first = next(iter(there.values()))
            if entries[name].get("service") != entries[first].get("service"):
                message = f"agents of a service do the same work: give it the same 'service' as {first}"
                yield Finding(path, message)


def _users(data: dict[str, Any], i: int, workload: dict[str, Any]) -> Iterator[Finding]:
    """Check that the users of a workload come from somewhere, and may be served where they are sent."""
    entries, services, residency = _entries(data), _mapping(data, "services"), _mapping(data, "residency")
    users_from = _names(_mapping(workload, "users_from"))
    for name in _asked(workload, entries):
        if name in services and not users_from:
            message = f"is required: the service {name!r} does not say where its users are"
            yield Finding(("workload", i, "users_from"), message)
            continue
        agents = _names(_mapping(services, name).get("agents")) if name in services else [name]
        agents = [each for each in agents if each in entries]
        served = [places(data, entries[each]) for each in agents]
        for users in users_from or [_home(data, entries[each]) for each in agents]:
            allowed = residency.get(users)
            if (
                served
                and isinstance(allowed, list)
                and not any(where <= set(_names(allowed)) for where in served)
            ):
                elsewhere = ", ".join(sorted(set().union(*served) - set(_names(allowed))))
                message = (
                    f"users in {users!r} may be served only in {', '.join(_names(allowed))}, but {name} would do it "
                    f"in {elsewhere}: send them to another agent, or change residency.{users}"
                )
                yield Finding(("workload", i, "agents"), message)


def _asked(workload: dict[str, Any], entries: Mapping[str, Any]) -> list[str]:
    """Return the names that a workload sends requests to, those that others hand over to too."""
    names, handed = _names(workload.get("agents", ALL)), _mapping(workload, "hand_over")
    following = [to for name in _names(handed) for to in _names(handed[name])]
    return list(dict.fromkeys([*(entries if ALL in names else names), *following]))
