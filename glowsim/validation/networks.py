"""Stations of the simulator put together directly, where no scenario says it: networks, and impatience.

The stations are the simulator's own (`FcfsEngine`) in its own time (`Environment`); only who goes where is
decided here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from glowsim.sim.environment import Environment
from glowsim.sim.serving.fcfs import FcfsEngine
from glowsim.validation.measures import Estimates, mean_present

__all__ = ["closed_network", "impatient_station", "open_network"]

_BLOCK = 4096


class _Customer:
    """What a station must know of a job, and where and when the job is in the network."""

    __slots__ = (
        "begun_s",
        "born_s",
        "end_s",
        "entered_s",
        "number",
        "progress",
        "station",
        "visits",
        "work_s",
    )

    end_s: float
    progress: float

    def __init__(self, number: int, born_s: float) -> None:
        self.number = number
        self.born_s = born_s
        self.begun_s = -1.0
        self.entered_s = born_s
        self.station = 0
        self.visits = 0
        self.work_s = 0.0


def open_network(
    rate_per_s: float, routing: Sequence[Sequence[float]], service_per_s: Sequence[float], servers: Sequence[int],
    tasks: int, from_s: float, generator: np.random.Generator,
) -> Estimates:  # fmt: skip
    """Run an open network that customers enter at station 0; return means over those who came from ``from_s`` on.

    ``sojourn_s_0`` is that of one visit to station 0, and so on; ``response_s`` a customer's whole time,
    ``visits`` how often it was at station 0, ``in_system`` the mean number in the network until the last
    arrival.

    Parameters
    ----------
    rate_per_s
        Of arrivals from outside.
    routing
        ``routing[i][j]``: the chance to go from station i to j; what is missing to one leaves.
    service_per_s, servers
        Of each station.
    tasks
        How many customers come.
    from_s
        Customers who came before are left out.
    generator
        Draws everything.
    """
    environment = Environment()
    exponential, uniform = _draws(generator.standard_exponential), _draws(generator.random)
    paths = [np.cumsum(row).tolist() for row in routing]
    born_s = np.cumsum(generator.standard_exponential(tasks) / rate_per_s)
    moments, left_s = born_s.tolist(), np.zeros(tasks)
    at_stations: list[list[float]] = [[] for _ in servers]
    visits: list[int] = []

    def enter(customer: _Customer, number: int) -> None:
        customer.station, customer.entered_s = number, environment.now
        customer.visits += number == 0
        customer.work_s = next(exponential) / service_per_s[number]
        stations[number].start(customer)

    def done(customer: _Customer) -> None:
        counted = customer.born_s >= from_s
        if counted:
            at_stations[customer.station].append(environment.now - customer.entered_s)
        luck = next(uniform)
        for number, share in enumerate(paths[customer.station]):
            if luck < share:
                enter(customer, number)
                return
        left_s[customer.number] = environment.now
        if counted:
            visits.append(customer.visits)

    stations = [FcfsEngine(environment, count, done) for count in servers]
    _arrivals(environment, moments, lambda i: enter(_Customer(i, moments[i]), 0))
    environment.run()
    counted = born_s >= from_s
    found = {f"sojourn_s_{number}": float(np.mean(times)) for number, times in enumerate(at_stations)}
    return found | {
        "response_s": float((left_s - born_s)[counted].mean()),
        "visits": float(np.mean(visits)),
        "in_system": mean_present(born_s, left_s, from_s, moments[-1]),
    }


def closed_network(
    users: int, think_s: float, service_s: Sequence[float], tasks: int, from_s: float,
    generator: np.random.Generator,
) -> Estimates:  # fmt: skip
    """Run users who think, then visit single servers one after the other; return throughput and response.

    Parameters
    ----------
    users
        How many; they begin in their think phase, which is exponential with mean ``think_s``.
    think_s, service_s
        Means, of thinking and at each station.
    tasks
        Rounds in all.
    from_s
        Rounds that ended before are left out.
    generator
        Draws everything.
    """
    environment = Environment()
    exponential = _draws(generator.standard_exponential)
    ended_s: list[float] = []
    responses: list[float] = []

    def think(customer: _Customer) -> None:
        environment.call_at(environment.now + think_s * next(exponential), ask, customer)

    def ask(customer: _Customer) -> None:
        customer.born_s, customer.station = environment.now, 0
        serve(customer)

    def serve(customer: _Customer) -> None:
        customer.work_s = service_s[customer.station] * next(exponential)
        stations[customer.station].start(customer)

    def done(customer: _Customer) -> None:
        customer.station += 1
        if customer.station < len(stations):
            serve(customer)
            return
        ended_s.append(environment.now)
        responses.append(environment.now - customer.born_s)
        if len(ended_s) < tasks:
            think(customer)

    stations = [FcfsEngine(environment, 1, done) for _ in service_s]
    for number in range(users):
        think(_Customer(number, 0.0))
    environment.run()
    ends, times = np.array(ended_s[:tasks]), np.array(responses[:tasks])
    counted = ends >= from_s
    return {
        "throughput_per_s": float(counted.sum()) / (float(ends[-1]) - from_s),
        "response_s": float(times[counted].mean()),
    }


def impatient_station(
    rate_per_s: float, service_s: float, servers: int, patience_s: float, tasks: int, from_s: float,
    generator: np.random.Generator,
) -> Estimates:  # fmt: skip
    """Run a station whose customers give up waiting after an exponential time; return the share that did.

    Parameters
    ----------
    rate_per_s
        Of arrivals.
    service_s, patience_s
        Means.
    servers
        Of the station.
    tasks
        How many come.
    from_s
        Those who came before are left out.
    generator
        Draws everything.
    """
    environment = Environment()
    born_s = np.cumsum(generator.standard_exponential(tasks) / rate_per_s)
    moments = born_s.tolist()
    services = (service_s * generator.standard_exponential(tasks)).tolist()
    patience = (patience_s * generator.standard_exponential(tasks)).tolist()
    gave_up = np.zeros(tasks, dtype=bool)

    def arrive(number: int) -> None:
        customer = _Customer(number, environment.now)
        customer.work_s = services[number]
        engine.start(customer)
        if customer.begun_s < 0.0:
            environment.call_at(environment.now + patience[number], give_up, customer)

    def give_up(customer: _Customer) -> None:
        if customer.begun_s < 0.0:
            engine.cancel(customer)
            gave_up[customer.number] = True

    engine = FcfsEngine(environment, servers, lambda customer: None)
    _arrivals(environment, moments, arrive)
    environment.run()
    return {"p_gave_up": float(gave_up[born_s >= from_s].mean())}


def _arrivals(environment: Environment, moments: Sequence[float], arrive: Callable[[int], None]) -> None:
    """Have ``arrive(i)`` called at the i-th moment, with one pending arrival at a time."""

    def come(i: int) -> None:
        if i + 1 < len(moments):
            environment.call_at(moments[i + 1], come, i + 1)
        arrive(i)

    environment.call_at(moments[0], come, 0)


def _draws(draw: Callable[[int], npt.NDArray[np.float64]]) -> Iterator[float]:
    while True:
        yield from draw(_BLOCK).tolist()
