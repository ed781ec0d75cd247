"""Names of controllers to classes, and what a person may write for their parameters.

Built-ins are one dict. Plug-ins come from installed packages by the entry-point group
``glowsim.controllers`` (named ``family.name``), or as ``use: module:Class``, which is code beside the
scenario and so needs ``--allow-plugins``.

A controller's parameters are its keyword-only constructor arguments. The last word of an argument's name is
its unit, and YAML leaves it out: ``cooldown_s`` is written ``cooldown: 5m``. Arguments that may be given by
position (a random stream, the number of instances) are handed in by ``glowsim.build``, never by YAML.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import glowsim
from glowsim.core.errors import GlowsimError
from glowsim.core.parameters import Bound
from glowsim.scenario.problems import REQUIRED, UNKNOWN_KEY, Finding, did_you_mean
from glowsim.scenario.quantities import (
    DURATION,
    FRACTION,
    MONEY,
    NUMBER,
    RATE,
    Quantity,
    QuantityError,
    Within,
)

__all__ = [
    "BUILT_INS",
    "FAMILIES",
    "Parameter",
    "RegistryError",
    "add_plugin_folder",
    "check",
    "find",
    "handed_in",
    "names",
    "parameters",
]

BUILT_INS: Final[dict[str, dict[str, str]]] = {
    "guard": {"size": "controllers.guards.size:SizeGuard"},
    "limiter": {
        "token_bucket": "controllers.admission.token_bucket:TokenBucket",
        "gcra": "controllers.admission.gcra:Gcra",
        "concurrency": "controllers.admission.concurrency:ConcurrencyLimiter",
        "budget": "controllers.admission.budget:Budget",
        "leased": "controllers.admission.leased:LeasedLimiter",
    },
    "splitter": {
        "canary": "controllers.rollout.canary:Canary",
        "improvement_rollout": "controllers.rollout.improvement:ImprovementRollout",
        "ab_test": "controllers.rollout.ab_test:ABTest",
        "bandit": "controllers.rollout.bandit:Bandit",
    },
    "cache": {
        "lru": "controllers.caching.lru:LruCache",
        "lfu": "controllers.caching.lfu:LfuCache",
        "s3_fifo": "controllers.caching.s3_fifo:S3FifoCache",
    },
    "planner": {
        "cap": "controllers.tokens.cap:TokenCap",
        "cheap_first": "controllers.routing.cheap_first:CheapFirst",
        "predictive": "controllers.routing.predictive:Predictive",
    },
    "queue": {
        "fifo": "controllers.queueing.fifo:FifoQueue",
        "priority": "controllers.queueing.priority:PriorityQueue",
        "deadline": "controllers.queueing.deadline:DeadlineQueue",
        "fair": "controllers.queueing.fair:FairQueue",
        "adaptive_lifo": "controllers.queueing.adaptive_lifo:AdaptiveLifoQueue",
    },
    "balancer": {
        "round_robin": "controllers.balancing.round_robin:RoundRobin",
        "least_connections": "controllers.balancing.least_connections:LeastConnections",
        "power_of_two": "controllers.balancing.power_of_two:PowerOfTwo",
        "weighted": "controllers.balancing.weighted:Weighted",
        "adaptive": "controllers.balancing.adaptive:Adaptive",
        "peak_ewma": "controllers.balancing.peak_ewma:PeakEwma",
        "ip_hash": "controllers.balancing.ip_hash:IpHash",
        "consistent_hash": "controllers.balancing.consistent_hash:ConsistentHash",
        "affinity": "controllers.balancing.affinity:Affinity",
    },
    "breaker": {
        "consecutive": "controllers.resilience.breaker:ConsecutiveBreaker",
        "failure_rate": "controllers.resilience.failure_rate:FailureRateBreaker",
        "outlier": "controllers.resilience.outlier:OutlierBreaker",
        "probes": "controllers.resilience.probes:ProbesBreaker",
    },
    "retrier": {"backoff": "controllers.resilience.backoff:BackoffRetrier"},
    "ladder": {"ladder": "controllers.resilience.ladder:FallbackLadder"},
    "scaler": {
        "agent_scaler": "controllers.scaling.agent_scaler:AgentScaler",
        "hpa": "controllers.scaling.hpa:HpaScaler",
        "queueing": "controllers.scaling.queueing:QueueingScaler",
    },
    "detector": {
        "adwin": "controllers.drift.adwin:Adwin",
        "cusum": "controllers.drift.cusum:Cusum",
        "ks": "controllers.drift.ks:KolmogorovSmirnov",
        "page_hinkley": "controllers.drift.page_hinkley:PageHinkley",
        "psi": "controllers.drift.psi:PopulationStability",
        "shiryaev_roberts": "controllers.drift.shiryaev_roberts:ShiryaevRoberts",
        "slo": "controllers.monitoring.burn_rate:BurnRate",
    },
}
"""Family -> name -> where the class is; imported when it is asked for."""

FAMILIES: Final = tuple(BUILT_INS)
"""The families of controllers, in the order of a request's way."""

