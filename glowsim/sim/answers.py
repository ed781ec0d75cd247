"""What the answers of a world are worth: judged when an attempt begins, shown as a score, spoken of later."""

from __future__ import annotations

from typing import NamedTuple

from glowsim.core.stages import Assignment
from glowsim.core.types import Plan, Request
from glowsim.sim.feedback import Feedback, Users
from glowsim.sim.quality import Failure, Quality

__all__ = ["Answers", "Spoken"]


_new = tuple.__new__


class _Worth(NamedTuple):
    failure: Failure
    confidence: float
    tries: int
    variant: int
    request_id: int
    assignment: Assignment


class Spoken(NamedTuple):
    """What users will say of an answer."""

    variant: int
    """That gave it."""
    feedback: tuple[Feedback, ...]
    assignment: Assignment
    """How its request got that variant; of an answer that was made for another request, without a moment."""


_SILENT = Spoken(0, (), Assignment(None, 1.0, 0))


class Answers:
    """Keeps the worth of every answer that may still be given.

    Parameters
    ----------
    quality
        The truth.
    users
        Who speak of them.
    """

    __slots__ = ("_given", "_quality", "_users", "_worth", "failures")

    def __init__(self, quality: Quality, users: Users) -> None:
        self._quality = quality
        self._users = users
        self._worth: dict[int, _Worth] = {}
        """By the attempt, from its dispatch until nobody can be answered with it any more."""
        self._given: list[int] = []
        """Attempts whose content is not kept: it goes to those answered in the same event, and to nobody else."""
        self.failures: dict[int, int] = {}
        """Request -> what is wrong with the answer that it got."""

    def begun(
        self, t_s: float, attempt: int, request: Request, plan: Plan, tries: int, assignment: Assignment
    ) -> None:
        """Judge what an attempt will answer, if it does."""
        failure, confidence = self._quality.judge(t_s, request, plan, tries)
        self._worth[attempt] = _new(
            _Worth, (failure, confidence, tries, plan.variant, request[0], assignment)
        )

    def spoilt(self, attempt: int, request_id: int, tries: int, variant: int, assignment: Assignment) -> None:
        """Take in that an attempt will answer nonsense, as a fault makes it; any check sees that."""
        self._worth[attempt] = _Worth(Failure.WRONG, 0.0, tries, variant, request_id, assignment)

    def score(self, attempt: int) -> float:
        """Return what a check says of the answer that has just come."""
        if self._given:
            for source in self._given:
                self._worth.pop(source, None)
            self._given.clear()
        return self._worth[attempt].confidence

    def lost(self, source: int) -> None:
        """Hear that nobody will be answered with an attempt, or with it again."""
        self._worth.pop(source, None)

    def given(self, request_id: int, source: int, keep: bool) -> Spoken:
        """Note which answer a request got; return what its user will say of it."""
        worth = self._worth.get(source)
        if worth is None:
            return _SILENT  # an apology, which is nobody's answer
        self.failures[request_id] = int(worth.failure)
        if not keep:
            self._given.append(source)
        said = self._users.say(request_id, worth.tries, worth.failure)
        assignment = worth.assignment
        if request_id != worth.request_id:
            assignment = assignment._replace(assigned_s=None)
        return _new(Spoken, (worth.variant, said, assignment))
