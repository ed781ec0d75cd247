"""Made-up prompts: about as many tokens as the workload says, equal where the workload says equal.

Every text is the beginning of an endless one that a 64-bit key names. So two prompts of one key share the
shorter one's whole text, which is what a growing conversation does and what a prefix cache sees.
"""

from __future__ import annotations

from functools import cache
from typing import Final

from glowsim.core.streams import mix
from glowsim.core.types import Request

__all__ = ["BYTES_PER_TOKEN", "prompt_of"]

BYTES_PER_TOKEN: Final = 4
"""The gateway's own estimate of how long a token is."""
_WORDS: Final = (
    "account", "after", "and", "answer", "approve", "before", "case", "check", "claim", "client", "date",
    "due", "file", "for", "invoice", "ledger", "letter", "month", "note", "of", "open", "order", "paid",
    "policy", "quarter", "rate", "review", "send", "state", "tax", "the", "under", "what", "when", "with", "year",
)  # fmt: skip
_ROUND: Final = 1 << 16
"""Bytes after which the words of a text come round again."""


@cache
def _words() -> str:
    text = " ".join(_WORDS[mix(number) % len(_WORDS)] for number in range(_ROUND // 4))
    return text[:_ROUND]


def prompt_of(request: Request, text_key: int) -> str:
    """Return the text of a request: ``4 * tokens_in`` ASCII characters, at least 4, none of which JSON escapes.

    Parameters
    ----------
    request
        Those that may share an answer (``cache_key``) have equal texts where they have equal lengths.
    text_key
        Of the text that its prompt continues; 0: nobody else's.

    >>> first = prompt_of(Request(1, 0, tokens_in=20, max_tokens_out=9), text_key=7)
    >>> later = prompt_of(Request(2, 0, tokens_in=90, max_tokens_out=9), text_key=7)
    >>> len(first), later.startswith(first)
    (80, True)
    >>> prompt_of(Request(2, 0, tokens_in=20, max_tokens_out=9), text_key=0) == first
    False
    """
    key = mix(request.cache_key or text_key or mix(request.request_id))
    length = BYTES_PER_TOKEN * max(request.tokens_in, 1)
    words, start = _words(), key % _ROUND
    if start + length > len(words):
        words *= (start + length) // len(words) + 1
    return f"{key:016x} {words[start : start + length]}"[:length]
