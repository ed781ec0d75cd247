"""What the admin's API takes and gives: its shapes, and the table of all that it can be asked for."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from glowsim.live.openapi import Operation
from glowsim.live.outbox import Feedback
from glowsim.live.shapes import WHOLE

__all__ = [
    "AgentDetail", "AgentState", "Audit", "AuditRow", "BudgetState", "Budgets", "Configuration", "Differs",
    "FeedbackRow", "FeedbackRows", "FeedbackTaken", "Fleet", "Health", "History",
    "InstanceState", "Latency", "Minute", "OPERATIONS", "Ordered", "Page",
    "Readiness", "Rollout", "RolloutOrder", "RolloutOrdered", "Rollouts", "Scaling",
    "ScalingOrder", "ScalingOrdered", "Span", "Spender"
]  # fmt: skip

_MOST_INSTANCES = 1_000


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class Latency(BaseModel):
    """Of the last five minutes."""

    n: int
    p50: float | None
    p95: float | None


class AgentState(BaseModel):
    """An agent at this moment."""

    model_config = ConfigDict(extra="allow")

    open: int
    waiting: int
    in_flight: int
    ready: int
    starting: int
    draining: int
    wanted: int
    latency_s: Latency
    outcomes: dict[str, int]
    """Since the daemon was started."""
    cost_usd: float
    """Since the daemon was started."""
    emulated: bool


class Fleet(BaseModel):
    """All agents, and their sums."""

    admitting: bool
    ready: int
    open: int
    in_flight: int
    cost_usd: float
    agents: dict[str, AgentState]


class InstanceState(BaseModel):
    """An instance as the gateway knows it."""

    instance: int
    state: Literal["starting", "ready", "draining", "gone", "failed"]
    region: int
    in_flight: int
    slots: int
    cap: int
    """In-flight work that it may have: fewer than its slots while a breaker is open."""


class AgentDetail(AgentState):
    """An agent and its instances."""

    instances: list[InstanceState]


class Minute(BaseModel):
    """What an agent did in one minute; latencies are within 1 %."""

    begins_unix_s: int
    answered: int
    failed: int
    rejected: int
    abandoned: int
    cost_usd: float
    latency_s_mean: float | None
    latency_s_p50: float | None
    latency_s_p95: float | None
    latency_s_p99: float | None


class History(BaseModel):
    """An agent's minutes, the oldest first; those in which nothing happened are not there."""

    minutes: list[Minute]


class Span(_Strict):
    """How far back."""

    minutes: Annotated[int, Field(ge=1, le=1_440)] = 60


class Page(_Strict):
    """Rows after one, the oldest first."""

    after: Annotated[int, Field(ge=0, lt=2**63)] = 0
    limit: Annotated[int, Field(ge=1, le=1_000)] = 100


class Scaling(BaseModel):
    """An agent's size and who decides it."""

    agent: str
    ready: int
    starting: int
    draining: int
    paused: bool
    """Whether its scaler's decisions are left undone."""
    scaler: bool
    """Whether a controller decides its size while it is not paused."""
    scalable: bool
    """Whether instances can be started and stopped; those at fixed URLs cannot."""


class ScalingOrder(_Strict):
    """What to change; at least one of them.

    Without a pause the scaler, where there is one, decides again when it next looks.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {"required": ["instances"], "properties": {"instances": {"type": "integer"}}},
                {"required": ["paused"], "properties": {"paused": {"type": "boolean"}}},
            ]
        }
    )

    instances: Annotated[int, Field(ge=0, le=_MOST_INSTANCES, strict=True), WHOLE] | None = None
    paused: Annotated[bool, Field(strict=True)] | None = None

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.instances is None and self.paused is None:
            raise ValueError("give 'instances', 'paused' or both")
        return self


class Ordered(BaseModel):
    """An order that was written into the audit and obeyed."""

    audit_id: int
    repeated: bool
    """Whether it came before, under the same idempotency key."""


class ScalingOrdered(Ordered):
    """A scaling order, and what came of it at once."""

    scaling: Scaling


class Rollout(BaseModel):
    """Where an agent's rollout stands."""

    agent: str
    stage: int | None
    """0: rolled back; None: as it began."""
    weight: float
    """Share of the traffic that the new variant gets."""
    why: str | None
    """Of the last change."""


class Rollouts(BaseModel):
    """The rollouts of all agents that have one."""

    rollouts: list[Rollout]


class RolloutOrder(_Strict):
    """What to do with a rollout; an order that its controller does not know changes nothing."""

    action: Literal["roll_back", "pause", "resume", "promote"]


