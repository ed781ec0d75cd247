"""The ledger against a naive walk over the journal: every part by itself, and their sum, the bill."""

from __future__ import annotations

from collections import defaultdict
from math import fsum, isnan
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glowsim import build, results
from glowsim.core.journal import Recording
from glowsim.core.types import Answer, Arrived, Dispatch, Finished, InstanceChanged, State
from glowsim.ledger import PARTS, Ledger, _shares_s, ledger
from glowsim.scenario import Scenario

FLEET: dict[str, Any] = {
    "title": "ledger",
    "question": "Does every cent have a place?",
    "seed": 3,
    "duration": "150s",
    "models": {
        "small": {"input": "$1/1M", "cached_input": "$0.25/1M", "output": "$3/1M"},
        "large": {"input": "$5/1M", "output": "$20/1M"},
    },
    "fleet": [
        {
            "agent": "tax", "count": 2, "domain": "finance", "model": "small", "instances": 2, "concurrency": 3,
            "startup": "4s", "timeout": "6s", "instance_price": "$3.6/h", "failures": {"error": "10%"},
            "service": {"law": "time", "time": {"law": "exponential", "mean": "900ms"}},
        },
        {
            "agent": "law", "domain": "legal", "model": "large", "instances": 1, "concurrency": 2,
            "service": {"law": "time", "time": {"law": "exponential", "mean": "900ms"}},
        },
    ],
    "workload": [
        {
            "kind": "bursts", "base": "2/s", "burst": "16/s", "every": "50s", "lasts": "9s", "tenants": 3,
            "tokens_in": {"law": "lognormal", "median": 900, "sigma": 0.7},
            "tokens_out": {"law": "gamma", "mean": 80, "cv": 0.6}, "users": 30,
            "cacheable": {"share": "30%", "keys": 20},
        }
    ],
    "faults": [{"kind": "crash", "agent": "tax", "at": "34s", "lasts": "20s", "instances": 1}],
    "controllers": {
        "cache": {"use": "lru", "entries": 10, "ttl": "30s"},
        "retrier": {"use": "backoff"},
    },
}  # fmt: skip
CLOSE = {"rel": 1e-9, "abs": 1e-15}


@pytest.fixture(scope="module")
def scenario() -> Scenario:
    return Scenario.model_validate(FLEET)


@pytest.fixture(scope="module")
def recording(scenario: Scenario) -> Recording:
    built = build.replication(scenario, 0)
    built.world.start()
    built.world.run(600.0)
    return built.journal.recording()


@pytest.fixture(scope="module")
def tables(recording: Recording, scenario: Scenario) -> results.Tables:
    return results.fold(recording, scenario)


@pytest.fixture(scope="module")
def found(recording: Recording, scenario: Scenario) -> Ledger:
    return ledger(recording, scenario)


