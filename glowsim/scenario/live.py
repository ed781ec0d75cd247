"""What only live mode needs: where agents are, how they are spoken to, whose tokens are believed.

A simulation passes over it, and it is no part of a scenario's digest: the same file is run and served.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from glowsim.scenario.base import AgentName, ChosenBy, Items, Model, Name, findings_error
from glowsim.scenario.problems import Finding
from glowsim.scenario.quantities import DURATION, PositiveDuration, Within

__all__ = ["CallableAgent", "HttpJson", "Live", "LiveAgent", "OpenAIHttp", "Pods", "Processes", "Tokens"]


def _keys_url(url: str) -> str:
    parts = urlsplit(url)
    local = parts.hostname in ("localhost", "127.0.0.1", "::1")
    if not parts.hostname or not (parts.scheme == "https" or (parts.scheme == "http" and local)):
        message = "must be https://..., or http:// on this machine: its keys decide who may call"
        raise PydanticCustomError("url", "{message}", {"message": message})
    if parts.username is not None or parts.password is not None:
        raise PydanticCustomError("url", "must not hold a password: keys are public")
    return url


def _url(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        message = f"{url!r} is not a URL that begins with http:// or https://"
        raise PydanticCustomError("url", "{message}", {"message": message})
    return url.rstrip("/")


Url = Annotated[str, AfterValidator(_url)]
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=200)]
"""The name of an environment variable: secrets stand nowhere else."""
UrlPath = Annotated[str, Field(pattern=r"^/[!-~]*$", max_length=1000)]
Beneath = Annotated[str, Field(pattern=r"^[!-~]+$", max_length=1000)]
"""A page of an instance: ``/health`` on its host, ``health`` beneath its URL."""
FieldPath = Annotated[str, Field(pattern=r"^[^.]+(\.[^.]+)*$", max_length=1000)]
"""Where a value stands in a JSON answer: ``choices.0.text``."""


class Processes(Model):
    """Processes on this machine, started and stopped as the scaler decides."""

    command: Items[Annotated[str, Field(min_length=1, max_length=10_000)]] = Field(
        min_length=1,
        max_length=1000,
        description="Program and arguments; {port} and {instance} are replaced.",
    )
    environment: dict[Variable, str] = Field(default={}, description="Variables beside the daemon's own.")
    directory: str | None = Field(default=None, description="Where it runs; default: where the daemon does.")
    ready_within_s: PositiveDuration = Field(
        default=60.0, alias="ready_within", description="Longest time to start."
    )
    stop_within_s: PositiveDuration = Field(
        default=10.0, alias="stop_within", description="From SIGTERM to SIGKILL."
    )
    limit: Annotated[int, Field(ge=1, le=1000)] = Field(default=32, description="Most processes at once.")


class Pods(Model):
    """A Kubernetes deployment, scaled as the scaler decides."""

    namespace: Name = Field(default="default", description="Its namespace.")
    deployment: Name = Field(description="Its name.")
    port: Annotated[int, Field(ge=1, le=65535)] = Field(description="Where its pods listen.")
    ready_within_s: PositiveDuration = Field(
        default=600.0, alias="ready_within", description="Longest time for a pod to start."
    )
    stop_within_s: PositiveDuration = Field(
        default=120.0,
        alias="stop_within",
        description="Longest time for a pod to go, above its terminationGracePeriodSeconds.",
    )
    limit: Annotated[int, Field(ge=1, le=10_000)] = Field(default=100, description="Most pods at once.")


class _Reached(Model):
    """An agent behind HTTP: at fixed URLs, as processes, or as pods."""

    urls: Items[Url] = Field(
        default=(), max_length=1000, description="The base URL of each instance; their number is fixed."
    )
    process: Processes | None = Field(default=None, description="Instances are processes on this machine.")
    kubernetes: Pods | None = Field(default=None, description="Instances are pods of a deployment.")
    health: Beneath | None = Field(
        default=None,
        description="Page to GET, /health on its host or health beneath its URL: an instance is well if that "
        "succeeds; default: a TCP connect.",
    )
    metrics: Beneath | None = Field(
        default=None, description="Page with vLLM's metrics, where its load is read; default: not read."
    )
    report_every_s: PositiveDuration = Field(
        default=5.0, alias="report_every", description="How often the load is read."
    )
    key_env: Variable | None = Field(
        default=None, description="Environment variable with the key that instances want."
    )

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if sum((bool(self.urls), self.process is not None, self.kubernetes is not None)) != 1:
            raise findings_error(Finding((), "must have one of 'urls', 'process' and 'kubernetes'"))
        return self


class OpenAIHttp(_Reached):
    """Instances that speak OpenAI's API: vLLM, llama.cpp, Ollama, hosted ones."""

    adapter: Literal["openai_http"] = Field(description="Spoken to by OpenAI's API.")
    speaks: Items[Literal["chat", "responses", "messages", "embeddings"]] = Field(
        default=("chat", "embeddings"),
        min_length=1,
        description="What they take as it is; anything else is translated to chat.",
    )
    path: UrlPath | Literal[""] = Field(
        default="/v1", description="What comes before /chat/completions and the like."
    )
    model: Annotated[str, Field(min_length=1, max_length=1000)] | None = Field(
        default=None, description="What they call their model; default: the model that the plan names."
    )


