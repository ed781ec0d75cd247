"""Answers that are shared: joining a leader, promotion, idempotency keys, the cache."""

from __future__ import annotations

from glowsim.core.types import Answer, Forget, Outcome

# --- joining -----------------------------------------------------------------------------------------


def test_followers_are_answered_with_their_leader(talk_to, tiny):
    talk = talk_to(cache=tiny.Keeper, slots=9)
    talk.ready(0.0, 0)
    assert talk.arrives(1.0, 1, cache_key=5) == ["dispatch 1: request 1 to 0, ARRIVED"]
    assert talk.arrives(1.1, 2, cache_key=5) == []
    assert talk.arrives(1.2, 3, cache_key=5) == []
    assert talk.arrives(1.3, 4, cache_key=6) == ["dispatch 2: request 4 to 0, ARRIVED"]
    assert talk.finishes(2.0, 1) == [
        "answer 1 from 1, OWN, keep",
        "answer 2 from 1, JOINED, keep",
        "answer 3 from 1, JOINED, keep",
    ]


def test_when_the_leader_fails_exactly_one_follower_takes_over(talk_to, tiny):
    talk = talk_to(cache=tiny.Keeper, slots=9)
    talk.ready(0.0, 0)
    for number in (1, 2, 3):
        talk.arrives(1.0, number, cache_key=5)
    assert talk.finishes(2.0, 1, Outcome.ERROR) == [
        "fail 1 ERROR, EXHAUSTED",
        "dispatch 2: request 2 to 0, PROMOTED",
    ]
    assert talk.arrives(2.5, 4, cache_key=5) == []
    assert talk.finishes(3.0, 2) == [
        "answer 2 from 2, OWN, keep",
        "answer 3 from 2, JOINED, keep",
        "answer 4 from 2, JOINED, keep",
    ]


def test_followers_wait_through_their_leaders_retries(talk_to, tiny):
    talk = talk_to(cache=tiny.Keeper, retrier=tiny.Again)
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1, cache_key=5)
    talk.arrives(1.0, 2, cache_key=5)
    assert talk.finishes(2.0, 1, Outcome.ERROR) == []
    assert talk.passes(3.0) == ["dispatch 2: request 1 to 0, RETRIED"]
    assert talk.finishes(4.0, 2) == ["answer 1 from 2, OWN, keep", "answer 2 from 2, JOINED, keep"]


def test_when_the_leader_is_abandoned_in_the_queue_its_follower_waits_instead(talk_to, tiny):
    talk = talk_to(cache=tiny.Keeper)
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1)
    talk.arrives(1.1, 2, cache_key=5)
    talk.arrives(1.2, 3, cache_key=5)
    assert talk.leaves(2.0, 2) == []
    assert talk.finishes(3.0, 1) == ["answer 1 from 1, OWN", "dispatch 2: request 3 to 0, QUEUED"]
    assert talk.commands[-1].reason.a == 1.0


def test_when_the_leader_is_abandoned_in_flight_its_follower_waits_for_the_slot(talk_to, tiny):
    talk = talk_to(cache=tiny.Keeper)
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1, cache_key=5)
    talk.arrives(1.1, 2, cache_key=5)
    assert talk.leaves(2.0, 1) == ["cancel 1, CLIENT_GONE"]
    assert talk.finishes(3.0, 1, Outcome.CANCELLED) == ["dispatch 2: request 2 to 0, QUEUED"]


def test_followers_have_timeouts_of_their_own(talk_to, tiny):
    talk = talk_to(cache=tiny.Keeper, timeout_s=30.0)
    talk.ready(0.0, 0)
    talk.arrives(0.0, 1, cache_key=5)
    talk.arrives(1.0, 2, cache_key=5, deadline_s=10.0)
    assert talk.passes(10.0) == ["fail 2 TIMEOUT, WAITED_TOO_LONG"]
    talk.arrives(20.0, 3, cache_key=5)
    assert talk.passes(30.0) == ["cancel 1, TIMED_OUT", "fail 1 TIMEOUT, TIMED_OUT"]
    assert talk.finishes(31.0, 1, Outcome.CANCELLED) == ["dispatch 2: request 3 to 0, QUEUED"]
    assert talk.finishes(32.0, 2) == ["answer 3 from 2, OWN, keep"]


