"""Listens to a log that grows: reads what is new, has it told, writes it down."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

from glowsim.live.advice.advisor import Advisor
from glowsim.live.advice.fleet import Agents
from glowsim.live.advice.recommendations import Recommendations
from glowsim.live.advice.rows import LAST, Call, Rows
from glowsim.live.advice.tail import Tail

__all__ = ["Listener", "LogFile"]

_log = logging.getLogger(__name__)
_TOO_MANY: Final = 10
"""Of the last 100 rows: with more that cannot be read, what they leave out could turn advice round."""
_FEW: Final = 5
"""With no more than that, the log is believed again."""


class LogFile:
    """A log as calls.

    Parameters
    ----------
    path
        The file.
    layout
        Its format; None: it is recognised.

    Raises
    ------
    LogError
        It is not there, or cannot be followed, or there is no such format.
    """

    def __init__(self, path: Path, layout: str | None) -> None:
        self.path = path
        self.rows = Rows(path, layout)
        self.tail = Tail(path)

    def read(self) -> list[Call]:
        """Return the calls of what is new, of a quarter of a megabyte at most."""
        return [call for line in self.tail.read() for call in self.rows.calls(line)]

    @property
    def all_read(self) -> bool:
        """Whether the last reading came to the end."""
        return self.tail.at_end


class Listener:
    """Has an advisor told what a log says.

    Parameters
    ----------
    log
        The log; None: there are load reports only, and time passes.
    advisor
        Is told.
    agents
        Whose a call is.
    recommendations
        Are told that time has passed.
    epoch_unix_s
        When the journal's time begins, in seconds since 1970.
    now_s
        Returns what time it is, in the journal's time.
    """

    def __init__(
        self, log: LogFile | None, advisor: Advisor, agents: Agents, recommendations: Recommendations,
        *, epoch_unix_s: float, now_s: Callable[[], float],
    ) -> None:  # fmt: skip
        self._log = log
        self._advisor = advisor
        self._agents = agents
        self._recommendations = recommendations
        self._epoch_unix_s = epoch_unix_s
        self._now_s = now_s
        self.failed = asyncio.Event()
        """Set when it cannot go on."""
        self.error: Exception | None = None
        """Why."""

    def take(self, calls: Iterable[Call]) -> None:
        """Have calls told in their time; those of no agent of the scenario are counted."""
        now_s = self._now_s()
        for call in calls:
            number = self._agents.of(call)
            if number is not None:
                self._advisor.call(number, call, self._epoch_unix_s, now_s)

    def look(self) -> None:
        """Read all that is new, tell what is due, write it down."""
        while self._step():
            pass

    async def follow(self, every_s: float) -> None:
        """Look again and again; whatever is raised is in ``error``."""
        try:
            while True:
                while self._step():
                    await asyncio.sleep(0)  # whoever looks at the pages gets a turn
                await asyncio.sleep(every_s)
        except Exception as error:  # noqa: BLE001  whatever it is, the daemon ends and says so
            self.error = error
            self.failed.set()

    def _step(self) -> bool:
        """Take in a piece of the log; False: there is no more now."""
        log = self._log
        if log is not None:
            calls = log.read()
            self._judge(log)
            self.take(calls)
        all_read = log is None or log.all_read
        self._advisor.go_on(self._now_s(), all_read=all_read)
        self._recommendations.turn(self._advisor.now_s)
        if all_read:
            self._advisor.flush()
        return not all_read

    def _judge(self, log: LogFile) -> None:
        """Have nothing recommended while too much of the log cannot be read."""
        unreadable, silence = log.rows.unreadable, self._recommendations.silence
        if silence is None and unreadable > _TOO_MANY:
            why = f"{unreadable} of the last {LAST} rows of {log.path} cannot be read"
            self._recommendations.be_silent(self._now_s(), why)
            _log.warning("nothing is recommended any more: %s", why)
        elif silence is not None and unreadable <= _FEW:
            self._recommendations.speak()
            _log.warning(
                "recommendations go on after %.0f s: %d of the last %d rows of %s cannot be read",
                self._now_s() - silence.t_s, unreadable, LAST, log.path,
            )  # fmt: skip

    def heard(self) -> dict[str, Any]:
        """Return what was read and how it was taken, as plain JSON data."""
        log, strangers = self._log, self._agents.strangers
        silence = self._recommendations.silence
        return {
            "silent": None if silence is None else silence.as_json(self._epoch_unix_s),
            "log": None if log is None else str(log.path),
            "format": None if log is None else log.rows.format,
            "rows": {
                **({} if log is None else log.rows.counts), **self._advisor.counts,
                "strangers": sum(strangers.values()), "cut": 0 if log is None else log.tail.cut,
            },
            "strangers": dict(strangers.most_common(10)),
            "rotations": 0 if log is None else log.tail.rotations,
            "behind_s": round(max(self._now_s() - self._advisor.now_s, 0.0), 3),
        }  # fmt: skip
