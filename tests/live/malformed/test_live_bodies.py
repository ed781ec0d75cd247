"""Bodies that are wrong at every place: the error has the protocol's shape, names the place, and is never our fault."""

from __future__ import annotations

import json
from copy import deepcopy
from itertools import cycle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.usefixtures("_serving")

CHAT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/responses", "/v1/messages"
EMBEDDINGS, TASKS, FEEDBACK = "/v1/embeddings", "/v1/agents/tax/tasks", "/v1/feedback"
SCHEMA = {"type": "object", "properties": {"of": {"type": "string"}}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "rate", "arguments": '{"of": "books"}'}}
VALID = {
    CHAT: {
        "model": "tax",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Which rate?"}]},
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "call_1", "content": "7 %"},
        ],
        "max_tokens": 3,
        "max_completion_tokens": 3,
        "temperature": 0.5,
        "n": 1,
        "stop": ["."],
        "stream": False,
        "stream_options": {"include_usage": True},
        "tools": [{"type": "function", "function": {"name": "rate", "parameters": SCHEMA}}],
        "tool_choice": "auto",
        "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}},
        "user": "ann",
        "metadata": {"a": "b"},
    },
    RESPONSES: {
        "model": "tax",
        "instructions": "Be brief.",
        "input": [
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Which rate?"}]},
            {"type": "reasoning", "id": "rs_1", "summary": []},
            {"type": "function_call", "call_id": "call_1", "name": "rate", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "call_1", "output": "7 %"},
            {"role": "user", "content": [{"type": "input_image", "image_url": "https://a/b.png"}]},
        ],
        "max_output_tokens": 3,
        "stream": False,
        "temperature": 0.5,
        "tools": [{"type": "function", "name": "rate", "parameters": SCHEMA, "strict": True}],
        "tool_choice": {"type": "function", "name": "rate"},
        "parallel_tool_calls": True,
        "text": {"format": {"type": "json_schema", "name": "a", "schema": SCHEMA}, "verbosity": "low"},
        "reasoning": {"effort": "low"},
        "metadata": {"a": "b"},
        "user": "ann",
        "previous_response_id": None,
        "background": False,
    },
    MESSAGES: {
        "model": "tax",
        "max_tokens": 3,
        "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        "messages": [
            {"role": "user", "content": "Which rate?"},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "Hm.", "signature": "x"},
                    {"type": "text", "text": "I look."},
                    {"type": "tool_use", "id": "toolu_1", "name": "rate", "input": {"of": "books"}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": "toolu_1",
                        "content": [{"type": "text", "text": "7"}],
                    },
                    {
                        "type": "image",
                        "source": {"type": "base64", "media_type": "image/png", "data": "AA=="},
                    },
                    {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "b"}},
                ],
            },
        ],
        "stop_sequences": ["."],
        "stream": False,
        "temperature": 0.5,
        "tools": [{"name": "rate", "input_schema": SCHEMA}],
        "tool_choice": {"type": "tool", "name": "rate", "disable_parallel_tool_use": True},
        "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": SCHEMA}},
        "metadata": {"user_id": "ann"},
    },
    EMBEDDINGS: {"model": "tax", "input": ["Which rate?", "Due?"], "dimensions": 3, "user": "ann"},
    TASKS: {
        "input": [{"role": "user", "content": "Which rate?"}],
        "max_tokens_out": 3,
        "stream": False,
        "session": "s1",
        "priority": 1,
        "idempotency_key": None,
        "cache": False,
    },
    FEEDBACK: {"request_id": 1, "kind": "rating", "value": 4, "tag": "a", "idempotency_key": None},
}
WRONG = [
    None, True, False, 0, -1, 1.5, 1e300, 10**30, 2**63, 10**4299, "", "x", " ", "\0", "😀", "tax", [], {}, [[]], [{}],
    [None], [0], ["x"], [[0]], {"type": None}, {"type": []}, {"type": "text"}, {"type": "text", "text": None},
    {"type": "function"}, {"role": "user"}, {"": ""}, {"content": {"content": {}}}, "x" * 5000,
]  # fmt: skip


def places(value, path=()):
    """Yield where something stands in a body."""
    entries = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, inner in entries:
        yield (*path, key)
        yield from places(inner, (*path, key))


