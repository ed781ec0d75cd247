"""The daemon's settings: addresses, limits, and who may call. Secrets come from the environment only."""

from __future__ import annotations

import hmac
import os
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

from glowsim.core.errors import GlowsimError

__all__ = ["Caller", "Settings", "SettingsError", "settings"]

_SHORTEST_SECRET = 16


class SettingsError(GlowsimError):
    """The daemon cannot start as it was told to."""


class Caller(NamedTuple):
    """Who a key belongs to.

    >>> Caller("alice", "acme").tenant
    'acme'
    """

    user: str
    tenant: str


def _secret(secret: SecretStr) -> SecretStr:
    if len(secret.get_secret_value()) < _SHORTEST_SECRET:
        raise ValueError(f"a key or token has fewer than {_SHORTEST_SECRET} characters: give a longer one")
    return secret


def _url(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"{url!r} is not a URL that begins with http:// or https://")
    return url


Secret = Annotated[SecretStr, AfterValidator(_secret)]
Port = Annotated[int, Field(ge=0, le=65535)]


class Settings(BaseModel):
    """Where the daemon listens, what it allows, where its journal goes.

    Raises
    ------
    pydantic.ValidationError
        A value out of bounds; an address that others can reach without keys and an admin token.

    >>> Settings(journal_path="fleet.journal").loopback
    True
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    host: str = "127.0.0.1"
    port: Port = 8080
    """0: chosen by the system."""
    admin_port: Port = 8081
    upstreams: dict[str, tuple[Annotated[str, AfterValidator(_url)], ...]] = {}
    """Agent -> the URLs of its instances; agents without any are emulated."""
    health_path: Annotated[str, Field(pattern="^/")] | None = None
    """Where instances say how they are; without one, an instance that takes connections is well."""
    journal_path: Path
    """A folder, of its segments."""
    journal_records: Annotated[int, Field(ge=1)] = 50_000
    """After which a segment is full."""
    journal_keep_bytes: Annotated[int, Field(ge=0)] = 4 * 1024**3
    """The oldest segments are deleted beyond this."""
    store_path: Path | None = None
    """Feedback, audit and roll-ups; default: the journal's path and ``.db``."""
    keep_text: bool = False
    """Whether texts of feedback are kept."""
    keep_requests: Annotated[int, Field(ge=1)] = 1_000_000
    """Served requests on which feedback is taken, the newest; about 100 bytes each."""
    grace_s: Annotated[float, Field(gt=0.0, le=3600.0)] = 30.0
    """From the order to stop until the process has ended."""
    keys: dict[Caller, Secret] = {}
    tokens: bool = False
    """Whether signed tokens say who calls, beside keys."""
    admin_token: Secret | None = None
    max_body_bytes: Annotated[int, Field(ge=1)] = 8 * 1024 * 1024
    max_header_bytes: Annotated[int, Field(ge=1024)] = 16 * 1024
    connections: Annotated[int, Field(ge=1)] = 10_000
    """Most clients' connections at once."""
    apology: Annotated[str, Field(min_length=1, max_length=4096)] = (
        "I am sorry: I cannot answer this at the moment. Please try again later."
    )
    """What a fallback ladder answers for want of anything else."""
    max_tokens_out: Annotated[int, Field(ge=1)] = 4096
    """For a task that names no limit."""
    body_timeout_s: Annotated[float, Field(gt=0.0)] = 30.0
    """Longest time for a body to come in."""
    flush_every_s: Annotated[float, Field(gt=0.0)] = 1.0
    """What a killed process may lose of its journal, but for what its clients were answered by then."""

    @field_validator("upstreams")
    @classmethod
    def _some(cls, upstreams: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        for agent, urls in upstreams.items():
            if not urls:
                raise ValueError(f"{agent} has an upstream without a URL")
        return upstreams

    @model_validator(mode="after")
    def _safe(self) -> Self:
        if not self.loopback and not ((self.keys or self.tokens) and self.admin_token):
            raise ValueError(
                f"others can reach {self.host}: set GLOWSIM_KEYS (or live.tokens) and GLOWSIM_ADMIN_TOKEN, or "
                "listen on 127.0.0.1"
            )
        return self

    @property
    def store(self) -> Path:
        """Where the store is."""
        return self.store_path or self.journal_path.with_name(self.journal_path.name + ".db")

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the address."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False

    def is_admin(self, token: str) -> bool:
        """Return whether a token is the admin's, in constant time; without one, everybody is (on loopback)."""
        if self.admin_token is None:
            return True
        return hmac.compare_digest(self.admin_token.get_secret_value().encode(), token.encode())


def settings(*, environment: Mapping[str, str] = os.environ, **given: Any) -> Settings:
    """Return checked settings, with the secrets of the environment.

    ``GLOWSIM_KEYS`` is a list of ``user@tenant:key``, separated by commas; ``user:key`` belongs to the tenant
    ``default``. ``GLOWSIM_ADMIN_TOKEN`` is the admin's.

    Raises
    ------
    SettingsError
        What is wrong and how to mend it; secrets are not repeated.

    >>> some = settings(journal_path="j", environment={"GLOWSIM_KEYS": "ann@acme:0123456789abcdef"})
    >>> list(some.keys)
    [Caller(user='ann', tenant='acme')]
    """
    secrets: dict[str, Any] = {"keys": _keys(environment.get("GLOWSIM_KEYS", ""))}
    if environment.get("GLOWSIM_ADMIN_TOKEN"):
        secrets["admin_token"] = environment["GLOWSIM_ADMIN_TOKEN"]
    try:
        return Settings(**secrets, **given)
    except ValidationError as error:
        first = error.errors(include_input=False, include_context=False)[0]
        place = ".".join(part for part in map(str, first["loc"]) if not part.startswith("Caller"))
        said = first["msg"].removeprefix("Value error, ")
        raise SettingsError(f"{place}: {said}" if place else said) from None


def _keys(text: str) -> dict[Caller, str]:
    keys: dict[Caller, str] = {}
    for number, entry in enumerate(filter(None, (each.strip() for each in text.split(","))), start=1):
        who, colon, key = entry.partition(":")
        user, _, tenant = who.partition("@")
        if not colon or not user or not key:
            raise SettingsError(f"GLOWSIM_KEYS: entry {number} is not of the form user@tenant:key")
        caller = Caller(user, tenant or "default")
        if caller in keys:
            raise SettingsError(f"GLOWSIM_KEYS: {user}@{caller.tenant} has two keys; give each its own user")
        keys[caller] = key
    return keys
