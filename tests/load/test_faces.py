"""How targets are spoken to: bodies, answers, refusals, and texts of the stated length."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowsim.core.reasons import Code
from glowsim.core.types import Outcome, Request, Usage
from glowsim.load.faces import FACES, Unreadable, is_rejection, refusal
from glowsim.load.prompts import prompt_of

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["choices", "message", "delta", "content", "usage", "prompt_tokens", "completion_tokens", "tokens_in",
             "prompt_tokens_details", "cached_tokens", "output", "answered", "done", "error", "code", "tokens_out"]
        ),
        inner,
        max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip
RAW = st.binary(max_size=60) | JSON.map(lambda said: json.dumps(said).encode())


def asked(**fields):
    return Request(**({"request_id": 1, "agent": 0, "tokens_in": 30, "max_tokens_out": 9} | fields))


@given(tokens=st.integers(1, 300_000), key=st.integers(0, 2**64 - 1), number=st.integers(1, 2**40))
def test_a_prompt_is_as_long_as_the_gateway_takes_it_to_be(tokens, key, number):
    gateway = pytest.importorskip("glowsim.live.gateway")
    text = prompt_of(asked(request_id=number, tokens_in=tokens), key)
    assert gateway.tokens_of(text) == tokens
    assert json.dumps(text)[1:-1] == text, "no character takes more than a byte"


@given(st.integers(1, 2**64 - 1), st.integers(1, 50_000), st.integers(1, 50_000))
def test_prompts_of_one_key_continue_each_other(key, one, other):
    short, long = (prompt_of(asked(tokens_in=n, request_id=n), key) for n in sorted((one, other)))
    assert long.startswith(short)
    assert prompt_of(asked(cache_key=key, tokens_in=one), 0) == prompt_of(
        asked(cache_key=key, tokens_in=one), 7
    )


def test_prompts_of_different_requests_share_no_prefix():
    texts = [prompt_of(asked(request_id=number), 0) for number in range(1, 2000)]
    assert len({text[:16] for text in texts}) == len(texts)


@pytest.mark.parametrize("face", FACES.values(), ids=FACES)
@given(raw=RAW, begun=st.booleans())
def test_nothing_that_a_target_says_does_more_harm_than_being_unreadable(face, raw, begun):
    for read in (lambda: face.answer(raw), lambda: face.event(raw, begun=begun)):
        try:
            said = read()
        except Unreadable:
            continue
        if said.usage is not None:
            assert 0 <= said.usage.tokens_cached <= said.usage.tokens_in < 2**31
            assert 0 <= said.usage.tokens_out < 2**31
    outcome, code = refusal(503, raw)
    assert outcome is Outcome.ERROR
    assert is_rejection(code) or code in (
        Code.EXHAUSTED, Code.NOT_RETRYABLE, Code.TIMED_OUT, Code.WAITED_TOO_LONG, Code.BROKEN_STREAM,
        Code.NO_TIME_TO_RETRY,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("status", "code", "outcome", "why"),
    [
        (400, None, Outcome.INVALID, Code.NOT_RETRYABLE),
        (413, None, Outcome.INVALID, Code.TOO_LARGE),
        (429, "limited", Outcome.THROTTLED, Code.LIMITED),
        (429, "rate_limit_exceeded", Outcome.THROTTLED, Code.LIMITED),
        (500, None, Outcome.ERROR, Code.EXHAUSTED),
        (503, "all_open", Outcome.ERROR, Code.ALL_OPEN),
        (503, "shed", Outcome.ERROR, Code.SHED),
        (502, "exhausted", Outcome.ERROR, Code.EXHAUSTED),
        (503, "own", Outcome.ERROR, Code.EXHAUSTED),
        (504, "timed_out", Outcome.TIMEOUT, Code.TIMED_OUT),
        (301, None, Outcome.ERROR, Code.EXHAUSTED),
    ],
)
def test_refusals_mean_what_the_simulator_means_by_them(status, code, outcome, why):
    body = b"<html>" if code is None else json.dumps({"error": {"code": code}}).encode()
    assert refusal(status, body) == (outcome, why)


def test_chat_is_openais():
    chat = FACES["chat"]
    assert chat.path("tax") == "/v1/chat/completions"
    body = {"model": "tax", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 9, "stream": False}
    assert json.loads(chat.body("tax", asked(), "hi")) == body
    assert json.loads(chat.body("tax", asked(stream=True), "hi")) == body | {
        "stream": True, "stream_options": {"include_usage": True},
    }  # fmt: skip
    usage = {"prompt_tokens": 11, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}}
    whole = {"choices": [{"message": {"role": "assistant", "content": "fine"}}], "usage": usage}
    assert chat.answer(json.dumps(whole).encode()).usage == pytest.approx(Usage(11, 4, 2), nan_ok=True)
    assert chat.answer(json.dumps(whole | {"usage": None}).encode()).usage is None
    role = b'{"choices": [{"delta": {"role": "assistant", "content": ""}}]}'
    assert not chat.event(role, begun=False).content, "no token has come yet"
    assert chat.event(b'{"choices": [{"delta": {"tool_calls": [{"index": 0}]}}]}', begun=False).content
    last = json.dumps({"choices": [], "usage": usage}).encode()
    assert chat.event(last, begun=True).usage == pytest.approx(Usage(11, 4, 2), nan_ok=True)
    assert chat.event(b"[DONE]", begun=True).done


def test_tasks_are_the_gateways():
    tasks = FACES["tasks"]
    gateway = pytest.importorskip("glowsim.live.gateway")
    body = gateway.Task.model_validate_json(tasks.body("tax", asked(stream=True), "hi"))
    assert (body.input, body.max_tokens_out, body.stream) == ("hi", 9, True)
    said = tasks.answer(
        b'{"output": "x", "answered": "cached", "usage": {"tokens_in": 9, "tokens_cached": 1, "tokens_out": 2}}'
    )
    assert (said.source, said.usage[:3]) == (Code.CACHED, (9, 1, 2))
    assert tasks.event(b'{"error": {"code": "timed_out"}}', begun=True).error == (
        Outcome.TIMEOUT,
        Code.TIMED_OUT,
    )
    assert tasks.event(b'{"done": true, "answered": "own"}', begun=True)[1:4] == (True, None, Code.OWN)
