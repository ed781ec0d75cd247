"""Chat completions, as OpenAI's own client and models understand them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from glowsim.core.types import Usage
from glowsim.live.calls import InstanceError
from glowsim.live.protocols import CHAT, Asked, BadBody, chat_answer, chat_chunks, stream_of
from glowsim.live.protocols.chat_answers import said_in_answer

MESSAGES = [{"role": "user", "content": "What is due in May?"}]
USED = Usage(tokens_in=9, tokens_cached=4, tokens_out=2)
ANSWER = chat_answer("VAT, then.", USED, model="tax", answer_id="1", created=7)
CALLS = [
    {
        "id": f"call_{name}",
        "type": "function",
        "function": {"name": name, "arguments": json.dumps({"of": name})},
    }
    for name in ("due", "paid")
]


def body(**more: Any) -> bytes:
    return json.dumps({"model": "tax", "messages": MESSAGES} | more).encode()


def asked(**more: Any) -> Asked:
    return CHAT.read(body(**more))


def with_calls() -> dict[str, Any]:
    answer = chat_answer("", USED, model="tax", answer_id="1", created=7, finish="tool_calls")
    answer["choices"][0]["message"] |= {"content": None, "tool_calls": CALLS}
    return answer


def streamed(answer: dict[str, Any], **more: Any) -> str:
    return stream_of(CHAT, answer, asked(stream=True, **more), answer_id="1", created=7)


# --- what is read --------------------------------------------------------------------------------------


def test_a_body_is_read_and_kept() -> None:
    got = asked(max_completion_tokens=50, max_tokens=60, stream=True, user="u", seed=3)
    assert got == Asked("chat", json.loads(body(**got.body)), "tax", 5, 50, True, "u")
    assert asked(max_tokens=60).max_tokens_out == 60
    assert asked().max_tokens_out is None
    assert asked(user="u", safety_identifier="s").tag == "s"


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"model": None}, "model"), ({"model": 5}, "model"), ({"model": ""}, "model"), ({"model": "m" * 1001}, "model"),
        ({"messages": []}, "messages"), ({"messages": ["hello"]}, "messages"), ({"messages": "hello"}, "messages"),
        ({"max_tokens": 0}, "max_tokens"), ({"max_tokens": True}, "max_tokens"), ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_completion_tokens": "9"}, "max_completion_tokens"), ({"stream": 1}, "stream"), ({"user": 5}, "user"),
        ({"stream_options": []}, "stream_options"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named(more: dict[str, Any], param: str) -> None:
    with pytest.raises(BadBody, match=param) as caught:
        asked(**more)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "not JSON"), (b"{", "not JSON"), (b"[]", "not a JSON object"), (b"\xff{}", "not JSON"),
        (b'{"temperature": NaN}', "NaN"), (b'{"temperature": -Infinity}', "Infinity"),
        (b'{"temperature": 1e999}', "too large"), (b'{"seed": ' + b"9" * 5000 + b"}", "4300 digits"),
        (b'{"model": "\\ud83d"}', "surrogate"), (b'{"a": ' + b"[" * 200 + b"]" * 200 + b"}", "100 levels"),
        (b'{"a": ' * 100_000, "100 levels"),
    ],
)  # fmt: skip
def test_what_is_no_body_is_refused(raw: bytes, says: str) -> None:
    with pytest.raises(BadBody, match=says) as caught:
        CHAT.read(raw)
    assert caught.value.param is None


def test_a_whole_character_written_as_two_escapes_is_taken() -> None:
    assert CHAT.read(body(user="\U0001f600")).tag == "\U0001f600"


def test_tokens_are_a_quarter_of_the_texts_without_media() -> None:
    data = "A" * 100_000
    parts = [
        {"type": "text", "text": "x" * 40},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}},
        {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}},
        {"type": "file", "file": {"file_data": data}},
    ]
    assert asked(messages=[{"role": "user", "content": parts}]).tokens_in == 10
    assert asked(messages=[{"role": "user", "content": ""}]).tokens_in == 1
    assert asked(messages=[{"role": "user", "content": "\u00e4" * 4}]).tokens_in == 2
    assert asked(messages=[{"role": "assistant", "tool_calls": CALLS}]).tokens_in == 9  # names and arguments
    tool = {"type": "function", "function": {"name": "due", "parameters": {"type": "object"}}}
    assert asked(tools=[tool]).tokens_in == pytest.approx(5 + len(json.dumps(tool)) / 4, abs=1)


# --- what is sent upstream -----------------------------------------------------------------------------


def test_only_model_limit_and_stream_options_change() -> None:
    plain = asked(temperature=0.5)
    assert CHAT.body_for(plain, model="m", max_tokens_out=9) == plain.body | {"model": "m", "max_tokens": 9}
    newer = CHAT.body_for(asked(max_completion_tokens=50, max_tokens=60), model="m", max_tokens_out=9)
    assert newer == {"model": "m", "messages": MESSAGES, "max_completion_tokens": 9}
    options = {"include_usage": False, "include_obfuscation": False}
    stream = CHAT.body_for(asked(stream=True, stream_options=options), model="m", max_tokens_out=9)
    assert stream["stream_options"] == {"include_usage": True, "include_obfuscation": False}
    assert "max_tokens" not in plain.body
    assert CHAT.to_chat(plain) is plain.body


# --- what comes back -----------------------------------------------------------------------------------


def test_usage_is_checked() -> None:
    assert CHAT.usage_of(ANSWER, 5)[:3] == (9, 4, 2)
    assert CHAT.usage_of({}, 5)[:3] == (5, 0, 0)
    assert CHAT.usage_of({"usage": {"prompt_tokens": 3, "prompt_tokens_details": None}}, 5)[:3] == (3, 0, 0)
    for wrong in (
        {"prompt_tokens": -1}, {"prompt_tokens": True}, {"prompt_tokens": 2**31}, {"prompt_tokens": 1.5},
        {"prompt_tokens": 1, "prompt_tokens_details": {"cached_tokens": 2}}, {"completion_tokens": "2"},
    ):  # fmt: skip
        with pytest.raises(InstanceError, match=r"count of tokens|cached"):
            CHAT.usage_of({"usage": wrong}, 5)
    with pytest.raises(InstanceError, match="not an object"):
        CHAT.usage_of({"usage": [1]}, 5)
    with pytest.raises(InstanceError, match="out of memory"):
        CHAT.usage_of({"error": {"message": "out of memory"}}, 5)


def test_a_stream_passes_as_it_is_but_for_a_usage_nobody_asked_for() -> None:
    for wanted in (False, True):
        request = asked(stream=True, stream_options={"include_usage": wanted})
        reader = CHAT.reader(request, 5)
        data = [json.dumps(chunk) for chunk in chat_chunks(ANSWER)]
        frames = [reader.feed(None, each) for each in [*data, "[DONE]"]]
        assert [frame.content for frame in frames] == [False, True, False, False, False]
        assert [frame.done for frame in frames] == [False, False, False, False, True]
        assert [frame.usage for frame in frames][3][:3] == USED[:3]  # type: ignore[index]
        assert [frame.chunk for frame in frames] == [*chat_chunks(ANSWER), None]
        passed = data if wanted else data[:3]
        assert [frame.text for frame in frames if frame.text] == [
            f"data: {each}\n\n" for each in [*passed, "[DONE]"]
        ]


def test_a_stream_whose_every_answer_is_finished_is_whole_without_its_last_event() -> None:
    def finish(index: object) -> str:
        return json.dumps({"choices": [{"index": index, "delta": {}, "finish_reason": "length"}]})

    for n in (None, 1, 2, "2"):
        reader = CHAT.reader(asked(stream=True, n=n), 5)
        reader.feed(None, json.dumps({"choices": [{"index": 0, "delta": {"content": "x"}}]}))
        assert reader.end() is None, "cut off within the answer"
        assert not reader.feed(None, finish(0)).done, "what it used may still come"
        assert (reader.end() is None) == (n == 2)
        reader.feed(None, finish([1]))
        assert (reader.end() is None) == (n == 2)
        reader.feed(None, finish(1))
        assert reader.end() == "data: [DONE]\n\n"


@pytest.mark.parametrize("name", ["content", "tool_calls", "refusal", "reasoning_content", "reasoning"])
def test_every_kind_of_content_commits(name: str) -> None:
    chunk = {"choices": [{"index": 0, "delta": {"role": "assistant", name: "x"}}]}
    reader = CHAT.reader(asked(stream=True), 5)
    assert reader.feed(None, json.dumps(chunk)).content
    chunk["choices"][0]["delta"] = {"role": "assistant", name: ""}  # type: ignore[index]
    assert not reader.feed(None, json.dumps(chunk)).content


def test_data_over_several_lines_stays_one_event() -> None:
    text = CHAT.reader(asked(stream=True), 5).feed(None, '{"choices":\n[]\r}').text
    assert text == 'data: {"choices":[]}\n\n'


@pytest.mark.parametrize(
    "data", ["", "nonsense", "[1]", '{"error": {"message": "lost"}}', '{"choices": [1]}']
)
def test_an_event_that_cannot_be_read_breaks_the_stream(data: str) -> None:
    with pytest.raises(InstanceError):
        CHAT.reader(asked(stream=True), 5).feed(None, data)


def test_an_answer_becomes_chunks_choice_by_choice() -> None:
    answer = chat_answer("one", USED, model="tax", answer_id="1", created=7)
    answer["choices"].append({"index": 1, "message": {"content": "two"}, "finish_reason": "length"})
    said: dict[int, str] = {}
    for chunk in chat_chunks(answer)[:-1]:
        choice = chunk["choices"][0]
        said[choice["index"]] = said.get(choice["index"], "") + (choice["delta"].get("content") or "")
    assert said == {0: "one", 1: "two"}
    for wrong in ({}, {"choices": [{}]}):
        with pytest.raises(InstanceError):
            chat_chunks(wrong)


def test_a_content_in_parts_is_read_as_one_text() -> None:
    message = {"content": [{"type": "text", "text": "VAT, "}, {"type": "text", "text": "then."}]}
    answer = {"choices": [{"message": message, "finish_reason": "stop"}]}
    assert said_in_answer(answer, 5).text == "VAT, then."
    message["content"].append({"type": "audio"})
    with pytest.raises(InstanceError, match="'content' is not a text"):
        said_in_answer(answer, 5)


# --- OpenAI's client -----------------------------------------------------------------------------------


def test_the_client_takes_an_answer(server: Any, openai: Any) -> None:
    from openai.types.chat import ChatCompletion

    server.reply(json.dumps(with_calls()))
    got = openai.chat.completions.create(model="tax", messages=MESSAGES)
    assert [call.function.name for call in got.choices[0].message.tool_calls] == ["due", "paid"]
    for answer in (ANSWER, with_calls()):
        ChatCompletion.model_validate(answer, strict=True)
    assert got.usage.prompt_tokens_details.cached_tokens == 4


def test_the_client_takes_a_stream(server: Any, openai: Any) -> None:
    from openai.types.chat import ChatCompletionChunk

    for answer in (ANSWER, with_calls()):
        for chunk in chat_chunks(answer):
            ChatCompletionChunk.model_validate(chunk, strict=True)
        server.reply(streamed(answer, stream_options={"include_usage": True}))
        with openai.chat.completions.stream(model="tax", messages=MESSAGES) as stream:
            got = stream.get_final_completion()
        message = answer["choices"][0]["message"]
        assert got.choices[0].message.content == message["content"]
        assert [call.function.arguments for call in got.choices[0].message.tool_calls or []] == [
            call["function"]["arguments"] for call in message.get("tool_calls", [])
        ]
        assert got.choices[0].finish_reason == answer["choices"][0]["finish_reason"]
        assert got.usage.completion_tokens == 2
    assert '"usage":{' not in streamed(ANSWER)


@pytest.mark.parametrize(
    ("status", "name", "kind"),
    [
        (400, "BadRequestError", "invalid_request_error"), (401, "AuthenticationError", "authentication_error"),
        (403, "PermissionDeniedError", "permission_error"), (404, "NotFoundError", "invalid_request_error"),
        (413, "APIStatusError", "invalid_request_error"), (422, "UnprocessableEntityError", "invalid_request_error"),
        (429, "RateLimitError", "rate_limit_error"), (500, "InternalServerError", "server_error"),
        (503, "InternalServerError", "server_error"), (504, "InternalServerError", "server_error"),
    ],
)  # fmt: skip
def test_the_client_raises_the_right_error(
    server: Any, openai: Any, status: int, name: str, kind: str
) -> None:
    import openai as package

    error = json.dumps(CHAT.error(status, "say which", code="limited", param="model"))
    server.reply(error, status, **{"retry-after": "3"})
    with pytest.raises(package.APIStatusError, match="say which") as caught:
        openai.chat.completions.create(model="tax", messages=MESSAGES)
    assert type(caught.value).__name__ == name
    assert caught.value.body == {"message": "say which", "type": kind, "param": "model", "code": "limited"}
    assert caught.value.response.headers["retry-after"] == "3"


def test_the_client_raises_the_error_of_a_broken_stream(server: Any, openai: Any) -> None:
    import openai as package

    writer = CHAT.writer(asked(stream=True), answer_id="1", created=7)
    begun = "".join(map(writer.feed, chat_chunks(ANSWER)[:2]))
    server.reply(begun + CHAT.error_frame(502, "the instance is gone", code="broken_stream"))
    stream = openai.chat.completions.create(model="tax", messages=MESSAGES, stream=True)
    with pytest.raises(package.APIError, match="the instance is gone"):
        list(stream)
