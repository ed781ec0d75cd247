"""``glowsim pairs plan`` and ``simulate``: how many tasks, and what they cost."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from glowsim.pairs.planning import discordance, mcnemar_power, pairs_needed
from glowsim.pairs.problems import PairsError
from glowsim.pairs.simulating import simulate
from glowsim.pairs.verdict import Rules
from glowsim.scenario import load

SCENARIO = """
title: two variants
question: Which is better?
seed: 3
duration: 20m
drain: 1m
models:
  m: {input: $1/1M, output: $2/1M}
  weak: {input: $0.1/1M, output: $0.2/1M}
fleet:
  - agent: tax
    model: m
    instances: 4
    concurrency: 8
    timeout: 20s
    service: {law: time, time: 10ms}
    failures: {invalid: 2%, error: 1%}
    variants: {worse: {error: 9%}, same: {}, dull: {}}
  - {agent: idle, model: m, instances: 1, concurrency: 1, timeout: 20s, service: {law: time, time: 10ms}}
workload:
  - {kind: poisson, rate: 0.5/s, agents: [tax], tokens_in: 1000, tokens_out: 100}
quality:
  kinds: {any: {shared: 0.4, repeat: 0.8}}
  models:
    m: {accuracy: 0.95, hallucination: 0%, format: 0%, refusal: 0%}
    weak: {accuracy: 0.80, hallucination: 0%, format: 0%, refusal: 0%}
  context_loss: 0%
  confidence: 70%
  variants: {dull: 80%}
"""


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    path = tmp_path / "two.yaml"
    path.write_text(SCENARIO)
    return path


def test_a_plan_says_tasks_cost_and_time(command) -> None:
    given = ("--base-error", "5%", "--effect", "10%", "--correlation", 0.3)
    code, out, _ = command(
        "plan", *given, "--cost", "$0.04/task", "--latency", "5s", "--rate", "31/d", "--json"
    )
    said = json.loads(out)
    assert code == 0
    for row in said["worse"]:
        assert row["tasks_once"] == pairs_needed(0.05, 0.1, 0.3, 0.01, row["power"])
        assert row["tasks_once"] < row["tasks_at_most"] < 2 * row["tasks_once"]
        assert row["tasks_mean"] < row["tasks_once"]
        assert row["cost_usd_at_most"] == pytest.approx(2 * 0.04 * row["tasks_at_most"])
        assert row["time_s_at_most"] == pytest.approx(2 * 5 / 4 * row["tasks_at_most"])
        assert row["recorded_in_s"] == pytest.approx(row["tasks_at_most"] * 86400 / 31)
    code, out, _ = command("plan", *given, "--cost", "$0.04")
    first = said["worse"][0]
    assert out.startswith(f"{first['tasks_at_most']:,} recorded tasks find 10 points on 0.05 failures")
    assert f"${first['cost_usd_at_most']:,.4g} at most" in out


def test_a_plan_for_more_tasks_than_are_simulated_says_those_of_one_look(command) -> None:
    code, out, _ = command("plan", "--base-error", "5%", "--effect", "0.5%", "--json")
    said = json.loads(out)
    assert code == 0
    assert said["worse"][0]["tasks_at_most"] is None
    assert mcnemar_power(said["worse"][0]["tasks_once"], discordance(0.05, 0.005, 0.5), 0.01) >= 0.8


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--base-error", "5%", "--effect", "20%"), "give 0 to 0.397"),
        (("--base-error", "5%", "--effect", "0%"), "effect must be above 0"),
        (("--base-error", "five", "--effect", "1%"), "--base-error: must be a share"),
        (("--base-error", "5%", "--effect", "3%", "--cost", "4 cents"), "--cost: must be an amount of money"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(command, options: tuple[str, ...], said: str) -> None:
    code, _, err = command("plan", *options)
    assert code == 2
    assert said in err


def test_the_simulated_truth_is_that_of_the_scenario(scenario: Path) -> None:
    loaded = load(scenario)
    found = simulate(loaded, "tax", variant="worse", model=None, rules=Rules(), campaigns=40)
    invalid, wrong = 0.02, 0.05
    assert found.tasks == pytest.approx(600, abs=100)
    assert found.baseline_error == pytest.approx(1 - (1 - invalid) * 0.99 * (1 - wrong), abs=0.01)
    assert found.variant_error == pytest.approx(1 - (1 - invalid) * 0.91 * (1 - wrong), abs=0.01)
    assert found.cost_usd == pytest.approx(
        found.tasks * 2 * 0.0012, rel=0.02
    )  # what is invalid is not answered
    assert found.campaigns.worse > 0.9
    assert np.all(found.costs_usd == pytest.approx(found.campaigns.ended * 2 * 0.0012, rel=0.1))


def test_an_equal_variant_is_rarely_blamed_and_fails_at_the_same_tasks(scenario: Path) -> None:
    found = simulate(
        load(scenario), "tax", variant="same", model=None, rules=Rules(margin=0.06), campaigns=60
    )
    assert found.campaigns.worse <= 1 / 60
    assert found.campaigns.not_worse > 0.9
    assert found.correlation > 0.4  # what a model lacks, and what is invalid, is the same twice


def test_simulate_says_how_it_ends_and_what_it_costs(command, scenario: Path) -> None:
    code, out, _ = command("simulate", scenario, "--agent", "tax", "--variant", "dull", "--campaigns", 20)
    assert code == 0
    assert out.startswith("the variant is worse: so ends a replay of tax's ")
    code, out, _ = command(
        "simulate", scenario, "--agent", "tax", "--model", "weak", "--campaigns", 20, "--json"
    )
    said = json.loads(out)
    assert code == 0
    assert said["worse"]["share"] > 0.9
    assert said["cost_usd_of_all"] == pytest.approx(said["tasks"] * (0.0012 + 0.00012), rel=0.02)
    assert said["tasks_median"] < said["tasks"]
    assert said["tasks_needed_at_once"]["0.8"] < said["tasks_needed_at_once"]["0.95"] < said["tasks"]


@pytest.mark.parametrize(
    ("agent", "variant", "model", "said"),
    [
        ("taxx", "same", None, "did you mean 'tax'"),
        ("tax", "samme", None, "did you mean 'same'"),
        ("tax", None, "strong", "the scenario has m, weak"),
        ("tax", None, None, "name what to try: --variant, of tax's"),
        ("idle", None, "weak", "no task comes to it"),
    ],
)
def test_what_the_scenario_does_not_have_is_refused(
    scenario: Path, agent: str, variant: str | None, model: str | None, said: str
) -> None:
    with pytest.raises(PairsError, match=said):
        simulate(load(scenario), agent, variant=variant, model=model, rules=Rules(), campaigns=10)
