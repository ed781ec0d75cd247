"""Prometheus' text of a fleet: read by Prometheus' own parser, against tables that are made in another way."""

from __future__ import annotations

import asyncio
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lived import lived_through, telemetry_of

from glowsim import build
from glowsim.commands.prometheus import exposed
from glowsim.core import journal
from glowsim.core.types import (
    Advance,
    Arrived,
    Code,
    Dispatch,
    Event,
    Finished,
    FirstToken,
    InstanceChanged,
    Outcome,
    Plan,
    Reason,
    Request,
    State,
    Usage,
    Woke,
)
from glowsim.live.exposition import _labels, exposition
from glowsim.live.telemetry import BUCKETS_S, Telemetry
from glowsim.scenario import load

pytestmark = pytest.mark.usefixtures("_serving")

TEXT = """
title: A fleet with everything
question: Do metrics and tables of one journal agree?
seed: 5
duration: 10m
models:
  small: {input: $1/1M, cached_input: $0.5/1M, output: $2/1M}
  large: {input: $5/1M, output: $20/1M}
fleet:
  - agent: tax
    domain: tax
    model: small
    instances: 2
    concurrency: 3
    instance_price: $0.50/h
    timeout: 5s
    service: {law: time, time: {law: lognormal, median: 700ms, sigma: 0.8}}
    failures: {invalid: 3%, error: 10%}
    variants: {new: {slowdown: 0.5}}
    controllers:
      splitter: {use: canary, salt: x, weight: 30%, hold: 5m, then: [60%, 100%], step: 5m, minimum: 20}
      detector:
        - {use: slo, metric: error, threshold: 0, objective: 99%, burn: 2, window: 5m, short: 1m, minimum: 5}
        - {use: page_hinkley, metric: latency_s, delta: 0.01, threshold: 500}
      ladder: {use: ladder, steps: [model large]}
      cache: {use: lru, entries: 20, ttl: 60s}
      breaker: {use: consecutive, failures: 4, open: 10s}
  - agent: audit
    model: large
    instances: 1
    concurrency: 2
    timeout: 3s
    service: {law: tokens, base: 100ms, input: 10us/token, output: 10ms/token, slowdown: 0.1}
    failures: {error: 20%}
    controllers:
      limiter: {use: token_bucket, rate: 2/s, burst: 5}
workload:
  - kind: poisson
    rate: 3/s
    agents: tax
    tokens_in: 900
    tokens_out: 50
    cacheable: {share: 40%, keys: 50, zipf: 1.0}
  - {kind: poisson, rate: 3/s, agents: audit, tokens_in: 900, tokens_out: 50, stream: true}
controllers:
  queue: {use: fifo, limit: 30}
  limiter: {use: budget, scope: fleet, limit: 100, every: 1d, of: usd}
  retrier: {use: backoff, attempts: 2, base: 100ms}
"""


def read(text):
    """Return (name, labels...) -> value, once each, of a text that keeps Prometheus' rules."""
    from prometheus_client.parser import text_string_to_metric_families

    values = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation.strip(), f"{family.name} has no HELP"
        assert family.type in ("counter", "gauge", "histogram")
        assert re.fullmatch(r"glowsim_[a-z][a-z_]*[a-z]", family.name), family.name
        assert not family.name.endswith(("_total", "_count", "_sum", "_bucket"))
        for sample in family.samples:
            assert (family.type == "counter") == sample.name.endswith("_total"), sample.name
            key = (sample.name.removeprefix("glowsim_"), *sorted(sample.labels.items()))
            assert key not in values, f"{key} is there twice"
            assert set(sample.labels) <= ALLOWED, "labels of few values only"
            assert np.isfinite(sample.value)
            values[key] = sample.value
    return values


ALLOWED = {
    "agent", "detector", "domain", "le", "metric", "model", "outcome", "part", "reason", "region", "result", "scope",
    "version",
}  # fmt: skip


def value(values, name, **labels):
    return values[name, *sorted(labels.items())]


def total(values, name, **labels):
    return sum(v for (n, *has), v in values.items() if n == name and set(labels.items()) <= set(has))


