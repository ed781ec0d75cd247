"""What goes wrong in a scenario, in words."""

from __future__ import annotations

from typing import Final

from glowsim.report.numbers import exact
from glowsim.scenario.fleet import (
    BrownOut,
    Crash,
    Errors,
    Fault,
    Garbage,
    Hang,
    Late,
    Refuse,
    RegionLoss,
    ServerDown,
    ServerSlow,
    Silence,
    Slow,
    SlowStart,
    Throttle,
    Tools,
)  # fmt: skip

__all__ = ["label", "said"]

_LABELS: Final = {
    "crash": "crash",
    "slow": "slow instances",
    "errors": "errors",
    "brown_out": "brown-out",
    "refuse": "refused connections",
    "hang": "hanging instances",
    "throttle": "throttling",
    "garbage": "garbage answers",
    "slow_start": "slow starts",
    "tools": "failing tools",
    "server_slow": "slow model server",
    "server_down": "model server down",
    "region_loss": "lost region",
    "late": "late metrics",
    "silence": "lost metrics",
}


def label(fault: Fault) -> str:
    """Return the few words that stand in a picture: the kind, without a user's names.

    >>> label(BrownOut(kind="brown_out", agent="tax", at="60s", lasts="8s", factor=10))
    'brown-out'
    """
    return _LABELS[fault.kind]


def said(fault: Fault) -> str:
    """Return what a fault does, to whom and when.

    >>> said(BrownOut(kind="brown_out", agent="tax", at="60s", lasts="8s", factor=10))
    'brown-out: all of tax 10 times slower, at 60 s for 8 s'
    """
    when = f"at {exact(fault.at_s, 'duration')} for {exact(fault.lasts_s, 'duration')}"
    return f"{label(fault)}: {_what(fault)}, {when}"


def _what(fault: Fault) -> str:
    match fault:
        case ServerSlow():
            return f"{_some(fault.replicas, 'replica')} of {fault.server} {fault.factor:g} times slower"
        case ServerDown():
            verb = _verb(fault.replicas, "is gone", "are gone")
            return f"{_some(fault.replicas, 'replica')} of {fault.server} {verb}"
        case RegionLoss():
            return f"every instance and model server in {fault.region} is gone"
        case Crash():
            return f"{_some(fault.instances)} of {fault.agent} {_verb(fault.instances, 'dies', 'die')}"
        case Slow():
            return f"{_some(fault.instances)} of {fault.agent} {fault.factor:g} times slower"
        case BrownOut():
            return f"all of {fault.agent} {fault.factor:g} times slower"
        case Errors():
            return f"{exact(fault.error, 'fraction')} of the attempts on {fault.agent} fail"
        case Refuse():
            verb = _verb(fault.instances, "refuses", "refuse")
            return f"{_some(fault.instances)} of {fault.agent} {verb} connections"
        case Hang():
            verb = _verb(fault.instances, "never answers", "never answer")
            return f"{_some(fault.instances)} of {fault.agent} {verb}"
        case Throttle():
            return f"{exact(fault.share, 'fraction')} of the attempts on {fault.agent} put off (429)"
        case Garbage():
            verb = _verb(fault.instances, "answers", "answer")
            return f"{_some(fault.instances)} of {fault.agent} {verb} quickly and wrongly"
        case SlowStart():
            return f"starts of {fault.agent} take {fault.factor:g} times as long"
        case Tools():
            fails = f"{exact(fault.fails, 'fraction')} more uses fail" if fault.fails else ""
            slow = f"take {fault.factor:g} times as long" if fault.factor != 1.0 else ""
            return f"tools of {fault.agent}: {', '.join(filter(None, (fails, slow))) or 'as usual'}"
        case Late():
            return f"results of probes of {fault.agent} come {exact(fault.by_s, 'duration')} late"
        case Silence():
            return f"probes of {fault.agent} go unheard"


def _some(count: int, what: str = "instance") -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _verb(instances: int, one: str, more: str) -> str:
    return one if instances == 1 else more
