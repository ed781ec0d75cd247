"""What an advisor recommends: one entry for each thing to do, with its reason and its evidence, until it is over.

A controller says the same again and again while nothing is done about it; here that is one recommendation with a
count, from when it first held to when it no longer does.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from math import isinf, isnan
from typing import Any, Final, Literal

from glowsim.certification.envelope import FIGURES, Bounds
from glowsim.core.instance import UNLIMITED
from glowsim.core.reasons import Code, sentence
from glowsim.core.types import (
    Advised,
    Alert,
    Arrived,
    Command,
    Dispatch,
    Event,
    Finished,
    Outcome,
    Raise,
    Reported,
    Severity,
    Signal,
)
from glowsim.live.telemetry import Telemetry
from glowsim.live.windows import quantiles_s

__all__ = ["Kind", "Recommendation", "Recommendations", "Silence"]

Kind = Literal["scale", "refuse", "breaker", "alert", "envelope"]
_KEPT: Final = 1000
_SHOWN: Final = 100
_OVER_AFTER_S: Final = 300.0
"""A thing that only happens, and is never taken back, is over when it has not happened for so long."""
_ENDS: Final = 20
"""Ends of an instance's attempts that are evidence about it."""
_MINUTE: Final = 0
"""Of `glowsim.live.windows.WINDOWS`."""


@dataclass(eq=False)
class Recommendation:
    """Something that its controllers would have done, were they in charge."""

    number: int
    t_s: float
    """When it first held."""
    last_s: float
    """When it was last said."""
    agent: str
    kind: Kind
    advice: str
    why: str
    evidence: dict[str, Any] = field(default_factory=dict)
    times: int = 1
    """How often it was said: of a refusal, the requests that it would have met."""
    over_s: float | None = None
    """When it no longer held; None: it stands."""
    said: bool = True
    """Whether anybody was told: not if it began in a silence that lasts."""

    def as_json(self, epoch_unix_s: float) -> dict[str, Any]:
        """Return it as plain JSON data, with dates."""
        return {
            "number": self.number, "agent": self.agent, "kind": self.kind, "advice": self.advice, "why": self.why,
            "since": _date(epoch_unix_s + self.t_s), "last": _date(epoch_unix_s + self.last_s), "times": self.times,
            "over": None if self.over_s is None else _date(epoch_unix_s + self.over_s), "evidence": self.evidence,
        }  # fmt: skip

    def line(self, epoch_unix_s: float) -> str:
        """Return it on one line, for a person: what is to be done, or that it is over."""
        if self.over_s is not None:
            times = "" if self.times == 1 else f", said {self.times} times"
            return f"{_date(epoch_unix_s + self.over_s)} {self.agent}: over: {self.advice}{times}"
        shown = ", ".join(f"{name} {value}" for name, value in self.evidence.items() if value is not None)
        return f"{_date(epoch_unix_s + self.t_s)} {self.agent}: {self.advice}: {self.why}" + (
            f" [{shown}]" if shown else ""
        )


@dataclass(frozen=True)
class Silence:
    """Why nothing is recommended at present."""

    t_s: float
    """Since when."""
    why: str

    def as_json(self, epoch_unix_s: float) -> dict[str, Any]:
        """Return it as plain JSON data, with a date."""
        return {"since": _date(epoch_unix_s + self.t_s), "why": self.why}


