"""Random parts of a scenario, read off what may be written: new controllers and new keys come by themselves."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from annotated_types import Ge, Le
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from glowsim import build, registry
from glowsim.core.errors import GlowsimError
from glowsim.core.streams import Streams
from glowsim.fuzz.dice import Dice, Scale, law, number, whole_number
from glowsim.registry import Parameter
from glowsim.scenario import Scenario
from glowsim.scenario.controllers import SEVERAL, Controllers
from glowsim.scenario.laws import LawOfTime
from glowsim.scenario.quantities import DURATION, Within

__all__ = ["KINDS", "MODELS", "controllers", "fill"]

KINDS: Final = ("faq", "case")
"""Of task, where answers are judged."""
MODELS: Final = {
    "small": {"input": "$0.15/1M", "cached_input": "$0.075/1M", "output": "$0.60/1M"},
    "large": {"input": "$3/1M", "output": "$15/1M"},
}
_DRAWS = 50
_TEXTS = ("latency_s", "error", "tokens_out", "model small", "model large", "stale", "apology")
"""What is tried for a parameter that is a text: metrics, and steps of a ladder; any will do for a name."""
_MODEL_NAMES = ("cheap", "strong")
"""Parameters whose text is the name of a model."""
_FOR_EACH_KIND = ("gains",)
"""Lists with a number for every kind of task."""
_RARE = ("guard", "limiter")
_LAW_OF_TIME = get_args(LawOfTime)[0]
_LISTED = frozenset(name for name, field in Controllers.model_fields.items() if field.default == ())
"""Families that are always written as a list."""
_TRIAL: dict[str, Any] = {
    "title": "trial",
    "question": "Can it be built?",
    "seed": 0,
    "duration": "1s",
    "models": MODELS,
    "fleet": [
        {"agent": "a", "model": "small", "instances": 1, "concurrency": 1, "service": {"law": "time", "time": "1s"},
         "variants": {"next": {}}},
    ],
    "workload": [{"kind": "poisson", "rate": "1/s", "tokens_in": 1, "tokens_out": 1}],
}  # fmt: skip


# --- models of the scenario -------------------------------------------------------------------------------


def fill(
    dice: Dice, scale: Scale, model: type[BaseModel], given: Mapping[str, Any], skip: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Return a part of a scenario as written: what is given, and the rest drawn or left to its default.

    Parameters
    ----------
    dice, scale
        What draws, and the size of the scenario.
    model
        The part's model, whose annotations say what may be written.
    given
        Keys that are not drawn, with their values.
    skip
        Keys that are left out.

    Raises
    ------
    GlowsimError
        A required key is of a kind that this cannot draw.
    """
    found = dict(given)
    for name, field in model.model_fields.items():
        key = field.alias or name
        if key in given or key in skip or (not field.is_required() and dice.chance(0.7)):
            continue
        default = None if field.is_required() else field.get_default()
        value = _value(dice, scale, field.annotation, tuple(field.metadata), default)
        if value is not None:
            found[key] = value
        elif field.is_required():
            raise GlowsimError(
                f"the fuzzer cannot draw {key!r} of {model.__name__}: give it one in glowsim.fuzz"
            )
    return found


def _value(dice: Dice, scale: Scale, annotation: Any, extras: tuple[Any, ...], default: Any) -> Any:
    """Return a value that may be written where this annotation stands, or None for one not known here."""
    if get_origin(annotation) is Annotated:
        annotation, *more = get_args(annotation)
        inner = [each.metadata if isinstance(each, FieldInfo) else [each] for each in more]
        return _value(dice, scale, annotation, (*extras, *(one for ones in inner for one in ones)), default)
    if annotation == _LAW_OF_TIME:
        return law(dice, DURATION, dice.spread(scale.horizon_s / 1000, scale.horizon_s / 10))
    if get_origin(annotation) in (Union, UnionType):
        rest = [each for each in get_args(annotation) if each is not NoneType]
        return _value(dice, scale, rest[0], extras, default) if len(rest) == 1 else None
    if get_origin(annotation) is Literal:
        return dice.one(get_args(annotation))
    if annotation is bool:
        return dice.chance(0.5)
    if annotation is int:
        low = next((each.ge for each in extras if isinstance(each, Ge)), 0)
        high = next((each.le for each in extras if isinstance(each, Le)), 1000)
        return whole_number(dice, low, high, default)  # type: ignore[arg-type]
    within = next((each for each in extras if isinstance(each, Within)), None)
    if annotation is float and within is not None:
        return within.quantity.write(number(dice, scale, within, default))
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return fill(dice, scale, annotation, {})
    return None