class Walk:
    """Reads the journal record by record, and adds up what was used."""

    def __init__(self, recording: Recording, scenario: Scenario) -> None:
        self.models = list(scenario.models.values())
        self.request: dict[int, Arrived] = {}
        self.dispatched: dict[int, tuple[float, Dispatch]] = {}
        self.finished: dict[int, Finished] = {}
        self.answers: set[int] = set()
        self.lives: dict[int, list[float]] = {}
        self.agent_of: dict[int, int] = {}
        self.now_s = 0.0
        for record in recording.records():
            self.now_s = max(self.now_s, getattr(record, "t_s", 0.0))
            match record:
                case Arrived():
                    self.request[record.request.request_id] = record
                case Dispatch():
                    self.dispatched[record.attempt] = (self.now_s, record)
                case Finished():
                    self.finished[record.attempt] = record
                case Answer():
                    self.answers.add(record.source)
                case InstanceChanged():
                    self.lives.setdefault(record.instance, [record.t_s, np.nan])
                    self.agent_of[record.instance] = record.agent
                    if record.state >= State.GONE:
                        self.lives[record.instance][1] = record.t_s
        self.end_s = max(self.now_s, scenario.duration_s)

    def tokens_usd(self) -> dict[tuple[int, int, str], float]:
        found: dict[tuple[int, int, str], list[float]] = defaultdict(list)
        for attempt, done in self.finished.items():
            _, dispatch = self.dispatched[attempt]
            request = self.request[dispatch.request_id].request
            price, usage = self.models[dispatch.plan.model], done.usage
            parts = {
                "fresh_input": (usage.tokens_in - usage.tokens_cached) * price.input_usd_per_token,
                "cache_read": usage.tokens_cached * price.cached_input_usd_per_token,
                "output": usage.tokens_out * price.output_usd_per_token,
            }
            for part, usd in parts.items():
                name = part if attempt in self.answers else "retries"
                found[request.agent, request.tenant, name].append(usd)
        return {key: fsum(usd) for key, usd in found.items()}

    def busy_s(self, from_s: float = 0.0) -> dict[int, float]:
        """Instance -> how long at least one attempt was on it, from a moment on."""
        spans: dict[int, list[tuple[float, float]]] = defaultdict(list)
        for attempt, (since_s, dispatch) in self.dispatched.items():
            until_s = self.finished[attempt].t_s if attempt in self.finished else self.end_s
            life_s = self.lives[dispatch.instance][1]
            spans[dispatch.instance].append((since_s, until_s if isnan(life_s) else min(until_s, life_s)))
        busy = {}
        for instance, intervals in spans.items():
            covered_s, reached_s = 0.0, from_s
            for since_s, until_s in sorted(intervals):
                covered_s += max(0.0, until_s - max(since_s, reached_s))
                reached_s = max(reached_s, until_s)
            busy[instance] = covered_s
        return busy


def test_the_parts_are_what_a_walk_over_the_journal_finds(
    found: Ledger, recording: Recording, scenario: Scenario
) -> None:
    walk = Walk(recording, scenario)
    names = list(scenario.agents())
    rows = {(row.agent, row.tenant): row for row in found.table.itertuples()}
    wanted = walk.tokens_usd()
    assert {part for _, _, part in wanted} == {"fresh_input", "cache_read", "output", "retries"}
    for (agent, tenant, part), usd in wanted.items():
        assert getattr(rows[names[agent], tenant], part) == pytest.approx(usd, **CLOSE)
    busy_s = walk.busy_s()
    assert found.totals_usd["busy"] == pytest.approx(
        fsum(seconds for number, seconds in busy_s.items() if walk.agent_of[number] < 2) * 3.6 / 3600,
        rel=1e-9,
    )
    assert set(found.table.columns) == {"agent", "domain", "tenant", *PARTS}
    assert found.totals_usd["cache_write"] == found.totals_usd["reasoning"] == 0.0
    assert all(found.totals_usd[part] > 0 for part in ("retries", "busy", "idle", "output"))


def test_the_sum_of_the_parts_is_the_bill(
    found: Ledger, recording: Recording, tables: results.Tables, scenario: Scenario
) -> None:
    walk = Walk(recording, scenario)
    tokens_usd = fsum(walk.tokens_usd().values())
    hours = fsum(
        (walk.end_s if isnan(end_s) else end_s) - start_s
        for number, (start_s, end_s) in walk.lives.items()
        if walk.agent_of[number] < 2
    ) / 3600.0  # fmt: skip
    assert found.total_usd == pytest.approx(tokens_usd + 3.6 * hours, rel=1e-9)
    assert found.total_usd == pytest.approx(results.figures(tables)["cost_usd"], rel=1e-9)
    for key in ("agent", "domain", "tenant"):
        by = found.by(key)
        assert fsum(usd for each in by.values() for usd in each.values()) == pytest.approx(
            found.total_usd, rel=1e-12
        )
    assert list(found.by("domain")) == ["finance", "legal"]
    assert [found.by("domain")["legal"][part] for part in ("busy", "idle")] == [0.0, 0.0]


def test_after_a_warm_up_it_is_the_bill_of_the_figures(
    tables: results.Tables, scenario: Scenario, found: Ledger, recording: Recording
) -> None:
    later = ledger(tables, scenario, warmup_s=40.0)
    walk = Walk(recording, scenario)
    busy_s = fsum(seconds for number, seconds in walk.busy_s(40.0).items() if walk.agent_of[number] < 2)
    assert later.totals_usd["busy"] == pytest.approx(busy_s * 3.6 / 3600, rel=1e-9)
    assert later.total_usd == pytest.approx(results.figures(tables, 40.0)["cost_usd"], rel=1e-9)
    assert all(later.totals_usd[part] <= found.totals_usd[part] for part in PARTS)


