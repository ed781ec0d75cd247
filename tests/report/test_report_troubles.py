"""What a report says when things go wrong: endings, faults, alerts, and who paid for it."""

import math
from typing import Any, get_args

import numpy as np
import pyarrow.parquet as pq
import pytest

from glowsim import results
from glowsim.core import journal
from glowsim.core.reasons import Code
from glowsim.core.types import Answer, Dispatch
from glowsim.ledger import PARTS as LEDGER_PARTS
from glowsim.ledger import ledger
from glowsim.report import faults
from glowsim.report.cost import bill, cost, parts
from glowsim.report.numbers import DASH
from glowsim.report.reading import First, Labelled, read_first
from glowsim.report.traffic import Traffic
from glowsim.scenario.fleet import Fault
from glowsim.summary import ENDED, PARTS, render, shown

LADDER = (
    "workload.0.agents={tax: 1}",
    "faults.0.at=15s", "faults.0.lasts=40s", "faults.0.error=80%",
    "fleet.tax.service={law: time, time: 200ms}",
    "controllers.cache={use: lru, ttl: 5s, stale: 60s}",
    "controllers.retrier={use: backoff, attempts: 2}",
    'controllers.ladder={use: ladder, steps: [stale, "model large", apology]}',
    "controllers.limiter=[{use: token_bucket, scope: fleet, rate: 100/s, burst: 100}]",
    "controllers.detector=[{use: slo, metric: error, threshold: 0, burn: 5, window: 40s, severity: warning}]",
)  # fmt: skip


@pytest.fixture(scope="module")
def troubled(written):
    """A small fleet whose attempts mostly fail for a while, with a ladder to fall back on."""
    return written(*LADDER)


@pytest.fixture(scope="module")
def recording(troubled):
    return journal.read(troubled.folder / "journal-0.glow")


def blocks_of(section, title):
    return [block for block in section["blocks"] if block.get("title", "").startswith(title)]


# --- endings ---------------------------------------------------------------------------------------------


def test_degraded_answers_are_those_that_a_walk_over_the_journal_finds(troubled, recording) -> None:
    """No planner chooses models here, so another model than the agent's own is the ladder's doing."""
    model = {each.attempt: each.plan.model for each in recording.records() if isinstance(each, Dispatch)}
    answers = [each for each in recording.records() if isinstance(each, Answer)]
    stale = {each.request_id for each in answers if each.reason.code == Code.STALE}
    other = {each.request_id for each in answers if model.get(each.source, 0) == 1}
    table = results.fold(recording, troubled.scenario).requests
    assert set(table["request_id"][table["other_model"] == 1].tolist()) == other
    figures = results.figures(results.fold(recording, troubled.scenario))
    assert figures["answered_stale"] == len(stale) > 0
    assert figures["answered_other_model"] == len(other - stale) > 0
    assert figures["degraded_rate"] == pytest.approx(len(stale | other) / figures["launched"])
    assert figures["ended_apology"] == sum(each.reason.code == Code.APOLOGY for each in answers) > 0


def test_an_old_answer_of_another_model_counts_once(troubled, recording) -> None:
    tables = results.fold(recording, troubled.scenario)
    everything = tables.requests | {"other_model": np.ones_like(tables.requests["other_model"])}
    figures = results.figures(tables._replace(requests=everything))
    assert figures["answered_stale"] + figures["answered_other_model"] == figures["completed"]
    assert figures["degraded_rate"] == pytest.approx(figures["success_rate"])


def test_every_ending_has_its_count_and_they_add_up(troubled, recording) -> None:
    figures = results.figures(results.fold(recording, troubled.scenario))
    ended = {name.removeprefix("ended_"): n for name, n in figures.items() if name.startswith("ended_")}
    assert set(ended) == set(ENDED)
    assert sum(ended.values()) == figures["rejected"] + figures["failed"]


def test_the_endings_table_has_words_for_all_of_it(troubled) -> None:
    section = Traffic(read_first(troubled.folder), troubled.scenario, troubled.summary).endings()
    rows = {tuple(row[:2]): int(row[2].replace(",", "")) for row in section["blocks"][0]["rows"]}
    table = pq.read_table(troubled.folder / "requests.parquet").to_pylist()
    counted = [row for row in table if row["t_arrive_s"] >= 10.0]
    own = "answered by an attempt of its own"
    assert rows[own, "by another model"] == sum(row["how"] == "own" and row["other_model"] for row in counted)
    assert rows["answered from the cache, out of date", DASH] == sum(row["how"] == "stale" for row in counted)
    apologies = sum(row["how"] == "apology" for row in counted)
    assert rows["failed", "apology in place of an answer"] == apologies > 0


def first_with(ends: list[tuple[str, str]]) -> First:
    """Return a first replication of nothing but requests that ended so."""
    names, hows = (sorted({end[at] for end in ends}) for at in (0, 1))
    n = len(ends)
    nothing: dict[str, Any] = {}
    return First(
        {
            "t_arrive_s": np.arange(20.0, 20.0 + n),
            "ending": Labelled(np.array([names.index(end[0]) for end in ends]), names),
            "how": Labelled(np.array([hows.index(end[1]) for end in ends]), hows),
            "outcome": Labelled(np.zeros(n, dtype=np.int64), ["none"]),
            "other_model": np.zeros(n, dtype=np.uint8),
        },
        nothing, nothing, nothing, {"t_s": np.array([0.0, 60.0])},
    )  # fmt: skip


