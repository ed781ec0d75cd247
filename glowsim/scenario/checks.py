"""What must hold between the parts of a scenario: names that exist, times in order.

The checks read plain data in YAML spelling and pass over whatever is malformed, so that they can run beside
the models' own checks and a person sees all mistakes at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from glowsim.scenario.fleet import member_names
from glowsim.scenario.paths import Missing, resolve
from glowsim.scenario.problems import Finding, did_you_mean
from glowsim.scenario.quality import references
from glowsim.scenario.quantities import DURATION, QuantityError
from glowsim.scenario.regions import region_checks
from glowsim.scenario.workload import ALL

__all__ = ["cross_checks"]


def cross_checks(data: dict[str, Any]) -> list[Finding]:
    """Return what is inconsistent in a scenario's plain data; paths are from its root."""
    return [
        *_fleet_names(data),
        *_references(data),
        *_served(data),
        *_judged(data),
        *_workload_agents(data),
        *_live_agents(data),
        *region_checks(data),
        *_times(data),
        *_origins(data),
    ]


def _mappings(data: dict[str, Any], key: str) -> Iterator[tuple[int, dict[str, Any]]]:
    items = data.get(key)
    if isinstance(items, list):
        yield from ((i, item) for i, item in enumerate(items) if isinstance(item, dict))


def _groups(data: dict[str, Any]) -> Iterator[tuple[int, str, tuple[str, ...]]]:
    for i, agent in _mappings(data, "fleet"):
        name, count = agent.get("agent"), agent.get("count", 1)
        if isinstance(name, str):
            valid = type(count) is int and 1 <= count <= 1000
            yield i, name, member_names(name, count if valid else 1)


