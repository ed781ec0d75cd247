"""Quantities with units, as a person writes them (``300ms``, ``167/s``, ``$0.15/1M``), and back again.

A quantity is written as a number and a unit; inside glowsim it is a float in the base unit, which the name
of its attribute ends with. Parsing is exact decimal arithmetic rounded once, and ``Quantity.write`` finds
a short spelling that reads back as the very same float.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Annotated, Any, Final

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

__all__ = [
    "COUNT",
    "DURATION",
    "FRACTION",
    "MONEY",
    "NUMBER",
    "PRICE_PER_HOUR",
    "PRICE_PER_TOKEN",
    "RATE",
    "TIME_PER_TOKEN",
    "Duration",
    "Share",
    "Number",
    "PositiveDuration",
    "PositiveNumber",
    "PositiveRate",
    "PricePerHour",
    "PricePerToken",
    "Quantity",
    "QuantityError",
    "Rate",
    "TimePerToken",
    "TokenCount",
    "Within",
    "format_duration",
    "format_rate",
]

_NUMBER: Final = r"[0-9]{1,20}(?:\.[0-9]{1,30})?(?:[eE][+-]?[0-9]{1,3})?"


class QuantityError(ValueError):
    """A text is not a quantity of the wanted kind; the message says what to write instead."""


@dataclass(frozen=True, eq=False)
class Quantity:
    """One kind of quantity: its units, and how it is read and written.

    Args:
        name: what a message calls it, with its article: ``a duration``.
        units: suffix -> factor to the base unit; the first is the base unit itself.
        examples: spellings that a message and the JSON Schema show.
        prefix: what stands before the number (``$``).
        bare: which numbers may stand without a unit: ``none``, ``zero`` or ``any``.

    >>> DURATION.read("1.5m"), DURATION.write(0.3), PRICE_PER_TOKEN.read("$0.15/1M")
    (90.0, '300ms', 1.5e-07)
    """

    name: str
    units: Mapping[str, Fraction]
    examples: tuple[str, ...]
    prefix: str = ""
    bare: str = "none"
    _regex: re.Pattern[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        signed = f"(-?){re.escape(self.prefix)}({_NUMBER}) ?({self._any_unit})"
        object.__setattr__(self, "_regex", re.compile(signed))

    @property
    def pattern(self) -> str:
        """A regular expression, in the dialect of JSON Schema, of every text that is not negative."""
        return f"^{re.escape(self.prefix)}{_NUMBER} ?({self._any_unit})$"

    @property
    def _any_unit(self) -> str:
        return "|".join(re.escape(unit) for unit in self.units)

    def read(self, value: object) -> float:
        """Return the value in the base unit.

        Raises:
            QuantityError: not a quantity of this kind; the message names an accepted spelling.
        """
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise QuantityError(f"must be {self.name} such as {self._shown}, got {_shorten(value)}")
        if isinstance(value, str):
            return self._read_text(value)
        if not math.isfinite(value):
            raise QuantityError(f"must be a finite number, got {value}")
        if self.bare == "any" or (self.bare == "zero" and value == 0):
            return float(value)
        if self.prefix:
            raise QuantityError(f"{value!r} has no unit: write {self.examples[0]}")
        near = " or ".join(f"{value!r}{unit}" for unit in list(self.units)[:2])
        raise QuantityError(f"{value!r} has no unit: write {near}")

    def _read_text(self, text: str) -> float:
        match = self._regex.fullmatch(text)
        if match is None:
            raise QuantityError(f"must be {self.name} such as {self._shown}, got {_shorten(text)}")
        sign, number, unit = match.groups()
        try:
            return float(Fraction(sign + number) * self.units[unit])
        except OverflowError:
            raise QuantityError(f"{_shorten(text)} is too large") from None

    def write(self, value: float) -> str | int | float:
        """Return a short spelling that reads back as exactly ``value`` (a plain number where bare)."""
        if self.bare == "any":
            return int(value) if float(value).is_integer() and abs(value) < 1e15 else value
        if value == 0:
            return f"{self.prefix}0{next(iter(self.units))}"
        spellings = self._spellings(value)
        longest = min(map(_clumsiness, spellings)) + 1
        return next(text for text in spellings if _clumsiness(text) <= longest)

    def _spellings(self, value: float) -> list[str]:
        sign, exact = "-" if value < 0 else "", Fraction(abs(value))
        found: list[str] = []
        for unit, factor in self.units.items():
            text = f"{sign}{self.prefix}{float(exact / factor):.15g}{unit}"
            if self._regex.fullmatch(text) and self._read_text(text) == value:
                found.append(text)
        return found or [f"{sign}{self.prefix}{abs(value)!r}{next(iter(self.units))}"]

    @property
    def _shown(self) -> str:
        return ", ".join(self.examples)

    def json_schema(self, low: float, high: float, *, above: bool = False) -> dict[str, Any]:
        """Return the JSON Schema of an accepted value; bounds hold for numbers without a unit."""
        text = {"type": "string", "pattern": self.pattern, "examples": list(self.examples)}
        if self.bare == "none":
            return text
        bounds = {"exclusiveMinimum" if above else "minimum": low, "maximum": high}
        finite = {word: bound for word, bound in bounds.items() if math.isfinite(bound)}
        number = {"const": 0} if self.bare == "zero" else {"type": "number", **finite}
        return {"anyOf": [text, number]} if any(self.units) else number


def _clumsiness(text: str) -> int:
    return len(text) + (4 if text.startswith("0.") or "e-" in text else 0)


def _shorten(value: object) -> str:
    text = repr(value) if isinstance(value, str | int | float | None) else f"a {type(value).__name__}"
    text = {"a dict": "a mapping", "a list": "a list"}.get(text, text)
    return text if len(text) <= 60 else text[:57] + "..."


_SECONDS: Final = {
    "s": Fraction(1),
    "ms": Fraction(1, 1000),
    "us": Fraction(1, 1_000_000),
    "m": Fraction(60),
    "min": Fraction(60),
    "h": Fraction(3600),
    "d": Fraction(86400),
}
_PER: Final = {"/s": Fraction(1), "/min": Fraction(1, 60), "/h": Fraction(1, 3600), "/d": Fraction(1, 86400)}

DURATION: Final = Quantity("a duration", _SECONDS, ("300ms", "2s", "1.5m", "2h", "7d"), bare="zero")
RATE: Final = Quantity("a rate", _PER, ("167/s", "10/min", "500/h", "31/d"))
MONEY: Final = Quantity("an amount of money", {"": Fraction(1)}, ("$12.50",), prefix="$")
PRICE_PER_HOUR: Final = Quantity(
    "a price per time",
    {"/h": Fraction(1), "/s": Fraction(3600), "/min": Fraction(60), "/d": Fraction(1, 24)},
    ("$0.40/h", "$9.60/d"),
    prefix="$",
)
PRICE_PER_TOKEN: Final = Quantity(
    "a price per token",
    {"/token": Fraction(1), "/1M": Fraction(1, 1_000_000), "/1K": Fraction(1, 1000)},
    ("$0.15/1M", "$0.15/1K", "$1e-7/token"),
    prefix="$",
)
TIME_PER_TOKEN: Final = Quantity(
    "a time per token", {f"{unit}/token": x for unit, x in _SECONDS.items()}, ("8ms/token", "40us/token")
)
FRACTION: Final = Quantity("a share", {"%": Fraction(1, 100)}, ("5%", "0.05"), bare="any")
NUMBER: Final = Quantity("a number", {"": Fraction(1)}, ("1", "2.5"), bare="any")
COUNT: Final = Quantity("a number of tokens", {"": Fraction(1)}, ("500",), bare="any")


@dataclass(frozen=True)
class Within:
    """Pydantic metadata: a float written as a ``Quantity`` and kept within closed bounds.

    Args:
        quantity: how it is written.
        low: smallest value, in the base unit.
        high: largest value, in the base unit.
        above: the lower bound itself is excluded.

    >>> from pydantic import TypeAdapter
    >>> TypeAdapter(Duration).validate_python("2h")
    7200.0
    """

    quantity: Quantity
    low: float = 0.0
    high: float = 1e12
    above: bool = False

    def check(self, value: object) -> float:
        """Return ``value`` in the base unit; raise ``QuantityError`` when misspelt or out of bounds."""
        if self.quantity in (NUMBER, COUNT) and isinstance(value, str):
            raise QuantityError(f"must be {self.quantity.name} without quotes or unit, got {_shorten(value)}")
        number = self.quantity.read(value)
        if number < self.low or (self.above and number == self.low):
            word = "above" if self.above else "at least"
            raise QuantityError(f"must be {word} {self.quantity.write(self.low)}, got {value}")
        if number > self.high:
            raise QuantityError(f"must be at most {self.quantity.write(self.high)}, got {value}")
        return number

    def _validate(self, value: object) -> float:
        try:
            return self.check(value)
        except QuantityError as error:
            raise PydanticCustomError("quantity", "{message}", {"message": str(error)}) from None

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(
            self._validate,
            core_schema.float_schema(),
            serialization=core_schema.plain_serializer_function_ser_schema(self.quantity.write),
        )

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return self.quantity.json_schema(self.low, self.high, above=self.above)


_TEN_YEARS_S: Final = 10 * 365.25 * 86400

Duration = Annotated[float, Within(DURATION, 0, _TEN_YEARS_S)]
"""Seconds, zero allowed, at most ten years; written ``300ms``, ``2s``, ``7d``."""
PositiveDuration = Annotated[float, Within(DURATION, 0, _TEN_YEARS_S, above=True)]
"""Seconds above zero, at most ten years."""
Rate = Annotated[float, Within(RATE, 0, 1e7)]
"""Events per second, 0 to ten million; written ``167/s``, ``31/d``."""
PositiveRate = Annotated[float, Within(RATE, 0, 1e7, above=True)]
"""Events per second, above zero."""
PricePerHour = Annotated[float, Within(PRICE_PER_HOUR, 0, 1e6)]
"""US dollars per hour; written ``$0.40/h``."""
PricePerToken = Annotated[float, Within(PRICE_PER_TOKEN, 0, 1)]
"""US dollars per token; written ``$0.15/1M``."""
TimePerToken = Annotated[float, Within(TIME_PER_TOKEN, 0, 3600)]
"""Seconds per token; written ``8ms/token``."""
Share = Annotated[float, Within(FRACTION, 0, 1)]
"""A share, 0 to 1; written ``0.05`` or ``5%``."""
Number = Annotated[float, Within(NUMBER, 0, 1e9)]
"""A plain number, zero or more."""
PositiveNumber = Annotated[float, Within(NUMBER, 0, 1e9, above=True)]
"""A plain number above zero."""
TokenCount = Annotated[float, Within(COUNT, 0, 1e8)]
"""Tokens, zero or more; a float, because laws of tokens are continuous."""


def format_duration(seconds: float) -> str:
    """Return a duration for people: three significant digits in the largest fitting unit.

    >>> [format_duration(x) for x in (0, 0.00004, 0.3, 1.85, 90, 7200, 604800)]
    ['0s', '40us', '300ms', '1.85s', '1.5min', '2h', '7d']
    """
    for unit in ("d", "h", "min", "s", "ms"):
        if abs(seconds) >= _SECONDS[unit]:
            return f"{_three_digits(seconds / float(_SECONDS[unit]))}{unit}"
    return f"{_three_digits(seconds * 1e6)}us" if seconds else "0s"


def format_rate(per_second: float) -> str:
    """Return a rate for people: three significant digits, in the first unit that makes it one or more.

    >>> [format_rate(x) for x in (0, 167, 0.5, 12 / 86400)]
    ['0/s', '167/s', '30/min', '12/d']
    """
    if per_second == 0:
        return "0/s"
    for unit, factor in _PER.items():
        if abs(per_second) >= factor:
            return f"{_three_digits(per_second / float(factor))}{unit}"
    return f"{_three_digits(per_second * 86400)}/d"


def _three_digits(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
