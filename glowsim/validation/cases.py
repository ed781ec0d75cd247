"""The oracle table: every case with its exact value, its definition, and the simulation that must agree.

One list, from which the tests and the page are made. Times are in seconds and arrivals Poisson unless a
definition says otherwise; *wait* is in queue, zeros included; *sojourn* is wait plus service.
"""

from __future__ import annotations

import math
from functools import partial
from itertools import count
from typing import Any, Final

import numpy as np

from glowsim.stats import queueing as q
from glowsim.stats.oracles import arrivals, caches, charts, networks, priorities, samples, staffing, starts
from glowsim.validation import simulations as run
from glowsim.validation.case import Case, Quantity, Size

__all__ = ["CASES", "FINITE_CHOICES"]

_WORLD: Final = "Whole stack"
_NETWORK: Final = "Stations alone"
_NO: Final = "Not simulated"
_KLEINROCK: Final = "Kleinrock, Queueing Systems 1 (1975)"

FINITE_CHOICES: Final = {0.5: (1.266, 0.002), 0.9: (2.646, 0.004), 0.95: (3.464, 0.007), 0.99: (5.932, 0.022)}
"""Load -> mean sojourn among 100 queues by two choices without replacement, and its 95 % half-width.

There is no formula for a finite number of queues: measured by an independent simulation.
"""
_LOOK_S: Final = 0.25


def _law(law: str, **parameters: Any) -> dict[str, Any]:
    return {"service": {"law": "time", "time": {"law": law, **parameters}}}


def _shared(slowdown: str, noise: dict[str, Any]) -> dict[str, Any]:
    tokens = {"law": "tokens", "base": "1s", "input": "0s/token", "output": "0s/token"}
    return tokens | {"slowdown": slowdown, "noise": noise}


def _servers(erlangs: int) -> int:
    """Return the fewest servers with which one in twenty waits for more than a third of a service."""
    return next(
        servers for servers in count(erlangs + 1) if q.mmc_wait_tail(1 / 3, erlangs, 1.0, servers) <= 0.05
    )


