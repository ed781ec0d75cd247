"""Random model servers, and agents whose work is steps that call them."""

from __future__ import annotations

from typing import Any

from glowsim.fuzz.dice import Dice, Scale, law
from glowsim.fuzz.parts import fill
from glowsim.scenario.quantities import COUNT, DURATION, TIME_PER_TOKEN
from glowsim.scenario.servers import BatchServer, HostedServer, LoopStep, PsServer, ToolStep

__all__ = ["in_steps", "servers"]

_MOST_STEPS = 3
_DEEP = 2
"""How far loops and branches are nested."""


def servers(dice: Dice, scale: Scale, work_s: float) -> dict[str, Any]:
    """Return one or two servers as written, of any engine; a call takes them about ``work_s``.

    Parameters
    ----------
    dice, scale
        What draws, and the size of the scenario.
    work_s
        How long a call takes.
    """
    return {f"server-{i}": _server(dice, scale, work_s) for i in range(dice.whole(1, 2))}


def _server(dice: Dice, scale: Scale, work_s: float) -> dict[str, Any]:
    match dice.one(("batch", "ps", "hosted")):
        case "hosted":
            given: dict[str, Any] = {
                "engine": "hosted",
                "first_token": law(dice, DURATION, work_s / 4),
                "per_token": law(dice, DURATION, work_s / 500),
            }
            if dice.chance(0.4):
                given["requests_per_min"] = max(60 * scale.rate_per_s * dice.spread(0.1, 5.0), 1.0)
            if dice.chance(0.4):
                given["tokens_per_min"] = 60 * scale.rate_per_s * 1000 * dice.spread(0.1, 10.0)
            if dice.chance(0.2):
                given["incidents"] = dice.one(("anthropic", "openai"))
            return fill(dice, scale, HostedServer, given)
        case engine:
            sequences = dice.whole(1, 32)
            given = {
                "engine": engine,
                "step": {
                    "base": DURATION.write(work_s / 200),
                    "prefill": TIME_PER_TOKEN.write(work_s / dice.one((4_000, 40_000))),
                    "sequence": DURATION.write(work_s / dice.one((400, 4_000))),
                    "context": TIME_PER_TOKEN.write(dice.one((0.0, work_s / 4e6))),
                    "attention": TIME_PER_TOKEN.write(dice.one((0.0, work_s / 4e8))),
                },
                "replicas": dice.whole(1, 3),
                "sequences": sequences,
                "batched_tokens": sequences + int(dice.spread(1, 8192)),
                "cache_tokens": int(dice.spread(500, 300_000)),
            }
            return fill(dice, scale, BatchServer if engine == "batch" else PsServer, given)


def in_steps(dice: Dice, scale: Scale, work_s: float) -> dict[str, Any]:
    """Return what an agent does with a request, as written: calls, tools, loops and branches, then the answer.

    Parameters
    ----------
    dice, scale
        What draws, and the size of the scenario.
    work_s
        How long a tool takes, and a call, about.
    """
    service: dict[str, Any] = {"law": "steps", "steps": [*_steps(dice, scale, work_s, 0), {"step": "answer"}]}
    if dice.chance(0.5):
        service["instructions"] = int(dice.spread(1, 4000))
    if dice.chance(0.5):
        wait = DURATION.write(dice.one((0.0, work_s / 4)))
        service["client"] = {"tries": dice.whole(1, 4), "wait": wait}
    return service


def _steps(dice: Dice, scale: Scale, work_s: float, fewest: int, deep: int = 0) -> list[dict[str, Any]]:
    return [_step(dice, scale, work_s, deep) for _ in range(dice.whole(fewest, _MOST_STEPS))]


def _step(dice: Dice, scale: Scale, work_s: float, deep: int) -> dict[str, Any]:
    match dice.one(("call", "tool", "loop", "together") if deep < _DEEP else ("call", "tool")):
        case "tool":
            time = law(dice, DURATION, dice.one((0.0, work_s / 4)))
            return fill(dice, scale, ToolStep, {"step": "tool", "time": time, "tries": dice.whole(1, 3)})
        case "loop":
            inner = _steps(dice, scale, work_s, 1, deep + 1)
            return fill(dice, scale, LoopStep, {"step": "loop", "most": dice.whole(1, 4), "steps": inner})
        case "together":
            branches = [_steps(dice, scale, work_s, 1, deep + 1) for _ in range(dice.whole(2, 3))]
            return {"step": "together", "branches": branches}
        case _:
            return {"step": "call", "tokens_out": law(dice, COUNT, dice.spread(1, 100))}
