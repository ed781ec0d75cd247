"""Rows come when requests are over: what is told in which order, what is late, and going on after an end."""

from __future__ import annotations

import asyncio
import json
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glowsim import build
from glowsim.core.errors import JournalError
from glowsim.core.journal import read
from glowsim.core.streams import Streams
from glowsim.core.types import Advised, Arrived, Event, Finished, Reported
from glowsim.live.settings import SettingsError
from glowsim.live.settings import settings as chosen

CONTROLLERS = {
    "scaler": {
        "use": "agent_scaler",
        "min_instances": 1,
        "max_instances": 9,
        "look": "5s",
        "cooldown": "10s",
    },
    "limiter": {"use": "budget", "limit": 0.0030001, "every": "1h"},
    "breaker": {"use": "consecutive", "failures": 2},
}


def spans(here):
    """Return (begin, duration) of every request of a journal."""
    begun = [event.t_s for event in here.commands(Arrived)]
    ends = [event.t_s for event in here.commands(Finished)]
    return begun, ends


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.randoms(use_true_random=False), st.data())
def test_the_order_of_rows_within_the_lag_does_not_matter(beside, random, data):
    at = st.tuples(st.floats(0, 50), st.floats(0.01, 9), st.sampled_from(["ok", "error", "timeout"]))
    drawn = data.draw(st.lists(at, min_size=5, max_size=40, unique_by=lambda each: each[0]))
    rows = [beside.row(*each[:2], status=each[2], instance="a:1") for each in drawn]
    told = []
    for _ in range(2):
        here = beside.place(beside.fleet(CONTROLLERS))
        here.log.unlink(missing_ok=True)
        here.forget()
        here.write(*rows)
        here.advise(until_s=300.0)
        told.append([str(record) for record in here.commands(Advised)])
        random.shuffle(rows)
    assert told[0] == told[1]


def test_requests_are_told_with_their_own_times(beside):
    here = beside.place(beside.fleet())
    here.write(beside.row(10.0, 5.0), beside.row(3.0, 20.0), beside.row(20.0, 1.0))
    here.advise(until_s=200.0)
    begun, ends = spans(here)
    noon = 12 * 3600.0
    assert begun == pytest.approx([noon + 3, noon + 10, noon + 20])
    assert ends == pytest.approx([noon + 15, noon + 21, noon + 23])


def test_nothing_is_told_before_the_lag_is_over(beside):
    here = beside.place(beside.fleet())

    async def main():
        async with here.advisor() as advice:
            here.write(beside.row(0.0, 1.0))
            told = []
            for here.now_s in (2.0, 59.0, 61.0):
                advice.listener.look()
                told.append(advice.telemetry.seen - 6)  # two stand-ins and four instances
            return told

    assert asyncio.run(main()) == [0, 0, 2]


def test_a_late_row_is_as_long_as_it_was(beside):
    here = beside.place(beside.fleet())

    async def main():
        async with here.advisor() as advice:
            here.write(beside.row(100.0, 1.0))
            here.now_s = 170.0
            advice.listener.look()
            here.write(beside.row(80.0, 40.0), beside.row(20.0, 1.0))
            here.now_s = 300.0
            advice.listener.look()
            return advice.advisor.counts

    assert asyncio.run(main()) == {"told": 2, "late": 1, "too_late": 1}
    begun, ends = spans(here)
    assert (begun[1], ends[1]) == pytest.approx((12 * 3600 + 110, 12 * 3600 + 150))


def test_a_row_from_the_future_does_not_make_the_others_late(beside):
    here = beside.place(beside.fleet())
    here.write(beside.row(1e6), beside.row(1.0))

    async def main():
        here.now_s = 100.0
        async with here.advisor() as advice:
            advice.listener.look()
            return advice.advisor.counts

    assert asyncio.run(main()) == {"ahead": 1, "told": 1}


def test_a_log_that_is_there_is_read_as_fast_as_it_goes(beside):
    here = beside.place(beside.fleet())
    here.write(*beside.steady(10.0, 2.0, until_s=1200.0))  # over a megabyte: read in pieces
    here.advise(until_s=1e5)
    assert len(here.commands(Arrived)) == 12_000
    begun, _ = spans(here)
    assert begun == sorted(begun)
    assert here.replayed().proved


def test_going_on_repeats_nothing_and_forgets_nothing(beside, standing):
    here = beside.place(beside.fleet(CONTROLLERS))
    here.write(*beside.steady(1.0, 0.5, until_s=20.0))
    assert "refuse" not in {each.kind for each in here.advise(until_s=300.0)}
    here.write(*beside.steady(1.0, 0.5, since_s=400.0, until_s=410.0))
    found = here.advise(until_s=600.0)
    # 25 requests of $0.00012 are within the budget of the hour, the first 20 of them from before.
    assert [(each.kind, each.times) for each in found if each.kind == "refuse"] == [("refuse", 5)]
    assert len(here.commands(Arrived)) == 30
    assert here.replayed().proved
    again = here.advise(until_s=700.0)
    assert [each.why for each in again] == [each.why for each in found]