def _single_stations() -> list[Case]:
    one, ten = q.mmc(0.8, 1.0, 1), q.mmc(8.0, 1.0, 10)
    by_law = [
        ("constant", "M/D/1", 0.0, "2.0", {"service": {"law": "time", "time": "1s"}}, 20),
        ("erlang", "M/E2/1", 0.5, "3.0", _law("gamma", mean="1s", cv=math.sqrt(0.5)), 25),
        (
            "lognormal", "M/G/1, lognormal with sigma 1", math.e - 1.0, "5.436564",
            _law("lognormal", median=f"{math.exp(-0.5)!r}s", sigma=1.0), 40,
        ),
    ]  # fmt: skip
    general = [
        Case(
            3, f"mg1-{key}", title, "Arrivals 0.8, mean service 1, one server.", f"{_WORLD}: one instance.",
            "Pollaczek (1930); Khinchine (1932)",
            (Quantity("mean wait", q.mg1(0.8, 1.0, scv).wait_s, printed, "wait_s"),),
            partial(run.steady, 0.8, 1000.0, agent=agent), Size(6_000, 8), Size(400_000, runs),
        )
        for key, title, scv, printed, agent, runs in by_law
    ]  # fmt: skip
    return [
        Case(
            1, "mm1", "M/M/1", "Arrivals 0.8, service rate 1.", f"{_WORLD}: one instance.", _KLEINROCK,
            (
                Quantity("mean wait", one.wait_s, "4.0", "wait_s"),
                Quantity("mean sojourn", one.sojourn_s, "5.0", "sojourn_s"),
                Quantity("mean number inside", one.in_system, "4.0", "in_system"),
                Quantity("p95 of the wait", q.mmc_wait_quantile_s(0.95, 0.8, 1.0, 1), "13.8629", "wait_s_p95"),
                Quantity("p99 of the wait", q.mmc_wait_quantile_s(0.99, 0.8, 1.0, 1), "21.9101", "wait_s_p99"),
            ),
            partial(run.steady, 0.8, 1000.0), Size(8_000, 8), Size(500_000, 40),
        ),
        Case(
            2, "mm10", "M/M/10", "Arrivals 8, service rate 1, ten servers.", f"{_WORLD}: ten instances.",
            "Erlang (1917)",
            (
                Quantity("chance to wait", ten.p_wait, "0.409180", "p_wait"),
                Quantity("mean wait", ten.wait_s, "0.204590", "wait_s"),
                Quantity("mean number waiting", ten.queued, "1.636721", "queued"),
                Quantity("p95 of the wait", q.mmc_wait_quantile_s(0.95, 8.0, 1.0, 10), "1.051066", "wait_s_p95"),
                Quantity("p99 of the wait", q.mmc_wait_quantile_s(0.99, 8.0, 1.0, 10), "1.855785", "wait_s_p99"),
                Quantity(
                    "p95 of the sojourn", q.mmc_sojourn_quantile_s(0.95, 8.0, 1.0, 10), "3.328275", "sojourn_s_p95"
                ),
                Quantity(
                    "p99 of the sojourn", q.mmc_sojourn_quantile_s(0.99, 8.0, 1.0, 10), "4.946111", "sojourn_s_p99"
                ),
            ),
            partial(run.steady, 8, 100.0, agent={"instances": 10}), Size(8_000, 8), Size(500_000, 60),
        ),
        *general,
        Case(
            3, "mg1-h2", "M/H2/1, squared variation 4",
            "Arrivals 0.8, one server; a service is exponential with a short or a long mean, 1 together.",
            f"{_WORLD}: one instance, two kinds of requests whose tokens differ.",
            "Pollaczek (1930); Khinchine (1932)",
            (Quantity("mean wait", q.mg1(0.8, 1.0, 4.0).wait_s, "10.0", "wait_s"),),
            run.hyperexponential, Size(8_000, 8), Size(400_000, 40),
        ),
    ]  # fmt: skip


def _losses() -> list[Case]:
    short, many = q.mmck(0.9, 1.0, 1, 5), q.mmck(3.5, 1.0, 3, 10)
    crowded, calm = q.erlang_a(12.0, 1.0, 10, 0.5), q.erlang_a(8.0, 1.0, 10, 0.5)
    limit = {"limiter": {"use": "concurrency", "limit": 10, "per": "agent"}}
    return [
        Case(
            4, "erlang-b", "M/M/10/10", "Arrivals 8, service rate 1, ten servers and no queue.",
            f"{_WORLD}: ten instances, a limit of ten open requests.", "Erlang (1917)",
            (Quantity("share lost", q.erlang_b(8.0, 10), "0.121661", "p_lost"),),
            partial(run.steady, 8, 100.0, agent={"instances": 10}, controllers=limit),
            Size(6_000, 8), Size(100_000, 40),
        ),
        Case(
            4, "mm15", "M/M/1/5", "Arrivals 0.9, service rate 1, five places in all.",
            f"{_WORLD}: one instance, a queue of four.", _KLEINROCK,
            (
                Quantity("share lost", short.p_lost, "0.126023", "p_lost"),
                Quantity("mean number inside", short.in_system, "2.194782", "in_system"),
            ),
            partial(run.steady, 0.9, 200.0, controllers={"queue": {"use": "fifo", "limit": 4}}),
            Size(6_000, 8), Size(60_000, 40),
        ),
        Case(
            4, "mm310", "M/M/3/10", "Arrivals 3.5, service rate 1, three servers, ten places in all.",
            f"{_WORLD}: three instances, a queue of seven.", _KLEINROCK,
            (
                Quantity("share lost", many.p_lost, "0.182952", "p_lost"),
                Quantity("mean sojourn", many.sojourn_s, "2.361199", "sojourn_s"),
            ),
            partial(
                run.steady, 3.5, 100.0, agent={"instances": 3}, controllers={"queue": {"use": "fifo", "limit": 7}}
            ),
            Size(6_000, 8), Size(100_000, 40),
        ),
        Case(
            5, "erlang-a", "Erlang A, overloaded",
            "Arrivals 12, ten servers of rate 1, who waits gives up at rate 0.5.",
            f"{_WORLD}, by deadlines. A deadline runs on in service, so services end at 0.5 by themselves and at 0.5 "
            "by it: together the rate 1.",
            "Palm (1957); Garnett, Mandelbaum, Reiman (2002)",
            (
                Quantity("share that gives up", crowded.p_lost, "0.195656", "p_gave_up"),
                Quantity("mean number waiting", crowded.queued, "4.695743", "queued"),
                Quantity("chance to wait", crowded.p_wait, "0.850385", "p_wait"),
            ),
            run.gives_up_by_deadline, Size(5_000, 8), Size(100_000, 40),
        ),
        Case(
            5, "erlang-a-calm", "Erlang A, calm", "Arrivals 8, ten servers of rate 1, giving up at rate 0.5.",
            f"{_NETWORK}; who gives up is cancelled in the backlog.", "Garnett, Mandelbaum, Reiman (2002)",
            (Quantity("share that gives up", calm.p_lost, "0.038821", "p_gave_up"),),
            partial(run.gives_up, 8.0, 10, 2.0), Size(25_000, 8), Size(300_000, 40),
        ),
        Case(
            5, "erlang-a-hundred", "Erlang A, a hundred servers",
            "Arrivals 100, a hundred servers of rate 1, giving up at rate 1.",
            f"{_NETWORK}; who gives up is cancelled in the backlog.", "Garnett, Mandelbaum, Reiman (2002)",
            (Quantity("share that gives up", q.erlang_a(100.0, 1.0, 100, 1.0).p_lost, "0.039861", "p_gave_up"),),
            partial(run.gives_up, 100.0, 100, 1.0), Size(30_000, 8), Size(400_000, 40),
        ),
    ]  # fmt: skip


