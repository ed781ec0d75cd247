"""What every client that sends many requests does before and meanwhile: see that somebody is there, hear Ctrl-C."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final
from urllib.parse import urlsplit

__all__ = ["interrupting", "silent"]

_CONNECT_S: Final = 10.0


async def silent(url: str) -> str:
    """Return why nobody takes connections at a URL; nothing if somebody does."""
    where = urlsplit(url)
    port = where.port or (443 if where.scheme == "https" else 80)
    try:
        async with asyncio.timeout(_CONNECT_S):
            _, writer = await asyncio.open_connection(where.hostname, port)
    except OSError as error:  # a TimeoutError is one
        return error.strerror or "no answer"
    writer.close()
    return ""


@contextmanager
def interrupting(stop: Callable[[], None]) -> Iterator[None]:
    """Have SIGINT stop what is sent while the block lasts; a second one ends the process as usual."""
    loop = asyncio.get_running_loop()

    def once() -> None:
        loop.remove_signal_handler(signal.SIGINT)
        stop()

    loop.add_signal_handler(signal.SIGINT, once)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)
