"""Bodies in shapes of our own: what is wrong with one is said by its place, and what it says is not repeated."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ValidationError

from glowsim.live.protocols import BadBody
from glowsim.live.protocols.bodies import is_whole, read_json
from glowsim.live.web import Refusal

__all__ = ["WHOLE", "read_as", "what_is_wrong"]

_B = TypeVar("_B", bound=BaseModel)
_MOST_COMPLAINTS = 10
_LONGEST_PLACE = 50


def _whole(value: Any) -> Any:
    return int(value) if is_whole(value) else value


WHOLE = BeforeValidator(_whole)
"""Beside a strict int, behind its bounds: a whole number as JSON has them, where 1.0 is one."""


def read_as(raw: bytes, shape: type[_B]) -> _B:
    """Return a body as a model; JSON is read as for the protocols of models.

    Parameters
    ----------
    raw
        The body.
    shape
        A model that forbids what it does not know.

    Raises
    ------
    Refusal
        400: what is wrong, and where.

    >>> from glowsim.live.outbox import Feedback
    >>> read_as(b'{"request_id": 7, "kind": "complaint"}', Feedback).metric
    'complaint'
    >>> read_as(b'{"request_id": "7", "kind": "complaint"}', Feedback)
    Traceback (most recent call last):
        ...
    glowsim.live.web.Refusal: request_id: Input should be a valid integer
    """
    try:
        body = read_json(raw)
    except BadBody as error:
        raise Refusal(400, error.message) from None
    unknown = body.keys() - shape.model_fields.keys()  # before all else: there may be a million of them
    if unknown:
        known = ", ".join(shape.model_fields)
        raise Refusal(400, f"{min(unknown)[:_LONGEST_PLACE]}: there is no such field; there are {known}")
    try:
        return shape.model_validate(body)
    except ValidationError as error:
        raise Refusal(400, what_is_wrong(error)) from None


def what_is_wrong(error: ValidationError) -> str:
    """Return what a body has wrong, and where, for the first ten places."""
    found = error.errors(include_input=False, include_url=False, include_context=False)
    return "; ".join(
        f"{'.'.join(map(str, each['loc']))[:_LONGEST_PLACE] or 'body'}: {each['msg'].removeprefix('Value error, ')}"
        for each in found[:_MOST_COMPLAINTS]
    )
