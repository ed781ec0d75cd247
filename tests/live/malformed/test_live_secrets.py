"""Whatever fails and however loud the log is: no key, no token and nothing that was asked is found anywhere."""

from __future__ import annotations

import http.client
import json
import logging
import socket
import time
from http.server import BaseHTTPRequestHandler

import pytest
from loopback import threaded

pytestmark = pytest.mark.usefixtures("_serving")

ANN, BOB, ADMIN = "ann-key-S3CRET-0123", "bob-key-S3CRET-0123", "admin-S3CRET-token-0123"
UPSTREAM, SIGNING = "upstream-S3CRET-key-0123", "signing-S3CRET-of-32-characters-or-more"
SECRETS = (ANN, BOB, ADMIN, UPSTREAM, SIGNING)
PROMPT = "Is Zacharias Quillfeather liable for VAT?"
FUNCTIONS = """
async def raises(call):
    raise ValueError(f"cannot answer {call.task}")

async def breaks(call):
    yield "so"
    raise KeyError(f"cannot go on with {call.task}")

async def chained(call):
    try:
        raise ValueError(f"cannot answer {call.task}")
    except ValueError as error:
        raise RuntimeError(str(call)) from error

async def odd(call):
    return {call.task.asked.body["messages"][0]["content"]}
"""