def _networks() -> list[Case]:
    first, second = networks.jackson([3.0, 0.0], [[0.0, 1.0], [0.0, 0.0]], [5.0, 2.0], [1, 2])
    llm, tool = networks.jackson([0.9, 0.0], [[0.0, 0.7], [1.0, 0.0]], [1.0, 3.0], [4, 1])
    inside = llm.in_system + tool.in_system
    closed, users = q.mva(20, 10.0, [0.4, 0.3]), q.repairman(50, 10.0, 1.0, 5)
    return [
        Case(
            6, "tandem", "Tandem of two stations", "Arrivals 3; M/M/1 of rate 5, then M/M/2 of rate 2.", f"{_NETWORK}.",
            "Jackson (1957)",
            (
                Quantity("mean sojourn, first", first.sojourn_s, "0.5", "sojourn_s_0"),
                Quantity("mean sojourn, second", second.sojourn_s, "1.142857", "sojourn_s_1"),
                Quantity("mean time in all", first.sojourn_s + second.sojourn_s, "1.642857", "response_s"),
                Quantity("mean number inside", first.in_system + second.in_system, "4.928571", "in_system"),
            ),
            run.tandem, Size(15_000, 8), Size(200_000, 40),
        ),
        Case(
            7, "agent-loop", "Agent that calls a tool and comes back",
            "Tasks 0.9; a model with four servers of rate 1; after it, with chance 0.7, a tool of rate 3, and back.",
            f"{_NETWORK}.", "Jackson (1957)",
            (
                Quantity("mean sojourn at the model", llm.sojourn_s, "1.509434", "sojourn_s_0"),
                Quantity("mean sojourn at the tool", tool.sojourn_s, "1.111111", "sojourn_s_1"),
                Quantity("model calls a task", 1.0 / 0.3, "3.3333", "visits"),
                Quantity("mean time of a task", inside / 0.9, "7.624039", "response_s"),
                Quantity("mean number of tasks", inside, "6.861635", "in_system"),
            ),
            run.agent_loop, Size(8_000, 8), Size(150_000, 40),
        ),
        Case(
            8, "closed-stations", "Closed, two stations",
            "20 users think 10 s, then need 0.4 s and 0.3 s of two single servers.", f"{_NETWORK}.",
            "Reiser, Lavenberg (1980)",
            (
                Quantity("throughput", closed.throughput_per_s, "1.722025", "throughput_per_s"),
                Quantity("mean response", closed.response_s, "1.614231", "response_s"),
            ),
            run.closed_stations, Size(8_000, 8), Size(50_000, 20),
        ),
        Case(
            8, "closed-users", "Closed, five servers", "50 users think 10 s, then ask one of five servers of mean 1 s.",
            f"{_WORLD}: five instances, a closed workload.", f"{_KLEINROCK}, section 3.8",
            (
                Quantity("throughput", users.throughput_per_s, "4.327164", "throughput_per_s"),
                Quantity("mean response", users.response_s, "1.554913", "sojourn_s"),
            ),
            run.closed_users, Size(5_000, 8), Size(40_000, 25),
        ),
    ]  # fmt: skip


