"""What a person is shown of a controller: its docstring, its parameters as YAML spells them, an example.

Everything is read from the class itself, so a plug-in that is written like a built-in is shown like one.
"""

from __future__ import annotations

import ast
import doctest
import inspect
import json
import re
from collections.abc import Iterator
from math import inf
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from glowsim import registry
from glowsim.core import protocols
from glowsim.registry import FAMILIES, Parameter, RegistryError
from glowsim.scenario.controllers import Controllers
from glowsim.scenario.problems import did_you_mean
from glowsim.scenario.quantities import QuantityError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

__all__ = ["Document", "Row", "Shown", "decides", "document", "families", "find", "render", "show"]

_SECTION: Final = re.compile(r"^(\w[\w ]*)\n-{3,}\n", re.MULTILINE)
_DOCTEST: Final = re.compile(r"^>>> .*(?:\n.+)*", re.MULTILINE)
_CODE: Final = re.compile(r"``(.+?)``|`(.+?)`")
_PLAIN: Final = re.compile(
    r"(?!(?:true|false|null|yes|no|on|off)$)[A-Za-z][\w-]*|\$?\d[\d.]*[a-z%/][\w/]*", re.IGNORECASE
)
"""Texts that YAML reads as texts without quotes: names, and quantities with a unit."""
_VERBATIM: Final = (" ", "- ", "* ", "| ", ">>> ")
"""How a line begins whose paragraph keeps its line breaks."""


class Document(NamedTuple):
    """A docstring, taken apart at its sections."""

    summary: str
    body: str
    """What follows the summary, without sections and doctest."""
    parameters: dict[str, str]
    """Argument -> what is said of it; two that share an entry have the same text."""
    raises: str
    notes: str
    example: str
    """The doctest."""


class Row(NamedTuple):
    """A parameter as the table shows it."""

    key: str
    """How YAML spells it."""
    argument: str
    """How the constructor does, with its unit."""
    allowed: str
    required: bool
    default: Any
    """In YAML spelling; None where it is required, ``unlimited`` where YAML cannot write it."""
    text: str


class Shown(NamedTuple):
    """All that is shown of a controller."""

    family: str
    name: str
    target: str
    """Where its class is: ``module:Class``."""
    document: Document
    rows: tuple[Row, ...]
    yaml: str
    """A ``controllers:`` block with every parameter: the defaults, and an example of what is required."""

    def as_json(self) -> dict[str, Any]:
        """Return plain data for ``--json``."""
        document = self.document._asdict()
        del document["parameters"]
        head = {"family": self.family, "name": self.name, "class": self.target}
        return {**head, **document, "parameters": [row._asdict() for row in self.rows], "yaml": self.yaml}


def decides(family: str) -> str:
    """Return in one line what the controllers of a family decide.

    >>> decides("balancer")
    'Decides which instance serves a request.'
    """
    return _first_line(_protocol(family))


def families() -> dict[str, dict[str, str]]:
    """Return family -> name -> one line, in the order of a request's way; plug-ins come after built-ins."""
    return {family: {name: _line(family, name) for name in registry.names(family)} for family in FAMILIES}


def _line(family: str, name: str) -> str:
    try:
        return _first_line(registry.find(family, name))
    except RegistryError as error:
        return f"cannot be used: {error}"


def _first_line(documented: Any) -> str:
    """Return the first paragraph of a docstring on one line, without marks."""
    text = (inspect.getdoc(documented) or "").partition("\n\n")[0]
    return " ".join(text.replace("`", "").split())


def _protocol(family: str) -> type:
    found: type = getattr(protocols, family.capitalize())
    return found


# --- finding ------------------------------------------------------------------------------------------


def find(name: str, *, allow_plugins: bool = False) -> tuple[str, str, type]:
    """Return the family, the name within it and the class of a controller.

    Parameters
    ----------
    name
        A name, ``family/name`` where two families have it, or ``module:Class``.
    allow_plugins
        Whether ``module:Class`` may be imported.

    Raises
    ------
    RegistryError
        No controller or several have this name, or it cannot be had.

    >>> find("agent_scaler")[0], find("scaler/agent_scaler")[2].__name__
    ('scaler', 'AgentScaler')
    """
    said, _, use = name.rpartition("/")
    if said and said not in FAMILIES:
        near = did_you_mean(said, FAMILIES)
        raise _unknown(f"there is no family {said!r}", near and f"{near}/{use}", FAMILIES)
    if ":" in use:
        kind = registry.find(said or FAMILIES[0], use, allow_plugins=allow_plugins)
        return _family_of(kind, said), use, kind
    known = {family: registry.names(family) for family in ([said] if said else FAMILIES)}
    having = [family for family, names in known.items() if use in names]
    if len(having) > 1:
        choices = tuple(f"{family}/{use}" for family in having)
        raise _unknown(f"{len(having)} families have a controller {use!r}: say which", None, choices)
    if not having and use in FAMILIES:
        raise _unknown(f"{use!r} is a family: name one of its controllers", None, registry.names(use))
    if not having:
        every = tuple(each for names in known.values() for each in names)
        raise _unknown(f"there is no controller {name!r}", did_you_mean(use, every), every)
    return having[0], use, registry.find(having[0], use)


