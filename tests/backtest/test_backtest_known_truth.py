"""Backtests of logs whose truth is known: what holds is found to hold, what drifts is found to be off, and why."""

import json
from math import fsum

import pytest

from glowsim import build
from glowsim.backtest.command import backtest, judge
from glowsim.backtest.compare import BY_CHANCE, OFF, WITHIN
from glowsim.core.errors import GlowsimError
from glowsim.core.types import Arrived
from glowsim.importing.part import ImportProblem
from glowsim.importing.scenario import text_of
from glowsim.presets.prices import load as load_prices
from glowsim.scenario import load
from glowsim.traces.reading import read

MODELS = ("gpt-4o", "gpt-4o-mini")


class Bench:
    """Judges a log of some truth, changed row by row (told the row, and whether it lies in the judged part)."""

    def __init__(self, logs, folder) -> None:
        self.logs, self.file = logs, folder / "log.csv"
        self.prices = load_prices(logs.price_map(folder / "prices.json"))

    def __call__(self, truth=None, *, change=None, prices=True, **asked):
        truth = truth or self.logs.Truth()
        rows = self.logs.rows_of(truth)
        for row in rows:
            if change is not None:
                change(row, (self.logs.moment(row) - self.logs.BEGUN).total_seconds() >= 0.75 * truth.span_s)
        log = read(self.logs.written(self.file, rows))
        return judge(log, prices=self.prices if prices else None, replications=3, **asked)


@pytest.fixture(scope="module")
def bench(logs, tmp_path_factory):
    return Bench(logs, tmp_path_factory.mktemp("backtest"))


def fitted(found) -> str:
    """The scenario that was fitted, and what its workload reads."""
    return text_of(found.imported, "test") + "".join(found.imported.files.values())


@pytest.fixture(scope="module")
def stationary(bench):
    return bench()


# --- nothing changes ------------------------------------------------------------------------------------


def test_cost_is_within_a_per_cent_in_all_and_by_model_and_nothing_is_unexplained(stationary) -> None:
    for model in ("all models", *MODELS):
        line = stationary.line("cost_usd", model)
        assert line.word == WITHIN
        assert abs(line.off) < 0.01
        assert line.recorded.mean > 0.1
    assert stationary.unexplained_usd == 0.0


def test_requests_and_tokens_of_answers_are_the_recorded_ones(stationary) -> None:
    for figure in ("requests", "tokens_in", "tokens_out"):
        line = stationary.line(figure)
        assert line.modelled.mean == line.recorded.mean


def test_latencies_are_what_the_law_gives_within_what_the_log_can_tell(stationary) -> None:
    for figure in ("latency_s_p50", "latency_s_p95", "first_token_s_p50", "first_token_s_p95"):
        for model in ("all models", *MODELS):
            line = stationary.line(figure, model)
            assert line.word in (WITHIN, BY_CHANCE)
            assert line.recorded.low < line.recorded.mean < line.recorded.high
        assert abs(stationary.line(figure).off) < 0.05


def test_the_share_of_failures_is_the_fitted_one(stationary) -> None:
    line = stationary.line("error_share")
    assert line.word in (WITHIN, BY_CHANCE)
    assert line.modelled.mean == pytest.approx(0.02, abs=0.01)


def test_prices_fitted_to_the_log_do_as_well_as_a_map(bench, stationary) -> None:
    fitted = bench(prices=False)
    assert fitted.line("cost_usd").modelled.mean == pytest.approx(
        stationary.line("cost_usd").modelled.mean, rel=1e-5
    )
    assert fitted.line("cost_usd").word == WITHIN


def test_without_first_tokens_the_latency_is_still_the_logs(bench, logs) -> None:
    found = bench(logs.Truth(streamed=False))
    assert {found.line(figure).word for figure in ("latency_s_p50", "latency_s_p95")} <= {WITHIN, BY_CHANCE}
    with pytest.raises(KeyError, match="first_token_s_p50"):
        found.line("first_token_s_p50")


# --- the differences have names, and add up -------------------------------------------------------------


def adds_up(found) -> None:
    line = found.line("cost_usd")
    parts = fsum(each.usd for each in found.differences)
    assert parts == pytest.approx(line.recorded.mean - line.modelled.mean, abs=1e-9)


def named(found, word):
    return fsum(each.usd for each in found.differences if word in each.name)