def test_why_a_request_was_turned_away_is_said_in_words(small) -> None:
    ends = [("rejected", reason) for reason in ENDED]
    rows = Traffic(first_with(ends), small.scenario, small.summary).endings()["blocks"][0]["rows"]
    assert {row[1] for row in rows} == set(ENDED.values())
    assert {"shed for a more important one", "every breaker open"} <= {row[1] for row in rows}


def test_a_guard_may_refuse_for_a_reason_of_its_own(small) -> None:
    first = first_with([("rejected", "evidence_of_harm")])
    rows = Traffic(first, small.scenario, small.summary).endings()["blocks"][0]["rows"]
    assert rows[0][:2] == ["rejected", "evidence of harm"]


# --- faults ----------------------------------------------------------------------------------------------

SAID = {
    "crash": ({"instances": 2}, "crash: 2 instances of tax die"),
    "slow": ({"factor": 4}, "slow instances: 1 instance of tax 4 times slower"),
    "errors": ({"error": "50%"}, "errors: 50 % of the attempts on tax fail"),
    "brown_out": ({"factor": 10}, "brown-out: all of tax 10 times slower"),
    "refuse": ({}, "refused connections: 1 instance of tax refuses connections"),
    "hang": ({"instances": 3}, "hanging instances: 3 instances of tax never answer"),
    "throttle": ({"share": "30%"}, "throttling: 30 % of the attempts on tax put off (429)"),
    "garbage": ({}, "garbage answers: 1 instance of tax answers quickly and wrongly"),
    "slow_start": ({"factor": 5}, "slow starts: starts of tax take 5 times as long"),
    "tools": (
        {"fails": "50%", "factor": 3},
        "failing tools: tools of tax: 50 % more uses fail, take 3 times as long",
    ),
    "server_slow": ({"factor": 4}, "slow model server: 1 replica of llm 4 times slower"),
    "server_down": ({"replicas": 2}, "model server down: 2 replicas of llm are gone"),
    "region_loss": ({}, "lost region: every instance and model server in eu is gone"),
    "late": ({"by": "45s"}, "late metrics: results of probes of tax come 45 s late"),
    "silence": ({}, "lost metrics: probes of tax go unheard"),
}


def fault(kind: str, **more: Any) -> Fault:
    classes = get_args(get_args(Fault)[0])
    (chosen,) = [each for each in classes if get_args(each.model_fields["kind"].annotation) == (kind,)]
    whom = {"server": "llm", "region": "eu", "agent": "tax"}
    (hit,) = whom.keys() & chosen.model_fields.keys()
    made: Fault = chosen(kind=kind, at="60s", lasts="8s", **{hit: whom[hit]}, **more)
    return made


def test_all_kinds_of_faults_are_here() -> None:
    kinds = {get_args(each.model_fields["kind"].annotation)[0] for each in get_args(get_args(Fault)[0])}
    assert kinds == set(SAID)


@pytest.mark.parametrize("kind", SAID)
def test_a_fault_is_said_with_whom_what_and_when(kind) -> None:
    more, words = SAID[kind]
    assert faults.said(fault(kind, **more)) == f"{words}, at 60 s for 8 s"
    assert "tax" not in faults.label(fault(kind, **more))


def test_a_fault_is_named_in_the_pictures_and_below_them(troubled) -> None:
    traffic = Traffic(read_first(troubled.folder), troubled.scenario, troubled.summary)
    for section in (traffic.time_line(), traffic.instances()):
        picture = section["blocks"][0]
        assert ">errors</text>" in picture["svg"]
        assert "Grey: errors: 80 % of the attempts on tax fail, at 15 s for 40 s." in picture["caption"]


# --- alerts ----------------------------------------------------------------------------------------------


def test_alerts_are_listed_with_time_severity_and_sentence(troubled) -> None:
    traffic = Traffic(read_first(troubled.folder), troubled.scenario, troubled.summary)
    raised = [
        row
        for row in pq.read_table(troubled.folder / "decisions.parquet").to_pylist()
        if row["kind"] == "alert"
    ]
    (alerts,) = blocks_of(traffic.instances(), "Alerts")
    assert {row["value"] for row in raised} == {0.0, 1.0}
    assert [row[1:] for row in alerts["rows"]] == [
        [["info", "warning"][int(row["value"])], row["agent"], row["subject"], row["why"]] for row in raised
    ]
    assert [float(row[0].split()[0]) for row in alerts["rows"]] == pytest.approx(
        [row["t_s"] for row in raised], rel=0.01
    )
    (least,) = blocks_of(traffic.instances(most=1), "Alerts")
    assert least["rows"][0][1] == "warning"
    assert least["more"].startswith(f"and {len(raised) - 1} more")
    tables = [block for block in traffic.instances()["blocks"] if block["kind"] == "table"]
    assert sum("burning" in cell for block in tables for row in block["rows"] for cell in row) == len(raised)


