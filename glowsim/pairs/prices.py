"""What a call costs: by the models of a scenario, or by LiteLLM's map of prices."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from glowsim.core.types import Usage
from glowsim.pairs.problems import PairsError

__all__ = ["Pricing", "pricing"]

Pricing = Callable[[str, Usage], float]
"""(model, what a call used) -> US dollars."""


def pricing(path: Path, models: Iterable[str]) -> Pricing:
    """Return what calls cost; cached input costs what input does where the file has no price of its own for it.

    Parameters
    ----------
    path
        A scenario (``.yaml``, ``.yml``), whose ``models:`` have prices, or LiteLLM's map, gzipped or not.
    models
        Those that will be asked.

    Raises
    ------
    PairsError
        A model has no price there.
    GlowsimError
        The file cannot be read: as the reader of scenarios, or of the map, says.
    """
    if path.suffix in (".yaml", ".yml"):
        return _of_scenario(path, models)
    from glowsim.presets.prices import load

    found = load(path)
    _check(path, models, [name for name, model in found.items() if None not in model.at(0)[:2]])

    def cost_usd(model: str, usage: Usage) -> float:
        cached = usage.tokens_cached if found[model].at(usage.tokens_in).cached_usd is not None else 0
        return found[model].cost_usd(fresh=usage.tokens_in - cached, cached=cached, output=usage.tokens_out)

    return cost_usd


def _of_scenario(path: Path, models: Iterable[str]) -> Pricing:
    from glowsim.scenario import load

    found = load(path).models
    _check(path, models, found)

    def cost_usd(model: str, usage: Usage) -> float:
        return found[model].price.cost_usd(usage.tokens_in, usage.tokens_cached, usage.tokens_out)

    return cost_usd


def _check(path: Path, models: Iterable[str], priced: Iterable[str]) -> None:
    names = set(priced)
    without = sorted(set(models) - names)
    if without:
        raise PairsError(
            f"--prices {path} has no price per token for {', '.join(without)}: add it, or name another file"
        )
