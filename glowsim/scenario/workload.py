"""The workload: when requests arrive, for whom, and how large they are."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from math import fsum
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from glowsim import presets
from glowsim.scenario.base import AgentName, ChosenBy, Items, Model, Name, findings_error
from glowsim.scenario.laws import LawOfNumber, LawOfTime, LawOfTokens
from glowsim.scenario.problems import Finding, did_you_mean
from glowsim.scenario.quantities import (
    DURATION,
    FRACTION,
    NUMBER,
    Duration,
    Number,
    PositiveDuration,
    PositiveNumber,
    PositiveRate,
    Rate,
    Share,
    Within,
)

__all__ = [
    "ALL",
    "Arrivals",
    "Bursts",
    "BurstsArrivals",
    "Cacheable",
    "Closed",
    "Columns",
    "Diurnal",
    "Fitted",
    "DiurnalArrivals",
    "Piecewise",
    "PiecewiseArrivals",
    "Poisson",
    "Preset",
    "PoissonArrivals",
    "Sessions",
    "Step",
    "Trace",
    "Weekly",
    "WeeklyArrivals",
    "Workload",
]

ALL = "all"
"""Every agent of the fleet, in ``agents``."""


def _weights(value: Any) -> Any:
    if isinstance(value, str):
        return {value: 1}
    if isinstance(value, list):
        if not value or not all(isinstance(name, str) for name in value):
            raise PydanticCustomError("agents", "a list of agents must hold names")
        if len(set(value)) < len(value):
            raise PydanticCustomError("agents", "a list of agents must name each once")
        return dict.fromkeys(value, 1)
    if not isinstance(value, Mapping) or not value:
        raise PydanticCustomError("agents", "must be 'all', a name, a list of names, or name: weight")
    return value


def _write_weights(weights: dict[str, float]) -> Any:
    return ALL if weights == {ALL: 1} else {name: NUMBER.write(weight) for name, weight in weights.items()}


Weights = Annotated[
    dict[AgentName, PositiveNumber],
    BeforeValidator(_weights),
    PlainSerializer(_write_weights),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {"type": "array", "items": {"type": "string"}, "minItems": 1, "uniqueItems": True},
                {
                    "type": "object",
                    "additionalProperties": {"type": "number", "exclusiveMinimum": 0},
                    "minProperties": 1,
                },
            ]
        }
    ),
]
"""Name -> weight of each agent of that name; ``{"all": 1.0}`` is every agent alike."""


def _none_or(value: Any) -> Any:
    return None if value == "none" else value


class Cacheable(Model):
    """Some requests repeat one of ``keys`` prompts, drawn by Zipf's law: prompt i has weight ``i**-zipf``."""

    share: Share = Field(description="Share of the requests that repeat a prompt.")
    keys: Annotated[int, Field(ge=1, le=10_000_000)] = Field(description="How many prompts there are.")
    zipf: Number = Field(default=0.9, description="Exponent of Zipf's law; 0: all alike.")


def _everybody(shares: dict[str, float]) -> dict[str, float]:
    if shares and abs(fsum(shares.values()) - 1.0) > 1e-9:
        raise findings_error(Finding((), f"the shares add up to {fsum(shares.values()):.4%}, must be 100%"))
    return shares


UsersFrom = Annotated[
    dict[Name, Annotated[float, Within(FRACTION, 0, 1, above=True)]], AfterValidator(_everybody)
]
"""Region -> share of the users who are there."""


class _Source(Model):
    """What all workloads share."""

    agents: Weights = Field(
        default={ALL: 1.0}, description="all, a name, a list of names, or name: weight; services too."
    )
    max_tokens_out: Annotated[int, Field(ge=1, le=10_000_000)] = Field(
        default=4096, description="The cap on output tokens that is sent with a request."
    )
    priority: Annotated[int, Field(ge=0, le=9)] = Field(default=1, description="0 is served first.")
    tenants: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        default=1, description="How many tenants share it."
    )
    stream: bool = Field(default=False, description="Answers are streamed.")
    kinds: dict[Name, PositiveNumber] = Field(
        default={},
        description="Kind of task -> weight; the kinds are those of 'quality'. Default: its first.",
    )
    deadline_s: Annotated[
        PositiveDuration | None,
        BeforeValidator(_none_or),
        WithJsonSchema({"anyOf": [DURATION.json_schema(0, 0), {"enum": ["none", None]}]}),
    ] = Field(default=None, alias="deadline", description="The user gives up after this; none: never.")
    users_from: UsersFrom = Field(
        default={},
        description="Region -> share of the users who are there; default: they are where their agent is.",
    )
    cacheable: Cacheable | None = Field(default=None, description="How prompts repeat; default: they do not.")
    tasks: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = Field(
        default=None, description="Stop after so many; default: only at the end of the duration."
    )


class _Open(_Source):
    """Arrivals that do not wait for answers."""

    users: Annotated[int, Field(ge=1, le=10_000_000)] | None = Field(
        default=None,
        description="How many different users send them; default: each request is somebody else's.",
    )


