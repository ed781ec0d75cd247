"""A pool's rollout: when its splitter is woken, and what becomes of a change of stage."""

from __future__ import annotations

from math import inf, isfinite
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple

from glowsim.core.books import SPLITTER
from glowsim.core.errors import ControllerError
from glowsim.core.protocols import Splitter
from glowsim.core.types import Advance, ChangeKind, Command, Observed, Request

if TYPE_CHECKING:
    from glowsim.core.books import Books, Open

__all__ = ["Assignment", "Stages"]

Out = list[Command]


class Assignment(NamedTuple):
    """How a request got its variant."""

    assigned_s: float | None
    """When; None: no rollout assigned it."""
    propensity: float
    """With what probability it got this one."""
    unit: int
    """What was assigned: a session, a user, a tenant, or the request itself."""


class Stages:
    """The rollout of one agent."""

    __slots__ = ("_agent", "_books", "_splitter", "_unit_of", "asleep", "due_s")

    def __init__(self, agent: int, splitter: Splitter, books: Books) -> None:
        self._agent = agent
        self._splitter = splitter
        unit = getattr(splitter, "unit", "request")
        self._unit_of = itemgetter(Request._fields.index("request_id" if unit == "request" else unit))
        self._books = books
        self.due_s = inf
        """When the splitter is woken next."""
        self.asleep = False
        """Whether nothing was assigned since it was last asked when that is."""

    @property
    def first_weight(self) -> float:
        """Share of the traffic that is not on the baseline before the first `Advance`."""
        weight: float = getattr(self._splitter, "first_weight", 0.0)
        return weight

    def start(self, t_s: float, out: Out) -> None:
        """Take in the first arrival: the splitter's moment may have passed already."""
        if self._splitter.wake_s() <= t_s:
            self._wake(t_s, out)
        else:
            self._arm(t_s)

    def due(self, t_s: float, out: Out) -> None:
        """Tell the splitter that its time has come."""
        if t_s >= self.due_s:
            self.due_s = inf
            self._wake(t_s, out)

    def observed(self, event: Observed, out: Out) -> None:
        """Pass a late label on."""
        advance = self._splitter.observed(event.t_s, event)
        if advance is not None:
            self.advance(event.t_s, advance, out)

    def ordered(self, t_s: float, kind: ChangeKind, out: Out) -> None:
        """Pass an operator's order on."""
        advance = self._splitter.ordered(t_s, kind)
        if advance is not None:
            self.advance(t_s, advance, out)

    def assignment(self, opened: Open) -> Assignment:
        """Return how an open request got its variant."""
        assigned_s = opened.assigned_s
        unit = self._unit_of(opened.request) or opened.request_id
        if assigned_s is None:  # it has its leader's
            return Assignment(None, 1.0, unit)
        return Assignment(assigned_s, self._splitter.propensity(assigned_s, opened.variant), unit)

    def advance(self, t_s: float, advance: Advance, out: Out) -> None:
        """Give out a change of stage."""
        out.append(advance._replace(agent=self._agent))
        self._arm(t_s)

    def _wake(self, t_s: float, out: Out) -> None:
        advance = self._splitter.wake(t_s)
        if advance is not None:
            self.advance(t_s, advance, out)
        else:
            self._arm(t_s)

    def stir(self, t_s: float) -> None:
        """Take in that something was assigned: there may be something to look at earlier now."""
        if self.due_s > t_s:  # else it is woken at this very moment, and asked then
            self._arm(t_s)
            self.asleep = False

    def _arm(self, t_s: float) -> None:
        self.asleep = True
        due_s = self._splitter.wake_s()
        if not due_s > t_s:
            raise ControllerError(f"the splitter wants to be woken at {due_s} s, but it is {t_s} s")
        if isfinite(due_s) and due_s != self.due_s:
            self.due_s = due_s
            self._books.timers.at(due_s, SPLITTER, self._agent)