def _priorities() -> list[Case]:
    waits, known = priorities.priority_waits_s([0.3, 0.4], 1.0), priorities.priority_waits_s([0.2, 0.6], 1.0)
    first, second = priorities.preemptive_sojourns_s([0.3, 0.4], 1.0)
    ten = priorities.priority_waits_s([3.0, 5.0], 1.0, 10)
    how = f"{_WORLD}: strict priorities in the gateway's queue"
    return [
        Case(
            9, "priority", "M/M/1, two priorities", "Arrivals 0.3 and 0.4, service rate 1, no interruption.",
            f"{how}.", "Cobham (1954)",
            (
                Quantity("mean wait, first", waits[0], "1.0", "wait_s_0"),
                Quantity("mean wait, second", waits[1], "3.333333", "wait_s_1"),
            ),
            partial(run.prioritised, [0.3, 0.4], 1, 500.0), Size(6_000, 8), Size(300_000, 30),
        ),
        Case(
            9, "priority-crowded", "M/M/1, two priorities, load 0.8",
            "Arrivals 0.2 and 0.6, service rate 1, no interruption.", f"{how}.", "Cobham (1954)",
            (
                Quantity("mean sojourn, first", known[0] + 1.0, "2.0", "sojourn_s_0"),
                Quantity("mean sojourn, second", known[1] + 1.0, "6.0", "sojourn_s_1"),
            ),
            partial(run.prioritised, [0.2, 0.6], 1, 1000.0), Size(6_000, 8), Size(300_000, 30),
        ),
        Case(
            9, "priority-preemptive", "M/M/1, two priorities, preemptive-resume",
            "Arrivals 0.3 and 0.4, service rate 1; the second is interrupted and resumed.",
            f"{_NO}: no queue of the gateway interrupts a request in service, and a model server that preempts starts "
            "the request anew.",
            "Kleinrock, Queueing Systems 2 (1976), section 3.6",
            (
                Quantity("mean sojourn, first", first, "1.428571"),
                Quantity("mean sojourn, second", second, "4.761905"),
            ),
        ),
        Case(
            10, "priority-ten", "M/M/10, two priorities",
            "Arrivals 3 and 5, service rate 1, ten servers, no interruption.",
            f"{how}, ten instances.", "Davis (1966)",
            (
                Quantity("mean wait, first", ten[0], "0.058454", "wait_s_0"),
                Quantity("mean wait, second", ten[1], "0.292272", "wait_s_1"),
                Quantity("mean wait of all", math.fsum([3.0 * ten[0], 5.0 * ten[1]]) / 8.0, "0.204590", "wait_s"),
            ),
            partial(run.prioritised, [3.0, 5.0], 10, 100.0), Size(6_000, 8), Size(500_000, 60),
        ),
    ]  # fmt: skip