class Sized(Model):
    """Requests whose tokens are drawn."""

    tokens_in: LawOfTokens = Field(description="Input tokens of a request.")
    tokens_out: LawOfTokens = Field(description="Output tokens of a request.")


class PoissonArrivals(Model):
    """Independent arrivals at a constant rate."""

    kind: Literal["poisson"]
    rate_per_s: PositiveRate = Field(alias="rate", description="Mean arrivals per time.")


class Poisson(PoissonArrivals, _Open, Sized):
    """Independent requests at a constant rate."""


class Step(Model):
    """From ``at`` on, this rate."""

    at_s: Duration = Field(alias="at", description="When the rate begins.")
    rate_per_s: Rate = Field(alias="rate", description="Mean arrivals per time.")


class PiecewiseArrivals(Model):
    """Poisson arrivals whose rate changes at stated times."""

    kind: Literal["piecewise"]
    steps: Items[Step] = Field(min_length=1, max_length=10_000, description="Rates; the first begins at 0s.")

    @field_validator("steps")
    @classmethod
    def _in_order(cls, steps: tuple[Step, ...]) -> tuple[Step, ...]:
        if steps[0].at_s != 0:
            raise findings_error(Finding((0, "at"), "the first step must begin at 0s"))
        for i, (a, b) in enumerate(pairwise(steps), start=1):
            if a.at_s >= b.at_s:
                raise findings_error(Finding((i, "at"), "must be later than the step before"))
        return steps


class Piecewise(PiecewiseArrivals, _Open, Sized):
    """Poisson requests whose rate changes at stated times."""


class DiurnalArrivals(Model):
    """Poisson arrivals at ``mean * (1 + amplitude * cos(2 pi (t - peak_at) / period))``."""

    kind: Literal["diurnal"]
    mean_per_s: PositiveRate = Field(alias="mean", description="Mean rate over a period.")
    amplitude: Share = Field(description="How far the rate swings, as a share of the mean.")
    period_s: PositiveDuration = Field(default=86400.0, alias="period", description="Time from peak to peak.")
    peak_at_s: Duration = Field(default=0.0, alias="peak_at", description="Time of the first peak.")


class Diurnal(DiurnalArrivals, _Open, Sized):
    """Poisson requests at ``mean * (1 + amplitude * cos(2 pi (t - peak_at) / period))``."""