def test_what_drifts_in_the_judged_part_is_off_and_the_reason_is_said(bench, logs) -> None:
    found = bench(logs.Truth(slower=1.5, dearer=1.2))
    for figure in ("cost_usd", "latency_s_p50", "latency_s_p95", "first_token_s_p50"):
        assert found.line(figure).word == OFF
    assert found.line("latency_s_p50").off == pytest.approx(1 / 1.5 - 1, abs=0.05)
    assert "the log moved" in found.line("latency_s_p95").verdict
    assert found.line("cost_usd").off == pytest.approx(1 / 1.2 - 1, abs=0.005)
    assert "calls cost 20 % more than prices say" in found.line("cost_usd").verdict
    assert named(found, "surcharge") == pytest.approx(found.line("cost_usd").recorded.mean / 6, rel=1e-3)
    adds_up(found)


def free(row, late) -> None:
    if late and int(row["request_id"][1:]) % 10 == 0:
        row["spend"] = 0.0


def unread(row, late) -> None:
    if late and int(row["request_id"][1:]) % 10 == 0:
        row["spend"] = ""


def failures_cost(row, late) -> None:
    if late and row["status"] == "failure":
        row["spend"] = 0.01


def no_pattern(row, late) -> None:
    number = int(row["request_id"][1:])
    if late and row["spend"] and number % 3:
        row["spend"] *= 1.0 + number % 7 / 10


def discounted(row, late) -> None:
    if late and row["spend"]:
        row["spend"] *= 0.8


def reasoned_beside(row, late) -> None:
    if late and row["status"] == "success":
        usage = json.loads(row["metadata"]).get("usage_object", {})
        more = 1 + row["completion_tokens"] // 2
        usage["completion_tokens_details"] = {"reasoning_tokens": more}
        row["metadata"] = json.dumps({"usage_object": usage})
        row["spend"] += more * (1e-5 if row["model"] == "gpt-4o" else 6e-7)


def written_off(row, late) -> None:
    """Bill the cached tokens as fresh ones."""
    if late and row["model"] == "gpt-4o" and row["status"] == "success":
        row["spend"] = row["prompt_tokens"] * 2.5e-6 + row["completion_tokens"] * 1e-5


@pytest.mark.parametrize(
    ("change", "name", "sign"),
    [
        (free, "free answers", -1), (unread, "cost not recorded", -1),
        (failures_cost, "calls that failed, and cost", 1),
        (no_pattern, "unexplained", 1), (discounted, "a discount: calls cost 20 % less", -1),
        (reasoned_beside, "reasoning tokens billed beside", 1), (written_off, "cached tokens billed as fresh", 1),
    ],
)  # fmt: skip
def test_each_difference_of_the_cost_has_its_name(bench, change, name, sign) -> None:
    found = bench(change=change)
    adds_up(found)
    usd = named(found, name)
    assert usd * sign > 0.01 * found.line("cost_usd").recorded.mean
    assert found.line("cost_usd").word == OFF
    assert name in found.line("cost_usd").because
    if name != "unexplained":
        others = fsum(abs(each.usd) for each in found.differences if name not in each.name)
        assert others < 0.2 * abs(usd)


def test_cached_tokens_that_the_log_does_not_record_are_unexplained_with_a_hint(bench) -> None:
    def forgotten(row, late) -> None:
        row["metadata"] = "{}"

    found = bench(change=forgotten)
    assert found.unexplained_usd < -0.02 * found.line("cost_usd").recorded.mean
    assert any("the log does not record them" in each.detail for each in found.differences)
    adds_up(found)


def test_a_model_that_is_new_is_named_with_what_it_cost(bench) -> None:
    def arrives(row, late) -> None:
        if late and int(row["request_id"][1:]) % 5 == 0:
            row["model"] = "gpt-next"

    found = bench(change=arrives)
    adds_up(found)
    new = [each for each in found.differences if "new" in each.name]
    assert {each.model for each in new} == {"gpt-next"}
    assert found.line("requests").recorded.mean - found.line("requests").modelled.mean == sum(
        x.rows for x in new
    )
    assert "cannot be replayed" in found.line("tokens_in").verdict


# --- the judged part has no say -------------------------------------------------------------------------