@pytest.fixture(scope="module")
def lived():
    """A simulation's journal, its tables, and its metrics."""
    found = lived_through(load(TEXT))
    found.values = read(exposition(found.telemetry, found.t_s))
    return found


AGENTS = ("tax", "audit")


def test_every_name_of_the_reference_is_there(lived):
    names = {re.sub("_(bucket|sum|count)$", "", key[0]) for key in lived.values}
    assert names == {
        "requests_total", "request_duration_seconds", "time_to_first_token_seconds", "queue_depth",
        "queue_wait_seconds", "inflight_requests", "agent_up", "breaker_state", "retries_total", "ratelimited_total",
        "cache_requests_total", "canary_weight", "drift_statistic", "desired_replicas", "build_info",
        "agent_info", "open_requests", "ready_replicas", "cost_usd_total",
    }  # fmt: skip


def test_requests_agree_with_the_tables(lived):
    requests, attempts = lived.tables.requests, lived.tables.attempts
    for number, agent in enumerate(AGENTS):
        mine = requests["agent"] == number
        endings = np.bincount(requests["ending"][mine], minlength=5)
        assert total(lived.values, "requests_total", agent=agent) == mine.sum() - endings[0]
        assert total(lived.values, "requests_total", agent=agent, outcome="answered") == endings[1] > 50
        assert total(lived.values, "requests_total", agent=agent, outcome="rejected") == endings[2]
        for outcome in (Outcome.ERROR, Outcome.INVALID, Outcome.TIMEOUT):
            failed = mine & (requests["ending"] == 3) & (requests["outcome"] == outcome)
            assert (
                total(lived.values, "requests_total", agent=agent, outcome=outcome.name.lower())
                == failed.sum()
            )
        last = dict(zip(attempts["request_id"].tolist(), attempts["model"].tolist(), strict=True))
        models = [
            last.get(each, -1) for each in requests["request_id"][mine & (requests["ending"] > 0)].tolist()
        ]
        for model, name in ((0, "small"), (1, "large"), (-1, "")):
            assert total(lived.values, "requests_total", agent=agent, model=name) == models.count(model)
    assert total(lived.values, "requests_total", agent="tax", model="large") > 0, "by the ladder"


def test_durations_agree_with_the_tables(lived):
    requests = lived.tables.requests
    dispatched = lived.recording.table(Dispatch)
    agent_of = dict(zip(requests["request_id"].tolist(), requests["agent"].tolist(), strict=True))
    whose = np.array([agent_of[each] for each in dispatched["request_id"].tolist()])
    waits = np.where(dispatched["code"] == Code.QUEUED, dispatched["a"], 0.0)
    for number, agent in enumerate(AGENTS):
        mine = requests["agent"] == number
        first = (requests["t_first_token_s"] - requests["t_arrive_s"])[mine]
        for name, expected in (
            ("request_duration_seconds", requests["latency_s"][mine & (requests["ending"] == 1)]),
            ("time_to_first_token_seconds", first[~np.isnan(first)]),
            ("queue_wait_seconds", waits[whose == number]),
        ):
            assert value(lived.values, f"{name}_count", agent=agent) == len(expected)
            assert value(lived.values, f"{name}_sum", agent=agent) == pytest.approx(expected.sum(), abs=1e-9)
            for bound in (*BUCKETS_S, np.inf):
                le = "+Inf" if bound == np.inf else str(bound)
                assert value(lived.values, f"{name}_bucket", agent=agent, le=le) == (expected <= bound).sum()
    assert total(lived.values, "time_to_first_token_seconds_count", agent="audit") > 50
    assert waits.max() > 0.1


