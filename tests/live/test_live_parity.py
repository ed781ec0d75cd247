"""Code parity: both drivers, one conversation; and controllers that would break it are caught."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from glowsim import build
from glowsim.core.journal import Journal, first_difference
from glowsim.core.streams import Streams
from glowsim.core.types import (
    Advance,
    Answer,
    Arrived,
    Command,
    Dispatch,
    Fail,
    FirstToken,
    Outcome,
    Scale,
    Usage,
)
from glowsim.emulation import EmulatedAgent, RealTime, agent_worlds
from glowsim.live.calls import Reply
from glowsim.live.driver import Driver
from glowsim.scenario import load
from glowsim.sim.service import Truth

FLEET = """
title: Both drivers
question: Do the simulator and the asyncio driver hold the same conversation?
seed: 3
duration: {duration}
drain: 10m
models:
  m: {{input: $1/1M, output: $2/1M}}
fleet:
  - agent: tax
    model: m
    instances: 2
    concurrency: 2
    slots: {slots}
    queue: {queue}
    startup: {{law: exponential, mean: 4s}}
    timeout: 12s
    service: {service}
    failures: {{invalid: 2%, error: 10%}}
    variants: {{candidate: {{slowdown: 1.5, error: 20%}}}}
workload:
  - kind: poisson
    rate: {rate}
    tokens_in: {{law: exponential, mean: 900}}
    tokens_out: {{law: exponential, mean: 100}}
    max_tokens_out: 300
    stream: {stream}
    cacheable: {{share: 40%, keys: 30}}
controllers:
  guard: {{use: size}}
  splitter: {{use: canary, salt: v2, weight: 20%, then: [50%], hold: 30s, minimum: 1}}
  limiter: {{use: token_bucket, rate: 20/s, burst: 20}}
  cache: {{use: lru, entries: 20, ttl: 20s}}
  queue: {{use: priority, limit: 30}}
  balancer: {{use: power_of_two}}
  breaker: {{use: consecutive}}
  retrier: {{use: backoff}}
  {scaler}
