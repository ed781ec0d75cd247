"""``glowsim run --watch``: a replication in progress on the dashboard's page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from math import floor, inf, log10
from threading import Event
from typing import TYPE_CHECKING

import typer

from glowsim.commands.common import stop

if TYPE_CHECKING:
    from glowsim.live.dashboard.simulation import Simulation
    from glowsim.scenario import Scenario

__all__ = ["speed_of", "stay", "watching"]

_LOOPBACK = "127.0.0.1"
_SHOWN_IN_S = 60.0
_FASTEST = 1e12


def speed_of(text: str | None, duration_s: float) -> float:
    """Return simulated seconds a real second; by default a round figure with which the run takes about a minute.

    Parameters
    ----------
    text
        ``10x``, ``10``, ``0.5x`` or ``max``; None: the default.
    duration_s
        Of the scenario.

    >>> speed_of("10x", 60.0), speed_of("max", 60.0), speed_of(None, 600.0), speed_of(None, 30 * 86400.0)
    (10.0, inf, 10.0, 50000.0)
    """
    if text == "max":
        return inf
    if text is not None:
        if (
            not re.fullmatch(r"\d+(\.\d+)?x?", text)
            or not 0.0 < (speed := float(text.removesuffix("x"))) <= _FASTEST
        ):
            stop(f"--speed {text!r}: write how many times real time, such as 10x or 0.5x, or max")
        return speed
    least = max(duration_s / _SHOWN_IN_S, 1.0)
    ten = 10.0 ** floor(log10(least))
    return next(ten * step for step in (1.0, 2.0, 5.0, 10.0) if ten * step >= least)


@contextmanager
def watching(scenario: Scenario, speed: float, port: int) -> Iterator[Simulation]:
    """Yield what watches a run of a scenario and serves the page, whose address is printed.

    Parameters
    ----------
    scenario
        What is run.
    speed
        Simulated seconds a real second, above 0; infinity: as fast as it goes.
    port
        On loopback; 0: chosen by the system.

    Raises
    ------
    SettingsError
        The port is in use.
    """
    from glowsim.live.dashboard.simulation import Simulation
    from glowsim.live.sockets import address_of, listening

    where = listening(_LOOPBACK, port)
    simulation = Simulation(scenario, where, speed=speed)
    pace = "as fast as it goes" if speed == inf else f"{speed:g} times real time"
    typer.echo(f"glowsim shows {address_of(_LOOPBACK, where)} ({pace})", err=True)
    try:
        yield simulation
    finally:
        simulation.close()


def stay() -> None:
    """Wait for Ctrl-C."""
    typer.echo("the page stays until Ctrl-C", err=True)
    try:
        Event().wait()
    except KeyboardInterrupt:
        typer.echo(err=True)
