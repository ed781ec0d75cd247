"""One replication of a scenario, simulated or sent to a real gateway, to the same figures."""

from __future__ import annotations

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from glowsim import build, results
from glowsim.core import journal
from glowsim.core.errors import GlowsimError
from glowsim.load import records
from glowsim.load.faces import FACES
from glowsim.load.generator import Generator, User
from glowsim.load.http import opened
from glowsim.results import Table
from glowsim.scenario import Scenario

__all__ = ["URGENT", "figures", "sent", "simulated"]

URGENT: Final = 0
"""The priority of urgent requests."""
_ANSWERED: Final = 1
_AT_ONCE: Final = 128
_MOST_IN_FLIGHT: Final = 2_000


def simulated(scenario: Scenario, number: int) -> Table:
    """Return the requests of a simulated replication."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "journal.glow"
        built = build.replication(scenario, number, journal_path=path)
        built.world.start()
        built.world.run(scenario.duration_s + scenario.drain_s)
        return results.fold(journal.read(path), scenario).requests


def sent(scenario: Scenario, number: int, url: str) -> tuple[Table, float]:
    """Send a replication's requests to a gateway; return them, and how late the 99th of 100 was sent, in seconds.

    They are those of the simulated replication, at the same moments, and are timed from when they were due.

    Raises
    ------
    GlowsimError
        Nothing was sent, or the target is not what it should be.
    """
    rows, took_s = asyncio.run(_sent(scenario, number, url))
    late_s = (rows["t_sent_s"] - rows["t_arrive_s"])[~np.isnan(rows["t_sent_s"])]
    if not len(late_s):
        raise GlowsimError(f"{url}: no request was sent")
    return records.tables(rows, scenario, took_s).requests, float(np.quantile(late_s, 0.99))


async def _sent(scenario: Scenario, number: int, url: str) -> tuple[npt.NDArray[Any], float]:
    sources = build.sources(scenario, number, at_once=_AT_ONCE)
    users = [User(name, agent.timeout_s) for name, agent in scenario.agents().items()]
    async with opened(url, FACES["chat"], None, scenario.regions) as target:
        generator = Generator(
            sources, users, target, until_s=scenario.duration_s, drain_s=scenario.drain_s,
            most_in_flight=_MOST_IN_FLIGHT,
        )  # fmt: skip
        took_s = await generator.run()
        return generator.records.rows, took_s


def figures(requests: Table, scenario: Scenario, within_s: float) -> dict[str, float]:
    """Return the figures of a replication that the campaign compares; nan where there is none.

    Parameters
    ----------
    requests
        As either world leaves them.
    scenario
        What was run.
    within_s
        Of ``share_within``: the share of all requests that was answered so soon.
    """
    answered = requests["ending"] == _ANSWERED
    latency_s = requests["latency_s"]
    first_s = (requests["t_first_token_s"] - requests["t_arrive_s"])[answered]
    in_time = answered & (requests["t_end_s"] <= scenario.duration_s)
    urgent = requests["priority"] == URGENT
    return {
        "requests": float(len(answered)),
        "success": float(answered.mean()) if len(answered) else np.nan,
        "throughput_per_s": float(in_time.sum()) / scenario.duration_s,
        "share_within": float((answered & (latency_s <= within_s)).mean()) if len(answered) else np.nan,
        "latency_s_p50": _quantile(latency_s[answered], 0.5),
        "latency_s_p95": _quantile(latency_s[answered], 0.95),
        "first_token_s_p50": _quantile(first_s[~np.isnan(first_s)], 0.5),
        "urgent_s_p95": _quantile(latency_s[answered & urgent], 0.95),
        "others_s_p95": _quantile(latency_s[answered & ~urgent], 0.95),
    }


def _quantile(values: npt.NDArray[Any], q: float) -> float:
    return float(np.quantile(values, q)) if len(values) else np.nan
