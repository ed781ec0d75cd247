"""Replaying journals: the same events through fresh controllers must give the same commands.

And through the controllers of another policy, to see from when on it would have done something else.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from glowsim import build
from glowsim.core import journal
from glowsim.core.control_plane import ControlPlane
from glowsim.core.errors import GlowsimError
from glowsim.core.journal import files_of
from glowsim.core.reasons import Reason
from glowsim.core.streams import Streams
from glowsim.core.types import Command
from glowsim.experiment.effects import Told, effects
from glowsim.experiment.otherwise import Otherwise, otherwise
from glowsim.experiment.saying import said, what_happened
from glowsim.recordings import Recorded, recordings
from glowsim.reload import carried, differences
from glowsim.scenario import Scenario, format_duration, load

__all__ = ["POLICY", "Replayed", "Reloaded", "only_policy", "replay"]

POLICY = ("controllers", "slots", "timeout", "first_token_timeout", "health_check")
"""Of an agent, what decides; of the scenario it is ``controllers``. Everything else is the world."""


class Replayed(NamedTuple):
    """What replaying one journal showed."""

    path: Path
    records: int
    torn: bool
    """Whether a last frame was torn, and left out."""
    header: dict[str, Any]
    difference: journal.Difference | None
    """Where the recorded policy itself did not decide as it is recorded: then nothing is proved."""
    effects: Told
    followed: bool
    """Whether another segment follows that is not part of it, in which more may be told of its commands."""
    otherwise: Otherwise | None
    """How far another policy agrees; None: none was asked for, or nothing is proved."""

    @property
    def proved(self) -> bool:
        """Whether every command was equal and had its effect, once."""
        never = self.effects.never and not self.followed
        return self.difference is None and not never and not self.effects.again

    @property
    def agreed(self) -> bool:
        """Whether the other policy, if one was asked for, commanded the same all along."""
        return self.otherwise is None or self.otherwise.difference is None

    @property
    def text(self) -> str:
        """It in lines for a terminal."""
        torn = " (a torn last frame was left out)" if self.torn else ""
        if self.difference is None:
            lines = [f"{self.path}: {self.records:,} records, every command equal{torn}"]
        elif self.difference.state:
            number = f"{self.difference.number:,}"
            lines = [
                f"{self.path}: after event {number} a segment begins with another state than the one before ends{torn}"
            ]
        else:
            lines = [
                f"{self.path}: commands differ at event {self.difference.number:,}{torn}",
                f"  event:    {self.difference.event}",
                *(f"  recorded: {command}" for command in self.difference.recorded or ("nothing",)),
                *(f"  replayed: {command}" for command in self.difference.replayed or ("nothing",)),
            ]
        later = ", which a later segment may tell" if self.followed and self.effects.never else ""
        lines.append(f"  effects:  {self.effects}{later}")
        if self.otherwise is not None:
            lines += _lines(self.otherwise, self.header)
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """Return it as plain JSON data."""
        differs = self.difference
        return {
            "path": str(self.path),
            "records": self.records,
            "torn": self.torn,
            "proved": self.proved,
            "difference": differs
            and {
                "event_number": differs.number,
                "state": differs.state,
                "event": repr(differs.event),
                "recorded": [_command(each, self.header) for each in differs.recorded],
                "replayed": [_command(each, self.header) for each in differs.replayed],
            },
            "effects": self.effects._asdict(),
            "followed": self.followed,
            "policy": None if self.otherwise is None else _as_json(self.otherwise, self.header),
        }


class Reloaded(NamedTuple):
    """Another configuration took the place of the one before, in the middle of a daemon's journal."""

    path: Path
    segment: int
    proved: bool
    """Whether it began with the state that the one before led to."""
    differences: tuple[str, ...]
    """What is different, a line each."""

    @property
    def agreed(self) -> bool:
        """True: no other policy is asked about it."""
        return True

    @property
    def text(self) -> str:
        """It in lines for a terminal."""
        place = f"{self.path}: segment {self.segment}, another configuration"
        if not self.proved:
            return f"{place}, begins with another state than the one before leads to"
        return "\n".join([f"{place}, begins with the state that the one before leads to", *self.differences])

    def as_json(self) -> dict[str, Any]:
        """Return it as plain JSON data."""
        return self._asdict() | {"path": str(self.path)}


def only_policy(overrides: Sequence[str]) -> None:
    """Raise if an override changes anything but the policy: what else there is, the journal holds as it was.

    Raises
    ------
    GlowsimError
        It names what is no policy, and what is.

    >>> only_policy(["controllers.scaler.target=0.7", "fleet.tax.timeout=9s"])
    >>> only_policy(["seed=4"])
    Traceback (most recent call last):
        ...
    glowsim.core.errors.GlowsimError: -p seed=4: 'seed' is of the world, which the journal has recorded; a policy is \
controllers..., or of an agent: fleet.AGENT.controllers..., slots, timeout, first_token_timeout, health_check
    """
    for override in overrides:
        path = override.partition("=")[0].split(".")
        decides = (
            path[2] if path[0] == "fleet" and len(path) > 2 else path[0] if path[0] == "controllers" else ""
        )
        if decides not in POLICY:
            raise GlowsimError(
                f"-p {override}: {'.'.join(path)!r} is of the world, which the journal has recorded; a policy is "
                f"controllers..., or of an agent: fleet.AGENT.controllers..., {', '.join(POLICY[1:])}"
            )


