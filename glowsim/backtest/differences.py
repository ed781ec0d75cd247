"""Why the recorded cost is not the modelled one: differences that add up to all of it, each with a name."""

from __future__ import annotations

from collections.abc import Iterator
from math import fsum
from typing import Final, NamedTuple

import numpy as np

from glowsim.backtest.modelled import Floats, Replayed
from glowsim.importing.part import Bools, answered, column, keys, part
from glowsim.importing.scenario import Imported
from glowsim.importing.service import replayable
from glowsim.importing.tariff import Costs, Tariff, costs
from glowsim.scenario import Scenario
from glowsim.traces.log import Log

__all__ = ["UNEXPLAINED", "Difference", "differences"]

UNEXPLAINED: Final = "unexplained"
_NEGLIGIBLE: Final = 1e-9
"""Of a cost: rounding."""
_CLOSE: Final = 0.01
"""A cause is the cause of a row's difference if it leaves less than this share of its cost."""
_MOST: Final = 0.95
"""Of the rows, that a cause must be the cause of."""


class Difference(NamedTuple):
    """A part of recorded less modelled cost."""

    model: str
    name: str
    usd: float
    rows: int
    detail: str = ""


def differences(imported: Imported, judged: Log, replayed: Replayed) -> list[Difference]:
    """Return the parts of recorded less modelled cost, model by model; they add up to it.

    A row's part is recorded less listed (tokens times prices), named after the first of these that holds: its
    agent or model has no answer in the fitted part, it failed, it has no tokens, its cost is not recorded, it was
    free; else what the model's rows have in common, such as a discount; else it is unexplained. Beside the rows
    stand listed less mean prices (the shares of cached tokens moved).

    Parameters
    ----------
    imported
        Of the fitted part: its prices.
    judged
        The other part.
    replayed
        What the simulated world made of it.

    A log without costs has none.
    """
    found: list[Difference] = []
    if "cost_usd" not in judged.numbers:
        return found
    places, names = keys(judged)
    cost_usd = column(judged, "cost_usd")
    for place, key in enumerate(names):
        new = ~replayed.known & (places == place)
        if new.any():
            name = key.model or key.agent or "no name"
            found.append(_sum(name, "new: no answer of it in the fitted part", cost_usd[new]))
    prices = Scenario.model_validate(imported.scenario).models
    for name, slug in imported.models.items():
        number = replayed.models.index(slug)
        chosen = replayed.model == number
        if not chosen.any():
            continue
        rows = part(judged, chosen)
        price = prices[slug]
        mean = Costs(
            column(rows, "tokens_in") * price.input_usd_per_token,
            column(rows, "tokens_out") * price.output_usd_per_token,
        )
        simulated = [fsum(calls.cost_usd[calls.model == number].tolist()) for calls in replayed.answers]
        found += _of_model(slug, rows, imported.tariffs[name], mean, fsum(simulated) / len(simulated))
    return [each for each in found if each.usd or each.rows]


def _of_model(
    slug: str, rows: Log, tariff: Tariff, mean: Costs, simulated_usd: float
) -> Iterator[Difference]:
    cost_usd, listed = column(rows, "cost_usd"), costs(tariff.prices, rows)
    recorded = np.nan_to_num(cost_usd)
    failed, usable = ~answered(rows), replayable(rows)
    billed = usable & ~failed
    unknown = billed & np.isnan(cost_usd)
    free = billed & (cost_usd == 0) & (listed.usd > 0)
    priced = billed & ~unknown & ~free
    if (recorded[failed] > 0).any():
        yield _sum(slug, "calls that failed, and cost", recorded[failed & (recorded > 0)])
    if (recorded[~usable & ~failed] > 0).any():
        yield _sum(slug, "answers without tokens", recorded[~usable & ~failed])
    yield _sum(slug, "cost not recorded", -listed.usd[unknown])
    yield _sum(slug, "free answers", -listed.usd[free])
    if priced.any():
        if tariff.known:
            yield from _common(
                slug, part(rows, priced), tariff, (recorded - listed.usd)[priced], recorded[priced]
            )
        else:
            yield _sum(slug, UNEXPLAINED, recorded[priced], "its price is not known")
    for what, of_list, of_mean in (
        ("prompts", listed.input_usd, mean.input_usd),
        ("answers", listed.output_usd, mean.output_usd),
    ):
        moved = (of_list - of_mean)[billed]
        if abs(moved.sum()) > _NEGLIGIBLE * max(float(recorded.sum()), _NEGLIGIBLE):
            words = f"shares of cached, written, long or reasoned tokens in {what} moved"
            yield _sum(slug, words, moved)
    counted = float((mean.input_usd + mean.output_usd)[billed].sum()) - simulated_usd
    if abs(counted) > _NEGLIGIBLE * max(float(recorded.sum()), simulated_usd):
        yield Difference(slug, "tokens that the simulated world counts otherwise", counted, int(billed.sum()))


