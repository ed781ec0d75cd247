"""A random scenario from a seed: small, quick to run, and full of what rarely happens at once."""

from __future__ import annotations

from typing import Any, get_args

from pydantic import BaseModel

from glowsim.fuzz.dice import Dice, Scale, law
from glowsim.fuzz.parts import MODELS, controllers, fill
from glowsim.scenario.fleet import Agent, Fault, Variant
from glowsim.scenario.quantities import COUNT, DURATION, NUMBER, RATE, TIME_PER_TOKEN
from glowsim.scenario.workload import Bursts, Closed, Diurnal, Piecewise, Poisson

__all__ = ["scenario_data"]

_MOST_TASKS = 2000
_LONGEST_S = 7200.0
_WORKLOADS: dict[str, type[BaseModel]] = {
    "poisson": Poisson,
    "piecewise": Piecewise,
    "diurnal": Diurnal,
    "bursts": Bursts,
    "closed": Closed,
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
    servers = [(dice.whole(1, 5), dice.one((1, 1, 2, 4, 8))) for _ in range(groups)]
    load = dice.spread(0.1, 4.0)
    rate_per_s = load * min(instances * concurrency for instances, concurrency in servers) / work_s
    tasks = int(dice.spread(50, _MOST_TASKS))
    horizon_s = min(max(tasks / rate_per_s, 1.0), _LONGEST_S)
    scale = Scale(dice.spread(horizon_s / 3, horizon_s), rate_per_s)
    fleet = [_agent(dice, scale, f"agent-{i}", work_s, *each) for i, each in enumerate(servers)]
    names = [agent["agent"] for agent in fleet]
    workloads = dice.whole(1, 3)
    return {
        "title": f"fuzz {seed}",
        "question": "Does every invariant hold?",
        "seed": seed,
        "duration": DURATION.write(scale.horizon_s),
        "drain": DURATION.write(dice.spread(work_s, 300.0)),
        "models": dict(MODELS),
        "regions": ["here", "there"],
        "fleet": fleet,
        "workload": [_workload(dice, scale, names, work_s, tasks // workloads + 1) for _ in range(workloads)],
        "faults": [_fault(dice, scale, names) for _ in range(dice.whole(0, 4))],
        "controllers": controllers(
            dice, scale, 0.6, split=all("variants" in agent for agent in fleet), fleet=True
        ),
    }


def _agent(
    dice: Dice, scale: Scale, name: str, work_s: float, instances: int, concurrency: int
) -> dict[str, Any]:
    queue = dice.one(("central", "instance"))
    given: dict[str, Any] = {
        "agent": name,
        "count": 2 if dice.chance(0.15) else 1,
        "model": dice.one(tuple(MODELS)),
        "region": dice.one(("here", "there")),
        "instances": instances,
        "concurrency": concurrency,
        "queue": queue,
        "timeout": DURATION.write(work_s * dice.spread(0.5, 3.0) * dice.one((1, 10, 100))),
        "service": _service(dice, work_s),
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


def _workload(dice: Dice, scale: Scale, names: list[str], work_s: float, tasks: int) -> dict[str, Any]:
    kind = dice.one(tuple(_WORKLOADS))
    horizon_s, rate = scale.horizon_s, scale.rate_per_s * len(names) * dice.spread(0.2, 1.0)
    given: dict[str, Any] = {
        "kind": kind,
        "tasks": tasks,
        "stream": dice.chance(0.4),
        "tokens_in": law(dice, COUNT, dice.spread(1, 4000)),
        "tokens_out": law(dice, COUNT, dice.spread(1, 500)),
    }
    if dice.chance(0.5):
        given["agents"] = {name: dice.whole(1, 5) for name in names if dice.chance(0.7)} or "all"
    match kind:
        case "poisson":
            given["rate"] = RATE.write(rate)
        case "piecewise":
            starts = sorted({0.0, *(dice.even(0.0, horizon_s) for _ in range(dice.whole(0, 3)))})
            given["steps"] = [
                {"at": DURATION.write(at_s), "rate": RATE.write(rate * dice.one((0.0, 0.3, 1.0, 3.0)))}
                for at_s in starts
            ]
        case "diurnal":
            given |= {"mean": RATE.write(rate), "period": DURATION.write(dice.spread(0.1, 1.0) * horizon_s)}
        case "bursts":
            every_s = dice.spread(0.05, 0.8) * horizon_s
            given |= {
                "base": RATE.write(rate * dice.one((0.0, 0.3))),
                "burst": RATE.write(rate * dice.one((2.0, 10.0))),
                "every": DURATION.write(every_s),
                "lasts": DURATION.write(every_s * dice.even(0.05, 0.9)),
            }
        case "closed":
            given |= {
                "users": dice.whole(1, 60),
                "think": law(dice, DURATION, dice.one((0.0, 1.0, 10.0)) * work_s),
            }
    if dice.chance(0.4):
        given["cacheable"] = {
            "share": dice.even(0.1, 1.0),
            "keys": dice.whole(1, 50),
            "zipf": NUMBER.write(dice.even(0.0, 2.0)),
        }
    return fill(dice, scale, _WORKLOADS[kind], given, skip=("agents", "cacheable"))


def _fault(dice: Dice, scale: Scale, names: list[str]) -> dict[str, Any]:
    model = dice.one(_FAULTS)
    given = {
        "agent": dice.one(names),
        "at": DURATION.write(dice.even(0.0, scale.horizon_s)),
        "lasts": DURATION.write(dice.spread(scale.horizon_s / 100, scale.horizon_s)),
    }
    return fill(dice, scale, model, given)
