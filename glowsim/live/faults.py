"""What may be written down of an exception: where it was raised, not what it says, for that may quote a prompt."""

from __future__ import annotations

from traceback import format_tb

__all__ = ["trace_of"]

_MOST_CAUSES = 10


def trace_of(error: BaseException) -> str:
    """Return where an exception was raised, and its cause before it: types, files, lines and source, no messages.

    >>> print(trace_of(ValueError("Is Ann liable for VAT?")))
    ValueError (its message may quote what was asked, and is left out)
    """
    said: list[str] = []
    each: BaseException | None = error
    while each is not None and len(said) < _MOST_CAUSES:
        frames = "".join(format_tb(each.__traceback__))
        said.append(f"{frames}{type(each).__name__} (its message may quote what was asked, and is left out)")
        each = each.__cause__ or (None if each.__suppress_context__ else each.__context__)
    return "\nled to\n".join(reversed(said))
