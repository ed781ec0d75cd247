"""Traces: what is read is what the file says, and what cannot be read is named with its line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from glowsim.sim.workload.traces import AZURE_COLUMNS, TraceError, blocks, find_trace, read_csv

COLUMNS = ("t", "i", "o")


def write(folder: Path, text: str) -> Path:
    path = folder / "trace.csv"
    path.write_text(text)
    return path


def test_dates_and_seconds_say_the_same(tmp_path: Path) -> None:
    seconds = read_csv(write(tmp_path, "t,i,o\n10.5,4,1\n10,2,3\n"), COLUMNS)
    dates = read_csv(
        write(tmp_path, "t,i,o\n2023-11-16 18:17:03.9799600,4,1\n2023-11-16T18:17:03.4799600Z,2,3\n"), COLUMNS
    )
    for trace in (seconds, dates):
        np.testing.assert_allclose(trace.times_s, [0.0, 0.5])
        assert trace.tokens_in.tolist() == [2, 4]
        assert trace.tokens_out.tolist() == [3, 1]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("t,i\n1,2\n", "no column 'o'"),
        ("t,i,o\n", "no rows"),
        ("t,i,o\n1,2,3\n2,x,3\n", "line 3"),
        ("t,i,o\n1,2\n", "line 2"),
        ("t,i,o\n1,-2,3\n", "below zero"),
        ("t,i,o\nyesterday,2,3\n", "ISO 8601"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(TraceError, match=said):
        read_csv(write(tmp_path, text), COLUMNS)


def test_a_trace_is_found_by_path_by_name_and_one_folder_down(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.csv").write_text("t,i,o\n1,2,3\n")
    assert (
        find_trace("set/a.csv", tmp_path)
        == find_trace("elsewhere/a.csv", tmp_path)
        == tmp_path / "set" / "a.csv"
    )
    with pytest.raises(TraceError, match="GLOWSIM_DATA"):
        find_trace("a.csv", None)
    with pytest.raises(TraceError, match=r"is not in .*\n  put it at"):
        find_trace("b.csv", tmp_path)


def test_blocks_put_together_are_the_trace_at_another_speed(tmp_path: Path) -> None:
    rows = "".join(f"{i / 10},{i},{i % 7}\n" for i in range(10_000))
    trace = read_csv(write(tmp_path, "TIMESTAMP,ContextTokens,GeneratedTokens\n" + rows), AZURE_COLUMNS)
    parts = list(blocks(trace, speed=2.0))
    assert len(parts) > 1
    np.testing.assert_allclose(np.concatenate([part[0] for part in parts]), trace.times_s / 2)
    assert np.concatenate([part[1] for part in parts]).tolist() == list(range(10_000))