def _unknown(message: str, near: str | None, allowed: tuple[str, ...]) -> RegistryError:
    hint = f"; did you mean {near!r}?" if near else ""
    return RegistryError(f"{message}{hint}\nallowed here: {', '.join(allowed)}", allowed, near)


def _family_of(kind: type, said: str) -> str:
    """Return whose protocol a class has the methods of, and only that one's."""
    missing = {family: [each for each in _methods(family) if not hasattr(kind, each)] for family in FAMILIES}
    fitting = [family for family, absent in missing.items() if not absent]
    if said:
        if missing[said]:
            raise RegistryError(f"{kind.__name__} is no {said}: it has no method {missing[said][0]!r}")
        return said
    if len(fitting) != 1:
        found = f"{len(fitting)} families" if fitting else "no family"
        shown = ", ".join(fitting or FAMILIES)
        raise RegistryError(f"{kind.__name__} has the methods of {found}: write FAMILY/module:Class; {shown}")
    return fitting[0]


def _methods(family: str) -> list[str]:
    own = vars(_protocol(family)).items()
    return [name for name, each in own if inspect.isfunction(each) and (name[0] != "_" or name == "__len__")]


# --- reading ------------------------------------------------------------------------------------------


def show(name: str, *, allow_plugins: bool = False) -> Shown:
    """Return all that is shown of a controller; parameters and errors are those of `find`.

    >>> print(show("round_robin").yaml, end="")
    controllers:
      balancer:
        use: round_robin
    """
    family, use, kind = find(name, allow_plugins=allow_plugins)
    read = document(inspect.getdoc(kind) or "")
    parameters = registry.parameters(kind)
    documented = _arguments(kind, read.example)
    settings: dict[str, Any] = {"use": use}
    for parameter in parameters:
        if parameter.required:
            settings[parameter.key] = _example(parameter, documented)
        elif parameter.default != inf:
            settings[parameter.key] = _written(parameter, parameter.default)
    rows = tuple(_row(parameter, read.parameters.get(parameter.name, "")) for parameter in parameters)
    return Shown(family, use, f"{kind.__module__}:{kind.__name__}", read, rows, _yaml(family, settings))


def document(docstring: str) -> Document:
    r"""Return the parts of a cleaned docstring in numpydoc's style.

    >>> document("Decides.\n\nIt does.\n\nParameters\n----------\nlow, high\n    Limits.").parameters
    {'low': 'Limits.', 'high': 'Limits.'}
    """
    example = "\n".join(_DOCTEST.findall(docstring))
    head, *parts = _SECTION.split(_DOCTEST.sub("", docstring))
    sections = {name: body.strip("\n") for name, body in zip(parts[::2], parts[1::2], strict=True)}
    summary, _, body = head.partition("\n\n")
    return Document(
        " ".join(summary.split()),
        body.strip("\n"),
        dict(_entries(sections.get("Parameters", ""))),
        sections.get("Raises", ""),
        sections.get("Notes", ""),
        example,
    )


def _entries(section: str) -> Iterator[tuple[str, str]]:
    """Yield (name, text) of every name in a section of definitions."""
    for names, text in re.findall(r"^(\S.*)\n((?:[ \t]+.*\n?|\n)*)", section + "\n", re.MULTILINE):
        for name in names.partition(" : ")[0].split(","):
            yield name.strip(), " ".join(text.split())


def _arguments(kind: type, example: str) -> dict[str, Any]:
    """Return the constant keyword arguments of the first call of the class in its doctest, if it has one."""
    try:
        trees = [ast.parse(each.source) for each in doctest.DocTestParser().get_examples(example)]
    except (SyntaxError, ValueError):
        return {}
    for node in (node for tree in trees for node in ast.walk(tree)):
        match node:
            case ast.Call(func=ast.Name(id=name), keywords=keywords) if name == kind.__name__:
                return {
                    each.arg: each.value.value
                    for each in keywords
                    if each.arg and isinstance(each.value, ast.Constant)
                }
    return {}


def _example(parameter: Parameter, documented: dict[str, Any]) -> Any:
    """Return what could be written for a required parameter: as in the doctest, or the first that is allowed."""
    if parameter.name in documented:
        return _written(parameter, documented[parameter.name])
    low, high, _ = parameter.bound
    match parameter.kind:
        case "quantity":
            quantity = parameter.quantity
            tried = [
                *quantity.examples,
                1,
                *(quantity.write(each) for each in (high, low) if abs(each) < inf),
            ]
        case "integer":
            tried = [int(each) for each in (max(low, 1.0), low + 1.0, high) if abs(each) < inf]
        case "choice":
            tried = list(parameter.choices)
        case "boolean":
            tried = [True]
        case _:
            tried = [parameter.key]
    offered = [[each] if parameter.many else each for each in tried]
    return next(each for each in offered if _reads(parameter, each))


