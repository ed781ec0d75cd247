"""The fold of events and commands, against the tables that are made of the same journal in another way."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lived import lived_through, telemetry_of
from scipy.stats import binomtest

from glowsim.core.types import (
    Advance,
    Alert,
    Answer,
    Arrived,
    Change,
    Changed,
    ChangeKind,
    Code,
    Constraint,
    Dispatch,
    Fail,
    Finished,
    InstanceChanged,
    Observed,
    Outcome,
    Plan,
    Raise,
    Reason,
    Request,
    Scale,
    Severity,
    State,
    Usage,
    Woke,
)
from glowsim.live.dashboard.document import VERSION, Document
from glowsim.live.dashboard.judging import Limits, Situation, at_least, judged, limits_of
from glowsim.live.windows import Tally, bucket_of
from glowsim.scenario import load

TEXT = """
title: A fleet with everything
question: Do two folds of one journal agree?
seed: 3
duration: 20m
models:
  m: {input: $1/1M, cached_input: $0.5/1M, output: $2/1M}
fleet:
  - agent: tax
    domain: tax
    model: m
    instances: 2
    concurrency: 4
    startup: 20s
    instance_price: $0.50/h
    timeout: 5s
    service: {law: time, time: {law: lognormal, median: 700ms, sigma: 0.8}}
    failures: {invalid: 3%, error: 6%}
    variants: {new: {slowdown: 0.5}}
    controllers:
      splitter: {use: canary, salt: x, weight: 30%, hold: 5m, then: [60%, 100%], step: 5m, minimum: 20}
      detector: [{use: slo, metric: error, threshold: 0, objective: 99%, burn: 2, window: 5m, short: 1m, minimum: 5}]
  - agent: audit
    domain: audit
    model: m
    instances: 1
    concurrency: 2
    startup: 5s
    instance_price: $1/h
    timeout: 3s
    service: {law: time, time: 900ms}
    failures: {error: 40%}
    controllers:
      limiter: {use: token_bucket, rate: 2/s, burst: 5}
      ladder: {use: ladder, steps: [apology]}
workload:
  - kind: poisson
    rate: 5/s
    agents: {tax: 3, audit: 2}
    tokens_in: {law: lognormal, median: 900, sigma: 0.5, max: 4000}
    tokens_out: 50
    cacheable: {share: 40%, keys: 50, zipf: 1.0}
controllers:
  queue: {use: fifo, limit: 30}
  cache: {use: lru, entries: 20, ttl: 60s}
  retrier: {use: backoff, attempts: 2, base: 100ms}
  breaker: {use: consecutive, failures: 4, open: 10s}
  scaler: {use: agent_scaler, min_instances: 1, max_instances: 4, target: 70%, scale_up: 80%, scale_down: 30%,
           cooldown_up: 30s, cooldown_down: 60s}
slos:
  - {name: fast enough, metric: latency_s_p95, max: 2s}
  - {name: hardly any errors, metric: error_rate, max: 2%, agent: tax}
