"""What the run stands on: where every parameter comes from, who decided, and how to do it again."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import Any, Final

from glowsim import registry
from glowsim.report.blocks import Block, code, section, table, text
from glowsim.report.numbers import DASH, exact, plain
from glowsim.report.servers import preset_origins
from glowsim.scenario import Scenario
from glowsim.scenario.controllers import Limit
from glowsim.scenario.paths import index_of, join, key_at

__all__ = ["controllers", "description", "origins", "reproduction", "unknown_parts"]

Path = tuple[str | int, ...]

_LONGEST_VALUE: Final = 220
_KNOWN_FIRST: Final = ("measured", "published", "fitted", "assumed")
_OF_AGENTS: Final = ("service", "failures", "startup", "instance_price", "variants")


def description(scenario: Scenario) -> Iterator[Block]:
    """Yield what the scenario says about itself, if it does, in its paragraphs."""
    paragraphs = [" ".join(each.split()) for each in scenario.description.split("\n\n") if each.strip()]
    if paragraphs:
        yield section("about", "About the scenario", "", [text(each) for each in paragraphs])


def origins(scenario: Scenario, most: int = 20) -> Block:
    """Return where every parameter of the world comes from; what nobody vouches for is assumed.

    Parameters
    ----------
    scenario
        What was run.
    most
        Rows; the rest is counted.
    """
    data = scenario.model_dump(by_alias=True, exclude_none=True, exclude_defaults=True, mode="json")
    written = {_steps(data, path): origin for path, origin in scenario.origins.items()}
    parts = [(path, _part(data, path), each.origin, each.source) for path, each in written.items()]
    for server, value, origin, source in preset_origins(scenario):
        parts.append((("servers", server), value, origin, source))
    alike = {(path[-1], _compact(value)): _named(data, path) for path, value, *_ in parts}
    for path, value in unknown_parts(data, set(written)):
        twin = alike.get((path[-1], _compact(value)))
        parts.append((path, value, "assumed", f"none written; equal to {twin}" if twin else "none written"))
    grouped: dict[tuple[str, str, str], list[str]] = {}
    for path, value, origin, source in parts:
        grouped.setdefault((_compact(value), origin, source), []).append(_named(data, path))
    rows = [
        [
            _several(names),
            origin,
            source,
            value if len(value) <= _LONGEST_VALUE else value[:_LONGEST_VALUE] + "…",
        ]
        for (value, origin, source), names in sorted(
            grouped.items(), key=lambda one: _KNOWN_FIRST.index(one[0][1])
        )
    ]
    counts = {word: sum(row[1] == word for row in rows) for word in _KNOWN_FIRST}
    said = ", ".join(f"{n} {word}" for word, n in counts.items() if n)
    lead = (
        f"Parameters of the simulated world: {said}. A result is as good as the worst of those that it hangs "
        "on. What a scenario leaves out has glowsim's default: scenario.json beside this report has it all."
    )
    rest = f"and {len(rows) - most} more, in scenario.json" if len(rows) > most else ""
    found = table("part|origin|*source|*value", rows[:most], more=rest)
    return section("origins", "Where every parameter comes from", lead, [found])


def unknown_parts(data: Mapping[str, Any], known: set[Path]) -> Iterator[tuple[Path, Any]]:
    """Yield the parts of the world that no origin covers, each with its value.

    Parameters
    ----------
    data
        The scenario as plain data, without defaults.
    known
        Paths that have an origin; it covers everything below it.

    >>> data = {"models": {"m": {"input": "$1/1M", "output": "$2/1M"}}, "fleet": [], "workload": []}
    >>> list(unknown_parts(data, {("models", "m", "input")}))
    [(('models', 'm'), {'output': '$2/1M'})]
    """
    places: list[Path] = [("models", name) for name in data["models"]]
    for number, agent in enumerate(data["fleet"]):
        places += [("fleet", number, part) for part in _OF_AGENTS if part in agent]
    places += [("workload", number) for number in range(len(data["workload"]))]
    places += [
        ("servers", name) for name, server in data.get("servers", {}).items() if "preset" not in server
    ]
    places += [("latency",)] if "latency" in data else []
    places += [("services", name, "failover") for name in data.get("services", {})]
    for place in places:
        if not any(place[:n] in known for n in range(1, len(place))):
            rest = _without(_part(data, place), place, known)
            if rest not in (None, {}):
                yield place, rest


def _without(value: Any, path: Path, known: set[Path]) -> Any:
    """Return a part less what has an origin; None where all of it has."""
    if path in known:
        return None
    if not isinstance(value, dict) or not any(each[: len(path)] == path for each in known):
        return value
    rest = {key: _without(child, (*path, key), known) for key, child in value.items()}
    return {key: child for key, child in rest.items() if child is not None}


def _steps(data: Any, path: str) -> Path:
    """Return the keys and indices that a dotted path stands for; its scenario has been checked."""
    parts = path.split(".")
    found: list[str | int] = []
    while parts:
        if isinstance(data, dict):
            step: str | int
            step, used = key_at(data, parts)
            data = data.get(step)
        elif isinstance(data, list):
            names = [item.get("agent") if isinstance(item, dict) else None for item in data]
            step, used = index_of(parts[0], names), 1
            data = data[step]
        else:
            step, used = parts[0], 1
        found.append(step)
        parts = parts[used:]
    return tuple(found)


def _part(data: Any, path: Path) -> Any:
    for step in path:
        match data:
            case dict() if step in data:
                data = data[step]
            case list():
                data = data[int(step)]
            case _:
                return "default"
    return data


def _named(data: Mapping[str, Any], path: Path) -> str:
    match path:
        case ("fleet", int(number), *rest):
            return join(("fleet", data["fleet"][number]["agent"], *rest))
        case _:
            return join(path)


def _several(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more alike"


def _compact(value: Any) -> str:
    """Return plain data on one line: ``law tokens, base 150ms``."""
    if isinstance(value, dict):
        return ", ".join(
            f"{key} ({_compact(child)})" if isinstance(child, dict) else f"{key} {_compact(child)}"
            for key, child in sorted(value.items(), key=lambda item: item[0] not in ("kind", "law"))
        )
    if isinstance(value, list):
        return f"[{', '.join(map(_compact, value))}]"
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def controllers(scenario: Scenario) -> Block:
    """Return who decided: each controller, its parameters with the defaults, and the agents it is for."""
    users: dict[tuple[str, str, str, bool], list[str]] = {}
    for agent in scenario.fleet:
        for family, chosen in scenario.controllers_of(agent).items():
            for one in chosen:
                together = isinstance(one, Limit) and one.scope == "fleet"
                named = [(family, one)] + ([(f"{family} (shadow)", one.shadow)] if one.shadow else [])
                for name, each in named:
                    key = (name, each.use, _parameters(family, each.use, each.settings), together)
                    users.setdefault(key, []).append(agent.name)
    families = list(registry.FAMILIES)
    in_order = sorted(users.items(), key=lambda one: families.index(one[0][0].split()[0]))
    rows = [
        [family, use, settings, _whose(names, len(scenario.fleet), together)]
        for (family, use, settings, together), names in in_order
    ]
    absent = [family for family in families if family not in {row[0] for row in rows}]
    lead = f"Not used by any agent: {', '.join(absent)}." if absent else ""
    lead += " An agent without a queue or balancer has first in, first out and round robin."
    stacks = [scenario.controllers_of(agent) for agent in scenario.fleet]
    if any(len(stack.get(family, ())) > 1 for stack in stacks for family in ("limiter", "breaker")):
        lead += " Several limiters, or breakers, of an agent decide together: all must let a request through."
    return section(
        "controllers", "Controllers", lead.strip(), [table("family|controller|*parameters|agents", rows)]
    )


def _whose(names: list[str], entries: int, together: bool) -> str:
    if together:
        return "all together"
    return "all" if len(names) == entries else _several_agents(names)


def _several_agents(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= 3 else f"{', '.join(names[:3])} and {len(names) - 3} more"


def _parameters(family: str, use: str, settings: Mapping[str, Any]) -> str:
    """Return the parameters as written; of a built-in also those that were left at their default."""
    said = ", ".join(f"{key} {_compact(value)}" for key, value in settings.items())
    left = ""
    if use in registry.BUILT_INS[family]:
        known = registry.parameters(registry.find(family, use))
        left = ", ".join(
            f"{each.key} {_compact(_default(each))}" for each in known if each.key not in settings
        )
    return "; ".join(filter(None, (said, f"by default {left}" if left else ""))) or DASH


def _default(parameter: registry.Parameter) -> Any:
    default = parameter.default
    if default is None:
        return "none"
    if isinstance(default, tuple):
        return [parameter.quantity.write(each) if isinstance(each, float) else each for each in default]
    if parameter.kind == "quantity" and abs(default) != float("inf"):
        return parameter.quantity.write(default)
    return default


def reproduction(summary: Mapping[str, Any], manifest: Mapping[str, Any], scenario: Scenario) -> Block:
    """Return how to do the run again, and the check by Little's law."""
    packages = ", ".join(f"{name} {number}" for name, number in sorted(manifest["packages"].items()))
    mean_open, rate_times_time = summary["little"]["mean_open"], summary["little"]["rate_times_time"]
    off = abs(mean_open - rate_times_time) / max(mean_open, 1.0)
    little = (
        f"{mean_open:.6g} requests open on average, counted; {rate_times_time:.6g} from rate times time in "
        f"the system: {off:.1e} apart"
    )
    simulated = f"{exact(scenario.duration_s, 'duration')} of arrivals"
    simulated += f", the first {exact(scenario.warmup_s, 'duration')} left out" if scenario.warmup_s else ""
    rows = [
        ["glowsim", manifest["glowsim"]],
        ["scenario", f"{manifest['name']}, digest {manifest['digest']}"],
        ["seed", manifest["seed"]],
        ["replications", manifest["replications"]],
        ["measured" if "measured" in summary else "simulated", simulated],
        ["took", f"{plain(summary['wall_s'], 'duration')}, {plain(summary['cpu_s'], 'duration')} of CPU"],
        ["finished", manifest["finished_at"]],
        ["Python", manifest["python"]],
        ["packages", packages],
        ["Little's law", little],
    ]
    how = shlex.join(manifest["command"]) if manifest["command"] else ""
    again = (
        code(how)
        if how
        else text("The run was started from Python; scenario.json beside this report is what ran.")
    )
    lead = (
        "The same version, seed and scenario give the same numbers; manifest.json has every column's digest."
    )
    if "measured" in summary:
        lead = "The same version, seed and scenario send the same requests; what the target makes of them is its own."
    return section(
        "again", "How to reproduce it",
        lead,
        [again, table("|*", rows)],
    )  # fmt: skip
