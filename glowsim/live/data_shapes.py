"""What the data plane takes and gives: its shapes, and the table of all that clients can ask for.

Of the bodies of models, these are the fields that the gateway itself reads; everything else passes through to instances
that speak the protocol, or is translated or refused by name for those that do not. `glowsim.live.protocols` reads them,
quicker than models would; schemathesis holds the two together.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from glowsim.live.admin_shapes import FeedbackTaken, Health
from glowsim.live.openapi import Operation
from glowsim.live.outbox import Feedback
from glowsim.live.shapes import WHOLE

__all__ = [
    "Agent", "Agents", "Answer", "AnthropicError", "AnthropicFailure", "AskedOfModel", "ChatBody", "EmbeddingsBody",
    "LONGEST_TAG", "MessagesBody", "Metadata", "Model", "Models", "OPERATIONS", "OpenAIError", "OpenAIFailure",
    "Readiness", "ResponsesBody", "Task", "TaskAnswer", "TaskError", "TaskFailure", "TaskUsage",
]  # fmt: skip

LONGEST_TAG = 200
"""Of a session or an idempotency key, in characters."""
_Name = Annotated[str, Field(min_length=1, max_length=1_000)]
_Limit = Annotated[int, Field(ge=1, le=10_000_000), WHOLE]
_Tag = Annotated[str, Field(min_length=1, max_length=LONGEST_TAG)]
_Objects = Annotated[list[dict[str, Any]], Field(min_length=1)]
_Tokens = Annotated[list[int], Field(min_length=1)]


class Task(BaseModel):
    """The body of a task.

    >>> Task(input="What is due in May?").stream
    False
    """

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, strict=True)

    input: str | Annotated[list[Any], Field(min_length=1)]
    """A text, or a list of messages."""
    max_tokens_out: _Limit | None = None
    stream: bool = False
    session: _Tag | None = None
    priority: Annotated[int, Field(ge=0, le=9), WHOLE] | None = None
    """0 to 9, 0 first; default: 1."""
    idempotency_key: _Tag | None = None
    cache: bool = False
    """Whether an answer to the same input of the same tenant may be given again."""


class AskedOfModel(BaseModel):
    """What the bodies of all protocols of models share."""

    model_config = ConfigDict(extra="allow")

    model: _Name
    """An agent, or a service of several regions."""


class ChatBody(AskedOfModel):
    """Of OpenAI's chat completions."""

    messages: _Objects
    max_tokens: _Limit | None = None
    max_completion_tokens: _Limit | None = None
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    user: _Name | None = None
    safety_identifier: _Name | None = None


class ResponsesBody(AskedOfModel):
    """Of OpenAI's responses."""

    input: str | _Objects
    instructions: str | None = None
    max_output_tokens: _Limit | None = None
    stream: bool | None = None
    user: _Name | None = None
    safety_identifier: _Name | None = None


class Metadata(BaseModel):
    """Whom a message is for."""

    model_config = ConfigDict(extra="allow")

    user_id: _Name | None = None


class MessagesBody(AskedOfModel):
    """Of Anthropic's messages."""

    max_tokens: _Limit
    messages: _Objects
    stream: bool | None = None
    metadata: Metadata | None = None


class EmbeddingsBody(AskedOfModel):
    """Of OpenAI's embeddings."""

    input: (
        Annotated[str, Field(min_length=1)]
        | Annotated[list[str], Field(min_length=1)]
        | _Tokens
        | Annotated[list[_Tokens], Field(min_length=1)]
    )
    stream: Literal[False] | None = None
    user: _Name | None = None


class Answer(BaseModel):
    """As the protocol has it."""

    model_config = ConfigDict(extra="allow")


class TaskUsage(BaseModel):
    """What a task's answer took."""

    tokens_in: int
    tokens_cached: int
    tokens_out: int


class TaskAnswer(BaseModel):
    """A task, done."""

    id: int
    """The request's number, which feedback names."""
    agent: str
    emulated: bool
    answered: str
    """Where the answer came from."""
    latency_s: float
    usage: TaskUsage
    output: Any


