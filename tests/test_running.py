"""Runs whole, one replication at a time and several at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from glowsim import results
from glowsim.build import BuildError
from glowsim.experiment.run import run
from glowsim.results import Tables
from glowsim.scenario import Scenario


def small(**changes: Any) -> Scenario:
    return Scenario.model_validate(
        {
            "title": "small", "question": "Does it run?", "seed": 3, "duration": "60s",
            "models": {"m": {"input": "$1/1M", "output": "$2/1M"}},
            "fleet": [{"agent": "a", "model": "m", "instances": 1, "concurrency": 1,
                       "service": {"law": "time", "time": "500ms"}}],
            "workload": [{"kind": "poisson", "rate": "1/s", "tokens_in": 100, "tokens_out": 10}],
            "controllers": {},
        } | changes
    )  # fmt: skip


def test_processes_side_by_side_give_what_one_gives(tmp_path: Path) -> None:
    told: list[tuple[int, int, float]] = []
    alone = run(small(), "small", tmp_path / "alone", replications=3)
    spread = run(
        small(), "small", tmp_path / "spread", replications=3, jobs=2, progress=lambda *at: told.append(at)
    )
    first, second = results.load(alone.folder), results.load(spread.folder)
    assert first.manifest["column_digests"] == second.manifest["column_digests"]
    assert first.summary["metrics"] == second.summary["metrics"]
    for name in Tables._fields:
        pd.testing.assert_frame_equal(getattr(first, name), getattr(second, name))
    assert first.requests["replication"].unique().tolist() == [0, 1, 2]
    assert sorted(path.name for path in alone.folder.iterdir()) == sorted(
        path.name for path in spread.folder.iterdir()
    )
    assert told == [(number, 3, 60.0) for number in range(3)]


def test_what_is_not_random_is_kept_once_however_many_began(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    rows = [f"2023-11-16 18:17:{second:02}.0000000,100,10" for second in range(0, 50, 5)]
    (data / "trace.csv").write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *rows]) + "\n")
    still = small(workload=[{"kind": "trace", "format": "azure_llm", "file": "trace.csv"}])
    finished = run(still, "still", tmp_path / "run", replications=4, jobs=2, data=data)
    saved = results.load(finished.folder)
    assert (saved.manifest["replications"], saved.manifest["deterministic"]) == (1, True)
    assert [path.name for path in finished.folder.glob("journal-*")] == ["journal-0.glow"]
    assert not (finished.folder / "parts").exists()


def test_what_cannot_be_built_leaves_nothing(tmp_path: Path) -> None:
    trace = small(workload=[{"kind": "trace", "format": "azure_llm", "file": "none.csv"}])
    for jobs in (1, 2):
        with pytest.raises(BuildError, match="no data folder"):
            run(trace, "trace", tmp_path / "run", replications=2, jobs=jobs)
        assert list(tmp_path.iterdir()) == []