_GROUP: Final = "glowsim.controllers"


class RegistryError(GlowsimError):
    """A controller cannot be had; ``allowed`` and ``suggestion`` say what can."""

    def __init__(self, message: str, allowed: tuple[str, ...] = (), suggestion: str | None = None) -> None:
        super().__init__(message)
        self.allowed = allowed
        self.suggestion = suggestion


class Parameter(NamedTuple):
    """What may be written for one parameter of a controller.

    Args:
        name: the constructor's argument, with its unit.
        key: the YAML key, without it.
        kind: ``quantity``, ``integer``, ``boolean``, ``text`` or ``choice``.
        required: it has no default.
        default: its default, in base units; None where required.
        optional: ``null`` may be written.
        bound: bounds of a number, in base units.
        quantity: how a number is written, for the kind ``quantity``.
        choices: what may be written, for the kind ``choice``.
        many: a list of such values is written, and becomes a tuple.
    """

    name: str
    key: str
    kind: str
    required: bool
    default: Any
    optional: bool
    bound: Bound = Bound()
    quantity: Quantity = NUMBER
    choices: tuple[Any, ...] = ()
    many: bool = False

    def read(self, value: Any) -> Any:
        """Return the argument that a written value stands for.

        Raises:
            QuantityError: it is not allowed; the message says what is.
        """
        if value is None and self.optional:
            return None
        if not self.many:
            return self._one(value)
        if not isinstance(value, list):
            raise QuantityError(f"must be a list, got {value!r}")
        return tuple(self._one(item) for item in value)

    def _one(self, value: Any) -> Any:
        match self.kind:
            case "quantity":
                low, high, above = self.bound
                return Within(self.quantity, low, high, above).check(value)
            case "integer":
                return self._whole(value)
            case "boolean" if isinstance(value, bool):
                return value
            case "text" if isinstance(value, str):
                return value
            case "choice" if value in self.choices:
                return value
        wanted = {"boolean": "true or false", "text": "a text", "choice": f"one of {self._listed()}"}[
            self.kind
        ]
        raise QuantityError(f"must be {wanted}, got {value!r}")

    def _whole(self, value: Any) -> int:
        low, high, above = self.bound
        if isinstance(value, bool) or not isinstance(value, int):
            raise QuantityError(f"must be a whole number, got {value!r}")
        if value < low or (above and value == low):
            raise QuantityError(f"must be {'above' if above else 'at least'} {low:g}, got {value}")
        if value > high:
            raise QuantityError(f"must be at most {high:g}, got {value}")
        return value

    def _listed(self) -> str:
        return ", ".join(map(str, self.choices))

    def json_schema(self) -> dict[str, Any]:
        """Return the JSON Schema of what may be written."""
        found = {"type": "array", "items": self._item_schema()} if self.many else self._item_schema()
        if self.optional:
            found = {"anyOf": [found, {"type": "null"}]}
        if self.required or self.default in (float("inf"), float("-inf")):
            return found
        return {**found, "default": self._written(self.default)}

    def _written(self, value: Any) -> Any:
        if isinstance(value, tuple):
            return [self._written(item) for item in value]
        return self.quantity.write(value) if self.kind == "quantity" and value is not None else value

    def _item_schema(self) -> dict[str, Any]:
        match self.kind:
            case "quantity":
                low, high, above = self.bound
                return self.quantity.json_schema(low, high, above=above)
            case "integer":
                low, high, above = self.bound
                limits = {"exclusiveMinimum" if above else "minimum": low, "maximum": high}
                return {"type": "integer", **{k: int(v) for k, v in limits.items() if abs(v) < float("inf")}}
            case "choice":
                return {"enum": list(self.choices)}
            case kind:
                return {"type": "string" if kind == "text" else kind}


