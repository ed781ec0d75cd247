"""Who says whether an answer is right."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from glowsim.pairs.problems import PairsError

__all__ = ["JUDGES", "Judge", "check_expected", "judge_of", "read_labels"]

Judge = Callable[[str, Any, str], float | None]
"""(task, what is expected, answer) -> 1.0 right, 0.0 wrong, a label between, or None: nobody has said yet."""
_FENCE: Final = re.compile(r"\A```[a-zA-Z]*\n(.*)\n```\Z", re.DOTALL)
_MOST_BYTES: Final = 1 << 30
_LONGEST_PATTERN: Final = 1000
_SEARCHED: Final = 65_536
"""Characters of an answer that a pattern is searched in: a pattern may be slow on long texts."""


def exact(_task: str, expected: Any, answer: str) -> float:
    r"""Say whether the answer is the expected text, or one of several, but for white space around it.

    >>> exact("t", "42", " 42\n"), exact("t", ["yes", "Yes"], "no")
    (1.0, 0.0)
    """
    return float(answer.strip() in [each.strip() for each in _texts(expected)])


def contains(_task: str, expected: Any, answer: str) -> float:
    r"""Say whether the expected text, or one of several, stands in the answer: case and white space do not matter.

    >>> contains("t", "net total", "The NET\n total is 5")
    1.0
    """
    said = " ".join(answer.casefold().split())
    return float(any(" ".join(each.casefold().split()) in said for each in _texts(expected)))


def same_json(_task: str, expected: Any, answer: str) -> float:
    """Say whether the answer is JSON that equals what is expected; a fence of back-ticks around it does not matter.

    >>> same_json("t", {"a": 1, "b": [2]}, '{"b": [2], "a": 1.0}'), same_json("t", 1, "one")
    (1.0, 0.0)
    """
    text = answer.strip()
    fenced = _FENCE.match(text)
    try:
        said = json.loads(fenced[1] if fenced else text)
    except (ValueError, RecursionError):
        return 0.0
    return float(_equal(said, expected))


def regex(_task: str, expected: Any, answer: str) -> float:
    r"""Say whether the expected pattern is found in the first 65,536 characters of the answer.

    >>> regex("t", r"^total: \d+$", "total: 17")
    1.0
    """
    return float(re.search(expected, answer[:_SEARCHED]) is not None)


JUDGES: Final[Mapping[str, Judge]] = {"exact": exact, "contains": contains, "json": same_json, "regex": regex}
"""Name -> judge."""


def judge_of(name: str) -> Judge:
    """Return a judge by its name, or the labels of ``file:PATH``.

    Raises
    ------
    PairsError
        There is none of that name, or its labels cannot be read.
    """
    if name.startswith("file:"):
        labels = read_labels(Path(name.removeprefix("file:")))
        return lambda task, _expected, answer: labels.get((task, answer))
    if name not in JUDGES:
        raise PairsError(f"--judge {name!r}: choose {', '.join(JUDGES)}, or file:LABELS.jsonl")
    return JUDGES[name]


def check_expected(name: str, expected: Any) -> str | None:
    """Return what is wrong with what a judge is to expect of a task; None: nothing.

    >>> check_expected("exact", 3), check_expected("regex", "(")
    ('must be a text, or a list of texts', 'is not a pattern: missing ), unterminated subpattern at position 0')
    """
    if name in ("exact", "contains"):
        texts = _texts(expected) if isinstance(expected, str | list) else []
        if not texts or not all(isinstance(each, str) and each.strip() for each in texts):
            return "must be a text, or a list of texts"
    if name == "regex":
        if not isinstance(expected, str) or not 0 < len(expected) <= _LONGEST_PATTERN:
            return f"must be a pattern of 1 to {_LONGEST_PATTERN} characters"
        try:
            re.compile(expected)
        except re.error as error:
            return f"is not a pattern: {error}"
    return None


def read_labels(path: Path) -> dict[tuple[str, str], float]:
    """Return the labels of answers: lines of JSON with ``task``, ``answer`` and ``correct`` (0 to 1).

    Raises
    ------
    PairsError
        There is no such file, or a line of it is malformed: says which.
    """
    labels: dict[tuple[str, str], float] = {}
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise PairsError(f"{path}: larger than {_MOST_BYTES} bytes: split it")
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise PairsError(
            f"{path}: {error}: give labels as lines of JSON with task, answer, correct"
        ) from error
    for number, line in enumerate(lines, 1):
        match _object(line):
            case {
                "task": str(task),
                "answer": str(answer),
                "correct": bool() | int() | float() as correct,
            } if 0 <= correct <= 1:
                if labels.setdefault((task, answer), float(correct)) != correct:
                    raise PairsError(
                        f"{path}:{number}: the same answer to {task!r} is labelled twice, differently"
                    )
            case None if not line.strip():
                continue
            case _:
                raise PairsError(
                    f"{path}:{number}: must be a JSON object with task and answer, both texts, and correct, 0 to 1"
                )
    return labels


def _object(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _texts(expected: Any) -> list[Any]:
    return expected if isinstance(expected, list) else [expected]


def _equal(a: Any, b: Any) -> bool:
    """Return whether two values of JSON are equal: True is not 1."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(_equal(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)
