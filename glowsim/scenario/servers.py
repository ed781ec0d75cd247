"""Model servers, and what an agent does with a request where that is modelled step by step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from glowsim import presets
from glowsim.scenario.base import ChosenBy, Items, Model, Name, findings_error
from glowsim.scenario.laws import Constant, LawOfTime, LawOfTokens
from glowsim.scenario.problems import Finding, did_you_mean
from glowsim.scenario.quantities import (
    Duration,
    PositiveDuration,
    PricePerHour,
    Share,
    TimePerToken,
    TokenCount,
)

__all__ = [
    "AnswerStep", "BatchServer", "CallStep", "Client", "HostedServer", "LoopStep", "PromptCache", "PsServer", "Server",
    "Step", "StepTime", "StepsService", "TogetherStep", "ToolStep", "walk",
]  # fmt: skip

Replicas = Annotated[int, Field(ge=1, le=10_000)]
Sequences = Annotated[int, Field(ge=1, le=100_000)]
Tokens = Annotated[int, Field(ge=1, le=1_000_000_000)]
Tries = Annotated[int, Field(ge=1, le=20)]
Router = Literal["least_loaded", "session", "round_robin"]


def _known_preset(kind: str, name: str | None) -> None:
    if name is not None and name not in (known := presets.names(kind)):
        raise findings_error(
            Finding(("preset",), f"unknown {kind} preset {name!r}", known, did_you_mean(name, known))
        )


class StepTime(Model):
    """Time of an engine's step, linear in what is in it.

    ``base + prefill x tokens read + sequence x sequences that write + context x tokens in their contexts
    + attention x sum of chunk (context + chunk / 2)``.
    """

    base_s: Duration = Field(alias="base", description="Time of an empty step.")
    prefill_s: TimePerToken = Field(alias="prefill", description="For each token of a prompt.")
    sequence_s: Duration = Field(alias="sequence", description="For each sequence that writes.")
    context_s: TimePerToken = Field(
        default=0.0, alias="context", description="For each token in the contexts of all that is scheduled."
    )
    attention_s: TimePerToken = Field(
        default=0.0,
        alias="attention",
        description="For each token read, and token of context that it attends to.",
    )


class _SelfHosted(Model):
    """A model on machines of one's own."""

    preset: Name | None = Field(
        default=None, description="Coefficients and limits of a published measurement."
    )
    step: StepTime | None = Field(
        default=None, description="Coefficients of one's own, in place of a preset."
    )
    replicas: Replicas = Field(default=1, description="How many serve it.")
    router: Router = Field(default="least_loaded", description="How a call's replica is chosen.")
    sequences: Sequences | None = Field(
        default=None, description="Calls served at once; default: the preset's."
    )
    batched_tokens: Tokens | None = Field(
        default=None, description="Tokens of a step, read and written; default: the preset's."
    )
    cache_tokens: Tokens | None = Field(
        default=None, description="Tokens whose keys and values fit in memory; default: the preset's."
    )
    replica_usd_per_hour: PricePerHour | None = Field(
        default=None, alias="price", description="Price of a replica; default: the preset's, or nothing."
    )
    region: Name | None = Field(
        default=None, description="Where it stands; default: beside whoever calls it."
    )

    @model_validator(mode="after")
    def _known(self) -> Self:
        if (self.preset is None) == (self.step is None):
            found = "neither" if self.preset is None else "both"
            raise findings_error(Finding((), f"must have either 'preset' or 'step', has {found}"))
        _known_preset("serving", self.preset)
        limits = ("sequences", "batched_tokens", "cache_tokens")
        missing = [name for name in limits if self.preset is None and getattr(self, name) is None]
        if missing:
            said = "is required where there is no preset to give it"
            raise findings_error(*(Finding((name,), said) for name in missing))
        if (
            self.batched_tokens is not None
            and self.sequences is not None
            and self.batched_tokens < self.sequences
        ):
            said = f"must be at least 'sequences' ({self.sequences}): each one that writes takes a token of a step"
            raise findings_error(Finding(("batched_tokens",), said))
        return self


class BatchServer(_SelfHosted):
    """Continuous batching, exactly: step by step, with its blocks of memory and its prefix cache."""

    engine: Literal["batch"]
    prefix_caching: bool = Field(default=True, description="Whether prompts that begin alike are read once.")


class PsServer(_SelfHosted):
    """Processor sharing in token time: faster still, without prefix cache or preemption."""

    engine: Literal["ps"]


class PromptCache(Model):
    """A provider's cache of prompts, by what it bills as cached input."""

    keeps_s: PositiveDuration = Field(
        alias="keeps", description="How long a prompt is kept after its last use."
    )
    least: Tokens = Field(default=1024, description="Common tokens from which anything is cached.")
    step: Tokens = Field(default=128, description="Beyond that, cached in steps of so many tokens.")