@pytest.mark.parametrize("rotated", [False, True])
def test_requests_that_were_open_end_as_their_rows_say(beside, rotated):
    here = beside.place(beside.fleet(CONTROLLERS))
    here.write(beside.row(0.0, 50.0), beside.row(100.0, 1.0))

    async def main():
        async with here.advisor() as advice:
            here.now_s = 90.0  # 30 s after the first began
            advice.listener.look()

    asyncio.run(main())
    assert here.commands(Finished) == []
    if rotated:
        here.log.rename(here.folder / "log.1")
        here.write(beside.row(100.0, 1.0))
    here.advise(until_s=300.0)
    ended = {event.attempt: (event.outcome.name, event.t_s - 12 * 3600) for event in here.commands(Finished)}
    # it is known not to be there once the log is read to its end: then the time is a lag before 101
    assert ended == {
        1: ("CANCELLED", pytest.approx(41.0)) if rotated else ("OK", pytest.approx(50.0)),
        2: ("OK", pytest.approx(101.0)),
    }
    assert here.replayed().proved


def test_a_journal_of_something_else_is_not_gone_on_with(beside):
    here = beside.place(beside.fleet(CONTROLLERS))
    here.write(beside.row(0.0))
    here.advise(until_s=100.0)
    other = beside.place(beside.fleet())
    with pytest.raises(JournalError, match="another scenario"):
        other.advise(until_s=100.0)


def test_there_must_be_something_to_listen_to(beside):
    here = beside.place(beside.fleet())
    with pytest.raises(SettingsError, match="--log FILE"):
        here.advise(until_s=1.0, log=False)
    for metrics, why in (
        ({"tex": ["http://a/m"]}, "no such agent"),
        ({"tax": ["a/m"]}, "begins with http"),
        ({"tax": ["http://a:1/x", "http://a:1/y"]}, "one host and port"),
    ):
        with pytest.raises(SettingsError, match=why):
            here.advise(until_s=1.0, metrics=metrics)
    assert not here.journal.exists()


def test_calls_of_nobody_are_counted_by_name(beside):
    here = beside.place(beside.fleet())
    here.write(
        beside.row(0.0, agent="vat"), beside.row(1.0, agent=None, model="large"), beside.row(2.0, agent="Tax")
    )

    async def main():
        here.now_s = 100.0
        async with here.advisor() as advice:
            advice.listener.look()
            return advice.listener.heard()

    heard = asyncio.run(main())
    assert heard["strangers"] == {"vat / (no model)": 1}
    assert [event.request.agent for event in here.commands(Arrived)] == [1, 0]
    assert Reported not in {type(record) for record in read(here.journal).records()}


def test_what_waits_is_bounded(beside, monkeypatch):
    monkeypatch.setattr("glowsim.live.advice.advisor._MOST_WAITING", 50)
    here = beside.place(beside.fleet())
    here.write(*beside.steady(100.0, 1.0, until_s=30.0))

    async def main():
        here.now_s = 31.0  # so far the lag lets nothing pass
        async with here.advisor() as advice:
            advice.listener.look()
            assert len(advice.advisor._waiting) <= 50
            here.now_s = 200.0
            advice.listener.look()

    asyncio.run(main())
    assert len(here.commands(Finished)) == 3000
    assert here.replayed().proved


def test_restoring_and_going_on_equals_never_having_stopped(beside):
    here = beside.place(beside.fleet(CONTROLLERS))
    random = Random(1)
    here.write(*[beside.row(i / 5, random.expovariate(0.5), instance=f"a:{i % 3}", user=f"u{i % 4}",
                            status=random.choice(["ok", "ok", "error"])) for i in range(300)])  # fmt: skip
    here.advise(until_s=300.0)
    records = list(read(here.journal).records())
    events = [record for record in records if isinstance(record, Event)]

    def fresh():
        return build.control_plane(here.scenario, Streams(here.scenario.seed), fall_back=True, advise=True)

    plane, saved, said = fresh(), [], []
    for event in events:
        saved.append(json.dumps(plane.snapshot()))
        said.append(list(plane.handle(event)))
    assert any(type(command) is Advised for commands in said for command in commands)
    for place in range(0, len(events), len(events) // 7):
        other = fresh()
        other.restore(json.loads(saved[place]))
        assert [list(other.handle(event)) for event in events[place:]] == said[place:]


def test_a_restart_reads_the_last_segment_only_and_knows_what_stands(beside, standing):
    here = beside.place(beside.fleet(CONTROLLERS))
    given = chosen(admin_port=0, journal_path=here.journal, tokens=True, journal_records=200, environment={})
    for minute in range(0, 10, 2):  # a segment can be cut wherever it is looked
        here.write(*beside.steady(1.0, 5.0, since_s=minute * 60.0, until_s=minute * 60.0 + 60.0))
        found = here.advise(until_s=minute * 60.0 + 125.0, chosen=given)
    assert ("tax", "refuse", "turn requests away") in standing(found)
    (refused,) = [each for each in found if each.kind == "refuse"]
    assert refused.times == 300 - 25
    files = sorted(here.journal.iterdir())
    assert len(files) > 5
    for file in files[:-1]:
        file.unlink()
    again = here.advise(until_s=700.0, chosen=given)
    assert [each.times for each in again if each.kind == "refuse"] == [refused.times]
    assert here.replayed().proved