class Model(BaseModel):
    """An agent or a service, as a model of either."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    type: Literal["model"]
    display_name: str
    created_at: str


class Models(BaseModel):
    """All there is to ask, as OpenAI and Anthropic list models."""

    object: Literal["list"]
    data: list[Model]
    has_more: bool
    first_id: str
    last_id: str


class Agent(BaseModel):
    """An agent."""

    name: str
    model: str
    emulated: bool


class Agents(BaseModel):
    """The agents."""

    agents: list[Agent]


class OpenAIError(BaseModel):
    """Why, as OpenAI says it."""

    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIFailure(BaseModel):
    """A refusal, as OpenAI says it."""

    error: OpenAIError


class AnthropicError(BaseModel):
    """Why, as Anthropic says it."""

    type: str
    message: str


class AnthropicFailure(BaseModel):
    """A refusal, as Anthropic says it."""

    type: Literal["error"]
    error: AnthropicError


class TaskError(BaseModel):
    """Why a task was refused or failed."""

    model_config = ConfigDict(extra="allow")

    code: int | str
    """The HTTP status, or what the control plane calls its reason."""
    message: str


class TaskFailure(BaseModel):
    """A refusal of a task."""

    error: TaskError


class Readiness(BaseModel):
    """Whether requests are taken in, and an instance of any agent could serve one."""

    ready: bool
    reason: str
    """Why not; empty if so."""


_HEADERS: dict[str, dict[str, Any]] = {
    "X-Glowsim-Session": {"type": "string", "minLength": 1, "maxLength": LONGEST_TAG},
    "X-Glowsim-Priority": {"type": "integer", "minimum": 0, "maximum": 9},
    "X-Glowsim-Deadline": {"type": "number", "exclusiveMinimum": 0},
    "X-Glowsim-Region": {"type": "string"},
    "X-Glowsim-Cache": {"type": "string", "enum": ["true", "false"]},
}
_MAY_FAIL = (404, 409, 429, 451, 502, 503, 504)


def _asked(path: str, summary: str, body: type[BaseModel], failure: type[BaseModel]) -> Operation:
    return Operation(
        "POST", path, summary, Answer, body=body, failure=failure, headers=_HEADERS, refusals=_MAY_FAIL, events=True
    )  # fmt: skip


OPERATIONS = (
    _asked("/v1/chat/completions", "OpenAI's chat completions", ChatBody, OpenAIFailure),
    _asked("/v1/responses", "OpenAI's responses", ResponsesBody, OpenAIFailure),
    _asked("/v1/messages", "Anthropic's messages", MessagesBody, AnthropicFailure),
    _asked("/v1/embeddings", "OpenAI's embeddings", EmbeddingsBody, OpenAIFailure)._replace(events=False),
    Operation(
        "POST", "/v1/agents/{agent}/tasks", "A task for an agent that speaks none of these", TaskAnswer, body=Task,
        failure=TaskFailure, headers=_HEADERS, refusals=(*_MAY_FAIL, 422), events=True,
    ),
    Operation(
        "POST", "/v1/feedback", "Say something about an answer of one's tenant's", FeedbackTaken, body=Feedback,
        status=201, refusals=(200, 404, 409, 429, 503),
    ),
    Operation("GET", "/v1/models", "The agents and services, as models", Models),
    Operation("GET", "/v1/models/{agent}", "One of them", Model, refusals=(404,)),
    Operation("GET", "/v1/agents", "The agents", Agents),
    Operation("GET", "/healthz", "Whether the process answers", Health, open=True),
    Operation(
        "GET", "/readyz", "Whether requests are taken in and any agent can be served", Readiness, refusals=(503,),
        open=True,
    ),
    Operation("GET", "/openapi.json", "This document", "application/json"),
)  # fmt: skip
"""Everything that clients can ask the data plane for."""
