"""A clock that jumps, a stage for conversations through the asyncio driver, and what must hold after each.

On a `JumpingLoop` nothing waits: when there is nothing to do, the clock stands at the next timer. So a test
of a 30-second timeout takes no time, and a test in which nothing can happen any more fails at once.
"""

from __future__ import annotations

import asyncio
import heapq
import importlib.util
import itertools
import math
import socket
from collections import Counter
from contextlib import asynccontextmanager
from math import inf
from pathlib import Path
from types import SimpleNamespace

import pytest

from controllers.balancing.round_robin import RoundRobin
from controllers.queueing.fifo import FifoQueue
from glowsim import build as scenarios
from glowsim.core.control_plane import ControlPlane, Notes
from glowsim.core.journal import Effected, Journal, first_difference
from glowsim.core.pool import Controllers, PoolSpec
from glowsim.core.streams import Streams
from glowsim.core.types import Command, Dispatch, Finished, Request, Usage
from glowsim.emulation import EmulatedAgent, RealTime, agent_worlds
from glowsim.live.calls import Failed, Rejected, Reply
from glowsim.live.driver import Driver
from glowsim.live.segments import Segments


class InTurn(asyncio.TimerHandle):
    """A timer that goes off after those that were set before it for the same moment."""

    __slots__ = ("number",)

    def __lt__(self, other):
        return (self._when, self.number) < (other._when, other.number)


class JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer when nothing is ready."""

    def __init__(self):
        self._now_s = 0.0
        self._timers = itertools.count()
        super().__init__()

    def call_at(self, when, callback, *args, context=None):
        timer = InTurn(when, callback, args, self, context)
        timer.number = next(self._timers)
        heapq.heappush(self._scheduled, timer)
        timer._scheduled = True
        return timer

    def time(self):
        return self._now_s

    @property
    def _clock_resolution(self):
        return math.ulp(self._now_s)

    @_clock_resolution.setter
    def _clock_resolution(self, value):
        pass

    def _run_once(self):
        while self._scheduled and self._scheduled[0]._cancelled:
            self._timer_cancelled_count -= 1
            heapq.heappop(self._scheduled)._scheduled = False
        if not self._ready and not self._stopping:
            if not self._scheduled:
                raise RuntimeError(
                    "nothing will ever happen: every task waits for something that nobody does"
                )
            self._now_s = max(self._now_s, self._scheduled[0]._when)
        super()._run_once()


class WoundLoop(asyncio.SelectorEventLoop):
    """An event loop with real sockets, whose clock a test puts forward instead of waiting."""

    ahead_s = 0.0

    def time(self):
        return super().time() + self.ahead_s


def jump(main):
    """Run a coroutine function on a fresh jumping loop; what nobody handled is raised."""
    unhandled = []

    async def watched():
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: unhandled.append(context))
        result = await main()
        for _ in range(5):
            await asyncio.sleep(0)
        return result

    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        result = runner.run(watched())
    assert not unhandled, unhandled
    return result


def build(agents=1, **given):
    """Return a control plane; the fields of a spec are values, controllers are factories."""
    spec = {
        "slots": 1,
        "concurrency": 1,
        "timeout_s": 30.0,
        "first_token_timeout_s": inf,
        "cancel_grace_s": 5.0,
        "hold_limit": 10,
        "follower_limit": 10,
        "memory": 10,
        "probe_every_s": inf,
    }
    families = {"queue": lambda: FifoQueue(limit=10_000), "balancer": RoundRobin}
    for name, value in given.items():
        (spec if name in spec else families)[name] = value
    pools = []
    for agent in range(agents):
        made = {name: factory() for name, factory in families.items() if name != "detectors"}
        detectors = tuple(factory() for factory in families.get("detectors", ()))
        pools.append((PoolSpec(agent=agent, models=(0, 1), **spec), Controllers(**made, detectors=detectors)))
    return ControlPlane(pools, Notes())


class Stage:
    """A driver over a fresh control plane; `check` says what must hold of its journal.

    With a ``path`` it is written there; one that is there is to be gone on with, by `Driver.recover`.
    """

    def __init__(
        self, *, path=None, asker=None, scalers=None, contents=100, memory=100, watch=None, idle_timeouts=None,
        probe_timeout_s=5.0, records=1 << 40, keep_bytes=1 << 40, **given
    ):  # fmt: skip
        self.build = lambda: build(**given)
        self.journal = Journal({})
        if path is not None:
            fresh = not path.exists()
            self.journal = Segments({}, path, records=records, keep_bytes=keep_bytes)
            if fresh:
                self.journal.begin({})
        self.driver = Driver(
            self.build(),
            self.journal,
            memory=memory,
            contents=contents,
            asker=asker,
            scalers=scalers,
            watch=watch,
            apologise=lambda task: "sorry",
            idle_timeouts=idle_timeouts,
            probe_timeout_s=probe_timeout_s,
        )

    def ask(self, task="hello", **fields):
        return self.driver.request(asked(**fields), task)

    def stream(self, task="hello", **fields):
        return self.driver.stream(asked(**fields), task)

    def start(self, task="hello", **fields):
        """Ask in a task of its own."""
        return asyncio.get_running_loop().create_task(self.ask(task, **fields))

    def records(self):
        return list(self.journal.recording().records())

    def said(self, *kinds):
        return [record for record in self.records() if isinstance(record, kinds)]

    async def close(self, grace_s=100.0):
        await self.driver.close(grace_s)
        self.check()

    def check(self):
        check_recording(self.journal.recording(), self.build())


def check_recording(recording, plane):
    """Replay a whole journal; every attempt finished once, every command was answered once."""
    assert first_difference(recording, plane) is None
    records = list(recording.records())
    dispatched = [record.attempt for record in records if isinstance(record, Dispatch)]
    finished = Counter(record.attempt for record in records if isinstance(record, Finished))
    assert finished == dict.fromkeys(dispatched, 1)
    commands = sum(isinstance(record, Command) for record in records)
    effects = Counter()
    for record in records:
        if isinstance(record, Effected):
            effects.update(range(record.first, record.first + record.n))
    assert effects == dict.fromkeys(range(commands), 1), "I14"
    times = [record.t_s for record in records if not isinstance(record, Command) and hasattr(record, "t_s")]
    events = [t_s for t_s, r in zip(times, [r for r in records if not isinstance(r, Command)], strict=True)]
    assert events == sorted(events), "I2"


def asked(**fields):
    return Request(**({"request_id": 0, "agent": 0, "tokens_in": 9, "max_tokens_out": 100} | fields))


def takes(seconds, usage=None):
    """Return an instance that answers with the task in capitals after a while."""

    async def serve(call):
        await asyncio.sleep(seconds)
        return Reply(f"{call.task.upper()}", usage or Usage(call.plan.tokens_in, 0, 3))

    return serve


def simulated(scenario):
    """Run a scenario in the simulator; return the journal and (when, request, truth) of what was sent."""
    replication = scenarios.replication(scenario, 0)
    world, sent = replication.world, []
    arrive = world.arrive

    def noted(request, truth):
        sent.append((world.environment.now, request, truth))
        arrive(request, truth)

    world.arrive = noted
    world.start()
    world.run(scenario.duration_s + scenario.drain_s)
    return replication.journal, sent


class Numbered(Driver):
    """Keeps the numbers that requests come with: with several sources, the simulator gives them by source."""

    def _numbered(self, asked):
        return asked


async def lived(
    scenario, sent, around=lambda driver, instance, serve: serve, journal=None, meanwhile=None,
    watching=lambda plane: None,
):  # fmt: skip
    """Send the same requests to emulated instances behind the asyncio driver.

    ``around`` is given every instance of the beginning and returns what takes its place. ``meanwhile`` is a moment
    and what is done with the driver then; with it, controllers that raise fall back, as in a daemon. ``watching`` is
    given the control plane and returns the driver's ``watch``.

    Returns
    -------
    The journal, and how each request ended.
    """
    streams, journal = Streams(scenario.seed, 0), journal or Journal({})
    agents = list(scenario.agents().values())
    plane = scenarios.control_plane(scenario, streams, fall_back=meanwhile is not None)
    driver = Numbered(
        plane,
        journal,
        watch=watching(plane),
        memory=10_000,
        contents=10_000,
        idle_timeouts={i: each.idle_timeout_s for i, each in enumerate(agents) if each.idle_timeout_s},
    )
    time = RealTime(driver.now_s, driver.loop_time)
    instances = 0
    for number, world in enumerate(agent_worlds(scenario)):
        agent = EmulatedAgent(number, world, lambda call: call.task, streams, time)
        driver.scalers[number] = agent
        for _ in range(world.instances):
            driver.add(number, around(driver, instances, agent.instance()), region=world.region)
            instances += 1

    async def client(request, truth):
        try:
            if request.stream:
                return [said async for said in driver.stream(request, truth)][-1]
            return await driver.request(request, truth)
        except (Failed, Rejected) as error:
            return error

    loop, clients = asyncio.get_running_loop(), []
    for at_s, request, truth in sent:
        loop.call_at(at_s, lambda *given: clients.append(loop.create_task(client(*given))), request, truth)
    if meanwhile is not None:
        loop.call_at(meanwhile[0], meanwhile[1], driver)
    await asyncio.sleep(sent[-1][0] + 1e-6)
    ends = await asyncio.gather(*clients)
    await driver.close(100.0)
    return journal, ends


@pytest.fixture(scope="session")
def live():
    """The stage and what goes with it, by name."""
    return SimpleNamespace(
        jump=jump, Stage=Stage, build=build, asked=asked, takes=takes, check_recording=check_recording,
        simulated=simulated, lived=lived, WoundLoop=WoundLoop,
    )  # fmt: skip


@pytest.fixture(scope="session")
def rogues():
    """Dishonest controllers and worlds that show them, from the script beside this file."""
    path = Path(__file__).with_name("rogues.py")
    spec = importlib.util.spec_from_file_location("live_rogues", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@asynccontextmanager
async def shown(folder, scenario, speed):
    """Simulate on a thread with the page over it; in the end as fast as it goes, so that it does end."""
    import aiohttp

    from glowsim.experiment.replicate import replicate
    from glowsim.live.dashboard.simulation import Simulation
    from glowsim.live.sockets import address_of, listening

    where = listening("127.0.0.1", 0)
    simulation = Simulation(scenario, where, speed=speed)
    address = address_of("127.0.0.1", where)
    running = asyncio.create_task(asyncio.to_thread(replicate, scenario, 0, folder, watcher=simulation))

    async def once(there):
        """Return the first document whose part on the simulation is as it should be."""
        async with asyncio.timeout(60.0), aiohttp.ClientSession() as session:
            while True:
                async with session.get(address + "/v1/dashboard") as response:
                    document = await response.json()
                if there(document["simulation"]):
                    return document

    try:
        yield SimpleNamespace(address=address, once=once, simulation=simulation, running=running)
    finally:
        simulation.wish(speed=inf, paused=False)
        await running
        await asyncio.to_thread(simulation.close)


@pytest.fixture
def watched(tmp_path):
    """Return what simulates a scenario at a speed, with the page over it."""
    return lambda scenario, speed: shown(tmp_path, scenario, speed)


@pytest.fixture
def unused_port():
    """A port at which nobody listens."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]