def _agent_names(data: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    """Name of an agent or a group -> the agents that it means."""
    found: dict[str, tuple[str, ...]] = {}
    for _, name, members in _groups(data):
        found |= {member: (member,) for member in members}
        found[name] = members
    return found


def _unknown(path: tuple[str | int, ...], what: str, name: str, allowed: list[str]) -> Finding:
    return Finding(path, f"unknown {what} {name!r}", tuple(allowed), did_you_mean(name, allowed))


def _fleet_names(data: dict[str, Any]) -> Iterator[Finding]:
    owners: dict[str, int] = {}
    for i, name, members in _groups(data):
        if name == ALL:
            yield Finding(("fleet", i, "agent"), f"an agent cannot be called {ALL!r}: that means every agent")
        for member in dict.fromkeys((name, *members)):
            if member in owners:
                message = f"the agent {member!r} exists already, from fleet.{owners[member]}"
                yield Finding(("fleet", i, "agent"), message)
                break
            owners[member] = i


def _references(data: dict[str, Any]) -> Iterator[Finding]:
    agents = list(_agent_names(data))
    models = list(data["models"]) if isinstance(data.get("models"), dict) else []
    regions, servers = data.get("regions", ["home"]), data.get("servers", {})
    places = [
        ("fleet", "model", "model", models),
        ("fleet", "region", "region", [str(x) for x in regions] if isinstance(regions, list) else []),
        ("faults", "agent", "agent", agents),
        ("slos", "agent", "agent", agents),
        ("faults", "server", "server", list(servers) if isinstance(servers, dict) else []),
    ]
    for section, key, what, allowed in places:
        for i, item in _mappings(data, section):
            name = item.get(key)
            if isinstance(name, str) and allowed and name not in allowed:
                yield _unknown((section, i, key), what, name, allowed)


def _judged(data: dict[str, Any]) -> Iterator[Finding]:
    block, models = data.get("quality"), data.get("models")
    if isinstance(block, dict):
        variants = [
            name
            for _, agent in _mappings(data, "fleet")
            for name in (agent["variants"] if isinstance(agent.get("variants"), dict) else ())
        ]
        yield from references(
            block, list(models) if isinstance(models, dict) else [], list(_agent_names(data)), variants
        )
        return
    for i, workload in _mappings(data, "workload"):
        if workload.get("kinds"):
            said = (
                "kinds of task matter to the quality of answers: add the block 'quality', or leave them out"
            )
            yield Finding(("workload", i, "kinds"), said)


def _served(data: dict[str, Any]) -> Iterator[Finding]:
    models, servers = data.get("models"), data.get("servers", {})
    if not isinstance(models, dict) or not isinstance(servers, dict):
        return
    on = {name: model.get("server") for name, model in models.items() if isinstance(model, dict)}
    for name, server in on.items():
        if isinstance(server, str) and server not in servers:
            yield _unknown(("models", name, "server"), "server", server, list(servers))
    for i, agent in _mappings(data, "fleet"):
        service, model = agent.get("service"), agent.get("model")
        in_steps = isinstance(service, dict) and service.get("law") == "steps"
        if not isinstance(service, dict) or not isinstance(model, str) or model not in on:
            continue
        if not in_steps and on[model] is not None:
            message = (
                f"its law of service never calls the server of {model!r}: let it work in steps, or give it a model "
                "without a server"
            )
            yield Finding(("fleet", i, "model"), message)
        if in_steps and on[model] is None:
            message = f"the agent works in steps, and the model {model!r} has no server to call: give it one"
            yield Finding(("fleet", i, "model"), message)


def _workload_agents(data: dict[str, Any]) -> Iterator[Finding]:
    known = _agent_names(data)
    if not known:
        return
    known[ALL] = tuple(dict.fromkeys(member for members in known.values() for member in members))
    if isinstance(services := data.get("services"), dict):
        known |= {service: (service,) for service in services}
    for i, workload in _mappings(data, "workload"):
        written = workload.get("agents", ALL)
        names = [written] if isinstance(written, str) else written
        seen: set[str] = set()
        for name in names if isinstance(names, list | dict) else ():
            if not isinstance(name, str):
                continue
            place = names.index(name) if isinstance(written, list) else name
            path = ("workload", i, "agents") if isinstance(written, str) else ("workload", i, "agents", place)
            if name not in known:
                yield _unknown(path, "agent", name, list(known))
            elif twice := seen & set(known[name]):
                yield Finding(path, f"names {min(twice)!r} a second time")
            else:
                seen |= set(known[name])
        handed = workload.get("hand_over")
        for name, following in handed.items() if isinstance(handed, dict) else ():
            for each in (name, *(following if isinstance(following, dict) else ())):
                if isinstance(each, str) and (each not in known or known[each] != (each,)):
                    single = [agent for agent in known if known[agent] == (agent,)]
                    yield _unknown(("workload", i, "hand_over", name), "agent", each, single)


def _live_agents(data: dict[str, Any]) -> Iterator[Finding]:
    known, live = _agent_names(data), data.get("live")
    agents = live.get("agents") if isinstance(live, dict) else None
    for name in agents if known and isinstance(agents, dict) else ():
        if name not in known:
            yield _unknown(("live", "agents", name), "agent", name, list(known))


def _seconds(data: dict[str, Any], key: str, default: float | None = None) -> float | None:
    if key not in data:
        return default
    try:
        return DURATION.read(data[key])
    except QuantityError:
        return None


def _times(data: dict[str, Any]) -> Iterator[Finding]:
    duration_s = _seconds(data, "duration")
    if duration_s is None:
        return
    warmup_s = _seconds(data, "warmup")
    if warmup_s is not None and warmup_s >= duration_s:
        message = f"must be shorter than the duration ({DURATION.write(duration_s)}), or no request counts"
        yield Finding(("warmup",), message)
    drain_s = _seconds(data, "drain", 300.0)
    for i, fault in _mappings(data, "faults"):
        at_s = _seconds(fault, "at")
        if at_s is not None and drain_s is not None and at_s >= duration_s + drain_s:
            message = (
                f"begins after the end of the run ({DURATION.write(duration_s + drain_s)} with the drain)"
            )
            yield Finding(("faults", i, "at"), message)


def _origins(data: dict[str, Any]) -> Iterator[Finding]:
    origins = data.get("origins")
    for path in origins if isinstance(origins, dict) else ():
        try:
            resolve(data, path)
        except Missing as missing:
            message = f"no such part of this file: {missing}"
            yield Finding(("origins", path), message, missing.allowed, missing.suggestion)