def _common(slug: str, rows: Log, tariff: Tariff, left: Floats, recorded: Floats) -> Iterator[Difference]:
    """Yield what the rows of a model have in common, if that explains nearly all of them, and what is left."""
    left = np.where(np.abs(left) <= _NEGLIGIBLE * recorded, 0.0, left)
    if float((np.abs(left) <= 0.1 * _CLOSE * recorded).mean()) < _MOST:
        for name, amount in _causes(rows, tariff, left, recorded):
            if float((np.abs(left - amount) <= _CLOSE * recorded).mean()) >= _MOST:
                yield _sum(slug, name, amount[amount != 0])
                left = left - amount
                left = np.where(np.abs(left) <= _NEGLIGIBLE * recorded, 0.0, left)
                break
    yield Difference(slug, UNEXPLAINED, fsum(left.tolist()), len(left), _hint(rows, tariff, left, recorded))


def _causes(rows: Log, tariff: Tariff, left: Floats, recorded: Floats) -> Iterator[tuple[str, Floats]]:
    """Yield what may be common to the rows: what it is called, and how much of each row's difference it is."""
    rates = tariff.prices.at(0)
    cached, written, reasoning = (
        np.nan_to_num(column(rows, name))
        for name in ("tokens_cached", "tokens_cache_write", "tokens_reasoning")
    )
    input_usd, output_usd = rates.input_usd or 0.0, rates.output_usd or 0.0
    if reasoning.any():
        yield "reasoning tokens billed beside the answer's", reasoning * output_usd
    if cached.any() and rates.cached_usd is not None:
        yield "cached tokens billed as fresh", cached * (input_usd - rates.cached_usd)
    if written.any() and rates.write_usd is not None:
        yield "tokens written to a cache billed as fresh", written * (input_usd - rates.write_usd)
    listed = recorded - left
    factor = float(np.median(recorded[listed > 0] / listed[listed > 0])) if (listed > 0).any() else 1.0
    if factor < 1.0:
        yield (
            f"a discount: calls cost {100 * (1 - factor):.3g} % less than prices say",
            (factor - 1.0) * listed,
        )
    elif factor > 1.0:
        yield (
            f"a surcharge: calls cost {100 * (factor - 1):.3g} % more than prices say",
            (factor - 1.0) * listed,
        )


def _hint(rows: Log, tariff: Tariff, left: Floats, recorded: Floats) -> str:
    total = fsum(recorded.tolist())
    if abs(fsum(left.tolist())) <= 1e-3 * total:
        return ""
    unread = tariff.prices.at(0).cached_usd is not None and not _said(rows, "tokens_cached").any()
    if left.sum() < 0 and unread:
        return "cached tokens have a price of their own, and the log does not record them"
    if left.sum() > 0 and tariff.prices.other:
        return f"the map of prices has others, not per token: {', '.join(tariff.prices.other)[:120]}"
    return ""


def _said(rows: Log, name: str) -> Bools:
    return np.isfinite(column(rows, name))


def _sum(model: str, name: str, usd: Floats, detail: str = "") -> Difference:
    known = usd[np.isfinite(usd)]
    return Difference(model, name, fsum(known.tolist()), len(usd), detail)
