"""What models cost, read from LiteLLM's map of prices.

The map (``model_prices_and_context_window.json`` of LiteLLM, or a copy of it, gzipped or not) has an entry a
model with prices in US dollars per token. Discounts belong to models: what cached input, batches or long
prompts cost is read, and where the map says nothing there is no price, never a factor.

Nothing is dropped in silence: entries that are priced by something else than tokens, that have no price, or
that cannot be read are listed by name.
"""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from math import fsum, isfinite
from pathlib import Path
from typing import Any, Final, NamedTuple

from glowsim.core.errors import GlowsimError

__all__ = ["ModelPrices", "PriceError", "PriceMap", "Rates", "as_scenario", "load"]

_KINDS: Final = {
    "input_cost_per_token": "input_usd",
    "output_cost_per_token": "output_usd",
    "cache_read_input_token_cost": "cached_usd",
    "input_cost_per_token_cache_hit": "cached_usd",
    "cache_creation_input_token_cost": "write_usd",
    "output_cost_per_reasoning_token": "reasoning_usd",
}
_FIELD: Final = re.compile(
    rf"(?P<kind>{'|'.join(sorted(_KINDS, key=len, reverse=True))})(?P<hour>_above_1hr)?"
    r"(?:_above_(?P<thousands>\d+)k_tokens)?(?:_(?P<service>batches|flex|priority))?"
)
_PRICE: Final = re.compile(r"cost|pric")
_DOCUMENTATION: Final = "sample_spec"
_GZIP: Final = b"\x1f\x8b"
_SHOWN: Final = 10


class PriceError(GlowsimError):
    """A map of prices that cannot be read, or a price that it does not have."""


class Rates(NamedTuple):
    """US dollars per token; None: the map does not say."""

    input_usd: float | None = None
    output_usd: float | None = None
    cached_usd: float | None = None
    """Of input read from the provider's cache."""
    write_usd: float | None = None
    """Of input written to it, for its usual time."""
    write_1h_usd: float | None = None
    """Of input written to it for an hour."""
    reasoning_usd: float | None = None
    """Of output that is reasoning, where it has a price of its own."""


@dataclass(frozen=True)
class ModelPrices:
    """What a model costs."""

    name: str
    provider: str
    mode: str
    """``chat``, ``embedding`` and so on; empty where the map does not say."""
    rates: Mapping[tuple[str, int], Rates]
    """(service, tokens of the prompt above which they hold) -> rates that differ from those below.

    The service is ``standard``, ``batches``, ``flex`` or ``priority``."""
    other: tuple[str, ...] = ()
    """Fields with prices that are not read: per image, per second, per search and the like."""

    @property
    def services(self) -> tuple[str, ...]:
        """Services that have a price of their own, in order."""
        return tuple(sorted({service for service, _ in self.rates}))

    def at(self, tokens_in: int, service: str = "standard") -> Rates:
        """Return the rates of a prompt: above a threshold all of its tokens cost what the threshold says.

        Parameters
        ----------
        tokens_in
            Tokens of the whole prompt, cached ones included.
        service
            One of ``services``.

        Raises
        ------
        PriceError
            The model has no price for the service; says which it has.

        >>> rates = {("standard", 0): Rates(1e-6, 2e-6), ("standard", 200_000): Rates(2e-6)}
        >>> model = ModelPrices("m", "p", "chat", rates)
        >>> model.at(200_000).input_usd, model.at(200_001).input_usd, model.at(200_001).output_usd
        (1e-06, 2e-06, 2e-06)
        """
        if (service, 0) not in self.rates:
            raise PriceError(
                f"{self.name} has no price for {service!r}, only for {', '.join(self.services)}: add it to the map"
            )
        found = Rates()
        for (of, above), rates in sorted(self.rates.items()):
            if of == service and (tokens_in > above or above == 0):
                found = Rates(*(old if new is None else new for old, new in zip(found, rates, strict=True)))
        return found

    def cost_usd(
        self, *, fresh: int = 0, cached: int = 0, written: int = 0, written_1h: int = 0, output: int = 0,
        reasoning: int = 0, service: str = "standard",
    ) -> float:  # fmt: skip
        """Return what a call costs, in US dollars: each of its tokens stands in one of the counts.

        Parameters
        ----------
        fresh, cached, written, written_1h
            Tokens of the prompt that were neither read from nor written to the cache, read from it, and
            written to it for its usual time and for an hour. Providers differ in what their counts include:
            these exclude each other.
        output, reasoning
            Tokens of the answer, and of reasoning; the latter cost what output does unless they have a price.
        service
            One of ``services``.

        Raises
        ------
        PriceError
            There are tokens of a kind for which the map has no price: says which.

        >>> model = ModelPrices("m", "p", "chat", {("standard", 0): Rates(1e-6, 2e-6, 1e-7)})
        >>> round(model.cost_usd(fresh=1000, cached=9000, output=100), 9)
        0.0021
        """
        rates = self.at(fresh + cached + written + written_1h, service)
        reasoning_usd = rates.output_usd if rates.reasoning_usd is None else rates.reasoning_usd
        parts = (
            ("input", fresh, rates.input_usd), ("cached input", cached, rates.cached_usd),
            ("input written to the cache", written, rates.write_usd),
            ("input written to the cache for an hour", written_1h, rates.write_1h_usd),
            ("output", output, rates.output_usd), ("reasoning", reasoning, reasoning_usd),
        )  # fmt: skip
        for what, tokens, usd in parts:
            if tokens and usd is None:
                raise PriceError(f"{self.name} has no price for {what} ({service}): add it to the map")
        return fsum(tokens * usd for _, tokens, usd in parts if usd is not None)