def changed(body, path, value=None, *, gone=False):
    body = deepcopy(body)
    *way, last = path
    inner = body
    for key in way:
        inner = inner[key]
    if gone:
        del inner[last]
    else:
        inner[last] = value
    return body


def has_the_shape(path, said):
    """Check an error as a client of the protocol would read it."""
    body = said.json()
    assert body["error"]["message"]
    if path == MESSAGES:
        assert (set(body), body["type"]) == ({"type", "error"}, "error")
        assert set(body["error"]) == {"type", "message"}
    elif path in (CHAT, RESPONSES, EMBEDDINGS):
        assert set(body) == {"error"}
        assert set(body["error"]) == {"message", "type", "param", "code"}
    else:
        assert set(body["error"]) >= {"code", "message"}


@pytest.fixture(scope="module")
def target(hostile, tmp_path_factory):
    with hostile.running(tmp_path_factory.mktemp("bodies"), max_body_bytes=12_000_000) as found:
        yield found


def sent(hostile, target, path, bodies):
    """Send bodies, as they are or as JSON, one connection each; return the answers."""
    many = [(hostile.post(body, path=path),) for body in bodies]
    found = hostile.conversations(target.port, many)
    for one, each in zip(bodies, found, strict=True):
        assert [each[1].body, len(each)] == [hostile.HEALTHY, 2], str(one)[:2000]
    return [each[0] for each in found]


def not_our_fault(path, body, said):
    if said.status >= 400:
        assert said.status < 500, (path, str(body)[:2000], said)
        has_the_shape(path, said)
    elif said.headers["content-type"].startswith("text/event-stream"):
        text = said.body.decode()
        assert '"error":{' not in text, (path, str(body)[:2000], text)
        assert '"error": {' not in text, (path, str(body)[:2000], text)
    else:
        assert isinstance(said.json(), dict)


@pytest.mark.parametrize("path", VALID)
def test_bodies_that_are_right_are_served(hostile, target, path):
    """The emulated agent gives no embeddings; feedback is on the request before it."""
    _, plain = sent(hostile, target, TASKS, [VALID[TASKS]]) + sent(hostile, target, path, [VALID[path]])
    assert plain.status == {EMBEDDINGS: 400, FEEDBACK: 201}.get(path, 200), plain


@pytest.mark.parametrize("path", VALID)
def test_whatever_stands_wherever_no_fault_is_ours(hostile, target, unharmed, path):
    """Every place of a valid body holds everything that it should not, or nothing; every other body wants a stream."""
    valid = VALID[path]
    bodies = []
    for place, stream in zip(places(valid), cycle((False, True))):
        asked = valid | {"stream": True} if stream and "stream" in valid else valid
        bodies += [changed(asked, place, wrong) for wrong in WRONG] + [changed(asked, place, gone=True)]
    for body, said in zip(bodies, sent(hostile, target, path, bodies), strict=True):
        not_our_fault(path, body, said)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.sampled_from(["type", "text", "role",
        "content", "name", "input", "source", "id", "arguments", "function"]), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@pytest.mark.parametrize("path", VALID)
@settings(max_examples=8)
@given(st.data())
def test_any_json_anywhere_is_no_fault_of_ours(hostile, target, path, data):
    """Twenty at a time: two places of a valid body changed, and fields that nobody knows."""
    bodies, valid = [], VALID[path]
    for _ in range(20):
        body = changed(valid, data.draw(st.sampled_from(list(places(valid)))), data.draw(JSON))
        if data.draw(st.booleans()):
            place = data.draw(st.sampled_from([each for each in places(body) if each]))
            body = changed(body, place, data.draw(JSON))
        bodies.append(
            json.dumps(body | data.draw(st.dictionaries(st.text(), JSON, max_size=1))).encode("utf-8")
        )
    for body, said in zip(bodies, sent(hostile, target, path, bodies), strict=True):
        not_our_fault(path, body, said)


