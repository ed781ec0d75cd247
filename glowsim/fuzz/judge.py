"""Runs a scenario and holds everything against it that must be true of every run."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from math import fsum, isclose
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import glowsim
from glowsim import build, results
from glowsim import ledger as bills
from glowsim.core.checker import Violation, check, ledger, repeats, replays, restores, wakes
from glowsim.core.control_plane import ControlPlane
from glowsim.core.errors import ControllerError, WorldError
from glowsim.core.price import Price
from glowsim.core.streams import Streams
from glowsim.core.types import Arrived
from glowsim.fuzz.dice import Dice
from glowsim.fuzz.facts import facts_of
from glowsim.scenario import Scenario

__all__ = ["Failure", "judge"]

_ROUNDING = 1e-9
_RESTARTS = 2


class Failure(NamedTuple):
    """Something that must not be.

    Args:
        kind: which invariant, or which exception and where it was raised; what shrinking keeps.
        message: one sentence with the numbers.
    """

    kind: str
    message: str


def judge(data: dict[str, Any], *, allow_plugins: bool = False) -> Failure | None:
    """Return the first thing that is wrong with a scenario's run, or None.

    An exception out of the control plane or the world is a failure. The journal is walked by the checker (I1
    to I6, I10 to I12, I14); no timer may be passed by (I2); a fresh control plane must give the same commands
    (I9), from snapshots at random records as well (I13); a second run must be the first again (I8); the
    tables must cost the sum of usage times price (I7), keep Little's law and end every request once; the bill
    must be the sum of its parts, and what the model servers did be on it, but for calls that failed.

    Parameters
    ----------
    data
        A scenario in YAML spelling.
    allow_plugins
        Whether controllers may be code beside the scenario.

    Raises
    ------
    pydantic.ValidationError
        The data is no scenario.
    """
    scenario = Scenario.model_validate(data)
    try:
        return next(_failures(scenario, _run(scenario, allow_plugins), allow_plugins), None)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the finding
        return _raised(error)


def _run(scenario: Scenario, allow_plugins: bool) -> build.Replication:
    made = build.replication(scenario, 0, allow_plugins=allow_plugins)
    made.world.start()
    made.world.run(scenario.duration_s + scenario.drain_s)
    return made


def _raised(error: Exception) -> Failure:
    """Return an exception as a failure, named by its type and the function of ours that raised it."""
    cause = error.__cause__ if isinstance(error, ControllerError | WorldError) and error.__cause__ else error
    root = str(Path(glowsim.__file__).parent.parent)
    ours = [frame for frame in traceback.extract_tb(cause.__traceback__) if frame.filename.startswith(root)]
    place = f"{Path(ours[-1].filename).stem}.{ours[-1].name}" if ours else "nowhere"
    notes = " ".join(getattr(error, "__notes__", ()))
    return Failure(f"{type(cause).__name__} in {place}", f"{error} {notes}".strip())


def _failures(scenario: Scenario, made: build.Replication, allow_plugins: bool) -> Iterator[Failure]:
    recording = made.journal.recording()

    def plane() -> ControlPlane:
        return build.control_plane(scenario, Streams(scenario.seed), allow_plugins=allow_plugins)

    tables = results.fold(recording, scenario)
    dice = Dice(scenario.seed)
    places = [dice.whole(0, len(recording)) for _ in range(_RESTARTS)]
    checks: tuple[Callable[[], list[Violation]], ...] = (
        lambda: check(recording, facts_of(scenario, allow_plugins=allow_plugins)),
        lambda: wakes(recording, plane),
        lambda: replays(recording, plane),
        lambda: [each for at in places for each in restores(recording, plane, at)],
        lambda: repeats(recording, _run(scenario, allow_plugins).journal.recording()),
        lambda: ledger(recording, _prices(scenario), _billed_usd(tables)),
    )
    for found in checks:
        for invariant, t_s, number, message in found():
            yield Failure(invariant, f"{message} (t = {t_s} s, record {number})")
    yield from _accounts(tables, len(recording.table(Arrived)))
    yield from _bill(tables, scenario)
    if made.world.stopped:
        yield from _served(tables, scenario, made)


def _prices(scenario: Scenario) -> dict[int, Price]:
    return {number: each.price for number, each in enumerate(scenario.models.values())}


def _billed_usd(tables: results.Tables) -> dict[int, float]:
    """Return what the tables say that each agent's tokens cost."""
    agents, costs = tables.requests["agent"], tables.requests["cost_usd"]
    return {int(agent): fsum(costs[agents == agent]) for agent in np.unique(agents)}


def _accounts(tables: results.Tables, arrived: int) -> Iterator[Failure]:
    """Yield what does not add up in the tables."""
    mean_open, rate_times_latency = results.little(tables)
    if not isclose(mean_open, rate_times_latency, rel_tol=_ROUNDING, abs_tol=_ROUNDING):
        yield Failure(
            "Little", f"{mean_open} open on average, but rate times latency is {rate_times_latency}"
        )
    found = results.figures(tables)
    ends = {end: found[end] for end in ("completed", "rejected", "failed", "abandoned", "open")}
    if not found["launched"] == arrived == fsum(ends.values()):
        yield Failure("accounts", f"{arrived} arrived, {found['launched']} launched, and ended as {ends}")
    for table, names in (
        (tables.samples, ("open", "waiting", "in_flight", "ready", "starting")),
        (tables.requests, ("wait_s", "latency_s")),
    ):
        for name in names:
            if (table[name] < 0).any():
                yield Failure("accounts", f"{name} falls to {np.nanmin(table[name])}")


def _bill(tables: results.Tables, scenario: Scenario) -> Iterator[Failure]:
    parts_usd, bill_usd = bills.ledger(tables, scenario).total_usd, results.figures(tables)["cost_usd"]
    if not isclose(parts_usd, bill_usd, rel_tol=_ROUNDING, abs_tol=_ROUNDING):
        yield Failure("bill", f"the parts of the bill are {parts_usd} USD, and it is {bill_usd} USD")


def _served(tables: results.Tables, scenario: Scenario, made: build.Replication) -> Iterator[Failure]:
    """Yield what model servers did for nobody, or what was done by nobody."""
    agents = list(scenario.agents().values())
    in_steps = [number for number, agent in enumerate(agents) if agent.service.law == "steps"]
    told = all(agents[number].cancellable for number in in_steps)
    if not told or any(fault.kind == "garbage" for fault in scenario.faults):
        return  # some of what is done for a request that is gone, or made up, is on no server
    attempts, requests = tables.attempts, tables.requests
    order = np.argsort(requests["request_id"], kind="stable")
    row = order[np.searchsorted(requests["request_id"][order], attempts["request_id"])]
    mine = np.isin(requests["agent"][row], in_steps)
    failed = any(each.failed for each in made.world.servers)
    for name in ("tokens_in", "tokens_cached", "tokens_out"):
        said, done = int(attempts[name][mine].sum()), sum(getattr(each, name) for each in made.world.servers)
        if said > done or (said < done and not failed):  # a call that fails is not billed
            yield Failure("served", f"attempts say {said} {name}, and the servers {done}")