def find(family: str, use: str, *, allow_plugins: bool = False) -> type:
    """Return the class of a controller.

    Args:
        family: one of ``FAMILIES``.
        use: a built-in's name, a plug-in's name, or ``module:Class``.
        allow_plugins: ``module:Class`` may be imported.

    Raises:
        RegistryError: unknown, not allowed, not importable, or shadowed by another package.
    """
    if family not in BUILT_INS:
        raise RegistryError(f"unknown family {family!r}", FAMILIES, did_you_mean(family, FAMILIES))
    if use in BUILT_INS[family]:
        _refuse_shadow("controllers")
        return _imported(BUILT_INS[family][use])
    if ":" in use:
        if not allow_plugins:
            raise RegistryError(f"{use!r} is code beside the scenario: run with --allow-plugins to trust it")
        return _imported(use)
    installed = _installed(family)
    if use in installed:
        return _imported(installed[use])
    allowed = names(family)
    raise RegistryError(f"unknown {family} {use!r}", allowed, did_you_mean(use, allowed))


def names(family: str) -> tuple[str, ...]:
    """Return what ``use`` may say in a family: the built-ins, then the plug-ins that are installed.

    >>> "agent_scaler" in names("scaler")
    True
    """
    return (*BUILT_INS[family], *sorted(_installed(family)))


def _installed(family: str) -> dict[str, str]:
    return {
        entry.name.removeprefix(f"{family}."): entry.value
        for entry in importlib.metadata.entry_points(group=_GROUP)
        if entry.name.startswith(f"{family}.")
    }


