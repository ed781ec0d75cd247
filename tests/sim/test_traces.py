"""Traces: a run replays all of what the file says, and names what it cannot replay."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from glowsim.build import BuildError
from glowsim.build import recorded as recorded_trace
from glowsim.scenario.workload import Columns, Trace
from glowsim.sim.workload.traces import Trace as Replayed
from glowsim.sim.workload.traces import blocks

CSV = Trace(
    kind="trace", format="csv", file="trace.csv", columns=Columns(time="t", tokens_in="i", tokens_out="o")
)


def recorded(folder: Path, text: str) -> Replayed:
    (folder / "trace.csv").write_text(text)
    return recorded_trace(CSV, folder)


def test_dates_and_seconds_say_the_same(tmp_path: Path) -> None:
    seconds = recorded(tmp_path, "t,i,o\n10.5,4,1\n10,2,3\n")
    dates = recorded(tmp_path, "t,i,o\n2023-11-16 18:17:03.9799600,4,1\n2023-11-16T18:17:03.4799600Z,2,3\n")
    for trace in (seconds, dates):
        assert trace.times_s.tolist() == [0.0, 0.5]
        assert trace.tokens_in.tolist() == [2, 4]
        assert trace.tokens_out.tolist() == [3, 1]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("t,i\n1,2\n", "no column 'o'; it has t, i"),
        ("t,i,o\n", "no rows"),
        (
            "t,i,o\n1,2,3\n2,x,3\n",
            r"every row must be readable(.|\n)*line 3: i must be a number of 0 or more",
        ),
        ("t,i,o\n1,2\n", "line 2: 2 cells, where the header has 3"),
        ("t,i,o\n1,-2,3\n", "line 2: i must be a number of 0 or more, not '-2'"),
        ("t,i,o\nyesterday,2,3\n", "line 2: t must be seconds or a date by ISO 8601"),
        ("t,i,o\n1,2,3\n2,,3\n", "rows without tokens_in"),
    ],
)
def test_what_cannot_be_replayed_is_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(BuildError, match=said):
        recorded(tmp_path, text)


def test_a_trace_that_is_not_there_says_where_it_belongs(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="GLOWSIM_DATA"):
        recorded_trace(CSV, None)
    with pytest.raises(BuildError, match=r"is not in .*\n  put it at"):
        recorded_trace(CSV, tmp_path)


def test_blocks_put_together_are_the_trace_at_another_speed(tmp_path: Path) -> None:
    rows = "".join(f"{i / 10},{i},{i % 7}\n" for i in range(10_000))
    trace = recorded(tmp_path, "t,i,o\n" + rows)
    parts = list(blocks(trace, speed=2.0))
    assert len(parts) > 1
    np.testing.assert_array_equal(np.concatenate([part[0] for part in parts]), trace.times_s / 2)
    assert np.concatenate([part[1] for part in parts]).tolist() == list(range(10_000))