"""


@pytest.fixture(scope="module")
def lived():
    """A journal of a simulation, its tables, and what telemetry made of the same events."""
    found = lived_through(load(TEXT))
    found.document = Document(found.scenario, found.telemetry, source="simulation").made(found.t_s)
    return found


def test_what_became_of_every_request_agrees_with_the_tables(lived):
    requests = lived.tables.requests
    for number, agent in enumerate(lived.document["agents"]):
        mine = requests["agent"] == number
        day = agent["windows"][-1]
        endings = np.bincount(requests["ending"][mine], minlength=5)
        assert day["arrived"] == mine.sum()
        assert day["answered"] == endings[1]
        assert day["rejected"] == endings[2]
        assert day["bad"] == endings[2] + endings[3]
        assert day["abandoned"] == endings[4]
        assert agent["open"] == endings[0]
        assert day["hits"] == (requests["how"][mine & (requests["ending"] == 1)] == Code.CACHED).sum()
        assert day["hits"] > 0
        exact = np.quantile(
            requests["latency_s"][mine & (requests["ending"] == 1)], (0.5, 0.95, 0.99), method="inverted_cdf"
        )
        assert [day["p50_s"], day["p95_s"], day["p99_s"]] == pytest.approx(list(exact), rel=0.0102, abs=2e-6)
    fleet = lived.document["fleet"]["windows"][-1]
    assert fleet["arrived"] == len(requests["agent"])
    assert fleet["retries"] == np.maximum(requests["attempts"].astype(int) - 1, 0).sum() > 0


def test_recent_windows_hold_what_the_tables_say_of_their_time(lived):
    requests = lived.tables.requests
    for i, window in enumerate(lived.document["windows"]):
        since_s = window["since_s"]
        recent = (requests["t_end_s"] >= since_s) & (requests["ending"] == 1)
        figures = lived.document["fleet"]["windows"][i]
        assert figures["arrived"] == (requests["t_arrive_s"] >= since_s).sum()
        assert figures["answered"] == recent.sum() > 20
        exact = np.quantile(requests["latency_s"][recent], (0.5, 0.95, 0.99), method="inverted_cdf")
        found = [figures["p50_s"], figures["p95_s"], figures["p99_s"]]
        assert found == pytest.approx(list(exact), rel=0.0102, abs=2e-6)


def test_costs_agree_with_the_tables(lived):
    token_usd = lived.tables.attempts["cost_usd"].sum()
    cost = lived.document["fleet"]["cost_usd"]
    assert cost["tokens"] == pytest.approx(token_usd, rel=1e-5)
    instances, instance_usd = lived.tables.instances, 0.0
    for number in np.unique(instances["instance"]):
        mine = instances["instance"] == number
        times, states = instances["t_s"][mine], instances["state"][mine]
        over = states >= State.GONE
        end_s = times[over][0] if over.any() else lived.t_s
        instance_usd += (end_s - times[0]) / 3600 * instances["usd_per_hour"][mine][0]
    assert cost["instances"] == pytest.approx(instance_usd, rel=1e-5)
    parts = [each["cost_usd"] for each in lived.document["domains"]]
    assert math.fsum(each["tokens"] + each["instances"] for each in parts) == pytest.approx(
        token_usd + instance_usd, rel=1e-5
    )
    assert cost["month"] == pytest.approx((token_usd + instance_usd) / lived.t_s * 30 * 86_400, rel=1e-3), (
        "the 24 h window is the whole run"
    )


def test_decisions_and_stages_come_with_their_reasons(lived):
    decided = lived.tables.decisions
    scaled = decided["kind"] == "scale"
    assert [each["want"] for each in lived.document["decisions"]] == decided["value"][scaled][::-1][
        :50
    ].tolist()
    assert all(each["why"] for each in lived.document["decisions"])
    (rollout,) = lived.document["rollouts"]
    stages = decided["value"][decided["kind"] == "rollout"].tolist()
    assert [each["stage"] for each in reversed(rollout["stages"])] == stages != []
    assert "canary outcomes" in rollout["stages"][-1]["why"]
    requests = lived.tables.requests
    mine = (requests["agent"] == 0) & (requests["t_dispatch_s"] > 0) & np.isin(requests["ending"], (1, 2, 3))
    for number, variant in enumerate(rollout["variants"]):
        dispatched = mine & (requests["variant"] == number)
        assert variant["ended"] == dispatched.sum() > 0


def test_nothing_is_kept_of_what_is_over(lived):
    telemetry = lived.telemetry
    assert not telemetry._attempts
    assert len(telemetry._arrived) == sum(agent.open for agent in telemetry.agents) == 0
    assert not telemetry._variants


def test_the_document_is_json_and_the_trend_adds_up(lived):
    again = json.loads(json.dumps(lived.document, allow_nan=False))
    assert again["version"] == VERSION
    assert again["at_unix_s"] is None, "a simulation has no calendar"
    fleet = again["fleet"]["trend"]
    for name in ("arrived", "bad"):
        assert [
            sum(column) for column in zip(*(each["trend"][name] for each in again["agents"]), strict=True)
        ] == [sum(fleet[name][i : i + 3]) for i in range(0, 90, 3)]


# --- pieces -----------------------------------------------------------------------------------------

OWN, ARRIVED = Reason(Code.OWN), Reason(Code.ARRIVED)


def watching(text=TEXT):
    scenario = load(text)
    return telemetry_of(scenario), scenario


def made(telemetry, scenario, t_s):
    return Document(scenario, telemetry, source="simulation").made(t_s)


def alert(severity, reason, subject="error", agent=0):
    return Raise(Alert(agent, subject, severity, reason))


def test_an_alert_is_open_until_it_is_taken_back():
    telemetry, scenario = watching()
    fast, slow = Reason(Code.BURNING, a=20.0, b=20.0, c=14.4), Reason(Code.BURNING, a=8.0, b=8.0, c=6.0)
    telemetry.saw(Woke(10.0), [alert(Severity.CRITICAL, fast), alert(Severity.WARNING, slow)])
    document = made(telemetry, scenario, 5000.0)
    assert [each["severity"] for each in document["alerts"]["open"]] == ["warning", "critical"]
    assert document["agents"][0]["alerts"] == 2
    telemetry.saw(Woke(5001.0), [alert(Severity.INFO, Reason(Code.RECOVERED, a=1.0, b=7.2))])
    document = made(telemetry, scenario, 5001.0)
    assert [each["severity"] for each in document["alerts"]["open"]] == ["warning"], "7.2 is half of 14.4"
    telemetry.saw(Woke(5002.0), [alert(Severity.INFO, Reason(Code.RECOVERED, a=1.0, b=3.0))])
    document = made(telemetry, scenario, 5002.0)
    assert document["alerts"]["open"] == []
    assert len(document["alerts"]["recent"]) == 4


def test_an_alert_that_nothing_takes_back_is_open_for_a_quarter_of_an_hour():
    telemetry, scenario = watching()
    telemetry.saw(Woke(10.0), [alert(Severity.WARNING, Reason(Code.DRIFT_UP, a=9.0, b=5.0, c=1.0))])
    assert len(made(telemetry, scenario, 900.0)["alerts"]["open"]) == 1
    assert made(telemetry, scenario, 911.0)["alerts"]["open"] == []


def test_alerts_are_bounded_in_number_and_length():
    telemetry, scenario = watching()
    for i in range(1000):
        subject = f"{i} " + "x" * 10_000
        telemetry.saw(
            Woke(float(i)), [alert(Severity.CRITICAL, Reason(Code.CONTROLLER_FAILED), subject=subject)]
        )
    document = made(telemetry, scenario, 999.0)
    assert len(document["alerts"]["open"]) <= 100
    assert max(len(each["subject"]) for each in document["alerts"]["open"]) == 300


def test_feedback_is_counted_by_metric_and_nothing_is_made_up():
    telemetry, scenario = watching()
    assert made(telemetry, scenario, 0.0)["fleet"]["feedback"] == {}
    for value in (5.0, 4.0, math.nan, math.inf):
        telemetry.saw(Observed(1.0, 1, 0, 0, 1, 1.0, "rating", value), ())
    telemetry.saw(Observed(1.0, 1, 1, 0, 1, 1.0, "rating", 3.0), ())
    for i in range(100):
        telemetry.saw(Observed(2.0, 1, 0, 0, 1, 1.0, f"metric {i}", 1.0), ())
    document = made(telemetry, scenario, 3.0)
    assert document["fleet"]["feedback"]["rating"] == {"n": 3, "mean": 4.0}
    assert document["agents"][0]["feedback"]["rating"] == {"n": 2, "mean": 4.5}
    feedback = document["agents"][0]["feedback"]
    assert len(feedback) == 17
    assert feedback["other"]["n"] == 85


def test_today_begins_at_midnight_utc():
    telemetry, scenario = watching()
    telemetry.epoch_unix_s = 86_400.0 * 20_000 - 100.0  # 100 s to midnight
    usage = Usage(1_000_000, 0, 0)
    for t_s, number in ((10.0, 1), (150.0, 2)):
        plan = Plan(0, 0, 1, 1)
        telemetry.saw(Arrived(t_s, Request(number, 0, 1, 1)), [Dispatch(number, number, 0, plan, ARRIVED)])
        telemetry.saw(Finished(t_s + 1.0, number, Outcome.OK, usage), [Answer(number, number, OWN)])
        cost = made(telemetry, scenario, t_s + 2.0)["fleet"]["cost_usd"]
        assert (cost["tokens"], cost["today"]) == (number, 1.0)


def test_what_came_before_the_fold_began_is_passed_over():
    telemetry, _ = watching()
    telemetry.saw(Finished(1.0, 7, Outcome.OK, Usage()), [Answer(7, 7, OWN)])
    telemetry.saw(Woke(2.0), [Dispatch(8, 8, 0, Plan(0, 0, 1, 1), ARRIVED), Fail(9, Outcome.ERROR, OWN)])
    assert telemetry.agents[0].open == 0


def test_breakers_tell_since_when_they_are_open_and_orders_are_heard():
    telemetry, scenario = watching()
    plane = telemetry.plane

    def tell(event):
        telemetry.saw(event, plane.handle(event))

    tell(InstanceChanged(0.0, 0, 0, State.READY))
    for i in range(1, 7):
        t_s = float(i)
        tell(Arrived(t_s, Request(i, 0, 9, 9)))
        for attempt in list(telemetry._attempts):
            tell(Finished(t_s + 0.5, attempt, Outcome.ERROR, Usage()))
    tell(Changed(8.0, Change(ChangeKind.PAUSE_SCALING, 0)))
    document = made(telemetry, scenario, 8.0)
    (breaker,) = document["breakers"]
    assert (breaker["agent"], breaker["instance"], breaker["state"]) == ("tax", 0, "open")
    assert 0.0 < breaker["since_s"] < breaker["again_s"] == breaker["since_s"] + 10.0
    assert document["agents"][0]["status"] == "critical"
    assert document["agents"][0]["scaling_paused"] is True
    tell(Changed(9.0, Change(ChangeKind.RESUME_SCALING, 0)))
    assert made(telemetry, scenario, 9.0)["agents"][0]["scaling_paused"] is False
    since_s = breaker["since_s"]
    tell(Woke(since_s + 10.0))
    half_open = made(telemetry, scenario, since_s + 10.0)["breakers"]
    assert [(each["state"], each["since_s"]) for each in half_open] == [("half-open", since_s)]
    tell(Arrived(since_s + 10.5, Request(100, 0, 9, 9)))
    for attempt in list(telemetry._attempts):
        tell(Finished(since_s + 11.0, attempt, Outcome.OK, Usage()))
    assert not telemetry.opened, "an attempt that went well closed it, and nobody had to ask"
    for attempt in list(telemetry._attempts):
        tell(Finished(since_s + 12.0, attempt, Outcome.OK, Usage()))
    tell(InstanceChanged(since_s + 13.0, 0, 0, State.FAILED))
    assert made(telemetry, scenario, since_s + 13.0)["breakers"] == []
    assert not telemetry.opened


def test_sizes_say_what_bound_them():
    telemetry, scenario = watching()
    reason = Reason(Code.LOAD_HIGH, Constraint.MAXIMUM, 0.934, 0.8, 12)
    telemetry.saw(Woke(1.0), [Scale(0, 0, 0, 4, (), reason), Advance(0, 1, 0.25, Reason(Code.STARTED))])
    document = made(telemetry, scenario, 1.0)
    expected = {
        "t_s": 1.0,
        "agent": "tax",
        "before": 2,
        "want": 4,
        "why": "load 0.93 over 0.80; 12 wanted, bound by the maximum",
    }
    assert document["decisions"] == document["agents"][0]["decisions"] == [expected]
    assert document["rollouts"][0]["weight"] == 0.25


# --- judging ----------------------------------------------------------------------------------------


@given(st.integers(1, 100_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_lower_end_of_a_share_is_scipys(case):
    hits, n = case
    expected = binomtest(hits, n).proportion_ci(0.95, method="wilson").low
    # scipy's interval is two-sided: its lower end is ours.
    assert at_least(hits, n) == pytest.approx(expected, abs=1e-9)


def situation(**given):
    windows = tuple((name, given.pop(name, Tally())) for name in ("minute", "quarter", "day"))
    return Situation(
        **{"ready": 2, "starting": 0, "wanted": 2, "waiting": 0, "breakers": 0, "alerts": ()} | given,
        windows=windows,
    )


def tally(answered, failed=0, latency_s=0.1):
    some = Tally()
    some.arrived, some.answered, some.failed = answered + failed, answered, failed
    if answered:
        some.latencies = {bucket_of(latency_s): answered}
    return some


LIMITS = Limits(0.05, "errors", ((0.95, 2.0, "p95"),))


@pytest.mark.parametrize(
    ("given", "status", "says"),
    [
        ({}, "idle", ""),
        ({"day": tally(1)}, "ok", ""),
        ({"ready": 0}, "critical", "no instance is ready"),
        ({"ready": 0, "starting": 1}, "attention", "1 starting"),
        ({"ready": 0, "wanted": 0}, "idle", ""),
        ({"breakers": 1}, "attention", "1 of 2 breakers"),
        ({"breakers": 2}, "critical", "2 of 2 breakers"),
        ({"alerts": (Severity.CRITICAL,)}, "critical", "1 critical alert open"),
        ({"alerts": (Severity.WARNING,) * 2}, "attention", "2 warning alerts open"),
        ({"alerts": (Severity.INFO,)}, "idle", ""),
        (
            {"day": tally(17, 3), "quarter": tally(2, 2)},
            "attention",
            "15 % errors in day (3 of 20), over 5 %",
        ),
        ({"day": tally(19, 1)}, "ok", ""),
        ({"day": tally(7, 3)}, "ok", ""),
        ({"day": tally(800, 200), "quarter": tally(30)}, "ok", ""),
        (
            {"day": tally(30, latency_s=3.0)},
            "attention",
            "100 % of answers in day take over 2 s, where 5 % may",
        ),
        ({"day": tally(30, latency_s=1.9)}, "ok", ""),
    ],
)
def test_an_agent_is_judged_by_rules_that_say_why(given, status, says):
    found, why = judged(situation(**given), LIMITS)
    assert found == status
    assert says in "; ".join(why)
    assert bool(why) == (status in ("attention", "critical"))


def test_limits_are_the_scenarios_service_levels():
    tax, audit = limits_of(load(TEXT))
    assert tax == Limits(0.02, "hardly any errors", ((0.95, 2.0, "fast enough"),))
    assert audit == Limits(0.05, "the scenario names no limit", ((0.95, 2.0, "fast enough"),))
