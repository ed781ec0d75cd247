"""The journal: what goes in comes out, whatever becomes of the file; a replay notices what was changed."""

from __future__ import annotations

from math import inf, nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from controllers.balancing.round_robin import RoundRobin
from controllers.queueing.fifo import FifoQueue
from glowsim.core import journal as module
from glowsim.core.control_plane import ControlPlane
from glowsim.core.errors import JournalError
from glowsim.core.journal import BATCH, Effected, Journal, Recording, first_difference, read
from glowsim.core.pool import Controllers, PoolSpec
from glowsim.core.types import (
    Abandoned,
    Advance,
    Advised,
    Alert,
    Answer,
    Arrived,
    Ask,
    Cancel,
    Change,
    Changed,
    ChangeKind,
    Code,
    Constraint,
    Dispatch,
    Effect,
    Event,
    Fail,
    Finished,
    FirstToken,
    Forget,
    InstanceChanged,
    Keep,
    Observed,
    Outcome,
    Plan,
    Probe,
    Probed,
    Raise,
    Reason,
    Reject,
    Reported,
    Request,
    Scale,
    Severity,
    Shadowed,
    State,
    Status,
    Told,
    Usage,
    Woke,
)  # fmt: skip

WHY = Reason(Code.LOAD_HIGH, Constraint.MAXIMUM, 0.1 + 0.2, inf, nan)
KEY = (1 << 64) - 1
REQUEST = Request(7, 2, 900, 400, 3, 1, 2, True, 12.5, KEY, KEY - 1, 1, 5, 6, 1 << 63)
EVERY: list[Any] = [
    Arrived(0.0, REQUEST),
    Arrived(0.0, Request(8, 0, 1, 1)),
    FirstToken(0.5, 1 << 40),
    Finished(1.0, 1, Outcome.LOST, Usage(), 0.0),
    Finished(1.0, 2, Outcome.OK, Usage(900, 512, 40, 0.25, 0.5), 1.5),
    Abandoned(1.0, 7),
    Told(2.0, 1, Status.UNKNOWN),
    InstanceChanged(2.0, 1, 3, State.STARTING, 1, 9.5),
    InstanceChanged(2.0, 1, 3, State.FAILED),
    Reported(3.0, 1, 3, 2, nan, -inf, 5),
    Probed(3.0, 1, ((3, True), (4, False))),
    Observed(4.0, 7, 1, 1, KEY, 0.05, "quality", -0.0),
    Changed(5.0, Change(ChangeKind.SET_INSTANCES, 1, 4.0)),
    Woke(6.0),
    Dispatch(1, 7, 3, Plan(1, 1, 900, 400), WHY),
    Cancel(1, WHY),
    Answer(7, 1, WHY, True),
    Forget(1),
    Reject(8, inf, WHY),
    Fail(7, Outcome.TIMEOUT, WHY),
    Scale(1, 0, 0, 4, (3, 9), WHY),
    Probe(1),
    Ask(1, "lease", 2, 0.5, 3.0),
    Raise(Alert(1, "latency_s", Severity.CRITICAL, WHY)),
    Advance(1, 2, 0.25, WHY),
    Shadowed(1, "balancer", 3.0, 4.0),
    Advised(1, "breaker", 3, 8.0, 0.0, WHY),
    Keep(2),
    Effected(6.0, 0, 12, Effect.REFUSED),
]
EVENTS = 14
"""How many of these are events; the commands and the effect follow."""


def written(records: list[Any], journal: Journal) -> Journal:
    for record in records:
        if isinstance(record, Event):
            journal.event(record)
        else:
            journal.pending.append(record)
    journal.pack()
    return journal


def some(n: int) -> list[Any]:
    """Return n times every event, in an order that mixes the kinds."""
    return [EVERY[i * 5 % EVENTS] for i in range(n * EVENTS)]


# --- what goes in comes out ---------------------------------------------------------------------------


def test_the_list_above_has_every_type() -> None:
    assert {type(record) for record in EVERY} == set(module._CODES)


def test_every_record_comes_back_as_it_was() -> None:
    back = list(written(EVERY, Journal({})).recording().records())
    assert repr(back) == repr(EVERY)  # `repr`, for which nan is nan and -0.0 is not 0.0
    assert [type(record) for record in back] == [type(record) for record in EVERY]


def test_enums_come_back_as_enums() -> None:
    _, _, _, lost, *_ = written(EVERY, Journal({})).recording().records()
    assert isinstance(lost, Finished)
    assert lost.outcome is Outcome.LOST


def test_a_table_has_the_columns_of_a_kind() -> None:
    table = written(EVERY, Journal({})).recording().table(Finished)
    assert table["outcome"].tolist() == [Outcome.LOST, Outcome.OK]
    assert table["tokens_cached"].tolist() == [0, 512]
    assert np.isnan(table["first_token_s"]).tolist() == [True, False]


