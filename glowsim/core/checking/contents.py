"""Which answers the world has, and who gets them."""

from __future__ import annotations

from collections.abc import Callable

from glowsim.core.checking.facts import Facts
from glowsim.core.reasons import Code
from glowsim.core.types import Answer, Forget, Keep

__all__ = ["Contents"]


class Contents:
    """The sources whose content the world must keep: those of kept answers, until they are forgotten.

    Parameters
    ----------
    violate
        Takes an invariant's number and what is wrong.
    """

    def __init__(self, violate: Callable[[str, str], None]) -> None:
        self._violate = violate
        self._kept: set[int] = set()
        self._spares: dict[int, int] = {}
        """Request -> what is kept for it alone, while it is answered again."""
        self._joined: dict[int, int] = {}
        """Source -> requests answered with the one that they had joined, in this event's commands."""

    def answered(self, command: Answer, fresh: int, facts: Facts | None) -> None:
        """I14: an answer's content is there. Against answers from what was forgotten, or never came.

        Parameters
        ----------
        command
            The answer.
        fresh
            The attempt that this event finished, or 0; its content is there during this event.
        facts
            Of the request's agent, if the request is open.
        """
        source, code = command.source, command.reason.code
        if source != fresh and source not in self._kept and (source or code != Code.APOLOGY):
            self._violate("I14", f"request {command.request_id} is answered from {source}, which is not kept")
        if code == Code.JOINED and facts is not None:
            self._within_followers(source, facts)
        if command.keep:
            self._kept.add(source)

    def _within_followers(self, source: int, facts: Facts) -> None:
        """I10: no more than so many join one request. Against a popular answer that eats the memory."""
        count = self._joined[source] = self._joined.get(source, 0) + 1
        if count == facts.follower_limit + 1:
            self._violate("I10", f"{count} requests joined the one that attempt {source} answered")

    def kept(self, command: Keep, fresh: int, request_id: int) -> None:
        """I14: what is to be kept has just come. Against keeping what nobody has any more.

        Parameters
        ----------
        command
            What is to be kept.
        fresh
            The attempt that this event finished, or 0.
        request_id
            Whose attempt that was, or 0.
        """
        if command.source != fresh:
            self._violate(
                "I14", f"source {command.source} is to be kept, and it is attempt {fresh} that ended"
            )
        self._kept.add(command.source)
        self._spares[request_id] = command.source

    def lost(self, source: int) -> None:
        """Take in that the world has not kept a source."""
        self._kept.discard(source)

    def ended(self, request_id: int) -> None:
        """I10: nothing is kept for a request that has ended. Against answers that pile up."""
        spare = self._spares.pop(request_id, 0)
        if spare in self._kept:
            self._violate("I10", f"request {request_id} has ended, and {spare} is still kept for it")

    def holds(self, source: int) -> bool:
        """Return whether a source's content is kept."""
        return source in self._kept

    def forgotten(self, command: Forget) -> None:
        """I14: what is forgotten was kept. Against content that is let go twice."""
        if command.source not in self._kept:
            self._violate("I14", f"source {command.source} is forgotten, and it is not kept")
        self._kept.discard(command.source)

    def concluded(self) -> None:
        """Take in that this event's commands are complete."""
        self._joined.clear()
