"""Where the public traces are published, under which licence, and where to put them."""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

from glowsim.traces.log import LogError

__all__ = ["PUBLISHED", "Published", "find"]


class Published(NamedTuple):
    """A public trace, which is not part of the project."""

    file: str
    """Its name, without the ``.gz`` that it may have."""
    format: str
    """Name among `glowsim.traces.formats.FORMATS`."""
    where: str
    """Where it is published."""
    licence: str
    """Under which licence, and what to cite."""


_AZURE: Final = "https://github.com/Azure/AzurePublicDataset"
_AZURE_WEEK: Final = f"{_AZURE} (release dataset-llm-2024; see AzureLLMInferenceDataset2024.md)"
_AZURE_2023: Final = "CC-BY-4.0; cite Splitwise, ISCA 2024"
_AZURE_2024: Final = "CC-BY-4.0; cite DynamoLLM, arXiv:2408.00741"
_MOONCAKE: Final = "https://github.com/kvcache-ai/Mooncake (FAST25-release/traces)"
_MOONCAKE_LICENCE: Final = "Apache-2.0; cite Mooncake, FAST 2025"
_BURSTGPT: Final = "https://github.com/HPMLL/BurstGPT"
_BURSTGPT_LICENCE: Final = "CC-BY-4.0; cite BurstGPT, arXiv:2401.17644"
_TRACELAB: Final = "https://github.com/uw-syfi/TraceLab (releases, as .gz)"
_QWEN: Final = "https://github.com/alibaba-edu/qwen-bailian-usagetraces-anon"
_QWEN_LICENCE: Final = "Apache-2.0; cite KVCache Cache in the Wild, ATC 2025"

PUBLISHED: Final = (
    Published("AzureLLMInferenceTrace_code.csv", "azure_llm", f"{_AZURE} (data/)", _AZURE_2023),
    Published("AzureLLMInferenceTrace_conv.csv", "azure_llm", f"{_AZURE} (data/)", _AZURE_2023),
    Published("AzureLLMInferenceTrace_code_1week.csv", "azure_llm", _AZURE_WEEK, _AZURE_2024),
    Published("AzureLLMInferenceTrace_conv_1week.csv", "azure_llm", _AZURE_WEEK, _AZURE_2024),
    Published("conversation_trace.jsonl", "mooncake", _MOONCAKE, _MOONCAKE_LICENCE),
    Published("synthetic_trace.jsonl", "mooncake", _MOONCAKE, _MOONCAKE_LICENCE),
    Published("BurstGPT_1.csv", "burstgpt", f"{_BURSTGPT} (data/)", _BURSTGPT_LICENCE),
    Published("BurstGPT_2.csv", "burstgpt", f"{_BURSTGPT} (releases)", _BURSTGPT_LICENCE),
    Published("BurstGPT_3.csv", "burstgpt", f"{_BURSTGPT} (release v2.0)", _BURSTGPT_LICENCE),
    Published("qwen_traceA_blksz_16.jsonl", "qwen_bailian", _QWEN, _QWEN_LICENCE),
    Published("qwen_traceB_blksz_16.jsonl", "qwen_bailian", _QWEN, _QWEN_LICENCE),
    Published("syfi_coding_trace.jsonl", "tracelab", _TRACELAB, "CC-BY-4.0; cite SyFI TraceLab"),
)  # fmt: skip
"""The traces that glowsim knows."""
_BY_FILE: Final = {each.file: each for each in PUBLISHED}


def find(file: str, data: Path | None) -> Path:
    """Return where a trace lies in the data folder: at its path, or by its name there or one folder down, or gzipped.

    Raises
    ------
    LogError
        It is not there; says where it is published, under which licence, and where to put it.
    """
    name = Path(file).name
    known = _BY_FILE.get(name.removesuffix(".gz"))
    where = "" if known is None else f"\n  published at: {known.where}\n  licence: {known.licence}"
    if data is None:
        raise LogError(
            f"the trace {file} is needed, and no data folder is given{where}"
            f"\n  put it in a folder of your choice and name the folder by --data FOLDER or GLOWSIM_DATA=FOLDER"
        )
    for end in ("", ".gz"):
        for candidate in (data / f"{file}{end}", data / f"{name}{end}", *sorted(data.glob(f"*/{name}{end}"))):
            if candidate.is_file():
                return candidate
    raise LogError(f"the trace {file} is not in {data}{where}\n  put it at {data / file}")
