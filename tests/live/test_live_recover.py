"""After a kill: a journal cut anywhere is gone on with, and the whole of it replays."""

from __future__ import annotations

import asyncio
import re
from math import inf

import pytest

from controllers.caching.lru import LruCache
from glowsim.core.errors import JournalError
from glowsim.core.journal import Effected, Journal, files_of, first_difference, read
from glowsim.core.protocols import Wanted
from glowsim.core.snapshot import Stateful
from glowsim.core.types import (
    Abandoned,
    Answer,
    Arrived,
    Code,
    Command,
    Dispatch,
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
from glowsim.live.segments import Segments


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
    data = files_of(path)[0].read_bytes()
    starts = [match.start() for match in re.finditer(b"FRAM", data)]
    return data, [*starts, len(data)]


def cut_journal(folder, data):
    """Put a journal into a folder, as a kill left it; return what can be read of it."""
    folder.mkdir()
    (folder / "00000001.glow").write_bytes(data)
    return read(folder)


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
        earlier = cut_journal(path, data[: cut - 7 if torn else cut])
        assert earlier.torn == (torn and number > 0)
        recovered, whole = go_on(live, earlier, path)

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
    earlier = cut_journal(tmp_path / "cut", data[: cuts[40]])
    recovered, _ = go_on(live, earlier, tmp_path / "cut")
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
        cut_journal(tmp_path / "killed", files_of(tmp_path / "one")[0].read_bytes())
        await stage.driver.close(1.0)
        with pytest.raises(Closed):
            await client

    async def second():
        await asyncio.sleep(1000.0)
        stage = live.Stage(path=tmp_path / "killed")
        stage.driver.recover(read(tmp_path / "killed"))
        assert stage.driver.now_s() == 12.5
        stage.driver.add(0, live.takes(1.0))
        await stage.ask()
        assert stage.driver.now_s() == 13.5
        await stage.driver.close(1.0)
        live.check_recording(read(tmp_path / "killed"), stage.build())

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
        stage = stage_of(tmp_path / "one")
        stage.driver.recover(read(tmp_path / "one"))
        stage.driver.add(0, live.takes(1.0))
        answered = await stage.ask("hello", cache_key=7)
        assert (answered.content, answered.how) == ("HELLO", Code.OWN)
        await stage.driver.close(1.0)
        return stage.build()

    live.jump(first)
    plane = live.jump(second)
    live.check_recording(read(tmp_path / "one"), plane)


def test_a_journal_of_other_controllers_is_not_gone_on_with(live, written, tmp_path):
    earlier = cut_journal(tmp_path / "whole", written[0])

    async def main():
        stage = live.Stage(slots=1)
        with pytest.raises(JournalError, match=r"written by another control plane: at event \d+"):
            stage.driver.recover(earlier)

    live.jump(main)


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
    earlier = cut_journal(tmp_path / "cut", data[: cuts[50]])
    _, whole = go_on(live, earlier, tmp_path / "cut")
    commands = sum(isinstance(record, Command) for record in whole.records())
    effects = whole.table(Effected)
    assert int(effects["n"].sum()) == commands


# --- segments ---------------------------------------------------------------------------------------


def in_segments(live, path, records, after=lambda event: None, keep_bytes=1 << 40):
    """Have some work done with a journal in short segments; return a fresh control plane of its kind."""

    async def main():
        serve = serve_in_turns()

        def watch(event, commands):
            stage.driver.flush()
            after(event)

        stage = live.Stage(
            path=path, records=records, keep_bytes=keep_bytes, watch=watch, scaler=PerRequest,
            scalers={0: Starter(serve)}, **GIVEN,
        )  # fmt: skip
        stage.driver.add(0, serve)
        await some_work(stage)
        await stage.driver.close(100.0)
        return stage.build()

    return live.jump(main)


def test_segments_are_one_journal_and_each_replays_alone(live, tmp_path):
    plane = in_segments(live, tmp_path / "whole", records=1 << 40)
    in_segments(live, tmp_path / "cut", records=10)
    whole, files = read(tmp_path / "whole"), files_of(tmp_path / "cut")
    assert len(files) > 20
    cut = read(tmp_path / "cut")
    assert len(cut.seams) == len(files) - 1
    live.check_recording(cut, plane)

    def said(recording):
        return [repr(record) for record in recording.records() if not isinstance(record, Effected)]

    assert said(cut) == said(whole), "what is decided does not depend on segments"
    for path in files:
        assert first_difference(read(path), live.build(scaler=PerRequest, **GIVEN)) is None
    one = tmp_path / "one.glow"
    one.write_bytes(b"".join(path.read_bytes() for path in files))
    assert said(read(one)) == said(cut)
    assert read(one).seams.keys() == cut.seams.keys()


def test_killed_at_any_moment_the_last_segment_is_enough(live, tmp_path):
    copies = []

    def keep(event):
        if len(copies) < 200:
            copies.append({path.name: path.read_bytes() for path in files_of(tmp_path / "killed")})

    in_segments(live, tmp_path / "killed", 10, keep)
    for number, files in enumerate(copies[::5]):
        folder = tmp_path / str(number)
        folder.mkdir()
        for name, data in files.items():
            (folder / name).write_bytes(data)
        last = files_of(folder)[-1]
        earlier = read(folder)
        if number % 2 and len(read(last)):
            last.write_bytes(last.read_bytes()[:-3])
            earlier = read(folder)
            assert earlier.torn
        recovered, whole = go_on(live, read(last), folder)
        lost = [
            r.attempt for r in recovered.records() if isinstance(r, Finished) and r.outcome == Outcome.LOST
        ]
        assert set(lost) == numbers(earlier, Dispatch, "attempt") - numbers(earlier, Finished, "attempt")
        assert ends(recovered) == {
            r.request.request_id for r in recovered.records() if isinstance(r, Arrived)
        }
        live.check_recording(whole, live.build(scaler=PerRequest, **GIVEN))
        requests = [r.request.request_id for r in whole.records() if isinstance(r, Arrived)]
        assert sorted(set(requests)) == requests, "numbers are not given twice"


def test_the_oldest_segments_are_deleted_and_the_rest_replays(live, tmp_path):
    whole, kept = tmp_path / "whole", tmp_path / "kept"
    plane = in_segments(live, whole, records=10)
    in_segments(live, kept, records=10, keep_bytes=20_000)
    names = [path.name for path in files_of(kept)]
    assert names == [path.name for path in files_of(whole)][-len(names) :]
    assert 2 <= len(names) < len(files_of(whole))
    assert sum(path.stat().st_size for path in files_of(kept)[:-1]) <= 20_000
    rest = read(kept)
    assert first_difference(rest, plane) is None
    assert rest.commands == read(whole).commands
    assert rest.untold() == read(whole).untold() == []
    tiny = tmp_path / "tiny"
    in_segments(live, tiny, records=10, keep_bytes=0)
    assert len(files_of(tiny)) == 2, "the two youngest are kept in any case"


def test_a_segment_that_does_not_go_on_where_the_last_one_ended_is_found(live, tmp_path):
    plane = in_segments(live, tmp_path / "cut", records=10)
    second = files_of(tmp_path / "cut")[1]
    data = second.read_bytes()
    other = re.sub(rb'(\["last_attempt",\d*)(\d)', lambda found: found[1] + b"%d" % (9 - int(found[2])), data)
    assert len(other) == len(data)
    assert other != data
    second.write_bytes(other)
    difference = first_difference(read(tmp_path / "cut"), plane)
    assert difference is not None
    assert difference.state
    assert difference.recorded == difference.replayed == ()


def test_segments_that_do_not_belong_together_are_refused(live, tmp_path):
    folder = tmp_path / "cut"
    in_segments(live, folder, records=20)
    third = files_of(folder)[2]
    third.rename(tmp_path / "third")
    with pytest.raises(JournalError, match="lacks what stands between segments 2 and 4"):
        read(folder)
    for path in files_of(folder):
        path.unlink()
    with pytest.raises(JournalError, match="holds no segments"):
        read(folder)
    (folder / "00000001.glow").write_bytes(b"a diary")
    with pytest.raises(JournalError, match="not a glowsim journal"):
        read(folder)
    (folder / "00000001.glow").unlink()
    for name in ("a", "b"):
        journal = Segments({"id": name}, folder, records=1, keep_bytes=0)
        journal.begin({"state": {}})
        journal.close()
    with pytest.raises(JournalError, match="segments of several journals"):
        read(folder)


def test_a_journal_of_one_segment_cannot_begin_another(tmp_path):
    journal = Journal({}, tmp_path / "one")
    with pytest.raises(JournalError, match="of one segment"):
        journal.begin({})
    journal.close()
