"""What every scenario model shares: frozen, nothing extra, nothing coerced, and a choice by one key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from glowsim.scenario.problems import Finding

__all__ = ["AgentName", "ChosenBy", "Items", "Model", "Name", "OneOf", "Queueing", "Title", "findings_error"]

T = TypeVar("T")

Items = Annotated[tuple[T, ...], Field(strict=False)]
"""A YAML list, kept as a tuple."""
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
"""The name of a model, region or variant."""
AgentName = Annotated[str, Field(pattern=r"^[a-z0-9-]+$", max_length=100)]
"""The name of an agent: lower case letters, digits and hyphens."""
Queueing = Literal["central", "instance"]
"""Where requests wait: at the gateway, or in the backlog of an instance."""
Title = Annotated[str, Field(min_length=1, max_length=300)]
"""One line of text."""


class Model(BaseModel):
    """A part of a scenario: immutable, without unknown keys, without silent conversions.

    Attributes carry the unit (``timeout_s``), YAML keys do not (``timeout``): the key is the alias.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, validate_by_alias=True
    )


@dataclass(frozen=True)
class ChosenBy:
    """Pydantic metadata of a union: the value of ``key`` chooses the model, so that errors are its own.

    Args:
        key: the deciding key, a ``Literal`` field of every model of the union.
        bare: the choice that a value which is no mapping stands for (``constant``), as its ``value``.
    """

    key: str
    bare: str | None = None

    def tag(self, model: type[BaseModel]) -> str:
        """Return the mark of a model in the location of an error: ``kind=poisson``."""
        (choice,) = get_args(model.model_fields[self.key].annotation)
        return f"{self.key}={choice}"

    def _tag_of(self, value: Any) -> str | None:
        if isinstance(value, BaseModel):
            return self.tag(type(value))
        if isinstance(value, Mapping):
            return f"{self.key}={value[self.key]}" if self.key in value else None
        return f"{self.key}={self.bare}" if self.bare else None

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        choices = {self.tag(model): handler.generate_schema(model) for model in get_args(source)}
        return core_schema.tagged_union_schema(choices, self._tag_of)


@dataclass(frozen=True)
class OneOf:
    """Pydantic metadata of a text: one of the names given.

    >>> from pydantic import TypeAdapter
    >>> TypeAdapter(Annotated[str, OneOf(("red", "blue"))]).validate_python("red")
    'red'
    """

    names: tuple[str, ...]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.literal_schema(list(self.names))


def findings_error(*findings: Finding) -> PydanticCustomError:
    """Return an error that a validator raises; paths are relative to the model that it validates."""
    text = "; ".join(finding.message for finding in findings)
    return PydanticCustomError("findings", "{text}", {"text": text, "findings": findings})
