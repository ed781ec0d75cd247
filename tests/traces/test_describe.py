"""A description says what is in the log, and nothing that is not."""

from __future__ import annotations

import json

import numpy as np
import pytest

from glowsim.traces.describe import describe
from glowsim.traces.log import Log, LogError, Named, Reading, Refused


def full_log() -> Log:
    """Ten minutes at 2/s from two tenants, one with three quarters of the requests, in sessions of four turns."""
    n = 1200
    rows = np.arange(n)
    return Log(
        source="spend.jsonl",
        format="litellm",
        t_s=rows / 2,
        reading=Reading(n + 1, (Refused(3, "no time"),), 1),
        numbers={
            "tokens_in": 100.0 + rows % 100,
            "tokens_out": 10.0 + rows % 10,
            "latency_s": np.where(rows % 2 == 0, 0.2, np.nan),
            "turn": (rows % 4).astype(float),
        },
        names={
            "tenant": Named(np.where(rows % 4 == 0, 1, 0), ("big", "small")),
            "status": Named(np.where(rows % 10 == 0, 1, 0), ("ok", "error")),
            "session": Named(rows // 4, tuple(map(str, range(n // 4)))),
        },
        blocks=tuple((0, 1 + row % 3) for row in range(n)),
        block_tokens=64,
    )


def test_it_finds_what_was_put_in() -> None:
    found = describe(full_log())
    assert (found.rows, found.refused) == (1200, 1)
    assert found.rate_per_s == pytest.approx(2.0)
    assert found.gap_cv == pytest.approx(0.0, abs=1e-9)
    assert found.dispersion == {1.0: 0.0, 10.0: 0.0, 60.0: 0.0}
    assert found.idle_share == 0.0
    assert "turn" not in found.amounts
    assert found.amounts["latency_s"].rows == 600
    assert found.amounts["tokens_out"].mean == pytest.approx(14.5)
    assert found.statuses == {"ok": pytest.approx(0.9), "error": pytest.approx(0.1)}
    tenants = found.senders["tenant"]
    assert (tenants["number"], tenants["top1"], tenants["for_90"]) == (2, 0.75, 2)
    assert found.sharing is not None
    assert (found.sharing["unique"], found.sharing["hits"]) == (4, 2400 - 4)
    assert found.sessions is not None
    assert found.sessions["turns"]["mean"] == 4.0
    assert found.sessions["think_s"]["p50"] == pytest.approx(0.3)
    assert not found.sessions["from_end"]


def test_its_text_has_a_line_for_each_thing_and_its_data_are_plain() -> None:
    found = describe(full_log())
    lines = found.text().splitlines()
    for head in (
        "spend.jsonl (litellm): 1200 requests, 1 rows refused", "arrivals    2/s over 600 s", "idle", "dispersion",
        "correlation", "tokens_in", "tokens_out", "rank correlation", "status      ok 90.0 %, error 10.0 %",
        "tenants     2; the top 1/5/10 send 75.0 %", "prefixes    2400 blocks of 64 tokens, 4 unique",
        "sessions    300: 4 turns each", "            times between turns are from start to start",
    ):  # fmt: skip
        assert any(line.startswith(head) for line in lines), head
    assert max(map(len, lines)) <= 130
    json.dumps(found.as_dict())


def test_what_the_log_does_not_say_is_not_said() -> None:
    found = describe(Log("a.csv", "csv", np.arange(200.0), Reading(200)))
    assert (found.spearman, found.sharing, found.sessions) == (None, None, None)
    assert (found.amounts, found.statuses, found.senders) == ({}, {}, {})
    assert not any(word in found.text() for word in ("prefix", "sessions", "tokens", "status", "refused"))


def test_a_column_of_names_that_no_row_has_is_empty_and_not_an_error() -> None:
    nobody = Named(np.full(200, -1), ())
    found = describe(
        Log("a.csv", "csv", np.arange(200.0), Reading(200), names={"user": nobody, "status": nobody})
    )
    assert found.senders["user"]["number"] == 0
    assert found.statuses == {}
    assert found.text()


def test_a_short_log_says_what_is_unknown_and_an_empty_one_is_refused() -> None:
    assert "nan" in describe(Log("a.csv", "csv", np.array([0.0, 3.0]), Reading(2))).text()
    with pytest.raises(LogError, match="too few"):
        describe(Log("a.csv", "csv", np.array([0.0]), Reading(1)))
