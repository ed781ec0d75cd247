"""The JSON Schema of a scenario file, so that editors complete and check while one types."""

from __future__ import annotations

import inspect
from typing import Any

from glowsim import registry
from glowsim.scenario.controllers import SEVERAL, Limit
from glowsim.scenario.model import Scenario

__all__ = ["schema"]


def schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12), with the parameters of every built-in controller.

    >>> schema()["properties"]["seed"]["minimum"]
    0
    """
    found = Scenario.model_json_schema(by_alias=True)
    definitions = found["$defs"]
    families = definitions["Controllers"]["properties"]
    del definitions["Controller"], definitions["Limit"]
    for family in registry.FAMILIES:
        definitions[family] = _family(family)
        reference = {"$ref": f"#/$defs/{family}"}
        several: dict[str, Any] = {"type": "array", "items": reference}
        allowed = several if families[family].get("type") == "array" else reference
        if family in SEVERAL:
            allowed = {"anyOf": [reference, {**several, "minItems": 1}]}
        families[family] = {"description": families[family]["description"], **allowed}
    renamed: dict[str, Any] = _renamed(found, {key: _short(key, part) for key, part in definitions.items()})
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **renamed}


def _short(key: str, definition: dict[str, Any]) -> str:
    title: str = definition.get("title", key)
    return title if "__" in key else key


def _renamed(part: Any, names: dict[str, str]) -> Any:
    """Give definitions the names of their models; pydantic spells out the arguments of generic ones."""
    match part:
        case {"$ref": str(reference), **rest}:
            return {"$ref": f"#/$defs/{names[reference.rpartition('/')[2]]}", **rest}
        case {"$defs": dict(definitions), **rest}:
            inner = {names[key]: _renamed(value, names) for key, value in definitions.items()}
            return {**_renamed(rest, names), "$defs": inner}
        case dict():
            return {key: _renamed(value, names) for key, value in part.items()}
        case list():
            return [_renamed(value, names) for value in part]
        case _:
            return part


def _family(family: str) -> dict[str, Any]:
    built_ins = [_controller(family, use) for use in registry.BUILT_INS[family]]
    plugin = {
        "type": "object",
        "title": "module:Class, with --allow-plugins",
        "properties": {
            "use": {"type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_]*$"}
        },
        "required": ["use"],
    }
    return {"oneOf": [*built_ins, plugin]}


def _controller(family: str, use: str) -> dict[str, Any]:
    controller = registry.find(family, use)
    parameters = registry.parameters(controller)
    summary = (inspect.getdoc(controller) or "").partition("\n")[0]
    return {
        "type": "object",
        "title": use,
        "description": summary,
        "properties": {
            "use": {"const": use},
            "shadow": {"$ref": f"#/$defs/{family}"},
            **(
                {"scope": Limit.model_json_schema()["$defs"]["Limit"]["properties"]["scope"]}
                if family == "limiter"
                else {}
            ),
            **{parameter.key: parameter.json_schema() for parameter in parameters},
        },
        "required": ["use", *(parameter.key for parameter in parameters if parameter.required)],
        "additionalProperties": False,
    }