def test_attempts_limits_and_cost_agree_with_the_tables(lived):
    requests = lived.tables.requests
    for number, agent in enumerate(AGENTS):
        mine = requests["agent"] == number
        again = np.maximum(requests["attempts"][mine].astype(int) - 1, 0).sum()
        assert total(lived.values, "retries_total", agent=agent) == again > 0
        usd = lived.tables.requests["cost_usd"][mine].sum()
        assert value(lived.values, "cost_usd_total", agent=agent, part="tokens") == pytest.approx(
            usd, rel=1e-5
        )
        for result, how in (("hit", Code.CACHED), ("joined", Code.JOINED)):
            if agent == "tax":
                found = (mine & (requests["ending"] == 1) & (requests["how"] == how)).sum()
                assert value(lived.values, "cache_requests_total", agent=agent, result=result) == found > 0
    refused = (requests["agent"] == 1) & (requests["how"] == Code.LIMITED)
    assert value(lived.values, "ratelimited_total", agent="audit", scope="agent+fleet") == refused.sum() > 0
    assert value(lived.values, "ratelimited_total", agent="tax", scope="fleet") == 0
    assert value(lived.values, "retries_total", agent="audit", reason="error") > 0


def test_what_a_fleet_has_no_controller_for_is_not_made_up(lived):
    for name in ("canary_weight", "drift_statistic", "breaker_state", "cache_requests_total"):
        agents = {dict(key[1:])["agent"] for key in lived.values if key[0] == name}
        assert agents == {"tax"}


def test_what_detectors_and_rollouts_say_is_shown(lived):
    detector = lived.telemetry.plane.pools[0].controllers.detectors[1]
    shown = value(lived.values, "drift_statistic", agent="tax", detector="1", metric="latency_s")
    assert shown == detector.statistic > 0.0
    stages = lived.recording.table(Advance)
    assert value(lived.values, "canary_weight", agent="tax") == stages["weight"][-1]


def test_a_rollout_that_has_not_moved_has_the_weight_that_it_begins_with():
    telemetry = telemetry_of(load(TEXT))
    values = read(exposition(telemetry, 0.0))
    assert value(values, "canary_weight", agent="tax") == telemetry.plane.first_weights()[0]


def test_a_breaker_is_as_open_as_that_of_its_worst_ready_instance():
    telemetry = telemetry_of(load(TEXT))
    plane = telemetry.plane

    def tell(event):
        telemetry.saw(event, plane.handle(event))
        return value(read(exposition(telemetry, event.t_s)), "breaker_state", agent="tax")

    assert tell(InstanceChanged(0.0, 0, 0, State.READY)) == 0
    assert tell(InstanceChanged(0.0, 0, 1, State.READY)) == 0
    t_s, attempt, states = 0.0, 0, []
    for request_id in range(1, 7):
        t_s += 0.001
        states.append(tell(Arrived(t_s, Request(request_id, 0, 9, 9))))
    while telemetry._attempts and plane.pools[0].instances[0].gate_cap:
        attempt, (_, _, instance) = next(
            item for item in telemetry._attempts.items() if item[1][2] == 0 or len(telemetry._attempts) == 1
        )
        t_s += 0.001
        states.append(tell(Finished(t_s, attempt, Outcome.ERROR if instance == 0 else Outcome.OK, Usage())))
        tell(Woke(t_s := t_s + 0.5))
        tell(Arrived(t_s, Request(100 + attempt, 0, 9, 9)))
    assert (states[0], states[-1]) == (0, 2), "one instance's is open, the other's closed"
    assert tell(Woke(t_s + 10.0)) == 1
    assert tell(InstanceChanged(t_s + 11.0, 0, 0, State.FAILED)) == 0


def test_an_attempt_after_another_says_how_that_ended():
    telemetry = telemetry_of(load(TEXT))
    plan, why = Plan(0, 0, 1, 1), Reason(Code.RETRIED)
    telemetry.saw(Arrived(0.0, Request(1, 0, 1, 1)), [Dispatch(1, 1, 0, plan, why)])
    outcomes = [Outcome.ERROR, Outcome.TIMEOUT, Outcome.CANCELLED, Outcome.OK, Outcome.LOST]
    for attempt, outcome in enumerate(outcomes, 1):
        telemetry.saw(Finished(1.0, attempt, outcome, Usage()), [Dispatch(attempt + 1, 1, 0, plan, why)])
    telemetry.saw(Woke(2.0), [Dispatch(7, 1, 0, plan, why)])  # the lease of the sixth ran out
    telemetry.saw(Finished(3.0, 6, Outcome.ERROR, Usage()), ())
    telemetry.saw(Finished(4.0, 7, Outcome.THROTTLED, Usage()), [Dispatch(8, 1, 0, plan, why)])
    values = read(exposition(telemetry, 4.0))
    found = {dict(key[1:])["reason"]: n for key, n in values.items() if key[0] == "retries_total"}
    assert found == {"error": 1, "timeout": 2, "doubtful": 1, "lost": 2, "throttled": 1}


