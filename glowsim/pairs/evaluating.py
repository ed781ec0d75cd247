"""Results made elsewhere: a row a task, as JSON lines or CSV."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from glowsim.pairs.kept import is_results
from glowsim.pairs.problems import PairsError

__all__ = ["Row", "read_rows"]

_COSTS: Final = ("baseline_cost_usd", "variant_cost_usd")
_COLUMNS: Final = ("task", "baseline", "variant", *_COSTS)
_WORDS: Final = {"true": 1.0, "yes": 1.0, "pass": 1.0, "false": 0.0, "no": 0.0, "fail": 0.0}
_MOST_BYTES: Final = 1 << 30
_MOST_SHOWN: Final = 20
_LONGEST_NAME: Final = 200


class Row(NamedTuple):
    """A task, or one of its repeats, as both variants did it."""

    task: str
    baseline: float
    """1 right, 0 wrong, or a score between."""
    variant: float
    baseline_cost_usd: float | None = None
    variant_cost_usd: float | None = None


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a file of results, in its order.

    Parameters
    ----------
    path
        ``.csv`` with a header, or lines of JSON. Columns ``task``, ``baseline`` and ``variant`` (0 to 1, or true and
        false), and maybe ``baseline_cost_usd`` and ``variant_cost_usd``; others are passed over.

    Raises
    ------
    PairsError
        There is no such file, it is a replay's own or larger than 1 GiB, or lines are malformed: names the first
        twenty.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise PairsError(f"{path}: larger than {_MOST_BYTES} bytes: split it")
        if is_results(path):
            raise PairsError(
                f"{path} was written by glowsim pairs run, which looked after every pair: give the same run again, "
                "which asks nothing twice and says its verdict"
            )
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PairsError(f"{path}: {error}: give results as lines of JSON or CSV") from error
    try:
        found = list(_of_csv(text) if path.suffix == ".csv" else _of_lines(text))
    except csv.Error as error:
        raise PairsError(f"{path}: {error}: write it as CSV, or as lines of JSON") from error
    rows, wrong = [], []
    for number, said in found:
        made = _row(said)
        if isinstance(made, str):
            wrong.append(f"{path}:{number}: {made}")
        else:
            rows.append(made)
    if wrong:
        more = [f"and {len(wrong) - _MOST_SHOWN} more"] if len(wrong) > _MOST_SHOWN else []
        raise PairsError("\n".join([*wrong[:_MOST_SHOWN], *more, f"the columns are {', '.join(_COLUMNS)}"]))
    if not rows:
        raise PairsError(f"{path}: no result in it: the columns are {', '.join(_COLUMNS)}")
    return rows


def _of_csv(text: str) -> Iterator[tuple[int, Any]]:
    reader = csv.DictReader(io.StringIO(text))
    for said in reader:
        yield reader.line_num, {key: value for key, value in said.items() if value not in ("", None)}


def _of_lines(text: str) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError):
                yield number, None


def _row(said: Any) -> Row | str:
    """Return the row of what a line says, or what is wrong with it."""
    if not isinstance(said, dict):
        return "must be a JSON object"
    task = said.get("task")
    if not isinstance(task, str) or not 0 < len(task) <= _LONGEST_NAME:
        return f"task must be a name of 1 to {_LONGEST_NAME} characters"
    baseline, variant = _number(said.get("baseline")), _number(said.get("variant"))
    if baseline is None or variant is None or max(baseline, variant) > 1.0:
        return "baseline and variant must be 0 to 1, or true or false"
    costs = [_number(said.get(key)) for key in _COSTS]
    if any(cost is None and said.get(key) is not None for key, cost in zip(_COSTS, costs, strict=True)):
        return "costs must be US dollars, 0 or more"
    return Row(task, baseline, variant, *costs)


def _number(value: Any) -> float | None:
    """Return a number that is not negative; None: it is none."""
    if isinstance(value, str):
        word = value.strip().lower()
        if word in _WORDS:
            return _WORDS[word]
        try:
            value = float(word)
        except ValueError:
            return None
    if not isinstance(value, bool | int | float) or not math.isfinite(value) or value < 0:
        return None
    return float(value)
