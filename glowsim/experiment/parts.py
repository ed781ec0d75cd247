"""The tables of a run on disk: each replication leaves its part, and the parts become one file a table."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

from glowsim.results import Tables, arrow_table, naming

__all__ = ["Add", "merging", "part_path", "write_parts"]


class Add(Protocol):
    """Adds a replication's part to every table."""

    def __call__(self, number: int) -> None:
        """Take the parts of the next replication, which are gone then."""


def part_path(folder: Path, table: str, number: int) -> Path:
    """Return where a replication's part of a table lies until the parts are put together."""
    return folder / "parts" / f"{table}-{number}.arrow"


def write_parts(folder: Path, number: int, tables: Tables, header: Mapping[str, Any]) -> None:
    """Write a replication's part of every table, as they are: they are packed once, when they are put together."""
    from pyarrow.feather import write_feather

    names = naming(header)
    (folder / "parts").mkdir(exist_ok=True)
    for name, table in zip(Tables._fields, tables, strict=True):
        part = arrow_table(name, table, number, names)
        write_feather(part, part_path(folder, name, number), compression="uncompressed")


@contextmanager
def merging(folder: Path) -> Iterator[Add]:
    """Put parts into one file a table, a row group a replication; give them one by one, in order."""
    import pyarrow.parquet as pq
    from pyarrow.feather import read_table

    writers: dict[str, pq.ParquetWriter] = {}
    with ExitStack() as stack:

        def add(number: int) -> None:
            for table in Tables._fields:
                path = part_path(folder, table, number)
                part = read_table(path, memory_map=False)
                if table not in writers:
                    made = pq.ParquetWriter(folder / f"{table}.parquet", part.schema, compression="zstd")
                    writers[table] = stack.enter_context(made)
                writers[table].write_table(part)
                path.unlink()

        yield add
    shutil.rmtree(folder / "parts")  # with those of replications that turned out to be too many
