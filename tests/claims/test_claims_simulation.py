"""What a scenario gives for a claim: a figure, an agent's, a domain's share, or a difference of paired runs."""

from __future__ import annotations

import pytest

from glowsim.claims.document import Claims, Shown
from glowsim.claims.simulation import Measured, amount, simulate
from glowsim.core.errors import GlowsimError
from glowsim.scenario.loader import load

SMALL = """
title: two agents
question: how many?
seed: 3
duration: 100s
replications: 3
models: {m: {input: $1/1M, output: $2/1M}}
fleet:
  - {agent: one, domain: tax, model: m, instances: 1, concurrency: 9, instance_price: $3/h, service: &s
      {law: time, time: 1s}}
  - {agent: two, domain: audit, model: m, instances: 1, concurrency: 9, instance_price: $1/h, service: *s}
workload:
  - {kind: poisson, rate: 1/s, tokens_in: 100, tokens_out: 10, cacheable: {share: 100%, keys: 1}}
quality:
  kinds: {any: {shared: 0.5, repeat: 0.8}}
  models: {m: {accuracy: 70%, hallucination: 0, format: 0, refusal: 0}}
  context_loss: 0
  confidence: 70%
  feedback:
    rating:
      shares: {correct: 100%, wrong: 100%, hallucination: 0, format: 0, refusal: 0}
      if_correct: [0, 0, 0, 0, 1]
      otherwise: [1, 0, 0, 0, 0]
      delay: {median: 1s, sigma: 0}
controllers:
  cache: {use: lru}
"""


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return path


def claims(path, *shown, value=1.0):
    names = {each["claim"] for each in shown}
    return Claims.model_validate(
        {
            "title": "t",
            "source": "s",
            "claims": {name: {"value": value, "says": "so", "where": "here"} for name in names},
            "shown": [{"scenario": str(path), **each} for each in shown],
        }
    )


def test_every_kind_of_figure_comes_from_paired_replications(small):
    found = simulate(
        claims(
            small,
            {"claim": "hits", "metric": "cache_hit_rate"},
            {"claim": "tokens", "metric": "tokens_used / launched", "less": ["controllers.cache=null"]},
            {"claim": "rating", "metric": "(rating - 1) / 4 - accuracy"},
            {"claim": "tax", "metric": "cost_usd", "domain": "tax"},
            {"claim": "slow", "metric": "latency_s_max", "agent": "two"},
        )
    )
    assert found["tokens"].value == pytest.approx(110 * found["hits"].value), "what a hit does not use"
    assert found["hits"].value > 0.9
    assert found["tokens"].low < found["tokens"].value < found["tokens"].high
    assert found["rating"].value == pytest.approx(0.0, abs=0.05), "5 where it is right, 1 where it is wrong"
    assert found["tax"].value == pytest.approx(0.75, abs=0.01), "$3 of $4 an hour"
    assert found["slow"].value == pytest.approx(1.0)


def test_workers_change_nothing(small):
    shown = {"claim": "hits", "metric": "cache_hit_rate"}
    assert simulate(claims(small, shown), jobs=2) == simulate(claims(small, shown), jobs=1)


def test_a_difference_is_taken_seed_by_seed(small):
    shown = Shown(claim="x", scenario="s", metric="cost_usd", less=("a=b",))
    plain, other = ([Measured({"cost_usd": x}, {}) for x in values] for values in ((1.0, 5.0), (2.0, 8.0)))
    assert amount(shown, load(small), plain, other) == [1.0, 3.0]


@pytest.mark.parametrize(
    ("shown", "said"),
    [
        ({"metric": "latency_s_p95", "agent": "three"}, "no agent 'three'"),
        ({"metric": "cost_usd", "domain": "support"}, "no domain 'support'"),
        ({"metric": "first_token_s_p95 / degraded_rate"}, "division by zero|no first_token|no finite"),
    ],
)
def test_a_figure_that_the_scenario_does_not_have_is_named(small, shown, said):
    with pytest.raises((GlowsimError, ValueError), match=said):
        simulate(claims(small, {"claim": "x", **shown}))


@pytest.mark.parametrize(
    ("shown", "said"),
    [
        ({"metric": "latency_p95"}, "unknown metric 'latency_p95'"),
        ({"metric": "cost_usd / / 2"}, "no arithmetic"),
        ({"metric": "rating", "agent": "one"}, "of the fleet only"),
        ({"metric": "latency_s_p95", "domain": "tax"}, "a domain has a share"),
    ],
)
def test_what_cannot_be_shown_is_refused(shown, said):
    with pytest.raises(ValueError, match=said):
        claims("x", {"claim": "x", **shown})
