"""How fast a simulation in progress goes on, by somebody's wish and as far as the machine can."""

from __future__ import annotations

from math import inf

__all__ = ["Pace"]

FRAME_S = 0.05
"""A simulation goes on in stretches of about so many real seconds: how soon it heeds a wish."""
_SOON_S = 1e-4
"""Nobody waits for less."""
_IDLE_S = 0.5
"""Longest wait at a time."""


class Pace:
    """Says how far to simulate next, and when: simulated time is not ahead of real time at the speed that is wished.

    A machine that cannot keep up is slower, and does not race afterwards to make up for it. No clock is read here.

    Parameters
    ----------
    speed
        Simulated seconds a real second, above 0; infinity: as fast as it goes.

    Examples
    --------
    >>> pace = Pace(10.0)
    >>> pace.step(0.0, now_s=0.0)
    (0.5, 0.0)
    >>> pace.step(0.5, now_s=0.0)
    (None, 0.05)
    >>> pace.step(0.5, now_s=0.05)
    (1.0, 0.0)
    """

    def __init__(self, speed: float) -> None:
        self.speed = speed
        """May be changed at any time, as may ``paused``."""
        self.paused = False
        self._wish: tuple[float, bool] | None = None
        self._from_s = (0.0, 0.0)
        """A moment in real and in simulated seconds, from which on the speed holds."""
        self._given: tuple[float, float] | None = None
        """When the latest stretch was given, in real seconds, and how long it was in simulated ones."""
        self._longest_s = 1.0
        """Simulated seconds that the machine is thought to manage in a frame."""

    def step(self, t_s: float, *, now_s: float) -> tuple[float | None, float]:
        """Return (until when to simulate, 0), or (None, how long to wait at most before asking again).

        Parameters
        ----------
        t_s
            The simulated time.
        now_s
            The real time, on any clock that does not run back.
        """
        if self._given is not None:
            begun_s, stretch_s = self._given
            took_s = now_s - begun_s
            if took_s > 2.0 * FRAME_S:
                self._longest_s = stretch_s / 2.0
            elif took_s < FRAME_S / 2.0:
                self._longest_s = stretch_s * 2.0
            self._given = None
        wish = self.speed, self.paused
        if wish != self._wish:
            self._wish, self._from_s = wish, (now_s, t_s)
        speed, paused = wish
        if paused:
            return None, _IDLE_S
        due_s = self._from_s[0] + (t_s - self._from_s[1]) / speed
        if due_s - now_s > _SOON_S:
            return None, min(due_s - now_s, _IDLE_S)
        if now_s > due_s + FRAME_S:
            self._from_s = (now_s, t_s)
        stretch_s = self._longest_s if speed == inf else min(self._longest_s, speed * FRAME_S)
        self._given = now_s, stretch_s
        return t_s + stretch_s, 0.0