def test_tokens_that_attempts_tell_more_of_move_between_parts_and_leave_the_sum(
    tables: results.Tables, scenario: Scenario, found: Ledger
) -> None:
    attempts = tables.attempts
    told = attempts | {
        "tokens_cache_write": (attempts["tokens_in"] - attempts["tokens_cached"]) // 2,
        "tokens_reasoning": attempts["tokens_out"] // 3,
    }
    fuller = ledger(tables._replace(attempts=told), scenario)
    assert fuller.total_usd == pytest.approx(found.total_usd, rel=1e-12)
    for taken, part in (("fresh_input", "cache_write"), ("output", "reasoning")):
        assert fuller.totals_usd[part] > 0.0
        both = fuller.totals_usd[part] + fuller.totals_usd[taken]
        assert both == pytest.approx(found.totals_usd[taken], rel=1e-12)


def test_cached_input_is_billed_at_its_own_price(tables: results.Tables, scenario: Scenario) -> None:
    attempts = tables.attempts
    half = attempts["tokens_in"] // 2
    told = ledger(tables._replace(attempts=attempts | {"tokens_cached": half}), scenario)
    led = np.isin(attempts["request_id"], tables.requests["request_id"][tables.requests["ending"] == 1])
    small = led & (attempts["outcome"] == 0) & (attempts["model"] == 0)
    assert told.by("domain")["finance"]["cache_read"] == pytest.approx(
        int(half[small].sum()) * 0.25e-6, rel=1e-9
    )


def test_an_answer_that_was_not_needed_any_more_is_a_retry(
    tables: results.Tables, scenario: Scenario, found: Ledger
) -> None:
    outcome = tables.attempts["outcome"].copy()
    outcome[outcome == 1] = (
        0  # as if attempts that failed had been right, beside those that were answered with
    )
    assert (outcome != tables.attempts["outcome"]).any()
    hedged = ledger(tables._replace(attempts=tables.attempts | {"outcome": outcome}), scenario)
    assert hedged.totals_usd == found.totals_usd


def test_attempts_take_no_more_of_an_instance_than_there_was(
    tables: results.Tables, scenario: Scenario, found: Ledger
) -> None:
    late = tables.attempts | {"t_finish_s": tables.attempts["t_finish_s"] + 1000.0}
    assert ledger(tables._replace(attempts=late), scenario).total_usd == pytest.approx(
        found.total_usd, rel=1e-9
    )


def test_a_fleet_that_nobody_asked_is_all_idle(scenario: Scenario, tables: results.Tables) -> None:
    nobody = {name: column[:0] for name, column in tables.attempts.items()}
    requests = {name: column[:0] for name, column in tables.requests.items()}
    empty = ledger(tables._replace(attempts=nobody, requests=requests), scenario)
    assert empty.total_usd == empty.totals_usd["idle"] == pytest.approx(
        results.figures(tables)["cost_instances_usd"], rel=1e-9
    )  # fmt: skip
    assert set(empty.table["tenant"]) == {0}


spans = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 30)), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(spans)
def test_attempts_that_run_together_share_an_instance_equally(intervals: list[tuple[int, int]]) -> None:
    starts = np.array([start for start, _ in intervals], dtype=float)
    ends = np.array([start + length for start, length in intervals], dtype=float)
    naive = np.zeros(len(intervals))
    for second in range(80):
        running = [i for i, (start, length) in enumerate(intervals) if start <= second < start + length]
        for i in running:
            naive[i] += 1 / len(running)
    assert _shares_s(np.zeros(len(starts), dtype=np.int64), starts, ends) == pytest.approx(naive, abs=1e-9)


# --- model servers ------------------------------------------------------------------------------------