def add_plugin_folder(folder: Path) -> None:
    """Let ``module:Class`` find modules in a folder, after everything that is installed."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def _imported(target: str) -> type:
    module_name, _, class_name = target.partition(":")
    try:
        module = importlib.import_module(module_name)
    except (ImportError, SyntaxError) as error:
        raise RegistryError(f"{target!r} cannot be imported: {error}") from error
    classes = tuple(name for name, member in vars(module).items() if isinstance(member, type))
    if class_name not in classes:
        near = did_you_mean(class_name, classes)
        raise RegistryError(f"the module {module_name!r} has no class {class_name!r}", suggestion=near)
    found: type = vars(module)[class_name]
    return found


def _refuse_shadow(package: str) -> None:
    """Refuse a package of this name that is not of this distribution: the name is a common one."""
    spec = importlib.util.find_spec(package)
    if spec is None:
        raise RegistryError(f"the package {package!r} of glowsim is not installed: install glowsim again")
    places = [Path(place).resolve() for place in spec.submodule_search_locations or [str(spec.origin)]]
    if places != [_own(package)]:
        shown = ", ".join(map(str, places))
        message = f"glowsim's package {package!r} is shadowed by {shown}: rename that, or start elsewhere"
        raise RegistryError(message)


@cache
def _own(package: str) -> Path:
    beside = Path(glowsim.__file__).resolve().parent.parent / package
    if beside.is_dir():
        return beside
    for file in importlib.metadata.files("glowsim") or ():
        if file.parts == (package, "__init__.py"):
            return Path(str(file.locate())).resolve().parent
    return beside


_MADE_UP: Final[dict[str, Callable[[], Any]]] = {
    "agent": lambda: 0,
    "prices": tuple,
    "stream": lambda: importlib.import_module("glowsim.core.streams").Stream(0),
    "variants": lambda: 2,
}
"""What a controller may be handed where one is made only to see whether it can be."""
_SUFFIXES: Final = (("_per_s", RATE), ("_usd", MONEY), ("_s", DURATION))


@cache
def parameters(controller: type) -> tuple[Parameter, ...]:
    """Return what may be written for a controller: its keyword-only constructor arguments.

    Raises:
        RegistryError: an argument has no annotation, or one that YAML cannot express.

    >>> class Scaler:
    ...     def __init__(self, *, cooldown_s: float, most: int = 9) -> None: ...
    >>> [(p.key, p.quantity.name, p.required) for p in parameters(Scaler)][0]
    ('cooldown', 'a duration', True)
    """
    hints = get_type_hints(inspect.getattr_static(controller, "__init__"), include_extras=True)
    arguments = inspect.signature(controller).parameters.values()
    return tuple(
        _parameter(controller, argument, hints.get(argument.name))
        for argument in arguments
        if argument.kind is argument.KEYWORD_ONLY
    )


def _parameter(controller: type, argument: inspect.Parameter, hint: Any) -> Parameter:
    required = argument.default is argument.empty
    bare, optional = _without_none(hint)
    many = get_origin(bare) is tuple and get_args(bare)[1:] == (Ellipsis,)
    bare = get_args(bare)[0] if many else bare
    bound = next((extra for extra in _extras(bare) if isinstance(extra, Bound)), Bound())
    bare = get_args(bare)[0] if get_origin(bare) is Annotated else bare
    suffix, quantity = next((pair for pair in _SUFFIXES if argument.name.endswith(pair[0])), ("", NUMBER))
    if not suffix and bound == Bound(0.0, 1.0):
        quantity = FRACTION
    choices = get_args(bare) if get_origin(bare) is Literal else ()
    kinds = {float: "quantity", int: "integer", bool: "boolean", str: "text"}
    kind = "choice" if choices else kinds.get(bare)
    if kind is None:
        place = f"{controller.__name__}.{argument.name}"
        raise RegistryError(
            f"{place}: annotate it with float, int, bool, str, Literal or tuple[.., ...], not {hint!r}"
        )
    return Parameter(
        argument.name,
        argument.name.removesuffix(suffix) if kind == "quantity" else argument.name,
        kind,
        required,
        None if required else argument.default,
        optional,
        bound,
        quantity,
        choices,
        many,
    )


def _without_none(hint: Any) -> tuple[Any, bool]:
    if get_origin(hint) not in (Union, UnionType):
        return hint, False
    rest = [option for option in get_args(hint) if option is not NoneType]
    return (rest[0], True) if len(rest) == 1 else (hint, False)


def _extras(hint: Any) -> tuple[Any, ...]:
    return get_args(hint)[1:] if get_origin(hint) is Annotated else ()


@cache
def handed_in(controller: type) -> tuple[str, ...]:
    """Return what ``glowsim.build`` hands to a controller: the constructor's arguments before the star.

    >>> class Budget:
    ...     def __init__(self, prices: object, *, limit_usd: float) -> None: ...
    >>> handed_in(Budget)
    ('prices',)
    """
    arguments = inspect.signature(controller).parameters.values()
    return tuple(each.name for each in arguments if each.kind is each.POSITIONAL_OR_KEYWORD)


def check(controller: type, settings: Mapping[str, Any]) -> tuple[dict[str, Any], list[Finding]]:
    """Return the constructor's arguments that written settings stand for, and what is wrong with them.

    Where each setting is right by itself, and nothing has to be handed in but what can be made up here, one
    is made to see whether its constructor accepts them together: it raises
    ``ValueError("argument: what is wrong")`` otherwise.

    Args:
        controller: a class that ``find`` returned.
        settings: YAML key -> value as written, without ``use`` and ``shadow``.

    >>> class Scaler:
    ...     def __init__(self, *, cooldown_s: float) -> None: ...
    >>> check(Scaler, {"cooldown": "5m"})
    ({'cooldown_s': 300.0}, [])
    >>> check(Scaler, {"cooldwn": "5m"})[1][0].suggestion
    'cooldown'
    """
    known = {parameter.key: parameter for parameter in parameters(controller)}
    arguments: dict[str, Any] = {}
    findings = list(_missing_and_unknown(known, settings))
    for key, parameter in known.items():
        if key in settings:
            try:
                arguments[parameter.name] = parameter.read(settings[key])
            except QuantityError as error:
                findings.append(Finding((key,), str(error)))
    return arguments, findings or list(_refused(controller, arguments, known))


def _refused(
    controller: type, arguments: Mapping[str, Any], known: Mapping[str, Parameter]
) -> Iterator[Finding]:
    handed = handed_in(controller)
    if any(name not in _MADE_UP for name in handed):
        return
    try:
        controller(*(_MADE_UP[name]() for name in handed), **arguments)
    except ValueError as error:
        first, _, rest = str(error).partition(": ")
        keys = {parameter.name: parameter.key for parameter in known.values()}
        yield Finding((keys[first],), rest) if first in keys else Finding((), str(error))


def _missing_and_unknown(known: Mapping[str, Parameter], settings: Mapping[str, Any]) -> Iterator[Finding]:
    for key in settings:
        if key not in known:
            yield Finding((key,), UNKNOWN_KEY, tuple(sorted(known)), did_you_mean(key, known))
    for key, parameter in known.items():
        if parameter.required and key not in settings:
            yield Finding((key,), REQUIRED)