class Recommendations:
    """Folds advice into recommendations, in bounded memory.

    Parameters
    ----------
    telemetry
        Where the evidence about traffic is; it has seen an event before `saw` is told of it.
    called
        Returns what an instance is called.
    say
        Is given every recommendation when it begins to stand and when it is over.
    """

    def __init__(
        self, telemetry: Telemetry, called: Callable[[int], str], say: Callable[[Recommendation], None]
    ) -> None:
        self._telemetry = telemetry
        self._called = called
        self._say = say
        self._standing: OrderedDict[tuple[Any, ...], Recommendation] = OrderedDict()
        self._all: deque[Recommendation] = deque(maxlen=_KEPT)
        self.counts: Counter[tuple[str, str]] = Counter()
        """(agent, kind) -> recommendations so far."""
        self._attempts: dict[int, int] = {}
        """Open attempt -> its instance, where the log names one."""
        self._ends: dict[int, deque[bool]] = {}
        """Instance -> of its last attempts, whether they ended well."""
        self._loads: dict[int, dict[int, dict[int, float]]] = {}
        """Agent -> instance -> signal -> what it last reported."""
        self._number = 0
        self.silence: Silence | None = None
        """Set while nothing is to be said or shown; the fold goes on."""
        self._ended: deque[Recommendation] = deque(maxlen=_KEPT)
        """Of those that were said, those that ended in the silence."""

    def be_silent(self, t_s: float, why: str) -> None:
        """Say and show nothing from now on: what is known is not enough."""
        self.silence = Silence(t_s, why)

    def speak(self) -> None:
        """Say what stands by now, and what ended in the silence."""
        self.silence = None
        while self._ended:
            self._say(self._ended.popleft())
        for each in self._standing.values():
            if not each.said:
                self._tell(each)

    # --- the fold -------------------------------------------------------------------------------------

    def saw(self, event: Event, commands: Sequence[Command]) -> None:
        """Take in an event and the commands that answered it."""
        if type(event) is Finished:
            instance = self._attempts.pop(event.attempt, None)
            if instance is not None and event.outcome != Outcome.CANCELLED:
                ends = self._ends.setdefault(instance, deque(maxlen=_ENDS))
                ends.append(event.outcome == Outcome.OK)
        elif type(event) is Reported:
            loads = self._loads.setdefault(event.agent, {})
            if isnan(event.value):
                loads.pop(event.instance, None)
            else:
                loads.setdefault(event.instance, {})[event.signal] = event.value
        for command in commands:
            if type(command) is Advised:
                self._advised(event, command)
            elif type(command) is Raise:
                self._raised(event[0], command.alert)
            elif type(command) is Dispatch and command.instance >= len(self._telemetry.names):
                self._attempts[command.attempt] = command.instance

    def left(self, t_s: float, figure: str, value: float, bounds: Bounds) -> None:
        """Take in that a block of traffic left what the controllers were certified on."""
        advice = f"certify again before these controllers serve: {FIGURES[figure]} left the envelope"
        why = f"{value:.4g} in a block of 100 requests, certified on {bounds.low:.4g} to {bounds.high:.4g}"
        self._stands(
            t_s, ("envelope", figure), "(fleet)", "envelope", advice, why,
            {"figure": figure, "value": value, "low": bounds.low, "high": bounds.high},
        )  # fmt: skip

    def turn(self, t_s: float) -> None:
        """Take in that it is so late: what has not been said for a while is over."""
        for key, each in list(self._standing.items()):
            if key[0] in ("refuse", "envelope", "notice") and t_s >= each.last_s + _OVER_AFTER_S:
                self._over(each.last_s + _OVER_AFTER_S, key)

    def _advised(self, event: Event, advised: Advised) -> None:
        t_s = event[0]
        match advised.family:
            case "scaler":
                self._scale(t_s, advised)
            case "breaker":
                self._breaker(t_s, advised)
            case family:
                assert type(event) is Arrived
                request = event.request
                assert advised.reason is not None
                code = advised.reason.code
                why = sentence(advised.reason)
                if family == "limiter" and isinf(advised.wanted):
                    why += "; it could never come in"
                elif family == "limiter":
                    why += f"; the first would have been told to wait {advised.wanted:.3g} s"
                advice = "turn requests away" if family == "limiter" else "refuse requests like these"
                evidence = {"tokens_in": request.tokens_in, "tokens_out": request.max_tokens_out}
                self._stands(
                    t_s, ("refuse", advised.agent, family, code), self._name(advised.agent), "refuse", advice,
                    why, evidence | self._traffic(t_s, advised.agent),
                )  # fmt: skip

    def _scale(self, t_s: float, advised: Advised) -> None:
        present, wanted = int(advised.present), int(advised.wanted)
        key = ("scale", advised.agent)
        self._over(t_s, key)
        if present == wanted:
            return
        assert advised.reason is not None
        advice = f"have {wanted} instance{'s' if wanted != 1 else ''}, not {present}"
        evidence = self._reports(advised.agent) | self._traffic(t_s, advised.agent)
        name = self._name(advised.agent)
        self._stands(t_s, key, name, "scale", advice, sentence(advised.reason), evidence)

    def _breaker(self, t_s: float, advised: Advised) -> None:
        key = ("breaker", advised.agent, advised.subject)
        cap, called = int(advised.wanted), self._called(advised.subject)
        if cap >= UNLIMITED:
            self._over(t_s, key)
            return
        ends = self._ends.get(advised.subject, ())
        bad = len(ends) - sum(ends)
        if cap > 0:
            return  # half open: whether it is over, the next attempts show
        why = f"{bad} of its last {len(ends)} attempts failed"
        evidence = {"failed": bad, "of": len(ends)}
        advice = f"send nothing to {called}"
        self._stands(t_s, key, self._name(advised.agent), "breaker", advice, why, evidence)

    def _raised(self, t_s: float, alert: Alert) -> None:
        code = alert.reason.code
        burn = alert.reason.c if code == Code.BURNING else 0.0
        if code == Code.RECOVERED:
            same = [
                key
                for key in self._standing
                if key[:3] == ("alert", alert.agent, alert.subject) and key[3] >= alert.reason.b
            ]
            if same:
                self._over(t_s, min(same))
            return
        kind = "alert" if burn else "notice"  # a notice is never taken back
        advice = f"look at {alert.subject}, {Severity(alert.severity).name.lower()}"
        self._stands(
            t_s, (kind, alert.agent, alert.subject, burn), self._name(alert.agent), "alert", advice,
            sentence(alert.reason), self._traffic(t_s, alert.agent),
        )  # fmt: skip

    # --- going on -------------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, Any]:
        """Return what stands and how many there were, as plain JSON data."""
        return {
            "number": self._number,
            "standing": [[list(key), asdict(each)] for key, each in self._standing.items()],
        }

    def restore(self, saved: dict[str, Any] | None) -> None:
        """Take on what `snapshot` returned; None: nothing stood."""
        if saved is None:
            return
        self._number = saved["number"]
        for key, fields in saved["standing"]:
            each = Recommendation(**fields)
            self._standing[tuple(key)] = each
            if each.said:
                self._all.append(each)

    # --- what stands ----------------------------------------------------------------------------------

    def _stands(
        self, t_s: float, key: tuple[Any, ...], agent: str, kind: Kind, advice: str, why: str, evidence: dict[str, Any]
    ) -> None:  # fmt: skip
        self.turn(t_s)
        before = self._standing.get(key)
        if before is not None:
            before.last_s, before.times = t_s, before.times + 1
            return
        self._number += 1
        new = Recommendation(self._number, t_s, t_s, agent, kind, advice, why, evidence)
        self._standing[key] = new
        if len(self._standing) > _KEPT:
            self._standing.popitem(last=False)
        if self.silence is None:
            self._tell(new)
        else:
            new.said = False

    def _tell(self, new: Recommendation) -> None:
        new.said = True
        self._all.append(new)
        self.counts[new.agent, new.kind] += 1
        self._say(new)

    def _over(self, t_s: float, key: tuple[Any, ...]) -> None:
        ended = self._standing.pop(key, None)
        if ended is not None:
            ended.over_s = t_s
            if self.silence is None:
                self._say(ended)
            elif ended.said:
                self._ended.append(ended)

    # --- evidence -------------------------------------------------------------------------------------

    def _name(self, agent: int) -> str:
        return self._telemetry.names[agent]

    def _traffic(self, t_s: float, agent: int) -> dict[str, Any]:
        tally = self._telemetry.agents[agent].windows.read(t_s)[_MINUTE].tally
        (p95_s,) = quantiles_s([tally.latencies], (0.95,))
        return {
            "requests_last_minute": tally.arrived,
            "failed_last_minute": tally.failed,
            "p95_s": None if p95_s is None else round(p95_s, 3),
        }

    def _reports(self, agent: int) -> dict[str, Any]:
        loads = self._loads.get(agent)
        if not loads:
            return {"load_from": "log", "open": self._telemetry.agents[agent].open}
        return {
            "load_from": "reports",
            **{
                name: round(sum(each.get(signal, 0.0) for each in loads.values()))
                for name, signal in (("running", Signal.RUNNING), ("waiting", Signal.WAITING))
            },
        }

    # --- reading --------------------------------------------------------------------------------------

    def newest(self) -> Iterator[Recommendation]:
        """Yield those that are kept, the newest first; in a silence, those that were over before it."""
        if self.silence is None:
            return reversed(self._all)
        began_s = self.silence.t_s
        return (each for each in reversed(self._all) if each.over_s is not None and each.over_s <= began_s)

    def shown(self) -> list[dict[str, Any]]:
        """Return what stands, the newest first, as the dashboard shows it; nothing in a silence."""
        if self.silence is not None:
            return []
        return [
            {
                "agent": each.agent, "kind": each.kind, "advice": each.advice, "why": each.why,
                "since_s": round(each.t_s, 3), "times": each.times,
            }
            for each in list(reversed(self._standing.values()))[:_SHOWN]
        ]  # fmt: skip

    def standing(self) -> Counter[tuple[str, str]]:
        """Return (agent, kind) -> recommendations that stand; none in a silence."""
        if self.silence is not None:
            return Counter()
        return Counter((each.agent, each.kind) for each in self._standing.values())


def _date(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
