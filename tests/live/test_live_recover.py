"""After a kill: a journal cut anywhere is gone on with, and the whole of it replays."""

from __future__ import annotations

import asyncio
import re
from math import inf

import numpy as np
import pytest

from controllers.caching.lru import LruCache
from glowsim.core.errors import JournalError
from glowsim.core.journal import Effected, Journal, read
from glowsim.core.protocols import Wanted
from glowsim.core.snapshot import Stateful
from glowsim.core.types import (
    Abandoned,
    Answer,
    Arrived,
    Code,
    Command,
    Dispatch,
    Effect,
    Fail,
    Finished,
    InstanceChanged,
    Outcome,
    Reason,
    Reject,
    State,
    Usage,
)
from glowsim.live.calls import Closed, Failed, InstanceError, Reply


class Again(Stateful):
    def after(self, t_s, request, attempts, outcome, retry_after_s):
        return 2.0 if attempts < 3 else inf

    def succeeded(self, t_s, request):
        pass


class PerRequest(Stateful):
    def decide(self, t_s, load):
        return Wanted(min(3, max(1, load.in_flight + load.queued)), Reason(Code.LOAD_HIGH), t_s + 4.0)


class Starter:
    def __init__(self, serve):
        self.serve = serve

    async def start(self, instance):
        await asyncio.sleep(3.0)
        return self.serve

    async def stop(self, instance):
        await asyncio.sleep(1.0)


GIVEN = {"retrier": Again, "cache": lambda: LruCache(entries=2, ttl_s=50.0), "timeout_s": 20.0, "slots": 2}


def serve_in_turns():
    count = [0]

    async def serve(call):
        count[0] += 1
        turn = count[0]
        await asyncio.sleep(1.0 + turn % 5)
        if turn % 4 == 0:
            raise InstanceError("every fourth fails")
        return Reply(call.task, Usage(1, 0, 1))

    return serve


