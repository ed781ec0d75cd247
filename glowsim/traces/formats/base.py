"""What a format is: how it is recognised, and what request a row of it tells of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar, NamedTuple

from glowsim.traces.log import Ints
from glowsim.traces.values import Instant, Row, Unreadable

__all__ = ["Format", "LeftOut", "Request", "arrival"]


class LeftOut(Exception):
    """A row that can be read, and is no model call; the message names what it is."""


class Request(NamedTuple):
    """A request, as a row tells of it."""

    at: Instant
    """When it arrived."""
    numbers: dict[str, float | None]
    """Name among `glowsim.traces.log.NUMBERS` -> value, None where the row does not say."""
    names: dict[str, str | None] = {}  # noqa: RUF012
    """Name among `glowsim.traces.log.NAMES` -> value, None where the row does not say."""
    key: str | None = None
    """What names the request: of two with the same the second is refused."""
    blocks: tuple[int, ...] | None = None
    """Hashes of the prompt's blocks."""
    notes: tuple[str, ...] = ()
    """What was done to it, each a remark that the log counts."""


class Format(ABC):
    """A format of recorded workloads; one object reads one file.

    A subclass says what its rows are called, and how a row becomes a `Request`.

    >>> Format()  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    TypeError: Can't instantiate abstract class Format ...
    """

    name: ClassVar[str]
    """How a user names it."""
    fields: frozenset[str]
    """Fields that are understood, or left alone on purpose, such as the text of prompts."""
    marks: tuple[tuple[str, ...], ...]
    """Recognised by: of each group one field, the first spelling being the usual one."""
    remarks: ClassVar[tuple[str, ...]] = ()
    """What holds for every log of the format."""
    block_tokens: ClassVar[int] = 0
    """Tokens of a block, where rows have hashes."""

    def rows(self, found: Row) -> Iterator[Row]:
        """Yield the rows within what stands on a line, or in a document; usually it is the row."""
        yield found

    @abstractmethod
    def request(self, row: Row) -> Request:
        """Return the request that a row tells of.

        Raises
        ------
        Unreadable
            The row cannot be read.
        LeftOut
            It is no model call.
        """

    def settled(self, at_ns: Ints, seed: int) -> tuple[Ints, tuple[str, ...]]:
        """Return the times of arrival when all are known, and what was done to them."""
        return at_ns, ()

    def ignores(self, field: str) -> bool:
        """Return whether a field that is not among ``fields`` is left alone on purpose."""
        return False

    def missing(self, names: tuple[str, ...]) -> str | None:
        """Return the first field that rows of these names lack, or None if they are of this format."""
        return next((group[0] for group in self.marks if not any(name in names for name in group)), None)

    def expects(self) -> str:
        """Return what a file of the format looks like, for a person."""
        return f"rows with {', '.join(' or '.join(group) for group in self.marks)}"


def arrival(at: Instant | None, name: str) -> Instant:
    """Return when a request arrived, which every row must say."""
    if at is None:
        raise Unreadable(f"{name} is missing: when it arrived is not known")
    return at