class HttpJson(_Reached):
    """Instances with JSON of their own."""

    adapter: Literal["http_json"] = Field(description="Spoken to by JSON of its own.")
    path: UrlPath | Literal[""] = Field(default="", description="Where to POST on an instance.")
    request: dict[str, Any] | None = Field(
        default=None,
        description="What to send; {input}, {messages}, {model} and {max_tokens_out} are replaced. Default: "
        "input, max_tokens_out and stream.",
    )
    output: FieldPath = Field(default="output", description="Where the answer stands in what comes back.")
    tokens_in: FieldPath = Field(
        default="usage.tokens_in", description="Where the tokens of the input stand."
    )
    tokens_cached: FieldPath = Field(
        default="usage.tokens_cached", description="Where the cached ones stand."
    )
    tokens_out: FieldPath = Field(default="usage.tokens_out", description="Where those of the output stand.")
    score: FieldPath = Field(default="score", description="Where the agent rates its own answer, 0 to 1.")


class CallableAgent(Model):
    """A coroutine function in the daemon's process; code, so ``--allow-plugins`` must be given."""

    adapter: Literal["callable"] = Field(description="A function in this process.")
    use: Annotated[str, Field(pattern=r"^[\w.]+:\w+$", max_length=1000)] = Field(
        description="module:function"
    )


LiveAgent = Annotated[OpenAIHttp | HttpJson | CallableAgent, ChosenBy("adapter")]


class Tokens(Model):
    """Signed tokens (JWT) that say who calls."""

    issuer: Annotated[str, Field(min_length=1, max_length=1000)] = Field(
        description="Who must have issued them."
    )
    audience: Annotated[str, Field(min_length=1, max_length=1000)] = Field(
        description="For whom they must be."
    )
    algorithm: Literal["RS256", "ES256", "EdDSA", "HS256"] = Field(
        description="The only one that is accepted."
    )
    keys_file: Annotated[str, Field(min_length=1, max_length=1000)] | None = Field(
        default=None, description="Public keys, beside the scenario: PEM, or a JSON key set (JWKS)."
    )
    keys_url: Annotated[str, Field(max_length=2000), AfterValidator(_keys_url)] | None = Field(
        default=None,
        description="Where the issuer publishes its public keys (JWKS), fetched again as they age; https, or http on "
        "this machine.",
    )
    secret_env: Variable | None = Field(
        default=None, description="Environment variable with the shared secret of HS256."
    )
    user_claim: Name = Field(default="sub", description="The claim that names the user.")
    tenant_claim: Name = Field(default="tenant", description="The claim that names the tenant.")

    @model_validator(mode="after")
    def _a_key(self) -> Self:
        public = (self.keys_file is not None) + (self.keys_url is not None)
        shared = self.secret_env is not None
        if (shared, public) != ((True, 0) if self.algorithm == "HS256" else (False, 1)):
            message = "must have 'secret_env' for HS256, and one of 'keys_file' and 'keys_url' for any other algorithm"
            raise findings_error(Finding((), message))
        return self


class Keeping(Model):
    """How the journal is cut into segments, and how much of it is kept."""

    records: int = Field(
        default=50_000,
        ge=1,
        le=10_000_000,
        description="After which a segment is full: what a restart replays at most. A request is about six.",
    )
    keep_bytes: int = Field(
        default=4 * 1024**3,
        ge=0,
        description="The oldest segments are deleted beyond this. A request is about 200.",
    )


ProbeTimeout = Annotated[float, Within(DURATION, 0.01, 300.0)]


class Live(Model):
    """The live side of a scenario."""

    agents: dict[AgentName, LiveAgent] = Field(
        default={}, description="Agent -> how it is reached; the others are emulated."
    )
    probe_timeout_s: ProbeTimeout = Field(
        default=5.0,
        alias="probe_timeout",
        description="Within which an instance must have said that it is well: 10ms to 5 minutes.",
    )
    tokens: Tokens | None = Field(
        default=None, description="Signed tokens that say who calls; default: keys only."
    )
    journal: Keeping = Field(
        default=Keeping(), description="How the journal is cut into segments, and how much of it is kept."
    )
    otel: bool = Field(
        default=False, description="Traces and metrics for OpenTelemetry, as the OTEL_* variables say."
    )