def test_one_more_than_the_follower_limit_goes_its_own_way(talk_to, tiny):
    talk = talk_to(cache=tiny.Keeper, slots=9, follower_limit=1)
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1, cache_key=5)
    talk.arrives(1.0, 2, cache_key=5)
    assert talk.arrives(1.0, 3, cache_key=5) == ["dispatch 2: request 3 to 0, ARRIVED"]
    assert talk.finishes(2.0, 1) == ["answer 1 from 1, OWN, keep", "answer 2 from 1, JOINED, keep"]
    assert talk.finishes(3.0, 2) == ["answer 3 from 2, OWN, keep", "forget 1"]


def test_a_promoted_follower_comes_after_those_who_wait(talk_to, tiny):
    talk = talk_to(cache=tiny.Keeper, queue=lambda: tiny.Urgent(limit=1))
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1, cache_key=5)
    talk.arrives(1.0, 2, cache_key=5)
    talk.arrives(1.0, 3)
    assert talk.finishes(2.0, 1, Outcome.INVALID) == [
        "fail 1 INVALID, NOT_RETRYABLE",
        "dispatch 2: request 3 to 0, QUEUED",
    ]
    assert talk.finishes(3.0, 2) == ["answer 3 from 2, OWN", "dispatch 3: request 2 to 0, QUEUED"]


def test_followers_that_find_the_queue_full_are_all_turned_away_however_many(talk_to, tiny):
    talk = talk_to(cache=tiny.Keeper, queue=lambda: tiny.Urgent(limit=1), follower_limit=3000)
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1, cache_key=5)
    talk._crashing = False
    for number in range(3, 1203):
        talk.arrives(1.0, number, cache_key=5)
    talk.arrives(1.0, 2)
    said = talk.leaves(2.0, 1)
    assert said[0] == "cancel 1, CLIENT_GONE"
    assert said[1:] == [f"reject {number}, QUEUE_FULL" for number in range(3, 1203)]


def test_variants_do_not_share(talk_to, tiny):
    talk = talk_to(cache=tiny.Keeper, splitter=tiny.Halves, slots=9)
    talk.ready(0.0, 0)
    assert talk.arrives(1.0, 1, cache_key=5, user=2)[-1] == "dispatch 1: request 1 to 0, ARRIVED"
    assert talk.arrives(1.0, 2, cache_key=5, user=1) == ["dispatch 2: request 2 to 0, ARRIVED"]
    assert [command.plan.variant for command in talk.commands[-2:]] == [0, 1]
    assert [command.plan.model for command in talk.commands[-2:]] == [0, 1]
    talk.finishes(2.0, 1)
    assert talk.arrives(2.1, 3, cache_key=5, user=1) == []
    assert talk.arrives(2.2, 4, cache_key=5, user=2) == ["answer 4 from 1, CACHED, keep"]


# --- the cache ---------------------------------------------------------------------------------------


def test_an_answer_is_kept_until_it_is_stale(talk_to, tiny):
    talk = talk_to(cache=lambda: tiny.Keeper(ttl_s=100.0))
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1, cache_key=5)
    talk.finishes(2.0, 1)
    assert talk.arrives(101.9, 2, cache_key=5) == ["answer 2 from 1, CACHED, keep"]
    assert talk.arrives(102.0, 3, cache_key=5) == ["dispatch 2: request 3 to 0, ARRIVED"]
    assert talk.finishes(103.0, 2) == ["answer 3 from 2, OWN, keep", "forget 1"]


def test_what_is_evicted_is_forgotten(talk_to, tiny):
    talk = talk_to(cache=lambda: tiny.Keeper(entries=2))
    talk.ready(0.0, 0)
    for number in (1, 2, 3):
        talk.arrives(float(number), number, cache_key=number)
        said = talk.finishes(number + 0.5, number)
    assert said == ["answer 3 from 3, OWN, keep", "forget 1"]