REPLICA_USD_PER_HOUR, SPARE_USD_PER_HOUR = 5.4, 1.8
_STEPS = {
    "law": "steps",
    "instructions": 2000,
    "steps": [{"step": "call", "tokens_out": 30}, {"step": "answer"}],
}
SERVED: dict[str, Any] = {
    "title": "servers",
    "question": "Whose are the replicas?",
    "seed": 5,
    "duration": "200s",
    "models": {
        "chat": {"input": "$0/1M", "output": "$0/1M", "server": "own"},
        "code": {"input": "$0/1M", "output": "$0/1M", "server": "own"},
        "idle": {"input": "$0/1M", "output": "$0/1M", "server": "spare"},
        "api": {"input": "$2/1M", "cached_input": "$0.5/1M", "output": "$8/1M", "server": "provider"},
    },
    "servers": {
        "own": {
            "engine": "batch", "replicas": 2, "price": f"${REPLICA_USD_PER_HOUR}/h", "sequences": 16,
            "batched_tokens": 2048, "cache_tokens": 40_000, "router": "session",
            "step": {"base": "8ms", "prefill": "30us/token", "sequence": "100us"},
        },
        "spare": {
            "engine": "ps", "replicas": 1, "price": f"${SPARE_USD_PER_HOUR}/h", "sequences": 4,
            "batched_tokens": 2048, "cache_tokens": 40_000,
            "step": {"base": "8ms", "prefill": "30us/token", "sequence": "100us"},
        },
        "provider": {
            "engine": "hosted", "first_token": "200ms", "per_token": "5ms", "error": "20%",
            "cache": {"keeps": "5m", "least": 1024, "step": 128},
        },
    },
    "fleet": [
        {"agent": "tax", "model": "chat", "instances": 2, "concurrency": 4, "service": _STEPS},
        {"agent": "law", "model": "code", "instances": 1, "concurrency": 4, "service": _STEPS},
        {
            "agent": "web", "model": "api", "instances": 1, "concurrency": 9,
            "service": _STEPS | {"client": {"tries": 1}},
        },
    ],
    "workload": [
        {
            "kind": "sessions", "arrivals": {"kind": "poisson", "rate": "12/min"}, "turns": 4, "think": "3s",
            "tokens_in": {"law": "exponential", "mean": 400}, "tokens_out": {"law": "exponential", "mean": 60},
            "tenants": 3, "users": 12,
        }
    ],
    "controllers": {"retrier": {"use": "backoff"}},
}  # fmt: skip


class Served:
    """A run of the fleet that shares its servers."""

    def __init__(self, error: str = "20%") -> None:
        provider = SERVED["servers"]["provider"] | {"error": error}
        servers = SERVED["servers"] | {"provider": provider}
        self.scenario = Scenario.model_validate(SERVED | {"servers": servers})
        built = build.replication(self.scenario, 0)
        built.world.start()
        built.world.run(600.0)
        self.servers = dict(zip(self.scenario.servers, built.world.servers, strict=True))
        self.recording = built.journal.recording()
        self.walk = Walk(self.recording, self.scenario)
        self.tables = results.fold(self.recording, self.scenario)
        self.bill = ledger(self.tables, self.scenario)
        self.hours = self.walk.end_s / 3600.0

    def worked(self) -> dict[tuple[str, int], float]:
        """Return the tokens that the shared server read and wrote for each agent and tenant."""
        tokens: dict[tuple[str, int], float] = defaultdict(float)
        names = list(self.scenario.agents())
        for attempt, done in self.walk.finished.items():
            dispatch = self.walk.dispatched[attempt][1]
            request = self.walk.request[dispatch.request_id].request
            if names[request.agent] in ("tax", "law"):
                fresh = done.usage.tokens_in - done.usage.tokens_cached
                tokens[names[request.agent], request.tenant] += fresh + done.usage.tokens_out
        return tokens


@pytest.fixture(scope="module")
def served() -> Served:
    return Served()


def test_replicas_are_shared_by_the_tokens_that_they_read_and_wrote(served: Served) -> None:
    worked = served.worked()
    assert len(worked) == 2 * 3
    total = fsum(worked.values())
    rows = {(row["agent"], row["tenant"]): row["servers"] for row in served.bill.rows}
    for who, tokens in worked.items():
        usd = 2 * REPLICA_USD_PER_HOUR * served.hours * tokens / total
        assert rows[who] == pytest.approx(usd, rel=1e-9)
    own = served.servers["own"]
    assert total == own.tokens_in - own.tokens_cached + own.tokens_out, "the server's own count"
    assert own.tokens_cached > 0