def _shared_service() -> list[Case]:
    replica = q.limited_processor_sharing(8.0, 1.0, batch=32, slowdown=0.05)
    capacity = q.birth_death(np.full(300, 10.0), 12.0 * np.minimum(np.arange(1, 301), 3)).tolist()
    wide = {"concurrency": 1000, "slots": 1000}
    return [
        Case(
            11, "processor-sharing", "M/G/1 processor sharing", "Load 0.8, any law of service; here a variation of 2.",
            f"{_WORLD}: one shared instance, requests of gamma length.", "Kleinrock, Queueing Systems 2 (1976)",
            (Quantity("mean sojourn", q.mg1_ps_sojourn_s(0.8, 1.0), "5.0", "sojourn_s"),),
            partial(
                run.steady, 0.8, 1000.0,
                agent=wide | {"service": _shared("100%", {"law": "gamma", "mean": 1, "cv": 2.0})},
            ),
            Size(6_000, 8), Size(400_000, 40),
        ),
        Case(
            11, "capacity-sharing", "Sharing beyond three",
            "Arrivals 10, rate 12; up to three run at full rate, n > 3 at 3 / n of it each.",
            f"{_NO}: the shared instance slows with every request from the second on, and has no such knee.",
            "the birth-death chain",
            tuple(
                Quantity(f"chance of {n} inside", capacity[n], printed)
                for n, printed in enumerate(["0.432133", "0.360111", "0.150046", "0.041679"])
            ),
        ),
        Case(
            12, "limited-sharing", "Limited sharing (a model replica)",
            "Arrivals 8, exponential work of mean 1 s alone; up to 32 at once, each slower by 5 % for every other.",
            f"{_WORLD}: one shared instance of concurrency 32.", f"the birth-death chain; {_KLEINROCK}, chapter 3",
            (
                Quantity("mean number inside", replica.in_system, "13.334318", "in_system"),
                Quantity("mean sojourn", replica.sojourn_s, "1.666790", "sojourn_s"),
                Quantity(
                    "chance to wait", replica.p_wait, "0.000902", "p_wait",
                    why_wide="too rare: 2 % would take 1e9 requests",
                ),
            ),
            partial(
                run.steady, 8, 100.0,
                agent={"concurrency": 32, "service": _shared("5%", {"law": "exponential", "mean": 1})},
            ),
            Size(8_000, 8), Size(100_000, 30),
        ),
    ]  # fmt: skip


def _choices() -> list[Case]:
    among = {load: found for load, (found, _) in FINITE_CHOICES.items()}
    limit = {load: q.supermarket_sojourn(load) for load in (0.9, 0.95)}
    source = "Mitzenmacher (2001); Vvedenskaya, Dobrushin, Karpelevich (1996)"
    how = f"{_WORLD}: instances with a queue each, the balancer power_of_two."
    quick = {0.5: Size(6_000, 6), 0.9: Size(16_000, 6)}
    full = {0.5: Size(50_000, 20), 0.9: Size(150_000, 40), 0.95: Size(200_000, 40), 0.99: Size(400_000, 40)}
    warmup_s = {0.5: 20.0, 0.9: 80.0, 0.95: 200.0, 0.99: 1500.0}
    hundred = [
        Case(
            13, f"two-choices-{load}", f"Two choices among 100, load {load}",
            "The shorter of two queues, drawn without replacement. No formula: simulated independently, and off by up "
            "to its own half-width.",
            how, "an independent simulation",
            (
                Quantity(
                    "mean sojourn", found, f"{found:.3f}", "sojourn_s", within=FINITE_CHOICES[load][1] * 3.615 / 1.96
                ),
            ),
            partial(run.choices, 100, load, warmup_s[load]), quick.get(load), full[load],
        )
        for load, found in among.items()
    ]  # fmt: skip
    endless = [
        Case(
            13, f"two-choices-limit-{load}", f"Two choices among endlessly many, load {load}",
            "The limit of ever more servers. Simulated with 500, which may exceed it by a fifth of what 100 do.",
            how, source,
            (
                Quantity(
                    "mean sojourn", exact, {0.9: "2.614057", 0.95: "3.383046"}[load], "sojourn_s",
                    within=(among[load] - exact) / 5.0,
                ),
                Quantity("mean sojourn, one choice", q.supermarket_sojourn(load, 1), {0.9: "10", 0.95: "20"}[load]),
            ),
            partial(run.choices, 500, load, warmup_s[load]), None,
            {0.9: Size(150_000, 30), 0.95: Size(250_000, 30)}[load],
        )
        for load, exact in limit.items()
    ]  # fmt: skip
    return [*hundred, *endless]


