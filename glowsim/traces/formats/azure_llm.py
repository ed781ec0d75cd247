"""The Azure LLM inference traces of 2023 and 2024: a time and two counts of tokens.

Schema: Azure/AzurePublicDataset, AzureLLMInferenceDataset2023.md and AzureLLMInferenceDataset2024.md. Times of
2023 have seven decimals and no zone; those of 2024 have one.
"""

from __future__ import annotations

from typing import ClassVar

from glowsim.traces.formats.base import Format, Request, arrival
from glowsim.traces.values import Row, instant, whole

__all__ = ["AzureLLM"]


class AzureLLM(Format):
    """``TIMESTAMP,ContextTokens,GeneratedTokens``."""

    name: ClassVar[str] = "azure_llm"
    fields = frozenset({"TIMESTAMP", "ContextTokens", "GeneratedTokens"})
    marks = (("TIMESTAMP",), ("ContextTokens",), ("GeneratedTokens",))

    def request(self, row: Row) -> Request:
        """Return the request of a row."""
        return Request(
            arrival(instant(row, "TIMESTAMP"), "TIMESTAMP"),
            {
                "tokens_in": whole(row, "ContextTokens", required=True),
                "tokens_out": whole(row, "GeneratedTokens", required=True),
            },
        )
