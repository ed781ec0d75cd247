"""Reading a client's body: what is used of it is checked, and what is wrong is named."""

from __future__ import annotations

import json
import re
from math import ceil, isfinite
from typing import Any, TypeVar

from glowsim.live.protocols.shape import BadBody

__all__ = [
    "entry", "flag", "is_whole", "items", "only", "read_json", "tag_of", "text", "text_bytes", "token_limit",
    "tokens_of", "without_none",
]  # fmt: skip

_BYTES_PER_TOKEN = 4
_MOST_TOKENS = 10_000_000
_LONGEST_NAME = 1_000
_DEEPEST = 100
_TOO_DEEP = f"the body is nested more than {_DEEPEST} levels deep"
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_MEDIA = frozenset(
    {"image", "image_url", "input_image", "computer_screenshot", "audio", "input_audio", "file", "input_file",
     "image_generation_call", "redacted_thinking"}
)  # fmt: skip
_NO_TEXT = frozenset(
    {"type", "role", "id", "call_id", "tool_call_id", "tool_use_id", "status", "cache_control", "signature",
     "encrypted_content"}
)  # fmt: skip
_KINDS: dict[type, str] = {dict: "an object", list: "a list", str: "a text", bool: "true or false"}
_T = TypeVar("_T")


def read_json(raw: bytes) -> dict[str, Any]:
    """Return the JSON object of a body: UTF-8, finite numbers, whole characters, at most 100 levels deep.

    >>> read_json(b'{"model": "tax"}')
    {'model': 'tax'}
    >>> read_json(b'[NaN]')
    Traceback (most recent call last):
    ...
    glowsim.live.protocols.shape.BadBody: the body is not JSON: NaN is not a JSON number
    """
    try:
        body = _DECODER.decode(raw.decode())
        if b"\\" in raw and _SURROGATE.search(raw):  # the first look costs next to nothing
            json.dumps(body, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise BadBody(
            "a text of the body has half of a character (a lone surrogate): send it whole"
        ) from None
    except RecursionError:
        raise BadBody(_TOO_DEEP) from None
    except ValueError as error:
        many_digits = "integer string conversion" in str(error)  # CPython's own remedy is not the client's
        why = "it has a whole number of more than 4300 digits" if many_digits else error
        raise BadBody(f"the body is not JSON: {why}") from None
    if not isinstance(body, dict):
        raise BadBody("the body is not a JSON object: send one, in braces")
    _check_depth(body)
    return body


def _refused(constant: str) -> Any:
    raise ValueError(f"{constant} is not a JSON number")


def _finite(digits: str) -> float:
    number = float(digits)
    if isfinite(number):
        return number
    raise ValueError(f"{digits[:30]} is too large a number")


_DECODER = json.JSONDecoder(parse_constant=_refused, parse_float=_finite)


def _check_depth(body: dict[str, Any]) -> None:
    level: list[Any] = [body]
    for _ in range(_DEEPEST):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if type(outer) is dict else outer)
            if type(inner) is dict or type(inner) is list
        ]
        if not level:
            return
    raise BadBody(_TOO_DEEP)


def text(body: dict[str, Any], name: str) -> str:
    """Return a text that is needed, 1 to 1000 characters."""
    match body.get(name):
        case str(value) if 0 < len(value) <= _LONGEST_NAME:
            return value
        case None:
            raise BadBody(f"'{name}' is missing: give a text", name)
    raise BadBody(f"'{name}' must be a text of 1 to {_LONGEST_NAME} characters", name)


def flag(body: dict[str, Any], name: str) -> bool:
    """Return a yes or no; missing and null are no."""
    match body.get(name):
        case None:
            return False
        case bool(value):
            return value
    raise BadBody(f"'{name}' must be true or false", name)