class BurstsArrivals(Model):
    """Poisson arrivals at a base rate, and at another during bursts; a burst ends each period."""

    kind: Literal["bursts"]
    base_per_s: Rate = Field(alias="base", description="Rate between bursts.")
    burst_per_s: PositiveRate = Field(alias="burst", description="Rate during a burst.")
    every_s: PositiveDuration = Field(alias="every", description="Time from burst to burst.")
    lasts_s: PositiveDuration = Field(alias="lasts", description="Length of a burst.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.lasts_s >= self.every_s:
            raise findings_error(Finding(("lasts",), "must be shorter than 'every'"))
        return self


class Bursts(BurstsArrivals, _Open, Sized):
    """Poisson requests at a base rate, and at another during bursts; a burst ends each period."""


def _somebody(weights: tuple[float, ...]) -> tuple[float, ...]:
    if not any(weights):
        raise findings_error(Finding((), "must not all be 0: then nobody comes"))
    return weights


class WeeklyArrivals(Model):
    """Poisson arrivals at a rate for each hour of the week, the product of its hour's and its day's weights.

    The run begins on a Monday at midnight; ``mean`` is the rate over a whole week.
    """

    kind: Literal["weekly"]
    mean_per_s: PositiveRate = Field(alias="mean", description="Mean rate over a week.")
    hours: Annotated[Items[Number], Field(min_length=24, max_length=24), AfterValidator(_somebody)] = Field(
        description="Weight of each hour of the day, from midnight on."
    )
    days: Annotated[Items[Number], Field(min_length=7, max_length=7), AfterValidator(_somebody)] = Field(
        description="Weight of each day of the week, from Monday on."
    )


class Weekly(WeeklyArrivals, _Open, Sized):
    """Poisson requests at a rate for each hour of the week, such as that of people at work."""


Arrivals = Annotated[
    PoissonArrivals | PiecewiseArrivals | DiurnalArrivals | BurstsArrivals | WeeklyArrivals, ChosenBy("kind")
]
"""When sessions begin."""


_SESSION_KEYS = {
    "turns": "turns", "think_s": "think", "first_tokens": "first_tokens_in", "new_tokens": "tokens_in",
    "tokens_out": "tokens_out",
}  # fmt: skip
"""Key of a preset's sessions -> the key here."""


def _session_laws(name: str) -> dict[str, Any]:
    """Return the laws of a preset's sessions, as a person would write them."""
    known = [each for each in presets.names("workloads") if "sessions" in presets.read("workloads", each)]
    if name not in known:
        said = f"unknown preset {name!r}, or one without sessions"
        raise findings_error(Finding(("preset",), said, tuple(known), did_you_mean(name, known)))
    found = presets.read("workloads", name)["sessions"]
    laws = {ours: found[theirs] for theirs, ours in _SESSION_KEYS.items() if theirs in found}
    return laws | {"think": {key: _in_seconds(key, value) for key, value in laws["think"].items()}}


def _in_seconds(key: str, value: Any) -> Any:
    """Return a number of a law of time as a duration; its shape and its probabilities have no unit."""
    if key in ("law", "sigma", "cv", "p"):
        return value
    return [f"{each}s" for each in value] if isinstance(value, list) else f"{value}s"


class Sessions(_Open, Sized):
    """Conversations: each turn follows the end of the last, with all that came before in its prompt."""

    kind: Literal["sessions"]
    preset: str | None = Field(
        default=None,
        min_length=1,
        max_length=100,
        description="A workload that comes along, whose turns, think times and tokens hold where none are given.",
    )
    arrivals: Arrivals = Field(description="When sessions begin.")
    turns: LawOfNumber = Field(description="How many turns a session has; rounded, at least 1.")
    most_turns: Annotated[int, Field(ge=1, le=10_000)] = Field(
        default=100, description="No more than so many."
    )
    think_s: LawOfTime = Field(alias="think", description="Time from an answer to the user's next turn.")
    first_tokens_in: LawOfTokens | None = Field(
        default=None, description="What the first turn brings; default: like the others, tokens_in."
    )
    max_context: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = Field(
        default=None, description="Tokens at which a context is cut back; default: never."
    )
    compacted: Annotated[int, Field(ge=0, le=1_000_000_000)] = Field(
        default=0, description="Tokens that are left of it then."
    )
    hand_over: dict[AgentName, dict[AgentName, Share]] = Field(
        default={}, description="Agent -> next agent: share of its turns that the next agent follows at once."
    )

    @model_validator(mode="before")
    @classmethod
    def _from_preset(cls, data: Any) -> Any:
        match data:
            case {"preset": str(name)}:
                return _session_laws(name) | data
            case _:
                return data

    @model_validator(mode="after")
    def _possible(self) -> Self:
        for agent, following in self.hand_over.items():
            if sum(following.values()) > 1:
                raise findings_error(Finding(("hand_over", agent), "the shares add up to more than 1"))
        if self.max_context is not None and self.compacted >= self.max_context:
            raise findings_error(Finding(("compacted",), "must be below 'max_context'"))
        return self


class Closed(_Source, Sized):
    """Users who each wait for an answer, think, and ask again."""

    kind: Literal["closed"]
    users: Annotated[int, Field(ge=1, le=10_000_000)] = Field(description="How many users.")
    think_s: LawOfTime = Field(alias="think", description="Time from an answer to the user's next request.")


class Columns(Model):
    """Which columns of a CSV file hold what; times are seconds or ISO 8601."""

    time: str = Field(min_length=1, description="Time of arrival.")
    tokens_in: str = Field(min_length=1, description="Input tokens.")
    tokens_out: str = Field(min_length=1, description="Output tokens.")


def _inside(file: str) -> str:
    path = PurePosixPath(file)
    if path.is_absolute() or ".." in path.parts:
        raise findings_error(Finding((), "must be a path inside the data folder (--data or GLOWSIM_DATA)"))
    return file


DataFile = Annotated[str, Field(min_length=1, max_length=300), AfterValidator(_inside)]


class Trace(_Open):
    """The arrivals and tokens of a recorded trace, from the data folder."""

    kind: Literal["trace"]
    format: Literal["azure_llm", "csv"] = Field(description="How the file is laid out.")
    file: DataFile = Field(description="Its path in the data folder.")
    speed: PositiveNumber = Field(default=1.0, description="2 replays it twice as fast.")
    columns: Columns | None = Field(default=None, description="For csv: the names of the columns.")

    @model_validator(mode="after")
    def _columns_for_csv(self) -> Self:
        if self.format == "csv" and self.columns is None:
            raise findings_error(Finding(("columns",), "is required for csv: {time: .., tokens_in: .., ..}"))
        if self.format != "csv" and self.columns is not None:
            raise findings_error(Finding(("columns",), f"is only for csv; {self.format} has its own"))
        return self


class _Resembling(_Open):
    """Arrivals and tokens that resemble recorded ones, with the tenants that send them where these are known."""

    rate_per_s: PositiveRate | None = Field(
        default=None, alias="rate", description="Mean arrivals per time; default: as recorded."
    )


class Preset(_Resembling):
    """A workload that comes along, such as azure_code: bursts, lengths and tenants like a public trace's."""

    kind: Literal["preset"]
    preset: str = Field(min_length=1, max_length=100, description="Its name.")


class Fitted(_Resembling):
    """A workload that was fitted to a recorded log, from the data folder."""

    kind: Literal["fitted"]
    file: DataFile = Field(description="The path of the fitted YAML in the data folder.")


Workload = Annotated[
    Poisson | Piecewise | Diurnal | Bursts | Weekly | Closed | Sessions | Trace | Preset | Fitted,
    ChosenBy("kind"),
]
"""One source of requests; a scenario may have several."""
