"""Recorded tasks, read from lines of JSON: all that is wrong with them is said before anything is sent."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from glowsim.pairs.judges import check_expected
from glowsim.pairs.problems import PairsError

__all__ = ["Recorded", "Task", "read_tasks"]

_COLUMNS: Final = ("task", "messages", "input", "expected", "model", "max_tokens", "temperature")
_MOST_TASKS: Final = 100_000
_LONGEST_LINE: Final = 16 * 1024 * 1024
_MOST_BYTES: Final = 1 << 30
_LONGEST_NAME: Final = 200
_MOST_MESSAGES: Final = 10_000
_MOST_SHOWN: Final = 20


class Task(NamedTuple):
    """One row of the file."""

    name: str
    """Rows of the same name are repeats of one task."""
    body: Mapping[str, Any]
    """What is posted, but for the model."""
    expected: Any
    model: str | None
    """Asked for where a side names none."""


class Recorded(NamedTuple):
    """The tasks of a file."""

    tasks: tuple[Task, ...]
    digest: str
    """Of its bytes."""
    passed_over: Mapping[str, int]
    """Columns that nobody reads -> in how many rows they stand."""


def read_tasks(path: Path, judge: str, *, models_named: bool) -> Recorded:
    """Return the recorded tasks of a file.

    A row has ``task`` (a name; rows of the same name are repeats), ``messages`` (as OpenAI's chat completions take
    them) or ``input`` (a text), ``expected`` (for the judge), and may have ``model``, ``max_tokens`` and
    ``temperature``. Other columns are passed over and counted.

    Parameters
    ----------
    path
        Lines of JSON, in UTF-8; at most 100,000 of at most 16 MiB, and 1 GiB in all.
    judge
        As ``--judge`` names it; labels of a file need no ``expected``.
    models_named
        Whether both sides name a model: rows need none then.

    Raises
    ------
    PairsError
        There is no such file, or some of its lines are malformed: names the first twenty.
    """
    wrong: list[str] = []
    tasks: list[Task] = []
    passed_over: Counter[str] = Counter()
    digest = hashlib.sha256()
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise PairsError(f"{path}: larger than {_MOST_BYTES} bytes: split it")
        with path.open("rb") as file:
            number = 0
            while line := file.readline(_LONGEST_LINE + 1):
                number += 1
                digest.update(line)
                if len(line) > _LONGEST_LINE or len(tasks) >= _MOST_TASKS:
                    raise PairsError(
                        f"{path}:{number}: at most {_MOST_TASKS:,} tasks of at most {_LONGEST_LINE} bytes: shorten it"
                    )
                if not line.strip():
                    continue
                made = _task(line, judge, passed_over, models_named=models_named)
                if isinstance(made, str):
                    wrong.append(f"{path}:{number}: {made}")
                else:
                    tasks.append(made)
    except OSError as error:
        raise PairsError(f"{path}: {error.strerror}: give recorded tasks as lines of JSON") from error
    if wrong:
        more = [f"and {len(wrong) - _MOST_SHOWN} more"] if len(wrong) > _MOST_SHOWN else []
        raise PairsError("\n".join([*wrong[:_MOST_SHOWN], *more, "nothing was sent: mend these lines"]))
    if not tasks:
        raise PairsError(f"{path}: no task in it: a line is such as {_EXAMPLE}")
    return Recorded(tuple(tasks), digest.hexdigest(), dict(passed_over))


_EXAMPLE: Final = '{"task": "t1", "messages": [{"role": "user", "content": "2+2?"}], "expected": "4"}'


def _task(line: bytes, judge: str, passed_over: Counter[str], *, models_named: bool) -> Task | str:
    """Return the task of a line, or what is wrong with it."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return f"is not JSON ({error})"
    if not isinstance(row, dict):
        return f"must be a JSON object such as {_EXAMPLE}"
    name, messages = row.get("task"), row.get("messages")
    if not isinstance(name, str) or not 0 < len(name) <= _LONGEST_NAME:
        return f"task must be a name of 1 to {_LONGEST_NAME} characters"
    if ("messages" in row) == ("input" in row):
        return "give either messages or input"
    if "input" in row:
        messages = [{"role": "user", "content": row["input"]}]
    if (
        not isinstance(messages, list)
        or not 0 < len(messages) <= _MOST_MESSAGES
        or not all(map(_message, messages))
    ):
        return "messages must be a list of objects with a role and a content, and input a text"
    body: dict[str, Any] = {"messages": messages}
    if not judge.startswith("file:"):
        if "expected" not in row:
            return f"expected is missing: the judge {judge} needs it"
        problem = check_expected(judge, row["expected"])
        if problem is not None:
            return f"expected {problem}"
    for key, low, high in (("max_tokens", 1, 2**31), ("temperature", 0.0, 2.0)):
        value = row.get(key)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, type(low) | int) or not low <= value <= high:
            return f"{key} must be a number from {low} to {high}"
        body[key] = value
    model = row.get("model")
    if model is not None and not (isinstance(model, str) and 0 < len(model) <= _LONGEST_NAME):
        return f"model must be a name of 1 to {_LONGEST_NAME} characters"
    if model is None and not models_named:
        return "model is missing: name it here, or after both URLs (http://HOST:PORT,MODEL)"
    passed_over.update(key for key in row if key not in _COLUMNS)
    return Task(name, body, row.get("expected"), model)


def _message(message: Any) -> bool:
    match message:
        case {"role": str(role), "content": str() | list()}:
            return bool(role)
    return False
