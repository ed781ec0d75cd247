"""SIGKILL at every kind of boundary between writes, and at random moments: what was acknowledged is there, once.

The daemons are forked from a process that has imported everything, so that many of them can be killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import signal
import subprocess
import sys
from collections import Counter
from contextlib import asynccontextmanager

import pytest

from glowsim.core.journal import read
from glowsim.core.types import Answer, ChangeKind

pytestmark = pytest.mark.usefixtures("_serving")
NURSERY = """
import json, os, signal, sys
from pathlib import Path
from glowsim.live.daemon import run_daemon
from glowsim.live.outbox import Outbox
from glowsim.live.segments import Segments
from glowsim.live.store.writer import Writer
from glowsim.core import journal
from glowsim.core.journal import Journal
from glowsim.scenario import load
def die():
    os.kill(os.getpid(), signal.SIGKILL)
    signal.pause()
scenario = load(Path(sys.argv[1]))
for line in sys.stdin:
    path, planted = json.loads(line)
    child = os.fork()
    if not child:
        print(os.getpid(), end=" ")
        exec(planted)
        os._exit(run_daemon(scenario, port=0, admin_port=0, journal_path=Path(path), grace_s=5.0))
    print("ended", os.waitpid(child, 0)[1], flush=True)
"""

# Where it dies: at the fifth row of {table}.
BEFORE_COMMIT = """
commit = Writer._commit
def dying(self):
    if self._connection.execute("SELECT count(*) FROM {table}").fetchone()[0] >= 5:
        die()
    commit(self)
Writer._commit = dying
"""
AFTER_COMMIT = """
commit = Writer._commit
def dying(self):
    commit(self)
    if self._connection.execute("SELECT count(*) FROM {table}").fetchone()[0] >= 5:
        die()
Writer._commit = dying
"""
BEFORE_TELLING = """
tell = Outbox.{tell}
def dying(self, taken):
    if taken[0] >= 5:
        die()
    tell(self, taken)
Outbox.{tell} = dying
"""
AFTER_TELLING = """
tell = Outbox.{tell}
def dying(self, taken):
    tell(self, taken)
    if taken[0] >= 5:
        die()
Outbox.{tell} = dying
"""
TOLD_AND_WRITTEN = """
tell = Outbox.{tell}
def dying(self, taken):
    tell(self, taken)
    if taken[0] >= 5:
        self._driver.flush()
        die()
Outbox.{tell} = dying
"""
UNANSWERED = """
tell = Writer._tell
def dying(self, batch, outcomes):
    tell(self, batch, outcomes)
    if any(isinstance(each, tuple) and each[0] == 5 for each in outcomes):
        die()