def test_without_a_key_nothing_is_shared_or_kept(talk_to, tiny):
    talk = talk_to(cache=tiny.Keeper, slots=2)
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1)
    assert talk.arrives(1.0, 2) == ["dispatch 2: request 2 to 0, ARRIVED"]
    assert talk.finishes(2.0, 1) == ["answer 1 from 1, OWN"]


def test_failures_are_not_kept(talk_to, tiny):
    talk = talk_to(cache=tiny.Keeper)
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1, cache_key=5)
    talk.finishes(2.0, 1, Outcome.ERROR)
    assert talk.arrives(3.0, 2, cache_key=5) == ["dispatch 2: request 2 to 0, ARRIVED"]


# --- idempotency -------------------------------------------------------------------------------------


def test_a_repeat_of_an_open_request_joins_it(talk_to):
    talk = talk_to(slots=2)
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1, idempotency_key=8, payload=3)
    assert talk.arrives(1.5, 2, idempotency_key=8, payload=3) == []
    assert talk.finishes(2.0, 1) == ["answer 1 from 1, OWN, keep", "answer 2 from 1, JOINED, keep"]


def test_what_a_repeat_shares_is_forgotten_once_with_its_key(talk_to):
    talk = talk_to(memory=1)
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1, idempotency_key=8)
    talk.arrives(1.5, 2, idempotency_key=8)
    talk.finishes(2.0, 1)
    talk.arrives(3.0, 3, idempotency_key=9)
    assert talk.finishes(4.0, 2) == ["answer 3 from 2, OWN, keep", "forget 1"]


def test_a_repeat_of_an_answered_request_gets_its_source(talk_to):
    talk = talk_to()
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1, idempotency_key=8, payload=3)
    talk.finishes(2.0, 1)
    assert talk.arrives(3.0, 2, idempotency_key=8, payload=3) == ["answer 2 from 1, REPEATED, keep"]


def test_the_key_with_another_payload_is_refused_open_or_answered(talk_to):
    talk = talk_to()
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1, idempotency_key=8, payload=3)
    assert talk.arrives(1.5, 2, idempotency_key=8, payload=4) == ["reject 2, KEY_REUSED"]
    talk.finishes(2.0, 1)
    assert talk.arrives(3.0, 3, idempotency_key=8, payload=4) == ["reject 3, KEY_REUSED"]


def test_a_failed_request_may_be_repeated(talk_to):
    talk = talk_to()
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1, idempotency_key=8, payload=3)
    talk.finishes(2.0, 1, Outcome.ERROR)
    assert talk.arrives(3.0, 2, idempotency_key=8, payload=3) == ["dispatch 2: request 2 to 0, ARRIVED"]


def test_a_repeat_takes_over_from_a_first_that_went_away(talk_to):
    talk = talk_to(slots=2)
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1, idempotency_key=8, payload=3)
    talk.arrives(1.5, 2, idempotency_key=8, payload=3)
    assert talk.leaves(2.0, 1) == ["cancel 1, CLIENT_GONE", "dispatch 2: request 2 to 0, PROMOTED"]
    assert talk.arrives(2.1, 3, idempotency_key=8, payload=4) == ["reject 3, KEY_REUSED"]
    assert talk.arrives(2.2, 4, idempotency_key=8, payload=3) == []
    assert talk.finishes(3.0, 2) == ["answer 2 from 2, OWN, keep", "answer 4 from 2, JOINED, keep"]


def test_more_repeats_than_the_follower_limit_are_turned_away(talk_to):
    talk = talk_to(follower_limit=1)
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1, idempotency_key=8)
    talk.arrives(1.0, 2, idempotency_key=8)
    assert talk.arrives(1.0, 3, idempotency_key=8) == ["reject 3, QUEUE_FULL"]


