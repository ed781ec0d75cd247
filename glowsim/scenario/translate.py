"""Pydantic's errors in plain English, with what is allowed at the place of each."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from glowsim.scenario.base import ChosenBy
from glowsim.scenario.problems import REQUIRED, UNKNOWN_KEY, Finding, did_you_mean

__all__ = ["translate"]

Path = tuple[str | int, ...]

_EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "a text (in quotes, if it looks like a number)",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "dict_type": "a mapping (key: value)",
    "model_type": "a mapping (key: value)",
    "model_attributes_type": "a mapping (key: value)",
}
_BOUNDS = {
    "greater_than": ("above", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("below", "lt"),
    "less_than_equal": ("at most", "le"),
}
_LENGTHS = {
    "too_short": ("at least", "min_length", "entry", "entries"),
    "too_long": ("at most", "max_length", "entry", "entries"),
    "string_too_short": ("at least", "min_length", "character", "characters"),
    "string_too_long": ("at most", "max_length", "character", "characters"),
}


def translate(error: ValidationError, model: type[BaseModel], data: Any) -> list[Finding]:
    """Return the findings of a validation of ``data`` (plain, in YAML spelling) against ``model``."""
    found: list[Finding] = []
    for detail in error.errors(include_url=False):
        if detail["type"] != "default_factory_not_called":
            found += _findings(detail, model, data)
    return found


def _findings(detail: ErrorDetails, model: type[BaseModel], data: Any) -> Iterator[Finding]:
    kind, context = detail["type"], detail.get("ctx", {})
    loc = tuple(part for part in detail["loc"] if part != "[key]")
    path = _without_tags(loc, data)
    value = _shown(_at(data, path))
    if kind == "too_short" and len(_at(data, path)) >= context["min_length"]:
        return  # pydantic counts only the valid items, and each of the others has an error of its own
    if kind == "findings":
        yield from (f._replace(path=path + f.path) for f in context["findings"])
    elif kind == "extra_forbidden":
        allowed = _keys(_types_at(model, loc[:-1]))
        yield Finding(path, UNKNOWN_KEY, allowed, did_you_mean(str(path[-1]), allowed))
    elif kind == "missing":
        yield Finding(path, REQUIRED)
    elif kind == "union_tag_not_found":
        key, choices = _choices(model, loc)
        if isinstance(_at(data, path), dict):
            yield Finding((*path, key), REQUIRED, choices)
        else:
            yield Finding(path, f"must be a mapping with the key {key!r}, got {value}")
    elif kind == "union_tag_invalid":
        key, choices = _choices(model, loc)
        chosen = _at(data, (*path, key))
        yield Finding((*path, key), f"unknown {key} {chosen!r}", choices, did_you_mean(str(chosen), choices))
    elif kind == "literal_error":
        allowed = tuple(re.findall(r"'([^']*)'", context["expected"]))
        yield Finding(path, f"cannot be {value}", allowed, did_you_mean(str(_at(data, path)), allowed))
    else:
        yield Finding(path, _message(kind, context, value, detail["msg"]))


def _message(kind: str, context: dict[str, Any], value: str, fallback: str) -> str:
    if kind in _EXPECTED:
        return f"must be {_EXPECTED[kind]}, got {value}"
    if kind in _BOUNDS:
        words, bound = _BOUNDS[kind]
        return f"must be {words} {context[bound]}, got {value}"
    if kind in _LENGTHS:
        words, bound, one, many = _LENGTHS[kind]
        length = context[bound]
        return f"must have {words} {length} {one if length == 1 else many}"
    if kind == "string_pattern_mismatch":
        return f"{value} is not a name: it must match {context['pattern']}"
    return fallback


def _shown(value: Any) -> str:
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    if value is None:
        return "nothing"
    text = {True: "true", False: "false"}[value] if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _at(data: Any, path: Path) -> Any:
    for part in path:
        match data, part:
            case dict(), str() if part in data:
                data = data[part]
            case list(), int() if part < len(data):
                data = data[part]
            case _:
                return None
    return data


def _without_tags(loc: Path, data: Any) -> Path:
    """Drop the marks of chosen models (``law=gamma``) and the ``value`` of a constant written bare."""
    path: Path = ()
    for part in loc:
        here = _at(data, path)
        is_key = isinstance(here, dict) and part in here
        if not is_key and isinstance(part, str) and ("=" in part or not isinstance(here, dict | list)):
            continue
        path = (*path, part)
    return path


def _types_at(model: type[BaseModel], loc: Path) -> list[Any]:
    """Return what may stand at ``loc``: model classes and containers, unions taken apart."""
    types: list[Any] = [model]
    for part in loc:
        types = [option for one in types for inner in _step(one, part) for option in _options(inner)]
    return types


def _options(annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) is Annotated:
        yield from _options(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, UnionType):
        for inner in get_args(annotation):
            yield from _options(inner)
    else:
        yield annotation


def _step(option: Any, part: str | int) -> Iterator[Any]:
    if get_origin(option) is tuple and isinstance(part, int):
        yield get_args(option)[0]
    elif get_origin(option) is dict:
        yield get_args(option)[1]
    elif _is_model(option):
        if isinstance(part, str) and "=" in part:
            key = part.split("=")[0]
            if key in option.model_fields and ChosenBy(key).tag(option) == part:
                yield option
        for name, field in option.model_fields.items():
            if (field.alias or name) == part:
                yield field.annotation


def _is_model(option: Any) -> bool:
    return isinstance(option, type) and issubclass(option, BaseModel)


def _keys(options: Sequence[Any]) -> tuple[str, ...]:
    found = {
        field.alias or name for one in options if _is_model(one) for name, field in one.model_fields.items()
    }
    return tuple(sorted(found))


def _choices(model: type[BaseModel], loc: Path) -> tuple[str, tuple[str, ...]]:
    """Return the deciding key of the union at ``loc``, and its values."""
    options = [one for one in _types_at(model, loc) if _is_model(one)]
    key = next(key for key in ("kind", "law") if key in options[0].model_fields)
    return key, tuple(ChosenBy(key).tag(one).split("=")[1] for one in options)
