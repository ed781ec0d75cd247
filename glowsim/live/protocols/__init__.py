"""The protocols that the gateway speaks with clients and upstreams, as pure functions.

`PATHS` and `BY_NAME` find one; each reads a client's body, says what an upstream of its kind gets, and translates
to and from chat completions for an upstream that speaks only those.
"""

from __future__ import annotations

from glowsim.live.protocols.chat import CHAT
from glowsim.live.protocols.chat_answers import chat_answer, chat_chunk, chat_chunks, usage_chunk
from glowsim.live.protocols.embeddings import EMBEDDINGS
from glowsim.live.protocols.messages import MESSAGES
from glowsim.live.protocols.responses import RESPONSES
from glowsim.live.protocols.shape import Asked, BadBody, Frame, Protocol, StreamReader, StreamWriter

__all__ = [
    "Asked", "BY_NAME", "BadBody", "CHAT", "EMBEDDINGS", "Frame", "MESSAGES", "PATHS", "Protocol", "RESPONSES",
    "StreamReader", "StreamWriter", "chat_answer", "chat_chunk", "chat_chunks", "stream_of", "usage_chunk",
]  # fmt: skip

BY_NAME: dict[str, Protocol] = {
    protocol.name: protocol for protocol in (CHAT, RESPONSES, MESSAGES, EMBEDDINGS)
}
PATHS: dict[str, Protocol] = {protocol.path: protocol for protocol in BY_NAME.values()}


def stream_of(
    protocol: Protocol, answer: dict[str, object], asked: Asked, *, answer_id: str, created: int
) -> str:
    r"""Return a whole chat answer as a whole stream of a protocol.

    >>> from glowsim.core.types import Usage
    >>> asked = CHAT.read(b'{"model": "tax", "messages": [{"role": "user", "content": "Due?"}], "stream": true}')
    >>> answer = chat_answer("yes", Usage(9, 0, 1), model="tax", answer_id="1", created=0)
    >>> stream_of(CHAT, answer, asked, answer_id="1", created=0).endswith("data: [DONE]\n\n")
    True
    """
    writer = protocol.writer(asked, answer_id=answer_id, created=created)
    return "".join([*map(writer.feed, chat_chunks(answer)), writer.end()])
