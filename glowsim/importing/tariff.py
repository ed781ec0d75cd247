"""What the models of a log cost: by a map of prices, or by the log's own costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from glowsim.importing.fitting import fit_rates
from glowsim.importing.part import ImportProblem, answered, column, part
from glowsim.presets.prices import ModelPrices, PriceMap, Rates
from glowsim.traces.log import Floats, Log

__all__ = ["Costs", "Tariff", "costs", "in_map", "tariff", "tariffs"]

_STANDARD = "standard"


class Tariff(NamedTuple):
    """What a model's tokens cost, and who says so."""

    prices: ModelPrices
    origin: str
    """``published``, ``fitted`` or ``assumed``."""
    source: str
    known: bool
    """False: nobody knows, and its tokens are taken as free."""


class Costs(NamedTuple):
    """What the calls of a model cost by its tariff, in US dollars; nan where a row lacks tokens."""

    input_usd: Floats
    """Of the prompt, its cached and written parts included."""
    output_usd: Floats

    @property
    def usd(self) -> Floats:
        """Both together."""
        return self.input_usd + self.output_usd


def costs(prices: ModelPrices, log: Log) -> Costs:
    """Return what a tariff says of each row of a log.

    Tokens read from or written to a prompt cache cost what input does where the tariff has no price for them,
    reasoning what output does; a prompt above a threshold has the threshold's prices.

    >>> from glowsim.traces.log import Reading
    >>> numbers = {"tokens_in": np.array([1000.0]), "tokens_cached": np.array([600.0]), "tokens_out": np.array([10.0])}
    >>> log = Log("a.csv", "csv", np.zeros(1), Reading(1), numbers=numbers)
    >>> costs(ModelPrices("m", "", "", {("standard", 0): Rates(1e-6, 1e-5, 1e-7)}), log).usd.round(9).tolist()
    [0.00056]
    """
    tokens_in, tokens_out = column(log, "tokens_in"), column(log, "tokens_out")
    cached, written, reasoning = (
        np.nan_to_num(column(log, name))
        for name in ("tokens_cached", "tokens_cache_write", "tokens_reasoning")
    )
    thresholds = sorted({above for service, above in prices.rates if service == _STANDARD})
    tier = np.searchsorted(thresholds, np.nan_to_num(tokens_in), side="left") - 1
    input_usd, output_usd = np.full(len(log), np.nan), np.full(len(log), np.nan)
    for i in np.unique(np.maximum(tier, 0)).tolist():
        mine = np.maximum(tier, 0) == i
        rates = prices.at(thresholds[i] + 1)
        fresh_usd, answer_usd = rates.input_usd or 0.0, rates.output_usd or 0.0
        cached_usd = fresh_usd if rates.cached_usd is None else rates.cached_usd
        written_usd = fresh_usd if rates.write_usd is None else rates.write_usd
        reasoning_usd = answer_usd if rates.reasoning_usd is None else rates.reasoning_usd
        fresh = tokens_in - cached - written
        input_usd[mine] = (fresh * fresh_usd + cached * cached_usd + written * written_usd)[mine]
        output_usd[mine] = ((tokens_out - reasoning) * answer_usd + reasoning * reasoning_usd)[mine]
    return Costs(input_usd, output_usd)


def in_map(model: str, prices: Mapping[str, ModelPrices]) -> str | None:
    """Return the entry of a map that is a model's: of its name, or of its name without the provider's before it.

    >>> in_map("openai/gpt-4o", {"gpt-4o": None})
    'gpt-4o'
    """
    return next((name for name in (model, model.rpartition("/")[2]) if name in prices), None)


def tariffs(
    log: Log, models: Mapping[str, Log], prices: PriceMap | None, *, unpriced: bool
) -> dict[str, Tariff]:
    """Return model -> its tariff.

    Parameters
    ----------
    log
        The whole, for messages.
    models
        Model -> its rows.
    prices
        The map; None: the costs in the log must do.
    unpriced
        Whether models whose price nobody knows are taken as free.

    Raises
    ------
    ImportProblem
        Models without a price; says for each why, and what to give.
    """
    found: dict[str, Tariff] = {}
    lacking: dict[str, str] = {}
    for model, rows in models.items():
        try:
            found[model] = tariff(model, rows, prices)
        except ImportProblem as problem:
            lacking[model] = str(problem)
            free = ModelPrices(model, "", "", {(_STANDARD, 0): Rates(0.0, 0.0)})
            found[model] = Tariff(free, "assumed", f"free, for its price is not known: {problem}", False)
    if lacking and not unpriced:
        listed = "\n".join(f"  {model}: {why}" for model, why in lacking.items())
        raise ImportProblem(
            f"{log.source}: the prices of {len(lacking)} of {len(models)} models are not known\n{listed}\n"
            "give a map of prices that has them (--prices, LiteLLM's model_prices_and_context_window.json), "
            "or take them as free (--unpriced)"
        )
    return found


def tariff(model: str, rows: Log, prices: PriceMap | None) -> Tariff:
    """Return a model's tariff: the map's, or the one that its own costs tell.

    Raises
    ------
    ImportProblem
        Neither is there.
    """
    if prices is not None and (name := in_map(model, prices)) is not None:
        entry = prices[name]
        if (_STANDARD, 0) in entry.rates and None not in entry.at(0)[:2]:
            return Tariff(entry, "published", f"the map of prices, {name}", True)
    missing = "" if prices is None else "not in the map of prices, and "
    cost_usd = column(rows, "cost_usd")
    tokens = column(rows, "tokens_in") + column(rows, "tokens_out")
    usable = answered(rows) & (cost_usd > 0) & np.isfinite(tokens)
    if not usable.any():
        raise ImportProblem(f"{missing}none of its {len(rows)} rows has both tokens and a cost")
    mine = part(rows, usable)
    cached, written = (np.nan_to_num(column(mine, name)) for name in ("tokens_cached", "tokens_cache_write"))
    try:
        fitted = fit_rates(
            column(mine, "tokens_in") - cached - written, cached, written, column(mine, "tokens_out"),
            column(mine, "cost_usd"),
        )  # fmt: skip
    except ImportProblem as problem:
        raise ImportProblem(f"{missing}{problem}") from problem
    source = (
        f"least squares on the costs of {fitted.rows} rows of the log; {100 * fitted.within:.3g} % of them within 1 %, "
        f"{100 * fitted.left:.2g} % of the cost left over"
    )
    return Tariff(ModelPrices(model, "", "", {(_STANDARD, 0): fitted.rates}), "fitted", source, True)
