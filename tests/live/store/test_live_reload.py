"""Another configuration while a daemon serves: shown, checked, taken on whole or not at all, in the audit, replayed."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys

import pytest

from glowsim.core.errors import GlowsimError, JournalError
from glowsim.core.journal import files_of, journals
from glowsim.core.types import Answer
from glowsim.experiment.replaying import replay
from glowsim.recordings import recordings
from glowsim.reload import carried, differences
from glowsim.scenario import digest, load

pytestmark = pytest.mark.usefixtures("_serving")


class File:
    """The scenario's file, as an editor leaves it."""

    def __init__(self, text):
        self.text = text

    def read(self):
        return load(self.text)

    def edit(self, old, new):
        assert old in self.text
        self.text = self.text.replace(old, new)


async def configuration(client, method):
    return await client.admin(method, "/v1/configuration")


def replays(path):
    found = list(replay(path, None))
    assert not [each.text for each in found if not each.proved]
    return [each.text for each in found]


def test_what_is_written_comes_into_force_with_its_difference_and_its_audit(fleet, path):
    file = File(fleet.TEXT)

    async def test(client):
        await client.task()
        _, before = await configuration(client, "GET")
        assert before == {"digest": digest(load(fleet.TEXT)), "differences": [], "refused": None}
        file.edit("target: 0.7", "target: 0.9")
        file.edit("service: {law: time, time: 1ms}", "service: {law: time, time: 2ms}")
        _, shown = await configuration(client, "GET")
        scaler = {
            "place": "fleet.tax.controllers.scaler.target", "before": 0.7, "after": 0.9, "needs": "reload",
        }  # fmt: skip
        assert scaler in shown["differences"]
        assert {each["needs"] for each in shown["differences"]} == {"reload", "nothing"}
        assert shown["refused"] is None
        assert shown["digest"] == before["digest"], "looking changes nothing"
        status, taken = await configuration(client, "POST")
        assert status == 200
        assert taken == shown | {"digest": digest(file.read())}
        _, after = await configuration(client, "GET")
        assert after["differences"] == []
        await client.task()
        _, audit = await client.admin("GET", "/v1/audit")
        (row,) = audit["audit"]
        assert (row["who"], row["what"], row["outcome"]) == ("admin", "configuration", "ordered")
        assert row["before"] == {"digest": before["digest"]}
        assert "fleet.tax.controllers.scaler.target: 0.7 -> 0.9" in row["after"]["differences"]

    fleet.serve(test, path, again=file.read)
    said = replays(path)
    assert len(said) == 3
    assert "segment 2, another configuration, begins with the state that the one before leads to" in said[2]
    assert [len(each.table(Answer)) for each in journals(path)] == [1, 1]
    assert [each.scenario for each in recordings(path, None)] == [load(fleet.TEXT), file.read()]
    assert len(list(recordings(path, file.read()))) == 1
    with pytest.raises(GlowsimError, match="another scenario than the one given"):
        list(recordings(path, load(fleet.TEXT, ["seed=9"])))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("target: 0.7", "taget: 0.7", "taget"),
        ("target: 0.7", "target: 70", "target"),
        ("title: A small fleet", "title: [", "flow sequence"),
        ("concurrency: 4", "concurrency: 5", "fleet.tax.concurrency: 4 -> 5.*when the daemon is started again"),
        ("input: $1/1M", "input: $3/1M", "when the daemon is started again"),
        ("  - agent: plain", "  - agent: simple", "when the daemon is started again"),
        ("seed: 1", "seed: 1\nlive: {agents: {tax: {adapter: openai_http, urls: ['http://127.0.0.1:1']}}}",
         "live.agents.tax.*when the daemon is started again"),
    ],
)  # fmt: skip
def test_what_cannot_be_taken_on_changes_nothing_and_says_why(fleet, path, old, new, said):
    file = File(fleet.TEXT)

    async def test(client):
        await client.task()
        file.edit(old, new)
        _, shown = await configuration(client, "GET")
        assert re.search(said, shown["refused"])
        status, refused = await configuration(client, "POST")
        assert status == 409
        assert re.search(said, refused["error"]["message"])
        file.text = fleet.TEXT
        _, after = await configuration(client, "GET")
        assert after == {"digest": digest(load(fleet.TEXT)), "differences": [], "refused": None}
        await client.task()
        _, audit = await client.admin("GET", "/v1/audit")
        assert [row["outcome"].startswith("refused: ") for row in audit["audit"]] == [True]

    fleet.serve(test, path, again=file.read)
    assert len(files_of(path)) == 1
    replays(path)


def test_what_a_budget_has_spent_stays_spent_under_another_limit(fleet, path):
    file = File(fleet.TEXT)

    async def test(client):
        await client.task()
        _, before = await client.admin("GET", "/v1/budgets")
        file.edit("limit: 1000000", "limit: 4100")
        status, _ = await configuration(client, "POST")
        assert status == 200
        _, after = await client.admin("GET", "/v1/budgets")
        assert after["budgets"][0]["limit"] == 4100
        assert after["budgets"][0]["most"] == before["budgets"][0]["most"]
        status, _ = await client.ask("POST", "/v1/agents/tax/tasks", {"input": "Due?"})
        assert status == 429, (
            "1 and at most 4,096 tokens would fit in, were it not for the 21 that were spent"
        )

    fleet.serve(test, path, again=file.read)
    replays(path)


