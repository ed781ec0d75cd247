"""``glowsim workload describe`` and ``glowsim workload fit``: a recorded log as numbers, and as a workload."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from glowsim import traffic
from glowsim.importing.part import ImportProblem
from glowsim.traces import reading
from glowsim.traces.describe import Description, describe
from glowsim.traces.fit import fit, write

__all__ = ["FittedWorkload", "describe_log", "fit_log"]


class FittedWorkload(NamedTuple):
    """A workload preset that is on disk."""

    path: Path
    preset: dict[str, Any]

    def text(self) -> str:
        """Return what the log has and what runs of the preset achieve, as lines for a person."""
        statistics = self.preset["statistics"]
        lines = [f"{'':18}{'log':>12}{'runs':>12}{'+-':>10}"]
        for name, target in statistics["target"].items():
            mean, deviation = statistics["achieved"][name]
            lines.append(f"{name:<18}{target:>12.4g}{mean:>12.4g}{deviation:>10.2g}")
        used = f"use it: workload: [{{kind: fitted, file: {self.path.name}}}], run with --data {self.path.parent}"
        return "\n".join([f"{self.path}", *lines, used])


def describe_log(
    source: Path, *, format: str | None = None, columns: Mapping[str, str] | None = None  # noqa: A002
) -> tuple[str, Description]:  # fmt: skip
    """Return what was read and refused, as lines for a person, and what the log looks like.

    Parameters
    ----------
    source
        The log.
    format
        Of the log; None: it is recognised.
    columns
        For the format ``csv``: column of a log -> name of the field.

    Raises
    ------
    LogError
        It cannot be read, or has fewer than two requests.
    """
    log = reading.read(source, format, columns=columns)
    return log.reading.text(), describe(log)


def fit_log(
    source: Path, out: Path, *, format: str | None = None, columns: Mapping[str, str] | None = None,  # noqa: A002
    envelope: Literal["stochastic", "recorded"] = "stochastic", window_s: float | None = None,
) -> FittedWorkload:  # fmt: skip
    """Write a workload preset that resembles a log; a scenario names it by ``kind: fitted``.

    Parameters
    ----------
    source, format, columns
        See `describe_log`.
    out
        The preset's file; its folder is made if it is not there.
    envelope, window_s
        See ``glowsim.traces.fit.fit``.

    Raises
    ------
    GlowsimError
        The log cannot be read, has fewer than 100 requests or no tokens, or the file is there already.
    """
    if out.exists():
        raise ImportProblem(f"{out} exists: name another file, or remove it")
    log = reading.read(source, format, columns=columns)
    preset = fit(log, traffic.play, envelope=envelope, window_s=window_s, name=out.stem)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(write(preset), encoding="utf-8")
    return FittedWorkload(out, preset)