def test_the_first_token_counts_from_the_arrival():
    telemetry = telemetry_of(load(TEXT))
    telemetry.saw(Arrived(10.0, Request(1, 0, 1, 1, stream=True)), ())
    telemetry.saw(Woke(12.0), [Dispatch(1, 1, 0, Plan(0, 0, 1, 1), Reason(Code.QUEUED, a=2.0))])
    telemetry.saw(FirstToken(12.5, 1), ())
    values = read(exposition(telemetry, 13.0))
    assert value(values, "time_to_first_token_seconds_sum", agent="tax") == 2.5
    assert value(values, "queue_wait_seconds_sum", agent="tax") == 2.0


# --- both worlds ------------------------------------------------------------------------------------


def test_a_driver_the_replay_of_its_journal_and_the_simulator_say_the_same(live):
    scenario = load(TEXT, ["duration=60s"])
    sim_journal, sent = live.simulated(scenario)
    watching = []

    def watched(plane):
        watching.append(Telemetry(scenario, plane, [each.instances for each in scenario.agents().values()]))
        return watching[0].saw

    empty = journal.Journal(build.header(scenario, 0))
    live_journal, _ = live.jump(lambda: live.lived(scenario, sent, journal=empty, watching=watched))
    recording = live_journal.recording()
    there = exposition(watching[0], max(each.t_s for each in recording.records() if isinstance(each, Event)))
    assert exposed(recording, scenario) == there
    assert total(read(there), "requests_total") == len(sent) > 200
    simulated = exposed(sim_journal.recording(), scenario)
    assert without_instances(simulated) == without_instances(there)


def without_instances(text):
    """Leave out what instances cost: it depends on when one stops looking."""
    return [line for line in text.splitlines() if 'part="instances"' not in line]


def test_the_daemon_and_the_replay_of_its_journal_say_the_same(tmp_path):
    import aiohttp

    from glowsim.live.daemon import serving
    from glowsim.live.settings import settings

    scenario = load(TEXT, ["fleet.tax.instance_price=$0/h"])
    chosen = settings(environment={}, journal_path=tmp_path / "j", port=0, admin_port=0, grace_s=4.0)

    async def main():
        async with (
            asyncio.timeout(60.0),
            serving(scenario, chosen) as daemon,
            aiohttp.ClientSession() as session,
        ):

            async def ask(number):
                body = {
                    "input": "x",
                    "stream": number % 2 == 1,
                    "cache": number % 3 == 0,
                    "max_tokens_out": 5,
                }
                url = f"{daemon.address}/v1/agents/{AGENTS[number % 2]}/tasks"
                async with session.post(url, json=body) as response:
                    await response.read()

            await asyncio.gather(*map(ask, range(20)))
            async with session.get(f"{daemon.admin_address}/metrics") as response:
                assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
                return await response.text()

    text = asyncio.run(main())
    ours, process = text.split("# HELP process_", 1)
    assert "process_start_time_seconds" in process
    assert total(read(ours), "requests_total") == 20
    assert exposed(journal.read(tmp_path / "j"), scenario) == ours


# --- the text -------------------------------------------------------------------------------------------


@given(
    st.text(
        st.characters(codec="utf-8", exclude_characters="\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"), max_size=30
    )
)
def test_no_name_breaks_the_text(name):
    from prometheus_client.parser import text_string_to_metric_families

    (family,) = text_string_to_metric_families(f"# TYPE x gauge\nx{{{_labels(agent=name, domain=None)}}} 1\n")
    (sample,) = family.samples
    assert (sample.labels, sample.value) == ({"agent": name, "domain": ""}, 1.0)