async def some_work(stage):
    """Requests that are retried, joined, repeated, cached, left; instances that come and go."""

    async def visit(number):
        await asyncio.sleep(number * 0.5)
        try:
            async with asyncio.timeout(3.0 if number % 6 == 5 else None):
                await stage.ask(
                    number, cache_key=number % 7, idempotency_key=(number // 5) * (number % 5 > 2)
                )
        except (TimeoutError, Failed):
            pass

    await asyncio.gather(*(visit(number) for number in range(50)))


@pytest.fixture(scope="module")
def written(live, tmp_path_factory):
    """The bytes of a journal with a frame an event, and where its frames end."""
    path = tmp_path_factory.mktemp("journal") / "whole"

    async def main():
        serve = serve_in_turns()
        stage = live.Stage(
            path=path, watch=lambda event, commands: stage.driver.flush(), scaler=PerRequest,
            scalers={0: Starter(serve)}, **GIVEN,
        )  # fmt: skip
        stage.driver.add(0, serve)
        await some_work(stage)
        await stage.driver.close(100.0)

    live.jump(main)
    data = path.read_bytes()
    starts = [match.start() for match in re.finditer(b"FRAM", data)]
    return data, [*starts, len(data)]


def ends(recording):
    told = [r for r in recording.records() if isinstance(r, Answer | Reject | Fail | Abandoned)]
    return {record.request_id for record in told}


def numbers(recording, kind, name):
    return {getattr(record, name) for record in recording.records() if isinstance(record, kind)}


def go_on(live, earlier, path):
    """Recover from a recording in a fresh process, so to speak; ask some more; return the journal."""

    async def main():
        serve = serve_in_turns()
        stage = live.Stage(path=path, scaler=PerRequest, scalers={0: Starter(serve)}, **GIVEN)
        stage.driver.recover(earlier)
        stage.driver.flush()
        recovered = read(path)
        stage.driver.add(0, serve)
        await some_work(stage)
        await stage.driver.close(100.0)
        return recovered

    recovered = live.jump(main)
    assert len(recovered) >= len(earlier)
    return recovered, read(path)


def test_a_journal_that_is_cut_after_any_frame_is_gone_on_with(live, written, tmp_path):
    data, cuts = written
    assert len(cuts) > 80
    unfinished = 0
    for number, cut in enumerate(cuts):
        torn = number % 2 == 1  # every other one breaks off within its last frame
        path = tmp_path / f"cut-{number}"
        path.write_bytes(data[: cut - 7 if torn else cut])
        earlier = read(path)
        assert earlier.torn == (torn and number > 0)
        recovered, whole = go_on(live, earlier, tmp_path / f"new-{number}")

        open_attempts = numbers(earlier, Dispatch, "attempt") - numbers(earlier, Finished, "attempt")
        lost = {
            r.attempt for r in recovered.records() if isinstance(r, Finished) and r.outcome == Outcome.LOST
        }
        assert lost == open_attempts
        unfinished += len(lost)
        arrived = {r.request.request_id for r in recovered.records() if isinstance(r, Arrived)}
        assert ends(recovered) == arrived, "nobody is left waiting"
        before, after = list(earlier.records()), list(whole.records())
        assert list(map(repr, after[: len(before)])) == list(map(repr, before)), (
            "what was written stays written"
        )
        live.check_recording(whole, live.build(scaler=PerRequest, **GIVEN))
        requests = [r.request.request_id for r in after if isinstance(r, Arrived)]
        assert sorted(set(requests)) == requests, "numbers are not given twice"
    assert unfinished > 20, "the cuts must go through work"


def test_nothing_is_dispatched_while_recovering(live, written, tmp_path):
    data, cuts = written
    path = tmp_path / "cut"
    path.write_bytes(data[: cuts[40]])
    earlier = read(path)
    recovered, _ = go_on(live, earlier, tmp_path / "new")
    added = list(recovered.records())[len(earlier) :]
    assert not [record for record in added if isinstance(record, Dispatch)]
    states = {}
    for record in recovered.records():
        if isinstance(record, InstanceChanged):
            states[record.instance] = record.state
    assert set(states.values()) <= {State.GONE, State.FAILED}


def test_time_stands_still_while_nobody_drives(live, tmp_path):
    async def first():
        stage = live.Stage(path=tmp_path / "one")
        stage.driver.add(0, live.takes(100.0))
        await asyncio.sleep(12.5)
        client = stage.start()
        await asyncio.sleep(0.0)
        stage.driver.flush()
        (tmp_path / "killed").write_bytes((tmp_path / "one").read_bytes())
        await stage.driver.close(1.0)
        with pytest.raises(Closed):
            await client

    async def second():
        await asyncio.sleep(1000.0)
        stage = live.Stage()
        stage.driver.recover(read(tmp_path / "killed"))
        assert stage.driver.now_s() == 12.5
        stage.driver.add(0, live.takes(1.0))
        await stage.ask()
        assert stage.driver.now_s() == 13.5
        await stage.close()

    live.jump(first)
    live.jump(second)


def test_a_content_of_before_the_restart_is_made_again(live, tmp_path):
    def stage_of(path):
        return live.Stage(path=path, cache=lambda: LruCache(entries=5, ttl_s=1e6))

    async def first():
        stage = stage_of(tmp_path / "one")
        stage.driver.add(0, live.takes(1.0))
        await stage.ask("hello", cache_key=7)
        await stage.driver.close(1.0)

    async def second():
        stage = stage_of(tmp_path / "two")
        stage.driver.recover(read(tmp_path / "one"))
        stage.driver.add(0, live.takes(1.0))
        answered = await stage.ask("hello", cache_key=7)
        assert (answered.content, answered.how) == ("HELLO", Code.OWN)
        await stage.driver.close(1.0)
        return stage.build()

    live.jump(first)
    plane = live.jump(second)
    live.check_recording(read(tmp_path / "two"), plane)


def test_a_journal_of_other_controllers_is_not_gone_on_with(live, written, tmp_path):
    path = tmp_path / "whole"
    path.write_bytes(written[0])

    async def main():
        stage = live.Stage(slots=1)
        with pytest.raises(JournalError, match=r"written by another control plane: at event \d+"):
            stage.driver.recover(read(path))

    live.jump(main)


def test_a_journal_takes_over_another_and_refuses_what_nobody_carried_out():
    first = Journal({})
    for number in range(3):
        first.command(Reject(number, 0.0, Reason(Code.LIMITED)))
    first.defer(1.0, 1)  # and then its writer was killed
    second = Journal({})
    second.resume(first.recording())
    assert second.commands == 3
    told = np.zeros(3, dtype=int)
    for effect in second.recording().table(Effected):
        told[effect["first"] : effect["first"] + effect["n"]] += 1
        if effect["first"] > 0:
            assert effect["status"] == Effect.REFUSED
    assert told.tolist() == [1, 1, 1]
    with pytest.raises(JournalError, match="only a fresh journal"):
        second.resume(first.recording())


def test_a_file_that_breaks_off_in_its_header_says_so(tmp_path):
    path = tmp_path / "journal"
    journal = Journal({"seed": 1}, path)
    assert read(path).header["seed"] == 1, "the header is there before the first record"
    journal.close()
    for length in (0, 5, 10, 20):
        (tmp_path / "torn").write_bytes(path.read_bytes()[:length])
        with pytest.raises(JournalError):
            read(tmp_path / "torn")


def test_a_recovered_journal_keeps_its_commands_countable(live, written, tmp_path):
    data, cuts = written
    (tmp_path / "cut").write_bytes(data[: cuts[50]])
    _, whole = go_on(live, read(tmp_path / "cut"), tmp_path / "new")
    commands = sum(isinstance(record, Command) for record in whole.records())
    effects = whole.table(Effected)
    assert int(effects["n"].sum()) == commands
