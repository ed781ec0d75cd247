"""How the models of a log answer: what serves them, or the law of their latency, as a scenario spells it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy as np

from glowsim.importing.fitting import LEAST, time_law, token_service, weighted
from glowsim.importing.part import Bools, answered, column, part
from glowsim.traces.fit import LENGTH_P
from glowsim.traces.log import Log

__all__ = ["Answering", "answering", "failed_share", "replayable"]

_ASSUMED: Final = "average"
"""The preset of a hosted API where the log has no latencies."""
_DIGITS: Final = 6


class Answering(NamedTuple):
    """How a model answers."""

    server: dict[str, Any] | None
    """A hosted server; None: the agents have a law of service."""
    service: dict[str, Any]
    """Of the agents that use the model."""
    failures: dict[str, Any]
    """Of the agents; empty where the server fails."""
    origin: str
    source: str


def answering(log: Log, models: Mapping[str, Log]) -> dict[str, Answering]:
    """Return model -> how it answers, by what its rows say.

    - Times to the first token and whole latencies: a hosted server, whose two laws have the recorded quantiles;
      an answer's time for each further token counts as often as it has tokens.
    - Latencies alone: a law of service by tokens, with the recorded quantiles of what the line leaves over.
    - Too few of its own: the same from all models' rows together, which is assumed.
    - None at all: the preset of an average hosted API, which is assumed.
    """
    found = {}
    for model, rows in models.items():
        fitted = _fitted(rows)
        if fitted is not None:
            kind, law, n = fitted
            said = "fitted", f"{n} answers of {model} in the log: {kind}"
        elif (fitted := _fitted(log)) is not None:
            kind, law, n = fitted
            said = (
                "assumed",
                f"{model} has too few rows of its own; {n} answers of all models together: {kind}",
            )
        else:
            law = {"engine": "hosted", "preset": _ASSUMED}
            said = (
                "assumed",
                f"the log has no latencies of {LEAST} answers: the preset {_ASSUMED!r} of a hosted API",
            )
        share = failed_share(rows)
        if "engine" in law:
            law |= {"error": 0.0 if share is None else share}
            service = {"law": "steps", "client": {"tries": 1}, "steps": [{"step": "answer"}]}
            found[model] = Answering(law, service, {}, *said)
        else:
            found[model] = Answering(None, law, {"error": share} if share else {}, *said)
    return found


def failed_share(rows: Log) -> float | None:
    """Return the share of rows that are no answers; None where no status says."""
    if "status" not in rows.names:
        return None
    return float(f"{1.0 - answered(rows).mean():.{_DIGITS}g}")


def _fitted(rows: Log) -> tuple[str, dict[str, Any], int] | None:
    """Return what was fitted, the server or law, and to how many answers; None: there are too few."""
    tokens_in, tokens_out, latency_s, first_s = (
        column(rows, name) for name in ("tokens_in", "tokens_out", "latency_s", "first_token_s")
    )
    whole = answered(rows) & np.isfinite(tokens_in + tokens_out + latency_s)
    streamed = whole & np.isfinite(first_s)
    longer = streamed & (tokens_out > 1)
    if longer.sum() >= LEAST and 2 * streamed.sum() >= whole.sum():
        return (
            "quantiles of the time to the first token, and of the time for each further one",
            _hosted(part(rows, streamed), part(rows, longer)),
            int(streamed.sum()),
        )
    if whole.sum() < LEAST:
        return None
    law = token_service(tokens_in[whole], tokens_out[whole], latency_s[whole])
    return "latency by tokens; the time to the first token is not in the log", law, int(whole.sum())


def _hosted(streamed: Log, longer: Log) -> dict[str, Any]:
    further = longer.numbers["tokens_out"] - 1.0
    per_token_s = (longer.numbers["latency_s"] - longer.numbers["first_token_s"]) / further
    return {
        "engine": "hosted",
        "first_token": time_law(np.quantile(streamed.numbers["first_token_s"], LENGTH_P)),
        "per_token": time_law(weighted(np.maximum(per_token_s, 0.0), further)),
    }


def replayable(rows: Log) -> Bools:
    """Return which rows have what a replay needs: a number of tokens in and out, above 0 in all."""
    tokens = column(rows, "tokens_in") + column(rows, "tokens_out")
    return np.isfinite(tokens) & (tokens > 0)
