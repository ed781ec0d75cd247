"""Servers on loopback with a scripted behaviour, a clock that jumps, and workloads to send."""

from __future__ import annotations

import importlib.util
import os
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest
from loopback import answering, in_thread

from glowsim import build
from glowsim.core.reasons import Code
from glowsim.core.types import Outcome
from glowsim.load.generator import Generator, Heard, User
from glowsim.scenario import load

DEADLINE_S = 30.0
HEAD = """
title: t
question: q
seed: {seed}
duration: 60s
drain: 30s
models: {{m: {{input: $1/1M, output: $2/1M}}}}
fleet:
  - agent: tax
    model: m
    instances: 200
    concurrency: 1
    timeout: {timeout}
    service: {{law: time, time: {service}}}
  - agent: law
    model: m
    instances: 200
    concurrency: 1
    timeout: {timeout}
    service: {{law: time, time: {service}}}
workload:
"""


@pytest.fixture(scope="session")
def live():
    """The stage of the live driver's tests, for its clock that jumps and its record of what the simulator sent."""
    path = Path(__file__).parents[1] / "live" / "conftest.py"
    spec = importlib.util.spec_from_file_location("live_stage", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def fleet(*workloads, seed=1, timeout="20s", service="200ms"):
    """Return a scenario of two agents and some workloads."""
    return load(
        HEAD.format(seed=seed, timeout=timeout, service=service)
        + "".join(f"  - {each}\n" for each in workloads)
    )


FINE = Heard(Outcome.OK, Code.OWN)


def generator(scenario, ask, number=0, **given):
    """Return a generator for a scenario."""
    chosen = {"until_s": scenario.duration_s, "drain_s": scenario.drain_s, "most_in_flight": 10_000} | given
    users = [User(name, agent.timeout_s) for name, agent in scenario.agents().items()]
    return Generator(build.sources(scenario, number, at_once=16), users, ask, **chosen)


@pytest.fixture(scope="session")
def stage(live):
    """What goes with it, by name."""

    def sent(scenario, ask, **given):
        """Run a generator on the jumping clock; return it."""

        async def main():
            made = generator(scenario, ask, **given)
            made.took_s = await made.run()
            return made

        return live.jump(main)

    return SimpleNamespace(
        fleet=fleet, generator=generator, sent=sent, fine=FINE, simulated=live.simulated, jump=live.jump
    )


# --- servers ----------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def http():
    """Servers: `serve(handler)` on this loop, `elsewhere(handler)` on a thread's own; both give the address."""
    for name in ("aiohttp", "starlette", "uvicorn"):
        if importlib.util.find_spec(name) is None:
            message = f"{name} is missing: install glowsim[live]"
            if os.environ.get("GLOWSIM_CI") == "1":
                pytest.fail(message)
            pytest.skip(message)
    return SimpleNamespace(
        serve=answering, in_thread=in_thread, elsewhere=lambda handler: in_thread(lambda: answering(handler))
    )


@pytest.fixture
def unused_port():
    """A port at which nobody listens."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]
