"""A random scenario from a seed: small, quick to run, and full of what rarely happens at once."""

from __future__ import annotations

from typing import Any, get_args

from pydantic import BaseModel

from glowsim.fuzz.answers import quality
from glowsim.fuzz.dice import Dice, Scale, law
from glowsim.fuzz.parts import KINDS, MODELS, controllers, fill
from glowsim.fuzz.served import in_steps, servers
from glowsim.scenario import workload
from glowsim.scenario.fleet import Agent, Fault, Variant
from glowsim.scenario.quantities import COUNT, DURATION, NUMBER, RATE, TIME_PER_TOKEN

__all__ = ["scenario_data"]

_MOST_TASKS = 2000
_LONGEST_S = 7200.0
_REGIONS = ("here", "there")
_SERVED, _JUDGED = 0.4, 0.4
"""Shares of the scenarios that have model servers, and a truth about their answers."""
_CALLS = 4
"""Parts that work in steps has, about: each takes as much less."""
_WORKLOADS: dict[str, type[BaseModel]] = {
    "poisson": workload.Poisson,
    "piecewise": workload.Piecewise,
    "diurnal": workload.Diurnal,
    "bursts": workload.Bursts,
    "sessions": workload.Sessions,
    "closed": workload.Closed,
}
_ARRIVALS: dict[str, type[BaseModel]] = {
    "poisson": workload.PoissonArrivals,
    "piecewise": workload.PiecewiseArrivals,
    "diurnal": workload.DiurnalArrivals,
    "bursts": workload.BurstsArrivals,
}
_AGENT_SKIPS = ("slots", "variants", "controllers", "domain", "failures", "first_token_timeout")
_FAULTS: tuple[type[BaseModel], ...] = get_args(get_args(Fault)[0])


