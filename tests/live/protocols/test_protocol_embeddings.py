"""Embeddings, as OpenAI's own client understands them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from glowsim.live.calls import InstanceError
from glowsim.live.protocols import EMBEDDINGS, Asked, BadBody
from glowsim.live.protocols.events import json_text


def asked(**more: Any) -> Asked:
    return EMBEDDINGS.read(json.dumps({"model": "small", "input": "What is due in May?"} | more).encode())


def test_a_body_is_read_and_sent_on() -> None:
    got = asked(dimensions=8, user="u")
    assert (got.model, got.tokens_in, got.max_tokens_out, got.stream, got.tag) == (
        "small",
        5,
        None,
        False,
        "u",
    )
    assert EMBEDDINGS.body_for(got, model="m", max_tokens_out=9) == got.body | {"model": "m"}


@pytest.mark.parametrize(
    ("given", "tokens_in"), [(["a" * 4, "b" * 8], 3), ([7, 8, 9], 3), ([[7, 8], [9]], 3), ("a", 1)]
)
def test_every_kind_of_input_is_counted(given: Any, tokens_in: int) -> None:
    assert asked(input=given).tokens_in == tokens_in


@pytest.mark.parametrize(
    "given", [None, "", [], 5, {}, ["a", 1], [1, "a"], [True], [[]], [[1], "a"], [[1], []], [[1.5]]]
)
def test_what_is_no_input_is_refused(given: Any) -> None:
    with pytest.raises(BadBody, match="'input' must be") as caught:
        asked(input=given)
    assert caught.value.param == "input"


def test_there_is_no_stream_and_no_chat() -> None:
    with pytest.raises(BadBody, match="do not stream"):
        asked(stream=True)
    for refused in (
        lambda: EMBEDDINGS.to_chat(asked()),
        lambda: EMBEDDINGS.from_chat({}, asked(), answer_id="1", created=7),
        lambda: EMBEDDINGS.reader(asked(), 5),
        lambda: EMBEDDINGS.writer(asked(), answer_id="1", created=7),
    ):
        with pytest.raises(BadBody, match="gives no embeddings"):
            refused()


def test_an_error_looks_alike_in_a_stream() -> None:
    assert EMBEDDINGS.error_frame(500, "lost") == f"data: {json_text(EMBEDDINGS.error(500, 'lost'))}\n\n"


def test_usage_is_input_only() -> None:
    assert EMBEDDINGS.usage_of({"usage": {"prompt_tokens": 6, "total_tokens": 6}}, 5)[:3] == (6, 0, 0)
    assert EMBEDDINGS.usage_of({}, 5)[:3] == (5, 0, 0)
    with pytest.raises(InstanceError, match="count of tokens"):
        EMBEDDINGS.usage_of({"usage": {"prompt_tokens": -6}}, 5)


def test_what_the_client_sends_is_read_and_its_errors_are_raised(server: Any, openai: Any) -> None:
    import openai as package

    server.reply(json.dumps(EMBEDDINGS.error(429, "slow down")), 429)
    with pytest.raises(package.RateLimitError, match="slow down"):
        openai.embeddings.create(model="small", input=["a" * 4, "b" * 8])
    assert server.path == "/v1/embeddings"
    assert EMBEDDINGS.read(server.asked).tokens_in == 3