def _caches() -> list[Case]:
    never = {"use": "lru", "entries": 1000, "ttl": "3000d"}
    lru = [
        Case(
            14, f"lru-{alpha}", f"LRU, Zipf {alpha}",
            f"10,000 prompts with popularity by Zipf's law of exponent {alpha}, a cache of 1,000. Che's value is an "
            "approximation, taken to be within 0.1 % here.",
            f"{_WORLD}: the cache lru, answers at once.", "Che, Tung, Wang (2002)",
            (
                Quantity(
                    "hit rate", exact := caches.che_hit_rate(caches.zipf(10_000, alpha), 1000), printed, "hit_rate",
                    within=0.001 * exact,
                ),
            ),
            partial(run.cached, "1000/s", 10_000, alpha, never, 5.0), Size(10_000, 8), Size(50_000, 20),
        )
        for alpha, printed in ((0.8, "0.436660"), (1.0, "0.675602"))
    ]  # fmt: skip
    source = "Jung, Berger, Balakrishnan (2003)"
    return [
        *lru,
        Case(
            14, "ttl", "One key, a time to live of 10 s", "Asked for 0.5 times a second; a hit does not renew it.",
            f"{_WORLD}: the cache lru with a time to live.", source,
            (Quantity("hit rate", caches.ttl_hit_rate(0.5, 10.0, renewed=False), "0.833333", "hit_rate"),),
            partial(run.cached, "0.5/s", 1, 0.0, {"use": "lru", "entries": 1, "ttl": "10s"}, 100.0),
            Size(3_000, 8), Size(20_000, 10),
        ),
        Case(
            14, "ttl-renewed", "One key, a time to live that hits renew", "Asked for 0.5 times a second, 10 s.",
            f"{_NO}: a hit renews the time to live of no cache here, so that an answer never outlives it.", source,
            (Quantity("hit rate", caches.ttl_hit_rate(0.5, 10.0, renewed=True), "0.993262"),),
        ),
    ]  # fmt: skip