class RolloutOrdered(Ordered):
    """A rollout order, and what came of it."""

    rollout: Rollout


class Spender(BaseModel):
    """What one key has spent."""

    key: str
    """Keyed hash, in hexadecimal."""
    spent: float


class BudgetState(BaseModel):
    """A budget in the window that ends now."""

    agents: list[str]
    """That share it."""
    of: str
    per: str
    limit: float
    every_s: float
    keys: int
    """How many have spent something."""
    most: list[Spender]
    """Those that have spent most, the first 100."""


class Budgets(BaseModel):
    """All budgets."""

    budgets: list[BudgetState]


class FeedbackTaken(BaseModel):
    """Feedback that is kept and told."""

    id: int
    repeated: bool


class FeedbackRow(BaseModel):
    """Feedback as it is kept."""

    feedback_id: int
    taken_unix_s: float
    request_id: int
    agent: str
    variant: int
    kind: str
    value: float
    tag: str | None
    text: str | None


class FeedbackRows(BaseModel):
    """Feedback to this journal's requests, the oldest first."""

    feedback: list[FeedbackRow]


class AuditRow(BaseModel):
    """Who ordered what."""

    audit_id: int
    at_unix_s: float
    who: str
    what: str
    before: dict[str, Any]
    after: dict[str, Any]
    outcome: str


class Audit(BaseModel):
    """Orders, the oldest first."""

    audit: list[AuditRow]


class Differs(BaseModel):
    """A value that differs; null: it is not there."""

    place: str
    before: Any
    after: Any
    needs: Literal["reload", "restart", "nothing"]
    """What brings it into force; nothing: it is of simulations only."""


class Configuration(BaseModel):
    """What is in force, and how what the scenario's file says differs from it, or differed before it was taken on."""

    digest: str
    differences: list[Differs]
    refused: str | None
    """Why the file cannot be taken on as it is."""


class Health(BaseModel):
    """Whether the process answers."""

    healthy: bool


class Readiness(BaseModel):
    """Whether requests are taken in, an instance of any agent could serve one, and what is acknowledged can be kept."""

    ready: bool
    reason: str
    """Why not; empty if so."""


OPERATIONS = (
    Operation("GET", "/v1/agents", "What the fleet and its agents do", Fleet),
    Operation("GET", "/v1/agents/{agent}", "What an agent and its instances do", AgentDetail, refusals=(404,)),
    Operation(
        "GET", "/v1/agents/{agent}/history", "What an agent did, by the minute", History, query=Span,
        refusals=(404, 503),
    ),
    Operation("GET", "/v1/agents/{agent}/scaling", "How large an agent is", Scaling, refusals=(404,)),
    Operation(
        "PUT", "/v1/agents/{agent}/scaling", "Set how large an agent is; pause or resume its scaler", ScalingOrdered,
        body=ScalingOrder, refusals=(404, 409, 503),
    ),
    Operation("GET", "/v1/rollouts", "Where the rollouts stand", Rollouts),
    Operation(
        "POST", "/v1/rollouts/{agent}", "Roll back to the baseline", RolloutOrdered, body=RolloutOrder,
        refusals=(404, 409, 503),
    ),
    Operation("GET", "/v1/budgets", "What the budgets have spent", Budgets),
    Operation(
        "POST", "/v1/feedback", "Say something about an answer", FeedbackTaken, body=Feedback, status=201,
        refusals=(200, 404, 409, 429, 503),
    ),
    Operation("GET", "/v1/feedback", "What was said about answers", FeedbackRows, query=Page, refusals=(503,)),
    Operation("GET", "/v1/configuration", "How the scenario's file differs from what is in force", Configuration),
    Operation(
        "POST", "/v1/configuration", "Take on what the scenario's file says", Configuration, refusals=(409, 503)
    ),
    Operation("GET", "/v1/journal", "The journal, as far as it is written", "application/octet-stream"),
    Operation("GET", "/v1/audit", "Who ordered what", Audit, query=Page, refusals=(503,)),
    Operation("GET", "/metrics", "Metrics in the text format of Prometheus", "text/plain"),
    Operation("GET", "/healthz", "Whether the process answers", Health, open=True),
    Operation("GET", "/readyz", "Whether it takes requests", Readiness, refusals=(503,), open=True),
    Operation("GET", "/openapi.json", "This document", "application/json"),
)  # fmt: skip
"""Everything that the admin's side can be asked for by programs."""
