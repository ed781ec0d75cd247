"""Parts of a log: as if it had been recorded without the other rows."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from glowsim.core.errors import GlowsimError
from glowsim.traces.log import Floats, Ints, Log, Named, Reading

__all__ = ["ImportProblem", "Key", "answered", "column", "keys", "part"]

Bools = npt.NDArray[np.bool_]


class ImportProblem(GlowsimError):
    """A log of which no scenario can be made, or nothing can be judged; says what to give."""


class Key(NamedTuple):
    """Whose a request is, in the log's own names; None: the row does not say."""

    agent: str | None
    model: str | None


def column(log: Log, name: str) -> Floats:
    """Return a column of numbers; nan in every row where the log has no such column."""
    return log.numbers[name] if name in log.numbers else np.full(len(log), np.nan)


def answered(log: Log) -> Bools:
    """Return which rows are answers: all but those whose status says otherwise."""
    if "status" not in log.names:
        return np.ones(len(log), dtype=bool)
    codes, labels = log.names["status"]
    return np.isin(codes, [i for i, label in enumerate(labels) if label != "ok"], invert=True)


def keys(log: Log) -> tuple[Ints, list[Key]]:
    """Return each row's place among the keys, and the keys in the order of their first row.

    >>> log = Log("a.csv", "csv", np.arange(3.0), Reading(3), names={"model": Named(np.array([1, 0, 1]), ("m", "n"))})
    >>> places, found = keys(log)
    >>> places.tolist(), found
    ([0, 1, 0], [Key(agent=None, model='n'), Key(agent=None, model='m')])
    """
    nobody = Named(np.full(len(log), -1), ())
    (agents, agent_names), (models, model_names) = (
        log.names.get(name, nobody) for name in ("agent", "model")
    )
    pairs = agents * (len(model_names) + 1) + models
    _, first, which = np.unique(pairs, return_index=True, return_inverse=True)
    order = np.argsort(first)
    places = np.argsort(order)[which]

    def label(names: tuple[str, ...], code: int) -> str | None:
        return names[code] if code >= 0 else None

    rows = first[order].tolist()
    found = [Key(label(agent_names, int(agents[i])), label(model_names, int(models[i]))) for i in rows]
    return places.astype(np.int64), found


def part(log: Log, chosen: Bools) -> Log:
    """Return some rows of a log, the first of them at 0 s, as if the others had never been there.

    What was said while the whole was read is left out, and names that none of the rows has are forgotten.

    Parameters
    ----------
    log
        The whole.
    chosen
        Which rows; at least one.
    """
    t_s = log.t_s[chosen]
    begun_s = float(t_s[0])
    epoch = None
    if log.epoch is not None:
        epoch = (datetime.fromisoformat(log.epoch) + timedelta(seconds=begun_s)).isoformat()
    return Log(
        log.source,
        log.format,
        t_s - begun_s,
        Reading(int(chosen.sum()), unit=log.reading.unit),
        epoch,
        {name: values[chosen] for name, values in log.numbers.items() if np.isfinite(values[chosen]).any()},
        {
            name: _relabelled(named, chosen)
            for name, named in log.names.items()
            if (named.codes[chosen] >= 0).any()
        },
        None if log.blocks is None else tuple(log.blocks[i] for i in np.flatnonzero(chosen).tolist()),
        log.block_tokens,
    )


def _relabelled(named: Named, chosen: Bools) -> Named:
    """Return the names of some rows, numbered in the order in which they appear there."""
    codes = named.codes[chosen]
    present, first = np.unique(codes[codes >= 0], return_index=True)
    order = present[np.argsort(first)]
    place = np.full(len(named.labels) + 1, -1)
    place[order] = np.arange(len(order))
    return Named(place[codes].astype(np.int64), tuple(named.labels[i] for i in order.tolist()))