def test_the_memory_is_bounded_and_what_it_lets_go_is_forgotten(talk_to):
    talk = talk_to(memory=2)
    talk.ready(0.0, 0)
    for number in (1, 2, 3):
        talk.arrives(float(number), number, idempotency_key=number)
        said = talk.finishes(number + 0.5, number)
    assert said == ["answer 3 from 3, OWN, keep", "forget 1"]
    assert talk.arrives(5.0, 4, idempotency_key=2) == ["answer 4 from 2, REPEATED, keep"]
    assert talk.arrives(5.0, 5, idempotency_key=1) == ["dispatch 4: request 5 to 0, ARRIVED"]


def test_a_source_is_forgotten_when_neither_cache_nor_memory_wants_it(talk_to, tiny):
    talk = talk_to(cache=lambda: tiny.Keeper(entries=1), memory=1)
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1, cache_key=5, idempotency_key=8)
    talk.finishes(1.5, 1)
    talk.arrives(2.0, 2, cache_key=6)
    assert talk.finishes(2.5, 2) == ["answer 2 from 2, OWN, keep"]
    talk.arrives(3.0, 3, idempotency_key=9)
    assert talk.finishes(3.5, 3) == ["answer 3 from 3, OWN, keep", "forget 1"]


def test_a_request_that_joined_by_the_cache_key_keeps_its_own_idempotency(talk_to, tiny):
    talk = talk_to(cache=tiny.Keeper)
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1, cache_key=5)
    talk.arrives(1.1, 2, cache_key=5, idempotency_key=8, payload=3)
    assert talk.arrives(1.2, 3, cache_key=5, idempotency_key=8, payload=3) == []
    assert talk.arrives(1.3, 4, cache_key=5, idempotency_key=8, payload=4) == ["reject 4, KEY_REUSED"]
    assert talk.finishes(2.0, 1) == [
        "answer 1 from 1, OWN, keep",
        "answer 2 from 1, JOINED, keep",
        "answer 3 from 1, JOINED, keep",
    ]
    assert talk.arrives(3.0, 5, idempotency_key=8, payload=3) == ["answer 5 from 1, REPEATED, keep"]


def test_the_key_passes_to_a_repeat_when_the_joined_first_goes_away(talk_to, tiny):
    talk = talk_to(cache=tiny.Keeper)
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1, cache_key=5)
    talk.arrives(1.1, 2, cache_key=5, idempotency_key=8, payload=3)
    talk.arrives(1.2, 3, cache_key=5, idempotency_key=8, payload=3)
    assert talk.leaves(1.3, 2) == []
    assert talk.arrives(1.4, 4, idempotency_key=8, payload=4) == ["reject 4, KEY_REUSED"]
    assert talk.arrives(1.5, 5, idempotency_key=8, payload=3) == []
    assert [each[:8] for each in talk.finishes(2.0, 1)] == ["answer 1", "answer 3", "answer 5"]


def test_an_answer_from_the_cache_is_remembered_for_its_key(talk_to, tiny):
    talk = talk_to(cache=lambda: tiny.Keeper(entries=1))
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1, cache_key=5)
    talk.finishes(1.5, 1)
    talk.arrives(2.0, 2, cache_key=5, idempotency_key=8)
    talk.arrives(3.0, 3, cache_key=6)
    assert talk.finishes(3.5, 2) == ["answer 3 from 2, OWN, keep"]
    assert talk.arrives(4.0, 4, cache_key=5, idempotency_key=8) == ["answer 4 from 1, REPEATED, keep"]


def test_nothing_is_answered_from_a_source_after_it_was_forgotten(talk_to, tiny):
    talk = talk_to(cache=lambda: tiny.Keeper(entries=1), memory=1, slots=2)
    talk.ready(0.0, 0)
    for number in range(1, 30):
        talk.arrives(float(number), number, cache_key=1 + number % 3, idempotency_key=number % 2)
        attempts = list(talk.plane._books.attempts)
        if attempts:
            talk.finishes(number + 0.5, attempts[0])
    gone = set()
    for command in talk.commands:
        if type(command) is Forget:
            assert command.source not in gone
            gone.add(command.source)
        if type(command) is Answer:
            assert command.source not in gone
    assert gone
