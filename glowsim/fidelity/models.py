"""Tiny language models with random weights, made on the spot: a GGUF for llama.cpp, a folder for transformers.

Nothing is downloaded. What such a model writes means nothing; how long its server takes is real. The rows of the
output layer are zero but for printable ASCII, so that the end-of-text token is never the most probable one and every
answer is as long as its limit on tokens allows, and is valid text at every token.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

__all__ = ["LARGE", "SMALL", "Size", "make_gguf", "make_transformers"]

_SPECIAL: Final = ("<unk>", "<s>", "</s>")
_BYTES: Final = 256
_HEAD_DIM: Final = 32
_SHARP: Final = 0.5
"""Standard deviation of the output layer's weights: large, so that one token stands out and 0 never does."""
_TEMPLATE: Final = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}assistant:"
)


class Size(NamedTuple):
    """The shape of a Llama model, in the words of its configuration."""

    hidden: int
    layers: int
    intermediate: int
    context: int = 2048

    @property
    def heads(self) -> int:
        """How many heads of attention there are."""
        return self.hidden // _HEAD_DIM


SMALL: Final = Size(hidden=256, layers=4, intermediate=704)
LARGE: Final = Size(hidden=256, layers=16, intermediate=704)
"""About three to four times the work of `SMALL`: the slow one of an unequal pair."""


def make_gguf(path: Path, size: Size, *, seed: int = 1) -> Path:
    """Write a random Llama with a byte vocabulary for llama.cpp, unless it is there; return its path.

    Parameters
    ----------
    path
        Where to; its folder must exist.
    size
        Its shape.
    seed
        Of the weights.
    """
    if path.exists():
        return path
    from gguf import GGUFWriter, TokenType

    writer = GGUFWriter(None, "llama")
    writer.add_name("random")
    writer.add_context_length(size.context)
    writer.add_embedding_length(size.hidden)
    writer.add_block_count(size.layers)
    writer.add_feed_forward_length(size.intermediate)
    writer.add_head_count(size.heads)
    writer.add_head_count_kv(size.heads)
    writer.add_rope_dimension_count(_HEAD_DIM)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(_SPECIAL) + _BYTES + 1)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([*_SPECIAL, *(f"<0x{byte:02X}>" for byte in range(_BYTES)), "▁"])
    kinds = [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL, *[TokenType.BYTE] * _BYTES]
    writer.add_token_types([*kinds, TokenType.NORMAL])
    writer.add_token_scores([0.0] * (len(_SPECIAL) + _BYTES + 1))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_chat_template(_TEMPLATE)
    names = {
        "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm",
        "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    }  # fmt: skip
    whole = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    for name, weights in _weights(size, len(_SPECIAL) + _BYTES + 1, len(_SPECIAL), seed).items():
        stem = name.removesuffix(".weight")
        if stem in whole:
            writer.add_tensor(f"{whole[stem]}.weight", weights)
        else:
            layer, _, part = stem.removeprefix("model.layers.").partition(".")
            writer.add_tensor(f"blk.{layer}.{names[part]}.weight", weights)
    partial = path.with_suffix(".partial")
    writer.write_header_to_file(partial)
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    partial.rename(path)
    return path


def make_transformers(folder: Path, size: Size, *, seed: int = 1) -> Path:
    """Write a random Llama with a byte-level tokenizer for transformers, unless it is there; return its folder.

    Parameters
    ----------
    folder
        Where to; the one above it must exist.
    size
        Its shape.
    seed
        Of the weights.
    """
    if folder.exists():
        return folder
    from safetensors.numpy import save_file
    from tokenizers import Tokenizer
    from tokenizers.decoders import ByteLevel as ByteDecoder
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel

    partial = folder.with_name(f"{folder.name}.partial")
    partial.mkdir(exist_ok=True)
    letters = sorted(ByteLevel.alphabet())
    shown = {byte: _shown(byte) for byte in range(_BYTES)}
    assert sorted(shown.values()) == letters
    vocabulary = {name: at for at, name in enumerate([*_SPECIAL, *shown.values()])}
    tokenizer = Tokenizer(BPE(vocabulary, [], unk_token=_SPECIAL[0]))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = ByteDecoder()
    tokenizer.add_special_tokens(list(_SPECIAL))
    tokenizer.save(str(partial / "tokenizer.json"))
    special: dict[str, Any] = dict(
        zip(("unk_token", "bos_token", "eos_token"), _SPECIAL, strict=True),
        tokenizer_class="PreTrainedTokenizerFast", clean_up_tokenization_spaces=False, chat_template=_TEMPLATE,
        model_max_length=size.context,
    )  # fmt: skip
    _write(partial / "tokenizer_config.json", special)
    ends = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    shape: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": size.hidden,
        "intermediate_size": size.intermediate, "num_hidden_layers": size.layers, "num_attention_heads": size.heads,
        "num_key_value_heads": size.heads, "head_dim": _HEAD_DIM, "vocab_size": len(vocabulary),
        "max_position_embeddings": size.context, "tie_word_embeddings": False, "dtype": "float32",
        "rms_norm_eps": 1e-5,
    }  # fmt: skip
    _write(partial / "config.json", shape | ends)
    _write(partial / "generation_config.json", {"do_sample": False, **ends})
    weights = _weights(size, len(vocabulary), len(_SPECIAL), seed)
    save_file(weights, partial / "model.safetensors", metadata={"format": "pt"})
    return partial.rename(folder)


def _weights(size: Size, vocabulary: int, first_byte: int, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)

    def normal(*shape: int, scale: float) -> Any:
        return (rng.standard_normal(shape, dtype=np.float32) * np.float32(scale)).astype(np.float32)

    hidden, inner, scale = size.hidden, size.intermediate, size.hidden**-0.5
    head = np.zeros((vocabulary, hidden), dtype=np.float32)
    printable = np.arange(0x20, 0x7F) + first_byte
    head[printable] = normal(len(printable), hidden, scale=_SHARP)
    found = {"model.embed_tokens.weight": normal(vocabulary, hidden, scale=1.0)}
    for layer in range(size.layers):
        at = f"model.layers.{layer}"
        found[f"{at}.input_layernorm.weight"] = np.ones(hidden, dtype=np.float32)
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            found[f"{at}.self_attn.{name}.weight"] = normal(hidden, hidden, scale=scale)
        found[f"{at}.post_attention_layernorm.weight"] = np.ones(hidden, dtype=np.float32)
        found[f"{at}.mlp.gate_proj.weight"] = normal(inner, hidden, scale=scale)
        found[f"{at}.mlp.up_proj.weight"] = normal(inner, hidden, scale=scale)
        found[f"{at}.mlp.down_proj.weight"] = normal(hidden, inner, scale=inner**-0.5)
    found["model.norm.weight"] = np.ones(hidden, dtype=np.float32)
    found["lm_head.weight"] = head
    return found


def _shown(byte: int) -> str:
    """Return the letter that stands for a byte in a byte-level vocabulary: GPT-2's table."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    if byte in printable:
        return chr(byte)
    return chr(0x100 + sum(other not in printable for other in range(byte)))


def _write(path: Path, said: dict[str, Any]) -> None:
    path.write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