# --- cost ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def quiet(written):
    """The small fleet with hardly anything to do."""
    return written(
        "workload.0.rate=20/min", "workload.0.agents={tax: 1, legal: 1}", "fleet.tax.instance_price=$4/h"
    )


@pytest.mark.parametrize("which", ["troubled", "quiet"])
def test_the_parts_are_the_ledgers_and_add_up_to_the_bill(request, which) -> None:
    run = request.getfixturevalue(which)
    account = bill(read_first(run.folder), run.scenario)
    known = ledger(journal.read(run.folder / "journal-0.glow"), run.scenario, run.scenario.warmup_s)
    assert account.table.to_dict("records") == known.table.to_dict("records")
    billed = math.fsum(each["cost_usd"] for each in run.summary["agents"].values())
    assert account.total_usd == pytest.approx(billed, rel=1e-9)
    by_part, *others = parts(account)
    assert by_part["rows"][-1] == ["the bill", f"${billed:.3g}", "100 %"]
    usd = [float(row[1].strip("$")) for row in by_part["rows"][:-1]]
    assert usd == sorted(usd, reverse=True)
    assert math.fsum(usd) == pytest.approx(billed, rel=0.005)
    assert math.fsum(float(row[2].split()[0]) for row in by_part["rows"][:-1]) == pytest.approx(100, abs=0.5)
    keys = ["domain", "agent"] if which == "quiet" else ["agent"]
    assert [block["columns"][0]["label"] for block in others] == keys
    for key, block in zip(keys, others, strict=True):
        together = [float(row[-1].strip("$")) for row in block["rows"]]
        assert math.fsum(together) == pytest.approx(billed, rel=0.005)
        assert {row[0] for row in block["rows"]} == {name or DASH for name in account.table[key]}
    assert (
        f"add up to the bill, ${billed:.3g}"
        in cost(read_first(run.folder), run.scenario, run.summary)["lead"]
    )


def test_where_instances_stand_idle_that_comes_first(quiet) -> None:
    section = cost(read_first(quiet.folder), quiet.scenario, quiet.summary)
    assert section["blocks"][0]["rows"][0][0] == PARTS["idle"]
    assert section["lead"].endswith("of it: instances idle.")
    assert section["blocks"][1]["columns"][1]["label"] == "idle"


def test_many_agents_are_cut_to_the_dearest(written) -> None:
    run = written("fleet.tax.count=30")
    account = bill(read_first(run.folder), run.scenario)
    (agents,) = [block for block in parts(account) if block["columns"][0]["label"] == "agent"]
    usd = {agent: sum(each.values()) for agent, each in account.by("agent").items()}
    assert [row[0] for row in agents["rows"]] == sorted(usd, key=lambda agent: (-usd[agent], agent))[:10]
    assert agents["more"] == "and 21 more"


def test_every_part_has_words() -> None:
    assert tuple(PARTS) == LEDGER_PARTS


# --- the summary for a terminal --------------------------------------------------------------------------


def line(said: str, label: str) -> str:
    (found,) = [each for each in said.splitlines() if each.startswith(f"  {label} ")]
    return found.split(".. ", 1)[1]


def test_the_summary_says_what_ended_requests_and_what_was_second_best(troubled) -> None:
    said = render(troubled.summary, troubled.folder, 1.0)
    metrics = {name: each["value"] for name, each in troubled.summary["metrics"].items()}
    assert f"apology in place of an answer {metrics['ended_apology']:.0f}" in line(said, "turned away")
    assert f"({metrics['answered_stale']:.0f} stale," in line(said, "degraded")
    assert f"{metrics['answered_other_model']:.0f} by another model)" in line(said, "degraded")


def test_the_summary_names_the_parts_of_the_bill_the_largest_first(small) -> None:
    parts_usd = dict.fromkeys(PARTS, 0.0) | {"output": 1.5, "idle": 20.0}
    said = render(small.summary | {"cost_parts_usd": parts_usd}, small.folder, 1.0)
    assert line(said, "cost by part") == "instances idle $20.00   output tokens $1.50"


def test_the_summary_is_silent_about_what_did_not_happen_and_cannot_be(small) -> None:
    metrics = {
        name: each | {"value": 0.0} if name.startswith("ended_") or name == "degraded_rate" else each
        for name, each in small.summary["metrics"].items()
    }
    metrics["retries"] = {"value": 31.5, "low": -63.8, "high": 127.0}
    said = render(small.summary | {"metrics": metrics}, small.folder, 1.0)
    assert "turned away" not in said
    assert "degraded" not in said
    assert line(said, "retries") == "31.5   [0, 127]"


@pytest.mark.parametrize(
    ("share", "text"), [(0.999989, "99.9989 %"), (0.5, "50 %"), (1.0, "100 %"), (0.0, "0 %")]
)
def test_a_share_near_one_does_not_become_one(share, text) -> None:
    assert shown(share, "fraction") == text
