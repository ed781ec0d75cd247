import re

import pytest

from glowsim import registry
from glowsim.report.world import _parameters, controllers, origins
from glowsim.scenario import load


def rows_of(block):
    return block["blocks"][0]["rows"]


def leaves(data, path=()):
    if isinstance(data, dict):
        return {leaf for key, child in data.items() for leaf in leaves(child, (*path, key))}
    return {path}


def test_parts_are_known_or_assumed_and_none_is_left_out(small):
    rows = {row[0]: row[1:] for row in rows_of(origins(small.scenario))}
    assert rows["fleet.tax.service"][:2] == ["fitted", "a fit"]
    assert rows["models.mini.input"][:2] == ["published", "a list of prices"]
    assert "input" not in rows["models.mini"][2].replace("cached_input", "")
    for part in (
        "models.mini",
        "models.large",
        "fleet.tax.failures",
        "fleet.tax.startup",
        "fleet.legal.service",
        "workload.0",
    ):
        assert rows[part][0] == "assumed", part
    assert "fleet.tax" not in rows


def test_an_origin_covers_what_lies_below_it(small):
    text = small_text_with_origins(
        "models: {origin: measured, source: a bill}, fleet: {origin: assumed, source: a guess}"
    )
    rows = {row[0]: row[1] for row in rows_of(origins(load(text)))}
    assert rows == {"models": "measured", "fleet": "assumed", "workload.0": "assumed"}


def small_text_with_origins(mapping):
    return f"""\
title: t
question: q
seed: 1
duration: 1s
models: {{m.1: {{input: $1/1M, output: $2/1M}}}}
fleet:
  - {{agent: a, model: m.1, instances: 1, concurrency: 1, service: {{law: time, time: 1s}}}}
  - {{agent: b, model: m.1, instances: 1, concurrency: 1, service: {{law: time, time: 1s}}}}
workload: [{{kind: poisson, rate: 1/s, users: 1, tokens_in: 1, tokens_out: 1}}]
origins: {{{mapping}}}
"""


def test_agents_by_number_and_models_with_dots_are_found():
    text = small_text_with_origins(
        "fleet.0.service: {origin: measured, source: x}, models.m.1.output: {origin: fitted, source: y}"
    )
    rows = {row[0]: row[1:] for row in rows_of(origins(load(text)))}
    assert rows["fleet.a.service"] == ["measured", "x", "law time, time 1s"]
    assert rows["models.m.1.output"] == ["fitted", "y", "$2/1M"]
    assert rows["fleet.b.service"][:2] == ["assumed", "none written; equal to fleet.a.service"]


def test_equal_parts_of_many_agents_share_a_row():
    rows = {row[0]: row[1] for row in rows_of(origins(load(small_text_with_origins(""))))}
    assert rows["fleet.a.service and 1 more alike"] == "assumed"


def test_many_parts_are_cut_and_counted():
    agents = "\n".join(
        f"  - {{agent: a{i}, model: m, instances: 1, concurrency: 1, service: {{law: time, time: {i + 1}s}}}}"
        for i in range(60)
    )
    text = f"""\
title: t
question: q
seed: 1
duration: 1s
models: {{m: {{input: $1/1M, output: $2/1M}}}}
fleet:
{agents}
workload: [{{kind: poisson, rate: 1/s, users: 1, tokens_in: 1, tokens_out: 1}}]
"""
    (table,) = origins(load(text))["blocks"]
    assert len(table["rows"]) == 20
    assert table["more"].startswith("and 42 more")


def test_controllers_show_parameters_defaults_and_whom_they_are_for(small):
    section = controllers(small.scenario)
    rows = {row[0]: row[1:] for row in rows_of(section)}
    use, parameters, agents = rows["scaler"]
    assert (use, agents) == ("agent_scaler", "all")
    written, default = parameters.split("; by default ")
    assert "max_instances 3" in written
    assert "look 5s" in written
    assert "target 0.7" in default
    assert not re.search(r"min_instances|max_instances", default)
    assert "guard" in section["lead"]
    assert "cache" not in section["lead"]


def test_an_agents_own_controller_and_a_shadow_have_their_rows():
    text = small_text_with_origins("").replace(
        "service: {law: time, time: 1s}}",
        "service: {law: time, time: 1s}, controllers: "
        "{balancer: {use: round_robin, shadow: {use: least_connections}}}}",
        1,
    )
    rows = {(row[0], row[1]): row[3] for row in rows_of(controllers(load(text)))}
    assert rows == {("balancer", "round_robin"): "a", ("balancer (shadow)", "least_connections"): "a"}


def test_limits_of_the_fleet_and_lists_are_shown_in_their_order():
    text = (
        small_text_with_origins("")
        + """
controllers:
  limiter:
    - {use: token_bucket, scope: fleet, rate: 9/s, burst: 9}
    - {use: budget, scope: fleet, limit: 5, every: 1d}
    - {use: gcra, rate: 3/s}
  breaker: [{use: probes}, {use: outlier}]
  ladder: {use: ladder, steps: [stale, apology]}
  retrier: {use: backoff, budget_ratio: null}
"""
    )
    section = controllers(load(text))
    rows = rows_of(section)
    assert [(row[0], row[1], row[3]) for row in rows] == [
        ("limiter", "token_bucket", "all together"), ("limiter", "budget", "all together"),
        ("limiter", "gcra", "all"), ("breaker", "probes", "all"), ("breaker", "outlier", "all"),
        ("retrier", "backoff", "all"), ("ladder", "ladder", "all"),
    ]  # fmt: skip
    shown = {row[1]: row[2] for row in rows}
    assert "rate 9/s" in shown["token_bucket"]
    assert shown["ladder"] == "steps [stale, apology]"
    assert "budget_ratio none" in shown["backoff"]
    assert "all must let a request through" in section["lead"]


def test_one_limiter_each_decides_alone():
    alone = "service: {law: time, time: 1s}, controllers: {limiter: {use: gcra, rate: %d/s}}}"
    text = small_text_with_origins("")
    for rate in (3, 4):
        text = text.replace("service: {law: time, time: 1s}}", alone % rate, 1)
    section = controllers(load(text))
    assert [row[3] for row in rows_of(section)] == ["a", "b"]
    assert "decide together" not in section["lead"]


@pytest.mark.parametrize(
    ("family", "use"), [(family, use) for family, uses in registry.BUILT_INS.items() for use in uses]
)
def test_every_built_in_can_be_shown(family, use):
    said = _parameters(family, use, {})
    assert said
    assert "None" not in said
