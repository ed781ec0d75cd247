"""A scenario's plain data as YAML: blocks, with lists of plain values on lines of their own."""

from __future__ import annotations

from collections.abc import Mapping
from io import StringIO
from typing import Any, Final

__all__ = ["spelled"]

_WIDTH: Final = 110


def spelled(scenario: Mapping[str, Any]) -> str:
    """Return plain data as YAML.

    >>> print(spelled({"seed": 1, "fleet": [{"agent": "tax", "law": {"x": ["1s", "2s"]}}]}), end="")
    seed: 1
    fleet:
      - agent: tax
        law:
          x: [1s, 2s]
    """
    from ruamel.yaml import YAML

    text = StringIO()
    yaml = YAML()
    yaml.width = _WIDTH
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.dump(_styled(scenario), text)
    return "".join(f"{line.rstrip()}\n" for line in text.getvalue().splitlines())


def _styled(data: Any) -> Any:
    from ruamel.yaml.comments import CommentedMap, CommentedSeq

    if isinstance(data, Mapping):
        return CommentedMap({key: _styled(value) for key, value in data.items()})
    if isinstance(data, list):
        items = CommentedSeq([_styled(each) for each in data])
        if not any(isinstance(each, Mapping | list) for each in data):
            items.fa.set_flow_style()
        return items
    return int(data) if isinstance(data, float) and data.is_integer() else data
