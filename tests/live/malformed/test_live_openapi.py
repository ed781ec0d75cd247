"""The documents of both ports, held against a running daemon by schemathesis.

What a document allows is accepted, what it forbids is refused, every answer is one that it promises, keys are
asked for, and methods that it lacks are a 405. Agents and regions are given by name, for others are unknown.
"""

from __future__ import annotations

import json
import urllib.request
from copy import deepcopy
from http.server import BaseHTTPRequestHandler

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from loopback import threaded
from openapi_spec_validator import validate

import glowsim
from glowsim.live.admin_shapes import OPERATIONS as ADMIN_OPERATIONS
from glowsim.live.data_shapes import OPERATIONS as DATA_OPERATIONS
from glowsim.live.openapi import document

pytestmark = pytest.mark.usefixtures("_serving")

ANN, ADMIN = "ann-key-0123456789", "admin-0123456789abcdef"
CHAT = {
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 9, "completion_tokens": 1},
}
SAYS = {
    "/v1/chat/completions": (CHAT, ['{"choices": [{"index": 0, "delta": {"content": "yes"}}]}', "[DONE]"]),
    "/v1/responses": (
        {"output": [], "usage": {"input_tokens": 9, "output_tokens": 1}},
        [
            '{"type": "response.output_text.delta", "delta": "yes"}',
            '{"type": "response.completed", "response": {}}',
        ],
    ),
    "/v1/messages": (
        {"type": "message", "content": [], "usage": {"input_tokens": 9, "output_tokens": 1}},
        ['{"type": "content_block_delta", "delta": {"text": "yes"}}', '{"type": "message_stop"}'],
    ),
    "/v1/embeddings": ({"data": [], "usage": {"prompt_tokens": 9}}, []),
}


class _Speaks(BaseHTTPRequestHandler):
    """An instance that speaks every protocol, and says yes."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        whole, events = SAYS[self.path]
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        streams = asked.get("stream") is True
        data = "".join(f"data: {each}\n\n" for each in events) if streams else json.dumps(whole)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream" if streams else "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data.encode())

    def log_message(self, *given):
        pass


@pytest.fixture(scope="module")
def target(hostile, tmp_path_factory):
    """A daemon whose agent ``tax`` is an instance that takes every protocol; ``own`` is emulated."""
    own = "  - {agent: own, model: m, instances: 1, concurrency: 99, service: {law: time, time: 1ms}}\nworkload:"
    with threaded(_Speaks) as url:
        tax = {
            "adapter": "openai_http",
            "urls": [url],
            "speaks": ["chat", "responses", "messages", "embeddings"],
        }
        text = hostile.TEXT.replace("workload:", own) + json.dumps({"live": {"agents": {"tax": tax}}})[1:-1]
        environment = {"GLOWSIM_KEYS": f"ann@acme:{ANN}", "GLOWSIM_ADMIN_TOKEN": ADMIN}
        with hostile.running(tmp_path_factory.mktemp("openapi"), text, environment, keep_text=True) as found:
            yield found


def _named(schema, **names):
    """Have a document's free names taken from lists; a deadline may pass, and is tested elsewhere."""
    bodies = [each for name, each in schema["components"]["schemas"].items() if name.endswith("Body")]
    for body in bodies:
        body["properties"]["model"]["enum"] = names["agent"]
    for path in schema["paths"].values():
        for one in path.values():
            one["parameters"] = [each for each in one["parameters"] if each["name"] != "X-Glowsim-Deadline"]
            for each in one["parameters"]:
                if each["name"] in names:
                    each["schema"]["enum"] = names[each["name"]]
    return schema


def doubted(described, examples, **names):
    """Return a document for schemathesis to doubt, always by the same examples; more headers than it has are fine."""
    found = schemathesis.openapi.from_dict(_named(deepcopy(described), **names))
    generation = found.config.generation
    generation.update(
        max_examples=examples, deterministic=True, database="none", allow_extra_parameters=False
    )
    return found


ADMIN_DOCUMENT = document("glowsim admin API", glowsim.__version__, ADMIN_OPERATIONS)
DATA_DOCUMENT = document("glowsim", glowsim.__version__, DATA_OPERATIONS, key_header="x-api-key")
ADMIN_NAMES = {"agent": ["tax", "own"]}
DATA_NAMES = {"agent": ["tax"], "X-Glowsim-Region": ["eu", "us"]}
A_FEW, MANY = 10, 200
patient = settings(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def asked_of_admin(case, target):
    case.call_and_validate(base_url=target.admin_address, headers={"Authorization": f"Bearer {ADMIN}"})


def asked_of_data(case, target):
    case.call_and_validate(base_url=target.address, headers={"Authorization": f"Bearer {ANN}"})


@doubted(ADMIN_DOCUMENT, A_FEW, **ADMIN_NAMES).parametrize()
@patient
def test_the_admins_side_is_as_it_says(case, target):
    asked_of_admin(case, target)


@doubted(DATA_DOCUMENT, A_FEW, **DATA_NAMES).parametrize()
@patient
def test_the_data_plane_is_as_it_says(case, target):
    asked_of_data(case, target)


@pytest.mark.campaign
@doubted(ADMIN_DOCUMENT, MANY, **ADMIN_NAMES).parametrize()
@patient
def test_the_admins_side_is_as_it_says_many_times(case, target):
    asked_of_admin(case, target)


@pytest.mark.campaign
@doubted(DATA_DOCUMENT, MANY, **DATA_NAMES).parametrize()
@patient
def test_the_data_plane_is_as_it_says_many_times(case, target):
    asked_of_data(case, target)


def test_the_documents_are_served_and_valid(target):
    """By openapi-spec-validator, against the published schema of OpenAPI 3.1."""
    for address, key, known in (
        (target.admin_address, ADMIN, ADMIN_DOCUMENT),
        (target.address, ANN, DATA_DOCUMENT),
    ):
        request = urllib.request.Request(
            f"{address}/openapi.json", headers={"Authorization": f"Bearer {key}"}
        )
        with urllib.request.urlopen(request) as response:
            assert json.load(response) == known
        validate(known)
