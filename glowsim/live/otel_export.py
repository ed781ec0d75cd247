"""Where OpenTelemetry's spans and metrics go: by OTLP over HTTP, as the environment's ``OTEL_*`` variables say.

Everything is sent by threads of OpenTelemetry's own, from queues with a limit; what does not fit is dropped. That a
collector is not there is said once.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

import glowsim
from glowsim.live.settings import SettingsError

__all__ = ["Export"]

_log = logging.getLogger(__name__)
_CLOSE_WITHIN_S = 1.0
_TALKATIVE = ("opentelemetry.exporter", "opentelemetry.sdk._shared_internal", "opentelemetry.sdk.metrics")
"""Loggers that tell of every batch that does not get through."""


class Export:
    """Makes the tracer and the meter, and sends what they say.

    Raises
    ------
    SettingsError
        The environment asks for another exporter or protocol than OTLP over HTTP.
    """

    def __init__(self) -> None:
        _check(os.environ)
        detected = OTELResourceDetector().detect().attributes
        resource = Resource.create(
            {"service.name": "glowsim", "service.version": glowsim.__version__, **detected}
        )
        self._reached = _Reached()
        self._exporters: list[_Spans | _Metrics] = []
        traces = TracerProvider(resource=resource, shutdown_on_exit=False)
        if os.environ.get("OTEL_TRACES_EXPORTER") != "none":
            self._exporters.append(spans := _Spans(self._reached))
            traces.add_span_processor(BatchSpanProcessor(spans))
        readers = []
        if os.environ.get("OTEL_METRICS_EXPORTER") != "none":
            self._exporters.append(metrics := _Metrics(self._reached))
            readers.append(PeriodicExportingMetricReader(metrics))
        meters = MeterProvider(readers, resource, shutdown_on_exit=False)
        self._ends = (traces.shutdown, meters.shutdown)
        for name in _TALKATIVE:
            logging.getLogger(name).setLevel(logging.CRITICAL)  # `_Reached` says it, once
        self.tracer = traces.get_tracer("glowsim", glowsim.__version__)
        self.meter = meters.get_meter("glowsim", glowsim.__version__)

    async def close(self) -> None:
        """Send what is left, for a second at most."""
        # An exit does not wait for them.
        ends = [threading.Thread(target=end, daemon=True) for end in self._ends]
        for end in ends:
            end.start()
        until_s = time.monotonic() + _CLOSE_WITHIN_S
        for end in ends:
            await asyncio.to_thread(end.join, max(until_s - time.monotonic(), 0.0))
        self._reached.over = True
        if any(end.is_alive() for end in ends):
            _log.warning("OpenTelemetry: what was not sent within %g s is lost", _CLOSE_WITHIN_S)
            for exporter in self._exporters:
                exporter.shutdown()  # it tries no more


def _check(environment: Mapping[str, str]) -> None:
    for name in ("OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER"):
        if environment.get(name, "otlp") not in ("otlp", "none"):
            raise SettingsError(f"{name}: {environment[name]!r} is not offered: give otlp or none")
    for name in (
        "OTEL_EXPORTER_OTLP_PROTOCOL",
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
        "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL",
    ):
        if environment.get(name, "http/protobuf") != "http/protobuf":
            raise SettingsError(
                f"{name}: {environment[name]!r} is not offered: give http/protobuf, or leave it out"
            )


class _Reached:
    """Says that the collector cannot be reached, and that it can again: once each."""

    def __init__(self) -> None:
        self._lost: set[str] = set()
        self.over = False
        """Whether nobody wants to know any more."""

    def note(self, what: str, *, sent: bool, endpoint: str) -> None:
        if self.over or sent == (what not in self._lost):
            return
        where = urlsplit(endpoint).netloc.rpartition("@")[2]  # it may hold a password
        if sent:
            self._lost.remove(what)
            _log.warning("OpenTelemetry: %s reach %s again", what, where)
        else:
            self._lost.add(what)
            _log.warning("OpenTelemetry: %s do not reach %s and are dropped until they do", what, where)


class _Spans(OTLPSpanExporter):
    def __init__(self, reached: _Reached) -> None:
        super().__init__()
        self._reached = reached

    def export(self, *given: Any, **named: Any) -> Any:
        result = super().export(*given, **named)
        self._reached.note("spans", sent=result.value == 0, endpoint=self._endpoint)
        return result


class _Metrics(OTLPMetricExporter):
    def __init__(self, reached: _Reached) -> None:
        super().__init__()
        self._reached = reached

    def export(self, *given: Any, **named: Any) -> Any:
        result = super().export(*given, **named)
        self._reached.note("metrics", sent=result.value == 0, endpoint=self._endpoint)
        return result
