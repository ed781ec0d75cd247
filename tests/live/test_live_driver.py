"""Conversations through the asyncio driver: what clients and instances see, and what the journal says."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.caching.lru import LruCache
from controllers.resilience.ladder import FallbackLadder
from glowsim.core.errors import ControllerError
from glowsim.core.journal import Effected
from glowsim.core.protocols import Wanted
from glowsim.core.snapshot import Stateful
from glowsim.core.types import (
    Abandoned,
    Alert,
    Arrived,
    Ask,
    Cancel,
    Code,
    Command,
    Dispatch,
    Effect,
    Finished,
    FirstToken,
    Forget,
    InstanceChanged,
    Observed,
    Outcome,
    Raise,
    Reason,
    Scale,
    Severity,
    State,
    Status,
    Told,
    Usage,
    Woke,
)
from glowsim.live.calls import (
    Closed,
    Failed,
    InstanceError,
    InvalidTask,
    Rejected,
    Reply,
    Throttled,
    Word,
)


class Again(Stateful):
    """Retrier: after a second, or what the instance asks for; three attempts in all."""

    def after(self, t_s, request, attempts, outcome, retry_after_s):
        return max(1.0, retry_after_s) if attempts < 3 else inf

    def succeeded(self, t_s, request):
        pass


class PerRequest(Stateful):
    """Scaler: an instance for each request, one at least and three at most; looks every ten seconds."""

    def decide(self, t_s, load):
        return Wanted(min(3, max(1, load.in_flight + load.queued)), Reason(Code.LOAD_HIGH), t_s + 10.0)


class Bad(Stateful):
    """Detector: alerts on every bad label."""

    metric = "thumbs"

    def observe(self, t_s, value):
        return Alert(-1, "thumbs", Severity.WARNING, Reason(Code.DRIFT_DOWN)) if value < 0.0 else None


def once(*behaviours):
    """Return an instance that behaves in one way after the other; the last one stays."""
    left = list(behaviours)

    def serve(call):
        return (left.pop(0) if len(left) > 1 else left[0])(call)

    return serve


def raises(error, after_s=0.5, used=None):
    async def serve(call):
        if used is not None:
            call.usage = used
        await asyncio.sleep(after_s)
        raise error

    return serve


async def never(call):
    await asyncio.Event().wait()


def outcomes(stage):
    return [finished.outcome for finished in stage.said(Finished)]


# --- answers ----------------------------------------------------------------------------------------


def test_a_request_is_answered_with_content_and_usage(live):
    async def main():
        stage = live.Stage()
        stage.driver.add(0, live.takes(2.0))
        answered = await stage.ask("hello")
        assert (answered.content, answered.usage, answered.how) == ("HELLO", Usage(9, 0, 3), Code.OWN)
        assert stage.driver.now_s() == 2.0
        await stage.close()

    live.jump(main)


def test_work_beyond_the_slots_waits_its_turn(live):
    async def main():
        stage = live.Stage(slots=1)
        stage.driver.add(0, live.takes(1.0))
        tasks = [stage.start(name) for name in "abc"]
        answers = await asyncio.gather(*tasks)
        assert [answer.content for answer in answers] == ["A", "B", "C"]
        assert [finished.t_s for finished in stage.said(Finished)] == [1.0, 2.0, 3.0]
        await stage.close()

    live.jump(main)


def test_the_instance_is_given_the_plan_and_the_number_of_the_try(live):
    calls = []

    async def failing(call):
        calls.append((call.attempt, call.request.request_id, call.plan.max_tokens_out, call.tries))
        raise InstanceError("no")

    async def main():
        stage = live.Stage(retrier=Again)
        stage.driver.add(0, failing)
        with pytest.raises(Failed) as failed:
            await stage.ask(max_tokens_out=77)
        assert failed.value.outcome == Outcome.ERROR
        assert calls == [(1, 1, 77, 0), (2, 1, 77, 1), (3, 1, 77, 2)]
        await stage.close()

    live.jump(main)


def test_a_thousand_requests_at_once_all_get_their_own_answer(live):
    inside, most = [0], [0]

    async def serve(call):
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        await asyncio.sleep(1.0 + (call.task * 7 % 13) / 10)
        inside[0] -= 1
        return Reply(call.task * 2, Usage())

    async def main():
        stage = live.Stage(slots=8, timeout_s=1000.0)
        for _ in range(10):
            stage.driver.add(0, serve)
        answers = await asyncio.gather(*(stage.start(number) for number in range(1000)))
        assert [answer.content for answer in answers] == [2 * number for number in range(1000)]
        assert most[0] == 80
        await stage.close()

    live.jump(main)


# --- failures ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (InstanceError("500"), Outcome.ERROR),
        (ValueError("a bug"), Outcome.ERROR),
        (ConnectionResetError("gone"), Outcome.UNREACHABLE),
        (TimeoutError(), Outcome.TIMEOUT),
        (InvalidTask("400"), Outcome.INVALID),
        (Throttled(4.0), Outcome.THROTTLED),
        (asyncio.CancelledError(), Outcome.ERROR),
    ],
)
def test_what_a_callable_raises_becomes_an_outcome(live, error, outcome):
    async def main():
        stage = live.Stage(retrier=Again)
        stage.driver.add(0, once(raises(error, used=Usage(5, 0, 1)), live.takes(0.5)))
        if outcome == Outcome.INVALID:
            with pytest.raises(Failed) as failed:
                await stage.ask()
            assert failed.value.reason.code == Code.NOT_RETRYABLE
            assert outcomes(stage) == [Outcome.INVALID]
        else:
            assert (await stage.ask()).content == "HELLO"
            assert outcomes(stage) == [outcome, Outcome.OK]
            again_s = 0.5 + (4.0 if outcome == Outcome.THROTTLED else 1.0)
            assert stage.said(Finished)[1].t_s == again_s + 0.5
        assert stage.said(Finished)[0].usage[:3] == (5, 0, 1)
        await stage.close()

    live.jump(main)


def test_a_timeout_cancels_the_attempt_and_counts_what_it_used(live):
    async def slow(call):
        call.usage = Usage(9, 0, 5)
        await asyncio.sleep(100.0)

    async def main():
        stage = live.Stage(timeout_s=30.0)
        stage.driver.add(0, slow)
        with pytest.raises(Failed) as failed:
            await stage.ask()
        assert (failed.value.outcome, stage.driver.now_s()) == (Outcome.TIMEOUT, 30.0)
        await stage.close()
        (finished,) = stage.said(Finished)
        assert (finished.outcome, finished.usage.tokens_out, finished.t_s) == (Outcome.CANCELLED, 5, 30.0)

    live.jump(main)


def test_a_request_that_is_turned_away_says_why_and_for_how_long(live):
    class Closed5(Stateful):
        def admit(self, t_s, request):
            return 5.0

        def settle(self, t_s, request, usage):
            pass

    async def main():
        stage = live.Stage(limiter=Closed5)
        with pytest.raises(Rejected) as rejected:
            await stage.ask()
        assert (rejected.value.retry_after_s, rejected.value.reason.code) == (5.0, Code.LIMITED)
        await stage.close()

    live.jump(main)


def test_an_early_timer_does_nothing_and_a_late_one_decides_as_if_on_time(live):
    async def main():
        stage = live.Stage(timeout_s=30.0)
        loop = asyncio.get_running_loop()
        blocked = []
        stage.driver.add(0, never)
        task = stage.start()

        def block():  # the loop is held up over the moment of the timeout
            loop._now_s = 40.0
            blocked.append(stage.driver.now_s())

        loop.call_at(29.0, block)
        with pytest.raises(Failed) as failed:
            await task
        assert blocked == [40.0]
        assert failed.value.reason.a == 30.0
        await stage.close()

    live.jump(main)


def test_a_timer_whose_owner_is_gone_says_nothing(live):
    async def main():
        stage = live.Stage(timeout_s=30.0)
        stage.driver.add(0, live.takes(2.0))
        await stage.ask()
        await asyncio.sleep(100.0)
        await stage.close()
        assert not stage.said(Woke)

    live.jump(main)


# --- streams ----------------------------------------------------------------------------------------


def streams(*pieces, every_s=1.0, error=None):
    async def serve(call):
        for count, piece in enumerate(pieces, start=1):
            await asyncio.sleep(every_s)
            call.usage = Usage(9, 0, count)
            yield piece
        if error is not None:
            raise error

    return serve


def test_a_stream_passes_pieces_as_they_come_and_commits_with_the_first(live):
    async def main():
        stage = live.Stage()
        stage.driver.add(0, streams("a", "b", "c"))
        said = [(each, stage.driver.now_s()) async for each in stage.stream()]
        assert said[:3] == [("a", 1.0), ("b", 2.0), ("c", 3.0)]
        answered = said[3][0]
        assert (answered.content, answered.usage) == ("abc", Usage(9, 0, 3, first_token_s=1.0))
        assert stage.said(FirstToken) == [FirstToken(1.0, 1)]
        await stage.close()

    live.jump(main)


def test_a_stream_that_breaks_after_its_first_token_is_not_tried_again(live):
    async def main():
        stage = live.Stage(retrier=Again)
        stage.driver.add(0, streams("a", "b", error=ConnectionResetError()))
        stream = stage.stream()
        assert [await anext(stream), await anext(stream)] == ["a", "b"]
        with pytest.raises(Failed) as failed:
            await anext(stream)
        assert (failed.value.outcome, failed.value.reason.code) == (Outcome.UNREACHABLE, Code.BROKEN_STREAM)
        assert len(stage.said(Dispatch)) == 1
        await stage.close()

    live.jump(main)


def test_a_stream_that_fails_before_its_first_token_is_tried_again(live):
    async def main():
        stage = live.Stage(retrier=Again)
        stage.driver.add(0, once(streams(error=ConnectionResetError()), streams("a", "b")))
        got = [each async for each in stage.stream()]
        assert got[:2] == ["a", "b"]
        assert outcomes(stage) == [Outcome.UNREACHABLE, Outcome.OK]
        await stage.close()

    live.jump(main)


def test_a_first_token_that_is_late_is_tried_elsewhere_and_its_pieces_are_never_seen(live):
    async def deaf(call):
        try:
            await asyncio.sleep(100.0)
        except asyncio.CancelledError:
            yield "too late"
            raise

    async def main():
        stage = live.Stage(first_token_timeout_s=5.0, retrier=Again)
        stage.driver.add(0, deaf)
        stage.driver.add(0, streams("a"))
        got = [each async for each in stage.stream()]
        assert got[0] == "a"
        assert got[1].content == "a"
        assert [cancel.reason.code for cancel in stage.said(Cancel)] == [Code.FIRST_TOKEN_LATE]
        assert stage.said(FirstToken) == [FirstToken(7.0, 2)]
        await stage.close()

    live.jump(main)


def test_a_plain_client_of_a_streaming_instance_gets_the_whole_text(live):
    async def main():
        stage = live.Stage()
        stage.driver.add(0, streams("a", "b"))
        assert (await stage.ask()).content == "ab"
        assert not stage.said(FirstToken)
        await stage.close()

    live.jump(main)


# --- clients that leave -----------------------------------------------------------------------------


def test_a_client_that_leaves_is_abandoned_and_its_slot_goes_to_the_next(live):
    cancelled = []

    async def serve(call):
        try:
            await asyncio.sleep(10.0)
        except asyncio.CancelledError:
            cancelled.append((call.attempt, asyncio.get_running_loop().time()))
            raise
        return Reply(call.task, Usage())

    async def main():
        stage = live.Stage()
        stage.driver.add(0, serve)
        first, second = stage.start("first"), stage.start("second")
        await asyncio.sleep(3.0)
        first.cancel()
        assert (await second).content == "second"
        assert stage.driver.now_s() == 13.0
        assert cancelled == [(1, 3.0)]
        assert stage.said(Abandoned) == [Abandoned(3.0, 1)]
        assert outcomes(stage) == [Outcome.CANCELLED, Outcome.OK]
        await stage.close()

    live.jump(main)


def test_a_client_that_leaves_the_queue_costs_nothing(live):
    async def main():
        stage = live.Stage()
        stage.driver.add(0, live.takes(10.0))
        first, second = stage.start("first"), stage.start("second")
        await asyncio.sleep(3.0)
        second.cancel()
        await first
        assert len(stage.said(Dispatch)) == 1
        await stage.close()

    live.jump(main)


def test_a_stream_that_is_closed_early_has_gone_away(live):
    async def main():
        stage = live.Stage()
        stage.driver.add(0, streams("a", "b", "c"))
        stream = stage.stream()
        assert await anext(stream) == "a"
        await stream.aclose()
        await stage.close()
        assert stage.said(Abandoned) == [Abandoned(1.0, 1)]
        (finished,) = stage.said(Finished)
        assert (finished.outcome, *finished.usage[:4]) == (Outcome.CANCELLED, 9, 0, 1, 1.0)

    live.jump(main)


# --- contents that are shared -----------------------------------------------------------------------


def cached(**more):
    return lambda: LruCache(**({"entries": 2, "ttl_s": 100.0} | more))


def test_equal_requests_at_the_same_time_share_one_attempt(live):
    async def main():
        stage = live.Stage(cache=cached())
        stage.driver.add(0, live.takes(5.0))
        answers = await asyncio.gather(*(stage.start("hello", cache_key=7) for _ in range(3)))
        assert [(each.content, each.source) for each in answers] == [("HELLO", 1)] * 3
        assert [each.how for each in answers] == [Code.OWN, Code.JOINED, Code.JOINED]
        assert len(stage.said(Dispatch)) == 1
        await stage.close()

    live.jump(main)


def test_a_follower_takes_over_when_the_leader_leaves(live):
    async def main():
        stage = live.Stage(cache=cached(), slots=2)
        stage.driver.add(0, live.takes(5.0))
        first, *rest = [stage.start("hello", cache_key=7) for _ in range(3)]
        await asyncio.sleep(1.0)
        first.cancel()
        answers = await asyncio.gather(*rest)
        assert {each.content for each in answers} == {"HELLO"}
        assert outcomes(stage) == [Outcome.CANCELLED, Outcome.OK]
        await stage.close()

    live.jump(main)


def test_a_streaming_follower_gets_the_leaders_text_in_one_piece(live):
    async def main():
        stage = live.Stage(cache=cached())
        stage.driver.add(0, streams("a", "b"))
        leader = asyncio.create_task(stage.ask(cache_key=7))
        await asyncio.sleep(0.5)
        got = [each async for each in stage.stream(cache_key=7)]
        assert got[0] == "ab"
        assert got[1].how == Code.JOINED
        assert (await leader).content == "ab"
        await stage.close()

    live.jump(main)


def test_a_content_is_kept_until_it_is_forgotten(live):
    async def main():
        stage = live.Stage(cache=cached(entries=1))
        stage.driver.add(0, live.takes(1.0))
        assert (await stage.ask("one", cache_key=1)).how == Code.OWN
        again = await stage.ask("one", cache_key=1)
        assert (again.content, again.how, again.source) == ("ONE", Code.CACHED, 1)
        await stage.ask("plain")
        assert len(stage.driver._kept) == 1
        await stage.ask("two", cache_key=2)
        assert stage.said(Forget) == [Forget(1)]
        assert list(stage.driver._kept) == [3]
        await stage.close()

    live.jump(main)


def test_a_content_that_is_wanted_and_gone_is_made_again(live):
    async def main():
        stage = live.Stage(cache=cached(entries=5), contents=1)
        stage.driver.add(0, live.takes(1.0))
        for name, key in (("one", 1), ("two", 2)):
            await stage.ask(name, cache_key=key)
        answered = await stage.ask("one", cache_key=1)
        assert (answered.content, answered.how) == ("ONE", Code.OWN)
        assert [arrived.request.cache_key for arrived in stage.said(Arrived)] == [1, 2, 1, 0]
        await stage.close()

    live.jump(main)


def ladder(*steps):
    return lambda: FallbackLadder(["large", "small"], steps=steps)


def test_the_other_model_answers_where_the_first_does_not(live):
    async def main():
        async def only_small(call):
            if call.plan.model == 0:
                raise InstanceError("out of order")
            return Reply("from the small one", Usage(9, 0, 4))

        stage = live.Stage(ladder=ladder("model small", "apology"))
        stage.driver.add(0, only_small)
        answered = await stage.ask()
        assert (answered.content, answered.source) == ("from the small one", 2)
        await stage.close()

    live.jump(main)


@pytest.mark.parametrize("stream", [False, True])
def test_who_gets_nothing_else_gets_an_apology(live, stream):
    async def main():
        stage = live.Stage(ladder=ladder("stale", "apology"), cache=cached())
        stage.driver.add(0, raises(InstanceError("out of order")))
        if stream:
            said = [each async for each in stage.stream(stream=True)]
            assert said[0] == "sorry"
            answered = said[-1]
        else:
            answered = await stage.ask(cache_key=7)
        assert (answered.content, answered.how, answered.usage) == ("sorry", Code.APOLOGY, Usage())
        await stage.close()

    live.jump(main)


def test_an_old_answer_is_better_than_none(live):
    async def main():
        stage = live.Stage(ladder=ladder("stale", "apology"), cache=cached(ttl_s=10.0, stale_s=1000.0))
        stage.driver.add(0, once(live.takes(1.0), raises(InstanceError("out of order"))))
        first = await stage.ask(cache_key=7)
        await asyncio.sleep(60.0)
        again = await stage.ask(cache_key=7)
        assert (again.content, again.source, again.how) == (first.content, 1, Code.STALE)
        await stage.close()

    live.jump(main)


def test_a_repeat_gets_the_first_answer_and_a_reused_key_is_refused(live):
    async def main():
        stage = live.Stage()
        stage.driver.add(0, live.takes(1.0))
        await stage.ask("pay", idempotency_key=5, payload=1)
        again = await stage.ask("pay", idempotency_key=5, payload=1)
        assert (again.content, again.how, len(stage.said(Dispatch))) == ("PAY", Code.REPEATED, 1)
        with pytest.raises(Rejected) as rejected:
            await stage.ask("pay more", idempotency_key=5, payload=2)
        assert rejected.value.reason.code == Code.KEY_REUSED
        await stage.close()

    live.jump(main)


# --- callables that lie -----------------------------------------------------------------------------


def test_a_callable_that_gives_back_something_else_has_failed(live):
    async def nothing(call):
        return None

    async def main():
        stage = live.Stage(retrier=Again)
        stage.driver.add(0, once(nothing, live.takes(1.0)))
        assert (await stage.ask()).content == "HELLO"
        assert outcomes(stage) == [Outcome.ERROR, Outcome.OK]
        await stage.close()

    live.jump(main)


def test_a_callable_that_answers_after_it_was_told_to_stop_is_not_heard(live):
    async def stubborn(call):
        try:
            await asyncio.sleep(100.0)
        except asyncio.CancelledError:
            return Reply("too late", Usage(9, 0, 2))

    async def main():
        stage = live.Stage(timeout_s=10.0)
        stage.driver.add(0, stubborn)
        with pytest.raises(Failed) as failed:
            await stage.ask()
        assert failed.value.outcome == Outcome.TIMEOUT
        await stage.close()
        assert outcomes(stage) == [Outcome.OK]  # it did answer, nobody listened, and it is paid for
        assert stage.said(Finished)[0].usage.tokens_out == 2

    live.jump(main)


def test_an_attempt_whose_lease_ran_out_may_still_end_once(live):
    hear = []

    async def deaf(call):
        try:
            await asyncio.sleep(1000.0)
        except asyncio.CancelledError:
            await hear[0].wait()
        return Reply("finally", Usage())

    async def main():
        hear.append(asyncio.Event())
        stage = live.Stage(timeout_s=10.0, cancel_grace_s=5.0)
        stage.driver.add(0, once(deaf, live.takes(1.0)))
        first, second = stage.start(), None
        with pytest.raises(Failed):
            await first
        second = stage.start("second")
        assert (await second).content == "SECOND"
        assert stage.driver.now_s() == 16.0, "the slot came free with the lease"
        hear[0].set()
        await stage.close()
        assert sorted(finished.attempt for finished in stage.said(Finished)) == [1, 2]

    live.jump(main)


# --- the outside world ------------------------------------------------------------------------------


def test_a_question_is_carried_out_and_its_answer_told(live):
    asked = []

    async def asker(ask):
        asked.append(ask)
        await asyncio.sleep(0.1)
        return Word(Status.GRANTED, 10.0, 60.0)

    async def main():
        stage = live.Stage(limiter=leased_limiter(), asker=asker)
        stage.driver.add(0, live.takes(1.0))
        assert (await stage.ask()).content == "HELLO"
        await stage.close()
        (told,) = stage.said(Told)[:1]
        assert (told.t_s, told.status, told.value, told.expires_s) == (0.1, Status.GRANTED, 10.0, 60.1)
        assert isinstance(asked[0], Ask)

    live.jump(main)


@pytest.mark.parametrize("kind", ["nobody", "raises", "never"])
def test_a_question_without_an_answer_falls_back(live, kind):
    async def failing(ask):
        raise ConnectionError("the limit's store is down")

    async def silent(ask):
        await asyncio.Event().wait()

    async def main():
        asker = {"nobody": None, "raises": failing, "never": silent}[kind]
        stage = live.Stage(limiter=leased_limiter(), asker=asker)
        stage.driver.add(0, live.takes(1.0))
        with pytest.raises(Rejected) as rejected:
            await stage.ask()
        assert rejected.value.reason.code == Code.LIMIT_UNKNOWN
        await stage.close()
        assert [each.status for each in stage.said(Effected) if each.status != Effect.DONE] == [
            Effect.REFUSED
        ]

    live.jump(main)


def leased_limiter():
    """Return a factory of a limiter that asks first, and rejects where it gets no word."""

    class Granted(Stateful):
        state = ("left", "asking", "wanted", "unknown")

        def __init__(self):
            self.left = 0.0
            self.asking = self.wanted = self.unknown = False

        def admit(self, t_s, request):
            if self.unknown:
                return 3.0
            if self.left >= 1.0:
                self.left -= 1.0
                return 0.0
            self.wanted = True
            return -1.0

        def settle(self, t_s, request, usage):
            pass

        def to_ask(self, t_s, ask_id):
            if not self.wanted or self.asking:
                return None
            self.asking = True
            return Ask(ask_id, "lease", 7, 10.0, 2.0)

        def told(self, t_s, told):
            self.asking = self.wanted = False
            self.unknown = told.status != Status.GRANTED
            self.left += told.value

    return Granted


class Starter:
    """Scaler of callables: each takes three seconds to start and one to stop."""

    def __init__(self, serve, fails=()):
        self.serve = serve
        self.fails = fails
        self.stopped = []

    async def start(self, instance):
        await asyncio.sleep(3.0)
        if instance in self.fails:
            raise ConnectionError("no machine is free")
        return self.serve

    async def stop(self, instance):
        await asyncio.sleep(1.0)
        self.stopped.append(instance)


def lives(stage, number):
    return [(e.t_s, State(e.state).name) for e in stage.said(InstanceChanged) if e.instance == number]


def test_scaling_starts_and_stops_callables_and_says_when_it_is_done(live):
    async def main():
        starter = Starter(live.takes(20.0))
        stage = live.Stage(scaler=PerRequest, scalers={0: starter}, timeout_s=100.0)
        stage.driver.add(0, live.takes(20.0))
        tasks = [stage.start() for _ in range(3)]
        await asyncio.gather(*tasks)
        await asyncio.sleep(100.0)
        assert lives(stage, 0) == [(0.0, "READY"), (31.0, "GONE")]
        assert lives(stage, 2) == [(10.0, "STARTING"), (13.0, "READY"), (41.0, "GONE")]
        assert starter.stopped == [0, 2]
        await stage.close()
        commands = stage.said(Command)
        effects = {effect.first: effect for effect in stage.said(Effected)}
        scaled = [effects[i] for i, command in enumerate(commands) if isinstance(command, Scale)]
        assert [(each.t_s, each.status) for each in scaled] == [
            (t_s, Effect.DONE) for t_s in (13.0, 31.0, 41.0)
        ]

    live.jump(main)


def test_an_instance_that_does_not_start_has_failed_and_the_command_with_it(live):
    async def main():
        stage = live.Stage(
            scaler=PerRequest, scalers={0: Starter(live.takes(1.0), fails={1})}, timeout_s=100.0
        )
        stage.driver.add(0, live.takes(20.0))
        await asyncio.gather(*(stage.start() for _ in range(2)))
        assert lives(stage, 1) == [(10.0, "STARTING"), (13.0, "FAILED")]
        assert Effect.REFUSED in [each.status for each in stage.said(Effected)]
        assert lives(stage, 2)[1] == (16.0, "READY"), "the scaler asks for another one"
        await stage.close()

    live.jump(main)


def test_without_a_starter_scaling_is_refused_and_nothing_changes(live):
    async def main():
        stage = live.Stage(scaler=PerRequest, timeout_s=100.0)
        stage.driver.add(0, live.takes(20.0))
        await asyncio.gather(*(stage.start() for _ in range(2)))
        await stage.close()
        assert stage.said(Scale)
        assert {e.instance for e in stage.said(InstanceChanged)} == {0}

    live.jump(main)


def test_a_draining_instance_finishes_its_work_first(live):
    class Shrinks(Stateful):
        def decide(self, t_s, load):
            return Wanted(1 if t_s >= 5.0 else 2, Reason(Code.LOAD_LOW), t_s + 5.0)

    async def main():
        starter = Starter(live.takes(1.0))
        stage = live.Stage(scaler=Shrinks, scalers={0: starter})
        stage.driver.add(0, live.takes(20.0))
        stage.driver.add(0, live.takes(20.0))
        answers = await asyncio.gather(*(stage.start() for _ in range(2)))
        assert [each.content for each in answers] == ["HELLO", "HELLO"]
        await asyncio.sleep(5.0)
        assert lives(stage, 1) == [(0.0, "READY"), (5.0, "DRAINING"), (21.0, "GONE")]
        await stage.close()

    live.jump(main)


def test_an_instance_is_started_on_request_and_replaced_when_it_is_lost(live):
    async def main():
        starter = Starter(live.takes(1.0))
        stage = live.Stage(scaler=PerRequest, scalers={0: starter}, timeout_s=100.0)
        number = stage.driver.start(0)
        await asyncio.sleep(5.0)
        work = stage.start()
        await asyncio.sleep(0.5)
        stage.driver.lost(number)
        stage.driver.lost(number)
        assert lives(stage, number) == [(0.0, "STARTING"), (3.0, "READY"), (5.5, "FAILED")]
        assert (await work).content == "HELLO", "its attempt ends by itself"
        assert (await stage.ask()).content == "HELLO"
        assert lives(stage, number + 1) == [(5.5, "STARTING"), (8.5, "READY")]
        assert starter.stopped == []
        await stage.close()

    live.jump(main)


def test_an_instance_that_is_lost_while_it_starts_has_failed_and_never_gets_ready(live):
    async def main():
        stage = live.Stage(scalers={0: Starter(live.takes(1.0))})
        number = stage.driver.start(0)
        await asyncio.sleep(1.0)
        stage.driver.lost(number)
        await asyncio.sleep(5.0)
        assert lives(stage, number) == [(0.0, "STARTING"), (1.0, "FAILED")]
        await stage.close()

    live.jump(main)


@pytest.mark.parametrize(("lost_at_s", "busy"), [(6.0, True), (5.5, False)])
def test_a_draining_instance_that_is_lost_is_gone_and_told_of_once(live, lost_at_s, busy):
    class Shrinks(Stateful):
        def decide(self, t_s, load):
            return Wanted(1 if t_s >= 5.0 else 2, Reason(Code.LOAD_LOW), t_s + 5.0)

    async def main():
        stage = live.Stage(scaler=Shrinks, scalers={0: Starter(live.takes(1.0))})
        stage.driver.add(0, live.takes(20.0 if busy else 1.0))
        stage.driver.add(0, live.takes(20.0 if busy else 1.0))
        work = [stage.start() for _ in range(2)]
        await asyncio.sleep(lost_at_s)
        (victim,) = stage.said(Scale)[-1].victims
        stage.driver.lost(victim)
        await asyncio.gather(*work)
        await asyncio.sleep(5.0)
        draining = [(5.0, "DRAINING")] if busy else []
        assert lives(stage, victim) == [(0.0, "READY"), *draining, (lost_at_s, "GONE")]
        await stage.close()
        assert {each.status for each in stage.said(Effected)} == {Effect.DONE}

    live.jump(main)


def test_after_the_end_nobody_is_lost(live):
    async def main():
        stage = live.Stage()
        number = stage.driver.add(0, live.takes(1.0))
        await stage.close()
        stage.driver.lost(number)

    live.jump(main)


def test_a_late_label_is_joined_with_what_was_decided(live):
    async def main():
        stage = live.Stage(detectors=[Bad], memory=1)
        stage.driver.add(0, live.takes(1.0))
        first = await stage.ask(user=42)
        await asyncio.sleep(500.0)
        stage.driver.observe(first.request_id, "thumbs", -1.0)
        observed = stage.said(Observed)
        assert observed == [Observed(501.0, 1, 0, 0, 42, 1.0, "thumbs", -1.0)]
        assert len(stage.said(Raise)) == 1
        await stage.ask()
        with pytest.raises(KeyError, match="request 1 is not among the last 1"):
            stage.driver.observe(first.request_id, "thumbs", -1.0)
        await stage.close()

    live.jump(main)


# --- the end ----------------------------------------------------------------------------------------


def test_closing_lets_open_requests_finish_and_takes_no_more(live):
    async def main():
        stage = live.Stage()
        stage.driver.add(0, live.takes(5.0))
        tasks = [stage.start(), stage.start()]
        await asyncio.sleep(1.0)
        closing = asyncio.create_task(stage.close(grace_s=60.0))
        await asyncio.sleep(0.0)
        with pytest.raises(Closed):
            await stage.ask()
        assert [(await task).content for task in tasks] == ["HELLO", "HELLO"]
        await closing
        assert asyncio.get_running_loop().time() == 10.0, "no longer than it takes"

    live.jump(main)


def test_closing_ends_what_does_not_finish_in_time_within_the_grace(live):
    async def deaf(call):
        while not done[0].is_set():
            with suppress(asyncio.CancelledError):
                await done[0].wait()

    done = []

    async def main():
        done.append(asyncio.Event())
        stage = live.Stage(timeout_s=1000.0)
        stage.driver.add(0, never)
        stage.driver.add(0, deaf)
        tasks = [stage.start() for _ in range(3)]
        await asyncio.sleep(1.0)
        await stage.close(grace_s=10.0)
        assert asyncio.get_running_loop().time() <= 11.0
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(end) for end in ends] == [Closed] * 3
        assert sorted(outcomes(stage)) == [Outcome.CANCELLED, Outcome.LOST]
        assert len(stage.said(Abandoned)) == 3
        done[0].set()  # what ends after the journal was closed is not told any more

    live.jump(main)


def test_a_control_plane_that_raises_ends_everything_and_everybody_hears(live):
    class Broken(Stateful):
        def pick(self, t_s, request, allowed):
            if request.request_id == 3:
                raise ZeroDivisionError("no")
            return allowed[0]

        def reported(self, t_s, reported):
            pass

    async def main():
        stage = live.Stage(balancer=Broken, slots=5)
        stage.driver.add(0, never)
        tasks = [stage.start(), stage.start()]
        await asyncio.sleep(1.0)
        with pytest.raises(ControllerError, match="ZeroDivisionError"):
            await stage.ask()
        for task in tasks:
            with pytest.raises(ControllerError):
                await task
        assert stage.driver.broken.is_set()
        with pytest.raises(ControllerError):
            await stage.ask()
        await stage.driver.close(1.0)

    live.jump(main)


behaviours = st.sampled_from(["answers", "fails", "hangs", "invalid", "lies", "stubborn", "streams"])
clients = st.sampled_from(["waits", "leaves", "streams", "caches"])


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(clients, st.floats(0, 20), st.floats(0, 12), st.integers(0, 2)), min_size=1, max_size=15
    ),
    st.lists(st.tuples(behaviours, st.floats(0.1, 12)), min_size=1, max_size=8),
)
def test_whatever_clients_and_instances_do_the_journal_replays_and_nothing_is_lost(live, visits, acts):
    count = [0]

    def serve(call):
        kind, seconds = acts[count[0] % len(acts)]
        count[0] += 1
        if kind == "streams":
            return streams("a", "b", every_s=seconds / 2)(call)
        return acting(kind, seconds, call)

    async def acting(kind, seconds, call):
        try:
            await asyncio.sleep(1e6 if kind == "hangs" else seconds)
        except asyncio.CancelledError:
            if kind != "stubborn":
                raise
            await asyncio.sleep(seconds)
        if kind == "fails":
            raise InstanceError("no")
        if kind == "invalid":
            raise InvalidTask("no")
        return None if kind == "lies" else Reply("text", Usage(1, 0, 1))

    async def visit(stage, how, at_s, stays_s, key):
        await asyncio.sleep(at_s)
        try:
            async with asyncio.timeout(stays_s if how == "leaves" else None):
                if how == "streams":
                    return [each async for each in stage.stream()][-1]
                return await stage.ask(cache_key=1 + key if how == "caches" else 0)
        except (Failed, Rejected, TimeoutError) as error:
            return error

    async def main():
        stage = live.Stage(
            slots=2,
            timeout_s=10.0,
            cancel_grace_s=3.0,
            first_token_timeout_s=6.0,
            retrier=Again,
            cache=cached(),
        )
        stage.driver.add(0, serve)
        stage.driver.add(0, serve)
        ends = await asyncio.gather(*(visit(stage, *each) for each in visits))
        assert len(ends) == len(visits)
        await stage.close()
        assert not stage.driver._tickets
        assert not stage.driver._running

    live.jump(main)
