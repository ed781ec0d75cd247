"""Recorded traces as columns: when, how many tokens in, how many out."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from glowsim.core.errors import GlowsimError

__all__ = ["AZURE_COLUMNS", "Trace", "TraceError", "blocks", "find_trace", "read_csv"]

AZURE_COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
_BLOCK = 4096
_PUBLISHED = {
    "AzureLLMInferenceTrace_code.csv": (
        "https://github.com/Azure/AzurePublicDataset (data/AzureLLMInferenceTrace_code.csv)",
        "CC-BY-4.0; cite Splitwise, ISCA 2024",
    ),
    "AzureLLMInferenceTrace_conv.csv": (
        "https://github.com/Azure/AzurePublicDataset (data/AzureLLMInferenceTrace_conv.csv)",
        "CC-BY-4.0; cite Splitwise, ISCA 2024",
    ),
}


class TraceError(GlowsimError):
    """A trace that is not there, or cannot be read."""


class Trace(NamedTuple):
    """A trace's columns, in order of time, the first at 0."""

    times_s: npt.NDArray[np.float64]
    tokens_in: npt.NDArray[np.int64]
    tokens_out: npt.NDArray[np.int64]


def find_trace(file: str, data: Path | None) -> Path:
    """Return where a trace lies in the data folder: at its path, or by its name there or one folder down.

    Raises
    ------
    TraceError
        It is not there; says where it is published, under which licence, and where to put it.
    """
    name = Path(file).name
    where = ""
    if name in _PUBLISHED:
        published, licence = _PUBLISHED[name]
        where = f"\n  published at: {published}\n  licence: {licence}"
    if data is None:
        raise TraceError(
            f"the trace {file} is needed, and no data folder is given{where}"
            f"\n  put it in a folder of your choice and name the folder by --data FOLDER or GLOWSIM_DATA=FOLDER"
        )
    for candidate in (data / file, data / name, *sorted(data.glob(f"*/{name}"))):
        if candidate.is_file():
            return candidate
    raise TraceError(f"the trace {file} is not in {data}{where}\n  put it at {data / file}")


def read_csv(path: Path, columns: tuple[str, str, str]) -> Trace:
    """Return the trace in a CSV file with a header.

    Parameters
    ----------
    path
        The file.
    columns
        Names of the columns of time (seconds, or ISO 8601), tokens in and tokens out.

    Raises
    ------
    TraceError
        A column is missing, or a row cannot be read: with its line.
    """
    times: list[str] = []
    counts: list[tuple[int, int]] = []
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.reader(file)
        header = next(rows, [])
        missing = [name for name in columns if name not in header]
        if missing:
            raise TraceError(f"{path} has no column {missing[0]!r}; it has {', '.join(header)}")
        at = [header.index(name) for name in columns]
        for row in rows:
            if not row:
                continue
            try:
                tokens_in, tokens_out = int(row[at[1]]), int(row[at[2]])
                times.append(row[at[0]])
            except (ValueError, IndexError) as error:
                raise TraceError(f"{path}, line {rows.line_num}: {error}: {','.join(row)[:80]!r}") from error
            if min(tokens_in, tokens_out) < 0:
                raise TraceError(f"{path}, line {rows.line_num}: tokens below zero: {','.join(row)[:80]!r}")
            counts.append((tokens_in, tokens_out))
    if not times:
        raise TraceError(f"{path} has no rows")
    moments = _seconds(path, times)
    order = np.argsort(moments, kind="stable")
    tokens = np.array(counts, dtype=np.int64)[order]
    moments = moments[order] - moments[order[0]]
    return Trace(moments, tokens[:, 0], tokens[:, 1])


def _seconds(path: Path, times: list[str]) -> npt.NDArray[np.float64]:
    """Return numbers as they are, and dates as seconds since the earliest."""
    try:
        return np.array(times, dtype=np.float64)
    except ValueError:
        return _since_the_first(path, times)


def _since_the_first(path: Path, times: list[str]) -> npt.NDArray[np.float64]:
    texts = [text.strip().replace(" ", "T").removesuffix("Z") for text in times]
    try:
        stamps = np.array(texts, dtype="datetime64[ns]")
    except ValueError as error:
        raise TraceError(f"{path}: times must be seconds or ISO 8601: {error}") from error
    since_start: npt.NDArray[np.int64] = (stamps - stamps.min()).astype(np.int64)
    return since_start / 1e9


def blocks(
    trace: Trace, speed: float = 1.0
) -> Iterator[tuple[npt.NDArray[np.float64], npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Yield a trace in blocks, replayed ``speed`` times as fast."""
    for start in range(0, len(trace.times_s), _BLOCK):
        part = slice(start, start + _BLOCK)
        yield trace.times_s[part] / speed, trace.tokens_in[part], trace.tokens_out[part]
