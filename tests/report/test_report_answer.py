from typing import Any

import pytest

from glowsim.report.answer import NAMES, headline, key_figures, level_sentences, service_levels
from glowsim.report.numbers import DASH
from glowsim.scenario import METRICS


def slo(
    verdict: str, value: float | None, low: float | None, high: float | None, **more: Any
) -> dict[str, Any]:
    return {
        "name": "quick", "metric": "latency_s_p95", "agent": None, "bound": "max", "target": 2.0,
        "unit": "duration", "value": value, "low": low, "high": high, "verdict": verdict,
        "why": "said by the judge",
    } | more  # fmt: skip


def summary(*slos: dict[str, Any], replications: int = 5, deterministic: bool = False) -> dict[str, Any]:
    return {"slos": list(slos), "replications": replications, "deterministic": deterministic}


MET = slo("met", 1.5, 1.45, 1.55)
NOT_MET = slo("not met", 2.5, 2.4, 2.6, name="slow")
UNDECIDED = slo("undecided", 1.99, 1.9, 2.08, name="close")


@pytest.mark.parametrize(
    ("slos", "said"),
    [
        ([MET], "The service level is met."),
        ([NOT_MET], "The service level is not met."),
        ([MET, MET], "All 2 service levels are met."),
        ([MET, NOT_MET, UNDECIDED, MET], "Of 4 service levels 1 is not met, 1 is undecided and 2 are met."),
    ],
)
def test_the_headline_counts(slos, said):
    assert headline(summary(*slos)) == said


def test_a_scenario_without_service_levels_decides_nothing():
    assert "nothing to decide" in headline(summary())


def test_one_run_alone_says_so_unless_nothing_is_random():
    alone = slo("undecided", 1.5, None, None, why="one replication has no interval; run at least 2")
    assert "One run alone decides nothing" in headline(summary(alone, replications=1))
    assert "One run" not in headline(summary(MET, replications=1, deterministic=True))
    (said,) = level_sentences([alone])
    assert said["text"] == (
        "latency, p95 is 1.50 s, wanted at most 2 s: one replication has no interval; run at least 2."
    )


def test_sentences_come_worst_first_with_figures_interval_target_and_reason():
    said = level_sentences([MET, UNDECIDED, NOT_MET])
    assert [each["word"] for each in said] == ["not met", "undecided", "met"]
    assert [each["mark"] for each in said] == ["bad", "open", "good"]
    assert said[0]["text"] == (
        "latency, p95 is 2.50 s (95 % interval 2.40 to 2.60 s), wanted at most 2 s: "
        "the whole interval lies above the target."
    )
    assert said[1]["text"].endswith("the target lies inside the interval.")
    assert said[2]["text"].endswith("the whole interval is within the target.")


def test_a_lower_bound_and_an_agent_are_named():
    low = slo(
        "not met",
        0.9,
        0.88,
        0.92,
        metric="success_rate",
        unit="fraction",
        bound="min",
        target=0.99,
        agent="tax",
    )
    (said,) = level_sentences([low])
    assert said["text"].startswith("success rate of tax is 90")
    assert "wanted at least 99 %: the whole interval lies below the target" in said["text"]


def test_a_metric_that_does_not_exist_is_said_and_dashed():
    missing = slo("undecided", None, None, None, why="2 of 2 replications have no value")
    (said,) = level_sentences([missing])
    assert said["text"] == "latency, p95 has no value, wanted at most 2 s: 2 of 2 replications have no value."
    (row,) = service_levels(summary(missing))["blocks"][0]["rows"]
    assert row[2:] == ["≤ 2 s", DASH, DASH, "undecided", "2 of 2 replications have no value"]


def test_every_metric_of_a_service_level_has_a_name():
    assert set(METRICS) <= set(NAMES)


@pytest.mark.parametrize(("replications", "columns"), [(1, 2), (5, 3)])
def test_intervals_are_shown_where_there_are_any(replications, columns):
    metrics = {
        "launched": {
            "value": 10.0,
            "low": 9.0 if columns == 3 else None,
            "high": 11.0 if columns == 3 else None,
        }
    }
    section = key_figures(summary(replications=replications) | {"metrics": metrics})
    assert {len(table["columns"]) for table in section["blocks"][1]["tables"]} == {columns}
    assert ("without intervals" in section["lead"]) == (columns == 2)