BOMBS = {
    "nothing": b"",
    "no JSON": b"{",
    "a list": b"[]",
    "a text": b'"x"',
    "null": b"null",
    "NaN": b'{"x": NaN}',
    "Infinity": b'{"x": -Infinity}',
    "too large a number": b'{"x": 1e999}',
    "5000 digits": b'{"x": ' + b"9" * 5000 + b"}",
    "brackets": b'{"x": ' + b"[" * 1_000_000,
    "nested brackets": b'{"x": ' + b"[" * 500 + b"]" * 500 + b"}",
    "nested braces": b'{"x": ' * 500 + b"1" + b"}" * 500,
    "half a character": b'{"x": "\\ud800"}',
    "half a character for a name": b'{"\\udc00": 1}',
    "half a character as bytes": b'{"x": "\xed\xa0\x80"}',
    "no UTF-8": b'{"x": "\xff"}',
    "overlong": b'{"x": "\xc0\xaf"}',
    "UTF-16": '{"x": 1}'.encode("utf-16"),
    "a mark first": b'\xef\xbb\xbf{"x": 1}',
    "more behind": b'{"x": 1}{"x": 2}',
    "a comment": b'{"x": 1 /* one */}',
    "single quotes": b"{'x': 1}",
    "a comma too many": b'{"x": 1,}',
    "a control": b'{"x": "\n"}',
}


@pytest.mark.parametrize("path", VALID)
def test_what_is_no_json_is_refused_as_such(hostile, target, unharmed, path):
    for name, said in zip(BOMBS, sent(hostile, target, path, list(BOMBS.values())), strict=True):
        assert said.status == 400, (name, said)
        has_the_shape(path, said)
        assert "body" in said.error(), (name, said)
        assert len(said.body) < 1000


@pytest.mark.parametrize("path", VALID)
def test_an_error_is_short_however_long_the_body(hostile, target, unharmed, path):
    long = "x" * 10_000_000
    many = {f"{number:06}": 1 for number in range(100_000)}
    wrong = [VALID[path] | {name: long} for name in ("model", "input", "request_id", "stream")]
    found = sent(hostile, target, path, [*wrong, {"x": long}, many, VALID[path] | {long: 1}])
    for said in found:
        assert said.status in (200, 400, 404)
        assert said.status == 200 or len(said.body) < 2000


def test_of_a_name_that_is_there_twice_the_last_counts(hostile, target, unharmed):
    """As Python's, Go's and JavaScript's parsers have it, and so the instances behind."""
    body = json.dumps(hostile.ASKED).encode()
    (said,) = sent(hostile, target, CHAT, [body.replace(b"{", b'{"model": "nobody", ', 1)])
    assert said.status == 200


def test_whole_numbers_may_have_a_point(hostile, target, unharmed):
    """As in JSON Schema, and as some languages write them."""
    for path, name in ((CHAT, "max_tokens"), (RESPONSES, "max_output_tokens"), (MESSAGES, "max_tokens")):
        right, wrong = sent(hostile, target, path, [VALID[path] | {name: many} for many in (3.0, 3.5)])
        assert (right.status, wrong.status) == (200, 400)
    right, wrong = sent(
        hostile, target, TASKS, [{"input": "Due?", "max_tokens_out": many} for many in (3.0, 3.5)]
    )
    assert (right.json()["usage"]["tokens_out"], wrong.status) == (3, 400)


def test_feedback_heeds_the_header_that_names_a_repeat(hostile, target, unharmed):
    (task,) = sent(hostile, target, TASKS, [{"input": "Due?"}])
    given = {"request_id": task.json()["id"], "kind": "rating", "value": 5}
    bodies = [given, given, given | {"value": 1}]
    asked = [(hostile.post(each, "Idempotency-Key: k1", path=FEEDBACK),) for each in bodies]
    said = [hostile.conversations(target.port, [each])[0][0] for each in asked]
    assert [each.status for each in said] == [201, 200, 409]


def test_a_task_that_is_no_json_for_an_instance_is_refused(hostile, target, unharmed):
    """What passes through must be JSON behind too: finite numbers, whole characters, a hundred levels."""
    bad = [b"[NaN]", b"[1e999]", b"[" * 150 + b"]" * 150, b'["\\ud800"]', b"[" + b"9" * 5000 + b"]"]
    for said in sent(hostile, target, TASKS, [b'{"input": ' + each + b"}" for each in bad]):
        assert said.status == 400


