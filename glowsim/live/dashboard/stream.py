"""One document a tick for all who watch: made once, serialised once, however many they are."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

from glowsim.core.errors import GlowsimError

__all__ = ["Ticks", "TooManyViewers", "Viewer"]

_BEAT = b": nothing new\n\n"


class TooManyViewers(GlowsimError):
    """As many watch as may."""


class Viewer:
    """One who watches; it holds at most one event that was not fetched yet, the newest."""

    def __init__(self) -> None:
        self._waiting: bytes | None = None
        self._there = asyncio.Event()
        self._closed = False

    def give(self, event: bytes, *, news: bool) -> None:
        """Have an event fetched next: in place of one that was not fetched in time, unless it only says nothing new."""
        if news or self._waiting is None:
            self._waiting = event
        self._there.set()

    def close(self) -> None:
        """Let nothing more be fetched."""
        self._closed = True
        self._there.set()

    async def fetch(self) -> bytes | None:
        """Return the next event as bytes of ``text/event-stream``, or None: it is over."""
        await self._there.wait()
        if self._closed:
            return None
        self._there.clear()
        event, self._waiting = self._waiting, None
        return event


class Ticks:
    """Makes the document every so often as long as anybody watches.

    A tick on which nothing has happened is a comment: the connection is seen to live, and a quiet fleet costs nothing.

    Parameters
    ----------
    make
        Makes the document in steps: None for each but the last. Other work gets its turn between them.
    news
        Returns something that differs once there is news.
    every_s
        Seconds between ticks, above 0.
    anyway_s
        Seconds after which the document is made even without news, as windows slide; at least ``every_s``.
    viewers
        How many may watch at once, at least 1.
    """

    def __init__(
        self, make: Callable[[], Iterator[dict[str, Any] | None]], news: Callable[[], object], *,
        every_s: float = 1.0, anyway_s: float = 10.0, viewers: int = 32,
    ) -> None:  # fmt: skip
        self._make = make
        self._news = news
        self._every_s = every_s
        self._anyway_s = anyway_s
        self._most = viewers
        self._viewers: set[Viewer] = set()
        self._ticking: asyncio.Task[None] | None = None
        self._last: bytes | None = None
        self._closed = False
        self.made = 0
        """Documents so far."""

    @property
    def watching(self) -> int:
        """How many watch."""
        return len(self._viewers)

    def join(self) -> Viewer:
        """Return a new viewer; the first event that it gets is a whole document.

        Raises
        ------
        TooManyViewers
            As many watch as may, or it is closed.
        """
        if self._closed or len(self._viewers) >= self._most:
            raise TooManyViewers(f"{len(self._viewers)} watch already: close a page, or ask again later")
        viewer = Viewer()
        self._viewers.add(viewer)
        if self._last is not None:
            viewer.give(self._last, news=True)
        self._start()
        return viewer

    def leave(self, viewer: Viewer) -> None:
        """Let a viewer go; once is enough, twice is no harm."""
        self._viewers.discard(viewer)
        viewer.close()

    def close(self) -> None:
        """End all streams."""
        self._closed = True
        for viewer in list(self._viewers):
            self.leave(viewer)
        if self._ticking is not None:
            self._ticking.cancel()

    def _start(self) -> None:
        if self._ticking is None:
            self._ticking = asyncio.get_running_loop().create_task(self._tick())
            self._ticking.add_done_callback(self._ticked)

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        seen: object = None
        made_s = -self._anyway_s
        while self._viewers:
            begun_s = loop.time()
            news = self._news()
            if news != seen or self._last is None or begun_s >= made_s + self._anyway_s:
                seen, made_s = news, begun_s
                document = await self._document()
                self.made += 1
                self._last = b"id: %d\nevent: snapshot\ndata: %s\n\n" % (self.made, document)
                for viewer in self._viewers:
                    viewer.give(self._last, news=True)
            else:
                for viewer in self._viewers:
                    viewer.give(_BEAT, news=False)
            await asyncio.sleep(max(begun_s + self._every_s - loop.time(), 0.0))

    async def _document(self) -> bytes:
        for step in self._make():
            if step is not None:
                return json.dumps(step, separators=(",", ":"), allow_nan=False).encode()
            await asyncio.sleep(0)
        raise AssertionError("the last step is the document")

    def _ticked(self, task: asyncio.Task[None]) -> None:
        self._ticking = self._last = None
        if task.cancelled():
            return
        if task.exception() is None:
            if self._viewers:  # somebody came while it was ending
                self._start()
        else:
            for viewer in list(self._viewers):
                self.leave(viewer)
            task.get_loop().call_exception_handler(
                {
                    "message": "the dashboard's document could not be made",
                    "exception": task.exception(),
                    "task": task,
                }
            )
