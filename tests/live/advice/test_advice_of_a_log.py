"""What is recommended of a log: by scalers, limits, guards, breakers and detectors, each against what it must say."""

from __future__ import annotations

from math import ceil

import pytest

from glowsim.core.types import Advised, Arrived, Cancel, Dispatch, Finished, Reject, Scale

SCALER = {"use": "agent_scaler", "min_instances": 1, "max_instances": 9, "look": "15s"}


def test_the_size_follows_littles_law(beside, standing):
    here = beside.place(beside.fleet({"scaler": SCALER | {"cooldown": "1m"}}))
    here.write(*beside.steady(10.0, 2.0))
    found = here.advise(until_s=300.0)
    asked = [each for each in here.commands(Advised) if each.family == "scaler"]
    # 20 in the system, 4 a place in an instance: 5 instances' work, at the target of 0.7 that is 8.
    assert [(each.present, each.wanted) for each in asked][-1] == (2.0, float(ceil(10 * 2.0 / 4 / 0.7)))
    assert standing(found) == [("tax", "scale", "have 8 instances, not 2")]
    assert here.replayed().proved


def test_nothing_is_carried_out(beside):
    here = beside.place(
        beside.fleet({"scaler": SCALER, "limiter": {"use": "token_bucket", "rate": "1/s", "burst": 1}})
    )
    here.write(*beside.steady(10.0, 2.0, until_s=60.0))
    here.advise(until_s=300.0)
    for kind in (Scale, Reject, Cancel):
        assert here.commands(kind) == []
    arrived, dispatched, finished = map(here.commands, (Arrived, Dispatch, Finished))
    assert len(arrived) == len(dispatched) == len(finished) == 600


def test_cooldown_does_not_take_back_what_nobody_did(beside, standing):
    here = beside.place(beside.fleet({"scaler": SCALER | {"cooldown": "5m"}}))
    here.write(*beside.steady(10.0, 2.0, until_s=200.0))
    found = here.advise(until_s=200.0)
    assert len(found) == 1
    assert standing(found)


def test_a_size_that_is_right_again_ends_the_advice(beside, standing):
    here = beside.place(beside.fleet({"scaler": SCALER | {"cooldown": "30s"}}))
    here.write(*beside.steady(10.0, 2.0, until_s=60.0), *beside.steady(2.0, 2.0, since_s=60.0, until_s=600.0))
    found = here.advise(until_s=600.0)
    assert found
    assert not standing(found)
    assert here.replayed().proved


def test_a_budget_counts_what_it_would_have_admitted(beside, standing):
    here = beside.place(beside.fleet({"limiter": {"use": "budget", "limit": 0.0060001, "every": "1h"}}))
    here.write(*beside.steady(1.0, 0.5, until_s=70.0))  # each costs 100 x $1e-6 + 10 x $2e-6 = $0.00012
    (found,) = here.advise(until_s=200.0)
    assert (found.kind, found.times) == ("refuse", 20)
    assert found.t_s % 86_400 == pytest.approx(12 * 3600 + 50)
    assert standing([found])


def test_a_refusal_that_has_not_come_for_a_while_is_over(beside, standing):
    here = beside.place(beside.fleet({"guard": {"use": "size", "max_tokens_in": 1000}}))
    here.write(beside.row(0.0, tokens_in=1001), beside.row(1.0, tokens_in=1000), beside.row(600.0))
    (found,) = here.advise(until_s=700.0)
    assert (found.kind, found.times, found.why) == ("refuse", 1, "1001 tokens, more than the 1000 allowed")
    assert not standing([found])


def test_a_breaker_is_heard_where_the_log_names_instances(beside, standing):
    here = beside.place(beside.fleet({"breaker": {"use": "consecutive", "failures": 3}}))
    here.write(
        *[beside.row(float(i), instance="http://10.0.0.1:8000/v1", status="error") for i in range(3)],
        *[beside.row(float(i), instance="http://10.0.0.2:8000/v1") for i in range(3)],
    )
    found = here.advise(until_s=63.5)
    assert standing(found) == [("tax", "breaker", "send nothing to 10.0.0.1:8000")]
    assert found[0].evidence == {"failed": 3, "of": 3}
    here.write(beside.row(40.0, instance="10.0.0.1:8000"))
    here.forget()
    assert not standing(here.advise(until_s=200.0))
    assert here.replayed().proved


def test_a_breaker_is_not_heard_where_the_log_names_none(beside):
    here = beside.place(beside.fleet({"breaker": {"use": "consecutive", "failures": 3}}))
    here.write(*[beside.row(float(i), status="error") for i in range(30)])
    assert here.advise(until_s=200.0) == []


def test_an_only_instance_need_not_be_named(beside, standing):
    here = beside.place(beside.fleet({"breaker": {"use": "consecutive", "failures": 3}}, instances=1))
    here.write(*[beside.row(float(i), status="error") for i in range(3)])
    assert [kind for _, kind, _ in standing(here.advise(until_s=64.5))] == ["breaker"]


def test_an_alert_is_taken_back_when_it_recovers(beside, standing):
    slo = {"use": "slo", "metric": "error", "threshold": 0.5, "objective": 0.9, "burn": 2, "window": "2m"}
    here = beside.place(beside.fleet({"detector": [slo]}))
    here.write(*beside.steady(1.0, 0.5, until_s=60.0, status="error"))
    found = here.advise(until_s=119.0)
    assert [kind for _, kind, _ in standing(found)] == ["alert"]
    here.write(*beside.steady(1.0, 0.5, since_s=60.0, until_s=600.0))
    here.forget()
    assert not standing(here.advise(until_s=660.0))


def test_a_detector_hears_what_the_log_says_and_when(beside):
    drift = {"use": "page_hinkley", "metric": "latency_s", "delta": 0.1, "threshold": 5, "minimum": 30}
    here = beside.place(beside.fleet({"detector": [drift]}))
    here.write(
        *beside.steady(1.0, 0.5, until_s=100.0), *beside.steady(1.0, 1.5, since_s=100.0, until_s=200.0)
    )
    (found,) = here.advise(until_s=300.0)
    after_s = found.t_s % 86_400 - 12 * 3600 - 101.5
    assert (
        5 <= after_s <= 8
    )  # each value adds 1.5 - 0.5 - 0.1 to the statistic, but for the mean that follows it
    assert beside.noon_s % 86_400 == 12 * 3600


def test_a_name_from_the_log_is_made_fit_to_print(beside, capsys):
    here = beside.place(beside.fleet({"breaker": {"use": "consecutive", "failures": 1}}))
    here.write(beside.row(0.0, instance="\x1b[2J" + "x" * 500, status="error"))
    (found,) = here.advise(until_s=62.0)
    assert "\x1b" not in capsys.readouterr().out
    assert len(found.advice) < 250
