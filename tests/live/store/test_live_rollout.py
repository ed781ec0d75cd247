"""An improvement rollout in the daemon: the controller that was simulated, over real sockets, with an operator."""

from __future__ import annotations

import asyncio

import pytest

from glowsim.core.journal import first_difference, read
from glowsim.core.types import Advance, Changed, ChangeKind, Code, Dispatch

pytestmark = pytest.mark.usefixtures("_serving")

TEXT = """
title: A fleet with an improvement
question: Is it one?
seed: 1
duration: 10s
models:
  m: {input: $1/1M, output: $2/1M}
fleet:
  - agent: tax
    model: m
    instances: 2
    concurrency: 50
    variants: {new: {error: NEW}}
    service: {law: time, time: 1ms}
    controllers:
      splitter:
        {use: improvement_rollout, salt: v2, strategy: stages, weights: [50%], holds: [HOLD], look: 1s, maturity: 1s,
         minimum: 20, margin: 50%}
workload:
  - {kind: poisson, rate: 1/s, agents: all, tokens_in: 100, tokens_out: 20}
"""


def text(new, hold="1h"):
    return TEXT.replace("NEW", new).replace("HOLD", hold)


async def ask(client):
    status, _ = await client.ask("POST", "/v1/agents/tax/tasks", {"input": "Due?"})
    return status


async def until(client, stage):
    """Wait for a stage; return what is said of the rollout then."""
    while True:
        rollout = (await client.admin("GET", "/v1/rollouts"))[1]["rollouts"][0]
        if rollout["stage"] == stage:
            return rollout


def advances(path, scenario, fleet):
    recording = read(path)
    assert first_difference(recording, fleet.plane(scenario)) is None
    records = list(recording.records())
    return [each for each in records if isinstance(each, Advance)], records


def test_a_version_that_fails_is_taken_back_by_itself_and_nobody_gets_it_any_more(fleet, path):
    scenario = text("60%")

    async def test(client):
        statuses = await asyncio.gather(*(ask(client) for _ in range(120)))
        assert 20 <= sum(status != 200 for status in statuses) <= 60, (
            "about half of them have it, and 60 % fail"
        )
        rollout = await until(client, 0)
        assert rollout["weight"] == 0.0
        assert "evidence of harm" in rollout["why"]
        assert [await ask(client) for _ in range(10)] == [200] * 10

    fleet.serve(test, path, text=scenario)
    (back,), records = advances(path, scenario, fleet)
    assert back.reason.code == Code.EVIDENCE_OF_HARM
    variants = [each.plan.variant for each in records if isinstance(each, Dispatch)]
    assert set(variants[:120]) == {0, 1}
    assert set(variants[-10:]) == {0}


def test_a_version_that_is_no_worse_is_promoted_when_that_is_shown(fleet, path):
    scenario = text("0%", hold="2s")

    async def test(client):
        assert set(await asyncio.gather(*(ask(client) for _ in range(120)))) == {200}
        rollout = await until(client, 2)
        assert (rollout["weight"], "less than the margin" in rollout["why"]) == (1.0, True)

    fleet.serve(test, path, text=scenario)
    moved, _ = advances(path, scenario, fleet)
    assert moved[-1].reason.code == Code.NON_INFERIOR


def test_an_operator_pauses_resumes_and_promotes_and_each_order_is_in_the_audit(fleet, path):
    scenario = text("0%")

    async def test(client):
        assert await ask(client) == 200
        for action, stage, word in (
            ("pause", 1, "paused"),
            ("resume", 1, "resumed"),
            ("promote", 2, "operator"),
        ):
            status, said = await client.admin("POST", "/v1/rollouts/tax", {"action": action})
            assert (status, said["rollout"]["stage"]) == (200, stage)
            assert word in said["rollout"]["why"]
        _, said = await client.admin("GET", "/v1/audit")
        assert [row["after"]["action"] for row in said["audit"]] == ["pause", "resume", "promote"]

    fleet.serve(test, path, text=scenario)
    moved, records = advances(path, scenario, fleet)
    assert [each.weight for each in moved] == [0.5, 0.5, 1.0]
    ordered = [each.change.kind for each in records if isinstance(each, Changed)]
    assert ordered == [ChangeKind.PAUSE_ROLLOUT, ChangeKind.RESUME_ROLLOUT, ChangeKind.PROMOTE]