@pytest.mark.parametrize("path", [CHAT, TASKS, FEEDBACK])
def test_a_body_is_plain_json_or_refused(hostile, target, unharmed, path):
    body = json.dumps(VALID[path])
    asked = [
        (hostile.post(body.encode(), "Content-Encoding: gzip", path=path),),
        (hostile.post(body.encode(), path=path).replace(b"application/json", b"text/plain"),),
        (hostile.post(body.encode(), path=path).replace(b"Content-Type", b"X-Type"),),
    ]
    for found in hostile.conversations(target.port, asked):
        assert [(each.status, each.headers["connection"]) for each in found] == [(415, "close")]
        has_the_shape(path, found[0])


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("X-Glowsim-Priority", ["", "10", "-1", "1.0", "²", "x"]),
        ("X-Glowsim-Deadline", ["", "0", "-1", "nan", "inf", "1e999", "soon", "0x1", "9" * 400]),
        ("X-Glowsim-Region", ["", "mars", "EU"]),
        ("X-Glowsim-Session", ["", "s" * 201]),
        ("X-Glowsim-Cache", ["", "yes", "TRUE", "1"]),
        ("Idempotency-Key", ["", "k" * 201]),
    ],
)
def test_headers_are_taken_as_they_should_be_or_refused_by_name(hostile, target, unharmed, name, bad):
    asked = [
        (hostile.post(body, f"{name}: {value}", path=path),)
        for value in bad
        for path, body in ((CHAT, hostile.ASKED), (TASKS, {"input": "Due?"}))
    ]
    for one, found in zip(asked, hostile.conversations(target.port, asked), strict=True):
        assert found[0].status == 400, one
        assert name in found[0].error(), one


TOKENS = "live: {tokens: {issuer: idp, audience: glowsim, algorithm: HS256, secret_env: JWT_SECRET}}\n"


def test_tokens_that_are_none_are_refused(hostile, tmp_path, monkeypatch, unharmed):
    import base64
    import hmac
    import time
    from hashlib import sha256

    secret = "a-secret-of-more-than-32-characters"
    monkeypatch.setenv("JWT_SECRET", secret)

    def coded(part):
        data = part if isinstance(part, bytes) else json.dumps(part).encode()
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    def signed(claims, head=None):
        said = f"{coded(head or {'alg': 'HS256'})}.{coded(claims)}"
        return f"{said}.{coded(hmac.new(secret.encode(), said.encode(), sha256).digest())}"

    good = {"iss": "idp", "aud": "glowsim", "sub": "ann", "tenant": "acme", "exp": int(time.time()) + 600}
    heads = [
        b"[" * 9000, b'{"alg":' + b"[" * 9000, {"alg": []}, {"alg": 7}, {"alg": "none"}, {"alg": "RS256"}, [], b"\xff",
        {"alg": "HS256", "kid": []}, {"alg": "HS256", "kid": "../../etc/passwd"}, {"alg": "HS256", "crit": ["x"]},
        b'{"alg": "HS256", "x": ' + b"9" * 5000 + b"}", {"alg": "HS256", "b64": False, "crit": ["b64"]},
    ]  # fmt: skip
    claims = [
        good | {"exp": 10**400}, good | {"exp": []}, good | {"exp": "soon"},
        good | {"exp": None},
        good | {"sub": 7}, good | {"sub": ""}, good | {"tenant": ["acme"]}, good | {"aud": {"glowsim": 1}},
        good | {"iss": ["idp"]}, good | {"nbf": 10**400}, good | {"iat": 10**400}, [], b"[" * 5000, b"{", b"\xff",
    ]  # fmt: skip
    tokens = [f"{coded(head)}.{coded(good)}.{coded(b'x' * 32)}" for head in heads]
    tokens += [signed(each) for each in claims]
    tokens += ["", ".", "..", "." * 5000, "a.b.c", "é.é.é", signed(good)[:-1], signed(good) + "A"]
    with hostile.running(
        tmp_path, hostile.TEXT + TOKENS, {"GLOWSIM_ADMIN_TOKEN": "admin-0123456789abc"}
    ) as target:
        asked = [
            (hostile.post(hostile.ASKED, f"Authorization: Bearer {each}"),)
            for each in [signed(good), *tokens]
        ]
        asked += [(hostile.post(hostile.ASKED, f"x-api-key: {each}"),) for each in tokens]
        (fine, _), *bad = hostile.conversations(target.port, asked)
        assert fine.status == 200
        for token, (said, _) in zip(tokens * 2, bad, strict=True):
            assert said.status == 401, (token[:200], said)
            has_the_shape(CHAT, said)
            assert said.headers["www-authenticate"] == "Bearer"
