"""The benchmark of the gateway: what it measures beside it, and what it says of what is not there."""

from __future__ import annotations

import json
import sys

import pytest

from glowsim.core.errors import GlowsimError

pytestmark = pytest.mark.usefixtures("_serving")

STAND_IN = f"""#!{sys.executable}
'''Takes LiteLLM's options and its configuration, and passes everything on.'''
import sys
from aiohttp import web
from glowsim import bench_gateway
from ruamel.yaml import YAML

given = dict(zip(sys.argv[1::2], sys.argv[2::2]))
(model,) = YAML(typ="safe").load(open(given["--config"]))["model_list"]
assert model["model_name"] == "only" and model["litellm_params"]["model"] == "openai/m"
assert given["--num_workers"] == "1"
app = bench_gateway._proxy(model["litellm_params"]["api_base"].removesuffix("/v1"))

async def lives(request):
    return web.Response()

app.router.add_get("/health/liveliness", lives)
web.run_app(app, host=given["--host"], port=int(given["--port"]), print=None)
"""


@pytest.fixture
def peer(tmp_path):
    """A stand-in for LiteLLM's executable, in an environment of its own."""
    executable = tmp_path / "litellm"
    executable.write_text(STAND_IN)
    executable.chmod(0o755)
    (tmp_path / "python").symlink_to(sys.executable)
    return executable


def test_a_peer_is_measured_as_the_gateway_is(peer, monkeypatch):
    from glowsim import bench_gateway as bench

    monkeypatch.setattr(bench, "_versions", lambda peer: {"litellm": "0"})
    monkeypatch.setattr(
        bench, "_gateway", lambda folder, agent: bench._process("proxy", agent)
    )  # starts sooner
    figures = bench.bench_gateway(rounds=1, clients=2, seconds=0.2, rate_per_s=20.0, peer=peer)
    assert json.loads(json.dumps(figures)) == figures
    assert figures["versions"] == {"litellm": "0"}
    ours, its = figures["gateway"], figures["litellm"]
    assert ours.keys() == its.keys()
    assert min(its.values()) > 0.0
    assert figures["ratios"]["of_litellm"] == ours["requests_per_s"] / its["requests_per_s"]
    assert figures["ratios"]["cpu_of_litellm"] == its["cpu_us"] / ours["cpu_us"]


def test_an_environment_that_lacks_something_is_told_of_before_anything_runs(peer, tmp_path):
    from glowsim import bench_gateway as bench

    with pytest.raises(GlowsimError, match=r"lacks litellm, .*: install 'litellm\[proxy\]'"):
        bench.bench_gateway(peer=peer)
    (tmp_path / "python").unlink()
    with pytest.raises(GlowsimError, match="has no Python beside it"):
        bench.bench_gateway(peer=peer)


def test_a_peer_that_does_not_serve_is_an_error_with_its_last_words(peer, tmp_path):
    from glowsim import bench_gateway as bench

    peer.write_text(f"#!{sys.executable}\nraise SystemExit('no master key')\n")
    with pytest.raises(GlowsimError, match="did not serve; its last words:\nno master key"), bench._litellm(
        peer, tmp_path, "http://127.0.0.1:1"
    ):  # fmt: skip
        pass