class _Echo(BaseHTTPRequestHandler):
    """Answers with the status that the model's name says, and repeats all that it was sent."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        said = f"{self.headers} {body.decode()} {self.headers['Authorization']}"
        how = json.loads(body)["messages"][-1]["content"].rpartition(" ")[2]
        error = json.dumps({"error": {"message": said, "type": "x"}})
        match how:
            case "garbage":
                self.answer(200, said)
            case "error":
                self.answer(200, error)
            case "stream":
                self.answer(200, f"data: {error}\n\n", "text/event-stream")
            case "noise":
                self.answer(200, f"data: {said}\n\n", "text/event-stream")
            case "moved":
                self.answer(302, "", location=f"http://127.0.0.1:1/?key={UPSTREAM}")
            case _:
                self.answer(int(how), error)

    def answer(self, status, said, kind="application/json", location=None):
        data = said.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        if location:
            self.send_header("Location", location)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *given):
        pass


def test_no_secret_and_no_prompt_is_found_anywhere(hostile, tmp_path, monkeypatch, caplog):
    import jwt

    (tmp_path / "spilling_agents.py").write_text(FUNCTIONS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("UPSTREAM_KEY", UPSTREAM)
    monkeypatch.setenv("SIGNING_KEY", SIGNING)
    now_s = int(time.time())
    claims = {"iss": "idp", "aud": "glowsim", "sub": "ann", "tenant": "acme", "exp": now_s + 600}
    token, stale = (
        jwt.encode(claims | {"exp": now_s + at}, SIGNING, algorithm="HS256") for at in (600, -600)
    )
    names = ("raises", "breaks", "chained", "odd")
    fleet = ", instances: 1, concurrency: 10, timeout: 5s, service: {law: time, time: 1ms}}\n"
    text = hostile.TEXT.replace(
        "workload:",
        "".join(f"  - {{agent: {name}, model: m{fleet}" for name in (*names, "echo", "gone")) + "workload:",
    )
    agents = {name: {"adapter": "callable", "use": f"spilling_agents:{name}"} for name in names}
    answered, asked = [], []

    def ask(port, path, body=None, *headers, method="POST"):
        asked.append(path)
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=20.0)
        said = {"Content-Type": "application/json", **dict(headers)}
        client.request(method, path, None if body is None else json.dumps(body), said)
        response = client.getresponse()
        data = response.read()
        answered.append((path, str(response.getheaders()).encode() + data))
        client.close()
        return response.status, data

    def bearer(key):
        return "Authorization", f"Bearer {key}"

    caplog.set_level(1)
    environment = {"GLOWSIM_KEYS": f"ann@acme:{ANN},bob@beta:{BOB}", "GLOWSIM_ADMIN_TOKEN": ADMIN}
    with threaded(_Echo) as url, socket.create_server(("127.0.0.1", 0)) as nobody:
        reached = {"adapter": "openai_http", "key_env": "UPSTREAM_KEY"}
        agents["echo"] = reached | {"urls": [url]}
        agents["gone"] = reached | {"urls": [f"http://127.0.0.1:{nobody.getsockname()[1]}"]}
        live = {"agents": agents, "tokens": {"issuer": "idp", "audience": "glowsim", "algorithm": "HS256"}}
        live["tokens"]["secret_env"] = "SIGNING_KEY"
        with hostile.running(
            tmp_path, text + json.dumps({"live": live})[1:-1], environment, allow_plugins=True
        ) as target:
            nobody.close()
            data, admin = target.port, target.admin_port
            chat, hows = (
                "/v1/chat/completions",
                "400 401 403 404 413 422 429 500 503 garbage error stream noise moved",
            )

            def body(agent, how="", **more):
                said = [{"role": "user", "content": f"{PROMPT} {how}".strip()}]
                return {"model": agent, "messages": said, "max_tokens": 9} | more

            for how in hows.split():
                for stream in (False, True):
                    ask(data, chat, body("echo", how, stream=stream), bearer(ANN))
                ask(data, "/v1/messages", body("echo", how), ("x-api-key", BOB))
            for agent in (*names, "gone", "tax"):
                for stream in (False, True):
                    ask(data, chat, body(agent, stream=stream), bearer(token))
                ask(data, f"/v1/agents/{agent}/tasks", {"input": PROMPT}, bearer(ANN))
            for key in (ANN[:-1], ANN + "0", ADMIN, UPSTREAM, SIGNING, stale, token[:-3]):
                assert ask(data, chat, body("tax"), bearer(key))[0] == 401
                assert ask(data, f"{chat}?key={key}&api_key={ANN}", body("tax"))[0] == 401
                assert ask(data, f"/v1/models/{key}?key={key}", None, method="GET")[0] == 401
                assert ask(admin, "/v1/agents", None, bearer(key[:-1]), method="GET")[0] == 401
                assert ask(admin, f"/state?token={ADMIN}", None, method="GET")[0] == 401
            ask(data, chat, body(PROMPT), bearer(ANN))
            ask(data, chat, body("tax", n=PROMPT), bearer(ANN))
            ask(data, "/v1/agents/tax/tasks", {"input": PROMPT, "max_tokens_out": PROMPT}, bearer(ANN))
            ask(data, chat, body("tax", user=PROMPT), bearer(ANN), ("X-Glowsim-Session", PROMPT))
            ask(data, chat, body("tax"), bearer(ANN), ("Idempotency-Key", PROMPT), ("traceparent", ADMIN))
            said = {"request_id": 1, "kind": "complaint", "text": PROMPT}
            assert ask(data, "/v1/feedback", said, bearer(ANN))[0] == 400
            assert ask(admin, "/v1/feedback", said | {"kind": PROMPT}, bearer(ADMIN))[0] == 400
            for path in (
                "/v1/agents", "/v1/agents/echo", "/v1/agents/echo/history", "/v1/rollouts", "/v1/budgets",
                "/v1/journal", "/v1/audit", "/v1/feedback", "/v1/dashboard", "/metrics",
                "/state", "/journal", "/openapi.json", "/",
            ):  # fmt: skip
                assert ask(admin, path, None, bearer(ADMIN), method="GET")[0] == 200, path
    logged = [logging.Formatter("%(message)s").format(each) + repr(each.args) for each in caplog.records]
    assert any("raised" in each for each in logged), "the log has something to say"
    for line in logged:
        assert not any(secret in line for secret in (*SECRETS, token, stale, PROMPT)), line
    written = [each for each in tmp_path.rglob("*") if each.is_file() and "fleet." in str(each)]
    assert len(written) >= 2, "the journal and the store"
    for file in written:
        held = file.read_bytes()
        assert not any(secret.encode() in held for secret in (*SECRETS, token, stale, PROMPT)), file.name
    for path, said in answered:
        spared = () if path.startswith(("/v1/chat", "/v1/messages", "/v1/agents/")) else (PROMPT,)
        for secret in (*SECRETS, token, stale, *spared):
            assert secret.encode() not in said or secret in path, (path, said[:3000])
