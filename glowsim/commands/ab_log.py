"""Logs of decisions, for off-policy estimates: from rows that a person hands over, or from a run with feedback."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from glowsim.commands.rows import Rows, RowsError, read_rows
from glowsim.core.types import Observed
from glowsim.recordings import recordings
from glowsim.stats.experiments.off_policy import Log

__all__ = ["Columns", "Read", "of_rows", "of_run"]

_MOST_WORDS = 50


class Columns(NamedTuple):
    """Names of the columns of a log."""

    action: str
    propensity: str
    reward: str
    context: tuple[str, ...] = ()
    unit: str | None = None


class Read(NamedTuple):
    """A log, and where a column says what the other policy would do, its probabilities of each action."""

    log: Log
    wanted: NDArray[np.float64] | None = None


def of_rows(path: Path, columns: Columns, wanted: str | None = None, also: str | None = None) -> Read:
    """Return the log that a table holds.

    Parameters
    ----------
    path
        A ``.csv``, ``.jsonl`` or ``.parquet`` file.
    columns
        What stands where. Context is numbers, or up to 50 words.
    wanted
        Column of what the other policy would do.
    also
        An action that the other policy takes, seen or not.

    Raises
    ------
    RowsError
        A row cannot be used; the first few are named by line.
    """
    names = dict.fromkeys([*columns[:3], *columns.context])
    names |= dict.fromkeys(each for each in (columns.unit, wanted) if each is not None)
    rows = read_rows(path, list(names))
    taken = rows.texts(columns.action)
    propensities = rows.numbers(columns.propensity)
    rows.refuse(
        [
            (place, f"{columns.propensity} is {each:g}, and must be above 0 and up to 1")
            for place, each in enumerate(propensities)
            if not 0.0 < each <= 1.0
        ]
    )
    other = None if wanted is None else rows.texts(wanted)
    actions = tuple(sorted({*taken, *(other or ()), *(() if also is None else (also,))}))
    number = {name: place for place, name in enumerate(actions)}
    log = Log(
        actions,
        np.asarray([number[each] for each in taken], dtype=np.intp),
        np.asarray(propensities),
        np.asarray(rows.numbers(columns.reward)),
        _features(rows, columns.context),
        None if columns.unit is None else _numbered(rows.texts(columns.unit)),
    )
    if other is None:
        return Read(log)
    return Read(log, np.eye(len(actions))[[number[each] for each in other]])


def of_run(source: Path, metric: str, agent: str | None, also: str) -> Read:
    """Return the log that a run's feedback holds: each request's first label of a metric, by its variant.

    Parameters
    ----------
    source
        The folder of a run, or a journal that says what it was made with.
    metric
        Which label is the reward.
    agent
        Whose; None: of the one agent that has variants and such labels.
    also
        A variant that the other policy takes, or nothing.

    Raises
    ------
    RowsError
        No such labels, of several agents, or of no such agent.
    """
    heard: dict[int, list[tuple[int, Observed]]] = {}
    names: dict[int, tuple[str, ...]] = {}
    for replication, each in enumerate(recordings(source, None)):
        agents = list(each.scenario.agents().items())
        seen: set[int] = set()
        for label in each.recording.loose(Observed):
            if label.metric == metric and label.assigned_s is not None and label.request_id not in seen:
                seen.add(label.request_id)
                heard.setdefault(label.agent, []).append((replication, label))
                name, its = agents[label.agent]
                names[label.agent] = (name, "baseline", *its.variants)
    mine = [number for number in heard if agent is None or names[number][0] == agent]
    if len(mine) != 1:
        whose = ", ".join(sorted(names[number][0] for number in heard)) or "none"
        raise RowsError(
            f"{source}: labels {metric!r} of requests that a rollout or test assigned: of {whose}; name one by --agent"
        )
    variants = names[mine[0]][1:]
    labels = heard[mine[0]]
    if also and also not in variants:
        raise RowsError(f"{source}: there is no variant {also!r}; there are {', '.join(variants)}")
    return Read(
        Log(
            variants,
            np.asarray([label.variant for _, label in labels], dtype=np.intp),
            np.asarray([label.propensity for _, label in labels]),
            np.asarray([label.value for _, label in labels]),
            np.empty((len(labels), 0)),
            _numbered([(replication, label.unit) for replication, label in labels]),
        )
    )


def _numbered(units: list[Any]) -> NDArray[np.intp]:
    number: dict[Any, int] = {}
    return np.asarray([number.setdefault(each, len(number)) for each in units], dtype=np.intp)


def _features(rows: Rows, names: tuple[str, ...]) -> NDArray[np.float64]:
    """Return numbers as they are, and words as a column for each but the first."""
    found: list[NDArray[np.float64]] = []
    for name in names:
        values = rows.columns[name]
        if all(_is_number(value) for value in values):
            found.append(np.asarray(rows.numbers(name)))
            continue
        words = rows.texts(name)
        known = sorted(set(words))
        if len(known) > _MOST_WORDS:
            raise RowsError(
                f"{rows.path}: {name} has {len(known)} words; group them to {_MOST_WORDS}, or leave it out"
            )
        column = np.asarray(words)
        found += [(column == word).astype(np.float64) for word in known[1:]]
    return np.stack(found, axis=1) if found else np.empty((len(rows.lines), 0))


def _is_number(value: Any) -> bool:
    try:
        return math.isfinite(float(value))
    except (TypeError, ValueError):
        return False
