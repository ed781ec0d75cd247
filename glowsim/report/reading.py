"""The first replication of a run's folder as plain columns: what the pictures and breakdowns are made of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["First", "Labelled", "read_first"]

Floats = npt.NDArray[np.float64]

_REQUESTS = (
    "request_id", "agent", "tenant", "region", "t_arrive_s", "t_end_s", "latency_s", "ending", "how", "outcome",
    "other_model",
)  # fmt: skip
_ATTEMPTS = (
    "request_id", "instance", "model", "t_dispatch_s", "t_finish_s", "outcome", "tokens_in", "tokens_cached",
    "tokens_out", "cost_usd",
)  # fmt: skip
_INSTANCES = ("t_s", "agent", "instance", "state", "usd_per_hour")
_SAMPLES = ("t_s", "agent", "waiting", "in_flight", "ready", "starting", "wanted")
_DECISIONS = ("t_s", "agent", "kind", "subject", "value", "other", "why")


class Labelled(NamedTuple):
    """A column of names: an index a row, and the names."""

    codes: npt.NDArray[np.int64]
    names: list[str]

    def numbers(self, order: Sequence[str]) -> npt.NDArray[np.int64]:
        """Return the place of each row's name in an order of names; its length for one that is not there.

        >>> Labelled(np.array([0, 1, 0]), ["b", "c"]).numbers(["a", "b"]).tolist()
        [1, 2, 1]
        """
        places = [order.index(name) if name in order else len(order) for name in self.names]
        return np.array(places, dtype=np.int64)[self.codes]


class First(NamedTuple):
    """The tables of replication 0, those columns that reports use.

    ``requests``, ``attempts``, ``instances`` and ``decisions`` map a column to its values, names as
    ``Labelled``; ``fleet`` holds the samples of all agents added up, on one grid of moments.
    """

    requests: dict[str, Any]
    attempts: dict[str, Any]
    instances: dict[str, Any]
    decisions: dict[str, Any]
    fleet: dict[str, Floats]


def read_first(folder: Path) -> First:
    """Return the first replication of a run's folder, finished or about to be.

    Parameters
    ----------
    folder
        Where the Parquet tables lie.

    Raises
    ------
    FileNotFoundError
        A table is missing.
    """
    samples = _read(folder / "samples.parquet", _SAMPLES)
    return First(
        _read(folder / "requests.parquet", _REQUESTS),
        _read(folder / "attempts.parquet", _ATTEMPTS),
        _read(folder / "instances.parquet", _INSTANCES),
        _read(folder / "decisions.parquet", _DECISIONS),
        _added_up(samples),
    )


def _read(path: Path, columns: tuple[str, ...]) -> dict[str, Any]:
    """Return columns of the row groups of replication 0; without pandas, whose import takes a second."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path)
    at = file.schema_arrow.get_field_index("replication")
    groups = [file.metadata.row_group(number) for number in range(file.num_row_groups)]
    first = [i for i, group in enumerate(groups) if group.num_rows and group.column(at).statistics.max == 0]
    table = file.read_row_groups(first, columns=list(columns)).unify_dictionaries().combine_chunks()
    found: dict[str, Any] = {}
    for name, column in zip(columns, table.columns, strict=True):
        chunk = column.chunk(0) if column.num_chunks else pa.array([], column.type)
        if pa.types.is_dictionary(column.type):
            found[name] = Labelled(
                np.from_dlpack(chunk.indices).astype(np.int64), chunk.dictionary.to_pylist()
            )
        elif pa.types.is_string(column.type) or pa.types.is_null(column.type):
            found[name] = chunk.to_pylist()
        else:
            found[name] = np.from_dlpack(chunk)
    return found


def _added_up(samples: dict[str, Any]) -> dict[str, Floats]:
    """Add up the agents: they share one grid of moments, and an agent's rows follow each other."""
    agents = max(len(np.unique(samples["agent"].codes)), 1)
    by_agent = {name: samples[name].reshape(agents, -1).astype(float) for name in _SAMPLES if name != "agent"}
    levels = {name: values.sum(axis=0) for name, values in by_agent.items() if name != "t_s"}
    return {"t_s": by_agent["t_s"][0], **levels}