def _unsteady() -> list[Case]:
    inside = arrivals.batch_in_system(0.2, 3.0, 1.0)
    load = arrivals.swinging_load(10.0, 5.0, 24.0, 1.0)
    return [
        Case(
            15, "cold-start", "M/M/1 with cold starts",
            "Arrivals 0.5, service rate 1; an empty server goes off at once, and takes an exponential 5 s to start "
            f"when the next request comes. The scaler looks every {_LOOK_S} s and is late by up to that: the second "
            "value allows for it, and is simulated.",
            f"{_WORLD}: one instance, scaled to zero by agent_scaler.", "Welch (1964)",
            (
                Quantity("mean sojourn, off at once", q.mm1_setup_sojourn_s(0.5, 1.0, 5.0), "7.0"),
                Quantity(
                    "mean sojourn, off at the next look", starts.lingering_setup_sojourn_s(0.5, 1.0, 5.0, _LOOK_S),
                    metric="sojourn_s",
                ),
            ),
            partial(run.scaled_to_zero, _LOOK_S), Size(2_500, 8), Size(30_000, 25),
        ),
        Case(
            16, "batches", "M^X/M/1",
            "Batches of geometric size on 1, 2, .. with mean 3 arrive at 0.2; service rate 1.",
            f"{_WORLD}: one instance; the moments of arrival are drawn for the case.", "Cooper (1981), chapter 5",
            (
                Quantity("mean number inside", inside, "4.5", "in_system"),
                Quantity("mean sojourn", inside / 0.6, "7.5", "sojourn_s"),
            ),
            run.in_batches, Size(6_000, 8), Size(250_000, 40),
        ),
        Case(
            17, "swing", "M(t)/M/inf",
            "Arrivals 10 + 5 sin(2 pi t / 24) an hour, mean service an hour, endless servers.",
            f"{_WORLD}: a diurnal workload; the sine in the number present, by its Fourier integrals.",
            "Eick, Massey, Whitt (1993)",
            (
                Quantity("highest mean number", load.peak, "14.836986", "peak"),
                Quantity("lag in hours", load.lag_s, "0.978", "lag_h"),
            ),
            run.swinging, Size(6_000, 8), Size(300_000, 40),
        ),
        Case(
            18, "staffing", "Staffing of 100 erlangs", "110 servers; the square-root rule against Erlang C.",
            f"{_WORLD}: 110 instances, for the exact value. The approximation is a formula.", "Halfin, Whitt (1981)",
            (
                Quantity("chance to wait, approximately", staffing.halfin_whitt_wait(100.0, 110), "0.223361"),
                Quantity(
                    "chance to wait, exactly", q.erlang_c(100.0, 110), "0.237008", "p_wait",
                    why_wide="2 % would take 4e7 requests",
                ),
            ),
            partial(run.steady, 100, 30.0, agent={"instances": 110}), Size(8_000, 8), Size(200_000, 40),
        ),
        Case(
            18, "staffing-late", "Servers for one in twenty late",
            "The fewest servers with P(wait > a third of a service) <= 0.05, for 10 and 600 erlangs.", "Formula.",
            "Erlang (1917)",
            tuple(
                Quantity(f"servers for {erlangs} erlangs", _servers(erlangs), printed)
                for erlangs, printed in ((10, "14"), (600, "608"))
            ),
        ),
    ]  # fmt: skip


def _statistics() -> list[Case]:
    lengths = {
        5.0: ("938", "10.34", "930.89", "10.376"),
        4.0: ("338", "8.34", "335.37", "8.383"),
    }
    return [
        *(
            Case(
                19, f"cusum-{threshold:g}", f"CUSUM, threshold {threshold:g}",
                "One-sided from 0, allowance 0.5, normal values of variance 1; until the alarm, with no shift and with "
                "a shift of 1.",
                f"{_NO}: no world makes normal values. The detector `cusum` is run against these in the tests.",
                "Page (1954); Siegmund (1985)",
                (
                    Quantity("run without shift, approximately", charts.siegmund_run_length(threshold, 0.5, 0.0), p[0]),
                    Quantity("run with shift, approximately", charts.siegmund_run_length(threshold, 0.5, 1.0), p[1]),
                    Quantity("run without shift, exactly", charts.cusum_run_length(threshold, 0.5, 0.0), p[2]),
                    Quantity("run with shift, exactly", charts.cusum_run_length(threshold, 0.5, 1.0), p[3]),
                ),
            )
            for threshold, p in lengths.items()
        ),
        Case(
            20, "two-shares", "Two shares, 0.10 against 0.12", "Units per arm, two-sided 0.05, power 0.8.", "Formula.",
            "Fleiss (1981), chapter 3; Cohen (1988), chapter 6",
            (
                Quantity("pooled", samples.two_share_sample(0.10, 0.12), "3841"),
                Quantity("unpooled", samples.two_share_sample(0.10, 0.12, rule="unpooled"), "3839"),
                Quantity("by Cohen's h", samples.two_share_sample(0.10, 0.12, rule="cohen"), "3835"),
            ),
        ),
    ]  # fmt: skip


CASES: Final[dict[str, Case]] = {
    case.key: case
    for case in (
        *_single_stations(), *_losses(), *_networks(), *_priorities(), *_shared_service(), *_choices(), *_caches(),
        *_unsteady(), *_statistics(),
    )
}  # fmt: skip
"""Key -> case, in the order of the table."""
