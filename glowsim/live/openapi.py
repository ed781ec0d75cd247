"""An OpenAPI document, made from a table of operations and the pydantic models that they take and give."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
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
    """Statuses of what may go wrong, beside 400 and 500, 401 and 403 unless it is open, 408, 413 and 415 of a body."""
    open: bool = False
    """Whether it needs no token."""
    failure: type[BaseModel] = Failure
    """What its refusals say."""
    headers: Mapping[str, dict[str, Any]] = {}
    """Headers that it heeds, and their schemas."""
    events: bool = False
    """Whether it also answers with server-sent events."""


_SAID = {
    400: "what was sent is not understood",
    401: "the token is missing or wrong",
    403: "it is not allowed to whoever asks",
    404: "there is no such thing",
    408: "the body did not come in time",
    409: "it cannot be done as things are",
    413: "it is too large",
    415: "the body is not plain JSON",
    422: "the instance turned the task down",
    429: "there is enough of it",
    451: "it may not be done in that region",
    502: "every instance that was tried failed",
    503: "not now; try again later",
    504: "it took too long",
    500: "the daemon failed; its log says why",
}


def document(
    title: str, version: str, operations: Sequence[Operation], *, key_header: str | None = None
) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of an API.

    Parameters
    ----------
    title, version
        The API's.
    operations
        Everything that it can be asked for; a method of a path once.
    key_header
        A header that may hold the key instead of ``Authorization``; None: there is none.

    >>> document("Nothing", "1", ())["openapi"]
    '3.1.0'

    Source: OpenAPI Specification 3.1.0.
    """
    models = {(each, "validation") for one in operations for each in (one.body, one.query) if each}
    answers = {(one.answer, "serialization") for one in operations if not isinstance(one.answer, str)}
    failures = {(one.failure, "serialization") for one in operations}
    known = sorted(models | answers | failures, key=lambda each: each[0].__name__)
    of, schemas = models_json_schema(known, ref_template="#/components/schemas/{model}")  # type: ignore[arg-type]
    paths: dict[str, dict[str, Any]] = {}
    for one in operations:
        paths.setdefault(one.path, {})[one.method.lower()] = _described(one, of)
    schemes: dict[str, Any] = {"token": {"type": "http", "scheme": "bearer"}}
    if key_header is not None:
        schemes["key"] = {"type": "apiKey", "in": "header", "name": key_header}
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version},
        "paths": paths,
        "components": {
            "schemas": schemas.get("$defs", {}),
            "securitySchemes": schemes,
        },
        "security": [{name: []} for name in schemes],
    }


def _described(one: Operation, of: dict[Any, dict[str, Any]]) -> dict[str, Any]:
    name = re.sub(r"\W+", "_", f"{one.method.lower()}{one.path}").strip("_")
    if isinstance(one.answer, str):
        content: dict[str, Any] = {one.answer: {}}
    else:
        content = {"application/json": {"schema": of[one.answer, "serialization"]}}
    if one.events:
        content = content | {"text/event-stream": {}}
    failure = {"application/json": {"schema": of[one.failure, "serialization"]}}
    usual = {400, 500} | (set() if one.open else {401, 403}) | ({408, 413, 415} if one.body else set())
    responses = {str(one.status): {"description": "done", "content": content}}
    for status in sorted(usual.union(one.refusals)):
        if status < 300:
            responses[str(status)] = {"description": "it was done before", "content": content}
        else:
            responses[str(status)] = {"description": _SAID[status], "content": failure}
    said: dict[str, Any] = {
        "operationId": name,
        "summary": one.summary,
        "parameters": [*_in_path(one.path), *_in_query(one.query), *_in_headers(one.headers)],
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


def _in_headers(headers: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "header", "required": False, "schema": schema}
        for name, schema in headers.items()
    ]


def _in_query(query: type[BaseModel] | None) -> list[dict[str, Any]]:
    if query is None:
        return []
    properties = query.model_json_schema()["properties"]
    return [
        {"name": name, "in": "query", "required": False, "schema": schema}
        for name, schema in properties.items()
    ]