"""
TOKENS = "{law: tokens, base: 100ms, input: 100us/token, output: 10ms/token, slowdown: 0.3}"
TIMES = "{law: time, time: {law: exponential, mean: 1500ms}}"
SCALER = (
    "scaler: {use: agent_scaler, min_instances: 1, max_instances: 5, "
    "look: 5s, cooldown_up: 7s, cooldown_down: 7s}"
)
KINDS = {
    "shared, streaming": {"service": TOKENS, "stream": "true", "slots": 2, "queue": "central", "rate": "4/s"},
    "first come": {"service": TIMES, "stream": "false", "slots": 2, "queue": "central", "rate": "4/s"},
    "own backlogs": {"service": TIMES, "stream": "false", "slots": 10, "queue": "instance", "rate": "3/s"},
}


def told(recording, kind):
    return [record for record in recording.records() if isinstance(record, kind)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scaler", ["", SCALER], ids=["fixed", "scaled"])
def test_both_drivers_hold_the_same_conversation(live, kind, scaler):
    scenario = load(FLEET.format(duration="90s", scaler=scaler, **KINDS[kind]))
    sim_journal, sent = live.simulated(scenario)
    live_journal, ends = live.jump(lambda: live.lived(scenario, sent))
    sim, lived_ = sim_journal.recording(), live_journal.recording()
    for recording in (sim, lived_):
        assert first_difference(recording, build.control_plane(scenario, Streams(scenario.seed, 0))) is None
    assert told(lived_, Arrived) == told(sim, Arrived)
    there, here = told(sim, Command), told(lived_, Command)
    assert len(ends) == len(sent) > 200
    assert here[: len(there)] == there
    assert not [command for command in here[len(there) :] if not isinstance(command, Scale)]
    kinds = {type(command) for command in here}
    assert {Dispatch, Fail, Answer, Advance} < kinds, "the scenario says too little to compare"
    assert {command.plan.variant for command in here if isinstance(command, Dispatch)} == {0, 1}
    if scaler:
        assert Scale in kinds
    if "streaming" in kind:
        assert told(lived_, FirstToken) == told(sim, FirstToken) != []


def test_replay_of_either_journal_finds_a_changed_decision(live):
    scenario = load(FLEET.format(duration="20s", scaler="", **KINDS["first come"]))
    journal, sent = live.simulated(scenario)
    live_journal, _ = live.jump(lambda: live.lived(scenario, sent))
    other = load(FLEET.format(duration="20s", scaler="", **KINDS["first come"]), ["seed=4"])
    for recording in (journal.recording(), live_journal.recording()):
        difference = first_difference(recording, build.control_plane(other, Streams(other.seed, 0)))
        assert difference is not None
        assert difference.recorded != difference.replayed


def test_an_emulated_attempt_that_is_cancelled_reports_the_share_it_used(live):
    scenario = load(FLEET.format(duration="20s", scaler="", **KINDS["shared, streaming"]))
    (world,) = agent_worlds(scenario)

    async def main():
        stage = live.Stage(slots=2)
        time = RealTime(stage.driver.now_s, stage.driver.loop_time)
        agent = EmulatedAgent(0, world, lambda call: Truth(1.0, 100, 1.0, 1.0), Streams(1), time)
        stage.driver.add(0, agent.instance())
        client = stage.start(tokens_in=1000, max_tokens_out=300)
        # 100 ms and 1000 tokens of 100 us before the first token; then 10 ms each: half of 100 after 0.7 s
        await asyncio.sleep(0.7000001)
        client.cancel()
        await stage.close()
        (finished,) = [r for r in stage.records() if type(r).__name__ == "Finished"]
        assert finished.outcome == Outcome.CANCELLED
        assert finished.usage[:3] == (1000, 0, 50)

    live.jump(main)


# --- cheats -----------------------------------------------------------------------------------------


def lived_with(live, rogues, name):
    """Let a balancer decide behind the asyncio driver; return the journal."""

    async def serve(call):
        await asyncio.sleep(call.task)
        return Reply(None, Usage())

    async def main():
        journal = Journal({})
        driver = Driver(rogues.plane(name), journal, memory=10, contents=10)
        for _ in range(5):
            driver.add(0, serve)
        waits = [0.1 + (7 * i % 13) / 10 for i in range(100)]
        await asyncio.gather(*(driver.request(live.asked(), wait_s) for wait_s in waits))
        await driver.close(10.0)
        return journal

    return live.jump(main)


@pytest.mark.parametrize("name", ["reads_a_clock", "draws_itself"])
def test_a_controller_that_looks_at_a_clock_or_draws_itself_is_caught_by_replay(live, rogues, name):
    world, sim_journal = rogues.world(name)
    world.start()
    world.run(1e6)
    for journal in (sim_journal, lived_with(live, rogues, name)):
        difference = first_difference(journal.recording(), rogues.plane(name))
        assert difference is not None
        (recorded, *_), (replayed, *_) = difference.recorded, difference.replayed
        assert recorded.instance != replayed.instance


@pytest.mark.parametrize("name", ["round_robin", "power_of_two"])
def test_an_honest_controller_replays_equal(live, rogues, name):
    world, sim_journal = rogues.world(name)
    world.start()
    world.run(1e6)
    for journal in (sim_journal, lived_with(live, rogues, name)):
        assert len(told(journal.recording(), Dispatch)) >= 100
        assert first_difference(journal.recording(), rogues.plane(name)) is None


def digests(name):
    script = Path(__file__).with_name("rogues.py")
    root = Path(__file__).parents[2]
    runs = [
        subprocess.run(
            [sys.executable, script, name],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(root)},
            capture_output=True,
            text=True,
            check=True,
        )
        for seed in ("1", "2")
    ]
    return {run.stdout for run in runs}


def test_a_controller_that_depends_on_hash_order_is_caught_by_two_hash_seeds(rogues):
    assert len(digests("trusts_hashes")) == 2


@pytest.mark.parametrize("name", ["round_robin", "power_of_two"])
def test_an_honest_controller_gives_one_digest_under_two_hash_seeds(rogues, name):
    assert digests(name) == {rogues.digest(name) + "\n"}