class HostedServer(Model):
    """An API of somebody else's: latency as measured, limits, failures, a prompt cache that forgets."""

    engine: Literal["hosted"]
    preset: Name | None = Field(default=None, description="Laws of a published measurement.")
    first_token_s: LawOfTime | None = Field(
        default=None, alias="first_token", description="Time to the first token, where there is no preset."
    )
    per_token_s: LawOfTime | None = Field(
        default=None, alias="per_token", description="Time for each token after it, where there is no preset."
    )
    requests_per_min: Annotated[float, Field(ge=1, le=1e9)] | None = Field(
        default=None, description="Calls that it takes; beyond that 429. Default: no limit."
    )
    tokens_per_min: Annotated[float, Field(gt=0, le=1e12)] | None = Field(
        default=None, description="Tokens that it takes; beyond that 429. Default: no limit."
    )
    error: Share | None = Field(
        default=None, description="Share of calls that fail; default: the preset's, or none."
    )
    cache: PromptCache | None = Field(
        default=None, description="How prompts are cached; default: they are not."
    )
    incidents: Name | None = Field(
        default=None, description="Outages like those of a provider that was observed; default: none."
    )
    region: Name | None = Field(
        default=None, description="Where it stands; default: beside whoever calls it."
    )

    @model_validator(mode="after")
    def _known(self) -> Self:
        _known_preset("hosted", self.preset)
        if self.incidents is not None and self.incidents not in (known := presets.names("hosted/incidents")):
            said = f"unknown incidents {self.incidents!r}"
            raise findings_error(Finding(("incidents",), said, known, did_you_mean(self.incidents, known)))
        own = [name for name in ("first_token", "per_token") if getattr(self, f"{name}_s") is None]
        if self.preset is None and own:
            raise findings_error(
                *(Finding((name,), "is required where there is no preset to give it") for name in own)
            )
        return self


Server = Annotated[BatchServer | PsServer | HostedServer, ChosenBy("engine")]
"""What serves the models that name it."""


class CallStep(Model):
    """The agent calls its model; what it writes joins the context."""

    step: Literal["call"]
    tokens_out: LawOfTokens = Field(description="Tokens that it writes.")


class AnswerStep(Model):
    """The agent calls its model for the answer: the request's own output tokens."""

    step: Literal["answer"]


class ToolStep(Model):
    """The agent uses a tool; its result joins the context."""

    step: Literal["tool"]
    name: Name = Field(default="tool", description="What reports call it.")
    time_s: LawOfTime = Field(alias="time", description="How long a use takes.")
    tokens: LawOfTokens = Field(
        default_factory=lambda: Constant[TokenCount].model_validate(200), description="Tokens of its result."
    )
    fails: Share = Field(default=0.0, description="Share of its uses that fail.")
    tries: Tries = Field(default=1, description="Uses before it is given up.")
    needed: bool = Field(
        default=False,
        description="Whether the task fails with it; otherwise the agent goes on, told of the failure.",
    )


class LoopStep(Model):
    """Steps that are done, and done again with a probability."""

    step: Literal["loop"]
    again: Share = Field(description="Probability of another round.")
    most: Annotated[int, Field(ge=1, le=1000)] = Field(default=20, description="Rounds at most.")
    steps: Items[Step] = Field(min_length=1, max_length=100, description="What is done in a round.")


class TogetherStep(Model):
    """Branches that run side by side; the next step waits for all of them."""

    step: Literal["together"]
    branches: Items[Items[Step]] = Field(
        min_length=2, max_length=100, description="The steps of each branch."
    )

    @model_validator(mode="after")
    def _all_do_something(self) -> Self:
        empty = [i for i, branch in enumerate(self.branches) if not branch]
        if empty:
            raise findings_error(Finding(("branches", empty[0]), "must have at least one step"))
        return self


Step = Annotated[CallStep | AnswerStep | ToolStep | LoopStep | TogetherStep, ChosenBy("step")]
"""One thing that an agent does with a request."""

LoopStep.model_rebuild()
TogetherStep.model_rebuild()


class Client(Model):
    """How the agent's own client of the model deals with a call that fails."""

    tries: Tries = Field(default=3, description="Calls before it is given up.")
    wait_s: Duration = Field(
        default=0.5, alias="wait", description="Before the second; doubled for each further one."
    )


class StepsService(Model):
    """The agent works in steps: calls of its model, which other agents may share, and tools."""

    law: Literal["steps"]
    instructions: Annotated[int, Field(ge=0, le=10_000_000)] = Field(
        default=0, description="Tokens that every prompt of the agent begins with."
    )
    client: Client = Field(default_factory=Client, description="What it does about calls that fail.")
    steps: Items[Step] = Field(
        min_length=1, max_length=100, description="What it does with a request, in order."
    )

    @model_validator(mode="after")
    def _answers_once(self) -> Self:
        answers = sum(isinstance(step, AnswerStep) for step in walk(self.steps))
        if answers != 1 or not isinstance(self.steps[-1], AnswerStep):
            message = "must end with {step: answer}, and have no other: a request is answered once"
            raise findings_error(Finding(("steps",), message))
        return self


def walk(steps: tuple[Step, ...]) -> Iterator[Step]:
    """Yield every step, those within loops and branches too."""
    for step in steps:
        yield step
        if isinstance(step, LoopStep):
            yield from walk(step.steps)
        elif isinstance(step, TogetherStep):
            for branch in step.branches:
                yield from walk(branch)
