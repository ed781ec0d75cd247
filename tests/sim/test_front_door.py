"""Regions in the simulated world: round trips, lost regions, and the front door that sends users elsewhere."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glowsim import build
from glowsim.core.types import Arrived, Dispatch, Finished, InstanceChanged, Outcome, Request, Scale, State
from glowsim.fuzz.judge import judge
from glowsim.results import fold
from glowsim.scenario import Scenario
from glowsim.sim.environment import Environment
from glowsim.sim.front_door import FrontDoor, Regional

REGIONS = ["eu", "us", "apac"]
LATENCY = {"eu": {"us": "90ms", "apac": "240ms"}, "us": {"apac": "160ms"}}
TRIP_S = np.array([[0.0, 0.09, 0.24], [0.09, 0.0, 0.16], [0.24, 0.16, 0.0]])
USERS = {"eu": "50%", "us": "30%", "apac": "20%"}
AT_S, LASTS_S, FAILOVER_S = 200.0, 200.0, 60.0
LOSS = {"kind": "region_loss", "region": "eu", "at": f"{AT_S}s", "lasts": f"{LASTS_S}s"}
EXPONENTIAL = {"law": "time", "time": {"law": "exponential", "mean": "300ms"}}


def agent(region: str, **more: Any) -> dict[str, Any]:
    common = {"model": "m", "instances": 3, "concurrency": 8, "timeout": "20s", "service": EXPONENTIAL}
    return {"agent": f"tax-{region}", "region": region, **common, **more}


def data(**more: Any) -> dict[str, Any]:
    """Return a scenario: a service in two of three regions, users in all."""
    workload = {"kind": "poisson", "rate": "10/s", "agents": "tax", "users_from": USERS}
    return {
        "title": "regions", "question": "Where to?", "seed": 7, "duration": "600s", "drain": "600s",
        "regions": REGIONS, "latency": LATENCY, "models": {"m": {"input": "$1/1M", "output": "$2/1M"}},
        "fleet": [agent("eu"), agent("us")],
        "services": {"tax": {"agents": ["tax-eu", "tax-us"], "failover": f"{FAILOVER_S}s"}},
        "workload": [workload | {"tokens_in": 900, "tokens_out": 100} | more.pop("workload", {})],
        "controllers": {"balancer": {"use": "round_robin"}},
    } | more  # fmt: skip


class Ran:
    """A replication, run to its end."""

    def __init__(self, said: dict[str, Any]) -> None:
        self.scenario = Scenario.model_validate(said)
        self.made = build.replication(self.scenario, 0)
        self.made.world.start()
        self.made.world.run(self.scenario.duration_s + self.scenario.drain_s)
        self.recording = self.made.journal.recording()
        tables = fold(self.recording, self.scenario)
        self.requests, self.attempts = pd.DataFrame(tables.requests), pd.DataFrame(tables.attempts)

    def during(self, begin_s: float, end_s: float) -> pd.DataFrame:
        return self.requests[self.requests["t_arrive_s"].between(begin_s, end_s)]

    def changes(self, state: State) -> pd.DataFrame:
        table = self.recording.table(InstanceChanged)
        return pd.DataFrame({name: table[name] for name in ("t_s", "agent")})[table["state"] == state]


# --- users and round trips ------------------------------------------------------------------------------


def test_users_come_from_their_regions_and_each_always_from_the_same() -> None:
    of_many = Ran(data(workload={"rate": "20/s"})).requests
    shares = of_many["region"].value_counts(normalize=True).sort_index()
    assert shares.tolist() == pytest.approx([0.5, 0.3, 0.2], abs=3 * np.sqrt(0.25 / len(of_many)))
    of_few = Ran(data(workload={"users": 40})).requests
    assert of_few.groupby("user")["region"].nunique().max() == 1
    assert of_few["region"].nunique() == 3


def test_another_seed_is_another_draw_of_where_users_are() -> None:
    one, other = (Ran(data(seed=seed, duration="20s")).requests["region"].tolist() for seed in (1, 2))
    assert one[:100] != other[:100]


def test_without_a_word_users_are_where_their_agent_is() -> None:
    plain = data(workload={"agents": "all", "users_from": {}})
    requests = Ran(plain).requests
    assert (requests["region"] == requests["agent"]).all()
    assert requests["agent"].nunique() == 2
    without = Ran(plain | {"latency": {}}).requests
    assert requests["latency_s"].tolist() == without["latency_s"].tolist()


def test_users_are_sent_to_the_nearest_agent() -> None:
    requests = Ran(data()).requests
    nearest = {0: 0, 1: 1, 2: 1}  # from apac, us is 80 ms nearer
    assert (requests["agent"] == requests["region"].map(nearest)).all()
    turned = {"eu": {"us": "90ms", "apac": "100ms"}, "us": {"apac": "160ms"}}
    requests = Ran(data(latency=turned)).requests
    assert (requests["agent"] == requests["region"].map(nearest | {2: 0})).all()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("law", ["time", "tokens"])
def test_an_attempt_takes_the_round_trip_more_and_nothing_else(law: str, stream: bool) -> None:
    """With room for everybody nobody waits, so that latencies with and without differ by the round trip."""
    tokens = {"law": "tokens", "base": "100ms", "input": "20us/token", "output": "2ms/token", "slowdown": 0.0}
    roomy = [
        agent(region, concurrency=200, service=EXPONENTIAL if law == "time" else tokens)
        for region in ("eu", "us")
    ]
    far, near = (
        Ran(data(fleet=roomy, latency=each, workload={"stream": stream})).requests for each in (LATENCY, {})
    )
    assert far["agent"].tolist() != near["agent"].tolist(), "from apac all are equally near, without"
    same = (far["agent"] == near["agent"]).to_numpy()
    trip_s = TRIP_S[far["region"], far["agent"]]
    late_s = (far["latency_s"] - near["latency_s"]).to_numpy()
    assert same.mean() > 0.7
    assert late_s[same] == pytest.approx(trip_s[same], abs=1e-9)
    if stream and law == "tokens":
        first_s = far["t_first_token_s"] - far["t_arrive_s"]
        assert first_s.to_numpy() == pytest.approx(0.118 + trip_s, abs=1e-9)


def test_every_attempt_takes_it_those_that_fail_too() -> None:
    failing = [agent(region, failures={"error": "50%"}, concurrency=200, service={"law": "time", "time": "1s"})
               for region in ("eu", "us")]  # fmt: skip
    throttled = {"kind": "throttle", "agent": "tax-us", "at": "300s", "lasts": "300s", "share": "50%"}
    retrier = {"use": "backoff", "budget_ratio": None}
    ran = Ran(data(fleet=failing, faults=[throttled], controllers={"retrier": retrier}))
    tries = ran.attempts.merge(ran.requests[["request_id", "region", "agent"]], on="request_id")
    trip_s = TRIP_S[tries["region"], tries["agent"]]
    work_s = tries["t_finish_s"] - tries["t_dispatch_s"] - trip_s
    assert (tries["outcome"] == Outcome.ERROR).sum() > 1000
    assert work_s[tries["outcome"] == Outcome.OK].to_numpy() == pytest.approx(1.0)
    assert work_s[tries["outcome"] == Outcome.ERROR].max() < 1.0
    put_off = tries["outcome"] == Outcome.THROTTLED
    assert put_off.sum() > 100
    assert work_s[put_off].to_numpy() == pytest.approx(0.0, abs=1e-9)
    assert trip_s[put_off].max() > 0.1


def test_what_is_cancelled_on_its_way_used_nothing_and_reaches_nobody() -> None:
    """One instance each, a timeout below the round trip from apac, and service that takes no less."""
    hasty = [
        agent(region, timeout="100ms", instances=1, service={"law": "time", "time": "5ms"})
        for region in ("eu", "us")
    ]
    ran = Ran(data(fleet=hasty, duration="60s"))
    finished = ran.recording.table(Finished)
    cancelled = finished[finished["outcome"] == Outcome.CANCELLED]
    far = ran.requests["region"] == 2
    assert len(cancelled) == far.sum() > 50
    assert cancelled["tokens_in"].sum() == 0
    assert (ran.requests["ending"][~far] == 1).all()
    assert all(len(each.engine) == 0 for each in ran.made.world.replicas.values())


def test_an_instance_that_is_let_go_waits_for_what_is_on_its_way() -> None:
    """A scaler that takes everything away when idle, and a round trip far longer than the service."""
    alone = [agent("us", instances=1, service={"law": "time", "time": "1ms"})]
    scaler = {"use": "agent_scaler", "min_instances": 0, "max_instances": 4, "idle": "0s", "look": "50ms",
              "cooldown_up": "0s", "cooldown_down": "0s"}  # fmt: skip
    said = data(
        fleet=alone, services={}, controllers={"scaler": scaler}, duration="100s",
        workload={"agents": "tax-us", "users_from": {"apac": 1.0}, "rate": "2/s"},
    )  # fmt: skip
    ran = Ran(said)
    assert (ran.requests["ending"] == 1).all()
    assert len(ran.changes(State.GONE)) > 10
    assert judge(said) is None


# --- model servers elsewhere ------------------------------------------------------------------------------

HOSTED = {"engine": "hosted", "first_token": "200ms", "per_token": "1ms"}
TWO_CALLS = {
    "law": "steps",
    "steps": [{"step": "call", "tokens_out": 50}, {"step": "answer"}],
    "client": {"tries": 1},
}


def in_steps(region: str | None, **more: Any) -> dict[str, Any]:
    server = HOSTED | ({} if region is None else {"region": region})
    return data(
        models={"m": {"input": "$1/1M", "output": "$2/1M", "server": "api"}}, servers={"api": server},
        fleet=[agent("eu", service=TWO_CALLS, concurrency=100)], services={}, duration="300s",
        workload={"agents": "all", "users_from": {}, "rate": "2/s"}, **more,
    )  # fmt: skip


@pytest.mark.parametrize(("region", "trip_s"), [("eu", 0.0), ("us", 0.09), ("apac", 0.24)])
def test_a_call_of_a_server_elsewhere_takes_the_round_trip_more(region: str, trip_s: float) -> None:
    beside, elsewhere = Ran(in_steps(None)).requests, Ran(in_steps(region)).requests
    late_s = elsewhere["latency_s"] - beside["latency_s"]
    assert len(late_s) > 500
    assert late_s.to_numpy() == pytest.approx(2 * trip_s, abs=1e-9)


def test_calls_that_are_dropped_on_their_way_used_nothing() -> None:
    said = in_steps("apac")
    said["fleet"][0]["timeout"] = "150ms"
    ran = Ran(said)
    assert (ran.recording.table(Finished)["outcome"] == Outcome.CANCELLED).all()
    assert ran.recording.table(Finished)["tokens_in"].sum() == 0
    assert ran.made.world.servers[0].calls == 0
    assert judge(said) is None


def test_a_lost_region_takes_its_model_servers_with_it() -> None:
    ran = Ran(in_steps("us", faults=[LOSS | {"region": "us", "at": "100s", "lasts": "100s"}]))
    failed = ran.requests["ending"] == 3
    assert failed.sum() == pytest.approx(200, abs=60)
    assert ran.requests["t_arrive_s"][failed].between(99, 200).all()
    assert (ran.requests["ending"][~failed] == 1).all()


def test_a_server_is_back_when_the_last_of_its_faults_is_over() -> None:
    shorter = {"kind": "server_down", "server": "api", "at": "120s", "lasts": "20s"}
    ran = Ran(in_steps("us", faults=[LOSS | {"region": "us", "at": "100s", "lasts": "100s"}, shorter]))
    during = ran.during(142, 199)
    assert len(during) > 80
    assert (during["ending"] == 3).all()


# --- a lost region ----------------------------------------------------------------------------------------


def test_everything_in_a_lost_region_dies_at_once_and_comes_back_by_its_start_up() -> None:
    slow = [agent(region, startup="25s") for region in ("eu", "us")]
    ran = Ran(data(fleet=slow, faults=[LOSS]))
    died, began, ready = (ran.changes(state) for state in (State.FAILED, State.STARTING, State.READY))
    assert died["t_s"].tolist() == [AT_S] * 3
    assert began["t_s"].tolist() == [AT_S + LASTS_S] * 3
    assert ready["t_s"][ready["t_s"] > 0].tolist() == [AT_S + LASTS_S + 25.0] * 3
    assert {*died["agent"], *began["agent"]} == {0}
    lost = ran.attempts[ran.attempts["outcome"] == Outcome.LOST]
    assert len(lost) > 0
    assert (lost["t_finish_s"] == AT_S).all()


def test_nobody_hears_of_one_death_before_all_have_died() -> None:
    """What waits for a slot would otherwise be sent to instances that die in the same moment."""
    busy = [agent(region, concurrency=1, service={"law": "time", "time": "1s"}) for region in ("eu", "us")]
    ran = Ran(data(fleet=busy, faults=[LOSS]))
    eu = set(ran.requests["request_id"][ran.requests["agent"] == 0])
    dispatched = ran.attempts[ran.attempts["request_id"].isin(eu)]
    assert not (dispatched["t_dispatch_s"].between(AT_S, AT_S + LASTS_S, inclusive="left")).any()


@pytest.mark.parametrize(("at_s", "there"), [(20.0, 5), (0.0, 3)])
def test_what_was_starting_dies_and_what_the_scaler_wants_meanwhile_starts_at_the_end(
    at_s: float, there: int
) -> None:
    """It keeps five: at 20 s it has begun two beside the three, at 0 s it has not."""
    scaler = {"use": "agent_scaler", "min_instances": 5, "max_instances": 8, "look": "5s"}
    slow = [agent(region, startup="50s") for region in ("eu", "us")]
    early = LOSS | {"at": f"{at_s}s"}
    ran = Ran(data(fleet=slow, faults=[early], controllers={"scaler": scaler}))
    eu = [each[each["agent"] == 0] for each in map(ran.changes, (State.STARTING, State.READY, State.FAILED))]
    began, ready, died = (each["t_s"].tolist() for each in eu)
    end_s = at_s + LASTS_S
    assert died == [at_s] * there
    later = [t_s for t_s in began if t_s >= at_s]
    times_s, wanted = ran.recording.times(), 0
    for t_s, record in zip(times_s.tolist(), ran.recording.records(), strict=True):
        if isinstance(record, Scale) and record.agent == 0 and t_s < end_s:
            wanted = record.want
    assert wanted >= 5
    assert later[:wanted] == [end_s] * wanted, "as many as it wanted last"
    assert later.count(end_s) == ready.count(end_s + 50.0) == wanted
    assert not [t_s for t_s in ready if 0.0 < t_s < end_s + 50.0]


def test_a_crash_that_ends_in_a_lost_region_comes_back_with_it() -> None:
    crash = {"kind": "crash", "agent": "tax-eu", "instances": 2, "at": "150s", "lasts": "100s"}
    ran = Ran(data(faults=[LOSS, crash]))
    began = ran.changes(State.STARTING)
    assert began["t_s"].tolist() == [AT_S + LASTS_S] * 3


def test_a_region_is_back_when_the_last_of_its_faults_is_over() -> None:
    ran = Ran(
        data(faults=[LOSS, LOSS | {"at": "300s", "lasts": "50s"}, LOSS | {"at": "390s", "lasts": "60s"}])
    )
    assert ran.changes(State.FAILED)["t_s"].tolist() == [AT_S] * 3
    assert ran.changes(State.STARTING)["t_s"].tolist() == [450.0] * 3


# --- failover -------------------------------------------------------------------------------------------------


def test_failover_takes_its_time_and_so_does_the_way_back() -> None:
    requests = Ran(data(faults=[LOSS])).requests
    arrived_s = requests["t_arrive_s"]
    away = arrived_s.between(AT_S + FAILOVER_S, AT_S + LASTS_S + FAILOVER_S)
    nearest = requests["region"].map({0: 0, 1: 1, 2: 1})
    assert (requests["agent"] == nearest.where(~away, 1)).all()
    waits = arrived_s.between(AT_S, AT_S + FAILOVER_S) & (requests["region"] == 0)
    assert waits.sum() > 200
    assert (requests["ending"][waits] != 1).all()
    late = arrived_s > AT_S + FAILOVER_S
    assert (requests["ending"][late] == 1).all()


def test_a_loss_that_is_over_before_anybody_acts_moves_nobody() -> None:
    requests = Ran(data(faults=[LOSS | {"lasts": "50s"}])).requests
    assert (requests["agent"] == requests["region"].map({0: 0, 1: 1, 2: 1})).all()


def test_a_failover_that_residency_forbids_does_not_happen() -> None:
    ran = Ran(data(faults=[LOSS], residency={"eu": ["eu"]}))
    eu = ran.requests["region"] == 0
    assert (ran.requests["agent"][eu] == 0).all()
    during = eu & ran.requests["t_arrive_s"].between(AT_S, AT_S + LASTS_S - 21.0)
    assert (ran.requests["ending"][during] != 1).all(), "they gave up before the region was back"
    assert during.sum() > 800


def test_the_same_users_come_whatever_the_front_door_does() -> None:
    """Common random numbers: who comes, when, from where and with what does not depend on the policy."""
    sessions = {
        "kind": "sessions", "arrivals": {"kind": "poisson", "rate": "2/s"}, "turns": 4, "think": "5s",
        "users_from": USERS, "users": 300,
    }  # fmt: skip
    for workload in ({}, sessions):
        said = [
            data(faults=[LOSS], services={"tax": {"agents": ["tax-eu", "tax-us"], "failover": each}})
            for each in ("30s", "1d")
        ]
        for each in said:
            each["workload"] = [
                {k: v for k, v in each["workload"][0].items() if k != "rate" or not workload} | workload
            ]
        quick, never = (Ran(each).requests.set_index("request_id") for each in said)
        both = quick.index.intersection(never.index)
        columns = ["region", "user"] if workload else ["region", "user", "t_arrive_s", "tokens_in"]
        assert len(both) > 2000
        assert quick.loc[both, columns].equals(never.loc[both, columns])
        assert not quick.loc[both, "agent"].equals(never.loc[both, "agent"])


def test_a_session_is_handed_over_to_a_service() -> None:
    books = [agent(region) | {"agent": f"books-{region}"} for region in ("eu", "us")]
    workload = {
        "kind": "sessions", "arrivals": {"kind": "poisson", "rate": "1/s"}, "turns": 3, "think": "1s",
        "agents": "tax", "users_from": USERS, "hand_over": {"tax": {"books": 1.0}}, "tokens_in": 90, "tokens_out": 10,
    }  # fmt: skip
    said = data(fleet=[agent("eu"), agent("us"), *books]) | {"workload": [workload], "faults": [LOSS]}
    said["services"]["books"] = {"agents": ["books-eu", "books-us"], "failover": "100s"}
    requests = Ran(said).requests
    calm = requests[requests["t_arrive_s"] < AT_S]
    assert set(zip(calm["region"], calm["agent"], strict=True)) == {
        (0, 0),
        (0, 2),
        (1, 1),
        (1, 3),
        (2, 1),
        (2, 3),
    }
    between = requests[requests["t_arrive_s"].between(AT_S + 60.0, AT_S + 100.0) & (requests["region"] == 0)]
    assert set(between["agent"]) <= {1, 2}, "tax has failed over, books not yet"


# --- what holds for every scenario ----------------------------------------------------------------------------


@st.composite
def worlds(draw: st.DrawFn) -> dict[str, Any]:
    """A service in some regions, users in some, round trips, residency and losses, all drawn."""
    homes = draw(st.lists(st.sampled_from(REGIONS), min_size=1, max_size=3, unique=True))
    from_ = draw(st.lists(st.sampled_from(REGIONS), min_size=1, max_size=3, unique=True))
    trip = st.integers(0, 300).map(lambda ms: f"{ms}ms")
    losses = st.builds(
        lambda region, at, lasts: {"kind": "region_loss", "region": region, "at": f"{at}s", "lasts": f"{lasts}s"},
        st.sampled_from(REGIONS), st.integers(0, 50), st.integers(1, 40),
    )  # fmt: skip
    allowed = st.lists(st.sampled_from(REGIONS), min_size=1, max_size=3, unique=True)
    retrier = {"retrier": {"use": "backoff", "budget_ratio": None}}
    scaler = {"scaler": {"use": "agent_scaler", "min_instances": 1, "max_instances": 4, "look": "2s"}}
    return data(
        seed=draw(st.integers(0, 100)), duration="60s", drain="60s",
        latency={"eu": {"us": draw(trip), "apac": draw(trip)}, "us": {"apac": draw(trip)}},
        residency=draw(st.dictionaries(st.sampled_from(REGIONS), allowed, max_size=3)),
        fleet=[agent(region, timeout="5s", startup="3s", cancellable=draw(st.booleans())) for region in homes],
        services={"tax": {"agents": [f"tax-{region}" for region in homes], "failover": f"{draw(st.integers(1, 20))}s"}},
        faults=draw(st.lists(losses, max_size=3)),
        workload={"rate": "5/s", "users_from": {region: 1 / len(from_) for region in from_}},
        controllers=draw(st.sampled_from([{}, retrier, scaler, retrier | scaler])),
    )  # fmt: skip


@settings(max_examples=25)
@given(worlds())
def test_nobody_is_served_where_residency_forbids_and_every_invariant_holds(said: dict[str, Any]) -> None:
    homes = [each["region"] for each in said["fleet"]]
    from_ = said["workload"][0]["users_from"]
    allowed = {users: said["residency"].get(users, REGIONS) for users in from_}
    if any(not set(homes) & set(places) for places in allowed.values()):
        with pytest.raises(ValueError, match="may be served only in"):
            Scenario.model_validate(said)
        return
    ran = Ran(said)
    arrived = ran.recording.table(Arrived)
    users = [REGIONS[region] for region in arrived["region"]]
    served = [homes[number] for number in arrived["agent"]]
    assert all(there in allowed[here] for here, there in zip(users, served, strict=True))
    assert set(users) <= set(from_)
    trip_s = TRIP_S * 0.0
    for a, to in ran.scenario.latency.items():
        for b, seconds in to.items():
            i, j = REGIONS.index(a), REGIONS.index(b)
            trip_s[i, j] = trip_s[j, i] = seconds
    dispatched, of = (
        ran.recording.table(Dispatch),
        dict(zip(arrived["request_id"], range(len(arrived)), strict=True)),
    )
    rows = [of[each] for each in dispatched["request_id"]]
    least_s = trip_s[arrived["region"][rows], [REGIONS.index(served[row]) for row in rows]]
    ok = (ran.attempts["outcome"] == Outcome.OK).to_numpy()
    took_s = (ran.attempts["t_finish_s"] - ran.attempts["t_dispatch_s"]).to_numpy()
    assert (took_s[ok] >= least_s[ok]).all()
    assert judge(said) is None


@settings(max_examples=100)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.floats(0.1, 100.0)), max_size=12),
    st.integers(1, 50),
    st.permutations([0, 1, 2]),
)
def test_the_front_door_knows_what_has_been_so_for_the_failover(
    news: list[tuple[int, float]], failover_s: int, order: list[int]
) -> None:
    """Against its rule, told as a function of the history: a region is left once it was lost for so long."""
    door, environment = FrontDoor([Regional({0: tuple(order)}, failover_s)], [0, 1, 2]), Environment()
    request = Request(1, agent=3, tokens_in=1, max_tokens_out=1, region=0)
    turns: dict[int, list[float]] = {0: [], 1: [], 2: []}
    for region, gap_s in news:
        environment.run(until=environment.now + gap_s)
        turns[region].append(environment.now)
        door.hear(environment, region, lost=len(turns[region]) % 2 == 1)
    environment.run(until=environment.now + 0.05)
    away = {region for region, moments in turns.items() if _left(moments, environment.now, failover_s)}
    there = [agent for agent in order if agent not in away]
    assert door.admit(request).agent == (there[0] if there else order[0])
    assert door.admit(request._replace(agent=1)).agent == 1, "who asks for an agent gets that one"


def _left(moments: list[float], now_s: float, failover_s: float) -> bool:
    """Return whether a region is left, from the moments at which it was lost and came back, in turn."""
    left = False
    for number, (from_s, to_s) in enumerate(pairwise([*moments, now_s])):
        if to_s - from_s >= failover_s:
            left = number % 2 == 0
    return left