Writer._tell = dying
"""
NEVER_WRITTEN = "Journal.flush = Segments.flush = lambda self: None"
TORN = """
def torn(self):
    self.pack()
    if self._file is not None and self._blocks[journal._CODES[journal.{event}]]:
        payload = self._payload()
        self._file.write(journal._FRAME.pack(b"FRAM", 0, len(payload)) + payload[: len(payload) // 2])
        self._file.flush()
        die()
Journal.flush = torn
"""
POINTS = {
    "before the commit": BEFORE_COMMIT,
    "after the commit": AFTER_COMMIT,
    "before telling": BEFORE_TELLING,
    "after telling": AFTER_TELLING,
    "told and written, before the answer": TOLD_AND_WRITTEN,
    "before the answer": UNANSWERED,
    "after the answer, the journal unwritten": NEVER_WRITTEN,
    "within a frame of the journal": TORN,
}
TOKENS_A_TASK = 1 + 20
"""Of the words of a task and its answer."""
OF = {
    "feedback": {"table": "feedback", "tell": "_tell_feedback", "event": "Observed"},
    "orders": {"table": "audit", "tell": "_tell_order", "event": "Changed"},
}


class Nursery:
    """Starts daemons, one at a time."""

    def __init__(self, fleet, running):
        self._fleet = fleet
        self._running = running
        self.back_s = []
        """From every start until the daemon said that it serves."""

    @asynccontextmanager
    async def daemon(self, path, planted=""):
        """A client of a daemon; ``client.kill()`` kills it, and it is dead when the block is over."""
        import json

        import aiohttp

        clock = asyncio.get_running_loop().time
        began_s = clock()
        self._running.stdin.write(json.dumps([str(path), planted]).encode() + b"\n")
        line = (await self._running.stdout.readline()).decode()
        self.back_s.append(clock() - began_s)
        pid = int(line.split()[0])
        address, admin = re.findall(r"http://[0-9.:]+", line)
        alive = True

        def kill():
            nonlocal alive
            if alive:
                alive = False
                with contextlib.suppress(ProcessLookupError):  # it killed itself
                    os.kill(pid, signal.SIGKILL)

        try:
            async with aiohttp.ClientSession() as session:
                client = self._fleet.client(address, admin, session)
                client.kill = kill
                yield client
        finally:
            kill()
            ended = (await self._running.stdout.readline()).split()
        assert ended == [b"ended", str(int(signal.SIGKILL)).encode()]


@asynccontextmanager
async def nursery(fleet, path, records=50_000):
    file = path.with_name("scenario.yaml")
    file.write_text(f"{fleet.TEXT}live: {{journal: {{records: {records}}}}}\n")
    running = await asyncio.create_subprocess_exec(
        sys.executable, "-c", NURSERY, file, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env={**os.environ, **fleet.KEYS, "PYTHONPATH": str(fleet.ROOT)},
    )  # fmt: skip
    try:
        async with asyncio.timeout(600.0):
            yield Nursery(fleet, running)
    finally:
        running.stdin.close()
        await running.wait()


class Clients:
    """Say things until the daemon is gone, and remember what was acknowledged."""

    def __init__(self):
        self.tried = {"feedback": set(), "orders": set()}
        self.acknowledged = {"feedback": {}, "orders": {}}
        """What was said -> its number in the store."""
        self.answered = set()
        """Requests that were answered; they are charged to a budget."""

    async def task(self, client):
        request_id = await client.task()
        assert request_id not in self.answered, "a number is given once"
        self.answered.add(request_id)
        return request_id

    async def feedback(self, client, request_id, name):
        """Say something under a name of its own, which is its tag and its key."""
        self.tried["feedback"].add(name)
        status, said = await client.rate(request_id, kind="complaint", tag=name, idempotency_key=name)
        assert status in (200, 201), said
        self.acknowledged["feedback"][name] = said["id"]

    async def order(self, client, name):
        """Order a size; the key tells one order from another."""
        self.tried["orders"].add(name)
        status, said = await client.admin(
            "PUT", "/v1/agents/plain/scaling", {"paused": len(name) % 2 == 0}, **{"Idempotency-Key": name}
        )
        assert status == 200, said
        self.acknowledged["orders"][name] = said["audit_id"]


async def until_it_is_gone(works):
    """Run clients; that the daemon goes away is what they are here for."""
    import aiohttp

    ended = await asyncio.gather(*works, return_exceptions=True)
    for each in ended:
        if isinstance(each, BaseException) and not isinstance(each, aiohttp.ClientError | OSError):
            raise each


def check(fleet, path, clients):
    """Compare what was acknowledged with the store, and the store with what the journal says was told."""
    heard, changed = fleet.told(path)
    kept = dict(fleet.rows(path, "SELECT feedback_id, tag FROM feedback"))
    told = Counter(each.feedback_id for each in heard)
    assert told == dict.fromkeys(kept, 1), "told once, and nothing else"
    assert clients.acknowledged["feedback"].items() <= {name: number for number, name in kept.items()}.items()
    assert len(set(kept.values())) == len(kept), "none is there twice"
    assert set(kept.values()) <= clients.tried["feedback"]

    audit = dict(fleet.rows(path, "SELECT audit_id, idempotency FROM audit"))
    obeyed = Counter(each.change.order_id for each in changed)
    assert obeyed == dict.fromkeys(audit, 1)
    assert clients.acknowledged["orders"].items() <= {name: number for number, name in audit.items()}.items()
    assert set(audit.values()) <= clients.tried["orders"]
    assert all(each.change.kind in (ChangeKind.PAUSE_SCALING, ChangeKind.RESUME_SCALING) for each in changed)


@pytest.mark.parametrize("of", OF)
def test_killed_at_any_boundary_between_writes_nothing_acknowledged_is_lost_or_doubled(fleet, tmp_path, of):
    async def say(client, clients, request_id, number):
        name = f"n{number}" + "x" * (number % 2)
        if of == "feedback":
            await clients.feedback(client, request_id, name)
        else:
            await clients.order(client, name)

    async def main():
        async with nursery(fleet, tmp_path / "any") as daemons:
            for place, (point, planted) in enumerate(POINTS.items()):
                path, clients = tmp_path / f"{place}.journal", Clients()
                async with daemons.daemon(path, planted.format(**OF[of])) as client:
                    request_id = await client.task()
                    for number in range(4):
                        await say(client, clients, request_id, number)
                    last = 7 if planted in (NEVER_WRITTEN, TORN) else 5
                    works = [say(client, clients, request_id, number) for number in range(4, last)]
                    await until_it_is_gone(works)
                    if planted == TORN:
                        await until_it_is_gone([client.admin("GET", "/v1/journal")])
                    client.kill()
                done = len(clients.acknowledged[of])
                assert done == (last if planted in (NEVER_WRITTEN, TORN) else 4), point
                async with daemons.daemon(path) as client:  # a restart, and those who got no answer ask again
                    first = len(clients.tried[of])
                    await asyncio.gather(*(say(client, clients, request_id, n) for n in range(first)))
                    await client.admin("GET", "/v1/rollouts")  # what is shown is written
                    client.kill()
                assert len(clients.acknowledged[of]) == last
                check(fleet, path, clients)

    asyncio.run(main())


DIES_RENAMING = """
rename = Path.rename
Path.rename = lambda self, target: die() if self.name == "00000002.partial" else rename(self, target)
"""
DIES_AFTER_RENAMING = """
rename = Path.rename
Path.rename = lambda self, target: (rename(self, target), self.name == "00000002.partial" and die())
"""
DIES_CATCHING_UP = """
tell = Outbox._tell_feedback
told = []
def dying(self, taken):
    tell(self, taken)
    told.append(taken)
    self._driver.flush()
    if len(told) == 2:
        die()
Outbox._tell_feedback = dying
"""


@pytest.mark.parametrize(
    "planted",
    [DIES_RENAMING, DIES_AFTER_RENAMING, DIES_CATCHING_UP],
    ids=["renaming", "renamed", "catching up"],
)
def test_killed_while_it_recovers_it_recovers_the_next_time(fleet, tmp_path, planted):
    async def main():
        path, clients = tmp_path / "fleet.journal", Clients()
        async with nursery(fleet, path) as daemons:
            async with daemons.daemon(path, NEVER_WRITTEN) as client:
                request_id = await client.task()
                for number in range(4):
                    await clients.feedback(client, request_id, f"n{number}")
            running = daemons._running
            import json

            running.stdin.write(json.dumps([str(path), planted]).encode() + b"\n")
            said = await running.stdout.readline()
            assert b"serves" not in said
            assert said.split()[-2:] == [b"ended", str(int(signal.SIGKILL)).encode()]
            async with daemons.daemon(path) as client:
                await client.admin("GET", "/v1/rollouts")
        check(fleet, path, clients)

    asyncio.run(main())


def at_random(fleet, path, kills, seed):
    """Kill a daemon at random moments of its work, each time after some acknowledgements; check every time."""
    dice, clients = random.Random(seed), Clients()

    async def work(client, boot, who, most):
        request_id = await clients.task(client)
        number = 0
        while True:
            name = f"{boot}.{who}.{number}" + "x" * dice.randrange(2)
            pick = dice.random()
            if pick < 0.3:
                await clients.order(client, name)
            elif pick < 0.6:
                request_id = await clients.task(client)
            else:
                await clients.feedback(client, request_id, name)
            number += 1
            if sum(map(len, clients.acknowledged.values())) >= most:
                client.kill()

    async def main():
        async with nursery(fleet, path, records=40) as daemons:
            for boot in range(kills):
                async with daemons.daemon(path) as client:
                    most = sum(map(len, clients.acknowledged.values())) + dice.randrange(1, 60)
                    await until_it_is_gone(work(client, boot, who, most) for who in range(4))
            async with daemons.daemon(path) as client:
                _, said = await client.admin("GET", "/v1/budgets")
            return daemons.back_s, said["budgets"][0]["most"]

    back_s, (budget,) = asyncio.run(main())
    check(fleet, path, clients)
    answers = [each.request_id for each in read(path).records() if isinstance(each, Answer)]
    assert clients.answered <= set(answers)
    assert len(set(answers)) == len(answers)
    assert budget["spent"] == TOKENS_A_TASK * len(answers), "every answer is charged once, and nothing else"
    return back_s, clients


def test_killed_at_random_moments_nothing_acknowledged_is_lost_or_doubled(fleet, path):
    _, clients = at_random(fleet, path, kills=20, seed=1)
    assert all(len(each) > 20 for each in clients.acknowledged.values())


@pytest.mark.campaign
def test_killed_a_hundred_times_nothing_acknowledged_is_lost_or_doubled(fleet, path):
    back_s, clients = at_random(fleet, path, kills=100, seed=2)
    said = {name: len(each) for name, each in clients.acknowledged.items()}
    print(
        f"acknowledged {said}; back after {sorted(back_s)[len(back_s) // 2]:.3f} s, at most {max(back_s):.3f} s"
    )
