"""How a process that serves until it is told to stop hears of it."""

from __future__ import annotations

import asyncio
import signal

__all__ = ["first_of", "told_to_stop"]


def told_to_stop() -> asyncio.Event:
    """Return an event that SIGTERM and SIGINT set, in the running event loop."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


async def first_of(*events: asyncio.Event) -> None:
    """Return when one of several events is set.

    >>> async def main():
    ...     never, now = asyncio.Event(), asyncio.Event()
    ...     now.set()
    ...     await first_of(never, now)
    ...     return never.is_set()
    >>> asyncio.run(main())
    False
    """
    waits = [asyncio.ensure_future(each.wait()) for each in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
