"""The shape of a protocol: what is asked, how it is sent on, and how answers and streams come back.

Everything in this package is a pure function of its arguments: no I/O, no clock, no randomness; ids and times are
handed in.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple

from glowsim.core.errors import GlowsimError
from glowsim.core.types import Usage

__all__ = ["Asked", "BadBody", "Frame", "Protocol", "StreamReader", "StreamWriter"]


class BadBody(GlowsimError):
    """A client's body cannot be served; the message names the place and the remedy.

    >>> BadBody("say which model", "model").param
    'model'
    """

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        """The field that is wrong; None where it is the body itself."""


class Asked(NamedTuple):
    """What a client asks for, in whichever protocol.

    >>> Asked("chat", {"model": "m"}, "m", 5, None, False, None).tokens_in
    5
    """

    protocol: str
    """``chat``, ``responses``, ``messages`` or ``embeddings``."""
    body: dict[str, Any]
    """As it came; only what is used was checked. Nothing may change it."""
    model: str
    tokens_in: int
    """About how many tokens the input has: a quarter of the bytes of its texts and tools, at least 1."""
    max_tokens_out: int | None
    stream: bool
    tag: str | None
    """Whom the client says that it acts for; it may narrow who calls, never assert it."""


class Frame(NamedTuple):
    r"""What one event of an upstream's stream means.

    >>> Frame("data: [DONE]\n\n", False, True, None, None).done
    True
    """

    text: str
    """The server-sent event to pass on; empty if it is to be dropped."""
    content: bool
    """Whether it carries some of the answer (text, tool call, refusal, reasoning): the first one commits."""
    done: bool
    """Whether the stream is complete with it."""
    usage: Usage | None
    """What was used so far, where the event says so."""
    chunk: dict[str, Any] | None
    """The chat chunk, for a writer of another protocol; None for other protocols."""


class StreamReader(ABC):
    """Reads one stream of an upstream, event by event."""

    @abstractmethod
    def feed(self, event: str | None, data: str) -> Frame:
        """Return what an event means.

        Raises
        ------
        InstanceError
            It is an error, or cannot be read.
        """

    def end(self) -> str | None:
        """Return what is still to be passed on when no more comes and no event was `done`; None: it was cut off."""
        return None


class StreamWriter(ABC):
    """Writes one stream for a client, out of chat chunks."""

    @abstractmethod
    def feed(self, chunk: dict[str, Any]) -> str:
        """Return the events that a chunk becomes; empty if there is nothing to say yet.

        Raises
        ------
        InstanceError
            The chunk cannot be read.
        """

    @abstractmethod
    def end(self) -> str:
        """Return the last events.

        Raises
        ------
        InstanceError
            The chunks were not a whole answer: no finish reason came.
        """


class Protocol(ABC):
    """One way of asking a model, as a client speaks it and as an upstream speaks it."""

    name: ClassVar[str]
    path: ClassVar[str]

    @abstractmethod
    def read(self, raw: bytes) -> Asked:
        """Return what a body asks for.

        Raises
        ------
        BadBody
            It is not JSON, or a field that is needed here is missing or wrong.
        """

    @abstractmethod
    def body_for(self, asked: Asked, *, model: str, max_tokens_out: int) -> dict[str, Any]:
        """Return the body for an upstream of the same protocol: the client's, with model and limit replaced.

        The copy is shallow: what is inside is the client's own.
        """

    @abstractmethod
    def usage_of(self, answer: dict[str, Any], tokens_in: int) -> Usage:
        """Return what a whole answer says was used; `tokens_in` where it says nothing.

        Raises
        ------
        InstanceError
            The answer is an error, or its usage is not made of token counts.
        """

    @abstractmethod
    def reader(self, asked: Asked, tokens_in: int) -> StreamReader:
        """Return a reader of an upstream's stream in this protocol; `tokens_in` as in `usage_of`."""

    @abstractmethod
    def error(
        self, status: int, message: str, *, code: str | None = None, param: str | None = None
    ) -> dict[str, Any]:
        """Return the body of an answer with an HTTP status of 400 or more."""

    @abstractmethod
    def error_frame(self, status: int, message: str, *, code: str | None = None) -> str:
        """Return the last event of a stream that broke."""

    @abstractmethod
    def to_chat(self, asked: Asked) -> dict[str, Any]:
        """Return the body as chat completions would have it.

        Raises
        ------
        BadBody
            Chat completions cannot express it.
        """

    @abstractmethod
    def from_chat(
        self, answer: dict[str, Any], asked: Asked, *, answer_id: str, created: int
    ) -> dict[str, Any]:
        """Return a whole chat answer as this protocol would have it.

        Parameters
        ----------
        answer
            From an upstream, or of `chat_answer`.
        asked
            What it answers.
        answer_id
            Unique; the protocol's prefix is put before it where it has one.
        created
            Seconds since 1970.

        Raises
        ------
        InstanceError
            The answer cannot be read.
        """

    @abstractmethod
    def writer(self, asked: Asked, *, answer_id: str, created: int) -> StreamWriter:
        """Return a writer of this protocol's stream; the parameters are those of `from_chat`."""