def test_a_server_that_nobody_calls_is_paid_for_by_nobody(served: Served) -> None:
    nobody = [row for row in served.bill.rows if row["tenant"] == 0 and row["servers"]]
    assert nobody[0]["servers"] == pytest.approx(SPARE_USD_PER_HOUR * served.hours, rel=1e-9)
    assert len(nobody) == 1
    assert nobody[0]["agent"] == "tax", "no agent has its model: the first one's"


def test_the_servers_are_on_the_bill_once(served: Served) -> None:
    found = served.bill
    hourly_usd = 2 * REPLICA_USD_PER_HOUR + SPARE_USD_PER_HOUR
    assert found.totals_usd["servers"] == pytest.approx(hourly_usd * served.hours, rel=1e-9)
    figures = results.figures(served.tables)
    assert figures["cost_servers_usd"] == pytest.approx(found.totals_usd["servers"], rel=1e-12)
    tokens_usd = fsum(served.walk.tokens_usd().values())
    assert tokens_usd > 0.0
    assert found.total_usd == pytest.approx(tokens_usd + hourly_usd * served.hours, rel=1e-9)
    assert found.total_usd == pytest.approx(figures["cost_usd"], rel=1e-12)
    by_agent = [results.figures(served.tables, agents=[agent])["cost_servers_usd"] for agent in range(3)]
    assert by_agent[2] == 0.0, "an API costs its tokens"
    assert fsum(by_agent) == pytest.approx(2 * REPLICA_USD_PER_HOUR * served.hours, rel=1e-9)


def test_servers_are_paid_from_the_warm_up_on(served: Served) -> None:
    later = ledger(served.tables, served.scenario, warmup_s=50.0)
    hours = served.hours - 50.0 / 3600.0
    hourly_usd = 2 * REPLICA_USD_PER_HOUR + SPARE_USD_PER_HOUR
    assert later.totals_usd["servers"] == pytest.approx(hourly_usd * hours, rel=1e-9)
    assert later.total_usd == pytest.approx(results.figures(served.tables, 50.0)["cost_usd"], rel=1e-9)


def test_what_an_api_had_cached_is_billed_as_such(served: Served) -> None:
    web = served.bill.by("agent")["web"]
    in_answers = [
        done.usage.tokens_cached
        for attempt, done in served.walk.finished.items()
        if served.walk.dispatched[attempt][1].plan.model == 3 and attempt in served.walk.answers
    ]
    assert web["cache_read"] == pytest.approx(fsum(in_answers) * 0.5e-6, rel=1e-9)
    assert web["cache_read"] > 0.0
    assert web["retries"] > 0.0, "calls that went well for attempts that failed"
    assert fsum(web.values()) < provider_usd(served), "a call that fails is not billed"


def test_where_no_call_fails_the_provider_counts_what_is_billed() -> None:
    served = Served(error="0%")
    web = served.bill.by("agent")["web"]
    assert served.servers["provider"].failed == 0.0 == web["retries"]
    assert fsum(web.values()) == pytest.approx(provider_usd(served), rel=1e-9)


def provider_usd(served: Served) -> float:
    """Return the price of all that the provider has counted."""
    provider = served.servers["provider"]
    fresh = provider.tokens_in - provider.tokens_cached
    return fresh * 2e-6 + provider.tokens_cached * 0.5e-6 + provider.tokens_out * 8e-6


def test_the_table_of_servers_has_a_row_for_each_model_that_one_serves(
    served: Served, tables: results.Tables
) -> None:
    table = {name: column.tolist() for name, column in served.tables.servers.items()}
    own_usd = 2 * REPLICA_USD_PER_HOUR
    assert table["server"] == [0, 0, 1, 2]
    assert table["model"] == [0, 1, 2, 3]
    assert table["usd_per_hour"] == [own_usd, own_usd, SPARE_USD_PER_HOUR, 0.0]
    assert table["until_s"] == [served.walk.end_s] * 4
    assert all(len(column) == 0 for column in tables.servers.values()), "where there is none"