def test_the_judged_part_never_influences_the_fit(bench, stationary, logs) -> None:
    def everything(row, late) -> None:
        if late:
            row |= {
                "spend": 7.0,
                "model": "other",
                "prompt_tokens": 5,
                "agent_id": "x",
                "endTime": row["startTime"],
            }

    def nearly(row, late) -> None:
        if late:
            row |= {"prompt_tokens": row["prompt_tokens"] * 3, "spend": 1.0, "status": "failure"}
            row["completionStartTime"] = ""

    def broken(row, late) -> None:
        if late and int(row["request_id"][1:]) % 2 and int(row["request_id"][1:]) < logs.Truth().rows - 1:
            row["prompt_tokens"] = -1

    before = fitted(stationary)
    assert len(before) > 3000
    with pytest.raises(ImportProblem, match="is of an agent in the part that was fitted on"):
        bench(change=everything)
    with pytest.raises(ImportProblem, match="is of an agent in the part that was fitted on"):
        bench(change=nearly)
    assert fitted(bench(change=broken)) == before
    assert fitted(bench(logs.Truth(slower=3.0, dearer=2.0))) == before


def test_the_fitted_part_does(bench, stationary) -> None:
    def early(row, late) -> None:
        if not late and row["spend"]:
            row["prompt_tokens"] += 1

    assert fitted(bench(change=early)) != fitted(stationary)


# --- limits and the page --------------------------------------------------------------------------------


def test_too_little_is_said(bench, logs) -> None:
    with pytest.raises(ImportProblem, match=r"has too little: \d rows to fit on and \d to judge"):
        bench(logs.Truth(rows=10))
    with pytest.raises(ImportProblem, match="must lie between 0 and 1, not 1"):
        bench(holdout=1.0)
    with pytest.raises(ImportProblem, match=r"has too little: \d+ rows to fit on and 1 to judge"):
        bench(logs.Truth(rows=100), holdout=0.001)


def test_neither_costs_nor_prices_says_what_to_give_and_free_leaves_the_cost_out(bench, logs) -> None:
    with pytest.raises(ImportProblem, match="--prices"):
        bench(logs.Truth(costs=False), prices=False)
    found = bench(logs.Truth(costs=False), prices=False, unpriced=True)
    with pytest.raises(KeyError):
        found.line("cost_usd")
    assert found.differences == ()
    assert found.line("latency_s_p50").word in (WITHIN, BY_CHANCE)


def test_as_json_it_is_plain_data(stationary) -> None:
    found = json.loads(json.dumps(stationary.as_json(), allow_nan=False))
    assert found["judged_rows"] == stationary.judged_rows
    (cost,) = [
        each for each in found["figures"] if each["figure"] == "cost_usd" and each["model"] == "all models"
    ]
    assert cost["verdict"] == "within 1 %"
    assert found["unexplained_usd"] == 0.0
    assert "cost" in stationary.text()


def test_a_page_and_the_fitted_scenario_are_written_and_the_scenario_runs(logs, tmp_path) -> None:
    log = logs.written(tmp_path / "log.csv", logs.rows_of(logs.Truth(rows=400)))
    made = backtest(log, tmp_path / "page", replications=2)
    page = made.html.read_text()
    for words in (
        "Backtest on log.csv",
        "within 1 %",
        "Cost, difference by difference",
        "unexplained",
        "gpt-4o-mini",
    ):
        assert words in page
    assert made.pdf.read_bytes().startswith(b"%PDF")
    with pytest.raises(GlowsimError, match="exists"):
        backtest(log, tmp_path / "page")
    scenario = load(made.scenario)
    built = build.replication(scenario, 0, data=made.scenario.parent)
    built.world.start()
    built.world.run(scenario.duration_s + scenario.drain_s)
    assert len(built.journal.recording().table(Arrived)) == made.found.fitted_rows


def test_what_is_only_replayed_is_no_success(logs, tmp_path) -> None:
    lines = [f"{t},{100 + t % 7},{10 + t % 5}" for t in range(200)]
    (tmp_path / "log.csv").write_text("\n".join(["t_s,tokens_in,tokens_out", *lines]))
    made = backtest(tmp_path / "log.csv", tmp_path / "page", unpriced=True, replications=2)
    assert "there is nothing to compare" in made.html.read_text()
    assert {line.figure for line in made.found.lines} == {"requests", "tokens_in", "tokens_out"}
