"""What a splitter hears: one outcome for each request that it assigned, with the moment at which it did."""

from __future__ import annotations

from glowsim.core.snapshot import Stateful
from glowsim.core.types import Outcome, Status


class Notebook(Stateful):
    """Splitter: everything is baseline; it notes when it assigned and what it heard."""

    state = ("heard",)

    def __init__(self):
        self.heard = []

    def assign(self, t_s, request):
        return 0

    def propensity(self, assigned_s, variant):
        return 1.0

    def finished(self, t_s, assigned_s, variant, request, ok, latency_s, cost_usd):
        self.heard.append((t_s, assigned_s, ok))

    def observed(self, t_s, observed):
        return None

    def wake(self, t_s):
        return None

    def wake_s(self):
        return float("inf")

    def ordered(self, t_s, kind):
        return None


def heard(talk):
    return talk.plane.pools[0].controllers.splitter.heard


def test_a_request_that_was_held_was_assigned_when_it_was_let_in(talk_to, tiny):
    talk = talk_to(limiter=lambda: tiny.Leased(timeout_s=100.0), splitter=Notebook, slots=4)
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1)
    talk.told(3.5, 1, Status.GRANTED, 2.0)
    talk.arrives(4.0, 2)
    talk.finishes(5.0, 1)
    talk.finishes(6.0, 2, Outcome.INVALID)
    assert heard(talk) == [(5.0, 3.5, True), (6.0, 4.0, False)]


def test_one_that_was_never_let_in_was_never_assigned(talk_to, tiny):
    talk = talk_to(limiter=lambda: tiny.Leased(timeout_s=100.0), splitter=Notebook)
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1)
    talk.passes(31.0)
    assert heard(talk) == []


def test_a_queued_request_keeps_the_moment_of_its_assignment_over_retries(talk_to, tiny):
    talk = talk_to(splitter=Notebook, retrier=tiny.Again)
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1)
    talk.arrives(2.0, 2)
    talk.finishes(5.0, 1)
    talk.finishes(6.0, 2, Outcome.ERROR)
    talk.wakes()
    talk.finishes(20.0, 3)
    assert heard(talk) == [(5.0, 1.0, True), (20.0, 2.0, True)]


def test_a_repeat_that_took_its_leaders_variant_is_no_outcome_of_its_own(talk_to):
    talk = talk_to(splitter=Notebook, slots=4)
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1, idempotency_key=5, payload=9)
    talk.arrives(2.0, 2, idempotency_key=5, payload=9)
    talk.leaves(3.0, 1)
    talk.finishes(3.5, 1, Outcome.CANCELLED)
    assert talk.finishes(5.0, 2) == ["answer 2 from 2, OWN, keep"]
    assert heard(talk) == []