def scenario_data(seed: int) -> dict[str, Any]:
    """Return a random scenario as plain data in YAML spelling.

    It has up to four agents, four workloads with some 2,000 requests in all, faults, and controllers of every
    family that the registry knows, with parameters from within their bounds. One seed gives one scenario for
    as long as the registry and the scenario's models stay as they are.

    Parameters
    ----------
    seed
        From 0; also the scenario's own seed.

    >>> scenario_data(7) == scenario_data(7) != scenario_data(8)
    True
    """
    dice = Dice(seed)
    work_s = dice.spread(0.02, 10.0)
    groups = dice.whole(1, 3)
    places = [(dice.whole(1, 5), dice.one((1, 1, 2, 4, 8))) for _ in range(groups)]
    load = dice.spread(0.1, 4.0)
    rate_per_s = load * min(instances * concurrency for instances, concurrency in places) / work_s
    tasks = int(dice.spread(50, _MOST_TASKS))
    horizon_s = min(max(tasks / rate_per_s, 1.0), _LONGEST_S)
    scale = Scale(dice.spread(horizon_s / 3, horizon_s), rate_per_s)
    served = servers(dice, scale, work_s / _CALLS) if dice.chance(_SERVED) else {}
    fleet = [
        _agent(dice, scale, f"agent-{i}", work_s, *each, steps=bool(served)) for i, each in enumerate(places)
    ]
    judged = quality(dice, scale, fleet) if dice.chance(_JUDGED) else None
    kinds = () if judged is None else KINDS
    sources = dice.whole(1, 3)
    names = [agent["agent"] for agent in fleet]
    data = {
        "title": f"fuzz {seed}",
        "question": "Does every invariant hold?",
        "seed": seed,
        "duration": DURATION.write(scale.horizon_s),
        "drain": DURATION.write(dice.spread(work_s, 300.0)),
        "models": {
            name: prices | ({"server": dice.one(tuple(served))} if served else {})
            for name, prices in MODELS.items()
        },
        "regions": list(_REGIONS),
        "fleet": fleet,
        "workload": [
            _workload(dice, scale, fleet, work_s, tasks // sources + 1, kinds) for _ in range(sources)
        ],
        "faults": [_fault(dice, scale, names, tuple(served)) for _ in range(dice.whole(0, 4))],
        "controllers": controllers(
            dice, scale, 0.6, split=all("variants" in agent for agent in fleet), fleet=True
        ),
    }
    return data | ({"servers": served} if served else {}) | ({"quality": judged} if judged else {})


def _agent(
    dice: Dice, scale: Scale, name: str, work_s: float, instances: int, concurrency: int, *, steps: bool
) -> dict[str, Any]:
    queue = dice.one(("central", "instance"))
    given: dict[str, Any] = {
        "agent": name,
        "count": 2 if dice.chance(0.15) else 1,
        "model": dice.one(tuple(MODELS)),
        "region": dice.one(_REGIONS),
        "instances": instances,
        "concurrency": concurrency,
        "queue": queue,
        "timeout": DURATION.write(work_s * dice.spread(0.5, 3.0) * dice.one((1, 10, 100))),
        "service": in_steps(dice, scale, work_s / _CALLS) if steps else _service(dice, work_s),
    }
    if dice.chance(0.5):
        given["failures"] = {"invalid": dice.one((0.0, 0.05)), "error": dice.one((0.02, 0.2, 0.7, 1.0))}
    if dice.chance(0.3):
        given["first_token_timeout"] = DURATION.write(work_s * dice.spread(0.1, 10.0))
    if queue == "instance" or dice.chance(0.2):
        given["slots"] = concurrency * dice.whole(1, 8)
    if dice.chance(0.5):
        variants = ("next",) if dice.chance(0.8) else ("next", "third")
        given["variants"] = {variant: fill(dice, scale, Variant, {}) for variant in variants}
    if dice.chance(0.4):
        given["controllers"] = controllers(dice, scale, 0.3, split="variants" in given, fleet=False)
    return fill(dice, scale, Agent, given, skip=_AGENT_SKIPS)


def _service(dice: Dice, work_s: float) -> dict[str, Any]:
    if dice.chance(0.5):
        return {"law": "time", "time": law(dice, DURATION, work_s)}
    service: dict[str, Any] = {
        "law": "tokens",
        "base": DURATION.write(dice.one((0.0, work_s / 10))),
        "input": TIME_PER_TOKEN.write(dice.one((0.0, work_s / 4000))),
        "output": TIME_PER_TOKEN.write(work_s / 150),
        "slowdown": dice.one((0.0, 0.05, 0.5, 1.0)),
    }
    if dice.chance(0.4):
        service["noise"] = {"law": "gamma", "mean": 1, "cv": dice.spread(0.1, 2.0)}
    return service


def _workload(
    dice: Dice, scale: Scale, fleet: list[dict[str, Any]], work_s: float, tasks: int, kinds: tuple[str, ...]
) -> dict[str, Any]:
    kind = dice.one(tuple(_WORKLOADS))
    names = [agent["agent"] for agent in fleet]
    rate_per_s = scale.rate_per_s * len(names) * dice.spread(0.2, 1.0)
    given: dict[str, Any] = {
        "kind": kind,
        "tasks": tasks,
        "stream": dice.chance(0.4),
        "tokens_in": law(dice, COUNT, dice.spread(1, 4000)),
        "tokens_out": law(dice, COUNT, dice.spread(1, 500)),
    }
    if dice.chance(0.5):
        given["agents"] = {name: dice.whole(1, 5) for name in names if dice.chance(0.7)} or "all"
    if kinds and dice.chance(0.5):
        given["kinds"] = {each: dice.whole(1, 5) for each in kinds}
    match kind:
        case "closed":
            given |= {
                "users": dice.whole(1, 60),
                "think": law(dice, DURATION, dice.one((0.0, 1.0, 10.0)) * work_s),
            }
        case "sessions":
            given |= _sessions(dice, scale, fleet, work_s, tasks, rate_per_s)
        case _:
            given |= _arrivals(dice, scale, kind, rate_per_s)
    if dice.chance(0.4):
        given["cacheable"] = {
            "share": dice.even(0.1, 1.0),
            "keys": dice.whole(1, 50),
            "zipf": NUMBER.write(dice.even(0.0, 2.0)),
        }
    skip = ("agents", "cacheable", "max_context", "compacted")
    return fill(dice, scale, _WORKLOADS[kind], given, skip=skip)


def _arrivals(dice: Dice, scale: Scale, kind: str, rate_per_s: float) -> dict[str, Any]:
    """Return when requests, or sessions, begin."""
    horizon_s = scale.horizon_s
    given: dict[str, Any] = {"kind": kind}
    match kind:
        case "poisson":
            given["rate"] = RATE.write(rate_per_s)
        case "piecewise":
            starts = sorted({0.0, *(dice.even(0.0, horizon_s) for _ in range(dice.whole(0, 3)))})
            given["steps"] = [
                {"at": DURATION.write(at_s), "rate": RATE.write(rate_per_s * dice.one((0.0, 0.3, 1.0, 3.0)))}
                for at_s in starts
            ]
        case "diurnal":
            period_s = dice.spread(0.1, 1.0) * horizon_s
            given |= {"mean": RATE.write(rate_per_s), "period": DURATION.write(period_s)}
        case "bursts":
            every_s = dice.spread(0.05, 0.8) * horizon_s
            given |= {
                "base": RATE.write(rate_per_s * dice.one((0.0, 0.3))),
                "burst": RATE.write(rate_per_s * dice.one((2.0, 10.0))),
                "every": DURATION.write(every_s),
                "lasts": DURATION.write(every_s * dice.even(0.05, 0.9)),
            }
    return fill(dice, scale, _ARRIVALS[kind], given)


def _sessions(
    dice: Dice, scale: Scale, fleet: list[dict[str, Any]], work_s: float, tasks: int, rate_per_s: float
) -> dict[str, Any]:
    """Return what sessions have beside other workloads; as many turns in all as those have requests."""
    turns = dice.spread(1.0, 8.0)
    given: dict[str, Any] = {
        "tasks": int(tasks / turns) + 1,
        "arrivals": _arrivals(dice, scale, dice.one(tuple(_ARRIVALS)), rate_per_s / turns),
        "turns": law(dice, NUMBER, turns),
        "most_turns": dice.whole(1, 20),
        "think": law(dice, DURATION, dice.one((0.0, 1.0, 10.0)) * work_s),
    }
    if dice.chance(0.4):
        given["first_tokens_in"] = law(dice, COUNT, dice.spread(1, 4000))
    if dice.chance(0.4):
        most = int(dice.spread(100, 20_000))
        given |= {"max_context": most, "compacted": dice.whole(0, most - 1)}
    single = [agent["agent"] for agent in fleet if agent.get("count", 1) == 1]
    if len(single) > 1 and dice.chance(0.5):
        given["hand_over"] = {single[0]: {name: dice.even(0.0, 0.5) for name in single[1:]}}
    return given


def _fault(dice: Dice, scale: Scale, agents: list[str], servers: tuple[str, ...]) -> dict[str, Any]:
    model = dice.one([fault for fault in _FAULTS if servers or "server" not in fault.model_fields])
    where = {"agent": agents, "server": servers, "region": _REGIONS}
    given = {
        **{key: dice.one(names) for key, names in where.items() if key in model.model_fields},
        "at": DURATION.write(dice.even(0.0, scale.horizon_s)),
        "lasts": DURATION.write(dice.spread(scale.horizon_s / 100, scale.horizon_s)),
    }
    return fill(dice, scale, model, given)
