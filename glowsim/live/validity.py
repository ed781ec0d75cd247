"""Whether the controllers that are served are certified, and whether traffic is still what they were certified on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from glowsim.certification.certificate import Certificate, CertificateError, Lapse, check, read, write
from glowsim.certification.envelope import FIGURES, Bounds, Watch
from glowsim.core.types import Command, Event
from glowsim.scenario import Scenario

__all__ = ["Validity"]

_log = logging.getLogger(__name__)


class Validity:
    """Asks for a certificate at the beginning, and lapses it when traffic leaves its envelope.

    A lapse is logged, shown on the admin's side, and written into the certificate, so that a restart asks for a new
    one. What runs goes on: taking the policies away from a fleet under unusual load would help nobody.

    Parameters
    ----------
    scenario
        What is served.
    real
        Its agents that are real. A fleet that is emulated whole needs no certificate: nothing real is at stake.
    path
        Of the certificate; None: none is asked for.

    Raises
    ------
    CertificateError
        There is none for the controllers of a real agent; says how to get it.
    """

    def __init__(self, scenario: Scenario, real: frozenset[str], path: Path | None) -> None:
        self._path = path
        self._real = real
        self._certificate: Certificate | None = None
        self.saw: Callable[[Event, Sequence[Command]], None] = _look_away
        """Takes in an event and the commands that answered it."""
        self.renew(scenario)

    def renew(self, scenario: Scenario) -> None:
        """Hold traffic against the certificate of another configuration. Raises as the constructor does."""
        certificate = self.certified(scenario)
        if certificate is not None:
            self._certificate = certificate
            self.saw = Watch(certificate.bounds(), self._left).saw

    def certified(self, scenario: Scenario) -> Certificate | None:
        """Return the certificate that a configuration has, None where none is asked for.

        Raises
        ------
        CertificateError
            There is none for the controllers of a real agent; says how to get it.
        """
        if self._path is None or not self._real:
            return None
        try:
            certificate = read(self._path)
            check(certificate, scenario, self._real)
        except CertificateError as error:
            raise CertificateError(
                f"{error}\nreal agents are served by certified controllers: 'glowsim certify' the scenario, or give "
                "--unvalidated"
            ) from None
        return certificate

    def _left(self, t_s: float, figure: str, value: float, bounds: Bounds) -> None:
        certificate = self._certificate
        if certificate is None or certificate.lapse is not None or self._path is None:
            return
        when = datetime.now(UTC).isoformat(timespec="seconds")
        lapse = Lapse(when=when, figure=figure, value=value, low=bounds.low, high=bounds.high)
        self._certificate = certificate.model_copy(update={"lapse": lapse})
        _log.warning(
            "the certificate lapsed: %s was %g in a block of requests, and it was earned on %g to %g",
            FIGURES[figure], value, bounds.low, bounds.high,
        )  # fmt: skip
        try:
            write(self._certificate, self._path)
        except OSError as error:
            _log.warning("that the certificate lapsed could not be written to %s: %s", self._path, error)

    def state(self) -> dict[str, Any]:
        """Return what the admin's side shows: ``status`` is ``none``, ``valid`` or ``lapsed``."""
        certificate = self._certificate
        if certificate is None:
            return {"status": "none"}
        said: dict[str, Any] = {"status": "valid", "made": certificate.made, "scenario": certificate.scenario}
        if certificate.lapse is not None:
            lapse = certificate.lapse
            said |= {"status": "lapsed", "lapse": {**lapse.model_dump(), "what": FIGURES[lapse.figure]}}
        return said


def _look_away(event: Event, commands: Sequence[Command]) -> None:
    """There is nothing to hold traffic against."""
