"""An OpenAPI document, made from a table of operations and the pydantic models that they take and give."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict
from pydantic.json_schema import models_json_schema

__all__ = ["Failure", "Operation", "document"]


class _Why(BaseModel):
    code: int
    """The HTTP status."""
    message: str


class Failure(BaseModel):
    """What every refusal says."""

    model_config = ConfigDict(title="Failure")

    error: _Why


class Operation(NamedTuple):
    """One thing that an API can be asked for."""

    method: str
    path: str
    """With ``{parameters}``."""
    summary: str
    answer: type[BaseModel] | str
    """A model, or the media type of something else."""
    body: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    status: int = 200
    """Of success."""
    refusals: tuple[int, ...] = ()
    """Statuses of what may go wrong, beside 400, 401 and 500."""
    open: bool = False
    """Whether it needs no token."""


_SAID = {
    400: "what was sent is not understood",
    401: "the token is missing or wrong",
    404: "there is no such thing",
    409: "it cannot be done as things are",
    413: "the body is too large",
    429: "there is enough of it",
    503: "not now; try again later",
    500: "the daemon failed; its log says why",
}


def document(title: str, version: str, operations: Sequence[Operation]) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of an API.

    Parameters
    ----------
    title, version
        The API's.
    operations
        Everything that it can be asked for; a method of a path once.

    >>> document("Nothing", "1", ())["openapi"]
    '3.1.0'

    Source: OpenAPI Specification 3.1.0.
    """
    models = {(each, "validation") for one in operations for each in (one.body, one.query) if each}
    answers = {(one.answer, "serialization") for one in operations if not isinstance(one.answer, str)}
    known = sorted(models | answers | {(Failure, "serialization")}, key=lambda each: each[0].__name__)
    of, schemas = models_json_schema(known, ref_template="#/components/schemas/{model}")  # type: ignore[arg-type]
    paths: dict[str, dict[str, Any]] = {}
    for one in operations:
        paths.setdefault(one.path, {})[one.method.lower()] = _described(one, of)
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version},
        "paths": paths,
        "components": {
            "schemas": schemas.get("$defs", {}),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}],
    }


def _described(one: Operation, of: dict[Any, dict[str, Any]]) -> dict[str, Any]:
    name = re.sub(r"\W+", "_", f"{one.method.lower()}{one.path}").strip("_")
    if isinstance(one.answer, str):
        content: dict[str, Any] = {one.answer: {}}
    else:
        content = {"application/json": {"schema": of[one.answer, "serialization"]}}
    failure = {"application/json": {"schema": of[Failure, "serialization"]}}
    usual = (400, 500) if one.open else (400, 401, 500)
    responses = {str(one.status): {"description": "done", "content": content}}
    for status in sorted({*one.refusals, *usual}):
        responses[str(status)] = {"description": _SAID[status], "content": failure}
    said: dict[str, Any] = {
        "operationId": name,
        "summary": one.summary,
        "parameters": [*_in_path(one.path), *_in_query(one.query)],
        "responses": responses,
    }
    if one.body is not None:
        schema = of[one.body, "validation"]
        said["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
        key = {"type": "string", "minLength": 1, "maxLength": 200}
        said["parameters"].append(
            {"name": "Idempotency-Key", "in": "header", "required": False, "schema": key}
        )
    if one.open:
        said["security"] = []
    return said


def _in_path(path: str) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"{(\w+)}", path)
    ]


def _in_query(query: type[BaseModel] | None) -> list[dict[str, Any]]:
    if query is None:
        return []
    properties = query.model_json_schema()["properties"]
    return [
        {"name": name, "in": "query", "required": False, "schema": schema}
        for name, schema in properties.items()
    ]
