"""A call of a language model, and the seam to what serves it: calls go in, each comes back once.

A server is given calls by `start`, told to drop one by `cancel`, and calls ``done(call)`` when one ends and
``first_token(call)`` when its first token is out, if the call asks for that. It never calls back while it is
being called: everything comes later, by the environment.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from glowsim.core.types import Outcome
from glowsim.sim.serving.seats import Seat

__all__ = ["Call", "Server", "Told"]


class Call(Seat):
    """One call of a model.

    Parameters
    ----------
    number
        Unlike that of every other call of a run.
    tokens_in
        Of the prompt, at least 1.
    tokens_out
        Of the answer, at least 1: the truth, which the server learns by writing it.
    shared_key, shared_tokens
        The prompt begins with so many tokens that every call with this key shares; 0: none.
    own_key
        The rest of the prompt, and the answer after it, are the text of this key: a later call with the same
        keys and a longer prompt begins with the text of this one. 0: it is nobody else's.
    blocks
        In place of the keys, for recorded prompts: the hashes of its blocks.
    priority
        0 is served first, where the server goes by it.
    stream
        Whether to tell of the first token.
    owner
        Whose call it is: whatever the callbacks need.
    """

    __slots__ = (
        "blocks", "first_token_s", "number", "outcome", "own_key", "owner", "priority", "retry_after_s", "shared_key",
        "shared_tokens", "state", "stream", "tokens_cached", "tokens_in", "tokens_out", "written",
    )  # fmt: skip

    def __init__(
        self, number: int, tokens_in: int, tokens_out: int, shared_key: int = 0, shared_tokens: int = 0,
        own_key: int = 0, *, blocks: tuple[int, ...] = (), priority: int = 0, stream: bool = False, owner: Any = None,
    ) -> None:  # fmt: skip
        self.number = number
        self.tokens_in = tokens_in
        self.tokens_out = tokens_out
        self.shared_key = shared_key
        self.shared_tokens = shared_tokens
        self.own_key = own_key
        self.blocks = blocks
        self.priority = priority
        self.stream = stream
        self.owner = owner
        self.outcome = Outcome.OK
        """How it ended: a hosted API may throttle it or fail."""
        self.retry_after_s = 0.0
        self.tokens_cached = 0
        """Tokens of the prompt that were not computed, when it ends or is cancelled."""
        self.written = 0
        """Tokens of the answer that are out, when it ends or is cancelled."""
        self.first_token_s = -1.0
        """The moment when the first token was out; below 0 while there is none."""
        self.state: Any = None
        """The server's own; None while no server has it."""

    def __lt__(self, other: Call) -> bool:
        """Return whether it comes first in order of priority."""
        return (self.priority, self.arrival) < (other.priority, other.arrival)


Told = Callable[[Call], None]


class Server(Protocol):
    """One replica of a self-hosted model, or a hosted API."""

    def start(self, call: Call) -> None:
        """Take a call in."""

    def cancel(self, call: Call) -> None:
        """Drop a call; what it used is set, and ``done`` is not called for it."""

    def set_speed(self, speed: float) -> None:
        """Work at a share of the usual speed from now on."""

    def __len__(self) -> int:
        """Return how many calls are inside, waiting ones included."""
