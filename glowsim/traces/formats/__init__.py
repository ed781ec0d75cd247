"""The formats that recorded workloads come in, one class each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from glowsim.traces.formats.azure_llm import AzureLLM
from glowsim.traces.formats.base import Format
from glowsim.traces.formats.blocks import Mooncake, QwenBailian
from glowsim.traces.formats.burstgpt import BurstGPT
from glowsim.traces.formats.langfuse import Langfuse
from glowsim.traces.formats.litellm import LiteLLM
from glowsim.traces.formats.named import NamedColumns
from glowsim.traces.formats.otel import OTel
from glowsim.traces.formats.tracelab import TraceLab

__all__ = ["FORMATS"]

FORMATS: Final[dict[str, Callable[[], Format]]] = {
    "azure_llm": AzureLLM,
    "qwen_bailian": QwenBailian,
    "mooncake": Mooncake,
    "burstgpt": BurstGPT,
    "tracelab": TraceLab,
    "litellm": LiteLLM,
    "langfuse": Langfuse,
    "otel": OTel,
    "csv": NamedColumns,
}
"""Name -> what makes an object that reads one file; a file is of the first format whose marks it bears.

Bailian's rows bear Mooncake's marks too, so they come first.
"""