@dataclass(eq=False, repr=False)
class PriceMap(dict[str, ModelPrices]):
    """Model -> its prices, and what became of the entries that are not in it."""

    not_token_priced: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Model -> the fields that hold its prices: per second, character, image, pixel, query and the like."""
    unpriced: tuple[str, ...] = ()
    """Models without any price."""
    refused: dict[str, str] = field(default_factory=dict)
    """Entry -> why it could not be read."""
    fields_not_read: dict[str, int] = field(default_factory=dict)
    """Field with a price that no rate was made of -> in how many entries it stands."""

    def text(self) -> str:
        """Return what was read and what was not, as lines for a person."""
        lines = [f"{len(self)} models with prices per token"]
        for count, what, which in (
            (len(self.not_token_priced), "priced by something else", list(self.not_token_priced)),
            (len(self.unpriced), "without a price", list(self.unpriced)),
        ):
            if count:
                more = f" and {count - _SHOWN} more" if count > _SHOWN else ""
                lines.append(f"{count} {what}: {', '.join(which[:_SHOWN])}{more}")
        lines += [f"refused {name}: {why}" for name, why in self.refused.items()]
        if self.fields_not_read:
            found = ", ".join(f"{name} ({n})" for name, n in sorted(self.fields_not_read.items()))
            lines.append(f"prices not read: {found}")
        return "\n".join(lines)


def load(path: Path) -> PriceMap:
    """Return the prices of every model of a map that are per token.

    Parameters
    ----------
    path
        LiteLLM's ``model_prices_and_context_window.json``, or a copy of it; may be gzipped.

    Raises
    ------
    PriceError
        There is no such file, or it is not a map of prices.
    """
    found, twice = _entries(path)
    prices = PriceMap(refused=dict.fromkeys(twice, "stands twice in the file"))
    fields: Counter[str] = Counter()
    unpriced = []
    for name, entry in found.items():
        if name == _DOCUMENTATION or name in prices.refused:
            continue
        try:
            model = _model(name, entry)
        except PriceError as error:
            prices.refused[name] = str(error)
            continue
        fields.update(model.other)
        if any(rate for rates in model.rates.values() for rate in rates) or (model.rates and not model.other):
            prices[name] = model
        elif model.other:
            prices.not_token_priced[name] = model.other
        else:
            unpriced.append(name)
    prices.unpriced, prices.fields_not_read = tuple(unpriced), dict(fields)
    return prices


def as_scenario(model: ModelPrices) -> dict[str, str]:
    """Return a model's prices as a scenario's ``models:`` block spells them.

    Raises
    ------
    PriceError
        The model has no price for its input or its output.

    >>> as_scenario(ModelPrices("m", "p", "chat", {("standard", 0): Rates(1.5e-7, 6e-7, 7.5e-8)}))
    {'input': '$0.15/1M', 'cached_input': '$0.075/1M', 'output': '$0.6/1M'}
    """
    rates = model.at(0)
    if rates.input_usd is None or rates.output_usd is None:
        missing = "input" if rates.input_usd is None else "output"
        raise PriceError(f"{model.name} has no price for {missing}: add it to the map")
    spelled = {"input": _spell(rates.input_usd)}
    if rates.cached_usd is not None:
        spelled["cached_input"] = _spell(rates.cached_usd)
    return {**spelled, "output": _spell(rates.output_usd)}


def _spell(usd_per_token: float) -> str:
    return f"${(Decimal(repr(usd_per_token)) * 1_000_000).normalize():f}/1M"


def _entries(path: Path) -> tuple[dict[str, Any], list[str]]:
    twice: list[str] = []

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        counted = Counter(key for key, _ in pairs)
        twice.extend(key for key, n in counted.items() if n > 1)
        return dict(pairs)

    try:
        content = path.read_bytes()
        if content.startswith(_GZIP):
            content = gzip.decompress(content)
        found = json.loads(content, object_pairs_hook=once)
    except (OSError, EOFError, ValueError) as error:
        raise PriceError(f"{path}: {error}: give LiteLLM's model_prices_and_context_window.json") from error
    if not isinstance(found, dict):
        raise PriceError(
            f"{path} is not a map of prices: give LiteLLM's model_prices_and_context_window.json"
        )
    return found, [key for key in twice if key in found]


def _model(name: str, entry: Any) -> ModelPrices:
    if not isinstance(entry, dict):
        raise PriceError(f"must be a map of fields, got {entry!r}")
    gathered: dict[tuple[str, int], dict[str, float]] = {}
    other = []
    for key, value in entry.items():
        match = _FIELD.fullmatch(key)
        if match:
            rate = _rate(key, value)
            where = (match["service"] or "standard", int(match["thousands"] or 0) * 1000)
            gathered.setdefault(where, {})[_rate_name(match)] = rate
        elif key == "tiered_pricing":
            for where, rates in _tiers(value):
                gathered.setdefault(where, {}).update(rates)
        elif _PRICE.search(key):
            other.append(key)
    return ModelPrices(
        name, str(entry.get("litellm_provider", "")), str(entry.get("mode", "")),
        {where: Rates(**rates) for where, rates in sorted(gathered.items())}, tuple(other),
    )  # fmt: skip


def _rate_name(match: re.Match[str]) -> str:
    name = _KINDS[match["kind"]]
    if not match["hour"]:
        return name
    if name != "write_usd":
        raise PriceError(
            f"{match.string} is a price that nobody knows: only writing to a cache has an hour's"
        )
    return "write_1h_usd"


def _tiers(value: Any) -> Iterator[tuple[tuple[str, int], dict[str, float]]]:
    """Yield the tiers of ``tiered_pricing``: ranges of the prompt's length, each with its prices for all of it."""
    for tier in value if isinstance(value, list) else [value]:
        bounds = tier.get("range") if isinstance(tier, dict) else None
        if (
            not isinstance(bounds, list)
            or not bounds
            or not isinstance(bounds[0], int | float)
            or bounds[0] < 0
        ):
            raise PriceError(f"tiered_pricing must be a list of ranges with prices, got {value!r}")
        rates = {
            _rate_name(match): _rate(key, price)
            for key, price in tier.items()
            if (match := _FIELD.fullmatch(key)) is not None
        }
        yield ("standard", int(bounds[0])), rates


def _rate(key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value) or value < 0:
        raise PriceError(f"{key} must be US dollars, 0 or more, got {value!r}")
    return float(value)
