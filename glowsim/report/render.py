"""From the model of a report to one HTML page and one PDF."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from glowsim.resources import resource

__all__ = ["html", "pdf"]


def html(report: Mapping[str, Any]) -> str:
    """Return a report as one page that needs no other file, no network and no script.

    Parameters
    ----------
    report
        As ``glowsim.report.model.build`` made it.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(resource("reports/templates")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(report=report)


def pdf(report: Mapping[str, Any], finished_at: str) -> bytes:
    """Return a report as PDF; equal reports of one moment give equal bytes.

    Parameters
    ----------
    report
        As ``glowsim.report.model.build`` made it.
    finished_at
        ISO 8601, with an offset: the date of the document.

    Raises
    ------
    ValueError
        ``finished_at`` is no such moment.
    """
    import matplotlib as mpl
    import typst

    template = resource("reports/templates", "report.typ")
    found: bytes = typst.compile(
        str(template),
        root=str(template.parent),
        font_paths=[str(Path(mpl.get_data_path()) / "fonts" / "ttf")],
        ignore_system_fonts=True,
        sys_inputs={"report": json.dumps(report, ensure_ascii=False)},
        timestamp=int(datetime.fromisoformat(finished_at).timestamp()),
    )
    return found