def test_a_kind_that_open_work_hangs_on_changes_when_there_is_none(fleet, path):
    slow = fleet.TEXT.replace("time: 1ms", "time: 2s")
    file = File(slow)

    async def test(client):
        tasks = [asyncio.create_task(client.task()) for _ in range(3)]
        while client.driver.plane.under_way().requests == []:
            await asyncio.sleep(0)
        file.edit("limiter: {use: budget, limit: 1000000, every: 1h, of: tokens, per: tenant}",
                  "limiter: {use: token_bucket, rate: 100/s, burst: 9}")  # fmt: skip
        status, refused = await configuration(client, "POST")
        assert status == 409
        assert (
            "tax has open requests, and its limiter would be of another kind" in refused["error"]["message"]
        )
        await asyncio.gather(*tasks)
        status, _ = await configuration(client, "POST")
        assert status == 200
        await client.task()

    fleet.serve(test, path, text=slow, again=file.read)
    replays(path)


def test_a_daemon_that_is_started_with_another_configuration_goes_on_with_its_journal(fleet, path):
    async def first(client):
        for _ in range(3):
            await client.task()
        await client.rate(await client.task())

    spent = []

    async def then(client):
        _, said = await client.admin("GET", "/v1/budgets")
        assert said["budgets"][0]["limit"] == 2_000_000
        spent.append(said["budgets"][0]["most"][0]["spent"])
        assert await client.task() > 4

    fleet.serve(first, path)
    other = fleet.TEXT.replace("limit: 1000000", "limit: 2000000").replace("concurrency: 4", "concurrency: 9")
    fleet.serve(then, path, text=other.replace("input: $1/1M", "input: $3/1M"))
    assert len(replays(path)) == 3
    fleet.serve(then, path, text=other)
    assert spent == [4 * 21, 5 * 21]
    gone = fleet.TEXT[: fleet.TEXT.index("  - agent: plain")] + fleet.TEXT[fleet.TEXT.index("workload:") :]
    with pytest.raises(GlowsimError, match="the agents are others"):
        fleet.serve(then, path, text=gone)


def test_a_journal_that_does_not_say_its_configuration_is_of_another_scenario(fleet, path):
    async def nothing(client):
        pass

    fleet.serve(nothing, path)
    (segment,) = files_of(path)
    segment.write_bytes(segment.read_bytes().replace(b'"configuration"', b'"konfiguration"'))
    with pytest.raises(JournalError, match="the journal of another scenario"):
        fleet.serve(nothing, path, text=fleet.TEXT.replace("limit: 1000000", "limit: 2"))
    with pytest.raises(GlowsimError, match="name its scenario with --scenario"):
        list(recordings(path, None))


def test_sighup_has_the_file_read_again_and_a_bad_one_is_logged(fleet, path, tmp_path):
    import aiohttp

    file = tmp_path / "fleet.yaml"
    file.write_text(fleet.TEXT)

    async def main():
        running = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "glowsim", "serve", str(file), "--port", "0", "--admin-port", "0",
            "--journal", str(path), env={**os.environ, **fleet.KEYS, "PYTHONPATH": str(fleet.ROOT)},
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            async with asyncio.timeout(60.0), aiohttp.ClientSession() as session:
                line = (await running.stdout.readline()).decode()
                client = fleet.client(*re.findall(r"http://[0-9.:]+", line), session)
                await client.task()
                for text in (fleet.TEXT.replace("target: 0.7", "target: 0.8"), "nonsense: ["):
                    file.write_text(text)
                    rows = (await client.admin("GET", "/v1/audit"))[1]["audit"]
                    running.send_signal(signal.SIGHUP)
                    while (await client.admin("GET", "/v1/audit"))[1]["audit"] == rows:
                        pass
                await client.task()
                outcomes = [row["outcome"] for row in (await client.admin("GET", "/v1/audit"))[1]["audit"]]
                assert outcomes[0] == "ordered"
                assert outcomes[1].startswith("refused: ")
                running.send_signal(signal.SIGTERM)
                error = (await running.stderr.read()).decode()
                assert await running.wait() == 0
                return error
        finally:
            if running.returncode is None:
                running.kill()
                await running.wait()

    assert "the configuration was not taken on, and nothing was changed" in asyncio.run(main())
    assert len(replays(path)) == 3


def test_differences_name_what_is_added_and_what_is_gone(fleet):
    before = load(fleet.TEXT)
    after = load(fleet.TEXT.replace("      scaler: {use: hpa, target: 0.7, max_instances: 9}\n", ""))
    (scaler,) = differences(before, after)
    assert (scaler.place, scaler.after, scaler.needs) == ("fleet.tax.controllers.scaler", None, "reload")
    (back,) = differences(after, before)
    assert (back.before, back.after) == (None, scaler.before)
    assert differences(before, before) == []


def test_a_breaker_that_is_taken_away_leaves_no_instance_gated(fleet):
    from glowsim.core.types import (
        Arrived,
        Dispatch,
        Finished,
        InstanceChanged,
        Outcome,
        Request,
        State,
        Usage,
        Woke,
    )

    breaker = "controllers:\n  breaker: {use: consecutive, failures: 1, open: 30s}\n"
    with_one = fleet.TEXT.replace("workload:", breaker + "workload:")
    before, after = load(with_one), load(fleet.TEXT)
    plane = fleet.plane(with_one)
    plane.handle(InstanceChanged(0.0, 1, 0, State.READY, 0))
    (dispatch,) = plane.handle(Arrived(1.0, Request(1, 1, tokens_in=9, max_tokens_out=9)))
    plane.handle(Finished(2.0, dispatch.attempt, Outcome.ERROR, Usage()))
    assert not any(isinstance(each, Dispatch) for each in plane.handle(Arrived(3.0, Request(2, 1, 9, 9))))
    moved = carried(before, after, plane).plane
    moved.handle(Woke(4.0))
    said = moved.handle(Arrived(5.0, Request(3, 1, 9, 9)))
    assert [each.request_id for each in said if isinstance(each, Dispatch)] == [2, 3]
    assert moved.next_wake_s() > 20.0
