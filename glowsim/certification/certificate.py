"""Certificates: which controllers were found to meet their service levels, on which traffic, by which version."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from hashlib import blake2b
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

import glowsim
from glowsim.certification.envelope import FIGURES, Bounds
from glowsim.core.errors import GlowsimError
from glowsim.scenario import Scenario, digest
from glowsim.scenario.controllers import Controller

__all__ = ["Certificate", "CertificateError", "Lapse", "blocks", "check", "path_beside", "read", "write"]

_LONGEST_FILE = 1024 * 1024


class CertificateError(GlowsimError):
    """There is no certificate, or not one for this; the message says how to get one."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Level(_Part):
    """A service level that was judged."""

    name: str
    metric: str
    value: float | None
    low: float | None
    high: float | None
    verdict: str


class Lapse(_Part):
    """Why a certificate no longer holds: traffic left what it was earned on."""

    when: str
    figure: str
    value: float
    low: float
    high: float


class Certificate(_Part):
    """What ``glowsim certify`` found, and what ``glowsim serve`` asks for."""

    glowsim_certificate: Literal[1]
    made: str
    """Date and time, ISO 8601."""
    version: str
    """Of glowsim: other code may decide otherwise."""
    scenario: str
    digest: str
    seed: int
    replications: Annotated[int, Field(ge=1)]
    verdict: str
    levels: tuple[Level, ...]
    blocks: dict[str, str]
    """Agent -> hash of the controllers that decide for it."""
    envelope: dict[str, tuple[float, float]]
    """Figure of a block of requests -> its bounds: see `glowsim.certification.envelope`."""
    lapse: Lapse | None = None

    @model_validator(mode="after")
    def _known_figures(self) -> Self:
        unknown = [name for name in self.envelope if name not in FIGURES]
        if unknown:
            raise ValueError(
                f"the envelope has figures that this version does not know: {', '.join(unknown)}"
            )
        return self

    def bounds(self) -> dict[str, Bounds]:
        """Return the envelope."""
        return {name: Bounds(*pair) for name, pair in self.envelope.items()}


def blocks(scenario: Scenario, names: Collection[str] | None = None) -> dict[str, str]:
    """Return agent -> 32 hexadecimal digits of the controllers that decide for it, as they are written.

    The source of a controller that is code beside the scenario (``module:Class``) is part of it.

    Parameters
    ----------
    scenario
        Whose controllers.
    names
        Of which agents; None: all.
    """
    found = {}
    for name, agent in scenario.agents().items():
        if names is None or name in names:
            chosen = scenario.controllers_of(agent)
            said = {family: [_said(each) for each in several] for family, several in chosen.items()}
            text = json.dumps(said, sort_keys=True, ensure_ascii=False)
            found[name] = blake2b(text.encode(), digest_size=16).hexdigest()
    return found


def _said(controller: Controller) -> dict[str, Any]:
    said: dict[str, Any] = controller.model_dump(by_alias=True, exclude_none=True, mode="json")
    if ":" in controller.use:
        spec = find_spec(controller.use.partition(":")[0])
        if spec is not None and spec.origin is not None:
            said["source"] = blake2b(Path(spec.origin).read_bytes(), digest_size=16).hexdigest()
    return said


def of_run(
    scenario: Scenario, summary: Mapping[str, Any], envelope: Mapping[str, Bounds], made: str
) -> Certificate:
    """Return the certificate of a run.

    Parameters
    ----------
    scenario
        What was run.
    summary
        Of the run.
    envelope
        The traffic that it was earned on.
    made
        When.

    Raises
    ------
    CertificateError
        A service level is not met, is undecided, or there is none.
    """
    if not summary["slos"]:
        raise CertificateError("there is nothing to certify: the scenario has no service levels (slos)")
    levels = [{key: each.get(key) for key in Level.model_fields} for each in summary["slos"]]
    unmet = [f"{each['name']}: {each['verdict']}" for each in levels if each["verdict"] != "met"]
    if unmet:
        raise CertificateError(
            f"no certificate: {'; '.join(unmet)}. Where it is undecided, more --replications may decide it"
        )
    return Certificate(
        glowsim_certificate=1,
        made=made,
        version=glowsim.__version__,
        scenario=summary["name"],
        digest=digest(scenario),
        seed=scenario.seed,
        replications=summary["replications"],
        verdict=summary["verdict"],
        levels=tuple(Level.model_validate(each) for each in levels),
        blocks=blocks(scenario),
        envelope={name: (pair.low, pair.high) for name, pair in envelope.items()},
    )


def path_beside(scenario: Path) -> Path:
    """Return where a scenario's certificate is, if nothing else is said.

    >>> path_beside(Path("fleet.yaml")).name
    'fleet.certificate.json'
    """
    return scenario.with_name(f"{scenario.stem}.certificate.json")


def write(certificate: Certificate, path: Path) -> None:
    """Write a certificate, whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(certificate.model_dump_json(indent=2, exclude_none=True) + "\n")
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def read(path: Path) -> Certificate:
    """Return the certificate in a file.

    Raises
    ------
    CertificateError
        There is none, or none that can be read.
    """
    try:
        with path.open("rb") as file:
            text = file.read(_LONGEST_FILE + 1)
    except OSError as error:
        raise CertificateError(f"there is no certificate at {path}: {error.strerror}") from error
    if len(text) > _LONGEST_FILE:
        raise CertificateError(f"{path} is no certificate: it is longer than {_LONGEST_FILE} bytes")
    try:
        return Certificate.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "it"
        raise CertificateError(f"{path} is no certificate: {where}: {first['msg']}") from None


def check(certificate: Certificate, scenario: Scenario, agents: Collection[str]) -> None:
    """Check that the controllers of some agents are certified.

    Every agent's controllers must be, as they are written, those of one of the certified agents.

    Parameters
    ----------
    certificate
        The certificate.
    scenario
        What is to be served.
    agents
        Those of its agents that are real.

    Raises
    ------
    CertificateError
        They are not, or it lapsed, or another version of glowsim earned it.
    """
    if certificate.version != glowsim.__version__:
        raise CertificateError(
            f"the certificate was earned by glowsim {certificate.version}, and this is {glowsim.__version__}: "
            "certify again"
        )
    lapse = certificate.lapse
    if lapse is not None:
        raise CertificateError(
            f"the certificate lapsed on {lapse.when}: {FIGURES.get(lapse.figure, lapse.figure)} was {lapse.value:g}, "
            f"and it was earned on {lapse.low:g} to {lapse.high:g}: certify again, on traffic like that"
        )
    certified = set(certificate.blocks.values())
    others = [name for name, block in blocks(scenario, agents).items() if block not in certified]
    if others:
        raise CertificateError(
            f"the certificate is not for the controllers of {', '.join(others[:5])}"
            + (f" and {len(others) - 5} more" if len(others) > 5 else "")
            + ": they were changed since, or never certified"
        )
