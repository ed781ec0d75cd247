"""A scenario of a log: it loads, it runs, its numbers are the log's, and what nobody knows is said."""

import numpy as np
import pytest

from glowsim import build
from glowsim.importing.command import import_log
from glowsim.importing.part import ImportProblem
from glowsim.importing.workload import describe_log, fit_log
from glowsim.results import fold
from glowsim.scenario import load


def run(imported):
    scenario = load(imported.scenario)
    built = build.replication(scenario, 0, data=imported.scenario.parent)
    built.world.start()
    built.world.run(scenario.duration_s + scenario.drain_s)
    return scenario, fold(built.journal.recording(), scenario).requests


@pytest.fixture(scope="module")
def rows(logs):
    return logs.rows_of(logs.Truth(rows=800))


def test_a_log_becomes_a_scenario_that_runs_and_costs_what_it_recorded(
    logs, rows, tmp_path, data_file
) -> None:
    log = logs.written(tmp_path / "log.csv", rows)
    imported = import_log(
        log, tmp_path / "out" / "mine.yaml", prices=logs.price_map(tmp_path / "prices.json")
    )
    scenario, requests = run(imported)
    assert [agent.name for agent in scenario.fleet] == ["faq", "tax"]
    assert {agent.domain for agent in scenario.fleet} == {"unknown"}
    assert len(requests["agent"]) == 800
    failed = [row for row in rows if row["status"] == "failure"]
    for place, (agent, model) in enumerate((("faq", "gpt-4o-mini"), ("tax", "gpt-4o"))):
        mine = [row for row in rows if row["agent_id"] == agent]
        wrong = sum(row["status"] == "failure" for row in mine)
        assert scenario.servers[f"{model}-api"].error == pytest.approx(wrong / len(mine), rel=1e-5)
        assert (requests["agent"] == place).sum() == len(mine)
    assert 0 < len(failed) < 40
    answered = requests["ending"] == 1
    recorded = sum(row["spend"] for row in rows)
    per_answer = requests["cost_usd"][answered].mean()
    assert per_answer == pytest.approx(recorded / (800 - len(failed)), rel=0.03)
    latency = requests["latency_s"][answered]
    assert np.quantile(latency, 0.5) == pytest.approx(2.37, rel=0.08)


def test_prices_are_the_maps_or_the_mean_of_what_prompts_cost(logs, rows, tmp_path) -> None:
    log = logs.written(tmp_path / "log.csv", rows)
    scenario = load(import_log(log, tmp_path / "a.yaml", prices=logs.price_map(tmp_path / "p.json")).scenario)
    mini, large = scenario.models["gpt-4o-mini"], scenario.models["gpt-4o"]
    assert (mini.input_usd_per_token, mini.output_usd_per_token) == (1.5e-7, 6e-7)
    assert large.output_usd_per_token == 1e-5
    assert 0.5 * 2.5e-6 < large.input_usd_per_token < 2.5e-6
    assert scenario.origins["models.gpt-4o-mini"].origin == "published"
    assert scenario.origins["models.gpt-4o"].origin == "fitted"
    assert "read from a cache" in scenario.origins["models.gpt-4o"].source


def test_without_a_map_prices_are_the_logs_own(logs, rows, tmp_path) -> None:
    imported = import_log(logs.written(tmp_path / "log.csv", rows), tmp_path / "a.yaml").imported
    for model, usd in logs.PRICES.items():
        rates = imported.tariffs[model].prices.at(0)
        assert (rates.input_usd, rates.output_usd) == (usd["input"], usd["output"])
        assert imported.tariffs[model].origin == "fitted"
    assert imported.tariffs["gpt-4o"].prices.at(0).cached_usd == 1.25e-6


def test_neither_costs_nor_a_map_is_an_error_that_says_what_to_give(logs, tmp_path) -> None:
    log = logs.written(tmp_path / "log.csv", logs.rows_of(logs.Truth(rows=200, costs=False)))
    with pytest.raises(
        ImportProblem, match=r"prices of 2 of 2 models(.|\n)*gpt-4o: none of its(.|\n)*--prices"
    ):
        import_log(log, tmp_path / "a.yaml")
    only_one = logs.price_map(tmp_path / "p.json", ("gpt-4o",))
    with pytest.raises(
        ImportProblem, match=r"prices of 1 of 2 models(.|\n)*gpt-4o-mini: not in the map of prices"
    ):
        import_log(log, tmp_path / "a.yaml", prices=only_one)
    assert not (tmp_path / "a.yaml").exists()
    imported = import_log(log, tmp_path / "a.yaml", prices=only_one, unpriced=True)
    assert load(imported.scenario).origins["models.gpt-4o-mini"].origin == "assumed"
    assert any("gpt-4o-mini: its price is not known" in each for each in imported.imported.remarks)


def test_ten_rows_are_too_little(logs, tmp_path) -> None:
    log = logs.written(tmp_path / "log.csv", logs.rows_of(logs.Truth(rows=10)))
    with pytest.raises(ImportProblem, match="has 10 rows, too little"):
        import_log(log, tmp_path / "a.yaml")


def test_latencies_without_a_first_token_make_a_law_by_tokens(logs, tmp_path) -> None:
    log = logs.written(tmp_path / "log.csv", logs.rows_of(logs.Truth(rows=600, streamed=False)))
    imported = import_log(log, tmp_path / "a.yaml")
    scenario, requests = run(imported)
    assert not scenario.servers
    assert {agent.service.law for agent in scenario.fleet} == {"tokens"}
    assert np.quantile(requests["latency_s"][requests["ending"] == 1], 0.95) == pytest.approx(5.0, rel=0.15)
    assert any("no times to the first token" in each for each in imported.imported.remarks)


