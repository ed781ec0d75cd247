"""Logs whose truth is known: LiteLLM spend rows of two models with published prices and laws of latency."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

BEGUN = datetime(2026, 3, 2, tzinfo=UTC)
PRICES = {
    "gpt-4o": {"input": 2.5e-6, "cached": 1.25e-6, "output": 1e-5},
    "gpt-4o-mini": {"input": 1.5e-7, "cached": 7.5e-8, "output": 6e-7},
}


@dataclass(frozen=True)
class Truth:
    """How the rows are made."""

    rows: int = 2400
    span_s: float = 86_400.0
    failed: float = 0.02
    cached: float = 0.4
    """Share of gpt-4o's prompts, on average, that is read from a cache."""
    slower: float = 1.0
    """Factor on the latencies of the last quarter."""
    dearer: float = 1.0
    """Factor on the costs of the last quarter."""
    streamed: bool = True
    costs: bool = True


def rows_of(truth: Truth, seed: int = 7) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    at_s = np.sort(rng.uniform(0.0, truth.span_s, truth.rows))
    at_s[[0, -1]] = 0.0, truth.span_s
    made = []
    for i, t_s in enumerate(at_s.tolist()):
        model = "gpt-4o" if rng.random() < 0.3 else "gpt-4o-mini"
        price, late = PRICES[model], t_s >= 0.75 * truth.span_s
        tokens_in, tokens_out = int(rng.lognormal(7.0, 0.6)), int(rng.lognormal(5.0, 0.5)) + 1
        cached = int(tokens_in * rng.uniform(0, 2 * truth.cached)) if model == "gpt-4o" else 0
        first_s = rng.lognormal(-0.7, 0.4) * (truth.slower if late else 1.0)
        per_token_s = rng.lognormal(-4.4, 0.2) * (truth.slower if late else 1.0)
        latency_s = first_s + per_token_s * (tokens_out - 1)
        cost = (tokens_in - cached) * price["input"] + cached * price["cached"] + tokens_out * price["output"]
        cost *= truth.dearer if late else 1.0
        failed = rng.random() < truth.failed
        begun = BEGUN + timedelta(seconds=t_s)
        made.append(
            {
                "request_id": f"r{i}",
                "startTime": begun.isoformat(),
                "completionStartTime": _after(begun, first_s) if truth.streamed and not failed else None,
                "endTime": _after(begun, 0.2 if failed else latency_s),
                "prompt_tokens": 0 if failed else tokens_in,
                "completion_tokens": 0 if failed else tokens_out,
                "spend": (0.0 if failed else cost) if truth.costs else None,
                "model": model,
                "agent_id": "tax" if model == "gpt-4o" else "faq",
                "status": "failure" if failed else "success",
                "metadata": json.dumps({"usage_object": {"prompt_tokens_details": {"cached_tokens": cached}}})
                if not failed and model == "gpt-4o"
                else "{}",
            }
        )
    return made


def _after(begun: datetime, seconds: float) -> str:
    return (begun + timedelta(seconds=float(seconds))).isoformat()


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    text = io.StringIO()
    table = csv.DictWriter(text, list(rows[0]))
    table.writeheader()
    table.writerows(rows)
    path.write_text(text.getvalue())
    return path


def price_map(path: Path, models: tuple[str, ...] = ("gpt-4o", "gpt-4o-mini")) -> Path:
    fields = {
        "input": "input_cost_per_token",
        "cached": "cache_read_input_token_cost",
        "output": "output_cost_per_token",
    }
    found = {name: {fields[kind]: usd for kind, usd in PRICES[name].items()} for name in models}
    path.write_text(json.dumps(found))
    return path


def moment(row: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(row["startTime"])