# --- controllers ------------------------------------------------------------------------------------------


def controllers(dice: Dice, scale: Scale, chance: float, *, split: bool, fleet: bool) -> dict[str, Any]:
    """Return random controllers of random families as written, with random parameters.

    Parameters
    ----------
    dice, scale
        What draws, and the size of the scenario.
    chance
        With which each family is there; half of it for those that keep requests from all the others.
    split
        Whether there are variants to split traffic between.
    fleet
        Whether they are the whole fleet's: then a limiter may be one for all agents.

    Raises
    ------
    GlowsimError
        Nothing that was drawn for a family can be built.
    """
    chosen: dict[str, Any] = {}
    for family in registry.FAMILIES:
        if not dice.chance(chance / 2 if family in _RARE else chance) or (family == "splitter" and not split):
            continue
        listed = family in _LISTED or (family in SEVERAL and dice.chance(0.3))
        drawn = [_controller(dice, scale, family) for _ in range(dice.whole(1, 3) if listed else 1)]
        if fleet and family == "limiter" and dice.chance(0.5):
            drawn = [
                each if _refusal(family, shared := each | {"scope": "fleet"}) else shared for each in drawn
            ]
        together = drawn if not listed or _refusal(family, drawn) is None else drawn[:1]
        chosen[family] = together if listed else together[0]
    return chosen


def _controller(dice: Dice, scale: Scale, family: str) -> dict[str, Any]:
    """Return a random controller that can be built; one in ten has a shadow, where the family allows that."""
    for _ in range(_DRAWS):
        written = _drawn(dice, scale, family)
        refusal = _refusal(family, written)
        if refusal is None:
            break
    else:
        raise GlowsimError(
            f"{family}: none of {_DRAWS} random choices can be built; the last, {written}: {refusal}"
        )
    if dice.chance(0.1):
        shadowed = {**written, "shadow": _drawn(dice, scale, family)}
        if _refusal(family, shadowed) is None:
            return shadowed
    return written


def _drawn(dice: Dice, scale: Scale, family: str) -> dict[str, Any]:
    use = dice.one(tuple(registry.BUILT_INS[family]))
    known = registry.parameters(registry.find(family, use))
    settings = {each.key: _setting(dice, scale, each) for each in known if each.required or dice.chance(0.5)}
    return {"use": use} | settings


def _setting(dice: Dice, scale: Scale, parameter: Parameter) -> Any:
    if parameter.optional and dice.chance(0.3):
        return None
    if not parameter.many:
        return _one_setting(dice, scale, parameter, parameter.default)
    default = parameter.default[0] if parameter.default else None
    fewest = len(KINDS) if parameter.key in _FOR_EACH_KIND else 1
    values = [_one_setting(dice, scale, parameter, default) for _ in range(dice.whole(fewest, 4))]
    read = parameter._replace(many=False).read
    return sorted(values, key=read) if dice.chance(0.8) else values


def _one_setting(dice: Dice, scale: Scale, parameter: Parameter, default: Any) -> Any:
    low, high, above = parameter.bound
    match parameter.kind:
        case "quantity":
            within = Within(parameter.quantity, low, high, above)
            return parameter.quantity.write(number(dice, scale, within, default))
        case "integer":
            return whole_number(dice, low, high, default)
        case "boolean":
            return dice.chance(0.5)
        case "choice":
            return dice.one(parameter.choices)
        case _:
            return dice.one(tuple(MODELS) if parameter.key in _MODEL_NAMES else _TEXTS)


@cache
def _trial() -> Scenario:
    return Scenario.model_validate(_TRIAL)


def _refusal(family: str, written: Any) -> str | None:
    """Return why a control plane cannot be built with a controller, or a list of them, or None."""
    chosen = [written] if family in _LISTED and isinstance(written, dict) else written
    try:
        written_as = Controllers.model_validate({family: chosen})
        build.control_plane(_trial().model_copy(update={"controllers": written_as}), Streams(0))
    except (GlowsimError, ValueError) as error:
        return str(error)
    return None