def test_batches_do_not_show() -> None:
    n = 3 * BATCH // EVENTS
    journal = Journal({})
    for record in some(n):
        journal.event(record)
    assert len(journal.pending) < BATCH
    assert repr(list(journal.recording().records())) == repr(some(n))


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (Finished(1.0, 2, Outcome.OK, Usage(1 << 40)), "1099511627776"),
        (Arrived(0.0, REQUEST._replace(user=-1)), "user=-1"),
        ("a word", "str"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(wrong: Any, named: str) -> None:
    journal = Journal({})
    journal.pending.extend([EVERY[1], EVERY[4], wrong, EVERY[4]])
    with pytest.raises(JournalError, match=named):
        journal.pack()
    journal.pending.remove(wrong)
    assert list(journal.recording().records()) == [EVERY[1], EVERY[4], EVERY[4]], "nothing of it was packed"


# --- files ----------------------------------------------------------------------------------------------


def on_disk(path: Path, records: list[Any], frames: int) -> Recording:
    journal = Journal({"seed": 3}, path)
    share = len(records) // frames
    for start in range(0, len(records), share):
        written(records[start : start + share], journal).flush()
    journal.close()
    return read(path)


def test_several_frames_equal_one_journal_in_memory(tmp_path: Path) -> None:
    filed = on_disk(tmp_path / "j", some(8), 4)
    assert (tmp_path / "j").read_bytes().count(b"FRAM") == 4
    memory = written(some(8), Journal({})).recording()
    assert (filed._order, filed._blocks) == (memory._order, memory._blocks)
    assert (filed.header["seed"], filed.torn, len(filed)) == (3, False, 8 * EVENTS)


def test_a_long_journal_spills_when_it_settles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SPILL_RECORDS", 100)
    journal = Journal({}, tmp_path / "j")
    sizes = []
    for t_s in range(30):
        written(some(1), journal).settle(float(t_s))
        sizes.append((tmp_path / "j").stat().st_size)
    assert len(set(sizes)) == 1 + 30 * EVENTS // (8 * EVENTS), "every eighth time there are a hundred"
    journal.close()
    assert repr(list(read(tmp_path / "j").records())) == repr(some(1) * 30)


@pytest.mark.parametrize("cut", [1, 5, 20, 200])
def test_a_torn_last_frame_is_left_out_and_said_so(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "j"
    on_disk(path, some(8), 4)
    path.write_bytes(path.read_bytes()[:-cut])
    torn = read(path)
    assert torn.torn
    assert repr(list(torn.records())) == repr(some(8)[: 6 * EVENTS])


def test_a_last_frame_with_wrong_bytes_is_torn(tmp_path: Path) -> None:
    path = tmp_path / "j"
    on_disk(path, some(8), 4)
    data = bytearray(path.read_bytes())
    data[-100:] = bytes(100)
    path.write_bytes(data)
    assert read(path).torn


@pytest.mark.parametrize("at", [0, 4, 8, 40])
def test_damage_before_the_last_frame_is_an_error(tmp_path: Path, at: int) -> None:
    """In the frame's mark, its checksum, its size and its payload."""
    path = tmp_path / "j"
    on_disk(path, some(8), 4)
    data = bytearray(path.read_bytes())
    second = data.index(b"FRAM", data.index(b"FRAM") + 1)
    data[second + at] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(JournalError, match=f"damaged at byte {second}"):
        read(path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"GLOWSIMJ", b"PK\x03\x04\x00\x00\x00\x00", "not a glowsim journal"),
        (b'"version":%d' % module.VERSION, b'"version":9', "version 9"),
    ],
)
def test_another_file_or_version_is_refused(tmp_path: Path, old: bytes, new: bytes, message: str) -> None:
    path = tmp_path / "j"
    on_disk(path, some(1), 1)
    path.write_bytes(path.read_bytes().replace(old, new))
    with pytest.raises(JournalError, match=message):
        read(path)


@pytest.mark.parametrize("length", [8, 11, 20])
def test_a_file_that_breaks_off_in_its_header_says_so(tmp_path: Path, length: int) -> None:
    path = tmp_path / "j"
    on_disk(path, some(1), 1)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(JournalError, match="within its header"):
        read(path)


def test_a_file_is_never_written_over(tmp_path: Path) -> None:
    Journal({}, tmp_path / "j").close()
    with pytest.raises(FileExistsError):
        Journal({}, tmp_path / "j")


# --- times and effects ----------------------------------------------------------------------------------


def test_a_command_has_the_time_of_its_event() -> None:
    records = [
        Woke(1.0),
        Forget(1),
        Probed(2.5, 0, ()),
        Probe(0),
        Forget(2),
        Effected(4.0, 0, 3, Effect.DONE),
    ]
    assert written(records, Journal({})).recording().times().tolist() == [1.0, 1.0, 2.5, 2.5, 2.5, 4.0]


