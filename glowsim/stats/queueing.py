"""Closed-form answers of queueing theory, to hold a simulation against.

Rates are per second and times in seconds, though any one unit of time works throughout. *Wait* is time in
queue, *sojourn* wait plus service; both are means unless the name says otherwise, zero waits included. The
offered load, in erlangs, is arrival rate times mean service time: the servers that would be busy if none of
the work were lost. A station that cannot keep up has no steady state, and raises ``ValueError``.

General sources: Kleinrock, Queueing Systems, volumes 1 (1975) and 2 (1976); Cooper, Introduction to Queueing
Theory (1981).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "ClosedMeans",
    "StationMeans",
    "birth_death",
    "erlang_a",
    "erlang_b",
    "erlang_c",
    "limited_processor_sharing",
    "little",
    "mg1",
    "mg1_ps_sojourn_s",
    "mm1_setup_sojourn_s",
    "mmc",
    "mmc_sojourn_quantile_s",
    "mmc_sojourn_tail",
    "mmc_wait_quantile_s",
    "mmc_wait_tail",
    "mmck",
    "mva",
    "repairman",
    "supermarket_sojourn",
]

_NEGLIGIBLE_LOG = -45.0
_MOST_STATES = 1_000_000


class StationMeans(NamedTuple):
    """The steady state of an open station.

    ``p_wait`` is the chance that an arrival which is let in must wait, ``p_lost`` that an arrival is turned
    away (M/M/c/K) or gives up (Erlang A). ``wait_s`` and ``sojourn_s`` are means over the arrivals let in,
    those that give up later included; ``queued`` and ``in_system`` are means over time.

    >>> mmc(0.8, 1.0, 1).in_system == little(0.8, mmc(0.8, 1.0, 1).sojourn_s)
    True
    """

    p_wait: float
    wait_s: float
    sojourn_s: float
    queued: float
    in_system: float
    p_lost: float = 0.0


class ClosedMeans(NamedTuple):
    """The steady state of a closed system: ``throughput_per_s``, and ``response_s`` without the think time.

    >>> ClosedMeans(2.0, 5.0).response_s
    5.0
    """

    throughput_per_s: float
    response_s: float


def little(rate_per_s: float, mean_time_s: float) -> float:
    """Give the mean number present, L = rate times mean time, for any stable system in any order of service.

    Raises ``ValueError`` for a negative rate or time.

    >>> round(little(167.0, 1.1))
    184

    Source: Little (1961), Operations Research 9.
    """
    _check("little", rate_per_s >= 0.0 and mean_time_s >= 0.0, "give a rate and a time of at least 0")
    return rate_per_s * mean_time_s


def erlang_b(load_erlangs: float, servers: int) -> float:
    """Give the share of calls lost by ``servers`` >= 0 without a queue, at an offered load >= 0 (M/G/c/c).

    Raises ``ValueError`` for a negative load or number of servers.

    >>> f"{erlang_b(8.0, 10):.6f}"
    '0.121661'

    Source: Erlang (1917); the recursion over servers is stable where factorials overflow.
    """
    _check("erlang_b", load_erlangs >= 0.0 and servers >= 0, "give a load and servers of at least 0")
    blocked = 1.0
    for server in range(1, servers + 1):
        blocked = load_erlangs * blocked / (server + load_erlangs * blocked)
    return blocked


def erlang_c(load_erlangs: float, servers: int) -> float:
    """Give the chance that an arrival must wait for one of ``servers`` >= 1 (M/M/c).

    Raises ``ValueError`` unless 0 <= ``load_erlangs`` < ``servers``.

    >>> f"{erlang_c(8.0, 10):.6f}"
    '0.409180'

    Source: Erlang (1917).
    """
    _check("erlang_c", 0.0 <= load_erlangs < servers, f"give {servers} servers a load from 0 to below that")
    blocked = erlang_b(load_erlangs, servers)
    return blocked / (1.0 - load_erlangs / servers * (1.0 - blocked))


def mmc(arrival_per_s: float, service_per_s: float, servers: int) -> StationMeans:
    """Solve M/M/c: Poisson arrivals, exponential services, one queue, ``servers`` >= 1; M/M/1 for one.

    Raises ``ValueError`` for rates that are not above zero or a load of ``servers`` or more.

    >>> station = mmc(8.0, 1.0, 10)
    >>> f"{station.wait_s:.6f} {station.queued:.6f}"
    '0.204590 1.636721'
    """
    _check_rates("mmc", arrival_per_s, service_per_s)
    p_wait = erlang_c(arrival_per_s / service_per_s, servers)
    wait_s = p_wait / (servers * service_per_s - arrival_per_s)
    return _open(p_wait, wait_s, wait_s + 1.0 / service_per_s, arrival_per_s)


def mmc_wait_tail(t_s: float, arrival_per_s: float, service_per_s: float, servers: int) -> float:
    """Give P(wait > ``t_s``) in M/M/c, first come first served, for ``t_s`` >= 0.

    Raises ``ValueError`` for a negative time, and as ``mmc`` does.

    >>> f"{mmc_wait_tail(0.0, 8.0, 1.0, 10):.6f}"
    '0.409180'
    """
    _check("mmc_wait_tail", t_s >= 0.0, "give a time of at least 0")
    p_wait = mmc(arrival_per_s, service_per_s, servers).p_wait
    return p_wait * math.exp(-(servers * service_per_s - arrival_per_s) * t_s)


def mmc_wait_quantile_s(q: float, arrival_per_s: float, service_per_s: float, servers: int) -> float:
    """Give the ``q`` quantile of the wait in M/M/c, 0 <= ``q`` < 1, first come first served.

    All arrivals count, those that found a free server too: up to their share the quantile is zero.

    Raises ``ValueError`` for ``q`` out of range, and as ``mmc`` does.

    >>> [f"{mmc_wait_quantile_s(q, 8.0, 1.0, 10):.6f}" for q in (0.5, 0.95, 0.99)]
    ['0.000000', '1.051066', '1.855785']
    """
    _check("mmc_wait_quantile_s", 0.0 <= q < 1.0, "give q from 0 to below 1")
    p_wait = mmc(arrival_per_s, service_per_s, servers).p_wait
    if p_wait <= 1.0 - q:
        return 0.0
    return math.log(p_wait / (1.0 - q)) / (servers * service_per_s - arrival_per_s)


def mmc_sojourn_tail(t_s: float, arrival_per_s: float, service_per_s: float, servers: int) -> float:
    """Give P(sojourn > ``t_s``) in M/M/c, first come first served, for ``t_s`` >= 0.

    Raises ``ValueError`` for a negative time, and as ``mmc`` does.

    >>> f"{mmc_sojourn_tail(5.0, 0.8, 1.0, 1):.6f}" == f"{math.exp(-1.0):.6f}"
    True
    """
    _check("mmc_sojourn_tail", t_s >= 0.0, "give a time of at least 0")
    p_wait = mmc(arrival_per_s, service_per_s, servers).p_wait
    drain_per_s = servers * service_per_s - arrival_per_s
    slower, apart = min(service_per_s, drain_per_s), abs(service_per_s - drain_per_s)
    overlap_s = t_s if apart == 0.0 else -math.expm1(-apart * t_s) / apart
    waited = p_wait * service_per_s * overlap_s * math.exp(-slower * t_s)
    return math.exp(-service_per_s * t_s) + waited


def mmc_sojourn_quantile_s(q: float, arrival_per_s: float, service_per_s: float, servers: int) -> float:
    """Give the ``q`` quantile of the sojourn in M/M/c, 0 <= ``q`` < 1, first come first served.

    Raises ``ValueError`` for ``q`` out of range, and as ``mmc`` does.

    >>> [f"{mmc_sojourn_quantile_s(q, 8.0, 1.0, 10):.6f}" for q in (0.95, 0.99)]
    ['3.328275', '4.946111']
    """
    from scipy.optimize import brentq

    _check("mmc_sojourn_quantile_s", 0.0 <= q < 1.0, "give q from 0 to below 1")
    rates = (arrival_per_s, service_per_s, servers)
    beyond_s = mmc(*rates).sojourn_s
    while mmc_sojourn_tail(beyond_s, *rates) > 1.0 - q:
        beyond_s *= 2.0
    return float(brentq(lambda t_s: mmc_sojourn_tail(t_s, *rates) - (1.0 - q), 0.0, beyond_s, xtol=1e-12))


def mg1(arrival_per_s: float, mean_service_s: float, service_scv: float) -> StationMeans:
    """Solve M/G/1, first come first served: the formula of Pollaczek and Khinchine.

    ``service_scv`` >= 0 is the variance of the service time over its squared mean: 0 constant, 1 exponential,
    exp(sigma^2) - 1 lognormal.

    Raises ``ValueError`` for a rate or time not above zero, a negative ``service_scv``, or a load from 1 up.

    >>> f"{mg1(0.8, 1.0, math.e - 1.0).wait_s:.6f}"
    '5.436564'

    Source: Pollaczek (1930); Khinchine (1932).
    """
    load = _single_server_load("mg1", arrival_per_s, mean_service_s)
    _check("mg1", service_scv >= 0.0, "give a service_scv of at least 0")
    wait_s = load * mean_service_s * (1.0 + service_scv) / 2.0 / (1.0 - load)
    return _open(load, wait_s, wait_s + mean_service_s, arrival_per_s)


def mg1_ps_sojourn_s(arrival_per_s: float, mean_service_s: float, service_s: float | None = None) -> float:
    """Give the mean sojourn under processor sharing: x / (1 - load), whatever the service distribution.

    x is ``service_s``, the work of one job in seconds alone, and the mean service when left out.

    Raises ``ValueError`` for a rate or time not above zero, or a load of 1 or more.

    >>> round(mg1_ps_sojourn_s(0.8, 1.0), 9)
    5.0
    """
    load = _single_server_load("mg1_ps_sojourn_s", arrival_per_s, mean_service_s)
    work_s = mean_service_s if service_s is None else service_s
    _check("mg1_ps_sojourn_s", work_s > 0.0, "give a service_s above 0")
    return work_s / (1.0 - load)


def mm1_setup_sojourn_s(arrival_per_s: float, service_per_s: float, mean_setup_s: float) -> float:
    """Give the mean sojourn in M/M/1 that pays a set-up, such as a cold start, after each idle time.

    The server switches off as soon as it is empty; the set-up, exponential with ``mean_setup_s`` >= 0, starts
    with the next arrival, which waits for it.

    Raises ``ValueError`` for rates not above zero, a negative set-up, or a load of 1 or more.

    >>> mm1_setup_sojourn_s(0.5, 1.0, 5.0)
    7.0

    Source: Welch (1964), Operations Research 12.
    """
    _check("mm1_setup_sojourn_s", mean_setup_s >= 0.0, "give a mean_setup_s of at least 0")
    return mmc(arrival_per_s, service_per_s, 1).sojourn_s + mean_setup_s


def supermarket_sojourn(load: float, choices: int = 2) -> float:
    """Give the mean sojourn, in mean service times, when each arrival joins the shortest of some queues.

    ``choices`` >= 1 queues, one exponential server each at 0 <= ``load`` < 1, are drawn anew for every
    arrival. This is the limit of endlessly many queues; with two choices a hundred queues are slower by 1 %
    at load 0.9 and 2.4 % at 0.95.

    Raises ``ValueError`` for a load or number of choices out of range.

    >>> [f"{supermarket_sojourn(load):.6f}" for load in (0.9, 0.95)]
    ['2.614057', '3.383046']

    Source: Mitzenmacher (2001), IEEE Trans. Parallel and Distributed Systems 12; Vvedenskaya, Dobrushin,
    Karpelevich (1996): the sum over k of load^((d^k - d) / (d - 1)), for two choices load^(2^k - 2).
    """
    _check("supermarket_sojourn", 0.0 <= load < 1.0 and choices >= 1, "give 0 <= load < 1 and choices >= 1")
    if choices == 1:
        return 1.0 / (1.0 - load)
    total, term, exponent = 0.0, 1.0, 0.0
    while term > 0.0:
        total += term
        exponent = choices * (exponent + 1.0)
        term = load**exponent
    return total


def birth_death(birth_per_s: ArrayLike, death_per_s: ArrayLike) -> NDArray[np.float64]:
    """Give the stationary probabilities of states 0..n of a birth-death chain, shape (n + 1,).

    ``birth_per_s[i]`` > 0 leads from state i to i + 1, ``death_per_s[i]`` > 0 back; both of shape (n,).

    Raises ``ValueError`` for shapes that differ or rates not above zero.

    >>> birth_death([1.0, 1.0], [1.0, 2.0]).tolist()
    [0.4, 0.4, 0.2]
    """
    births, deaths = np.asarray(birth_per_s, dtype=np.float64), np.asarray(death_per_s, dtype=np.float64)
    _check(
        "birth_death",
        births.ndim == 1
        and births.shape == deaths.shape
        and bool(np.all(births > 0.0) and np.all(deaths > 0.0)),
        "give as many birth as death rates, all above 0",
    )
    log_weights = np.concatenate([[0.0], np.cumsum(np.log(births) - np.log(deaths))])
    weights = np.exp(log_weights - log_weights.max())
    return np.asarray(weights / weights.sum())


def mmck(arrival_per_s: float, service_per_s: float, servers: int, places: int) -> StationMeans:
    """Solve M/M/c/K: ``places`` >= ``servers`` >= 1 count those in service; who finds all taken is lost.

    Any load has a steady state. Raises ``ValueError`` for rates not above zero or too few places.

    >>> station = mmck(3.5, 1.0, 3, 10)
    >>> f"{station.p_lost:.6f} {station.sojourn_s:.6f}"
    '0.182952 2.361199'
    """
    _check_rates("mmck", arrival_per_s, service_per_s)
    _check("mmck", 1 <= servers <= places, "give 1 <= servers <= places")
    served = service_per_s * np.minimum(np.arange(1, places + 1), servers)
    p = birth_death(np.full(places, arrival_per_s), served)
    n = np.arange(places + 1)
    let_in = 1.0 - float(p[-1])
    in_system, queued = float(p @ n), float(p @ np.maximum(n - servers, 0))
    return StationMeans(
        p_wait=float(p[servers:-1].sum()) / let_in,
        wait_s=queued / (arrival_per_s * let_in),
        sojourn_s=in_system / (arrival_per_s * let_in),
        queued=queued,
        in_system=in_system,
        p_lost=float(p[-1]),
    )


def erlang_a(arrival_per_s: float, service_per_s: float, servers: int, abandon_per_s: float) -> StationMeans:
    """Solve Erlang A (M/M/c+M): who waits gives up after an exponential patience of rate ``abandon_per_s``.

    Any load has a steady state. Raises ``ValueError`` for rates not above zero, no server, or a patience so
    long under overload that more than a million states would count.

    >>> station = erlang_a(12.0, 1.0, 10, 0.5)
    >>> f"{station.p_lost:.6f} {station.queued:.6f} {station.p_wait:.6f}"
    '0.195656 4.695743 0.850385'

    Source: Palm (1957); Garnett, Mandelbaum, Reiman (2002), Manufacturing & Service Operations Management 4.
    """
    _check_rates("erlang_a", arrival_per_s, service_per_s, abandon_per_s)
    _check("erlang_a", servers >= 1, "give at least one server")
    departures: list[float] = []
    log_weight = greatest = 0.0
    while (
        (n := len(departures)) < servers
        or log_weight > greatest + _NEGLIGIBLE_LOG
        or departures[-1] <= arrival_per_s
    ):
        _check("erlang_a", n < _MOST_STATES, "the queue is too long to solve; raise abandon_per_s or servers")
        departures.append(service_per_s * min(n + 1, servers) + abandon_per_s * max(n + 1 - servers, 0))
        log_weight += math.log(arrival_per_s / departures[-1])
        greatest = max(greatest, log_weight)
    p = birth_death(np.full(n, arrival_per_s), departures)
    states = np.arange(n + 1)
    in_system, queued = float(p @ states), float(p @ np.maximum(states - servers, 0))
    return StationMeans(
        p_wait=float(p[servers:].sum()),
        wait_s=queued / arrival_per_s,
        sojourn_s=in_system / arrival_per_s,
        queued=queued,
        in_system=in_system,
        p_lost=abandon_per_s * queued / arrival_per_s,
    )


def limited_processor_sharing(
    arrival_per_s: float, service_per_s: float, batch: int, slowdown: float
) -> StationMeans:
    """Solve limited processor sharing, the shape of an LLM replica with continuous batching.

    Up to ``batch`` >= 1 jobs run at once, each at rate ``service_per_s`` / (1 + ``slowdown`` * (n - 1)) when
    n of them do; the rest wait. Work is exponential. At a ``slowdown`` of 0 jobs do not disturb each other
    and this is M/M/c; at 1 they share the rate of one server.

    Raises ``ValueError`` for rates not above zero, parameters out of range, or arrivals at or above the rate
    of a full batch.

    >>> replica = limited_processor_sharing(8.0, 1.0, batch=32, slowdown=0.05)
    >>> f"{replica.in_system:.6f} {replica.sojourn_s:.6f} {replica.p_wait:.6f}"
    '13.334318 1.666790 0.000902'

    Source: the birth-death chain with a geometric tail beyond the batch, Kleinrock volume 1, chapter 3.
    """
    _check_rates("limited_processor_sharing", arrival_per_s, service_per_s)
    _check("limited_processor_sharing", batch >= 1 and slowdown >= 0.0, "give batch >= 1 and slowdown >= 0")
    running = np.arange(1, batch + 1)
    rates = service_per_s * running / (1.0 + slowdown * (running - 1))
    ratio = arrival_per_s / float(rates[-1])
    _check(
        "limited_processor_sharing",
        ratio < 1.0,
        f"a full batch serves {rates[-1]:.6g}/s; keep arrivals below that",
    )
    p = birth_death(np.full(batch, arrival_per_s), rates)
    full = float(p[-1]) / (1.0 - ratio)
    scale = 1.0 / (1.0 + full - float(p[-1]))
    p_wait = full * scale
    queued = p_wait * ratio / (1.0 - ratio)
    in_system = float(p[:-1] @ np.arange(batch)) * scale + p_wait * batch + queued
    return StationMeans(p_wait, queued / arrival_per_s, in_system / arrival_per_s, queued, in_system)


def repairman(users: int, think_s: float, service_s: float, servers: int) -> ClosedMeans:
    """Solve a closed loop: ``users`` >= 1 think for ``think_s`` > 0, then ask one of ``servers`` >= 1.

    Thinking and service (mean ``service_s`` > 0) are exponential. Raises ``ValueError`` out of these ranges.

    >>> loop = repairman(50, 10.0, 1.0, 5)
    >>> f"{loop.throughput_per_s:.6f} {loop.response_s:.6f}"
    '4.327164 1.554913'

    Source: the machine-repair model, Kleinrock volume 1, section 3.8.
    """
    _check("repairman", users >= 1 and servers >= 1, "give at least one user and one server")
    _check("repairman", think_s > 0.0 and service_s > 0.0, "give times above 0")
    n = np.arange(1, users + 1)
    served = np.minimum(n, servers) / service_s
    p = birth_death((users - n + 1) / think_s, served)
    throughput = float(p[1:] @ served)
    return ClosedMeans(throughput, users / throughput - think_s)


def mva(users: int, think_s: float, demands_s: Sequence[float]) -> ClosedMeans:
    """Solve a closed network of single-server queues exactly, by mean value analysis.

    ``users`` >= 1 think for a mean of ``think_s`` >= 0, then need ``demands_s[i]`` > 0 seconds of station i
    (visits times service) in exponential pieces. Raises ``ValueError`` out of these ranges.

    >>> system = mva(20, 10.0, [0.4, 0.3])
    >>> f"{system.throughput_per_s:.6f} {system.response_s:.6f}"
    '1.722025 1.614231'

    Source: Reiser and Lavenberg (1980), J. ACM 27.
    """
    demands = np.asarray(demands_s, dtype=np.float64)
    _check("mva", users >= 1 and think_s >= 0.0, "give at least one user and a think time of at least 0")
    _check(
        "mva", demands.ndim == 1 and demands.size > 0 and bool(np.all(demands > 0.0)), "give demands above 0"
    )
    queues = np.zeros_like(demands)
    throughput = response_s = 0.0
    for population in range(1, users + 1):
        responses = demands * (1.0 + queues)
        response_s = float(responses.sum())
        throughput = population / (think_s + response_s)
        queues = throughput * responses
    return ClosedMeans(throughput, response_s)


def _open(p_wait: float, wait_s: float, sojourn_s: float, arrival_per_s: float) -> StationMeans:
    return StationMeans(
        p_wait, wait_s, sojourn_s, little(arrival_per_s, wait_s), little(arrival_per_s, sojourn_s)
    )


def _single_server_load(name: str, arrival_per_s: float, mean_service_s: float) -> float:
    _check_rates(name, arrival_per_s, mean_service_s)
    load = arrival_per_s * mean_service_s
    _check(name, load < 1.0, f"the load is {load:.6g}; keep it below 1")
    return load


def _check_rates(name: str, *rates: float) -> None:
    _check(name, all(0.0 < rate < math.inf for rate in rates), f"{rates}: give numbers above 0")


def _check(name: str, holds: bool, remedy: str) -> None:
    if not holds:
        raise ValueError(f"{name}: {remedy}")
