"""The ``callable`` adapter: an agent that is a function in the daemon's own process."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable
from typing import Any

from glowsim.core.types import Usage
from glowsim.live.calls import Call, Reply, Serve
from glowsim.live.content import speaking
from glowsim.live.settings import SettingsError

__all__ = ["of_function"]


def of_function(function: Any) -> Serve:
    """Return an instance that calls a function with every `Call`.

    Parameters
    ----------
    function
        ``async def`` that returns a text or a `Reply`, or yields pieces of text. It may keep ``call.usage`` up to
        date; a text alone counts as the plan's input and no output.

    Raises
    ------
    SettingsError
        It is no such function.

    >>> async def answer(call):
    ...     return "forty-two"
    >>> callable(of_function(answer))
    True
    """
    if inspect.isasyncgenfunction(function):
        return speaking(_generated(function))
    if not inspect.iscoroutinefunction(function):
        raise SettingsError(f"live.agents: {function!r} is no 'async def' function")

    async def serve(call: Call) -> Reply:
        call.usage = Usage(call.plan.tokens_in)
        said = await function(call)
        return said if isinstance(said, Reply) else Reply(said, call.usage)

    return speaking(serve)


def _generated(function: Callable[[Call], AsyncIterator[str]]) -> Serve:
    def serve(call: Call) -> AsyncIterator[str]:
        call.usage = Usage(call.plan.tokens_in)
        return function(call)

    return serve