def token_limit(body: dict[str, Any], name: str) -> int | None:
    """Return a limit of tokens, 1 to 10 million; None where there is none."""
    value = body.get(name)
    if value is None:
        return None
    if is_whole(value) and 1 <= value <= _MOST_TOKENS:
        return int(value)
    raise BadBody(f"'{name}' must be a whole number from 1 to {_MOST_TOKENS}", name)


def is_whole(value: Any) -> bool:
    """Return whether a value is a whole number as JSON has them, where 1.0 is one (JSON Schema, 6.1.1).

    >>> is_whole(1.0), is_whole(1.5), is_whole(True)
    (True, False, False)
    """
    return type(value) is int or (type(value) is float and value.is_integer())


def items(body: dict[str, Any], name: str, *, needed: bool = False) -> list[dict[str, Any]]:
    """Return a list of objects: one at least if it is needed, else an empty one where it is missing or null."""
    value = body.get(name)
    if value is None and not needed:
        return []
    if isinstance(value, list) and (value or not needed) and all(type(each) is dict for each in value):
        return value
    raise BadBody(f"'{name}' must be a list of objects{' with at least one' if needed else ''}", name)


def tag_of(body: dict[str, Any], *names: str) -> str | None:
    """Return the first of the named texts that is there; all that are there must be texts."""
    found = [text(body, name) for name in names if body.get(name) is not None]
    return found[0] if found else None


def entry(body: dict[str, Any], name: str, kind: type[_T]) -> _T | None:
    """Return a value of a type; None where it is missing or null."""
    value = body.get(name)
    if value is None or isinstance(value, kind):
        return value
    raise BadBody(f"'{name}' must be {_KINDS[kind]}", name)


def only(body: dict[str, Any], known: frozenset[str], protocol: str) -> None:
    """Refuse what has no place in chat completions, by name."""
    for name in body.keys() - known:
        if body[name] is not None:
            raise BadBody(
                f"'{name[:50]}' cannot be translated for an instance that takes chat completions only: leave it out, "
                f"or ask an agent whose instances take {protocol}", name[:50],
            )  # fmt: skip


def without_none(**fields: Any) -> dict[str, Any]:
    """Return the fields that are there.

    >>> without_none(model="tax", stop=None)
    {'model': 'tax'}
    """
    return {name: value for name, value in fields.items() if value is not None}


def text_bytes(value: Any) -> int:
    """Return how many bytes of text some contents hold; images, audio and files hold none.

    >>> text_bytes([{"type": "text", "text": "four"}, {"type": "image_url", "image_url": {"url": "data:..."}}])
    4
    """
    if type(value) is str:
        return len(value) if value.isascii() else len(value.encode())
    if type(value) is list:
        return sum(map(text_bytes, value))
    if type(value) is not dict:
        return 0
    match value:
        case {"type": "document", "source": dict(source)}:
            plain = source.get("type") in ("text", "content")
            return text_bytes(source.get("data")) + text_bytes(source.get("content")) if plain else 0
        case {"type": str(kind)} if kind in _MEDIA:
            return 0
        case {"type": "tool_use", "input": given}:
            return text_bytes(value.get("name")) + _json_bytes(given)
    return sum(text_bytes(inner) for key, inner in value.items() if key not in _NO_TEXT)


def _json_bytes(value: Any) -> int:
    """Return about how many bytes of JSON a value is; to write it out would take longer."""
    if type(value) is str:
        return len(value) + 2
    if type(value) is dict:
        size = 1
        for key, inner in value.items():
            size += len(key) + 4 + _json_bytes(inner)
        return size
    if type(value) is list:
        return sum(map(_json_bytes, value)) + len(value) + 1
    return 4


def tokens_of(tools: Any, *contents: Any) -> int:
    """Return about how many tokens an input has: a quarter of the bytes of its tools and texts, at least 1."""
    size = sum(map(text_bytes, contents))
    if tools:
        size += _json_bytes(tools)
    return max(ceil(size / _BYTES_PER_TOKEN), 1)
