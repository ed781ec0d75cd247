"""``glowsim import``: write a scenario of a log, and what its workload reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from glowsim.importing.part import ImportProblem
from glowsim.importing.scenario import How, Imported, scenario_of, text_of
from glowsim.presets import prices as price_maps
from glowsim.scenario import load
from glowsim.traces import reading

__all__ = ["ImportedLog", "import_log"]


class ImportedLog(NamedTuple):
    """A scenario that is on disk."""

    scenario: Path
    files: tuple[Path, ...]
    """What its workload reads; they lie beside it, which is the data folder of a run."""
    imported: Imported

    def text(self) -> str:
        """Return what was written, how to run it, and what to know of it, as lines for a person."""
        said = self.imported.scenario
        return "\n".join(
            [
                f"{self.scenario}: {len(said['fleet'])} agents, {len(said['models'])} models, {said['duration']}",
                *(f"- {each}" for each in self.imported.remarks),
                f"run it: glowsim run {self.scenario} --data {self.scenario.parent}",
            ]
        )


def import_log(
    source: Path, out: Path, *, format: str | None = None, columns: Mapping[str, str] | None = None,  # noqa: A002
    prices: Path | None = None, unpriced: bool = False, model: str | None = None, how: How = "replay",
    command: Sequence[str] = ("glowsim", "import"),
) -> ImportedLog:  # fmt: skip
    """Write a scenario of a log, with the files of its workload beside it; check that it loads.

    Parameters
    ----------
    source
        The log, in any format that ``glowsim.traces`` reads.
    out
        The scenario's file; its folder is made if it is not there.
    format
        Of the log; None: it is recognised.
    columns
        For the format ``csv``: column of a log -> name of the field.
    prices
        LiteLLM's map of prices, or a copy of it.
    unpriced
        Whether models whose price nobody knows are taken as free.
    model
        The model of rows that name none.
    how
        ``replay``, ``fitted`` or ``sessions``: see `scenario_of`.
    command
        How it was made, for the first line.

    Raises
    ------
    GlowsimError
        The log or the map cannot be read, there is too little in it, prices are not known, or a file is there
        already; says what to give.
    """
    log = reading.read(source, format, columns=columns)
    known = None if prices is None else price_maps.load(prices)
    imported = scenario_of(log, prices=known, unpriced=unpriced, model=model, how=how, stem=out.stem)
    content = {out: text_of(imported, " ".join(command))}
    content |= {out.parent / name: text for name, text in imported.files.items()}
    for path in content:
        if path.exists():
            raise ImportProblem(f"{path} exists: name another file, or remove it")
    out.parent.mkdir(parents=True, exist_ok=True)
    for path, text in content.items():
        path.write_text(text, encoding="utf-8")
    load(out)
    return ImportedLog(out, tuple(content)[1:], imported)