def test_what_was_refused_and_left_out_stands_at_the_top(logs, rows, tmp_path) -> None:
    broken = [dict(row) for row in rows[:100]]
    broken[3]["prompt_tokens"] = -5
    broken[7] |= {"prompt_tokens": "", "completion_tokens": "", "spend": ""}
    log = logs.written(tmp_path / "log.csv", broken)
    imported = import_log(log, tmp_path / "a.yaml", prices=logs.price_map(tmp_path / "p.json"))
    text = imported.scenario.read_text()
    head = text[: text.index("title:")]
    assert "1 rows were refused, the first at line 5" in head
    assert "1 rows without tokens are left out" in head
    assert "calls that failed cost" not in head, "they cost nothing, in the log and in a run"


def test_a_model_that_never_answered_needs_no_price_and_is_said(logs, rows, tmp_path) -> None:
    changed = [dict(row) for row in rows[:200]]
    for row in changed[::20]:
        row |= {
            "model": "no-such-model",
            "status": "failure",
            "prompt_tokens": 0,
            "completion_tokens": 0,
            "spend": 0,
        }
    imported = import_log(logs.written(tmp_path / "log.csv", changed), tmp_path / "a.yaml")
    assert set(load(imported.scenario).models) == {"gpt-4o", "gpt-4o-mini"}
    said = " ".join(imported.imported.remarks)
    assert "no-such-model: " in said
    assert "none of them an answer with tokens, are left out" in said


def test_nothing_that_is_there_is_overwritten(logs, rows, tmp_path) -> None:
    log = logs.written(tmp_path / "log.csv", rows)
    first = import_log(log, tmp_path / "a.yaml")
    before = first.scenario.read_bytes()
    with pytest.raises(ImportProblem, match="exists"):
        import_log(log, tmp_path / "a.yaml")
    again = import_log(log, tmp_path / "b" / "a.yaml")
    assert again.scenario.read_bytes() == before


def test_sessions_become_conversations(tmp_path) -> None:
    rng = np.random.default_rng(1)
    lines = ["t_s,tokens_in,tokens_out,latency_s,first_token_s,cost_usd,session,model"]
    for session in range(60):
        t_s, context = 600.0 * session, 500
        for _ in range(1 + session % 4):
            out, latency_s = int(rng.integers(20, 200)), float(rng.uniform(1, 3))
            lines.append(
                f"{t_s:.3f},{context},{out},{latency_s:.3f},0.5,{context * 1e-6 + out * 4e-6:.9f},s{session},m"
            )
            t_s, context = t_s + latency_s + 30.0, context + out + int(rng.integers(50, 150))
    (tmp_path / "log.csv").write_text("\n".join(lines))
    imported = import_log(tmp_path / "log.csv", tmp_path / "a.yaml", format="csv", how="sessions")
    scenario, requests = run(imported)
    assert not imported.files
    workload = scenario.workload[0]
    assert workload.kind == "sessions"
    assert workload.arrivals.rate_per_s == pytest.approx(1 / 600, rel=0.03)
    assert len(requests["agent"]) / len(np.unique(requests["user"])) == pytest.approx(2.5, rel=0.1)
    assert requests["tokens_in"].mean() == pytest.approx(
        np.mean([int(x.split(",")[1]) for x in lines[1:]]), rel=0.15
    )


# --- real files ----------------------------------------------------------------------------------------


def test_azure_code_says_what_it_cannot_know_and_runs_all_the_same(tmp_path, data_file) -> None:
    trace = data_file("azure_llm_2023/AzureLLMInferenceTrace_code.csv")
    with pytest.raises(ImportProblem, match="unknown: none of its 8819 rows has both tokens and a cost"):
        import_log(trace, tmp_path / "a.yaml")
    prices = data_file("prices/tokencost_model_prices.json.gz")
    imported = import_log(trace, tmp_path / "a.yaml", prices=prices, model="gpt-4o")
    scenario, requests = run(imported)
    assert len(requests["agent"]) == 8819
    assert scenario.origins["servers.gpt-4o-api"].origin == "assumed"
    assert scenario.origins["workload.0"].origin == "measured"
    assert scenario.models["gpt-4o"].input_usd_per_token == 2.5e-6
    said = " ".join(imported.imported.remarks)
    for words in ("no latencies", "no costs", "name no model", "name no agent", "the preset 'average'"):
        assert words in said


def test_the_example_of_tracelab_is_two_agents_with_one_law_between_them(tmp_path, data_file) -> None:
    trace = data_file("tracelab_example/example_sessions/derived/round_trace.jsonl")
    imported = import_log(trace, tmp_path / "a.yaml", unpriced=True)
    scenario, requests = run(imported)
    assert {agent.name: agent.model for agent in scenario.fleet} == {
        "codex": "gpt-5.4",
        "claude": "claude-opus-4-8",
    }
    assert len(requests["agent"]) == 19
    assert scenario.origins["fleet.claude.service"].origin == "assumed"
    assert "too few rows of its own" in scenario.origins["fleet.claude.service"].source


def test_a_log_is_described_and_fitted(tmp_path, data_file) -> None:
    trace = data_file("azure_llm_2023/AzureLLMInferenceTrace_code.csv")
    said, found = describe_log(trace)
    assert said.startswith("8819 rows, 0 of them refused")
    assert found.rate_per_s == pytest.approx(2.566, abs=0.001)
    fitted = fit_log(trace, tmp_path / "code.yaml", envelope="recorded", window_s=60.0)
    assert fitted.path.is_file()
    assert "dispersion_60s" in fitted.text()
    with pytest.raises(ImportProblem, match="exists"):
        fit_log(trace, tmp_path / "code.yaml")
