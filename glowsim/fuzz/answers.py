"""A random truth about answers: what the models can do, what changes with time, what users say."""

from __future__ import annotations

from typing import Any

from glowsim.fuzz.dice import Dice, Scale
from glowsim.fuzz.parts import KINDS, MODELS
from glowsim.scenario.quantities import DURATION

__all__ = ["quality"]

_FAILURES = ("correct", "wrong", "hallucination", "format", "refusal")


def quality(dice: Dice, scale: Scale, fleet: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a block ``quality`` as written, complete in itself.

    Parameters
    ----------
    dice, scale
        What draws, and the size of the scenario: users speak within about its length.
    fleet
        The agents as written, whose variants and names it may mention.
    """
    block: dict[str, Any] = {
        "kinds": {kind: _alike(dice) for kind in KINDS},
        "models": {name: _ability(dice) for name in MODELS},
        "context_loss": dice.even(0.0, 1.0),
        "confidence": dice.one((0.5, 0.7, 0.95)),
        "feedback": {
            name: _remarks(dice, scale, name)
            for name in ("rating", "correction", "complaint")
            if dice.chance(0.6)
        },
        "drift": [_drift(dice, scale, fleet) for _ in range(dice.whole(0, 2))],
    }
    variants = sorted({name for agent in fleet for name in agent.get("variants", ())})
    if variants and dice.chance(0.5):
        block["variants"] = {name: dice.even(0.0, 2.0) for name in variants}
    return block


def _alike(dice: Dice) -> dict[str, Any]:
    repeat = dice.one((0.0, 0.5, 0.9, 1.0))
    return {"shared": dice.one((0.0, repeat / 2, repeat)), "repeat": repeat}


def _ability(dice: Dice) -> dict[str, Any]:
    accuracy = dice.one((0.0, 1.0, dice.even(0.1, 0.9)))
    failures = {name: dice.even(0.0, 0.33) for name in ("hallucination", "format", "refusal")}
    return {"accuracy": {"*": accuracy, KINDS[1]: dice.even(0.0, 1.0)}, **failures}


def _remarks(dice: Dice, scale: Scale, name: str) -> dict[str, Any]:
    median_s = dice.spread(scale.horizon_s / 1000, scale.horizon_s)
    said: dict[str, Any] = {
        "shares": {failure: dice.one((0.0, 0.2, 1.0)) for failure in _FAILURES},
        "delay": {"median": DURATION.write(median_s), "sigma": dice.even(0.0, 2.0)},
    }
    if name == "rating":
        said |= {"if_correct": [0, 0, 0.1, 0.3, 0.6], "otherwise": [0.5, 0.2, 0.1, 0.1, 0.1]}
    return said


def _drift(dice: Dice, scale: Scale, fleet: list[dict[str, Any]]) -> dict[str, Any]:
    every_s = dice.even(0.1, 0.5) * scale.horizon_s
    lasts_s = every_s * dice.even(0.1, 0.9)
    drift: dict[str, Any] = {
        "at": DURATION.write(dice.even(0.0, scale.horizon_s)),
        "factor": dice.even(0.0, 1.5),
        "ramp": DURATION.write(dice.one((0.0, lasts_s / 2))),
    }
    if dice.chance(0.5):
        drift["lasts"] = DURATION.write(lasts_s)
        if dice.chance(0.5):
            drift["every"] = DURATION.write(every_s)
    only = {"model": tuple(MODELS), "kind": KINDS, "agent": tuple(agent["agent"] for agent in fleet)}
    return drift | {key: dice.one(names) for key, names in only.items() if dice.chance(0.3)}
