"""Controllers that cheat, and a small world in which an honest one and a cheat can be told apart.

As a script, ``rogues.py NAME`` runs the world with the balancer of that name and prints a digest of all that
was said; two hash seeds must give equal digests.
"""

from __future__ import annotations

import random
import sys
import time
from hashlib import blake2b
from math import inf

import numpy as np

from controllers.balancing.power_of_two import PowerOfTwo
from controllers.balancing.round_robin import RoundRobin
from controllers.queueing.fifo import FifoQueue
from glowsim.core.control_plane import ControlPlane
from glowsim.core.journal import Journal
from glowsim.core.pool import Controllers, PoolSpec
from glowsim.core.snapshot import Stateful
from glowsim.core.streams import Streams
from glowsim.sim.laws import Constant, Exponential
from glowsim.sim.service import TimeService
from glowsim.sim.workload import arrivals
from glowsim.sim.workload.columns import AgentTraits, Columns, Shape
from glowsim.sim.workload.sources import OpenSource
from glowsim.sim.world import AgentWorld, World


class _Picks(Stateful):
    def reported(self, t_s, reported):
        pass


class ReadsAClock(_Picks):
    def pick(self, t_s, request, allowed):
        return allowed[(time.perf_counter_ns() >> 4) % len(allowed)]


class DrawsItself(_Picks):
    def pick(self, t_s, request, allowed):
        return random.choice(allowed)


class TrustsHashes(_Picks):
    def pick(self, t_s, request, allowed):
        names = {f"instance-{each.number}": each for each in allowed}
        return names[min(names, key=lambda name: hash((name, request.request_id % 7)))]


BALANCERS = {
    "round_robin": RoundRobin,
    "power_of_two": lambda: PowerOfTwo(Streams(1).stream("controller", "balancer")),
    "reads_a_clock": ReadsAClock,
    "draws_itself": DrawsItself,
    "trusts_hashes": TrustsHashes,
}


def plane(name):
    """Return a control plane for one agent of four slots an instance, with a balancer by name."""
    spec = PoolSpec(0, 4, 4, (0,), 1000.0, inf, 30.0, 10, 10, 10)
    return ControlPlane([(spec, Controllers(FifoQueue(limit=1000), BALANCERS[name]()))])


def world(name, requests=200):
    """Return a world of five instances with a balancer by name, and its journal."""
    streams, journal, service = Streams(1), Journal({}), TimeService(Exponential(1.0))
    agents = [AgentWorld(service, concurrency=4, instances=5)]
    shape = Shape((0,), (1.0,), Constant(900), Constant(100), 200)
    columns = Columns("0", shape, [AgentTraits(service, 0, False)], streams)
    moments = arrivals.poisson(10.0, np.random.Generator(np.random.PCG64(1)))
    return World(
        plane(name), journal, agents, [OpenSource(columns, moments, inf, requests)], streams
    ), journal


def digest(name):
    """Run the world with a balancer by name; return a digest of the journal."""
    running, journal = world(name)
    running.start()
    running.run(1e6)
    said = "\n".join(map(repr, journal.recording().records()))
    return blake2b(said.encode(), digest_size=16).hexdigest()


if __name__ == "__main__":
    print(digest(sys.argv[1]))
