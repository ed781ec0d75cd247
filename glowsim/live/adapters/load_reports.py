"""Load reports: what instances say of their own load, read from their Prometheus metrics.

The names are vLLM's (``vllm/v1/metrics/loggers.py``; before version 1 the cache's was ``gpu_cache_usage_perc``);
other servers that use them are read alike. A report is as old as the poll that brought it, and none is a report
too: nan, told once, when an instance stops telling.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Mapping
from math import fsum, isfinite, nan
from typing import NamedTuple

import aiohttp

from glowsim.core.types import Reported, Signal
from glowsim.live.calls import InstanceError

__all__ = ["LoadReports", "Metered", "signals_in"]

_log = logging.getLogger(__name__)
_LONGEST_BODY = 4 * 1024 * 1024
_LONGEST_LINE = 16 * 1024
_MOST_REQUESTS = 1e9
_AT_ONCE = 64
_NAMES = {
    b"vllm:num_requests_running": Signal.RUNNING,
    b"vllm:num_requests_waiting": Signal.WAITING,
    b"vllm:kv_cache_usage_perc": Signal.CACHE_USED,
}
_OLDER = {b"vllm:gpu_cache_usage_perc": Signal.CACHE_USED}
"""Read where the newer name is not there: some versions have both."""
_OURS = re.compile(rb"(?:%s)(?=[{ \t])" % b"|".join([*_NAMES, *_OLDER]))
_LABEL = rb'[ \t]*[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\]|\\.)*"[ \t]*'
_SAMPLE = re.compile(
    rb"[a-z_:]+(?:\{(?:%s(?:,%s)*,?)?[ \t]*\})?" % (_LABEL, _LABEL)
    + rb"[ \t]+(?P<value>[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?)(?:[ \t]+-?[0-9.eE+]+)?[ \t\r]*"
)


class Metered(NamedTuple):
    """An instance that has metrics.

    >>> Metered(0, "http://127.0.0.1:8000/metrics").agent
    0
    """

    agent: int
    url: str
    """Of its metrics."""


def signals_in(text: bytes) -> dict[Signal, tuple[float, int]]:
    r"""Return (value, series it was made from) of every signal that a Prometheus text holds.

    The engines of one server have a series each: of requests the sum is told, of the cache the mean, since they
    have equal caches.

    Parameters
    ----------
    text
        In the text format, version 0.0.4 or OpenMetrics; lines of other metrics are passed over unread.

    Raises
    ------
    InstanceError
        A line of these metrics is too long, or no sample: ``name{labels} value [timestamp]`` with a value from 0
        to 1 for the cache and to 1e9 for requests.

    >>> metrics = b'vllm:num_requests_running{engine="0"} 3\nvllm:num_requests_running{engine="1"} 4.0\n'
    >>> signals_in(metrics)
    {<Signal.RUNNING: 0>: (7.0, 2)}
    """
    series: dict[bytes, list[float]] = {}
    for line in text.split(b"\n"):
        ours = _OURS.match(line)
        if ours is not None:
            series.setdefault(ours[0], []).append(_value(line, (_NAMES | _OLDER)[ours[0]]))
    found = {}
    for name, signal in (_OLDER | _NAMES).items():  # the newer name comes last, and holds
        values = series.get(name)
        if values:
            total = fsum(values)
            found[signal] = (total / len(values) if signal == Signal.CACHE_USED else total, len(values))
    return found


def _value(line: bytes, signal: Signal) -> float:
    """Return the value of a sample."""
    sample = _SAMPLE.fullmatch(line) if len(line) <= _LONGEST_LINE else None
    value = nan if sample is None else float(sample["value"])
    if not value <= (1.0 if signal == Signal.CACHE_USED else _MOST_REQUESTS):
        raise InstanceError(f"its metrics hold a line that is no sample: {line[:120]!r}")
    return value


class LoadReports:
    """Polls the metrics of instances and tells them as `Reported` events.

    Every poll asks all instances at once, 64 at a time, and ends before the next begins. An instance that does
    not answer in time, or answers what cannot be read, is missing in that poll: each of its signals is told as
    nan once, and again as a number when it is back. A signal that it never had is told as nan once.

    Parameters
    ----------
    session
        For the polls.
    instances
        Says which instances are to be asked now, by number; one that is not there any more is forgotten.
    tell
        Takes the events: `Driver.tell`.
    now_s
        The journal's time: `Driver.now_s`.
    report_every_s
        Seconds from one poll to the next, above 0.
    timeout_s
        Seconds, above 0, that an instance has for its answer; never more than ``report_every_s``.

    Raises
    ------
    ValueError
        A number of seconds is not above 0.
    """

    def __init__(
        self, session: aiohttp.ClientSession, *, instances: Callable[[], Mapping[int, Metered]],
        tell: Callable[[Reported], None], now_s: Callable[[], float], report_every_s: float = 5.0,
        timeout_s: float = 2.0,
    ) -> None:  # fmt: skip
        for name, seconds in (("report_every_s", report_every_s), ("timeout_s", timeout_s)):
            if not (seconds > 0.0 and isfinite(seconds)):
                raise ValueError(f"{name}: {seconds} is not a number of seconds above 0")
        self._session = session
        self._instances = instances
        self._tell = tell
        self._now_s = now_s
        self._every_s = report_every_s
        self._limits = aiohttp.ClientTimeout(total=min(timeout_s, report_every_s))
        self._at_once = asyncio.Semaphore(_AT_ONCE)
        self._missing: dict[int, set[Signal]] = {}
        """Instance -> what was told to be missing."""
        self._failing: set[int] = set()
        self.errors = 0
        """Polls of an instance that brought nothing that can be read."""

    async def run(self) -> None:
        """Poll until cancelled; a poll that took longer than its time delays the next, and none is made up for."""
        loop = asyncio.get_running_loop()
        due_s = loop.time()
        while True:
            await self.poll()
            due_s = max(due_s + self._every_s, loop.time())
            await asyncio.sleep(due_s - loop.time())

    async def poll(self) -> None:
        """Ask every instance once, and tell what they say as they say it."""
        asked = dict(self._instances())
        self._missing = {number: said for number, said in self._missing.items() if number in asked}
        self._failing &= asked.keys()
        await asyncio.gather(*(self._ask(number, metered) for number, metered in asked.items()))

    async def _ask(self, number: int, metered: Metered) -> None:
        async with self._at_once:
            sampled_at_s = self._now_s()  # what it says is not older than this
            found: dict[Signal, tuple[float, int]] = {}
            try:
                found = signals_in(await self._read(metered.url))
            except (aiohttp.ClientError, TimeoutError, OSError, InstanceError, ValueError) as error:
                self.errors += 1
                level = (
                    logging.DEBUG if number in self._failing else logging.WARNING
                )  # one that is down says it once
                _log.log(level, "instance %d gave no load report: %r", number, error)
                self._failing.add(number)
            else:
                self._failing.discard(number)
        if number not in self._instances():
            return  # it went away meanwhile
        told_missing = self._missing.setdefault(number, set())
        for signal in Signal:
            value, n = found.get(signal, (nan, 0))
            if n == 0 and signal in told_missing:
                continue
            (told_missing.discard if n else told_missing.add)(signal)
            self._tell(Reported(self._now_s(), metered.agent, number, signal, value, sampled_at_s, n))

    async def _read(self, url: str) -> bytes:
        async with self._session.get(url, timeout=self._limits, allow_redirects=False) as response:
            if response.status != 200:
                raise InstanceError(f"{url} answered with status {response.status}")
            read = bytearray()
            async for chunk in response.content.iter_any():
                read += chunk
                if len(read) > _LONGEST_BODY:
                    raise InstanceError(f"the metrics at {url} are longer than {_LONGEST_BODY} bytes")
            return bytes(read)
