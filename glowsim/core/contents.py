"""Which answers' contents are still wanted, by the cache or for requests that come again."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from glowsim.core.errors import ControllerError
from glowsim.core.types import Command, Forget, Request

__all__ = ["Contents"]

Out = list[Command]


class Contents:
    """Counts who wants the content of an attempt, and tells the driver when nobody does.

    Parameters
    ----------
    memory
        Idempotency keys remembered after their answer.

    >>> contents, out = Contents(memory=10), []
    >>> contents.keep(7); contents.release(7, out); out
    [Forget(source=7)]
    """

    __slots__ = ("_kept", "_limit", "memory")

    def __init__(self, memory: int) -> None:
        self._limit = memory
        self.memory: OrderedDict[int, tuple[int, int]] = OrderedDict()
        """Idempotency key -> (payload, source) of an answered request."""
        self._kept: dict[int, int] = {}
        """Source -> how many (cache, memory) still want its content."""

    def keep(self, source: int) -> None:
        """Want a source once more."""
        self._kept[source] = self._kept.get(source, 0) + 1

    def release(self, source: int, out: Out) -> None:
        """Want a source once less."""
        left = self._kept.pop(source, 0) - 1
        if left < 0:
            raise ControllerError(f"the cache let go of source {source}, which it does not hold")
        if left:
            self._kept[source] = left
        else:
            out.append(Forget(source))

    def remember(self, request: Request, source: int, out: Out) -> None:
        """Remember the answer to a request with an idempotency key."""
        key = request.idempotency_key
        if key in self.memory:  # a repeat that was answered together with the first
            return
        self.keep(source)
        self.memory[key] = (request.payload, source)
        if len(self.memory) > self._limit:
            _, (_, oldest) = self.memory.popitem(last=False)
            self.release(oldest, out)

    def snapshot(self) -> dict[str, Any]:
        """Return everything that affects decisions."""
        return {"memory": self.memory, "kept": self._kept}

    def restore(self, saved: dict[str, Any]) -> None:
        """Take on a state that `snapshot` returned."""
        self.memory, self._kept = saved["memory"], saved["kept"]