def effects(journal: Journal) -> list[Any]:
    return [record for record in journal.recording().records() if isinstance(record, Effected)]


def given(journal: Journal, n: int) -> list[int]:
    return [journal.command(Forget(source)) for source in range(n)]


def test_commands_of_which_nothing_else_was_said_were_done() -> None:
    journal = Journal({})
    assert given(journal, 3) == [0, 1, 2]
    journal.settle(5.0)
    journal.settle(6.0)
    assert effects(journal) == [Effected(5.0, 0, 3, Effect.DONE)]


def test_a_refusal_settles_those_before_it() -> None:
    journal = Journal({})
    given(journal, 4)
    journal.effect(1.0, 2, Effect.REFUSED)
    journal.settle(2.0)
    assert effects(journal) == [
        Effected(1.0, 0, 2, Effect.DONE), Effected(1.0, 2, 1, Effect.REFUSED), Effected(2.0, 3, 1, Effect.DONE),
    ]  # fmt: skip


def test_a_deferred_effect_is_told_once_and_later() -> None:
    journal = Journal({})
    given(journal, 3)
    journal.defer(1.0, 1)
    journal.settle(2.0)
    journal.effect(9.0, 1, Effect.LATE)
    journal.settle(9.0)
    told = effects(journal)
    assert told == [
        Effected(1.0, 0, 1, Effect.DONE), Effected(2.0, 2, 1, Effect.DONE), Effected(9.0, 1, 1, Effect.LATE),
    ]  # fmt: skip
    assert sorted(n for effect in told for n in range(effect.first, effect.first + effect.n)) == [0, 1, 2]


def test_a_journal_that_begins_later_goes_on_with_the_numbers_and_knows_what_is_untold() -> None:
    first = Journal({})
    first.event(Woke(1.0))
    given(first, 3)
    first.defer(1.0, 1)
    assert first.recording().untold() == [1, 2]
    second = Journal({})
    second.begin({"commands": first.recording().commands, "untold": [1, 2]})
    assert given(second, 1) == [3]
    second.effect(4.0, 1, Effect.REFUSED)
    second.settle(4.0)
    assert effects(second) == [Effected(4.0, 1, 1, Effect.REFUSED), Effected(4.0, 3, 1, Effect.DONE)]
    assert second.recording().untold() == [2]
    assert second.recording().commands == 4
    with pytest.raises(JournalError, match="of one segment"):
        second.begin({})


# --- replay ---------------------------------------------------------------------------------------------


def plane() -> ControlPlane:
    spec = PoolSpec(0, 1, 1, (0,), 30.0, inf, 30.0, 10, 10, 10)
    return ControlPlane([(spec, Controllers(FifoQueue(limit=10), RoundRobin()))])


def conversation() -> list[Any]:
    """Return events with the commands that they led to: two requests, one instance."""
    usage = Usage(900, 0, 40)
    events: list[Event] = [
        InstanceChanged(0.0, 0, 0, State.READY), Arrived(1.0, Request(1, 0, 900, 100)),
        Arrived(1.5, Request(2, 0, 900, 100)), Finished(2.0, 1, Outcome.OK, usage), Finished(4.0, 2, Outcome.OK, usage),
    ]  # fmt: skip
    there = plane()
    return [record for event in events for record in (event, *there.handle(event))]


def test_a_replay_gives_equal_commands() -> None:
    records = conversation()
    records.insert(3, Effected(1.0, 0, 1, Effect.DONE))
    assert first_difference(written(records, Journal({})).recording(), plane()) is None


def tampered(position: int, record: Any) -> list[Any]:
    """Return the conversation with a record in the place of another, or without it."""
    records = conversation()
    records[position : position + 1] = [] if record is None else [record]
    return records


def test_a_replay_finds_a_planted_change() -> None:
    records = conversation()
    waited = records.index(next(each for each in records if isinstance(each, Dispatch) and each.attempt == 2))
    dispatch = records[waited]
    assert dispatch.reason.a == 0.5
    changes = [
        dispatch._replace(reason=dispatch.reason._replace(a=np.nextafter(0.5, 1.0))),
        dispatch._replace(instance=1),
        Forget(1),
        None,
    ]
    for change in changes:
        found = first_difference(written(tampered(waited, change), Journal({})).recording(), plane())
        assert found is not None
        assert (found.number, found.event[:2]) == (3, (2.0, 1))
        assert [type(each) for each in found.replayed] == [Answer, Dispatch]
        assert dispatch in found.replayed
        assert dispatch not in found.recorded


def test_a_replay_notices_a_command_too_many_at_the_end() -> None:
    found = first_difference(written([*conversation(), Forget(9)], Journal({})).recording(), plane())
    assert found is not None
    assert (found.number, found.recorded[-1]) == (4, Forget(9))