def replay(
    source: Path, scenario: Scenario | None, policy: Sequence[str] = (), *, allow_plugins: bool = False
) -> Iterator[Replayed | Reloaded]:
    """Yield what replaying each journal of a run, or one journal, showed.

    Parameters
    ----------
    source
        The folder of a finished run, or a journal's file or folder.
    scenario
        For a journal by itself: what it was made with; a run and a daemon's journal bring their own.
    policy
        Overrides, ``key.path=value``, that make another policy, to see how far that agrees; none: nobody asks.
    allow_plugins
        Whether controllers may be code beside the scenario.

    Raises
    ------
    GlowsimError
        Not a run or journal, or one that was made with another scenario; or another policy is asked about one that
        lacks its beginning.
    ScenarioError
        The other policy is none.
    """
    only_policy(policy)
    found = recordings(source, scenario)
    recorded, before = next(found, None), None
    while recorded is not None:
        after = next(found, None)
        reloaded = after is not None and after.path == recorded.path
        replayed, plane = _one(recorded, policy, allow_plugins, reloaded=reloaded)
        yield replayed
        if before is not None:
            yield _change(*before, recorded, allow_plugins)
        before = (recorded, plane) if reloaded else None
        recorded = after


def _change(before: Recorded, plane: ControlPlane, after: Recorded, allow_plugins: bool) -> Reloaded:
    moved = carried(before.scenario, after.scenario, plane, allow_plugins=allow_plugins)
    head = after.recording.header
    same = json.dumps(moved.plane.snapshot(), sort_keys=True) == json.dumps(head["state"], sort_keys=True)
    lines = tuple(str(each) for each in differences(before.scenario, after.scenario))
    return Reloaded(after.path, head["segment"], same, lines)


def _one(
    recorded: Recorded, policy: Sequence[str], allow_plugins: bool, *, reloaded: bool
) -> tuple[Replayed, ControlPlane]:
    path, recording, scenario = recorded
    header = recording.header

    def plane(of: Scenario) -> ControlPlane:
        return build.control_plane(
            of,
            Streams(header["seed"], header["replication"]),
            allow_plugins=allow_plugins,
            fall_back=header["on_error"] == "fall back",
            advise="advice" in header,
        )

    other = None
    if policy:
        other = load(json.dumps(scenario.dump()) + "\n", policy, allow_plugins=allow_plugins, option="-p")
        if "state" in header:
            raise GlowsimError(
                f"{path} begins with segment {header['segment']}, in a state of the recorded policy; what another "
                "would have done is known from the first segment on"
            )
    same = plane(scenario)
    difference = journal.first_difference(recording, same)
    agrees = None
    if other is not None and difference is None:
        agrees = otherwise(recording, plane(scenario), plane(other))
    followed = reloaded or path in files_of(path.parent)[:-1]
    replayed = Replayed(
        path, len(recording), recording.torn, header, difference, effects(recording), followed, agrees
    )
    return replayed, same


def _lines(found: Otherwise, header: dict[str, Any]) -> list[str]:
    reasons = f", {found.other_reasons:,} of them for another reason" if found.other_reasons else ""
    alerts = (
        ""
        if found.alerts == (0, 0)
        else f"; alerts: {found.alerts[0]:,} recorded, {found.alerts[1]:,} otherwise"
    )
    agreed = (
        f"{_part(found.events, found.of_events)} events, {_part(found.requests, found.of_requests)} requests, "
        f"{found.commands:,} commands the same{reasons}{alerts}"
    )
    differs = found.difference
    if differs is None:
        return [f"  policy:   no difference up to the last event, at {_moment(found.whole_s)}: {agreed}"]
    share = f" ({_percent(differs.t_s / found.whole_s)} of the time)" if found.whole_s else ""
    return [
        f"  policy:   agrees before {_moment(differs.t_s)}{share}: {agreed}",
        f"  then:     {what_happened(differs.event, header)}",
        *(f"  recorded: {said(command, header)}" for command in differs.recorded),
        *([] if differs.recorded else ["  recorded: nothing"]),
        *(f"  instead:  {said(command, header)}" for command in differs.otherwise),
        *([] if differs.otherwise else ["  instead:  nothing"]),
        "  What came after that was answered to the recorded policy: of the other one this journal says no more.",
    ]


def _part(n: int, of: int) -> str:
    return f"{n:,} of {of:,}" + (f" ({_percent(n / of)})" if of else "")


def _percent(share: float) -> str:
    return f"{100.0 * share:.3g} %"


def _moment(t_s: float) -> str:
    return f"{t_s:.6g} s" if t_s < 3600.0 else f"{t_s:.9g} s ({format_duration(round(t_s))})"


def _command(command: Command, header: dict[str, Any]) -> dict[str, Any]:
    reason = next((part for part in command if isinstance(part, Reason)), None)
    return {
        "kind": type(command).__name__,
        "says": said(command, header),
        "reason": None if reason is None else reason.code.name.lower(),
    }


def _as_json(found: Otherwise, header: dict[str, Any]) -> dict[str, Any]:
    differs = found.difference
    return {
        "agrees": differs is None,
        "until_s": found.until_s,
        "of_s": found.whole_s,
        "events": found.events,
        "of_events": found.of_events,
        "requests": found.requests,
        "of_requests": found.of_requests,
        "commands": found.commands,
        "other_reasons": found.other_reasons,
        "alerts": {"recorded": found.alerts[0], "otherwise": found.alerts[1]},
        "difference": differs
        and {
            "t_s": differs.t_s,
            "event": what_happened(differs.event, header),
            "recorded": [_command(each, header) for each in differs.recorded],
            "otherwise": [_command(each, header) for each in differs.otherwise],
        },
    }