def _reads(parameter: Parameter, value: Any) -> bool:
    try:
        parameter.read(value)
    except QuantityError:
        return False
    return True


def _written(parameter: Parameter, value: Any) -> Any:
    """Return an argument as YAML spells it."""
    return parameter._replace(required=False, default=value).json_schema()["default"]


def _row(parameter: Parameter, text: str) -> Row:
    default = None
    if not parameter.required:
        default = "unlimited" if parameter.default == inf else _written(parameter, parameter.default)
    return Row(parameter.key, parameter.name, _allowed(parameter), parameter.required, default, text)


def _allowed(parameter: Parameter) -> str:
    """Return in words what may be written.

    >>> [_allowed(each) for each in registry.parameters(registry.find("scaler", "agent_scaler"))][:3]
    ['a whole number, at least 0', 'a whole number, at least 1', 'a share, 0 to 1']
    """
    quantity = parameter.quantity
    match parameter.kind:
        case "quantity":
            said = quantity.name + _bounds(parameter)
            said += f", such as {quantity.examples[0]}" if quantity.bare != "any" else ""
        case "integer":
            said = f"a whole number{_bounds(parameter)}"
        case "boolean":
            said = "true or false"
        case "choice":
            said = " | ".join(map(str, parameter.choices))
        case _:
            said = "a text"
    said = f"a list; each {said}" if parameter.many else said
    return f"{said}; or null" if parameter.optional else said


def _bounds(parameter: Parameter) -> str:
    low, high, above = parameter.bound

    def write(bound: float) -> Any:
        return parameter.quantity.write(bound) if parameter.kind == "quantity" else int(bound)

    if -inf < low and high < inf and not above:
        return f", {write(low)} to {write(high)}"
    least = f", {'above' if above else 'at least'} {write(low)}" if low > -inf else ""
    return least + (f", at most {write(high)}" if high < inf else "")


def _yaml(family: str, settings: dict[str, Any]) -> str:
    lines = [f"{key}: {_scalar(value)}" for key, value in settings.items()]
    listed = Controllers.model_fields[family].default == ()
    first, rest = ("    - ", "      ") if listed else ("    ", "    ")
    return "\n".join(
        ["controllers:", f"  {family}:", first + lines[0], *(rest + each for each in lines[1:]), ""]
    )


def _scalar(value: Any) -> str:
    """Return a value on one line of YAML, quoted only where it must be.

    >>> _scalar(["5m", None, True, "true", 0.7])
    '[5m, null, true, "true", 0.7]'
    """
    if isinstance(value, list):
        return f"[{', '.join(map(_scalar, value))}]"
    return value if isinstance(value, str) and _PLAIN.fullmatch(value) else json.dumps(value)


# --- rendering ----------------------------------------------------------------------------------------


def render(shown: Shown, console: Console) -> None:
    """Print a controller for a terminal: what it decides, its parameters, the example, errors and sources.

    Where the docstring marks an argument by its Python name, the YAML key is printed.
    """
    from rich.table import Table
    from rich.text import Text

    read, keys = shown.document, {row.argument: row.key for row in shown.rows}

    def say(text: str, *, title: str = "") -> None:
        console.print()
        if title:
            console.print(Text(title, style="bold"))
        console.print(_styled("\n\n".join(map(_flowing, text.split("\n\n"))), keys))

    where = "" if shown.name == shown.target else f"  {shown.target}"
    console.print(Text(f"{shown.family}/{shown.name}", style="bold").append(where, style="dim"))
    say(read.summary)
    if read.body:
        say(read.body)
    if shown.rows:
        table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0), pad_edge=False)
        for column in ("parameter", "default", "what may be written", "meaning"):
            table.add_column(column, no_wrap=column == "parameter")
        for row in shown.rows:
            default = "required" if row.required else _scalar(row.default)
            table.add_row(
                Text(row.key, style="cyan"), Text(default), Text(row.allowed), _styled(row.text, keys)
            )
        console.print()
        console.print(table)
    console.print()
    console.print(Text(shown.yaml.rstrip(), style="green"), soft_wrap=True)
    for title, text in (("Errors", read.raises), ("Notes", read.notes), ("In Python", read.example)):
        if text:
            say(text, title=title)


def _flowing(paragraph: str) -> str:
    """Return a paragraph without its line breaks, unless it is a list, a formula or code."""
    lines = paragraph.splitlines()
    return paragraph if any(each.startswith(_VERBATIM) for each in lines) else " ".join(lines)


def _styled(text: str, keys: dict[str, str]) -> Text:
    """Return text with what stands between backticks in a style of its own, arguments by their keys."""
    from rich.text import Text

    styled, end = Text(), 0
    for found in _CODE.finditer(text):
        name = found[1] or found[2]
        styled.append(text[end : found.start()]).append(keys.get(name, name), style="cyan")
        end = found.end()
    return styled.append(text[end:])
